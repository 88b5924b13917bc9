"""Elementwise operators: mathematics, logic, activations."""

from __future__ import annotations

import numpy as np

from tensorlang.graph import Value, as_dtype

from .node import Item, OnnxNode
from .random import dropped
from .registry import onnx_op

_UNARY = {
    "Relu": "relu", "Abs": "abs", "Exp": "exp", "Log": "log", "Sqrt": "sqrt", "Reciprocal": "reciprocal",
    "Tanh": "tanh", "Sigmoid": "sigmoid", "Erf": "erf", "Neg": "neg", "Floor": "floor", "Ceil": "ceil", "Round": "round",
    "Sign": "sign", "Not": "not", "IsNaN": "isnan", "BitwiseNot": "bitwise_not", "HardSwish": "hard_swish",
    "Softplus": "softplus", "Softsign": "softsign", "Mish": "mish",
    "Sin": "sin", "Cos": "cos", "Tan": "tan", "Asin": "arcsin", "Acos": "arccos", "Atan": "arctan",
    "Sinh": "sinh", "Cosh": "cosh", "Asinh": "arcsinh", "Acosh": "arccosh", "Atanh": "arctanh",
}  # fmt: skip
_BINARY = {
    "Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div", "Equal": "equal", "Less": "less", "Greater": "greater",
    "LessOrEqual": "less_equal", "GreaterOrEqual": "greater_equal", "And": "and", "Or": "or", "Xor": "xor",
    "BitwiseAnd": "bitwise_and", "BitwiseOr": "bitwise_or", "BitwiseXor": "bitwise_xor",
}  # fmt: skip
_VARIADIC = {"Max": "maximum", "Min": "minimum", "Sum": "add"}


def _unary(name: str, target: str) -> None:
    @onnx_op(name)
    def rule(node: OnnxNode) -> Value:
        return node.add(target, node.input(0))


def _binary(name: str, target: str) -> None:
    @onnx_op(name)
    def rule(node: OnnxNode) -> Value:
        return node.add(target, *_aligned(node))


def _variadic(name: str, target: str) -> None:
    @onnx_op(name)
    def rule(node: OnnxNode) -> Value:
        first, *rest = node.all_inputs()
        for value in rest:
            first = node.add(target, first, value)
        return first


for _name, _target in _UNARY.items():
    _unary(_name, _target)
for _name, _target in _BINARY.items():
    _binary(_name, _target)
for _name, _target in _VARIADIC.items():
    _variadic(_name, _target)


def _aligned(node: OnnxNode) -> tuple[Value, Value]:
    """The operands, under opset 6 with the `axis` at which the second begins (`broadcast=1`)."""
    a, b = node.input(0), node.input(1)
    if node.version < 7 and node.attr("broadcast", 0) and node.has("axis"):
        axis = node.axis("axis", a.type.ndim)
        tail = a.type.ndim - axis - b.type.ndim
        if tail < 0:
            raise node.fail(f"axis {axis} does not fit a second operand of {b.type}")
        b = node.add("reshape", b, shape=(*b.shape, *(1,) * tail))
    return a, b


@onnx_op("Pow")
def pow_(node: OnnxNode) -> Value:
    base, exponent = _aligned(node)
    if exponent.dtype != base.dtype:
        if base.dtype.is_int and exponent.dtype.is_float:  # the result has the base's type
            power = node.add("pow", node.add("cast", base, dtype=exponent.dtype), exponent)
            return node.add("cast", power, dtype=base.dtype)
        exponent = node.add("cast", exponent, dtype=base.dtype)
    return node.add("pow", base, exponent)


@onnx_op("Mean")
def mean(node: OnnxNode) -> Value:
    first, *rest = node.all_inputs()
    for value in rest:
        first = node.add("add", first, value)
    return node.add("div", first, node.constant(len(rest) + 1, first))


@onnx_op("Mod")
def mod(node: OnnxNode) -> Value:
    return node.add("mod", node.input(0), node.input(1), fmod=bool(node.attr("fmod", 0)))


@onnx_op("BitShift")
def bit_shift(node: OnnxNode) -> Value:
    direction = node.choice("direction", "LEFT", "RIGHT")
    return node.add("left_shift" if direction == "LEFT" else "right_shift", node.input(0), node.input(1))


@onnx_op("Where")
def where(node: OnnxNode) -> Value:
    return node.add("where", *(node.input(i) for i in range(3)))


@onnx_op("Identity")
def identity(node: OnnxNode) -> Item:
    return node.item(0) or node.input(0)


@onnx_op("IsInf")
def is_inf(node: OnnxNode) -> Value:
    positive, negative = bool(node.attr("detect_positive", 1)), bool(node.attr("detect_negative", 1))
    return node.add("isinf", node.input(0), positive=positive, negative=negative)


@onnx_op("BitCast")
def bit_cast(node: OnnxNode) -> Value:
    """The same bits as another type: between integers, and from bool, a conversion; f32 by its encoding."""
    x, to = node.input(0), node.dtype_attr("to")
    if x.dtype == to:
        return x
    if x.dtype.bits != to.bits:
        raise node.fail(f"the bits of {x.dtype} as {to}: sizes differ")
    if to.is_int and (x.dtype.is_int or x.dtype.is_bool):
        return node.add("cast", x, dtype=to)
    f32, i32 = as_dtype("f32"), as_dtype("i32")
    if x.dtype == f32 and to.is_int:
        return node.add("cast", node.add("bits", x, dtype=i32), dtype=to)
    if to == f32 and x.dtype.is_int:
        return node.add("bits", node.add("cast", x, dtype=i32), dtype=f32)
    raise node.unsupported(f"the bits of {x.dtype} as {to}")


@onnx_op("Clip")
def clip_attributes(node: OnnxNode) -> Value:
    """Opset 6: limits as attributes."""
    return node.add("clip", node.input(0), min=node.attr("min", None), max=node.attr("max", None))


@onnx_op("Clip", since=11)
def clip(node: OnnxNode) -> Value:
    """Limits as inputs: constants become attributes, others operators."""
    x = node.input(0)
    limits: dict[str, float | int | None] = {"min": None, "max": None}
    for position, side in ((1, "min"), (2, "max")):
        limit = node.optional(position)
        known = node.known_or_none(position)
        if known is not None:
            limits[side] = known.reshape(()).item()
        elif limit is not None:
            x = node.add("maximum" if side == "min" else "minimum", x, limit)
    if limits["min"] is None and limits["max"] is None:
        return x
    return node.add("clip", x, **limits)


@onnx_op("PRelu")
def prelu(node: OnnxNode) -> Value:
    x, slope = node.input(0), node.input(1)
    if node.version < 7 and slope.type.ndim == 1 and x.type.ndim > 2:  # one slope per channel
        slope = node.add("reshape", slope, shape=(slope.shape[0], *(1,) * (x.type.ndim - 2)))
    return node.add("prelu", x, slope)


@onnx_op("LeakyRelu")
def leaky_relu(node: OnnxNode) -> Value:
    return node.add("leaky_relu", node.input(0), alpha=node.attr("alpha", 0.01))


@onnx_op("ThresholdedRelu")
def thresholded_relu(node: OnnxNode) -> Value:
    return node.add("thresholded_relu", node.input(0), alpha=node.attr("alpha", 1.0))


@onnx_op("Elu")
def elu(node: OnnxNode) -> Value:
    return node.add("elu", node.input(0), alpha=node.attr("alpha", 1.0))


@onnx_op("Celu")
def celu(node: OnnxNode) -> Value:
    return node.add("celu", node.input(0), alpha=node.attr("alpha", 1.0))


@onnx_op("Selu")
def selu(node: OnnxNode) -> Value:
    alpha, gamma = node.attr("alpha", 1.6732632423543772), node.attr("gamma", 1.0507009873554805)
    return node.add("selu", node.input(0), alpha=alpha, gamma=gamma)


@onnx_op("HardSigmoid")
def hard_sigmoid(node: OnnxNode) -> Value:
    return node.add("hard_sigmoid", node.input(0), alpha=node.attr("alpha", 0.2), beta=node.attr("beta", 0.5))


@onnx_op("Shrink")
def shrink(node: OnnxNode) -> Value:
    return node.add("shrink", node.input(0), bias=node.attr("bias", 0.0), lambd=node.attr("lambd", 0.5))


@onnx_op("Gelu")
@onnx_op("Gelu", domain="com.microsoft")
def gelu(node: OnnxNode) -> Value:
    return node.add("gelu", node.input(0), approximate=node.choice("approximate", "none", "tanh"))


@onnx_op("FastGelu", domain="com.microsoft")
def fast_gelu(node: OnnxNode) -> Value:
    x, bias = node.input(0), node.optional(1)
    return node.add("gelu", x if bias is None else node.add("add", x, bias), approximate="tanh")


@onnx_op("BiasGelu", domain="com.microsoft")
def bias_gelu(node: OnnxNode) -> Value:
    return node.add("gelu", node.add("add", node.input(0), node.input(1)), approximate="none")


@onnx_op("QuickGelu", domain="com.microsoft")
def quick_gelu(node: OnnxNode) -> Value:
    x = node.input(0)
    scaled = node.add("mul", x, node.constant(node.attr("alpha", 1.702), x))
    return node.add("mul", x, node.add("sigmoid", scaled))


@onnx_op("Swish")
def swish(node: OnnxNode) -> Value:
    x, alpha = node.input(0), node.attr("alpha", 1.0)
    if alpha == 1:
        return node.add("silu", x)
    return node.add("mul", x, node.add("sigmoid", node.add("mul", x, node.constant(alpha, x))))


@onnx_op("Dropout")
def dropout(node: OnnxNode) -> Value | tuple[Value, ...]:
    """At inference the identity, and the mask is all ones; in training a seeded mask."""
    x = node.input(0)
    if node.version >= 12 and node.optional(2) is not None and bool(node.known(2, "whether it is training").reshape(())):
        ratio = float(node.known(1, "the ratio").reshape(())) if node.optional(1) is not None else 0.5
        if not 0 <= ratio <= 1:
            raise node.fail(f"a ratio of {ratio}")
        if ratio > 0:
            y, mask = dropped(node, x, ratio)
            return (y, mask) if node.wants(1) else y
    if not node.wants(1):
        return x
    kind = as_dtype("bool") if node.version >= 10 else x.dtype
    return x, node.add("full", shape=x.shape, value=True if kind.is_bool else 1, dtype=kind)


@onnx_op("Constant")
def constant(node: OnnxNode) -> Value:
    attributes = node.attributes()
    if len(attributes) != 1:
        raise node.fail(f"a Constant has one attribute, this one has {len(attributes)}")
    ((name, value),) = attributes.items()
    if name == "value":
        return node.constant(value)
    kinds = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    if name not in kinds:
        raise node.unsupported(f"a constant given as {name}")
    return node.constant(np.asarray(value, kinds[name]))


