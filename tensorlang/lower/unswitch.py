"""Sums of padded windows ask once per row of the window whether it lies inside, not once per element.

for kw in 3: for r in 8: acc[r] += select(0 <= h + kh and r + kw < W, x[h + kh, r + kw], 0) * w[kh, kw]
->  if 0 <= h + kh: (for kw: for r: acc[r] += select(r + kw < W, x[h + kh, r + kw], 0) * w[kh, kw])
    else:           (for kw: for r: acc[r] += 0 * w[kh, kw])

What is added stays as it is, to the last bit. Only nests of loops around one sum in registers are taken, at the outermost loop
in which the condition does not change, and only large ones: small ones LLVM unrolls, and settles their conditions itself.
"""

from __future__ import annotations

from dataclasses import replace
from functools import reduce

from tensorlang.ir.expr import Expr, and_, const, select
from tensorlang.ir.stmt import For, If, PrimFunc, Stmt, Store
from tensorlang.ir.visitor import children, loads, rewrite, uses, walk, with_children
from tensorlang.lower.simplify import conjuncts

LARGE = 100  # vectors that are added in a nest of loops


def unswitch_sums(func: PrimFunc) -> PrimFunc:
    return func.with_body(_outermost(func.body))


def _outermost(s: Stmt) -> Stmt:
    if isinstance(s, For) and s.kind in ("serial", "unrolled") and (store := _sum_of(s)) is not None:
        fixed = _fixed_conditions(s, store)
        if fixed and _size(s) >= LARGE:
            inside, outside = (_nest(s, store, fixed, holds) for holds in (True, False))
            return If(reduce(and_, fixed), inside, outside)
    return with_children(s, tuple(_outermost(c) for c in children(s)))


def _size(s: Stmt) -> int:
    """How often the statement inside a nest runs; a size that is not known counts as many."""
    if not isinstance(s, For):
        return 1
    times = 1 if s.kind == "vectorized" else s.extent.value if s.extent.op == "const" else LARGE
    return int(times) * _size(s.body)


def _sum_of(s: Stmt) -> Store | None:
    """The one store of a nest of loops, if it adds to a buffer that is kept in registers."""
    while isinstance(s, For) and s.kind in ("serial", "unrolled", "vectorized"):
        s = s.body
    if not isinstance(s, Store) or s.buffer.scope != "local" or all(e.value is not s.buffer for e in loads(s.value)):
        return None
    return s


def _fixed_conditions(nest: For, store: Store) -> list[Expr]:
    """What all selections of the sum ask that no loop of the nest changes; empty where they do not ask the same."""
    own: set[Expr] = set()
    s: Stmt = nest
    while isinstance(s, For):
        own.add(s.var)
        s = s.body
    found: list[list[Expr]] = []
    for e in walk(store.value):
        if e.op == "select":
            asked = [c for c in conjuncts(e.args[0]) if not uses(c, own) and not any(n.op == "load" for n in walk(c))]
            if asked not in found:
                found.append(asked)
    return found[0] if len(found) == 1 else []


def _nest(s: Stmt, store: Store, fixed: list[Expr], holds: bool) -> Stmt:
    if isinstance(s, For):
        return replace(s, body=_nest(s.body, store, fixed, holds))

    def rule(e: Expr) -> Expr | None:
        if e.op != "select":
            return None
        rest = [c for c in conjuncts(e.args[0]) if c not in fixed]
        return select(reduce(and_, rest, const(holds)), e.args[1], e.args[2])

    return replace(store, value=rewrite(store.value, rule))
