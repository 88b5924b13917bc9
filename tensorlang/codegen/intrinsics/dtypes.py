"""Scalar types of emitted code: `f32`, `i64`, `bf16`... Each is a cast when called and names an element type otherwise."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np


class ScalarType:
    """A scalar type by its name in emitted code; calling it casts (plain-Python twin of the native cast).

    Float to integer truncates toward zero as in C, integer to integer wraps, anything to bool is `!= 0`.

    Attributes:
        name: `f32`, `i64`, `bool`...
        numpy: the NumPy dtype of one element in memory.
        kind: "b" bool, "i" signed, "u" unsigned, "f" float with arithmetic, "s" float for storage only (f16, bf16).
        bits: size of one element in memory, in bits.
    """

    __slots__ = ("name", "numpy", "kind", "bits", "__weakref__")

    def __init__(self, name: str, numpy_dtype: Any, kind: str):
        self.name = name
        self.numpy = np.dtype(numpy_dtype)
        self.kind = kind
        self.bits = self.numpy.itemsize * 8

    def __call__(self, value: Any) -> Any:
        return cast_array(np.asarray(value), self)[()]

    def __repr__(self) -> str:
        return self.name


def scalar_type(dtype: Any) -> ScalarType:
    """`dtype` itself; emitted code may also write Python's `bool`."""
    return SCALAR_TYPES["bool"] if dtype is bool else dtype


def cast_array(value: np.ndarray, dtype: ScalarType) -> np.ndarray:
    """`value` converted element by element to `dtype`, with C's rules rather than NumPy's."""
    dtype = scalar_type(dtype)
    if dtype.kind == "b":
        return value != 0
    with np.errstate(all="ignore"):
        return value.astype(dtype.numpy)


i8 = ScalarType("i8", np.int8, "i")
i16 = ScalarType("i16", np.int16, "i")
i32 = ScalarType("i32", np.int32, "i")
i64 = ScalarType("i64", np.int64, "i")
u8 = ScalarType("u8", np.uint8, "u")
u16 = ScalarType("u16", np.uint16, "u")
u32 = ScalarType("u32", np.uint32, "u")
u64 = ScalarType("u64", np.uint64, "u")
f16 = ScalarType("f16", np.float16, "s")
bf16 = ScalarType("bf16", ml_dtypes.bfloat16, "s")
f32 = ScalarType("f32", np.float32, "f")
f64 = ScalarType("f64", np.float64, "f")
boolean = ScalarType("bool", np.bool_, "b")

SCALAR_TYPES: dict[str, ScalarType] = {t.name: t for t in (boolean, i8, i16, i32, i64, u8, u16, u32, u64, f16, bf16, f32, f64)}
