"""Scalar and vector element types, interned by value.

Short names are canonical (`f32`, `i64`, `bool`, `bf16`, ...); a vector type is written `f32x16`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from tensorlang.errors import TypeCheckError


@dataclass(frozen=True, slots=True)
class DType:
    """An element type.

    Attributes:
        name: canonical short name of the scalar type.
        kind: 'b' bool, 'i' signed, 'u' unsigned, 'f' floating point, 'n' narrow: a format without arithmetic, of models only.
        bits: size of one scalar in memory (bool is stored in one byte: 8).
        lanes: vector length; 1 is a scalar.
    """

    name: str
    kind: str
    bits: int
    lanes: int = 1

    def __str__(self) -> str:
        return self.name if self.lanes == 1 else f"{self.name}x{self.lanes}"

    __repr__ = __str__

    @property
    def is_float(self) -> bool:
        return self.kind == "f"

    @property
    def is_int(self) -> bool:
        return self.kind in "iu"

    @property
    def is_bool(self) -> bool:
        return self.kind == "b"

    @property
    def is_narrow(self) -> bool:
        """Whether it is a format of numbers of at most 8 bits, one to a byte, that models store and programs decode."""
        return self.kind == "n"

    @property
    def storage(self) -> DType:
        """The type that programs know such a format by: u8, whose low bits are the code. Itself for all others."""
        return u8 if self.is_narrow else self

    @property
    def nbytes(self) -> int:
        """Bytes of one scalar in memory."""
        return self.bits // 8

    def with_lanes(self, lanes: int) -> DType:
        return self if lanes == self.lanes else replace(self, lanes=lanes)

    @property
    def scalar(self) -> DType:
        return self.with_lanes(1)

    @property
    def numpy(self) -> np.dtype:
        """The NumPy dtype of one scalar (`ml_dtypes` for bf16 and the narrow formats)."""
        return _numpy_dtype(self.name)


_KINDS = {
    "bool": ("b", 8),
    **{f"i{n}": ("i", n) for n in (8, 16, 32, 64)},
    **{f"u{n}": ("u", n) for n in (8, 16, 32, 64)},
    **{f"f{n}": ("f", n) for n in (16, 32, 64)},
    "bf16": ("f", 16),
}
SCALARS: dict[str, DType] = {name: DType(name, kind, bits) for name, (kind, bits) in _KINDS.items()}
_NUMPY_NAMES = {
    "bool": "bool",
    **{f"i{n}": f"int{n}" for n in (8, 16, 32, 64)},
    **{f"u{n}": f"uint{n}" for n in (8, 16, 32, 64)},
    **{f"f{n}": f"float{n}" for n in (16, 32, 64)},
    "bf16": "bfloat16",
}
_NARROW_NAMES = {
    "i4": "int4", "u4": "uint4", "i2": "int2", "u2": "uint2",
    "f8e4m3fn": "float8_e4m3fn", "f8e4m3fnuz": "float8_e4m3fnuz", "f8e5m2": "float8_e5m2", "f8e5m2fnuz": "float8_e5m2fnuz",
    "f8e8m0": "float8_e8m0fnu", "f6e2m3": "float6_e2m3fn", "f6e3m2": "float6_e3m2fn", "f4e2m1": "float4_e2m1fn",
}  # fmt: skip
NARROW: dict[str, DType] = {name: DType(name, "n", 8) for name in _NARROW_NAMES}
_LONG_NAMES = {long: short for short, long in _NUMPY_NAMES.items()} | {"bool_": "bool"}
_NARROW_LONG = {long: short for short, long in _NARROW_NAMES.items()}

bool_ = SCALARS["bool"]
i8, i16, i32, i64 = (SCALARS[f"i{n}"] for n in (8, 16, 32, 64))
u8, u16, u32, u64 = (SCALARS[f"u{n}"] for n in (8, 16, 32, 64))
f16, f32, f64 = (SCALARS[f"f{n}"] for n in (16, 32, 64))
bf16 = SCALARS["bf16"]


@cache
def _numpy_dtype(name: str) -> np.dtype:
    if name == "bf16" or name in _NARROW_NAMES:
        import ml_dtypes  # only when a program uses such types

        return np.dtype(getattr(ml_dtypes, _NARROW_NAMES.get(name, "bfloat16")))
    return np.dtype(_NUMPY_NAMES[name])


def dtype(spec: DType | str | np.dtype | type) -> DType:
    """The `DType` that `spec` names: a DType, `"f32"`, `"float32"`, a NumPy dtype or scalar type, or `bool/int/float`.

    Raises:
        TypeCheckError: the name is unknown.
    """
    if isinstance(spec, DType):
        return spec
    if spec is int:
        return i64
    if spec is float:
        return f32
    name = spec if isinstance(spec, str) else np.dtype(spec).name
    if (found := SCALARS.get(_LONG_NAMES.get(name, name))) is not None:
        return found
    if (found := NARROW.get(_NARROW_LONG.get(name, name))) is not None:
        return found
    if isinstance(spec, str) and "x" in spec:
        base, _, lanes = spec.rpartition("x")
        if base in SCALARS and lanes.isdigit():
            return SCALARS[base].with_lanes(int(lanes))
    raise TypeCheckError(f"unknown dtype {spec!r}; known: {', '.join(SCALARS)}")


def promote(a: DType, b: DType) -> DType:
    """The type both operands of an arithmetic operator are cast to: equal types, or integers widened to the wider one.

    Raises:
        TypeCheckError: any other mixture; write an explicit cast.
    """
    if a.scalar == b.scalar:
        return a.scalar
    if a.is_int and b.is_int:
        if a.kind == b.kind:
            return (a if a.bits >= b.bits else b).scalar
        wide = max(a.bits if a.kind == "i" else 2 * a.bits, b.bits if b.kind == "i" else 2 * b.bits)
        return SCALARS[f"i{min(64, wide)}"]
    if a.is_float and b.is_float and {a.name, b.name} != {"f16", "bf16"}:
        return (a if a.bits >= b.bits else b).scalar
    raise TypeCheckError(f"operands of types {a} and {b} do not mix: cast one of them, e.g. te.cast(x, '{a}')")
