"""What a schedule step costs, proof included: milliseconds per step on the matmul and convolution kernels.

    python -m bench.schedule_cost

Each schedule is made once, on programs that the process has not seen: no memo helps. An unrelated program comes first, so that
imports do not count. Times are of the process's CPU, so a busy machine does not show.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.table import Table

from bench import report
from tensorlang import te
from tensorlang.build import schedule_of
from tensorlang.ir.stmt import PrimFunc
from tensorlang.schedule import Schedule
from tensorlang.schedule.rules import Machine
from tensorlang.schedule.state import ScheduleState

BUDGET_MS = 5.0


def matmul(m: Any, n: Any, k: Any) -> PrimFunc:
    """out[i, j] = max(sum_k x[i, k] * w[k, j] + b[j], 0)"""
    x, w, b = te.placeholder((m, k), name="x"), te.placeholder((k, n), name="w"), te.placeholder((n,), name="b")
    r = te.reduce_axis(k, name="k")
    y = te.compute((m, n), lambda i, j: te.sum(x[i, r] * w[r, j], axis=r), name="y")
    out = te.compute((m, n), lambda i, j: te.maximum(y[i, j] + b[j], 0.0), name="out")
    return te.create_prim_func("matmul", [x, w, b], [out])


def conv(size: int, channels: int, filters: int, kernel: int, stride: int) -> PrimFunc:
    """A padded NHWC convolution with bias and relu."""
    pad, count = kernel // 2, (size + 2 * (kernel // 2) - kernel) // stride + 1
    x = te.placeholder((1, size, size, channels), name="x")
    w, b = te.placeholder((kernel, kernel, channels, filters), name="w"), te.placeholder((filters,), name="b")
    wide = te.compute(
        (1, size + 2 * pad, size + 2 * pad, channels),
        lambda n, h, v, c: te.if_then_else(
            te.all_of(h >= pad, h < size + pad, v >= pad, v < size + pad), x[n, h - pad, v - pad, c], 0.0
        ),
        name="pad",
    )
    kh, kw, ic = te.reduce_axis(kernel, "kh"), te.reduce_axis(kernel, "kw"), te.reduce_axis(channels, "ic")
    y = te.compute(
        (1, count, count, filters),
        lambda n, h, v, c: te.sum(wide[n, h * stride + kh, v * stride + kw, ic] * w[kh, kw, ic, c], axis=[kh, kw, ic]),
        name="y",
    )
    out = te.compute(y.shape, lambda n, h, v, c: te.maximum(y[n, h, v, c] + b[c], 0.0), name="out")
    return te.create_prim_func("conv", [x, w, b], [out])


def tiled(s: Schedule) -> None:
    """The textbook's schedule of a matmul."""
    y, out = s["y"], s["out"]
    io, jo, ii, ji = out.tile(*out.axis, 6, 64)
    y.compute_at(out, jo)
    out.parallel(out.fuse(io, jo))
    out.vectorize(ji)
    (i, j), (k,) = y.axis, y.reduce_axis
    ko, ki = y.split(k, 4)
    y.reorder(ko, i, ki, j)
    y.vectorize(j)


def default(s: Schedule) -> None:
    schedule_of(s.func, machine=Machine(64, 32))


CASES: dict[str, tuple[Callable[[], PrimFunc], Callable[[Schedule], None]]] = {
    "matmul 128x768x768, default": (lambda: matmul(128, 768, 768), default),
    "matmul 1009x1009x1009, default": (lambda: matmul(1009, 1009, 1009), default),
    "matmul MxNxK, default": (lambda: matmul(te.var("M"), te.var("N"), te.var("K")), default),
    "matmul 126x768x768, by hand": (lambda: matmul(126, 768, 764), tiled),
    "matmul 1009x1009x1009, by hand": (lambda: matmul(1009, 1011, 1013), tiled),
    "matmul MxNxK, by hand": (lambda: matmul(te.var("M"), te.var("N"), te.var("K")), tiled),
    "conv 3x3 56x56 64->64, default": (lambda: conv(56, 64, 64, 3, 1), default),
    "conv 3x3/2 56x56 64->128, default": (lambda: conv(56, 64, 128, 3, 2), default),
    "conv 7x7/2 224x224 3->64, default": (lambda: conv(224, 3, 64, 7, 2), default),
}


@contextmanager
def timed_steps() -> Iterator[list[tuple[float, str, str]]]:
    """(milliseconds, primitive, verdict) of every step that is taken meanwhile."""
    steps: list[tuple[float, str, str]] = []
    apply = ScheduleState._apply

    def timed(self: ScheduleState, primitive: str, *args: Any, **kwargs: Any) -> Any:
        start = time.process_time()
        made = apply(self, primitive, *args, **kwargs)
        steps.append(((time.process_time() - start) * 1e3, primitive, self.proof[-1].decided.status))
        return made

    ScheduleState._apply = timed  # type: ignore[method-assign]
    try:
        yield steps
    finally:
        ScheduleState._apply = apply  # type: ignore[method-assign]


def measure(case: str) -> list[tuple[float, str, str]]:
    """(milliseconds, primitive, verdict) of each step of one of `CASES`."""
    program, schedule = CASES[case]
    func = program()
    with timed_steps() as steps:
        schedule(Schedule(func))
    return steps


def main() -> None:
    """Print the table."""
    default(Schedule(conv(14, 8, 8, 3, 1)))
    table = Table(title=f"CPU milliseconds per schedule step (budget: {BUDGET_MS:g})")
    for column in ("schedule", "steps", "proved", "median", "max", "slowest"):
        table.add_column(column, justify="left" if column in ("schedule", "slowest") else "right")
    for case in CASES:
        steps = measure(case)
        slowest = max(steps)
        proved = sum(status == "proved" for _, _, status in steps)
        median = statistics.median(ms for ms, _, _ in steps)
        table.add_row(case, str(len(steps)), str(proved), f"{median:.2f}", f"{slowest[0]:.2f}", slowest[1])
    report.console().print(table)


if __name__ == "__main__":
    main()
