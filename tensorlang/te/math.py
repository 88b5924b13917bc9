"""The functions of the language on scalar expressions, and the reducers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce as fold

import numpy as np

from tensorlang.errors import TypeCheckError
from tensorlang.ir import expr
from tensorlang.ir.dtype import DType, bool_, promote
from tensorlang.ir.expr import Expr, ExprLike, call, const as ir_const, fail, wrap
from tensorlang.ir.reduction import Reducer, builtin_reducer
from tensorlang.ir.visitor import free_vars
from tensorlang.te.annotations import TensorKind
from tensorlang.te.tensor import DTypeLike, is_reduce_axis, unwrap_dtype

maximum = expr.maximum
minimum = expr.minimum
floordiv = expr.floordiv
floormod = expr.floormod
equal = expr.eq
not_equal = expr.ne
less = expr.lt
less_equal = expr.le
logical_not = expr.not_
var = expr.var


def _reducer(kind: str) -> Callable[..., Expr]:
    def reducer(
        source: ExprLike,
        axis: Expr | Sequence[Expr] | None = None,
        where: ExprLike | None = None,
        init: ExprLike | None = None,
    ) -> Expr:
        hint = f"; for two scalars use te.{kind}imum" if kind in ("max", "min") else ""
        axes = checked_axes(f"te.{kind}", axis, hint)
        x = wrap(source)
        if x.dtype.is_bool:
            fail(f"te.{kind} of bool; cast to an integer first")
        return _reduced(kind, x, axes, where, init)

    reducer.__name__ = kind
    reducer.__doc__ = (
        f"The {kind} of `source` over one or several reduce axes: the outermost operation of a stage.\n\n"
        "    Args:\n"
        "        where: a condition; points where it does not hold do not count.\n"
        "        init: what the reduction begins with, instead of the neutral element; may mention the stage's indices.\n"
    )
    return reducer


def checked_axes(what: str, axis: Expr | Sequence[Expr] | None, hint: str = "") -> tuple[Expr, ...]:
    """The axes of a reducer as a tuple.

    Raises:
        TypeCheckError: there is none, one is no reduce axis, or one is given twice.
    """
    axes = (axis,) if isinstance(axis, Expr) else tuple(axis or ())
    if not axes or [a for a in axes if not is_reduce_axis(a)]:
        fail(f"{what}(expression, axis=...) needs axes made by te.reduce_axis{hint}")
    if len(set(axes)) != len(axes):
        fail(f"{what}: an axis is given twice")
    return axes


def _reduced(kind: str, x: Expr, axes: tuple[Expr, ...], where: ExprLike | None, init: ExprLike | None) -> Expr:
    if where is not None:
        x = expr.select(where, x, identity_of(kind, x.dtype))
    if init is None:
        return expr.reduce(kind, x, axes)
    part = ReducerPart(builtin_reducer(kind, x.dtype), 0)
    return expr.reduce(part, (x, checked_init(f"te.{kind}", init, x, axes)), axes)


def checked_init(what: str, init: ExprLike, like: Expr, axes: tuple[Expr, ...]) -> Expr:
    """The initial value of a reduction, of the type of what is reduced."""
    e = wrap(init, like)
    if e.dtype != like.dtype:
        fail(f"{what}: init= is {e.dtype}, what is reduced {like.dtype}; cast one of them")
    if free_vars(e) & set(axes):
        fail(f"{what}: init= uses an axis that is reduced over")
    return e


@dataclass(frozen=True, eq=False)
class ReducerPart:
    """The kind of a `reduce` expression that is more than a name: one of the results of a reducer of tuples.

    The expression's operands are the sources, then the initial values, if the user gave any.
    """

    reducer: Reducer
    index: int

    @property
    def width(self) -> int:
        return len(self.reducer.result)

    def __str__(self) -> str:
        return self.reducer.name


sum = _reducer("sum")
prod = _reducer("prod")
max = _reducer("max")
min = _reducer("min")


def _logical_reducer(kind: str, fold_op: Callable[[ExprLike, ExprLike], Expr]) -> Callable[..., Expr]:
    def function(
        *conditions: ExprLike,
        axis: Expr | Sequence[Expr] | None = None,
        where: ExprLike | None = None,
        init: ExprLike | None = None,
    ) -> Expr:
        joined = fold(fold_op, conditions, ir_const(kind == "all"))
        if axis is None:
            if where is not None or init is not None:
                fail(f"te.{kind}: where= and init= belong to a reduction; give axis=")
            return joined
        if len(conditions) != 1:
            fail(f"te.{kind}(condition, axis=...) reduces one condition, not {len(conditions)}")
        return _reduced(kind, joined, checked_axes(f"te.{kind}", axis), where, init)

    function.__name__ = kind
    function.__doc__ = (
        f"Whether {kind} of the conditions hold; with `axis=`, one condition reduced over axes (see `te.sum` for the rest)."
    )
    return function


any = _logical_reducer("any", expr.or_)
all = _logical_reducer("all", expr.and_)


def _float_function(name: str) -> Callable[[ExprLike], Expr]:
    def function(x: ExprLike) -> Expr:
        e = wrap(x)
        if not e.dtype.is_float:
            fail(f"te.{name} of {e.dtype}; cast to a floating-point type first")
        return call(name, e)

    function.__name__ = name
    function.__doc__ = f"Elementwise `{name}` of a floating-point expression (NumPy's meaning)."
    return function


exp = _float_function("exp")
log = _float_function("log")
log2 = _float_function("log2")
log1p = _float_function("log1p")
expm1 = _float_function("expm1")
sqrt = _float_function("sqrt")
rsqrt = _float_function("rsqrt")
tanh = _float_function("tanh")
sigmoid = _float_function("sigmoid")
erf = _float_function("erf")
sin = _float_function("sin")
cos = _float_function("cos")
tan = _float_function("tan")
arcsin = _float_function("arcsin")
arccos = _float_function("arccos")
arctan = _float_function("arctan")
sinh = _float_function("sinh")
cosh = _float_function("cosh")
arcsinh = _float_function("arcsinh")
arccosh = _float_function("arccosh")
arctanh = _float_function("arctanh")


def _rounding(name: str) -> Callable[[ExprLike], Expr]:
    def function(x: ExprLike) -> Expr:
        e = wrap(x)
        return call(name, e) if e.dtype.is_float else e

    function.__name__ = name
    function.__doc__ = f"`{name}` to an integral value of the same type; integers are unchanged."
    return function


floor = _rounding("floor")
ceil = _rounding("ceil")
trunc = _rounding("trunc")
round = _rounding("round")  # half to even


def abs(x: ExprLike) -> Expr:
    """The absolute value."""
    e = wrap(x)
    return e if e.dtype.kind in "ub" else call("abs", e)


def sign(x: ExprLike) -> Expr:
    """-1, 0 or 1 in the type of `x`."""
    return call("sign", x)


def isnan(x: ExprLike) -> Expr:
    e = wrap(x)
    return call("isnan", e, dtype=bool_) if e.dtype.is_float else ir_const(False)


def isinf(x: ExprLike) -> Expr:
    e = wrap(x)
    return call("isinf", e, dtype=bool_) if e.dtype.is_float else ir_const(False)


def _pair(name: str, a: ExprLike, b: ExprLike) -> tuple[Expr, Expr]:
    """Two operands in their common type."""
    x, y = wrap(a, b if isinstance(b, Expr) else None), wrap(b, a if isinstance(a, Expr) else None)
    try:
        common = promote(x.dtype, y.dtype)
    except TypeCheckError as error:
        fail(f"te.{name}: {error}")
    return expr.cast(common, x), expr.cast(common, y)


def _binary_call(name: str, a: ExprLike, b: ExprLike) -> Expr:
    return call(name, *_pair(name, a, b))


def pow(a: ExprLike, b: ExprLike) -> Expr:
    """`a` to the power `b`, both of one type."""
    return _binary_call("pow", a, b)


def fmod(a: ExprLike, b: ExprLike) -> Expr:
    """The remainder of a division that truncates, so with the sign of `a` (C's `fmod`, exact); integers too."""
    x, y = _pair("fmod", a, b)
    if not x.dtype.is_int:
        return call("fmod", x, y)
    rest = expr.floormod(x, y)
    return rest if x.dtype.kind == "u" else expr.select(expr.ne(rest, 0) & ((x < 0) ^ (y < 0)), rest - y, rest)


def truncdiv(a: ExprLike, b: ExprLike) -> Expr:
    """Integer division that truncates toward zero (C's `/`); `//` floors."""
    x, y = _pair("truncdiv", a, b)
    if not x.dtype.is_int:
        fail(f"te.truncdiv of {x.dtype}; it is for integers")
    if x.dtype.kind == "u":
        return expr.floordiv(x, y)
    quotient = expr.floordiv(x, y)  # not of magnitudes: the least integer has none
    return expr.select(((x < 0) ^ (y < 0)) & expr.ne(quotient * y, x), quotient + 1, quotient)


def left_shift(a: ExprLike, b: ExprLike) -> Expr:
    return _binary_call("left_shift", a, b)


def right_shift(a: ExprLike, b: ExprLike) -> Expr:
    return _binary_call("right_shift", a, b)


def fma(a: ExprLike, b: ExprLike, c: ExprLike) -> Expr:
    """`a * b + c`."""
    return call("fma", a, b, c)


def if_then_else(cond: ExprLike, a: ExprLike, b: ExprLike) -> Expr:
    """`a` where `cond` holds, else `b`; the other arm is not evaluated, so it may read out of bounds.

    Raises:
        TypeCheckError: `cond` is a Python bool. `x[i] == 0` is one: on expressions, == compares identity.
    """
    if isinstance(cond, bool | np.bool_):
        fail(
            "te.if_then_else: the condition is a Python bool, decided while the program is built; compare elements with "
            "te.equal / te.not_equal, and choose by a constant with Python's own `a if c else b`"
        )
    return expr.select(cond, a, b)


select = if_then_else


def cast(a: ExprLike | DTypeLike, b: ExprLike | DTypeLike) -> Expr:
    """`te.cast(dtype, x)` or `te.cast(x, dtype)`: conversion; floating point to integer truncates toward zero."""
    if isinstance(a, DType | TensorKind | str | type | np.dtype):
        a, b = b, a
    if isinstance(b, Expr | int | float):
        fail("te.cast takes an expression and a dtype")
    return expr.cast(unwrap_dtype(b), a)  # type: ignore[arg-type]


def const(value: int | float | bool | np.generic, dtype: DTypeLike | None = None) -> Expr:
    """A constant; without `dtype`: bool, i64 or f32 by the Python type."""
    return ir_const(value, None if dtype is None else unwrap_dtype(dtype))


def all_of(*conditions: ExprLike) -> Expr:
    """True if every condition holds."""
    return fold(expr.and_, conditions, ir_const(True))


def any_of(*conditions: ExprLike) -> Expr:
    """True if some condition holds."""
    return fold(expr.or_, conditions, ir_const(False))


logical_and = all_of
logical_or = any_of


def max_value(dtype: DTypeLike) -> Expr:
    """The largest value of `dtype`; infinity for floating point."""
    d = unwrap_dtype(dtype)
    if d.is_float:
        return ir_const(float("inf"), d)
    return ir_const(True, d) if d.is_bool else ir_const(int(np.iinfo(d.numpy).max), d)


def min_value(dtype: DTypeLike) -> Expr:
    """The smallest value of `dtype`; minus infinity for floating point."""
    d = unwrap_dtype(dtype)
    if d.is_float:
        return ir_const(float("-inf"), d)
    return ir_const(False, d) if d.is_bool else ir_const(int(np.iinfo(d.numpy).min), d)


def identity_of(kind: str, dtype: DType) -> Expr:
    """The neutral element of a reduction."""
    if kind in ("any", "all"):
        return ir_const(kind == "all")
    if kind in ("max", "min"):
        return min_value(dtype) if kind == "max" else max_value(dtype)
    return ir_const(0 if kind == "sum" else 1, dtype)
