"""Primitives on reductions: rfactor and decompose_reduction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tensorlang.errors import InternalError, ScheduleError
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr, load, select, var
from tensorlang.ir.reduction import (
    conjuncts_free_of,
    conjuncts_on,
    init_nest,
    init_stores,
    reduce_loop_vars,
    reduction_of,
    store_all,
    wrap_loops,
)
from tensorlang.ir.stmt import Allocate, Block, For, Iter, PrimFunc, Stmt, Store, seq
from tensorlang.ir.tree import block_path, loops_of, own_loops, replace_stmt, sole_ancestor
from tensorlang.ir.visitor import free_vars, loads, substitute, walk_stmt
from tensorlang.schedule.cache import unique_name, with_source
from tensorlang.schedule.place import check_same_conditions


def rfactor(func: PrimFunc, stage: str, loop: For, factor_axis: int) -> tuple[PrimFunc, str]:
    """The reduction split in two along `loop`: partial results, one per iteration of it, then their combination.

        for i: for k_o: for k_i: y[i] += x[i, k_o*4 + k_i]                     rfactor(y, k_i)
    ->  for i: for k_o: for k_i: y_rf[k_i, i] += x[i, k_o*4 + k_i]
        for i: for k_i: y[i] += y_rf[k_i, i]

    A reduction of tuples has one buffer of partial results for each of its buffers. Legal because the reducer is
    associative and commutative (of one made by `te.comm_reducer` the user says so; floating-point results may differ by
    rounding), unless the stage reads other elements of what it computes, as in a scan.
    """
    path = block_path(func.body, stage)
    block = _block(path)
    reduction = reduction_of(block)
    if reduction is None:
        raise ScheduleError(f"rfactor: {stage} is not a reduction")
    if again := [e for e in _loads(reduction.sources) if e.value in {t.buffer for t in reduction.stores}]:
        raise ScheduleError(f"rfactor: {stage} reads {again[0]}, which it computes itself")
    if block.init is None:
        raise ScheduleError(f"rfactor: the initialisation of {stage} was split off already; call rfactor before")
    nest = own_loops(path)
    if not any(f is loop for f in nest):
        raise ScheduleError(f"rfactor: {loop.var.name} does not belong to {stage} alone")
    for it in block.iters:
        if it.kind == "spatial" and loop.var in free_vars(it.binding):
            raise ScheduleError(f"rfactor: {loop.var.name} is not a reduction loop of {stage}")
    all_loops = {f.var: f for f in loops_of(path)}
    # Every reduce loop but `loop` becomes a reduce iter of the partial stage; `loop` becomes a spatial iter.
    reduce_loops = [
        v for v in all_loops if any(it.kind == "reduce" and v in free_vars(it.binding) for it in block.iters)
    ]
    spatial_vars = {v for it in block.iters if it.kind == "spatial" for v in free_vars(it.binding)}
    if mixed := [v.name for v in reduce_loops if v in spatial_vars]:
        raise ScheduleError(f"rfactor: loop {mixed[0]} runs over output elements and the reduction of {stage} at once")
    own = {f.var for f in nest}
    if shared := [v.name for v in reduce_loops if v not in own]:
        raise ScheduleError(
            f"rfactor: other stages are computed inside the reduction loop {shared[0]} of {stage}; rfactor before compute_at"
        )
    part_var = var(f"v{loop.var.name}")
    iters: list[Iter] = []
    mapping: dict[Expr, Expr] = {}
    for it in block.iters:
        if it.kind == "spatial":
            fresh = var(it.var.name)
            mapping[it.var] = fresh
            iters.append(replace(it, var=fresh))
    inner_of: dict[Expr, Expr] = {loop.var: part_var}
    part_iter = Iter(part_var, loop.extent, "spatial", loop.var)
    reduce_iters = []
    for v in reduce_loops:
        if v is loop.var:
            continue
        fresh = var(f"v{v.name}")
        inner_of[v] = fresh
        reduce_iters.append(Iter(fresh, all_loops[v].extent, "reduce", v))
    for it in block.iters:
        if it.kind == "reduce":
            if loads(it.binding):  # (fused loops are taken apart by divisions: their points come once each all the same)
                raise ScheduleError(f"rfactor: {it.var.name} = {it.binding} is read from memory")
            mapping[it.var] = substitute(it.binding, inner_of)
    buffers = [t.buffer for t in reduction.stores]
    rank = buffers[0].ndim
    position = factor_axis if factor_axis >= 0 else rank + 1 + factor_axis
    if not 0 <= position <= rank:
        raise ScheduleError(f"rfactor: factor_axis {factor_axis} is outside of the {rank + 1} dimensions")

    def with_part(index: tuple[Expr, ...], part: Expr) -> tuple[Expr, ...]:
        return (*index[:position], part, *index[position:])

    partials = [
        Buffer(unique_name(func, f"{b.name}_rf"), with_part(b.shape, loop.extent), b.dtype) for b in buffers
    ]
    name = unique_name(func, f"{stage}_rf")
    own_index = reduction.stores[0].indices
    index = with_part(tuple(substitute(i, mapping) for i in own_index), part_var)
    reducer = reduction.reducer
    # A guard on reduction loops moves into the source: the partial result must be initialised where the guard excludes it.
    kept_guard = conjuncts_free_of(block.predicate, set(reduce_loops))
    reduce_guard = conjuncts_on(block.predicate, set(reduce_loops))
    if stray := free_vars(reduce_guard) & (set(all_loops) - set(reduce_loops)):
        raise ScheduleError(f"rfactor: the guard {reduce_guard} of {stage} mixes reduction loops with {next(iter(stray)).name}")
    guard = substitute(reduce_guard, inner_of)
    sources = [
        select(guard, substitute(source, mapping), neutral)
        for source, neutral in zip(reduction.sources, reducer.identity, strict=True)
    ]
    combined = reducer.combine([load(p, index) for p in partials], sources)
    rf_block = Block(
        name,
        (*iters[:position], part_iter, *iters[position:], *reduce_iters),
        store_all([Store(p, index, value) for p, value in zip(partials, combined, strict=True)]),
        # A partial result begins at the identity, not at the stage's own initial value: that counts once.
        store_all([Store(p, index, neutral) for p, neutral in zip(partials, reducer.identity, strict=True)]),
        kept_guard,
        block.annotations,
    )
    rf_nest: Stmt = rf_block
    for f in reversed(nest):
        rf_nest = replace(f, body=rf_nest)
    # The combining stage keeps the spatial loops (as fresh copies) and `loop`.
    kept = [f for f in nest if f.var is loop.var or f.var not in reduce_loops]
    renamed = {f.var: var(f.var.name) for f in kept}
    final_part = var(part_var.name)
    totals = reducer.combine(
        [load(b, own_index) for b in buffers], [load(p, with_part(own_index, final_part)) for p in partials]
    )
    final = Block(
        stage,
        (
            *(replace(it, binding=substitute(it.binding, renamed)) for it in block.iters if it.kind == "spatial"),
            Iter(final_part, loop.extent, "reduce", renamed[loop.var]),
        ),
        store_all([Store(b, own_index, value) for b, value in zip(buffers, totals, strict=True)]),
        block.init,
        substitute(kept_guard, renamed),
        block.annotations,
    )
    inner = For(renamed[loop.var], loop.extent, "serial", final)
    final_nest = wrap_loops([f for f in kept if f.var is not loop.var], renamed, inner)
    top = sole_ancestor(path)
    both = seq(rf_nest, final_nest)
    if any(isinstance(s, For) for s in path[: path.index(top)]):
        body = replace_stmt(func.body, top, _allocated(partials, both))
    else:
        body = _allocated(partials, replace_stmt(func.body, top, both))
    return with_source(func, name, stage).with_body(body), name


def decompose_reduction(func: PrimFunc, stage: str, loop: For) -> tuple[PrimFunc, str]:
    """The initialisation of a reduction as a stage of its own, just before `loop`.

    for i: for k: with y(i, k): init y[i] = 0; y[i] += x[i, k]
    ->  for i: (y_init: y[i] = 0); for k: with y(i, k): y[i] += x[i, k]

    Legal if no reduction loop of the stage lies outside of `loop`.
    """
    path = block_path(func.body, stage)
    block = _block(path)
    if block.init is None:
        raise ScheduleError(f"decompose_reduction: {stage} has no initialisation")
    loops = loops_of(path)
    at = next((n for n, f in enumerate(loops) if f is loop), None)
    if at is None:
        raise ScheduleError(f"decompose_reduction: {loop.var.name} is not around {stage}")
    written = {t.buffer for t in init_stores(block)}
    if private := next((s.buffer for s in walk_stmt(loop) if isinstance(s, Allocate) and s.buffer in written), None):
        raise ScheduleError(f"decompose_reduction: {private.name} is private to an iteration of {loop.var.name}")
    check_same_conditions(path, path[: path.index(loop) + 1], "decompose_reduction")
    reduce_vars = reduce_loop_vars(block)
    if outside := [f.var.name for f in loops[:at] if f.var in reduce_vars]:
        raise ScheduleError(f"decompose_reduction: the reduction loop {outside[0]} is outside of {loop.var.name}")
    name = unique_name(func, f"{stage}_init")
    init = init_nest(block, loops[at:], name)
    body = replace_stmt(loop, block, replace(block, init=None))
    return func.with_body(replace_stmt(func.body, loop, seq(init, body))), name


def _allocated(buffers: Sequence[Buffer], body: Stmt) -> Stmt:
    for b in reversed(buffers):
        body = Allocate(b, body)
    return body


def _loads(sources: Sequence[Expr]) -> list[Expr]:
    return [e for source in sources for e in loads(source)]


def _block(path: list[Stmt]) -> Block:
    if not path or not isinstance(path[-1], Block):
        raise InternalError("the path does not end at a block")
    return path[-1]
