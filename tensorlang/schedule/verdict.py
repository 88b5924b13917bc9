"""What is known of a schedule step, and how a refusal tells it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tensorlang.errors import ScheduleError
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr
from tensorlang.ir.printer import format_func
from tensorlang.ir.stmt import PrimFunc, Stmt
from tensorlang.symbolic.access import Access
from tensorlang.symbolic.conflict import Counterexample, show_values


@dataclass(frozen=True, eq=False)
class Missing:
    """An iteration that reads an element which nothing has computed by then.

    Attributes:
        access: the read.
        at: loop variable -> value, of the loops outside of the part of the program that was asked about.
        sizes: the symbolic sizes at which it happens.
    """

    buffer: Buffer
    address: tuple[int, ...]
    access: Access
    at: Mapping[Expr, int]
    sizes: Mapping[Expr, int]

    def __str__(self) -> str:
        where = show_values({**self.at, **self.sizes})
        return f"{self.access.stage} reads {_element(self.buffer, self.address)}" + (f" at {where}" if where else "")


@dataclass(frozen=True)
class Verdict:
    """What is known of one step.

    Attributes:
        status: "proved", "refuted" or "unknown".
        reason: why it was refuted, or why nothing is known.
        counterexample: the two iterations that fight over one element, or the read that finds nothing. It was executed, and
            did what it says. None where a step is refused for its form, or where running the program showed the difference.
        remedy: what to do instead, if it was refuted.
        culprits: the statements to point at in the program.
        checked: of a step that integer sets could not decide: how running the program before and after it came out.
        suspect: sizes at which analysis found a counterexample that could not be executed: to be run first.
        program: in which the counterexample happens, where that is neither the one before the step nor the one that it made.
    """

    status: str
    reason: str = ""
    counterexample: Counterexample | Missing | None = None
    remedy: str = ""
    culprits: tuple[Stmt, ...] = ()
    checked: str = ""
    suspect: Mapping[Expr, int] | None = None
    program: PrimFunc | None = None

    @property
    def ran(self) -> bool:
        """Whether the program was run to check the step."""
        return bool(self.checked) and not self.checked.startswith(NOT_CHECKED)

    def __str__(self) -> str:
        """One line: `unknown: t[i] depends on data; checked by running it at M=1, M=3`."""
        parts = [p for p in (self.reason, self.checked) if p]
        return self.status + (": " + "; ".join(parts) if parts else "")


NOT_CHECKED = "not checked"


class UncheckedStep(UserWarning):
    """A step of a user's schedule that can neither be decided nor, for its size, be checked by running."""


PROVED = Verdict("proved")
UNKNOWN = Verdict("unknown")


def both(first: Verdict, second: Verdict) -> Verdict:
    """The worse one of two verdicts on the same step."""
    order = ("proved", "unknown", "refuted")
    return max(first, second, key=lambda v: order.index(v.status))


class RefusedStep(ScheduleError):
    """A step that was refuted. Its message is made only where somebody reads it: searches refuse many.

    Attributes:
        verdict: why.
        step: what was asked for.
        where: file:line of the call.
    """

    def __init__(self, where: str, step: Any, verdict: Verdict, func: PrimFunc):
        super().__init__()
        self.where, self.step, self.verdict, self.func = where, step, verdict, func

    def __str__(self) -> str:
        return f"{self.where}: {report(self.func, self.step, self.verdict)}"


class ProofEntry:
    """What is known of one step of a schedule. A step that could not be decided is run when somebody asks for its verdict."""

    def __init__(self, step: str, verdict: Verdict, trial: Callable[[], Verdict] | None = None):
        self.step = step
        self._verdict = verdict
        self._trial = trial

    def __repr__(self) -> str:
        return f"{self.step}: {self._verdict}"

    @property
    def verdict(self) -> Verdict:
        """Proved, refuted or unknown; where it is unknown, running the program was tried."""
        if self._trial is not None:
            self._verdict, self._trial = self._trial(), None
        return self._verdict

    @property
    def decided(self) -> Verdict:
        """What integer sets alone know: never runs anything."""
        return self._verdict


def report(func: PrimFunc, step: Any, verdict: Verdict) -> str:
    """The message of a refused step: what, why, the remedy, both iterations, and the program with the culprits marked."""
    lines = [f"{step} is refused: {verdict.reason}"]
    example = verdict.counterexample
    if example is not None and example.sizes:
        lines.append(f"  with {show_values(example.sizes)}:")
    if isinstance(example, Counterexample):
        element = _element(example.buffer, example.address)
        for n, (access, side) in enumerate(zip(example.accesses, (example.first, example.second), strict=True), 1):
            lines.append(f"  iteration {n}: {show_values(side)}: {access.stage} {access.verb} {element}")
    elif example is not None:
        element = _element(example.buffer, example.address)
        lines.append(f"  iteration {show_values(example.at) or '()'}: {example.access.stage} reads {element}")
    if verdict.checked:
        lines.append(f"  {verdict.checked}")
    if verdict.remedy:
        lines.append(f"  remedy: {verdict.remedy}")
    marks: dict[Stmt, str] = dict.fromkeys(verdict.culprits, "")
    return "\n".join([*lines, "", format_func(func, marks)])


def _element(buffer: Buffer, address: tuple[int, ...]) -> str:
    return f"{buffer.name}[{', '.join(map(str, address))}]"


def unconfirmed(verdict: Verdict) -> Verdict:
    """A refutation whose counterexample did not happen when it was executed: nothing is known."""
    reason = f"{verdict.reason} (found by analysis; running it did not confirm it)"
    sizes = verdict.counterexample.sizes if verdict.counterexample is not None else None
    return replace(verdict, status="unknown", reason=reason, counterexample=None, suspect=sizes)
