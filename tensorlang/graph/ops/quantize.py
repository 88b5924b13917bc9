"""Quantisation: real numbers as integers or narrow floats times a scale, exactly as ONNX defines it.

    quantize:    q = saturate(round(x / scale) + zero)        halves to even; the division is correctly rounded
    dequantize:  x = (q - zero) * scale
    requantize:  q = saturate(round(sum * scale) + zero)      of an integer sum

`scale` and `zero` are one number, one per index of `axis`, or, with `block`, one per `block` indices of `axis`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tensorlang import te
from tensorlang.graph.ir import TensorType
from tensorlang.graph.ops.common import canonical, intrinsic, normalise_axis, require, same_dim
from tensorlang.graph.ops.formats import INTEGERS, decode_array, decoded, encode_array, encoded, integer_code
from tensorlang.graph.registry import ELEMENTWISE, Op, op
from tensorlang.ir.dtype import NARROW, DType, dtype as as_dtype, f32, i32, u8
from tensorlang.ir.expr import Expr, ExprLike, cast, const

WHOLE = ("i8", "u8", "i16", "u16")


def limits(name: str) -> tuple[int, int]:
    """The least and largest integer of a quantised type.

    Raises:
        TypeCheckError: numbers are not quantised to it.
    """
    if name in INTEGERS:
        return INTEGERS[name]
    require(name in WHOLE, f"quantisation to {name}: it is to {', '.join((*WHOLE, *NARROW))}")
    info = np.iinfo(as_dtype(name).numpy)
    return int(info.min), int(info.max)


def _storage(name: str) -> DType:
    return u8 if name in NARROW else as_dtype(name)


def _is_float_format(name: str) -> bool:
    return name in NARROW and name not in INTEGERS


# -- scales --------------------------------------------------------------------------------------------------------


def _check_parameters(what: str, x: TensorType, scale: TensorType, zero: Sequence[TensorType], axis: int, block: int) -> None:
    require(scale.dtype.is_float, f"{what}: a scale of {scale.dtype}")
    for p in zero:
        require(p.ndim == scale.ndim, f"{what}: a scale {scale} with a zero point {p}")
    if scale.ndim == 0:
        return
    axis = normalise_axis(axis, x.ndim, what)
    if not block:
        require(scale.ndim == 1, f"{what}: a scale {scale} without blocks")
    else:
        require(scale.ndim == x.ndim, f"{what}: blocks of {block} along axis {axis} of {x} with a scale {scale}")
    for a, b in _pairs(x, (scale, *zero), axis, block):
        same_dim(a, b, f"{what}: {x} with a scale {scale}")


def _pairs(x: TensorType, parameters: Sequence[TensorType], axis: int, block: int) -> list[tuple[Expr, Expr]]:
    """The dimensions that must be equal."""
    axis = axis % max(x.ndim, 1)
    pairs: list[tuple[Expr, Expr]] = []
    for p in parameters:
        if p.ndim == 1 and not block:
            pairs.append((x.shape[axis], p.shape[0]))
        elif p.ndim:
            blocks = canonical(te.floordiv(x.shape[axis] + (block - 1), block))
            pairs += [(blocks if a == axis else d, p.shape[a]) for a, d in enumerate(x.shape)]
    return pairs


def _parameter(p: te.Tensor, index: Sequence[Expr], axis: int, block: int) -> Expr:
    """The scale or zero point of the element at `index`."""
    if p.ndim == 0:
        return p[()]
    if not block:
        return p[index[axis]]
    picked: list[ExprLike] = [te.floordiv(e, block) if a == axis else e for a, e in enumerate(index)]
    return p[tuple(picked)]


def _spread(p: np.ndarray, x: np.ndarray, axis: int, block: int) -> np.ndarray:
    """The reference of `_parameter`: an array that broadcasts to x's shape."""
    if p.ndim == 0:
        return p
    axis %= x.ndim
    if not block:
        return p.reshape(tuple(-1 if a == axis else 1 for a in range(x.ndim)))
    return np.repeat(p, block, axis)[tuple(slice(n) for n in x.shape)]


class Scaled(Op):
    """An elementwise operator of x, a scale and perhaps a zero point: numbers, or one per index of `axis`."""

    def constraints(
        self, x: TensorType, scale: TensorType, *zero: TensorType, axis: int = 0, block: int = 0, **attrs: object
    ) -> list[tuple[Expr, Expr]]:
        return [(a, b) for a, b in _pairs(x, (scale, *zero), axis, block) if a is not b]


# -- rounding ------------------------------------------------------------------------------------------------------


def saturated(value: Expr, zero: Expr | None, to: str) -> Expr:
    """round(value) + zero of an f32, held between the limits of `to`; NaN becomes the least number."""
    low, high = limits(to)
    rounded = te.round(value)
    if zero is not None:
        rounded = rounded + cast(f32, decoded(zero, to) if to in INTEGERS else cast(i32, zero))
    least, most = const(float(low), f32), const(float(high), f32)
    held = te.select(rounded >= least, te.minimum(rounded, most), least)
    whole = cast(i32, held)
    return cast(_storage(to), integer_code(whole, to) if to in INTEGERS else whole)


def saturate_array(value: np.ndarray, zero: np.ndarray | None, to: str) -> np.ndarray:
    """`saturated` of arrays."""
    low, high = limits(to)
    rounded = np.rint(value.astype(np.float32))
    if zero is not None:
        rounded = rounded + (decode_array(zero, to) if to in INTEGERS else zero).astype(np.float32)
    held = np.where(rounded >= low, np.minimum(rounded, np.float32(high)), np.float32(low))
    return encode_array(held, to) if to in INTEGERS else held.astype(as_dtype(to).numpy)


def exact_quotient(a: Expr, b: Expr, precision: DType) -> Expr:
    """a / b as f32, after both, and the result, are rounded to `precision`."""
    left, right = cast(f32, cast(precision, a)), cast(f32, cast(precision, b))
    return cast(f32, cast(precision, intrinsic("quotient", left, right)))


@op("quantize", ELEMENTWISE)
class Quantize(Scaled):
    """x / scale, rounded and saturated, in the format `to`: its storage type.

    Attributes:
        to: u8, i8, u16, i16, or a narrow format.
        precision: the type of the division; by default the scale's.
        saturate: what 8-bit floating-point formats do with numbers out of range (see `encode`).
    """

    def infer(
        self, x: TensorType, scale: TensorType, *zero: TensorType, to: str, axis: int = 0, block: int = 0,
        precision: str = "", saturate: bool = True,
    ) -> list[TensorType]:  # fmt: skip
        _check_parameters("quantize", x, scale, zero, axis, block)
        if not _is_float_format(to):
            limits(to)
        return [TensorType(_storage(to), x.shape)]

    def te(
        self, x: te.Tensor, scale: te.Tensor, *zero: te.Tensor, to: str, axis: int = 0, block: int = 0,
        precision: str = "", saturate: bool = True,
    ) -> te.Tensor:  # fmt: skip
        axis %= max(x.ndim, 1)
        kind = as_dtype(precision) if precision else scale.dtype

        def element(*i: Expr) -> Expr:
            ratio = exact_quotient(x[i], _parameter(scale, i, axis, block), kind)
            z = _parameter(zero[0], i, axis, block) if zero else None
            if not _is_float_format(to):
                return saturated(ratio, z, to)
            if z is not None:
                ratio = ratio + decoded(z, to)
            return encoded(ratio, to, saturate)

        return te.compute(x.shape, element, name="quantize")

    def numpy(
        self, x: np.ndarray, scale: np.ndarray, *zero: np.ndarray, to: str, axis: int = 0, block: int = 0,
        precision: str = "", saturate: bool = True,
    ) -> np.ndarray:  # fmt: skip
        kind = as_dtype(precision).numpy if precision else scale.dtype
        ratio = (x.astype(kind) / _spread(scale, x, axis, block).astype(kind)).astype(np.float32)
        z = _spread(zero[0], x, axis, block) if zero else None
        if not _is_float_format(to):
            return saturate_array(ratio, z, to)
        return encode_array(ratio if z is None else ratio + decode_array(z, to), to, saturate)


@op("dequantize", ELEMENTWISE)
class Dequantize(Scaled):
    """(x - zero) * scale as `dtype`; `of` is what x holds: its own type, or a narrow format."""

    def infer(
        self, x: TensorType, scale: TensorType, *zero: TensorType, of: str, dtype: DType | str, axis: int = 0, block: int = 0
    ) -> list[TensorType]:
        _check_parameters("dequantize", x, scale, zero, axis, block)
        require(x.dtype == _storage(of), f"dequantize: {of} is stored as {_storage(of)}, not {x.dtype}")
        return [TensorType(as_dtype(dtype), x.shape)]

    def te(
        self, x: te.Tensor, scale: te.Tensor, *zero: te.Tensor, of: str, dtype: DType | str, axis: int = 0, block: int = 0
    ) -> te.Tensor:
        axis %= max(x.ndim, 1)

        def number(e: Expr) -> Expr:
            return decoded(e, of) if of in NARROW else cast(i32, e)

        def element(*i: Expr) -> Expr:
            value = number(x[i])
            if zero:
                value = value - number(_parameter(zero[0], i, axis, block))
            return cast(as_dtype(dtype), cast(f32, value) * cast(f32, _parameter(scale, i, axis, block)))

        return te.compute(x.shape, element, name="dequantize")

    def numpy(
        self, x: np.ndarray, scale: np.ndarray, *zero: np.ndarray, of: str, dtype: DType | str, axis: int = 0, block: int = 0
    ) -> np.ndarray:
        def number(a: np.ndarray) -> np.ndarray:
            return decode_array(a, of) if of in NARROW else a.astype(np.int32)

        value = number(x)
        if zero:
            value = value - _spread(number(zero[0]), x, axis, block)
        scaled = value.astype(np.float32) * _spread(scale, x, axis, block).astype(np.float32)
        return scaled.astype(as_dtype(dtype).numpy)


@op("requantize", ELEMENTWISE)
class Requantize(Scaled):
    """x * scale, rounded and saturated, as `to`: what follows an integer product. x is i32, or f32 where it has been scaled."""

    def infer(self, x: TensorType, scale: TensorType, *zero: TensorType, to: str, axis: int = 0) -> list[TensorType]:
        _check_parameters("requantize", x, scale, zero[:0], axis, 0)
        limits(to)
        return [TensorType(_storage(to), x.shape)]

    def te(self, x: te.Tensor, scale: te.Tensor, *zero: te.Tensor, to: str, axis: int = 0) -> te.Tensor:
        axis %= max(x.ndim, 1)

        def element(*i: Expr) -> Expr:
            z = _parameter(zero[0], i, axis, 0) if zero else None
            return saturated(cast(f32, x[i]) * cast(f32, _parameter(scale, i, axis, 0)), z, to)

        return te.compute(x.shape, element, name="requantize")

    def numpy(self, x: np.ndarray, scale: np.ndarray, *zero: np.ndarray, to: str, axis: int = 0) -> np.ndarray:
        z = _spread(zero[0], x, axis, 0) if zero else None
        return saturate_array(x.astype(np.float32) * _spread(scale, x, axis, 0).astype(np.float32), z, to)


# -- scales that a run finds ---------------------------------------------------------------------------------------


@op("range_scale", ELEMENTWISE)
class RangeScale(Op):
    """The scale at which u8 covers the numbers from `low` to `high`, and 0: their distance / 255; 1 if there is none."""

    def infer(self, low: TensorType, high: TensorType) -> list[TensorType]:
        require(low == high and low.dtype == f32, f"range_scale of {low} and {high}")
        return [low]

    def te(self, low: te.Tensor, high: te.Tensor) -> te.Tensor:
        zero, one = const(0.0, f32), const(1.0, f32)

        def element(*i: Expr) -> Expr:
            least, most = te.minimum(low[i], zero), te.maximum(high[i], zero)
            scale = intrinsic("quotient", most - least, const(255.0, f32))
            return te.select(most > least, scale, one)

        return te.compute(low.shape, element, name="range_scale")

    def numpy(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        least, most = np.minimum(low, 0), np.maximum(high, 0)
        return np.where(most > least, (most - least) / np.float32(255), np.float32(1)).astype(np.float32)


@op("range_zero", ELEMENTWISE)
class RangeZero(Op):
    """The u8 that stands for 0 at the scale of `range_scale`: round(saturate(-low / scale))."""

    def infer(self, low: TensorType, scale: TensorType) -> list[TensorType]:
        require(low == scale and low.dtype == f32, f"range_zero of {low} and {scale}")
        return [TensorType(u8, low.shape)]

    def te(self, low: te.Tensor, scale: te.Tensor) -> te.Tensor:
        zero = const(0.0, f32)

        def element(*i: Expr) -> Expr:
            return saturated(intrinsic("quotient", zero - te.minimum(low[i], zero), scale[i]), None, "u8")

        return te.compute(low.shape, element, name="range_zero")

    def numpy(self, low: np.ndarray, scale: np.ndarray) -> np.ndarray:
        return saturate_array((0 - np.minimum(low, 0)) / scale, None, "u8")
