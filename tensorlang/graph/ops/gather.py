"""Indexing by run-time tensors: gather and its kin, one-hot. Negative indices count from the end."""

from __future__ import annotations

import numpy as np

from tensorlang import te
from tensorlang.graph.ir import TensorType, Value
from tensorlang.graph.ops.common import dims_of, known_size, plain, require, wrapped_index
from tensorlang.graph.ops.shape import Movement
from tensorlang.graph.registry import INJECTIVE, Op, op
from tensorlang.ir.expr import Expr, ExprLike, eq


def _integers(indices: TensorType, what: str) -> None:
    require(indices.dtype.is_int, f"{what}: indices of {indices.dtype}, expected integers")


@op("gather", INJECTIVE)
class Gather(Movement):
    """x with dimension `axis` replaced by the dimensions of `indices`."""

    def infer(self, x: TensorType, indices: TensorType, *, axis: int) -> list[TensorType]:
        _integers(indices, "gather")
        require(0 <= axis < x.ndim, f"gather along axis {axis} of {x}")
        return [TensorType(x.dtype, (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))]

    def te(self, x: te.Tensor, indices: te.Tensor, *, axis: int) -> te.Tensor:
        inner = axis + indices.ndim

        def element(*i: Expr) -> Expr:
            position = wrapped_index(indices[i[axis:inner]], x.shape[axis])
            return x[(*i[:axis], position, *i[inner:])]

        return te.compute((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]), element, name="gather")

    def numpy(self, x: np.ndarray, indices: np.ndarray, *, axis: int) -> np.ndarray:
        return np.take(x, _as_ints(indices), axis)

    def data(self, x: Value, indices: Value, *, axis: int) -> list[np.ndarray | None] | None:
        return super().data(x, indices, axis=axis) if _is_known(indices) else None


@op("gather_elements", INJECTIVE)
class GatherElements(Op):
    """out[i, j, ...] = x[i, ..., indices[i, j, ...], ...] along `axis`."""

    def infer(self, x: TensorType, indices: TensorType, *, axis: int) -> list[TensorType]:
        _integers(indices, "gather_elements")
        require(x.ndim == indices.ndim, f"gather_elements of {x} by {indices}: ranks differ")
        return [TensorType(x.dtype, indices.shape)]

    def te(self, x: te.Tensor, indices: te.Tensor, *, axis: int) -> te.Tensor:
        def element(*i: Expr) -> Expr:
            return x[(*i[:axis], wrapped_index(indices[i], x.shape[axis]), *i[axis + 1 :])]

        return te.compute(indices.shape, element, name="gather_elements")

    def numpy(self, x: np.ndarray, indices: np.ndarray, *, axis: int) -> np.ndarray:
        window = tuple(slice(0, n) if a != axis else slice(None) for a, n in enumerate(indices.shape))
        wrapped = np.where(indices < 0, indices + x.shape[axis], indices)
        return np.take_along_axis(x[window], wrapped, axis)


@op("gather_nd", INJECTIVE)
class GatherND(Op):
    """out[b..., i...] = x[b..., indices[b..., i..., :], ...] with `batch_dims` leading dimensions in common."""

    def infer(self, x: TensorType, indices: TensorType, *, batch_dims: int = 0) -> list[TensorType]:
        _integers(indices, "gather_nd")
        depth = indices.shape[-1]
        require(depth.op == "const", f"gather_nd: the last dimension of {indices} must be known")
        return [TensorType(x.dtype, (*indices.shape[:-1], *x.shape[batch_dims + depth.value :]))]

    def te(self, x: te.Tensor, indices: te.Tensor, *, batch_dims: int = 0) -> te.Tensor:
        depth, lead = known_size(indices.shape[-1]), indices.ndim - 1

        def element(*i: Expr) -> Expr:
            picks = [wrapped_index(indices[(*i[:lead], k)], x.shape[batch_dims + k]) for k in range(depth)]
            return x[(*i[:batch_dims], *picks, *i[lead:])]

        return te.compute((*indices.shape[:-1], *x.shape[batch_dims + depth :]), element, name="gather_nd")

    def numpy(self, x: np.ndarray, indices: np.ndarray, *, batch_dims: int = 0) -> np.ndarray:
        batch = np.indices(indices.shape[:-1])[:batch_dims]
        return x[(*batch, *np.moveaxis(indices, -1, 0))]


@op("one_hot", INJECTIVE)
class OneHot(Op):
    """`on` where the position along the new dimension `axis` (of size `depth`) equals the index, else `off`.

    `values` is [off, on]; indices may be floating point; those outside [-depth, depth) give a row of `off`.
    """

    def infer(self, indices: TensorType, values: TensorType, *, depth: ExprLike, axis: int) -> list[TensorType]:
        (size,) = dims_of([depth])
        return [TensorType(values.dtype, (*indices.shape[:axis], size, *indices.shape[axis:]))]

    def te(self, indices: te.Tensor, values: te.Tensor, *, depth: ExprLike, axis: int) -> te.Tensor:
        (size,) = plain(dims_of([depth]))

        def element(*i: Expr) -> Expr:
            index = te.cast("i64", indices[(*i[:axis], *i[axis + 1 :])])
            hit = eq(te.select(index < 0, index + size, index), i[axis])
            return te.select(hit, values[1], values[0])

        return te.compute((*indices.shape[:axis], size, *indices.shape[axis:]), element, name="one_hot")

    def numpy(self, indices: np.ndarray, values: np.ndarray, *, depth: int, axis: int) -> np.ndarray:
        index = indices.astype(np.int64)
        index = np.where(index < 0, index + depth, index)
        shape = [1] * (indices.ndim + 1)
        shape[axis] = depth
        hit = np.expand_dims(index, axis) == np.arange(depth).reshape(shape)
        return np.where(hit, values[1], values[0])


def _as_ints(indices: np.ndarray) -> np.ndarray:
    """Indices as integers, constants of object arrays included."""
    if indices.dtype != object:
        return indices
    return np.array([e.value for e in indices.flat], np.int64).reshape(indices.shape)


def _is_known(indices: Value) -> bool:
    return indices.data is not None and all(e.op == "const" for e in indices.data.flat)


