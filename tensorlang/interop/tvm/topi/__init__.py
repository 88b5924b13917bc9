"""Classic TVM's operator inventory: tensor expressions of common operations, and schedules for them."""

from tensorlang.interop.tvm.topi import cuda, generic, nn, testing, utils, x86
from tensorlang.interop.tvm.topi.elementwise import *  # noqa: F403  every operation in it is one of the inventory's
from tensorlang.interop.tvm.topi.elementwise import __all__ as _elementwise
from tensorlang.interop.tvm.topi.reduction import argmax, argmin, max, min, prod, sum
from tensorlang.interop.tvm.topi.transform import (
    arange,
    broadcast_to,
    concatenate,
    expand_dims,
    flip,
    reshape,
    squeeze,
    take,
    transpose,
)

__all__ = [
    *_elementwise,
    "arange", "argmax", "argmin", "broadcast_to", "concatenate", "cuda", "expand_dims", "flip", "generic", "max", "min", "nn",
    "prod", "reshape", "squeeze", "sum", "take", "testing", "transpose", "utils", "x86",
]  # fmt: skip
