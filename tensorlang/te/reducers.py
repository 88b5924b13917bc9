"""Reducers that the user makes, of values and of tuples of values; argmax and argmin are two of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tensorlang.ir.dtype import DType
from tensorlang.ir.expr import Expr, ExprLike, and_, call, const, eq, fail, lt, not_, or_, reduce, select, var, wrap
from tensorlang.ir.reduction import Reducer
from tensorlang.te.math import ReducerPart, checked_axes, checked_init, max_value, min_value
from tensorlang.te.tensor import extent_of


class CommReducer:
    """A commutative, associative reducer; call it on what it reduces, as the outermost operation of a stage.

    That it is both is taken from the user: `rfactor` and `reorder` rely on it.
    """

    def __init__(self, fcombine: Callable[..., Any], fidentity: Callable[..., Any], name: str):
        self.fcombine, self.fidentity, self.name = fcombine, fidentity, name
        self._of: dict[tuple[DType, ...], Reducer] = {}

    def __repr__(self) -> str:
        return f"te.comm_reducer({self.name})"

    def __call__(
        self,
        source: ExprLike | Sequence[ExprLike],
        axis: Expr | Sequence[Expr] | None = None,
        where: ExprLike | None = None,
        init: ExprLike | Sequence[ExprLike] | None = None,
    ) -> Any:
        """The reduction of `source` over `axis`: an expression, or a tuple of them if `source` is a tuple.

        Args:
            source: an expression, or a tuple of expressions.
            where: a condition; points where it does not hold do not count.
            init: what the reduction begins with instead of the identity (a tuple, if `source` is one).

        Raises:
            TypeCheckError: the combination does not fit the types of `source`.
        """
        what = f"te.{self.name}"
        axes = checked_axes(what, axis)
        many = isinstance(source, tuple | list)
        given_sources: Sequence[Any] = source if isinstance(source, tuple | list) else (source,)
        sources = tuple(wrap(e) for e in given_sources)
        reducer = self.reducer(tuple(e.dtype for e in sources), many)
        if where is not None:
            sources = tuple(select(where, e, i) for e, i in zip(sources, reducer.identity, strict=True))
        given: tuple[Any, ...] = () if init is None else tuple(init) if isinstance(init, tuple | list) else (init,)
        if given and len(given) != len(sources):
            fail(f"{what}: init= has {len(given)} value(s), what is reduced has {len(sources)}")
        inits = tuple(checked_init(what, i, e, axes) for i, e in zip(given, sources, strict=False))
        parts = tuple(
            reduce(ReducerPart(reducer, n), (*sources, *inits), axes, e.dtype) for n, e in enumerate(sources)
        )
        return parts if many else parts[0]

    def reducer(self, types: tuple[DType, ...], many: bool = True) -> Reducer:
        """What the user's functions say for values of `types`."""
        if types not in self._of:
            self._of[types] = self._traced(types, many)
        return self._of[types]

    def _traced(self, types: tuple[DType, ...], many: bool) -> Reducer:
        what = f"te.comm_reducer {self.name}"
        left, right = (tuple(var(f"{s}{n}", t) for n, t in enumerate(types)) for s in "xy")
        raw = self.fcombine(left, right) if many else self.fcombine(left[0], right[0])
        neutral = self.fidentity(*types)
        results = tuple(raw) if isinstance(raw, tuple | list) else (raw,)
        identity = tuple(neutral) if isinstance(neutral, tuple | list) else (neutral,)
        if len(results) != len(types) or len(identity) != len(types):
            fail(f"{what}: the combination gives {len(results)} value(s), the identity {len(identity)}, for {len(types)}")
        result = tuple(wrap(e, v) for e, v in zip(results, left, strict=True))
        made = tuple(_constant(what, i, v) for i, v in zip(identity, left, strict=True))
        for e, v in zip(result, left, strict=True):
            if e.dtype != v.dtype:
                fail(f"{what}: the combination of {v.dtype} gives {e.dtype}; cast it")
        return Reducer(self.name, left, right, result, made)


def _constant(what: str, value: Any, like: Expr) -> Expr:
    e = wrap(value, like)
    e = const(e.value, like.dtype) if e.op == "const" else e
    if e.op != "const":
        fail(f"{what}: the identity is {e}, not a constant")
    return e


def comm_reducer(fcombine: Callable[..., Any], fidentity: Callable[..., Any], name: str = "reduce") -> CommReducer:
    """A commutative reducer of values or of tuples (classic TVM's).

    Args:
        fcombine: `fcombine(x, y)`, two values (or two tuples of values) combined; must be associative and commutative.
        fidentity: `fidentity(dtype, ...)`, for each value's type the constant that combining leaves unchanged.

        product = te.comm_reducer(lambda x, y: x * y, lambda t: te.const(1, t), name="product")
        k = te.reduce_axis(n)
        te.compute((m,), lambda i: product(a[i, k], axis=k), name="p")
    """
    return CommReducer(fcombine, fidentity, name)


def _arg_reducer(name: str, beats: Callable[[Expr, Expr], Expr], worst: Callable[[DType], Expr]) -> CommReducer:
    """The better of two (index, value): NaN is better than all else (as in NumPy), of equals the first index."""

    def combine(x: Sequence[Expr], y: Sequence[Expr]) -> tuple[Expr, Expr]:
        equal = eq(x[1], y[1])
        better = beats(x[1], y[1])
        if x[1].dtype.is_float:
            x_nan, y_nan = call("isnan", x[1]), call("isnan", y[1])
            equal = or_(equal, and_(x_nan, y_nan))
            better = or_(better, and_(x_nan, not_(y_nan)))
        keep = or_(better, and_(equal, lt(x[0], y[0])))
        return select(keep, x[0], y[0]), select(keep, x[1], y[1])

    return CommReducer(combine, lambda i, v: (max_value(i), worst(v)), name)


_ARGMAX = _arg_reducer("argmax", lambda a, b: lt(b, a), min_value)
_ARGMIN = _arg_reducer("argmin", lambda a, b: lt(a, b), max_value)


def _arg(reducer: CommReducer) -> Callable[..., tuple[Expr, Expr]]:
    def function(
        source: ExprLike | Sequence[ExprLike], axis: Expr | Sequence[Expr] | None = None, where: ExprLike | None = None
    ) -> tuple[Expr, Expr]:
        if not isinstance(source, tuple | list):
            axes = checked_axes(f"te.{reducer.name}", axis)
            index: Expr = axes[0]
            for a in axes[1:]:
                index = index * extent_of(a) + a
            pair: Sequence[Any] = (index, source)
        else:
            pair = source
        if len(pair) != 2:
            fail(f"te.{reducer.name} takes a value, or a pair (index, value)")
        found: tuple[Expr, Expr] = reducer(pair, axis=axis, where=where)
        return found

    better = "largest" if reducer.name == "argmax" else "smallest"
    function.__name__ = reducer.name
    function.__doc__ = (
        f"The index and the value, a tuple, of the {better} value over `axis`; of equal values the first one's (the smallest\n"
        f"    index), NaN before all others, as in NumPy. Where there is no value, the index is the largest i64.\n\n"
        "    Args:\n"
        "        source: the value, whose index is then its row-major position over `axis`; or a pair (index, value).\n"
        "        where: a condition; points where it does not hold do not count.\n"
    )
    return function


argmax = _arg(_ARGMAX)
argmin = _arg(_ARGMIN)
