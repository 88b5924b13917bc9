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
    markdown.write(results, tmp_path)
    text = results.read_text()
    assert text.startswith("# Results\n\nby hand\n")
    assert "| won | 1 ms | 3 ms | 2 ms | 0.50 torch | 50% |" in text
    assert "| lost | 1 ms | 500 us | - | 2.00 onnxruntime | 50% |" in text
    assert text.index("| lost") < text.index("| won") and "1 of 2 are level" in text
    markdown.write(results, tmp_path)
    assert results.read_text() == text, "a second time replaces the section"


def test_without_results_there_is_nothing_to_write(tmp_path: Path) -> None:
    with pytest.raises(cache.BenchError, match="no results in"):
        markdown.write(tmp_path / "R.md", tmp_path)


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
        markdown.write(results, tmp_path)
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
        markdown.write(tmp_path / "R.md", tmp_path)
    text = (tmp_path / "R.md").read_text()
    assert text.count("## Deployment") == 1 and "onnxruntime 1 68 MB" in text
    line = "| m | 2.0 MB | 3.0 MB | 4.0 MB | 50 ms | 500 ms | 5 MiB | 50 MiB | 0 MiB | 5 MiB | 2 ms | 1 ms | 0.50 |"
    assert line in text


def test_models_stand_before_operators_with_ties_and_wrong_results_marked(tmp_path: Path) -> None:
    def model(name: str, ours: float, verdict: str, **peers: float) -> markdown.Row:
        quartiles = {p: {"median": ours / t, "low": 0.9 * ours / t, "high": 1.1 * ours / t} for p, t in peers.items()}
        outputs = [{"name": "y", "error": 0.5, "bound": 0.25}]
        more = {"null_spread": 0.07, "verdict": verdict, "agreements": {"tensorlang": {"outputs": outputs}}}
        return {**row(name, ours, **peers), "ratios": quartiles, **more}

    rows = [
        model("fast", 1e-3, "faster", onnxruntime=4e-3, openvino=2e-3),
        model("level", 1e-3, "tie", onnxruntime=1e-3, openvino=2e-3),
        model("odd", 1e-3, "wrong", onnxruntime=2e-3),
    ]
    found = {
        "versions": {"onnxruntime": "1"}, "machine": {"processor": "P", "time": "2026-01-02T"}, "threads": 2, "rows": rows,
        "plan": {"blocks": 3, "block_seconds": 0.1},
    }  # fmt: skip
    (tmp_path / "models.json").write_text(json.dumps(found))
    (tmp_path / "zoo.json").write_text(json.dumps(found))
    for _ in range(2):
        markdown.write(tmp_path / "R.md", tmp_path)
    text = (tmp_path / "R.md").read_text()
    assert text.count("## Models") == text.count("## Zoo") == 1
    assert "| level | 1 ms | 1 ms | 2 ms | 1.00 onnxruntime | 1.00 (0.90-1.10, a tie) | 0.50 (0.45-0.55) | +-7% |" in text
    assert "0.50 of onnxruntime's time; 0.50 of openvino's time; 0.63 of the faster one's" in text
    assert "1 faster, 1 tie, 1 wrong" in text and "odd (y: 0.5 of 0.25)" in text
    assert text.index("| level") < text.index("| fast")
