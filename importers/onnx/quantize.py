"""Quantised tensors: to and from integers and narrow floats, and products of integers."""

from __future__ import annotations

from typing import Any

from tensorlang.graph import DType, Value, as_dtype, as_ints

from .casts import as_format, stored
from .nn import window_attributes
from .node import OnnxNode, element_type
from .registry import onnx_op

MICROSOFT = "com.microsoft"


# -- scales and zero points ----------------------------------------------------------------------------------------


def flat(node: OnnxNode, p: Value) -> Value:
    """A scale or zero point; one number as a scalar."""
    return node.add("reshape", p, shape=()) if p.type.ndim and as_ints(p.shape) == (1,) * p.type.ndim else p


def placed(node: OnnxNode, x: Value, scale: Value, zero: Value | None) -> tuple[list[Value], dict[str, Any]]:
    """Scale and zero point, and the attributes that say to which elements each of them belongs."""
    scale = flat(node, scale)
    parameters = [scale] if zero is None else [scale, stored(node, flat(node, zero))]
    block = int(node.attr("block_size", 0))
    if scale.type.ndim == 0:
        return parameters, {"axis": 0, "block": 0}
    axis = 0 if x.type.ndim == 1 else node.axis("axis", x.type.ndim, 1)
    if scale.type.ndim == 1 and not block:
        return parameters, {"axis": axis, "block": 0}
    if block <= 0 or scale.type.ndim != x.type.ndim:
        raise node.fail(f"block_size={block} with a scale {scale.type} for {x.type}")
    return parameters, {"axis": axis, "block": block}


def quantized(node: OnnxNode, x: Value, scale: Value, zero: Value | None, kind: DType, **more: Any) -> Value:
    """`x` in units of `scale`, as `kind`, by one scale and zero point."""
    parameters = [flat(node, scale)] + ([] if zero is None else [stored(node, flat(node, zero))])
    return as_format(node, node.add("quantize", x, *parameters, to=kind.name, **more), kind)


def dequantized(node: OnnxNode, x: Value, scale: Value, zero: Value | None, axis: int = 0) -> Value:
    """The numbers that `x` stands for, in the scale's type; scale and zero point are one number or one per index of `axis`."""
    parameters = [flat(node, scale)] + ([] if zero is None else [stored(node, flat(node, zero))])
    return node.add("dequantize", stored(node, x), *parameters, of=x.dtype.name, dtype=scale.dtype, axis=axis)


@onnx_op("QuantizeLinear")
@onnx_op("QuantizeLinear", domain=MICROSOFT)
def quantize_linear(node: OnnxNode) -> Value:
    """saturate(round(x / scale) + zero_point), rounding half to even"""
    x, scale, zero = node.input(0), node.input(1), node.optional(2)
    kind = zero.dtype if zero is not None else as_dtype("u8")
    if code := node.attr("output_dtype", 0):
        kind = element_type(code)
        if zero is not None and zero.dtype != kind:
            raise node.fail(f"output_dtype {kind} with a zero point of {zero.dtype}")
    precision = element_type(code).name if (code := node.attr("precision", 0)) else ""
    parameters, where = placed(node, x, scale, zero)
    attrs = {"to": kind.name, "precision": precision, "saturate": bool(node.attr("saturate", 1)), **where}
    return as_format(node, node.add("quantize", x, *parameters, **attrs), kind)


@onnx_op("DequantizeLinear")
@onnx_op("DequantizeLinear", domain=MICROSOFT)
def dequantize_linear(node: OnnxNode) -> Value:
    """(x - zero_point) * scale"""
    x, scale = node.input(0), node.input(1)
    to = element_type(code) if (code := node.attr("output_dtype", 0)) else scale.dtype
    parameters, where = placed(node, x, scale, node.optional(2))
    return node.add("dequantize", stored(node, x), *parameters, of=x.dtype.name, dtype=to, **where)


@onnx_op("DynamicQuantizeLinear")
def dynamic_quantize_linear(node: OnnxNode) -> tuple[Value, ...]:
    return quantized_by_range(node, node.input(0))


def quantized_by_range(node: OnnxNode, x: Value) -> tuple[Value, Value, Value]:
    """`x` as u8 between its least and largest number, and the scale and zero point that this takes."""
    axes = tuple(range(x.type.ndim))
    low, high = (node.add(f"reduce_{end}", x, axes=axes, keepdims=False) for end in ("min", "max"))
    scale = node.add("range_scale", low, high)
    zero = node.add("range_zero", low, scale)
    return node.add("quantize", x, scale, zero, to="u8"), scale, zero


# -- products of integers ------------------------------------------------------------------------------------------


def integers(node: OnnxNode, x: Value, zero: Value | None, axis: int) -> Value:
    """An 8-bit operand as i32, less its zero point: one number, one per index of `axis`, or a tensor that broadcasts."""
    wide = node.add("cast", x, dtype="i32")
    if zero is None or (zero.constant is not None and not zero.constant.any()):
        return wide
    zero = flat(node, zero)
    if zero.type.ndim == 1:
        zero = node.add("reshape", zero, shape=tuple(zero.shape[0] if a == axis else 1 for a in range(x.type.ndim)))
    return node.add("sub", wide, node.add("cast", zero, dtype="i32"))


def integer_product(node: OnnxNode, a: Value, a_zero: Value | None, b: Value, b_zero: Value | None) -> Value:
    """The matrix product as i32; zero points are per row of `a` and per column of `b`."""
    left = integers(node, a, a_zero, max(a.type.ndim - 2, 0))
    return node.add("matmul", left, integers(node, b, b_zero, b.type.ndim - 1))


@onnx_op("MatMulInteger")
def matmul_integer(node: OnnxNode) -> Value:
    return integer_product(node, node.input(0), node.optional(2), node.input(1), node.optional(3))


def scaled_product(node: OnnxNode, total: Value, a_scale: Value, b_scale: Value, bias: Value | None) -> Value:
    """An integer product times both scales, plus a bias."""
    factor = node.add("mul", flat(node, a_scale), flat(node, b_scale))
    y = node.add("mul", node.add("cast", total, dtype=factor.dtype), factor)
    return y if bias is None else node.add("add", y, bias)


def integer_convolution(
    node: OnnxNode, x: Value, x_zero: Value | None, w: Value, w_zero: Value | None, bias: Value | None
) -> Value:
    """The convolution as i32. Padding is the zero point, which is zero after it is subtracted."""
    attrs = window_attributes(node, x, w)
    wide = integers(node, x, x_zero, 1), integers(node, w, w_zero, 0)
    return node.add("conv", *wide, *([] if bias is None else [bias]), **attrs)


@onnx_op("ConvInteger")
def conv_integer(node: OnnxNode) -> Value:
    return integer_convolution(node, node.input(0), node.optional(2), node.input(1), node.optional(3), None)


# -- and back to integers ------------------------------------------------------------------------------------------


def requantized(node: OnnxNode, x: Value, factor: Value, zero: Value | None, kind: DType, axis: int) -> Value:
    """saturate(round(x * factor) + zero): the factor is one number, one per index of `axis`, or a tensor that broadcasts."""
    factor = flat(node, factor)
    if factor.dtype != as_dtype("f32"):
        factor = node.add("cast", factor, dtype="f32")
    if factor.type.ndim > 1:
        x, factor = node.add("mul", node.add("cast", x, dtype="f32"), factor), node.constant(1.0, factor)
    zeros = [] if zero is None else [flat(node, zero)]
    return node.add("requantize", x, factor, *zeros, to=kind.name, axis=axis)


def scale_factor(node: OnnxNode, a: Value, b: Value, y: Value) -> Value:
    """a * b / y of scales."""
    return node.add("div", node.add("mul", flat(node, a), flat(node, b)), flat(node, y))


@onnx_op("QLinearMatMul")
def qlinear_matmul(node: OnnxNode) -> Value:
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = (node.input(i) for i in range(8))
    product = integer_product(node, a, a_zero, b, b_zero)
    rows = flat(node, a_scale)
    if rows.type.ndim == 1:  # one per row of `a`
        rows = node.add("reshape", rows, shape=(rows.shape[0], 1))
    return requantized(node, product, scale_factor(node, rows, b_scale, y_scale), y_zero, y_zero.dtype, product.type.ndim - 1)


@onnx_op("QLinearConv")
@onnx_op("QLinearConv", domain=MICROSOFT)
def qlinear_conv(node: OnnxNode) -> Value:
    """com.microsoft's takes and gives channels last where `channels_last` says so; of the weight they are second, as ever."""
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero = (node.input(i) for i in range(8))
    last, n = bool(node.attr("channels_last", 0)), x.type.ndim
    if last:
        x = node.add("transpose", x, perm=(0, n - 1, *range(1, n - 1)))
    total = integer_convolution(node, x, x_zero, w, w_zero, node.optional(8))
    y = requantized(node, total, scale_factor(node, x_scale, w_scale, y_scale), y_zero, y_zero.dtype, 1)
    return node.add("transpose", y, perm=(0, *range(2, n), 1)) if last else y
