"""Loops marked `prefetch=(("x", 2),)` ask the memory for what a later iteration reads of `x`, a cache line at a time.

for i in n (prefetch=(("x", 2),)): y[i] = sum of x[i, 0..64]
->  for i in n: (if i + 2 < n: for l in 4: prefetch(x[i + 2, l*16])); y[i] = ...

A prefetch is a hint: it reads nothing, and what it names may be evicted again. Only elements that exist are named, so that
the interpreter can check it as any other read.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr, and_, call, const, load, lt, maximum, minimum, var
from tensorlang.ir.intrinsics import PREFETCH
from tensorlang.ir.stmt import Evaluate, For, If, PrimFunc, Seq, Stmt
from tensorlang.ir.visitor import loads, own_exprs, rewrite_stmt, substitute, walk_stmt
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
        hints = [_lines(s, name, ahead, extents) for name, ahead in s.annotations[PREFETCH]]
        body = Seq((*(h for h in hints if h is not None), s.body))
        rest = {k: v for k, v in s.annotations.items() if k != PREFETCH}
        return For(s.var, s.extent, s.kind, body, rest)

    return func.with_body(rewrite_stmt(func.body, rule))


def _lines(loop: For, name: str, ahead: int, extents: Mapping[Expr, Expr | int]) -> Stmt | None:
    """One hint: nothing where the loop reads no element of it by now (a copy of it is read instead)."""
    inner = {s.var: s.extent for s in walk_stmt(loop.body) if isinstance(s, For)}
    outer = {v: e for v, e in extents.items() if v not in inner}
    found: tuple[Buffer, Region] | None = None
    for s in walk_stmt(loop.body):
        for e in (access for own in own_exprs(s) for access in loads(own)):
            if e.value.name == name:
                part = access_region(tuple(simplify(i, inner) for i in e.args), inner, e.value.shape, outer)
                found = (e.value, part if found is None else union_region(found[1], part, outer))
    if found is None or not found[1]:
        return None
    buffer, region = found
    per_line = max(1, LINE // max(1, buffer.dtype.bits // 8))
    steps = [1] * (buffer.ndim - 1) + [per_line]
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
