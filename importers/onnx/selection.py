"""Operators whose result has a size that only the data tell: NonZero, Compress, Unique, NonMaxSuppression."""

from __future__ import annotations

import numpy as np

from tensorlang.graph import Expr, Value, as_dtype, product

from .node import OnnxNode
from .registry import onnx_op


def _cut(node: OnnxNode, value: Value, axis: int, size: Expr) -> Value:
    """The first `size` elements along `axis`."""
    shape = (*value.shape[:axis], size, *value.shape[axis + 1 :])
    return node.add("slice", value, starts=(0,) * value.type.ndim, shape=shape, steps=(1,) * value.type.ndim)


def _nonzero(node: OnnxNode, x: Value) -> Value:
    if x.dtype.is_float and x.dtype.bits < 32:
        x = node.add("cast", x, dtype=as_dtype("f32"))
    made = node.add_all("nonzero", x)
    assert isinstance(made, tuple)
    indices, count = made
    return _cut(node, indices, 1, node.bound(count))


@onnx_op("NonZero")
def nonzero(node: OnnxNode) -> Value:
    return _nonzero(node, node.input(0))


@onnx_op("Compress")
def compress(node: OnnxNode) -> Value:
    x, condition = node.input(0), node.input(1)
    axis = node.attr("axis", None)
    if axis is None:
        x = node.add("reshape", x, shape=(product(x.shape),))
        axis = 0
    axis = node.normal_axis(axis, x.type.ndim)
    rows = _nonzero(node, condition)
    return node.add("gather", x, node.add("reshape", rows, shape=(rows.shape[1],)), axis=axis)


@onnx_op("Unique", since=11)
def unique(node: OnnxNode) -> tuple[Value, ...]:
    x = node.input(0)
    ordered = bool(node.attr("sorted", 1))
    axis = node.attr("axis", None)
    if axis is None:
        moved = node.add("reshape", x, shape=(product(x.shape),))
        axis = 0
    else:
        axis = node.normal_axis(axis, x.type.ndim)
        order = (axis, *(a for a in range(x.type.ndim) if a != axis))
        moved = node.add("transpose", x, perm=order) if axis else x
    rows = moved.shape[0]
    flat = node.add("reshape", moved, shape=(rows, product(moved.shape[1:])))
    if x.dtype.is_float and x.dtype.bits < 32:
        flat = node.add("cast", flat, dtype=as_dtype("f32"))
    made = node.add_all("unique", flat, ordered=ordered)
    assert isinstance(made, tuple)
    first, inverse, counts, _, count = made
    size = node.bound(count)
    first = _cut(node, first, 0, size)
    values = node.add("gather", moved, first, axis=0)
    if axis:
        back = list(range(1, x.type.ndim))
        back.insert(axis, 0)
        values = node.add("transpose", values, perm=tuple(back))
    return values, first, inverse, _cut(node, counts, 0, size)


@onnx_op("NonMaxSuppression", since=10)
def non_max_suppression(node: OnnxNode) -> Value:
    boxes, scores = node.input(0), node.input(1)

    def number(position: int, default: float, kind: str) -> Value:
        value = node.optional(position)
        if value is None:
            return node.constant(np.array(default, as_dtype(kind).numpy))
        return node.add("reshape", value, shape=())

    parts = (number(2, 0, "i64"), number(3, 0.0, "f32"), number(4, -np.inf, "f32"))
    corners = node.attr("center_point_box", 0) == 0
    made = node.add_all("non_max_suppression", boxes, scores, *parts, corners=corners)
    assert isinstance(made, tuple)
    return _cut(node, made[0], 0, node.bound(made[2]))
