"""Graphs inside graphs: importing the body of a loop or branch, which sees the values around it.

A body is a graph of its own. A value from outside that it reads becomes an input of it and of the node that holds it.

What an exporter writes about a file need not hold in every branch: one that cannot run with the shapes at hand is left out,
and a run that would take it is refused (`require`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import onnx

from tensorlang.graph import Expr, Graph, TensorType, Value, canonical, free_vars, live_nodes, runtime_dim

from .node import Emitter, Item, Misfit, OnnxNode, Structured, Unsupported

MAX_ROUNDS = 5  # of looking for types of a loop's state that a trip keeps


class Host(Protocol):
    """Whoever imports the nodes: its emitter and the names in scope are swapped while a body is built.

    Attributes:
        origins: what an input of a body stands for outside.
    """

    emitter: Emitter
    scope: dict[str, Item | None]
    unsupported: list[tuple[str, str, str]]
    read: set[str]
    origins: dict[Value, Value]

    def subgraph(self, proto: onnx.GraphProto, inputs: Sequence[Item]) -> list[Item]: ...

    def inlined(self, node: OnnxNode) -> tuple[Item, ...]: ...


Build = Callable[[], list[Value]]


class RanksDiffer(Exception):
    """An `if` whose branches give results of different rank: what follows it has to be built once for each.

    Attributes:
        node, condition, branches: the arguments of `build_if`.
    """

    def __init__(self, node: OnnxNode, condition: Value, branches: Sequence[Build], reason: str):
        super().__init__(reason)
        self.node, self.condition, self.branches = node, condition, branches


class Body(Emitter):
    """A body while it is built: an emitter that captures the values from outside that it meets."""

    def __init__(self, origins: dict[Value, Value]) -> None:
        super().__init__()
        self.origins = origins
        self.inputs: list[Value] = []
        self._captured: dict[Value, Value] = {}
        self._own: set[Value] = set()

    def emit(
        self, op: str, inputs: Sequence[Value], attrs: Mapping[str, Any] | None, name: str
    ) -> Value | tuple[Value, ...]:
        made = super().emit(op, [self.capture(v) for v in inputs], attrs, name)
        self._own.update(made if isinstance(made, tuple) else (made,))
        return made

    def of_rank(self, value: Value, rank: int) -> Value:
        """A value of one element with `rank` dimensions."""
        made = value if value.type.ndim == rank else self.emit("reshape", [value], {"shape": (1,) * rank}, "")
        assert isinstance(made, Value)
        return made

    def input(self, type: TensorType, name: str) -> Value:
        """A further input of its own."""
        self.inputs.append(Value(self.builder.unique(name), type))
        self._own.add(self.inputs[-1])
        return self.inputs[-1]

    def capture(self, outer: Value) -> Value:
        """A value from outside, as the body sees it."""
        if outer.is_constant or outer in self._own:
            return outer
        if outer not in self._captured:
            formal = Value(self.builder.unique(outer.name), outer.type, data=outer.data)
            self._captured[outer] = formal
            self.origins[formal] = outer
            self._own.add(formal)
        return self._captured[outer]

    def finish(self, outputs: Sequence[Value], name: str) -> tuple[Graph, dict[Value, Value]]:
        """The graph, and what it reads from outside: its input for each such value. Those are not yet among its inputs."""
        outputs = [self.capture(v) for v in outputs]
        nodes = live_nodes(self.builder.nodes, outputs)
        read = {v for n in nodes for v in n.inputs} | set(outputs)
        used = {outer: formal for outer, formal in self._captured.items() if formal in read}
        return Graph(list(self.inputs), nodes, list(outputs), name), used


@contextmanager
def body_of(node: OnnxNode) -> Iterator[Body]:
    """Build a body: inside the block, `node` emits into it, and names stand for what it captures."""
    host = node.host
    body = Body(host.origins)
    before = host.emitter, host.scope, node.emitter
    host.emitter = node.emitter = body
    host.scope = {n: _captured(body, v) for n, v in host.scope.items()}
    try:
        yield body
    finally:
        host.emitter, host.scope, node.emitter = before


def _captured(body: Body, item: Item | None) -> Item | None:
    if isinstance(item, Structured):
        return item.map(body.capture)
    return None if item is None else body.capture(item)


def build_if(node: OnnxNode, condition: Value, branches: Sequence[Build]) -> tuple[Value, ...]:
    """`if` with two bodies, each built by a function that gives its results.

    Raises:
        RanksDiffer: there is no `if` of these branches.
    """
    graphs: list[Graph] = []
    used: list[dict[Value, Value]] = []
    built: list[tuple[Body, list[Value]]] = []
    for taken, build in zip((True, False), branches, strict=True):
        before = len(node.host.unsupported)
        with body_of(node) as body:
            try:
                built.append((body, build()))
            except Misfit as error:
                del node.host.unsupported[before:]
                misfit = str(error)
            else:
                continue
        return _only(node, condition, not taken, branches[taken], misfit)
    for k, (a, b) in enumerate(zip(built[0][1], built[1][1], strict=True)):
        if a.type.ndim != b.type.ndim:
            ranks = _declared_ranks(node, k)
            if len(ranks) != 1 or not (_is_single(a.type) and _is_single(b.type)):
                reason = f"its branches give results of different rank: {a.type} and {b.type}"
                raise RanksDiffer(node, condition, branches, reason)
            for body, results in built:
                results[k] = body.of_rank(results[k], *ranks)
    for body, results in built:
        graph, captured = body.finish(results, node.label)
        graphs.append(graph)
        used.append(captured)
    captured_values = list(dict.fromkeys([*used[0], *used[1]]))
    for graph, captured in zip(graphs, used, strict=True):
        for outer in captured_values:
            graph.inputs.append(captured.get(outer) or Value(f"{outer.name}_unread", outer.type))
    defines: list[Expr] = []
    types = []
    for a, b in zip(graphs[0].outputs, graphs[1].outputs, strict=True):
        if a.dtype != b.dtype:
            raise node.fail(f"its branches give {a.type} and {b.type}")
        types.append(TensorType(a.dtype, tuple(_common(x, y, defines, node) for x, y in zip(a.shape, b.shape, strict=True))))
    attrs = {"then": graphs[0], "otherwise": graphs[1], "types": tuple(types), "defines": tuple(defines)}
    made = node.add_all("if", condition, *captured_values, **attrs)
    return made if isinstance(made, tuple) else (made,)


def _only(node: OnnxNode, condition: Value, holds: bool, build: Build, misfit: str) -> tuple[Value, ...]:
    """The branch that can run, in a run where the condition is `holds`."""
    message = f"it takes a branch that its shapes do not fit: {misfit}"
    return tuple(node.add("require", condition, v, holds=holds, message=message) for v in build())


def _is_single(type: TensorType) -> bool:
    """Whether it is one element, whatever its rank."""
    return all(d.op == "const" and d.value == 1 for d in type.shape)


def _declared_ranks(node: OnnxNode, result: int) -> set[int]:
    """The ranks that the file's branches declare for a result; none for what stands behind the node (see `RanksDiffer`)."""
    outputs = [node.graph(name).output for name in ("then_branch", "else_branch")]
    declared = [made[result].type.tensor_type for made in outputs if result < len(made)]
    return {len(t.shape.dim) for t in declared if t.HasField("shape")}


def _common(a: Expr, b: Expr, defines: list[Expr], node: OnnxNode) -> Expr:
    return a if a is b else _fresh(defines, node)


def _fresh(defines: list[Expr], node: OnnxNode) -> Expr:
    defines.append(runtime_dim(f"{node.proto.op_type.lower()}_{len(defines)}"))
    return defines[-1]


def _widened(state: TensorType, renewed: TensorType, defines: list[Expr], node: OnnxNode) -> TensorType:
    """The state's type with those dimensions open that a trip changes."""
    if state.dtype != renewed.dtype:
        raise node.fail(f"its body turns a state of type {state} into {renewed}")
    if state.ndim != renewed.ndim:
        raise Unsupported(f"the rank of its state changes: {state}, then {renewed}")
    pairs = list(zip(state.shape, renewed.shape, strict=True))
    if all(a is b or a in defines for a, b in pairs):
        return state
    return TensorType(state.dtype, tuple(a if a is b or a in defines else _fresh(defines, node) for a, b in pairs))


Trip = Callable[[Value, list[Value]], tuple[Value, list[Value], list[Value]]]


def build_loop(
    node: OnnxNode, trips: Value, go: Value, states: Sequence[Value], trip: Trip
) -> tuple[Value, ...]:
    """`loop`: the states after the last trip, then the stacked results of all trips.

    Args:
        trip: builds one trip, given the number of trips done and the states; returns whether to go on, the new states, and
            what is stacked.
    """
    types = [v.type for v in states]
    defines: list[Expr] = []
    for _ in range(MAX_ROUNDS):
        with body_of(node) as body:
            index = body.input(TensorType.of("i64", ()), "trip")
            formal = [body.input(t, v.name) for t, v in zip(types, states, strict=True)]
            proceed, renewed, stacked = trip(index, formal)
        widened = [_widened(a, b.type, defines, node) for a, b in zip(types, renewed, strict=True)]
        if all(a is b for a, b in zip(types, widened, strict=True)):
            break
        types = widened
    else:
        raise Unsupported("the sizes of its state change in a way that cannot be followed")
    graph, used = body.finish([proceed, *renewed, *stacked], node.label)
    graph.inputs.extend(used.values())
    all_run = all(v.constant is not None and bool(v.constant.all()) for v in (go, proceed))
    count = trips.data.reshape(-1)[0] if all_run and trips.data is not None else None
    if count is None and stacked:
        defines.append(runtime_dim(f"{node.proto.op_type.lower()}_trips"))
        count = defines[-1]
    inside = {d for n in graph.nodes for d in n.defines} | set(defines)
    results = list(types)
    for value in stacked:
        dims = tuple(_fresh(defines, node) if free_vars(d) & inside else d for d in value.shape)
        results.append(TensorType(value.dtype, (canonical(count if count is not None else 0), *dims)))
    attrs = {"body": graph, "carried": len(states), "types": tuple(results), "defines": tuple(defines)}
    made = node.add_all("loop", trips, go, *states, *used, **attrs)
    return made if isinstance(made, tuple) else (made,)
