"""The tables of RESULTS.md, written by the machine from the JSON files of `bench/results`: models, zoo and operators, losses
first; what builds cost, dearest first; and what leaves the machine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import cache, half, measure, report

HERE = Path(__file__).parent
RESULTS = HERE / "RESULTS.md"
OURS, JUDGE = "tensorlang", "onnxruntime"
VERDICTS = ("faster", "tie", "slower", "wrong", "failed")

Row = dict[str, Any]
Document = dict[str, Any]


def write(results: Path = RESULTS, folder: Path = HERE / "results") -> None:
    """Replace the sections for which `folder` has files between their marks, or append them.

    Raises:
        BenchError: there is no result file.
    """
    text = results.read_text() if results.exists() else "# Results\n"
    found = False
    for name, files, render in SECTIONS:
        documents = [json.loads((folder / file).read_text()) for file in files if (folder / file).exists()]
        if documents:
            found = True
            marks = (f"<!-- {name}: begin, written by `python -m bench markdown` -->", f"<!-- {name}: end -->")
            text = _replaced(text, *marks, render(documents))
    if not found:
        raise cache.BenchError(f"no results in {folder}: run `python -m bench models --json {folder / 'models.json'}` first")
    cache.write_atomically(results, lambda temporary: temporary.write_text(text))


def _replaced(text: str, begin: str, end: str, lines: list[str]) -> str:
    section = "\n".join([begin, "", *lines, "", end])
    if begin in text and end in text:
        before, _, rest = text.partition(begin)
        return before + section + rest.partition(end)[2]
    return f"{text.rstrip()}\n\n{section}\n"


def _models_section(documents: list[Document]) -> list[str]:
    text = "The standard models (`python -m bench models`)"
    return _latencies("Models", text, documents[0])


def _zoo_section(documents: list[Document]) -> list[str]:
    text = "Real models from public packages, at every input size that is listed, shapes fixed (`python -m bench zoo --all`)"
    return _latencies("Zoo", text, documents[0])


def _latencies(title: str, what: str, document: Document) -> list[str]:
    """Latency of whole models: against each rival, and against the fastest of them."""
    rows: list[Row] = sorted(document["rows"], key=lambda row: -(best_peer(row) or ("", 0.0, float("inf")))[2])
    peers = [p for p in (JUDGE, "openvino", "torch") if any(p in row["ratios"] for row in rows)]
    best = [found[2] for row in rows if (found := best_peer(row))]
    means = [
        f"{measure.geometric_mean([row['ratios'][p]['median'] for row in rows if p in row['ratios']]):.2f} of {p}'s time"
        for p in peers
    ]
    if len(peers) > 1:
        means.append(f"{measure.geometric_mean(best):.2f} of the faster one's, model by model")
    counts = {verdict: sum(row["verdict"] == verdict for row in rows) for verdict in VERDICTS}
    wrong = [f"{row['name']} ({_worst(row)})" for row in rows if row["verdict"] == "wrong"]
    plan, machine = document["plan"], document["machine"]
    return [
        f"## {title}",
        "",
        f"{what}, {document['threads']} threads, float32, batch as in the file; {_where(document, peers)}",
        f"Medians of {plan['blocks']} alternating blocks of at most {plan['block_seconds']} s, taken {machine['time'][:10]}, "
        "losses first. A ratio within",
        "what onnxruntime differs by from itself (its twin in the same run) is a tie.",
        "",
        f"Geometric means: {'; '.join(means)}. Against onnxruntime: "
        + ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count) + ".",
        *([f"Out of the bound of agreement: {'; '.join(wrong)}."] if wrong else []),
        "",
        f"| model | {OURS} | " + " | ".join(peers) + " | ratio to the best | "
        + " | ".join(f"to {p} (quartiles)" for p in peers) + " | onnxruntime's twin |",
        "|---|" + "---|" * (2 * len(peers) + 3),
        *(_latency(row, peers) for row in rows),
    ]


def _where(document: Document, peers: list[str]) -> str:
    versions = document["versions"]
    return f"{document['machine']['processor']}; " + ", ".join(f"{p} {versions.get(p, '')}" for p in (*peers, "numba")) + "."


def _latency(row: Row, peers: list[str]) -> str:
    best = best_peer(row)
    if best is None:
        return f"| {row['name']} | {row['verdict']}: {'; '.join(row['errors'].values())} |" + " |" * (2 * len(peers) + 2)
    cells = [report.seconds(float(row["timings"][p]["median"])) if p in row["timings"] else "-" for p in (OURS, *peers)]
    cells.append(f"{best[2]:.2f}" + (f" {best[0]}" if len(peers) > 1 else ""))
    for p in peers:
        r = row["ratios"].get(p)
        tie = ", a tie" if p == JUDGE and row["verdict"] == "tie" else ""
        cells.append(f"{r['median']:.2f} ({r['low']:.2f}-{r['high']:.2f}{tie})" if r else "-")
    mark = " (wrong)" if row["verdict"] == "wrong" else ""
    return f"| {row['name']}{mark} | " + " | ".join(cells) + f" | +-{row['null_spread']:.0%} |"


def _worst(row: Row) -> str:
    outputs = row["agreements"][OURS]["outputs"]
    worst = max(outputs, key=lambda o: o["error"] / o["bound"] if o["bound"] else float("inf"))
    return f"{worst['name']}: {worst['error']:.3g} of {worst['bound']:.3g}"


def _builds_section(documents: list[Document]) -> list[str]:
    (document,) = documents
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


def _deploy_section(documents: list[Document]) -> list[str]:
    (document,) = documents
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


def _half_section(documents: list[Document]) -> list[str]:
    (document,) = documents
    rows: list[Row] = sorted(document["rows"], key=lambda row: -float(row["ratio"]["median"]))
    mean = measure.geometric_mean([float(row["ratio"]["median"]) for row in rows])
    return [
        "## Half precision",
        "",
        f'`precision="bf16"` beside OpenVINO as it comes (`python -m bench half`, {document["threads"]} threads,'
        f" taken {document['machine']['time'][:10]}); {_where(document, ['openvino'])}",
        "`gain` is our float32 time over our bf16 time; errors are the largest difference from our float32 results, as a share",
        f"of the largest of them. Geometric mean of the ratios: {mean:.2f}.",
        "",
        "| model | bf16 | openvino | ratio | quartiles | noise | float32 | gain | error | openvino's |",
        "|---|" + "---|" * 9,
        *(f"| {row['name']} | " + " | ".join(half.cells(row)) + " |" for row in rows),
    ]


def best_peer(row: Row) -> tuple[str, float, float] | None:
    """The fastest rival's name and median seconds, and our time over its."""
    timed = [(name, float(row["timings"][name]["median"]), float(r["median"])) for name, r in row["ratios"].items()]
    return min(timed, key=lambda found: found[1], default=None)


def _operators_section(documents: list[Document]) -> list[str]:
    return ["## Operators", *(line for document in documents for line in _table(document))]


def _table(document: Document) -> list[str]:
    rows: list[Row] = sorted(document["rows"], key=lambda row: -(best_peer(row) or ("", 0.0, float("inf")))[2])
    ratios = [best[2] for row in rows if (best := best_peer(row))]
    threads = document["threads"]
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
        _where(document, peers),
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


# name in the marks, files in the folder of results, the section
SECTIONS: tuple[tuple[str, tuple[str, ...], Callable[[list[Document]], list[str]]], ...] = (
    ("models", ("models.json",), _models_section),
    ("half", ("half.json",), _half_section),
    ("zoo", ("zoo.json",), _zoo_section),
    ("operators", ("ops.json", "ops_1.json"), _operators_section),
    ("deployment", ("deploy.json",), _deploy_section),
    ("builds", ("compile.json",), _builds_section),
)
