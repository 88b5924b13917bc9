"""Stages that compute each element once: vectorised along the last axis, parallel over the rest."""

from __future__ import annotations

from collections.abc import Iterator

from tensorlang.ir.expr import Expr
from tensorlang.ir.reduction import reduction_of
from tensorlang.ir.visitor import free_vars, loads, walk
from tensorlang.schedule import Loop, Schedule, Stage
from tensorlang.schedule.rules import Machine

from .analysis import reduce_vars, source_of, step, store_of, work, worth_parallel


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
    rows: Loop | None = None
    if len(axes) > 1:
        rows = stage.fuse(*axes[:-1]) if len(axes) > 2 else axes[0]
    last = axes[-1]
    outer = _vectorize(s, stage, last, vector_lanes(s, stage, machine))
    if parallel:
        target = rows if rows is not None and not _is_one(s, rows) else outer
        if target is not None:
            stage.parallel(target)


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


def _vectorize(s: Schedule, stage: Stage, last: Loop, lanes: int) -> Loop | None:
    """Split `last` into vectors; the loop over them, or None where it is too short to pay."""
    size = _extent(s, last)
    if size is not None and size < lanes:
        if size >= lanes // 2 or size in (4, 8):
            stage.vectorize(last)
        return None
    if not _vectorizable(s, stage):
        return last
    outer, inner = stage.split(last, lanes)
    stage.vectorize(inner)
    return outer


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
