"""Operations and schedules under the names that they have for x86."""

from tensorlang.interop.tvm.topi.nn import batch_matmul, conv2d_nchw, dense
from tensorlang.interop.tvm.topi.schedules import (
    schedule_batch_matmul,
    schedule_broadcast,
    schedule_conv2d_nchw,
    schedule_dense,
    schedule_elemwise,
    schedule_injective,
    schedule_reduce,
    schedule_softmax,
)

__all__ = [
    "batch_matmul", "conv2d_nchw", "dense", "schedule_batch_matmul", "schedule_broadcast", "schedule_conv2d_nchw",
    "schedule_dense", "schedule_elemwise", "schedule_injective", "schedule_reduce", "schedule_softmax",
]  # fmt: skip
