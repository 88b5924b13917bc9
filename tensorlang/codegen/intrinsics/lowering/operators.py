"""Python's operators on vectors."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types

from tensorlang.codegen.intrinsics.lowering.registry import FAST_MATH, intrinsic, is_float, lowers, splat
from tensorlang.codegen.intrinsics.lowering.types import Vec, scalar_of

Emit = Callable[[ir.IRBuilder, Any, Any, str], Any]  # (builder, a, b, kind) -> value, kind as in ScalarType


def common_vector(a: Any, b: Any) -> Vec | None:
    """The vector type of `a op b` where at least one is a vector and the other a vector or scalar of its dtype."""
    vec, other = (a, b) if isinstance(a, Vec) else (b, a)
    if not isinstance(vec, Vec):
        return None
    if isinstance(other, Vec):
        return vec if other == vec else None
    other = types.unliteral(other)
    both_integers = isinstance(vec.dtype, types.Integer) and isinstance(other, types.Integer)
    return vec if other == vec.dtype or both_integers else None


def operand_type(t: Any, vec: Vec) -> Any:
    """What `t` is cast to before the operation."""
    return vec if isinstance(t, Vec) else vec.dtype


def widen(b: ir.IRBuilder, value: Any, lanes: int) -> Any:
    """Scalars splatted, vectors as they are."""
    return value if isinstance(value.type, ir.VectorType) else splat(b, value, lanes)


def _binary(function: Any, emit_op: Emit, kinds: str, compares: bool = False) -> None:
    @lowers(function)
    def typer(a: Any, b: Any) -> Any:
        vec = common_vector(a, b)
        if vec is None or scalar_of(vec).kind not in kinds:
            return None

        def emit(builder: ir.IRBuilder, left: Any, right: Any) -> Any:
            left, right = widen(builder, left, vec.lanes), widen(builder, right, vec.lanes)
            return emit_op(builder, left, right, scalar_of(vec).kind)

        result = Vec(types.boolean, vec.lanes) if compares else vec
        return result(operand_type(a, vec), operand_type(b, vec)), emit


def _arithmetic(float_op: str, int_op: str) -> Emit:
    def emit(b: ir.IRBuilder, x: Any, y: Any, kind: str) -> Any:
        return getattr(b, float_op)(x, y, flags=FAST_MATH) if kind == "f" else getattr(b, int_op)(x, y)

    return emit


def constant_like(t: ir.Type, value: Any) -> ir.Constant:
    """`value` in every lane of a vector type, or as a scalar."""
    return ir.Constant(t, [value] * t.count) if isinstance(t, ir.VectorType) else ir.Constant(t, value)


def _floor_divide(b: ir.IRBuilder, x: Any, y: Any, kind: str) -> Any:
    if kind == "f":
        return intrinsic(b, "floor", b.fdiv(x, y))
    if kind == "u":
        return b.udiv(x, y)
    divisor, trap = _safe_divisor(b, y)
    quotient, remainder = b.sdiv(x, divisor), b.srem(x, divisor)
    zero = constant_like(x.type, 0)
    down = b.and_(b.icmp_signed("!=", remainder, zero), b.icmp_signed("<", b.xor(remainder, y), zero))
    result = b.add(quotient, b.sext(down, x.type))
    return result if trap is None else b.select(trap, b.mul(x, y), result)  # 0 or -x


def _safe_divisor(b: ir.IRBuilder, y: Any) -> tuple[Any, Any]:
    """`y`, with 1 in the place of 0 and -1, and where that is (None: nowhere): machines trap on `x / 0` and `least / -1`."""
    if isinstance(y, ir.Constant):  # a literal of the program
        return y, None
    trap = b.icmp_unsigned("<", b.add(y, constant_like(y.type, 1)), constant_like(y.type, 2))
    return b.select(trap, constant_like(y.type, 1), y), trap


def _floor_modulo(b: ir.IRBuilder, x: Any, y: Any, kind: str) -> Any:
    if kind == "u":
        return b.urem(x, y)
    if kind == "f":
        remainder, zero = b.frem(x, y), constant_like(x.type, 0.0)
        wrong = b.and_(
            b.fcmp_unordered("!=", remainder, zero),
            b.xor(b.fcmp_ordered("<", remainder, zero), b.fcmp_ordered("<", y, zero)),
        )
        return b.select(wrong, b.fadd(remainder, y), remainder)
    remainder, zero = b.srem(x, _safe_divisor(b, y)[0]), constant_like(x.type, 0)
    wrong = b.and_(b.icmp_signed("!=", remainder, zero), b.icmp_signed("<", b.xor(remainder, y), zero))
    return b.select(wrong, b.add(remainder, y), remainder)


def _compare(sign: str) -> Emit:
    def emit(b: ir.IRBuilder, x: Any, y: Any, kind: str) -> Any:
        if kind == "f":
            return b.fcmp_unordered(sign, x, y) if sign == "!=" else b.fcmp_ordered(sign, x, y)
        return b.icmp_signed(sign, x, y) if kind == "i" else b.icmp_unsigned(sign, x, y)

    return emit


def _shift_right(b: ir.IRBuilder, x: Any, y: Any, kind: str) -> Any:
    return b.ashr(x, y) if kind == "i" else b.lshr(x, y)


_binary(operator.add, _arithmetic("fadd", "add"), "fiu")
_binary(operator.sub, _arithmetic("fsub", "sub"), "fiu")
_binary(operator.mul, _arithmetic("fmul", "mul"), "fiu")
_binary(operator.truediv, lambda b, x, y, kind: b.fdiv(x, y, flags=FAST_MATH), "f")
_binary(operator.floordiv, _floor_divide, "fiu")
_binary(operator.mod, _floor_modulo, "fiu")
_binary(operator.and_, lambda b, x, y, kind: b.and_(x, y), "iub")
_binary(operator.or_, lambda b, x, y, kind: b.or_(x, y), "iub")
_binary(operator.xor, lambda b, x, y, kind: b.xor(x, y), "iub")
_binary(operator.lshift, lambda b, x, y, kind: b.shl(x, y), "iu")
_binary(operator.rshift, _shift_right, "iu")
for _function, _sign in (
    (operator.lt, "<"), (operator.le, "<="), (operator.gt, ">"), (operator.ge, ">="),
    (operator.eq, "=="), (operator.ne, "!="),
):  # fmt: skip
    _binary(_function, _compare(_sign), "fiub", compares=True)


_PLAIN = (types.int64, types.float32)  # the numbers that most emitted arithmetic is on


def _scalar(function: Any, emit_op: Emit, compares: bool = False) -> None:
    """An operator on two i64 or two f32: what numba would emit too, without its search."""

    @lowers(function)
    def typer(a: Any, b: Any) -> Any:
        t = types.unliteral(a)
        if t not in _PLAIN or types.unliteral(b) != t:
            return None

        def emit(builder: ir.IRBuilder, left: Any, right: Any) -> Any:
            return emit_op(builder, left, right, "i" if t == types.int64 else "f")

        return (types.boolean if compares else t)(t, t), emit


_scalar(operator.add, _arithmetic("fadd", "add"))
_scalar(operator.sub, _arithmetic("fsub", "sub"))
_scalar(operator.mul, _arithmetic("fmul", "mul"))
for _function, _sign in (
    (operator.lt, "<"), (operator.le, "<="), (operator.gt, ">"), (operator.ge, ">="),
    (operator.eq, "=="), (operator.ne, "!="),
):  # fmt: skip
    _scalar(_function, _compare(_sign), compares=True)


@lowers(operator.neg)
def negate(a: Any) -> Any:
    if not isinstance(a, Vec) or scalar_of(a).kind not in "fiu":
        return None

    def emit(b: ir.IRBuilder, value: Any) -> Any:
        return b.fneg(value, flags=FAST_MATH) if is_float(value.type) else b.neg(value)

    return a(a), emit


@lowers(operator.invert)
def invert(a: Any) -> Any:
    if not isinstance(a, Vec) or scalar_of(a).kind not in "iub":
        return None

    def emit(b: ir.IRBuilder, value: Any) -> Any:
        return b.not_(value)

    return a(a), emit
