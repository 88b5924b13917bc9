"""Loops marked `vectorized` become vector operations, one lane per iteration.

for v in 16 (vectorized): y[i*16 + v] = x[i*16 + v] * s   ->   y[ramp(i*16, 1)] = x[ramp(i*16, 1)] * broadcast(s)

A guard on lanes becomes a mask: `if cond(v): y[...] = e` stays an `If` with a vector condition, and loads under it are
masked by `select(mask, load, 0)`. Statements that a vector cannot express (loops inside, vectors, private arrays) stay
scalar loops.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr, and_, broadcast, call, const, is_const, load, ramp, rebuild, select
from tensorlang.ir.stmt import For, If, MultiStore, PrimFunc, Seq, Stmt, Store, seq
from tensorlang.ir.visitor import own_exprs, rewrite_stmt, uses, walk, walk_stmt
from tensorlang.lower.unmask import unmasked_arrays
from tensorlang.symbolic.affine import linear_form
from tensorlang.symbolic.simplify import simplify


def vectorize_loops(func: PrimFunc) -> PrimFunc:
    ranges: dict[Expr, Expr | int] = {s.var: s.extent for s in walk_stmt(func.body) if isinstance(s, For)}
    unmasked = unmasked_arrays(func)

    def rule(s: Stmt) -> Stmt | None:
        if isinstance(s, For) and s.kind == "serial" and "vector_reduce" in s.annotations:
            return _tree_reduction(s, ranges)
        if not isinstance(s, For) or s.kind != "vectorized":
            return None
        if s.extent.op != "const" or s.extent.value == 1 or not _expressible(s.body):
            return replace(s, kind="serial")
        return _Vectorizer(s.var, s.extent.value, ranges, unmasked).stmt(s.body, None)

    return func.with_body(rewrite_stmt(func.body, rule))


_REDUCERS = {"add": "vreduce_add", "mul": "vreduce_mul", "max": "vreduce_max", "min": "vreduce_min"}


def _tree_reduction(loop: For, ranges: dict[Expr, Expr | int]) -> Stmt | None:
    """for v in 16: y[i] = y[i] + x[v]   ->   y[i] = y[i] + vreduce_add(x[ramp(0, 1)])       (asked for by a pragma)"""
    s = loop.body
    if loop.extent.op != "const" or loop.extent.value == 1 or not isinstance(s, Store):
        return None
    value = s.value
    if value.op not in _REDUCERS or value.args[0] is not load(s.buffer, s.indices) or uses(s.indices[0], {loop.var}):
        return None
    lanes = _Vectorizer(loop.var, loop.extent.value, ranges).expr(value.args[1], None)
    if lanes.dtype.lanes == 1:
        return None
    total = call(_REDUCERS[value.op], lanes, dtype=lanes.dtype.scalar)
    return Store(s.buffer, s.indices, rebuild(value, (value.args[0], total)))


def _expressible(s: Stmt) -> bool:
    if isinstance(s, Seq):
        return all(_expressible(c) for c in s.stmts)
    if any(node.dtype.lanes > 1 for e in own_exprs(s) for node in walk(e)):
        return False  # made from a vectorized loop inside
    if isinstance(s, If):
        return s.else_ is None and _expressible(s.then)
    if isinstance(s, MultiStore):
        return all(map(_expressible, s.stores))
    return isinstance(s, Store)


class _Vectorizer:
    """Rewrites the body of one vectorized loop."""

    def __init__(
        self, var: Expr, lanes: int, ranges: dict[Expr, Expr | int], unmasked: Collection[Buffer] = frozenset()
    ):
        self.var, self.lanes, self.ranges, self.unmasked = var, lanes, ranges, unmasked
        self.read: dict[Expr, Expr | None] = {}  # loads that are done in any case, and their masks

    def stmt(self, s: Stmt, mask: Expr | None, guards: tuple[Expr, ...] = ()) -> Stmt:
        """`s` for all lanes where `mask` holds, which is the scalar `guards` made a vector."""
        if isinstance(s, Seq):
            return seq(*(self.stmt(c, mask, guards) for c in s.stmts))
        if isinstance(s, If):
            cond = self.expr(s.cond, mask)
            if cond.dtype.lanes == 1:
                return If(cond, self.stmt(s.then, mask, guards))
            return self.stmt(s.then, cond if mask is None else and_(mask, cond), (*guards, s.cond))
        if isinstance(s, MultiStore):
            return self.stores(s, mask, guards)
        if not isinstance(s, Store):
            return s
        index = self.index(s.indices[0], mask) if uses(s.indices[0], {self.var}) else None
        if index is None or (mask is not None and not _is_unit_ramp(index)):
            # Every lane writes the same element: as in the loop, the last one wins. And there are no masked scatters.
            return self.scalar_loop(s, guards)
        store = Store(s.buffer, (index,), self.widen(self.expr(s.value, mask)))
        return store if mask is None or s.buffer in self.unmasked else If(mask, store)

    def stores(self, s: MultiStore, mask: Expr | None, guards: tuple[Expr, ...]) -> Stmt:
        new = []
        for t in s.stores:
            index = self.index(t.indices[0], mask) if uses(t.indices[0], {self.var}) else None
            if index is None or not _is_unit_ramp(index):
                # Lanes that store to one element, or anywhere: only the loop has an order.
                return self.scalar_loop(s, guards)
            new.append(Store(t.buffer, (index,), self.widen(self.expr(t.value, mask))))
        return MultiStore(tuple(new)) if mask is None else If(mask, MultiStore(tuple(new)))

    def scalar_loop(self, s: Stmt, guards: tuple[Expr, ...]) -> Stmt:
        for cond in reversed(guards):
            s = If(cond, s)
        return For(self.var, const(self.lanes), "serial", s)

    def widen(self, e: Expr) -> Expr:
        return e if e.dtype.lanes > 1 else broadcast(e, self.lanes)

    def index(self, e: Expr, mask: Expr | None) -> Expr:
        form = linear_form(e, {self.var})
        if form is None:
            return self.widen(self.expr(e, mask))
        coefficients, rest = form
        stride = coefficients.get(self.var, 0)
        return ramp(simplify(rest, self.ranges), stride, self.lanes)

    def expr(self, e: Expr, mask: Expr | None) -> Expr:
        if not uses(e, {self.var}):
            # A scalar read under a lane mask may be out of bounds when no lane is active: guard it by the first lane.
            return e
        if e is self.var:
            return ramp(const(0, e.dtype), const(1, e.dtype), self.lanes)
        if e.dtype.is_int and e.op in ("add", "sub", "mul"):
            form = linear_form(e, {self.var})
            if form is not None:
                return ramp(simplify(form[1], self.ranges), form[0].get(self.var, 0), self.lanes)
        if e.op == "load":
            mask = self.read.get(e, mask)
            new = load(e.value, (self.index(e.args[0], mask),))
            return new if mask is None or e.value in self.unmasked else select(mask, new, self.widen(const(0, e.dtype)))
        if e.op == "select":
            cond = self.expr(e.args[0], mask)
            if cond.dtype.lanes == 1:
                return select(cond, self.widen(self.expr(e.args[1], mask)), self.widen(self.expr(e.args[2], mask)))
            outer = cond if mask is None else and_(mask, cond)
            inverse = ~cond if mask is None else and_(mask, ~cond)
            before = self.read
            self.read = {**dict.fromkeys(_always_read(e.args[0]), mask), **before}
            chosen = self.widen(self.expr(e.args[1], outer)), self.widen(self.expr(e.args[2], inverse))
            self.read = before
            return select(cond, *chosen)
        args = tuple(self.expr(a, mask) for a in e.args)
        if mask is not None and e.op in ("floordiv", "floormod") and e.dtype.is_int and args[1].op != "const":
            # Inactive lanes divide by one: what they hold may be zero, and the machine would trap.
            args = (args[0], select(mask, self.widen(args[1]), self.widen(const(1, args[1].dtype.scalar))))
        if any(a.dtype.lanes > 1 for a in args):
            args = tuple(self.widen(a) for a in args)
        return rebuild(e, args)


def _always_read(cond: Expr) -> list[Expr]:
    """The loads that evaluating `cond` does in any case; what it chooses between need no further masks for them."""
    found, pending = [], [cond]
    while pending:
        e = pending.pop()
        if e.op == "load":
            found.append(e)
        pending += e.args[:1] if e.op == "select" else e.args
    return found


def _is_unit_ramp(e: Expr) -> bool:
    return e.op == "ramp" and is_const(e.args[1], 1)
