"""Expressions simplified with the extents of the loops around them; guards moved out of loops they do not depend on.

for r in 8: if c: s   ->   if c: for r in 8: s          (c does not mention r)
for r in 1: s(r)      ->   s(0)
"""

from __future__ import annotations

from dataclasses import replace

from tensorlang.ir.expr import Expr, const
from tensorlang.ir.stmt import For, If, PrimFunc, Seq, Stmt
from tensorlang.ir.visitor import children, map_exprs, rewrite_stmt, substitute_stmt, uses, walk, with_children
from tensorlang.symbolic.simplify import simplify


def simplify_func(func: PrimFunc) -> PrimFunc:
    return func.with_body(simplify_stmt(func.body, {}))


def simplify_stmt(s: Stmt, ranges: dict[Expr, Expr | int]) -> Stmt:
    """`s` with its own and its children's expressions simplified under `ranges` and the loops inside."""
    if isinstance(s, For):
        if s.extent.op == "const" and s.extent.value == 1 and s.kind != "parallel":
            return simplify_stmt(substitute_stmt(s.body, {s.var: const(0)}), ranges)
        inner = {**ranges, s.var: s.extent}
        body = simplify_stmt(s.body, inner)
        return s if body is s.body else replace(s, body=body)
    if isinstance(s, If):
        cond = simplify(s.cond, ranges)
        if cond.op == "const":
            if cond.value:
                return simplify_stmt(s.then, ranges)
            return simplify_stmt(s.else_, ranges) if s.else_ is not None else Seq(())
        then = simplify_stmt(s.then, ranges)
        else_ = simplify_stmt(s.else_, ranges) if s.else_ is not None else None
        return s if cond is s.cond and then is s.then and else_ is s.else_ else If(cond, then, else_)
    kids = children(s)
    if kids:
        return with_children(s, tuple(simplify_stmt(c, ranges) for c in kids))
    return map_exprs(s, lambda e: simplify(e, ranges) if _worth_it(e) else e)


def _worth_it(e: Expr) -> bool:
    return e.op not in ("const", "var")


def hoist_guards(func: PrimFunc) -> PrimFunc:
    def rule(s: Stmt) -> Stmt | None:
        if not isinstance(s, For) or not isinstance(s.body, If) or s.kind == "parallel":
            return None
        conditions, body = _guards(s.body)
        free = [c for c in conditions if not uses(c, {s.var}) and not any(n.op == "load" for n in walk(c))]
        if not free:
            return None
        return _guarded(free, replace(s, body=_guarded([c for c in conditions if c not in free], body)))

    return func.with_body(rewrite_stmt(func.body, rule))


def _guards(s: Stmt) -> tuple[list[Expr], Stmt]:
    """The conjuncts of the guards directly around a statement, and the statement."""
    found: list[Expr] = []
    while isinstance(s, If) and s.else_ is None:
        found += conjuncts(s.cond)
        s = s.then
    return found, s


def conjuncts(cond: Expr) -> list[Expr]:
    """What a condition asks, one by one."""
    return [c for a in cond.args for c in conjuncts(a)] if cond.op == "and" else [cond]


def _guarded(conditions: list[Expr], body: Stmt) -> Stmt:
    for c in reversed(conditions):
        body = If(c, body)
    return body
