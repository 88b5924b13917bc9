"""The primitives of placement: where a stage is computed."""

from __future__ import annotations

from collections.abc import Callable

from tensorlang.errors import ScheduleError
from tensorlang.ir.expr import Expr
from tensorlang.ir.stmt import For, PrimFunc
from tensorlang.ir.tree import block_path, loop_path, loops_of, own_loops
from tensorlang.schedule import inline, legality, place
from tensorlang.schedule.coverage import check_written
from tensorlang.schedule.handles.base import StageHandle
from tensorlang.schedule.place import Placed
from tensorlang.schedule.state import Loop
from tensorlang.schedule.verdict import Verdict, both


class PlacementPrimitives(StageHandle):
    def compute_at(self, consumer: StageHandle, loop: Loop) -> None:
        """Compute this stage inside `loop` of `consumer`: just the part that each iteration reads, in private memory.

            for i: for j: y[i, j] = f(x[i, j])            y.compute_at(out, i)
            for i: for j: out[i, j] = y[i, j] * 2
        ->  for i:
                y = alloc(...)
                for j: y[i, j] = f(x[i, j])
                for j: out[i, j] = y[i, j] * 2

        What was done to the stage is done again on the smaller part (its splits and fusions with their factors, the order
        of its loops, their kinds), so it makes no difference whether it is transformed before or after; its handles to
        loops stay valid. A split by more than there is gives one tile, and `tail="shift_inwards"` becomes a guard. Stages
        computed in its loops move along. Calling it again moves the stage again.

        Args:
            consumer: a stage that reads this one, at whatever distance.
            loop: any loop around `consumer`, as it is now.

        Legal if all readers are inside `loop`, this stage is not an output and writes its elements in the order of its
        axes, what it reads exists there, and each iteration computes all that it reads (proved after the step).
        """
        self._check_around(consumer, loop, "compute_at")
        self._place(
            "compute_at",
            (consumer, loop),
            lambda func, at: place.compute_at(func, self.name, at, self._schedule._history()),
            loop,
        )

    def compute_root(self) -> None:
        """Compute this stage whole, before everything that reads it: the opposite of `compute_at`.

            for i:                                        y.compute_root()
                y = alloc(...)
                for j: y[i, j] = f(x[i, j])
                for j: out[i, j] = y[i, j] * 2
        ->  for i: for j: y[i, j] = f(x[i, j])
            for i: for j: out[i, j] = y[i, j] * 2

        Its splits, fusions, order and kinds of loops stay, on the whole extents. Nothing happens to a stage that is there.
        One that `reverse_compute_at` put into another's loops is computed after those, in loops of its own.
        Legal if what this stage reads is not private to a loop.
        """
        self._place("compute_root", (), lambda func, _: place.compute_root(func, self.name, self._schedule._history()), None)

    def reverse_compute_at(self, producer: StageHandle, loop: Loop) -> None:
        """Compute this stage inside `loop` of `producer`: what each iteration produces is consumed at once.

            for io: for ii: y[io*8 + ii] = f(x[io*8 + ii])        out.reverse_compute_at(y, io)
            for i: out[i] = y[i] * 2
        ->  for io:
                y = alloc(...)
                for ii: y[io*8 + ii] = f(x[io*8 + ii])
                for i: out[io*8 + i] = y[io*8 + i] * 2

        What was done to this stage is done again on the part, as by `compute_at`. The stage may be an output.

        Args:
            producer: a stage whose elements this one reads.
            loop: any loop around `producer`.

        Legal if this stage is no reduction, reads what `loop` computes at its own indices (shifted at most), each of
        those elements is complete after one iteration, and everything else that it reads was computed before.
        """
        self._check_around(producer, loop, "reverse_compute_at")
        self._place(
            "reverse_compute_at",
            (producer, loop),
            lambda func, at: place.reverse_compute_at(func, self.name, at, self._schedule._history()),
            loop,
        )

    def compute_inline(self) -> None:
        """Let the readers of this stage compute its elements themselves; the stage and its buffer disappear.

            for i: y[i] = x[i] + 1                        y.compute_inline()
            for i: out[i] = y[i] * 2
        ->  for i: out[i] = (x[i] + 1) * 2

        Legal if this stage is no reduction and no output, writes its elements in the order of its axes, does not read
        itself, and what it reads exists where its readers are.
        """
        self._apply("compute_inline", (), {}, lambda func: (inline.compute_inline(func, self.name), []))

    def reverse_compute_inline(self) -> None:
        """Fold this stage back into the one that it reads, which then computes this stage's tensor; its own disappears.

            for i: for j: y[i, j] = f(x[i, j])            out.reverse_compute_inline()
            for i: for j: out[j, i] = y[i, j] * 2
        ->  for i: for j: out[j, i] = f(x[i, j]) * 2      by the stage y, with its loops

        Legal if this stage is no reduction, reads one computed tensor that is no output, each element of it once (indices
        permuted and shifted at most) and as its only reader; if the stage of that is no reduction; and if what else this
        stage reads was computed before that one.
        """
        made: list[str] = []

        def run(func: PrimFunc) -> tuple[PrimFunc, list[Expr]]:
            new, name = inline.reverse_compute_inline(func, self.name)
            made.append(name)
            return new, []

        self._apply("reverse_compute_inline", (), {}, run)
        self._schedule._discover_axes(made[0])

    # -- details ---------------------------------------------------------------------------------------------------
    def _check_around(self, stage: StageHandle, loop: Loop, primitive: str) -> None:
        target = self._schedule._for(loop, primitive)
        if not any(s is target for s in block_path(self._schedule.func.body, stage.name)):
            raise ScheduleError(f"{primitive}: {loop.name} is not a loop of stage {stage.name}")

    def _place(
        self, primitive: str, args: tuple[object, ...], move: Callable[[PrimFunc, For], Placed], loop: Loop | None
    ) -> None:
        placed: list[Placed] = []

        def run(func: PrimFunc) -> tuple[PrimFunc, list[Expr]]:
            at = self._schedule._for(loop, primitive) if loop is not None else None
            placed.append(move(func, at))  # type: ignore[arg-type]
            self._schedule._move(placed[0].func, placed[0].axes)
            return placed[0].func, []

        def sound(func: PrimFunc) -> Verdict:
            if primitive == "reverse_compute_at":
                return both(complete(func, placed[0], loop), check_written(func, self.name))
            if primitive == "compute_root" and placed[0].axes:
                return both(complete(func, placed[0]), check_written(func, self.name))
            return complete(func, placed[0])

        self._apply(primitive, args, {}, run, after=sound)


def complete(func: PrimFunc, placed: Placed, around: Loop | None = None) -> Verdict:
    """Whether every part that is read in its place is computed there, and loops that run at once are independent.

    Loops outside matter only where a stage moved into a loop (`around`) that its own iterations did not have.
    """
    verdict = legality.PROVED
    for at, buffer in placed.complete:
        path = [func.body] if at is None else loop_path(func.body, at)
        verdict = both(verdict, legality.check_covered(func, path, buffer))
    concurrent: dict[Expr, For] = {}
    for stage in placed.axes:
        path = block_path(func.body, stage)
        own = {f.var for f in own_loops(path)}
        for f in loops_of(path):
            if f.kind in ("vectorized", "parallel") and (around is not None or f.var in own):
                concurrent[f.var] = f
    for f in concurrent.values():
        check = legality.check_vectorize if f.kind == "vectorized" else legality.check_parallel
        verdict = both(verdict, check(func, f))
    return verdict
