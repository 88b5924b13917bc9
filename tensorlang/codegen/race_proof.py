"""Data races among the threads of a grid, decided with integer sets before anything runs.

    for t in 64 (threadIdx.x): s[t] = x[t]           thread 0 writes s[0], thread 63 reads it, and no barrier stands between:
    for t in 64 (threadIdx.x): y[t] = s[63 - t]      refuted. With a barrier in between: proved.

Two accesses can come in either order on a device if they are of different threads of one block and some path of the program
leads from one to the other without a barrier; or if they are of different blocks in one launch. Where two such accesses can
touch one element, one writing, the program has a race. `ir.races` finds races of one run; this says that no run has any.

What an asynchronous copy brings is there for the thread that made it when it has waited for it, and for others after the next
barrier: whoever touches it before has a race with it, the same thread too. Where a loop commits one group per iteration and
ends with `wait(n)` and a barrier, an iteration finds what those more than `n` iterations before it have brought.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from tensorlang.codegen.barriers import (
    async_copies,
    binds_threads,
    is_barrier,
    is_commit,
    is_launch,
    is_thread_loop,
    waits_for,
)
from tensorlang.codegen.warps import Call, calls_in
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr, and_, const, le, lt, ne, or_
from tensorlang.ir.reduction import CROSS_THREAD
from tensorlang.ir.stmt import Allocate, For, If, PrimFunc, Seq, Stmt, Store
from tensorlang.ir.visitor import children, free_vars, loads, substitute, walk_stmt
from tensorlang.symbolic.access import Access, every_access
from tensorlang.symbolic.conflict import Counterexample, Sides, conflict
from tensorlang.symbolic.integer_set import Unknown, evaluate
from tensorlang.symbolic.interval import Interval

DIMENSIONS = "xyz"
Place = tuple[int, int, int]


@dataclass(frozen=True)
class Races:
    """What is known of a program's races.

    Attributes:
        status: "proved" (there are none), "refuted" or "unknown".
        reason: the two threads and the element they fight over, or why nothing is known.
        buffer, index: the element.
        first, second: of each access: "reads" or "writes", block and thread along x, y, z.
        pairs: pairs of accesses that were looked at.
    """

    status: str
    reason: str = ""
    buffer: Buffer | None = None
    index: tuple[int, ...] = ()
    first: tuple[str, Place, Place] | None = None
    second: tuple[str, Place, Place] | None = None
    pairs: int = 0


def prove_no_races(func: PrimFunc) -> Races:
    """Whether a grid's program (see `codegen.barriers.grid_program`) has data races, at any sizes."""
    prover = _Prover(func)
    for path in _launches([func.body]):
        prover.launch(path)
        if prover.refuted is not None:
            return prover.refuted
    if prover.doubt:
        return Races("unknown", prover.doubt, pairs=prover.pairs)
    return Races("proved", pairs=prover.pairs)


Path = tuple[Stmt, ...]


@dataclass(frozen=True, eq=False)
class _Nest:
    """A statement that threads run without waiting for each other, and the way to it from the program's root."""

    path: Path
    accesses: tuple[Access, ...]


@dataclass(frozen=True)
class _Flow:
    """A statement of a block.

    Attributes:
        first, last: nests that its beginning reaches without a barrier, and nests that reach its end so.
        open: whether its end can be reached from its beginning so.
        flying: nests (of asynchronous copies alone) that may not have been waited for at its end.
        touched: all its nests.
        waits: whether nothing that was begun before it is on its way at its end.
    """

    first: tuple[_Nest, ...]
    last: tuple[_Nest, ...]
    open: bool
    flying: tuple[_Nest, ...] = ()
    touched: tuple[_Nest, ...] = ()
    waits: bool = False


class _Prover:
    def __init__(self, func: PrimFunc):
        self.func = func
        self.axes: dict[Expr, str] = {}
        self.combined: dict[Expr, set[Buffer]] = {}
        for s in walk_stmt(func.body):
            if isinstance(s, For) and s.kind.startswith(("blockIdx.", "threadIdx.")):
                self.axes[s.var] = s.kind
                if CROSS_THREAD in s.annotations:
                    self.combined[s.var] = {t.buffer for t in walk_stmt(s) if isinstance(t, Store)}
        self.warps = calls_in(func.body)
        self.of_thread = _allocated(func.body, "threadIdx.")
        self.of_block = _allocated(func.body, "blockIdx.")
        self.sizes = {v: Interval(0, None) for v in _size_vars(func)}
        self.copies: dict[For, Buffer] = {}
        self.pairs = 0
        self.doubt = ""
        self.refuted: Races | None = None

    def launch(self, path: Path) -> None:
        """Everything that one launch runs."""
        if not any(v for s in walk_stmt(path[-1]) if isinstance(s, For) and (v := self.axes.get(s.var))):
            return  # one thread
        self.copies = async_copies(path[-1])
        self._flow(path)
        if any(isinstance(s, For) and s.kind.startswith("blockIdx.") for s in walk_stmt(path[-1])):
            shared = [a for a in _distinct(path) if a.buffer not in self.of_block and a.buffer not in self.of_thread]
            for n, a in enumerate(shared):
                for b in shared[n:]:
                    self._ask(a, b, [], "blockIdx.", None)

    # -- which nests meet without a barrier ------------------------------------------------------------------------
    def _flow(self, path: Path) -> _Flow:
        s = path[-1]
        if self.refuted is not None:
            return _Flow((), (), True)
        if is_barrier(s):
            return _Flow((), (), False)
        if is_commit(s) or waits_for(s) is not None:
            return _Flow((), (), True, waits=waits_for(s) == 0)
        if is_thread_loop(s) or not binds_threads(s) and not _has_barrier(s):
            return self._nest(path)
        if isinstance(s, Seq):
            return self._sequence(path, s)
        parts = [self._flow((*path, c)) for c in children(s)]
        if isinstance(s, For):
            body = parts[0]
            if not s.kind.startswith("blockIdx."):  # what ends an iteration meets what begins a later one
                self._meet(body.last, body.first, path[:-1], s)
                self._arrive(body.flying, body.touched, path[:-1], s, self._pending(s.body))
            return replace(body, open=True, waits=False)
        first = tuple(n for p in parts for n in p.first)
        last = tuple(n for p in parts for n in p.last)
        flying = tuple(n for p in parts for n in p.flying)
        touched = tuple(n for p in parts for n in p.touched)
        if isinstance(s, Allocate) and parts:
            return parts[0]
        opened = isinstance(s, If) and s.else_ is None or not parts or any(p.open for p in parts)
        return _Flow(first, last, opened, flying, touched)

    def _nest(self, path: Path) -> _Flow:
        found = tuple(a for a in _distinct(path) if a.buffer not in self.of_thread)
        nest = _Nest(path, found)
        if is_thread_loop(path[-1]):  # else one thread runs it
            for n, a in enumerate(found):
                for b in found[n:]:
                    self._ask(a, b, _loops(path[:-1]), "threadIdx.", None)
        copied = self._copied(path[-1])
        flying = _Nest(path, tuple(a for a in found if a.write and a.buffer in copied))
        return _Flow((nest,), (nest,), True, (flying,) * bool(flying.accesses), (nest,))

    def _sequence(self, path: Path, s: Seq) -> _Flow:
        first: list[_Nest] = []
        last: list[_Nest] = []
        opened = True
        flying: list[_Nest] = []
        touched: list[_Nest] = []
        waits = False
        for c in s.stmts:
            part = self._flow((*path, c))
            self._meet(last, part.first, path, None)
            self._arrive(flying, part.touched, path, None, None)
            if opened:
                first += part.first
            last = [*last, *part.last] if part.open else list(part.last)
            if part.waits:  # what has arrived is the thread's that copied it: others find it after a barrier
                last += flying
                flying = []
                waits = True
            opened = opened and part.open
            flying += part.flying
            touched += part.touched
        return _Flow(tuple(first), tuple(last), opened, tuple(flying), tuple(touched), waits)

    def _meet(self, before: Sequence[_Nest], after: Sequence[_Nest], around: Path, carrier: For | None) -> None:
        """Pairs of accesses of nests between which there is no barrier, in one iteration of the loops `around` (and, of the
        loop `carrier`, in two)."""
        shared = _loops(around)
        for one in before:
            for two in after:
                for a in one.accesses:
                    for b in two.accesses:
                        self._ask(a, b, shared, "threadIdx.", carrier)

    def _arrive(
        self, flying: Sequence[_Nest], after: Sequence[_Nest], around: Path, carrier: For | None, pending: int | None
    ) -> None:
        """Accesses to what asynchronous copies may not have brought yet: after them in one iteration of the loops `around`,
        or, of the loop `carrier`, in one of the next `pending` iterations (None: in any)."""
        shared = _loops(around)
        for one in flying:
            for two in after:
                for a in one.accesses:
                    for b in two.accesses:
                        self._ask(a, b, shared, "", carrier, pending)

    def _copied(self, s: Stmt) -> set[Buffer]:
        """Buffers that a nest copies into asynchronously."""
        return {self.copies[c] for c in walk_stmt(s) if isinstance(c, For) and c in self.copies}

    def _pending(self, body: Stmt) -> int | None:
        """How many groups of copies may be on their way after an iteration, if each is one group and ends by waiting and a
        barrier."""
        while isinstance(body, Allocate):
            body = body.body
        stmts = body.stmts if isinstance(body, Seq) else ()
        at = next((n for n, c in enumerate(stmts) if is_commit(c)), None)
        if at is None or not is_barrier(stmts[-1]) or sum(map(is_commit, walk_stmt(body))) != 1:
            return None
        if any(self._copied(c) for c in stmts[at:]):  # they belong to the next iteration's group
            return None
        return waits_for(stmts[-2])

    # -- whether two accesses meet ---------------------------------------------------------------------------------
    def _ask(
        self, a: Access, b: Access, shared: Sequence[Expr], kind: str, carrier: For | None, pending: int | None = None
    ) -> None:
        """`kind`: the axes along which the two are apart; "": they may be one thread's, and `a` is a copy on its way."""
        if a.buffer is not b.buffer or not (a.write or b.write) or self.refuted is not None:
            return
        self.pairs += 1
        positions = [self._positions(access, kind) for access in (a, b)]
        anyone = kind == "threadIdx." and any(map(self._by_any_lane, (a, b)))

        def apart(sides: Sides) -> Expr:
            differ: Expr = const(not kind or anyone)
            for v, w in zip(*positions, strict=True):
                x, y = (const(0) if e is None else substitute(e, side) for e, side in zip((v, w), sides, strict=True))
                differ = or_(differ, ne(x, y))
            if carrier is None:
                return differ
            t, u = sides[0][carrier.var], sides[1][carrier.var]
            return and_(differ, and_(lt(t, u), le(u, t + pending)) if pending is not None else lt(t, u))

        found = conflict(a, b, shared, apart, sizes=self.sizes)
        if found is None:
            return
        told = f"{a.buffer.name}: {found.reason}" if isinstance(found, Unknown) else ""
        if not told and any(loads(e) for access in (a, b) for e in (*access.indices, *access.conditions)):
            told = f"which elements of {a.buffer.name} are touched depends on data"
        if told or not isinstance(found, Counterexample):
            self.doubt = self.doubt or told
            return
        self.refuted = self._told(found, on_its_way=not kind)

    def _positions(self, access: Access, kind: str) -> list[Expr | None]:
        """The variables that say which thread (or block) it is, along x, y, z; None: the first one."""
        bound = {
            self.axes[v]: v
            for v, _ in access.loops
            if v in self.axes and access.buffer not in self.combined.get(v, ())
        }
        found: list[Expr | None] = [bound.get(f"{kind}{d}") for d in DIMENSIONS]
        if kind == "threadIdx." and (call := self._warp(access)) is not None and found[0] is None:
            found[0] = call.lane(access.buffer)
        return found

    def _warp(self, access: Access) -> Call | None:
        """The instruction of a warp that makes an access."""
        return next((self.warps[v] for v, _ in access.loops if v in self.warps), None)

    def _by_any_lane(self, access: Access) -> bool:
        call = self._warp(access)
        return call is not None and not call.role(access.buffer)

    def _told(self, found: Counterexample, on_its_way: bool) -> Races:
        sides = []
        for access, values in zip(found.accesses, (found.first, found.second), strict=True):
            at: list[Place] = []
            for kind in ("blockIdx.", "threadIdx."):
                x, y, z = (0 if e is None else evaluate(e, values) for e in self._positions(access, kind))
                at.append((x, y, z))
            sides.append((access.verb, at[0], at[1]))
        (one, block, thread), (two, other_block, other_thread) = sides
        at_element = f"{found.buffer.name}[{', '.join(map(str, found.address))}]"
        if on_its_way:
            copied = f"an asynchronous copy of thread {thread} in block {block} to {at_element} may not have arrived"
            text = f"{copied} when thread {other_thread} {two} it"
        elif block == other_block:
            who = f"thread {thread} {one} and thread {other_thread} {two} {at_element}, both in block {block}"
            text = f"{who}, with no barrier between"
        else:
            text = f"block {block} {one} and block {other_block} {two} {at_element}; blocks of one launch run in any order"
        return Races("refuted", text, found.buffer, found.address, sides[0], sides[1], self.pairs)


def _launches(path: Sequence[Stmt]) -> Iterator[Path]:
    """The way to each launch of a grid's program."""
    s = path[-1]
    if not any(map(is_launch, walk_stmt(s))):
        yield tuple(path)
    else:
        for c in children(s):
            if not is_launch(c):
                yield from _launches((*path, c))


def _distinct(path: Path) -> list[Access]:
    """The accesses of a lowered statement, those that a loop around makes again and again once."""
    found: dict[tuple[object, ...], Access] = {}
    for a in every_access(path):
        found.setdefault((a.buffer, a.indices, a.write, a.loops, a.conditions, a.exact), a)
    return list(found.values())


def _loops(path: Path) -> list[Expr]:
    return [s.var for s in path if isinstance(s, For)]


def _has_barrier(s: Stmt) -> bool:
    return any(map(is_barrier, walk_stmt(s)))


def _allocated(s: Stmt, kind: str, inside: bool = False) -> set[Buffer]:
    """Buffers that are allocated in loops bound to an axis of a kind."""
    found = {s.buffer} if isinstance(s, Allocate) and inside else set()
    inside = inside or (isinstance(s, For) and s.kind.startswith(kind))
    return found.union(*(_allocated(c, kind, inside) for c in children(s)))


def _size_vars(func: PrimFunc) -> set[Expr]:
    return set(func.size_vars).union(*(free_vars(d) for b in func.buffers for d in b.shape))
