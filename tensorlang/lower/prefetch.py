"""Loops marked `prefetch=(("x", 2),)` ask the memory for what a later iteration reads of `x`, a cache line at a time.

for i in n (prefetch=(("x", 2),)): y[i] = sum of x[i, 0..64]
->  for i in n: (if i + 2 < n: for l in 4: prefetch(x[i + 2, l*16])); y[i] = ...

Where the hint says how many iterations share what they read, each iteration of the marked loops within asks for a share:

for i in n (prefetch=(("x", 2, 2),)): for k in 64 (prefetch_within=("x",)): y[i] += x[i // 2, k]
->  for i in n: for k in 64: prefetch(x[min(i + 2, n - 1) // 2, (i % 2*64 + k) // 32 * 16]); y[i] += ...

A prefetch is a hint: it reads nothing, and what it names may be evicted again. Only elements that exist are named, so that
the interpreter can check it as any other read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from operator import mul
from typing import Any

from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr, and_, call, const, load, lt, maximum, minimum, var
from tensorlang.ir.intrinsics import PREFETCH, PREFETCH_WITHIN
from tensorlang.ir.stmt import Evaluate, For, If, PrimFunc, Seq, Stmt
from tensorlang.ir.visitor import children, loads, own_exprs, rewrite_stmt, substitute, walk_stmt, with_children
from tensorlang.symbolic.bounds import const_bounds
from tensorlang.symbolic.region import Region, access_region, union_region
from tensorlang.symbolic.simplify import simplify

LINE = 64  # bytes of a cache line


def prefetch_lines(func: PrimFunc) -> PrimFunc:
    """The hints as statements of their own; a loop that became a vector's lanes has none."""
    extents: dict[Expr, Expr | int] = {s.var: s.extent for s in walk_stmt(func.body) if isinstance(s, For)}

    def rule(s: Stmt) -> Stmt | None:
        if not isinstance(s, For) or PREFETCH not in s.annotations or s.kind == "vectorized":
            return None
        body = s.body
        for name, ahead, *shared in reversed(s.annotations[PREFETCH]):
            if shared:
                body = _spread(s, body, name, ahead, shared, extents)
            elif (hint := _lines(s, name, ahead, extents)) is not None:
                body = Seq((hint, body))
        rest = {k: v for k, v in s.annotations.items() if k != PREFETCH}
        return For(s.var, s.extent, s.kind, body, rest)

    def unmark(s: Stmt) -> Stmt | None:
        if not isinstance(s, For) or PREFETCH_WITHIN not in s.annotations:
            return None
        return replace(s, annotations={k: v for k, v in s.annotations.items() if k != PREFETCH_WITHIN})

    return func.with_body(rewrite_stmt(rewrite_stmt(func.body, rule), unmark))


def _spread(
    loop: For, body: Stmt, name: str, ahead: int, shared: Sequence[Any], extents: Mapping[Expr, Expr | int]
) -> Stmt:
    """`body` with a hint whose lines are asked for a share at a time, in the iterations of a loop within."""
    (among,) = shared
    found = _read(loop, name, extents)
    if found is None or any((const_bounds(size, extents)[0] or 0) < 1 for size in found[0].shape):
        return body  # there may be nothing to ask for
    buffer, region, outer = found

    def place(s: Stmt, around: tuple[For, ...]) -> Stmt:
        if not isinstance(s, For):
            return with_children(s, tuple(place(c, around) for c in children(s)))
        around = (*around, s)
        if name not in s.annotations.get(PREFETCH_WITHIN, ()):
            return replace(s, body=place(s.body, around))
        return replace(s, body=Seq((_share(loop, ahead, buffer, region, among, around, outer), s.body)))

    return place(body, ())


def _share(
    loop: For,
    ahead: int,
    buffer: Buffer,
    region: Region,
    among: int,
    between: Sequence[For],
    outer: Mapping[Expr, Expr | int],
) -> Stmt:
    """What one iteration of the loops `between` asks for: its share of the `region` of `ahead` iterations of `loop` later."""
    later = minimum(loop.var + ahead, loop.extent - 1)
    known = {**outer, loop.var: loop.extent, **{s.var: s.extent for s in between}}
    sizes = [simplify(substitute(extent, {loop.var: later}), known) for _, extent in region]
    counts = [*sizes[:-1], simplify((sizes[-1] + (_per_line(buffer) - 1)) // _per_line(buffer), known)]
    total = reduce(mul, counts)
    turn, times = loop.var % among, const(among)
    for s in between:
        turn, times = turn * s.extent + s.var, times * s.extent
    each = simplify((total + (times - 1)) // times, known)  # lines at a time; where it is one, several may ask for the same
    single = each is const(1)
    share = const(0) if single else var(f"{loop.var.name}_line")
    position = minimum(turn // maximum(times // total, 1) if single else turn * each + share, total - 1)
    index: list[Expr] = []
    for n, ((low, _), count, size) in enumerate(zip(region, counts, buffer.shape, strict=True)):
        part = position // reduce(mul, counts[n + 1 :], const(1))
        line = part if n == 0 else part % count
        first = substitute(low, {loop.var: later}) + line * (_per_line(buffer) if n == buffer.ndim - 1 else 1)
        index.append(simplify(maximum(minimum(first, size - 1), 0), {**known, share: each}))
    hint: Stmt = Evaluate(call(PREFETCH, load(buffer, index), dtype=buffer.dtype))
    return hint if single else For(share, each, "serial", hint)


def _per_line(buffer: Buffer) -> int:
    return max(1, LINE // max(1, buffer.dtype.bits // 8))


def _read(
    loop: For, name: str, extents: Mapping[Expr, Expr | int]
) -> tuple[Buffer, Region, dict[Expr, Expr | int]] | None:
    """What one iteration reads of a buffer, and the loops around: None where it reads no element (of a copy instead)."""
    inner = {s.var: s.extent for s in walk_stmt(loop.body) if isinstance(s, For)}
    outer = {v: e for v, e in extents.items() if v not in inner}
    found: tuple[Buffer, Region] | None = None
    for s in walk_stmt(loop.body):
        for e in (access for own in own_exprs(s) for access in loads(own)):
            if e.value.name == name:
                part = access_region(tuple(simplify(i, inner) for i in e.args), inner, e.value.shape, outer)
                found = (e.value, part if found is None else union_region(found[1], part, outer))
    return (*found, outer) if found is not None and found[1] else None


def _lines(loop: For, name: str, ahead: int, extents: Mapping[Expr, Expr | int]) -> Stmt | None:
    """One hint in front of the iteration's own work."""
    found = _read(loop, name, extents)
    if found is None:
        return None
    buffer, region, outer = found
    steps = [1] * (buffer.ndim - 1) + [_per_line(buffer)]
    later = {loop.var: loop.var + ahead}
    outer[loop.var] = loop.extent - ahead  # there is such an iteration
    index, around = [], []
    for (low, extent), step, size in zip(region, steps, buffer.shape, strict=True):
        line = var(f"{loop.var.name}_line")
        count = simplify((substitute(extent, later) + (step - 1)) // step, outer)
        first = substitute(low, later)
        if count is not const(1):
            around.append((line, count))
            first = first + line * step
        index.append(simplify(maximum(minimum(first, size - 1), 0), {**outer, **dict(around)}))
    body: Stmt = Evaluate(call(PREFETCH, load(buffer, index), dtype=buffer.dtype))
    for line, count in reversed(around):
        body = For(line, count, "serial", body)
    some = [lt(0, size) for size in buffer.shape if (const_bounds(size, outer)[0] or 0) < 1]
    return If(reduce(and_, some, lt(loop.var + ahead, loop.extent)), body)
