"""What operator definitions share: broadcasting of symbolic shapes, indices under it, arithmetic on known contents."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from tensorlang import te
from tensorlang.errors import TypeCheckError
from tensorlang.graph.ir import Value, lowest
from tensorlang.ir.dtype import DType, dtype as dtype_of, f32, i8, i32, u8
from tensorlang.ir.expr import Expr, ExprLike, call, cast, wrap
from tensorlang.ir.visitor import free_vars, walk
from tensorlang.symbolic.simplify import Interval, simplify

Dims = tuple[Expr, ...]
DATA_LIMIT = 64  # elements; larger tensors are not shape arithmetic


# -- dimensions ----------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1 << 14)
def _canonical(e: Expr) -> Expr:
    return simplify(e, {v: Interval(lowest(v), None) for v in free_vars(e)})


def canonical(dim: ExprLike) -> Expr:
    """`dim` in the one form that equal dimensions share.

    Each of its variables is a size, at least 1, or an integer that a run tells (`ir.runtime_dim`).
    """
    e = wrap(dim)
    return e if e.op in ("const", "var") else _canonical(e)


def dims_of(shape: Iterable[ExprLike]) -> Dims:
    """A shape attribute as canonical dimensions."""
    return tuple(canonical(d) for d in shape)


def plain(dims: Iterable[ExprLike]) -> tuple[int | Expr, ...]:
    """Dimensions as attributes hold them: integers where known, expressions elsewhere."""
    return tuple(e.value if e.op == "const" else e for e in map(wrap, dims))


def product(dims: Iterable[ExprLike]) -> Expr:
    total = wrap(1)
    for d in dims:
        total = total * d
    return canonical(total)


def known_size(dim: ExprLike) -> int:
    """A dimension as an integer.

    Raises:
        TypeCheckError: it is symbolic.
    """
    e = wrap(dim)
    require(e.op == "const", f"the size {e} must be known")
    return int(e.value)


def _complexity(e: Expr) -> int:
    return sum(1 for _ in walk(e))


def same_dim(a: Expr, b: Expr, what: str) -> Expr:
    """The dimension of two that must be equal: a constant before a symbol, else the simpler expression.

    Symbolic dimensions that cannot be told apart are taken to be equal; `constraints` of the operator says so, and whoever
    runs the graph checks it.

    Raises:
        TypeCheckError: they are different constants.
    """
    if a is b:
        return a
    if a.op == "const" and b.op == "const":
        raise TypeCheckError(f"{what}: sizes {a} and {b} differ")
    if a.op == "const" or b.op == "const":
        return a if a.op == "const" else b
    return b if _complexity(b) < _complexity(a) else a


def is_one(d: ExprLike) -> bool:
    return isinstance(d, int) and d == 1 or isinstance(d, Expr) and d.op == "const" and d.value == 1


def broadcast_dims(shapes: Sequence[Dims], what: str) -> Dims:
    """The shape of an elementwise operation on `shapes` (NumPy's rule; a symbolic size is taken not to be a stretched 1).

    Raises:
        TypeCheckError: two constants differ and neither is 1.
    """
    ndim = max(map(len, shapes), default=0)
    result: list[Expr] = []
    for axis in range(-ndim, 0):
        dim = wrap(1)
        for shape in shapes:
            if len(shape) >= -axis and not is_one(shape[axis]):
                other = shape[axis]
                dim = other if is_one(dim) else same_dim(dim, other, f"{what}: {_show(shapes)} do not broadcast")
        result.append(dim)
    return tuple(result)


def broadcast_constraints(shapes: Sequence[Dims]) -> list[tuple[Expr, Expr]]:
    """The pairs of dimensions that `broadcast_dims` took to be equal."""
    out = broadcast_dims(shapes, "broadcast")
    pairs = []
    for shape in shapes:
        for axis in range(-len(shape), 0):
            if shape[axis] is not out[axis] and not is_one(shape[axis]):
                pairs.append((shape[axis], out[axis]))
    return pairs


def _show(shapes: Sequence[Dims]) -> str:
    return " and ".join("[" + ", ".join(map(str, s)) + "]" for s in shapes)


def normalise_axis(axis: int, ndim: int, what: str) -> int:
    """`axis` counted from the front.

    Raises:
        TypeCheckError: out of range.
    """
    if not -ndim <= axis < max(ndim, 1):
        raise TypeCheckError(f"{what}: axis {axis} of a tensor with {ndim} dimension(s)")
    return axis + ndim if axis < 0 else axis


def require(condition: bool, message: str) -> None:
    """
    Raises:
        TypeCheckError: `condition` does not hold.
    """
    if not condition:
        raise TypeCheckError(message)


# -- tensor expressions --------------------------------------------------------------------------------------------


def at(x: te.Tensor, index: Sequence[Expr], out_shape: Sequence[ExprLike] | None = None) -> Expr:
    """The element of `x` that lands at `index` of a broadcast result: trailing dimensions align, sizes of 1 stretch.

    A size of 1 keeps the result's own index where that has size 1 too, so that unbroadcast reads look alike.
    """
    offset = len(index) - x.ndim
    picked: list[ExprLike] = []
    for position, size in enumerate(x.shape):
        stretched = is_one(size) and not (out_shape is not None and is_one(out_shape[offset + position]))
        picked.append(0 if stretched else index[offset + position])
    return x[tuple(picked)]


def broadcast_shape(*tensors: te.Tensor) -> tuple[int | Expr, ...]:
    """The broadcast shape of te tensors."""
    return plain(broadcast_dims([tuple(wrap(d) for d in t.shape) for t in tensors], "broadcast"))


def intrinsic(name: str, *args: Expr) -> Expr:
    return call(name, *args)


def accumulator(dtype: DType) -> DType:
    """The type sums of `dtype` are kept in: half precisions accumulate in f32."""
    return f32 if dtype.is_float and dtype.bits == 16 else dtype


def product_type(a: DType, b: DType, out: str | None = None) -> DType | None:
    """The type of sums of products of `a` by `b`: `out` if that is said, or their own; of u8 by i8, which machines multiply and
    add in one step, i32."""
    if (a, b) == (u8, i8):
        return i32
    return None if a != b else a if out is None else dtype_of(out)


def as_float(e: ExprLike, dtype: DType) -> Expr:
    """A count as a floating-point factor."""
    return te.const(float(e), dtype) if isinstance(e, int) else cast(dtype, wrap(e))


def wide(x: Expr, to: DType | None = None) -> Expr:
    """`x` in the accumulation type of `to`, its own type by default."""
    return cast(accumulator(to or x.dtype), x)


def wrapped_index(index: Expr, size: ExprLike) -> Expr:
    """A run-time index: negative counts from the end; beyond the ends it is held at the ends, so memory stays safe."""
    i = cast("i64", index)
    i = te.select(i < 0, i + size, i)
    return te.maximum(te.minimum(i, wrap(size) - 1), 0)


# -- known contents ------------------------------------------------------------------------------------------------


def known(*values: Value) -> list[np.ndarray] | None:
    """Contents of integer or boolean values as object arrays of expressions, if all are known."""
    found = [v.data for v in values]
    return None if any(d is None for d in found) else found  # type: ignore[return-value]


def map_data(function: Callable[..., Any], *arrays: np.ndarray) -> np.ndarray | None:
    """`function` of corresponding elements (broadcast), canonical; None if the result is too large to be a shape."""
    iterator = np.broadcast(*arrays)
    if iterator.size > DATA_LIMIT:
        return None
    result = np.empty(iterator.shape, dtype=object)
    for index, elements in zip(np.ndindex(iterator.shape), iterator, strict=True):
        result[index] = canonical(function(*elements))
    return result


def object_array(values: Iterable[ExprLike], shape: tuple[int, ...]) -> np.ndarray:
    flat = np.empty(int(np.prod(shape, dtype=np.int64)), dtype=object)
    for position, value in enumerate(values):
        flat[position] = canonical(value)
    return flat.reshape(shape)
