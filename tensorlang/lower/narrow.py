"""A buffer private to an iteration shrinks to what one iteration touches; small ones move to registers or the stack.

for i: y = alloc(f32[M, N]); for r in 8: y[i*8 + r, 0] = ...; ... y[i*8 + r, 0] ...
->  for i: y = alloc(f32[8, 1], local); for r in 8: y[r, 0] = ...; ... y[r, 0] ...
"""

from __future__ import annotations

from dataclasses import replace

from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr, const, load
from tensorlang.ir.stmt import Allocate, CallPacked, For, PrimFunc, Stmt, Store
from tensorlang.ir.visitor import (
    children,
    free_vars,
    loads,
    map_exprs,
    own_exprs,
    replace_buffers,
    rewrite,
    rewrite_stmt,
    walk_stmt,
    with_children,
)
from tensorlang.symbolic.region import access_region, union_region
from tensorlang.symbolic.simplify import simplify

STACK_BYTES = 32 * 1024  # what one iteration may keep on its thread's stack
LARGEST_BYTES = 256 * 1024 * 1024  # what one iteration may keep at all


def narrow_buffers(func: PrimFunc) -> PrimFunc:
    return func.with_body(_narrow(func.body, {}))


def _narrow(s: Stmt, outer: dict[Expr, Expr | int]) -> Stmt:
    if isinstance(s, For):
        body = _narrow(s.body, {**outer, s.var: s.extent})
        return s if body is s.body else replace(s, body=body)
    if isinstance(s, Allocate):
        body = _narrow(s.body, outer)
        return _shrink(s.buffer, body, outer) if outer else (s if body is s.body else replace(s, body=body))
    return with_children(s, tuple(_narrow(c, outer) for c in children(s)))


def _shrink(buffer: Buffer, body: Stmt, outer: dict[Expr, Expr | int]) -> Stmt:
    inner: dict[Expr, Expr | int] = {s.var: s.extent for s in walk_stmt(body) if isinstance(s, For)}
    region: list[tuple[Expr, Expr]] | None = None
    for s in walk_stmt(body):
        accesses = [e.args for x in own_exprs(s) for e in loads(x) if e.value is buffer]
        if isinstance(s, Store) and s.buffer is buffer:
            accesses.append(s.indices)
        if isinstance(s, CallPacked) and buffer in s.buffers:
            return _allocated(buffer, body)  # the function sees all of it
        for index in accesses:
            touched = access_region(index, inner, buffer.shape)
            region = touched if region is None else union_region(region, touched)
    if region is None:
        return body
    lows = [simplify(low, outer) for low, _ in region]
    extents = [simplify(extent, outer) for _, extent in region]
    # Where an iteration of a loop outside says how much is touched, the whole dimension stays, with its coordinates.
    keep = [
        e.op != "const" and (d.op == "const" or not free_vars(e).isdisjoint(outer))
        for e, d in zip(extents, buffer.shape, strict=True)
    ]
    shape = tuple(d if k else e for e, d, k in zip(extents, buffer.shape, keep, strict=True))
    size: int | None = buffer.dtype.nbytes
    for d in shape:
        size = None if size is None or d.op != "const" else size * d.value
    if size is not None and size > LARGEST_BYTES:  # a bound that says nothing, such as that of min(n, 10**9)
        return _allocated(buffer, body)
    small = size is not None and size <= STACK_BYTES
    if not small and shape == buffer.shape and all(k or low is const(0) for k, low in zip(keep, lows, strict=True)):
        return _allocated(buffer, body)
    new = buffer.with_(shape=shape, scope="local" if small and "." not in buffer.scope else _off_the_stack(buffer.scope))

    def move(index: tuple[Expr, ...]) -> tuple[Expr, ...]:
        ranges = {**outer, **inner}
        return tuple(
            i if k else simplify(i - low, ranges) for i, low, k in zip(index, lows, keep, strict=True)
        )

    def on_expr(e: Expr) -> Expr | None:
        return load(new, move(e.args)) if e.op == "load" and e.value is buffer else None

    def on_store(s: Stmt) -> Stmt | None:
        if isinstance(s, Store) and s.buffer is buffer:
            return Store(new, move(s.indices), s.value)
        return None

    return Allocate(new, rewrite_stmt(map_exprs(body, lambda e: rewrite(e, on_expr)), on_store))


def _allocated(buffer: Buffer, body: Stmt) -> Stmt:
    """`buffer` as it is; what is not known to be small is not on the stack."""
    if buffer.scope != "local":
        return Allocate(buffer, body)
    return replace_buffers(Allocate(buffer, body), {buffer: buffer.with_(scope=_off_the_stack(buffer.scope))})


def _off_the_stack(scope: str) -> str:
    return "global" if scope == "local" else scope
