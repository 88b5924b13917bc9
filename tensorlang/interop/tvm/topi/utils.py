"""Shapes as Python numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tensorlang.errors import TypeCheckError
from tensorlang.ir.expr import Expr, user_location


def get_const_int(expr: Any) -> int:
    """A dimension as a number.

    Raises:
        TypeCheckError: it is symbolic.
    """
    if isinstance(expr, Expr):
        if expr.op != "const":
            raise TypeCheckError(f"{user_location()}: {expr} is not a constant")
        expr = expr.value
    return int(expr)


def get_const_tuple(in_tuple: Sequence[Any]) -> tuple[Any, ...]:
    """A shape with its constants as numbers; symbolic dimensions stay."""
    return tuple(d if isinstance(d, Expr) and d.op != "const" else get_const_int(d) for d in in_tuple)


def prod(x: Sequence[Any]) -> Any:
    """The product of a shape; 1 of none."""
    total: Any = 1
    for d in x:
        total = total * d
    return total
