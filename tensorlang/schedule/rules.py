"""Where default schedules come from: registered functions, one per target, that look at a program's structure only.

A target's default schedule is an entry point of the group `tensorlang.schedules` (built-in ones included): a function
`(schedule: Schedule, machine: Machine) -> None` that applies primitives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points

from tensorlang.errors import BuildError
from tensorlang.schedule.schedule import Schedule


@dataclass(frozen=True)
class Machine:
    """What a schedule may depend on: features and sizes, never a model name of a processor.

    Attributes:
        vector_bytes: width of one vector register.
        vector_registers: how many of them.
        l1_bytes, l2_bytes: data caches of one core.
        threads: workers that parallel loops are shared among.
    """

    vector_bytes: int = 32
    vector_registers: int = 16
    l1_bytes: int = 32 * 1024
    l2_bytes: int = 1024 * 1024
    threads: int = 2

    def lanes(self, nbytes: int) -> int:
        """How many elements of `nbytes` one register holds."""
        return self.vector_bytes // nbytes


Rule = Callable[[Schedule, Machine], None]


@cache
def default_rule(target: str) -> Rule:
    """The default schedule of `target`.

    Raises:
        BuildError: none is registered.
    """
    found = {e.name: e for e in entry_points(group="tensorlang.schedules")}
    if target not in found:
        raise BuildError(f"no default schedule for target {target!r}; registered: {', '.join(sorted(found)) or 'none'}")
    rule: Rule = found[target].load()
    return rule
