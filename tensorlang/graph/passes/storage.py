"""Narrow formats become the bytes that hold them: first of all, and for good.

%q: i4[8] = reinterpret(%x: u8[8], i4)         %r: u8[2, 4] = reshape(%x, [2, 4])
%r: i4[2, 4] = reshape(%q, [2, 4])       ->    return %r
return %r

The graph's signature changes with it; whoever shows it to users keeps the declared types.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tensorlang.errors import BuildError
from tensorlang.graph.ir import Graph, Node, TensorType, Value, constant
from tensorlang.graph.ops.formats import MOVING
from tensorlang.graph.registry import get


def narrow_values(graph: Graph) -> bool:
    """Whether a value of `graph`, or of a body in it, is of a narrow format."""
    values = (*graph.values(), *graph.constants())
    return any(v.dtype.is_narrow for v in values) or any(narrow_values(b) for n in graph.nodes for b in n.bodies)


def without_narrow(graph: Graph) -> Graph:
    """`graph` over bytes.

    Raises:
        BuildError: an operator computes with values of a narrow format.
    """
    return _Erased().graph(graph) if narrow_values(graph) else graph


class _Erased:
    def __init__(self) -> None:
        self.new: dict[Value, Value] = {}

    def graph(self, graph: Graph) -> Graph:
        inputs = [self._declared(v) for v in graph.inputs]
        nodes: list[Node] = []
        for node in graph.nodes:
            if node.op == "reinterpret":
                self.new[node.output] = self.value(node.inputs[0])
            else:
                nodes.append(self.node(node))
        return replace(graph, inputs=inputs, nodes=nodes, outputs=[self.value(v) for v in graph.outputs])

    def value(self, old: Value) -> Value:
        if old not in self.new:
            if old.constant is not None and old.dtype.is_narrow:
                self.new[old] = constant(old.constant.view(old.dtype.storage.numpy), old.name)
            else:
                self.new[old] = old
        return self.new[old]

    def _declared(self, old: Value) -> Value:
        self.new[old] = Value(old.name, _stored(old.type), data=old.data) if old.dtype.is_narrow else old
        return self.new[old]

    def node(self, node: Node) -> Node:
        check_moves(node.op, node.inputs, node.name)
        attrs = {name: self._attribute(value) for name, value in node.attrs.items()}
        inputs = [self.value(v) for v in node.inputs]
        moved = Node(node.op, inputs, attrs, name=node.name)
        moved.outputs = [Value(v.name, _stored(v.type), moved, data=v.data) for v in node.outputs]
        self.new.update(zip(node.outputs, moved.outputs, strict=True))
        return moved

    def _attribute(self, value: Any) -> Any:
        if isinstance(value, Graph):
            return self.graph(value)
        if isinstance(value, TensorType):
            return _stored(value)
        return tuple(map(self._attribute, value)) if isinstance(value, tuple) else value


def _stored(type: TensorType) -> TensorType:
    return TensorType(type.dtype.storage, type.shape) if type.dtype.is_narrow else type


def check_moves(op: str, inputs: Sequence[Value], name: str = "") -> None:
    """
    Raises:
        BuildError: `op` looks at its inputs, and one of them is of a narrow format.
    """
    for value in inputs:
        if value.dtype.is_narrow and op not in MOVING and not get(op).structure:
            raise BuildError(f"node {name or op!r}: {op} of {value.type}; a narrow format has to be decoded first")
