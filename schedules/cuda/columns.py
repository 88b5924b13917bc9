"""Reductions along other axes than the last, where the result has too few elements for a thread each to fill the device.

    for b in 256 (blockIdx.x):                      the sums of 8192 columns, 32 to a block
        for t in 32 (threadIdx.y): for j in 32 (threadIdx.x): for k in 256: part[t, j] += x[k*32 + t, b*32 + j]
        for j in 32 (threadIdx.x): for t in 32: sum[j] += part[t, j]
        for j in 32 (threadIdx.x): y[b*32 + j] = f(sum[j])

Neighbouring threads add up neighbouring columns; the rows are shared out among the warps of a block.
"""

from __future__ import annotations

from math import prod

from tensorlang.ir.visitor import loads
from tensorlang.schedule import Schedule, Stage

from ..c import epilogue_of
from ..cpu.analysis import extent, reduce_vars, source_of, spatial_vars, step

WIDTH = 32  # columns of a block
MOST_PARTS = 32  # threads for one column
LEAST_EACH = 4  # elements that a thread adds up
ENOUGH = 1 << 18  # threads that fill the largest devices


def schedule_columns(s: Schedule, stage: Stage) -> set[str]:
    """Share the longest reduction loop of `stage` out among the threads of a block. Empty where that is not worth it."""
    block = s.block(stage)
    axes, reduced = spatial_vars(block), reduce_vars(block)
    sizes = [extent(block, v) for v in axes]
    lengths = [extent(block, v) for v in reduced]
    if not axes or not reduced or None in sizes or None in lengths or (sizes[-1] or 0) < WIDTH // 2:
        return set()
    moving = [e for e in loads(source_of(block)) if step(e, axes[-1]) != "still"]
    if not moving or any(step(e, axes[-1]) != "unit" for e in moving):
        return set()
    longest = max(range(len(reduced)), key=lambda n: lengths[n] or 0)
    elements = prod(n or 0 for n in sizes)
    parts = MOST_PARTS
    while parts > 1 and (parts * LEAST_EACH > (lengths[longest] or 0) or parts * elements > 2 * ENOUGH):
        parts //= 2
    if parts < 4:
        return set()
    output = epilogue_of(s, stage)
    name = stage.name
    if output is None:
        stage = s.cache_write(stage)
        output = s[name]
    _, thread = stage.split(stage.reduce_axis[longest], parts)
    part = stage.rfactor(thread)  # parts of one column lie apart: neighbouring threads write to different banks
    shared = part.name
    sums = s.cache_write(part)
    part = s[shared]
    *outer, column = output.axis
    column_o, column_i = output.split(column, WIDTH)
    place = output.fuse(*outer, column_o) if outer else column_o
    output.bind(place, "blockIdx.x")
    output.bind(column_i, "threadIdx.x")
    stage.compute_at(output, place)
    stage.bind(stage.axis[-1], "threadIdx.x")
    part.compute_at(output, place)
    thread, column = part.axis[0], part.axis[-1]
    sums.compute_at(part, column)
    part.bind(thread, "threadIdx.y")
    part.bind(column, "threadIdx.x")
    return {stage.name, output.name, name, shared, sums.name}
