"""Primitives that add a copy of a tensor, or change how it is laid out: cache_read, cache_write, transform_layout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tensorlang.errors import ScheduleError
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr, const, load, lt, select, var
from tensorlang.ir.stmt import Allocate, Block, For, Iter, PrimFunc, Stmt, Store, seq
from tensorlang.ir.tree import block_path, drop_allocation, replace_stmt, sole_ancestor
from tensorlang.ir.visitor import blocks, map_exprs, replace_buffers, rewrite, substitute, walk_stmt
from tensorlang.schedule.compute import producer, readers
from tensorlang.symbolic.simplify import simplify


def _unique(func: PrimFunc, name: str) -> str:
    taken = {b.name for b in blocks(func.body)} | {b.name for b in func.buffers}
    candidate, serial = name, 1
    while candidate in taken:
        candidate, serial = f"{name}_{serial}", serial + 1
    return candidate


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
    name = _unique(func, f"{buffer.name}_{scope}")
    copy = Buffer(name, buffer.shape, buffer.dtype, "global" if scope == "global" else scope)
    body = func.body
    first: Stmt | None = None
    for reader in names:
        path = block_path(body, reader)
        if not path:
            raise ScheduleError(f"cache_read: no stage {reader}")
        block = path[-1]
        new = replace_buffers(block, {buffer: copy})
        if new is block:
            raise ScheduleError(f"cache_read: {reader} does not read {buffer.name}")
        body = replace_stmt(body, block, new)
    nest = _copy_nest(name, buffer, copy)
    writer = producer(func, buffer)
    if writer is None:  # a parameter: the copy goes before everything that reads it
        path = block_path(body, names[0])
        first = _root_child(path)
        body = replace_stmt(body, first, seq(nest, first))
    else:
        last = _root_child(block_path(body, writer.name))
        body = replace_stmt(body, last, seq(last, nest))
    return func.with_body(Allocate(copy, body)), name


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
    name = _unique(func, f"{stage}_{scope}")
    inner = Buffer(name, buffer.shape, buffer.dtype, "global" if scope == "global" else scope)
    new = replace_buffers(replace(block, name=name), {buffer: inner})
    nest = sole_ancestor(path)
    moved = replace_stmt(nest, block, new)
    body = replace_stmt(func.body, nest, seq(moved, _copy_nest(stage, inner, buffer)))
    return func.with_body(Allocate(inner, body)), name


def transform_layout(func: PrimFunc, stage: str, index_map: Callable[..., object]) -> tuple[PrimFunc, list[Expr]]:
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
    if old in func.params:
        raise ScheduleError(f"transform_layout: {old.name} is a parameter, whose layout is the caller's; cache_read it first")
    own = tuple(it.var for it in block.iters)
    if block.body.indices != own:
        raise ScheduleError(f"transform_layout: {stage} does not write its elements in the order of its axes")
    new_index = tuple(index_map(*own))  # type: ignore[call-overload]
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


def _component(e: object, own: tuple[Expr, ...]) -> tuple[Expr, str, Expr]:
    if isinstance(e, Expr):
        if e in own:
            return e, "whole", const(1)
        if e.op in ("floordiv", "floormod") and e.args[0] in own and e.args[1].op == "const":
            return e.args[0], "div" if e.op == "floordiv" else "mod", e.args[1]
    raise ScheduleError(f"transform_layout: {e} is none of: an old index v, v // c, v % c")


def stages_of(func: PrimFunc) -> list[str]:
    return [s.name for s in walk_stmt(func.body) if isinstance(s, Block)]
