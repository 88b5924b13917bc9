"""Resampling: nearest (one element each), linear and cubic (weighted neighbours), with ONNX's coordinate modes.

The position in the input of output element i, for sizes `n` (input) and `m` (output) and scale s = m / n:

    asymmetric            i / s
    half_pixel            (i + 0.5) / s - 0.5
    pytorch_half_pixel    the same, but 0 where m is 1
    half_pixel_symmetric  the same, about the centre of the input
    tf_half_pixel_for_nn  (i + 0.5) / s
    align_corners         i * (n - 1) / (m - 1), and 0 where m is 1; under a scale m is s * n, not rounded

Scales are kept as given where the model gives them, since rounding decides which neighbour is nearest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from itertools import product as cartesian
from operator import add
from typing import Any

import numpy as np

from tensorlang import te
from tensorlang.graph.ir import TensorType
from tensorlang.graph.ops.common import dims_of, plain, require
from tensorlang.graph.registry import COMPOUND, INJECTIVE, Op, op
from tensorlang.ir.dtype import DType, f32, f64
from tensorlang.ir.expr import Expr, ExprLike, cast, const, floordiv, wrap

COORDINATES = (
    "asymmetric", "half_pixel", "pytorch_half_pixel", "half_pixel_symmetric", "align_corners", "tf_half_pixel_for_nn",
)  # fmt: skip
ROUNDINGS = ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")
Scales = Sequence[float | None]
Taps = Sequence[tuple[Expr, Expr]]  # positions and weights of neighbours along a dimension


class Resize(Op):
    """x resampled to `shape`. `scales` gives m / n per dimension, None where the sizes decide."""

    def infer(
        self, x: TensorType, *, shape: Sequence[ExprLike], scales: Scales, coordinates: str, **other: Any
    ) -> list[TensorType]:
        require(len(shape) == x.ndim == len(scales), f"{self.name} of {x}: one size and scale per dimension")
        require(coordinates in COORDINATES, f"{self.name}: unknown coordinate mode {coordinates!r}")
        require(x.dtype.is_float or self.name == "resize_nearest", f"{self.name} of {x.dtype}")
        return [TensorType(x.dtype, dims_of(shape))]


def _resampled(x: te.Tensor, shape: Sequence[ExprLike], scales: Scales) -> list[bool]:
    """Which dimensions change."""
    sizes = [wrap(d) for d in x.shape]
    return [
        not (m is n and (s is None or s == 1.0)) for m, n, s in zip(dims_of(shape), sizes, scales, strict=True)
    ]


def _scale(n: ExprLike, m: ExprLike, scale: float | None) -> np.float32:
    """s, given or of known sizes."""
    if scale is not None:
        return np.float32(scale)
    assert isinstance(n, int) and isinstance(m, int)
    return np.float32(m) / np.float32(n)


def _inverse_scale(n: ExprLike, m: ExprLike, scale: float | None) -> Expr:
    """1 / s in f32, of a given scale or of known sizes."""
    return const(float(np.float32(1) / _scale(n, m, scale)), f32)


def _coordinate(i: Expr, n: ExprLike, m: ExprLike, scale: float | None, mode: str) -> Expr:
    """The position in the input, in f32."""
    x, half = cast(f32, i), const(0.5, f32)
    size, wanted = cast(f32, wrap(n)), cast(f32, wrap(m))
    zero = const(0.0, f32)
    if mode == "align_corners":
        last = (wanted if scale is None else size * const(scale, f32)) - 1.0  # a scale gives a size that is not rounded
        ends = te.any_of(te.equal(wrap(m), 1), last <= zero)
        return te.select(ends, zero, x * (size - 1.0) / te.select(ends, const(1.0, f32), last))
    if scale is None and not (isinstance(n, int) and isinstance(m, int)):
        # sizes that a run tells: one division of whole numbers, so that ties of "nearest" stay ties
        if mode == "asymmetric":
            return cast(f32, i * wrap(n)) / wanted
        if mode == "tf_half_pixel_for_nn":
            return cast(f32, (2 * i + 1) * wrap(n)) / cast(f32, 2 * wrap(m))
        position = cast(f32, (2 * i + 1) * wrap(n) - wrap(m)) / cast(f32, 2 * wrap(m))
    elif mode == "asymmetric":
        return x * _inverse_scale(n, m, scale)
    elif mode == "tf_half_pixel_for_nn":
        # onnxruntime divides here, and rounding decides: an f32 quotient by way of f64, since fast-math may take a reciprocal
        return cast(f32, (cast(f64, i) + const(0.5, f64)) * const(1.0 / float(_scale(n, m, scale)), f64))
    else:
        position = (x + half) * _inverse_scale(n, m, scale) - half
    if mode == "pytorch_half_pixel":
        return te.select(te.equal(wrap(m), 1), zero, position)
    if mode == "half_pixel_symmetric" and scale is not None:
        exact = size * const(scale, f32)
        return size * half * (1.0 - wanted / exact) + position
    return position


def _np_coordinates(n: int, m: int, scale: float | None, mode: str) -> np.ndarray:
    """The positions of all m output elements, computed as the tensor expression does."""
    i = np.arange(m, dtype=np.float32)
    if mode == "align_corners":
        last = np.float32(m if scale is None else np.float32(n) * np.float32(scale)) - np.float32(1)
        return np.zeros(m, np.float32) if m == 1 or last <= 0 else i * np.float32(n - 1) / last
    s = np.float32(scale) if scale is not None else np.float32(m) / np.float32(n)
    inverse, half = np.float32(1) / s, np.float32(0.5)
    if mode == "asymmetric":
        return i * inverse
    if mode == "tf_half_pixel_for_nn":
        return (i + half) / s
    position = (i + half) * inverse - half
    if mode == "pytorch_half_pixel" and m == 1:
        return np.zeros(m, np.float32)
    if mode == "half_pixel_symmetric" and scale is not None:
        position = np.float32(n) * half * (np.float32(1) - np.float32(m) / (np.float32(n) * s)) + position
    return position


_ROUND: dict[str, Callable[[Any, Any, Any], Any]] = {
    "floor": lambda x, floor, ceil: floor(x),
    "ceil": lambda x, floor, ceil: ceil(x),
    "round_prefer_floor": lambda x, floor, ceil: ceil(x - 0.5),
    "round_prefer_ceil": lambda x, floor, ceil: floor(x + 0.5),
}


@op("resize_nearest", INJECTIVE)
class ResizeNearest(Resize):
    """The nearest element, ties and fractions as `rounding` says."""

    def te(
        self, x: te.Tensor, *, shape: Sequence[ExprLike], scales: Scales, coordinates: str, rounding: str = "floor"
    ) -> te.Tensor:
        out, changes = plain(dims_of(shape)), _resampled(x, shape, scales)

        def position(i: Expr, n: ExprLike, m: ExprLike, scale: float | None) -> Expr:
            ratio = _whole_ratio(n, m, scale)
            if ratio and coordinates == "asymmetric" and rounding == "floor":
                return floordiv(i, ratio)
            exact = _coordinate(i, n, m, scale, coordinates)
            index = cast("i64", _ROUND[rounding](exact, te.floor, te.ceil))
            return te.maximum(te.minimum(index, wrap(n) - 1), 0)

        def element(*i: Expr) -> Expr:
            return x[
                tuple(
                    position(j, n, m, s) if changed else j
                    for j, n, m, s, changed in zip(i, x.shape, out, scales, changes, strict=True)
                )
            ]

        return te.compute(out, element, name="resize_nearest")

    def numpy(
        self, x: np.ndarray, *, shape: Sequence[int], scales: Scales, coordinates: str, rounding: str = "floor"
    ) -> np.ndarray:
        y = x
        for axis, (m, scale) in enumerate(zip(shape, scales, strict=True)):
            n = x.shape[axis]
            if m == n and scale in (None, 1.0):
                continue
            exact = _np_coordinates(n, m, scale, coordinates)
            index = _ROUND[rounding](exact, np.floor, np.ceil).astype(np.int64)
            y = np.take(y, np.clip(index, 0, n - 1), axis)
        return y


def _whole_ratio(n: ExprLike, m: ExprLike, scale: float | None) -> int | None:
    """The scale, if it is a whole number."""
    if scale is None and isinstance(n, int) and isinstance(m, int) and m % n == 0:
        return m // n
    return int(scale) if scale is not None and scale >= 1 and float(scale).is_integer() else None


@op("resize_linear", COMPOUND)
class ResizeLinear(Resize):
    """Linear interpolation along every resized dimension; positions outside are held at the border."""

    def te(self, x: te.Tensor, *, shape: Sequence[ExprLike], scales: Scales, coordinates: str) -> te.Tensor:
        out, changes = plain(dims_of(shape)), _resampled(x, shape, scales)

        def taps(i: Expr, axis: int) -> Taps:
            n = x.shape[axis]
            exact = _coordinate(i, n, out[axis], scales[axis], coordinates)
            held = te.maximum(te.minimum(exact, cast(f32, wrap(n) - 1)), const(0.0, f32))
            low = cast("i64", te.floor(held))
            weight = held - cast(f32, low)
            return [(low, const(1.0, f32) - weight), (te.minimum(low + 1, wrap(n) - 1), weight)]

        return _interpolated(x, out, changes, taps, "resize_linear")

    def numpy(self, x: np.ndarray, *, shape: Sequence[int], scales: Scales, coordinates: str) -> np.ndarray:
        y = x.astype(np.float64)
        for axis, (m, scale) in enumerate(zip(shape, scales, strict=True)):
            n = x.shape[axis]
            if m == n and scale in (None, 1.0):
                continue
            held = np.clip(_np_coordinates(n, m, scale, coordinates), 0, n - 1)
            low = np.floor(held).astype(np.int64)
            weight = (held - low).reshape([-1 if a == axis else 1 for a in range(x.ndim)])
            y = np.take(y, low, axis) * (1 - weight) + np.take(y, np.minimum(low + 1, n - 1), axis) * weight
        return y.astype(x.dtype)


@op("resize_cubic", COMPOUND)
class ResizeCubic(Resize):
    """Cubic convolution with coefficient `a` (Keys, 1981) over four neighbours along every resized dimension.

    Neighbours outside are held at the border, or with `exclude_outside` get no weight.
    """

    def te(
        self,
        x: te.Tensor,
        *,
        shape: Sequence[ExprLike],
        scales: Scales,
        coordinates: str,
        a: float = -0.75,
        exclude_outside: bool = False,
    ) -> te.Tensor:
        out, changes = plain(dims_of(shape)), _resampled(x, shape, scales)

        def taps(i: Expr, axis: int) -> Taps:
            n = x.shape[axis]
            exact = _coordinate(i, n, out[axis], scales[axis], coordinates)
            floor = te.floor(exact)
            low, fraction = cast("i64", floor), exact - floor
            positions = [low + (k - 1) for k in range(4)]
            weights = [_cubic(fraction, k, a) for k in range(4)]
            if exclude_outside:
                weights = [
                    te.select(te.all_of(p >= 0, p < wrap(n)), w, const(0.0, f32))
                    for p, w in zip(positions, weights, strict=True)
                ]
                total = weights[0] + weights[1] + weights[2] + weights[3]
                weights = [w / total for w in weights]
            held = [te.maximum(te.minimum(p, wrap(n) - 1), 0) for p in positions]
            return list(zip(held, weights, strict=True))

        return _interpolated(x, out, changes, taps, "resize_cubic")

    def numpy(
        self,
        x: np.ndarray,
        *,
        shape: Sequence[int],
        scales: Scales,
        coordinates: str,
        a: float = -0.75,
        exclude_outside: bool = False,
    ) -> np.ndarray:
        y = x.astype(np.float64)
        for axis, (m, scale) in enumerate(zip(shape, scales, strict=True)):
            n = x.shape[axis]
            if m == n and scale in (None, 1.0):
                continue
            exact = _np_coordinates(n, m, scale, coordinates).astype(np.float64)
            low = np.floor(exact).astype(np.int64)
            fraction = exact - low
            positions = np.stack([low + k - 1 for k in range(4)])
            weights = np.stack([_cubic(fraction, k, a) for k in range(4)])
            if exclude_outside:
                weights = np.where((positions >= 0) & (positions < n), weights, 0)
                weights = weights / weights.sum(axis=0)
            view = [-1 if d == axis else 1 for d in range(x.ndim)]
            y = sum(
                np.take(y, np.clip(positions[k], 0, n - 1), axis) * weights[k].reshape(view) for k in range(4)
            )
        return np.asarray(y).astype(x.dtype)


def _cubic(t: Any, k: int, a: float) -> Any:
    """The weight of neighbour k - 1 for the fraction t in [0, 1); an Expr or an array."""
    number = (lambda v: const(v, f32)) if isinstance(t, Expr) else float
    d = {0: t + number(1.0), 1: t, 2: number(1.0) - t, 3: number(2.0) - t}[k]
    if k in (1, 2):  # |d| <= 1
        return ((number(a + 2) * d - number(a + 3)) * d) * d + number(1.0)
    return ((number(a) * d - number(5 * a)) * d + number(8 * a)) * d - number(4 * a)


def _interpolated(
    x: te.Tensor, out: Sequence[ExprLike], changes: Sequence[bool], taps: Callable[[Expr, int], Taps], name: str
) -> te.Tensor:
    """The sum over all combinations of neighbours, `taps(index, axis)`, of their element times their weights.

    In two stages, where several dimensions change: "lines", between whole lines of x along the last of these dimensions, then
    the result, from neighbours in a line. Schedules may join them again.
    """
    axes = [axis for axis, changed in enumerate(changes) if changed]
    if not axes:
        return te.compute(out, lambda *i: x[i], name=name)

    def weighted(source: te.Tensor, along: Sequence[int], kind: DType) -> Callable[..., Expr]:
        def element(*i: Expr) -> Expr:
            terms = []
            for combination in cartesian(*(taps(i[axis], axis) for axis in along)):
                index = list(i)
                weight = const(1.0, f32)
                for n, (axis, (position, factor)) in enumerate(zip(along, combination, strict=True)):
                    index[axis] = position
                    weight = weight * factor if n else factor
                terms.append(cast(f32, source[tuple(index)]) * weight)
            return cast(kind, reduce(add, terms))

        return element

    *first, last = axes
    if not first:
        return te.compute(out, weighted(x, [last], x.dtype), name=name)
    between = [x.shape[axis] if axis == last else size for axis, size in enumerate(out)]
    lines = te.compute(between, weighted(x, first, f32), name=f"{name}_lines")
    return te.compute(out, weighted(lines, [last], x.dtype), name=name)
