"""Control flow: decided while importing where that is possible, otherwise loops and branches of the graph."""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx

from tensorlang.graph import Value

from .body import build_if, build_loop
from .node import OnnxNode
from .reader import names_read
from .registry import onnx_op

UNROLL_LIMIT = 32  # iterations
FOREVER = np.iinfo(np.int64).max


@onnx_op("If")
def if_(node: OnnxNode) -> Value | tuple[Value, ...]:
    condition = node.known_or_none(0)
    branches = [node.attr("then_branch"), node.attr("else_branch")]
    if condition is not None and condition.size == 1:
        return tuple(node.subgraph(branches[0 if bool(condition.reshape(())) else 1], []))
    return build_if(node, node.input(0), [partial(node.subgraph, b, []) for b in branches])


@onnx_op("Loop")
def loop(node: OnnxNode) -> Value | tuple[Value, ...]:
    """Unrolled if the number of trips is known and small, and the condition stays true."""
    unrolled = _unrolled(node)
    if unrolled is not None:
        return unrolled
    proto: onnx.GraphProto = node.attr("body")
    states = [node.input(i) for i in range(2, len(node.inputs))]
    changing = _changing(node, proto, len(states))
    always = node.constant(np.array(True))
    trips = node.optional(0) or node.constant(np.array(FOREVER))

    def trip(index: Value, state: list[Value]) -> tuple[Value, list[Value], list[Value]]:
        first = proto.input[0].type.tensor_type.shape.dim
        number = node.add("reshape", index, shape=(1,)) if len(first) else index
        now = list(states)
        for k, value in zip(changing, state, strict=True):
            now[k] = value
        proceed, *results = node.subgraph(proto, [number, always, *now])
        renewed = [_as_declared(node, proto.input[2 + k], results[k]) for k in changing]
        return node.add("reshape", proceed, shape=()), renewed, results[len(states) :]

    given = [_as_declared(node, proto.input[2 + k], states[k]) for k in changing]
    made = build_loop(node, trips, node.optional(1) or always, given, trip)
    final = list(states)
    for k, value in zip(changing, made, strict=False):
        final[k] = value
    return (*final, *made[len(changing) :])


def _changing(node: OnnxNode, body: onnx.GraphProto, count: int) -> list[int]:
    """The states to carry: not those that every trip hands on as they are, nor those that nobody ever reads."""
    read = names_read(body.node)
    same = {n.output[0]: n.input[0] for n in body.node if n.op_type == "Identity"}
    found = []
    for k in range(count):
        before, after = body.input[2 + k].name, body.output[1 + k].name
        while after in same:
            after = same[after]
        if after != before and (node.wants(k) or before in read):
            found.append(k)
    return found


def _as_declared(node: OnnxNode, formal: onnx.ValueInfoProto, value: Value) -> Value:
    """One element has the rank that the body declares, whatever the rank that it is computed with."""
    declared = formal.type.tensor_type
    rank = len(declared.shape.dim)
    single = all(d.op == "const" and d.value == 1 for d in value.shape)
    if not declared.HasField("shape") or rank == value.type.ndim or not single:
        return value
    return node.add("reshape", value, shape=(1,) * rank)


def _unrolled(node: OnnxNode) -> tuple[Value, ...] | None:
    """The results of a loop of few trips, one after the other; None if it is not one."""
    trips, condition = node.known_or_none(0), node.known_or_none(1)
    if trips is None or (node.optional(1) is not None and condition is None):
        return None
    count = int(trips.reshape(())) if condition is None or bool(condition.reshape(())) else 0
    if not 0 < count <= UNROLL_LIMIT:
        return None
    body = node.attr("body")
    state = [node.input(i) for i in range(2, len(node.inputs))]
    always = node.constant(np.array(True))
    collected: list[list[Value]] = []
    for trip in range(count):
        proceed, *results = node.subgraph(body, [node.constant(np.array(trip, np.int64)), always, *state])
        state, scans = results[: len(state)], results[len(state) :]
        collected.append([_stacked(node, v) for v in scans])
        if proceed.constant is None:
            return None
        if not bool(proceed.constant.reshape(())):
            break
    stacks = [
        parts[0] if len(parts) == 1 else node.add("concat", *parts, axis=0)
        for parts in (list(column) for column in zip(*collected, strict=True))
    ]
    return (*state, *stacks)


def _stacked(node: OnnxNode, value: Value) -> Value:
    return node.add("reshape", value, shape=(1, *value.shape))


@onnx_op("Scan", since=9)
def scan(node: OnnxNode) -> Value | tuple[Value, ...]:
    """A loop over slices of its further inputs."""
    proto: onnx.GraphProto = node.attr("body")
    scanned_count = int(node.attr("num_scan_inputs"))
    given = node.all_inputs()
    states, scanned = given[: len(given) - scanned_count], given[len(given) - scanned_count :]
    if not scanned:
        raise node.fail("it scans no input")
    stacks = len(proto.output) - len(states)
    axes = _each(node, "scan_input_axes", scanned_count)
    in_axes = [node.normal_axis(a, v.type.ndim) for a, v in zip(axes, scanned, strict=True)]
    backwards = _each(node, "scan_input_directions", scanned_count)
    trips = _size_value(node, scanned[0], in_axes[0])
    always = node.constant(np.array(True))

    def trip(index: Value, state: list[Value]) -> tuple[Value, list[Value], list[Value]]:
        slices = []
        for value, axis, back in zip(scanned, in_axes, backwards, strict=True):
            at = node.add("sub", node.add("sub", trips, index), node.constant(np.array(1, np.int64))) if back else index
            slices.append(node.add("gather", value, at, axis=axis))
        results = node.subgraph(proto, [*state, *slices])
        return always, results[: len(states)], results[len(states) :]

    made = list(build_loop(node, trips, always, states, trip))
    out_axes, reverse = _each(node, "scan_output_axes", stacks), _each(node, "scan_output_directions", stacks)
    for k, (axis, back) in enumerate(zip(out_axes, reverse, strict=True), len(states)):
        value = made[k]
        if back:
            value = _reversed(node, value)
        axis = node.normal_axis(axis, value.type.ndim)
        if axis:
            order = list(range(1, value.type.ndim))
            order.insert(axis, 0)
            value = node.add("transpose", value, perm=tuple(order))
        made[k] = value
    return tuple(made)


def _each(node: OnnxNode, name: str, count: int) -> tuple[int, ...]:
    values = tuple(node.attr(name, (0,) * count))
    if len(values) != count:
        raise node.fail(f"attribute {name!r} has {len(values)} element(s), not {count}")
    return values


def _size_value(node: OnnxNode, value: Value, axis: int) -> Value:
    """The size of a dimension as an i64 value."""
    return node.add("reshape", node.add("shape", value, start=axis, end=axis + 1), shape=())


def _reversed(node: OnnxNode, value: Value) -> Value:
    """`value` from the last to the first along its first dimension."""
    rest = value.type.ndim - 1
    return node.add("slice", value, starts=(value.shape[0] - 1, *(0,) * rest), shape=value.shape, steps=(-1, *(1,) * rest))
