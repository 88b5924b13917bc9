"""Control flow: decided while importing where that is possible, otherwise loops and branches of the graph."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from tensorlang.graph import Value

from .body import build_if, build_loop
from .node import Item, OnnxNode, Structured, reversed_rows, size_value
from .reader import names_read
from .registry import onnx_op
from .sequences import Grown, Stack, TensorList

UNROLL_SEQUENCES = 512  # iterations of a loop that works on a sequence
UNROLL_LIMIT = 32  # iterations
FOREVER = np.iinfo(np.int64).max


@onnx_op("If")
def if_(node: OnnxNode) -> Item | tuple[Item, ...]:
    condition = node.known_or_none(0)
    branches = [node.graph("then_branch"), node.graph("else_branch")]
    if condition is not None and condition.size == 1:
        return tuple(node.subgraph(branches[0 if bool(condition.reshape(())) else 1], []))
    layouts: list[list[int | None]] = []  # of the branches' results: the length of a sequence, None for a tensor

    def flat(branch: onnx.GraphProto) -> list[Value]:
        layout: list[int | None] = []
        values: list[Value] = []
        for item in node.subgraph(branch, []):
            if isinstance(item, Structured) and not isinstance(item, TensorList):
                raise node.unsupported(f"a branch gives {item.kind}", node.input(0))
            layout.append(len(item.items) if isinstance(item, TensorList) else None)
            values += item.items if isinstance(item, TensorList) else [item]
        if layouts and layouts[0] != layout:
            raise node.unsupported("its branches give sequences of different length", node.input(0))
        layouts.append(layout)
        return values

    made = iter(build_if(node, node.input(0), [lambda b=b: flat(b) for b in branches]))  # type: ignore[misc]
    return tuple(
        next(made) if n is None else TensorList(tuple(next(made) for _ in range(n))) for n in layouts[-1]
    )


@onnx_op("Loop")
def loop(node: OnnxNode) -> Item | tuple[Item, ...]:
    """Unrolled if the number of trips is known and small, and the condition stays true."""
    unrolled = _unrolled(node)
    if unrolled is not None:
        return unrolled
    proto = node.graph("body")
    states = [node.item(i) or node.input(i) for i in range(2, len(node.inputs))]
    changing = _changing(node, proto, len(states))
    growing = [k for k in changing if states[k] == TensorList()]
    changing = [k for k in changing if k not in growing]
    always = node.constant(np.array(True))
    trips = node.optional(0) or node.constant(np.array(FOREVER))

    def trip(index: Value, state: list[Value]) -> tuple[Value, list[Value], list[Value]]:
        first = proto.input[0].type.tensor_type.shape.dim
        number = node.add("reshape", index, shape=(1,)) if len(first) else index
        now: list[Item] = list(states)
        for k, value in zip(changing, state, strict=True):
            now[k] = value
        for k in growing:
            now[k] = Grown()
        proceed, *results = node.subgraph(proto, [number, always, *now])
        renewed = [_as_declared(node, proto.input[2 + k], _tensor(node, results[k])) for k in changing]
        stacked = [_tensor(node, v) for v in results[len(states) :]]
        stacked += [_appended(node, results[k]) for k in growing]
        return node.add("reshape", _tensor(node, proceed), shape=()), renewed, stacked

    given = [_as_declared(node, proto.input[2 + k], _tensor(node, states[k])) for k in changing]
    made = build_loop(node, trips, node.optional(1) or always, given, trip)
    final = list(states)
    for k, value in zip(changing, made, strict=False):
        final[k] = value
    stacks = made[len(changing) :]
    for k, value in zip(growing, stacks[len(stacks) - len(growing) :], strict=True):
        final[k] = Stack(value)
    return (*final, *stacks[: len(stacks) - len(growing)])


def _tensor(node: OnnxNode, item: Item) -> Value:
    if isinstance(item, Structured):
        reason = f"it changes {item.kind}, as often as a run tells, other than by appending to an empty one"
        raise node.unsupported(reason, *(v for v in (node.item(0), node.item(1)) if isinstance(v, Value)))
    return item


def _appended(node: OnnxNode, item: Item) -> Value:
    """What a trip appends to a sequence."""
    if not isinstance(item, Grown) or len(item.items) != 1:
        raise node.unsupported("it does not append one tensor to its sequence in every trip, and a run tells their number")
    return item.items[0]


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


def _unrolled(node: OnnxNode) -> tuple[Item, ...] | None:
    """The results of a loop of few trips, one after the other; None if it is not one."""
    trips, condition = node.known_or_none(0), node.known_or_none(1)
    if trips is None or (node.optional(1) is not None and condition is None):
        return None
    count = int(trips.reshape(())) if condition is None or bool(condition.reshape(())) else 0
    body = node.graph("body")
    state = [node.item(i) or node.input(i) for i in range(2, len(node.inputs))]
    listed = any(isinstance(v, Structured) for v in state)
    if not 0 < count <= (UNROLL_SEQUENCES if listed else UNROLL_LIMIT):
        return None
    always = node.constant(np.array(True))
    collected: list[list[Value]] = []
    for trip in range(count):
        proceed, *results = node.subgraph(body, [node.constant(np.array(trip, np.int64)), always, *state])
        state, scans = results[: len(state)], results[len(state) :]
        collected.append([_stacked(node, _tensor(node, v)) for v in scans])
        proceed = _tensor(node, proceed)
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


@onnx_op("Scan", since=8)
def scan_of_batches(node: OnnxNode) -> tuple[Value, ...]:
    """The oldest form: everything has a first dimension of batches, each of which is scanned by itself."""
    if node.item(0) is not None:
        raise node.unsupported("the lengths of its sequences (input 0)")
    proto = node.graph("body")
    count = int(node.attr("num_scan_inputs"))
    given = [node.input(i) for i in range(1, len(node.inputs))]
    backwards = _each(node, "directions", count)
    always = node.constant(np.array(True))

    def batch(index: Value, _: list[Value]) -> tuple[Value, list[Value], list[Value]]:
        now = [node.add("gather", v, index, axis=0) for v in given]
        states, scanned = now[: len(now) - count], now[len(now) - count :]
        return always, [], _scanned(node, proto, states, scanned, (0,) * count, backwards)

    return build_loop(node, size_value(node, given[0], 0), always, [], batch)


@onnx_op("Scan", since=9)
def scan(node: OnnxNode) -> tuple[Value, ...]:
    """A loop over slices of its further inputs."""
    proto = node.graph("body")
    count = int(node.attr("num_scan_inputs"))
    given = node.all_inputs()
    states, scanned = given[: len(given) - count], given[len(given) - count :]
    if not scanned:
        raise node.fail("it scans no input")
    axes = _each(node, "scan_input_axes", count)
    in_axes = [node.normal_axis(a, v.type.ndim) for a, v in zip(axes, scanned, strict=True)]
    made = _scanned(node, proto, states, scanned, in_axes, _each(node, "scan_input_directions", count))
    stacks = len(proto.output) - len(states)
    out_axes, reverse = _each(node, "scan_output_axes", stacks), _each(node, "scan_output_directions", stacks)
    for k, (axis, back) in enumerate(zip(out_axes, reverse, strict=True), len(states)):
        value = made[k]
        if back:
            value = reversed_rows(node, value)
        axis = node.normal_axis(axis, value.type.ndim)
        if axis:
            order = list(range(1, value.type.ndim))
            order.insert(axis, 0)
            value = node.add("transpose", value, perm=tuple(order))
        made[k] = value
    return tuple(made)


def _scanned(
    node: OnnxNode,
    proto: onnx.GraphProto,
    states: Sequence[Value],
    scanned: Sequence[Value],
    axes: Sequence[int],
    backwards: Sequence[int],
) -> list[Value]:
    """The states after all slices, and what the trips gave, stacked."""
    trips = size_value(node, scanned[0], axes[0])
    always = node.constant(np.array(True))

    def trip(index: Value, state: list[Value]) -> tuple[Value, list[Value], list[Value]]:
        slices = []
        for value, axis, back in zip(scanned, axes, backwards, strict=True):
            at = node.add("sub", node.add("sub", trips, index), node.constant(np.array(1, np.int64))) if back else index
            slices.append(node.add("gather", value, at, axis=axis))
        results = node.subgraph_values(proto, [*state, *slices])
        return always, results[: len(states)], results[len(states) :]

    return list(build_loop(node, trips, always, states, trip))


def _each(node: OnnxNode, name: str, count: int) -> tuple[int, ...]:
    values = tuple(node.attr(name, (0,) * count))
    if len(values) != count:
        raise node.fail(f"attribute {name!r} has {len(values)} element(s), not {count}")
    return values
