"""Symbolic dimensions of graphs: one form for equal ones, quotients, evaluation, and the equalities a run must check."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tensorlang.graph.ir import Graph, Node, TensorType
from tensorlang.graph.ops.common import canonical, product
from tensorlang.graph.registry import get
from tensorlang.ir.expr import Expr, ExprLike, const, eq, floordiv, wrap
from tensorlang.ir.visitor import free_vars, substitute

__all__ = ["at_sizes", "attrs_at", "canonical", "product", "shape_constraints", "size_quotient"]


def size_quotient(total: Iterable[ExprLike], parts: Iterable[ExprLike]) -> Expr:
    """The product of `total` divided by that of `parts`, which divides it: equal factors cancel, the rest is divided.

    Raises:
        ValueError: both are known and the division is not exact.
    """
    left = [canonical(d) for d in total]
    right: list[Expr] = []
    for part in map(canonical, parts):
        if part in left:
            left.remove(part)
        else:
            right.append(part)
    numerator, denominator = product(left), product(right)
    if denominator.op == "const" and denominator.value == 0:
        return wrap(0)
    if numerator.op == "const" and denominator.op == "const" and numerator.value % denominator.value:
        raise ValueError(f"{numerator} is not divisible by {denominator}")
    return canonical(floordiv(numerator, denominator))


def at_sizes(e: Expr, sizes: Mapping[Expr, int]) -> Any:
    """The value of `e` where its variables have these values, or `e` with those replaced if some are left."""
    value = canonical(substitute(e, {v: const(sizes[v], v.dtype) for v in free_vars(e) if v in sizes}))
    return value.value if value.op == "const" else value


def attrs_at(attrs: Mapping[str, Any], sizes: Mapping[Expr, int]) -> dict[str, Any]:
    """Attributes with the expressions in them evaluated."""

    def resolve(value: Any) -> Any:
        if isinstance(value, Expr):
            return at_sizes(value, sizes)
        if isinstance(value, tuple | list):
            return tuple(resolve(v) for v in value)
        return value

    return {name: resolve(value) for name, value in attrs.items()}


def shape_constraints(graph: Graph) -> list[tuple[Expr, Expr, Node]]:
    """Pairs of dimensions that must be equal although the compiler could not tell, and the first node that needs it.

    Type rules take dimensions that cannot be told apart to be equal (a skip connection around strided layers, say). Whoever
    runs the graph evaluates both sides for the sizes at hand and refuses a run where they differ.
    """
    found: dict[tuple[Expr, Expr], Node] = {}
    for node in graph.nodes:
        types: list[TensorType] = [v.type for v in node.inputs]
        for a, b in get(node.op).constraints(*types, **node.attrs):
            if canonical(eq(a, b)) is not wrap(True):
                found.setdefault((a, b), node)
    return [(a, b, node) for (a, b), node in found.items()]
