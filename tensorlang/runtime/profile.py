"""What `Executable.profile` returns: the time of every kernel call of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensorlang.errors import InputError


@dataclass(frozen=True)
class Profile:
    """Per-kernel times.

    Attributes:
        rows: one per kernel call, slowest first: `kernel`, `nodes` (the model's, that it computes), `calls` (in a run: more
            than one in a loop), `ms` (of all of them), `gflops` (GFLOP/s), `gbps` (GB/s of inputs read and outputs
            written), `intensity` (floating-point operations a byte), `share` (of the total, 0 to 1); with a roofline also
            `bound` ("compute" or "memory") and `of_limit` (the least time that the machine could take, over the time
            taken).
        total_ms: sum of the kernels' times.
        peak_gflops, peak_gbps: the roofline's two lines, of a copy that is larger than all caches; 0 without one.
    """

    rows: list[dict[str, Any]]
    total_ms: float
    peak_gflops: float = 0.0
    peak_gbps: float = 0.0

    @classmethod
    def of(cls, measured: Sequence[tuple[Mapping[str, Any], int, float, int, int]]) -> Profile:
        """From calls: (kernel and label, how often, seconds together, floating-point operations, bytes)."""
        total = sum(seconds for _, _, seconds, _, _ in measured)
        rows = [
            {
                "kernel": step["kernel"],
                "nodes": step["label"],
                "calls": calls,
                "ms": seconds * 1e3,
                "gflops": flops / seconds * 1e-9 if seconds else 0.0,
                "gbps": nbytes / seconds * 1e-9 if seconds else 0.0,
                "intensity": flops / nbytes if nbytes else 0.0,
                "share": seconds / total if total else 0.0,
            }
            for step, calls, seconds, flops, nbytes in measured
        ]
        return cls(sorted(rows, key=lambda r: -r["ms"]), total * 1e3)

    def with_roofline(self, peak: float, bandwidth: Callable[[int], float], most: int) -> Profile:
        """The same with each row's place under the roofline.

        Args:
            peak: floating-point operations a second that the machine does at most.
            bandwidth: bytes a second that it moves at most, by how many are moved.
            most: bytes beyond which that does not change.
        """
        rows = []
        for row in self.rows:
            seconds = row["ms"] * 1e-3
            nbytes, flops = row["gbps"] * 1e9 * seconds, row["gflops"] * 1e9 * seconds
            one = max(1, round(nbytes / row["calls"]))
            least = {"compute": flops / peak, "memory": nbytes / bandwidth(one) if nbytes else 0.0}
            bound = max(least, key=lambda kind: least[kind])
            rows.append({**row, "bound": bound, "of_limit": least[bound] / seconds if seconds else 0.0})
        return Profile(rows, self.total_ms, peak * 1e-9, bandwidth(most) * 1e-9)

    def by_kernel(self) -> list[dict[str, Any]]:
        """Calls of one kernel added up, slowest first."""
        found: dict[str, dict[str, Any]] = {}
        for row in self.rows:
            entry = found.setdefault(row["kernel"], {"kernel": row["kernel"], "calls": 0, "ms": 0.0, "share": 0.0})
            entry["calls"] += row["calls"]
            entry["ms"] += row["ms"]
            entry["share"] += row["share"]
        return sorted(found.values(), key=lambda e: -e["ms"])

    def plot(self, path: str | Path) -> None:
        """Draw the roofline, each kernel a point whose area is its share of the time, into an image file.

        Raises:
            InputError: there is no roofline (`profile(roofline=True)`), or matplotlib is not installed (`tensorlang[plot]`).
        """
        if not self.peak_gflops:
            raise InputError("this profile has no roofline: take it with profile(feeds, roofline=True)")
        try:
            from matplotlib.figure import Figure
        except ImportError:
            raise InputError("drawing takes matplotlib: pip install 'tensorlang[plot]'") from None

        rows = [row for row in self.rows if row["gflops"] and row["intensity"]]
        ends = [row["intensity"] for row in rows] + [self.peak_gflops / self.peak_gbps]
        low, high = min(ends) / 2, max(ends) * 2
        figure = Figure(figsize=(9, 6), layout="constrained")
        axes = figure.add_subplot()
        knee = self.peak_gflops / self.peak_gbps
        axes.plot([low, knee, high], [low * self.peak_gbps, self.peak_gflops, self.peak_gflops], color="black", linewidth=1)
        sizes = [20 + 1000 * row["share"] for row in rows]
        axes.scatter([row["intensity"] for row in rows], [row["gflops"] for row in rows], s=sizes, alpha=0.5)
        for row in sorted(rows, key=lambda r: -r["share"])[:12]:
            axes.annotate(row["kernel"], (row["intensity"], row["gflops"]), fontsize=7)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("floating-point operations a byte")
        axes.set_ylabel("GFLOP/s")
        axes.set_title(f"{self.peak_gflops:.0f} GFLOP/s, {self.peak_gbps:.0f} GB/s beyond the caches; {self.total_ms:.2f} ms")
        figure.savefig(path)

    def __str__(self) -> str:
        roofline = bool(self.peak_gflops)
        columns = ("kernel", "calls", "ms", "share", "GFLOP/s", "GB/s", *(("bound", "of limit") if roofline else ()), "nodes")
        table = [columns]
        for row in self.rows:
            place = (row["bound"], f"{row['of_limit']:.0%}") if roofline else ()
            numbers = (f"{row['ms']:.3f}", f"{row['share']:.1%}", f"{row['gflops']:.1f}", f"{row['gbps']:.1f}")
            table.append((row["kernel"], str(row["calls"]), *numbers, *place, row["nodes"]))
        last = len(columns) - 1
        widths = [max(len(line[k]) for line in table) for k in range(last)]
        lines = []
        for line in table:
            cells = [line[0].ljust(widths[0]), *(line[k].rjust(widths[k]) for k in range(1, last)), line[last][:80]]
            lines.append("  ".join(cells).rstrip())
        lines.append(f"{sum(row['calls'] for row in self.rows)} kernel calls, {self.total_ms:.3f} ms")
        return "\n".join(lines)
