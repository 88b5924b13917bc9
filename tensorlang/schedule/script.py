"""A trace as an editable schedule function: the same calls, with readable names for stages and loops.

    y.split(i, 8) -> i_o, i_i          def schedule(s: te.Schedule) -> None:
    y.reorder(i_o, j, i_i)                 y = s["y"]
    y.vectorize(i_i)               ->      i, j = y.axis
                                           io, ii = y.split(i, 8)
                                           y.reorder(io, j, ii)
                                           y.vectorize(ii)

The steps are replayed while they are written down: that tells what each call returns, and where a loop that no call
returned is found (`y.axis`, `y.reduce_axis`, `y.loops[n]`).
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tensorlang.errors import ScheduleError
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr, format_expr, var
from tensorlang.ir.printer import quote
from tensorlang.ir.visitor import free_vars, substitute, walk

PLAIN = frozenset(("const", "var", "add", "sub", "mul", "floordiv", "floormod", "lt", "le"))  # the same in Python
FUNCTIONS = {
    "eq": "equal", "ne": "not_equal", "and": "all_of", "or": "any_of", "not": "logical_not", "min": "minimum",
    "max": "maximum", "select": "if_then_else",
}  # fmt: skip
RESERVED = ("s", "te", "tl", "np")


def as_function(steps: Iterable[Any], schedule: Any, name: str = "schedule") -> str:
    """`steps` (see `trace.Step`) as the text of a function of a schedule, replayed on `schedule`, a fresh one.

    Raises:
        ScheduleError: an argument has no text.
    """
    writer = _Writer(schedule)
    for step in steps:
        writer.step(step)
    return writer.text(name)


class _Writer:
    def __init__(self, schedule: Any):
        self.s = schedule
        self.first = dict.fromkeys(stage.name for stage in schedule.stages)  # bound at the top, in program order
        self.stages: dict[str, str] = {}  # stage -> variable
        self.loops: dict[Any, str] = {}  # handle -> variable
        self.sizes: dict[Expr, str] = {}
        self.lines: list[tuple[list[str], str]] = []  # variables bound, what to
        self.taken: set[str] = set(RESERVED)
        self.used: set[str] = set()

    def step(self, step: Any) -> None:
        owner = self.s if step.stage is None else self.s[step.stage]
        args = [self._here(a) for a in step.args]
        kwargs = {k: self._here(v) for k, v in step.kwargs.items()}
        spelled = [self._value(a, owner) for a in args] + [f"{k}={self._value(v, owner)}" for k, v in kwargs.items()]
        on = "s" if step.stage is None else self._stage(step.stage)
        call = f"{on}.{step.primitive}({', '.join(spelled)})"
        result = getattr(owner, step.primitive)(*args, **kwargs)
        made = list(result) if isinstance(result, tuple) else [] if result is None else [result]
        self.lines.append(([self._bind(m) for m in made], call))

    def text(self, name: str) -> str:
        """The function's text."""
        bound = [(stage, self.stages[stage]) for stage in self.first if stage in self.stages]
        lines = []
        for n in range(0, len(bound), 4):
            some = bound[n : n + 4]
            lines.append(f"{', '.join(v for _, v in some)} = {', '.join(f's[{quote(stage)}]' for stage, _ in some)}")
        for targets, call in self.lines:
            if not self.used.intersection(targets):
                lines.append(call)
            else:
                left = f"({targets[0]},)" if call.endswith("axis") and len(targets) == 1 else ", ".join(targets)
                lines.append(f"{left} = {call}")
        body = "".join(f"    {line}\n" for line in lines or ["pass"])
        return f"def {name}(s: te.Schedule) -> None:\n{body}"

    # -- names -----------------------------------------------------------------------------------------------------
    def _fresh(self, name: str) -> str:
        base = re.sub(r"\W", "_", name)
        if not base.isidentifier() or keyword.iskeyword(base):
            base = f"v_{base}"
        found, serial = base, 1
        while found in self.taken:
            found, serial = f"{base}_{serial}", serial + 1
        self.taken.add(found)
        return found

    def _bind(self, made: Any) -> str:
        """A variable for what a call returned."""
        if _is_loop(made):
            name = re.sub(r"_\d+$", "", made.name)
            self.loops[made] = self._fresh(re.sub(r"_([oi])(?=_|$)", r"\1", name))  # i_o_i -> ioi
            return self.loops[made]
        if _is_stage(made):
            self.stages[made.name] = self._fresh(made.name)
            self.first.pop(made.name, None)
            return self.stages[made.name]
        return self._fresh("made")

    def _stage(self, name: str) -> str:
        if name not in self.stages:
            variable = self.stages[name] = self._fresh(name)
            if name not in self.first:
                self.lines.append(([variable], f"s[{quote(name)}]"))
        self.used.add(self.stages[name])
        return self.stages[name]

    def _loop(self, loop: Any, owner: Any) -> str:
        if loop not in self.loops:
            self._find(loop, [owner] if _is_stage(owner) else [])
        self.used.add(self.loops[loop])
        return self.loops[loop]

    def _find(self, loop: Any, first: Sequence[Any]) -> None:
        """Write down where a loop that no call returned comes from."""
        for stage in (*first, *self.s.stages):
            for axes in ("axis", "reduce_axis"):
                found = getattr(stage, axes)
                if loop in found:
                    on = self._stage(stage.name)
                    self.lines.append(([self._bind(x) for x in found], f"{on}.{axes}"))
                    return
        for stage in (*first, *self.s.stages):
            if loop in stage.loops:
                on = self._stage(stage.name)
                self.lines.append(([self._bind(loop)], f"{on}.loops[{stage.loops.index(loop)}]"))
                return
        self.lines.append(([self._bind(loop)], f"s.loop({quote(loop.name)})"))

    # -- values ----------------------------------------------------------------------------------------------------
    def _here(self, a: Any) -> Any:
        """The recorded argument `a` as one of this schedule."""
        return translate(a, self.s)

    def _value(self, a: Any, owner: Any) -> str:
        if _is_loop(a):
            return self._loop(a, owner)
        if _is_stage(a):
            return self._stage(a.name)
        if a is None or isinstance(a, bool | int | float):
            return repr(a)
        if isinstance(a, str):
            return quote(a)
        if isinstance(a, Expr):
            return self._expr(a)
        if isinstance(a, Buffer):
            return f'"{a.name}"'
        if isinstance(a, tuple | list):
            inner = ", ".join(self._value(x, owner) for x in a)
            return f"[{inner}]" if isinstance(a, list) else f"({inner},)" if len(a) == 1 else f"({inner})"
        if isinstance(a, dict):
            return f"{{{', '.join(f'{self._value(k, owner)}: {self._value(v, owner)}' for k, v in a.items())}}}"
        if hasattr(a, "as_source"):
            return str(a.as_source())
        if hasattr(a, "old"):  # an index map, or a condition on loops
            spelled = [_python(e, lambda v: str(v.name)) for e in (a.new if hasattr(a, "new") else (a.condition,))]
            result = f"({', '.join(spelled)},)" if hasattr(a, "new") else spelled[0]
            return f"lambda {', '.join(v.name for v in a.old)}: {result}"
        raise ScheduleError(f"as_function: {a!r} has no text; a class of arguments gets it by a method as_source()")

    def _expr(self, e: Expr) -> str:
        """An argument that is an expression of the program's sizes."""
        sizes = self.s.func.size_vars
        for v in sorted(free_vars(e), key=lambda v: v.value[1]):
            if v not in sizes:
                raise ScheduleError(f"as_function: the argument {e} mentions {v.name}, which is no size of the program")
            if v not in self.sizes:
                self.sizes[v] = self._fresh(v.name)
                self.used.add(self.sizes[v])
                self.lines.append(([self.sizes[v]], f"s.func.size_vars[{sizes.index(v)}]"))
        return _python(e, lambda v: self.sizes[v])


def _python(e: Expr, names: Callable[[Expr], str]) -> str:
    """`e` as Python that builds it again: what has no operator is a function of te."""
    stand_ins: dict[Expr, Expr] = {}
    spelled: dict[Expr, str] = {}
    for n in walk(e):
        if n.op in FUNCTIONS:
            args = (_python(a, names) if a.op not in FUNCTIONS else spelled[stand_ins[a]] for a in n.args)
            stand_ins[n] = var("_", n.dtype)
            spelled[stand_ins[n]] = f"te.{FUNCTIONS[n.op]}({', '.join(args)})"
        elif n.op not in PLAIN:
            raise ScheduleError(f"as_function: the argument {e} has no text")
    outer = stand_ins[e] if e in stand_ins else substitute(e, stand_ins)
    return format_expr(outer, lambda v: spelled[v] if v in spelled else names(v))


def _is_loop(a: Any) -> bool:
    return hasattr(a, "var") and hasattr(a, "name")


def _is_stage(a: Any) -> bool:
    return hasattr(a, "reduce_axis") and hasattr(a, "name")


def translate(a: Any, schedule: Any) -> Any:
    """A recorded argument on another schedule of the same program: loops and stages are found by their unique names."""
    if _is_loop(a):
        return schedule.loop(a.name)
    if _is_stage(a):
        return schedule[a.name]
    if isinstance(a, tuple | list):
        return type(a)(translate(x, schedule) for x in a)
    return a
