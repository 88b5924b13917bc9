"""How many steps of each primitive the random schedules took, by verdict, and how many were refused, by reason.

pytest prints the table at the end of a run; under xdist, workers hand their counts to the process that prints.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

COLUMNS = ("proved", "unknown", "unknown, not run", "refuted", "refused: counterexample", "refused: run", "refused: form")
counts: Counter[tuple[str, str]] = Counter()


def count(primitive: str, outcome: str, symbolic: bool = False) -> None:
    """One step of `primitive` came out as `outcome`, one of `COLUMNS`."""
    counts[primitive, outcome] += 1
    if not outcome.startswith("refused"):
        counts["steps taken at symbolic shapes" if symbolic else "steps taken at constant shapes", outcome] += 1


def table() -> list[str]:
    """The counts as lines of text."""
    names = sorted({name for name, _ in counts}, key=lambda n: (n.startswith("steps taken"), n))
    width = max(map(len, names), default=0)
    lines = [" " * width + "".join(f"  {c.removeprefix('refused: '):>16}" for c in COLUMNS)]
    lines[0] = lines[0].replace("counterexample", "counterexample").rstrip()
    for name in names:
        lines.append(f"{name:<{width}}" + "".join(f"  {counts[name, c]:>16}" for c in COLUMNS))
    return lines


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The table, where random schedules were run."""
    if counts:
        terminalreporter.section("random schedule steps: taken (by verdict), refused (by counterexample, run or form)")
        for line in table():
            terminalreporter.write_line(line)


def pytest_sessionfinish(session: Any) -> None:
    """A worker of xdist hands over what it counted."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["fuzz_counts"] = [[*key, n] for key, n in counts.items()]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: Any) -> None:
    """The controller of xdist collects."""
    for primitive, outcome, n in getattr(node, "workeroutput", {}).get("fuzz_counts", ()):
        counts[primitive, outcome] += n
