"""What `Executable.profile` returns: the time of every kernel call of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Profile:
    """Per-kernel times.

    Attributes:
        rows: one per kernel call, slowest first: `kernel`, `nodes` (the model's, that it computes), `ms`, `gflops` (GFLOP/s),
            `gbps` (GB/s of inputs read and outputs written), `share` (of the total, 0 to 1).
        total_ms: sum of the kernels' times.
    """

    rows: list[dict[str, Any]]
    total_ms: float

    def by_kernel(self) -> list[dict[str, Any]]:
        """Calls of one kernel added up, slowest first."""
        found: dict[str, dict[str, Any]] = {}
        for row in self.rows:
            entry = found.setdefault(row["kernel"], {"kernel": row["kernel"], "calls": 0, "ms": 0.0, "share": 0.0})
            entry["calls"] += 1
            entry["ms"] += row["ms"]
            entry["share"] += row["share"]
        return sorted(found.values(), key=lambda e: -e["ms"])

    def __str__(self) -> str:
        columns = ("kernel", "ms", "share", "GFLOP/s", "GB/s", "nodes")
        table = [columns]
        for row in self.rows:
            numbers = (f"{row['ms']:.3f}", f"{row['share']:.1%}", f"{row['gflops']:.1f}", f"{row['gbps']:.1f}")
            table.append((row["kernel"], *numbers, row["nodes"]))
        widths = [max(len(line[k]) for line in table) for k in range(len(columns))]
        lines = []
        for line in table:
            cells = [line[0].ljust(widths[0]), *(line[k].rjust(widths[k]) for k in range(1, 5)), line[5][:80]]
            lines.append("  ".join(cells).rstrip())
        lines.append(f"{len(self.rows)} kernel calls, {self.total_ms:.3f} ms")
        return "\n".join(lines)
