"""Rewriting graphs: one walk in topological order that builds the new graph while rules look backwards at what is built.

    def rule(rw, node):                     # node: of the new graph, its inputs already rewritten
        x = node.inputs[0]
        if node.op == "relu" and x.producer and x.producer.op == "relu":
            return x                        # the value that replaces the node's output; None leaves the node alone

    graph = rewrite(graph, rule)            # the same object if no rule fired

A rule builds nodes by `rw.add`, which infers types and applies the rule to the new node in turn: one walk reaches the
fixed point, as the constructors of an algebra that normalise do. Graphs are never changed in place: nodes and values that
stay as they are belong to both graphs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tensorlang.errors import InternalError
from tensorlang.graph.ir import Graph, Node, TensorType, Value, constant
from tensorlang.graph.registry import get
from tensorlang.ir.expr import Expr
from tensorlang.ir.visitor import free_vars

Rule = Callable[["Rewriter", Node], "Value | Sequence[Value] | None"]


class Rewriter:
    """The new graph while it is being built.

    Args:
        graph: what is rewritten; it stays as it is.
        rule: tried on every node that is copied or added.
    """

    def __init__(self, graph: Graph, rule: Rule | None = None):
        self.graph = graph
        self.rule = rule
        self.nodes: dict[Node, None] = {}
        self._old = set(graph.nodes)
        self._new: dict[Value, Value] = {}
        self._names = {v.name for v in graph.values()} | {v.name for v in graph.constants()}
        self._serials: dict[str, int] = {}
        self._uses: dict[Value, int] = {}
        self._dead: set[Node] = set()
        self._renamed: set[Value] = set()
        self._given: set[str] = set()
        for node in graph.nodes:
            self._count(node, 1)
        for value in graph.outputs:
            self._uses[value] = self._uses.get(value, 0) + 1

    # -- reading ---------------------------------------------------------------------------------------------------
    def __getitem__(self, old: Value) -> Value:
        """What stands for `old` in the new graph."""
        return self._new.get(old, old)

    def uses(self, value: Value) -> int:
        """How many reads of `value` the new graph will have, apart from the node that the rule looks at now.

        Nodes not yet visited and graph outputs count.
        """
        return self._uses.get(value, 0)

    # -- building --------------------------------------------------------------------------------------------------
    def add(
        self,
        op: str,
        inputs: Sequence[Value | np.ndarray],
        attrs: Mapping[str, Any] | None = None,
        like: Node | None = None,
    ) -> Value:
        """The (first) output of `op(inputs; attrs)`, normalised by the rule; `like` lends its name to the new node."""
        return self.add_all(op, inputs, attrs, like)[0]

    def add_all(
        self,
        op: str,
        inputs: Sequence[Value | np.ndarray],
        attrs: Mapping[str, Any] | None = None,
        like: Node | None = None,
    ) -> list[Value]:
        hint = like.output.name if like is not None else op
        values = [v if isinstance(v, Value) else self.constant(v, f"{hint}_const") for v in inputs]
        node = Node(op, values, dict(attrs or {}), name=like.name if like is not None else "")
        definition = get(op)
        types = definition.infer(*(v.type for v in values), **node.attrs)
        contents = definition.data(*values, **node.attrs) or [None] * len(types)
        node.outputs = [Value(self.fresh(hint), t, node, data=d) for t, d in zip(types, contents, strict=True)]
        self._count(node, 1)
        return self._place(node)

    def adopt(self, node: Node) -> list[Value]:
        """Append a node as it is, without asking the rule."""
        self._count(node, 1)
        self.nodes[node] = None
        return node.outputs

    def constant(self, array: np.ndarray, hint: str = "const") -> Value:
        return constant(array, self.fresh(hint))

    def fresh(self, hint: str) -> str:
        """A value name that neither graph uses: `hint`, or its stem with a number."""
        name = hint
        if name in self._names:
            stem = re.sub(r"(_\d+)+$", "", hint)
            while name in self._names:
                self._serials[stem] = serial = self._serials.get(stem, 0) + 1
                name = f"{stem}_{serial}"
        self._names.add(name)
        return name

    def copy(self, node: Node) -> list[Value]:
        """`node` of the old graph over the new inputs: the node itself if those are the same."""
        inputs = [self[v] for v in node.inputs]
        if all(a is b for a, b in zip(inputs, node.inputs, strict=True)):
            return self._place(node)
        moved = Node(node.op, inputs, node.attrs, name=node.name)
        if all(a.type == b.type for a, b in zip(inputs, node.inputs, strict=True)):
            types = [v.type for v in node.outputs]
        else:
            types = get(node.op).infer(*(v.type for v in inputs), **node.attrs)
        moved.outputs = [Value(v.name, t, moved, data=v.data) for v, t in zip(node.outputs, types, strict=True)]
        for old, new in zip(node.outputs, moved.outputs, strict=True):
            self._uses[new] = self._uses.get(old, 0)
        return self._place(moved)

    def replace(self, old: Value, new: Value) -> None:
        """Let `new` stand for `old`, taking over its readers and its name."""
        if old is new:
            return
        self._new[old] = new
        self.name_after(new, old)

    def name_after(self, new: Value, old: Value) -> None:
        """Give `new` the name of `old`, if this rewriter made it and neither was in such a pair before."""
        if new.producer is None or new.producer in self._old or new in self._renamed or old.name in self._given:
            return
        new.name = old.name
        self._renamed.add(new)
        self._given.add(old.name)

    def _place(self, node: Node) -> list[Value]:
        """Append `node`, or what the rule gives in its place; while the rule looks at it, its own reads do not count."""
        self._count(node, -1)
        result = self.rule(self, node) if self.rule is not None else None
        if result is None:
            self._count(node, 1)
            self.nodes[node] = None
            return node.outputs
        values = [result] if isinstance(result, Value) else list(result)
        if len(values) != len(node.outputs):
            raise InternalError(f"a rule gave {len(values)} value(s) for {node!r}")
        for old, new in zip(node.outputs, values, strict=True):
            if new.dtype != old.dtype or new.type.ndim != old.type.ndim:
                raise InternalError(f"a rule gave {new!r} for {old!r} of {node!r}")
            self._uses[new] = self._uses.get(new, 0) + self._uses.pop(old, 0)
        self._release(node)
        return values

    def _count(self, node: Node, change: int) -> None:
        for value in node.inputs:
            self._uses[value] = self._uses.get(value, 0) + change

    def _release(self, node: Node) -> None:
        """`node` will not be part of the new graph: producers that nobody else reads take their own reads with them."""
        pending = [node]
        while pending:
            for value in dict.fromkeys(pending.pop().inputs):
                if not self._uses.get(value) and value.producer is not None and value.producer not in self._dead:
                    self._dead.add(value.producer)
                    self._count(value.producer, -1)
                    pending.append(value.producer)

    def finish(self) -> Graph:
        """The new graph without dead nodes, or the old object if it is the same."""
        outputs = [self[v] for v in self.graph.outputs]
        nodes = live_nodes(list(self.nodes), outputs)
        same = len(nodes) == len(self.graph.nodes) and all(
            a is b for a, b in zip([*nodes, *outputs], [*self.graph.nodes, *self.graph.outputs], strict=True)
        )
        return self.graph if same else with_body(self.graph, nodes, outputs)


def rewrite(graph: Graph, rule: Rule) -> Graph:
    """`graph` with `rule` applied to every node until it fires nowhere."""
    rw = Rewriter(graph, rule)
    for node in graph.nodes:
        for old, new in zip(node.outputs, rw.copy(node), strict=True):
            rw.replace(old, new)
    return rw.finish()


def replace_values(graph: Graph, mapping: Mapping[Value, Value]) -> Graph:
    """`graph` with every read of a key of `mapping` turned into a read of its value (chains are followed)."""
    rw = Rewriter(graph)
    for old, new in mapping.items():
        while new in mapping:
            new = mapping[new]
        rw._new[old] = new
    for node in graph.nodes:
        for old, new in zip(node.outputs, rw.copy(node), strict=True):
            if old not in mapping:
                rw.replace(old, new)
    return rw.finish()


def with_body(graph: Graph, nodes: Sequence[Node], outputs: Sequence[Value] | None = None) -> Graph:
    """A graph with other nodes (in topological order) and outputs."""
    return Graph(
        list(graph.inputs),
        list(nodes),
        list(graph.outputs if outputs is None else outputs),
        graph.name,
        dict(graph.dims),
        list(graph.output_names),
    )


def live_nodes(nodes: Sequence[Node], outputs: Sequence[Value]) -> list[Node]:
    """The nodes that `outputs` need, in the order given; those that define the dimensions that they mention are among them."""
    definers = {d: node for node in nodes for d in node.defines}
    wanted: set[Node] = {v.producer for v in outputs if v.producer is not None}
    if definers:
        return _live_with_dims(nodes, outputs, wanted, definers)
    live = []
    for node in reversed(nodes):
        if node in wanted:
            live.append(node)
            wanted.update(v.producer for v in node.inputs if v.producer is not None)
    return live[::-1]


def _live_with_dims(
    nodes: Sequence[Node], outputs: Sequence[Value], wanted: set[Node], definers: Mapping[Expr, Node]
) -> list[Node]:
    for value in outputs:
        wanted.update(definers[d] for e in value.shape for d in free_vars(e) if d in definers)
    live = []
    for node in reversed(nodes):
        if node in wanted:
            live.append(node)
            wanted.update(v.producer for v in node.inputs if v.producer is not None)
            wanted.update(definers[d] for d in node.needed_dims() if d in definers)
    return live[::-1]


def topological(nodes: Sequence[Node]) -> list[Node]:
    """`nodes` in an order in which producers come first, otherwise as they stand (stable; iterative).

    Raises:
        InternalError: they form a cycle.
    """
    inside = set(nodes)
    order: list[Node] = []
    state: dict[Node, int] = {}  # 1: on the path, 2: placed
    for root in nodes:
        stack = [root]
        while stack:
            node = stack[-1]
            if state.get(node) == 2:
                stack.pop()
                continue
            if state.get(node) is None:
                state[node] = 1
                for value in reversed(node.inputs):
                    before = value.producer
                    if before is not None and before in inside and state.get(before) != 2:
                        if state.get(before) == 1:
                            raise InternalError(f"cycle through {before!r}")
                        stack.append(before)
            else:
                stack.pop()
                state[node] = 2
                order.append(node)
    return order


# -- small questions that many rules ask ----------------------------------------------------------------------------


def producer(value: Value, op: str) -> Node | None:
    """The node that computes `value`, if it is an `op`."""
    node = value.producer
    return node if node is not None and node.op == op else None


def array_of(value: Value) -> np.ndarray:
    """The array of a constant.

    Raises:
        InternalError: `value` is none.
    """
    if value.constant is None:
        raise InternalError(f"{value!r} is not a constant")
    return value.constant


def scalar(value: Value) -> float | int | bool | None:
    """The number that a constant of one element holds."""
    if value.constant is None or value.constant.size != 1:
        return None
    return value.constant.reshape(()).item()


def same_shape(a: TensorType, b: TensorType) -> bool:
    """Equal for certain: dimensions are interned expressions."""
    return len(a.shape) == len(b.shape) and all(x is y for x, y in zip(a.shape, b.shape, strict=True))


def is_one(d: Expr) -> bool:
    return d.op == "const" and d.value == 1


def static(d: Expr) -> int | None:
    """A dimension as an integer, or None if it is symbolic."""
    return d.value if d.op == "const" else None


def bytes_of(type_: TensorType, symbolic: int = 64) -> int:
    """Size in bytes; a symbolic dimension counts as `symbolic`."""
    size = type_.dtype.nbytes
    for d in type_.shape:
        size *= d.value if d.op == "const" else symbolic
    return size
