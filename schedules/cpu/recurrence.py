"""Recurrences: stages that read what they wrote at an earlier step (scans, cumulative sums).

    for t in range(T): for r in range(R): s[t, r] = s[t - 1, r] + x[r, t - 1]

Steps follow each other, but lines are independent: lines go outermost and in parallel, a vector of them at a time, and time
runs inside, so that each step finds what it reads in the nearest cache.
"""

from __future__ import annotations

from tensorlang.ir.stmt import Block, Store
from tensorlang.ir.visitor import free_vars, loads
from tensorlang.schedule import Loop, Schedule, Stage
from tensorlang.schedule.rules import Machine

from .analysis import is_plain, readers_of, source_of, spatial_vars, step, store_of, work, worth_parallel
from .elementwise import TURNED, vector_lanes
from .intrinsics import transposed_tile

PANEL = 128
FEW = 8  # the same where a step reads elements that lie far apart, each of them in a line that later steps come back to
TILES = 4  # and where they come from tiles that were turned just before (measured at 1024 lines of 1024: 0.7 of the time of 32)


def time_axes(block: Block) -> list[int]:
    """Numbers of the axes along which the block reads its own tensor elsewhere than it writes it; empty where it does not."""
    if not isinstance(block.body, Store) or block.init is not None:
        return []
    store, axes = block.body, spatial_vars(block)
    own = [e for e in loads(store.value) if e.value is store.buffer]
    moved = {n for e in own for n, (a, b) in enumerate(zip(e.args, store.indices, strict=True)) if a is not b}
    return sorted(axes.index(store.indices[n]) for n in moved if store.indices[n] in axes)


def schedule_recurrence(s: Schedule, stage: Stage, machine: Machine) -> set[str]:
    """Lines outermost, in parallel and in vectors; steps inside. Returns the names of the stages placed in its loops."""
    block = s.block(stage)
    axes = spatial_vars(block)
    moving = {axes[n] for n in time_axes(block)}
    when = set().union(*(free_vars(it.binding) for it in block.iters if it.var in moving))
    steps, lines = [a for a in stage.loops if a.var in when], [a for a in stage.loops if a.var not in when]
    if not lines:
        return set()
    lanes = vector_lanes(s, stage, machine)
    turned = [] if moving & {axes[-1]} else _turned(s, stage, steps, lines[-1], lanes)
    around, lane = stage.split(lines[-1], lanes)
    size, inner = s.extent(around), [lane]
    apart = any(step(e, axes[-1]) == "far" for e in loads(source_of(block)))
    widest = TILES if turned else FEW if apart else PANEL
    panel = _panel(size.value, machine.threads, widest) if size.op == "const" and not moving & {axes[-1]} else 1
    if panel > 1:
        # What follows in memory belongs to the next lines: each step goes through as many cache lines in a row as it can.
        around, vectors = stage.split(around, panel)
        inner.insert(0, vectors)
    outer = [*lines[:-1], around]
    stage.reorder(*outer, *steps, *inner)
    stage.vectorize(lane)
    if turned:
        at, _ = stage.split(steps[0], lanes)
        for tile in turned:
            tile.compute_at(stage, at)
            _turn(s, tile, lanes)
    if worth_parallel(work(block)):
        stage.parallel(stage.fuse(*outer) if len(outer) > 1 else outer[0])
    return {tile.name for tile in turned}


def _turned(s: Schedule, stage: Stage, steps: list[Loop], line: Loop, lanes: int) -> list[Stage]:
    """Copies of lines that lie along memory, made for these steps alone: a tile of `lanes` steps is turned where it is read.

        for t: for l: turned[t, l] = x[l, t];   for l_o: for t: s[t, l] = s[t - 1, l] + turned[t, l]
    ->  for l_o: for t_o: turned = tile of x;  for t_i: s[t, l] = s[t - 1, l] + turned[t_i, l]
    """
    sizes = [s.extent(loop) for loop in (*steps, line)]
    if len(steps) != 1 or any(n.op != "const" or n.value % lanes for n in sizes):
        return []
    read = {e.value for e in loads(source_of(s.block(stage)))} - {store_of(s.block(stage)).buffer} - set(s.func.params)
    makers = [m for m in s.stages if store_of(s.block(m)).buffer in read]
    return [m for m in makers if _is_turning(s, m) and readers_of(s, store_of(s.block(m)).buffer) == [s.block(stage)]]


def _is_turning(s: Schedule, stage: Stage) -> bool:
    block = s.block(stage)
    moved = is_plain(s, block) and block.init is None and source_of(block).op == "load" and len(spatial_vars(block)) > 1
    return moved and step(source_of(block), spatial_vars(block)[-1]) == "far"


def _turn(s: Schedule, stage: Stage, lanes: int) -> None:
    """Steps and lines in squares of `lanes` by `lanes`, turned in registers where their elements allow it."""
    row, column = (loop for loop in stage.axis if (n := s.extent(loop)).op != "const" or n.value != 1)
    row_o, row_i = stage.split(row, lanes)
    column_o, column_i = stage.split(column, lanes)
    stage.reorder(row_o, column_o, row_i, column_i)
    buffer = store_of(s.block(stage)).buffer
    if buffer.dtype.name in TURNED:
        stage.tensorize(row_i, transposed_tile(lanes, buffer.dtype.name), fallback=True)
    else:
        stage.vectorize(column_i)


def _panel(vectors: int, threads: int, widest: int) -> int:
    """The widest panel, up to `widest`, that divides `vectors` and leaves every thread as many panels as any other."""
    widths = [n for n in range(1, min(vectors // threads, widest) + 1) if vectors % n == 0]
    even = [n for n in widths if (vectors // n) % threads == 0]
    return max(even or widths or [1])
