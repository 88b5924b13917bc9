"""software_pipeline and double_buffer: iterations of a loop overlap, what the next one needs is made ready during this one.

    for i in n:                                     s.software_pipeline(i, [0, 1])
        y = alloc(f32[8])
        for r in 8: y[r] = f(i, r)                  statement 0, in stage 0
        for r in 8: out[i, r] = g(y[r])             statement 1, in stage 1
->  y = alloc(f32[2, 8])
    for r in 8: y[0, r] = f(0, r)                   what comes before the first iteration
    for i in n:
        for r in 8: if i + 1 < n: y[(i + 1) % 2, r] = f(i + 1, r)
        for r in 8: out[i, r] = g(y[i % 2, r])

With K the last stage, a statement of stage k does iteration i + K - k while those of stage K do iteration i. Source: Lam,
"Software Pipelining: An Effective Scheduling Technique for VLIW Machines", PLDI 1988; the stages are given, not searched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tensorlang.errors import ScheduleError
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr, and_, const, floormod, le, load, lt, var
from tensorlang.ir.reduction import reduce_loop_vars
from tensorlang.ir.stmt import Allocate, Block, CallPacked, For, Iter, PrimFunc, Seq, Stmt, Store, seq
from tensorlang.ir.tensor_intrin import TENSORIZED
from tensorlang.ir.tree import guard_blocks, loop_path, loops_of, read_buffers, replace_stmt, written_buffers
from tensorlang.ir.visitor import blocks, free_vars, map_exprs, rewrite, rewrite_stmt, substitute_stmt, walk_stmt
from tensorlang.schedule.copies import Copy, fresh_copy
from tensorlang.schedule.legality import confirmed, symbolic_sizes
from tensorlang.schedule.loops import simplify_bindings
from tensorlang.schedule.place import ROLLING
from tensorlang.schedule.verdict import PROVED, Verdict
from tensorlang.symbolic.access import Access, accesses
from tensorlang.symbolic.bounds import prove
from tensorlang.symbolic.conflict import Counterexample, Sides, conflict
from tensorlang.symbolic.integer_set import Unknown
from tensorlang.symbolic.interval import RangesLike
from tensorlang.symbolic.region import Region, access_region, union_region
from tensorlang.symbolic.simplify import simplify


@dataclass(frozen=True, eq=False)
class Pipelined:
    """A program with a pipelined loop.

    Attributes:
        copies: the stages that come before the first iteration.
    """

    func: PrimFunc
    copies: tuple[Copy, ...]


@dataclass(frozen=True, eq=False)
class _Body:
    """The body of a loop taken apart: what is private to an iteration, and the statements in order."""

    private: tuple[Buffer, ...]
    statements: tuple[Stmt, ...]


@dataclass(frozen=True, eq=False)
class _Versioned:
    """A private buffer of which several versions are alive: element (slot, i % size, ...)."""

    buffer: Buffer
    count: int
    sizes: tuple[Expr | None, ...]


def stages_for_double_buffer(loop: For, stage: str) -> list[int]:
    """Per statement of `loop`: 0 for the one that holds `stage` and those that feed it, 1 for all others."""
    body = _taken_apart(loop)
    at = next(n for n, s in enumerate(body.statements) if any(b.name == stage for b in blocks(s)))
    needed = {at}
    for n in range(at - 1, -1, -1):
        made = {x for b in blocks(body.statements[n]) for x in written_buffers(b)}
        if any(made & read_buffers(body.statements[m]).keys() for m in needed):
            needed.add(n)
    return [0 if n in needed else 1 for n in range(len(body.statements))]


def check_pipeline(func: PrimFunc, loop: For, stages: Sequence[int]) -> Verdict:
    """Whether no two iterations that depend on each other change places, and each finds what its earlier stages made."""
    what = "software_pipeline"
    body = _taken_apart(loop)
    _check_form(loop, body, stages, what)
    path = loop_path(func.body, loop.var)
    shared = [f.var for f in loops_of(path[:-1])]
    doubt: Verdict | None = None
    found = [[a for a in accesses([*path, s]) if a.buffer not in body.private] for s in body.statements]
    for m, first in enumerate(found):
        for n, second in enumerate(found):
            distance = stages[m] - stages[n]
            if distance <= 0:
                continue  # the later statement does not run ahead of the earlier one
            for a in first:
                for b in second:
                    if a.buffer is b.buffer and (a.write or b.write):
                        verdict = _swapped(func, loop, a, b, shared, distance, m < n)
                        if verdict.status == "refuted":
                            return verdict
                        if verdict.status == "unknown":
                            doubt = doubt or verdict
    return doubt or PROVED


def _swapped(
    func: PrimFunc, loop: For, a: Access, b: Access, shared: Sequence[Expr], distance: int, a_is_first: bool
) -> Verdict:
    """Whether access `a` in iteration t and, after it, `b` in iteration u touch the same, and `b` would come first."""

    def turned_round(sides: Sides) -> Expr:
        t, u = sides[0][loop.var], sides[1][loop.var]
        # `b` of iteration u runs in step u, `a` of t in step t + distance; within a step statements keep their order.
        if a_is_first:
            return and_(le(t, u), lt(u, t + distance))
        return and_(lt(t, u), le(u, t + distance))

    found = conflict(a, b, shared, turned_round, sizes=symbolic_sizes(func))
    if isinstance(found, Counterexample):
        reason = f"{b.stage} would run {distance} iteration(s) ahead of {a.stage}, on which it depends through {a.buffer.name}"
        culprits = tuple(dict.fromkeys(x.block for x in (a, b) if x.block))
        remedy = f"put {a.stage} and {b.stage} into the same stage"
        return confirmed(func, Verdict("refuted", reason, found, remedy, (loop, *culprits)))
    if isinstance(found, Unknown):
        return Verdict("unknown", f"{a.stage} and {b.stage}: {found.reason}")
    return PROVED


def software_pipeline(func: PrimFunc, loop: For, stages: Sequence[int]) -> Pipelined:
    """`loop` with the statements of its body in different iterations: see the head of this file.

    Raises:
        ScheduleError: it has no such form.
    """
    what = "software_pipeline"
    body = _taken_apart(loop)
    _check_form(loop, body, stages, what)
    last = max(stages)
    outer: dict[Expr, Expr | int] = {f.var: f.extent for f in loops_of(loop_path(func.body, loop.var))}
    versioned = _versions(loop, body, stages, outer)
    i = loop.var

    def shifted(s: Stmt, at: Expr, guard: Expr | None) -> Stmt:
        moved = _with_versions(substitute_stmt(s, {i: at}), versioned, at)
        return guard_blocks(moved, guard) if guard is not None else moved

    copies: list[Copy] = []
    before: list[Stmt] = []
    whole = func
    for step in range(last):
        for s, k in zip(body.statements, stages, strict=True):
            if k <= step:
                t = step - k
                guard = None if prove(lt(t, loop.extent), {}) else lt(t, loop.extent)
                copy = fresh_copy(whole, s, f"first{t}" if t else "first")
                whole = copy.func
                copies.append(copy)
                before.append(shifted(copy.body, const(t), guard))
    within: list[Stmt] = []
    for s, k in zip(body.statements, stages, strict=True):
        ahead = last - k
        within.append(shifted(s, i + ahead, lt(i + ahead, loop.extent)) if ahead else shifted(s, i, None))
    inner: Stmt = seq(*within)
    for b in reversed(body.private):
        if b not in versioned:
            inner = Allocate(b, inner)
    ranges: dict[Expr, Expr] = {i: loop.extent}
    new: Stmt = seq(
        *(simplify_bindings(s, {}) for s in before), replace(loop, body=simplify_bindings(inner, ranges))
    )
    for b in reversed(body.private):
        if b in versioned:
            new = Allocate(versioned[b].buffer, new)
    return Pipelined(whole.with_body(replace_stmt(func.body, loop, new)), tuple(copies))


# -- the form --------------------------------------------------------------------------------------------------------


def _taken_apart(loop: For) -> _Body:
    private: list[Buffer] = []
    s = loop.body
    while isinstance(s, Allocate):
        private.append(s.buffer)
        s = s.body
    parts: list[Stmt] = []
    stack = [s]
    while stack:
        node = stack.pop()
        if isinstance(node, Seq):
            stack.extend(reversed(node.stmts))
        elif isinstance(node, Allocate):  # between statements: it lives no longer for being made earlier
            private.append(node.buffer)
            stack.append(node.body)
        else:
            parts.append(node)
    return _Body(tuple(private), tuple(parts))


def _check_form(loop: For, body: _Body, stages: Sequence[int], what: str) -> None:
    name = loop.var.name
    if loop.kind not in ("serial", "unrolled"):
        raise ScheduleError(f"{what}: loop {name} is {loop.kind}: its iterations have no order in which to run ahead")
    if len(stages) != len(body.statements):
        names = "; ".join(", ".join(b.name for b in blocks(s)) for s in body.statements)
        raise ScheduleError(
            f"{what}: {name} holds {len(body.statements)} statement(s) ({names}), and {len(stages)} stage(s) are given"
        )
    if not all(isinstance(k, int) and not isinstance(k, bool) and 0 <= k <= 7 for k in stages) or min(stages) != 0:
        raise ScheduleError(f"{what}: stages are numbers from 0 to 7, of which 0 is used, not {list(stages)}")
    last = max(stages)
    if last == 0:
        raise ScheduleError(f"{what}: all statements of {name} are in stage 0: there is nothing to overlap")
    for s, k in zip(body.statements, stages, strict=True):
        for node in walk_stmt(s):
            if isinstance(node, CallPacked) and any(b in body.private for b in node.buffers):
                raise ScheduleError(f"{what}: packed function {node.name} is given all of a buffer that is private to {name}")
            if isinstance(node, For) and TENSORIZED in node.annotations:
                raise ScheduleError(f"{what}: loop {node.var.name} was tensorized; pipeline {name} before that")
            if not isinstance(node, Block):
                continue
            if k < last and loop.var in reduce_loop_vars(node):
                raise ScheduleError(f"{what}: {node.name} accumulates along {name}, so it belongs to the last stage, {last}")
            if ROLLING in node.annotations:
                raise ScheduleError(f"{what}: {node.name} is rolled: it relies on the order of iterations of {name}")
    for b in body.private:
        made = {k for s, k in zip(body.statements, stages, strict=True) if b in _written(s)}
        used = {k for s, k in zip(body.statements, stages, strict=True) if b in read_buffers(s)}
        if len(made) > 1:
            raise ScheduleError(f"{what}: {b.name} is written in stages {sorted(made)}; put its writers into one")
        if made and used and min(used) < min(made):
            raise ScheduleError(f"{what}: {b.name} is read in stage {min(used)} and made in stage {min(made)}, later")


def _written(s: Stmt) -> set[Buffer]:
    return {b for block in blocks(s) for b in written_buffers(block)}


# -- versions --------------------------------------------------------------------------------------------------------


def _versions(loop: For, body: _Body, stages: Sequence[int], outer: RangesLike) -> dict[Buffer, _Versioned]:
    """Private buffers that stages before the last one use: as many versions as iterations need them at once."""
    last = max(stages)
    found: dict[Buffer, _Versioned] = {}
    for b in body.private:
        users = [k for s, k in zip(body.statements, stages, strict=True) if b in _written(s) or b in read_buffers(s)]
        if not users or min(users) == last:
            continue
        count = max(users) - min(users) + 1
        region: Region | None = None
        inner: dict[Expr, Expr | int] = {s.var: s.extent for s in walk_stmt(loop.body) if isinstance(s, For)}
        for a in accesses([loop.body]):
            if a.buffer is b:
                touched = access_region(tuple(simplify(e, inner) for e in a.indices), inner, b.shape, outer)
                region = touched if region is None else union_region(region, touched, outer)
        sizes: list[Expr | None] = []
        for (low, extent), d in zip(region or [(const(0), d) for d in b.shape], b.shape, strict=True):
            # What one iteration touches is a window of so many elements: modulo its length no two of them are the same.
            fits = extent.op == "const" and extent is not d and simplify(floormod(low, extent), outer) is const(0)
            sizes.append(extent if fits else None)
        shape = tuple(d if size is None else size for d, size in zip(b.shape, sizes, strict=True))
        align = tuple((axis + 1, factor, offset) for axis, factor, offset in b.align)
        found[b] = _Versioned(b.with_(shape=(const(count), *shape), align=align), count, tuple(sizes))
    return found


def _with_versions(s: Stmt, versioned: Mapping[Buffer, _Versioned], at: Expr) -> Stmt:
    """`s`, which does iteration `at` of the loop, on the versions of that iteration."""
    if not versioned:
        return s

    def rule(node: Stmt) -> Stmt | None:
        if not isinstance(node, Block):
            return None
        used = [b for b in (*written_buffers(node), *read_buffers(node)) if b in versioned]
        if not used:
            return None
        own = {count: var("vslot") for count in dict.fromkeys(versioned[b].count for b in used)}

        def index(b: Buffer, old: tuple[Expr, ...]) -> tuple[Expr, ...]:
            v = versioned[b]
            return (own[v.count], *(e if n is None else e % n for e, n in zip(old, v.sizes, strict=True)))

        def on_load(e: Expr) -> Expr | None:
            return load(versioned[e.value].buffer, index(e.value, e.args)) if e.op == "load" and e.value in versioned else None

        def on_store(x: Stmt) -> Stmt | None:
            if isinstance(x, Store) and x.buffer in versioned:
                return Store(versioned[x.buffer].buffer, index(x.buffer, x.indices), x.value)
            return None

        def moved(x: Stmt) -> Stmt:
            return rewrite_stmt(map_exprs(x, lambda e: rewrite(e, on_load)), on_store)

        # Where the loop accumulates, so do the slots that it goes round: they choose no element of the result.
        kind = "reduce" if free_vars(at) & reduce_loop_vars(node) else "spatial"
        spatial = {v for it in node.iters if it.kind == "spatial" for v in free_vars(it.binding)}
        if kind == "reduce" and node.init is not None and free_vars(at) & spatial:
            raise ScheduleError(
                f"the loop moves both the elements and the sum of {node.name}: a sum begins where its slot is not the first "
                "one, and would not be set to its initial value; pipeline a loop of the sum alone, or decompose_reduction first"
            )
        slots = tuple(Iter(v, const(count), kind, floormod(at, count)) for count, v in own.items())
        iters = (*slots, *node.iters) if any(b in written_buffers(node) for b in used) else (*node.iters, *slots)
        return replace(node, iters=iters, body=moved(node.body), init=moved(node.init) if node.init is not None else None)

    return rewrite_stmt(s, rule)
