"""Recurrences: stages that read what they wrote at an earlier step (scans, cumulative sums).

    for t in range(T): for r in range(R): s[t, r] = s[t - 1, r] + x[r, t - 1]

Steps follow each other, but lines are independent: lines go outermost and in parallel, a vector of them at a time, and time
runs inside, so that each step finds what it reads in the nearest cache.
"""

from __future__ import annotations

from tensorlang.ir.stmt import Block, Store
from tensorlang.ir.visitor import free_vars, loads
from tensorlang.schedule import Schedule, Stage
from tensorlang.schedule.rules import Machine

from .analysis import source_of, spatial_vars, step, work, worth_parallel
from .elementwise import vector_lanes

PANEL = 128  # vectors of lines that go through a step together, at most: the next step finds them in the first cache
FEW = 8  # the same where a step reads elements that lie far apart, each of them in a line that later steps come back to


def time_axes(block: Block) -> list[int]:
    """Numbers of the axes along which the block reads its own tensor elsewhere than it writes it; empty where it does not."""
    if not isinstance(block.body, Store) or block.init is not None:
        return []
    store, axes = block.body, spatial_vars(block)
    own = [e for e in loads(store.value) if e.value is store.buffer]
    moved = {n for e in own for n, (a, b) in enumerate(zip(e.args, store.indices, strict=True)) if a is not b}
    return sorted(axes.index(store.indices[n]) for n in moved if store.indices[n] in axes)


def schedule_recurrence(s: Schedule, stage: Stage, machine: Machine) -> None:
    """Lines outermost, in parallel and in vectors; steps inside."""
    block = s.block(stage)
    axes = spatial_vars(block)
    moving = {axes[n] for n in time_axes(block)}
    when = set().union(*(free_vars(it.binding) for it in block.iters if it.var in moving))
    steps, lines = [a for a in stage.loops if a.var in when], [a for a in stage.loops if a.var not in when]
    if not lines:
        return
    lanes = vector_lanes(s, stage, machine)
    around, lane = stage.split(lines[-1], lanes)
    size, inner = s.extent(around), [lane]
    apart = any(step(e, axes[-1]) == "far" for e in loads(source_of(block)))
    widest = FEW if apart else PANEL
    panel = _panel(size.value, machine.threads, widest) if size.op == "const" and not moving & {axes[-1]} else 1
    if panel > 1:
        # What follows in memory belongs to the next lines: each step goes through as many cache lines in a row as it can.
        around, vectors = stage.split(around, panel)
        inner.insert(0, vectors)
    outer = [*lines[:-1], around]
    stage.reorder(*outer, *steps, *inner)
    stage.vectorize(lane)
    if worth_parallel(work(block)):
        stage.parallel(stage.fuse(*outer) if len(outer) > 1 else outer[0])


def _panel(vectors: int, threads: int, widest: int) -> int:
    """The widest panel, up to `widest`, that divides `vectors` and leaves every thread as many panels as any other."""
    widths = [n for n in range(1, min(vectors // threads, widest) + 1) if vectors % n == 0]
    even = [n for n in widths if (vectors // n) % threads == 0]
    return max(even or widths or [1])
