"""Caches of keys and values that grow with every call."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorlang import te
from tensorlang.graph.ir import TensorType
from tensorlang.graph.ops.common import canonical, plain, require, same_dim
from tensorlang.graph.registry import INJECTIVE, Op, op
from tensorlang.ir.dtype import i64
from tensorlang.ir.expr import Expr, ExprLike, const, wrap


@op("append_rows", INJECTIVE)
class AppendRows(Op):
    """Rows [B, N, S, D] after the first `count[b]` rows of `past` [B, N, P, D]; `size` rows in all, zeros at the end.

    y[b, n, t] = past[b, n, t]               for t < count[b]
                 rows[b, n, t - count[b]]    for the S after them
                 past[b, n, t], or 0         beyond
    """

    def infer(self, past: TensorType, rows: TensorType, count: TensorType, *, size: ExprLike) -> list[TensorType]:
        require(past.ndim == 4 and rows.ndim == 4 and past.dtype == rows.dtype, f"append_rows of {past} and {rows}")
        require(count.dtype == i64 and count.ndim == 2, f"append_rows: a count of {count}")
        for axis in (0, 1, 3):
            same_dim(past.shape[axis], rows.shape[axis], f"append_rows of {past} and {rows}")
        return [TensorType(rows.dtype, (*rows.shape[:2], canonical(size), rows.shape[3]))]

    def constraints(
        self, past: TensorType, rows: TensorType, count: TensorType, **attrs: Any
    ) -> list[tuple[Expr, Expr]]:
        pairs = [(past.shape[a], rows.shape[a]) for a in (0, 1, 3)]
        return [(a, b) for a, b in pairs if a is not b]

    def te(self, past: te.Tensor, rows: te.Tensor, count: te.Tensor, *, size: ExprLike) -> te.Tensor:
        held, added = wrap(past.shape[2]), wrap(rows.shape[2])
        shape = (*rows.shape[:2], *plain([canonical(size)]), rows.shape[3])

        def element(b: Expr, n: Expr, t: Expr, d: Expr) -> Expr:
            place = t - count[b, 0]
            new = te.all_of(place >= 0, place < added)
            old = te.select(t < held, past[b, n, t, d], const(0, rows.dtype))
            return te.select(new, rows[b, n, place, d], old)

        return te.compute(shape, element, name="append_rows")

    def numpy(self, past: np.ndarray, rows: np.ndarray, count: np.ndarray, *, size: int) -> np.ndarray:
        y = np.zeros((*rows.shape[:2], size, rows.shape[3]), rows.dtype)
        held = min(size, past.shape[2])
        y[:, :, :held] = past[:, :, :held]
        for b, start in enumerate(count[:, 0]):
            part = rows[b, :, : max(size - start, 0)]
            y[b, :, start : start + part.shape[1]] = part
        return y
