"""A convolution whose windows tile its input is a product of matrices: no element is read twice.

    %y = conv(%x: f32[1, C, 224, 224], %w: f32[O, C, 16, 16], strides=[16, 16])

    %a = reshape(%x, shape=[1, C, 14, 16, 14, 16])
    %b = transpose(%a, perm=[0, 2, 4, 1, 3, 5])
    %c = reshape(%b, shape=[1, 14, 14, C*16*16])
    %d = matmul(%c, %w2: f32[C*16*16, O])                    + bias
    %y = transpose(%d, perm=[0, 3, 1, 2])

These are the patch embeddings of vision transformers and the downsampling layers of ConvNeXt and Swin.
"""

from __future__ import annotations

import numpy as np

from tensorlang.graph.ir import Graph, Node, Value
from tensorlang.graph.ops.common import canonical, product
from tensorlang.graph.passes.context import Context, subject_of
from tensorlang.graph.passes.rules import simplify_node
from tensorlang.graph.passes.shape_ops import reshape, transpose
from tensorlang.graph.rewrite import Rewriter, array_of, rewrite
from tensorlang.ir.expr import floordiv, floormod


def patches(graph: Graph, context: Context | None = None) -> Graph:
    """Turn convolutions with windows that neither overlap nor leave anything out into products."""
    context = context or Context()
    if context.options.layout != "NHWC" or not context.options.flatten:
        return graph

    def rule(rw: Rewriter, node: Node) -> Value | list[Value] | None:
        if not _tiles(node):
            return simplify_node(rw, node, context.options.fold_limit)
        context.note(subject_of(node), "its windows tile the image: a product of matrices")
        return _as_product(rw, node)

    return rewrite(graph, rule)


def _tiles(node: Node) -> bool:
    if node.op != "conv" or node.attrs.get("layout", "NCHW") != "NCHW":
        return False
    if not node.inputs[1].is_constant:
        return False
    kernel = node.inputs[1].type.static_shape[2:]
    if any(k == 1 for k in kernel) or tuple(node.attrs["strides"]) != kernel or node.attrs.get("group", 1) != 1:
        return False
    if any(p != 0 for p in node.attrs["pads"]) or any(d != 1 for d in node.attrs["dilations"]):
        return False
    whole = [canonical(floormod(size, k)) for size, k in zip(node.inputs[0].shape[2:], kernel, strict=True)]
    return all(rest.op == "const" and rest.value == 0 for rest in whole)


def _as_product(rw: Rewriter, node: Node) -> Value:
    x, weight = node.inputs[0], array_of(node.inputs[1])
    n, c, *sizes = x.shape
    kernel = weight.shape[2:]
    spatial = len(kernel)
    counts = [canonical(floordiv(size, k)) for size, k in zip(sizes, kernel, strict=True)]
    split = [n, c, *(d for pair in zip(counts, kernel, strict=True) for d in pair)]
    moved = (0, *range(2, 2 + 2 * spatial, 2), 1, *range(3, 3 + 2 * spatial, 2))
    columns = transpose(rw, reshape(rw, x, split, node), moved, node)
    columns = reshape(rw, columns, [n, *counts, product([c, *kernel])], node)
    matrix = np.ascontiguousarray(weight.reshape(weight.shape[0], -1).T)
    y = rw.add("matmul", [columns, rw.constant(matrix, node.inputs[1].name)], {}, node)
    if len(node.inputs) > 2:
        y = rw.add("add", [y, node.inputs[2]], {}, node)
    return transpose(rw, y, (0, spatial + 1, *range(1, spatial + 1)), node)
