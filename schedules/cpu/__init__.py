"""The default schedule of CPUs: rules that look at the structure of a program, written in the schedule language.

    products of rows of products  attention: a block of rows through both, and softmax between
    injective producers           inlined, unless a contraction would compute them again and again
    reductions along rows         softmax, layer norm: one row at a time, partial sums in vector lanes
    choices by short axes         Winograd's transforms: a tile of the result at a time, in registers
    products of bytes, of bf16    by tiles of the matrix unit, or some at a time by one instruction, where the machine has it
    other reductions              matmul, convolution, pooling: register tiles, packed constant operands, epilogue fused
    one element each              vectorised along the last axis, parallel over the rest
    recurrences                   independent lines in parallel and in vectors, steps inside
    reductions of tuples          argmax, Welford: partial results in vector lanes along rows
    externals, and what is left   scalar; parallel over their first axis
    statements in shared loops    as they are written (te.hybrid)
"""

from __future__ import annotations

from tensorlang.ir.stmt import Store
from tensorlang.schedule import Schedule
from tensorlang.schedule.rules import Machine

from .analysis import has_own_axes, is_plain, is_pointwise
from .chained import schedule_chained
from .dot import schedule_dot
from .elementwise import schedule_elementwise, schedule_points
from .inline import inline_injective
from .lines import schedule_lines
from .matrix import schedule_matrix
from .piecewise import schedule_piecewise
from .recurrence import schedule_recurrence, time_axes
from .rows import schedule_rows
from .tile import schedule_tile
from .windowed import schedule_windowed


def schedule(s: Schedule, machine: Machine) -> None:
    """Apply the default rules to `s`."""
    if schedule_chained(s, machine) or schedule_windowed(s, machine):
        return
    inline_injective(s, keep_shared=True, keep_lines=True)
    if schedule_rows(s, machine):
        return
    inline_injective(s, keep_lines=True)
    if schedule_piecewise(s, machine):
        return
    done: set[str] = set()
    for stage in list(s.stages):
        block = s.block(stage)
        if stage.name not in done and block.init is not None and is_plain(s, block):
            by_unit = schedule_matrix(s, stage, machine) or schedule_dot(s, stage, machine, done)
            done |= by_unit or schedule_tile(s, stage, machine, done)
    for stage in list(s.stages):
        if stage.name not in done and has_own_axes(s, stage, stage.loops) and time_axes(s.block(stage)):
            done |= schedule_recurrence(s, stage, machine)
    for stage in list(s.stages):
        if stage.name in done:
            continue
        block = s.block(stage)
        if not has_own_axes(s, stage) or time_axes(block):
            continue
        if block.init is None and isinstance(block.body, Store):
            if schedule_lines(s, stage, machine):
                continue
            if is_pointwise(block):
                schedule_elementwise(s, stage, machine)
        else:
            schedule_points(s, stage, machine)
