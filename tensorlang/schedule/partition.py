"""Loops cut into consecutive ranges: the part whose guards hold for certain runs without them.

    for i_o in 3: for i_i in 4: if i_o*4 + i_i < 10: s(i_o*4 + i_i)
->  for i_o in 2: for i_i in 4: s(i_o*4 + i_i)
    for i_o in 1: for i_i in 2: s(8 + i_i)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tensorlang.errors import ScheduleError
from tensorlang.ir.expr import Expr, and_, const, floordiv, is_const, le, lt, maximum, minimum, not_, select, var
from tensorlang.ir.reduction import reduce_loop_vars
from tensorlang.ir.stmt import TRUE, Block, For, PrimFunc, Stmt, seq
from tensorlang.ir.tree import loop_path, loops_of, replace_stmt
from tensorlang.ir.visitor import (
    blocks,
    free_vars,
    map_exprs,
    rewrite,
    rewrite_stmt,
    substitute,
    substitute_stmt,
    walk,
    walk_stmt,
)
from tensorlang.schedule.copies import Copy, fresh_copy
from tensorlang.schedule.loops import as_factor, simplify_bindings
from tensorlang.symbolic.affine import linear_form
from tensorlang.symbolic.bounds import Unbounded, bounds, prove
from tensorlang.symbolic.interval import Interval, RangesLike
from tensorlang.symbolic.simplify import simplify


@dataclass(frozen=True, eq=False)
class Partitioned:
    """A program with a loop cut in parts.

    Attributes:
        loops: the loops of the parts, in order.
        copies: the stages and loops of every part but the one that kept its names.
    """

    func: PrimFunc
    loops: tuple[Expr, ...]
    copies: tuple[Copy, ...]


@dataclass(frozen=True, eq=False)
class _Part:
    """Iterations `start <= v < start + size`. `sure`: conditions (by loops) that hold throughout."""

    suffix: str
    start: Expr
    size: Expr
    sure: frozenset[Expr] = frozenset()
    main: bool = False


def loop_partition(func: PrimFunc, loop: For, factors: Sequence[Any] | None) -> Partitioned:
    """`loop` as several loops over consecutive ranges; cut by its guards, or into ranges of the lengths `factors`.

    The order of execution stays, so it is always legal. A reduction is initialised in the first part.
    """
    if "Idx" in loop.kind or loop.kind == "vthread":
        raise ScheduleError(f"loop_partition: {loop.var.name} is bound to {loop.kind}, which has one position per thread")
    sizes = size_ranges(func)
    parts = _by_guards(func, loop, sizes) if factors is None else _by_lengths(loop, factors, sizes)
    _check_initialised(loop, parts, sizes)
    outer: dict[Expr, Any] = {f.var: f.extent for f in loops_of(loop_path(func.body, loop.var)[:-1])}
    made: list[Stmt] = []
    variables: list[Expr] = []
    copies: list[Copy] = []
    whole = func
    for n, part in enumerate(parts):
        body = _without_init(loop.body, loop.var) if n else loop.body
        body = _without(body, part.sure)
        if not part.main:
            copy = fresh_copy(whole, body, part.suffix)
            whole, body = copy.func, copy.body
            copies.append(copy)
        v = var(f"{loop.var.name}_{part.suffix}")
        body = substitute_stmt(body, {loop.var: part.start if is_const(part.size, 1) else part.start + v})
        body = simplify_bindings(body, {**outer, v: part.size})
        body = _shortened(_decided(body, {**outer, v: part.size}))
        made.append(replace(loop, var=v, extent=part.size, body=body))
        variables.append(v)
    return Partitioned(whole.with_body(replace_stmt(func.body, loop, seq(*made))), tuple(variables), tuple(copies))


def size_ranges(func: PrimFunc) -> RangesLike:
    """What is known of the symbolic sizes of `func`: none is negative.

    Where a loop is cut is computed outside of it, so also where it has no iterations.
    """
    found = set(func.size_vars)
    for buffer in func.buffers:
        for extent in buffer.shape:
            found |= free_vars(extent)
    return dict.fromkeys(found, Interval(0, None))


# -- where to cut --------------------------------------------------------------------------------------------------


def _by_lengths(loop: For, factors: Sequence[Any], known: RangesLike) -> list[_Part]:
    n = loop.extent
    if len(factors) < 2:
        raise ScheduleError("loop_partition: give at least two lengths")
    if sum(f is None for f in factors) > 1:
        raise ScheduleError(f"loop_partition: only one length may be None: {list(factors)}")
    sizes = [as_factor(f, "loop_partition") if f is not None else None for f in factors]
    total: Expr = const(0)
    for size in sizes:
        total = total + size if size is not None else total
    rest = simplify(n - total)
    if None in sizes:
        if not prove(le(0, rest), known):
            raise ScheduleError(f"loop_partition: {total} iterations are more than {n}, or not known to be fewer")
    elif not is_const(rest, 0):
        raise ScheduleError(f"loop_partition: the lengths {list(factors)} make {simplify(total)} iterations, not {n}")
    parts: list[_Part] = []
    start: Expr = const(0)
    for k, size in enumerate(sizes):
        length = rest if size is None else size
        parts.append(_Part(f"part{k}", start, length, main=k == 0))
        start = simplify(start + length)
    return parts


def _by_guards(func: PrimFunc, loop: For, known: RangesLike) -> list[_Part]:
    """Before, while and after all guards hold that depend on `loop` (and loops inside it) alone."""
    inner = {s.var: s.extent for s in walk_stmt(loop.body) if isinstance(s, For)}
    around = {f.var for f in loops_of(loop_path(func.body, loop.var)[:-1])}
    n = loop.extent
    low, high = const(0), n
    sure: set[Expr] = set()
    for condition in _conditions(loop.body):
        found = _range_of(condition, loop.var, inner, around, known)
        if found is not None:
            sure.add(condition)
            low = low if found[0] is None else _larger(low, found[0], known)
            high = high if found[1] is None else _smaller(high, found[1], known)
    if not sure:
        raise ScheduleError(
            f"loop_partition: no guard inside {loop.var.name} depends on it and on loops inside it alone; give the lengths "
            "of the parts"
        )
    low = _smaller(low, n, known)
    high = _smaller(_larger(low, high, known), n, known)
    parts = [_Part("main", low, simplify(high - low), frozenset(sure), main=True)]
    if not is_const(low, 0):
        parts.insert(0, _Part("head", const(0), low))
    if not is_const(tail := simplify(n - high), 0):
        parts.append(_Part("tail", high, tail))
    if len(parts) == 1:
        raise ScheduleError(f"loop_partition: the guards inside {loop.var.name} hold in every iteration, or in none")
    if any(p.main and is_const(p.size, 0) for p in parts):
        raise ScheduleError(f"loop_partition: in no iteration of {loop.var.name} do all guards hold for certain")
    return parts


def _larger(a: Expr, b: Expr, known: RangesLike) -> Expr:
    return b if prove(le(a, b), known) else a if prove(le(b, a), known) else simplify(maximum(a, b), known)


def _smaller(a: Expr, b: Expr, known: RangesLike) -> Expr:
    return a if prove(le(a, b), known) else b if prove(le(b, a), known) else simplify(minimum(a, b), known)


def _conditions(body: Stmt) -> dict[Expr, None]:
    """The conjuncts of all guards and `select`s in `body`, in terms of loops."""
    found: dict[Expr, None] = {}
    for block in blocks(body):
        for c in conjuncts(block.predicate):
            found.setdefault(c)
        values = {it.var: it.binding for it in block.iters}
        for e in _selects(block):
            for c in conjuncts(e.args[0]):
                found.setdefault(substitute(c, values))
    return found


def _selects(block: Block) -> list[Expr]:
    found: dict[Expr, None] = {}

    def collect(e: Expr) -> Expr:
        found.update(dict.fromkeys(n for n in walk(e) if n.op == "select"))
        return e

    map_exprs(block.body, collect)
    return list(found)


def conjuncts(cond: Expr) -> list[Expr]:
    """The parts of a conjunction; none where it is true."""
    if cond.op == "and":
        return [c for a in cond.args for c in conjuncts(a)]
    return [] if cond.op == "const" and cond.value else [cond]


def _range_of(
    condition: Expr, v: Expr, inner: Mapping[Expr, Expr], around: set[Expr], known: RangesLike
) -> tuple[Expr | None, Expr | None] | None:
    """(first, end) of the values of `v` for which `condition` holds whatever the inner loops are at; None if not decided."""
    if condition.op not in ("lt", "le") or v not in free_vars(condition) or any(n.op == "load" for n in walk(condition)):
        return None
    a, b = condition.args
    if a.dtype != v.dtype:
        return None
    difference = simplify(a - b) if condition.op == "lt" else simplify(a - b - 1)  # holds where this is negative
    try:
        worst = bounds(difference, inner)[1]
    except Unbounded:
        return None
    form = linear_form(worst, {v})
    if form is None or free_vars(form[1]) & (around | inner.keys()):
        return None
    slope, rest = form[0].get(v), form[1]
    if not isinstance(slope, int) or slope == 0:
        return None
    if slope > 0:
        return None, simplify(floordiv(-rest - 1, slope) + 1, known)
    return simplify(floordiv(rest, -slope) + 1, known), None


# -- the parts ------------------------------------------------------------------------------------------------------


def _check_initialised(loop: For, parts: Sequence[_Part], known: RangesLike) -> None:
    for block in blocks(loop.body):
        if block.init is None or loop.var not in reduce_loop_vars(block):
            continue
        if any(it.kind == "spatial" and loop.var in free_vars(it.binding) for it in block.iters):
            raise ScheduleError(
                f"loop_partition: {loop.var.name} runs over output elements and the reduction of {block.name} at once"
            )
        if not prove(lt(0, parts[0].size), known):
            raise ScheduleError(
                f"loop_partition: {block.name} is initialised in the first part of {loop.var.name}, which may be empty "
                f"({parts[0].size} iterations); decompose_reduction first"
            )


def _without_init(body: Stmt, v: Expr) -> Stmt:
    """`body` where reductions along `v` only go on accumulating."""

    def rule(s: Stmt) -> Stmt | None:
        return replace(s, init=None) if isinstance(s, Block) and s.init is not None and v in reduce_loop_vars(s) else None

    return rewrite_stmt(body, rule)


def _without(body: Stmt, sure: frozenset[Expr]) -> Stmt:
    """`body` without the guards and the conditions of `select`s that are among `sure` (in terms of loops)."""
    if not sure:
        return body

    def rule(s: Stmt) -> Stmt | None:
        if not isinstance(s, Block):
            return None
        values = {it.var: it.binding for it in s.iters}

        def choose(e: Expr) -> Expr | None:
            if e.op != "select":
                return None
            left = _conjunction([c for c in conjuncts(e.args[0]) if substitute(c, values) not in sure])
            return e.args[1] if left is TRUE else select(left, e.args[1], e.args[2])

        inside = map_exprs(s.body, lambda e: rewrite(e, choose))
        return replace(s, body=inside, predicate=_conjunction([c for c in conjuncts(s.predicate) if c not in sure]))

    return rewrite_stmt(body, rule)


def _decided(body: Stmt, outer: RangesLike) -> Stmt:
    """`body` without guards that always hold there, and with the arm of a `select` that is always taken."""
    ranges = {**outer, **{s.var: s.extent for s in walk_stmt(body) if isinstance(s, For)}}

    def left(condition: Expr, values: Mapping[Expr, Expr]) -> Expr:
        open_: list[Expr] = []
        for c in conjuncts(condition):
            at = substitute(c, values)
            if prove(not_(at), ranges):
                return const(False)
            if not prove(at, ranges):
                open_.append(c)
        return _conjunction(open_)

    def rule(s: Stmt) -> Stmt | None:
        if not isinstance(s, Block):
            return None
        values = {it.var: it.binding for it in s.iters}

        def choose(e: Expr) -> Expr | None:
            if e.op != "select" or any(n.op == "load" for n in walk(e.args[0])):
                return None
            cond = left(e.args[0], values)
            if cond.op == "const":
                return e.args[1] if cond.value else e.args[2]
            return select(cond, e.args[1], e.args[2])

        predicate = s.predicate
        if predicate is not TRUE:
            predicate = _conjunction([c for c in conjuncts(predicate) if not prove(c, ranges)])
        return replace(s, body=map_exprs(s.body, lambda e: rewrite(e, choose)), predicate=predicate)

    return rewrite_stmt(body, rule)


def _conjunction(conditions: Sequence[Expr]) -> Expr:
    result: Expr = TRUE
    for c in conditions:
        result = c if result is TRUE else and_(result, c)
    return result


def _shortened(s: Stmt) -> Stmt:
    """for r in 4: if r < 2: s(r)  ->  for r in 2: s(r); not lanes, which are masked."""

    def rule(node: Stmt) -> Stmt | None:
        if not isinstance(node, For) or node.kind not in ("serial", "unrolled", "parallel") or node.extent.op != "const":
            return None
        inside = blocks(node.body)
        limits = [
            c for c in (conjuncts(inside[0].predicate) if inside else [])
            if c.op == "lt" and c.args[0] is node.var and c.args[1].op == "const" and 0 < c.args[1].value < node.extent.value
        ]
        for limit in limits:
            if all(any(c is limit for c in conjuncts(b.predicate)) for b in inside):
                shorter = {limit}
                return replace(node, extent=limit.args[1], body=_without(node.body, frozenset(shorter)))
        return None

    return rewrite_stmt(s, rule)
