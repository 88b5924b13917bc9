"""Resize and its ancestors."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from tensorlang import te
from tensorlang.graph import Expr, Value, canonical

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
    if coordinates in ("tf_crop_and_resize", "tf_half_pixel_for_nn"):
        raise node.unsupported(f"coordinate_transformation_mode={coordinates}")
    if node.attr("antialias", 0):
        raise node.unsupported("antialias")
    if node.attr("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise node.unsupported("keep_aspect_ratio_policy")
    axes = node.normal_axes(node.attr("axes", tuple(range(ndim))), ndim)
    sizes, factors = list(x.shape), [1.0 if a not in axes else None for a in range(ndim)]
    by_size = node.optional(3)
    if by_size is not None and by_size.type.ndim == 1 and canonical(by_size.shape[0]) is not canonical(0):
        wanted = node.dims(3, "the sizes")
        if len(wanted) != len(axes):
            raise node.fail(f"{len(wanted)} sizes for {len(axes)} dimension(s)")
        for a, d in zip(axes, wanted, strict=True):
            sizes[a] = d
    else:
        scales = [float(s) for s in node.known(2, "the scales").reshape(-1)]
        if len(scales) != len(axes):
            raise node.fail(f"{len(scales)} scales for {len(axes)} dimension(s)")
        for a, s in zip(axes, scales, strict=True):
            sizes[a], factors[a] = _scaled(node, x.shape[a], s), s
    return _emit(node, sizes, factors, mode, coordinates, rounding)
