"""Where default schedules come from: registered functions, one per target, that look at a program's structure only.

A target's default schedule is an entry point of the group `tensorlang.schedules` (built-in ones included): a function
`(schedule: Schedule, machine: Machine) -> None` that applies primitives.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.metadata import entry_points

from tensorlang.errors import BuildError
from tensorlang.ir.machine import Machine as Machine
from tensorlang.schedule.schedule import Schedule

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
