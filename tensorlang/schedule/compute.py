"""Primitives on where a stage is computed: compute_at, compute_inline, compute_root is where everything begins."""

from __future__ import annotations

from dataclasses import replace

from tensorlang.errors import ScheduleError
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr, and_, le, lt, var
from tensorlang.ir.stmt import Allocate, Block, For, Iter, PrimFunc, Seq, Stmt, Store, seq
from tensorlang.ir.tree import (
    block_path,
    drop_allocation,
    loop_path,
    loops_of,
    path_to,
    read_buffers,
    replace_stmt,
    sole_ancestor,
    written_buffer,
)
from tensorlang.ir.visitor import (
    blocks,
    free_vars,
    loads,
    map_exprs,
    own_exprs,
    replace_buffers,
    rewrite,
    substitute,
    walk_stmt,
)
from tensorlang.symbolic.bounds import bounds, prove
from tensorlang.symbolic.interval import RangesLike
from tensorlang.symbolic.region import access_region, union_region
from tensorlang.symbolic.simplify import simplify

Region = list[tuple[Expr, Expr]]


def block_reads(block: Block, buffer: Buffer) -> list[tuple[Expr, ...]]:
    """The index tuples at which `block` reads `buffer`, in terms of the loops around it (its own update excepted)."""
    mapping = {it.var: it.binding for it in block.iters}
    own = {s.indices for s in walk_stmt(block.body) if isinstance(s, Store) and s.buffer is buffer}
    found: dict[tuple[Expr, ...], None] = {}
    for s in walk_stmt(block.body):
        for e in own_exprs(s):
            for access in loads(e):
                if access.value is buffer and access.args not in own:
                    found.setdefault(tuple(substitute(a, mapping) for a in access.args))
    return list(found)


def required_region(body: Stmt, buffer: Buffer, outer: RangesLike) -> Region | None:
    """Per dimension (minimum, extent) of what `body` reads of `buffer`; variables bound outside, by `outer`, stay symbols."""
    inner: dict[Expr, Expr | int] = {s.var: s.extent for s in walk_stmt(body) if isinstance(s, For)}
    region: Region | None = None
    for block in blocks(body):
        for index in block_reads(block, buffer):
            touched = access_region(tuple(simplify(i, inner) for i in index), inner, buffer.shape, outer)
            region = touched if region is None else union_region(region, touched, outer)
    return region


def compute_at(func: PrimFunc, stage: str, loop: For) -> tuple[PrimFunc, list[Expr], list[Expr]]:
    """Each iteration of `loop` computes just the part of `stage` that it reads, into memory of its own.

        for i: y[i] = f(x[i])                                 y.compute_at(out, i)
        for i: for j: out[i, j] = y[i] + z[j]
    ->  for i:
            y = alloc(...)
            y[i] = f(x[i])
            for j: out[i, j] = y[i] + z[j]

    Legal if every reader of `stage` is inside `loop`, `stage` is not an output, and what it reads is complete before.
    Returns the stage's new spatial and reduction loops.
    """
    path = block_path(func.body, stage)
    block = path[-1]
    if not isinstance(block, Block):
        raise ScheduleError(f"compute_at: no stage {stage}")
    buffer = written_buffer(block)
    _check_movable(func, block, buffer, path, "compute_at")
    if any(s is loop for s in path):
        raise ScheduleError(f"compute_at: {stage} is already inside {loop.var.name}")
    outside = [b.name for b in blocks(func.body) if b.name != stage and block_reads(b, buffer)]
    inside = {b.name for b in blocks(loop)}
    if stray := [b for b in outside if b not in inside]:
        raise ScheduleError(f"compute_at: {stray[0]} reads {stage} but is not inside loop {loop.var.name}")
    if not outside:
        raise ScheduleError(f"compute_at: nothing inside loop {loop.var.name} reads {stage}")
    _check_visible(func, block, loop, "compute_at")
    outer: dict[Expr, Expr | int] = {f.var: f.extent for f in loops_of(loop_path(func.body, loop.var))}
    region = required_region(loop.body, buffer, outer)
    if region is None:
        raise ScheduleError(f"compute_at: the part of {stage} that {loop.var.name} reads is unknown")

    spatial = [it for it in block.iters if it.kind == "spatial"]
    new_loops: list[tuple[Expr, Expr]] = []
    iters: list[Iter] = []
    predicate: Expr = block.predicate
    dims = iter(region)
    unproved: list[tuple[Expr, Expr]] = []
    spatial_vars, reduce_vars = [], []
    for it in block.iters:
        v = var(it.var.name.removeprefix("v") or it.var.name)
        if it.kind == "spatial":
            low, extent = next(dims)
            binding = simplify(low + v, {**outer, v: extent})
            ranges = {**outer, v: extent}
            unproved += [
                (it.var, condition)
                for condition in (le(0, binding), lt(binding, it.extent))
                if not prove(condition, ranges)
            ]
            new_loops.append((v, extent))
            spatial_vars.append(v)
        else:
            binding = v
            new_loops.append((v, it.extent))
            reduce_vars.append(v)
        iters.append(replace(it, binding=binding))
    if len(spatial) != buffer.ndim:
        raise ScheduleError(f"compute_at: {stage} does not write its buffer point by point")
    bindings = {it.var: it.binding for it in iters}
    ranges = {**outer, **dict(new_loops)}
    guarded = {v for v, c in unproved if c.op == "le" or not _reads_in_bounds(block, v, bindings, ranges)}
    for v, condition in unproved:
        if v in guarded:
            predicate = and_(predicate, condition)
    # Axes that overshoot without a guard need the room for it.
    beyond = {v: simplify(bounds(bindings[v], ranges)[1] + 1) for v, c in unproved if v not in guarded and c.op == "lt"}
    iters = [replace(it, extent=beyond.get(it.var, it.extent)) for it in iters]
    shape = tuple(beyond.get(it.var, d) for it, d in zip(spatial, buffer.shape, strict=True))
    nest: Stmt = replace(block, iters=tuple(iters), predicate=predicate)
    for v, extent in reversed(new_loops):
        nest = For(v, extent, "serial", nest)
    body = replace_stmt(drop_allocation(func.body, buffer), sole_ancestor(path), None)
    target = loop_path(body, loop.var)[-1]
    if not isinstance(target, For):
        raise ScheduleError(f"compute_at: no loop {loop.var.name}")
    private: Stmt = Allocate(buffer, _insert_before_first_reader(target.body, nest, buffer))
    if beyond:
        private = replace_buffers(private, {buffer: buffer.with_(shape=shape)})
    return func.with_body(replace_stmt(body, target, replace(target, body=private))), spatial_vars, reduce_vars


def _reads_in_bounds(block: Block, axis: Expr, bindings: dict[Expr, Expr], ranges: dict[Expr, Expr | int]) -> bool:
    """Whether everything that `block` reads at a position given by `axis` exists although `axis` overshoots.

    Then the overshooting points may be computed: they go to private memory, and nobody reads them.
    """
    if not isinstance(block.body, Store):
        return False
    for access in loads(block.body.value):
        if access.value is block.body.buffer:
            continue
        for index, size in zip(access.args, access.value.shape, strict=True):
            if axis in free_vars(index):
                at = simplify(substitute(index, bindings), ranges)
                if not (prove(le(0, at), ranges) and prove(lt(at, size), ranges)):
                    return False
    return True


def _check_movable(func: PrimFunc, block: Block, buffer: Buffer, path: list[Stmt], what: str) -> None:
    if buffer in func.params:
        raise ScheduleError(f"{what}: {block.name} is an output; every element of it must be computed")
    store = block.body
    if not isinstance(store, Store) or store.indices != tuple(it.var for it in block.iters if it.kind == "spatial"):
        raise ScheduleError(f"{what}: {block.name} does not write its elements in the order of its axes")
    loops = {f.var for f in loops_of(path)}
    for it in block.iters:
        if it.binding not in loops and it.binding.op != "const":
            raise ScheduleError(
                f"{what}: {block.name} was already transformed ({it.var.name} = {it.binding}); call {what} first, then split it"
            )
    writers = [b.name for b in blocks(func.body) if b.name != block.name and written_buffer(b) is buffer]
    if writers:
        raise ScheduleError(f"{what}: {block.name} is written by {writers[0]} too")


def _check_visible(func: PrimFunc, block: Block, target: Stmt, what: str) -> None:
    """Everything that `block` reads exists at `target` too."""
    for read in read_buffers(block):
        path = path_to(func.body, lambda s, b=read: isinstance(s, Allocate) and s.buffer is b)  # type: ignore[misc]
        if path and not any(s is target for s in walk_stmt(path[-1])):
            loops = [f.var.name for f in loops_of(path)]
            where = f"inside loop {loops[-1]}" if loops else "beside it"
            raise ScheduleError(
                f"{what}: {block.name} reads {read.name}, which exists only {where}; call {what} for {block.name} first"
            )


def _insert_before_first_reader(body: Stmt, nest: Stmt, buffer: Buffer) -> Stmt:
    if isinstance(body, Allocate):
        return replace(body, body=_insert_before_first_reader(body.body, nest, buffer))
    if not isinstance(body, Seq):
        return seq(nest, body)
    at = next(n for n, s in enumerate(body.stmts) if buffer in read_buffers(s))
    head, tail = body.stmts[:at], body.stmts[at:]
    return seq(*head, nest, *tail)


def compute_inline(func: PrimFunc, stage: str) -> PrimFunc:
    """Readers of `stage` compute its elements themselves; the stage and its buffer disappear.

    Legal if `stage` is not a reduction and not an output.
    """
    path = block_path(func.body, stage)
    block = path[-1]
    if not isinstance(block, Block):
        raise ScheduleError(f"compute_inline: no stage {stage}")
    buffer = written_buffer(block)
    if block.init is not None:
        raise ScheduleError(f"compute_inline: {stage} is a reduction; compute_at keeps it in a private buffer instead")
    if buffer in func.params:
        raise ScheduleError(f"compute_inline: {stage} is an output")
    store = block.body
    if not isinstance(store, Store) or store.indices != tuple(it.var for it in block.iters):
        raise ScheduleError(f"compute_inline: {stage} does not write its elements in the order of its axes")
    if any(e.value is buffer for e in loads(store.value)):
        raise ScheduleError(f"compute_inline: {stage} reads itself")
    if others := [b.name for b in blocks(func.body) if b is not block and written_buffer(b) is buffer]:
        raise ScheduleError(f"compute_inline: {buffer.name} is written by {others[0]} too")

    for reader in readers(func, buffer):
        _check_visible(func, block, reader, "compute_inline")

    def inline(e: Expr) -> Expr | None:
        if e.op != "load" or e.value is not buffer:
            return None
        return substitute(store.value, dict(zip(store.indices, e.args, strict=True)))

    body = replace_stmt(drop_allocation(func.body, buffer), sole_ancestor(path), None)
    return func.with_body(map_exprs(body, lambda e: rewrite(e, inline)))


def readers(func: PrimFunc, buffer: Buffer) -> list[Block]:
    return [b for b in blocks(func.body) if block_reads(b, buffer)]


def producer(func: PrimFunc, buffer: Buffer) -> Block | None:
    """The block that writes `buffer`, initialisations excepted."""
    return next((b for b in reversed(blocks(func.body)) if written_buffer(b) is buffer), None)

