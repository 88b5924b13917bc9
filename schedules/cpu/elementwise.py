"""Stages that compute each element once: vectorised along the last axis, parallel over the rest."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from tensorlang.ir.expr import Expr
from tensorlang.ir.reduction import reduction_of
from tensorlang.ir.stmt import Block
from tensorlang.ir.visitor import free_vars, loads, walk
from tensorlang.schedule import Loop, Schedule, Stage
from tensorlang.schedule.rules import Machine

from .analysis import extent, interleaved, reduce_vars, source_of, spatial_vars, step, store_of, work, worth_parallel
from .intrinsics import transposed_tile

TURNED = ("f32", "i32", "u32")  # elements of which a register holds as many as tiles have rows
PAST_CACHES = 32 << 20  # bytes of a result of which nothing is left in the caches when it is read


def vector_lanes(s: Schedule, stage: Stage, machine: Machine) -> int:
    """Lanes such that the widest element type of the stage's tensors fills one or two registers."""
    block = s.block(stage)
    sizes = [store_of(block).buffer.dtype.nbytes] + [e.value.dtype.nbytes for e in loads(source_of(block))]
    return machine.lanes(min(8, max(4, max(sizes))))


def schedule_elementwise(s: Schedule, stage: Stage, machine: Machine, *, parallel: bool = True) -> None:
    """One flat loop where all tensors are read at the element written; else rows and a vectorised last axis."""
    axes = list(stage.axis)
    if not axes:
        return
    parallel = parallel and worth_parallel(work(s.block(stage)))
    if len(axes) > 1 and _is_flat(s, stage):
        axes = [stage.fuse(*axes)]
    lanes = vector_lanes(s, stage, machine)
    for size in (lanes, lanes // 2):
        turned = _transposed_axis(s, stage, size)
        if turned is not None and (size == lanes or _moves(s, stage, size)):
            _tile_transposed(s, stage, axes, turned, size, machine, parallel)
            return
    tail = _contiguous_tail(s, stage, machine) if len(axes) > 2 else 1
    if tail > 1:
        axes = [*axes[:-tail], stage.fuse(*axes[-tail:])]
    rows: Loop | None = None
    if tail == 1 and _zipped(s, stage, axes, lanes):
        stage.unroll(axes.pop())
        rows = stage.fuse(*axes[:-1]) if len(axes) > 2 else axes[0]
        if parallel:
            stage.parallel(rows)
        return
    if len(axes) > 1:
        rows = stage.fuse(*axes[:-1]) if len(axes) > 2 else axes[0]
    last = axes[-1]
    outer = _vectorize(s, stage, last, lanes, machine)
    if parallel:
        target = rows if rows is not None and not _is_one(s, rows) else outer
        if target is not None:
            stage.parallel(target)


def _contiguous_tail(s: Schedule, stage: Stage, machine: Machine) -> int:
    """How many trailing axes are one line of neighbouring elements in every tensor that runs along any of them: concatenation
    of channels, their scale and bias. Enough leading points are left to share out between threads."""
    block = s.block(stage)
    axes, store = spatial_vars(block), store_of(block)
    sizes = [extent(block, v) for v in axes]
    best = 1
    for count in range(2, len(axes)):
        around, tail = sizes[:-count], axes[-count:]
        if any(n is None for n in sizes) or prod(n or 1 for n in around) < 4 * machine.threads:
            break
        if store.indices[-count:] != tuple(tail) or any(n in tail for n in _outside_loads(source_of(block))):
            break
        for e in loads(source_of(block)):
            used = [i for i in e.args if any(v in free_vars(i) for v in tail)]
            whole = e.args[-count:] == tuple(tail) and e.value.shape[1 - count :] == store.buffer.shape[1 - count :]
            if used and not (whole and len(used) == count):
                return best
        best = count
    return best


def _transposed_axis(s: Schedule, stage: Stage, lanes: int) -> int | None:
    """Which axis but the last runs through a tensor's neighbouring elements, while the last one strides over its lines: both
    long enough for tiles of `lanes` by `lanes` elements, in which every line that is fetched is read to its end."""
    block = s.block(stage)
    axes = spatial_vars(block)
    if len(axes) < 2 or len(axes) != len(list(stage.axis)) or not _vectorizable(s, stage):
        return None
    sizes = [extent(block, v) for v in axes]
    far = [e for e in loads(source_of(block)) if step(e, axes[-1]) == "far"]
    for n in range(len(axes) - 1):
        long = all(size is None or size >= lanes for size in (sizes[n], sizes[-1]))
        if long and any(step(e, axes[n]) == "unit" for e in far):
            return n
    return None


def _moves(s: Schedule, stage: Stage, size: int) -> bool:
    """Whether a tile of `size` by `size` elements is turned in registers: they are moved as they are."""
    block = s.block(stage)
    whole = all((n := extent(block, v)) is not None and n % size == 0 for v in spatial_vars(block)[-1:])
    return size >= 4 and whole and source_of(block).op == "load" and store_of(block).buffer.dtype.name in TURNED


def _tile_transposed(
    s: Schedule, stage: Stage, axes: list[Loop], turned: int, lanes: int, machine: Machine, parallel: bool
) -> None:
    """Tiles of `lanes` by `lanes` elements: strided loads find the lines of a tile in the first-level cache.

        for i: for j: y[i, j] = x[j, i]
    ->  parallel for j_o: for i_o: for i_i in lanes: vector y[i, j] = x[j, i]

    A tile that is only moved is turned in registers: sixteen loads and stores instead of as many of sixteen scattered elements.
    """
    *outer, last = axes
    row = outer.pop(turned)
    moved = source_of(s.block(stage)).op == "load" and store_of(s.block(stage)).buffer.dtype.name in TURNED
    whole = moved and all((size := _extent(s, loop)) is not None and size >= lanes for loop in (row, last))
    tail = "shift_inwards" if whole else "guard"
    row_o, row_i = stage.split(row, lanes, tail=tail)
    last_o, lane = stage.split(last, lanes, tail=tail)
    sizes = [_extent(s, loop) for loop in (*outer, last_o)]
    # Strips of the lines that are read, along memory; where there are few, strips of those that are written.
    over, along = (last_o, row_o) if prod(n or 1 for n in sizes) >= 4 * machine.threads else (row_o, last_o)
    stage.reorder(*outer, over, along, row_i, lane)
    if whole:
        buffer = store_of(s.block(stage)).buffer
        nbytes = prod(d.value if d.op == "const" else 1 for d in buffer.shape) * buffer.dtype.nbytes
        stage.tensorize(row_i, transposed_tile(lanes, buffer.dtype.name, past=nbytes >= PAST_CACHES), fallback=True)
    else:
        stage.vectorize(lane)
    if parallel:
        stage.parallel(stage.fuse(*outer, over) if outer else over)


def schedule_points(s: Schedule, stage: Stage, machine: Machine) -> None:
    """Reductions of tuples: partial results in lanes along rows; and all that no rule knows: its first axis in parallel, where
    there is work."""
    _vectorize_tuples(s, stage, machine)
    axes = [a for a in stage.axis if not _is_one(s, a)]
    if axes and worth_parallel(work(s.block(stage))):
        stage.parallel(axes[0])


def _vectorize_tuples(s: Schedule, stage: Stage, machine: Machine) -> None:
    """A reduction of tuples along rows: lane n reduces elements n, n + lanes, ...; then the lanes are combined.

        for i: for k: best[i] = argmax(best[i], (k, x[i, k]))
    ->  for i: for k_o: (for k_i in lanes: part[k_i] = argmax(part[k_i], (k_o*lanes + k_i, x[i, k_o*lanes + k_i])))
               for k_i: best[i] = argmax(best[i], part[k_i])
    """
    block = s.block(stage)
    reduction = reduction_of(block)
    if reduction is None or block.init is None or len(reduction.stores) < 2 or not (stage.axis and stage.reduce_axis):
        return
    own = {store.buffer for store in reduction.stores}
    k, along = stage.reduce_axis[-1], reduce_vars(block)[-1]
    reads = [e for source in reduction.sources for e in loads(source) if e.value not in own]
    lanes = machine.lanes(min(e.value.dtype.nbytes for e in reads)) if reads else 0
    size = _extent(s, k)
    if size is None or lanes > 32 or size < 4 * lanes or len(stage.loops) != len(stage.axis) + len(stage.reduce_axis):
        return
    if any(step(e, along) == "far" for e in reads) or not all(step(e, along) == "unit" for e in reads[:1]):
        return
    _, inner = stage.split(k, lanes)
    part = stage.rfactor(inner)
    lane = next(a for a in part.axis if s.extent(a) is s.extent(stage.reduce_axis[-1]) and a.var is inner.var)
    part.reorder(*(a for a in part.loops if a is not lane), lane)
    part.compute_at(stage, stage.axis[-1])
    part.vectorize(lane)


def _zipped(s: Schedule, stage: Stage, axes: list[Loop], lanes: int) -> bool:
    """Whether the last axis is short, and its elements come from lines apart that run along the axis before it."""
    size, block = _extent(s, axes[-1]), s.block(stage)
    if len(axes) < 3 or size is None or not 1 < size <= 4 or not loads(source_of(block)):
        return False
    along, last = spatial_vars(block)[-2:]
    before = _extent(s, axes[-2])
    moving = [e for e in loads(source_of(block)) if any(v in free_vars(i) for v in (along, last) for i in e.args)]
    far = moving and all(step(e, last) == "far" and step(e, along) == "unit" for e in moving)
    return bool(far) and before is not None and before >= lanes


def _vectorize(s: Schedule, stage: Stage, last: Loop, lanes: int, machine: Machine) -> Loop | None:
    """Split `last` into vectors; the loop over them, or None where it is too short to pay."""
    size = _extent(s, last)
    if size is not None and size < lanes:
        if size >= lanes // 2 or size in (4, 8):
            stage.vectorize(last)
        return None
    if not _vectorizable(s, stage):
        times = _repeats(s.block(stage), size)
        if times is None:
            return last
        outer, inner = stage.split(last, times)
        stage.unroll(inner)
        return outer
    outer, inner = stage.split(last, lanes * interleaved(s.block(stage), size, lanes, machine))
    stage.vectorize(inner)
    return outer


def _repeats(block: Block, size: int | None) -> int | None:
    """The number by which the index along the last axis is divided, if it is always one, and divides the extent."""
    last = spatial_vars(block)[-1]
    by = {n.args[1] for n in walk(source_of(block)) if n.op in ("floordiv", "floormod") and last in free_vars(n)}
    if size is None or len(by) != 1:
        return None
    (n,) = by
    return n.value if n.op == "const" and 1 < n.value <= 8 and size % n.value == 0 else None


def _vectorizable(s: Schedule, stage: Stage) -> bool:
    """Integer division by lanes is slower than scalar code."""
    block = s.block(stage)
    if not block.iters:
        return False
    last = [it for it in block.iters if it.kind == "spatial"][-1].var
    return not any(n.op in ("floordiv", "floormod") and last in free_vars(n) for n in walk(source_of(block)))


def _is_flat(s: Schedule, stage: Stage) -> bool:
    """Whether every tensor is read exactly at the element that is written, and has its shape."""
    block = s.block(stage)
    store = store_of(block)
    return all(
        e.args == store.indices and e.value.shape == store.buffer.shape for e in loads(source_of(block)) if e.args
    ) and all(n.op != "var" or n not in store.indices for n in _outside_loads(source_of(block)))


def _outside_loads(e: Expr) -> Iterator[Expr]:
    """Nodes of `e` that are not inside a load's indices."""
    stack = [e]
    while stack:
        node = stack.pop()
        yield node
        if node.op != "load":
            stack.extend(node.args)


def _extent(s: Schedule, loop: Loop) -> int | None:
    size = s.extent(loop)
    return size.value if size.op == "const" else None


def _is_one(s: Schedule, loop: Loop) -> bool:
    return _extent(s, loop) == 1
