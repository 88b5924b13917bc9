"""The table of a GPU run, as Markdown. A figure that was not measured says so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NONE = "not measured"
BOUND = ("elementwise", "add", "softmax", "layer_norm", "sum_rows", "sum_columns", "transpose")  # by memory
GOAL_COPY, GOAL_GEMM = 0.9, 0.85


def markdown(results: Mapping[str, Any]) -> str:
    """All of `bench/RESULTS-gpu.md`."""
    cases = {c["name"]: c for c in results["cases"]}
    return "\n".join([*_head(results), *_goals(results, cases), *_models(cases), *_checks(results)]) + "\n"


def _head(results: Mapping[str, Any]) -> list[str]:
    device, versions = results["device"], results["versions"]
    said = ", ".join(f"{k} {v}" for k, v in device.items() if k != "name") or NONE
    here = ", ".join(f"{k} {v}" for k, v in versions["here"].items())
    made = ", ".join(f"{k} {v}" for k, v in versions["built with"].items())
    return [
        "# Results on a GPU", "",
        "`make bench-gpu` wrote this. Times are medians between events of the device (CUDA graph of all launches of a program,",
        "data on the device); a rival's are taken the same way in torch, TF32 off.", "",
        f"- Device: {device.get('name', NONE)} ({said})", f"- Measured {results['time']} with {here}",
        f"- Compiled with {made}", "",
    ]  # fmt: skip


def _goals(results: Mapping[str, Any], cases: Mapping[str, Mapping[str, Any]]) -> list[str]:
    copy = results["copy_gbs"]
    lines = ["## Operators", "", f"Copy within the device: {_number(copy, 'GB/s')}", ""]
    lines += ["| operator | ms | achieved | of the limit | goal | torch ms | status |", "|---|---|---|---|---|---|---|"]
    for name in BOUND:
        c = cases.get(name, {})
        share = c["gbs"] / copy if "gbs" in c and copy else None
        lines.append(_row(name, c, _number(c.get("gbs"), "GB/s"), _share(share, "of copy"), f"{GOAL_COPY:.0%} of copy"))
    for name, c in cases.items():
        if c.get("family") == "operator" and name not in BOUND:
            best = _rival(c, "cuBLAS f32") or _rival(c, "torch SDPA")
            share = best / c["ms"] if best and "ms" in c else None
            goal = f"{GOAL_GEMM:.0%} of cuBLAS f32" if name.startswith("matmul") else "torch's SDPA"
            lines.append(_row(name, c, _number(c.get("gflops"), "GFLOP/s"), _share(share, "of the rival's speed"), goal))
    bf16 = _rival(cases.get("matmul_4096", {}), "cuBLAS bf16")
    lines += ["", f"bf16 products on tensor cores: {NONE} (cuBLAS bf16 at 4096: {_number(bf16, 'ms')}).", ""]
    return lines


def _models(cases: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = ["## Models", "", "| model | launches | ms | torch.compile ms | ratio | torch eager ms | status |"]
    lines.append("|---|---|---|---|---|---|---|")
    for name, c in cases.items():
        if c.get("family") == "model":
            theirs, eager = _rival(c, "torch.compile"), _rival(c, "torch eager")
            ratio = f"{c['ms'] / theirs:.2f}" if theirs and "ms" in c else NONE
            columns = (str(c.get("launches", "")), _number(c.get("ms")), _number(theirs), ratio, _number(eager), _status(c))
            lines.append(f"| {name} | {' | '.join(columns)} |")
    return [*lines, ""]


def _checks(results: Mapping[str, Any]) -> list[str]:
    counts: dict[str, int] = {}
    for c in results["cases"]:
        counts[c["status"]] = counts.get(c["status"], 0) + 1
    lines = ["## Agreement with the CPU", "", ", ".join(f"{n} {status}" for status, n in counts.items()) or NONE, ""]
    lines += [f"- {c['name']}: {_status(c)}" for c in results["cases"] if c["status"] != "agrees"]
    made = [c["assembly"] for c in results["cases"] if c.get("assembly")]
    if not made:
        return [*lines, "", f"Registers and spills: {NONE} (no ptxas where this was compiled)"]
    functions, spilling = (sum(a[k] for a in made) for k in ("functions", "spilling"))
    most = max(a["registers"] for a in made)
    said = f"{functions} functions, at most {most} registers a thread, {spilling} with spills."
    return [*lines, "", f"Assembled for sm_90: {said}"]


def _row(name: str, c: Mapping[str, Any], achieved: str, share: str, goal: str) -> str:
    theirs = next((v for v in c.get("rivals", {}).values() if isinstance(v, float)), None)
    return f"| {name} | {_number(c.get('ms'))} | {achieved} | {share} | {goal} | {_number(theirs)} | {_status(c)} |"


def _status(c: Mapping[str, Any]) -> str:
    why = " ".join(str(c.get("why", "")).split())[:160]
    return f"{c.get('status', NONE)}{': ' + why if why else ''}".replace("|", "/")


def _rival(c: Mapping[str, Any], name: str) -> float | None:
    found = c.get("rivals", {}).get(name)
    return found if isinstance(found, float) else None


def _number(value: Any, unit: str = "") -> str:
    return f"{value:.4g} {unit}".strip() if isinstance(value, int | float) else NONE


def _share(value: float | None, of: str) -> str:
    return NONE if value is None else f"{value:.0%} {of}"
