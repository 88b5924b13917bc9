"""What each step of a schedule did: figures before and after it, as data and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tensorlang.errors import InputError
from tensorlang.ir.stmt import PrimFunc
from tensorlang.schedule.figures import CACHE, Figures, Level, figures_of
from tensorlang.schedule.trace import Trace
from tensorlang.schedule.verdict import ProofEntry


@dataclass(frozen=True)
class StepReport:
    """One step: its text, what is known of its legality, and the program's figures after it (None: they need sizes)."""

    step: str
    verdict: str
    figures: Figures | None


@dataclass(frozen=True)
class Explanation:
    """A schedule explained; `str` is a table, `as_dict` plain data.

    Attributes:
        before: the figures of the program as it was written; None where symbolic sizes were not given.
        steps: what every step made of them.
        levels: the loops of the scheduled program, with their working sets.
        machine: what the machine code's innermost loops do (loops, spills, reloads, vector_bits); None if it was not read.
        cache: bytes of the cache that `bytes_moved` is about.
        note: why figures are missing.
    """

    kernel: str
    before: Figures | None
    steps: tuple[StepReport, ...]
    levels: tuple[Level, ...]
    machine: Mapping[str, int] | None
    cache: int
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Everything as dictionaries, lists, numbers and strings."""
        return asdict(self)

    def __str__(self) -> str:
        parts = [f"{self.kernel}: {len(self.steps)} schedule steps" + (f" ({self.note})" if self.note else "")]
        rows: list[tuple[str, ...]] = [("step", "verdict", "flops", "moved", "footprint", "lanes")]
        rows.append(("as written", "", *_cells(self.before)))
        previous = self.before
        for r in self.steps:
            cells = _cells(r.figures)
            if previous is not None:  # a ditto mark where nothing changed
                cells = tuple('"' if a == b else a for a, b in zip(cells, _cells(previous), strict=True))
            rows.append((r.step, r.verdict, *cells))
            previous = r.figures
        parts.append(_table(rows, left=2))
        if self.levels:
            parts.append("")
            loops: list[tuple[str, ...]] = [("loop", "kind", "extent", "runs", "working set")]
            loops += [
                ("  " * v.depth + v.loop, v.kind, str(v.extent), f"{v.runs:,}", _bytes(v.working_set)) for v in self.levels
            ]
            parts.append(_table(loops, left=2))
        if self.machine is not None:
            m = self.machine
            parts.append("")
            parts.append(
                f"machine code: {m['loops']} innermost loop(s), {m['vector_bits']}-bit vectors, "
                f"{m['spills']} spill(s), {m['reloads']} reload(s)"
            )
        return "\n".join(parts)


def explain(
    name: str,
    original: PrimFunc,
    trace: Trace | None,
    proof: Sequence[ProofEntry],
    machine: Mapping[str, int] | None = None,
    sizes: Mapping[str, int] | None = None,
    cache: int = CACHE,
) -> Explanation:
    """Replay `trace` on `original`, with the figures after every step.

    Raises:
        InputError: some sizes were given, but not all that the figures need.
    """
    programs = [original, *(trace.programs() if trace is not None else [])]
    note = ""
    figures: list[Figures | None] = [None] * len(programs)
    levels: list[Level] = []
    try:
        counted = [figures_of(func, sizes, cache) for func in programs]
        figures = [f for f, _ in counted]
        levels = counted[-1][1]
    except InputError as error:
        if sizes:
            raise
        note = str(error)
    reports = tuple(StepReport(str(p.step), str(p.verdict), f) for p, f in zip(proof, figures[1:], strict=False))
    return Explanation(name, figures[0], reports, tuple(levels), machine, cache, note)


def _cells(f: Figures | None) -> tuple[str, ...]:
    if f is None:
        return "", "", "", ""
    return "?" if f.flops is None else f"{f.flops:,}", _bytes(f.bytes_moved), _bytes(f.footprint), str(f.lanes)


def _bytes(n: int) -> str:
    """Exact below 10 KiB, else with three digits."""
    if n < 10 * 1024:
        return f"{n} B"
    value, unit = n / 1024, "KiB"
    for larger in ("MiB", "GiB", "TiB"):
        if value < 1000:
            break
        value, unit = value / 1024, larger
    return f"{value:.3g} {unit}"


def _table(rows: Sequence[Sequence[str]], left: int) -> str:
    """Columns aligned; the first `left` of them to the left."""
    widths = [max(len(r[n]) for r in rows) for n in range(len(rows[0]))]
    lines = []
    for r in rows:
        cells = [c.ljust(w) if n < left else c.rjust(w) for n, (c, w) in enumerate(zip(r, widths, strict=True))]
        lines.append("  " + "  ".join(cells).rstrip())
    return "\n".join(lines)
