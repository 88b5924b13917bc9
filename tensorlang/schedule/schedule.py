"""The scheduling language: a `Schedule` holds one loop nest; handles to its stages and loops carry the primitives.

Every primitive checks, rewrites the nest at once, and records: `print(s)` after any step shows the program as it is,
`s.trace` lists the steps, `s.proof` what is known of their legality. A step that is refused raises `ScheduleError` and
leaves the schedule as it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tensorlang.errors import ScheduleError
from tensorlang.ir.expr import Expr, user_location
from tensorlang.ir.stmt import PrimFunc
from tensorlang.ir.tree import block_path
from tensorlang.ir.visitor import blocks
from tensorlang.schedule import cache
from tensorlang.schedule.handles import Stage
from tensorlang.schedule.state import ScheduleState


class Schedule(ScheduleState):
    """One program under transformation.

    Attributes:
        func: the loop nest as it is now (immutable; keep it to go back).
        trace: the steps so far.
        proof: what is known of each step.
    """

    def __getitem__(self, stage: Any) -> Stage:
        """The stage named so (or of the tensor given)."""
        name = stage if isinstance(stage, str) else stage.name
        if not block_path(self.func.body, name):
            known = ", ".join(b.name for b in blocks(self.func.body))
            raise ScheduleError(f"{user_location()}: no stage {name!r}; there are: {known}")
        return Stage(self, name)

    @property
    def stages(self) -> list[Stage]:
        """All stages in program order."""
        return [Stage(self, b.name) for b in blocks(self.func.body)]

    def cache_read(self, tensor: Any, scope: str = "global", readers: Sequence[Any] = ()) -> Stage:
        """Let `readers` (stages; default all) read a copy of `tensor`, made by the stage that is returned."""
        buffer = self._buffer(tensor, "cache_read")
        names = [r if isinstance(r, str) else r.name for r in readers]
        made: list[str] = []

        def run(func: PrimFunc) -> tuple[PrimFunc, list[Expr]]:
            new, name = cache.cache_read(func, buffer, scope, names)
            made.append(name)
            return new, []

        self._apply("cache_read", None, (buffer.name, scope, tuple(names)), {}, run, None)
        self._discover_axes(made[0])
        return Stage(self, made[0])

    def cache_write(self, stage: Any, scope: str = "local") -> Stage:
        """Let `stage` compute into a new buffer by the stage that is returned; the old stage becomes the copy back."""
        name = stage if isinstance(stage, str) else stage.name
        made: list[str] = []

        def run(func: PrimFunc) -> tuple[PrimFunc, list[Expr]]:
            new, inner = cache.cache_write(func, name, scope)
            made.append(inner)
            return new, []

        self._apply("cache_write", None, (name, scope), {}, run, None)
        self._axis_vars[made[0]] = self._axis_vars.pop(name)
        self._discover_axes(name)
        return Stage(self, made[0])
