"""Scalar expressions that know what they may hold: a bound, and how far rounding may carry them from the exact value.

Floating-point results depend on the order of sums, on fused multiply-adds and on whose `exp` is called. The error of an
expression is bounded as it is built (forward analysis), so that two correct programs must agree within twice that bound, and
comparisons, `floor` and casts to integers are only built on values without any error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tensorlang import te
from tensorlang.ir.dtype import DType, dtype
from tensorlang.ir.expr import Expr, and_, call, le, lt, or_, select

EPS = {"f32": 2.0**-23, "f64": 2.0**-52, "f16": 2.0**-10, "bf16": 2.0**-7}
FUNCTION_ULPS = 8.0  # what an elementary function may be wrong by; f64 ones no better than f32
EXACT_BITS = {"f32": 23, "f64": 50, "f16": 10, "bf16": 7}
LARGEST = {"f16": 3e4}  # nothing may grow beyond this, or rounding decides between a number and infinity
LARGE = 64.0  # values beyond this are clamped before they go on growing
Draw = Callable[[st.SearchStrategy[Any]], Any]


@dataclass(frozen=True)
class Value:
    """An expression, or an element of a tensor.

    Attributes:
        bound: greatest absolute value.
        step: every value is a multiple of this power of two, or 0.0 if nothing is known.
        error: greatest difference between the value that two correct programs may compute.
    """

    expr: Expr
    bound: float
    step: float = 0.0
    error: float = 0.0

    @property
    def dtype(self) -> DType:
        return self.expr.dtype

    @property
    def is_exact(self) -> bool:
        return self.error == 0.0

    def rounded(self, ulps: float = 1.0) -> Value:
        """After a floating-point operation with this mathematical result: exact if it fits the mantissa."""
        if not self.dtype.is_float:
            return replace(self, step=1.0, error=0.0)
        if self.step and self.is_exact and self.bound <= self.step * 2 ** EXACT_BITS[self.dtype.name]:
            return self
        return replace(self, step=0.0, error=self.error + ulps * EPS[self.dtype.name] * self.bound)


def constant(draw: Draw, to: str) -> Value:
    if to == "bool":
        return Value(te.const(draw(st.booleans())), 1)
    if to in EPS:
        quarters = draw(st.integers(-8, 8))
        return Value(te.const(quarters / 4, to), abs(quarters) / 4, 0.25)
    n = draw(st.integers(-5, 5))
    return Value(te.const(n, to), abs(n), 1.0)


def clamp(v: Value) -> Value:
    """`v`, held to [-8, 8] if it is a number that could be large."""
    if v.dtype.is_bool or v.bound <= LARGE:
        return v
    held = te.maximum(te.minimum(v.expr, te.const(8, v.dtype)), te.const(-8, v.dtype))
    return replace(v, expr=held, bound=8.0)


def cast(v: Value, to: str) -> Value | None:
    """`v` as type `to`, or None where rounding could decide the result."""
    if v.dtype.name == to:
        return v
    target = dtype(to)
    if v.bound > LARGEST.get(to, v.bound):
        v = clamp(v)
    if not target.is_float:
        if not v.is_exact or (v.dtype.is_float and v.bound > 2.0**20):
            return None
        return Value(te.cast(v.expr, to), 1.0 if to == "bool" else v.bound, 1.0)
    bound = 1.0 if v.dtype.is_bool else v.bound
    step = v.step if v.dtype.is_float else 1.0
    return replace(v, expr=te.cast(v.expr, to), bound=bound, step=step).rounded()


def compare(draw: Draw, a: Value, b: Value) -> Value:
    """A condition on two numbers of one type, both exact."""
    build = draw(st.sampled_from([lt, le, lambda x, y: lt(y, x), te.equal, te.not_equal]))
    return Value(build(a.expr, b.expr), 1)


def choose(cond: Value, a: Value, b: Value) -> Value:
    return Value(select(cond.expr, a.expr, b.expr), max(a.bound, b.bound), _common(a, b), max(a.error, b.error))


def _common(a: Value, b: Value) -> float:
    return min(a.step, b.step)


def add(a: Value, b: Value, sign: int = 1) -> Value:
    if a.bound + b.bound > LARGEST.get(a.dtype.name, np.inf):
        a, b = clamp(a), clamp(b)
    e = a.expr + b.expr if sign > 0 else a.expr - b.expr
    return Value(e, a.bound + b.bound, _common(a, b), a.error + b.error).rounded()


def multiply(a: Value, b: Value) -> Value:
    a, b = clamp(a), clamp(b)
    error = a.bound * b.error + b.bound * a.error + a.error * b.error
    return Value(a.expr * b.expr, a.bound * b.bound, a.step * b.step, error).rounded()


def unary(draw: Draw, v: Value) -> Value:
    """A function of one number."""
    v = clamp(v)
    x, like = v.expr, lambda c: te.const(c, v.dtype)
    if not v.dtype.is_float:
        return draw(
            st.sampled_from(
                [
                    lambda: Value(-x, v.bound, 1.0),
                    lambda: Value(te.abs(x), v.bound, 1.0),
                    lambda: Value(x // like(3), v.bound + 1, 1.0),
                    lambda: Value(x % like(5), 5, 1.0),
                    lambda: Value(te.truncdiv(x, like(2)), v.bound + 1, 1.0),
                    lambda: Value(x & like(6), 8, 1.0),
                    lambda: Value(te.sign(x), 1, 1.0),
                    lambda: Value(te.left_shift(x, like(2)), 4 * v.bound, 1.0),
                    lambda: Value(te.right_shift(x, like(1)), v.bound + 1, 1.0),
                ]
            )
        )()

    def function(e: Expr, bound: float, slope: float) -> Value:
        eps = max(EPS["f32"], EPS[v.dtype.name]) * bound * FUNCTION_ULPS
        return Value(e, bound, 0.0, slope * v.error + eps)

    smooth = [
        lambda: replace(v, expr=-x),
        lambda: replace(v, expr=te.abs(x)),
        lambda: function(te.exp(te.minimum(x, like(2.0))), 7.4, 7.4),
        lambda: function(te.tanh(x), 1.0, 1.0),
        lambda: function(te.sigmoid(x), 1.0, 0.25),
        lambda: function(te.erf(x), 1.0, 1.13),
        lambda: function(te.sin(x), 1.0, 1.0),
        lambda: function(te.sqrt(te.abs(x) + like(1.0)), 9.0, 0.5),
        lambda: function(te.log(te.abs(x) + like(1.0)), 5.0, 1.0),
        lambda: function(like(1.0) / (te.abs(x) + like(1.0)), 1.0, 1.0),
        lambda: Value(te.maximum(x, like(0.0)), v.bound, v.step, v.error),
    ]
    steps = [
        lambda: Value(te.floor(x), v.bound + 1, 1.0),
        lambda: Value(te.round(x), v.bound + 1, 1.0),
        lambda: Value(te.sign(x), 1.0, 1.0),
        lambda: Value(te.cast(te.isnan(x), v.dtype), 1.0, 1.0),
    ]
    return draw(st.sampled_from([*smooth, *(steps if v.is_exact else [])]))()


def binary(draw: Draw, a: Value, b: Value) -> Value:
    """A function of two numbers of one type."""
    joined = Value(a.expr, max(a.bound, b.bound), _common(a, b), max(a.error, b.error))
    choices: list[Callable[[], Value]] = [
        lambda: add(a, b),
        lambda: add(a, b, -1),
        lambda: multiply(a, b),
        lambda: replace(joined, expr=te.minimum(a.expr, b.expr)),
        lambda: replace(joined, expr=te.maximum(a.expr, b.expr)),
    ]
    if a.dtype.is_int:
        choices += [
            lambda: Value(call("bitwise_xor", a.expr, b.expr), 2 * joined.bound + 2, 1.0),
            lambda: Value(a.expr // (te.abs(b.expr % te.const(7, b.dtype)) + te.const(1, b.dtype)), a.bound + 1, 1.0),
            lambda: Value(a.expr % (te.abs(clamp(b).expr) + te.const(1, b.dtype)), LARGE + 1, 1.0),
        ]
    return draw(st.sampled_from(choices))()


def logical(draw: Draw, a: Value, b: Value) -> Value:
    build = draw(st.sampled_from([and_, or_, lambda x, y: x ^ y, lambda x, y: and_(x, ~y)]))
    return Value(build(a.expr, b.expr), 1)


def reduce(draw: Draw, source: Value, axes: list[Expr], points: int) -> Value:
    """A reduction of `source` over `points` points; products only where they stay small."""
    kinds = ["sum", "max", "min"]
    if source.bound * points > LARGEST.get(source.dtype.name, np.inf):
        kinds.remove("sum")
    if source.dtype.is_int or (source.bound <= 2 and points <= 6):
        kinds.append("prod")
    kind = draw(st.sampled_from(kinds))
    e = getattr(te, kind)(source.expr, axis=axes)
    if kind in ("max", "min"):
        return Value(e, source.bound, source.step, source.error)
    if kind == "sum":
        total = Value(e, source.bound * points, source.step, source.error * points)
        return total.rounded(points)
    if source.dtype.is_int:
        return Value(e, 2.0 ** (source.dtype.bits - 1), 1.0)  # it may wrap
    high = max(1.0, source.bound) ** points
    return Value(e, high, source.step**points if source.step else 0.0, high * points * source.error).rounded(points)
