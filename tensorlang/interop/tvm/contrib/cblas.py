"""Products by a BLAS library: NumPy's."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorlang.errors import TypeCheckError
from tensorlang.interop.tvm.extern import extern
from tensorlang.interop.tvm.nd import NDArray
from tensorlang.interop.tvm.registry import register_func
from tensorlang.interop.tvm.tensor import Tensor
from tensorlang.interop.tvm.tir.buffer import call_packed
from tensorlang.ir.expr import user_location


def matmul(lhs: Tensor, rhs: Tensor, transa: bool = False, transb: bool = False, **kwargs: Any) -> Any:
    """The product of two matrices, each transposed first if asked for, as one extern stage.

    Raises:
        TypeCheckError: they are not matrices, or do not fit.
    """
    _check(lhs, rhs, 2, transa, transb)
    n, m = lhs.shape[1 if transa else 0], rhs.shape[0 if transb else 1]
    return extern(
        (n, m),
        [lhs, rhs],
        lambda ins, outs: call_packed("tvm.contrib.cblas.matmul", ins[0], ins[1], outs[0], transa, transb),
        name="C",
        **kwargs,
    )


def batch_matmul(
    lhs: Tensor, rhs: Tensor, transa: bool = False, transb: bool = False, iterative: bool = False, **kwargs: Any
) -> Any:
    """The product of two stacks of matrices, each transposed first if asked for, as one extern stage.

    Raises:
        TypeCheckError: they are not stacks of matrices, or do not fit.
    """
    _check(lhs, rhs, 3, transa, transb)
    n, m = lhs.shape[2 if transa else 1], rhs.shape[1 if transb else 2]
    return extern(
        (lhs.shape[0], n, m),
        [lhs, rhs],
        lambda ins, outs: call_packed("tvm.contrib.cblas.batch_matmul", ins[0], ins[1], outs[0], transa, transb),
        name="C",
        **kwargs,
    )


def _check(lhs: Tensor, rhs: Tensor, ndim: int, transa: bool, transb: bool) -> None:
    if lhs.ndim != ndim or rhs.ndim != ndim:
        raise TypeCheckError(f"{user_location()}: the operands have {lhs.ndim} and {rhs.ndim} dimensions, not {ndim}")
    k, j = lhs.shape[-2 if transa else -1], rhs.shape[-1 if transb else -2]
    if isinstance(k, int) and isinstance(j, int) and k != j:
        raise TypeCheckError(f"{user_location()}: the operands have {k} and {j} elements to sum over")


@register_func("tvm.contrib.cblas.batch_matmul")
@register_func("tvm.contrib.cblas.matmul")
def _matmul(lhs: NDArray, rhs: NDArray, out: NDArray, transa: bool = False, transb: bool = False) -> None:
    a, b = lhs.numpy(), rhs.numpy()
    np.matmul(a.swapaxes(-1, -2) if transa else a, b.swapaxes(-1, -2) if transb else b, out=out._data)
