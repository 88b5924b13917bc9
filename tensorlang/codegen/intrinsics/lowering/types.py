"""Numba types of emitted code: vectors, typed pointers, the context, storage floats and the scalar type names."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.datamodel import models, register_default

from tensorlang.codegen.intrinsics.dtypes import SCALAR_TYPES, ScalarType
from tensorlang.errors import InternalError

I1, I8, I16, I32, I64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
F32, F64, HALF = ir.FloatType(), ir.DoubleType(), ir.HalfType()
BYTE_POINTER = I8.as_pointer()


class StorageFloat(types.Type):
    """A 16-bit float that is only loaded, stored and cast; carried as its bit pattern."""

    def __init__(self, name: str):
        super().__init__(name=name)


class Vec(types.Type):
    """`lanes` values of the numba scalar type `dtype` in vector registers; a mask is a Vec of booleans."""

    def __init__(self, dtype: types.Type, lanes: int):
        self.dtype, self.lanes = dtype, lanes
        super().__init__(name=f"Vec({dtype},{lanes})")


class Pointer(types.Type):
    """A flat typed pointer to `dtype`."""

    def __init__(self, dtype: types.Type):
        self.dtype = dtype
        super().__init__(name=f"Pointer({dtype})")


class Context(types.Type):
    """The `ctx` parameter."""

    def __init__(self) -> None:
        super().__init__(name="Context")


context_type = Context()
float16, bfloat16 = StorageFloat("f16"), StorageFloat("bf16")

NUMBA: dict[str, types.Type] = {
    "bool": types.boolean, "i8": types.int8, "i16": types.int16, "i32": types.int32, "i64": types.int64,
    "u8": types.uint8, "u16": types.uint16, "u32": types.uint32, "u64": types.uint64,
    "f16": float16, "bf16": bfloat16, "f32": types.float32, "f64": types.float64,
}  # fmt: skip
_BY_NUMBA: dict[Any, ScalarType] = {numba_type: SCALAR_TYPES[name] for name, numba_type in NUMBA.items()}


@register_default(StorageFloat)
class _StorageModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: StorageFloat):
        super().__init__(dmm, fe_type, I16)


@register_default(Vec)
class _VecModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Vec):
        super().__init__(dmm, fe_type, vector_ir(fe_type))


@register_default(Pointer)
class _PointerModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Pointer):
        super().__init__(dmm, fe_type, element_ir(scalar_of(fe_type.dtype)).as_pointer())


@register_default(Context)
class _ContextModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Context):
        super().__init__(dmm, fe_type, BYTE_POINTER)


def scalar_of(numba_type: types.Type) -> ScalarType:
    """The scalar type that a numba scalar (or the lanes of a Vec) stands for."""
    if isinstance(numba_type, Vec):
        numba_type = numba_type.dtype
    try:
        return _BY_NUMBA[types.unliteral(numba_type)]
    except KeyError:
        raise InternalError(f"no scalar type stands for {numba_type}") from None


def value_ir(scalar: ScalarType) -> ir.Type:
    """The LLVM type of one value in a register."""
    if scalar.kind == "b":
        return I1
    if scalar.kind == "f":
        return F32 if scalar.bits == 32 else F64
    return ir.IntType(scalar.bits)


def element_ir(scalar: ScalarType) -> ir.Type:
    """The LLVM type of one element in memory: as a value, but booleans take a byte."""
    return I8 if scalar.kind == "b" else value_ir(scalar)


def vector_ir(vec: Vec) -> ir.Type:
    """The LLVM type of a Vec."""
    return ir.VectorType(value_ir(scalar_of(vec.dtype)), vec.lanes)


def parameter_type(type_text: str) -> types.Type:
    """The numba type of a declared parameter such as `f32*`."""
    if type_text.endswith("*"):
        return Pointer(NUMBA[type_text[:-1]])
    return NUMBA[type_text]
