"""Patterns: small graphs written as functions, and where they occur.

    @pattern
    def conv_bias_relu(p, x, w, bias):
        return p.relu(p.add(p.conv(x, w), bias))

The first parameter makes nodes: `p.relu` is operator "relu"; keyword arguments are attributes that must be equal. The others
stand for any values; one that is used twice must be the same value both times. Operands of commutative operators match in
either order.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tensorlang.errors import InputError
from tensorlang.graph.ir import Node, Value
from tensorlang.graph.registry import names

COMMUTATIVE = frozenset(("add", "mul", "minimum", "maximum", "and", "or", "xor", "equal", "not_equal"))


@dataclass(frozen=True, eq=False)
class Anything:
    """Any value."""

    name: str


@dataclass(frozen=True, eq=False)
class PatternNode:
    """A node with this operator, these operands, and at least these attributes."""

    op: str
    args: tuple[Anything | PatternNode, ...]
    attrs: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Pattern:
    """A graph with one result."""

    name: str
    root: PatternNode

    def match(self, node: Node, readers: Mapping[Value, int]) -> list[Node] | None:
        """The nodes of the occurrence that ends at `node`, operands first, or None.

        Args:
            readers: how often each value is read, graph outputs included: nobody else may read what is inside.
        """
        found = _match(self.root, node.output, {}, []) if len(node.outputs) == 1 else None
        if found is None:
            return None
        nodes = list(dict.fromkeys(found[1]))
        inside = set(nodes)
        for inner in nodes:
            if inner is not node and readers.get(inner.output, 0) != sum(v is inner.output for n in inside for v in n.inputs):
                return None
        return nodes


_Binding = dict[Any, Value]


def _match(
    wanted: Anything | PatternNode, value: Value, bound: _Binding, nodes: list[Node]
) -> tuple[_Binding, list[Node]] | None:
    if wanted in bound:
        return (bound, nodes) if bound[wanted] is value else None
    if isinstance(wanted, Anything):
        return {**bound, wanted: value}, nodes
    node = value.producer
    if node is None or node.op != wanted.op or len(node.outputs) != 1 or len(node.inputs) != len(wanted.args):
        return None
    if any(name not in node.attrs or _plain(node.attrs[name]) != _plain(v) for name, v in wanted.attrs.items()):
        return None
    orders: list[Sequence[Value]] = [node.inputs]
    if node.op in COMMUTATIVE and len(node.inputs) == 2:
        orders.append(node.inputs[::-1])
    for operands in orders:
        state: tuple[_Binding, list[Node]] | None = (bound, nodes)
        for arg, operand in zip(wanted.args, operands, strict=True):
            state = _match(arg, operand, *state) if state is not None else None
        if state is not None:
            return {**state[0], wanted: value}, [*state[1], node]
    return None


def _plain(value: Any) -> Any:
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else getattr(value, "value", value)


class _Maker:
    def __getattr__(self, op: str) -> Callable[..., PatternNode]:
        def make(*args: Any, **attrs: Any) -> PatternNode:
            if op not in names():
                raise InputError(f"a pattern uses operator {op!r}, which there is not")
            if not all(isinstance(a, Anything | PatternNode) for a in args):
                raise InputError(f"operands of {op} in a pattern are its parameters, or nodes made by its first one")
            return PatternNode(op, args, attrs)

        return make


def pattern(function: Callable[..., Any]) -> Pattern:
    """The pattern that `function` writes.

    Raises:
        InputError: it returns something else than a node, or uses an operator that there is not.
    """
    _, *parameters = inspect.signature(function).parameters
    root = function(_Maker(), *map(Anything, parameters))
    name = getattr(function, "__name__", "pattern")
    if not isinstance(root, PatternNode):
        raise InputError(f"pattern {name} returns {type(root).__name__}; it returns a node, such as p.add(x, y)")
    return Pattern(name, root)
