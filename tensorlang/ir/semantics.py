"""What each operation means on NumPy values; `interp` and `vectorized` share these definitions.

Values are NumPy scalars or arrays of the operation's own dtype: f32 arithmetic rounds to f32, integers wrap.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tensorlang.ir.dtype import DType, f32
from tensorlang.ir.intrinsics import INTRINSICS

BINARY_NUMPY: dict[str, Callable[[Any, Any], Any]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "floordiv": np.floor_divide,
    "floormod": np.remainder, "min": np.minimum, "max": np.maximum, "eq": np.equal, "ne": np.not_equal, "lt": np.less,
    "le": np.less_equal, "and": np.logical_and, "or": np.logical_or,
}  # fmt: skip
REDUCE_NUMPY: dict[str, np.ufunc] = {
    "sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum,
    "any": np.logical_or, "all": np.logical_and,
}  # fmt: skip


def identity_of(kind: str, dtype: DType) -> np.generic:
    """The value that a reduction of `kind` leaves unchanged."""
    scalar = dtype.numpy.type
    if kind in ("any", "all"):
        return scalar(kind == "all")
    if kind in ("sum", "prod"):
        return scalar(kind == "prod")
    if dtype.is_float:
        return scalar(-np.inf if kind == "max" else np.inf)
    if dtype.is_bool:
        return scalar(kind == "min")
    limits = np.iinfo(dtype.numpy)
    return scalar(limits.min if kind == "max" else limits.max)


def cast_numpy(value: Any, to: DType) -> Any:
    """Conversion: toward zero from floating point to integer (NumPy's result where that is out of range), modulo 2**bits
    between integers, `!= 0` to bool. From integers to bf16 through f32, as hardware does."""
    array = np.asarray(value)
    if to.name == "bf16" and array.dtype.kind in "iu":
        array = array.astype(np.float32)
    with np.errstate(all="ignore"):
        return array.astype(to.numpy)[()]


def call_numpy(name: str, dtype: DType, args: tuple[Any, ...]) -> Any:
    """An intrinsic on values of the type of its first argument; `dtype` is the result's. bf16 is computed in f32."""
    function = INTRINSICS[name].numpy
    if any(np.asarray(a).dtype.name == "bfloat16" for a in args):
        args = tuple(np.asarray(a).astype(f32.numpy) for a in args)
    with np.errstate(all="ignore"):
        return np.asarray(function(*args)).astype(dtype.numpy, copy=False)[()]


def poison(dtype: DType) -> Any:
    """What uninitialised memory holds, so that reading it shows: NaN, or a large odd integer, or True."""
    if dtype.is_float:
        return dtype.numpy.type(np.nan)
    if dtype.is_bool:
        return np.True_
    return np.frombuffer(b"\xad\xba\xad\x5b\xad\xba\xad\x5b"[-dtype.nbytes :], dtype.numpy)[0]
