"""Data races among the threads of a grid, decided with integer sets before anything runs.

    for t in 64 (threadIdx.x): s[t] = x[t]           thread 0 writes s[0], thread 63 reads it, and no barrier stands between:
    for t in 64 (threadIdx.x): y[t] = s[63 - t]      refuted. With a barrier in between: proved.

Two accesses can come in either order on a device if they are of different threads of one block and some path of the program
leads from one to the other without a barrier; or if they are of different blocks in one launch. Where two such accesses can
touch one element, one writing, the program has a race. `ir.races` finds races of one run; this says that no run has any.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tensorlang.codegen.barriers import binds_threads, is_barrier, is_launch, is_thread_loop
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr, and_, const, lt, ne, or_
from tensorlang.ir.reduction import CROSS_THREAD
from tensorlang.ir.stmt import Allocate, For, If, PrimFunc, Seq, Stmt, Store
from tensorlang.ir.visitor import children, free_vars, loads, walk_stmt
from tensorlang.symbolic.access import Access, every_access
from tensorlang.symbolic.conflict import Counterexample, Sides, conflict
from tensorlang.symbolic.integer_set import Unknown
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
    """A statement of a block: nests that its beginning reaches without a barrier, nests that reach its end so, and whether
    its end can be reached from its beginning so."""

    first: tuple[_Nest, ...]
    last: tuple[_Nest, ...]
    open: bool


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
        self.of_thread = _allocated(func.body, "threadIdx.")
        self.of_block = _allocated(func.body, "blockIdx.")
        self.sizes = {v: Interval(0, None) for v in _size_vars(func)}
        self.pairs = 0
        self.doubt = ""
        self.refuted: Races | None = None

    def launch(self, path: Path) -> None:
        """Everything that one launch runs."""
        if not any(v for s in walk_stmt(path[-1]) if isinstance(s, For) and (v := self.axes.get(s.var))):
            return  # one thread
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
        if is_thread_loop(s) or not binds_threads(s) and not _has_barrier(s):
            return self._nest(path)
        if isinstance(s, Seq):
            return self._sequence(path, s)
        parts = [self._flow((*path, c)) for c in children(s)]
        if isinstance(s, For):
            body = parts[0]
            if not s.kind.startswith("blockIdx."):  # what ends an iteration meets what begins a later one
                self._meet(body.last, body.first, path[:-1], s)
            return _Flow(body.first, body.last, True)
        first = tuple(n for p in parts for n in p.first)
        last = tuple(n for p in parts for n in p.last)
        return _Flow(first, last, isinstance(s, If) and s.else_ is None or not parts or any(p.open for p in parts))

    def _nest(self, path: Path) -> _Flow:
        found = tuple(a for a in _distinct(path) if a.buffer not in self.of_thread)
        nest = _Nest(path, found)
        if is_thread_loop(path[-1]):  # else one thread runs it
            for n, a in enumerate(found):
                for b in found[n:]:
                    self._ask(a, b, _loops(path[:-1]), "threadIdx.", None)
        return _Flow((nest,), (nest,), True)

    def _sequence(self, path: Path, s: Seq) -> _Flow:
        first: list[_Nest] = []
        last: list[_Nest] = []
        opened = True
        for c in s.stmts:
            part = self._flow((*path, c))
            self._meet(last, part.first, path, None)
            if opened:
                first += part.first
            last = [*last, *part.last] if part.open else list(part.last)
            opened = opened and part.open
        return _Flow(tuple(first), tuple(last), opened)

    def _meet(self, before: Sequence[_Nest], after: Sequence[_Nest], around: Path, carrier: For | None) -> None:
        """Pairs of accesses of nests between which there is no barrier, in one iteration of the loops `around` (and, of the
        loop `carrier`, in two)."""
        shared = _loops(around)
        for one in before:
            for two in after:
                for a in one.accesses:
                    for b in two.accesses:
                        self._ask(a, b, shared, "threadIdx.", carrier)

    # -- whether two accesses meet ---------------------------------------------------------------------------------
    def _ask(self, a: Access, b: Access, shared: Sequence[Expr], kind: str, carrier: For | None) -> None:
        if a.buffer is not b.buffer or not (a.write or b.write) or self.refuted is not None:
            return
        self.pairs += 1
        positions = [self._positions(access, kind) for access in (a, b)]

        def apart(sides: Sides) -> Expr:
            differ: Expr = const(False)
            for v, w in zip(*positions, strict=True):
                differ = or_(differ, ne(const(0) if v is None else sides[0][v], const(0) if w is None else sides[1][w]))
            return differ if carrier is None else and_(differ, lt(sides[0][carrier.var], sides[1][carrier.var]))

        found = conflict(a, b, shared, apart, sizes=self.sizes)
        if found is None:
            return
        told = f"{a.buffer.name}: {found.reason}" if isinstance(found, Unknown) else ""
        if not told and any(loads(e) for access in (a, b) for e in (*access.indices, *access.conditions)):
            told = f"which elements of {a.buffer.name} are touched depends on data"
        if told or not isinstance(found, Counterexample):
            self.doubt = self.doubt or told
            return
        self.refuted = self._told(found)

    def _positions(self, access: Access, kind: str) -> list[Expr | None]:
        """The variables that say which thread (or block) it is, along x, y, z; None: the first one."""
        bound = {
            self.axes[v]: v
            for v, _ in access.loops
            if v in self.axes and access.buffer not in self.combined.get(v, ())
        }
        return [bound.get(f"{kind}{d}") for d in DIMENSIONS]

    def _told(self, found: Counterexample) -> Races:
        sides = []
        for access, values in zip(found.accesses, (found.first, found.second), strict=True):
            at: list[Place] = []
            for kind in ("blockIdx.", "threadIdx."):
                x, y, z = (values.get(v, 0) if v is not None else 0 for v in self._positions(access, kind))
                at.append((x, y, z))
            sides.append((access.verb, at[0], at[1]))
        (one, block, thread), (two, other_block, other_thread) = sides
        at_element = f"{found.buffer.name}[{', '.join(map(str, found.address))}]"
        if block == other_block:
            who = f"thread {thread} {one} and thread {other_thread} {two} {at_element}, both in block {block}"
            text = f"{who}, with no barrier between"
        else:
            text = f"block {block} {one} and block {other_block} {two} {at_element}; blocks of one launch run in any order"
        return Races("refuted", text, found.buffer, found.address, sides[0], sides[1], self.pairs)


def _launches(path: Sequence[Stmt]) -> Iterator[Path]:
    """The way to each launch of a grid's program."""
    s = path[-1]
    if isinstance(s, Seq) and any(map(is_launch, walk_stmt(s))):
        for c in s.stmts:
            if not is_launch(c):
                yield from _launches((*path, c))
    elif isinstance(s, Allocate):
        yield from _launches((*path, s.body))
    else:
        yield tuple(path)


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
