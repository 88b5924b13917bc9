"""Operations over axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tensorlang import te
from tensorlang.interop.tvm.tensor import Tensor, compute, plain_name
from tensorlang.interop.tvm.topi.transform import normal_axis
from tensorlang.ir.dtype import dtype as as_dtype
from tensorlang.ir.expr import Expr, cast
from tensorlang.te.tensor import compute_stage

COMM_REDUCE = "comm_reduce"
Axis = int | Sequence[int] | None


def reduced_axes(ndim: int, axis: Axis) -> list[int]:
    """The axes to reduce over, sorted: all of them for None."""
    if axis is None:
        return list(range(ndim))
    return sorted({normal_axis(a, ndim) for a in ([axis] if isinstance(axis, int) else axis)})


def _reduce(name: str, over: Callable[..., Any], data: Tensor, axis: Axis, keepdims: bool) -> Tensor:
    gone = reduced_axes(data.ndim, axis)
    if not gone:
        return data
    ks = [te.reduce_axis(data.shape[a], name=f"k{n}") for n, a in enumerate(gone)]
    shape = [1 if n in gone else d for n, d in enumerate(data.shape) if keepdims or n not in gone]

    def element(*i: Expr) -> Any:
        kept = iter(i)
        index: list[Any] = []
        for n in range(data.ndim):
            if n in gone:
                index.append(ks[gone.index(n)])
                if keepdims:
                    next(kept)
            else:
                index.append(next(kept))
        return over(data(*index), axis=ks)

    return compute(shape, element, f"{data.name}_{name}", COMM_REDUCE)


def sum(data: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The sum over axes; all of them without `axis`."""
    return _reduce("sum", te.sum, data, axis, keepdims)


def prod(data: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The product over axes; all of them without `axis`."""
    return _reduce("prod", te.prod, data, axis, keepdims)


def max(data: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The maximum over axes; all of them without `axis`."""
    return _reduce("max", te.max, data, axis, keepdims)


def min(data: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The minimum over axes; all of them without `axis`."""
    return _reduce("min", te.min, data, axis, keepdims)


def _arg(name: str, over: Callable[..., Any], data: Tensor, axis: int | None, keepdims: bool) -> Tensor:
    gone = reduced_axes(data.ndim, axis)
    ks = [te.reduce_axis(data.shape[a], name=f"k{n}") for n, a in enumerate(gone)]
    shape = [1 if n in gone else d for n, d in enumerate(data.shape) if keepdims or n not in gone]

    def element(*i: Expr) -> Any:
        kept = [v for n, v in enumerate(i) if n not in gone] if keepdims else list(i)
        index = [ks[gone.index(n)] if n in gone else kept.pop(0) for n in range(data.ndim)]
        return over(data(*index), axis=ks)

    pair = compute_stage(tuple(shape), element, plain_name(f"{data.name}_{name}_temp"))
    return compute(shape, lambda *i: cast(as_dtype("int32"), pair[0][i]), f"{data.name}_{name}", COMM_REDUCE)


def argmax(data: Tensor, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """The index (int32) of the largest element along an axis, or in row-major order; of equal ones the first."""
    return _arg("argmax", te.argmax, data, axis, keepdims)


def argmin(data: Tensor, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """The index (int32) of the smallest element along an axis, or in row-major order; of equal ones the first."""
    return _arg("argmin", te.argmin, data, axis, keepdims)
