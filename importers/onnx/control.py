"""Control flow that is decided while importing: `If` on a known condition, `Loop` of known, small length."""

from __future__ import annotations

import numpy as np

from tensorlang.graph import Value

from .node import OnnxNode
from .registry import onnx_op

UNROLL_LIMIT = 32  # iterations


@onnx_op("If")
def if_(node: OnnxNode) -> Value | tuple[Value, ...]:
    condition = node.known_or_none(0)
    if condition is None or condition.size != 1:
        raise node.unsupported("the condition is computed at run time")
    branch = node.attr("then_branch") if bool(condition.reshape(())) else node.attr("else_branch")
    return tuple(node.subgraph(branch, []))


@onnx_op("Loop")
def loop(node: OnnxNode) -> Value | tuple[Value, ...]:
    """Unrolled, if the number of trips is known and the condition stays true."""
    trips, condition = node.known_or_none(0), node.known_or_none(1)
    if trips is None or (node.optional(1) is not None and condition is None):
        raise node.unsupported("the number of iterations is known only at run time")
    count = int(trips.reshape(())) if condition is None or bool(condition.reshape(())) else 0
    if count > UNROLL_LIMIT:
        raise node.unsupported(f"{count} iterations, more than {UNROLL_LIMIT}")
    body = node.attr("body")
    state = [node.input(i) for i in range(2, len(node.inputs))]
    proceed = node.constant(np.array(True))
    collected: list[list[Value]] = []
    for trip in range(count):
        next_, *results = node.subgraph(body, [node.constant(np.array(trip, np.int64)), proceed, *state])
        state, scans = results[: len(state)], results[len(state) :]
        collected.append([_stacked(node, v) for v in scans])
        if next_.constant is None or not bool(next_.constant.reshape(())):
            if next_.constant is None or trip + 1 < count:
                raise node.unsupported("its end is decided at run time")
    if not collected and node.output_count > len(state):
        raise node.unsupported("collected outputs of a loop that never runs")
    stacks = [
        parts[0] if len(parts) == 1 else node.add("concat", *parts, axis=0)
        for parts in (list(column) for column in zip(*collected, strict=True))
    ]
    return (*state, *stacks)


def _stacked(node: OnnxNode, value: Value) -> Value:
    return node.add("reshape", value, shape=(1, *value.shape))
