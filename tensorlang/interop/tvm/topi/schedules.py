"""Schedules of the inventory's operations, one set for every target: elementwise producers go into their readers, and the
loops over the output are shared among threads. `topi.generic`, `topi.x86` and `topi.cuda` offer these under classic names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tensorlang.interop.tvm.schedule import Schedule
from tensorlang.interop.tvm.stage import Stage
from tensorlang.interop.tvm.te import create_schedule
from tensorlang.interop.tvm.tensor import _TAGS, Tensor

_INLINE = ("elemwise", "broadcast", "injective")


def auto_inline_injective(s: Schedule) -> None:
    """Let readers compute what is elementwise, broadcast or moved, unless it is an output or padding."""
    outputs = {op.core for op in s.outputs}
    for stage in s.stages:
        tag = _TAGS.get(stage.core, "")
        if stage.core not in outputs and not stage.reduce_axis and tag in _INLINE:
            stage.compute_inline()


def _parallel_rows(stage: Stage) -> None:
    """The outermost loop, among threads; together with the next where there is one."""
    axes = stage.axis
    if not axes:
        return
    stage.parallel(stage.fuse(*axes[:2]) if len(axes) > 2 else axes[0])


def schedule_injective(outs: Any) -> Schedule:
    """For a chain of elementwise operations."""
    s = create_schedule(_operations(outs))
    auto_inline_injective(s)
    for op in s.outputs:
        _parallel_rows(s[op])
    return s


def schedule_reduce(outs: Any) -> Schedule:
    """For a reduction, what goes into it and what is made of it."""
    s = create_schedule(_operations(outs))
    auto_inline_injective(s)
    for stage in s.stages:
        if not stage.is_input and stage.inlined is None:
            _parallel_rows(stage)
    return s


schedule_softmax = schedule_conv2d_nchw = schedule_dense = schedule_batch_matmul = schedule_extern = schedule_reduce
schedule_elemwise = schedule_broadcast = schedule_injective


def _operations(outs: Any) -> Sequence[Any]:
    tensors = outs if isinstance(outs, list | tuple) else [outs]
    return [t.op if isinstance(t, Tensor) else t for t in tensors]
