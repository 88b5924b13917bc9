"""How what a stage computes is stored: transform_layout, set_scope, storage_align, and the predicate of its store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from tensorlang.errors import ScheduleError
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr, and_, const, load, lt, select, var
from tensorlang.ir.reduction import reduce_loop_vars
from tensorlang.ir.stmt import Allocate, Block, CallPacked, Iter, PrimFunc, Stmt, Store
from tensorlang.ir.tree import (
    block_path,
    loops_of,
    path_to,
    replace_stmt,
    sole_ancestor,
    written_buffer,
    written_buffers,
)
from tensorlang.ir.visitor import blocks, free_vars, map_exprs, replace_buffers, rewrite, substitute, walk_stmt
from tensorlang.schedule.cache import checked_scope
from tensorlang.schedule.compute import required_region
from tensorlang.schedule.place import STORE_PREDICATE, Placed, fresh_nest, top_of
from tensorlang.symbolic.bounds import prove
from tensorlang.symbolic.integer_set import impossible
from tensorlang.symbolic.simplify import simplify


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


def transform_layout(func: PrimFunc, stage: str, index_map: IndexMap) -> Placed:
    """The buffer that `stage` writes is stored in another order of dimensions, possibly split and padded.

        w_p.transform_layout(lambda k, j: (j // 48, k, j % 48))       w_p[k, j] becomes w_p[j // 48, k, j % 48]

    Each new index is an old index `v`, or `v // c` and `v % c` as a pair. Where c does not divide the extent, the padding
    is filled with zeros. The stage is re-created over the new dimensions (inside a loop: over the part that it needs).
    """
    path = block_path(func.body, stage)
    block = path[-1]
    if not isinstance(block, Block) or not isinstance(block.body, Store) or block.init is not None:
        raise ScheduleError(f"transform_layout: {stage} is not a plain stage (a reduction is copied first: cache_write)")
    old = block.body.buffer
    top = top_of(path)
    if sole_ancestor(path) is not top and any(b is not block for b in blocks(top)):
        other = next(b.name for b in blocks(top) if b is not block)
        raise ScheduleError(f"transform_layout: {other} is computed in the loops of {stage}; transform the layout first")
    if packed := next((s for s in walk_stmt(func.body) if isinstance(s, CallPacked) and old in s.buffers), None):
        raise ScheduleError(f"transform_layout: {old.name} is passed to packed function {packed.name} as a whole")
    if old in func.params:
        raise ScheduleError(f"transform_layout: {old.name} is a parameter, whose layout is the caller's; cache_read it first")
    own = tuple(it.var for it in block.iters)
    if block.body.indices != own:
        raise ScheduleError(f"transform_layout: {stage} does not write its elements in the order of its axes")
    if STORE_PREDICATE in block.annotations:
        raise ScheduleError(f"transform_layout: {stage} is not computed everywhere")
    if writer := next((b.name for b in blocks(func.body) if b is not block and old in written_buffers(b)), None):
        raise ScheduleError(f"transform_layout: {old.name} is written by {writer} too")
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
    iters = tuple(Iter(v, d, "spatial", const(0)) for v, d in zip(fresh, shape, strict=True))
    again = Block(stage, iters, Store(new, fresh, value), annotations=block.annotations)

    def move(e: Expr) -> Expr | None:
        if e.op != "load" or e.value is not old:
            return None
        mapping = dict(zip(own, e.args, strict=True))
        return load(new, tuple(substitute(i, mapping) for i in new_index))

    def moved(s: Stmt) -> Stmt:
        return map_exprs(s, lambda e: rewrite(e, move))

    # The buffer lives where it lived; there is the part of it that is needed.
    home = path_to(func.body, lambda s: isinstance(s, Allocate) and s.buffer is old)
    held = home[-1]
    if not isinstance(held, Allocate):
        raise ScheduleError(f"transform_layout: {old.name} is not allocated here")
    around = loops_of(home)
    outer: dict[Expr, Expr | int] = {f.var: f.extent for f in around}
    region = required_region(moved(held.body), new, outer) if around else None
    nest, axes, widened = fresh_nest(again, region, outer, "transform_layout")
    body = moved(replace_stmt(held.body, top, nest))
    complete: tuple[tuple[Expr | None, Buffer], ...] = ()
    if widened:
        wider = new.with_(shape=tuple(widened.get(n, d) for n, d in enumerate(shape)))
        body, new = replace_buffers(body, {new: wider}), wider
    if around:
        complete = ((around[-1].var, new),)
    return Placed(func.with_body(replace_stmt(func.body, held, Allocate(new, body))), {stage: axes}, complete)


def _component(e: Expr, own: tuple[Expr, ...]) -> tuple[Expr, str, Expr]:
    if e in own:
        return e, "whole", const(1)
    if e.op in ("floordiv", "floormod") and e.args[0] in own and e.args[1].op == "const":
        return e.args[0], "div" if e.op == "floordiv" else "mod", e.args[1]
    raise ScheduleError(f"transform_layout: {e} is none of: an old index v, v // c, v % c")


def set_scope(func: PrimFunc, stage: str, scope: str) -> PrimFunc:
    """The buffer that `stage` writes lives in another kind of memory.

    y = alloc(f32[8])  ->  y = alloc(f32[8], scope="local")
    """
    buffer = _own_buffer(func, stage, "set_scope")
    checked_scope(scope, "set_scope")
    if scope == buffer.scope:
        return func
    return func.with_body(replace_buffers(func.body, {buffer: buffer.with_(scope=scope)}))


def storage_align(func: PrimFunc, stage: str, axis: int, factor: int, offset: int) -> PrimFunc:
    """Consecutive elements along `axis` lie `factor * n + offset` elements apart: rows are padded, the shape stays.

    y = alloc(f32[8, 30])  ->  y = alloc(f32[8, 30], align=((0, 16, 0),))     a row takes 32 elements
    """
    what = "storage_align"
    buffer = _own_buffer(func, stage, what)
    position = axis + buffer.ndim if axis < 0 else axis
    if not 0 <= position < buffer.ndim:
        raise ScheduleError(f"{what}: {buffer.name} has {buffer.ndim} dimension(s), and none of number {axis}")
    if position == buffer.ndim - 1:
        raise ScheduleError(f"{what}: elements along the last axis of {buffer.name} lie side by side; align one before it")
    if not isinstance(factor, int) or factor < 1 or not 0 <= offset < factor:
        raise ScheduleError(f"{what}: a factor of at least 1 and an offset below it, not {factor} and {offset}")
    if packed := next((s for s in walk_stmt(func.body) if isinstance(s, CallPacked) and buffer in s.buffers), None):
        raise ScheduleError(f"{what}: {buffer.name} is passed to packed function {packed.name}, which knows no padding")
    others = tuple(t for t in buffer.align if t[0] != position)
    return func.with_body(replace_buffers(func.body, {buffer: buffer.with_(align=(*others, (position, factor, offset)))}))


def _own_buffer(func: PrimFunc, stage: str, what: str) -> Buffer:
    block = block_path(func.body, stage)[-1]
    if not isinstance(block, Block):
        raise ScheduleError(f"{what}: no stage {stage}")
    buffer = written_buffer(block)
    if buffer in func.params:
        raise ScheduleError(f"{what}: {buffer.name} is a parameter, whose memory is the caller's; cache_write {stage} first")
    return buffer


@dataclass(frozen=True, eq=False)
class Predicate:
    """A condition on loops, as data: a trace can show it and replay it on the loops of the same names."""

    old: tuple[Expr, ...]
    condition: Expr

    @staticmethod
    def of(condition: Callable[..., object], rank: int) -> Predicate:
        """What `condition` says of `rank` loops."""
        if isinstance(condition, Predicate):
            return condition
        old = tuple(var(f"i{n}") for n in range(rank))
        try:
            found = condition(*old)
        except (TypeError, IndexError, AttributeError) as error:
            raise ScheduleError(f"set_store_predicate: the condition fails on {rank} loop(s): {error}") from error
        if not isinstance(found, Expr) or not found.dtype.is_bool:
            raise ScheduleError(f"set_store_predicate: {found!r} is no condition (write `te.all_of(i == 0)`, `i < 4`)")
        return Predicate(old, found)

    def __call__(self, *loops: Expr) -> Expr:
        return substitute(self.condition, dict(zip(self.old, loops, strict=True)))

    def __str__(self) -> str:
        return f"lambda {', '.join(v.name for v in self.old)}: {self.condition}"


def set_store_predicate(func: PrimFunc, stage: str, condition: Expr) -> PrimFunc:
    """The stage is computed only in the iterations of its loops where `condition` holds.

    for tx in 8: for i: y[i] = f(i)  ->  for tx in 8: for i: if tx == 0: y[i] = f(i)
    """
    what = "set_store_predicate"
    path = block_path(func.body, stage)
    block = path[-1]
    if not isinstance(block, Block):
        raise ScheduleError(f"{what}: no stage {stage}")
    around = {f.var for f in loops_of(path)}
    if stray := free_vars(condition) - around - set(func.size_vars):
        raise ScheduleError(f"{what}: {next(iter(stray)).name} is no loop around {stage}")
    reduced = free_vars(condition) & reduce_loop_vars(block)
    if reduced:
        name = next(iter(reduced)).name
        if others := free_vars(condition) & around - reduced:
            other = next(iter(others)).name
            raise ScheduleError(f"{what}: {name} is a reduction loop, {other} is not: one condition on both is unclear")
        extents = {f.var: f.extent for f in loops_of(path)}
        if not _holds_somewhere(condition, {v: extents[v] for v in reduced}):
            raise ScheduleError(f"{what}: no iteration of {name} is known to fulfil {condition}, so nothing would be stored")
        return func
    for writer in blocks(func.body):
        if writer is not block and (both := [b.name for b in written_buffers(block) if b in written_buffers(writer)]):
            raise ScheduleError(f"{what}: {writer.name} writes {both[0]} too, and goes on from what {stage} stores")
    new = replace(block, predicate=and_(block.predicate, condition), annotations={**block.annotations, STORE_PREDICATE: True})
    return func.with_body(replace_stmt(func.body, block, new))


def _holds_somewhere(condition: Expr, extents: dict[Expr, Expr]) -> bool:
    """Whether an iteration of loops with these extents fulfils `condition`, whatever the sizes are."""
    for corner in ({v: const(0) for v in extents}, {v: e - 1 for v, e in extents.items()}):
        if prove(substitute(condition, corner), {}):
            return True
    return all(e.op == "const" for e in extents.values()) and not impossible([condition], extents)
