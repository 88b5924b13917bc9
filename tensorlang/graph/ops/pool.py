"""Pooling over windows. A window that sticks out or reaches into the padding sees only what is there.

Windows stick out at the end with `ceil_mode`; without it, one that is wider than the padded image by less than a stride does,
since the standard's sizes are rounded towards 0. Images of open size that are so small are refused at run time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tensorlang import te
from tensorlang.graph.ir import TensorType
from tensorlang.graph.ops.common import canonical, plain, require, wide
from tensorlang.graph.ops.shape import pad_stage
from tensorlang.graph.ops.windows import Layout, pool_constraint, pool_size, window_size, windows
from tensorlang.graph.registry import REDUCTION, Op, op
from tensorlang.ir.dtype import DType
from tensorlang.ir.expr import Expr, ExprLike, floordiv, maximum, minimum, wrap

Ints = Sequence[int]


class Pool(Op):
    """Attributes: `kernel`, `strides`, `dilations` per spatial axis, `pads` (begins, then ends), `ceil_mode`, `layout`."""

    def infer(
        self,
        x: TensorType,
        *,
        kernel: Ints,
        strides: Ints,
        pads: Sequence[ExprLike],
        dilations: Ints,
        ceil_mode: bool = False,
        layout: str = "NCHW",
        **other: Any,
    ) -> list[TensorType]:
        n = x.ndim - 2
        require(
            len(kernel) == len(strides) == len(dilations) == n and len(pads) == 2 * n,
            f"{self.name} of {x}: kernel, strides and dilations have {n} entries, pads {2 * n}",
        )
        where = Layout.of(layout, x.ndim)
        sizes = [pool_size(*p, ceil_mode) for p in _placements(x, kernel, strides, pads, dilations, where)]
        return [TensorType.of(x.dtype, where.index(x.shape[0], x.shape[where.channel], sizes))]

    def constraints(
        self,
        x: TensorType,
        *,
        kernel: Ints,
        strides: Ints,
        pads: Sequence[ExprLike],
        dilations: Ints,
        ceil_mode: bool = False,
        layout: str = "NCHW",
        **other: Any,
    ) -> list[tuple[Expr, Expr]]:
        found = _placements(x, kernel, strides, pads, dilations, Layout.of(layout, x.ndim))
        return [pair for placement in found for pair in pool_constraint(*placement, ceil_mode)]

    def sums(self, x: te.Tensor, reducer: Any, fill: ExprLike, before: Any, attrs: dict[str, Any]) -> te.Tensor:
        """The stages "pad" (if any window leaves the input) and `self.name`: the reduction of every window."""
        kernel, strides, pads, dilations = (attrs[k] for k in ("kernel", "strides", "pads", "dilations"))
        (out,) = self.infer(TensorType.of(x.dtype, x.shape), **attrs)
        where, n = Layout.of(attrs.get("layout", "NCHW"), x.ndim), x.ndim - 2
        ends = list(pads[n:])
        for i, a in enumerate(where.spatial):
            if attrs.get("ceil_mode") or sticks_out(x.shape[a], pads[i], pads[i + n], kernel[i], dilations[i]):
                # enough for the last window
                last = (out.shape[a] - 1) * strides[i] + window_size(kernel[i], dilations[i])
                ends[i] = canonical(maximum(last - x.shape[a] - pads[i], ends[i]))
        borders = [*pads[:n], *ends]
        padded = x
        if not all(canonical(p) is wrap(0) for p in borders):
            padded = pad_stage(x, where.full(pads[:n]), where.full(ends), fill)  # type: ignore[arg-type]
        ks = [te.reduce_axis(k, name=f"k{'dhw'[a - n] if n <= 3 else a}") for a, k in enumerate(kernel)]

        def element(*index: Expr) -> Expr:
            batch, channel, spatial = where.split(index)
            position = [o * s + k * d for o, s, k, d in zip(spatial, strides, ks, dilations, strict=True)]
            return reducer(before(padded[where.index(batch, channel, position)]), axis=ks)

        return te.compute(plain(out.shape), element, name=self.name)

    def views(self, x: np.ndarray, fill: Any, attrs: dict[str, Any]) -> tuple[np.ndarray, tuple[int, ...], Layout]:
        """All windows of the padded input, the axes of their elements, and the layout."""
        kernel, strides, pads, dilations = (attrs[k] for k in ("kernel", "strides", "pads", "dilations"))
        (out,) = self.infer(TensorType.of(x.dtype, x.shape), **attrs)
        where, n = Layout.of(attrs.get("layout", "NCHW"), x.ndim), x.ndim - 2
        widths = [(0, 0)] * x.ndim
        for i, a in enumerate(where.spatial):
            last = (out.static_shape[a] - 1) * strides[i] + window_size(kernel[i], dilations[i])
            widths[a] = (pads[i], max(pads[i + n], last - x.shape[a] - pads[i]))
        padded = np.pad(x, widths, constant_values=fill)
        view = windows(padded, where.spatial, kernel, strides, dilations)
        crop = tuple(slice(0, size) for size in out.static_shape)
        return view[crop], tuple(range(x.ndim, view.ndim)), where


def _placements(
    x: TensorType, kernel: Ints, strides: Ints, pads: Sequence[ExprLike], dilations: Ints, where: Layout
) -> list[tuple[ExprLike, ExprLike, ExprLike, int, int, int]]:
    """(size, begin pad, end pad, kernel, stride, dilation) of every spatial axis."""
    n, sizes = len(kernel), [x.shape[a] for a in where.spatial]
    return list(zip(sizes, pads[:n], pads[n:], kernel, strides, dilations, strict=True))


def sticks_out(size: ExprLike, begin: ExprLike, end: ExprLike, kernel: int, dilation: int) -> bool:
    """Whether a window is known to be wider than the padded image."""
    room = canonical(wrap(size) + begin + end - window_size(kernel, dilation))
    return room.op == "const" and bool(room.value < 0)


def lowest(dtype: DType) -> Any:
    """The smallest value of `dtype`, as a Python number."""
    return float("-inf") if dtype.is_float else int(np.iinfo(dtype.numpy).min)


@op("max_pool", REDUCTION)
class MaxPool(Pool):
    """The largest element of every window."""

    def te(self, x: te.Tensor, **attrs: Any) -> te.Tensor:
        return self.sums(x, te.max, lowest(x.dtype), lambda e: e, attrs)

    def numpy(self, x: np.ndarray, **attrs: Any) -> np.ndarray:
        (kind,) = self.infer(TensorType.of(x.dtype, x.shape), **attrs)
        view, axes, _ = self.views(x, lowest(kind.dtype), attrs)
        return view.max(axis=axes)


@op("avg_pool", REDUCTION)
class AvgPool(Pool):
    """The mean of every window; `count_include_pad` counts padding as zeros, but never what sticks out beyond it."""

    def te(self, x: te.Tensor, *, count_include_pad: bool = False, **attrs: Any) -> te.Tensor:
        kernel, strides, pads, dilations = (attrs[k] for k in ("kernel", "strides", "pads", "dilations"))
        where, n = Layout.of(attrs.get("layout", "NCHW"), x.ndim), x.ndim - 2
        # summed under a stage name of its own: the mean is the operator's result
        total = self.sums(x, te.sum, 0, wide, attrs)

        def count(spatial: Sequence[Expr]) -> ExprLike:
            """Positions of the window at `spatial` that count."""
            number: ExprLike = 1
            for i, a in enumerate(where.spatial):
                low = wrap(pads[i]) * (-1 if count_include_pad else 0)
                high = wrap(x.shape[a]) + (pads[i + n] if count_include_pad else 0)
                begin = spatial[i] * strides[i] - pads[i]
                whole = canonical(wrap(pads[i])) is wrap(0) and canonical(wrap(pads[i + n])) is wrap(0)
                inside = whole and not sticks_out(x.shape[a], 0, 0, kernel[i], dilations[i])
                if not attrs.get("ceil_mode") and (inside or count_include_pad):
                    number = number * kernel[i]
                    continue
                d = dilations[i]
                # first and one past the last k with low <= begin + k * d < high
                first = maximum(floordiv(low - begin + (d - 1), d), 0)
                stop = minimum(floordiv(high - begin + (d - 1), d), kernel[i])
                number = number * maximum(stop - first, 1)
            return number

        def element(*index: Expr) -> Expr:
            number = count(where.split(index)[2])
            factor = te.const(float(number), total.dtype) if isinstance(number, int) else te.cast(total.dtype, number)
            return te.cast(x.dtype, total[index] / factor)

        return te.compute(total.shape, element, name="avg_pool_mean")

    def numpy(self, x: np.ndarray, *, count_include_pad: bool = False, **attrs: Any) -> np.ndarray:
        view, axes, where = self.views(x.astype(np.float64), 0, attrs)
        n = x.ndim - 2
        pads = attrs["pads"]
        shape = [1] * x.ndim
        for a in where.spatial:
            shape[a] = x.shape[a]
        counted = np.ones(shape)
        if count_include_pad:
            widths = [(0, 0)] * x.ndim
            for i, a in enumerate(where.spatial):
                widths[a] = (pads[i], pads[i + n])
            inner = dict(attrs, pads=(0,) * (2 * n))
            padded = np.pad(counted, widths, constant_values=1)
            # the same windows over the padded size: no further pads, the rest sticks out
            seen = self.views(padded, 0, inner)[0]
        else:
            seen = self.views(counted, 0, attrs)[0]
        number = seen.sum(axis=tuple(range(x.ndim, seen.ndim)))
        if count_include_pad and not attrs.get("ceil_mode"):
            number = np.full_like(number, np.prod(attrs["kernel"]))
        number = number[tuple(slice(0, s) for s in view.shape[: x.ndim])]
        return (view.sum(axis=axes) / np.maximum(number, 1)).astype(x.dtype)


@op("lp_pool", REDUCTION)
class LpPool(Pool):
    """(sum of |x|^p)^(1/p) over every window; padding counts as zero."""

    def te(self, x: te.Tensor, *, p: int = 2, **attrs: Any) -> te.Tensor:
        total = self.sums(x, te.sum, 0, lambda e: _power(te.abs(wide(e)), p), attrs)
        root = te.const(1 / p, total.dtype)

        def element(*i: Expr) -> Expr:
            value = total[i] if p == 1 else te.sqrt(total[i]) if p == 2 else te.pow(total[i], root)
            return te.cast(x.dtype, value)

        return te.compute(total.shape, element, name="lp_pool_root")

    def numpy(self, x: np.ndarray, *, p: int = 2, **attrs: Any) -> np.ndarray:
        view, axes, _ = self.views(x.astype(np.float64), 0, attrs)
        return ((np.abs(view) ** p).sum(axis=axes) ** (1 / p)).astype(x.dtype)


def _power(e: Expr, p: int) -> Expr:
    result = e
    for _ in range(p - 1):
        result = result * e
    return result
