"""A program with a fast path: a copy of it that runs where a condition on its sizes holds, to be scheduled by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tensorlang.errors import ScheduleError
from tensorlang.ir.expr import Expr, floordiv, is_const, maximum, minimum
from tensorlang.ir.stmt import Block, For, If, PrimFunc, Stmt
from tensorlang.ir.visitor import free_vars, rewrite_stmt, substitute, walk
from tensorlang.schedule.copies import Copy, fresh_copy
from tensorlang.schedule.partition import conjuncts, size_ranges
from tensorlang.symbolic.simplify import simplify


def specialize(func: PrimFunc, condition: Expr, suffix: str) -> tuple[PrimFunc, Copy]:
    """The program twice: for sizes where `condition` holds, with stages named `..._suffix`, and for all others as it is.

        for i in n: y[i] = f(i)                                         s.specialize(n % 16 == 0)
    ->  if n % 16 == 0: for i in n // 16 * 16: y_fast[i] = f(i)
        else: for i in n: y[i] = f(i)

    In the copy the extents say what the condition does: where it holds, `n // 16 * 16` is `n`, and splitting it by 16
    leaves no tail. So too `n == 64` (64), `n >= 16` (max(n, 16)) and `n <= 16` (min(n, 16)), and conjunctions of these.
    """
    if not isinstance(condition, Expr) or condition.dtype.name != "bool":
        raise ScheduleError(f"specialize: the condition is a comparison of sizes, such as n % 16 == 0, not {condition!r}")
    sizes = set(func.size_vars)
    if other := free_vars(condition) - sizes or any(e.op == "load" for e in walk(condition)):
        known = ", ".join(v.name for v in func.size_vars) or "none: all shapes are constant"
        name = next(iter(other)).name if isinstance(other, set) else "a tensor's element"
        raise ScheduleError(f"specialize: {name} is not a size of the program; sizes: {known}")
    for e in walk(condition):
        if e.op in ("floordiv", "floormod", "div") and not (e.args[1].op == "const" and e.args[1].value != 0):
            raise ScheduleError(f"specialize: {e} divides by {e.args[1]}, which may be 0")
    decided = simplify(condition, size_ranges(func))
    if decided.op == "const":
        raise ScheduleError(f"specialize: {condition} is always {bool(decided.value)} here")
    copy = fresh_copy(func, func.body, suffix)
    fast = _with_extents(copy.body, _same_where(condition, sizes))
    return copy.func.with_body(If(condition, fast, func.body)), replace(copy, body=fast)


def _same_where(condition: Expr, sizes: set[Expr]) -> dict[Expr, Expr]:
    """Sizes -> expressions of them that are equal where `condition` holds, and show what it says."""
    known: dict[Expr, Expr] = {}
    for c in conjuncts(condition):
        if c.op not in ("eq", "lt", "le"):
            continue
        a, b = c.args
        if c.op == "eq":
            n, value = (b, a) if a.op == "const" else (a, b)
            if n in sizes and value.op == "const":
                known[n] = value
            elif n.op == "floormod" and n.args[0] in sizes and is_const(value, 0) and n.args[1].value > 0:
                v, factor = n.args
                known[v] = floordiv(known.get(v, v), factor) * factor
        elif a in sizes and b.op == "const":
            known[a] = minimum(known.get(a, a), b if c.op == "le" else b - 1)
        elif b in sizes and a.op == "const":
            known[b] = maximum(known.get(b, b), a if c.op == "le" else a + 1)
    return known


def _with_extents(body: Stmt, same: Mapping[Expr, Expr]) -> Stmt:
    """`body` with the extents of loops and of iteration variables written by `same`; buffers keep their shapes."""
    if not same:
        return body

    def rule(s: Stmt) -> Stmt | None:
        if isinstance(s, For):
            return replace(s, extent=simplify(substitute(s.extent, same)))
        if isinstance(s, Block):
            return replace(s, iters=tuple(replace(it, extent=simplify(substitute(it.extent, same))) for it in s.iters))
        return None

    return rewrite_stmt(body, rule)
