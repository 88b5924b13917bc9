"""The primitives that let iterations of a loop overlap."""

from __future__ import annotations

from collections.abc import Sequence

from tensorlang.errors import ScheduleError
from tensorlang.ir.expr import Expr
from tensorlang.ir.stmt import PrimFunc
from tensorlang.ir.tree import block_path, loops_of
from tensorlang.schedule import pipeline
from tensorlang.schedule.handles.base import StageHandle
from tensorlang.schedule.legality import Verdict
from tensorlang.schedule.place import top_of
from tensorlang.schedule.state import Loop


class PipelinePrimitives(StageHandle):
    def software_pipeline(self, loop: Loop, stages: Sequence[int]) -> None:
        """Let iterations of `loop` overlap: its statements work on different ones at a time.

            for i in n: (y = alloc(...); y[...] = f(i); out[i, ...] = g(y))          out.software_pipeline(i, [0, 1])
        ->  y = alloc(2 versions)
            y[0, ...] = f(0)
            for i in n: (if i + 1 < n: y[(i + 1) % 2, ...] = f(i + 1); out[i, ...] = g(y[i % 2, ...]))

        Of what is private to an iteration there are as many versions as iterations need it at once. What comes before the
        first iteration is done by stages named `..._first`. `loop_partition` takes the guards away afterwards.

        Args:
            loop: a loop around this stage that holds several statements: stages computed at it, and its own.
            stages: per statement, in program order, a number from 0: with K the greatest, a statement of stage k works
                K - k iterations ahead.

        Legality: no two iterations that depend on each other change places (through memory that iterations share; decided
        with integer sets); what is private is made in one stage and not read in an earlier one; `loop` is serial; what
        accumulates along it is in the last stage; nothing in it is tensorized yet.
        """
        given = list(stages)

        def run(func: PrimFunc) -> tuple[PrimFunc, list[Expr]]:
            made = pipeline.software_pipeline(func, self._schedule._for(loop, "software_pipeline"), given)
            for copy in made.copies:
                self._schedule._copy_axes(copy.stages, copy.loops)
            return made.func, []

        def check(func: PrimFunc) -> Verdict:
            target = self._schedule._for(loop, "software_pipeline")
            if not any(s is target for s in block_path(func.body, self.name)):
                raise ScheduleError(f"software_pipeline: {loop.name} is not a loop of stage {self.name}")
            return pipeline.check_pipeline(func, target, given)

        self._apply("software_pipeline", (loop, given), {}, run, check)

    def double_buffer(self) -> None:
        """Compute this stage for the next iteration of the loop that it is computed at, while that works on this one.

            for i in n: (y = alloc(...); y[...] = f(i); out[i, ...] = g(y))          y.double_buffer()
        ->  y = alloc(2 versions)
            y[0, ...] = f(0)
            for i in n: (if i + 1 < n: y[(i + 1) % 2, ...] = f(i + 1); out[i, ...] = g(y[i % 2, ...]))

        The same as `software_pipeline` with this stage, and what it reads that is computed in the loop, in stage 0 and all
        else in stage 1; that is what the trace shows.

        Legality: that of `software_pipeline`; this stage is computed at a loop (`compute_at`).
        """
        path = block_path(self._schedule.func.body, self.name)
        around = loops_of(path[: path.index(top_of(path))])
        if not around:
            raise ScheduleError(f"double_buffer: {self.name} is computed at the root; compute it at a loop first")
        loop = self._schedule._loop(around[-1].var)
        self.software_pipeline(loop, pipeline.stages_for_double_buffer(around[-1], self.name))
