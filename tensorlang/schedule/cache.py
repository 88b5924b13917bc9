"""Primitives that add a copy of a tensor, or change how it is laid out: cache_read, cache_write, transform_layout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from tensorlang.errors import ScheduleError
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr, const, load, lt, select, var
from tensorlang.ir.stmt import Allocate, Block, For, Iter, PrimFunc, Stmt, Store, seq
from tensorlang.ir.tree import (
    block_path,
    drop_allocation,
    loops_of,
    path_to,
    replace_stmt,
    sole_ancestor,
    written_buffer,
)
from tensorlang.ir.visitor import blocks, map_exprs, replace_buffers, rewrite, substitute, walk_stmt
from tensorlang.schedule.compute import readers
from tensorlang.symbolic.simplify import simplify


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


def _copy_nest(name: str, source: Buffer, target: Buffer) -> Stmt:
    loops = [var(f"i{n}") for n in range(source.ndim)]
    own = tuple(var(f"v{n}") for n in range(source.ndim))
    iters = tuple(Iter(v, d, "spatial", i) for v, d, i in zip(own, source.shape, loops, strict=True))
    nest: Stmt = Block(name, iters, Store(target, own, load(source, own)))
    for i, d in zip(reversed(loops), reversed(source.shape), strict=True):
        nest = For(i, d, "serial", nest)
    return nest


def cache_read(func: PrimFunc, buffer: Buffer, scope: str, stages: list[str]) -> tuple[PrimFunc, str]:
    """The named readers of `buffer` read a copy of it, made by a new stage before them.

    for i: y[i] = f(x[i])  ->  for i: x_global[i] = x[i]
                               for i: y[i] = f(x_global[i])
    """
    names = stages or [b.name for b in readers(func, buffer)]
    if not names:
        raise ScheduleError(f"cache_read: no stage reads {buffer.name}")
    if around := _loop_around(func, buffer):
        raise ScheduleError(f"cache_read: {buffer.name} is private to loop {around.var.name}; call it before compute_at")
    writers = [b.name for b in blocks(func.body) if written_buffer(b) is buffer]
    name = unique_name(func, f"{buffer.name}_{scope}")
    copy = Buffer(name, buffer.shape, buffer.dtype, scope)
    body = func.body
    for reader in names:
        path = block_path(body, reader)
        if not path:
            raise ScheduleError(f"cache_read: no stage {reader}")
        if reader in writers:
            raise ScheduleError(f"cache_read: {reader} writes {buffer.name}; only stages after it can read a copy")
        block = path[-1]
        new = replace_buffers(block, {buffer: copy})
        if new is block:
            raise ScheduleError(f"cache_read: {reader} does not read {buffer.name}")
        body = replace_stmt(body, block, new)
    nest = _copy_nest(name, buffer, copy)
    roots = list(dict.fromkeys(_root_child(block_path(body, b.name)) for b in blocks(body)))
    if writers:
        last = max(roots.index(_root_child(block_path(body, w))) for w in writers)
        body = replace_stmt(body, roots[last], seq(roots[last], nest))
    else:  # a parameter: the copy goes before everything that reads it
        first = min(roots.index(_root_child(block_path(body, r))) for r in names)
        last = first - 1
        body = replace_stmt(body, roots[first], seq(nest, roots[first]))
    if early := [r for r in names if roots.index(_root_child(block_path(body, r))) <= last]:
        raise ScheduleError(f"cache_read: {early[0]} reads {buffer.name} in the loops that write it")
    return with_source(func, name, buffer.name).with_body(Allocate(copy, body)), name


def _loop_around(func: PrimFunc, buffer: Buffer) -> For | None:
    """The loop inside which `buffer` is allocated, if any: every iteration has its own."""
    loops = loops_of(path_to(func.body, lambda s: isinstance(s, Allocate) and s.buffer is buffer))
    return loops[-1] if loops else None


def _shared_loop(path: list[Stmt]) -> For | None:
    """The innermost loop around the stage at the end of `path` that holds other statements too."""
    top = sole_ancestor(path)
    return next((s for s in reversed(path[: path.index(top)]) if isinstance(s, For)), None)


def _root_child(path: list[Stmt]) -> Stmt:
    """The outermost loop (or block) on `path`: the root nest that holds it."""
    return next(s for s in path if isinstance(s, For | Block))


def cache_write(func: PrimFunc, stage: str, scope: str) -> tuple[PrimFunc, str]:
    """`stage` computes into a new buffer, and a stage of the old name copies that to where it was stored.

    for i: y[i] = f(x[i])  ->  for i: y_local[i] = f(x[i])
                               for i: y[i] = y_local[i]
    """
    path = block_path(func.body, stage)
    block = path[-1]
    if not isinstance(block, Block) or not isinstance(block.body, Store):
        raise ScheduleError(f"cache_write: no stage {stage}")
    buffer = block.body.buffer
    if others := [b.name for b in blocks(func.body) if b is not block and written_buffer(b) is buffer]:
        raise ScheduleError(f"cache_write: {buffer.name} is written by {others[0]} too")
    if around := _shared_loop(path):
        raise ScheduleError(
            f"cache_write: {stage} is computed inside loop {around.var.name} with other stages; call cache_write first"
        )
    name = unique_name(func, f"{stage}_{scope}")
    inner = Buffer(name, buffer.shape, buffer.dtype, scope)
    new = replace_buffers(replace(block, name=name), {buffer: inner})
    nest = sole_ancestor(path)
    moved = replace_stmt(nest, block, new)
    body = replace_stmt(func.body, nest, seq(moved, _copy_nest(stage, inner, buffer)))
    return with_source(func, name, stage).with_body(Allocate(inner, body)), name


@dataclass(frozen=True, eq=False)
class IndexMap:
    """New indices as expressions of the old ones: data, so that a trace can show it and replay it."""

    old: tuple[Expr, ...]
    new: tuple[Expr, ...]

    @staticmethod
    def of(index_map: Callable[..., object], rank: int) -> IndexMap:
        """What `index_map` gives for `rank` symbolic indices."""
        if isinstance(index_map, IndexMap):
            return index_map
        old = tuple(var(f"i{n}") for n in range(rank))
        try:
            new = index_map(*old)
        except (TypeError, IndexError, AttributeError) as error:
            raise ScheduleError(f"transform_layout: the map fails on {rank} index(es): {error}") from error
        indices = tuple(new) if isinstance(new, tuple | list) else (new,)
        if wrong := [e for e in indices if not isinstance(e, Expr)]:
            raise ScheduleError(f"transform_layout: {wrong[0]!r} is none of: an old index v, v // c, v % c")
        return IndexMap(old, indices)

    def __call__(self, *index: Expr) -> tuple[Expr, ...]:
        mapping = dict(zip(self.old, index, strict=True))
        return tuple(substitute(e, mapping) for e in self.new)

    def __str__(self) -> str:
        return f"lambda {', '.join(v.name for v in self.old)}: ({', '.join(map(str, self.new))},)"


def transform_layout(func: PrimFunc, stage: str, index_map: IndexMap) -> tuple[PrimFunc, list[Expr]]:
    """The buffer that `stage` writes is stored in another order of dimensions, possibly split and padded.

        w_p.transform_layout(lambda k, j: (j // 48, k, j % 48))       w_p[k, j] becomes w_p[j // 48, k, j % 48]

    Each new index is an old index `v`, or `v // c` and `v % c` as a pair. Where c does not divide the extent, the padding
    is filled with zeros. The stage is re-created over the new dimensions; its new loops are returned.
    """
    path = block_path(func.body, stage)
    block = path[-1]
    if not isinstance(block, Block) or not isinstance(block.body, Store) or block.init is not None:
        raise ScheduleError(f"transform_layout: {stage} is not a plain stage (a reduction is copied first: cache_write)")
    old = block.body.buffer
    if around := _shared_loop(path):
        raise ScheduleError(
            f"transform_layout: {stage} is computed inside loop {around.var.name} with other stages; transform it first"
        )
    if old in func.params:
        raise ScheduleError(f"transform_layout: {old.name} is a parameter, whose layout is the caller's; cache_read it first")
    own = tuple(it.var for it in block.iters)
    if block.body.indices != own:
        raise ScheduleError(f"transform_layout: {stage} does not write its elements in the order of its axes")
    new_index = index_map(*own)
    parts: dict[Expr, dict[str, tuple[int, Expr]]] = {v: {} for v in own}
    shape: list[Expr] = []
    for position, e in enumerate(new_index):
        v, role, size = _component(e, own)
        extent = block.iters[own.index(v)].extent
        if role in parts[v]:
            raise ScheduleError(f"transform_layout: {v.name} appears twice as {role}")
        parts[v][role] = (position, size)
        shape.append(extent if role == "whole" else simplify((extent + size - 1) // size) if role == "div" else size)
    fresh = tuple(var(f"v{n}") for n in range(len(shape)))
    inverse: dict[Expr, Expr] = {}
    inside: Expr = const(True)
    for v, it in zip(own, block.iters, strict=True):
        roles = parts[v]
        if set(roles) == {"whole"}:
            inverse[v] = fresh[roles["whole"][0]]
        elif set(roles) == {"div", "mod"} and roles["div"][1] is roles["mod"][1]:
            size = roles["div"][1]
            value = fresh[roles["div"][0]] * size + fresh[roles["mod"][0]]
            inverse[v] = value
            remainder = simplify(it.extent % size)
            if not (remainder.op == "const" and remainder.value == 0):
                inside = inside & lt(value, it.extent)
        else:
            raise ScheduleError(f"transform_layout: {v.name} must appear once, whole or as v // c together with v % c")
    new = Buffer(old.name, tuple(shape), old.dtype, old.scope)
    value = select(inside, substitute(block.body.value, inverse), const(0, old.dtype))
    loops = [var(f"i{n}") for n in range(len(shape))]
    iters = tuple(Iter(v, d, "spatial", i) for v, d, i in zip(fresh, shape, loops, strict=True))
    nest: Stmt = Block(stage, iters, Store(new, fresh, value), annotations=block.annotations)
    for i, d in zip(reversed(loops), reversed(shape), strict=True):
        nest = For(i, d, "serial", nest)
    body = replace_stmt(func.body, sole_ancestor(path), nest)

    def move(e: Expr) -> Expr | None:
        if e.op != "load" or e.value is not old:
            return None
        mapping = dict(zip(own, e.args, strict=True))
        return load(new, tuple(substitute(i, mapping) for i in new_index))

    body = Allocate(new, drop_allocation(map_exprs(body, lambda e: rewrite(e, move)), old))
    return func.with_body(body), loops


def _component(e: Expr, own: tuple[Expr, ...]) -> tuple[Expr, str, Expr]:
    if e in own:
        return e, "whole", const(1)
    if e.op in ("floordiv", "floormod") and e.args[0] in own and e.args[1].op == "const":
        return e.args[0], "div" if e.op == "floordiv" else "mod", e.args[1]
    raise ScheduleError(f"transform_layout: {e} is none of: an old index v, v // c, v % c")
