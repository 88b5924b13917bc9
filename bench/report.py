"""Results as JSON (all of them, with machine and versions) and as a table in the terminal (losses first)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench import cache, machine, measure
from bench.agreement import Agreement
from bench.compare import TWIN, NullRow, Row, Verdict

SCHEMA = 1

_STYLE = {
    Verdict.FAILED: "bold red",
    Verdict.WRONG: "bold red",
    Verdict.SLOWER: "yellow",
    Verdict.TIE: "",
    Verdict.FASTER: "green",
}


# -- JSON ------------------------------------------------------------------------------------------------------------


def document(kind: str, threads: int, plan: measure.Plan | None, rows: Sequence[dict[str, object]]) -> dict[str, object]:
    """The whole of a result file; times in seconds."""
    return {
        "schema": SCHEMA,
        "kind": kind,
        "threads": threads,
        "plan": None if plan is None else asdict(plan),
        "machine": machine.describe(),
        "versions": machine.versions(),
        "rows": list(rows),
    }


def row_json(row: Row) -> dict[str, object]:
    return {
        "name": row.subject.name,
        "group": row.subject.group,
        "shapes": {name: list(array.shape) for name, array in row.subject.feeds.items()},
        "flop": row.subject.flop,
        "least_bytes": row.subject.least_bytes,
        "limit": row.subject.limit,
        "verdict": row.verdict.value,
        "null_spread": row.spread,
        "ratios": {name: asdict(ratio) for name, ratio in row.ratios.items()},
        "timings": {name: timing_json(timing) for name, timing in row.timings.items()},
        "agreements": {name: _agreement_json(found) for name, found in row.agreements.items()},
        "prepare_seconds": dict(row.prepare_seconds),
        "errors": dict(row.errors),
        "details": dict(row.details),
    }


def null_json(row: NullRow) -> dict[str, object]:
    return {
        "name": row.subject.name,
        "group": row.subject.group,
        "null_spread": row.spread,
        "ratio": asdict(row.ratio),
        "timings": {name: timing_json(timing) for name, timing in row.timings.items()},
    }


def timing_json(timing: measure.Timing) -> dict[str, object]:
    return {
        "median": timing.median,
        "minimum": timing.minimum,
        "spread": timing.spread,
        "calls": timing.calls,
        "block_medians": list(timing.block_medians),
    }


def _agreement_json(found: Agreement) -> dict[str, object]:
    return {
        "ok": found.ok,
        "outputs": [
            {
                "name": o.name,
                "ok": o.ok,
                "error": o.error,
                "bound": o.bound,
                "largest": o.largest,
                "basis": o.basis.value,
                "reason": o.reason,
            }
            for o in found.outputs
        ],
    }


def other_rows(file: str | None, names: Sequence[str]) -> list[dict[str, object]]:
    """The rows of a result file that are not called `names`; none where there is no file."""
    if file is None or file == "-" or not Path(file).exists():
        return []
    return [row for row in json.loads(Path(file).read_text())["rows"] if row["name"] not in names]


def write_json(content: dict[str, object], destination: str) -> None:
    """To a file, by rename; ``-`` is standard output. Infinite errors (shapes that differ) are written as null."""
    text = json.dumps(_finite(content), indent=1, allow_nan=False) + "\n"
    if destination == "-":
        print(text, end="")
        return
    cache.write_atomically(Path(destination), lambda temporary: temporary.write_text(text))


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value


# -- tables ----------------------------------------------------------------------------------------------------------


def losses_first(rows: Sequence[Row], judge: str) -> list[Row]:
    """Failed, wrong, then by falling ratio."""
    order = list(Verdict)

    def key(row: Row) -> tuple[int, float]:
        broken = row.verdict in (Verdict.FAILED, Verdict.WRONG)
        return (order.index(row.verdict) if broken else len(order), -row.ratios[judge].median if row.ratios else 0.0)

    return sorted(rows, key=key)


def table(rows: Sequence[Row], ours: str, judge: str, others: Sequence[str], title: str) -> Table:
    """``ratio``: our time over theirs, with quartiles over rounds; ``null``: the spread of the judge's twins."""
    rates = any(row.subject.flop or row.subject.least_bytes for row in rows)
    result = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    result.add_column("")
    for heading in (ours, judge, "ratio", "quartiles", "null", *others, "error/allowed"):
        result.add_column(heading, justify="right")
    if rates:
        result.add_column("our rate", justify="right")
    result.add_column("")
    for row in losses_first(rows, judge):
        result.add_row(*_cells(row, ours, judge, others, rates), style=_STYLE[row.verdict])
    return result


def _cells(row: Row, ours: str, judge: str, others: Sequence[str], rates: bool) -> list[str | Text]:
    name: list[str | Text] = [row.subject.name]
    if row.verdict is Verdict.FAILED:
        blanks: list[str | Text] = [""] * (6 + len(others) + (1 if rates else 0))
        return [*name, *blanks, Text(f"failed: {row.errors.get(ours, '')}")]
    ratio = row.ratios[judge]
    cells = [
        *name,
        seconds(row.timings[ours].median),
        seconds(row.timings[judge].median),
        f"{ratio.median:.2f}",
        f"{ratio.low:.2f}-{ratio.high:.2f}",
        f"±{row.spread:.0%}",
    ]
    for other in others:
        cells.append(f"{seconds(row.timings[other].median)} ({row.ratios[other].median:.2f})" if other in row.timings else "-")
    worst = row.agreements[ours].worst
    cells.append(f"{worst.error / worst.bound:.2f}")
    if rates:
        cells.append(_rate(row, ours))
    cells.append(Text(f"wrong: {worst}") if row.verdict is Verdict.WRONG else row.verdict.value)
    return cells


def _rate(row: Row, side: str) -> str:
    median = row.timings[side].median
    if row.subject.flop:
        return f"{row.subject.flop / median / 1e9:.0f} GFLOP/s"
    return f"{row.subject.least_bytes / median / 1e9:.1f} GB/s" if row.subject.least_bytes else ""


def summary(rows: Sequence[Row], judge: str) -> str:
    """One line: how many of each verdict, and the geometric mean of the ratios."""
    counts = ", ".join(
        f"{sum(row.verdict is verdict for row in rows)} {verdict.value}"
        for verdict in Verdict
        if any(row.verdict is verdict for row in rows)
    )
    timed = [row.ratios[judge].median for row in rows if row.ratios]
    if not timed:
        return counts
    mean = measure.geometric_mean(timed)
    return f"{counts}; geometric mean of time ratios to {judge} {mean:.2f}, worst {max(timed):.2f}"


def null_table(rows: Sequence[NullRow], peer: str) -> Table:
    result = Table(title=f"null test: {peer} against itself", box=box.SIMPLE_HEAD, title_justify="left")
    result.add_column("")
    for heading in ("one", "its twin", "ratio", "quartiles", "spread"):
        result.add_column(heading, justify="right")
    for row in rows:
        result.add_row(
            row.subject.name,
            seconds(row.timings[peer].median),
            seconds(row.timings[TWIN].median),
            f"{row.ratio.median:.3f}",
            f"{row.ratio.low:.3f}-{row.ratio.high:.3f}",
            f"±{row.spread:.1%}",
        )
    return result


def seconds(value: float) -> str:
    """A duration with the unit that suits it."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value * 1e9:.0f} ns"


def console() -> Console:
    """Standard output at its own width; a file or pipe gets lines wide enough for the whole table."""
    wide = Console()
    return wide if wide.is_terminal else Console(width=180)
