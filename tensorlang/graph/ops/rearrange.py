"""Elements moved by rules of their own: diagonals, reversed sequences, caches written in place, taps along an axis."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tensorlang import te
from tensorlang.graph.ir import TensorType
from tensorlang.graph.ops.common import require, same_dim, wide
from tensorlang.graph.registry import COMPOUND, INJECTIVE, OPAQUE, REDUCTION, Op, op
from tensorlang.ir.expr import Expr, cast, eq, wrap


@op("relabel", INJECTIVE)
class Relabel(Op):
    """out[i] = x[i[labels[0]], i[labels[1]], ...]: a transposition that may take diagonals (a label that comes twice)."""

    def infer(self, x: TensorType, *, labels: Sequence[int]) -> list[TensorType]:
        require(len(labels) == x.ndim, f"relabel of {x} by {list(labels)}: a label per dimension")
        count = max(labels, default=-1) + 1
        require(set(labels) == set(range(count)), f"relabel of {x} by {list(labels)}: labels count from 0")
        dims: list[Expr | None] = [None] * count
        for label, size in zip(labels, x.shape, strict=True):
            old = dims[label]
            dims[label] = size if old is None else same_dim(old, size, f"relabel of {x} by {list(labels)}")
        return [TensorType(x.dtype, tuple(d for d in dims if d is not None))]

    def constraints(self, x: TensorType, *, labels: Sequence[int]) -> list[tuple[Expr, Expr]]:
        (out,) = self.infer(x, labels=labels)
        return [(d, out.shape[k]) for k, d in zip(labels, x.shape, strict=True) if d is not out.shape[k]]

    def te(self, x: te.Tensor, *, labels: Sequence[int]) -> te.Tensor:
        shape = [x.shape[list(labels).index(k)] for k in range(max(labels, default=-1) + 1)]
        return te.compute(tuple(shape), lambda *i: x[tuple(i[k] for k in labels)], name="relabel")

    def numpy(self, x: np.ndarray, *, labels: Sequence[int]) -> np.ndarray:
        return np.einsum(x, list(labels), list(range(max(labels, default=-1) + 1)))


@op("reverse_sequence", INJECTIVE)
class ReverseSequence(Op):
    """x with the first lengths[b] elements along `time` of every entry b along `batch` in reverse order."""

    def infer(self, x: TensorType, lengths: TensorType, *, batch: int, time: int) -> list[TensorType]:
        require(batch != time and max(batch, time) < x.ndim, f"reverse_sequence of {x}: batch {batch} and time {time}")
        require(lengths.dtype.is_int and lengths.ndim == 1, f"reverse_sequence: lengths {lengths}")
        return [x]

    def te(self, x: te.Tensor, lengths: te.Tensor, *, batch: int, time: int) -> te.Tensor:
        def element(*i: Expr) -> Expr:
            length = te.minimum(cast("i64", lengths[i[batch]]), wrap(x.shape[time]))
            at = te.select(i[time] < length, length - 1 - i[time], i[time])
            return x[(*i[:time], te.maximum(at, 0), *i[time + 1 :])]

        return te.compute(x.shape, element, name="reverse_sequence")

    def numpy(self, x: np.ndarray, lengths: np.ndarray, *, batch: int, time: int) -> np.ndarray:
        out = np.array(x)
        for b, length in enumerate(lengths):
            where = tuple(b if a == batch else slice(None) for a in range(x.ndim))
            line, axis = x[where], time - (batch < time)
            head = np.take(line, np.arange(min(int(length), x.shape[time]))[::-1], axis)
            out[where] = np.concatenate([head, np.take(line, np.arange(head.shape[axis], x.shape[time]), axis)], axis)
        return out


@op("write_cache", OPAQUE)
class WriteCache(Op):
    """cache with `update` written along `axis` from position starts[b] on, b along the first dimension; `circular` wraps."""

    def infer(
        self, cache: TensorType, update: TensorType, starts: TensorType, *, axis: int, circular: bool = False
    ) -> list[TensorType]:
        require(cache.dtype == update.dtype and cache.ndim == update.ndim, f"write_cache of {update} into {cache}")
        require(0 < axis < cache.ndim and starts.ndim == 1, f"write_cache along axis {axis} of {cache} at {starts}")
        return [cache]

    def te(
        self, cache: te.Tensor, update: te.Tensor, starts: te.Tensor, *, axis: int, circular: bool = False
    ) -> te.Tensor:
        size, count = wrap(cache.shape[axis]), wrap(update.shape[axis])

        def element(*i: Expr) -> Expr:
            at = i[axis] - cast("i64", starts[i[0]])
            at = te.floormod(at, size) if circular else at
            held = te.maximum(te.minimum(at, count - 1), 0)
            new = update[(*i[:axis], held, *i[axis + 1 :])]
            return te.select(te.all_of(at >= 0, at < count), new, cache[i])

        return te.compute(cache.shape, element, name="write_cache")

    def numpy(
        self, cache: np.ndarray, update: np.ndarray, starts: np.ndarray, *, axis: int, circular: bool = False
    ) -> np.ndarray:
        out, size = np.array(cache), cache.shape[axis]
        for b, start in enumerate(starts):
            for k in range(update.shape[axis]):
                at = int(start) + k
                at = at % size if circular else at
                if 0 <= at < size:
                    np.moveaxis(out[b], axis - 1, 0)[at] = np.moveaxis(update[b], axis - 1, 0)[k]
        return out


@op("weighted_taps", REDUCTION)
class WeightedTaps(Op):
    """out[.., i, ..] = sum over k of x[.., taps[i, k], ..] * weights[i, k] along `axis`: any linear resampling."""

    def infer(self, x: TensorType, taps: TensorType, weights: TensorType, *, axis: int) -> list[TensorType]:
        require(taps.ndim == weights.ndim == 2 and 0 <= axis < x.ndim, f"weighted_taps of {x} by {taps} and {weights}")
        return [TensorType(x.dtype, (*x.shape[:axis], taps.shape[0], *x.shape[axis + 1 :]))]

    def te(self, x: te.Tensor, taps: te.Tensor, weights: te.Tensor, *, axis: int) -> te.Tensor:
        k = te.reduce_axis(taps.shape[1], name="k")

        def element(*i: Expr) -> Expr:
            position = te.maximum(te.minimum(cast("i64", taps[i[axis], k]), wrap(x.shape[axis]) - 1), 0)
            value = wide(x[(*i[:axis], position, *i[axis + 1 :])])
            return te.sum(value * cast(value.dtype, weights[i[axis], k]), axis=k)

        shape = (*x.shape[:axis], taps.shape[0], *x.shape[axis + 1 :])
        total = te.compute(shape, element, name="weighted_taps")
        if total.dtype == x.dtype:
            return total
        return te.compute(shape, lambda *i: cast(x.dtype, total[i]), name="weighted_taps_cast")

    def numpy(self, x: np.ndarray, taps: np.ndarray, weights: np.ndarray, *, axis: int) -> np.ndarray:
        picked = np.moveaxis(np.take(x.astype(np.float64), taps, axis), (axis, axis + 1), (-2, -1))
        return np.moveaxis((picked * weights).sum(-1), -1, axis).astype(x.dtype)


@op("det", COMPOUND)
class Det(Op):
    """The determinant of the last two dimensions, a known size, by elimination with the largest pivot of each column."""

    def infer(self, x: TensorType) -> list[TensorType]:
        require(x.dtype.is_float and x.ndim >= 2, f"det of {x}")
        rows, columns = x.shape[-2:]
        require(rows.op == "const" and columns is rows, f"det of {x}: square matrices of known size")
        return [TensorType(x.dtype, x.shape[:-2])]

    def te(self, x: te.Tensor) -> te.Tensor:
        size, batch = int(wrap(x.shape[-1]).value), x.shape[:-2]
        lead = len(batch)
        a = x
        factors: list[te.Tensor] = []
        for k in range(size):
            a, factor = self._eliminated(a, k, size, batch, lead)
            factors.append(factor)

        def element(*i: Expr) -> Expr:
            total = factors[0][i] if factors else te.const(1, x.dtype)
            for factor in factors[1:]:
                total = total * factor[i]
            return total

        return te.compute(batch, element, name="det")

    @staticmethod
    def _eliminated(a: te.Tensor, k: int, size: int, batch: tuple, lead: int) -> tuple[te.Tensor, te.Tensor]:
        """Rows k + 1.. of `a` less their share of the pivot row, and the pivot with the sign of the exchange of rows."""
        rows = size - k
        r, q = te.reduce_axis(rows, name="r"), te.reduce_axis(rows, name="q")
        top = te.compute(batch, lambda *i: te.max(te.abs(a[(*i, r, 0)]), axis=r), name=f"top{k}")
        pivot = te.compute(
            batch,
            lambda *i: te.min(te.select(eq(te.abs(a[(*i, q, 0)]), top[i]), q, wrap(rows - 1)), axis=q),
            name=f"pivot{k}",
        )

        def factor(*i: Expr) -> Expr:
            p = a[(*i, te.minimum(pivot[i], rows - 1), 0)]
            return te.select(eq(pivot[i], 0), p, -p)

        one, zero = te.const(1, a.dtype), te.const(0, a.dtype)

        def rest(*i: Expr) -> Expr:
            b, row, column = i[:lead], i[lead] + 1, i[lead + 1] + 1
            p = te.minimum(pivot[b], rows - 1)
            source = te.select(eq(row, p), wrap(0), row)  # the first row takes the pivot's place
            value, head = a[(*b, p, 0)], a[(*b, source, 0)]
            safe = te.select(eq(value, zero), one, value)
            return a[(*b, source, column)] - head / safe * a[(*b, p, column)]

        made = te.compute(batch, factor, name=f"factor{k}")
        if rows == 1:
            return a, made
        return te.compute((*batch, rows - 1, rows - 1), rest, name=f"minor{k}"), made

    def numpy(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(np.linalg.det(x.astype(np.float64))).astype(x.dtype)
