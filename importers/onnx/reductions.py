"""Reductions, softmax and the like: from opset 13 or 18 on their axes are inputs."""

from __future__ import annotations

from collections.abc import Callable

from tensorlang.graph import Value, canonical

from .node import OnnxNode
from .registry import onnx_op

_REDUCTIONS = {
    "ReduceMean": ("reduce_mean", 18), "ReduceSum": ("reduce_sum", 13), "ReduceMax": ("reduce_max", 18),
    "ReduceMin": ("reduce_min", 18), "ReduceProd": ("reduce_prod", 18), "ReduceL1": ("reduce_l1", 18),
    "ReduceL2": ("reduce_l2", 18), "ReduceSumSquare": ("reduce_sum_square", 18), "ReduceLogSum": ("reduce_log_sum", 18),
    "ReduceLogSumExp": ("reduce_log_sum_exp", 18),
}  # fmt: skip


def _reduction(name: str, target: str, axes_input_since: int) -> None:
    @onnx_op(name)
    def rule(node: OnnxNode) -> Value:
        x = node.input(0)
        if node.version < axes_input_since:
            axes = node.attr("axes", None)
        else:
            axes = node.known(1, "the axes") if node.optional(1) is not None else None
        if axes is None or len(axes) == 0:
            if node.attr("noop_with_empty_axes", 0):
                return node.add(target, x, axes=(), keepdims=True) if target in _NOT_NEUTRAL else x
            axes = range(x.type.ndim)
        keepdims = bool(node.attr("keepdims", 1))
        if x.dtype.is_bool and target in ("reduce_max", "reduce_min"):
            wide = node.add("cast", x, dtype="u8")  # whose extremes are those of bool
            reduced = node.add(target, wide, axes=node.normal_axes(axes, x.type.ndim), keepdims=keepdims)
            return node.add("cast", reduced, dtype="bool")
        return node.add(target, x, axes=node.normal_axes(axes, x.type.ndim), keepdims=keepdims)


_NOT_NEUTRAL = {"reduce_l1", "reduce_l2", "reduce_sum_square", "reduce_log_sum"}  # they change single elements
for _name, (_target, _since) in _REDUCTIONS.items():
    _reduction(_name, _target, _since)


def _arg_reduction(name: str, target: str) -> None:
    @onnx_op(name)
    def rule(node: OnnxNode) -> Value:
        x = node.input(0)
        return node.add(
            target,
            x,
            axis=node.axis("axis", x.type.ndim, 0),
            keepdims=bool(node.attr("keepdims", 1)),
            last=bool(node.attr("select_last_index", 0)),
        )


_arg_reduction("ArgMax", "argmax")
_arg_reduction("ArgMin", "argmin")


def _flattened(node: OnnxNode, x: Value, axis: int, of_rows: Callable[[Value], Value]) -> Value:
    """`of_rows` of x as a matrix, whose rows are the dimensions from `axis` on, in the shape of x."""
    lead, tail = canonical(1), canonical(1)
    for a, d in enumerate(x.shape):
        lead, tail = (lead * d, tail) if a < axis else (lead, tail * d)
    matrix = node.add("reshape", x, shape=(canonical(lead), canonical(tail)))
    return node.add("reshape", of_rows(matrix), shape=x.shape)


def _softmax(name: str, target: str) -> None:
    @onnx_op(name)
    def flattened(node: OnnxNode) -> Value:
        """Before opset 13: over all dimensions from `axis` on."""
        x = node.input(0)
        axis = node.axis("axis", x.type.ndim, 1)
        if axis == x.type.ndim - 1:
            return node.add(target, x, axis=axis)
        return _flattened(node, x, axis, lambda matrix: node.add(target, matrix, axis=1))

    @onnx_op(name, since=13)
    def along_axis(node: OnnxNode) -> Value:
        x = node.input(0)
        return node.add(target, x, axis=node.axis("axis", x.type.ndim, -1))


_softmax("Softmax", "softmax")
_softmax("LogSoftmax", "log_softmax")


def _cumulative(name: str, target: str) -> None:
    @onnx_op(name)
    def rule(node: OnnxNode) -> Value:
        x = node.input(0)
        axis = node.normal_axis(int(node.known(1, "the axis").reshape(())), x.type.ndim)
        exclusive, reverse = bool(node.attr("exclusive", 0)), bool(node.attr("reverse", 0))
        return node.add(target, x, axis=axis, exclusive=exclusive, reverse=reverse)


_cumulative("CumSum", "cumsum")
_cumulative("CumProd", "cumprod")


def hardmax_along(node: OnnxNode, x: Value, axis: int) -> Value:
    """1 at the first largest element along `axis`, else 0."""
    first = node.add("argmax", x, axis=axis, keepdims=False)
    return node.add("one_hot", first, node.constant([0, 1], x), depth=x.shape[axis], axis=axis)


@onnx_op("Hardmax")
def hardmax_flattened(node: OnnxNode) -> Value:
    """Before opset 13: over all dimensions from `axis` on."""
    x = node.input(0)
    return _flattened(node, x, node.axis("axis", x.type.ndim, 1), lambda matrix: hardmax_along(node, matrix, 1))


@onnx_op("Hardmax", since=13)
def hardmax(node: OnnxNode) -> Value:
    x = node.input(0)
    return hardmax_along(node, x, node.axis("axis", x.type.ndim, -1))


@onnx_op("TopK")
def top_k(node: OnnxNode) -> Value | tuple[Value, ...]:
    x = node.input(0)
    k = canonical(node.attr("k")) if node.version < 10 else node.dims(1, "k")[0]
    axis = node.axis("axis", x.type.ndim, -1)
    return node.add_all("topk", x, k=k, axis=axis, largest=bool(node.attr("largest", 1)))


@onnx_op("LpNormalization")
def lp_normalization(node: OnnxNode) -> Value:
    x = node.input(0)
    return node.add("lp_norm", x, axis=node.axis("axis", x.type.ndim, -1), p=node.attr("p", 2))
