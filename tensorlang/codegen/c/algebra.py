"""The carrier of `intrinsics.formulas` that makes kernel IR: an elementary function becomes an expression, and so C.

The third carrier beside NumPy's and LLVM's. A value knows its expression; Python's operators build larger ones.
"""

from __future__ import annotations

from typing import Any

from tensorlang.ir import expr as ir
from tensorlang.ir.dtype import f32, f64, i32
from tensorlang.ir.expr import Expr


class Term:
    """An f32, f64, i32 or bool value of a formula."""

    def __init__(self, expr: Expr):
        self.expr = expr

    def _with(self, other: Any, build: Any, reverse: bool = False) -> Term:
        a, b = self.expr, _operand(other, self)
        return Term(build(b, a) if reverse else build(a, b))

    def __add__(self, other: Any) -> Term:
        return self._with(other, ir.add)

    def __radd__(self, other: Any) -> Term:
        return self._with(other, ir.add, True)

    def __sub__(self, other: Any) -> Term:
        return self._with(other, ir.sub)

    def __rsub__(self, other: Any) -> Term:
        return self._with(other, ir.sub, True)

    def __mul__(self, other: Any) -> Term:
        return self._with(other, ir.mul)

    def __rmul__(self, other: Any) -> Term:
        return self._with(other, ir.mul, True)

    def __truediv__(self, other: Any) -> Term:
        return self._with(other, ir.div)

    def __rtruediv__(self, other: Any) -> Term:
        return self._with(other, ir.div, True)

    def __neg__(self) -> Term:
        return Term(ir.neg(self.expr))

    def __lt__(self, other: Any) -> Term:
        return self._with(other, ir.lt)

    def __gt__(self, other: Any) -> Term:
        return self._with(other, ir.lt, True)

    def __eq__(self, other: Any) -> Term:  # type: ignore[override]
        return self._with(other, ir.eq)

    def __ne__(self, other: Any) -> Term:  # type: ignore[override]
        return self._with(other, ir.ne)

    __hash__ = None  # type: ignore[assignment]

    def _bitwise(self, other: Any, logical: Any, name: str) -> Term:
        if self.expr.dtype.is_bool:
            return self._with(other, logical)
        return self._with(other, lambda a, b: ir.call(name, a, b))

    def __and__(self, other: Any) -> Term:
        return self._bitwise(other, ir.and_, "bitwise_and")

    def __or__(self, other: Any) -> Term:
        return self._bitwise(other, ir.or_, "bitwise_or")

    def __xor__(self, other: Any) -> Term:
        return self._bitwise(other, ir.ne, "bitwise_xor")

    def __lshift__(self, other: Any) -> Term:
        return self._with(other, lambda a, b: ir.call("left_shift", a, b))

    def __rshift__(self, other: Any) -> Term:
        return self._with(other, lambda a, b: ir.call("right_shift", a, b))


def _operand(value: Any, like: Term) -> Expr:
    return value.expr if isinstance(value, Term) else ir.const(value, like.expr.dtype)


def constant(like: Term, value: float) -> Term:
    """`value` in the type of `like`."""
    return Term(ir.const(value, like.expr.dtype))


def false(like: Term) -> Term:
    """The condition that never holds."""
    return Term(ir.const(False))


def select(condition: Term, a: Any, b: Any) -> Term:
    """`a` where `condition`, else `b`; one of them may be a Python number."""
    like = a if isinstance(a, Term) else b
    return Term(ir.select(condition.expr, _operand(a, like), _operand(b, like)))


def fma(a: Term, b: Any, c: Any) -> Term:
    """`a * b + c`, rounded twice: small machines have no fused operation."""
    return a * b + c


def bits(x: Term) -> Term:
    """The bit pattern of an f32 as i32."""
    return Term(ir.call("float_bits", x.expr))


def floats(x: Term) -> Term:
    """The f32 of an i32 bit pattern."""
    return Term(ir.call("from_float_bits", x.expr))


def int_to_float(x: Term) -> Term:
    """The f32 nearest to an i32."""
    return Term(ir.cast(f32, x.expr))


def scale(x: Term, n: Term, k: Term) -> Term:
    """`x * 2**k` in two factors, since 2**k itself overflows at 128 and is denormal below -126."""
    half = k >> 1
    return x * floats((half + 127) << 23) * floats((k - half + 127) << 23)


def ratio(a: Term, b: Term) -> Term:
    """`a / b`."""
    return a / b


def wide(x: Term) -> Term:
    """f32 as f64."""
    return Term(ir.cast(f64, x.expr))


def narrow(x: Term) -> Term:
    """f64 to the nearest f32."""
    return Term(ir.cast(f32, x.expr))


def low_word(x: Term) -> Term:
    """The low 32 bits of an f64 bit pattern, which formulas ask of an integer `n` (|n| < 2**31) plus 1.5 * 2**52: n."""
    return Term(ir.cast(i32, (x - 6755399441055744.0).expr))


def sqrt(x: Term) -> Term:
    return Term(ir.call("sqrt", x.expr))


def floor(x: Term) -> Term:
    return Term(ir.call("floor", x.expr))


def abs(x: Term) -> Term:
    return Term(ir.call("abs", x.expr))
