"""Tiles whose guards all hold run without them: one test per tile instead of one per element.

acc = alloc(local); for r in 8: if i*8 + r < M: s(r)
->  if i*8 + 7 < M: acc = alloc(local); for r in 8: s(r)   else: (the same, guarded)

In the guarded copy, rows go around the reduction, so that each is asked for once and not in every step, and its sums stay in
registers, which the branches of the inner loop would keep them out of:

for k in K: for r in 8: if i*8 + r < M: acc[r] += f(r, k)   ->   for r in 8: if i*8 + r < M: for k in K: acc[r] += f(r, k)
"""

from __future__ import annotations

from dataclasses import replace

from tensorlang.ir.expr import Expr, and_, const, le, lt
from tensorlang.ir.stmt import Allocate, For, If, PrimFunc, Stmt, Store
from tensorlang.ir.visitor import children, free_vars, loads, own_exprs, rewrite_stmt, walk_stmt, with_children
from tensorlang.symbolic.bounds import bounds
from tensorlang.symbolic.simplify import simplify


def partition_tiles(func: PrimFunc) -> PrimFunc:
    return func.with_body(_partition(func.body, {}))


def _partition(s: Stmt, outer: dict[Expr, Expr | int]) -> Stmt:
    if isinstance(s, For):
        body = _partition(s.body, {**outer, s.var: s.extent})
        return s if body is s.body else replace(s, body=body)
    if isinstance(s, Allocate) and s.buffer.scope == "local":
        return _split_tile(s, outer)
    return with_children(s, tuple(_partition(c, outer) for c in children(s)))


def _split_tile(tile: Stmt, outer: dict[Expr, Expr | int]) -> Stmt:
    inner: dict[Expr, Expr | int] = {s.var: s.extent for s in walk_stmt(tile) if isinstance(s, For)}
    lanes = {s.var for s in walk_stmt(tile) if isinstance(s, For) and s.kind == "vectorized"}
    # A guard on lanes becomes a mask, which costs next to nothing.
    guards = [s for s in walk_stmt(tile) if isinstance(s, If) and s.else_ is None and not free_vars(s.cond) & lanes]
    whole: Expr = const(True)
    lifted: set[Expr] = set()
    for guard in guards:
        if guard.cond in lifted or not _extents_fixed(inner):
            continue
        bound = _holds_for_all(guard.cond, inner)
        if bound is not None:
            lifted.add(guard.cond)
            whole = and_(whole, simplify(bound, outer))
    if not lifted or whole.op == "const":
        return tile

    def drop(s: Stmt) -> Stmt | None:
        return s.then if isinstance(s, If) and s.cond in lifted else None

    return If(whole, rewrite_stmt(tile, drop), _rows_outside(tile))


def _rows_outside(s: Stmt) -> Stmt:
    """`s` with guarded rows around the loops that go over them again and again, where that changes no sum's order."""
    parts = children(s)
    moved = tuple(_rows_outside(c) for c in parts)
    if any(a is not b for a, b in zip(moved, parts, strict=True)):
        s = with_children(s, moved)
    if not isinstance(s, For) or s.kind != "serial" or s.annotations:
        return s
    rows = s.body
    if not isinstance(rows, For) or rows.kind not in ("serial", "unrolled") or rows.annotations:
        return s
    guards, body = [], rows.body
    while isinstance(body, If) and body.else_ is None and s.var not in free_vars(body.cond) and not loads(body.cond):
        guards.append(body)
        body = body.then
    if not guards or s.var in free_vars(rows.extent) or rows.var in free_vars(s.extent) or not _rows_apart(body, rows.var):
        return s
    inner: Stmt = replace(s, body=body)
    for guard in reversed(guards):
        inner = replace(guard, then=inner)
    return replace(rows, body=inner)


def _rows_apart(body: Stmt, row: Expr) -> bool:
    """Whether iterations of different `row` touch different elements of all that `body` writes (one private buffer)."""
    leaves = [s for s in walk_stmt(body) if not isinstance(s, For | If)]
    if len(leaves) != 1 or not isinstance(leaves[0], Store) or leaves[0].buffer.scope != "local":
        return False
    store = leaves[0]
    own = [e for s in walk_stmt(body) for top in own_exprs(s) for e in loads(top) if e.value is store.buffer]
    return row in store.indices and all(tuple(e.args) == tuple(store.indices) for e in own)


def _extents_fixed(inner: dict[Expr, Expr | int]) -> bool:
    return all(not isinstance(e, Expr) or not (free_vars(e) & set(inner)) for e in inner.values())


def _holds_for_all(cond: Expr, inner: dict[Expr, Expr | int]) -> Expr | None:
    """A condition free of the inner variables under which `cond` holds at every inner iteration; None if not found."""
    if cond.op == "and":
        parts = [_holds_for_all(c, inner) for c in cond.args]
        return None if None in parts else and_(parts[0], parts[1])  # type: ignore[arg-type]
    if cond.op not in ("lt", "le"):
        return None
    if not free_vars(cond) & set(inner):
        return cond
    low = bounds(cond.args[1], inner)[0]
    high = bounds(cond.args[0], inner)[1]
    if (free_vars(low) | free_vars(high)) & set(inner):
        return None
    return (lt if cond.op == "lt" else le)(high, low)
