"""Reductions along the last axes, one row at a time: softmax, layer norm, means and maxima of rows."""

from __future__ import annotations

from math import prod

from tensorlang.ir.buffer import Buffer
from tensorlang.ir.stmt import Block
from tensorlang.ir.visitor import free_vars, loads, walk
from tensorlang.schedule import Loop, Schedule, Stage
from tensorlang.schedule.rules import Machine

from .analysis import (
    extent,
    interleaved,
    is_contraction,
    is_costly,
    is_plain,
    is_reduction,
    readers_of,
    reduce_vars,
    source_of,
    spatial_vars,
    step,
    store_of,
    stride,
    work,
    worth_parallel,
)

LEAST_VECTORS = 8  # steps of the loop over a row, from which asking for the next one is worth its while


def schedule_rows(s: Schedule, machine: Machine) -> bool:
    """Schedule the whole program row by row if all its reductions run along contiguous rows; says whether it did."""
    stages = s.stages
    if any(not is_plain(s, s.block(st)) for st in stages):
        return False
    shared = [st for st in stages[:-1] if not is_reduction(s.block(st))]
    if not all(is_shared(s, st) for st in shared):
        return False
    if any(store_of(s.block(st)).buffer in s.func.params for st in stages[:-1]):
        return False  # an output cannot shrink to a row
    reductions = [st for st in stages if is_reduction(s.block(st))]
    if not reductions or not all(along_row(s.block(st)) for st in reductions):
        return False
    total = [work(s.block(st)) for st in stages]
    if is_reduction(s.block(stages[-1])):
        last = stages[-1]
        inner = s.cache_write(last)
        reductions[-1] = inner
        output = s[last.name]
    else:
        output = stages[-1]
    row_count = row_axes(s, output, [store_of(s.block(r)).buffer for r in reductions], {st.name for st in shared})
    if row_count is None:
        return False
    axes = list(output.axis)
    row = _outer_loop(output, axes[:row_count])
    if row is None:
        return _whole(s, reductions, [*shared, output], machine)
    inner_stages = [st for st in s.stages if st.name != output.name]
    for stage in reversed(inner_stages):
        stage.compute_at(output, row)
    for stage in shared:
        vectorize_row(s, stage, stage.axis[-1], machine)
    for stage in reductions:
        if stage.reduce_axis:
            partial_reduction(s, stage, stage.reduce_axis[-1], machine)
    if row_count < len(axes):
        vectorize_row(s, output, axes[-1], machine)
        _ask_for_next_row(s, output, row, machine)
    if worth_parallel(None if None in total else sum(t for t in total if t is not None)):
        output.parallel(row)
    return True


def _ask_for_next_row(s: Schedule, output: Stage, row: Loop, machine: Machine) -> None:
    """While the pass over a row that computes most has it in the nearest cache, ask memory for the next row: rows are pages, at
    whose ends the hardware stops looking ahead. (Not in the pass that writes the result: its stores wait for memory too.)"""
    passes = [(st, _along(s, st, row)) for st in s.stages if st.name != output.name]
    passes = [(st, loop) for st, loop in passes if loop is not None]
    if len(passes) < 2:
        return
    far = {e.value.name for st, _ in passes for e in loads(source_of(s.block(st))) if _is_far(s, e.value, machine)}
    stage, over = max(passes, key=lambda p: (is_costly(s.block(p[0])), _operations(s.block(p[0]))))
    for name in sorted(far):
        stage.prefetch(name, row, 1, over=over)


def _along(s: Schedule, stage: Stage, row: Loop) -> Loop | None:
    """The loop of vectors of a stage that passes over a long row."""
    names = [loop.var for loop in stage.loops]
    inside = stage.loops[names.index(row.var) + 1 :] if row.var in names else ()
    sizes = [(loop, s.extent(loop)) for loop in inside]
    long = [(loop, size.value) for loop, size in sizes if size.op == "const" and size.value > 1]
    return next((loop for loop, count in long[:1] if count >= LEAST_VECTORS), None)


def _is_far(s: Schedule, buffer: Buffer, machine: Machine) -> bool:
    """Whether an input is too large for a core's own cache, and comes in rows."""
    if buffer not in s.func.inputs or len(buffer.shape) < 2 or any(d.op != "const" for d in buffer.shape[1:]):
        return False
    return prod(d.value if d.op == "const" else machine.l2_bytes for d in buffer.shape) * buffer.dtype.nbytes > machine.l2_bytes


def _operations(block: Block) -> int:
    return sum(1 for n in walk(source_of(block)) if n.op not in ("const", "var", "load"))


def _whole(s: Schedule, reductions: list[Stage], others: list[Stage], machine: Machine) -> bool:
    """No row axes: everything is reduced to one element; partial results per lane, serially."""
    for stage in reductions:
        if stage.reduce_axis:
            partial_reduction(s, stage, stage.reduce_axis[-1], machine)
    for stage in others:
        if stage.axis:
            vectorize_row(s, stage, stage.axis[-1], machine)
    return True


def is_shared(s: Schedule, stage: Stage) -> bool:
    """Whether an injective stage is one value per element of a row: it and its readers run along the row's last axis."""
    block = s.block(stage)
    buffer, last = store_of(block).buffer, spatial_vars(block)[-1:]
    if not last or any(step(e, last[0]) == "far" for e in loads(source_of(block))):
        return False
    for reader in readers_of(s, buffer):
        along = (reduce_vars(reader) if is_reduction(reader) else spatial_vars(reader))[-1:]
        if not along or any(step(e, along[0]) != "unit" for e in loads(source_of(reader)) if e.value is buffer):
            return False
    return True


def along_row(block: Block) -> bool:
    """The innermost reduction variable moves to the next element in some load, and no spatial variable does, or to the one
    after it."""
    if is_contraction(block) or not reduce_vars(block):
        return False
    innermost = reduce_vars(block)[-1]
    moving = [e for e in loads(source_of(block)) if step(e, innermost) != "still"]
    if not moving or any(step(e, innermost) != "unit" for e in moving):
        return False
    # Windows one or two elements apart are vectors along that axis.
    return all(stride(e, v) not in (1, 2) for e in moving for v in spatial_vars(block) if extent(block, v) != 1)


def row_axes(s: Schedule, output: Stage, buffers: list[Buffer], shared: set[str]) -> int | None:
    """How many leading axes of `output` select the row, or None if its reads of the reductions do not fit that. Stages named
    `shared` may read them too."""
    block = s.block(output)
    own = spatial_vars(block)
    used: set[int] = set()
    for e in loads(source_of(block)):
        if e.value in buffers:
            for index in e.args:
                for v in free_vars(index):
                    if v not in own:
                        return None
                    used.add(own.index(v))
                if index.op not in ("var", "const"):
                    return None
    count = max(used, default=-1) + 1
    # Every axis of extent over one among the leading ones must select a row, else rows would be computed again.
    for n in range(count):
        if n not in used and extent(block, own[n]) != 1:
            return None
    for buffer in buffers:
        if any(r.name not in (output.name, *shared) and not is_reduction(r) for r in readers_of(s, buffer)):
            return None
    return count


def _outer_loop(output: Stage, axes: list[Loop]) -> Loop | None:
    if not axes:
        return None
    return output.fuse(*axes) if len(axes) > 1 else axes[0]


def partial_reduction(s: Schedule, stage: Stage, loop: Loop, machine: Machine) -> None:
    """Partial results per vector lane (four registers of them where the row is long), combined at the end."""
    lanes = machine.lanes(4)
    size = s.extent(loop)
    if lanes == 1 or size.op == "const" and size.value < lanes:
        return
    width = 4 * lanes if size.op != "const" or size.value >= 8 * lanes else lanes
    _, inner = stage.split(loop, width)
    part = stage.rfactor(inner, factor_axis=-1)
    lane = part.axis[-1]
    reduce = list(part.reduce_axis)
    if width > lanes:
        vectors, lane = part.split(lane, lanes)
        part.reorder(*reduce, vectors, lane)
    else:
        part.reorder(*reduce, lane)
    part.vectorize(lane)
    stage.pragma(stage.reduce_axis[-1], "vector_reduce")


def vectorize_row(s: Schedule, output: Stage, last: Loop, machine: Machine) -> None:
    lanes = machine.lanes(4)
    size = s.extent(last)
    if lanes == 1 or size.op == "const" and size.value < lanes:
        return
    known = size.value if size.op == "const" else None
    _, inner = output.split(last, lanes * interleaved(s.block(output), known, lanes, machine))
    output.vectorize(inner)
