"""Overlapping blocks put together, pooling undone, and the positions of the largest elements of windows."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from tensorlang import te
from tensorlang.graph.ir import TensorType
from tensorlang.graph.ops.common import canonical, plain, require
from tensorlang.graph.ops.pool import Pool, lowest
from tensorlang.graph.ops.shape import pad_stage
from tensorlang.graph.ops.windows import Layout, output_size, window_size
from tensorlang.graph.registry import COMPOUND, REDUCTION, Op, op
from tensorlang.ir.dtype import dtype as as_dtype
from tensorlang.ir.expr import Expr, eq, maximum, wrap

Ints = Sequence[int]


@op("col2im", REDUCTION)
class Col2Im(Op):
    """[n, c * elements of a block, blocks] summed into [n, c, *image], every element where its block took it from."""

    def infer(self, x: TensorType, *, image: Ints, block: Ints, strides: Ints, pads: Ints, dilations: Ints) -> list[TensorType]:
        size = prod(block)
        whole = x.ndim == 3 and x.shape[1].op == "const" and x.shape[1].value % size == 0
        require(whole, f"col2im of {x}, blocks {list(block)}")
        counts = self.counts(image, block, strides, pads, dilations)
        blocks = x.shape[2]
        require(blocks.op != "const" or blocks.value == prod(counts), f"col2im of {x}: {prod(counts)} blocks are expected")
        return [TensorType.of(x.dtype, (x.shape[0], x.shape[1].value // size, *image))]

    @staticmethod
    def counts(image: Ints, block: Ints, strides: Ints, pads: Ints, dilations: Ints) -> list[int]:
        """How many blocks there are along each dimension."""
        n = len(image)
        sizes = [
            output_size(image[d], pads[d], pads[d + n], block[d], strides[d], dilations[d]) for d in range(n)
        ]
        return [int(s.value) for s in sizes]

    def te(self, x: te.Tensor, *, image: Ints, block: Ints, strides: Ints, pads: Ints, dilations: Ints) -> te.Tensor:
        size, counts = prod(block), self.counts(image, block, strides, pads, dilations)
        ks = [te.reduce_axis(k, name=f"k{d}") for d, k in enumerate(block)]
        (out,) = self.infer(
            TensorType.of(x.dtype, x.shape), image=image, block=block, strides=strides, pads=pads, dilations=dilations
        )

        def element(n: Expr, c: Expr, *at: Expr) -> Expr:
            inside: list[Expr] = []
            row: Expr = wrap(0)
            column: Expr = wrap(0)
            for d, (i, k) in enumerate(zip(at, ks, strict=True)):
                moved = i + pads[d] - k * dilations[d]
                which = te.floordiv(moved, strides[d])
                if strides[d] > 1:
                    inside.append(eq(te.floormod(moved, strides[d]), 0))
                inside += [which >= 0, which < counts[d]]
                row = row * block[d] + k
                column = column * counts[d] + which
            zero = te.const(0, x.dtype)
            return te.sum(te.if_then_else(te.all_of(*inside), x[n, c * size + row, column], zero), axis=ks)

        return te.compute(plain(out.shape), element, name="col2im")

    def numpy(self, x: np.ndarray, *, image: Ints, block: Ints, strides: Ints, pads: Ints, dilations: Ints) -> np.ndarray:
        n, counts = len(image), self.counts(image, block, strides, pads, dilations)
        blocks = x.reshape(x.shape[0], -1, *block, *counts)
        reach = [(block[d] - 1) * dilations[d] + (counts[d] - 1) * strides[d] + 1 for d in range(n)]
        whole = [max(reach[d], image[d] + pads[d]) for d in range(n)]
        out = np.zeros((*blocks.shape[:2], *whole), x.dtype)
        for k in np.ndindex(*block):
            where = tuple(
                slice(k[d] * dilations[d], k[d] * dilations[d] + (counts[d] - 1) * strides[d] + 1, strides[d]) for d in range(n)
            )
            out[(slice(None), slice(None), *where)] += blocks[(slice(None), slice(None), *k)]
        return out[(slice(None), slice(None), *(slice(pads[d], pads[d] + image[d]) for d in range(n)))]


@op("max_pool_indices", COMPOUND)
class MaxPoolIndices(Pool):
    """Where in x the largest element of every window is, as i64: its row-major (or column-major) position in all of x.

    The first one, if there are several.
    """

    def infer(self, x: TensorType, *, column_major: bool = False, **attrs: Any) -> list[TensorType]:
        (out,) = super().infer(x, **attrs)
        return [TensorType.of("i64", out.shape)]

    def te(self, x: te.Tensor, *, column_major: bool = False, **attrs: Any) -> te.Tensor:
        kernel, strides, pads, dilations = (attrs[k] for k in ("kernel", "strides", "pads", "dilations"))
        (out,) = super().infer(TensorType.of(x.dtype, x.shape), **attrs)
        where = Layout.of("NCHW", x.ndim)
        sizes = x.shape[2:]
        reach = [
            (o - 1) * s + window_size(k, d) for o, s, k, d in zip(out.shape[2:], strides, kernel, dilations, strict=True)
        ]
        ends = [canonical(maximum(r - n - p, 0)) for r, n, p in zip(reach, sizes, pads, strict=False)]
        padded = pad_stage(x, (0, 0, *pads[: len(kernel)]), (0, 0, *ends), lowest(x.dtype))

        def window(spatial: Sequence[Expr], ks: Sequence[Expr]) -> list[Expr]:
            return [o * s + k * d for o, s, k, d in zip(spatial, strides, ks, dilations, strict=True)]

        def axes() -> list[Expr]:
            return [te.reduce_axis(k, name=f"k{a}") for a, k in enumerate(kernel)]

        first = axes()

        def top(*index: Expr) -> Expr:
            n, c, spatial = where.split(index)
            return te.max(padded[(n, c, *window(spatial, first))], axis=first)

        largest = te.compute(plain(out.shape), top, name="largest")
        second = axes()

        def position(at: Sequence[Expr]) -> Expr:
            flat: Expr = wrap(0)
            dims = list(zip(at, sizes, strict=True))
            for i, size in reversed(dims) if column_major else dims:
                flat = flat * size + i
            return flat

        area = wrap(1)
        for size in sizes:
            area = area * wrap(size)

        def element(*index: Expr) -> Expr:
            n, c, spatial = where.split(index)
            shifted = window(spatial, second)
            at = [i - p for i, p in zip(shifted, pads, strict=False)]
            inside = [t for i, size in zip(at, sizes, strict=True) for t in (i >= 0, i < size)]
            hit = te.all_of(*inside, eq(padded[(n, c, *shifted)], largest[index]))
            return te.min(te.select(hit, position(at), te.max_value("i64")), axis=second)

        found = te.compute(plain(out.shape), element, name="found")
        return te.compute(
            plain(out.shape),
            lambda *i: found[i] + (i[0] * x.shape[1] + i[1]) * area,
            name="max_pool_indices",
        )

    def numpy(self, x: np.ndarray, *, column_major: bool = False, **attrs: Any) -> np.ndarray:
        view, _, _ = self.views(x, lowest(as_dtype(x.dtype)), dict(attrs))
        spatial = x.shape[2:]
        order = np.arange(int(np.prod(spatial))).reshape(spatial, order="F" if column_major else "C")
        # 0 marks what is no element of x: it loses to every element but another lowest one
        places, _, _ = self.views(np.broadcast_to(order + 1, x.shape), 0, dict(attrs))
        flat = view.reshape(*view.shape[: x.ndim], -1)
        where = places.reshape(flat.shape)
        hit = (flat == flat.max(axis=-1, keepdims=True)) & (where > 0)
        found = np.where(hit, where - 1, np.iinfo(np.int64).max).min(axis=-1)
        lead = np.arange(x.shape[0] * x.shape[1]).reshape(x.shape[0], x.shape[1], *(1,) * len(spatial))
        return found + lead * int(np.prod(spatial))
