"""Fold per-channel scales and offsets, batch normalisation among them, and zero padding into convolutions and products.

    %a = conv(%x, %w)
    %b = batch_norm(%a, %s, %t, %m, %v)    ->    %d = conv(%x, %w', %b')
    %c = mul(%b, %k)
    %d = add(%c, %u)                             w' = w f k, b' = (t - m f) k + u with f = s / sqrt(v + eps)

Weights are combined in f64 and rounded once. A normalisation that follows nothing foldable becomes a product and a sum.
"""

from __future__ import annotations

import numpy as np

from tensorlang.graph.ir import Graph, Node, Value
from tensorlang.graph.ops.pool import sticks_out
from tensorlang.graph.passes.context import Context, subject_of
from tensorlang.graph.passes.rules import simplify_node
from tensorlang.graph.registry import as_ints
from tensorlang.graph.rewrite import Rewriter, array_of, rewrite, same_shape

CONVOLUTIONS = ("conv", "conv_transpose")


def fold_affine(graph: Graph, context: Context | None = None) -> Graph:
    """Apply the rules of this file from the inputs down, so that chains of scales fold one after the other."""
    context = context or Context()

    def rule(rw: Rewriter, node: Node) -> Value | list[Value] | None:
        for attempt in (_batch_norm, _scale, _offset, _distribute, _padding):
            result = attempt(rw, node, context)
            if result is not None:
                return result
        return simplify_node(rw, node, context.options.fold_limit)

    return rewrite(graph, rule)


def _batch_norm(rw: Rewriter, node: Node, context: Context) -> Value | None:
    """y = s (x - m) / sqrt(v + eps) + t  =  x k + (t - m k),  k = s / sqrt(v + eps)   (Ioffe & Szegedy 2015)"""
    if node.op != "batch_norm" or not all(v.is_constant for v in node.inputs[1:]):
        return None
    x = node.inputs[0]
    scale, offset, mean, variance = (array_of(v).astype(np.float64) for v in node.inputs[1:])
    factor = scale / np.sqrt(variance + node.attrs.get("epsilon", 1e-5))
    shape = (-1,) + (1,) * (x.type.ndim - 1 - node.attrs.get("axis", 1))
    dtype = x.dtype.numpy
    context.note(subject_of(node), "batch normalisation with constant statistics is one product and one sum")
    scaled = rw.add("mul", [x, factor.reshape(shape).astype(dtype)], {}, node)
    return rw.add("add", [scaled, (offset - mean * factor).reshape(shape).astype(dtype)], {}, node)


def _scale(rw: Rewriter, node: Node, context: Context) -> Value | None:
    """conv(x, w, b) * k -> conv(x, w k, b k);  matmul(x, w) * k -> matmul(x, w k);  / k likewise"""
    found = _foldable(rw, node, ("mul", "div"))
    if found is None:
        return None
    anchor, constant = found
    channel = _per_channel(constant, anchor, node.output)
    if channel is None or not np.all(np.isfinite(channel)) or (node.op == "div" and not np.all(channel)):
        return None
    channel = 1.0 / channel if node.op == "div" else channel
    context.note(subject_of(node), f"scales the constant weights of {subject_of(anchor)}")
    return _scaled(rw, anchor, channel)


def _scaled(rw: Rewriter, anchor: Node, channel: np.ndarray) -> Value:
    """`anchor` with weights and bias times `channel`."""
    weight = array_of(anchor.inputs[1])
    scaled = weight.astype(np.float64) * _along_output_channels(channel, anchor)
    inputs: list[Value | np.ndarray] = [anchor.inputs[0], scaled.astype(weight.dtype)]
    if len(anchor.inputs) > 2:
        bias = array_of(anchor.inputs[2])
        inputs.append((bias.astype(np.float64) * channel).astype(bias.dtype))
    return rw.add(anchor.op, inputs, anchor.attrs, anchor)


def _offset(rw: Rewriter, node: Node, context: Context) -> Value | None:
    """conv(x, w, b) + t -> conv(x, w, b + t)"""
    found = _foldable(rw, node, ("add", "sub"))
    if found is None or found[0].op == "matmul":
        return None
    anchor, constant = found
    channel = _per_channel(constant, anchor, node.output)
    if channel is None:
        return None
    channel = -channel if node.op == "sub" else channel
    channels = anchor.output.shape[_channel_axis(anchor)].value
    if len(anchor.inputs) > 2:
        channel = array_of(anchor.inputs[2]).astype(np.float64) + channel
    bias = np.broadcast_to(channel, (channels,)).astype(anchor.output.dtype.numpy)
    context.note(subject_of(node), f"joins the bias of {subject_of(anchor)}")
    return rw.add(anchor.op, [*anchor.inputs[:2], bias], anchor.attrs, anchor)


def _distribute(rw: Rewriter, node: Node, context: Context) -> Value | None:
    """(matmul(x, w) + t) * k -> matmul(x, w k) + t k"""
    if node.op != "mul":
        return None
    for total, constant in (node.inputs, node.inputs[::-1]):
        inner = total.producer
        if not constant.is_constant or inner is None or inner.op != "add" or rw.uses(total) != 0:
            continue
        for product, offset in (inner.inputs, inner.inputs[::-1]):
            anchor = _anchor(product, ("matmul",))
            if not offset.is_constant or anchor is None or rw.uses(product) != 1:
                continue
            channel = _per_channel(array_of(constant), anchor, node.output)
            if channel is None or not np.all(np.isfinite(channel)) or not same_shape(product.type, node.output.type):
                continue
            moved = (array_of(offset).astype(np.float64) * array_of(constant)).astype(array_of(offset).dtype)
            context.note(subject_of(node), f"scales the constant weights of {subject_of(anchor)} and what is added to it")
            return rw.add("add", [_scaled(rw, anchor, channel), moved], {}, node)
    return None


def _padding(rw: Rewriter, node: Node, context: Context) -> Value | None:
    """conv(pad(x, zeros), w) -> conv(x, w, more pads);  avg_pool likewise if it counts the padding"""
    pad = node.inputs[0].producer if node.op in ("conv", "avg_pool") else None
    if pad is None or pad.op != "pad" or len(pad.inputs) != 1 or node.attrs.get("layout", "NCHW") != "NCHW":
        return None
    if pad.attrs.get("mode", "constant") != "constant" or pad.attrs.get("value", 0) != 0:
        return None
    outer = list(pad.attrs["pads"])
    rank = len(outer) // 2
    begin, end = outer[:rank], outer[rank:]
    if not all(isinstance(p, int | np.integer) and p >= 0 for p in outer) or any(begin[:2]) or any(end[:2]):
        return None
    own = list(node.attrs["pads"])
    attrs = dict(node.attrs, pads=tuple(int(a + b) for a, b in zip(own, begin[2:] + end[2:], strict=True)))
    if node.op == "avg_pool":
        if node.attrs.get("ceil_mode") or (any(own) and not node.attrs.get("count_include_pad")):
            return None
        reaches = zip(pad.output.shape[2:], node.attrs["kernel"], node.attrs["dilations"], strict=True)
        if any(sticks_out(size, 0, 0, kernel, dilation) for size, kernel, dilation in reaches):
            return None  # what sticks out does not count, padding would
        attrs["count_include_pad"] = True
    context.note(subject_of(pad), f"zero padding is done by {subject_of(node)}")
    return rw.add(node.op, [pad.inputs[0], *node.inputs[1:]], attrs, node)


def _anchor(value: Value, ops: tuple[str, ...]) -> Node | None:
    """The node that computes `value`, if it is a product whose weights, and bias if any, are constants."""
    node = value.producer
    if node is None or node.op not in ops or not all(v.is_constant for v in node.inputs[1:]):
        return None
    if node.op == "matmul":
        return node if node.inputs[1].type.ndim == 2 and node.output.type.ndim >= 2 else None
    if node.op == "conv_transpose" and node.attrs.get("group", 1) != 1:
        return None
    return node if node.attrs.get("layout", "NCHW") == "NCHW" and node.output.dtype.is_float else None


def _foldable(rw: Rewriter, node: Node, ops: tuple[str, str]) -> tuple[Node, np.ndarray] | None:
    """(anchor, constant operand), if `node` is one of `ops` between them and nobody else reads the anchor's result."""
    if node.op not in ops or not node.output.dtype.is_float:
        return None
    commutes = node.op == ops[0]
    for a, b in (node.inputs, node.inputs[::-1]) if commutes else (node.inputs,):
        anchor = _anchor(a, (*CONVOLUTIONS, "matmul"))
        if b.constant is not None and anchor is not None and rw.uses(a) == 0:
            return anchor, b.constant
    return None


def _channel_axis(anchor: Node) -> int:
    return anchor.output.type.ndim - 1 if anchor.op == "matmul" else 1


def _per_channel(constant: np.ndarray, anchor: Node, result: Value) -> np.ndarray | None:
    """`constant` in f64 as one number or one per output channel; None if it varies otherwise or enlarges the result."""
    if not same_shape(anchor.output.type, result.type):
        return None
    if constant.size == 1:
        return constant.astype(np.float64).reshape(1)
    axis, rank = _channel_axis(anchor), anchor.output.type.ndim
    shape = (1,) * (rank - constant.ndim) + constant.shape
    channels = as_ints([anchor.output.shape[axis]])
    if channels is None or shape[axis] != channels[0] or constant.size != channels[0]:
        return None
    return constant.astype(np.float64).reshape(-1)


def _along_output_channels(channel: np.ndarray, anchor: Node) -> np.ndarray:
    """`channel` shaped to multiply the weights: [K, N] of products, OIHW of convolutions, IOHW of transposed ones."""
    rank = anchor.inputs[1].type.ndim
    axis = {"matmul": 1, "conv": 0, "conv_transpose": 1}[anchor.op]
    return channel.reshape([-1 if i == axis else 1 for i in range(rank)])
