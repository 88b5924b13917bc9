"""The pure functions that an expression may call: name -> arity, result type, and the meaning in NumPy (the definition)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Intrinsic:
    """A pure scalar function.

    Attributes:
        result: "same" (the first argument's type), "bool", "i32", "f32", or "scalar" (a vector's lanes combined into one).
        numpy: its meaning on NumPy arrays; native code agrees within the error bound stated at its lowering.
    """

    name: str
    arity: int
    numpy: Callable[..., Any]
    result: str = "same"


def _erf(x: Any) -> Any:
    from math import erf

    return np.asarray(np.vectorize(erf, otypes=[np.float64])(x)).astype(np.asarray(x).dtype)


def _sigmoid(x: Any) -> Any:
    x = np.asarray(x)
    wide = x.astype(np.float64)
    with np.errstate(over="ignore"):
        return (1.0 / (1.0 + np.exp(-wide))).astype(x.dtype)


def _right_shift(x: Any, n: Any) -> Any:
    return np.right_shift(x, n)


PREFETCH_WITHIN = "prefetch_within"  # the annotation of loops in whose iterations one around it asks for a share: (buffer, ...)
PREFETCH = "prefetch"  # the intrinsic, and the annotation of a loop that asks for it: ((buffer, iterations ahead), ...)
BARRIER = "barrier"  # called for its effect: the threads of a block wait for each other
LAUNCH = "launch"  # called for its effect, between nests: all blocks are through before the next begin
ASYNC_COPY = "async_copy"  # annotation of a loop of copies into shared memory that may arrive later than they are made
COMMIT = "commit"  # called for its effect: the copies that a thread began since the last one are a group
WAIT = "wait"  # called for its effect: all but the last so many groups of copies of a thread have arrived

INTRINSICS: dict[str, Intrinsic] = {
    i.name: i
    for i in [
        *(
            Intrinsic(name, 1, getattr(np, name))
            for name in (
                "exp log log2 log1p expm1 sqrt tanh sin cos tan arcsin arccos arctan sinh cosh arcsinh arccosh arctanh "
                "floor ceil trunc"
            ).split()
        ),
        Intrinsic("abs", 1, np.abs),
        Intrinsic("sign", 1, np.sign),
        Intrinsic("round", 1, np.round),  # half to even
        Intrinsic("rsqrt", 1, lambda x: np.asarray(1, np.asarray(x).dtype) / np.sqrt(x)),
        Intrinsic("sigmoid", 1, _sigmoid),
        Intrinsic("erf", 1, _erf),
        Intrinsic("isnan", 1, np.isnan, "bool"),
        Intrinsic("isinf", 1, np.isinf, "bool"),
        Intrinsic("pow", 2, np.power),
        Intrinsic("fmod", 2, np.fmod),
        Intrinsic("fma", 3, lambda a, b, c: a * b + c),
        Intrinsic("quotient", 2, np.divide),  # correctly rounded, where `/` may multiply by a reciprocal
        Intrinsic("float_bits", 1, lambda x: np.asarray(x, np.float32).view(np.int32), "i32"),  # IEEE 754's
        Intrinsic("from_float_bits", 1, lambda b: np.asarray(b, np.int32).view(np.float32), "f32"),
        Intrinsic("bitwise_and", 2, np.bitwise_and),
        Intrinsic("bitwise_or", 2, np.bitwise_or),
        Intrinsic("bitwise_xor", 2, np.bitwise_xor),
        Intrinsic("bitwise_not", 1, np.invert),
        Intrinsic("left_shift", 2, np.left_shift),
        Intrinsic("right_shift", 2, _right_shift),
        Intrinsic(PREFETCH, 1, lambda x: x),  # a hint: called for its effect, which no one sees
        # Horizontal reductions, made by lowering; native code may combine the lanes in any order.
        Intrinsic("vreduce_add", 1, lambda v: np.add.reduce(v, dtype=v.dtype), "scalar"),
        Intrinsic("vreduce_mul", 1, lambda v: np.multiply.reduce(v, dtype=v.dtype), "scalar"),
        Intrinsic("vreduce_max", 1, lambda v: np.maximum.reduce(v), "scalar"),
        Intrinsic("vreduce_min", 1, lambda v: np.minimum.reduce(v), "scalar"),
    ]
}
