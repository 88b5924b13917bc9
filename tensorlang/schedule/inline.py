"""A stage folded into its readers (`compute_inline`), or into the stage that it reads (`reverse_compute_inline`)."""

from __future__ import annotations

from dataclasses import replace

from tensorlang.errors import ScheduleError
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr, and_, le, lt
from tensorlang.ir.stmt import Allocate, Block, CallPacked, For, Iter, PrimFunc, Store
from tensorlang.ir.tree import (
    block_path,
    drop_allocation,
    path_to,
    read_buffers,
    replace_stmt,
    sole_ancestor,
    written_buffer,
    written_buffers,
)
from tensorlang.ir.visitor import blocks, free_vars, loads, map_exprs, rewrite, substitute, walk_stmt
from tensorlang.schedule.compute import readers
from tensorlang.schedule.place import ROLLING, STORE_PREDICATE, check_same_conditions, check_visible
from tensorlang.symbolic.bounds import prove
from tensorlang.symbolic.simplify import simplify


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
    for key in (STORE_PREDICATE, ROLLING):
        if key in block.annotations:
            raise ScheduleError(f"compute_inline: {stage} is not computed everywhere after {key}; call compute_inline first")
    if others := [b.name for b in blocks(func.body) if b is not block and buffer in written_buffers(b)]:
        raise ScheduleError(f"compute_inline: {buffer.name} is written by {others[0]} too")

    for reader in readers(func, buffer):
        check_visible(func, block, reader, "compute_inline")
        check_same_conditions(path, block_path(func.body, reader.name), "compute_inline")
        if any(isinstance(s, CallPacked) and buffer in s.buffers for s in walk_stmt(reader)):
            raise ScheduleError(f"compute_inline: {reader.name} passes {buffer.name} to a packed function as a whole")

    def inline(e: Expr) -> Expr | None:
        if e.op != "load" or e.value is not buffer:
            return None
        return substitute(store.value, dict(zip(store.indices, e.args, strict=True)))

    body = replace_stmt(drop_allocation(func.body, buffer), sole_ancestor(path), None)
    return func.with_body(map_exprs(body, lambda e: rewrite(e, inline)))


def reverse_compute_inline(func: PrimFunc, stage: str) -> tuple[PrimFunc, str]:
    """The stage whose elements `stage` reads computes those of `stage` at once; its own buffer disappears.

        for i: for j: y[i, j] = f(x[i, j])                    out.reverse_compute_inline()
        for i: for j: out[j, i] = y[i, j] * 2
    ->  for i: for j: out[j, i] = f(x[i, j]) * 2              by the stage y

    Legal if `stage` reads one computed tensor, each element of it once (its indices permuted and shifted at most), nobody
    else reads that, its stage is no reduction, and what else `stage` reads is there already.
    """
    what = "reverse_compute_inline"
    path = block_path(func.body, stage)
    block = path[-1] if path else None
    if not isinstance(block, Block):
        raise ScheduleError(f"{what}: no stage {stage}")
    store = block.body
    own = tuple(it.var for it in block.iters)
    if block.init is not None or not isinstance(store, Store) or store.indices != own:
        raise ScheduleError(f"{what}: {stage} is a reduction, or does not write its elements in the order of its axes")
    if STORE_PREDICATE in block.annotations:
        raise ScheduleError(f"{what}: {stage} is not computed everywhere")
    if store.buffer in read_buffers(block):
        raise ScheduleError(f"{what}: {stage} reads itself")
    if others := [b.name for b in blocks(func.body) if b is not block and store.buffer in written_buffers(b)]:
        raise ScheduleError(f"{what}: {store.buffer.name} is written by {others[0]} too")
    writer, source = _sole_source(func, block, what)
    if not isinstance(writer.body, Store):
        raise ScheduleError(f"{what}: {writer.name} computes several tensors at once")
    if used := [b.name for b in readers(func, source) if b is not block]:
        raise ScheduleError(f"{what}: {used[0]} reads {source.name} too")
    indices = {e.args for e in loads(store.value) if e.value is source}
    if len(indices) != 1:
        raise ScheduleError(f"{what}: {stage} reads several elements of {source.name}")
    of: dict[Expr, tuple[Iter, Expr]] = {}  # own variable -> the writer's, and how much larger that is
    (index,) = indices
    for e, it in zip(index, writer.iters, strict=True):
        inside = free_vars(e) & set(own)
        v = next(iter(inside)) if len(inside) == 1 else None
        shift = simplify(e - v) if v is not None else e
        if v is None or v in of or free_vars(shift) & set(own):
            raise ScheduleError(f"{what}: {stage} reads {source.name}[{', '.join(map(str, index))}], not each element once")
        of[v] = it, shift
    if missing := [v.name for v in own if v not in of]:
        raise ScheduleError(f"{what}: {stage} reads an element of {source.name} several times, along {missing[0]}")
    _check_order(func, writer, block, source, what)
    there = block_path(func.body, writer.name)
    check_same_conditions(path, there, what)
    check_same_conditions(there, path, what)

    iters: list[Iter] = []
    predicate = writer.predicate
    for it in block.iters:
        theirs, shift = of[it.var]
        if not (prove(le(0, shift), {}) and prove(le(it.extent + shift, theirs.extent), {})):
            raise ScheduleError(f"{what}: along {it.var.name}, elements of {stage} read nothing of {source.name} (padding)")
        position = simplify(theirs.var - shift)
        iters.append(replace(it, binding=simplify(theirs.binding - shift)))
        for condition in (le(0, position), lt(position, it.extent)):  # elements that are not read are not computed
            if not prove(condition, {theirs.var: theirs.extent}):
                predicate = and_(predicate, simplify(substitute(condition, {theirs.var: theirs.binding})))
    element = substitute(writer.body.value, {theirs.var: v + shift for v, (theirs, shift) in of.items()})
    value = rewrite(store.value, lambda e: element if e.op == "load" and e.value is source else None)
    new = Block(writer.name, tuple(iters), Store(store.buffer, own, value), None, predicate, writer.annotations)
    body = replace_stmt(replace_stmt(func.body, sole_ancestor(path), None), writer, new)
    return func.with_body(drop_allocation(body, source)), writer.name


def _sole_source(func: PrimFunc, block: Block, what: str) -> tuple[Block, Buffer]:
    """The stage and the tensor that `block` may be folded into: the only one it reads that is computed, and private."""
    found: dict[Buffer, Block] = {}
    for b in blocks(func.body):
        for buffer in written_buffers(b):
            if buffer in read_buffers(block):
                if buffer in found:
                    raise ScheduleError(f"{what}: {buffer.name} is written by {found[buffer].name} and {b.name}")
                found[buffer] = b
    fits = [(b, buffer) for buffer, b in found.items() if buffer not in func.params and _point_by_point(b, buffer)]
    if len(fits) != 1:
        names = ", ".join(b.name for b in found) or "nothing that is computed"
        why = "none of which is a plain stage that is no output" if not fits else "so it is not clear which one computes it"
        raise ScheduleError(f"{what}: {block.name} reads {names}, {why}")
    return fits[0]


def _point_by_point(block: Block, buffer: Buffer) -> bool:
    store = block.body
    if block.init is not None or not isinstance(store, Store) or STORE_PREDICATE in block.annotations:
        return False
    return store.indices == tuple(it.var for it in block.iters) and not any(e.value is buffer for e in loads(store.value))


def _check_order(func: PrimFunc, writer: Block, block: Block, source: Buffer, what: str) -> None:
    """What `block` reads is complete before `writer`, and nobody uses what it computes before it does."""
    mine = written_buffer(block)
    path = path_to(func.body, lambda s: s is writer)
    nest = next(s for s in path if isinstance(s, For | Block))
    inside = {b.name for b in blocks(nest)}
    order = [b.name for b in blocks(func.body)]
    for b in blocks(func.body):
        if b is block or b is writer:
            continue
        late = b.name in inside or order.index(b.name) > order.index(writer.name)
        if late and (needed := [r.name for r in read_buffers(block) if r in written_buffers(b)]):
            order_of = f"which {b.name} computes after {writer.name} has begun"
            raise ScheduleError(f"{what}: {block.name} reads {needed[0]}, {order_of}")
        if order.index(b.name) < order.index(block.name) and mine in read_buffers(b):
            raise ScheduleError(f"{what}: {b.name} reads {mine.name} before {block.name}")
    for buffer in (mine, *(r for r in read_buffers(block) if r is not source)):
        where = path_to(func.body, lambda s, x=buffer: isinstance(s, Allocate) and s.buffer is x)  # type: ignore[misc]
        if where and not any(s is writer for s in walk_stmt(where[-1])):
            raise ScheduleError(f"{what}: {buffer.name} does not exist where {writer.name} is computed")
