"""Elementary functions of emitted code on scalars and vectors: the plain-Python twins.

In f32 each is the very formula that is compiled (`formulas`), evaluated with NumPy; in f64 it is NumPy's or libm's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tensorlang.codegen.intrinsics import formulas, numpy_algebra


def _twin(name: str, wide: Callable[..., Any]) -> Callable[..., Any]:
    formula = getattr(formulas, name)

    def twin(*operands: Any) -> Any:
        arrays = np.broadcast_arrays(*operands)
        with np.errstate(all="ignore"):
            if arrays[0].dtype != np.float32:
                result = np.asarray(wide(*(a.astype(np.float64) for a in arrays)))
            else:
                flat = [np.ascontiguousarray(a).reshape(-1) for a in arrays]
                result = formula(numpy_algebra, *flat).reshape(arrays[0].shape)
        return result if result.ndim else result[()]

    twin.__name__ = twin.__qualname__ = name
    twin.__module__ = __name__
    twin.__doc__ = formula.__doc__
    return twin


_erf64 = np.vectorize(math.erf, otypes=[np.float64])

exp = _twin("exp", np.exp)
expm1 = _twin("expm1", np.expm1)
log = _twin("log", np.log)
log2 = _twin("log2", np.log2)
log1p = _twin("log1p", np.log1p)
rsqrt = _twin("rsqrt", lambda x: 1.0 / np.sqrt(x))
sigmoid = _twin("sigmoid", lambda x: 1.0 / (1.0 + np.exp(-x)))
tanh = _twin("tanh", np.tanh)
erf = _twin("erf", _erf64)
sin = _twin("sin", np.sin)
cos = _twin("cos", np.cos)
tan = _twin("tan", np.tan)
asin = _twin("asin", np.arcsin)
acos = _twin("acos", np.arccos)
atan = _twin("atan", np.arctan)
sinh = _twin("sinh", np.sinh)
cosh = _twin("cosh", np.cosh)
asinh = _twin("asinh", np.arcsinh)
acosh = _twin("acosh", np.arccosh)
atanh = _twin("atanh", np.arctanh)
pow = _twin("pow", np.power)


def sqrt(x: Any) -> Any:
    """Square root, correctly rounded; NaN below 0."""
    return np.sqrt(x)


def floor(x: Any) -> Any:
    """Largest integer not above."""
    return np.floor(x)


def ceil(x: Any) -> Any:
    """Smallest integer not below."""
    return np.ceil(x)


def round(x: Any) -> Any:
    """Nearest integer, halves to even."""
    return np.rint(x)


def trunc(x: Any) -> Any:
    """Toward zero."""
    return np.trunc(x)


def abs(x: Any) -> Any:
    """Magnitude (of integers too: the lowest stays itself)."""
    return np.abs(x)


def sign(x: Any) -> Any:
    """-1, 0 or 1 of the operand's type; NaN stays NaN."""
    return np.sign(x)


def quotient(x: Any, y: Any) -> Any:
    """Division, correctly rounded: never a multiplication by a reciprocal."""
    with np.errstate(all="ignore"):
        return np.divide(x, y)


def fmod(x: Any, y: Any) -> Any:
    """The remainder of `x / y` with the sign of `x`, exact (C's `fmod`)."""
    with np.errstate(all="ignore"):
        return np.fmod(x, y)


def float_bits(x: Any) -> Any:
    """The encoding of an f32 as an i32."""
    return np.asarray(x, np.float32).view(np.int32)[()]


def from_float_bits(x: Any) -> Any:
    """The f32 that an i32 encodes."""
    return np.asarray(x, np.int32).view(np.float32)[()]


def isnan(x: Any) -> Any:
    """Whether not a number."""
    return np.isnan(x)


def isinf(x: Any) -> Any:
    """Whether infinite."""
    return np.isinf(x)
