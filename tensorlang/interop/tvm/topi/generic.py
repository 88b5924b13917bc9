"""Schedules for any target."""

from tensorlang.interop.tvm.topi.schedules import (
    auto_inline_injective,
    schedule_batch_matmul,
    schedule_broadcast,
    schedule_conv2d_nchw,
    schedule_dense,
    schedule_elemwise,
    schedule_extern,
    schedule_injective,
    schedule_reduce,
    schedule_softmax,
)

__all__ = [
    "auto_inline_injective", "schedule_batch_matmul", "schedule_broadcast", "schedule_conv2d_nchw", "schedule_dense",
    "schedule_elemwise", "schedule_extern", "schedule_injective", "schedule_reduce", "schedule_softmax",
]  # fmt: skip
