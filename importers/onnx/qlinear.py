"""com.microsoft's quantised operators: those on quantised tensors, and products of floats by quantised weights."""

from __future__ import annotations

from collections.abc import Callable

from tensorlang.graph import Value, as_dtype, as_ints, product

from .casts import stored
from .nn import pool_attributes
from .node import OnnxNode
from .quantize import (
    MICROSOFT,
    dequantized,
    flat,
    integer_product,
    integers,
    quantized,
    quantized_by_range,
    requantized,
    scale_factor,
    scaled_product,
)
from .recurrent import Cell, Lstm
from .registry import onnx_op


def _restored(node: OnnxNode, position: int) -> Value:
    """The numbers of a tensor given as tensor, scale, zero point from `position` on."""
    return dequantized(node, node.input(position), node.input(position + 1), node.optional(position + 2))


def _result(node: OnnxNode, y: Value, position: int, like: Value) -> Value:
    """`y` by the scale and zero point at `position`, as the zero point's type, else that of `like`."""
    zero = node.optional(position + 1)
    return quantized(node, y, node.input(position), zero, zero.dtype if zero is not None else like.dtype)


@onnx_op("QLinearAdd", domain=MICROSOFT)
def qlinear_add(node: OnnxNode) -> Value:
    return _result(node, node.add("add", _restored(node, 0), _restored(node, 3)), 6, node.input(0))


@onnx_op("QLinearMul", domain=MICROSOFT)
def qlinear_mul(node: OnnxNode) -> Value:
    """The product of the integers, times one factor."""
    a, b, zero = node.input(0), node.input(3), node.optional(7)
    whole = node.add("mul", integers(node, a, node.optional(2), 0), integers(node, b, node.optional(5), 0))
    factor = scale_factor(node, node.input(1), node.input(4), node.input(6))
    return requantized(node, whole, factor, zero, zero.dtype if zero is not None else a.dtype, 0)


def _unary(name: str, compute: Callable[[OnnxNode, Value], Value]) -> None:
    @onnx_op(name, domain=MICROSOFT)
    def rule(node: OnnxNode) -> Value:
        return _result(node, compute(node, _restored(node, 0)), 3, node.input(0))


def _channels_first(node: OnnxNode, x: Value) -> tuple[Value, tuple[int, ...]]:
    """`x` with its channels second, and the permutation that takes a result back; empty if they are."""
    if not node.attr("channels_last", 0):
        return x, ()
    n = x.type.ndim
    return node.add("transpose", x, perm=(0, n - 1, *range(1, n - 1))), (0, *range(2, n), 1)


def _global_average(node: OnnxNode, x: Value) -> Value:
    first, back = _channels_first(node, x)
    y = node.add("reduce_mean", first, axes=tuple(range(2, x.type.ndim)), keepdims=True)
    return node.add("transpose", y, perm=back) if back else y


def _average(node: OnnxNode, x: Value) -> Value:
    first, back = _channels_first(node, x)
    y = node.add("avg_pool", first, **pool_attributes(node, first), count_include_pad=bool(node.attr("count_include_pad", 0)))
    return node.add("transpose", y, perm=back) if back else y


def _softmax(node: OnnxNode, x: Value) -> Value:
    """Before opset 13, one softmax over all dimensions from `axis` on."""
    axis = node.axis("axis", x.type.ndim, -1)
    if node.attr("opset", 13) >= 13 or axis == x.type.ndim - 1:
        return node.add("softmax", x, axis=axis)
    rows = node.add("reshape", x, shape=(*x.shape[:axis], product(x.shape[axis:])))
    return node.add("reshape", node.add("softmax", rows, axis=axis), shape=x.shape)


_unary("QLinearSigmoid", lambda node, x: node.add("sigmoid", x))
_unary("QLinearLeakyRelu", lambda node, x: node.add("leaky_relu", x, alpha=node.attr("alpha", 0.01)))
_unary("QLinearGlobalAveragePool", _global_average)
_unary("QLinearAveragePool", _average)
_unary("QLinearSoftmax", _softmax)


@onnx_op("QLinearReduceMean", domain=MICROSOFT)
def qlinear_reduce_mean(node: OnnxNode) -> Value:
    x = _restored(node, 0)
    axes = node.normal_axes(node.attr("axes", tuple(range(x.type.ndim))), x.type.ndim)
    return _result(node, node.add("reduce_mean", x, axes=axes, keepdims=bool(node.attr("keepdims", 1))), 3, node.input(0))


@onnx_op("QLinearConcat", domain=MICROSOFT)
def qlinear_concat(node: OnnxNode) -> Value:
    parts = [_restored(node, position) for position in range(2, len(node.inputs), 3)]
    axis = node.axis("axis", parts[0].type.ndim)
    return _result(node, node.add("concat", *parts, axis=axis), 0, node.input(2))


@onnx_op("QLinearWhere", domain=MICROSOFT)
def qlinear_where(node: OnnxNode) -> Value:
    y = node.add("where", node.input(0), _restored(node, 1), _restored(node, 4))
    return _result(node, y, 7, node.input(1))


@onnx_op("QGemm", domain=MICROSOFT)
def qgemm(node: OnnxNode) -> Value:
    """alpha * A' B' + C in integers; to u8 or i8 if there is a result scale, else to f32."""
    a, a_scale, a_zero, b, b_scale, b_zero = (node.input(i) for i in range(6))
    if node.attr("transA", 0):
        a = node.add("transpose", a, perm=(1, 0))
    if node.attr("transB", 0):
        b = node.add("transpose", b, perm=(1, 0))
    total = integer_product(node, a, a_zero, b, b_zero)
    if (c := node.optional(6)) is not None:
        total = node.add("add", total, c)
    factor = node.add("mul", flat(node, a_scale), flat(node, b_scale))
    if (alpha := node.attr("alpha", 1.0)) != 1:
        factor = node.add("mul", factor, node.constant(alpha, factor))
    if (y_scale := node.optional(7)) is None:
        return node.add("mul", node.add("cast", total, dtype="f32"), factor)
    y_zero = node.optional(8)
    kind = y_zero.dtype if y_zero is not None else a.dtype
    return requantized(node, total, node.add("div", factor, flat(node, y_scale)), y_zero, kind, 1)


# -- floats by quantised weights -----------------------------------------------------------------------------------


@onnx_op("MatMulIntegerToFloat", domain=MICROSOFT)
def matmul_integer_to_float(node: OnnxNode) -> Value:
    a, b, a_scale, b_scale = (node.input(i) for i in range(4))
    total = integer_product(node, a, node.optional(4), b, node.optional(5))
    return scaled_product(node, total, a_scale, b_scale, node.optional(6))


@onnx_op("DynamicQuantizeMatMul", domain=MICROSOFT)
def dynamic_quantize_matmul(node: OnnxNode) -> Value:
    a, a_scale, a_zero = quantized_by_range(node, node.input(0))
    total = integer_product(node, a, a_zero, node.input(1), node.optional(3))
    return scaled_product(node, total, a_scale, node.input(2), node.optional(4))


@onnx_op("MatMulNBits", domain=MICROSOFT)
def matmul_nbits(node: OnnxNode) -> Value:
    """A (B - zero) scale, where B [N, K] is stored in `bits` bits a number, and every `block_size` of a row have one scale."""
    x, packed, scales = (node.input(i) for i in range(3))
    bits, block, n, k = (int(node.attr(name)) for name in ("bits", "block_size", "N", "K"))
    if bits not in (2, 4, 8):
        raise node.unsupported(f"{bits} bits")
    if node.optional(4) is not None:
        raise node.unsupported("columns in groups (g_idx)")
    blocks = -(-k // block)
    codes = _unpacked(node, packed, bits, n, blocks * block)
    scales = node.add("reshape", scales, shape=(n, blocks))
    zero = node.optional(3)
    if zero is None:
        zeros = node.constant([[1 << (bits - 1)] * blocks] * n, as_dtype("u8"))
    elif zero.dtype == as_dtype("u8"):
        sizes = as_ints(zero.shape)
        if sizes is None:
            raise node.unsupported(f"zero points of unknown size {zero.type}")
        per_row = -(-blocks * bits // 8) * 8 // bits
        zeros = _first(node, _unpacked(node, zero, bits, n, per_row), blocks)
    else:
        centred = node.add("sub", node.add("cast", codes, dtype=zero.dtype), _repeated(node, zero, n, blocks, block))
        weight = node.add("mul", centred, _repeated(node, scales, n, blocks, block))
        return _by_rows(node, x, _first(node, weight, k))
    weight = node.add("dequantize", codes, scales, zeros, of="u8", dtype=scales.dtype, axis=1, block=block)
    return _by_rows(node, x, _first(node, weight, k))


@onnx_op("GatherBlockQuantized", domain=MICROSOFT)
def gather_block_quantized(node: OnnxNode) -> Value:
    """Rows of a table that is quantised in blocks along another axis: gathered first, so that only those are restored."""
    data, indices, scales = (node.input(i) for i in range(3))
    n, zero = data.type.ndim, node.optional(3)
    gathered, axis = node.axis("gather_axis", n, 0), node.axis("quantize_axis", n, 1)
    if gathered == axis:
        raise node.unsupported(f"elements are gathered along the blocks' axis {axis}")
    bits = int(node.attr("bits", 4)) if data.dtype == as_dtype("u8") else 8
    if bits not in (2, 4, 8):
        raise node.unsupported(f"{bits} bits")

    def rows(x: Value) -> Value:
        taken = node.add("gather", x, indices, axis=gathered)
        return taken if bits == 8 else node.add("unpack", taken, bits=bits)

    codes, scale = rows(stored(node, data)), node.add("gather", scales, indices, axis=gathered)
    parameters = [scale]
    if zero is not None:
        zeros = rows(stored(node, zero))
        if bits < 8:  # as many as blocks: the last byte may hold fewer
            ndim = zeros.type.ndim
            zeros = node.add("slice", zeros, starts=(0,) * ndim, shape=scale.shape, steps=(1,) * ndim)
        parameters.append(zeros)
    elif data.dtype == as_dtype("u8"):
        parameters.append(node.add("full", shape=scale.shape, value=1 << (bits - 1), dtype="u8"))
    moved = axis + indices.type.ndim - 1 if axis > gathered else axis
    of, block = data.dtype.name, int(node.attr("block_size", 128))
    return node.add("dequantize", codes, *parameters, of=of, dtype=scales.dtype, axis=moved, block=block)


def _unpacked(node: OnnxNode, packed: Value, bits: int, rows: int, columns: int) -> Value:
    flat_rows = node.add("reshape", packed, shape=(rows, columns * bits // 8))
    return flat_rows if bits == 8 else node.add("unpack", flat_rows, bits=bits)


def _first(node: OnnxNode, x: Value, columns: int) -> Value:
    if as_ints(x.shape[1:]) == (columns,):
        return x
    return node.add("slice", x, starts=(0, 0), shape=(x.shape[0], columns), steps=(1, 1))


def _repeated(node: OnnxNode, p: Value, rows: int, blocks: int, block: int) -> Value:
    """One number per block as one per element."""
    wide = node.add("expand", node.add("reshape", p, shape=(rows, blocks, 1)), shape=(rows, blocks, block))
    return node.add("reshape", wide, shape=(rows, blocks * block))


def _by_rows(node: OnnxNode, x: Value, weight: Value) -> Value:
    if weight.dtype != x.dtype:
        weight = node.add("cast", weight, dtype=x.dtype)
    y = node.add("matmul", x, node.add("transpose", weight, perm=(1, 0)))
    bias = node.optional(5)
    return y if bias is None else node.add("add", y, bias)


# -- recurrence ----------------------------------------------------------------------------------------------------


class _QuantizedLstm(Lstm):
    """An LSTM whose products are of integers: weights [I, 4 H] are quantised, the input and every state as they come."""

    def _hidden_size(self) -> int:
        size = as_ints(self.node.input(2).shape[1:2])
        if size is None:
            raise self.node.unsupported("a hidden size that is not known")
        return size[0]

    def cell(self, d: int) -> Cell:
        cell = super().cell(d)
        self.scales = {
            cell.weights: (self.of_direction(8, d), self.of_direction(9, d)),
            cell.recurrence: (self.of_direction(10, d), self.of_direction(11, d)),
        }
        return cell

    def product(self, a: Value, weights: Value) -> Value:
        scale, zero = self.scales[weights]
        if scale is None:
            raise self.node.fail("a scale of its weights is missing")
        codes, a_scale, a_zero = quantized_by_range(self.node, a)
        return scaled_product(self.node, integer_product(self.node, codes, a_zero, weights, zero), a_scale, scale, None)


@onnx_op("DynamicQuantizeLSTM", domain=MICROSOFT)
def dynamic_quantize_lstm(node: OnnxNode) -> tuple[Value, ...]:
    return _QuantizedLstm(node).run()
