"""A convolution in groups of a few channels as one in fewer, larger groups, some of whose weights are zero.

    %y = conv(%x: f32[1, 128, 56, 56], %w: f32[128, 4, 3, 3], group=32)        4 results to 4 channels

    %y = conv(%x, %w2: f32[128, 16, 3, 3], group=8)                           16 results to 16 channels, 12 by zeros

A vector register holds many results side by side, which must read the same channels. A group with fewer results than a
register has lanes costs as many multiplications as one that fills it: the zeros are free. As with any product by zero, an
infinity or NaN in a channel reaches the results of the groups merged with its own.
"""

from __future__ import annotations

import numpy as np

from tensorlang.graph.ir import Graph, Node, Value
from tensorlang.graph.passes.context import Context, subject_of
from tensorlang.graph.passes.rules import simplify_node
from tensorlang.graph.rewrite import Rewriter, array_of, rewrite


def merge_groups(graph: Graph, context: Context | None = None) -> Graph:
    """Merge groups until their results fill a vector register."""
    context = context or Context()
    if context.options.layout != "NHWC" or not context.options.flatten:
        return graph

    def rule(rw: Rewriter, node: Node) -> Value | list[Value] | None:
        times = _times(node, context.options.lanes)
        if times == 1:
            return simplify_node(rw, node, context.options.fold_limit)
        group = node.attrs["group"] // times
        context.note(subject_of(node), f"{times} groups merged into one, {group} in all: their results fill a register")
        weight = rw.constant(_merged(array_of(node.inputs[1]), node.attrs["group"], times), node.inputs[1].name)
        return rw.add("conv", [node.inputs[0], weight, *node.inputs[2:]], dict(node.attrs, group=group), node)

    return rewrite(graph, rule)


def _times(node: Node, lanes: int) -> int:
    """How many groups become one: the most whose results fit a register."""
    if node.op != "conv" or node.attrs.get("layout", "NCHW") != "NCHW" or not node.inputs[1].is_constant:
        return 1
    weight, group = node.inputs[1], node.attrs.get("group", 1)
    results, channels = weight.type.static_shape[0] // group, weight.type.static_shape[1]
    if weight.dtype.name != "f32" or group == 1 or results == channels == 1:
        return 1  # whole, of bytes (other rules), or depthwise, whose channels lie in the lanes themselves
    return max(n for n in range(1, group + 1) if group % n == 0 and (n == 1 or n * results <= lanes))


def _merged(weight: np.ndarray, group: int, times: int) -> np.ndarray:
    """[group * o, i, kernel...] to [group * o, times * i, kernel...], block-diagonal."""
    total, channels, *kernel = weight.shape
    results = total // group
    blocks = np.zeros((group // times, times, results, times, channels, *kernel), weight.dtype)
    apart = weight.reshape(group // times, times, results, channels, *kernel)
    for n in range(times):
        blocks[:, n, :, n] = apart[:, n]
    return blocks.reshape(total, times * channels, *kernel)
