"""select, minimum, maximum, fma, logic, positive division and reductions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types

from tensorlang.codegen.intrinsics import arith
from tensorlang.codegen.intrinsics.lowering.operators import common_vector, constant_like, operand_type, widen
from tensorlang.codegen.intrinsics.lowering.registry import FAST_MATH, intrinsic, is_float, lowers
from tensorlang.codegen.intrinsics.lowering.types import I32, NUMBA, StorageFloat, Vec, scalar_of

_SCALARS = frozenset(NUMBA.values())


def _is_value(t: Any) -> bool:
    return isinstance(t, Vec) or types.unliteral(t) in _SCALARS


def common_type(a: Any, b: Any) -> Any:
    """The type in which `a` and `b` meet: the vector's if either is one; literals give way; else they must agree."""
    if not (_is_value(a) and _is_value(b)):
        return None
    vec = common_vector(a, b)
    if vec is not None or isinstance(a, Vec) or isinstance(b, Vec):
        return vec
    x, y = types.unliteral(a), types.unliteral(b)
    if x == y:
        return x
    if isinstance(x, types.Integer) and isinstance(y, types.Integer):
        return types.int64
    return None


def _cast(t: Any, to: Any) -> Any:
    return operand_type(t, to) if isinstance(to, Vec) else to


def _widen(b: ir.IRBuilder, value: Any, to: Any) -> Any:
    return widen(b, value, to.lanes) if isinstance(to, Vec) else value


@lowers(arith.select)
def select(condition: Any, x: Any, y: Any) -> Any:
    result = common_type(x, y)
    mask = isinstance(condition, Vec) and condition.dtype == types.boolean
    if result is None or not (mask or condition == types.boolean):
        return None
    if mask and not isinstance(result, Vec):
        result = Vec(result, condition.lanes)
    if mask and result.lanes != condition.lanes:
        return None

    def emit(b: ir.IRBuilder, c: Any, left: Any, right: Any) -> Any:
        return b.select(c, _widen(b, left, result), _widen(b, right, result))

    return result(condition, _cast(x, result), _cast(y, result)), emit


def _extreme(function: Any, float_name: str, signed: str, unsigned: str, of_bools: str) -> None:
    @lowers(function)
    def typer(x: Any, y: Any) -> Any:
        result = common_type(x, y)
        if result is None or isinstance(result, StorageFloat):
            return None
        name = {"f": float_name, "i": signed, "u": unsigned}.get(scalar_of(result).kind)

        def emit(b: ir.IRBuilder, left: Any, right: Any) -> Any:
            left, right = _widen(b, left, result), _widen(b, right, result)
            return intrinsic(b, name, left, right) if name else getattr(b, of_bools)(left, right)

        return result(_cast(x, result), _cast(y, result)), emit


_extreme(arith.minimum, "minimum", "smin", "umin", "and_")
_extreme(arith.maximum, "maximum", "smax", "umax", "or_")


@lowers(arith.fma)
def fma(x: Any, y: Any, z: Any) -> Any:
    first = common_type(x, y)
    result = None if first is None else common_type(first, z)
    if result is None:
        return None

    def emit(b: ir.IRBuilder, p: Any, q: Any, r: Any) -> Any:
        p, q, r = (_widen(b, v, result) for v in (p, q, r))
        if not is_float(p.type):
            return b.add(b.mul(p, q), r)
        return intrinsic(b, "fmuladd", p, q, r)  # `llvm.fma` would call libm where the machine has no FMA

    return result(_cast(x, result), _cast(y, result), _cast(z, result)), emit


def _truth(b: ir.IRBuilder, value: Any) -> Any:
    if is_float(value.type):
        return b.fcmp_unordered("!=", value, constant_like(value.type, 0.0))
    return b.icmp_unsigned("!=", value, constant_like(value.type, 0))


def _logical(function: Any, op: str) -> None:
    @lowers(function)
    def typer(x: Any, y: Any) -> Any:
        meet = common_type(x, y)
        if meet is None:
            return None
        result = Vec(types.boolean, meet.lanes) if isinstance(meet, Vec) else types.boolean

        def emit(b: ir.IRBuilder, left: Any, right: Any) -> Any:
            return getattr(b, op)(_truth(b, _widen(b, left, meet)), _truth(b, _widen(b, right, meet)))

        return result(_cast(x, meet), _cast(y, meet)), emit


_logical(arith.logical_and, "and_")
_logical(arith.logical_or, "or_")


@lowers(arith.logical_not)
def logical_not(x: Any) -> Any:
    if not _is_value(x):
        return None
    result = Vec(types.boolean, x.lanes) if isinstance(x, Vec) else types.boolean

    def emit(b: ir.IRBuilder, value: Any) -> Any:
        return b.not_(_truth(b, value))

    return result(types.unliteral(x)), emit


def _positive_division(function: Any, op: str) -> None:
    @lowers(function)
    def typer(x: Any, y: Any) -> Any:
        result = common_type(x, y)
        if result is None or is_float_type(result):
            return None

        def emit(b: ir.IRBuilder, left: Any, right: Any) -> Any:
            return getattr(b, op)(_widen(b, left, result), _widen(b, right, result))

        return result(_cast(x, result), _cast(y, result)), emit


def is_float_type(t: Any) -> bool:
    """Whether a numba scalar or Vec is of f32 or f64."""
    return scalar_of(t).kind == "f"


_positive_division(arith.floordiv_pos, "udiv")
_positive_division(arith.floormod_pos, "urem")


def _tree(b: ir.IRBuilder, combine: Callable[[Any, Any], Any], value: Any) -> Any:
    """Halve until one lane is left, in the same order as the plain twin."""

    def part(v: Any, first: int, count: int) -> Any:
        lanes = ir.Constant(ir.VectorType(I32, count), [first + k for k in range(count)])
        return b.shuffle_vector(v, ir.Constant(v.type, ir.Undefined), lanes)

    while value.type.count > 1:
        count = value.type.count
        half = count // 2
        head = combine(part(value, 0, half), part(value, half, half))
        if count % 2:
            first = combine(b.extract_element(head, I32(0)), b.extract_element(value, I32(count - 1)))
            head = b.insert_element(head, first, I32(0))
        value = head
    return b.extract_element(value, I32(0))


def _reduction(function: Any, float_op: Any, int_op: Any) -> None:
    @lowers(function)
    def typer(value: Any) -> Any:
        if not isinstance(value, Vec) or scalar_of(value).kind not in "fiu":
            return None
        kind = scalar_of(value).kind

        def emit(b: ir.IRBuilder, v: Any) -> Any:
            def combine(x: Any, y: Any) -> Any:
                return float_op(b, x, y) if kind == "f" else int_op(b, x, y, kind)

            return _tree(b, combine, v)

        return value.dtype(value), emit


_reduction(arith.vreduce_add, lambda b, x, y: b.fadd(x, y, flags=FAST_MATH), lambda b, x, y, kind: b.add(x, y))
_reduction(arith.vreduce_mul, lambda b, x, y: b.fmul(x, y, flags=FAST_MATH), lambda b, x, y, kind: b.mul(x, y))
_reduction(
    arith.vreduce_max,
    lambda b, x, y: intrinsic(b, "maximum", x, y),
    lambda b, x, y, kind: intrinsic(b, "smax" if kind == "i" else "umax", x, y),
)
_reduction(
    arith.vreduce_min,
    lambda b, x, y: intrinsic(b, "minimum", x, y),
    lambda b, x, y, kind: intrinsic(b, "smin" if kind == "i" else "umin", x, y),
)
