"""The default schedule of CUDA: every stage is a grid of thread blocks.

    injective producers          inlined, unless a contraction would compute them again and again
    products of matrices         a tile of the result by one block, a smaller one in the registers of each thread; operands
                                 come through shared memory, fetched by all threads together
    other reductions             one thread sums one element, in a register, its epilogue fused
    one element each             one thread each
"""

from __future__ import annotations

from tensorlang.ir.visitor import loads
from tensorlang.schedule import Schedule, Stage
from tensorlang.schedule.rules import Machine

from ..c import epilogue_of
from ..cpu.analysis import extent, is_plain, is_reduction, reduce_vars, source_of, spatial_vars
from ..cpu.inline import inline_injective
from ..opencl import TILE, distribute, is_matrix_product, schedule_product, schedule_reduction

BLOCK = 64  # rows and columns of the result that one block computes
SIDE = 16  # threads along each side of the block


def schedule(s: Schedule, machine: Machine) -> None:
    """Apply the default rules to `s`."""
    inline_injective(s)
    done: set[str] = set()
    for stage in list(s.stages):
        block = s.block(stage)
        if stage.name not in done and is_reduction(block) and is_plain(s, block):
            done |= schedule_tiled_product(s, stage) or schedule_product(s, stage) or schedule_reduction(s, stage)
    for stage in list(s.stages):
        if stage.name not in done:
            distribute(s, stage)


def schedule_tiled_product(s: Schedule, stage: Stage) -> set[str]:
    """A tile of 64 x 64 elements by 16 x 16 threads, 4 x 4 of them in the registers of each, 16 apart, so that neighbouring
    threads touch neighbouring elements. Empty where it does not fit."""
    block = s.block(stage)
    if not is_matrix_product(block):
        return set()
    sizes = [extent(block, v) or 0 for v in (*spatial_vars(block)[-2:], reduce_vars(block)[0])]
    if any(n % side for n, side in zip(sizes, (BLOCK, BLOCK, TILE), strict=True)):
        return set()
    output = epilogue_of(s, stage)
    name = stage.name
    if output is None:
        stage = s.cache_write(stage)
        output = s[name]
    operands = list(dict.fromkeys(e.value for e in loads(source_of(s.block(stage)))))
    *batch, row, column = output.axis
    row_o, row_i = output.split(row, BLOCK)
    column_o, column_i = output.split(column, BLOCK)
    _spread(output, row_i, column_i, [*batch, row_o, column_o])
    if batch:
        output.bind(output.fuse(*batch) if len(batch) > 1 else batch[0], "blockIdx.z")
    output.bind(row_o, "blockIdx.y")
    output.bind(column_o, "blockIdx.x")
    stage.compute_at(output, column_o)
    *_, y, x = stage.axis
    (k,) = stage.reduce_axis
    k_o, k_i = stage.split(k, TILE)
    _spread(stage, y, x, [k_o], [k_i])
    done = {stage.name, output.name, name}
    for operand in operands:
        tile = s.cache_read(operand, "shared", [stage])
        tile.compute_at(stage, k_o)
        points = tile.fuse(*tile.axis)
        each, thread = tile.split(points, SIDE * SIDE)
        thread_y, thread_x = tile.split(thread, SIDE)
        tile.reorder(thread_y, thread_x, each)
        tile.bind(thread_y, "threadIdx.y")
        tile.bind(thread_x, "threadIdx.x")
        done.add(tile.name)
    return done


def _spread(stage: Stage, row, column, outside, inside=()):  # type: ignore[no-untyped-def]
    """Give a tile of rows and columns to the threads: each has every 16th of both."""
    rows, thread_y = stage.split(row, SIDE)
    columns, thread_x = stage.split(column, SIDE)
    stage.reorder(*outside, thread_y, thread_x, *inside, rows, columns)
    stage.bind(thread_y, "threadIdx.y")
    stage.bind(thread_x, "threadIdx.x")
