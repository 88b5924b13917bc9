"""The sections of RESULTS.md that are written by the machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import cache, markdown


def row(name: str, ours: float, **peers: float) -> markdown.Row:
    timings = {"tensorlang": {"median": ours}, **{p: {"median": t} for p, t in peers.items()}}
    ratios = {p: {"median": ours / t} for p, t in peers.items()}
    return {"name": name, "verdict": "faster", "timings": timings, "ratios": ratios, "limit": 0.5e-3, "errors": {}}


def document(*rows: markdown.Row) -> str:
    found = {"versions": {"onnxruntime": "1"}, "machine": {"processor": "P"}, "threads": 2, "rows": list(rows)}
    return json.dumps(found)


def test_losses_come_first_and_the_best_peer_counts(tmp_path: Path) -> None:
    results, file = tmp_path / "RESULTS.md", tmp_path / "ops.json"
    results.write_text("# Results\n\nby hand\n")
    file.write_text(document(row("won", 1e-3, onnxruntime=3e-3, torch=2e-3), row("lost", 1e-3, onnxruntime=0.5e-3)))
    markdown.write(results, (file,), tmp_path / "none.json")
    text = results.read_text()
    assert text.startswith("# Results\n\nby hand\n")
    assert "| won | 1 ms | 3 ms | 2 ms | 0.50 torch | 50% |" in text
    assert "| lost | 1 ms | 500 us | - | 2.00 onnxruntime | 50% |" in text
    assert text.index("| lost") < text.index("| won") and "1 of 2 are level" in text
    markdown.write(results, (file,), tmp_path / "none.json")
    assert results.read_text() == text, "a second time replaces the section"


def test_without_results_there_is_nothing_to_write(tmp_path: Path) -> None:
    with pytest.raises(cache.BenchError, match="ops.json"):
        markdown.write(tmp_path / "R.md", (tmp_path / "ops.json",), tmp_path / "compile.json")


def test_builds_stand_beside_operators_dearest_first(tmp_path: Path) -> None:
    def build(cpu: float, **phases: float) -> dict[str, object]:
        return {"compile_cpu": cpu, "compile_wall": cpu, "process_cpu": cpu, "report": phases}

    rows = [
        {"name": "small", "cold": build(1.0, native=0.5), "warm": build(0.1), "error": ""},
        {"name": "large", "cold": build(9.0, native=5.0, passes=1.25), "warm": build(0.3), "error": ""},
        {"name": "broken", "cold": None, "warm": None, "error": "no such operator"},
    ]
    results, file = tmp_path / "RESULTS.md", tmp_path / "compile.json"
    file.write_text(json.dumps({"threads": 2, "rows": rows}))
    for _ in range(2):
        markdown.write(results, (), file)
    text = results.read_text()
    assert text.count("## Builds") == 1 and "| native | passes |" in text
    assert "| large | 9.00 | 9.00 | 0.30 | 0.30 | 5.00 | 1.25 |" in text
    assert text.index("| large") < text.index("| small") < text.index("| broken | failed: no such operator")
