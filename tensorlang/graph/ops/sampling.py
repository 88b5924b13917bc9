"""Sampling at computed positions: grid_sample, roi_align, and the columns of a deformable convolution.

Positions are kept in a stage of their own, since every channel shares them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product as cartesian
from typing import Any

import numpy as np

from tensorlang import te
from tensorlang.graph.ir import TensorType
from tensorlang.graph.ops.common import known_size, plain, require, wide
from tensorlang.graph.ops.shape import pad_stage
from tensorlang.graph.registry import OPAQUE, Op, op
from tensorlang.ir.expr import Expr, ExprLike, cast, const, wrap

CUBIC_A = -0.75  # of the cubic convolution kernel (Keys 1981), as ONNX fixes it for grid_sample


def _float(e: ExprLike, like: Expr) -> Expr:
    return const(float(e), like.dtype) if isinstance(e, int | float) else cast(like.dtype, wrap(e))


def _reflected(p: Expr, low: Expr, high: Expr) -> Expr:
    """p mirrored at `low` and `high`, any number of times. Without conditions: those around loads would repeat the loads."""
    period = te.maximum((high - low) * const(2.0, p.dtype), const(1.0, p.dtype))
    along = p - low - te.floor((p - low) / period) * period
    return low + te.minimum(along, te.maximum(period - along, const(0.0, p.dtype)))


def _cubic(t: Expr) -> list[Expr]:
    """Weights of the neighbours at -1, 0, 1 and 2 for the fraction t in [0, 1)."""
    a = CUBIC_A

    def c(v: float) -> Expr:
        return const(v, t.dtype)

    def near(d: Expr) -> Expr:
        return ((c(a + 2) * d - c(a + 3)) * d) * d + c(1.0)

    def far(d: Expr) -> Expr:
        return ((c(a) * d - c(5 * a)) * d + c(8 * a)) * d - c(4 * a)

    return [far(t + c(1.0)), near(t), near(c(1.0) - t), far(c(2.0) - t)]


def _sum(terms: Sequence[Expr]) -> Expr:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def _interpolated(
    read: Callable[[Sequence[Expr]], Expr], taps: Sequence[Sequence[tuple[Expr, Expr]]]
) -> Expr:
    """The sum over all combinations of (position, weight) per dimension of read(positions) times the weights."""
    terms = []
    for combination in cartesian(*taps):
        value = read([position for position, _ in combination])
        for _, weight in combination:
            value = value * weight
        terms.append(value)
    return _sum(terms)


def _held(j: Expr, size: Expr) -> Expr:
    return te.maximum(te.minimum(j, size - 1), 0)


@op("grid_sample", OPAQUE)
class GridSample(Op):
    """x[n, c] read at grid[n, o..., :], positions in [-1, 1] per spatial dimension, the last dimension first.

    mode: "nearest", "linear" or "cubic"; outside: "zeros", "border" or "reflection". `align_corners`: -1 and 1 are the
    centres of the outermost elements, else their outer edges.
    """

    def infer(
        self, x: TensorType, grid: TensorType, *, mode: str, outside: str, align_corners: bool
    ) -> list[TensorType]:
        require(x.ndim >= 3 and grid.ndim == x.ndim, f"grid_sample of {x} at {grid}: ranks differ, or no spatial dimension")
        depth = grid.shape[-1]
        require(depth.op == "const" and depth.value == x.ndim - 2, f"grid_sample of {x} at {grid}: a coordinate per dimension")
        require(x.dtype.is_float and grid.dtype.is_float, f"grid_sample of {x} at {grid}: floating point")
        require(mode in ("nearest", "linear", "cubic"), f"grid_sample: unknown mode {mode!r}")
        require(outside in ("zeros", "border", "reflection"), f"grid_sample: unknown padding mode {outside!r}")
        return [TensorType(x.dtype, (x.shape[0], x.shape[1], *grid.shape[1:-1]))]

    def te(self, x: te.Tensor, grid: te.Tensor, *, mode: str, outside: str, align_corners: bool) -> te.Tensor:
        sizes, n = x.shape[2:], x.ndim - 2

        def position(*i: Expr) -> Expr:
            """Of output i[:-1] along spatial dimension i[-1]."""
            lanes = []
            for d, size in enumerate(sizes):
                g = wide(grid[(*i[:-1], n - 1 - d)])
                extent, one, half = _float(size, g), const(1.0, g.dtype), const(0.5, g.dtype)
                p = (g + one) * half * (extent - one) if align_corners else ((g + one) * extent - one) * half
                p = te.round(p) if mode == "nearest" else p
                low, high = (const(0.0, g.dtype), extent - one) if align_corners else (-half, extent - half)
                if outside == "border":
                    held = te.maximum(te.minimum(p, extent - one), const(0.0, g.dtype))
                    # only a cubic kernel sees a difference within half an element of the border
                    p = held if mode != "cubic" else te.select(te.all_of(p >= low, p <= high), p, held)
                elif outside == "reflection":
                    p = _reflected(p, low, high)
                # far positions are all the same: outside by more than any kernel reaches
                lanes.append(te.maximum(te.minimum(p, extent + const(8.0, g.dtype)), const(-8.0, g.dtype)))
            value = lanes[-1]
            for d in reversed(range(n - 1)):
                value = te.select(te.equal(i[-1], d), lanes[d], value)
            return value

        border = int(outside == "zeros")  # a border of zeros, so that no read needs a condition
        source = pad_stage(x, (0, 0, *(border,) * n), (0, 0, *(border,) * n)) if border else x
        positions = te.compute((x.shape[0], *grid.shape[1:-1], n), position, name="positions")

        def element(*i: Expr) -> Expr:
            def read(index: Sequence[Expr]) -> Expr:
                """An element at a whole position that may be outside."""
                held = []
                for j, size in zip(index, sizes, strict=True):
                    if outside == "reflection":
                        j = _mirrored(j, size, align_corners)
                    held.append(_held(j + border, wrap(size) + 2 * border))
                return wide(source[(i[0], i[1], *held)])

            taps: list[list[tuple[Expr, Expr]]] = []
            for d in range(n):
                p = positions[(i[0], *i[2:], d)]
                if mode == "nearest":
                    taps.append([(cast("i64", p), const(1.0, p.dtype))])
                    continue
                low = te.floor(p)
                t, j = p - low, cast("i64", low)
                if mode == "linear":
                    taps.append([(j, const(1.0, t.dtype) - t), (j + 1, t)])
                else:
                    taps.append([(j + k - 1, w) for k, w in enumerate(_cubic(t))])
            if mode == "nearest":
                return cast(x.dtype, read([tap[0][0] for tap in taps]))
            return cast(x.dtype, _interpolated(read, taps))

        return te.compute((x.shape[0], x.shape[1], *grid.shape[1:-1]), element, name="grid_sample")

    def numpy(
        self, x: np.ndarray, grid: np.ndarray, *, mode: str, outside: str, align_corners: bool
    ) -> np.ndarray:
        sizes, n = x.shape[2:], x.ndim - 2
        g = np.flip(grid.astype(np.float64), -1)
        extent = np.array(sizes, np.float64)
        p = (g + 1) / 2 * (extent - 1) if align_corners else ((g + 1) * extent - 1) / 2
        p = np.round(p) if mode == "nearest" else p
        low, high = (np.zeros(n), extent - 1) if align_corners else (np.full(n, -0.5), extent - 0.5)
        if outside == "border":
            p = np.where(p < low, 0, np.where(p > high, extent - 1, p))
        elif outside == "reflection":
            p = _np_reflected(p, low, high)
        p = np.clip(p, -8.0, extent + 8)
        whole = np.floor(p)
        t = p - whole
        base = whole.astype(np.int64)
        taps: list[list[tuple[Any, Any]]]
        if mode == "nearest":
            taps = [[(base[..., d], 1.0)] for d in range(n)]
        elif mode == "linear":
            taps = [[(base[..., d], 1 - t[..., d]), (base[..., d] + 1, t[..., d])] for d in range(n)]
        else:
            taps = [[(base[..., d] + k - 1, _np_cubic(t[..., d], k)) for k in range(4)] for d in range(n)]
        batch = np.arange(x.shape[0]).reshape(-1, *(1,) * n)
        total = 0.0
        for combination in cartesian(*taps):
            index, weight, inside = [], 1.0, True
            for (j, w), size, lo, hi in zip(combination, sizes, low, high, strict=True):
                if outside == "reflection":
                    j = np.trunc(_np_reflected(j.astype(np.float64), lo, hi)).astype(np.int64)
                elif outside == "zeros":
                    inside = inside & (j >= 0) & (j < size)
                index.append(np.clip(j, 0, size - 1))
                weight = weight * w
            value = np.moveaxis(x, 1, -1)[(batch, *index)].astype(np.float64)
            total = total + value * np.asarray(weight * inside)[..., None]
        return np.moveaxis(np.asarray(total), -1, 1).astype(x.dtype)


def _mirrored(j: Expr, size: ExprLike, align_corners: bool) -> Expr:
    """A whole position mirrored into [0, size): about the outermost elements, or about their outer edges."""
    n = wrap(size)
    if align_corners:
        period = te.maximum(2 * (n - 1), 1)
        k = te.floormod(j, period)
        return te.minimum(k, period - k)
    k = te.floormod(j, 2 * n)
    return te.minimum(k, 2 * n - 1 - k)


def _np_reflected(p: np.ndarray, low: Any, high: Any) -> np.ndarray:
    period = np.maximum((high - low) * 2.0, 1.0)
    along = p - low - np.floor((p - low) / period) * period
    return low + np.minimum(along, period - along)


def _np_cubic(t: np.ndarray, k: int) -> np.ndarray:
    a, d = CUBIC_A, np.abs(t - (k - 1))
    return np.where(d <= 1, ((a + 2) * d - (a + 3)) * d * d + 1, ((a * d - 5 * a) * d + 8 * a) * d - 4 * a)


@op("roi_align", OPAQUE)
class RoiAlign(Op):
    """The mean or maximum of `sampling`^2 bilinear samples in each of height x width bins of every region of x.

    rois: [n, 4], (x1, y1, x2, y2), times `spatial_scale` in elements of x; batch: [n]. `half_pixel`: shifted by half an
    element, as the aligned form of Detectron2 has it. "max" is of the weighted neighbours, as ONNX defines it.
    """

    def infer(
        self, x: TensorType, rois: TensorType, batch: TensorType, *, height: int, width: int, **_: Any
    ) -> list[TensorType]:
        require(x.ndim == 4 and rois.ndim == 2 and batch.ndim == 1, f"roi_align of {x} in {rois} of {batch}")
        require(batch.dtype.is_int, f"roi_align: batch indices of {batch.dtype}")
        return [TensorType.of(x.dtype, (rois.shape[0], x.shape[1], height, width))]

    def te(
        self,
        x: te.Tensor,
        rois: te.Tensor,
        batch: te.Tensor,
        *,
        height: int,
        width: int,
        sampling: int,
        spatial_scale: float,
        half_pixel: bool,
        mode: str,
    ) -> te.Tensor:
        sizes, bins, count = x.shape[2:], (height, width), rois.shape[0]
        largest = max(sampling, 1)
        adaptive = sampling <= 0

        def corner(n: Expr, k: int) -> Expr:
            edge = wide(rois[n, k])
            return edge * _float(spatial_scale, edge) - _float(0.5 if half_pixel else 0.0, edge)

        def extent(n: Expr, d: int) -> Expr:
            size = corner(n, 3 - d) - corner(n, 1 - d)
            return size if half_pixel else te.maximum(size, const(1.0, size.dtype))

        # [n, dimension, (start, bin size, samples per bin)]
        def measure(n: Expr, d: Expr, what: Expr) -> Expr:
            def of(axis: int) -> Expr:
                size = extent(n, axis) / _float(float(bins[axis]), extent(n, axis))
                samples = te.ceil(size) if adaptive else _float(float(largest), size)
                return te.select(te.equal(what, 0), corner(n, 1 - axis), te.select(te.equal(what, 1), size, samples))

            return te.select(te.equal(d, 0), of(0), of(1))

        boxes = te.compute((count, 2, 3), measure, name="boxes")
        reach = [largest, largest]
        if adaptive:  # no region has more samples than the whole of x
            reach = [known_size(s) // b + 2 for s, b in zip(sizes, bins, strict=True)]
        ky, kx = te.reduce_axis(reach[0], name="ky"), te.reduce_axis(reach[1], name="kx")

        def taps(n: Expr, d: int, index: Expr, k: Expr) -> tuple[list[tuple[Expr, Expr]], Expr]:
            start, size, samples = (boxes[n, d, w] for w in range(3))
            p = start + _float(index, start) * size + (_float(k, start) + const(0.5, start.dtype)) * size / samples
            last = _float(sizes[d], p) - const(1.0, p.dtype)
            valid = te.all_of(p >= const(-1.0, p.dtype), p <= last + const(1.0, p.dtype), _float(k, p) < samples)
            held = te.maximum(te.minimum(te.select(valid, p, const(0.0, p.dtype)), last), const(0.0, p.dtype))
            low = te.floor(held)
            t, j = held - low, cast("i64", low)
            return [(j, const(1.0, t.dtype) - t), (te.minimum(j + 1, wrap(sizes[d]) - 1), t)], valid

        def sample(n: Expr, c: Expr, h: Expr, w: Expr) -> Expr:
            rows, valid_y = taps(n, 0, h, ky)
            columns, valid_x = taps(n, 1, w, kx)
            image = te.maximum(te.minimum(cast("i64", batch[n]), wrap(x.shape[0]) - 1), 0)
            terms = [wide(x[image, c, y, q]) * wy * wx for y, wy in rows for q, wx in columns]
            value = _sum(terms)
            if mode == "max":
                value = terms[0]
                for term in terms[1:]:
                    value = te.maximum(value, term)
            inside = te.all_of(valid_y, valid_x)
            if mode == "max":
                taken = te.all_of(_float(ky, value) < boxes[n, 0, 2], _float(kx, value) < boxes[n, 1, 2])
                outside = te.select(taken, const(0.0, value.dtype), te.min_value(value.dtype))
                return te.max(te.select(inside, value, outside), axis=[ky, kx])
            return te.sum(te.select(inside, value, const(0.0, value.dtype)), axis=[ky, kx])

        total = te.compute((count, x.shape[1], height, width), sample, name="samples")

        def element(n: Expr, c: Expr, h: Expr, w: Expr) -> Expr:
            value = total[n, c, h, w]
            number = te.maximum(boxes[n, 0, 2] * boxes[n, 1, 2], const(1.0, value.dtype))
            if mode == "max":
                none = te.any_of(boxes[n, 0, 2] < const(1.0, value.dtype), boxes[n, 1, 2] < const(1.0, value.dtype))
                return cast(x.dtype, te.select(none, const(0.0, value.dtype), value))
            return cast(x.dtype, value / number)

        return te.compute(total.shape, element, name="roi_align")

    def numpy(
        self,
        x: np.ndarray,
        rois: np.ndarray,
        batch: np.ndarray,
        *,
        height: int,
        width: int,
        sampling: int,
        spatial_scale: float,
        half_pixel: bool,
        mode: str,
    ) -> np.ndarray:
        out = np.zeros((len(rois), x.shape[1], height, width))
        image = x.astype(np.float64)
        sizes, bins = x.shape[2:], (height, width)
        for n, (roi, b) in enumerate(zip(rois.astype(np.float64), batch, strict=True)):
            x1, y1, x2, y2 = roi * spatial_scale - (0.5 if half_pixel else 0.0)
            starts, extents = (y1, x1), [y2 - y1, x2 - x1]
            extents = extents if half_pixel else [max(e, 1.0) for e in extents]
            steps = [e / k for e, k in zip(extents, bins, strict=True)]
            counts = [sampling if sampling > 0 else max(int(np.ceil(s)), 0) for s in steps]
            for h, w in np.ndindex(height, width):
                values = []
                for k in np.ndindex(*counts):
                    ps = [starts[d] + (h, w)[d] * steps[d] + (k[d] + 0.5) * steps[d] / counts[d] for d in (0, 1)]
                    if any(p < -1 or p > s for p, s in zip(ps, sizes, strict=True)):
                        values.append(np.zeros(x.shape[1]))
                        continue
                    taps = []
                    for p, s in zip(ps, sizes, strict=True):
                        held = min(max(p, 0.0), s - 1.0)
                        low = int(held)
                        taps.append([(low, 1 - held + low), (min(low + 1, s - 1), held - low)])
                    terms = [image[b, :, y, q] * wy * wx for y, wy in taps[0] for q, wx in taps[1]]
                    values.append(np.max(terms, axis=0) if mode == "max" else np.sum(terms, axis=0))
                if values:
                    out[n, :, h, w] = np.max(values, axis=0) if mode == "max" else np.mean(values, axis=0)
        return out.astype(x.dtype)


@op("deform_columns", OPAQUE)
class DeformColumns(Op):
    """The elements that a deformable convolution multiplies (Dai et al., arXiv 1703.06211), as [n, c, kh, kw, oh, ow].

    x: [n, c, h, w]; offset: [n, groups * kh * kw * 2, oh, ow], (row, column) per kernel element; mask: [n, groups * kh * kw,
    oh, ow], a factor each. Bilinear; outside x is zero.
    """

    def infer(self, x: TensorType, offset: TensorType, *mask: TensorType, kernel: Sequence[int], **_: Any) -> list[TensorType]:
        require(x.ndim == 4 and offset.ndim == 4, f"deform_columns of {x} at {offset}: images only")
        return [TensorType(x.dtype, (*x.shape[:2], *map(wrap, kernel), *offset.shape[2:]))]

    def te(
        self,
        x: te.Tensor,
        offset: te.Tensor,
        *mask: te.Tensor,
        kernel: Sequence[int],
        strides: Sequence[int],
        pads: Sequence[int],
        dilations: Sequence[int],
        groups: int,
    ) -> te.Tensor:
        kh, kw = kernel
        per_group = known_size(x.shape[1]) // groups
        shape = (*x.shape[:2], kh, kw, *offset.shape[2:])
        source = pad_stage(x, (0, 0, 1, 1), (0, 0, 1, 1))  # a border of zeros, so that no read needs a condition

        def element(n: Expr, c: Expr, i: Expr, j: Expr, h: Expr, w: Expr) -> Expr:
            kernel_element = (c // per_group) * (kh * kw) + i * kw + j
            taps = []
            for d, (out, k) in enumerate(((h, i), (w, j))):
                moved = wide(offset[n, kernel_element * 2 + d, h, w])
                p = _float(out * strides[d] - pads[d] + k * dilations[d], moved) + moved
                p = te.maximum(te.minimum(p, _float(x.shape[2 + d], p) + const(8.0, p.dtype)), const(-8.0, p.dtype))
                low = te.floor(p)
                t, at = p - low, cast("i64", low)
                taps.append([(at, const(1.0, t.dtype) - t), (at + 1, t)])

            def read(index: Sequence[Expr]) -> Expr:
                held = [_held(a + 1, wrap(s) + 2) for a, s in zip(index, x.shape[2:], strict=True)]
                return wide(source[(n, c, *held)])

            value = _interpolated(read, taps)
            return cast(x.dtype, value * wide(mask[0][n, kernel_element, h, w]) if mask else value)

        return te.compute(plain(map(wrap, shape)), element, name="deform_columns")

    def numpy(
        self,
        x: np.ndarray,
        offset: np.ndarray,
        *mask: np.ndarray,
        kernel: Sequence[int],
        strides: Sequence[int],
        pads: Sequence[int],
        dilations: Sequence[int],
        groups: int,
    ) -> np.ndarray:
        n, c = x.shape[:2]
        kh, kw = kernel
        oh, ow = offset.shape[2:]
        moved = offset.astype(np.float64).reshape(n, groups, kh, kw, 2, oh, ow)
        base = np.meshgrid(np.arange(kh), np.arange(kw), np.arange(oh), np.arange(ow), indexing="ij")
        ps = [base[2 + d] * strides[d] - pads[d] + base[d] * dilations[d] + moved[:, :, :, :, d] for d in (0, 1)]
        ps = [np.clip(p, -8.0, s + 8) for p, s in zip(ps, x.shape[2:], strict=True)]
        groups_of = x.astype(np.float64).reshape(n, groups, c // groups, *x.shape[2:])
        low = [np.floor(p).astype(np.int64) for p in ps]
        total: Any = 0.0
        for steps in cartesian((0, 1), (0, 1)):
            index = [a + s for a, s in zip(low, steps, strict=True)]
            inside = np.logical_and.reduce([(a >= 0) & (a < s) for a, s in zip(index, x.shape[2:], strict=True)])
            weight = np.multiply.reduce(
                [p - a if s else 1 - p + a for p, a, s in zip(ps, low, steps, strict=True)]
            )
            held = [np.clip(a, 0, s - 1) for a, s in zip(index, x.shape[2:], strict=True)]
            b = np.arange(n).reshape(-1, 1, 1, 1, 1, 1)
            g = np.arange(groups).reshape(1, -1, 1, 1, 1, 1)
            picked = np.moveaxis(groups_of, 2, -1)[b, g, held[0], held[1]]  # [n, groups, kh, kw, oh, ow, c / groups]
            total = total + picked * (weight * inside)[..., None]
        if mask:
            total = total * mask[0].astype(np.float64).reshape(n, groups, kh, kw, oh, ow)[..., None]
        return np.moveaxis(total, -1, 2).reshape(n, c, kh, kw, oh, ow).astype(x.dtype)
