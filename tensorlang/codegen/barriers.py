"""Where the threads of a block wait for each other.

    for t in 64 (threadIdx.x): s[t] = x[t]              for t in 64 (threadIdx.x): s[t] = x[t]
    for t in 64 (threadIdx.x): y[t] = s[63 - t]   ->    barrier()
                                                        for t in 64 (threadIdx.x): y[t] = s[63 - t]

A barrier stands between two nests of a block if one writes a buffer that the other touches, and at the end of a loop around
such nests, whose next iteration follows. Within a nest no two threads touch one element with one of them writing: that was
proved when its loops were bound. Hence no two threads ever do without a barrier between; `ir.races` checks that by running.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace

from tensorlang.ir.buffer import Buffer
from tensorlang.ir.dtype import i32
from tensorlang.ir.expr import call
from tensorlang.ir.intrinsics import BARRIER, LAUNCH
from tensorlang.ir.stmt import Allocate, Evaluate, For, If, MultiStore, PrimFunc, Seq, Stmt, Store
from tensorlang.ir.visitor import loads, own_exprs, walk_stmt

_NONE: Set[Buffer] = frozenset()


def place_barriers(s: Stmt, private: Set[Buffer] = _NONE) -> Stmt:
    """One launch with its barriers.

    Args:
        private: buffers of which no two threads touch one element.
    """
    if not binds_threads(s) or is_thread_loop(s):
        return s
    if isinstance(s, Seq):
        return Seq(_sequence(s, private))
    if isinstance(s, Allocate):
        return replace(s, body=place_barriers(s.body, private))
    if isinstance(s, For):
        body = place_barriers(s.body, private)
        if s.kind.startswith("blockIdx."):
            return replace(s, body=body)
        stmts = body.stmts if isinstance(body, Seq) else (body,)
        return replace(s, body=Seq((*stmts, _barrier())))
    if isinstance(s, If):
        other = None if s.else_ is None else place_barriers(s.else_, private)
        return replace(s, then=place_barriers(s.then, private), else_=other)
    return s


def _sequence(s: Seq, private: Set[Buffer]) -> tuple[Stmt, ...]:
    made: list[Stmt] = []
    open_writes: set[Buffer] = set()
    open_reads: set[Buffer] = set()
    for c in s.stmts:
        writes, reads = written(c) - private, read(c) - private
        if writes & (open_reads | open_writes) or reads & open_writes:
            made.append(_barrier())
            open_writes, open_reads = set(), set()
        open_writes |= writes
        open_reads |= reads
        made.append(place_barriers(c, private))
    return tuple(made)


def grid_program(func: PrimFunc, private: Set[Buffer] = _NONE, one_block: bool = False) -> PrimFunc:
    """A lowered program as a grid runs it: barriers within each nest, and between nests the end of a launch.

    Args:
        one_block: the whole program is one launch.
    """

    def launches(s: Stmt) -> Stmt:
        if isinstance(s, Allocate) and not one_block:
            return replace(s, body=launches(s.body))
        if not isinstance(s, Seq) or one_block:
            return place_barriers(s, private)
        made: list[Stmt] = []
        for c in s.stmts:
            made += [launches(c), Evaluate(call(LAUNCH, dtype=i32))]
        return Seq(tuple(made[:-1]))

    return replace(func, body=launches(func.body))


def is_barrier(s: Stmt) -> bool:
    """Whether a statement is a barrier among the threads of a block."""
    return isinstance(s, Evaluate) and s.expr.op == "call" and s.expr.value == BARRIER


def is_launch(s: Stmt) -> bool:
    """Whether a statement is the end of a launch: all blocks are through before the next begin."""
    return isinstance(s, Evaluate) and s.expr.op == "call" and s.expr.value == LAUNCH


def is_thread_loop(s: Stmt) -> bool:
    return isinstance(s, For) and s.kind.startswith("threadIdx.")


def binds_threads(s: Stmt) -> bool:
    """Whether there is a loop over threads in a statement."""
    return any(is_thread_loop(c) for c in walk_stmt(s))


def written(s: Stmt) -> set[Buffer]:
    """What a statement stores to."""
    stores = [t for c in walk_stmt(s) for t in (c.stores if isinstance(c, MultiStore) else (c,)) if isinstance(t, Store)]
    return {t.buffer for t in stores}


def read(s: Stmt) -> set[Buffer]:
    """What a statement loads from."""
    return {a.value for c in walk_stmt(s) for e in own_exprs(c) for a in loads(e)}


def _barrier() -> Evaluate:
    return Evaluate(call(BARRIER, dtype=i32))
