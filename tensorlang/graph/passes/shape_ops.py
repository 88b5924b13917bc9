"""The two shape operators that passes insert, with the algebra that keeps them from piling up.

reshape(reshape(x, a), b)         ->  reshape(x, b)
reshape(x, shape of x)            ->  x
transpose(transpose(x, p), q)     ->  transpose(x, p[q[.]])
transpose(x, identity)            ->  x
transpose(x, p)                   ->  reshape(x, ...)      p moves only dimensions of size one: no data moves
"""

from __future__ import annotations

from collections import Counter
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


def factor(old: Sequence[Expr], new: Sequence[Expr]) -> list[tuple[list[int], list[int]]] | None:
    """The finest split of a reshape into independent ones: pairs of (input dims, output dims) with equal products.

    `[8, 6, 5] -> [8, 2, 15]` gives `[([0], [0]), ([1, 2], [1, 2])]`. Dimensions of size one stand alone, with nothing on the
    other side. None if products of symbolic dimensions cannot be compared.
    """
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(old) or j < len(new):
        if i < len(old) and j < len(new) and old[i] is new[j]:
            groups.append(([i], [j]))
            i, j = i + 1, j + 1
            continue
        if j < len(new) and is_one(new[j]):
            groups.append(([], [j]))
            j += 1
            continue
        if i < len(old) and is_one(old[i]):
            groups.append(([i], []))
            i += 1
            continue
        if i >= len(old) or j >= len(new):
            return None
        left, right = [i], [j]
        a, b = _monomial(old[i]), _monomial(new[j])
        i, j = i + 1, j + 1
        while a != b:
            if i < len(old) and (_divides(a, b) or j >= len(new)):
                left.append(i)
                a = _times(a, _monomial(old[i]))
                i += 1
            elif j < len(new) and _divides(b, a):
                right.append(j)
                b = _times(b, _monomial(new[j]))
                j += 1
            elif i < len(old) and a[0] <= b[0]:
                left.append(i)
                a = _times(a, _monomial(old[i]))
                i += 1
            elif j < len(new):
                right.append(j)
                b = _times(b, _monomial(new[j]))
                j += 1
            else:
                return None
        groups.append((left, right))
    return groups


_Monomial = tuple[int, Counter[Expr]]


def _monomial(e: Expr) -> _Monomial:
    """A product as (number, atoms)."""
    number, pending = 1, [e]
    atoms: Counter[Expr] = Counter()
    while pending:
        x = pending.pop()
        if x.op == "mul":
            pending += x.args
        elif x.op == "const":
            number *= x.value
        else:
            atoms[x] += 1
    return number, atoms


def _times(a: _Monomial, b: _Monomial) -> _Monomial:
    return a[0] * b[0], a[1] + b[1]


def _divides(a: _Monomial, b: _Monomial) -> bool:
    """Whether `a` is a proper divisor of `b`."""
    return a != b and a[0] != 0 and b[0] % a[0] == 0 and a[1] <= b[1]
