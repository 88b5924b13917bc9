"""Data races among the threads of a grid, found by running its program in the interpreter.

    for t in 64 (threadIdx.x): s[t] = x[t]           thread (0, 0, 0) writes s[0] and thread (63, 0, 0) reads it,
    for t in 64 (threadIdx.x): y[t] = s[63 - t]      with no barrier between

Threads run one after the other, from barrier to barrier, which is one of the orders that a device may take. Two accesses could
come in another order on a device if they are of different threads of one block with no barrier between, or of different blocks
in one launch. Where one of two such accesses to an element is a write, the program has a race: what it computes is an accident.
An asynchronous copy (`async_copy`) has not arrived before its thread waits for the group that it belongs to; who touches what
it brings before that, or in another thread before the barrier after it, has a race with it.
Tiles that are bound to tensor intrinsics are not judged here: which thread of a warp has what is the instruction's affair.
What a run does not reach is not judged; all of a program whose control flow does not depend on its data is reached.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tensorlang.errors import InputError, TensorlangError
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr
from tensorlang.ir.interp import run
from tensorlang.ir.intrinsics import ASYNC_COPY, COMMIT, WAIT
from tensorlang.ir.reduction import CROSS_THREAD
from tensorlang.ir.stmt import Allocate, For, PrimFunc, Stmt, Store
from tensorlang.ir.tensor_intrin import RESET, TENSORIZED
from tensorlang.ir.visitor import children, walk_stmt

Place = tuple[int, int, int]


class RaceError(TensorlangError):
    """Two threads touch one element, one writes, and nothing orders them.

    Attributes:
        buffer, index: the element.
        first, second: of each access: "read" or "write", block and thread along x, y, z.
    """

    def __init__(
        self, func: PrimFunc, buffer: Buffer, index: tuple[int, ...], first: tuple[str, Place, Place],
        second: tuple[str, Place, Place],
    ):  # fmt: skip
        self.buffer, self.index, self.first, self.second = buffer, index, first, second
        at = f"{buffer.name}[{', '.join(map(str, index))}]"
        (one, block, thread), (two, other_block, other_thread) = first, second
        if first[1:] == second[1:]:
            where = f"thread {thread} {_VERBS[two]} {at}, to which it copies asynchronously"
            why = "it has not waited for that"
        elif block == other_block:
            where = f"thread {thread} {_VERBS[one]} and thread {other_thread} {_VERBS[two]} {at}, both in block {block}"
            why = "no barrier stands between"
        else:
            where = f"block {block} {_VERBS[one]} and block {other_block} {_VERBS[two]} {at}"
            why = "blocks of one launch run in any order"
        super().__init__(f"{func.name} has a race: {where}; {why}")


_VERBS = {"read": "reads", "write": "writes"}


def check_races(func: PrimFunc, args: Sequence[np.ndarray | int]) -> None:
    """Run a program of a grid (see `codegen.barriers.grid_program`) and look for races.

    Args:
        args: arrays, the outputs written in place, and sizes, as `interp.run` takes them.

    Raises:
        RaceError: two threads race; the message names both, and the element.
        ExecutionError, InputError: as `interp.run`.
    """
    watch = _Watch(func)
    run(func, args, on_access=watch.access, on_barrier=watch.barrier)


class _Watch:
    """Who touched each element since when."""

    def __init__(self, func: PrimFunc):
        self.func = func
        self.axes = _axes(func.body)
        self.combined = _combined(func.body)
        self.in_block, self.in_thread = _allocated(func.body, "blockIdx."), _allocated(func.body, "threadIdx.")
        self.copying = {
            s.var: t.buffer
            for s in walk_stmt(func.body) if isinstance(s, For) and s.annotations.get(ASYNC_COPY)
            for t in walk_stmt(s) if isinstance(t, Store) and t.buffer not in func.buffers
        }  # fmt: skip
        self.tiles = {
            s.var for s in walk_stmt(func.body) if isinstance(s, For) and not {TENSORIZED, RESET}.isdisjoint(s.annotations)
        }
        self.epoch = self.groups = 0
        self.flying: dict[tuple[Any, ...], tuple[int, tuple[str, Place, Place]]] = {}  # by element: group, and who copies
        # By element: the accesses that no barrier has ordered yet: kind, block, thread, and the barriers passed so far.
        self.held: dict[tuple[Any, ...], list[tuple[str, Place, Place, int]]] = {}

    def barrier(self, kind: str) -> None:
        if kind == COMMIT:
            self.groups += 1
            return
        if kind.startswith(WAIT):
            arrived = [k for k, (group, _) in self.flying.items() if group < self.groups - int(kind.split()[1])]
            for key in arrived:  # written now: others find it after the next barrier
                _, me = self.flying.pop(key)
                self.held.setdefault(key, []).append((*me, self.epoch))
            return
        self.epoch += 1
        if kind == "launch":
            self.held.clear()
            self.flying.clear()

    def access(self, kind: str, buffer: Buffer, index: tuple[int, ...], env: Mapping[Expr, int]) -> None:
        if buffer in self.in_thread or not self.tiles.isdisjoint(env):
            return
        block, thread = [0, 0, 0], [0, 0, 0]
        for v, n in env.items():
            if self.combined.get(v) is buffer:
                continue  # the threads combine their values in registers, and the first one stores
            if (axis := self.axes.get(v)) is not None:
                (block if axis.startswith("blockIdx.") else thread)["xyz".index(axis[-1])] = n
        me = (kind, _place(block), _place(thread), self.epoch)
        key = (buffer, index, me[1] if buffer in self.in_block else None)
        if key in self.flying:
            raise RaceError(self.func, buffer, index, self.flying[key][1], me[:3])
        if kind == "write" and any(self.copying.get(v) is buffer for v in env):
            self.flying[key] = (self.groups, me[:3])
        held = self.held.setdefault(key, [])
        for other in held:
            ordered = other[1] == me[1] and (other[2] == me[2] or other[3] < me[3])
            if "write" in (kind, other[0]) and not ordered:
                raise RaceError(self.func, buffer, index, other[:3], me[:3])
        if me not in held:
            # Earlier accesses of this block are ordered before what follows a barrier; other blocks' never are.
            held.append(me)


def _place(at: list[int]) -> Place:
    return (at[0], at[1], at[2])


def _axes(body: Stmt) -> dict[Expr, str]:
    """The axis of each variable of a loop over blocks or threads."""
    kinds: dict[Expr, str] = {}
    for s in walk_stmt(body):
        if isinstance(s, For) and kinds.setdefault(s.var, s.kind) != s.kind:
            raise InputError(f"loops over {s.var.name} are bound to {kinds[s.var]} here and {s.kind} there; rename one of them")
    return {v: kind for v, kind in kinds.items() if kind.startswith(("blockIdx.", "threadIdx."))}


def _combined(body: Stmt) -> dict[Expr, Buffer]:
    """Loops whose threads combine their values: by variable, the buffer that the result goes to."""
    return {
        s.var: t.buffer
        for s in walk_stmt(body) if isinstance(s, For) and CROSS_THREAD in s.annotations
        for t in walk_stmt(s) if isinstance(t, Store)
    }  # fmt: skip


def _allocated(s: Stmt, kind: str, inside: bool = False) -> set[Buffer]:
    """Buffers that are allocated in loops bound to an axis of a kind."""
    found = {s.buffer} if isinstance(s, Allocate) and inside else set()
    inside = inside or (isinstance(s, For) and s.kind.startswith(kind))
    return found.union(*(_allocated(c, kind, inside) for c in children(s)))
