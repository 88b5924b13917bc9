"""Where a panel of columns is read by one tile of rows after the other: by blocks that stay in the cache, and asked for ahead.

A panel comes from memory once, while the first tile of rows passes by; where few tiles follow, that wait is a large part of
the time. So each tile asks for a share of the next panel. A panel that is too long for the cache beside the next one is cut
along the reduction: a block of it meets all rows of the result, whose sums wait on the stack, before the next block comes.
"""

from __future__ import annotations

from math import ceil, prod

from tensorlang.ir.expr import Expr
from tensorlang.ir.stmt import Block
from tensorlang.ir.visitor import free_vars, loads
from tensorlang.schedule import Loop, Schedule, Stage
from tensorlang.schedule.rules import Machine

from .analysis import extent, source_of, spatial_vars

PANEL_SHARE = 0.7  # of the second-level cache, which a panel of columns may take, or two where one is asked for ahead
WAITING_SHARE = 2 / 3  # of the first-level cache, for sums that wait while a block passes by
BLOCK_SHARE = 0.15  # of it, for a block of a panel
FEW_TILES = 64  # of rows that pass by a panel, up to which the first one's wait for memory is worth hiding
FEW_BLOCKED_TILES = 32  # of rows, up to which cutting a panel is worth writing the sums to the stack and reading them again
AHEAD = 2  # steps of the reduction that are written out between two requests for what comes next
LEAST_STEPS = 64  # of the reduction, for which asking ahead is worth its while
MANY_REGISTERS = 32  # fewer are spilled where two steps are written out
UNEVEN = 1.1  # times the even share, which the busiest thread may get


def tiles_of_panel(s: Schedule, around: list[Loop], column: Loop) -> int | None:
    """How many tiles of rows pass by a panel of columns, one after the other; None where that is not known."""
    sizes = [s.extent(loop) for loop in around[around.index(column) + 1 :]]
    return prod(n.value for n in sizes) if sizes and all(n.op == "const" for n in sizes) else None


def ask_ahead(s: Schedule, stage: Stage, at: Loop, tiles: int, panel: int, machine: Machine) -> None:
    """While `tiles` of rows pass by a panel of `panel` bytes, ask memory for the next one, a line every few steps."""
    steps = _long(s, stage)
    name = _columns(s, s.block(stage))
    if machine.vector_registers < MANY_REGISTERS or tiles > FEW_TILES or 2 * panel > machine.l2_bytes * PANEL_SHARE:
        return
    if len(steps) != 1 or name is None:
        return
    length = s.extent(steps[0])
    if length.op != "const" or length.value < LEAST_STEPS or length.value % AHEAD:
        return
    outer, inner = stage.split(steps[0], AHEAD)
    stage.unroll(inner)
    stage.prefetch(name, at, tiles, among=tiles, over=outer)


def _columns(s: Schedule, block: Block) -> str | None:
    """The operand that is read by panels, where it lies in memory."""
    column = spatial_vars(block)[-1]
    operands = {e.value for e in loads(source_of(block)) if any(column in free_vars(i) for i in e.args)}
    there = [b.name for b in operands if b in s.func.inputs or any(b.name == st.name for st in s.stages)]
    return there[0] if len(operands) == len(there) == 1 else None


def _long(s: Schedule, stage: Stage) -> list[Loop]:
    """The loops of the reduction that run more than once."""
    sizes = [(loop, s.extent(loop)) for loop in stage.reduce_axis]
    return [loop for loop, size in sizes if size.op != "const" or size.value != 1]


def schedule_by_blocks(
    s: Schedule, stage: Stage, output: Stage, row_axis: int, rows: int, width: int, machine: Machine, *, whole: bool
) -> Loop | None:
    """Cut panels of `width` columns along the reduction, if they are too long for the cache and the rest allows it: the loop
    over them, to be run in parallel. Tiles are `rows` rows of axis number `row_axis` high, and begin at multiples of `rows`
    if they are to be `whole`."""
    lanes = machine.lanes(4)
    block = s.block(stage)
    axes, name, steps = spatial_vars(block), _columns(s, block), _block_of_steps(s, stage, width, machine)
    waiting = _rows_of_block(block, axes[row_axis], rows, width, machine)
    if machine.vector_registers < MANY_REGISTERS:
        return None
    columns, height = extent(block, axes[-1]), extent(block, axes[row_axis])
    if name is None or steps is None or waiting is None or columns is None or height is None:
        return None
    parts = ceil(height / waiting)
    if ceil(height / rows) > FEW_BLOCKED_TILES or not _even(ceil(columns / width) * parts, machine.threads):
        return None
    loops = list(output.axis)
    column_o, column_i = output.split(loops.pop(), width)
    around = [column_o]
    if parts > 1:
        row_o, loops[row_axis] = output.split(loops[row_axis], waiting, tail="guard" if whole else "shift_inwards")
        around.append(row_o)
    output.reorder(*around, *loops, column_i)
    at = output.fuse(*around) if len(around) > 1 else column_o
    stage.compute_at(output, at)
    reduction = list(stage.reduce_axis)
    long = _long(s, stage)
    inside = list(stage.axis)
    vectors, lane = stage.split(inside.pop(), lanes)
    tiles, row = stage.split(inside.pop(row_axis), rows)
    if len(long) == 1:
        blocks, last = stage.split(long[0], steps)
    else:
        blocks, last = long[0], long[-1]
    outer, inner = stage.split(last, AHEAD)
    between = [loop for loop in reduction if loop is not long[0] and loop is not long[-1]]
    stage.reorder(blocks, *inside, tiles, *between, outer, inner, row, vectors, lane)
    stage.vectorize(lane)
    for loop in (inner, row, vectors):
        stage.unroll(loop)
    stage.prefetch(name, blocks, 1, over=outer)
    _, lane = output.split(column_i, lanes)
    output.vectorize(lane)
    return at


def _block_of_steps(s: Schedule, stage: Stage, width: int, machine: Machine) -> int | None:
    """How many steps of the reduction's first axis make a block, where a panel of `width` columns is to be cut; else None."""
    sizes = [s.extent(loop) for loop in _long(s, stage)]
    if not sizes or any(n.op != "const" for n in sizes):
        return None
    if 2 * prod(n.value for n in sizes) * width * 4 <= machine.l2_bytes * PANEL_SHARE or sizes[-1].value % AHEAD:
        return None
    if len(sizes) > 1:
        return 1
    most = int(machine.l2_bytes * BLOCK_SHARE) // (4 * width)
    return next((n for n in range(most, LEAST_STEPS, -1) if sizes[0].value % n == 0 and n % AHEAD == 0), None)


def _rows_of_block(block: Block, row: Expr, rows: int, width: int, machine: Machine) -> int | None:
    """How many rows of the result wait at a time, in tiles of `rows`; None where no number of them can."""
    sizes = {v: extent(block, v) for v in spatial_vars(block)[:-1]}
    if None in sizes.values():
        return None
    around = prod(n or 1 for v, n in sizes.items() if v is not row)
    tiles = ceil((sizes[row] or 1) / rows)
    parts = ceil(tiles * rows * around * width * 4 / (machine.l1_bytes * WAITING_SHARE))
    return ceil(tiles / parts) * rows if around == 1 or parts == 1 else None


def _even(count: int, threads: int) -> bool:
    """Whether `count` equal pieces of work give all threads about as much."""
    return ceil(count / threads) * threads <= UNEVEN * count
