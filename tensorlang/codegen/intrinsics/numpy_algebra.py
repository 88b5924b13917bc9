"""The NumPy carrier of `formulas`: values are f32, f64, i32 or bool arrays of one length."""

from __future__ import annotations

from typing import Any

import numpy as np


def constant(like: np.ndarray, value: float) -> np.ndarray:
    """`value` in every lane, of the type of `like`."""
    return np.full(like.shape, value, like.dtype)


def false(like: np.ndarray) -> np.ndarray:
    """The mask with no lane set."""
    return np.zeros(like.shape, np.bool_)


def select(condition: np.ndarray, a: Any, b: Any) -> np.ndarray:
    """`a` where `condition`, else `b`; one of them may be a Python number."""
    like = a if isinstance(a, np.ndarray) else b
    return np.where(condition, np.asarray(a, like.dtype), np.asarray(b, like.dtype))


def fma(a: np.ndarray, b: Any, c: Any) -> np.ndarray:
    """`a * b + c`; in f32 rounded once (through f64), in f64 twice."""
    if a.dtype == np.float32:
        return (a.astype(np.float64) * np.float32(b) + np.float32(c)).astype(np.float32)
    return a * b + c


def bits(x: np.ndarray) -> np.ndarray:
    """The bit pattern of f32 as i32."""
    return x.view(np.int32)


def floats(x: np.ndarray) -> np.ndarray:
    """The f32 of an i32 bit pattern."""
    return x.astype(np.int32).view(np.float32)


def int_to_float(x: np.ndarray) -> np.ndarray:
    """The f32 nearest to an i32."""
    return x.astype(np.float32)


def wide(x: np.ndarray) -> np.ndarray:
    """f32 as f64."""
    return x.astype(np.float64)


def narrow(x: np.ndarray) -> np.ndarray:
    """f64 to the nearest f32."""
    return x.astype(np.float32)


def low_word(x: np.ndarray) -> np.ndarray:
    """The low 32 bits of an f64 bit pattern, as i32."""
    return x.view(np.int64).astype(np.int32)


def scale(x: np.ndarray, n: np.ndarray, k: np.ndarray) -> np.ndarray:
    """`x * 2**k`, rounded once; `n` is `k` as f32 (or NaN where `x` is)."""
    return np.ldexp(x, k)


def ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`a / b` for a `b` that is neither zero nor infinite nor denormal."""
    return a / b


sqrt = np.sqrt
floor = np.floor
abs = np.abs
