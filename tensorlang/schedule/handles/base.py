"""What every handle to a stage has: its schedule, its name, its loops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tensorlang.ir.expr import Expr
from tensorlang.ir.stmt import PrimFunc
from tensorlang.schedule.legality import Verdict
from tensorlang.schedule.state import Loop, ScheduleState


class StageHandle:
    """A handle to a stage, without primitives: those come by family, one class each beside this module."""

    def __init__(self, schedule: ScheduleState, name: str):
        self._schedule = schedule
        self.name = name

    def __repr__(self) -> str:
        return f"stage {self.name}"

    @property
    def axis(self) -> tuple[Loop, ...]:
        """The loops made for the stage's output dimensions, in order."""
        return self._schedule._axes(self.name)[0]

    @property
    def reduce_axis(self) -> tuple[Loop, ...]:
        """The loops made for the stage's reduction, in order."""
        return self._schedule._axes(self.name)[1]

    @property
    def loops(self) -> tuple[Loop, ...]:
        """All loops around the stage now, outermost first."""
        return self._schedule._loops_around(self.name)

    def _apply(
        self,
        primitive: str,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        run: Callable[[PrimFunc], tuple[PrimFunc, list[Expr]]],
        check: Callable[[PrimFunc], Verdict] | None = None,
        after: Callable[[PrimFunc], Verdict] | None = None,
    ) -> tuple[Loop, ...]:
        return self._schedule._apply(primitive, self, args, kwargs, run, check, after)
