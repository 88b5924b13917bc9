"""Operations of neural networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tensorlang import te
from tensorlang.interop.tvm.tensor import Tensor, compute
from tensorlang.interop.tvm.topi.transform import normal_axis, reshape
from tensorlang.ir.dtype import dtype as as_dtype
from tensorlang.ir.expr import Expr, cast, fail

PADDED = "injective,pad"


def relu(x: Tensor) -> Tensor:
    """Elements below 0 become 0."""
    return compute(x.shape, lambda *i: te.maximum(x(*i), 0), "T_relu", "elemwise")


def leaky_relu(x: Tensor, alpha: float) -> Tensor:
    """Elements below 0 are multiplied by `alpha`."""
    return compute(x.shape, lambda *i: te.select(x(*i) > 0, x(*i), x(*i) * alpha), "T_leaky_relu", "elemwise")


def _exponentials(x: Tensor, axis: int) -> tuple[int, Tensor, Tensor, Tensor]:
    """The axis, the maxima along it, the exponentials of the differences to them, and their sums."""
    at = normal_axis(axis, x.ndim)
    shape = [d for n, d in enumerate(x.shape) if n != at]
    k1 = te.reduce_axis(x.shape[at], name="k")
    k2 = te.reduce_axis(x.shape[at], name="k")

    def along(i: Sequence[Expr], k: Any) -> tuple[Any, ...]:
        return (*i[:at], k, *i[at:])

    most = compute(shape, lambda *i: te.max(x(*along(i, k1)), axis=k1), "T_softmax_maxelem")
    ex = compute(x.shape, lambda *i: te.exp(x(*i) - most(*i[:at], *i[at + 1 :])), "T_softmax_exp")
    total = compute(shape, lambda *i: te.sum(ex(*along(i, k2)), axis=k2), "T_softmax_expsum")
    return at, most, ex, total


def softmax(x: Tensor, axis: int = -1) -> Tensor:
    """Exponentials divided by their sum along `axis`; the maximum is subtracted first."""
    at, _, ex, total = _exponentials(x, axis)
    return compute(x.shape, lambda *i: ex(*i) / total(*i[:at], *i[at + 1 :]), "T_softmax_norm", "softmax_output")


def log_softmax(x: Tensor, axis: int = -1) -> Tensor:
    """The logarithm of `softmax`."""
    at, most, _, total = _exponentials(x, axis)

    def element(*i: Expr) -> Expr:
        rest = (*i[:at], *i[at + 1 :])
        return x(*i) - most(*rest) - te.log(total(*rest))

    return compute(x.shape, element, "T_log_softmax", "log_softmax_output")


def pad(data: Tensor, pad_before: Sequence[Any], pad_after: Sequence[Any] | None = None, pad_value: float = 0.0) -> Tensor:
    """`pad_value` around the elements: so many before and after along each dimension."""
    after = list(pad_after) if pad_after is not None else list(pad_before)
    if len(pad_before) != data.ndim or len(after) != data.ndim:
        fail(f"topi.nn.pad: {data.name} has {data.ndim} dimension(s), the padding {len(pad_before)}")
    shape = [d + b + a for d, b, a in zip(data.shape, pad_before, after, strict=True)]

    def element(*i: Expr) -> Expr:
        index, inside = [], []
        for v, d, b, a in zip(i, data.shape, pad_before, after, strict=True):
            index.append(v - b)
            if not (isinstance(b, int) and b == 0):
                inside.append(v >= b)
            if not (isinstance(a, int) and a == 0):
                inside.append(v < d + b)
        value = data(*index)
        return te.if_then_else(te.all_of(*inside), value, te.const(pad_value, value.dtype)) if inside else value

    return compute(shape, element, "pad_temp", PADDED)


def _pair(value: Any) -> tuple[Any, Any]:
    return (value, value) if isinstance(value, int) else tuple(value)


def padding_of(padding: Any, kernel: tuple[Any, Any]) -> tuple[Any, Any, Any, Any]:
    """(top, left, bottom, right) from a number, a pair, four numbers, "VALID", or "SAME" (at stride 1) of a window."""
    if padding == "VALID":
        return 0, 0, 0, 0
    if padding == "SAME":
        h, w = kernel[0] - 1, kernel[1] - 1
        return (h + 1) // 2, (w + 1) // 2, h // 2, w // 2
    if isinstance(padding, int):
        return (padding,) * 4
    sizes = tuple(padding)
    if len(sizes) == 2:
        return (*sizes, *sizes)
    if len(sizes) != 4:
        fail(f"padding is a number, a pair, four numbers, 'VALID' or 'SAME', not {padding!r}")
    return sizes


def conv2d_nchw(
    data: Tensor, kernel: Tensor, stride: Any, padding: Any, dilation: Any = 1, out_dtype: str | None = None
) -> Tensor:
    """Convolution of (batch, channels, height, width) by (filters, channels, height, width).

    Args:
        padding: see `padding_of`.
        out_dtype: the type to sum in and to return; that of the data without it.
    """
    if data.ndim != 4 or kernel.ndim != 4:
        fail(f"topi.nn.conv2d_nchw: data and kernel have 4 dimensions, not {data.ndim} and {kernel.ndim}")
    (sh, sw), (dh, dw) = _pair(stride), _pair(dilation)
    batch, channels, height, width = data.shape
    filters, depth, kh, kw = kernel.shape
    if isinstance(channels, int) and isinstance(depth, int) and channels != depth:
        fail(f"topi.nn.conv2d_nchw: the data have {channels} channels, the kernel {depth}")
    window = ((kh - 1) * dh + 1, (kw - 1) * dw + 1)
    top, left, bottom, right = padding_of(padding, window)
    padded = pad(data, (0, 0, top, left), (0, 0, bottom, right))
    out_h = (height + top + bottom - window[0]) // sh + 1
    out_w = (width + left + right - window[1]) // sw + 1
    rc, ry, rx = te.reduce_axis(channels, "rc"), te.reduce_axis(kh, "ry"), te.reduce_axis(kw, "rx")
    to = as_dtype(out_dtype or data.dtype)

    def element(n: Expr, f: Expr, y: Expr, x: Expr) -> Any:
        value = cast(to, padded(n, rc, y * sh + ry * dh, x * sw + rx * dw)) * cast(to, kernel(f, rc, ry, rx))
        return te.sum(value, axis=[rc, ry, rx])

    return compute((batch, filters, out_h, out_w), element, "compute", "conv2d_nchw")


def conv2d(
    input: Tensor,
    filter: Tensor,
    strides: Any,
    padding: Any,
    dilation: Any,
    data_layout: str = "NCHW",
    kernel_layout: str = "",
    out_dtype: str | None = None,
) -> Tensor:
    """Convolution; the layout is NCHW."""
    if data_layout != "NCHW" or kernel_layout not in ("", "OIHW"):
        fail(f"topi.nn.conv2d: layouts {data_layout!r} and {kernel_layout!r}; there are 'NCHW' and 'OIHW'")
    return conv2d_nchw(input, filter, strides, padding, dilation, out_dtype)


def dense(data: Tensor, weight: Tensor, bias: Tensor | None = None, out_dtype: str | None = None) -> Tensor:
    """`data @ weight.T`, plus the bias."""
    if data.ndim != 2 or weight.ndim != 2:
        fail(f"topi.nn.dense: data and weight are matrices; they have {data.ndim} and {weight.ndim} dimension(s)")
    k = te.reduce_axis(data.shape[1], "k")
    to = as_dtype(out_dtype or data.dtype)
    shape = (data.shape[0], weight.shape[0])
    out = compute(shape, lambda i, j: te.sum(cast(to, data(i, k)) * cast(to, weight(j, k)), axis=k), "T_dense", "dense")
    if bias is None:
        return out
    return compute(shape, lambda i, j: out(i, j) + cast(to, bias(j)), "T_bias", "broadcast")


def batch_matmul(x: Tensor, y: Tensor, transpose_a: bool = False, transpose_b: bool = True) -> Tensor:
    """A product of matrices for each in the batch; `y` is transposed unless `transpose_b` is False."""
    if x.ndim != 3 or y.ndim != 3:
        fail(f"topi.nn.batch_matmul: the operands have 3 dimensions, not {x.ndim} and {y.ndim}")
    k = te.reduce_axis(x.shape[1 if transpose_a else 2], "k")
    shape = (x.shape[0], x.shape[2 if transpose_a else 1], y.shape[1 if transpose_b else 2])

    def element(b: Expr, i: Expr, j: Expr) -> Any:
        left = x(b, k, i) if transpose_a else x(b, i, k)
        return te.sum(left * (y(b, j, k) if transpose_b else y(b, k, j)), axis=k)

    return compute(shape, element, "T_batch_matmul", "batch_matmul")


def bias_add(data: Tensor, bias: Tensor, axis: int = 1) -> Tensor:
    """One number added to each slice along `axis`."""
    at = normal_axis(axis, data.ndim)
    return compute(data.shape, lambda *i: data(*i) + bias(i[at]), "T_bias_add", "broadcast")


def flatten(data: Tensor) -> Tensor:
    """All dimensions but the first as one."""
    rest: Any = 1
    for d in data.shape[1:]:
        rest = rest * d
    return reshape(data, (data.shape[0], rest))
