"""The operator section of RESULTS.md."""

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
    markdown.write(results, (file,))
    text = results.read_text()
    assert text.startswith("# Results\n\nby hand\n")
    assert "| won | 1 ms | 3 ms | 2 ms | 0.50 torch | 50% |" in text
    assert "| lost | 1 ms | 500 us | - | 2.00 onnxruntime | 50% |" in text
    assert text.index("| lost") < text.index("| won") and "1 of 2 are level" in text
    markdown.write(results, (file,))
    assert results.read_text() == text, "a second time replaces the section"


def test_without_results_there_is_nothing_to_write(tmp_path: Path) -> None:
    with pytest.raises(cache.BenchError, match="ops.json"):
        markdown.write(tmp_path / "R.md", (tmp_path / "ops.json",))
