"""Casts: `f32(x)`, `i64(x)`... on scalars, `vcast` on vectors, and the 16-bit floats."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types

from tensorlang.codegen.intrinsics import dtypes, memory
from tensorlang.codegen.intrinsics.dtypes import ScalarType
from tensorlang.codegen.intrinsics.lowering.registry import GLOBALS, DTypeName, cast_key, declare, lowering_registry, lowers
from tensorlang.codegen.intrinsics.lowering.types import F32, I16, I32, NUMBA, StorageFloat, Vec, scalar_of, value_ir


def _like(t: ir.Type, element: ir.Type) -> ir.Type:
    return ir.VectorType(element, t.count) if isinstance(t, ir.VectorType) else element


def _const(t: ir.Type, value: int) -> ir.Constant:
    return ir.Constant(t, [value] * t.count) if isinstance(t, ir.VectorType) else ir.Constant(t, value)


def _half_call(b: ir.IRBuilder, name: str, value: Any, element: ir.Type) -> Any:
    """A conversion that not every machine has an instruction for: defined per target when linking (`native.support`)."""
    lanes = f".v{value.type.count}" if isinstance(value.type, ir.VectorType) else ""
    return b.call(declare(b, f"tl.{name}{lanes}", _like(value.type, element), [value.type]), [value])


def _to_f32(b: ir.IRBuilder, value: Any, source: ScalarType) -> Any:
    """f16 or bf16 bits (scalar or vector) as f32."""
    if source.name == "f16":
        return _half_call(b, "f16_to_f32", value, F32)
    word = _like(value.type, I32)
    return b.bitcast(b.shl(b.zext(value, word), _const(word, 16)), _like(value.type, F32))


def _from_f32(b: ir.IRBuilder, value: Any, target: ScalarType) -> Any:
    """f32 (scalar or vector) as f16 or bf16 bits, to nearest even, NaN kept quiet."""
    return _half_call(b, f"f32_to_{target.name}", value, I16)


def convert(b: ir.IRBuilder, value: Any, source: ScalarType, target: ScalarType) -> Any:
    """`value` of type `source` (scalar or vector) as `target`, with C's rules."""
    if source is target:
        return value
    if source.kind == "s":
        return convert(b, _to_f32(b, value, source), dtypes.f32, target)
    if target.kind == "s":
        return _from_f32(b, convert(b, value, source, dtypes.f32), target)
    to = _like(value.type, value_ir(target))
    if target.kind == "b":
        if source.kind == "f":
            return b.fcmp_unordered("!=", value, _zero(value.type))
        return b.icmp_unsigned("!=", value, _zero(value.type))
    if source.kind == "f":
        if target.kind == "f":
            return b.fptrunc(value, to) if source.bits > target.bits else b.fpext(value, to)
        return b.fptosi(value, to) if target.kind == "i" else b.fptoui(value, to)
    if target.kind == "f":
        return b.sitofp(value, to) if source.kind == "i" else b.uitofp(value, to)
    width = 1 if source.kind == "b" else source.bits
    if target.bits < width:
        return b.trunc(value, to)
    if target.bits == width:
        return value
    return b.sext(value, to) if source.kind == "i" else b.zext(value, to)


def _zero(t: ir.Type) -> ir.Constant:
    if isinstance(t, ir.VectorType):
        return ir.Constant(t, [_zero(t.element).constant] * t.count)
    return ir.Constant(t, 0) if isinstance(t, ir.IntType) else ir.Constant(t, 0.0)


def _cast_signature(target: ScalarType, source: Any) -> Any:
    if isinstance(source, Vec):
        return None
    return NUMBA[target.name](source)


@lowering_registry.lower(cast_key, types.Any)
def _lower_cast(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
    return convert(builder, args[0], scalar_of(sig.args[0]), scalar_of(sig.return_type))


@lowering_registry.lower_cast(StorageFloat, types.Float)
def _storage_to_float(context: Any, builder: ir.IRBuilder, fromty: Any, toty: Any, value: Any) -> Any:
    return convert(builder, value, scalar_of(fromty), scalar_of(toty))


for _scalar in dtypes.SCALAR_TYPES.values():
    GLOBALS[_scalar] = DTypeName(_scalar, _cast_signature)
GLOBALS[bool] = GLOBALS[dtypes.boolean]


@lowers(memory.vcast)
def vcast(value: Any, dtype: Any) -> Any:
    if not isinstance(value, Vec) or not isinstance(dtype, DTypeName):
        return None
    source, target = scalar_of(value), dtype.scalar

    def emit(b: ir.IRBuilder, v: Any, _: Any) -> Any:
        return convert(b, v, source, target)

    return Vec(NUMBA[target.name], value.lanes)(value, dtype), emit
