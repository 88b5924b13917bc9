"""Other contractions (convolutions): each thread sums a small tile in registers, an outer product at a time.

    y[h, w, c] = sum of x[h + i, w + j, k] * f[i, j, k, c]
    ->  for t in threads: for i, j, k: f_local[4] = f[i, j, k, ...]; y[4, 4] += x[h + i, w..w+4 + j, k] * f_local[4]

Neighbouring threads have neighbouring columns: filters come as vectors, and pixels are the same for all of them.
"""

from __future__ import annotations

from math import prod

from tensorlang.ir.stmt import Block
from tensorlang.ir.visitor import free_vars, loads
from tensorlang.schedule import Schedule, Stage

from ..c import epilogue_of
from ..cpu.analysis import extent, is_contraction, source_of, spatial_vars, step

LANES = 4  # columns of a thread
ROWS = (4, 7, 2)  # of a thread: the first that divides the axis
THREADS = 64
ENOUGH = 1 << 13  # threads below which a tile of its own leaves too much of the device idle


def schedule_registers(s: Schedule, stage: Stage) -> set[str]:
    """The stages that are scheduled; empty where the contraction is of another form."""
    block = s.block(stage)
    found = _tile(block)
    if found is None:
        return set()
    row_at, height = found
    output = epilogue_of(s, stage)
    name = stage.name
    if output is None:
        stage = s.cache_write(stage)
        output = s[name]
    outer = list(output.axis)
    row_o, row_i = output.split(outer[row_at], height)
    column_o, column_i = output.split(outer[-1], LANES)
    outer[row_at], outer[-1] = row_o, column_o
    output.reorder(*outer, row_i, column_i)
    group, thread = output.split(output.fuse(*outer), THREADS)
    output.bind(group, "blockIdx.x")
    output.bind(thread, "threadIdx.x")
    output.vectorize(column_i)
    stage.compute_at(output, thread)
    axes, reduced = list(stage.axis), list(stage.reduce_axis)
    others = [loop for n, loop in enumerate(axes[:-1]) if n != row_at]
    stage.reorder(*others, *reduced, axes[row_at], axes[-1])
    done = {stage.name, output.name, name}
    column = spatial_vars(s.block(stage))[-1]
    for e in loads(source_of(s.block(stage))):
        if e.args[-1] is column:
            local = s.cache_read(e.value, "local", [stage])
            local.compute_at(stage, reduced[-1])
            local.vectorize(local.axis[-1])
            done.add(local.name)
    return done


def _tile(block: Block) -> tuple[int, int] | None:
    """The axis of a thread's rows, and how many it has: columns are neighbours in one operand, which rows do not touch."""
    axes = spatial_vars(block)
    sizes = [extent(block, v) or 0 for v in axes]
    found = loads(source_of(block))
    if not is_contraction(block) or len(found) != 2 or len(axes) < 2 or not all(sizes) or sizes[-1] % LANES:
        return None
    beside = [e for e in found if step(e, axes[-1]) == "unit"]
    across = [e for e in found if step(e, axes[-1]) == "still"]
    if len(beside) != 1 or len(across) != 1:
        return None
    (one,), (other,) = beside, across
    for at in reversed(range(len(axes) - 1)):
        touched = [any(axes[at] in free_vars(i) for i in e.args) for e in (one, other)]
        height = next((h for h in ROWS if sizes[at] % h == 0 and prod(sizes) // (h * LANES) >= ENOUGH), 0)
        if touched == [False, True] and height:
            return at, height
    return None
