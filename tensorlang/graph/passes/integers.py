"""Products of quantised numbers in integers: bytes by bytes, added up in i32, and what zero points add to that afterwards.

    %x = dequantize(%a: u8[M, K], 0.02, 128)                %t = matmul(%a, %b)                     i32, u8 by i8
    %w = dequantize(%b: i8[K, N], scales[N])                %u = add(%t, -128 * column sums of %b)  a constant [N]
    %y = matmul(%x, %w)                              ->     %y = mul(cast(%u, f32), 0.02 * scales)
    %q = quantize(%y, 0.1, 3)                               %q = requantize(%u, 0.02 * scales / 0.1, 3)

As  sum (a - za)(b - zb) = sum a b - za sum b - zb sum a + K za zb,  the loops see bytes alone, and there is nothing to add per
element but sums of a constant. Machines multiply u8 by i8: what has the other sign is moved by 128, and its zero point with
it. The same is done to products of `cast(a, i32) - za`, which is how MatMulInteger, ConvInteger and QLinear operators arrive.
Padding is the zero point, not 0. Sums are exact: products of floats round, these do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tensorlang.graph.ir import Graph, Node, Value
from tensorlang.graph.passes.context import Context, subject_of
from tensorlang.graph.registry import as_ints, get
from tensorlang.graph.rewrite import Rewriter, producer, rewrite, same_shape
from tensorlang.ir.dtype import f32, i8, i32, u8

BYTES = (u8, i8)
STEP = 4  # bytes that one instruction multiplies and adds
LEAST_COLUMNS = 8  # fewer columns leave most of a vector unused
MOVES = ("reshape", "cast", "transpose", "slice", "expand")


def integers(graph: Graph, context: Context | None = None) -> Graph:
    """Rewrite products of quantised numbers; before constants are folded, which would make floats of quantised weights."""
    context = context or Context()
    if not context.options.integers:
        return graph

    def rule(rw: Rewriter, node: Node) -> Value | None:
        if node.op == "quantize":
            return _requantized(rw, node)
        if node.op not in ("matmul", "conv"):
            return None
        made = _matmul(rw, node) if node.op == "matmul" else _conv(rw, node)
        if made is not None:
            context.note(subject_of(node), "a product of bytes, in integers")
        return made

    return rewrite(graph, rule)


# -- operands --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Operand:
    """An operand as (codes - zero) * scale.

    Attributes:
        codes: u8 or i8.
        array: the codes, if they are constant.
        zero: an array that is known, or an i32 value, either broadcasting against the codes.
        scale: the same in f32; None where the operand is integers.
    """

    codes: Value
    array: np.ndarray | None
    zero: np.ndarray | Value
    scale: np.ndarray | Value | None

    @property
    def zero_is_number(self) -> bool:
        return _size(self.zero) == 1


def _size(p: np.ndarray | Value) -> int | None:
    if isinstance(p, np.ndarray):
        return p.size
    shape = as_ints(p.shape)
    return None if shape is None else int(np.prod(shape, dtype=np.int64))


def _known(value: Value) -> np.ndarray | None:
    """The array that a value is for certain: a constant, perhaps moved about."""
    if value.constant is not None:
        return value.constant
    node = value.producer
    if node is None or node.op not in MOVES or len(node.inputs) != 1 or node.output is not value:
        return None
    inner = _known(node.inputs[0])
    if inner is None or any(not isinstance(a, int | str) and as_plain(a) is None for a in node.attrs.values()):
        return None
    with np.errstate(all="ignore"):
        return np.asarray(get(node.op).numpy(inner, **{k: as_plain(a) for k, a in node.attrs.items()}))


def as_plain(attribute: object) -> object | None:
    """An attribute without expressions, or None."""
    if isinstance(attribute, tuple | list):
        items = [as_plain(a) for a in attribute]
        return None if any(a is None for a in items) else tuple(items)
    if isinstance(attribute, int | str | float | np.integer):
        return attribute
    if getattr(attribute, "op", None) == "const":
        return attribute.value  # type: ignore[attr-defined]
    return attribute if hasattr(attribute, "numpy") else None  # a data type


def _of_array(rw: Rewriter, value: Value, array: np.ndarray) -> Operand | None:
    """Constant integers as i8, less one zero point if they lie between others than i8 does."""
    low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
    if high - low > 255 or abs(low) > 255 or abs(high) > 255:
        return None
    zero = 0 if low >= -128 and high <= 127 else -128 - low
    codes = (array.astype(np.int32) + zero).astype(np.int8)
    return Operand(rw.constant(codes, value.name), codes, np.array(zero, np.int32), None)


def _operand(rw: Rewriter, value: Value) -> Operand | None:
    whole = _known(value) if value.dtype == i32 else None
    if whole is not None:
        return _of_array(rw, value, whole)
    node = value.producer
    if node is None:
        return None
    if node.op == "transpose":
        return _transposed(rw, _operand(rw, node.inputs[0]), node)
    if node.op == "dequantize":
        return _dequantized(node)
    zero: np.ndarray | Value = np.zeros((), np.int32)
    if node.op == "sub" and node.output.dtype == i32:
        zero = _parameter(node.inputs[1])
        wide = producer(node.inputs[0], "cast")
        if not same_shape(node.output.type, node.inputs[0].type):
            return None
    else:
        wide = node if node.op == "cast" else None
    if wide is None or wide.output.dtype != i32 or wide.inputs[0].dtype not in BYTES:
        return None
    return Operand(wide.inputs[0], _known(wide.inputs[0]), zero, None)


def _parameter(value: Value) -> np.ndarray | Value:
    known = _known(value)
    return value if known is None else known


def _dequantized(node: Node) -> Operand | None:
    x, scale, *zeros = node.inputs
    if x.dtype not in BYTES or node.attrs["of"] != x.dtype.name or node.attrs.get("block") or node.output.dtype != f32:
        return None
    known_scale = _known(scale)
    known_zero = np.zeros(scale.type.static_shape or (), np.int32) if not zeros else _known(zeros[0])
    if known_scale is None or known_zero is None or known_scale.dtype != np.float32:
        return None
    axis, rank = node.attrs["axis"], x.type.ndim

    def spread(p: np.ndarray) -> np.ndarray:
        return p if p.ndim == 0 else p.reshape(tuple(-1 if a == axis % rank else 1 for a in range(rank)))

    zero = spread(known_zero.astype(np.int32))
    return Operand(x, _known(x), np.zeros((), np.int32) if not zero.any() else zero, spread(known_scale))


def _transposed(rw: Rewriter, inner: Operand | None, node: Node) -> Operand | None:
    """The transposition of an operand whose parameters are constants."""
    if inner is None or isinstance(inner.zero, Value) or isinstance(inner.scale, Value):
        return None
    perm = node.attrs["perm"]

    def moved(p: np.ndarray | None) -> np.ndarray | None:
        return p.transpose(perm) if p is not None and p.ndim == len(perm) else p

    zero = moved(inner.zero)
    assert zero is not None
    array = moved(inner.array)
    codes = rw.add("transpose", [inner.codes], {"perm": perm}, node)
    return Operand(codes, array, zero, moved(inner.scale))


def _signed(rw: Rewriter, x: Operand, to_u8: bool) -> Operand:
    """The operand in the type that the instruction wants: codes and zero point moved by 128."""
    wanted = u8 if to_u8 else i8
    if x.codes.dtype == wanted:
        return x
    shift = 128 if to_u8 else -128
    zero: np.ndarray | Value
    if isinstance(x.zero, Value):
        zero = rw.add("add", [x.zero, np.array(shift, np.int32)])
    else:
        zero = np.asarray(x.zero.astype(np.int32) + np.int32(shift))
    array = None if x.array is None else (x.array.astype(np.int32) + shift).astype(wanted.numpy)
    if array is not None:
        return replace(x, codes=rw.constant(array, x.codes.name), array=array, zero=zero)
    wide = rw.add("add", [rw.add("cast", [x.codes], {"dtype": "i32"}), np.array(shift, np.int32)])
    return replace(x, codes=rw.add("cast", [wide], {"dtype": wanted.name}), zero=zero)


# -- products --------------------------------------------------------------------------------------------------------


def _pair(rw: Rewriter, node: Node) -> tuple[Operand, Operand] | None:
    """Both operands, the second one constant, if they are alike."""
    if node.output.dtype not in (i32, f32) or node.inputs[0].dtype in BYTES:
        return None
    right = _operand(rw, node.inputs[1])
    if right is None or right.array is None or isinstance(right.zero, Value) or isinstance(right.scale, Value):
        return None
    left = _operand(rw, node.inputs[0])
    if left is None or (left.scale is None) != (right.scale is None):
        return None
    if left.scale is not None and _size(left.scale) != 1:
        return None
    return left, right


def _matmul(rw: Rewriter, node: Node) -> Value | None:
    pair = _pair(rw, node)
    if pair is None:
        return None
    left, right = pair
    weight, depth = right.array, left.codes.shape[-1]
    if weight is None or weight.ndim != 2 or weight.shape[1] < LEAST_COLUMNS or depth.op != "const" or left.codes.type.ndim < 2:
        return None
    if not _per_column(right.zero, weight.shape[1]) or not _per_column(right.scale, weight.shape[1]) or not _per_row(left.zero):
        return None
    left, right = _signed(rw, left, True), _signed(rw, right, False)
    weight = right.array
    zero_b = np.asarray(right.zero, np.int32).reshape(-1) if weight is not None else None
    assert weight is not None and zero_b is not None
    sums = weight.sum(0, dtype=np.int32)
    a, missing = left.codes, -weight.shape[0] % STEP
    rank = a.type.ndim
    if missing:
        a = rw.add("pad", [a], {"pads": (*(0,) * (2 * rank - 1), missing)}, node)
        weight = np.pad(weight, ((0, missing), (0, 0)))
    total = rw.add("matmul", [a, rw.constant(weight, right.codes.name)], {}, node)
    total = _less_zero(rw, total, left.zero, np.int32(depth.value) * zero_b - sums)
    if zero_b.any():
        rows = rw.add("reduce_sum", [rw.add("cast", [left.codes], {"dtype": "i32"})], {"axes": (rank - 1,), "keepdims": True})
        total = rw.add("sub", [total, rw.add("mul", [rows, zero_b])])
    return _scaled(rw, node, total, left, right, None)


def _per_column(p: np.ndarray | Value | None, columns: int) -> bool:
    """Whether a parameter is one number, or one per column."""
    return p is None or (isinstance(p, np.ndarray) and (p.size == 1 or p.shape[-1:] == (columns,) and p.size == columns))


def _per_row(zero: np.ndarray | Value) -> bool:
    """Whether a zero point does not change along the last axis."""
    if _size(zero) == 1:
        return True
    return len(zero.shape) > 1 and as_ints(zero.shape[-1:]) == (1,) if isinstance(zero, Value) else zero.shape[-1:] == (1,)


def _less_zero(rw: Rewriter, total: Value, zero: np.ndarray | Value, per_column: np.ndarray) -> Value:
    """total + zero * per_column"""
    if isinstance(zero, np.ndarray):
        term = (zero.astype(np.int32) * per_column).astype(np.int32)
        return rw.add("add", [total, term]) if term.any() else total
    if _size(zero) == 1 and zero.type.ndim:
        zero = rw.add("reshape", [zero], {"shape": ()})
    return rw.add("add", [total, rw.add("mul", [zero, per_column])]) if per_column.any() else total


def _conv(rw: Rewriter, node: Node) -> Value | None:
    if node.attrs.get("layout", "NCHW") != "NCHW" or node.attrs.get("group", 1) != 1:
        return None
    pair = _pair(rw, node)
    if pair is None:
        return None
    left, right = pair
    weight = right.array
    if weight is None or weight.shape[0] < LEAST_COLUMNS or not left.zero_is_number or _size(right.zero) != 1:
        return None
    scale = right.scale
    if isinstance(scale, np.ndarray) and scale.size != 1 and scale.shape != (weight.shape[0], *(1,) * (weight.ndim - 1)):
        return None
    left, right = _signed(rw, left, True), _signed(rw, right, False)
    weight = right.array
    assert weight is not None and isinstance(right.zero, np.ndarray)
    zero_b = int(right.zero.reshape(()))
    depth = int(np.prod(weight.shape[1:]))
    per_filter = np.int32(depth * zero_b) - weight.sum(tuple(range(1, weight.ndim)), dtype=np.int32)
    spatial = weight.ndim - 2
    missing = -weight.shape[1] % STEP
    image = _padded(rw, node, left, missing if not zero_b else 0)
    attrs = {**node.attrs, "pads": (0,) * (2 * spatial)}
    data = image
    if missing:
        weight = np.pad(weight, ((0, 0), (0, missing), *((0, 0),) * spatial))
        if zero_b:  # the sums of windows are over the channels that there are
            data = rw.add("pad", [image], {"pads": (*(0,) * (spatial + 3), missing, *(0,) * spatial)}, node)
    total = rw.add("conv", [data, rw.constant(weight, right.codes.name)], attrs, node)
    ones = (1,) * spatial
    if isinstance(left.zero, np.ndarray):
        per_filter = (int(left.zero.reshape(())) * per_filter).astype(np.int32).reshape(-1, *ones)
        total = rw.add("add", [total, per_filter]) if per_filter.any() else total
    else:
        total = _less_zero(rw, total, left.zero, per_filter.reshape(-1, *ones))
    if zero_b:
        pixels = rw.add("reduce_sum", [rw.add("cast", [image], {"dtype": "i32"})], {"axes": (1,), "keepdims": True})
        window = np.ones((1, 1, *weight.shape[2:]), np.int32)
        windows = rw.add("conv", [pixels, window], attrs, node)
        total = rw.add("sub", [total, rw.add("mul", [windows, np.array(zero_b, np.int32)])])
    return _scaled(rw, node, total, left, right, node.inputs[2] if len(node.inputs) > 2 else None)


def _padded(rw: Rewriter, node: Node, x: Operand, channels: int) -> Value:
    """The image with a border of its zero point, and `channels` more channels, which meet weights that are zero."""
    pads: Sequence[object] = node.attrs["pads"]
    spatial = len(pads) // 2
    plain = [as_plain(p) for p in pads]
    if not channels and all(p == 0 for p in plain):
        return x.codes
    full = (0, 0, *pads[:spatial], 0, channels, *pads[spatial:])
    if isinstance(x.zero, np.ndarray):
        return rw.add("pad", [x.codes], {"pads": full, "value": int(x.zero.reshape(()))}, node)
    zero = rw.add("reshape", [x.zero], {"shape": ()}) if x.zero.type.ndim else x.zero
    return rw.add("pad", [x.codes, rw.add("cast", [zero], {"dtype": "u8"})], {"pads": full}, node)


def _scaled(rw: Rewriter, node: Node, total: Value, left: Operand, right: Operand, bias: Value | None) -> Value:
    """What stands for the node: the sums, or the numbers they stand for; and the bias."""
    tail = (1,) * (node.output.type.ndim - 2) if node.op == "conv" else ()
    if left.scale is None or right.scale is None:
        return total if bias is None else rw.add("add", [total, _shaped(rw, bias, tail)])
    assert isinstance(left.scale, np.ndarray) and isinstance(right.scale, np.ndarray)
    factor = left.scale.reshape(()) * right.scale.reshape(-1 if right.scale.size > 1 else ())
    whole = _whole_bias(bias, factor)
    if whole is not None:
        total, bias = rw.add("add", [total, whole.reshape(-1, *tail)]), None
    if factor.ndim:
        factor = factor.reshape(-1, *tail)
    y = rw.add("mul", [rw.add("cast", [total], {"dtype": "f32"}), factor.astype(np.float32)], {}, node)
    return y if bias is None else rw.add("add", [y, _shaped(rw, bias, tail)])


def _shaped(rw: Rewriter, bias: Value, tail: tuple[int, ...]) -> Value:
    return rw.add("reshape", [bias], {"shape": (*bias.shape, *tail)}) if tail else bias


def _whole_bias(bias: Value | None, factor: np.ndarray) -> np.ndarray | None:
    """The i32 bias that was dequantised by the product's own scales."""
    node = bias.producer if bias is not None else None
    if node is None or node.op != "dequantize" or node.inputs[0].dtype != i32:
        return None
    whole, scale = _known(node.inputs[0]), _known(node.inputs[1])
    zero = _known(node.inputs[2]) if len(node.inputs) > 2 else np.zeros((), np.int32)
    if whole is None or scale is None or zero is None or zero.any() or scale.size not in (1, whole.size):
        return None
    same = np.allclose(np.broadcast_to(scale.reshape(-1), whole.shape), np.broadcast_to(factor, whole.shape), rtol=1e-5, atol=0)
    return whole if same else None


def _requantized(rw: Rewriter, node: Node) -> Value | None:
    """quantize(cast(t) * factor, scale, zero) -> requantize(t, factor / scale, zero): of sums that this pass has made."""
    product = producer(node.inputs[0], "mul")
    wide = None if product is None else producer(product.inputs[0], "cast")
    if product is None or wide is None or wide.inputs[0].dtype != i32 or rw.uses(node.inputs[0]):
        return None
    factor, scale = product.inputs[1].constant, _known(node.inputs[1])
    if factor is None or scale is None or scale.size != 1 or scale.dtype != np.float32 or node.attrs.get("block"):
        return None
    zeros = [rw.constant(z.reshape(())) for z in (_known(v) for v in node.inputs[2:]) if z is not None and z.size == 1]
    if len(zeros) != len(node.inputs) - 2 or node.attrs["to"] not in ("u8", "i8"):
        return None
    if node.attrs.get("precision", "") not in ("", "f32"):
        return None
    axis = node.output.type.ndim - factor.ndim if factor.ndim else 0
    if factor.size != factor.shape[0] if factor.ndim else False:
        return None
    scaled = (factor.reshape(-1 if factor.ndim else ()) / scale.reshape(())).astype(np.float32)
    return rw.add("requantize", [wide.inputs[0], scaled, *zeros], {"to": node.attrs["to"], "axis": axis}, node)
