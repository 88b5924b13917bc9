"""Primitives that add a copy of a tensor: cache_read, cache_write, reindex. In a loop, the copy is of what is used there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from tensorlang.errors import ScheduleError
from tensorlang.ir.buffer import SCOPES, Buffer, is_scope
from tensorlang.ir.expr import Expr, and_, const, le, load, lt, select, var
from tensorlang.ir.reduction import store_all, stores_of
from tensorlang.ir.stmt import Allocate, Block, CallPacked, If, Iter, PrimFunc, Seq, Stmt, Store, seq
from tensorlang.ir.tree import (
    block_path,
    loop_path,
    loops_of,
    path_to,
    read_buffers,
    replace_stmt,
    written_buffers,
)
from tensorlang.ir.visitor import blocks, free_vars, loads, map_exprs, replace_buffers, rewrite, substitute, walk_stmt
from tensorlang.schedule.compute import has_value, readers, required_region
from tensorlang.schedule.place import Placed, fresh_nest, top_of
from tensorlang.symbolic.bounds import prove


def unique_name(func: PrimFunc, name: str) -> str:
    """`name`, or `name_1` and so on, that no stage or buffer of `func` has."""
    taken = {b.name for b in blocks(func.body)} | {b.name for b in func.buffers}
    taken |= {s.buffer.name for s in walk_stmt(func.body) if isinstance(s, Allocate)}
    candidate, serial = name, 1
    while candidate in taken:
        candidate, serial = f"{name}_{serial}", serial + 1
    return candidate


def with_source(func: PrimFunc, name: str, stage: str) -> PrimFunc:
    """`func`, where the stage `name` was made from `stage` and so has the same place in the user's file."""
    source = func.attrs.get("source") or {}
    if stage not in source:
        return func
    return replace(func, attrs={**func.attrs, "source": {**source, name: source[stage]}})


def checked_scope(scope: str, what: str) -> str:
    """`scope`, which must be one that exists."""
    if not is_scope(scope):
        raise ScheduleError(f"{what}: {scope!r} is no scope; there are {', '.join(SCOPES)}, and a target's own, with a dot")
    return scope


def cache_read(func: PrimFunc, buffer: Buffer, scope: str, stages: Sequence[str]) -> tuple[Placed, str]:
    """The named readers of `buffer` read a copy of it, made by a new stage before them.

    for i: y[i] = f(x[i])  ->  for i: x_global[i] = x[i]
                               for i: y[i] = f(x_global[i])

    The copy of a buffer that is private to a loop is private to it too, and as large as what is read there.
    """
    what = "cache_read"
    names = list(stages) or [b.name for b in readers(func, buffer)]
    if not names:
        raise ScheduleError(f"{what}: no stage reads {buffer.name}")
    name = unique_name(func, f"{buffer.name}_{checked_scope(scope, what)}")
    copy = Buffer(name, buffer.shape, buffer.dtype, scope)
    writers = {b.name for b in blocks(func.body) if buffer in written_buffers(b)}

    def reading(block: Block) -> Block:
        if block.name in writers:
            raise ScheduleError(f"{what}: {block.name} writes {buffer.name}; only stages after it can read a copy")
        new = replace_buffers(block, {buffer: copy})
        if new is block:
            raise ScheduleError(f"{what}: {block.name} does not read {buffer.name}")
        return new  # type: ignore[return-value]

    own = tuple(var(f"v{n}") for n in range(buffer.ndim))
    iters = tuple(Iter(v, d, "spatial", const(0)) for v, d in zip(own, buffer.shape, strict=True))
    block = Block(name, iters, Store(copy, own, load(buffer, own)))
    placed = _add_before(func, buffer, names, reading, block, copy, what)
    return replace(placed, func=with_source(placed.func, name, buffer.name)), name


def reindex(func: PrimFunc, stage: str, buffer: Buffer, scope: str) -> tuple[Placed, str]:
    """`stage` reads a copy of `buffer` that is laid out by its own iteration variables; the access is the copy's.

        for h: for kh: y[h] += x[h * 2 + kh] * w[kh]           reindex(y, x)
    ->  for h: for kh: x_reindex[h, kh] = x[h * 2 + kh]
        for h: for kh: y[h] += x_reindex[h, kh] * w[kh]

    Elements that would lie outside of `buffer` are zeros, which nobody reads.
    """
    what = "reindex"
    path = block_path(func.body, stage)
    reader = path[-1]
    if not isinstance(reader, Block) or stores_of(reader.body) is None:
        raise ScheduleError(f"{what}: {stage} is not a plain stage or reduction")
    own_buffers = written_buffers(reader)
    if buffer in own_buffers:
        raise ScheduleError(f"{what}: {stage} writes {buffer.name}, in the order of its axes already (a copy: cache_write)")
    indices = list(dict.fromkeys(e.args for s in stores_of(reader.body) or () for e in loads(s.value) if e.value is buffer))
    if len(indices) != 1:
        many = "does not read" if not indices else f"reads {len(indices)} different elements at once of"
        raise ScheduleError(f"{what}: {stage} {many} {buffer.name}")
    (index,) = indices
    if any(loads(e) for e in index):
        raise ScheduleError(f"{what}: {stage} reads {buffer.name} at an index that is itself read from memory")
    used = [it for it in reader.iters if any(it.var in free_vars(e) for e in index)]
    if not used:
        raise ScheduleError(f"{what}: the index of {buffer.name} does not depend on the axes of {stage}")
    name = unique_name(func, f"{buffer.name}_reindex")
    copy = Buffer(name, tuple(it.extent for it in used), buffer.dtype, checked_scope(scope, what))
    fresh = {it.var: var(it.var.name) for it in used}
    at = tuple(substitute(e, fresh) for e in index)
    ranges = {fresh[it.var]: it.extent for it in used}
    if not all(has_value((e, e), ranges) for e in at):
        raise ScheduleError(f"{what}: {stage} reads {buffer.name} at an index with a division by a size, which may be 0")
    inside: Expr = const(True)
    for e, size in zip(at, buffer.shape, strict=True):
        for condition in (le(0, e), lt(e, size)):
            if not prove(condition, ranges):
                inside = and_(inside, condition)
    value = select(inside, load(buffer, at), const(0, buffer.dtype))
    own = tuple(fresh.values())
    iters = tuple(Iter(fresh[it.var], it.extent, "spatial", const(0)) for it in used)
    block = Block(name, iters, Store(copy, own, value))

    def reading(b: Block) -> Block:
        theirs = load(copy, tuple(it.var for it in used))

        def rule(e: Expr) -> Expr | None:
            return theirs if e.op == "load" and e.value is buffer else None

        return replace(b, body=map_exprs(b.body, lambda e: rewrite(e, rule)))

    placed = _add_before(func, buffer, [stage], reading, block, copy, what)
    return replace(placed, func=with_source(placed.func, name, buffer.name)), name


def _add_before(
    func: PrimFunc,
    buffer: Buffer,
    names: Sequence[str],
    reading: Callable[[Block], Block],
    block: Block,
    copy: Buffer,
    what: str,
) -> Placed:
    """`func` where the stage `block` makes `copy` from `buffer`, and the stages `names` are as `reading` makes them.

    The copy is made where `buffer` lives: in the loop that it is private to, after it is written and before it is read.
    """
    body = func.body
    for reader in names:
        path = block_path(body, reader)
        if not path or not isinstance(path[-1], Block):
            raise ScheduleError(f"{what}: no stage {reader}")
        if any(isinstance(s, CallPacked) and buffer in s.buffers for s in walk_stmt(path[-1])) and what == "reindex":
            raise ScheduleError(f"{what}: {reader} passes {buffer.name} to a packed function as a whole")
        body = replace_stmt(body, path[-1], reading(path[-1]))
    home = path_to(body, lambda s: isinstance(s, Allocate) and s.buffer is buffer)
    around = loops_of(home)
    inside = bool(around) or any(isinstance(s, If) for s in home)  # a loop, or a version of the program
    scope = home[-1].body if inside and isinstance(home[-1], Allocate) else body
    parts = _parts(scope)
    wrote = [n for n, s in enumerate(parts) if any(buffer in written_buffers(b) for b in blocks(s))]
    reads = [n for n, s in enumerate(parts) if any(b.name in names for b in blocks(s))]
    if wrote and wrote[-1] >= reads[0]:
        early = next(b.name for n in reads if n <= wrote[-1] for b in blocks(parts[n]) if b.name in names)
        raise ScheduleError(f"{what}: {early} reads {buffer.name} in the loops that write it")
    outer: dict[Expr, Expr | int] = {f.var: f.extent for f in around}
    region = required_region(scope, copy, outer) if around else None
    nest, axes, widened = fresh_nest(block, region, outer, what)
    if wrote:
        new = replace_stmt(scope, parts[wrote[-1]], seq(parts[wrote[-1]], nest))
    else:  # a parameter: the copy goes before everything that reads it
        new = replace_stmt(scope, parts[reads[0]], seq(nest, parts[reads[0]]))
    new = Allocate(copy, new)
    if widened:
        shape = tuple(widened.get(n, d) for n, d in enumerate(copy.shape))
        wider = copy.with_(shape=shape)
        new, copy = replace_buffers(new, {copy: wider}), wider
    complete: list[tuple[Expr | None, Buffer]] = []
    if inside:
        new = replace_stmt(body, scope, new)
    if around:
        complete = [(around[-1].var, copy), (around[-1].var, buffer)]
    return Placed(func.with_body(new), {block.name: axes}, tuple(complete))


def _parts(s: Stmt) -> list[Stmt]:
    """The nests that `s` runs one after the other."""
    if isinstance(s, Allocate):
        return _parts(s.body)
    return [p for c in s.stmts for p in _parts(c)] if isinstance(s, Seq) else [s]


def cache_write(func: PrimFunc, stage: str, scope: str) -> tuple[Placed, str]:
    """`stage` computes into a new buffer, and a stage of the old name copies that to where it was stored.

    for i: y[i] = f(x[i])  ->  for i: y_local[i] = f(x[i])
                               for i: y[i] = y_local[i]

    The new stage takes the computation, with its loops and what is computed inside them; the copy has plain loops.
    """
    what = "cache_write"
    path = block_path(func.body, stage)
    block = path[-1] if path else None
    if not isinstance(block, Block):
        raise ScheduleError(f"{what}: no stage {stage}")
    stores = stores_of(block.body)
    if stores is None or len({s.indices for s in stores}) != 1 or any(s.indices != _spatial(block) for s in stores):
        raise ScheduleError(f"{what}: {stage} does not write its elements in the order of its axes")
    top = top_of(path)
    buffers = tuple(s.buffer for s in stores)
    for b in blocks(func.body):
        if b is not block and (mine := [x.name for x in buffers if x in written_buffers(b)]):
            raise ScheduleError(f"{what}: {mine[0]} is written by {b.name} too")
    for b in blocks(top):
        if b is not block and (mine := [x.name for x in buffers if x in read_buffers(b)]):
            raise ScheduleError(f"{what}: {b.name} reads {mine[0]} in the loops that compute it")
    checked_scope(scope, what)
    single = len(buffers) == 1
    name = unique_name(func, f"{stage}_{scope}")
    inner = {
        b: Buffer(name if single else unique_name(func, f"{b.name}_{scope}"), b.shape, b.dtype, scope) for b in buffers
    }
    moved = replace_stmt(top, block, replace_buffers(replace(block, name=name), inner))
    own = tuple(var(f"v{n}") for n in range(buffers[0].ndim))
    copies = store_all([Store(b, own, load(inner[b], own)) for b in buffers])
    shape = buffers[0].shape
    copy = Block(stage, tuple(Iter(v, d, "spatial", const(0)) for v, d in zip(own, shape, strict=True)), copies)
    around = loops_of(path[: path.index(top)])
    outer: dict[Expr, Expr | int] = {f.var: f.extent for f in around}
    region = None
    if around:
        scope_body = loop_path(func.body, around[-1].var)[-1].body  # type: ignore[attr-defined]
        for buffer in buffers:
            region = region or required_region(scope_body, buffer, outer)
    nest, axes, widened = fresh_nest(copy, region, outer, what)
    if widened:
        raise ScheduleError(f"{what}: {stage} is computed beyond its own extents; call {what} before compute_at")
    new: Stmt = seq(moved, nest)
    if not around:
        body = replace_stmt(func.body, top, new)
        for buffer in reversed(buffers):
            body = Allocate(inner[buffer], body)
        return Placed(with_source(func, name, stage).with_body(body), {stage: axes}), name
    for buffer in reversed(buffers):
        new = Allocate(inner[buffer], new)
    at = around[-1].var
    complete = tuple((at, x) for b in buffers for x in (b, inner[b]))
    return Placed(with_source(func, name, stage).with_body(replace_stmt(func.body, top, new)), {stage: axes}, complete), name


def _spatial(block: Block) -> tuple[Expr, ...]:
    return tuple(it.var for it in block.iters if it.kind == "spatial")
