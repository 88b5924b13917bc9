"""rolling_buffer: what an iteration of a loop shares with the one before is kept, not computed again."""

from __future__ import annotations

from dataclasses import replace

from tensorlang.errors import ScheduleError
from tensorlang.ir.expr import Expr, and_, const, eq, le, load, or_
from tensorlang.ir.stmt import Allocate, Block, For, PrimFunc, Stmt, Store
from tensorlang.ir.tree import block_path, drop_allocation, loop_path, loops_of, replace_stmt, written_buffers
from tensorlang.ir.visitor import blocks, free_vars, map_exprs, rewrite, rewrite_stmt
from tensorlang.schedule.compute import required_region
from tensorlang.schedule.place import ROLLING, STORE_PREDICATE, top_of
from tensorlang.symbolic.affine import linear_form
from tensorlang.symbolic.bounds import bounds, prove
from tensorlang.symbolic.simplify import simplify


def rolling_buffer(func: PrimFunc, stage: str, loop: For | None) -> PrimFunc:
    """The rows that `stage` has computed stay from one iteration of the loop around it to the next, in a circular buffer.

        for i: y = alloc(...); for r in 3: y[i + r] = f(x[i + r]); out[i] = y[i] + y[i + 1] + y[i + 2]
    ->  y = alloc(f32[3])
        for i:
            for r in 3: if i == 0 or r >= 2: y[(i + r) % 3] = f(x[i + r])
            out[i] = y[i % 3] + y[(i + 1) % 3] + y[(i + 2) % 3]

    Proof. Let iteration l read rows low(l) .. low(l) + E - 1, with low(l) = a*l + c and 0 < a < E, and the same part of all
    other dimensions in every iteration. Iteration 0 computes all of its rows, iteration l those from low(l) + E - a on; the
    others were read by iteration l - 1 too, so by induction they were computed. Rows that are read together differ by less
    than E, so no two of them share a slot, and a row is overwritten only when no later iteration reads it. What is read is
    counted without guards, so a reader may roll as well.
    """
    what = "rolling_buffer"
    path = block_path(func.body, stage)
    block = path[-1]
    if not isinstance(block, Block) or not isinstance(block.body, Store):
        raise ScheduleError(f"{what}: {stage} is not a stage that computes one tensor")
    store = block.body
    buffer = store.buffer
    around = loops_of(path[: path.index(top_of(path))])
    if buffer in func.params or not around:
        raise ScheduleError(f"{what}: {stage} is computed at the root, or it is an output; compute it at a loop first")
    inner = around[-1]
    if loop is not None and loop is not inner:
        raise ScheduleError(f"{what}: {stage} is computed at {inner.var.name}, not at {loop.var.name}; compute it there first")
    if inner.kind not in ("serial", "unrolled"):
        name = inner.var.name
        raise ScheduleError(f"{what}: iterations of the {inner.kind} loop {name} cannot use what earlier ones computed")
    if store.indices != tuple(it.var for it in block.iters if it.kind == "spatial"):
        raise ScheduleError(f"{what}: {stage} does not write its elements in the order of its axes")
    if STORE_PREDICATE in block.annotations:
        raise ScheduleError(f"{what}: {stage} is not computed everywhere")
    if writer := next((b.name for b in blocks(func.body) if b is not block and buffer in written_buffers(b)), None):
        raise ScheduleError(f"{what}: {stage} is written by {writer} too")
    outer: dict[Expr, Expr | int] = {f.var: f.extent for f in around}
    region = required_region(inner.body, buffer, outer)
    if region is None:
        raise ScheduleError(f"{what}: nothing reads {stage}")
    moving = [d for d, (low, extent) in enumerate(region) if inner.var in free_vars(low) | free_vars(extent)]
    if len(moving) != 1:
        which = "no dimension" if not moving else f"{len(moving)} dimensions"
        raise ScheduleError(f"{what}: {which} of what is read of {stage} move(s) with {inner.var.name}; one is needed")
    (axis,) = moving
    low, extent = region[axis]
    linear = linear_form(low, {inner.var})
    step = linear[0].get(inner.var) if linear is not None else None
    if not isinstance(step, int) or step <= 0 or extent.op != "const":
        raise ScheduleError(
            f"{what}: iterations of {inner.var.name} read {stage} from {low} on, {extent} rows: no window that moves forward "
            "by a constant"
        )
    if step >= extent.value:
        raise ScheduleError(f"{what}: windows of {extent} rows that move by {step} share nothing")

    spatial = [it for it in block.iters if it.kind == "spatial"]
    ranges = {**outer, **{f.var: f.extent for f in loops_of(path)}}
    # Readers are counted without their guards: what they may read must be what is computed, or the induction has no base.
    own = {f.var: f.extent for f in loops_of(path) if f.var not in outer}
    first, last = bounds(spatial[axis].binding, own)
    if not (prove(le(first, low), outer) and prove(le(low + extent - 1, last), outer)):
        raise ScheduleError(
            f"{what}: iterations of {inner.var.name} compute rows {first} to {last} of {stage}, and may read {extent} "
            f"from {low} on"
        )
    condition = or_(eq(inner.var, 0), simplify(le(low + (extent.value - step), spatial[axis].binding), ranges))
    kept = buffer.with_(shape=(*buffer.shape[:axis], extent, *buffer.shape[axis + 1 :]), align=())

    def slot(index: tuple[Expr, ...]) -> tuple[Expr, ...]:
        return (*index[:axis], index[axis] % const(extent.value), *index[axis + 1 :])

    def on_load(e: Expr) -> Expr | None:
        return load(kept, slot(e.args)) if e.op == "load" and e.value is buffer else None

    def on_store(s: Stmt) -> Stmt | None:
        if isinstance(s, Store) and s.buffer is buffer:
            return Store(kept, slot(s.indices), s.value)
        if isinstance(s, Block) and s.name == stage:
            return replace(s, predicate=and_(s.predicate, condition), annotations={**s.annotations, ROLLING: inner.var.name})
        return None

    body = drop_allocation(func.body, buffer)
    target = loop_path(body, inner.var)[-1]
    new = rewrite_stmt(map_exprs(target, lambda e: rewrite(e, on_load)), on_store)
    return func.with_body(replace_stmt(body, target, Allocate(kept, new)))
