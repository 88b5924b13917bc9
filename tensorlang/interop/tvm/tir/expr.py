"""Expressions under classic TVM's names, where those differ from ours."""

from __future__ import annotations

from typing import Any

from tensorlang import te
from tensorlang.ir import expr
from tensorlang.ir.dtype import dtype as as_dtype
from tensorlang.ir.expr import Expr, fail

Add, Sub, Mul, Div = expr.add, expr.sub, expr.mul, expr.div
FloorDiv, FloorMod, Min, Max = expr.floordiv, expr.floormod, expr.minimum, expr.maximum
EQ, NE, LT, LE = expr.eq, expr.ne, expr.lt, expr.le
And, Or, Not = expr.and_, expr.or_, expr.not_
indexdiv, indexmod = expr.floordiv, expr.floormod


def GT(a: Any, b: Any) -> Expr:
    """`a > b`."""
    return expr.lt(b, a)


def GE(a: Any, b: Any) -> Expr:
    """`a >= b`."""
    return expr.le(b, a)


def Var(name: str, dtype: str = "int32") -> Expr:
    """A variable. An `int32` is an index or a size, which are 64 bits wide here."""
    kind = as_dtype(dtype)
    return expr.var(name, "i64" if kind.name == "i32" else kind)


def const(value: Any, dtype: Any = None) -> Expr:
    """A constant; without `dtype` of the Python value's own type."""
    return te.const(value, dtype)


def Select(condition: Any, true_value: Any, false_value: Any) -> Expr:
    """`true_value` where the condition holds, else `false_value`."""
    return expr.select(condition, true_value, false_value)


def Cast(dtype: Any, value: Any) -> Expr:
    """Conversion."""
    return expr.cast(as_dtype(dtype), value)


def all(*args: Any) -> Expr:
    """True if every condition holds."""
    return te.all_of(*args)


def any(*args: Any) -> Expr:
    """True if some condition holds."""
    return te.any_of(*args)


def likely(cond: Any) -> Expr:
    """The condition itself."""
    return expr.wrap(cond)


def div(a: Any, b: Any) -> Expr:
    """Division: of integers, truncated toward zero."""
    x = expr.wrap(a, b if isinstance(b, Expr) else None)
    return te.truncdiv(x, b) if x.dtype.is_int else expr.div(x, b)


def truncmod(a: Any, b: Any) -> Expr:
    """The remainder with the sign of `a`."""
    x = expr.wrap(a, b if isinstance(b, Expr) else None)
    return x - te.truncdiv(x, b) * b if x.dtype.is_int else te.fmod(x, b)


Mod = truncmod


def isfinite(x: Any) -> Expr:
    """Neither infinite nor NaN."""
    return expr.not_(expr.or_(te.isnan(x), te.isinf(x)))


def infinity(dtype: Any) -> Expr:
    """Plus infinity of a floating-point type."""
    kind = as_dtype(dtype)
    return te.max_value(kind) if kind.is_float else fail(f"infinity of {dtype}, which is not a floating-point type")


def popcount(x: Any) -> Expr:
    """How many bits are set."""
    e = expr.wrap(x)
    if not e.dtype.is_int:
        fail(f"popcount of {e.dtype}; it is for integers")
    total: Expr = expr.const(0, e.dtype)
    for bit in range(e.dtype.bits):
        total = total + ((e >> bit) & 1)
    return total


def reinterpret(dtype: Any, x: Any) -> Expr:
    """Refused: bits read as another type have no meaning in tensor expressions here.

    Raises:
        TypeCheckError: unless the type is that of `x`.
    """
    e = expr.wrap(x)
    return e if e.dtype == as_dtype(dtype) else fail("reinterpret is not supported; te.cast converts the value")
