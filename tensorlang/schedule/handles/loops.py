"""The primitives of loops: how the iterations of a stage are cut, ordered and run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tensorlang.errors import ScheduleError
from tensorlang.ir.expr import Expr
from tensorlang.ir.stmt import For, PrimFunc
from tensorlang.ir.tree import find_block
from tensorlang.schedule import legality, loops, partition
from tensorlang.schedule.handles.base import StageHandle
from tensorlang.schedule.legality import Verdict
from tensorlang.schedule.state import Loop


class LoopPrimitives(StageHandle):
    def split(
        self,
        loop: Loop,
        factor: int | Expr | None = None,
        nparts: int | Expr | None = None,
        *,
        factors: Sequence[int | Expr | None] | None = None,
        tail: str = "guard",
    ) -> tuple[Loop, ...]:
        """Split `loop` into loops that run over its iterations tile by tile; returns them, outermost first.

            for i in 10: y[i] = f(i)                                    y.split(i, 4)
        ->  for i_o in 3: for i_i in 4: if i_o*4 + i_i < 10: y[i_o*4 + i_i] = f(i_o*4 + i_i)

        Args:
            factor: iterations of the inner of two loops.
            nparts: iterations of the outer of two loops, instead.
            factors: iterations of two or more loops, instead; one may be None: as many as it takes. Their product must
                cover the loop.
            tail: where the tiles make more points than there are: `"guard"` skips those beyond the end;
                `"shift_inwards"` moves the last tile back to the end and computes some points twice.

        Legality: always; with `tail="shift_inwards"`, no reduction may count a point twice, and the loop must be known to be
        at least one tile long.
        """
        given = {"factor": factor, "nparts": nparts, "factors": factors}

        def made(func: PrimFunc, checked: bool) -> tuple[PrimFunc, list[Expr]]:
            if tail not in loops.TAILS:
                raise ScheduleError(f"split: tail is one of {', '.join(loops.TAILS)}, not {tail!r}")
            if sum(v is not None for v in given.values()) != 1:
                raise ScheduleError("split: give one of factor, nparts and factors")
            target = self._schedule._for(loop, "split")
            count: Expr | None = None
            if factors is not None:
                count, sizes = loops.split_sizes(target.extent, factors)
            elif nparts is not None:
                count = loops.as_factor(nparts, "split")
                sizes = [loops.simplify((target.extent + count - 1) // count)]
            else:
                sizes = [loops.as_factor(factor, "split")]
            return loops.split(func, target, sizes, tail, count, checked)

        def check(func: PrimFunc) -> Verdict:
            if tail == "guard":
                return legality.PROVED
            size = factor if isinstance(factor, int) else None
            target = self._schedule._for(loop, "split")
            return legality.check_shift_inwards(func, target, size, lambda: made(func, False))

        args = (loop, *([factor] if factor is not None else []))
        kwargs: dict[str, Any] = {"nparts": nparts} if nparts is not None else {}
        if factors is not None:
            kwargs["factors"] = list(factors)
        if tail != "guard":
            kwargs["tail"] = tail
        return self._apply("split", args, kwargs, lambda func: made(func, True), check)

    def tile(self, x: Loop, y: Loop, x_factor: int | Expr, y_factor: int | Expr) -> tuple[Loop, Loop, Loop, Loop]:
        """Split both loops and order them x_o, y_o, x_i, y_i. Returns those four.

            for i in 64: for j in 64: s(i, j)                           y.tile(i, j, 8, 16)
        ->  for i_o in 8: for j_o in 4: for i_i in 8: for j_i in 16: s(i_o*8 + i_i, j_o*16 + j_i)

        Legality: that of the splits and of the reordering, which are what the trace shows. If one is refused, none is taken.
        """
        with self._schedule._all_or_nothing():
            xo, xi = self.split(x, x_factor)
            yo, yi = self.split(y, y_factor)
            self.reorder(xo, yo, xi, yi)
        return xo, yo, xi, yi

    def fuse(self, *fused: Loop | Sequence[Loop]) -> Loop:
        """One loop over the product of directly nested loops, given outermost first (one by one or as a list).

            for i in 4: for j in 6: s(i, j)                             y.fuse(i, j)
        ->  for i_j in 24: s(i_j // 6, i_j % 6)

        Legality: each loop is the only thing inside the one before it, all are of one kind, and no extent depends on
        another of them. The order of execution stays.
        """
        listed = _listed(fused)

        def run(func: PrimFunc) -> tuple[PrimFunc, list[Expr]]:
            if len(listed) < 2:
                raise ScheduleError("fuse: give at least two loops")
            new, v = loops.fuse(func, [self._schedule._for(loop, "fuse").var for loop in listed])
            return new, [v]

        (result,) = self._apply("fuse", listed, {}, run)
        return result

    def reorder(self, *order: Loop | Sequence[Loop]) -> None:
        """Put perfectly nested loops into this order, outermost first, at the places that they occupy now.

            for i: for j: for k: s(i, j, k)                             y.reorder(k, i)
        ->  for k: for j: for i: s(i, j, k)

        Legality: no two iterations that depend on each other change places (points of one reduction commute); no loop's
        extent depends on one that would be inside.
        """
        listed = _listed(order)
        if len(listed) == 1:
            self._schedule._for(listed[0], "reorder")
        if len(listed) < 2:
            return

        def targets(func: PrimFunc) -> list[For]:
            found = [self._schedule._for(loop, "reorder") for loop in listed]
            if len(set(map(id, found))) != len(found):
                raise ScheduleError("reorder: a loop is named twice")
            return found

        def run(func: PrimFunc) -> tuple[PrimFunc, list[Expr]]:
            return loops.reorder(func, targets(func)), []

        def check(func: PrimFunc) -> Verdict:
            loops.perfect_nest(func, targets(func))
            return legality.check_reorder(func, targets(func))

        self._apply("reorder", listed, {}, run, check)

    def vectorize(self, loop: Loop) -> None:
        """Run the iterations of `loop` as lanes of vectors.

            for j in 16: y[j] = x[j] * 2                                y.vectorize(j)
        ->  for j in vectorized(16): y[j] = x[j] * 2                    y[0:16] = x[0:16] * 2 in the emitted code

        Legality: no iteration touches what another one writes; the extent is a constant. A guard on the lanes becomes a mask.
        """
        self._set_kind("vectorize", loop, "vectorized", legality.check_vectorize, constant=True)

    def parallel(self, loop: Loop) -> None:
        """Share the iterations of `loop` among threads.

            for i in 64: y[i] = f(i)                                    y.parallel(i)
        ->  for i in parallel(64): y[i] = f(i)

        Legality: no iteration touches what another one writes, but in memory of its own.
        """
        self._set_kind("parallel", loop, "parallel", legality.check_parallel)

    def unroll(self, loop: Loop) -> None:
        """Write the iterations of `loop` out.

            for r in 4: s(r)                                            y.unroll(r)
        ->  for r in unrolled(4): s(r)

        Legality: always; the extent is a constant.
        """
        self._set_kind("unroll", loop, "unrolled", None, constant=True)

    def bind(self, loop: Loop, thread: Any) -> None:
        """Run each iteration of `loop` by a thread (or block of threads) of a GPU's axis.

            for i in 64: y[i] = f(i)                                    y.bind(i, "threadIdx.x")
        ->  for i in bind("threadIdx.x", 64): y[i] = f(i)

        A CPU has no such axes: there the loop is a loop, so the same schedule builds and means the same.

        Args:
            thread: `"blockIdx.x"`, `"threadIdx.y"`, ..., `"vthread"`, or an object with that as `thread_tag`.

        Legality: that of `parallel`; the loop is serial so far, and no loop around it or inside is bound to the same axis
        (`"vthread"` excepted). The only reduction loop of a stage, directly around it, may be bound to threads too: they
        combine their values, as classic TVM's allreduce does (the operator is associative; floating-point results may
        differ by rounding).
        """
        axis = getattr(thread, "thread_tag", thread)

        def run(func: PrimFunc) -> tuple[PrimFunc, list[Expr]]:
            target = self._schedule._for(loop, "bind")
            if loops.is_cross_thread(target, axis):
                return loops.bind_cross_thread(func, target, axis), []
            return loops.set_kind(func, target, axis), []

        def check(func: PrimFunc) -> Verdict:
            target = self._schedule._for(loop, "bind")
            loops.check_bind(func, target, axis)
            return legality.PROVED if loops.is_cross_thread(target, axis) else legality.check_parallel(func, target)

        self._apply("bind", (loop, axis), {}, run, check)

    def _set_kind(
        self,
        primitive: str,
        loop: Loop,
        kind: str,
        check: Callable[[PrimFunc, For], Verdict] | None,
        *,
        constant: bool = False,
    ) -> None:
        def run(func: PrimFunc) -> tuple[PrimFunc, list[Expr]]:
            return loops.set_kind(func, self._schedule._for(loop, primitive), kind), []

        def checked(func: PrimFunc) -> Verdict:
            target = self._schedule._for(loop, primitive)
            if constant and target.extent.op != "const":
                raise ScheduleError(
                    f"{primitive}: the extent of {loop.name} is {target.extent}, not a constant; split it first"
                )
            return check(func, target) if check else legality.PROVED

        self._apply(primitive, (loop,), {}, run, checked)

    # -- hints -----------------------------------------------------------------------------------------------------
    def pragma(self, loop: Loop, key: str, value: Any = 1) -> None:
        """A hint on `loop` for code generation, e.g. `"auto_unroll_max_step"`, `"unroll_explicit"`, `"vector_reduce"`.

            for i in 64: s(i)                                           y.pragma(i, "auto_unroll_max_step", 16)
        ->  for i in range(64, auto_unroll_max_step=16): s(i)

        Legality: always; a hint that a target does not know has no effect. `value` is data: numbers, strings, tuples.
        """
        self._annotate("pragma", loop, key, 1 if value is None else value)

    def annotate(self, loop: Loop | StageHandle, key: str, value: Any = True) -> None:
        """A hint on `loop`, or on a stage, under any key. As `pragma`; keys that are part of the program are refused."""
        self._annotate("annotate", loop, key, value)

    def unannotate(self, loop: Loop | StageHandle, key: str) -> None:
        """Take a hint back that `annotate` or `pragma` gave. Refused where there is none."""
        self._annotate("unannotate", loop, key, None)

    def _annotate(self, primitive: str, on: Loop | StageHandle, key: str, value: Any) -> None:
        def run(func: PrimFunc) -> tuple[PrimFunc, list[Expr]]:
            target = find_block(func.body, on.name) if isinstance(on, StageHandle) else self._schedule._for(on, primitive)
            loops.check_annotation(primitive, key, 0 if primitive == "unannotate" else value)
            if primitive == "unannotate" and key not in target.annotations:
                known = ", ".join(map(repr, target.annotations)) or "none"
                raise ScheduleError(f"unannotate: {on.name} has no annotation {key!r}; it has: {known}")
            return loops.annotate(func, target, key, value), []

        self._apply(primitive, (on, key) if primitive == "unannotate" else (on, key, value), {}, run)

    # -- parts -----------------------------------------------------------------------------------------------------
    def loop_partition(self, loop: Loop, factors: Sequence[int | Expr | None] | None = None) -> tuple[Loop, ...]:
        """Cut `loop` into loops over consecutive ranges; returns them in order.

            for i_o in 3: for i_i in 4: if i_o*4 + i_i < 10: y[i_o*4 + i_i] = f(...)         y.loop_partition(i_o)
        ->  for i_o_main in 2: for i_i in 4: y[i_o_main*4 + i_i] = f(...)
            for i_o_tail in 1: for i_i in 2: y_tail[8 + i_i] = f(...)

        Without `factors` the cuts are where the guards inside (of ragged tiles, or of padding) begin and cease to hold for
        certain: the part between, which keeps the names of its stages, runs without them, and what is cut off in front
        and behind has stages named `..._head` and `..._tail`, where guards become shorter loops if they can.

        Args:
            factors: the lengths of the ranges instead, one of which may be None: what is left. Stages of the first part
                keep their names, those of the n-th are named `..._part<n>`.

        Legality: always, since the order of execution stays. Refused where no guard depends on the loop alone, where
        `factors` are not exactly its length, where a loop is bound to threads, and where a reduction's first part may be empty.
        """

        def run(func: PrimFunc) -> tuple[PrimFunc, list[Expr]]:
            target = self._schedule._for(loop, "loop_partition")
            parted = partition.loop_partition(func, target, factors)
            for copy in parted.copies:
                self._schedule._copy_axes(copy.stages, copy.loops)
            return parted.func, list(parted.loops)

        return self._apply("loop_partition", (loop,) if factors is None else (loop, list(factors)), {}, run)


def _listed(loops: Sequence[Any]) -> list[Any]:
    """Loops given one by one or in lists."""
    return [loop for part in loops for loop in (part if isinstance(part, tuple | list) else [part])]
