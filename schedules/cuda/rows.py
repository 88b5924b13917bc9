"""Reductions along the last axes of a tensor: rows, each by a warp or by a block of threads.

    for b in 64 (blockIdx.x):                       softmax_max of 512 rows of 384, 8 to a block, a warp for each
        for r in 8 (threadIdx.y): for t in 32 (threadIdx.x): for k in 12: part[r, t] = max(part[r, t], x[b*8 + r, k*32 + t])
        for r in 8 (threadIdx.y): for t in 32 (threadIdx.x): max[r] = max(max[r], part[r, t])          the warp's exchange
        for r in 8 (threadIdx.y): for t in 32 (threadIdx.x): for k in 12: y[...] = f(x[b*8 + r, k*32 + t], max[r])

Neighbouring threads touch neighbouring elements. What several stages read of a row, each thread keeps in registers.
"""

from __future__ import annotations

from tensorlang.ir.expr import Expr
from tensorlang.ir.visitor import loads
from tensorlang.schedule import Loop, Schedule, Stage

from ..cpu.analysis import extent, is_plain, is_reduction, reduce_vars, source_of, spatial_vars, store_of
from ..cpu.rows import along_row, is_shared, row_axes

WARP = 32
ROWS = 8  # of a block, where each is a warp's
LEAST = 16  # elements of the shortest row that is worth a warp
WARP_ELEMENTS = 1024  # the longest row that a warp takes
MOST_THREADS = 1024
KEPT = 32  # elements of a row that a thread keeps in registers
EXCHANGED = ("f32", "f64", "i32", "i64", "f16", "bf16")  # types of values that threads exchange; sums of halves are f32


def schedule_rows(s: Schedule) -> bool:
    """Schedule the whole program row by row if all its reductions run along contiguous rows; says whether it did."""
    stages = s.stages
    if any(not is_plain(s, s.block(st)) for st in stages):
        return False
    shared = [st for st in stages[:-1] if not is_reduction(s.block(st))]
    reductions = [st for st in stages if is_reduction(s.block(st))]
    if not reductions or not all(is_shared(s, st) for st in shared):
        return False
    if any(store_of(s.block(st)).buffer in s.func.params for st in stages[:-1]):
        return False  # an output cannot shrink to a row
    lengths = [_length(s, st) for st in reductions]
    length = max((n for n in lengths if n is not None), default=0)
    if None in lengths or length < LEAST or not all(_fits(s, st) for st in reductions):
        return False
    block = s.block(stages[-1])
    count: int | None = len(spatial_vars(block))
    if not is_reduction(block):
        buffers = [store_of(s.block(r)).buffer for r in reductions]
        count = row_axes(s, stages[-1], buffers, {st.name for st in shared})
    if count == 0 and len(stages) == 1:
        _whole(stages[0])
        return True
    if not count:
        return False
    output = stages[-1]
    if is_reduction(block):
        reductions[-1] = s.cache_write(output)
        output = s[output.name]
    threads = _threads(length)
    row = _blocks(s, output, count, ROWS if threads == WARP else 1)
    kept = _kept(s, [*reductions, *shared, output], count) if length <= KEPT * threads else {}
    for name, readers in kept.items():
        s.cache_read(name, "local", readers)
    for stage in reversed([st for st in s.stages if st.name != output.name]):
        stage.compute_at(output, row)
    reduced = {st.name for st in reductions}
    for stage in list(s.stages):
        if stage.name in reduced:
            _reduce(stage, threads)
        elif stage.name == output.name:
            _along(stage, list(stage.axis)[count:], threads)
        else:
            *rows, last = stage.axis
            _bind_rows(stage, rows)
            _along(stage, [last], threads)
    return True


def _whole(stage: Stage) -> None:
    """No rows: one block reduces everything."""
    reduced = list(stage.reduce_axis)
    _, thread = stage.split(stage.fuse(*reduced) if len(reduced) > 1 else reduced[0], MOST_THREADS)
    part = stage.rfactor(thread, factor_axis=-1)
    part.reorder(part.axis[-1], *part.reduce_axis)
    part.bind(part.axis[-1], "threadIdx.x")
    stage.bind(stage.reduce_axis[0], "threadIdx.x")


def _length(s: Schedule, stage: Stage) -> int | None:
    """How many elements are reduced into one."""
    block = s.block(stage)
    total = 1
    for v in reduce_vars(block):
        size = extent(block, v)
        if size is None:
            return None
        total *= size
    return total


def _fits(s: Schedule, stage: Stage) -> bool:
    block = s.block(stage)
    return along_row(block) and store_of(block).buffer.dtype.name in EXCHANGED


def _threads(length: int) -> int:
    """Threads for a row: a warp, or as many as keep `KEPT` elements each."""
    threads = WARP
    while length > WARP_ELEMENTS and threads < MOST_THREADS and threads * KEPT < length:
        threads *= 2
    return threads


def _blocks(s: Schedule, output: Stage, count: int, rows: int) -> Loop:
    """The loop over blocks, each of which takes `rows` rows that lie at one and the same outer position."""
    axes = list(output.axis)[:count]
    while len(axes) > 1 and _size(s, axes[-1]) == 1:
        axes[-2:] = [output.fuse(*axes[-2:])]
    if rows > 1:
        axes[-1], inside = output.split(axes[-1], rows)
        output.bind(inside, "threadIdx.y")
    row = output.fuse(*axes) if len(axes) > 1 else axes[0]
    output.bind(row, "blockIdx.x")
    return row


def _kept(s: Schedule, stages: list[Stage], count: int) -> dict[str, list[Stage]]:
    """Inputs of which several stages read the same element of a row at each step along it, and those stages."""
    readers: dict[str, list[Stage]] = {}
    refused: set[str] = set()
    for stage in stages:
        block = s.block(stage)
        *rows, along = [*spatial_vars(block), *reduce_vars(block)]
        for e in loads(source_of(block)):
            name = e.value.name
            readers.setdefault(name, [])
            if stage not in readers[name]:
                readers[name].append(stage)
            if e.value not in s.func.inputs or e.args != (*rows, along) or len(rows) != count:
                refused.add(name)
    return {name: found for name, found in readers.items() if name not in refused and len(found) > 1}


def _reduce(stage: Stage, threads: int) -> None:
    """Each thread adds up every `threads`-th element, then all of them combine what they have."""
    _bind_rows(stage, list(stage.axis))
    reduced = list(stage.reduce_axis)
    _, thread = stage.split(stage.fuse(*reduced) if len(reduced) > 1 else reduced[0], threads)
    part = stage.rfactor(thread, factor_axis=-1)
    thread = part.axis[-1]
    part.reorder(thread, *part.reduce_axis)
    part.bind(thread, "threadIdx.x")
    stage.bind(stage.reduce_axis[0], "threadIdx.x")


def _bind_rows(stage: Stage, rows: list[Loop]) -> None:
    if rows:
        stage.bind(stage.fuse(*rows) if len(rows) > 1 else rows[0], "threadIdx.y")


def _along(stage: Stage, axes: list[Loop], threads: int) -> None:
    """The elements of a row, neighbours by neighbouring threads."""
    if axes:
        each, thread = stage.split(stage.fuse(*axes) if len(axes) > 1 else axes[0], threads)
        stage.reorder(thread, each)
        stage.bind(thread, "threadIdx.x")


def _size(s: Schedule, loop: Loop) -> int | None:
    size: Expr = s.extent(loop)
    return size.value if size.op == "const" else None
