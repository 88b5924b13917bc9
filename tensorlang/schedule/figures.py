"""What a loop nest costs, counted from its text: arithmetic, working sets, traffic, vector lanes.

    for i in 512: for j in 512: for k in 512:            flops 2*512^3;   working set of `for k`: a row of x, a column of w
        y[i, j] = y[i, j] + x[i, k] * w[k, j]            and one y; of `for j`: a row of x, all of w, a row of y

* flops: each distinct floating-point operation of a store's value (`+ - * /`, negation, min, max, a call; a fused
  multiply-add is two; both arms of a select), as often as the store runs: guards are counted out, what is recomputed counts
  again.
* working set of a loop: bytes of the boxes that one run of it touches, one box per buffer, no larger than the buffer. Guards
  do not make a box smaller, so it may be larger than what is touched, never smaller.
* bytes moved: what passes between memory and a cache of `cache` bytes, each box once a run, read or written. A statement
  whose working set fits moves its boxes once. A loop that does not fit, around a body that does, moves in every iteration
  what the iteration before it did not touch. Any other loop moves what its body does, every time. Memory that is allocated
  inside does not move.
* lanes: the largest extent of a vectorized loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from tensorlang.errors import InputError
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr, const, lt, not_
from tensorlang.ir.stmt import Allocate, Block, Evaluate, For, If, PrimFunc, Stmt, Store
from tensorlang.ir.visitor import children, free_vars, loads, map_exprs, substitute, walk, walk_stmt
from tensorlang.symbolic.access import Access, accesses
from tensorlang.symbolic.bounds import const_bounds
from tensorlang.symbolic.integer_set import evaluate
from tensorlang.symbolic.region import Region, access_region, union_region

CACHE = 1 << 20  # bytes: a second-level cache as they are usual today
_FLOPS = {"add": 1, "sub": 1, "mul": 1, "div": 1, "neg": 1, "min": 1, "max": 1, "floordiv": 1, "floormod": 1}
_POINTS = 1 << 22  # of a guard's loops: more are not counted


@dataclass(frozen=True)
class Figures:
    """What a program costs; None where it cannot be told (what an opaque intrinsic does, a guard that depends on data).

    Attributes:
        flops: floating-point operations.
        bytes_moved: between memory and a cache of the size that was asked about.
        footprint: bytes of the boxes of all buffers.
        lanes: of the widest vectorized loop; 1 without one.
    """

    flops: int | None
    bytes_moved: int
    footprint: int
    lanes: int


@dataclass(frozen=True)
class Level:
    """One loop: how often it is run in all, how many iterations one run has at most, and what one run touches."""

    depth: int
    loop: str
    kind: str
    extent: int
    runs: int
    working_set: int


def figures_of(func: PrimFunc, sizes: Mapping[str, int] | None = None, cache: int = CACHE) -> tuple[Figures, list[Level]]:
    """The cost of `func`, and its loops in program order.

    Args:
        sizes: the values of symbolic sizes, by name.
        cache: its size in bytes.

    Raises:
        InputError: a size is missing.
    """
    counter = _Counter(func, sizes or {}, cache)
    body = counter.body
    levels = counter.levels(body, 0, 1)
    vectors = [s for s in walk_stmt(body) if isinstance(s, For) and s.kind == "vectorized"]
    lanes = max((counter.extent(f) for f in vectors), default=1)
    return Figures(counter.flops(body), counter.moved(body), counter.working_set(body), lanes), levels


@dataclass(frozen=True)
class _Where:
    """What surrounds a statement: loops, conditions, and the values of blocks' iteration variables."""

    loops: tuple[tuple[Expr, Expr], ...] = ()
    conditions: tuple[Expr, ...] = ()
    bindings: tuple[tuple[Expr, Expr], ...] = ()

    def of(self, e: Expr) -> Expr:
        return substitute(e, dict(self.bindings))

    def when(self, condition: Expr) -> _Where:
        return replace(self, conditions=(*self.conditions, *_conjuncts(self.of(condition))))


class _Counter:
    def __init__(self, func: PrimFunc, sizes: Mapping[str, int], cache: int):
        if missing := [v.name for v in func.size_vars if v.name not in sizes]:
            raise InputError(f"the figures of {func.name} depend on {', '.join(missing)}: give sizes={{{missing[0]!r}: ...}}")
        self.sizes = {v: const(sizes[v.name]) for v in func.size_vars}
        self.cache = cache
        self.body = map_exprs(func.body, lambda e: substitute(e, self.sizes)) if self.sizes else func.body
        self.accesses = accesses((self.body,))
        self.ranges: dict[Expr, Expr] = {}
        for s in walk_stmt(self.body):
            if isinstance(s, For):
                self.ranges[s.var] = s.extent
        self._regions: dict[int, dict[Buffer, Region]] = {}

    def extent(self, f: For) -> int:
        """The most iterations that one run of a loop has."""
        return self._bound(f.extent)

    def _bound(self, extent: Expr) -> int:
        high = const_bounds(extent, self.ranges)[1]
        if high is None:
            raise InputError(f"the figures depend on {extent}, which is known at run time only")
        return max(int(high), 0)

    # -- working sets ------------------------------------------------------------------------------------------------
    def regions(self, s: Stmt) -> dict[Buffer, Region]:
        """The box of each buffer that one run of `s` touches: lowest indices by the loops outside, constant extents."""
        if id(s) not in self._regions:
            inside = {id(x) for x in walk_stmt(s)}
            loops = {x.var for x in walk_stmt(s) if isinstance(x, For)}
            found: dict[Buffer, Region] = {}
            for a in self._accesses_in(s, inside):
                inner = {v: extent for v, extent in a.loops if v in loops}
                shape = [substitute(d, self.sizes) for d in a.buffer.shape]
                indices = tuple(substitute(i, self.sizes) for i in a.indices)
                region = access_region(indices, inner, shape, {v: e for v, e in a.loops if v not in inner})
                known = found.get(a.buffer)
                found[a.buffer] = region if known is None else union_region(known, region, self.ranges)
            self._regions[id(s)] = {b: self._bounded(b, r) for b, r in found.items()}
        return self._regions[id(s)]

    def working_set(self, s: Stmt) -> int:
        """Bytes of all boxes that one run of `s` touches."""
        return sum(_bytes(b, r) for b, r in self.regions(s).items())

    def _crossing(self, s: Stmt) -> dict[Buffer, Region]:
        """The boxes of memory that lives outside of `s` too."""
        private = {x.buffer for x in walk_stmt(s) if isinstance(x, Allocate)}
        return {b: r for b, r in self.regions(s).items() if b not in private}

    def _accesses_in(self, s: Stmt, inside: set[int]) -> list[Access]:
        if s is self.body:
            return self.accesses
        if isinstance(s, For):
            return [a for a in self.accesses if any(v is s.var for v, _ in a.loops)]
        return [a for a in self.accesses if a.block is not None and id(a.block) in inside]

    def _bounded(self, b: Buffer, region: Region) -> Region:
        """`region` with constant extents, no larger than the buffer."""
        out: Region = []
        for (low, extent), d in zip(region, b.shape, strict=True):
            high, size = const_bounds(extent, self.ranges)[1], const_bounds(substitute(d, self.sizes), self.ranges)[1]
            known = [int(n) for n in (high, size) if n is not None]
            if not known:
                raise InputError(f"the extent {extent} of {b.name} is known at run time only")
            out.append((low, const(max(min(known), 0))))
        return out

    def levels(self, s: Stmt, depth: int, runs: int) -> list[Level]:
        if not isinstance(s, For):
            return [level for c in children(s) for level in self.levels(c, depth, runs)]
        here = Level(depth, s.var.name, s.kind, self.extent(s), runs, self.working_set(s))
        return [here, *self.levels(s.body, depth + 1, runs * here.extent)]

    def moved(self, s: Stmt) -> int:
        if isinstance(s, Block) or self.working_set(s) <= self.cache:
            return sum(_bytes(b, r) for b, r in self._crossing(s).items())
        if not isinstance(s, For):
            return sum(self.moved(c) for c in children(s))
        n = self.extent(s)
        if self.working_set(s.body) <= self.cache:
            return sum(self._streamed(b, r, s.var, n) for b, r in self._crossing(s.body).items())
        return n * self.moved(s.body)

    def _streamed(self, b: Buffer, region: Region, v: Expr, n: int) -> int:
        """Bytes of the boxes of `n` iterations of loop `v`, each without what the one before it touched."""
        if n == 0:
            return 0
        extents = [int(extent.value) for _, extent in region]
        at = {u: np.zeros(1, np.int64) for u in self.ranges} | {v: np.arange(n)}
        shared = np.ones(n - 1, np.int64)
        for (low, _), extent in zip(region, extents, strict=True):
            lows = np.broadcast_to(_on_arrays(low, at), (n,))
            shared = shared * np.maximum(0, extent - np.abs(np.diff(lows)))
        return (n * prod(extents) - int(shared.sum())) * _itemsize(b)

    # -- arithmetic --------------------------------------------------------------------------------------------------
    def flops(self, s: Stmt, where: _Where | None = None) -> int | None:
        where = where or _Where()
        if isinstance(s, Store):
            ops = _operations(s.value)
            return 0 if not ops else _times(ops, self._points(where))
        if isinstance(s, Evaluate):
            return None
        if isinstance(s, For):
            return self.flops(s.body, replace(where, loops=(*where.loops, (s.var, where.of(s.extent)))))
        if isinstance(s, Block):
            bound = tuple((it.var, where.of(it.binding)) for it in s.iters)
            inside = where.when(s.predicate)
            return self.flops(s.body, replace(inside, bindings=(*inside.bindings, *bound)))
        if isinstance(s, If):
            arms = [(s.then, where.when(s.cond))] + ([(s.else_, where.when(not_(s.cond)))] if s.else_ else [])
            return _sum(self.flops(arm, at) for arm, at in arms)
        if not children(s):
            return None  # a function of the host
        return _sum(self.flops(c, where) for c in children(s))

    def _points(self, where: _Where) -> int | None:
        """How many iterations of the loops there are under the conditions: counted, one group of loops that conditions
        connect after the other."""
        extents: dict[Expr, int] = {}
        conditions = [c for c in where.conditions if not (c.op == "const" and c.value)]
        for v, extent in where.loops:
            extents[v] = self._bound(extent)
            if extent.op != "const":
                conditions.append(lt(v, extent))
        if any(loads(c) for c in conditions):
            return None
        total, left = 1, dict(extents)
        while left:
            group = {next(iter(left))}
            while True:
                linked = [c for c in conditions if free_vars(c) & group]
                grown = group.union(*(free_vars(c) & extents.keys() for c in linked))
                if grown == group:
                    break
                group = grown
            counted = self._count([v for v in extents if v in group], extents, linked)
            if counted is None:
                return None
            total *= counted
            left = {v: n for v, n in left.items() if v not in group}
        unlinked = [c for c in conditions if not free_vars(c) & extents.keys()]
        return total if all(evaluate(c, {}) for c in unlinked) else 0

    @staticmethod
    def _count(group: Sequence[Expr], extents: Mapping[Expr, int], conditions: Sequence[Expr]) -> int | None:
        shape = [extents[v] for v in group]
        if not conditions:
            return prod(shape)
        if prod(shape) > _POINTS:
            return None
        values: dict[Expr, Any] = dict(zip(group, np.indices(shape, sparse=True), strict=True))
        holds = np.ones(shape, bool)
        for c in conditions:
            holds &= _on_arrays(c, values)
        return int(holds.sum())


def _on_arrays(e: Expr, values: Mapping[Expr, Any]) -> Any:
    """An integer or boolean expression at many points at once."""
    known: dict[Expr, Any] = {}
    for n in walk(e):
        known[n] = n.value if n.op == "const" else values[n] if n.op == "var" else _NUMPY[n.op](*(known[a] for a in n.args))
    return known[e]


_NUMPY: dict[str, Any] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "floordiv": np.floor_divide, "floormod": np.mod,
    "min": np.minimum, "max": np.maximum, "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal,
    "and": np.logical_and, "or": np.logical_or, "not": np.logical_not, "select": np.where, "cast": lambda x: x,
    "neg": np.negative,
}  # fmt: skip


def _itemsize(b: Buffer) -> int:
    return int(b.dtype.numpy.itemsize)


def _bytes(b: Buffer, region: Region) -> int:
    return prod(int(extent.value) for _, extent in region) * _itemsize(b)


def _operations(value: Expr) -> int:
    total = 0
    for n in walk(value):
        if n.dtype.is_float:
            total += (2 if n.value == "fma" else 1) if n.op == "call" else _FLOPS.get(n.op, 0)
    return total


def _conjuncts(e: Expr) -> list[Expr]:
    return [p for a in e.args for p in _conjuncts(a)] if e.op == "and" else [e]


def _times(a: int, b: int | None) -> int | None:
    return None if b is None else a * b


def _sum(items: Iterable[int | None]) -> int | None:
    total = 0
    for n in items:
        if n is None:
            return None
        total += n
    return total
