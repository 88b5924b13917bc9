"""The steps of a schedule, as data: printable as ordinary calls and replayable on a fresh schedule."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


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
    return str(getattr(a, "name", a))


class Trace:
    """The steps of one schedule in order, each with the loops it made."""

    def __init__(self) -> None:
        self._steps: list[tuple[Step, tuple[Any, ...]]] = []

    def append(self, step: Step, made: tuple[Any, ...]) -> None:
        self._steps.append((step, made))

    def copy(self) -> Trace:
        other = Trace()
        other._steps = list(self._steps)
        return other

    def __iter__(self) -> Iterator[Step]:
        return (s for s, _ in self._steps)

    def __len__(self) -> int:
        return len(self._steps)

    def __str__(self) -> str:
        lines = []
        for step, made in self._steps:
            prefix = f"{', '.join(m.name for m in made)} = " if made else ""
            lines.append(prefix + str(step))
        return "\n".join(lines)

    def replay(self, schedule: Any) -> None:
        """Repeat the steps on `schedule`, a fresh one of the same program. Loops are found by their unique names."""
        for step in self:
            owner = schedule if step.stage is None else schedule[step.stage]
            args = tuple(self._translate(a, schedule) for a in step.args)
            getattr(owner, step.primitive)(*args, **step.kwargs)

    @staticmethod
    def _translate(a: Any, schedule: Any) -> Any:
        if hasattr(a, "var"):
            return schedule.loop(a.name)
        if hasattr(a, "reduce_axis"):
            return schedule[a.name]
        return a
