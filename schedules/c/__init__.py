"""The default schedule of plain C, for processors with little memory: few loops, small accumulators, nothing parallel.

    injective producers          inlined, unless a contraction would compute them again and again
    reductions along rows        softmax, layer norm: one row at a time
    other reductions             a strip of columns at a time, summed on the stack, its epilogue fused
    everything else              as it is defined

Strips are of constant length where the columns lie side by side in some operand: C compilers make vectors of them where the
processor has any.
"""

from __future__ import annotations

from tensorlang.ir.stmt import Block
from tensorlang.ir.visitor import loads
from tensorlang.schedule import Schedule, Stage
from tensorlang.schedule.rules import Machine

from ..cpu.analysis import extent, is_plain, is_reduction, readers_of, source_of, spatial_vars, step, store_of
from ..cpu.inline import inline_injective
from ..cpu.rows import schedule_rows

STRIPS = (16, 8, 4)  # accumulators that a strip may have; the largest that divides the columns is taken
SCALAR = Machine(vector_bytes=4, vector_registers=16, threads=1)  # one lane


def schedule(s: Schedule, machine: Machine) -> None:
    """Apply the default rules to `s`; the machine that C is written for is not known."""
    inline_injective(s)
    if schedule_rows(s, SCALAR):
        return
    for stage in [st for st in s.stages if is_reduction(s.block(st))]:
        if is_plain(s, s.block(stage)):
            accumulate(s, stage)


def accumulate(s: Schedule, stage: Stage) -> None:
    """Compute a reduction just before its element is written, in an accumulator of its own."""
    output = epilogue_of(s, stage)
    if output is None:
        name = stage.name
        stage = s.cache_write(stage)
        output = s[name]
    axes = list(output.axis)
    if not axes:
        return
    at, width = axes[-1], strip_width(s.block(stage))
    if width > 1:
        at, _ = output.split(axes[-1], width)
    stage.compute_at(output, at)
    if width > 1:
        stage.reorder(*stage.reduce_axis, stage.axis[-1])


def epilogue_of(s: Schedule, stage: Stage) -> Stage | None:
    """The one injective stage that reads the reduction at exactly the element it writes, if it is so."""
    buffer = store_of(s.block(stage)).buffer
    readers = readers_of(s, buffer)
    if buffer in s.func.params or len(readers) != 1 or is_reduction(readers[0]) or not is_plain(s, readers[0]):
        return None
    store = store_of(readers[0])
    reads = [e for e in loads(source_of(readers[0])) if e.value is buffer]
    same = all(e.args == store.indices for e in reads) and store.buffer.shape == buffer.shape
    return s[readers[0].name] if same else None


def strip_width(block: Block) -> int:
    """How many columns to sum at once."""
    columns = spatial_vars(block)[-1]
    size = extent(block, columns)
    source = loads(source_of(block))
    if size is None or not any(step(e, columns) == "unit" for e in source):
        return 1
    return next((n for n in STRIPS if size % n == 0), 1)
