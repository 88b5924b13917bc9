"""Conversions between element types, narrow formats included."""

from __future__ import annotations

from tensorlang.graph import DType, Value

from .node import OnnxNode
from .registry import onnx_op


def stored(node: OnnxNode, x: Value) -> Value:
    """The bytes of a value of a narrow format; other values as they are."""
    return node.add("reinterpret", x, dtype=x.dtype.storage) if x.dtype.is_narrow else x


def as_format(node: OnnxNode, x: Value, kind: DType) -> Value:
    """Bytes as a narrow format; `x` itself if `kind` is none."""
    return node.add("reinterpret", x, dtype=kind) if kind.is_narrow else x


def converted(node: OnnxNode, x: Value, to: DType, saturate: bool = True, rounding: str = "up") -> Value:
    """`x` as another type.

    Args:
        saturate: 8-bit floating-point formats take what is out of range as their largest number.
        rounding: how `f8e8m0` rounds.
    """
    if x.dtype == to:
        return x
    if x.dtype.is_narrow:
        kind = "f32" if to.is_narrow else to
        return converted(node, node.add("decode", stored(node, x), of=x.dtype.name, dtype=kind), to, saturate, rounding)
    if to.is_narrow:
        return as_format(node, node.add("encode", x, to=to.name, saturate=saturate, rounding=rounding), to)
    return node.add("cast", x, dtype=to)


def _options(node: OnnxNode) -> tuple[bool, str]:
    return bool(node.attr("saturate", 1)), node.choice("round_mode", "up", "down", "nearest")


@onnx_op("Cast")
def cast(node: OnnxNode) -> Value:
    return converted(node, node.input(0), node.dtype_attr("to"), *_options(node))


@onnx_op("CastLike")
def cast_like(node: OnnxNode) -> Value:
    return converted(node, node.input(0), node.input(1).dtype, *_options(node))
