"""The steps of a schedule, as data: printable as ordinary calls and replayable on a fresh schedule."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tensorlang.errors import ScheduleError
from tensorlang.ir.expr import Expr
from tensorlang.schedule import script


@dataclass(frozen=True)
class Step:
    """One call of a primitive: on a stage (its name), or on the schedule itself (None)."""

    primitive: str
    stage: str | None
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        args = [_show(a) for a in self.args] + [f"{k}={_show(v)}" for k, v in self.kwargs.items()]
        return f"{self.stage + '.' if self.stage else ''}{self.primitive}({', '.join(args)})"


def _show(a: Any) -> str:
    if isinstance(a, str):
        return repr(a)
    if isinstance(a, tuple | list):
        inner = ", ".join(_show(x) for x in a)
        return f"[{inner}]" if isinstance(a, list) else f"({inner},)" if len(a) == 1 else f"({inner})"
    return str(a if isinstance(a, Expr) else getattr(a, "name", a))


class Trace:
    """The steps of one schedule in order, each with the loops it made.

    Args:
        fresh: makes a schedule of the same program without any step; `as_function` needs it.
    """

    def __init__(self, fresh: Callable[[], Any] | None = None) -> None:
        self._steps: list[tuple[Step, tuple[Any, ...]]] = []
        self._fresh = fresh

    def append(self, step: Step, made: tuple[Any, ...]) -> None:
        self._steps.append((step, made))

    def copy(self) -> Trace:
        other = Trace(self._fresh)
        other._steps = list(self._steps)
        return other

    def __iter__(self) -> Iterator[Step]:
        return (s for s, _ in self._steps)

    def __len__(self) -> int:
        return len(self._steps)

    @property
    def last(self) -> tuple[Step, tuple[Any, ...]]:
        """The last step, with the loops it made."""
        return self._steps[-1]

    def __str__(self) -> str:
        lines = []
        for step, made in self._steps:
            prefix = f"{', '.join(m.name for m in made)} = " if made else ""
            lines.append(prefix + str(step))
        return "\n".join(lines)

    def replay(self, schedule: Any) -> None:
        """Repeat the steps on `schedule`, a fresh one of the same program. Loops are found by their unique names."""
        for step in self:
            self._repeat(step, schedule)

    @staticmethod
    def _repeat(step: Step, schedule: Any) -> None:
        owner = schedule if step.stage is None else schedule[step.stage]
        args = tuple(script.translate(a, schedule) for a in step.args)
        kwargs = {k: script.translate(v, schedule) for k, v in step.kwargs.items()}
        getattr(owner, step.primitive)(*args, **kwargs)

    def programs(self) -> list[Any]:
        """The program after every step, in order.

        Raises:
            ScheduleError: the steps belong to no program.
        """
        if self._fresh is None:
            raise ScheduleError("these steps belong to no schedule")
        found, fresh = [], self._fresh()
        for step in self:
            self._repeat(step, fresh)
            found.append(fresh.func)
        return found

    def as_function(self, name: str = "schedule") -> str:
        """The steps as Python text: a function of a schedule, made of ordinary calls, to be edited and kept.

        Calling it with a fresh schedule of the same program takes the same steps. Its annotation needs
        `from tensorlang import te`.

        Raises:
            ScheduleError: an argument has no text, or the steps belong to no program.
        """
        if self._fresh is None:
            raise ScheduleError("as_function: these steps belong to no schedule")
        return script.as_function(self, self._fresh(), name)
