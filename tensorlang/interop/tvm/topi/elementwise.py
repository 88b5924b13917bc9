"""Operations on each element, and on pairs of elements with NumPy's broadcasting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tensorlang import te
from tensorlang.interop.tvm.tensor import Tensor, broadcast, broadcast_index, broadcast_shape, compute
from tensorlang.interop.tvm.tir.expr import GE, GT
from tensorlang.ir import expr
from tensorlang.ir.dtype import dtype as as_dtype
from tensorlang.ir.expr import Expr, cast as cast_expr, fail

__all__ = [
    "abs", "acos", "add", "asin", "atan", "broadcast_add", "broadcast_div", "broadcast_mul", "broadcast_sub", "cast",
    "ceil", "clip", "cos", "cosh", "divide", "elemwise_sum", "equal", "erf", "exp", "floor", "floor_divide", "full",
    "full_like", "greater", "greater_equal", "identity", "isinf", "isnan", "left_shift", "less", "less_equal", "log",
    "log2", "logical_and", "logical_not", "logical_or", "maximum", "minimum", "mod", "multiply", "negative",
    "not_equal", "power", "right_shift", "round", "rsqrt", "sigmoid", "sign", "sin", "sinh", "sqrt", "subtract",
    "tan", "tanh", "trunc", "where",
]  # fmt: skip

ELEMWISE, BROADCAST = "elemwise", "broadcast"


def _unary(name: str, fn: Callable[[Expr], Expr]) -> Callable[[Tensor], Tensor]:
    def function(x: Tensor) -> Tensor:
        return compute(x.shape, lambda *i: fn(x(*i)), f"T_{name}", ELEMWISE)

    function.__name__ = name
    function.__doc__ = f"`{name}` of each element."
    return function


def _binary(name: str, fn: Callable[[Any, Any], Expr]) -> Callable[[Any, Any], Tensor]:
    def function(lhs: Any, rhs: Any) -> Tensor:
        if not isinstance(lhs, Tensor) and not isinstance(rhs, Tensor):
            fail(f"topi.{name}: one of the operands is a tensor")
        return broadcast(fn, lhs, rhs, f"T_{name}")

    function.__name__ = name
    function.__doc__ = f"`{name}` of pairs of elements; an operand may be a number."
    return function


exp = _unary("exp", te.exp)
log = _unary("log", te.log)
log2 = _unary("log2", te.log2)
sqrt = _unary("sqrt", te.sqrt)
rsqrt = _unary("rsqrt", te.rsqrt)
tanh = _unary("tanh", te.tanh)
sigmoid = _unary("sigmoid", te.sigmoid)
erf = _unary("erf", te.erf)
sin = _unary("sin", te.sin)
cos = _unary("cos", te.cos)
tan = _unary("tan", te.tan)
sinh = _unary("sinh", te.sinh)
cosh = _unary("cosh", te.cosh)
asin = _unary("asin", te.arcsin)
acos = _unary("acos", te.arccos)
atan = _unary("atan", te.arctan)
floor = _unary("floor", te.floor)
ceil = _unary("ceil", te.ceil)
trunc = _unary("trunc", te.trunc)
round = _unary("round", te.round)
abs = _unary("abs", te.abs)
sign = _unary("sign", te.sign)
isnan = _unary("isnan", te.isnan)
isinf = _unary("isinf", te.isinf)
negative = _unary("negative", expr.neg)
identity = _unary("identity", lambda x: x)
logical_not = _unary("logical_not", expr.not_)

add = _binary("add", expr.add)
subtract = _binary("subtract", expr.sub)
multiply = _binary("multiply", expr.mul)
divide = _binary("divide", expr.div)
floor_divide = _binary("floor_divide", expr.floordiv)
mod = _binary("mod", expr.floormod)
maximum = _binary("maximum", expr.maximum)
minimum = _binary("minimum", expr.minimum)
power = _binary("power", te.pow)
left_shift = _binary("left_shift", te.left_shift)
right_shift = _binary("right_shift", te.right_shift)
equal = _binary("equal", expr.eq)
not_equal = _binary("not_equal", expr.ne)
less = _binary("less", expr.lt)
less_equal = _binary("less_equal", expr.le)
greater = _binary("greater", GT)
greater_equal = _binary("greater_equal", GE)
logical_and = _binary("logical_and", expr.and_)
logical_or = _binary("logical_or", expr.or_)

broadcast_add, broadcast_sub, broadcast_mul, broadcast_div = add, subtract, multiply, divide


def cast(x: Tensor, dtype: str) -> Tensor:
    """Each element in another type."""
    return compute(x.shape, lambda *i: cast_expr(as_dtype(dtype), x(*i)), "T_cast", ELEMWISE)


def clip(x: Tensor, a_min: float, a_max: float) -> Tensor:
    """Each element within the two bounds."""
    return compute(x.shape, lambda *i: te.maximum(te.minimum(x(*i), a_max), a_min), "T_clip", ELEMWISE)


def elemwise_sum(xs: Sequence[Tensor]) -> Tensor:
    """The sum of tensors of one shape."""
    if not xs:
        fail("topi.elemwise_sum: no tensor given")

    def total(*i: Expr) -> Expr:
        result = xs[0](*i)
        for x in xs[1:]:
            result = result + x(*i)
        return result

    if wrong := [x for x in xs if list(x.shape) != list(xs[0].shape)]:
        fail(f"topi.elemwise_sum: {wrong[0].name} has shape {list(wrong[0].shape)}, {xs[0].name} {list(xs[0].shape)}")
    return compute(xs[0].shape, total, "T_elemwise_sum", ELEMWISE)


def full(shape: Sequence[Any], dtype: str, fill_value: Any) -> Tensor:
    """One value in every element."""
    return compute(shape, lambda *i: te.const(fill_value, dtype), "T_full", ELEMWISE)


def full_like(x: Tensor, fill_value: Any) -> Tensor:
    """A tensor of the shape and type of `x` with one value in every element."""
    return full(x.shape, x.dtype, fill_value)


def where(condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """`x` where the condition holds (is not 0), else `y`."""
    shape = broadcast_shape(broadcast_shape(condition.shape, x.shape), y.shape)

    def element(*i: Expr) -> Expr:
        c = broadcast_index(condition, i)
        return te.select(c if c.dtype.is_bool else te.not_equal(c, 0), broadcast_index(x, i), broadcast_index(y, i))

    return compute(shape, element, "T_where", BROADCAST)
