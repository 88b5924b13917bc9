"""Reductions along axes, arg-reductions, cumulative sums and top-k."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tensorlang import te
from tensorlang.graph.ir import TensorType, Value
from tensorlang.graph.ops.common import as_float, object_array, product, require, wide
from tensorlang.graph.registry import COMPOUND, OPAQUE, REDUCTION, Op, op
from tensorlang.ir.expr import Expr, ExprLike, eq, wrap

Axes = Sequence[int]


def reduced_dims(x: TensorType, axes: Axes, keepdims: bool, what: str) -> tuple[Expr, ...]:
    require(all(0 <= a < x.ndim for a in axes), f"{what} along {list(axes)} of {x}")
    if keepdims:
        return tuple(wrap(1) if a in axes else d for a, d in enumerate(x.shape))
    return tuple(d for a, d in enumerate(x.shape) if a not in axes)


def reduce_stage(
    x: te.Tensor,
    axes: Axes,
    keepdims: bool,
    reducer: Callable[..., Expr],
    element: Callable[[Expr], Expr],
    name: str,
) -> te.Tensor:
    """The stage out[i] = reducer(element(x[i, k]) for k along `axes`)."""
    ks = {a: te.reduce_axis(x.shape[a], name=f"k{a}" if len(axes) > 1 else "k") for a in axes}
    shape = tuple(1 if a in axes else d for a, d in enumerate(x.shape) if keepdims or a not in axes)

    def body(*i: Expr) -> Expr:
        kept = iter([j for a, j in enumerate(i) if a not in axes] if keepdims else i)
        return reducer(element(x[tuple(ks[a] if a in ks else next(kept) for a in range(x.ndim))]), axis=list(ks.values()))

    return te.compute(shape, body, name=name)


class Reduction(Op):
    """out = after(reducer of before(x) along `axes`, count).

    Attributes:
        before: on each element, in the accumulation type.
        after: on the result and the number of elements reduced; None leaves the result as it is.
        reference: on (x in float64 or its own integer type, axes, keepdims).
    """

    reducer: Callable[..., Expr]
    before: Callable[[Expr], Expr]
    after: Callable[[Expr, ExprLike], Expr] | None
    reference: Callable[..., np.ndarray]

    def infer(self, x: TensorType, *, axes: Axes, keepdims: bool = True) -> list[TensorType]:
        return [TensorType(x.dtype, reduced_dims(x, axes, keepdims, self.name))]

    def te(self, x: te.Tensor, *, axes: Axes, keepdims: bool = True) -> te.Tensor:
        cls, axes = type(self), tuple(axes)
        after = cls.after
        if not axes:  # a reduction of single elements
            return te.compute(
                x.shape, lambda *i: _finish(after, cls.before(wide(x[i])), 1, x.dtype), name=self.name
            )
        count = product(x.shape[a] for a in axes)
        size: ExprLike = count.value if count.op == "const" else count
        direct = after is None and wide(x[(0,) * x.ndim]).dtype == x.dtype
        total = reduce_stage(
            x, axes, keepdims, cls.reducer, lambda e: cls.before(wide(e)), self.name if direct else f"{self.name}_sum"
        )
        if direct:
            return total
        return te.compute(total.shape, lambda *i: _finish(after, total[i], size, x.dtype), name=self.name)

    def numpy(self, x: np.ndarray, *, axes: Axes, keepdims: bool = True) -> np.ndarray:
        kind = np.asarray(x).dtype
        wide_x = np.asarray(x, np.float64) if kind.kind in "fV" else np.asarray(x)
        return np.asarray(type(self).reference(wide_x, axis=tuple(axes), keepdims=keepdims)).astype(kind)

    def data(self, x: Value, *, axes: Axes, keepdims: bool = True) -> list[np.ndarray | None] | None:
        fold = _CONTENT.get(self.name)
        if fold is None or x.data is None or tuple(axes) != tuple(range(x.type.ndim)) or not x.data.size:
            return None
        total = fold(list(x.data.flat))
        return [object_array([total], (1,) * x.type.ndim if keepdims else ())]


def _finish(after: Callable[[Expr, ExprLike], Expr] | None, value: Expr, count: ExprLike, dtype: Any) -> Expr:
    return te.cast(dtype, value if after is None else after(value, count))


def _fold(function: Callable[[Expr, Expr], Expr]) -> Callable[[list[Expr]], Expr]:
    def fold(elements: list[Expr]) -> Expr:
        total = elements[0]
        for e in elements[1:]:
            total = function(total, e)
        return total

    return fold


_CONTENT: dict[str, Callable[[list[Expr]], Expr]] = {
    "reduce_sum": _fold(lambda a, b: a + b),
    "reduce_prod": _fold(lambda a, b: a * b),
    "reduce_max": _fold(te.maximum),
    "reduce_min": _fold(te.minimum),
}


def _mean(total: Expr, count: ExprLike) -> Expr:
    if total.dtype.is_float:
        return total / as_float(count, total.dtype)
    return te.truncdiv(total, te.cast(total.dtype, wrap(count)))


def _np_mean(x: np.ndarray, axis: tuple[int, ...], keepdims: bool) -> np.ndarray:
    if x.dtype.kind == "f":
        return np.mean(x, axis=axis, keepdims=keepdims)
    count = int(np.prod([x.shape[a] for a in axis], dtype=np.int64))
    return np.trunc(np.sum(x, axis=axis, keepdims=keepdims) / count)


def reduction(
    name: str,
    reducer: Callable[..., Expr],
    reference: Callable[..., np.ndarray],
    before: Callable[[Expr], Expr] = lambda e: e,
    after: Callable[[Expr, ExprLike], Expr] | None = None,
) -> None:
    members = {
        "reducer": staticmethod(reducer),
        "before": staticmethod(before),
        "after": None if after is None else staticmethod(after),
        "reference": staticmethod(reference),
        "__doc__": f"{name} of x along `axes`; `keepdims` leaves them with size 1.",
    }
    op(name, REDUCTION)(type(name.title().replace("_", ""), (Reduction,), members))


def _square(e: Expr) -> Expr:
    return e * e


reduction("reduce_sum", te.sum, np.sum)
reduction("reduce_mean", te.sum, _np_mean, after=_mean)
def _np_extreme(function: Callable[..., np.ndarray], lowest: bool) -> Callable[..., np.ndarray]:
    def reference(x: np.ndarray, **options: Any) -> np.ndarray:
        limits = np.iinfo(x.dtype) if x.dtype.kind in "iu" else None
        bottom, top = (limits.min, limits.max) if limits else (-np.inf, np.inf)
        return function(x, initial=bottom if lowest else top, **options)  # the value of an empty reduction

    return reference


reduction("reduce_max", te.max, _np_extreme(np.max, True))
reduction("reduce_min", te.min, _np_extreme(np.min, False))
reduction("reduce_prod", te.prod, np.prod)
reduction("reduce_l1", te.sum, lambda x, **kw: np.sum(np.abs(x), **kw), before=te.abs)
reduction(
    "reduce_l2", te.sum, lambda x, **kw: np.sqrt(np.sum(x * x, **kw)), before=_square, after=lambda t, n: te.sqrt(t)
)
reduction("reduce_sum_square", te.sum, lambda x, **kw: np.sum(x * x, **kw), before=_square)
reduction("reduce_log_sum", te.sum, lambda x, **kw: np.log(np.sum(x, **kw)), after=lambda t, n: te.log(t))


@op("reduce_log_sum_exp", COMPOUND)
class ReduceLogSumExp(Op):
    """log(sum(exp(x))) along `axes`, with the largest element taken out first."""

    def infer(self, x: TensorType, *, axes: Axes, keepdims: bool = True) -> list[TensorType]:
        require(x.dtype.is_float, f"reduce_log_sum_exp of {x.dtype}")
        return [TensorType(x.dtype, reduced_dims(x, axes, keepdims, self.name))]

    def te(self, x: te.Tensor, *, axes: Axes, keepdims: bool = True) -> te.Tensor:
        axes = tuple(axes)
        largest = reduce_stage(x, axes, True, te.max, wide, "largest")
        shift = te.compute(
            largest.shape,
            lambda *i: te.select(te.isinf(largest[i]), te.const(0, largest.dtype), largest[i]),
            name="shift",
        )
        powers = te.compute(
            x.shape,
            lambda *i: te.exp(wide(x[i]) - shift[tuple(0 if a in axes else j for a, j in enumerate(i))]),
            name="powers",
        )
        total = reduce_stage(powers, axes, keepdims, te.sum, lambda e: e, "total")

        def element(*i: Expr) -> Expr:
            kept = iter(i if not keepdims else [j for a, j in enumerate(i) if a not in axes])
            at = tuple(0 if a in axes else next(kept) for a in range(x.ndim))
            return te.cast(x.dtype, te.log(total[i]) + shift[at])

        return te.compute(total.shape, element, name="reduce_log_sum_exp")

    def numpy(self, x: np.ndarray, *, axes: Axes, keepdims: bool = True) -> np.ndarray:
        w = x.astype(np.float64)
        top = np.max(w, axis=tuple(axes), keepdims=True, initial=-np.inf)
        top = np.where(np.isinf(top), 0, top)
        total = np.log(np.sum(np.exp(w - top), axis=tuple(axes), keepdims=True)) + top
        return (total if keepdims else np.squeeze(total, tuple(axes))).astype(x.dtype)


class ArgReduction(Op):
    """The position of the extreme element along `axis`, as i64: of the first one, or of the last one."""

    reducer: Callable[..., Expr]
    largest: bool

    def infer(self, x: TensorType, *, axis: int, keepdims: bool = True, last: bool = False) -> list[TensorType]:
        return [TensorType.of("i64", reduced_dims(x, [axis], keepdims, self.name))]

    def te(self, x: te.Tensor, *, axis: int, keepdims: bool = True, last: bool = False) -> te.Tensor:
        extreme = reduce_stage(x, [axis], True, type(self).reducer, lambda e: e, f"{self.name}_value")
        size = x.shape[axis]
        k = te.reduce_axis(size, name="k")
        shape = tuple(1 if a == axis else d for a, d in enumerate(x.shape) if keepdims or a != axis)

        def element(*i: Expr) -> Expr:
            kept = [j for a, j in enumerate(i) if a != axis] if keepdims else list(i)
            before, after = kept[:axis], kept[axis:]
            hit = eq(x[(*before, k, *after)], extreme[(*before, 0, *after)])
            if last:
                return te.max(te.select(hit, k, te.const(0, "i64")), axis=k)
            return te.min(te.select(hit, k, wrap(size) - 1), axis=k)

        return te.compute(shape, element, name=self.name)

    def numpy(self, x: np.ndarray, *, axis: int, keepdims: bool = True, last: bool = False) -> np.ndarray:
        find = np.argmax if type(self).largest else np.argmin
        if last:
            result = x.shape[axis] - 1 - find(np.flip(x, axis), axis=axis)
        else:
            result = find(x, axis=axis)
        return np.expand_dims(result, axis).astype(np.int64) if keepdims else np.asarray(result, np.int64)


@op("argmax", COMPOUND)
class ArgMax(ArgReduction):
    reducer = staticmethod(te.max)
    largest = True


@op("argmin", COMPOUND)
class ArgMin(ArgReduction):
    reducer = staticmethod(te.min)
    largest = False


class Cumulative(Op):
    """All elements up to and with each one along `axis` combined; `exclusive`: without it; `reverse`: from the end."""

    combine: Callable[[Expr, Expr], Expr]
    neutral: int
    accumulate: Callable[..., np.ndarray]

    def infer(self, x: TensorType, *, axis: int, exclusive: bool = False, reverse: bool = False) -> list[TensorType]:
        require(0 <= axis < x.ndim, f"{self.name} along axis {axis} of {x}")
        return [x]

    def te(self, x: te.Tensor, *, axis: int, exclusive: bool = False, reverse: bool = False) -> te.Tensor:
        """A scan over one row more than there are elements: row t combines the first t of them. Where it goes through the first
        dimension, forwards, its rows are the result themselves."""
        size, rest = wrap(x.shape[axis]), (*x.shape[:axis], *x.shape[axis + 1 :])
        dtype = wide(x[(0,) * x.ndim]).dtype
        if axis == 0 and not exclusive and not reverse and dtype == x.dtype and size.op == "const" and size.value > 0:
            return self._rows(x, rest)
        state = te.placeholder((size + 1, *rest), str(dtype), name="state")
        if axis and axis == x.ndim - 1:
            # A stage of its own, so that a schedule can lay lines side by side before steps go over them.
            turned = te.compute((size, *rest), lambda t, *r: x[(*r, t)], name="turned")
        else:
            turned = None

        def step(t: Expr, *r: Expr) -> Expr:
            place = size - t if reverse else t - 1
            taken = x[(*r[:axis], place, *r[axis:])] if turned is None else turned[(place, *r)]
            return type(self).combine(state[(t - 1, *r)], wide(taken))

        first = te.compute((1, *rest), lambda *_: te.const(self.neutral, dtype), name="first")
        rows = te.scan(first, te.compute((size + 1, *rest), step, name="step"), state, name="rows")

        def element(*i: Expr) -> Expr:
            place = size - 1 - i[axis] if reverse else i[axis]
            return te.cast(x.dtype, rows[(place if exclusive else place + 1, *i[:axis], *i[axis + 1 :])])

        return te.compute(x.shape, element, name=self.name)

    def _rows(self, x: te.Tensor, rest: tuple[int | Expr, ...]) -> te.Tensor:
        """out[0] = x[0], out[t] = out[t - 1] combined with x[t]"""
        state = te.placeholder(x.shape, str(x.dtype), name="state")
        first = te.compute((1, *rest), lambda _, *r: x[(0, *r)], name="first")
        step = te.compute(x.shape, lambda t, *r: type(self).combine(state[(t - 1, *r)], x[(t, *r)]), name="step")
        return te.scan(first, step, state, name=self.name)

    def numpy(self, x: np.ndarray, *, axis: int, exclusive: bool = False, reverse: bool = False) -> np.ndarray:
        y = np.flip(x, axis) if reverse else x
        if exclusive:
            first = np.full_like(np.take(y, [0], axis), self.neutral) if y.shape[axis] else y
            y = np.concatenate([first, np.take(y, np.arange(y.shape[axis] - 1), axis)], axis) if y.shape[axis] else y
        total = type(self).accumulate(y, axis, dtype=x.dtype)
        return np.flip(total, axis) if reverse else total


@op("cumsum", OPAQUE)
class CumSum(Cumulative):
    combine = staticmethod(lambda a, b: a + b)
    neutral = 0
    accumulate = staticmethod(np.cumsum)


@op("cumprod", OPAQUE)
class CumProd(Cumulative):
    combine = staticmethod(lambda a, b: a * b)
    neutral = 1
    accumulate = staticmethod(np.cumprod)
