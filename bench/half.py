"""What half precision gains and costs: `precision="bf16"` beside OpenVINO as it comes (bf16 where the processor has it), and
beside our own float32, in one run.

    python -m bench half --json bench/results/half.json

Errors are the largest difference from our float32 results, as a fraction of the largest of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from rich import box
from rich.table import Table

from bench import cache, measure, report
from bench.compare import Subject
from bench.peers import OpenVino, Outputs, TensorLang


@dataclass(frozen=True)
class Half:
    """Seconds of a run by name: "bf16", "float32" (ours), "openvino" and "twin" (ours in bf16 again). ``ratio`` is ours in bf16
    over OpenVINO, ``gain`` our float32 over our bf16, ``errors`` by name."""

    name: str
    seconds: Mapping[str, float]
    ratio: measure.Ratio
    gain: measure.Ratio
    spread: float
    errors: Mapping[str, float]
    precision: str


def run(subject: Subject, threads: int, plan: measure.Plan) -> Half:
    """Compile ``subject`` in both precisions and time it.

    Raises:
        BenchError: OpenVINO is not installed.
    """
    if OpenVino().version() is None:
        raise cache.BenchError("peer 'openvino' is not installed: pip install 'tensorlang[peers]'")
    half, full = TensorLang(precision="bf16"), TensorLang()
    sides = {"bf16": half, "float32": full, "openvino": OpenVino(precision=None), "twin": half}
    prepared = {name: peer.prepare(subject.path, subject.feeds, threads) for name, peer in sides.items()}
    expected = prepared["float32"].outputs()
    errors = {name: _error(prepared[name].outputs(), expected) for name in ("bf16", "openvino")}
    timings = measure.interleave({name: ready.call for name, ready in prepared.items()}, plan)
    return Half(
        subject.name,
        {name: timing.median for name, timing in timings.items()},
        measure.ratio(timings["bf16"], timings["openvino"]),
        measure.ratio(timings["float32"], timings["bf16"]),
        measure.null_spread(measure.ratio(timings["bf16"], timings["twin"])),
        errors,
        str(prepared["bf16"].details.get("precision", "")),
    )


def _error(results: Outputs, expected: Outputs) -> float:
    worst = 0.0
    for name, array in expected.items():
        a, b = results[name].astype(np.float64).reshape(array.shape), array.astype(np.float64)
        worst = max(worst, float(np.abs(a - b).max(initial=0.0) / (np.abs(b).max(initial=0.0) or 1.0)))
    return worst


def as_json(row: Half) -> dict[str, object]:
    return asdict(row)


def table(rows: Sequence[Half], threads: int) -> Table:
    title = f"precision bf16, {threads} threads; ratio = our time / OpenVINO's as it comes"
    result = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    result.add_column("")
    for heading in ("bf16", "openvino", "ratio", "quartiles", "noise", "float32", "gain", "error", "openvino's"):
        result.add_column(heading, justify="right")
    for row in rows:
        result.add_row(row.name, *cells(as_json(row)), style="green" if row.ratio.median < 1 - row.spread else "")
    return result


def cells(row: Mapping[str, object]) -> list[str]:
    """A row of `as_json`, as text."""
    seconds, ratio, gain, errors = (row[key] for key in ("seconds", "ratio", "gain", "errors"))
    assert isinstance(seconds, Mapping) and isinstance(ratio, Mapping) and isinstance(gain, Mapping)
    assert isinstance(errors, Mapping) and isinstance(row["spread"], float)
    return [
        report.seconds(seconds["bf16"]), report.seconds(seconds["openvino"]), f"{ratio['median']:.2f}",
        f"{ratio['low']:.2f}-{ratio['high']:.2f}", f"±{row['spread']:.0%}", report.seconds(seconds["float32"]),
        f"{gain['median']:.2f}", f"{errors['bf16']:.2%}", f"{errors['openvino']:.2%}",
    ]  # fmt: skip
