"""Resize and its ancestors."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from tensorlang import te
from tensorlang.graph import Expr, Value, as_ints, canonical

from .node import OnnxNode
from .registry import onnx_op

_COORDINATES = (
    "half_pixel", "pytorch_half_pixel", "half_pixel_symmetric", "align_corners", "asymmetric", "tf_half_pixel_for_nn",
    "tf_crop_and_resize",
)  # fmt: skip


def _scaled(node: OnnxNode, d: Expr, scale: float) -> Expr:
    """floor(d * scale)"""
    if d.op == "const":
        return canonical(int(np.floor(np.float32(d.value) * np.float32(scale))))
    ratio = Fraction(scale).limit_denominator(1024)
    if np.float32(float(ratio)) != np.float32(scale):
        raise node.unsupported(f"scaling a dimension of unknown size by {scale}")
    return canonical(te.floordiv(d * ratio.numerator, ratio.denominator))


def _emit(
    node: OnnxNode, sizes: Sequence[Expr], scales: Sequence[float | None], mode: str, coordinates: str, rounding: str
) -> Value:
    x = node.input(0)
    attrs = {"shape": tuple(sizes), "scales": tuple(scales), "coordinates": coordinates}
    if mode == "nearest":
        return node.add("resize_nearest", x, **attrs, rounding=rounding)
    if mode == "linear":
        return node.add("resize_linear", x, **attrs)
    a, exclude = node.attr("cubic_coeff_a", -0.75), bool(node.attr("exclude_outside", 0))
    return node.add("resize_cubic", x, **attrs, a=a, exclude_outside=exclude)


@onnx_op("Upsample")
@onnx_op("Upsample", since=9)
@onnx_op("Resize", since=10)
def upsample(node: OnnxNode) -> Value:
    """Scales alone; positions are i / scale."""
    x = node.input(0)
    scales = node.attr("scales") if node.has("scales") else node.known(1, "the scales")
    factors = [float(s) for s in np.asarray(scales).reshape(-1)]
    if len(factors) != x.type.ndim:
        raise node.fail(f"{len(factors)} scales for {x.type}")
    mode = {"bilinear": "linear"}.get(node.attr("mode", "nearest"), node.attr("mode", "nearest"))
    sizes = [_scaled(node, d, s) for d, s in zip(x.shape, factors, strict=True)]
    return _emit(node, sizes, factors, mode, "asymmetric", "floor")


@onnx_op("Resize", since=11)
def resize(node: OnnxNode) -> Value:
    x = node.input(0)
    ndim = x.type.ndim
    mode = node.choice("mode", "nearest", "linear", "cubic")
    coordinates = node.choice("coordinate_transformation_mode", *_COORDINATES)
    rounding = node.choice("nearest_mode", "round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
    policy = node.choice("keep_aspect_ratio_policy", "stretch", "not_larger", "not_smaller")
    axes = node.normal_axes(node.attr("axes", tuple(range(ndim))), ndim)
    sizes, factors = list(x.shape), [1.0 if a not in axes else None for a in range(ndim)]
    by_size = node.optional(3)
    if by_size is not None and by_size.type.ndim == 1 and canonical(by_size.shape[0]) is not canonical(0):
        wanted = node.dims(3, "the sizes")
        if len(wanted) != len(axes):
            raise node.fail(f"{len(wanted)} sizes for {len(axes)} dimension(s)")
        if policy != "stretch":
            fitted, scale = _fitted(node, [x.shape[a] for a in axes], wanted, policy)
            wanted = fitted
            for a in axes:
                factors[a] = scale
        for a, d in zip(axes, wanted, strict=True):
            sizes[a] = d
    else:
        scales = [float(s) for s in node.known(2, "the scales").reshape(-1)]
        if len(scales) != len(axes):
            raise node.fail(f"{len(scales)} scales for {len(axes)} dimension(s)")
        for a, s in zip(axes, scales, strict=True):
            sizes[a], factors[a] = _scaled(node, x.shape[a], s), s
    if coordinates == "tf_crop_and_resize" or (node.attr("antialias", 0) and mode != "nearest"):
        region = None
        if coordinates == "tf_crop_and_resize":
            given = [float(v) for v in node.known(1, "the region").reshape(-1)]
            if len(given) != 2 * len(axes):
                raise node.fail(f"a region of {len(given)} numbers for {len(axes)} dimension(s)")
            region = {a: (given[i], given[i + len(axes)]) for i, a in enumerate(axes)}
        return _by_matrices(node, axes, sizes, factors, mode, coordinates, rounding, region)
    return _emit(node, sizes, factors, mode, coordinates, rounding)


def _fitted(node: OnnxNode, dims: Sequence[Expr], wanted: Sequence[Expr], policy: str) -> tuple[list[Expr], float]:
    """Sizes under one scale for all: the smallest, or the largest, of those that `wanted` asks for."""
    given, sizes = as_ints(wanted), as_ints(dims)
    if given is None or sizes is None or 0 in sizes:
        raise node.unsupported(f"keep_aspect_ratio_policy={policy} of unknown sizes", node.input(3))
    scales = [m / n for m, n in zip(given, sizes, strict=True)]
    scale = min(scales) if policy == "not_larger" else max(scales)
    return [canonical(int(scale * n + 0.5)) for n in sizes], scale


def _by_matrices(
    node: OnnxNode,
    axes: Sequence[int],
    sizes: Sequence[Expr],
    factors: Sequence[float | None],
    mode: str,
    coordinates: str,
    rounding: str,
    region: dict[int, tuple[float, float]] | None,
) -> Value:
    """One dimension after the other, by positions and weights that are computed here: all sizes are known."""
    x = node.input(0)
    kind = x.dtype
    if not kind.is_float:
        raise node.unsupported(f"this form of resizing of {kind}")
    outside = node.attr("extrapolation_value", 0.0)
    a, exclude = node.attr("cubic_coeff_a", -0.75), bool(node.attr("exclude_outside", 0))
    y, valid = x, None
    for axis in axes:
        pair = as_ints((x.shape[axis], sizes[axis]))
        if pair is None:
            sizes_given = [v for v in node.inputs[2:] if isinstance(v, Value)]
            raise node.unsupported("this form of resizing of unknown sizes", *sizes_given)
        n, m = pair
        factor = factors[axis]
        crop = None if region is None else region[axis]
        positions = source_positions(n, m, m / n if factor is None else factor, coordinates, crop)
        if factor in (None, 1.0) and m == n and np.array_equal(positions, np.arange(n)):
            continue
        scale = (m / n if factor is None else factor) if node.attr("antialias", 0) else 1.0
        taps, weights = taps_of(positions, n, min(scale, 1.0), mode, rounding, a, exclude)
        y = node.add("weighted_taps", y, node.constant(taps), node.constant(weights.astype(np.float32)), axis=axis)
        if region is not None:
            inside = ((positions >= 0) & (positions <= n - 1)).reshape([-1 if d == axis else 1 for d in range(x.type.ndim)])
            mask = node.constant(inside)
            valid = mask if valid is None else node.add("and", valid, mask)
    return y if valid is None else node.add("where", valid, y, node.constant(outside, kind))


def source_positions(n: int, m: int, scale: float, coordinates: str, region: tuple[float, float] | None) -> np.ndarray:
    """Where in the input (n elements) every one of m output elements lies."""
    i = np.arange(m, dtype=np.float64)
    whole = n * scale  # the output's size, before it was rounded
    if coordinates == "tf_crop_and_resize":
        begin, end = region or (0.0, 1.0)
        if whole == 1:
            return np.full(m, (begin + end) * (n - 1) / 2)
        return begin * (n - 1) + i * (end - begin) * (n - 1) / (whole - 1)
    if coordinates == "align_corners":
        return np.zeros(m) if m == 1 or whole <= 1 else i * (n - 1) / (whole - 1)
    if coordinates == "asymmetric":
        return i / scale
    if coordinates == "tf_half_pixel_for_nn":
        return (i + 0.5) / scale
    if coordinates == "pytorch_half_pixel" and m == 1:
        return np.zeros(m)
    shift = n / 2 * (1 - m / whole) if coordinates == "half_pixel_symmetric" else 0.0
    return shift + (i + 0.5) / scale - 0.5


def taps_of(
    positions: np.ndarray, n: int, scale: float, mode: str, rounding: str, a: float, exclude: bool
) -> tuple[np.ndarray, np.ndarray]:
    """[m, k] positions (held within the input) and weights. A scale below 1 widens the kernel: antialiasing."""
    if mode == "nearest":
        nearest = {
            "floor": np.floor(positions), "ceil": np.ceil(positions),
            "round_prefer_floor": np.ceil(positions - 0.5), "round_prefer_ceil": np.floor(positions + 0.5),
        }[rounding]  # fmt: skip
        return np.clip(nearest, 0, n - 1).astype(np.int64)[:, None], np.ones((len(positions), 1))
    reach = (1 if mode == "linear" else 2) / scale
    first = np.floor(positions - reach).astype(np.int64) + 1
    taps = first[:, None] + np.arange(int(np.ceil(2 * reach)) + 1)
    d = np.abs(taps - positions[:, None]) * scale
    if mode == "linear":
        weights = np.maximum(1 - d, 0)
    else:
        near, far = ((a + 2) * d - (a + 3)) * d * d + 1, ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
        weights = np.where(d <= 1, near, np.where(d < 2, far, 0))
    if exclude:
        weights = np.where((taps >= 0) & (taps < n), weights, 0)
    total = weights.sum(axis=1, keepdims=True)
    return np.clip(taps, 0, n - 1), weights / np.where(total == 0, 1, total)
