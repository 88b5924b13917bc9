"""A transposed convolution is a convolution for every phase of its stride.

    %y = conv_transpose(%x: f32[1, C, 28, 28], %w: f32[C, O, 4, 4], strides=[2, 2], pads=[1, 1, 1, 1])

    %a = conv(%x, %w2: f32[2*2*O, C, 2, 2], pads=[1, 1, 1, 1])          f32[1, 2*2*O, 29, 29]
    %b = transpose(reshape(%a), ...)                                    f32[1, O, 29, 2, 29, 2]
    %y = slice(reshape(%b), starts=[0, 0, 1, 1])                        f32[1, O, 56, 56]

Result t + s*q, before it is cropped, is sum_m x[q - m] w[s*m + t]: as many sums over windows of ceil(k / s) elements as
there are phases t, all over the same windows, so that one convolution computes them side by side. Where k is no multiple of
s, some weights are zero; even so less is computed than by asking of every element whether it contributes. At stride one
the single phase is the convolution with the mirrored filters; with kernel = stride it is a pointwise one, a product of
matrices.
"""

from __future__ import annotations

from itertools import product as points
from typing import Any

import numpy as np

from tensorlang.graph.ir import Graph, Node, Value
from tensorlang.graph.passes.context import Context, subject_of
from tensorlang.graph.passes.rules import simplify_node
from tensorlang.graph.passes.shape_ops import reshape, transpose
from tensorlang.graph.rewrite import Rewriter, array_of, rewrite


def phases(graph: Graph, context: Context | None = None) -> Graph:
    """Turn transposed convolutions with constant filters into convolutions."""
    context = context or Context()
    if context.options.layout != "NHWC" or not context.options.flatten:
        return graph

    def rule(rw: Rewriter, node: Node) -> Value | list[Value] | None:
        if not _has_phases(node):
            return simplify_node(rw, node, context.options.fold_limit)
        context.note(subject_of(node), "its phases are convolutions of the same windows")
        return _as_convolution(rw, node)

    return rewrite(graph, rule)


def _has_phases(node: Node) -> bool:
    if node.op != "conv_transpose" or node.attrs.get("layout", "NCHW") != "NCHW" or not node.inputs[1].is_constant:
        return False
    pads = node.attrs["pads"]
    if not all(isinstance(p, int) for p in pads):
        return False
    if any(s > 1 and d > 1 for s, d in zip(node.attrs["strides"], node.attrs["dilations"], strict=True)):
        return False  # the taps of a phase are not evenly apart
    return all(p >= 0 for axis in range(node.inputs[0].type.ndim - 2) for p in _pads(node, axis))


def _pads(node: Node, axis: int) -> tuple[int, int]:
    """Zeros before and after the image along a spatial axis, for all its phases."""
    kernel, stride = node.inputs[1].type.static_shape[2 + axis], node.attrs["strides"][axis]
    begin, end = node.attrs["pads"][axis], node.attrs["pads"][axis + node.inputs[0].type.ndim - 2]
    reach = (kernel - 1) * node.attrs["dilations"][axis]
    if stride == 1:
        return reach - begin, reach - end + node.attrs["output_padding"][axis]
    return -(-kernel // stride) - 1, (node.attrs["output_padding"][axis] + reach - end) // stride


def _filters(weight: np.ndarray, strides: tuple[int, ...], group: int) -> np.ndarray:
    """[in, out / group, kernel...] to [group * phases * out / group, in / group, taps...]."""
    channels, filters, *kernel = weight.shape
    taps = [-(-k // s) for k, s in zip(kernel, strides, strict=True)]
    grouped = weight.reshape(group, channels // group, filters, *kernel)
    out = np.zeros((group, *strides, filters, channels // group, *taps), weight.dtype)
    for phase in points(*(range(s) for s in strides)):
        every: tuple[Any, ...] = (slice(None),) * 3  # group, inputs and outputs
        taken = grouped[every + tuple(slice(t, None, s) for t, s in zip(phase, strides, strict=True))]
        part = np.moveaxis(taken, 2, 1)
        mirrored = part[every + (slice(None, None, -1),) * len(kernel)]
        place: tuple[Any, ...] = (slice(None), *phase, slice(None), slice(None))
        out[place + tuple(slice(n - size, None) for n, size in zip(taps, part.shape[3:], strict=True))] = mirrored
    return out.reshape(-1, channels // group, *taps)


def _as_convolution(rw: Rewriter, node: Node) -> Value:
    x, weight = node.inputs[:2]
    group, strides = node.attrs.get("group", 1), tuple(node.attrs["strides"])
    filters, spatial, count = weight.type.static_shape[1], len(strides), int(np.prod(strides))
    pads = [_pads(node, axis) for axis in range(spatial)]
    inputs = [x, rw.constant(_filters(array_of(weight), strides, group), weight.name)]
    if len(node.inputs) > 2:
        bias = array_of(node.inputs[2]) if node.inputs[2].is_constant else None
        if bias is not None:
            per_phase = np.broadcast_to(bias.reshape(group, 1, filters), (group, count, filters))
            inputs.append(rw.constant(np.ascontiguousarray(per_phase).reshape(-1), node.inputs[2].name))
    attrs = {
        "strides": (1,) * spatial, "dilations": tuple(node.attrs["dilations"]), "group": group,
        "pads": (*(begin for begin, _ in pads), *(end for _, end in pads)),
    }  # fmt: skip
    y = rw.add("conv", inputs, attrs, node)
    y = _interleave(rw, y, node, group, strides, filters) if count > 1 else y
    if len(node.inputs) > len(inputs):
        y = rw.add("add", [y, reshape(rw, node.inputs[2], [group * filters, *[1] * spatial], node)], {}, node)
    return y


def _interleave(rw: Rewriter, y: Value, node: Node, group: int, strides: tuple[int, ...], filters: int) -> Value:
    """[n, group * phases * filters, sizes...] to [n, group * filters, sizes * strides...], cropped as the node's result."""
    spatial = len(strides)
    n, _, *sizes = y.shape
    apart = reshape(rw, y, [n, group, *strides, filters, *sizes], node)
    pairs = [a for i in range(spatial) for a in (3 + spatial + i, 2 + i)]
    grown = [size * s for size, s in zip(sizes, strides, strict=True)]
    whole = reshape(rw, transpose(rw, apart, (0, 1, 2 + spatial, *pairs), node), [n, group * filters, *grown], node)
    begins = [0 if s == 1 else node.attrs["pads"][axis] for axis, s in enumerate(strides)]
    attrs = {"starts": (0, 0, *begins), "shape": node.output.shape, "steps": (1,) * (2 + spatial)}
    return rw.add("slice", [whole], attrs, node)
