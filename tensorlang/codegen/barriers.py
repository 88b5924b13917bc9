"""Where the threads of a block wait for each other.

    for t in 64 (threadIdx.x): s[t] = x[t]              for t in 64 (threadIdx.x): s[t] = x[t]
    for t in 64 (threadIdx.x): y[t] = s[63 - t]   ->    barrier()
                                                        for t in 64 (threadIdx.x): y[t] = s[63 - t]

A barrier stands between two nests of a block if one writes a buffer that the other touches, and at the end of a loop around
such nests, whose next iteration follows. Within a nest no two threads touch one element with one of them writing: that was
proved when its loops were bound. Hence no two threads ever do without a barrier between; `race_proof` proves that, and
`ir.races` checks it by running.

Where a loop is pipelined, what an iteration makes for a later one and what it reads lie in different slots of a buffer:
integer sets say so, and no barrier stands between them. Copies into shared memory that are asked to be asynchronous
(`async_copy`) are committed as one group per iteration, and before the barrier at its end a thread waits for those groups
that the next iteration reads: the others are still on their way.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import replace

from tensorlang.ir.buffer import Buffer
from tensorlang.ir.dtype import i32
from tensorlang.ir.expr import Expr, call, const, eq, ne, or_
from tensorlang.ir.intrinsics import ASYNC_COPY, BARRIER, COMMIT, LAUNCH, WAIT
from tensorlang.ir.stmt import Allocate, Evaluate, For, If, MultiStore, PrimFunc, Seq, Stmt, Store
from tensorlang.ir.visitor import free_vars, loads, own_exprs, rewrite_stmt, walk, walk_stmt
from tensorlang.symbolic.access import Access, every_access
from tensorlang.symbolic.conflict import Sides, conflict

_NONE: Set[Buffer] = frozenset()
MOST_PENDING = 7  # groups of copies that may be on their way at the end of an iteration


def place_barriers(s: Stmt, private: Set[Buffer] = _NONE, asynchronous: bool = False) -> Stmt:
    """One launch with its barriers.

    Args:
        private: buffers of which no two threads touch one element.
        asynchronous: whether the device has copies that arrive later than they are made.
    """
    return _Placer(s, private, asynchronous).place((s,))[0]


class _Placer:
    """One launch. Methods take the way from its root to a statement."""

    def __init__(self, root: Stmt, private: Set[Buffer], asynchronous: bool):
        self.private = private
        self.copies = async_copies(root) if asynchronous else {}
        self.axes = {
            s.var: s.kind for s in walk_stmt(root) if isinstance(s, For) and s.kind.startswith(("threadIdx.", "blockIdx."))
        }

    def place(self, path: tuple[Stmt, ...]) -> tuple[Stmt, bool]:
        """The statement with its barriers, and whether at its end copies may be on their way."""
        s = path[-1]
        if not binds_threads(s) or is_thread_loop(s):
            return s, False
        if isinstance(s, Seq):
            return self._sequence(path[:-1], _without_allocations(s))
        if isinstance(s, Allocate):
            body, flying = self.place((*path, s.body))
            return replace(s, body=body), flying
        if isinstance(s, For):
            return self._loop(path, s)
        if isinstance(s, If):
            then, flying = self.place((*path, s.then))
            other, too = (None, False) if s.else_ is None else self.place((*path, s.else_))
            return replace(s, then=then, else_=other), flying or too
        return s, False

    def _loop(self, path: tuple[Stmt, ...], s: For) -> tuple[Stmt, bool]:
        if s.kind.startswith("blockIdx."):
            body, flying = self.place((*path, s.body))
            return replace(s, body=body), flying
        body, flying = self._sequence(path, _without_allocations(Seq((s.body,))))
        pending = self._pending(path, s, body) if flying else 0
        end = [_wait(pending)] * flying + [_barrier()] * bool(flying or written(s) - self.private)
        return replace(s, body=_extended(body, end)), pending > 0

    def _sequence(self, around: tuple[Stmt, ...], s: Stmt) -> tuple[Stmt, bool]:
        if isinstance(s, Allocate):
            body, flying = self._sequence((*around, s), s.body)
            return replace(s, body=body), flying
        assert isinstance(s, Seq)
        path = (*around, s)
        made: list[Stmt] = []
        since: list[Stmt] = []  # the last barrier
        flying = uncommitted = False
        for c in s.stmts:
            copies = self._copies(c)
            if uncommitted and not copies:
                made.append(_commit())
                uncommitted = False
            if any(self._meet(path, one, c) for one in since):
                made += [_commit()] * uncommitted + [_wait(0)] * flying + [_barrier()]
                since, flying, uncommitted = [], False, False
            placed, unfinished = self.place((*path, c))
            since.append(c)
            made.append(placed)
            uncommitted = uncommitted or copies
            flying = flying or copies or unfinished
        if uncommitted:
            made.append(_commit())
        return Seq(tuple(made)), flying

    def _meet(self, path: tuple[Stmt, ...], one: Stmt, two: Stmt) -> bool:
        """Whether two statements of a block may touch one element, one of them writing."""
        writes, other_writes = written(one) - self.private, written(two) - self.private
        touched, other = writes | read(one) - self.private, other_writes | read(two) - self.private
        common = (writes & other) | (other_writes & touched)
        return any(not self._apart(path, one, two, b) for b in common)

    def _apart(self, path: tuple[Stmt, ...], one: Stmt, two: Stmt, buffer: Buffer) -> bool:
        """Whether two statements use different slots of a buffer in each iteration of a loop around them, or as copies that
        come before that loop."""
        around = {s.var for s in path if isinstance(s, For) and s.var not in self.axes}
        sides = [[a for a in every_access((*path, c)) if a.buffer is buffer] for c in (one, two)]
        moving = all(any(_goes_round(i, around) for i in a.indices) for accesses in sides for a in accesses)
        if not moving and not (self._copies(one) and self._copies(two)):
            return False
        shared = _loops(path)
        for a in sides[0]:
            for b in sides[1]:
                if (a.write or b.write) and conflict(a, b, shared, lambda sides, a=a, b=b: self._differ(a, b, sides)):  # type: ignore[misc]
                    return False
        return True

    def _differ(self, a: Access, b: Access, sides: Sides) -> Expr:
        """That two accesses are of different threads."""
        places = [{self.axes[v]: side[v] for v in side if v in self.axes} for side in sides]
        found: Expr = const(False)
        for axis in {k for place in places for k in place}:
            x, y = (place.get(axis, const(0)) for place in places)
            found = or_(found, ne(x, y))
        return found

    # -- copies that arrive later ------------------------------------------------------------------------------------
    def _copies(self, s: Stmt) -> bool:
        """Whether a statement is nests of threads, some of which make such copies."""
        if isinstance(s, If):
            return s.else_ is None and self._copies(s.then)
        if isinstance(s, Seq):
            return all(map(is_thread_loop, s.stmts)) and any(map(self._copies, s.stmts))
        return is_thread_loop(s) and any(c in self.copies for c in walk_stmt(s))

    def _pending(self, path: tuple[Stmt, ...], loop: For, body: Stmt) -> int:
        """How many groups may be on their way at the end of an iteration: what they bring is not touched in the next."""
        while isinstance(body, Allocate):
            body = body.body
        stmts = body.stmts if isinstance(body, Seq) else (body,)
        if sum(is_commit(c) for c in walk_stmt(body)) != 1 or not any(map(is_commit, stmts)):
            return 0
        found = [a for a in every_access((*path, loop.body)) if a.buffer not in self.private]
        copied = {self.copies[c] for c in walk_stmt(loop) if isinstance(c, For) and c in self.copies}
        brought = [a for a in found if a.write and a.buffer in copied]
        shared = _loops(path[:-1])
        for pending in range(MOST_PENDING):
            distance = pending + 1

            def at_distance(sides: Sides, distance: int = distance) -> Expr:
                return eq(sides[1][loop.var], sides[0][loop.var] + distance)

            if any(a.buffer is b.buffer and conflict(a, b, shared, at_distance) for a in brought for b in found):
                return pending
        return MOST_PENDING


def async_copies(launch: Stmt) -> dict[For, Buffer]:
    """Loops of a launch that copy from global into shared memory and are asked to be asynchronous, and where they copy to."""
    inside = {s.buffer: s for s in walk_stmt(launch) if isinstance(s, Allocate) and not _binds_blocks(s)}
    changed = written(launch)
    found = {}
    for s in walk_stmt(launch):
        if isinstance(s, For) and s.annotations.get(ASYNC_COPY) and isinstance(s.body, Store):
            value, target = s.body.value, s.body.buffer
            if value.op == "select" and value.args[2].op == "const" and value.args[2].value == 0:
                value = value.args[1]
            shared = target in inside and binds_threads(inside[target].body)
            outside = value.op == "load" and value.value not in inside and value.value not in changed
            if shared and outside and value.value.dtype == target.dtype:
                found[s] = target
    return found


def _extended(s: Stmt, more: Sequence[Stmt]) -> Stmt:
    """Statements after those of a sequence."""
    if isinstance(s, Allocate):
        return replace(s, body=_extended(s.body, more))
    assert isinstance(s, Seq)
    return Seq((*s.stmts, *more))


def _goes_round(index: Expr, loops: Set[Expr]) -> bool:
    return any(e.op == "floormod" and free_vars(e) & loops for e in walk(index))


def _without_allocations(s: Seq) -> Stmt:
    """(a; with alloc(y): (b; c))  ->  with alloc(y): (a; b; c)"""
    stmts: list[Stmt] = []
    buffers: list[Buffer] = []
    pending: list[Stmt] = list(reversed(s.stmts))
    while pending:
        c = pending.pop()
        if isinstance(c, Allocate) and binds_threads(c.body):
            buffers.append(c.buffer)
            pending.append(c.body)
        elif isinstance(c, Seq):
            pending.extend(reversed(c.stmts))
        else:
            stmts.append(c)
    made: Stmt = Seq(tuple(stmts))
    for b in reversed(buffers):
        made = Allocate(b, made)
    return made


def _loops(path: Sequence[Stmt]) -> list[Expr]:
    return [s.var for s in path if isinstance(s, For)]


def grid_program(
    func: PrimFunc, private: Set[Buffer] = _NONE, one_block: bool = False, asynchronous: bool = False
) -> PrimFunc:
    """A lowered program as a grid runs it: barriers within each nest, and between nests the end of a launch.

    Args:
        one_block: the whole program is one launch.
        asynchronous: as of `place_barriers`.
    """

    def launches(s: Stmt) -> Stmt:
        if isinstance(s, Allocate) and not one_block:
            return replace(s, body=launches(s.body))
        if not isinstance(s, Seq) or one_block:
            return place_barriers(s, private, asynchronous)
        made: list[Stmt] = []
        for c in s.stmts:
            made += [launches(c), Evaluate(call(LAUNCH, dtype=i32))]
        return Seq(tuple(made[:-1]))

    return replace(func, body=launches(func.body))


def with_barriers(func: PrimFunc, private: Set[Buffer], one_block: bool, asynchronous: bool) -> PrimFunc:
    """As `grid_program`, without the ends of launches."""
    program = grid_program(func, private, one_block, asynchronous)
    return program.with_body(rewrite_stmt(program.body, _without_launches))


def _without_launches(s: Stmt) -> Stmt | None:
    return Seq(tuple(c for c in s.stmts if not is_launch(c))) if isinstance(s, Seq) else None


def is_barrier(s: Stmt) -> bool:
    """Whether a statement is a barrier among the threads of a block."""
    return isinstance(s, Evaluate) and s.expr.op == "call" and s.expr.value == BARRIER


def is_launch(s: Stmt) -> bool:
    """Whether a statement is the end of a launch: all blocks are through before the next begin."""
    return isinstance(s, Evaluate) and s.expr.op == "call" and s.expr.value == LAUNCH


def is_commit(s: Stmt) -> bool:
    """Whether a statement ends a group of asynchronous copies."""
    return isinstance(s, Evaluate) and s.expr.op == "call" and s.expr.value == COMMIT


def waits_for(s: Stmt) -> int | None:
    """How many groups a statement that waits for copies leaves on their way; None if it is another."""
    if isinstance(s, Evaluate) and s.expr.op == "call" and s.expr.value == WAIT:
        return int(s.expr.args[0].value)
    return None


def is_thread_loop(s: Stmt) -> bool:
    return isinstance(s, For) and s.kind.startswith("threadIdx.")


def binds_threads(s: Stmt) -> bool:
    """Whether there is a loop over threads in a statement."""
    return any(is_thread_loop(c) for c in walk_stmt(s))


def _binds_blocks(s: Stmt) -> bool:
    return any(isinstance(c, For) and c.kind.startswith("blockIdx.") for c in walk_stmt(s))


def written(s: Stmt) -> set[Buffer]:
    """What a statement stores to."""
    stores = [t for c in walk_stmt(s) for t in (c.stores if isinstance(c, MultiStore) else (c,)) if isinstance(t, Store)]
    return {t.buffer for t in stores}


def read(s: Stmt) -> set[Buffer]:
    """What a statement loads from."""
    return {a.value for c in walk_stmt(s) for e in own_exprs(c) for a in loads(e)}


def _barrier() -> Stmt:
    return Evaluate(call(BARRIER, dtype=i32))


def _commit() -> Stmt:
    return Evaluate(call(COMMIT, dtype=i32))


def _wait(pending: int) -> Stmt:
    return Evaluate(call(WAIT, const(pending), dtype=i32))
