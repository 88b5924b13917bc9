"""Elementary functions: in f32 the formulas, one internal function per vector width; in f64 libm's."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types

from tensorlang.codegen.intrinsics import formulas, math as plain
from tensorlang.codegen.intrinsics.lowering.algebra import LLVMAlgebra
from tensorlang.codegen.intrinsics.lowering.arith import common_type
from tensorlang.codegen.intrinsics.lowering.operators import constant_like, operand_type, widen
from tensorlang.codegen.intrinsics.lowering.registry import declare, intrinsic, lowers, suffix
from tensorlang.codegen.intrinsics.lowering.types import F32, F64, I32, Vec, scalar_of


def _f32_function(b: ir.IRBuilder, name: str, formula: Any, t: ir.Type, arity: int) -> ir.Function:
    """`tl.<name>.<type>`, holding the formula; linked once however many kernels bring it."""
    symbol = f"tl.{name}.{suffix(t)}"
    if symbol in b.module.globals:
        return b.module.globals[symbol]
    fn = ir.Function(b.module, ir.FunctionType(t, [t] * arity), symbol)
    fn.linkage = "linkonce_odr"
    fn.attributes.add("alwaysinline")
    inside = ir.IRBuilder(fn.append_basic_block())
    algebra = LLVMAlgebra(inside)
    inside.ret(formula(algebra, *(algebra.value(a) for a in fn.args)).llvm)
    return fn


_F64_INTRINSICS = frozenset(("exp", "log", "log2", "sin", "cos", "pow", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh"))


def _f64_lane(b: ir.IRBuilder, name: str, operands: list[Any]) -> Any:
    one = ir.Constant(F64, 1.0)
    if name in _F64_INTRINSICS:
        return intrinsic(b, name, *operands)
    if name == "rsqrt":
        return b.fdiv(one, intrinsic(b, "sqrt", operands[0]))
    if name == "sigmoid":
        return b.fdiv(one, b.fadd(one, intrinsic(b, "exp", b.fneg(operands[0]))))
    return b.call(declare(b, name, F64, [F64] * len(operands)), operands)  # libm: expm1, log1p, erf, asinh...


def _f64(b: ir.IRBuilder, name: str, operands: list[Any]) -> Any:
    t = operands[0].type
    if not isinstance(t, ir.VectorType):
        return _f64_lane(b, name, operands)
    value: Any = ir.Constant(t, ir.Undefined)
    for lane in range(t.count):
        picked = [b.extract_element(v, I32(lane)) for v in operands]
        value = b.insert_element(value, _f64_lane(b, name, picked), I32(lane))
    return value


def _elementary(name: str, formula: Any, arity: int) -> None:
    @lowers(getattr(plain, name))
    def typer(*operands: Any) -> Any:
        if len(operands) != arity:
            return None
        result = common_type(operands[0], operands[-1])
        if result is None or scalar_of(result).kind != "f":
            return None

        def emit(b: ir.IRBuilder, *values: Any) -> Any:
            wide = [widen(b, v, result.lanes) if isinstance(result, Vec) else v for v in values]
            if scalar_of(result).bits == 64:
                return _f64(b, name, wide)
            return b.call(_f32_function(b, name, formula, wide[0].type, arity), wide)

        formal = [operand_type(t, result) if isinstance(result, Vec) else result for t in operands]
        return result(*formal), emit


for _name, _formula in formulas.UNARY.items():
    _elementary(_name, _formula, 1)
_elementary("pow", formulas.pow, 2)


def _rounding(name: str, llvm_name: str) -> None:
    @lowers(getattr(plain, name))
    def typer(x: Any) -> Any:
        if not (isinstance(x, (Vec, types.Float))) or scalar_of(x).kind != "f":
            return None

        def emit(b: ir.IRBuilder, value: Any) -> Any:
            fn = declare(b, f"llvm.{llvm_name}.{suffix(value.type)}", value.type, [value.type])
            return b.call(fn, [value], fastmath=("contract",))  # `afn` would turn sqrt into an estimate

        return x(x), emit


for _name, _llvm_name in (
    ("sqrt", "sqrt"), ("floor", "floor"), ("ceil", "ceil"), ("trunc", "trunc"), ("round", "rint"),
):  # fmt: skip
    _rounding(_name, _llvm_name)


def _is_number(x: Any, kinds: str) -> bool:
    return isinstance(x, (Vec, types.Float, types.Integer)) and scalar_of(x).kind in kinds


@lowers(plain.abs)
def abs(x: Any) -> Any:
    if not _is_number(x, "fiu"):
        return None
    kind = scalar_of(x).kind

    def emit(b: ir.IRBuilder, value: Any) -> Any:
        if kind == "f":
            return intrinsic(b, "fabs", value)
        if kind == "u":
            return value
        return b.select(b.icmp_signed("<", value, constant_like(value.type, 0)), b.neg(value), value)

    return types.unliteral(x)(types.unliteral(x)), emit


@lowers(plain.sign)
def sign(x: Any) -> Any:
    if not _is_number(x, "fiu"):
        return None
    kind = scalar_of(x).kind

    def emit(b: ir.IRBuilder, v: Any) -> Any:
        one = constant_like(v.type, 1.0 if kind == "f" else 1)
        zero = constant_like(v.type, 0.0 if kind == "f" else 0)
        if kind == "f":
            result = b.select(b.fcmp_ordered(">", v, zero), one, v)  # zeros and NaN stay
            return b.select(b.fcmp_ordered("<", v, zero), constant_like(v.type, -1.0), result)
        positive = b.select(b.icmp_unsigned("!=", v, zero), one, zero)
        if kind == "u":
            return positive
        return b.select(b.icmp_signed("<", v, zero), constant_like(v.type, -1), positive)

    return types.unliteral(x)(types.unliteral(x)), emit


@lowers(plain.quotient)
def quotient(x: Any, y: Any) -> Any:
    result = common_type(x, y)
    if result is None or scalar_of(result).kind != "f":
        return None

    def emit(b: ir.IRBuilder, left: Any, right: Any) -> Any:
        if isinstance(result, Vec):
            left, right = widen(b, left, result.lanes), widen(b, right, result.lanes)
        return b.fdiv(left, right)  # without flags: `arcp` would allow a reciprocal

    formal = [operand_type(t, result) if isinstance(result, Vec) else result for t in (x, y)]
    return result(*formal), emit


@lowers(plain.fmod)
def fmod(x: Any, y: Any) -> Any:
    result = common_type(x, y)
    if result is None or scalar_of(result).kind != "f":
        return None

    def emit(b: ir.IRBuilder, *values: Any) -> Any:
        if isinstance(result, Vec):
            values = tuple(widen(b, v, result.lanes) for v in values)
        t = values[0].type
        double = ir.VectorType(F64, t.count) if isinstance(t, ir.VectorType) else F64
        if scalar_of(result).bits == 64:
            return _f64(b, "fmod", list(values))
        return b.fptrunc(_f64(b, "fmod", [b.fpext(v, double) for v in values]), t)  # as exact as in f32

    formal = [operand_type(t, result) if isinstance(result, Vec) else result for t in (x, y)]
    return result(*formal), emit


@lowers(plain.float_bits)
def float_bits(x: Any) -> Any:
    if not _is_number(x, "f") or scalar_of(x).bits != 32:
        return None
    result = Vec(types.int32, x.lanes) if isinstance(x, Vec) else types.int32

    def emit(b: ir.IRBuilder, value: Any) -> Any:
        return b.bitcast(value, ir.VectorType(I32, value.type.count) if isinstance(value.type, ir.VectorType) else I32)

    return result(x), emit


@lowers(plain.from_float_bits)
def from_float_bits(x: Any) -> Any:
    if not _is_number(x, "i") or scalar_of(x).bits != 32:
        return None
    result = Vec(types.float32, x.lanes) if isinstance(x, Vec) else types.float32

    def emit(b: ir.IRBuilder, value: Any) -> Any:
        return b.bitcast(value, ir.VectorType(F32, value.type.count) if isinstance(value.type, ir.VectorType) else F32)

    return result(x), emit


def _predicate(name: str, emit: Any) -> None:
    @lowers(getattr(plain, name))
    def typer(x: Any) -> Any:
        if not _is_number(x, "f"):
            return None
        result = Vec(types.boolean, x.lanes) if isinstance(x, Vec) else types.boolean
        return result(x), emit


def _infinite(b: ir.IRBuilder, v: Any) -> Any:
    fn = declare(b, f"llvm.fabs.{suffix(v.type)}", v.type, [v.type])
    return b.fcmp_ordered("==", b.call(fn, [v]), constant_like(v.type, float("inf")))


_predicate("isnan", lambda b, v: b.fcmp_unordered("uno", v, v))
_predicate("isinf", _infinite)
