"""What open dimensions cost: one model compiled with them open and once for the feeds' sizes, timed side by side.

    python -m bench dynamic                 # MiniLM and PP-OCR's recogniser, every input size
    python -m bench dynamic --cpu --threads 1    # of the process's CPU time: for a machine that others use too

The build for fixed sizes is there twice: what the twins differ by is noise.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from rich import box
from rich.table import Table

from bench import cache, measure
from bench.compare import Subject
from bench.peers import TensorLang

MODELS = ("minilm", "ppocr_rec")
AIM = 1.15  # open over fixed, at most


@dataclass(frozen=True)
class Cost:
    """Seconds of a run with open dimensions and with fixed ones; ``ratio`` is open over fixed. ``difference`` is the largest
    between their results, as a fraction of the largest result."""

    name: str
    open: float
    fixed: float
    ratio: measure.Ratio
    spread: float
    difference: float


def run(subject: Subject, threads: int, plan: measure.Plan, cpu: bool = False) -> Cost:
    """Compile ``subject`` both ways and time it.

    Args:
        cpu: measure the process's CPU time instead of wall clock; then one thread is the only number that means anything.

    Raises:
        BenchError: CPU time is asked for with several threads (those that wait spin).
    """
    if cpu and threads != 1:
        raise cache.BenchError("CPU time counts the threads that spin while they wait: give --threads 1 with --cpu")
    opened = TensorLang(static=False).prepare(subject.path, subject.feeds, threads)
    fixed, twin = (TensorLang(static=True).prepare(subject.path, subject.feeds, threads) for _ in range(2))
    results, expected = opened.outputs(), fixed.outputs()
    sides = {"open": opened.call, "fixed": fixed.call, "twin": twin.call}
    timings = measure.interleave(sides, plan, clock=time.process_time if cpu else time.perf_counter)
    return Cost(
        subject.name,
        timings["open"].median,
        timings["fixed"].median,
        measure.ratio(timings["open"], timings["fixed"]),
        measure.null_spread(measure.ratio(timings["fixed"], timings["twin"])),
        max((_difference(results[name], expected[name]) for name in expected), default=0.0),
    )


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    if not b.size:
        return 0.0
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(np.abs(a - b).max() / (np.abs(b).max() or 1.0))


def as_json(cost: Cost) -> dict[str, object]:
    return asdict(cost)


def table(costs: Sequence[Cost], threads: int, cpu: bool) -> Table:
    clock = "CPU time" if cpu else "wall clock"
    title = f"open against fixed dimensions, {threads} threads, {clock}"
    result = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    result.add_column("")
    for heading in ("open ms", "fixed ms", "ratio", "of minima", "quartiles", "noise", "differ by"):
        result.add_column(heading, justify="right")
    for cost in costs:
        r = cost.ratio
        result.add_row(
            cost.name,
            f"{cost.open * 1e3:.3f}",
            f"{cost.fixed * 1e3:.3f}",
            f"{r.median:.2f}",
            f"{r.minimum:.2f}",
            f"{r.low:.2f}-{r.high:.2f}",
            f"{cost.spread:.1%}",
            f"{cost.difference:.1e}",
            style="" if r.median <= AIM else "bold red",
        )
    return result
