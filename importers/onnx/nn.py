"""Matrix products, convolutions, pools, normalisations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tensorlang import te
from tensorlang.graph import Expr, Value, as_ints, canonical

from .node import OnnxNode
from .registry import onnx_op


@onnx_op("MatMul")
def matmul(node: OnnxNode) -> Value:
    return node.add("matmul", node.input(0), node.input(1))


@onnx_op("Gemm")
def gemm(node: OnnxNode) -> Value:
    return gemm_of(node)


def gemm_of(node: OnnxNode) -> Value:
    """alpha * A' B' + beta * C"""
    a, b, c = node.input(0), node.input(1), node.optional(2)
    if a.type.ndim != 2 or b.type.ndim != 2:
        raise node.fail(f"operands {a.type} and {b.type} are not matrices")
    if node.attr("transA", 0):
        a = node.add("transpose", a, perm=(1, 0))
    if node.attr("transB", 0):
        b = node.add("transpose", b, perm=(1, 0))
    y = node.add("matmul", a, b)
    alpha, beta = node.attr("alpha", 1.0), node.attr("beta", 1.0)
    if alpha != 1:
        y = node.add("mul", y, node.constant(alpha, y))
    if c is None or beta == 0:
        return y
    if beta != 1:
        c = node.add("mul", c, node.constant(beta, c))
    return node.add("add", y, c)


# -- windows -------------------------------------------------------------------------------------------------------


def spatial(node: OnnxNode, name: str, count: int, default: int = 1) -> tuple[int, ...]:
    """An attribute with one entry per spatial dimension."""
    values = tuple(node.attr(name, (default,) * count))
    if len(values) != count:
        raise node.fail(f"{name} has {len(values)} entries for {count} spatial dimension(s)")
    return values


def _pads(
    node: OnnxNode, sizes: Sequence[Expr], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> tuple[int | Expr, ...]:
    """Padding, begins then ends, as given or by `auto_pad`."""
    auto = node.choice("auto_pad", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")
    n = len(kernel)
    if auto == "NOTSET":
        pads = tuple(node.attr("pads", (0,) * (2 * n)))
        if len(pads) != 2 * n:
            raise node.fail(f"pads has {len(pads)} entries for {n} spatial dimension(s)")
        return pads
    if auto == "VALID":
        return (0,) * (2 * n)
    begins, ends = [], []
    for size, k, s, d in zip(sizes, kernel, strides, dilations, strict=True):
        outputs = te.floordiv(size + (s - 1), s)
        total = canonical(te.maximum((outputs - 1) * s + (k - 1) * d + 1 - size, 0))
        small = canonical(te.floordiv(total, 2))
        large = canonical(total - small)
        begins.append(small if auto == "SAME_UPPER" else large)
        ends.append(large if auto == "SAME_UPPER" else small)
    return tuple(p.value if p.op == "const" else p for p in (*begins, *ends))


def _kernel(node: OnnxNode, x: Value, w: Value) -> tuple[int, ...]:
    """The kernel's shape."""
    shape = as_ints(w.shape)
    if shape is None:
        raise node.unsupported(f"a weight of unknown size {w.type}")
    if w.type.ndim < 3 or w.type.ndim != x.type.ndim:
        raise node.fail(f"input {x.type} with a weight {w.type}")
    kernel = tuple(node.attr("kernel_shape", shape[2:]))
    if kernel != shape[2:]:
        raise node.fail(f"kernel_shape {list(kernel)} of a weight {w.type}")
    return kernel


def _bias(node: OnnxNode) -> list[Value]:
    bias = node.optional(2)
    return [] if bias is None else [bias]


def add_bias(node: OnnxNode, y: Value, bias: Value | None) -> Value:
    """y plus one number per channel (its dimension 1)."""
    if bias is None:
        return y
    return node.add("add", y, node.add("reshape", bias, shape=(bias.shape[0], *(1,) * (y.type.ndim - 2))))


def window_attributes(node: OnnxNode, x: Value, w: Value) -> dict[str, Any]:
    """The attributes of a convolution of `x` with `w`."""
    kernel = _kernel(node, x, w)
    strides, dilations = spatial(node, "strides", len(kernel)), spatial(node, "dilations", len(kernel))
    pads = _pads(node, x.shape[2:], kernel, strides, dilations)
    return {"strides": strides, "pads": pads, "dilations": dilations, "group": node.attr("group", 1), "layout": "NCHW"}


@onnx_op("Conv")
def conv(node: OnnxNode) -> Value:
    x, w = node.input(0), node.input(1)
    return node.add("conv", x, w, *_bias(node), **window_attributes(node, x, w))


@onnx_op("ConvTranspose")
def conv_transpose(node: OnnxNode) -> Value:
    x, w = node.input(0), node.input(1)
    kernel = _kernel(node, x, w)
    n = len(kernel)
    strides, dilations = spatial(node, "strides", n), spatial(node, "dilations", n)
    extra = spatial(node, "output_padding", n, 0)
    auto = node.choice("auto_pad", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")
    wanted = node.attr("output_shape", None)
    pads: tuple[int | Expr, ...]
    if wanted is None and auto in ("NOTSET", "VALID"):
        pads = tuple(node.attr("pads", (0,) * (2 * n))) if auto == "NOTSET" else (0,) * (2 * n)
    else:
        begins, ends, grown = [], [], list(extra)
        for i in range(n):
            target = canonical(wanted[-n:][i]) if wanted is not None else x.shape[2 + i] * strides[i]
            reach = (kernel[i] - 1) * dilations[i] + 1
            total = canonical((x.shape[2 + i] - 1) * strides[i] + extra[i] + reach - target)
            if total.op == "const" and total.value < 0:  # larger than the windows reach: zeros at the end
                grown[i] += -total.value
            total = canonical(te.maximum(total, 0))
            small = canonical(te.floordiv(total, 2))
            large = canonical(total - small)
            begins.append(small if auto == "SAME_UPPER" else large)
            ends.append(large if auto == "SAME_UPPER" else small)
        pads = tuple(p.value if p.op == "const" else p for p in (*begins, *ends))
        extra = tuple(grown)
    attrs = {"strides": strides, "pads": pads, "dilations": dilations, "output_padding": extra}
    return node.add("conv_transpose", x, w, *_bias(node), **attrs, group=node.attr("group", 1), layout="NCHW")


def pool_attributes(node: OnnxNode, x: Value) -> dict[str, Any]:
    """The attributes of a pool of `x`."""
    n = x.type.ndim - 2
    if n < 1:
        raise node.fail(f"pooling of {x.type}: no spatial dimensions")
    kernel = tuple(node.attr("kernel_shape"))
    strides, dilations = spatial(node, "strides", n), spatial(node, "dilations", n)
    if len(kernel) != n:
        raise node.fail(f"kernel_shape {list(kernel)} for {n} spatial dimension(s)")
    pads = _pads(node, x.shape[2:], kernel, strides, dilations)
    attrs = {"kernel": kernel, "strides": strides, "pads": pads, "dilations": dilations}
    return {**attrs, "ceil_mode": bool(node.attr("ceil_mode", 0)), "layout": "NCHW"}


def _pool(node: OnnxNode, target: str, **more: object) -> Value:
    return node.add(target, node.input(0), **pool_attributes(node, node.input(0)), **more)


@onnx_op("MaxPool")
def max_pool(node: OnnxNode) -> Value | tuple[Value, ...]:
    values = _pool(node, "max_pool")
    if not node.wants(1):
        return values
    return values, _pool(node, "max_pool_indices", column_major=bool(node.attr("storage_order", 0)))


@onnx_op("MaxUnpool")
def max_unpool(node: OnnxNode) -> Value:
    """Zeros, and every element where its index says; positions count in what the pool read, which `output_shape` may exceed."""
    x, indices = node.input(0), node.input(1)
    kernel = tuple(node.attr("kernel_shape"))
    n = len(kernel)
    strides, pads = spatial(node, "strides", n), tuple(node.attr("pads", (0,) * (2 * n)))
    if as_ints(x.shape) is None:
        raise node.unsupported(f"an input of unknown size {x.type}")
    along = zip(x.shape[2:], strides, pads[:n], pads[n:], kernel, strict=True)
    sizes = [(d.value - 1) * s - p - q + k for d, s, p, q, k in along]
    inner = (*(d.value for d in x.shape[:2]), *sizes)
    zero = False if x.dtype.is_bool else 0
    empty = node.add("full", shape=(math.prod(inner),), value=zero, dtype=x.dtype)
    flat = [node.add("reshape", v, shape=(math.prod(d.value for d in x.shape),)) for v in (indices, x)]
    y = node.add("reshape", node.add("scatter_elements", empty, *flat, axis=0), shape=inner)
    if node.optional(2) is None:
        return y
    outer = [int(d) for d in node.known(2, "the output's shape")]
    if len(outer) != len(inner):
        raise node.fail(f"an output shape {outer} for {x.type}")
    return node.add("pad", y, pads=(*(0,) * len(inner), *(o - i for o, i in zip(outer, inner, strict=True))))


@onnx_op("AveragePool")
def average_pool(node: OnnxNode) -> Value:
    return _pool(node, "avg_pool", count_include_pad=bool(node.attr("count_include_pad", 0)))


@onnx_op("LpPool")
def lp_pool(node: OnnxNode) -> Value:
    return _pool(node, "lp_pool", p=int(node.attr("p", 2)))


def _global_axes(node: OnnxNode) -> tuple[int, ...]:
    x = node.input(0)
    if x.type.ndim < 3:
        raise node.fail(f"pooling of {x.type}: no spatial dimensions")
    return tuple(range(2, x.type.ndim))


@onnx_op("GlobalAveragePool")
def global_average_pool(node: OnnxNode) -> Value:
    return node.add("reduce_mean", node.input(0), axes=_global_axes(node), keepdims=True)


@onnx_op("GlobalMaxPool")
def global_max_pool(node: OnnxNode) -> Value:
    return node.add("reduce_max", node.input(0), axes=_global_axes(node), keepdims=True)


@onnx_op("GlobalLpPool")
def global_lp_pool(node: OnnxNode) -> Value:
    p = int(node.attr("p", 2))
    if p not in (1, 2):
        raise node.unsupported(f"p={p}")
    return node.add(f"reduce_l{p}", node.input(0), axes=_global_axes(node), keepdims=True)


# -- normalisations ------------------------------------------------------------------------------------------------


@onnx_op("BatchNormalization")
def batch_normalization(node: OnnxNode) -> Value | tuple[Value, ...]:
    x, scale, bias, mean, variance = (node.input(i) for i in range(5))
    attrs = {"epsilon": node.attr("epsilon", 1e-5), "axis": min(1, x.type.ndim - 1)}
    training = bool(node.attr("training_mode", 0)) or (node.version < 7 and not node.attr("is_test", 0))
    if node.version < 14 and any(node.wants(i) for i in range(1, node.output_count)):
        raise node.unsupported("running statistics as outputs, before opset 14")
    if not training:
        return node.add("batch_norm", x, scale, bias, mean, variance, **attrs)
    axes = tuple(a for a in range(x.type.ndim) if a != attrs["axis"])
    flat = node.add("reduce_mean", x, axes=axes, keepdims=True)
    apart = node.add("sub", x, flat)
    spread = node.add("reduce_mean", node.add("mul", apart, apart), axes=axes, keepdims=False)
    centre = node.add("reshape", flat, shape=spread.shape)
    y = node.add("batch_norm", x, scale, bias, centre, spread, **attrs)
    momentum = node.attr("momentum", 0.9)
    running = [
        node.add(
            "add",
            node.add("mul", old, node.constant(momentum, old)),
            node.add("mul", node.add("cast", new, dtype=old.dtype), node.constant(1 - momentum, old)),
        )
        for old, new in ((mean, centre), (variance, spread))
    ]
    return (y, *running)[: node.output_count] if node.output_count > 1 else y


@onnx_op("LayerNormalization")
@onnx_op("LayerNormalization", domain="com.microsoft")
def layer_normalization(node: OnnxNode) -> Value:
    if node.wants(1) or node.wants(2):
        raise node.unsupported("mean and deviation as outputs")
    x = node.input(0)
    attrs = {"axis": node.axis("axis", x.type.ndim, -1), "epsilon": node.attr("epsilon", 1e-5)}
    return node.add("layer_norm", x, node.input(1), *_bias(node), **attrs)


@onnx_op("SkipLayerNormalization", domain="com.microsoft")
def skip_layer_normalization(node: OnnxNode) -> Value | tuple[Value, ...]:
    """layer_norm(x + skip [+ bias]) * gamma [+ beta]"""
    x = node.add("add", node.input(0), node.input(1))
    if (bias := node.optional(4)) is not None:
        x = node.add("add", x, bias)
    beta = node.optional(3)
    parameters = [node.input(2)] + ([] if beta is None else [beta])
    if node.wants(1) or node.wants(2):
        raise node.unsupported("mean and deviation as outputs")
    y = node.add("layer_norm", x, *parameters, axis=x.type.ndim - 1, epsilon=node.attr("epsilon", 1e-12))
    return (y, y, y, x)[: node.output_count] if node.wants(3) else y


@onnx_op("RMSNormalization")
@onnx_op("SimplifiedLayerNormalization")
@onnx_op("SimplifiedLayerNormalization", domain="com.microsoft")
def rms_normalization(node: OnnxNode) -> Value:
    x = node.input(0)
    attrs = {"axis": node.axis("axis", x.type.ndim, -1), "epsilon": node.attr("epsilon", 1e-5)}
    return node.add("rms_norm", x, node.input(1), **attrs)


@onnx_op("InstanceNormalization")
def instance_normalization(node: OnnxNode) -> Value:
    return node.add("instance_norm", *(node.input(i) for i in range(3)), epsilon=node.attr("epsilon", 1e-5))


@onnx_op("GroupNormalization", since=21)
def group_normalization(node: OnnxNode) -> Value:
    groups = node.attr("num_groups")
    return node.add("group_norm", *(node.input(i) for i in range(3)), groups=groups, epsilon=node.attr("epsilon", 1e-5))


@onnx_op("LRN")
def lrn(node: OnnxNode) -> Value:
    attrs = {"alpha": node.attr("alpha", 1e-4), "beta": node.attr("beta", 0.75), "bias": node.attr("bias", 1.0)}
    return node.add("lrn", node.input(0), size=node.attr("size"), **attrs)
