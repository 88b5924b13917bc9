"""What emitted CUDA Python calls, as numba-cuda device functions. The same functions run in numba's CUDA simulator.

Elementary functions are those of CUDA's math library; each is computed in the type of its argument.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import (
    boolean,
    config,
    cuda,
    float32 as f32,
    float64 as f64,
    int8 as i8,
    int16 as i16,
    int32 as i32,
    int64 as i64,
    uint8 as u8,
    uint16 as u16,
    uint32 as u32,
    uint64 as u64,
)

if not config.ENABLE_CUDASIM:
    from numba.cuda.extending import intrinsic

from tensorlang.codegen.cuda.vocabulary import NAMES


def launch(params: str, threads: tuple[int, int, int]) -> Callable[[Any], Any]:
    """Mark a function as a kernel: its parameters' types, and the block that it is written for."""

    def mark(function: Any) -> Any:
        function.params, function.threads = params, threads
        return function

    return mark


def _device(function: Any) -> Any:
    return cuda.jit(device=True)(function)


def _of_math(name: str) -> Any:
    """A function of one argument of the math module. numba-cuda computes it in the argument's type."""
    scope: dict[str, Any] = {"call": getattr(math, name)}
    exec(f"def {name}(x):\n    return call(x)\n", scope)  # a constant text: names below only
    return _device(scope[name])


(acos, acosh, asin, asinh, atan, atanh, cos, cosh, erf, exp, expm1, log, log1p, log2, sin, sinh, sqrt, tan, tanh) = map(
    _of_math,
    "acos acosh asin asinh atan atanh cos cosh erf exp expm1 log log1p log2 sin sinh sqrt tan tanh".split(),
)


@_device
def floordiv_pos(a, b):  # type: ignore[no-untyped-def]
    return a // b


@_device
def floormod_pos(a, b):  # type: ignore[no-untyped-def]
    return a % b


@_device
def minimum(a, b):  # type: ignore[no-untyped-def]
    """NaN where either is."""
    return a if a < b or a != a else b


@_device
def maximum(a, b):  # type: ignore[no-untyped-def]
    return a if a > b or a != a else b


@_device
def fma(a, b, c):  # type: ignore[no-untyped-def]
    return a * b + c


@_device
def abs(x):  # type: ignore[no-untyped-def]
    return -x if x < 0 else x


@_device
def sign(x):  # type: ignore[no-untyped-def]
    return x if x != x else type_like(x, (x > 0)) - type_like(x, (x < 0))


if config.ENABLE_CUDASIM:

    def type_like(x, value):  # type: ignore[no-untyped-def]
        """`value` in the type of `x`."""
        return type(x)(value)

else:

    @intrinsic
    def type_like(typing_context, x, value):  # type: ignore[no-untyped-def]
        """`value` in the type of `x`: arithmetic such as `x * 0 + value` would make NaN of an infinity."""

        def cast(context, builder, signature, args):  # type: ignore[no-untyped-def]
            return context.cast(builder, args[1], value, x)

        return x(x, value), cast


@_device
def isnan(x):  # type: ignore[no-untyped-def]
    return x != x


@_device
def isinf(x):  # type: ignore[no-untyped-def]
    return math.isinf(x)


@_device
def floor(x):  # type: ignore[no-untyped-def]
    return type_like(x, math.floor(x))


@_device
def ceil(x):  # type: ignore[no-untyped-def]
    return type_like(x, math.ceil(x))


@_device
def trunc(x):  # type: ignore[no-untyped-def]
    return type_like(x, math.trunc(x))


@_device
def round(x):  # type: ignore[no-untyped-def]
    """Half to even. What is left above the whole number below is exact."""
    below = math.floor(x)
    rest = x - below
    up = rest > 0.5 or (rest == 0.5 and math.floor(below * 0.5) * 2 != below)
    return type_like(x, math.copysign(below + 1 if up else below, x))


@_device
def float_bits(x):  # type: ignore[no-untyped-def]
    """The 32 bits of an f32, as an i32."""
    return cuda.libdevice.float_as_int(x)


@_device
def from_float_bits(x):  # type: ignore[no-untyped-def]
    return cuda.libdevice.int_as_float(x)


@_device
def fmod(a, b):  # type: ignore[no-untyped-def]
    return math.fmod(a, b)


@_device
def pow(a, b):  # type: ignore[no-untyped-def]
    return math.pow(a, b)


@_device
def quotient(a, b):  # type: ignore[no-untyped-def]
    return a / b


@_device
def rsqrt(x):  # type: ignore[no-untyped-def]
    return type_like(x, 1) / math.sqrt(x)


@_device
def sigmoid(x):  # type: ignore[no-untyped-def]
    one = type_like(x, 1)
    return one / (one + math.exp(-x))


if config.ENABLE_CUDASIM:  # Python's own refuse infinities and NaN
    floor, ceil, trunc, round = np.floor, np.ceil, np.trunc, np.rint

__all__ = sorted(NAMES)  # noqa: PLE0605
_ = (boolean, f32, f64, i8, i16, i32, i64, u8, u16, u32, u64)
