"""The two shape operators that passes insert, with the algebra that keeps them from piling up.

    reshape(reshape(x, a), b)         ->  reshape(x, b)
    reshape(x, shape of x)            ->  x
    transpose(transpose(x, p), q)     ->  transpose(x, p[q[.]])
    transpose(x, identity)            ->  x
    transpose(x, p)                   ->  reshape(x, ...)      p moves only dimensions of size one: no data moves
"""

from __future__ import annotations

from collections.abc import Sequence

from tensorlang.graph.ir import Node, TensorType, Value
from tensorlang.graph.ops.common import dims_of, plain
from tensorlang.graph.rewrite import Rewriter, is_one, producer, same_shape
from tensorlang.ir.expr import Expr, ExprLike

Perm = tuple[int, ...]


def reshape(rw: Rewriter, x: Value, shape: Sequence[ExprLike], like: Node | None = None) -> Value:
    """`x` seen in another shape of as many elements."""
    dims = dims_of(shape)
    inner = producer(x, "reshape")
    if inner is not None:
        return reshape(rw, inner.inputs[0], dims, like)
    if same_shape(x.type, TensorType(x.dtype, dims)):
        return x
    return rw.add("reshape", [x], {"shape": plain(dims)}, like)


def transpose(rw: Rewriter, x: Value, perm: Sequence[int], like: Node | None = None) -> Value:
    """`x` with dimension `i` of the result being dimension `perm[i]` of `x`."""
    perm = tuple(perm)
    inner = producer(x, "transpose")
    if inner is not None:
        return transpose(rw, inner.inputs[0], compose(inner.attrs["perm"], perm), like)
    if perm == tuple(range(len(perm))):
        return x
    if moves_no_data(x.shape, perm):
        return reshape(rw, x, [x.shape[p] for p in perm], like)
    return rw.add("transpose", [x], {"perm": perm}, like)


def compose(first: Sequence[int], second: Sequence[int]) -> Perm:
    """The permutation of `transpose(transpose(x, first), second)`."""
    return tuple(first[p] for p in second)


def inverse(perm: Sequence[int]) -> Perm:
    result = [0] * len(perm)
    for position, axis in enumerate(perm):
        result[axis] = position
    return tuple(result)


def moves_no_data(shape: Sequence[Expr], perm: Sequence[int]) -> bool:
    """Whether the dimensions larger than one keep their order, so that the transposition is a reshape."""
    moved = [p for p in perm if not is_one(shape[p])]
    return moved == sorted(moved)

