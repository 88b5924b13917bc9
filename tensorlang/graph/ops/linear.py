"""Matrix products."""

from __future__ import annotations

import numpy as np

from tensorlang import te
from tensorlang.graph.ir import TensorType
from tensorlang.graph.ops.common import (
    broadcast_constraints,
    broadcast_dims,
    is_one,
    plain,
    product_type,
    require,
    same_dim,
    wide,
)
from tensorlang.graph.registry import CONTRACTION, Op, op
from tensorlang.ir.dtype import dtype as dtype_of
from tensorlang.ir.expr import Expr, ExprLike


def _shapes(a: TensorType, b: TensorType) -> tuple[tuple[Expr, ...], Expr]:
    """The result's shape and the contracted dimension."""
    require(a.ndim >= 1 and b.ndim >= 1, f"matmul of {a} and {b}: operands have at least one dimension")
    require(product_type(a.dtype, b.dtype) is not None, f"matmul of {a} and {b}: the operands have one type, or are u8 and i8")
    inner = b.shape[0] if b.ndim == 1 else b.shape[-2]
    k = same_dim(a.shape[-1], inner, f"matmul of {a} and {b}")
    batch = broadcast_dims([a.shape[:-2], b.shape[:-2]], f"matmul of {a} and {b}")
    rows = a.shape[-2:-1]
    columns = b.shape[-1:] if b.ndim > 1 else ()
    return (*batch, *rows, *columns), k


@op("matmul", CONTRACTION)
class MatMul(Op):
    """NumPy's matmul: sums over the last dimension of `a` and the last but one of `b`; leading dimensions broadcast.

    Of u8 by i8 the sums are i32. `out` is the sums' type where it is not the operands' own: f32 of products of bf16.

    Stage "matmul": loops over batch, M, N; the reduction is K, so `b` is read along its contiguous dimension by the last loop.
    """

    def infer(self, a: TensorType, b: TensorType, *, out: str | None = None) -> list[TensorType]:
        return [TensorType(product_type(a.dtype, b.dtype, out) or a.dtype, _shapes(a, b)[0])]

    def constraints(self, a: TensorType, b: TensorType, *, out: str | None = None) -> list[tuple[Expr, Expr]]:
        inner = b.shape[0] if b.ndim == 1 else b.shape[-2]
        pairs = [] if inner is a.shape[-1] else [(a.shape[-1], inner)]
        return pairs + broadcast_constraints([a.shape[:-2], b.shape[:-2]])

    def te(self, a: te.Tensor, b: te.Tensor, *, out: str | None = None) -> te.Tensor:
        sizes, inner = _shapes(TensorType.of(a.dtype, a.shape), TensorType.of(b.dtype, b.shape))
        kind = product_type(a.dtype, b.dtype, out) or a.dtype
        shape = plain(sizes)
        (extent,) = plain([inner])
        k = te.reduce_axis(extent, name="k")
        rows, columns = int(a.ndim > 1), int(b.ndim > 1)
        batch = len(shape) - rows - columns

        def element(*i: Expr) -> Expr:
            lead, m, n = i[:batch], i[batch : batch + rows], i[batch + rows :]
            left = _read(a, (*lead, *m, k), shape[:batch])
            right = _read(b, (*lead, k, *n), shape[:batch])
            return te.sum(wide(left, kind) * wide(right, kind), axis=k)

        product = te.compute(shape, element, name="matmul")
        if product.dtype == kind:
            return product
        return te.compute(shape, lambda *i: te.cast(kind, product[i]), name="matmul_cast")

    def numpy(self, a: np.ndarray, b: np.ndarray, *, out: str | None = None) -> np.ndarray:
        if out is not None:
            a, b = (x.astype(dtype_of(out).numpy) for x in (a, b))
        if a.dtype != b.dtype:
            return np.asarray(np.matmul(a.astype(np.int32), b.astype(np.int32)))
        if a.dtype.kind in "fiu" and a.dtype.itemsize >= 4:
            return np.asarray(np.matmul(a, b))
        return np.matmul(a.astype(np.float32), b.astype(np.float32)).astype(a.dtype)


def _read(x: te.Tensor, index: tuple[Expr, ...], batch: tuple[int | Expr, ...]) -> Expr:
    """x at a batch index that broadcasts, followed by indices of its own matrix."""
    lead = max(x.ndim - 2, 0)
    picked: list[ExprLike] = []
    for position in range(lead):
        offset = len(batch) - lead + position
        stretched = is_one(x.shape[position]) and not is_one(batch[offset])
        picked.append(0 if stretched else index[offset])
    return x[(*picked, *index[len(batch) :])]
