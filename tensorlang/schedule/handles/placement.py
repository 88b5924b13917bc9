"""The primitives of placement: where a stage is computed."""

from __future__ import annotations

from tensorlang.errors import ScheduleError
from tensorlang.ir.expr import Expr
from tensorlang.ir.stmt import PrimFunc
from tensorlang.ir.tree import block_path
from tensorlang.schedule import compute, legality
from tensorlang.schedule.handles.base import StageHandle
from tensorlang.schedule.legality import Verdict
from tensorlang.schedule.state import Loop


class PlacementPrimitives(StageHandle):
    def compute_at(self, consumer: StageHandle, loop: Loop) -> None:
        """Compute this stage inside `loop` of `consumer`, just the part that each iteration reads, in private memory."""
        target = self._schedule._for(loop, "compute_at")
        if not any(s is target for s in block_path(self._schedule.func.body, consumer.name)):
            raise ScheduleError(f"compute_at: {loop.name} is not a loop of stage {consumer.name}")

        def run(func: PrimFunc) -> tuple[PrimFunc, list[Expr]]:
            new, spatial, reduce = compute.compute_at(func, self.name, target)
            self._schedule._pending_axes[self.name] = (spatial, reduce)
            return new, []

        def covered(func: PrimFunc) -> Verdict:
            return legality.check_compute_at(func, self.name, self._schedule._for(loop, "compute_at", func))

        self._apply("compute_at", (consumer, loop), {}, run, after=covered)

    def compute_inline(self) -> None:
        """Let the readers of this stage compute its elements themselves."""
        self._apply("compute_inline", (), {}, lambda func: (compute.compute_inline(func, self.name), []))
