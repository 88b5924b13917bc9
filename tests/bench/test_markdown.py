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
    markdown.write(results, (file,), tmp_path / "none.json", tmp_path / "none.json")
    text = results.read_text()
    assert text.startswith("# Results\n\nby hand\n")
    assert "| won | 1 ms | 3 ms | 2 ms | 0.50 torch | 50% |" in text
    assert "| lost | 1 ms | 500 us | - | 2.00 onnxruntime | 50% |" in text
    assert text.index("| lost") < text.index("| won") and "1 of 2 are level" in text
    markdown.write(results, (file,), tmp_path / "none.json", tmp_path / "none.json")
    assert results.read_text() == text, "a second time replaces the section"


def test_without_results_there_is_nothing_to_write(tmp_path: Path) -> None:
    with pytest.raises(cache.BenchError, match="ops.json"):
        markdown.write(tmp_path / "R.md", (tmp_path / "ops.json",), tmp_path / "compile.json", tmp_path / "deploy.json")


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
        markdown.write(results, (), file, tmp_path / "none.json")
    text = results.read_text()
    assert text.count("## Builds") == 1 and "| native | passes |" in text
    assert "| large | 9.00 | 9.00 | 0.30 | 0.30 | 5.00 | 1.25 |" in text
    assert text.index("| large") < text.index("| small") < text.index("| broken | failed: no such operator")


def test_deployment_has_a_section(tmp_path: Path) -> None:
    def process(cpu: float) -> dict[str, float]:
        return {"load_cpu": cpu, "peak_mib": cpu * 100, "anonymous_mib": cpu * 10}

    row = {
        "name": "m", "model_bytes": 2_000_000, "artifact_bytes": 3_000_000, "library_bytes": 4_000_000, "ours": process(0.05),
        "onnxruntime": process(0.5), "python_latency": 2e-3, "c_latency": 1e-3, "c_ratio": {"median": 0.5},
    }  # fmt: skip
    file = tmp_path / "deploy.json"
    installed = {"tensorlang-runtime": 100_000, "onnxruntime": 68_000_000}
    file.write_text(
        json.dumps({"threads": 2, "versions": {"onnxruntime": "1"}, "installed_bytes": installed, "rows": [row]})
    )
    for _ in range(2):
        markdown.write(tmp_path / "R.md", (), tmp_path / "none.json", file)
    text = (tmp_path / "R.md").read_text()
    assert text.count("## Deployment") == 1 and "onnxruntime 1 68 MB" in text
    line = "| m | 2.0 MB | 3.0 MB | 4.0 MB | 50 ms | 500 ms | 5 MiB | 50 MiB | 0 MiB | 5 MiB | 2 ms | 1 ms | 0.50 |"
    assert line in text
