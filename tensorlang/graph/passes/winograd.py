"""3x3 convolutions at stride one as a transform, a batch of matrix products, and a transform back.

    %y = conv(%x: f32[1, 56, 56, 64], %w: f32[3, 3, 64, 64], %b, pads=[1, 1, 1, 1], layout=NHWC)

    %v = winograd_input(%x, m=4, pads=[1, 1, 1, 1])                f32[6, 6, 1, 14, 14, 64]
    %p = matmul(reshape(%v), %u: f32[36, 64, 64])                  f32[36, 196, 64]
    %y = winograd_output(reshape(%p), %b, m=4, height=56, width=56)

Whether it pays is a matter of sizes: there are (m + 2)^2 / m^2 products per result instead of 9, but tiles that stick out of
the image are computed whole, data moves through memory twice more, and the filters grow (m + 2)^2 / 9 times: with few
results per filter reading them is what costs. The estimate below counts these; `Options.winograd` is the switch.
"""

from __future__ import annotations

from math import ceil

from tensorlang.graph.ir import Graph, Node, Value
from tensorlang.graph.ops.winograd import POINTS, TAPS, filters
from tensorlang.graph.passes.context import Context, subject_of
from tensorlang.graph.passes.rules import simplify_node
from tensorlang.graph.passes.shape_ops import reshape
from tensorlang.graph.registry import as_ints
from tensorlang.graph.rewrite import Rewriter, array_of, rewrite

# What moving a byte, and reading one of filters, costs: in multiply-adds that vector units do meanwhile.
PER_BYTE = 4.0
PER_FILTER_BYTE = 4.0
DIRECT_RATE, BATCHED_RATE = 0.65, 0.6  # of the machine's peak: a direct convolution, products of small matrices
LEAST_GAIN = 1.1


def winograd(graph: Graph, context: Context | None = None) -> Graph:
    """Rewrite the convolutions that gain by it."""
    context = context or Context()
    if not context.options.winograd:
        return graph

    def rule(rw: Rewriter, node: Node) -> Value | list[Value] | None:
        m = best_tile(node) if _fits(node) else 0
        if not m:
            return simplify_node(rw, node, context.options.fold_limit)
        fewer = (TAPS * m) ** 2 / (m + 2) ** 2
        context.note(subject_of(node), f"by Winograd's F({m}x{m}, 3x3): {fewer:.3g} times fewer products")
        return _as_products(rw, node, m)

    return rewrite(graph, rule)


def _fits(node: Node) -> bool:
    if node.op != "conv" or node.attrs.get("layout") != "NHWC" or node.attrs.get("group", 1) != 1:
        return False
    weight = node.inputs[1]
    if not weight.is_constant or weight.dtype.name != "f32" or weight.type.static_shape[:-2] != (TAPS, TAPS):
        return False
    plain = all(s == 1 for s in (*node.attrs["strides"], *node.attrs["dilations"]))
    pads = node.attrs["pads"]
    return plain and all(isinstance(p, int) or p.op == "const" for p in pads) and as_ints(node.inputs[0].shape) is not None


def best_tile(node: Node) -> int:
    """The m of the fastest F(m x m, 3x3) by estimate, or 0 where the direct convolution is as fast."""
    batch, height, width, filters_ = as_ints(node.output.shape) or (0, 0, 0, 0)
    channels = node.inputs[1].type.static_shape[2]
    results = batch * height * width
    best = results * TAPS**2 * channels * filters_ / DIRECT_RATE + 4 * TAPS**2 * channels * filters_ * PER_FILTER_BYTE
    found = 0
    for m in POINTS:
        per_element = batch * ceil(height / m) * ceil(width / m)
        products = (m + 2) ** 2 * per_element * channels * filters_
        moved = 4 * (results * (channels + filters_) + 2 * (m + 2) ** 2 * per_element * (channels + filters_))
        read = 4 * (m + 2) ** 2 * channels * filters_
        cost = products / BATCHED_RATE + moved * PER_BYTE + read * PER_FILTER_BYTE
        if cost * LEAST_GAIN < best:  # larger tiles have larger rounding errors: for little they are not taken
            best, found = cost, m
    return found


def _as_products(rw: Rewriter, node: Node, m: int) -> Value:
    x, weight = node.inputs[:2]
    _, height, width, out_channels = node.output.shape
    v = rw.add("winograd_input", [x], {"m": m, "pads": tuple(node.attrs["pads"])}, node)
    size, _, *counts, channels = as_ints(v.shape) or ()
    rows = counts[0] * counts[1] * counts[2]
    u = rw.constant(filters(array_of(weight), m), weight.name)
    products = rw.add("matmul", [reshape(rw, v, [size * size, rows, channels], node), u], {}, node)
    back = reshape(rw, products, [size, size, *counts, out_channels], node)
    return rw.add("winograd_output", [back, *node.inputs[2:]], {"m": m, "height": height, "width": width}, node)
