"""The tables of RESULTS.md that are written by the machine, from JSON: operators (``python -m bench ops``), losses first, and
what builds cost (``python -m bench compile``), dearest first, and what leaves the machine (``python -m bench deploy``)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench import cache, measure, report

HERE = Path(__file__).parent
RESULTS = HERE / "RESULTS.md"
FILES = (HERE / "results" / "ops.json", HERE / "results" / "ops_1.json")
BEGIN, END = "<!-- operators: begin, written by `python -m bench markdown` -->", "<!-- operators: end -->"
COMPILE_FILE = HERE / "results" / "compile.json"
COMPILE_BEGIN, COMPILE_END = "<!-- builds: begin, written by `python -m bench markdown` -->", "<!-- builds: end -->"
DEPLOY_FILE = HERE / "results" / "deploy.json"
DEPLOY_BEGIN, DEPLOY_END = "<!-- deployment: begin, written by `python -m bench markdown` -->", "<!-- deployment: end -->"
OURS = "tensorlang"

Row = dict[str, Any]


def write(
    results: Path = RESULTS,
    files: tuple[Path, ...] = FILES,
    compile_file: Path = COMPILE_FILE,
    deploy_file: Path = DEPLOY_FILE,
) -> None:
    """Replace the sections between their marks, or append them. BenchError where there is no result file."""
    found = [json.loads(file.read_text()) for file in files if file.exists()]
    if not found and not compile_file.exists() and not deploy_file.exists():
        raise cache.BenchError(f"no {files[0]}: run `python -m bench ops --json {files[0]}` first")
    text = results.read_text() if results.exists() else "# Results\n"
    if found:
        text = _replaced(text, BEGIN, END, ["## Operators", *(line for document in found for line in _table(document))])
    if compile_file.exists():
        text = _replaced(text, COMPILE_BEGIN, COMPILE_END, _compile_section(json.loads(compile_file.read_text())))
    if deploy_file.exists():
        text = _replaced(text, DEPLOY_BEGIN, DEPLOY_END, _deploy_section(json.loads(deploy_file.read_text())))
    cache.write_atomically(results, lambda temporary: temporary.write_text(text))


def _replaced(text: str, begin: str, end: str, lines: list[str]) -> str:
    section = "\n".join([begin, "", *lines, "", end])
    if begin in text and end in text:
        before, _, rest = text.partition(begin)
        return before + section + rest.partition(end)[2]
    return f"{text.rstrip()}\n\n{section}\n"


def _compile_section(document: dict[str, Any]) -> list[str]:
    built: list[Row] = [row for row in document["rows"] if row["cold"] and row["warm"]]
    failed = [row for row in document["rows"] if row not in built]
    phases = sorted(
        {phase for row in built for phase in row["cold"]["report"]},
        key=lambda phase: -sum(row["cold"]["report"].get(phase, 0.0) for row in built),
    )
    return [
        "## Builds",
        "",
        f"CPU seconds of `tl.compile`, {document['threads']} threads; cold: with an empty cache, warm: with it again,",
        "each in a fresh process (`python -m bench compile`). `process` is the whole warm process: interpreter, imports",
        "and one run. `wall` is of a machine that may have been doing other work. The phases are of the cold build.",
        "",
        "| model | cold | wall | warm | process | " + " | ".join(phases) + " |",
        "|---|" + "---|" * (len(phases) + 4),
        *(_build_line(row, phases) for row in sorted(built, key=lambda row: -row["cold"]["compile_cpu"])),
        *(f"| {row['name']} | failed: {row['error']} |" + " |" * (len(phases) + 3) for row in failed),
    ]


def _build_line(row: Row, phases: list[str]) -> str:
    cold, warm = row["cold"], row["warm"]
    figures = [cold["compile_cpu"], cold["compile_wall"], warm["compile_cpu"], warm["process_cpu"]]
    figures += [cold["report"].get(phase, 0.0) for phase in phases]
    return f"| {row['name']} | " + " | ".join(f"{value:.2f}" for value in figures) + " |"


def _deploy_section(document: dict[str, Any]) -> list[str]:
    ours, theirs = (document["installed_bytes"][name] / 1e6 for name in ("tensorlang-runtime", "onnxruntime"))
    version = document["versions"].get("onnxruntime", "")
    return [
        "## Deployment",
        "",
        "Each engine in fresh processes (medians), counted from after NumPy's import, three runs"
        f" (`python -m bench deploy`, {document['threads']} threads, f32, batch 1).",
        "`load` is CPU time up to the first run, imports included; `peak` the most memory that was resident (pages of mapped",
        "files included), of which `anonymous` no file holds. `C` is the exported library's run function, called beside",
        "Python's `bind` in alternating blocks of one process.",
        f"Installed beside the model, without NumPy: tensorlang's runtime {ours:.2f} MB (nothing for `.so`), "
        f"onnxruntime {version} {theirs:.0f} MB.",
        "",
        "| model | ONNX file | .tl | .so | load | onnxruntime's | peak | onnxruntime's | anonymous | onnxruntime's "
        "| Python | C | C / Python |",
        "|---|" + "---|" * 12,
        *(_deploy_line(row) for row in document["rows"]),
    ]


def _deploy_line(row: Row) -> str:
    ours, theirs = row["ours"], row["onnxruntime"]
    cells = [f"{row[size] / 1e6:.1f} MB" for size in ("model_bytes", "artifact_bytes", "library_bytes")]
    cells += [report.seconds(side["load_cpu"]) for side in (ours, theirs)]
    cells += [f"{side[kind]:.0f} MiB" for kind in ("peak_mib", "anonymous_mib") for side in (ours, theirs)]
    cells += [report.seconds(row["python_latency"]), report.seconds(row["c_latency"]), f"{row['c_ratio']['median']:.2f}"]
    return f"| {row['name']} | " + " | ".join(cells) + " |"


def best_peer(row: Row) -> tuple[str, float, float] | None:
    """The fastest rival's name and median seconds, and our time over its."""
    timed = [(name, float(row["timings"][name]["median"]), float(r["median"])) for name, r in row["ratios"].items()]
    return min(timed, key=lambda found: found[1], default=None)


def _table(document: dict[str, Any]) -> list[str]:
    rows: list[Row] = sorted(document["rows"], key=lambda row: -(best_peer(row) or ("", 0.0, float("inf")))[2])
    ratios = [best[2] for row in rows if (best := best_peer(row))]
    versions, threads = document["versions"], document["threads"]
    peers = [name for name in ("onnxruntime", "openvino", "torch") if any(name in row["ratios"] for row in rows)]
    level = sum(r <= 1.0 for r in ratios)
    means = (f"the geometric mean of the ratios is {measure.geometric_mean(ratios):.2f}, " if ratios else "") + (
        f"and {level} of {len(ratios)} are level with the best peer or ahead."
    )
    plan = document.get("plan") or {}
    blocks = f" of {plan['blocks']} blocks of at most {plan['block_seconds']} s" if plan else ""
    return [
        "",
        f"### {threads} thread{'s' if threads > 1 else ''}",
        "",
        f"{document['machine']['processor']}; " + ", ".join(f"{p} {versions.get(p, '')}" for p in (*peers, "numba")) + ".",
        f"Medians{blocks}, outputs preallocated, f32; `ratio` is our time over the best peer's, `limit` the share that we",
        f"reach of what the machine can do (`bench/limits.py`); {means}",
        "",
        "| operator | ours | " + " | ".join(peers) + " | ratio to the best | limit |",
        "|---|" + "---|" * (len(peers) + 3),
        *(_line(row, peers) for row in rows),
    ]


def _line(row: Row, peers: list[str]) -> str:
    best = best_peer(row)
    if best is None:
        return f"| {row['name']} | {row['verdict']}: {'; '.join(row['errors'].values())} |" + " |" * (len(peers) + 2)
    ours = float(row["timings"][OURS]["median"])
    cells = [report.seconds(float(row["timings"][p]["median"])) if p in row["timings"] else "-" for p in peers]
    share = f"{row['limit'] / ours:.0%}" if row.get("limit") else "-"
    mark = " (wrong)" if row["verdict"] == "wrong" else ""
    return f"| {row['name']}{mark} | {report.seconds(ours)} | {' | '.join(cells)} | {best[2]:.2f} {best[0]} | {share} |"
