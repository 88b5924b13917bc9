"""Arithmetic of emitted code on scalars and vectors: the plain-Python twins. Operators `+ - * / // % < & ...` are Python's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def floordiv_pos(a: int, b: int) -> int:
    """`a // b` where neither is negative: one machine division."""
    return a // b


def floormod_pos(a: int, b: int) -> int:
    """`a % b` where neither is negative: one machine division."""
    return a % b


def select(condition: Any, a: Any, b: Any) -> Any:
    """`a` where `condition`, else `b`; both are evaluated. A scalar condition picks whole vectors."""
    if any(isinstance(v, np.ndarray) for v in (condition, a, b)):
        return np.where(condition, a, b)
    return a if condition else b


def minimum(a: Any, b: Any) -> Any:
    """The smaller, NaN if either is (as `numpy.minimum`)."""
    return np.minimum(a, b)


def maximum(a: Any, b: Any) -> Any:
    """The larger, NaN if either is (as `numpy.maximum`)."""
    return np.maximum(a, b)


def fma(a: Any, b: Any, c: Any) -> Any:
    """`a * b + c`, fused where the machine can."""
    return a * b + c


def logical_and(a: Any, b: Any) -> Any:
    """Both; eager."""
    return np.logical_and(a, b)


def logical_or(a: Any, b: Any) -> Any:
    """Either; eager."""
    return np.logical_or(a, b)


def logical_not(a: Any) -> Any:
    """Neither zero nor true becomes true."""
    return np.logical_not(a)


def _tree(combine: Callable[[Any, Any], Any], value: np.ndarray) -> Any:
    """Halve the vector until one lane is left: the same order as the native reduction."""
    while len(value) > 1:
        half = len(value) // 2
        head = combine(value[:half], value[half : 2 * half])
        value = head if len(value) % 2 == 0 else np.concatenate([combine(head[:1], value[-1:]), head[1:]])
    return value[0]


def vreduce_add(value: np.ndarray) -> Any:
    """Sum of all lanes, pairwise from the two halves."""
    return _tree(np.add, value)


def vreduce_mul(value: np.ndarray) -> Any:
    """Product of all lanes, pairwise from the two halves."""
    return _tree(np.multiply, value)


def vreduce_max(value: np.ndarray) -> Any:
    """Largest lane, NaN if any is."""
    return _tree(np.maximum, value)


def vreduce_min(value: np.ndarray) -> Any:
    """Smallest lane, NaN if any is."""
    return _tree(np.minimum, value)
