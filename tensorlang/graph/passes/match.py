"""Patterns over graphs, written as the expressions they match.

    GELU = ("mul", ("mul", "x", ("add", ("erf", ("mul", "x", 0.70710678)), 1.0)), 0.5)
    match(GELU, value)                  ->  {"x": Value} or None

A pattern is a name, which stands for any value (the same one wherever it recurs); a number, for a constant of one element equal
to it within 1e-5; `(op, operand...)`, for that operator (operands of add and mul in either order); `Bind(name, pattern)`, for
what the pattern matches, under a name; or `Const(name)`, for any constant.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tensorlang.graph.ir import Value
from tensorlang.graph.rewrite import scalar

COMMUTATIVE = {"add", "mul"}
TOLERANCE = 1e-5  # relative: exporters write sqrt(2/pi) and the like with as few as six digits

Bindings = dict[str, Value]


@dataclass(frozen=True)
class Bind:
    name: str
    pattern: Any


@dataclass(frozen=True)
class Const:
    name: str


def match(pattern: Any, value: Value) -> Bindings | None:
    """What the names of `pattern` stand for if it matches the expression that computes `value`."""
    return next(_matches(pattern, value, {}), None)


def _matches(pattern: Any, value: Value, bound: Bindings) -> Iterator[Bindings]:
    if isinstance(pattern, str):
        if bound.get(pattern, value) is value:
            yield {**bound, pattern: value}
    elif isinstance(pattern, Bind):
        for found in _matches(pattern.pattern, value, bound):
            if found.get(pattern.name, value) is value:
                yield {**found, pattern.name: value}
    elif isinstance(pattern, Const):
        if value.is_constant:
            yield {**bound, pattern.name: value}
    elif isinstance(pattern, int | float):
        number = scalar(value)
        if number is not None and abs(number - pattern) <= TOLERANCE * abs(pattern):
            yield bound
    else:
        yield from _matches_node(pattern, value, bound)


def _matches_node(pattern: tuple[Any, ...], value: Value, bound: Bindings) -> Iterator[Bindings]:
    node = value.producer
    op, *operands = pattern
    if node is None or node.op != op or len(node.inputs) != len(operands):
        return
    orders = [node.inputs]
    if op in COMMUTATIVE:
        orders.append(node.inputs[::-1])
    for inputs in orders:
        partial = [bound]
        for operand, read in zip(operands, inputs, strict=True):
            partial = [after for before in partial for after in _matches(operand, read, before)]
        yield from partial
