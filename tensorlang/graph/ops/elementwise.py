"""Elementwise operators of one input, and `cast` and `clip`: output[i] = f(x[i])."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tensorlang import te
from tensorlang.graph.ir import TensorType, Value
from tensorlang.graph.ops.common import intrinsic, known, map_data, require
from tensorlang.graph.registry import ELEMENTWISE, Op, op
from tensorlang.ir.dtype import DType, bool_, dtype as as_dtype
from tensorlang.ir.expr import Expr, const, eq, ne
from tensorlang.ir.intrinsics import INTRINSICS

Body = Callable[..., Expr]
Reference = Callable[..., np.ndarray]
SQRT_HALF = math.sqrt(0.5)


class Unary(Op):
    """output[i] = body(x[i]; attrs), of the type of `x`.

    Attributes:
        body: on a scalar expression.
        reference: on an array, in the array's own dtype.
        content: on an element of known contents, or None if it cannot be known.
        result: the output's dtype, if not the input's.
    """

    body: Body
    reference: Reference
    content: Callable[..., Any] | None = None
    result: DType | None = None
    floating: bool = True

    def infer(self, x: TensorType, **attrs: Any) -> list[TensorType]:
        require(not self.floating or x.dtype.is_float, f"{self.name} of {x.dtype}: it takes floating-point numbers")
        return [TensorType(self.result or x.dtype, x.shape)]

    def te(self, x: te.Tensor, **attrs: Any) -> te.Tensor:
        body = type(self).body
        return te.compute(x.shape, lambda *i: body(x[i], **attrs), name=self.name)

    def numpy(self, x: np.ndarray, **attrs: Any) -> np.ndarray:
        result = type(self).reference(np.asarray(x), **attrs)
        return np.asarray(result, (self.result or as_dtype(x.dtype)).numpy)

    def data(self, x: Value, **attrs: Any) -> list[np.ndarray | None] | None:
        content = type(self).content
        if content is None or (contents := known(x)) is None:
            return None
        return [map_data(lambda e: content(e, **attrs), *contents)]


def unary(
    name: str,
    body: Body,
    reference: Reference,
    content: Callable[..., Any] | None = None,
    result: DType | None = None,
    floating: bool = True,
) -> None:
    """Register an operator output[i] = body(x[i])."""
    members = {
        "body": staticmethod(body),
        "reference": staticmethod(reference),
        "content": None if content is None else staticmethod(content),
        "result": result,
        "floating": floating,
        "__doc__": f"{name}(x), elementwise.",
    }
    op(name, ELEMENTWISE)(type(name.title().replace("_", ""), (Unary,), members))


def _c(value: float, x: Expr) -> Expr:
    return te.const(value, x.dtype)


def _intrinsic(name: str, floating: bool = True) -> None:
    unary(name, lambda x: intrinsic(name, x), INTRINSICS[name].numpy, floating=floating)


for _name in (
    "exp log log2 log1p expm1 sqrt rsqrt tanh sin cos tan sinh cosh floor ceil trunc round sigmoid erf "
    "arcsin arccos arctan arcsinh arccosh arctanh"
).split():
    _intrinsic(_name)

unary("sign", te.sign, np.sign, floating=False)
unary("identity", lambda x: x, lambda x: x, lambda e: e, floating=False)
unary("relu", lambda x: te.maximum(x, _c(0, x)), lambda x: np.maximum(x, 0), floating=False)
unary("neg", lambda x: -x, np.negative, lambda e: 0 - e, floating=False)
unary("abs", te.abs, np.abs, lambda e: te.maximum(e, 0 - e), floating=False)
unary("reciprocal", lambda x: _c(1, x) / x, lambda x: 1 / x)
unary("isnan", te.isnan, np.isnan, result=bool_)
unary("not", te.logical_not, np.logical_not, te.logical_not, result=bool_, floating=False)
unary("bitwise_not", lambda x: ~x, np.invert, floating=False)


def _isinf(x: Expr, positive: bool = True, negative: bool = True) -> Expr:
    above = eq(x, _c(math.inf, x)) if positive else te.const(False)
    return te.any_of(above, eq(x, _c(-math.inf, x))) if negative else above


unary(
    "isinf",
    _isinf,
    lambda x, positive=True, negative=True: (np.isposinf(x) & positive) | (np.isneginf(x) & negative),
    result=bool_,
)


# -- activations ---------------------------------------------------------------------------------------------------


def _where(condition: np.ndarray, a: np.ndarray, b: np.ndarray | int) -> np.ndarray:
    return np.where(condition, a, b)


def _softplus(x: Expr) -> Expr:
    """max(x, 0) + log1p(exp(-|x|)): no overflow."""
    return te.maximum(x, _c(0, x)) + te.log1p(te.exp(-te.abs(x)))


def _np_softplus(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _hard_sigmoid(x: Expr, alpha: float, beta: float) -> Expr:
    return te.maximum(te.minimum(x * _c(alpha, x) + _c(beta, x), _c(1, x)), _c(0, x))


def _np_hard_sigmoid(x: np.ndarray, alpha: float, beta: float) -> np.ndarray:
    return np.clip(x * x.dtype.type(alpha) + x.dtype.type(beta), 0, 1)


def _gelu(x: Expr, approximate: str = "none") -> Expr:
    """x * Phi(x), by erf or by the tanh approximation of Hendrycks and Gimpel (arXiv 1606.08415)."""
    if approximate == "tanh":
        inner = (x + _c(0.044715, x) * x * x * x) * _c(math.sqrt(2 / math.pi), x)
        return _c(0.5, x) * x * (te.tanh(inner) + _c(1, x))
    return _c(0.5, x) * x * (te.erf(x * _c(SQRT_HALF, x)) + _c(1, x))


def _np_gelu(x: np.ndarray, approximate: str = "none") -> np.ndarray:
    w = x.astype(np.float64)
    if approximate == "tanh":
        return 0.5 * w * (1 + np.tanh(math.sqrt(2 / math.pi) * (w + 0.044715 * w**3)))
    return 0.5 * w * (1 + INTRINSICS["erf"].numpy(w * SQRT_HALF))


unary(
    "leaky_relu",
    lambda x, alpha=0.01: te.select(x < _c(0, x), x * _c(alpha, x), x),
    lambda x, alpha=0.01: _where(x < 0, x * x.dtype.type(alpha), x),
)
unary(
    "thresholded_relu",
    lambda x, alpha=1.0: te.select(x > _c(alpha, x), x, _c(0, x)),
    lambda x, alpha=1.0: _where(x > alpha, x, 0),
)
unary(
    "elu",
    lambda x, alpha=1.0: te.select(x < _c(0, x), _c(alpha, x) * te.expm1(x), x),
    lambda x, alpha=1.0: _where(x < 0, alpha * np.expm1(np.minimum(x, 0)), x),
)
unary(
    "selu",
    lambda x, alpha, gamma: _c(gamma, x) * te.select(x > _c(0, x), x, _c(alpha, x) * te.expm1(x)),
    lambda x, alpha, gamma: gamma * _where(x > 0, x, alpha * np.expm1(np.minimum(x, 0))),
)
unary(
    "celu",
    lambda x, alpha=1.0: (
        te.maximum(x, _c(0, x)) + te.minimum(_c(alpha, x) * te.expm1(x / _c(alpha, x)), _c(0, x))
    ),
    lambda x, alpha=1.0: np.maximum(x, 0) + np.minimum(alpha * np.expm1(np.minimum(x, 0) / alpha), 0),
)
unary("hard_sigmoid", _hard_sigmoid, _np_hard_sigmoid)
unary(
    "hard_swish",
    lambda x: x * _hard_sigmoid(x, 1 / 6, 0.5),
    lambda x: x * _np_hard_sigmoid(x, 1 / 6, 0.5),
)
unary("gelu", _gelu, _np_gelu)
unary("softplus", _softplus, _np_softplus)
unary("softsign", lambda x: x / (te.abs(x) + _c(1, x)), lambda x: x / (1 + np.abs(x)))
unary("mish", lambda x: x * te.tanh(_softplus(x)), lambda x: x * np.tanh(_np_softplus(x)))
unary("silu", lambda x: x * te.sigmoid(x), lambda x: x * INTRINSICS["sigmoid"].numpy(x))
unary(
    "shrink",
    lambda x, bias=0.0, lambd=0.5: te.select(
        x < _c(-lambd, x), x + _c(bias, x), te.select(x > _c(lambd, x), x - _c(bias, x), _c(0, x))
    ),
    lambda x, bias=0.0, lambd=0.5: _where(x < -lambd, x + x.dtype.type(bias), _where(x > lambd, x - x.dtype.type(bias), 0)),
)


# -- with attributes that decide the type --------------------------------------------------------------------------


@op("cast", ELEMENTWISE)
class Cast(Op):
    """x in another dtype; floating point to integer truncates toward zero, anything to bool asks whether it is not zero."""

    def infer(self, x: TensorType, *, dtype: DType | str) -> list[TensorType]:
        return [TensorType(as_dtype(dtype), x.shape)]

    def te(self, x: te.Tensor, *, dtype: DType | str) -> te.Tensor:
        to = as_dtype(dtype)

        def element(*i: Expr) -> Expr:
            e = x[i]
            if to.is_bool and not e.dtype.is_bool:
                return ne(e, const(0, e.dtype))
            if e.dtype.is_bool and not to.is_bool:
                return te.select(e, const(1, to), const(0, to))
            return te.cast(to, e)

        return te.compute(x.shape, element, name="cast")

    def numpy(self, x: np.ndarray, *, dtype: DType | str) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.asarray(x).astype(as_dtype(dtype).numpy)

    def data(self, x: Value, *, dtype: DType | str) -> list[np.ndarray | None] | None:
        to = as_dtype(dtype)
        if x.data is None or to.is_float:
            return None

        def element(e: Expr) -> Expr:
            if to.is_bool:
                return e if e.dtype.is_bool else ne(e, 0)
            return te.select(e, 1, 0) if e.dtype.is_bool else e

        return [map_data(element, x.data)]


@op("clip", ELEMENTWISE)
class Clip(Op):
    """min(max(x, lowest), highest) with constant limits; None is no limit. NaN stays NaN."""

    def infer(self, x: TensorType, *, min: float | None = None, max: float | None = None) -> list[TensorType]:
        require(not x.dtype.is_bool, "clip of bool")
        return [x]

    def te(self, x: te.Tensor, *, min: float | None = None, max: float | None = None) -> te.Tensor:
        def element(*i: Expr) -> Expr:
            e = x[i]
            e = e if min is None else te.maximum(e, te.const(min, x.dtype))
            return e if max is None else te.minimum(e, te.const(max, x.dtype))

        return te.compute(x.shape, element, name="clip")

    def numpy(self, x: np.ndarray, *, min: float | None = None, max: float | None = None) -> np.ndarray:
        y = np.asarray(x)
        y = y if min is None else np.maximum(y, y.dtype.type(min))
        return y if max is None else np.minimum(y, y.dtype.type(max))

    def data(self, x: Value, *, min: float | None = None, max: float | None = None) -> list[np.ndarray | None] | None:
        if x.data is None:
            return None

        def element(e: Expr) -> Expr:
            e = e if min is None else te.maximum(e, int(min))
            return e if max is None else te.minimum(e, int(max))

        return [map_data(element, x.data)]
