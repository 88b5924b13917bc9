"""Operations that move elements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tensorlang import te
from tensorlang.interop.tvm.tensor import Tensor, broadcast_index, broadcast_shape, compute
from tensorlang.ir.dtype import dtype as as_dtype
from tensorlang.ir.expr import Expr, cast, fail, wrap

INJECTIVE = "injective"


def normal_axis(axis: int, ndim: int) -> int:
    """An axis counted from the front.

    Raises:
        TypeCheckError: there is none.
    """
    if not -ndim <= axis < ndim:
        fail(f"axis {axis} of a tensor of {ndim} dimension(s)")
    return axis % ndim


def transpose(a: Tensor, axes: Sequence[int] | None = None) -> Tensor:
    """The dimensions in another order; reversed without `axes`."""
    order = [normal_axis(x, a.ndim) for x in axes] if axes is not None else list(reversed(range(a.ndim)))
    if sorted(order) != list(range(a.ndim)):
        fail(f"topi.transpose: {list(axes or [])} is no order of {a.ndim} dimension(s)")
    place = {source: target for target, source in enumerate(order)}
    shape = [a.shape[x] for x in order]
    return compute(shape, lambda *i: a(*(i[place[d]] for d in range(a.ndim))), "T_transpose", INJECTIVE)


def expand_dims(a: Tensor, axis: int, num_newaxis: int = 1) -> Tensor:
    """Dimensions of extent 1 more, before `axis`."""
    at = normal_axis(axis, a.ndim + 1)
    shape = [*a.shape[:at], *[1] * num_newaxis, *a.shape[at:]]
    return compute(shape, lambda *i: a(*i[:at], *i[at + num_newaxis :]), "T_expand_dims", INJECTIVE)


def squeeze(a: Tensor, axis: int | Sequence[int] | None = None) -> Tensor:
    """Dimensions of extent 1 fewer: those named, or all."""
    if axis is None:
        gone = {n for n, d in enumerate(a.shape) if isinstance(d, int) and d == 1}
    else:
        gone = {normal_axis(x, a.ndim) for x in ([axis] if isinstance(axis, int) else axis)}
    if wrong := [n for n in gone if not (isinstance(a.shape[n], int) and a.shape[n] == 1)]:
        fail(f"topi.squeeze: dimension {wrong[0]} of {a.name} has extent {a.shape[wrong[0]]}")
    kept = [n for n in range(a.ndim) if n not in gone]

    def element(*i: Expr) -> Expr:
        at = dict(zip(kept, i, strict=True))
        return a(*(at.get(n, 0) for n in range(a.ndim)))

    return compute([a.shape[n] for n in kept], element, "T_squeeze", INJECTIVE)


def reshape(a: Tensor, newshape: Sequence[Any]) -> Tensor:
    """The elements, in row-major order, in another shape."""
    shape = tuple(newshape)

    def element(*i: Expr) -> Expr:
        flat: Any = wrap(0)
        for index, d in zip(i, shape, strict=True):
            flat = flat * d + index
        found = []
        for d in reversed(a.shape[1:]):
            found.append(flat % d)
            flat = flat // d
        return a(*([flat, *reversed(found)] if a.ndim else []))

    sizes = [_product(a.shape), _product(shape)]
    if all(isinstance(s, int) for s in sizes) and sizes[0] != sizes[1]:
        fail(f"topi.reshape: {list(a.shape)} has {sizes[0]} elements, {list(shape)} has {sizes[1]}")
    return compute(shape, element, "T_reshape", INJECTIVE)


def _product(shape: Sequence[Any]) -> Any:
    total: Any = 1
    for d in shape:
        total = total * d
    return total


def broadcast_to(data: Tensor, shape: Sequence[Any]) -> Tensor:
    """`data` in a larger shape, by NumPy's rule."""
    result = broadcast_shape(data.shape, shape)
    return compute(result, lambda *i: broadcast_index(data, i), "T_broadcast_to", "broadcast")


def concatenate(a_tuple: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Tensors one after the other along `axis`."""
    first = a_tuple[0]
    at = normal_axis(axis, first.ndim)
    ends: list[Any] = []
    total: Any = 0
    for a in a_tuple:
        total = total + a.shape[at]
        ends.append(total)

    def element(*i: Expr) -> Expr:
        result = None
        for n in reversed(range(len(a_tuple))):
            begin = ends[n - 1] if n else 0
            value = a_tuple[n](*i[:at], i[at] - begin, *i[at + 1 :])
            result = value if result is None else te.if_then_else(i[at] < ends[n], value, result)
        assert result is not None
        return result

    return compute([*first.shape[:at], total, *first.shape[at + 1 :]], element, "T_concat", INJECTIVE)


def flip(a: Tensor, axis: int = 0) -> Tensor:
    """The elements along `axis` in reverse order."""
    at = normal_axis(axis, a.ndim)
    return compute(a.shape, lambda *i: a(*i[:at], a.shape[at] - 1 - i[at], *i[at + 1 :]), "T_flip", INJECTIVE)


def take(a: Tensor, indices: Tensor, axis: int = 0, mode: str = "clip") -> Tensor:
    """The slices of `a` along `axis` at the places that `indices` give; `mode` is "clip" or "wrap"."""
    at = normal_axis(axis, a.ndim)
    if mode not in ("clip", "wrap"):
        fail(f"topi.take: mode is 'clip' or 'wrap', not {mode!r}")

    def element(*i: Expr) -> Expr:
        place = cast(as_dtype("int64"), indices(*i[at : at + indices.ndim]))
        size = a.shape[at]
        place = te.maximum(te.minimum(place, size - 1), 0) if mode == "clip" else place % size
        return a(*i[:at], place, *i[at + indices.ndim :])

    return compute([*a.shape[:at], *indices.shape, *a.shape[at + 1 :]], element, "T_take", INJECTIVE)


def arange(start: Any, stop: Any = None, step: Any = 1, dtype: str = "float32") -> Tensor:
    """`start`, `start + step`, ... before `stop`; numbers only."""
    low, high = (0, start) if stop is None else (start, stop)
    count = max(0, -int((low - high) // step))
    whole = isinstance(low, int) and isinstance(step, int)

    def element(i: Expr) -> Expr:
        return cast(as_dtype(dtype), i * step + low if whole else i.astype(dtype) * step + low)

    return compute((count,), element, "T_arange")
