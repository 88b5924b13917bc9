"""The table of half precision: what a row says, in the terminal and in the results file."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from bench import cache, half, markdown, measure, report


def ratio(median: float) -> measure.Ratio:
    return measure.ratio(measure.Timing(((median, median),)), measure.Timing(((1.0, 1.0),)))


ROW = half.Half(
    "net", {"bf16": 0.002, "float32": 0.006, "openvino": 0.004, "twin": 0.002}, ratio(0.5), ratio(3.0), 0.01,
    {"bf16": 0.0123, "openvino": 0.02}, "bf16",
)  # fmt: skip


def test_the_table():
    out = io.StringIO()
    Console(file=out, width=160).print(half.table([ROW], 2))
    line = next(line for line in out.getvalue().splitlines() if "net" in line)
    assert line.split() == ["net", "2", "ms", "4", "ms", "0.50", "0.50-0.50", "±1%", "6", "ms", "3.00", "1.23%", "2.00%"]


def test_the_section_of_the_results(tmp_path: Path):
    document = report.document("half", 2, measure.FULL, [half.as_json(ROW)])
    (tmp_path / "half.json").write_text(json.dumps(document))
    markdown.write(tmp_path / "RESULTS.md", tmp_path)
    text = (tmp_path / "RESULTS.md").read_text()
    assert "## Half precision" in text and "Geometric mean of the ratios: 0.50." in text
    assert "| net | 2 ms | 4 ms | 0.50 | 0.50-0.50 | ±1% | 6 ms | 3.00 | 1.23% | 2.00% |" in text


def test_without_openvino_there_is_nothing_to_compare(monkeypatch):
    monkeypatch.setattr(half.OpenVino, "version", lambda self: None)
    with pytest.raises(cache.BenchError, match="openvino"):
        half.run(None, 2, measure.QUICK)
