"""Convolutions of any number of spatial dimensions, channels second ("NCHW") or last ("NHWC").

Weights: NCHW takes OIHW (transposed: IOHW); NHWC takes HWIO, or HWC where every channel has one filter of its own (depthwise).
Stages: "pad" (only if there is padding), "conv" (the sums), then the bias under the operator's name.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tensorlang import te
from tensorlang.errors import TypeCheckError
from tensorlang.graph.ir import TensorType
from tensorlang.graph.ops.common import canonical, known_size, plain, product_type, require, wide
from tensorlang.graph.ops.shape import pad_stage
from tensorlang.graph.ops.windows import Layout, always_fits, output_size, windows
from tensorlang.graph.registry import CONTRACTION, Op, as_ints, op
from tensorlang.ir.dtype import DType, dtype as dtype_of
from tensorlang.ir.expr import Expr, ExprLike, eq, floordiv, floormod, wrap

Ints = Sequence[int]


def _is_depthwise(x_ndim: int, w_ndim: int, layout: str) -> bool:
    return layout == "NHWC" and w_ndim == x_ndim - 1


def _kernel_shape(w: Sequence[int], x_ndim: int, layout: str) -> tuple[int, ...]:
    return tuple(w[: x_ndim - 2]) if layout == "NHWC" else tuple(w[2:])


def _weight_shape(x: TensorType, w: TensorType, what: str) -> tuple[int, ...]:
    shape = as_ints(w.shape)
    if shape is None:
        raise TypeCheckError(f"{what}: the weight {w} has symbolic dimensions")
    mixed = what == "conv" and product_type(x.dtype, w.dtype) is not None
    require(mixed or x.dtype == w.dtype, f"{what} of {x} by {w}: the operands have one type, or are u8 and i8")
    return shape


def _check(what: str, x: TensorType, attrs: dict[str, Sequence[ExprLike]]) -> None:
    spatial = x.ndim - 2
    for name, expected in (("strides", spatial), ("dilations", spatial), ("pads", 2 * spatial)):
        require(len(attrs[name]) == expected, f"{what} of {x}: {name} has {len(attrs[name])} entries, expected {expected}")


@op("conv", CONTRACTION)
class Conv(Op):
    """x convolved with w, plus a bias per output channel if there is a third input. Of u8 by i8 the sums are i32.

    Attributes: `strides`, `dilations` per spatial axis, `pads` (begins, then ends), `group`, `layout`, and `out`: the type
    of the sums where it is not the operands' own.
    """

    def infer(
        self,
        x: TensorType,
        w: TensorType,
        b: TensorType | None = None,
        *,
        strides: Ints,
        pads: Sequence[ExprLike],
        dilations: Ints,
        group: int = 1,
        layout: str = "NCHW",
        out: str | None = None,
    ) -> list[TensorType]:
        where = Layout.of(layout, x.ndim)
        _check("conv", x, {"strides": strides, "dilations": dilations, "pads": pads})
        shape = _weight_shape(x, w, "conv")
        channels = x.shape[where.channel]
        if _is_depthwise(x.ndim, w.ndim, layout):
            out_channels, in_channels = shape[-1], 1
            require(group == out_channels, f"conv: a depthwise weight {w} with group={group}")
        else:
            require(w.ndim == x.ndim, f"conv of {x} by {w}: the ranks differ")
            out_channels, in_channels = (shape[-1], shape[-2]) if where.last else shape[:2]
        if channels.op == "const":
            require(
                channels.value == in_channels * group and out_channels % group == 0,
                f"conv of {x} by {w} with group={group}: the channels do not fit",
            )
        kernel = _kernel_shape(shape, x.ndim, layout)
        if b is not None:
            bias = as_ints(b.shape)
            require(bias == (out_channels,), f"conv: bias {b} for {out_channels} output channels")
        n = len(kernel)
        sizes = [
            output_size(x.shape[a], pads[i], pads[i + n], kernel[i], strides[i], dilations[i])
            for i, a in enumerate(where.spatial)
        ]
        for size in sizes:
            require(size.op != "const" or size.value > 0, f"conv of {x} by {w}: the kernel is larger than the padded input")
        kind = product_type(x.dtype, w.dtype, out) or x.dtype
        return [TensorType.of(kind, where.index(x.shape[0], out_channels, sizes))]

    def constraints(self, x: TensorType, w: TensorType, b: TensorType | None = None, **attrs: Any) -> list[tuple[Expr, Expr]]:
        """An image of open size that is not empty holds a window."""
        (out,) = self.infer(x, w, b, **attrs)
        layout, pads, dilations = attrs.get("layout", "NCHW"), attrs["pads"], attrs["dilations"]
        kernel, where, n = _kernel_shape(_weight_shape(x, w, "conv"), x.ndim, layout), Layout.of(layout, x.ndim), x.ndim - 2
        return [
            (out.shape[a], canonical(te.maximum(out.shape[a], te.minimum(x.shape[a], 1))))
            for i, a in enumerate(where.spatial)
            if out.shape[a].op != "const" and not always_fits(pads[i], pads[i + n], kernel[i], dilations[i])
        ]

    def te(
        self,
        x: te.Tensor,
        w: te.Tensor,
        b: te.Tensor | None = None,
        *,
        strides: Ints,
        pads: Sequence[ExprLike],
        dilations: Ints,
        group: int = 1,
        layout: str = "NCHW",
        out: str | None = None,
    ) -> te.Tensor:
        attrs = {"strides": strides, "pads": pads, "dilations": dilations, "group": group, "layout": layout, "out": out}
        (result,) = self.infer(TensorType.of(x.dtype, x.shape), TensorType.of(w.dtype, w.shape), **attrs)  # type: ignore[arg-type]
        where, n = Layout.of(layout, x.ndim), x.ndim - 2
        begins, ends = where.full(pads[:n]), where.full(pads[n:])
        padded = x if all(_zero(p) for p in pads) else pad_stage(x, begins, ends)
        weight = tuple(known_size(d) for d in w.shape)
        depthwise = _is_depthwise(x.ndim, w.ndim, layout)
        kernel = _kernel_shape(weight, x.ndim, layout)
        in_channels = 1 if depthwise else weight[-2] if where.last else weight[1]
        per_group = int(result.shape[where.channel].value) // group
        names = ("kd", "kh", "kw")[-n:] if n <= 3 else tuple(f"k{a}" for a in range(n))
        ks = [te.reduce_axis(k, name=name) for k, name in zip(kernel, names, strict=True)]
        ic = None if depthwise or in_channels == 1 else te.reduce_axis(in_channels, name="ic")

        def element(*index: Expr) -> Expr:
            batch, oc, spatial = where.split(index)
            position = [o * s + k * d for o, s, k, d in zip(spatial, strides, ks, dilations, strict=True)]
            channel: ExprLike = 0 if ic is None else ic
            if group > 1:
                first = oc if per_group == 1 else floordiv(oc, per_group)
                channel = first * in_channels + channel
            data = padded[where.index(batch, channel, position)]
            inner: ExprLike = 0 if ic is None else ic
            if depthwise:
                filters = w[(*ks, oc)]
            else:
                filters = w[(*ks, inner, oc)] if where.last else w[(oc, inner, *ks)]
            axes = [*ks, ic] if where.last else [ic, *ks]
            return te.sum(wide(data, result.dtype) * wide(filters, result.dtype), axis=[a for a in axes if a is not None])

        sums = te.compute(plain(result.shape), element, name="conv")
        return finish(sums, b, where, result.dtype, "conv_bias")

    def numpy(
        self,
        x: np.ndarray,
        w: np.ndarray,
        b: np.ndarray | None = None,
        *,
        strides: Ints,
        pads: Ints,
        dilations: Ints,
        group: int = 1,
        layout: str = "NCHW",
        out: str | None = None,
    ) -> np.ndarray:
        n = x.ndim - 2
        if out is not None:
            x, w = (a.astype(dtype_of(out).numpy) for a in (x, w))
        if layout == "NHWC":
            w = w[..., None, :] if w.ndim == x.ndim - 1 else w
            first = np.moveaxis(x, -1, 1)
            oihw = np.moveaxis(w, (-1, -2), (0, 1))
            y = self.numpy(first, oihw, b, strides=strides, pads=pads, dilations=dilations, group=group)
            return np.ascontiguousarray(np.moveaxis(y, 1, -1))
        if x.dtype != w.dtype:
            x, w = x.astype(np.int32), w.astype(np.int32)
        widths = [(0, 0), (0, 0), *zip(pads[:n], pads[n:], strict=True)]
        y = _correlate(np.pad(x, widths), w, strides, dilations, group)
        y = y if b is None else y + b.astype(y.dtype).reshape(-1, *(1,) * n)
        return y.astype(x.dtype)


def _correlate(x: np.ndarray, w: np.ndarray, strides: Ints, dilations: Ints, group: int) -> np.ndarray:
    """x (padded, channels second) with w as OIHW: windows as columns, then one matrix product per group."""
    n, kernel = x.ndim - 2, w.shape[2:]
    dtype = np.float32 if x.dtype.itemsize < 4 else x.dtype
    view = windows(x, range(2, x.ndim), kernel, strides, dilations)
    sizes = view.shape[2 : 2 + n]
    per_in, per_out = w.shape[1], w.shape[0] // group
    if per_in == 1 and per_out == 1:
        letters = "abc"[:n], "xyz"[:n]
        spec = f"nc{letters[0]}{letters[1]},c{letters[1]}->nc{letters[0]}"
        return np.einsum(spec, view, w[:, 0], dtype=dtype)
    out = np.empty((x.shape[0], w.shape[0], *sizes), dtype)
    for g in range(group):
        part = view[:, g * per_in : (g + 1) * per_in]
        columns = np.moveaxis(part, 1, 1 + n).reshape(x.shape[0], int(np.prod(sizes)), -1).astype(dtype, copy=False)
        filters = w[g * per_out : (g + 1) * per_out].reshape(per_out, -1).astype(dtype, copy=False)
        product = columns @ filters.T
        out[:, g * per_out : (g + 1) * per_out] = np.moveaxis(product, 1, 2).reshape(x.shape[0], per_out, *sizes)
    return out


def finish(sums: te.Tensor, b: te.Tensor | None, where: Layout, kind: DType, name: str) -> te.Tensor:
    """The bias, and the return from the accumulation type to `kind`."""
    if b is None and sums.dtype == kind:
        return sums

    def element(*i: Expr) -> Expr:
        value = sums[i] if b is None else sums[i] + wide(b[i[where.channel]])
        return te.cast(kind, value)

    return te.compute(sums.shape, element, name=name)


@op("conv_transpose", CONTRACTION)
class ConvTranspose(Op):
    """The gradient of `conv` in its input: x spread by `strides`, convolved with the mirrored w, cropped by `pads`.

    w is [in, out / group, kernel...] ("NCHW") or [kernel..., in, out / group] ("NHWC").
    """

    def infer(
        self,
        x: TensorType,
        w: TensorType,
        b: TensorType | None = None,
        *,
        strides: Ints,
        pads: Sequence[ExprLike],
        dilations: Ints,
        output_padding: Ints,
        group: int = 1,
        layout: str = "NCHW",
    ) -> list[TensorType]:
        where = Layout.of(layout, x.ndim)
        _check("conv_transpose", x, {"strides": strides, "dilations": dilations, "pads": pads})
        shape = _weight_shape(x, w, "conv_transpose")
        require(w.ndim == x.ndim, f"conv_transpose of {x} by {w}: the ranks differ")
        in_channels, per_group = (shape[-2], shape[-1]) if where.last else shape[:2]
        channels = x.shape[where.channel]
        require(channels.op != "const" or channels.value == in_channels, f"conv_transpose of {x} by {w}: channels differ")
        kernel, n = _kernel_shape(shape, x.ndim, layout), x.ndim - 2
        sizes = [
            canonical(
                (x.shape[a] - 1) * strides[i] + output_padding[i] + (kernel[i] - 1) * dilations[i] + 1
                - wrap(pads[i]) - pads[i + n]
            )
            for i, a in enumerate(where.spatial)
        ]  # fmt: skip
        return [TensorType.of(x.dtype, where.index(x.shape[0], per_group * group, sizes))]

    def te(
        self,
        x: te.Tensor,
        w: te.Tensor,
        b: te.Tensor | None = None,
        *,
        strides: Ints,
        pads: Sequence[ExprLike],
        dilations: Ints,
        output_padding: Ints,
        group: int = 1,
        layout: str = "NCHW",
    ) -> te.Tensor:
        attrs = {
            "strides": strides, "pads": pads, "dilations": dilations, "output_padding": output_padding,
            "group": group, "layout": layout,
        }  # fmt: skip
        (out,) = self.infer(TensorType.of(x.dtype, x.shape), TensorType.of(w.dtype, w.shape), **attrs)  # type: ignore[arg-type]
        where = Layout.of(layout, x.ndim)
        weight = tuple(known_size(d) for d in w.shape)
        kernel = _kernel_shape(weight, x.ndim, layout)
        in_channels = (weight[-2] if where.last else weight[0]) // group
        per_group = int(out.shape[where.channel].value) // group
        ks = [te.reduce_axis(k, name=f"k{a}") for a, k in enumerate(kernel)]
        ic = te.reduce_axis(in_channels, name="ic")
        inputs = [x.shape[a] for a in where.spatial]

        def element(*index: Expr) -> Expr:
            batch, oc, spatial = where.split(index)
            inside, position = [], []
            for o, s, k, d, p, size in zip(spatial, strides, ks, dilations, pads, inputs, strict=False):
                reach = o + p - k * d  # = input position * stride, where some input contributes
                inside += [reach >= 0, reach < wrap(size) * s] + ([eq(floormod(reach, s), 0)] if s > 1 else [])
                position.append(floordiv(reach, s))
            channel: ExprLike = ic if group == 1 else floordiv(oc, per_group) * in_channels + ic
            filter_ = oc if group == 1 else floormod(oc, per_group)
            data = te.if_then_else(te.all_of(*inside), x[where.index(batch, channel, position)], te.const(0, x.dtype))
            factor = w[(*ks, channel, filter_)] if where.last else w[(channel, filter_, *ks)]
            return te.sum(wide(data) * wide(factor), axis=[*ks, ic] if where.last else [ic, *ks])

        sums = te.compute(plain(out.shape), element, name="conv_transpose")
        return finish(sums, b, where, x.dtype, "conv_transpose_bias")

    def numpy(
        self,
        x: np.ndarray,
        w: np.ndarray,
        b: np.ndarray | None = None,
        *,
        strides: Ints,
        pads: Ints,
        dilations: Ints,
        output_padding: Ints,
        group: int = 1,
        layout: str = "NCHW",
    ) -> np.ndarray:
        n = x.ndim - 2
        if layout == "NHWC":
            y = self.numpy(
                np.moveaxis(x, -1, 1), np.moveaxis(w, (-2, -1), (0, 1)), b, strides=strides, pads=pads,
                dilations=dilations, output_padding=output_padding, group=group,
            )  # fmt: skip
            return np.ascontiguousarray(np.moveaxis(y, 1, -1))
        kernel, (in_channels, per_group) = w.shape[2:], w.shape[:2]
        reach = [(k - 1) * d for k, d in zip(kernel, dilations, strict=True)]
        spread_size = [(size - 1) * s + 1 for size, s in zip(x.shape[2:], strides, strict=True)]
        spread = np.zeros((*x.shape[:2], *spread_size), np.float32 if x.dtype.itemsize < 4 else x.dtype)
        spread[(slice(None), slice(None), *(slice(None, None, s) for s in strides))] = x
        borders = zip(reach, pads[:n], pads[n:], output_padding, strict=True)
        widths = [(r - begin, r - end + extra) for r, begin, end, extra in borders]
        crop = tuple(slice(max(0, -b_), size - max(0, -e)) for (b_, e), size in zip(widths, spread_size, strict=True))
        spread = np.pad(
            spread[(slice(None), slice(None), *crop)], [(0, 0), (0, 0), *((max(0, p), max(0, q)) for p, q in widths)]
        )
        mirrored = w[(slice(None), slice(None), *(slice(None, None, -1) for _ in kernel))]
        grouped = mirrored.reshape(group, in_channels // group, per_group, *kernel)
        oihw = np.moveaxis(grouped, 2, 1).reshape(group * per_group, in_channels // group, *kernel)
        y = _correlate(spread, oihw, (1,) * n, dilations, group)
        y = y if b is None else y + b.astype(y.dtype).reshape(-1, *(1,) * n)
        return y.astype(x.dtype)


def _zero(p: ExprLike) -> bool:
    return (p.op == "const" and p.value == 0) if isinstance(p, Expr) else p == 0
