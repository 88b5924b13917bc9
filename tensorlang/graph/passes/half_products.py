"""Products by weights of bf16 numbers, added up in f32, for machines that have an instruction for them.

    %y = matmul(%x: f32[M, K], %w: f32[K, N])     ->     %a = cast(%x, bf16)
                                                         %y = matmul(%a, bf16 %w, out=f32)         f32[M, N]

Each operand is rounded once, to 8 bits of mantissa (relative error at most 2^-9); products are exact in f32, and sums are
f32's. The error of a result is that of its operands' rounding: about 2^-9 of the largest product times the root of their
number. All else stays f32, and so do products of two values that are computed (attention), convolutions by group, and weights
too small to fill a vector.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np

from tensorlang.graph.ir import Graph, Node, Value
from tensorlang.graph.passes.context import Context, subject_of
from tensorlang.graph.passes.half_lines import by_lines, has_few_channels
from tensorlang.graph.registry import as_ints
from tensorlang.graph.rewrite import Rewriter, array_of, producer, rewrite
from tensorlang.ir.dtype import f32

STEP = 2  # numbers that one instruction multiplies and adds
LEAST_COLUMNS = 8  # fewer columns leave most of a vector unused


def half_products(graph: Graph, context: Context | None = None) -> Graph:
    """Round the operands of products by constant weights to bf16; last of all, when every product has its final form."""
    context = context or Context()
    if not context.options.halves:
        return graph

    def rule(rw: Rewriter, node: Node) -> Value | None:
        if node.op == "conv" and has_few_channels(node):
            context.note(subject_of(node), "a line of the image is one axis, on which a window is a run of numbers")
            image = rounded(rw, node.inputs[0], node)
            return by_lines(rw, node, image)
        if node.op not in ("matmul", "conv") or not _fits(node):
            return None
        context.note(subject_of(node), "a product of bf16 numbers, added up in f32")
        a = rounded(rw, node.inputs[0], node)
        weight = array_of(node.inputs[1])
        b = rw.constant(np.ascontiguousarray(weight.astype(ml_dtypes.bfloat16)), node.inputs[1].name)
        return rw.add(node.op, [a, b, *node.inputs[2:]], {**node.attrs, "out": "f32"}, node)

    return rewrite(graph, rule)


def rounded(rw: Rewriter, value: Value, node: Node) -> Value:
    """`value` as bf16 numbers, rounded where it is computed rather than where it is seen in another shape."""
    if (view := producer(value, "reshape")) is not None:
        return rw.add("reshape", [rounded(rw, view.inputs[0], node), *view.inputs[1:]], view.attrs, view)
    return rw.add("cast", [value], {"dtype": "bf16"}, node)


def _fits(node: Node) -> bool:
    x, weight = node.inputs[:2]
    shape = as_ints(weight.shape)
    if not weight.is_constant or shape is None or x.dtype != f32 or weight.dtype != f32 or 0 in shape:
        return False
    if node.op == "matmul":
        return len(shape) == 2 and x.type.ndim >= 2 and shape[0] % STEP == 0 and shape[1] >= LEAST_COLUMNS
    last = node.attrs.get("layout", "NCHW") == "NHWC" and node.attrs.get("group", 1) == 1 and len(shape) == x.type.ndim
    return last and shape[-2] % STEP == 0 and shape[-1] >= LEAST_COLUMNS
