"""Sliding windows: what convolutions and pools share. Spatial attributes are per spatial axis; `pads` are begins, then ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tensorlang.graph.ops.common import canonical, require
from tensorlang.ir.expr import Expr, ExprLike, floordiv, maximum, minimum, wrap

LAYOUTS = ("NCHW", "NHWC")  # named after images; 1-D and 3-D data alike: channels second, or last


@dataclass(frozen=True)
class Layout:
    """Where batch, channels and spatial axes of a tensor of `ndim` dimensions are."""

    ndim: int
    last: bool

    @classmethod
    def of(cls, name: str, ndim: int) -> Layout:
        require(name in LAYOUTS, f"unknown layout {name!r}, expected one of {', '.join(LAYOUTS)}")
        require(ndim >= 3, f"a windowed operator takes batch, channels and spatial dimensions, not {ndim} dimension(s)")
        return cls(ndim, name == "NHWC")

    @property
    def channel(self) -> int:
        return self.ndim - 1 if self.last else 1

    @property
    def spatial(self) -> tuple[int, ...]:
        return tuple(range(1, self.ndim - 1)) if self.last else tuple(range(2, self.ndim))

    def index(self, n: ExprLike, c: ExprLike, spatial: Sequence[ExprLike]) -> tuple[ExprLike, ...]:
        return (n, *spatial, c) if self.last else (n, c, *spatial)

    def split(self, index: Sequence[Expr]) -> tuple[Expr, Expr, tuple[Expr, ...]]:
        """(n, c, spatial) of an index."""
        return index[0], index[self.channel], tuple(index[a] for a in self.spatial)

    def full(self, spatial: Sequence[ExprLike], rest: ExprLike = 0) -> tuple[ExprLike, ...]:
        """One value per dimension: `spatial` ones, and `rest` for batch and channels."""
        return self.index(rest, rest, spatial)


def window_size(kernel: int, dilation: int) -> int:
    """How far a dilated window reaches."""
    return (kernel - 1) * dilation + 1


def output_size(
    size: ExprLike, begin: ExprLike, end: ExprLike, kernel: int, stride: int, dilation: int, ceil_mode: bool = False
) -> Expr:
    """How many windows fit; with `ceil_mode` the last may stick out, but must begin inside the input or its begin pad."""
    room = wrap(size) + begin + end - window_size(kernel, dilation)
    if not ceil_mode:
        return canonical(floordiv(room, stride) + 1)
    count = canonical(floordiv(room + (stride - 1), stride) + 1)
    if stride == 1:
        return count
    # drop a last window that would begin in the end pad: (count - 1) * stride >= size + begin
    limit = canonical(floordiv(wrap(size) + begin - 1, stride) + 1)
    if count.op == "const" and limit.op == "const":
        return wrap(min(count.value, limit.value))
    return canonical(minimum(count, limit))


def pool_size(
    size: ExprLike, begin: ExprLike, end: ExprLike, kernel: int, stride: int, dilation: int, ceil_mode: bool = False
) -> Expr:
    """As `output_size`, but a known size is rounded towards 0: a window wider than the image by less than a stride is one."""
    count = output_size(size, begin, end, kernel, stride, dilation, ceil_mode)
    return wrap(max(count.value, _fewest(size, begin, end, kernel, stride, dilation).value)) if count.op == "const" else count


def pool_constraint(
    size: ExprLike, begin: ExprLike, end: ExprLike, kernel: int, stride: int, dilation: int, ceil_mode: bool = False
) -> list[tuple[Expr, Expr]]:
    """What must hold for `pool_size` of an open size to be right."""
    count = output_size(size, begin, end, kernel, stride, dilation, ceil_mode)
    if count.op == "const" or always_fits(begin, end, kernel, dilation):
        return []
    return [(count, canonical(maximum(count, _fewest(size, begin, end, kernel, stride, dilation))))]


def _fewest(size: ExprLike, begin: ExprLike, end: ExprLike, kernel: int, stride: int, dilation: int) -> Expr:
    """The number of windows, rounded towards 0, where that is 0 or 1; else 1."""
    room = wrap(size) + begin + end - window_size(kernel, dilation)
    return canonical(maximum(minimum(floordiv(room + (stride - 1), stride) + 1, 1), 0))


def always_fits(begin: ExprLike, end: ExprLike, kernel: int, dilation: int) -> bool:
    """Whether a window lies within any padded image that is not empty."""
    pads = canonical(wrap(begin) + end)
    return pads.op == "const" and bool(pads.value + 1 >= window_size(kernel, dilation))


def windows(
    x: np.ndarray, axes: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> np.ndarray:
    """Every window of padded `x` as a view: the dimensions of x with `axes` counting windows, then the kernel's dimensions."""
    reach = [window_size(k, d) for k, d in zip(kernel, dilations, strict=True)]
    view = np.lib.stride_tricks.sliding_window_view(x, reach, axis=tuple(axes))
    picks: list[slice] = [slice(None)] * view.ndim
    for position, axis in enumerate(axes):
        picks[axis] = slice(None, None, strides[position])
        picks[x.ndim + position] = slice(None, None, dilations[position])
    return view[tuple(picks)]
