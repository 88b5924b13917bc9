"""Narrow number formats: what models store in at most 8 bits a number, one to a byte, and programs decode.

In a graph a value may have such a type; no operator computes with it. `reinterpret` gives bytes the type or takes it away,
`encode` and `decode` convert, and what merely moves elements (`MOVING`) moves these too. Before kernels are made, the types
become u8 (`passes.storage`), and `reinterpret` vanishes. The low bits of a byte are the code; integers are in two's complement.

Floating-point formats: OCP 8-bit Floating Point Specification and Microscaling Formats (MX) v1.0; those named fnuz:
arXiv 2206.02915. Which of them have infinities and how they saturate: the tables of ONNX's Cast.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tensorlang import te
from tensorlang.graph.ir import TensorType
from tensorlang.graph.ops.common import canonical, intrinsic, plain, require
from tensorlang.graph.registry import ELEMENTWISE, INJECTIVE, Op, op
from tensorlang.ir.dtype import NARROW, DType, dtype as as_dtype, f32, i32, u8
from tensorlang.ir.expr import Expr, cast, const, eq, lt, ne

F32_FRACTION = 23  # bits of f32's fraction
F32_BIAS = 127
F32_INFINITY = 0xFF << F32_FRACTION


@dataclass(frozen=True)
class FloatFormat:
    """A floating-point format of sign, exponent and fraction, by its codes.

    Attributes:
        fraction: bits of the fraction.
        bias: of the exponent.
        sign: the sign's bit.
        largest: the code of the largest finite number.
        nan: the code of NaN; None if there is none, and NaN becomes a zero.
        infinity: the code of infinity; None if there is none.
        unsigned_zero: there is no -0, and NaN has the code that it would have.
    """

    fraction: int
    bias: int
    sign: int
    largest: int
    nan: int | None
    infinity: int | None = None
    unsigned_zero: bool = False


FLOATS: dict[str, FloatFormat] = {
    "f8e4m3fn": FloatFormat(3, 7, 0x80, 0x7E, 0x7F),
    "f8e4m3fnuz": FloatFormat(3, 8, 0x80, 0x7F, 0x80, unsigned_zero=True),
    "f8e5m2": FloatFormat(2, 15, 0x80, 0x7B, 0x7E, infinity=0x7C),
    "f8e5m2fnuz": FloatFormat(2, 16, 0x80, 0x7F, 0x80, unsigned_zero=True),
    "f6e2m3": FloatFormat(3, 1, 0x20, 0x1F, None),
    "f6e3m2": FloatFormat(2, 3, 0x20, 0x1F, None),
    "f4e2m1": FloatFormat(1, 1, 0x08, 0x07, None),
}
INTEGERS: dict[str, tuple[int, int]] = {"i4": (-8, 7), "u4": (0, 15), "i2": (-2, 1), "u2": (0, 3)}
SCALE = "f8e8m0"  # a power of two, or NaN: neither sign nor fraction
ROUNDINGS = ("up", "down", "nearest")
MOVING = frozenset(  # operators that move elements and never look at them
    "reinterpret identity reshape transpose expand concat slice tile gather gather_elements gather_nd where shape size "
    "depth_to_space space_to_depth".split()
)


def check_format(name: str) -> None:
    """
    Raises:
        TypeCheckError: there is no such narrow format.
    """
    require(name in NARROW, f"{name!r} is no narrow format; there are: {', '.join(NARROW)}")


def _word(value: int) -> Expr:
    return const(value, i32)


def _shift(x: Expr, bits: int) -> Expr:
    return intrinsic("right_shift", x, _word(bits))


def _and(x: Expr, mask: int) -> Expr:
    return intrinsic("bitwise_and", x, _word(mask))


def _or(x: Expr, y: Expr) -> Expr:
    return intrinsic("bitwise_or", x, y)


# -- encoding ------------------------------------------------------------------------------------------------------


def encoded(x: Expr, to: str, saturate: bool = True, rounding: str = "up") -> Expr:
    """The code of a number in a format, u8. See `Encode`."""
    if to in INTEGERS:
        whole = te.select(x, _word(1), _word(0)) if x.dtype.is_bool else cast(i32, x)
        return cast(u8, integer_code(whole, to))
    wide = te.select(x, const(1.0, f32), const(0.0, f32)) if x.dtype.is_bool else cast(f32, x)
    bits = intrinsic("float_bits", wide)
    code = _encoded_scale(bits, saturate, rounding) if to == SCALE else _encoded_float(wide, bits, FLOATS[to], saturate)
    return cast(u8, code)


def integer_code(x: Expr, to: str) -> Expr:
    """The low bits of an i32."""
    low, high = INTEGERS[to]
    return _and(x, high - low)


def _encoded_float(x: Expr, bits: Expr, f: FloatFormat, saturate: bool) -> Expr:
    magnitude = _and(bits, 0x7FFFFFFF)
    dropped = F32_FRACTION - f.fraction
    half = (1 << (dropped - 1)) - 1
    rounded = _shift(magnitude + half + _and(_shift(magnitude, dropped), 1), dropped)  # to nearest, ties to even
    normal = rounded - ((F32_BIAS - f.bias) << f.fraction)
    lowest = 1 - f.bias  # exponent of the least normal number; below it, steps are equal
    steps = te.round(te.abs(x) * const(2.0 ** (f.fraction - lowest), f32))
    code = te.select(lt(magnitude, _word((lowest + F32_BIAS) << F32_FRACTION)), cast(i32, steps), normal)
    beyond = f.largest if saturate or f.nan is None else f.nan if f.infinity is None else f.infinity
    code = te.select(code > f.largest, _word(beyond), code)
    code = te.select(magnitude >= F32_INFINITY, _word(beyond), code)
    nan = magnitude > F32_INFINITY
    negative = bits < 0
    if f.nan is None:
        code = te.select(nan, _word(0), code)
        return te.select(te.select(nan, te.logical_not(negative), negative), _or(code, _word(f.sign)), code)
    code = te.select(nan, _word(f.nan), code)
    if f.unsigned_zero:
        negative = te.all_of(negative, ne(code, _word(0)))
    return te.select(negative, _or(code, _word(f.sign)), code)


def _encoded_scale(bits: Expr, saturate: bool, rounding: str) -> Expr:
    """The exponent, rounded; the sign does not count. The least number is 2**-127, to which 0 goes too."""
    exponent, fraction = _and(_shift(bits, F32_FRACTION), 0xFF), _and(bits, 0x7FFFFF)
    half = 1 << (F32_FRACTION - 1)
    if rounding == "up":
        more = fraction > 0
    elif rounding == "nearest":  # ties up, but those between 0 and the least number
        more = te.any_of(fraction > half, te.all_of(eq(fraction, _word(half)), exponent > 0))
    else:
        more = const(False)
    code = te.select(more, exponent + 1, exponent)
    code = te.minimum(code, _word(0xFE if saturate else 0xFF))
    return te.select(eq(exponent, _word(0xFF)), _word(0xFF), code)


# -- decoding ------------------------------------------------------------------------------------------------------


def decoded(x: Expr, of: str) -> Expr:
    """The number that a code stands for: i32 for the integer formats, f32 for others; exact."""
    code = cast(i32, x)
    if of in INTEGERS:
        low, high = INTEGERS[of]
        code = _and(code, high - low)
        return te.select(code > high, code - (high - low + 1), code) if low else code
    if of == SCALE:
        bits = te.select(eq(code, _word(0)), _word(1 << (F32_FRACTION - 1)), intrinsic("left_shift", code, _word(F32_FRACTION)))
        return intrinsic("from_float_bits", te.select(eq(code, _word(0xFF)), _word(F32_INFINITY + 1), bits))
    f = FLOATS[of]
    magnitude = _and(code, f.sign - 1)
    bits = intrinsic("left_shift", magnitude, _word(F32_FRACTION - f.fraction)) + ((F32_BIAS - f.bias) << F32_FRACTION)
    small = cast(f32, magnitude) * const(2.0 ** (1 - f.bias - f.fraction), f32)
    value = te.select(lt(magnitude, _word(1 << f.fraction)), small, intrinsic("from_float_bits", bits))
    if f.infinity is not None:
        value = te.select(eq(magnitude, _word(f.infinity)), const(float("inf"), f32), value)
    value = te.select(code >= f.sign, -value, value)
    if f.unsigned_zero:
        return te.select(eq(code, _word(f.sign)), const(float("nan"), f32), value)
    if f.nan is None:
        return value
    return te.select(magnitude > (f.infinity or f.largest), const(float("nan"), f32), value)


def encode_array(x: np.ndarray, to: str, saturate: bool = True, rounding: str = "up") -> np.ndarray:
    """`encoded` of an array: the reference."""
    if to in INTEGERS:
        low, high = INTEGERS[to]
        with np.errstate(invalid="ignore"):
            return (np.asarray(x).astype(np.int64) & (high - low)).astype(np.uint8)
    wide = np.asarray(x).astype(np.float32)
    if to == SCALE:
        return _encode_scales(wide, saturate, rounding)
    f, kind = FLOATS[to], NARROW[to].numpy
    largest = np.array([f.largest], np.uint8).view(kind).astype(np.float32)[0]
    with np.errstate(all="ignore"):
        held = np.where(np.isnan(wide), wide, np.clip(wide, -largest, largest)) if saturate else wide
    return held.astype(kind).view(np.uint8)


def _encode_scales(x: np.ndarray, saturate: bool, rounding: str) -> np.ndarray:
    bits = x.view(np.int32) & 0x7FFFFFFF
    exponent, fraction = bits >> F32_FRACTION, bits & 0x7FFFFF
    half = 1 << (F32_FRACTION - 1)
    more = {"up": fraction > 0, "nearest": (fraction > half) | ((fraction == half) & (exponent > 0))}
    code = np.minimum(exponent + more.get(rounding, np.zeros(x.shape, bool)), 0xFE if saturate else 0xFF)
    return np.where(exponent == 0xFF, 0xFF, code).astype(np.uint8)


def decode_array(x: np.ndarray, of: str) -> np.ndarray:
    """`decoded` of an array: the reference."""
    if of in INTEGERS:
        return np.ascontiguousarray(x).view(NARROW[of].numpy).astype(np.int32)
    return np.ascontiguousarray(x).view(NARROW[of].numpy).astype(np.float32)


# -- operators -----------------------------------------------------------------------------------------------------


@op("encode", ELEMENTWISE)
class Encode(Op):
    """Numbers as codes of the format `to`, as u8.

    Floating-point formats round to nearest even; what is out of range becomes the largest number, or without `saturate`
    infinity or NaN. Integer formats truncate toward zero and keep the low bits. `f8e8m0` rounds to powers of two by
    `rounding`: "up", "down", or "nearest" with ties up.
    """

    def infer(self, x: TensorType, *, to: str, saturate: bool = True, rounding: str = "up") -> list[TensorType]:
        require(rounding in ROUNDINGS, f"rounding {rounding!r}; known: {', '.join(ROUNDINGS)}")
        check_format(to)
        return [TensorType(u8, x.shape)]

    def te(self, x: te.Tensor, *, to: str, saturate: bool = True, rounding: str = "up") -> te.Tensor:
        return te.compute(x.shape, lambda *i: encoded(x[i], to, saturate, rounding), name="encode")

    def numpy(self, x: np.ndarray, *, to: str, saturate: bool = True, rounding: str = "up") -> np.ndarray:
        return encode_array(x, to, saturate, rounding)


@op("decode", ELEMENTWISE)
class Decode(Op):
    """Codes of the format `of` as numbers."""

    def infer(self, x: TensorType, *, of: str, dtype: DType | str) -> list[TensorType]:
        check_format(of)
        require(x.dtype == u8, f"decode of {x.dtype}: {of} is stored as u8")
        return [TensorType(as_dtype(dtype), x.shape)]

    def te(self, x: te.Tensor, *, of: str, dtype: DType | str) -> te.Tensor:
        to = as_dtype(dtype)

        def element(*i: Expr) -> Expr:
            value = decoded(x[i], of)
            return ne(value, const(0, value.dtype)) if to.is_bool else cast(to, value)

        return te.compute(x.shape, element, name="decode")

    def numpy(self, x: np.ndarray, *, of: str, dtype: DType | str) -> np.ndarray:
        with np.errstate(all="ignore"):
            return decode_array(x, of).astype(as_dtype(dtype).numpy)


@op("reinterpret", ELEMENTWISE)
class Reinterpret(Op):
    """The same bytes as another type: a narrow format's storage as the format, or back."""

    def infer(self, x: TensorType, *, dtype: DType | str) -> list[TensorType]:
        to = as_dtype(dtype)
        require(x.dtype.storage == to.storage, f"{x.dtype} is not stored as {to} is")
        return [TensorType(to, x.shape)]

    def te(self, x: te.Tensor, *, dtype: Any) -> te.Tensor:
        require(x.dtype == as_dtype(dtype), f"a program does not know {dtype}")
        return te.compute(x.shape, lambda *i: x[i], name="reinterpret")

    def numpy(self, x: np.ndarray, *, dtype: DType | str) -> np.ndarray:
        return np.ascontiguousarray(x).view(as_dtype(dtype).numpy).reshape(np.shape(x))


@op("bits", ELEMENTWISE)
class Bits(Op):
    """The encoding of f32 numbers (IEEE 754) as i32, or the f32 that i32 numbers encode."""

    def infer(self, x: TensorType, *, dtype: DType | str) -> list[TensorType]:
        to = as_dtype(dtype)
        require((x.dtype, to) in ((f32, i32), (i32, f32)), f"the bits of {x.dtype} as {to}")
        return [TensorType(to, x.shape)]

    def te(self, x: te.Tensor, *, dtype: DType | str) -> te.Tensor:
        name = "float_bits" if x.dtype == f32 else "from_float_bits"
        return te.compute(x.shape, lambda *i: intrinsic(name, x[i]), name="bits")

    def numpy(self, x: np.ndarray, *, dtype: DType | str) -> np.ndarray:
        return np.ascontiguousarray(x).view(as_dtype(dtype).numpy).reshape(np.shape(x))


@op("unpack", INJECTIVE)
class Unpack(Op):
    """Numbers of `bits` bits out of the bytes of the last dimension, low bits first; each as u8."""

    def infer(self, x: TensorType, *, bits: int) -> list[TensorType]:
        require(x.dtype == u8 and x.ndim >= 1 and bits in (1, 2, 4), f"unpack of {x} by {bits} bits")
        return [TensorType(u8, (*x.shape[:-1], canonical(x.shape[-1] * (8 // bits))))]

    def te(self, x: te.Tensor, *, bits: int) -> te.Tensor:
        shape = plain((*x.shape[:-1], canonical(x.shape[-1] * (8 // bits))))

        def element(*i: Expr) -> Expr:
            byte = cast(i32, x[(*i[:-1], te.floordiv(i[-1], 8 // bits))])
            place = cast(i32, te.floormod(i[-1], 8 // bits)) * bits
            return cast(u8, _and(intrinsic("right_shift", byte, place), (1 << bits) - 1))

        return te.compute(shape, element, name="unpack")

    def numpy(self, x: np.ndarray, *, bits: int) -> np.ndarray:
        parts = [(x >> place) & ((1 << bits) - 1) for place in range(0, 8, bits)]
        return np.stack(parts, -1).reshape(*x.shape[:-1], -1)
