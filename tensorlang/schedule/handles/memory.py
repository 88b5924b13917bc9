"""The primitives of memory: in which order, and where, the elements of a stage are stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tensorlang.errors import ScheduleError
from tensorlang.ir.expr import Expr
from tensorlang.ir.stmt import PrimFunc
from tensorlang.ir.tree import block_path
from tensorlang.ir.visitor import free_vars, substitute
from tensorlang.schedule import layout, loops, rolling
from tensorlang.schedule.coverage import check_written
from tensorlang.schedule.handles.base import StageHandle
from tensorlang.schedule.handles.placement import complete
from tensorlang.schedule.place import Placed
from tensorlang.schedule.state import Loop


class MemoryPrimitives(StageHandle):
    def transform_layout(self, index_map: Callable[..., Any]) -> None:
        """Store this stage's buffer in another order, possibly split and padded.

            for k: for j: w_p[k, j] = w[k, j]         w_p.transform_layout(lambda k, j: (j // 48, k, j % 48))
        ->  for i0: for i1: for i2: w_p[i0, i1, i2] = w[i1, i0 * 48 + i2]

        The stage is made again over the new dimensions (the loops that it had are gone; new ones are its axes), inside a
        loop over the part that is needed there. Padding holds zeros.

        Args:
            index_map: new indices from old ones; each is an old index `v`, or `v // c` and `v % c` as a pair.

        Legal if the stage is neither a reduction nor an output, and nothing is computed in its loops.
        """
        index_map = layout.IndexMap.of(index_map, len(self._schedule.block(self).iters))
        placed: list[Placed] = []

        def run(func: PrimFunc) -> tuple[PrimFunc, list[Expr]]:
            placed.append(layout.transform_layout(func, self.name, index_map))
            self._schedule._move(placed[0].func, placed[0].axes)
            return placed[0].func, []

        self._apply("transform_layout", (index_map,), {}, run, after=lambda func: complete(func, placed[0]))

    def set_scope(self, scope: str) -> None:
        """Keep this stage's buffer in another kind of memory.

        y = alloc(f32[8])  ->  y = alloc(f32[8], scope="local")

        Args:
            scope: "global", "local" (registers or stack, if it is small and private to an iteration), "shared", "packed".

        Legal if the buffer is no parameter: that lives where the caller put it.
        """
        self._apply("set_scope", (scope,), {}, lambda func: (layout.set_scope(func, self.name, scope), []))

    def storage_align(self, axis: int, factor: int, offset: int = 0) -> None:
        """Pad the rows of this stage's buffer: neighbours along `axis` lie `offset` elements apart, modulo `factor`.

        y = alloc(f32[8, 30])  ->  y = alloc(f32[8, 30], align=((0, 32, 0),))       y.storage_align(0, 32): rows of 32

        So rows begin on cache lines (a factor of 16 for f32), or on different banks and cache sets (an odd offset). The
        shape stays, and so does every index; memory grows when the program is lowered.

        Args:
            axis: a dimension of the buffer, but for the last one, whose elements are neighbours.
            factor, offset: in elements; 0 <= offset < factor.

        Legal if the buffer is no parameter.
        """
        self._apply(
            "storage_align",
            (axis, factor, offset),
            {},
            lambda func: (layout.storage_align(func, self.name, axis, factor, offset), []),
        )

    def rolling_buffer(self, loop: Loop | None = None) -> None:
        """Keep what this stage computed for the iteration before, in a circular buffer: a stencil computes each row once.

            for i: y = alloc(...); for r in 3: y[i + r] = f(x[i + r]); out[i] = y[i] + y[i + 1] + y[i + 2]
        ->  y = alloc(f32[3])
            for i:
                for r in 3: if i == 0 or r >= 2: y[(i + r) % 3] = f(x[i + r])
                out[i] = y[i % 3] + y[(i + 1) % 3] + y[(i + 2) % 3]

        Afterwards this stage stays where it is, and the iterations of the loop are in order: `parallel` refuses them.

        Args:
            loop: the loop that this stage is computed at, along which it rolls (that one by default).

        Legal if the loop is serial and what its iterations read is a window of constant size that moves forward by a constant
        smaller than that, along one dimension, and does not move along the others.
        """

        def run(func: PrimFunc) -> tuple[PrimFunc, list[Expr]]:
            along = None if loop is None else self._schedule._for(loop, "rolling_buffer")
            return rolling.rolling_buffer(func, self.name, along), []

        self._apply("rolling_buffer", (loop,) if loop is not None else (), {}, run)

    def prefetch(
        self, source: str | StageHandle, loop: Loop, ahead: int = 1, *, among: int = 1, over: Loop | None = None
    ) -> None:
        """Ask the memory, in each iteration of `loop`, for what the one `ahead` iterations later reads of `source`.

            for i in 64: for k in 64: y[i] += x[i, k]                                y.prefetch("x", i, 2)
        ->  for i in range(64, prefetch=(("x", 2),)): for k in 64: y[i] += x[i, k]

        Lowered for a CPU, that is one instruction per cache line, before the iteration's own work. Worth its while where rows
        are too short, or too far apart, for the hardware to see the pattern. Other targets leave it out.

        With `over`, a loop within, the lines come a few at a time, in its iterations, so that memory is never asked for more
        than it can give; and where `among` consecutive iterations of `loop` read the same (all tiles of rows the same panel
        of columns), each of them asks for its share:

            for i in 64: for k in 64: y[i] += w[i // 8, k]                 y.prefetch("w", i, 8, among=8, over=k)

        Args:
            source: what is read: a buffer's name, or the stage that computes it.
            loop: a loop around this stage.
            ahead: iterations, at least 1.
            among: how many iterations of `loop` read the same part of `source`, at least 1.
            over: a loop of this stage inside `loop`.

        Legality: always, for it changes no value. Refused where nothing in the loop reads `source`, where each iteration has
        its own `source`, or where the iterations are lanes of a vector.
        """
        name = source if isinstance(source, str) else source.name

        def run(func: PrimFunc) -> tuple[PrimFunc, list[Expr]]:
            target = self._schedule._for(loop, "prefetch")
            if not any(s is target for s in block_path(func.body, self.name)):
                raise ScheduleError(f"prefetch: {loop.name} is not a loop of stage {self.name}")
            along = None if over is None else self._schedule._for(over, "prefetch")
            return loops.prefetch(func, target, name, ahead, among, along), []

        shared = {} if over is None and among == 1 else {"among": among, "over": over}
        self._apply("prefetch", (name, loop, ahead), shared, run)

    def set_store_predicate(self, condition: Callable[..., Any] | Expr, *around: Loop) -> None:
        """Compute and store this stage only in the iterations where `condition` holds.

            for tx in 8: for i: y[i] = f(x[i])        y.set_store_predicate(lambda tx: tx.equal(0), tx)
        ->  for tx in 8: for i: if tx == 0: y[i] = f(x[i])

        Where the condition is one on the reduction loops (classic te: threads share a reduction, one of them stores it),
        nothing changes: each element holds its result once, whichever iteration stores it.

        Args:
            condition: of the loops given, as a function or as an expression of `loop.var`.
            around: loops around this stage; not needed with an expression.

        Legal if all that is read of this stage is written all the same, and every element of an output (proved after the
        step); on reduction loops, if some iteration fulfils the condition.
        """
        if isinstance(condition, Expr):
            names = {f.var: f for f in self.loops}
            around = tuple(names[v] for v in names if v in free_vars(condition))
            strange = [v.name for v in free_vars(condition) if v not in names and v not in self._schedule.func.size_vars]
            if strange:
                raise ScheduleError(f"set_store_predicate: {strange[0]} is no loop around {self.name}")
            own = [f.var for f in around]
            given = layout.Predicate.of(lambda *v: substitute(condition, dict(zip(own, v, strict=True))), len(own))
        else:
            given = layout.Predicate.of(condition, len(around))

        def run(func: PrimFunc) -> tuple[PrimFunc, list[Expr]]:
            targets = [self._schedule._for(f, "set_store_predicate").var for f in around]
            return layout.set_store_predicate(func, self.name, given(*targets)), []

        self._apply("set_store_predicate", (given, *around), {}, run, after=lambda func: check_written(func, self.name))
