"""Runs what `bench.gpu.build` compiled on this machine's GPU: compares, times, writes JSON and a table.

    python -m bench.gpu.run DIR [--check] [--only TEXT] [--json FILE] [--markdown FILE] [--seconds 0.3] [--no-rivals]

Needs numpy and NVIDIA's driver. A case that fails is recorded and the rest goes on; results are written after each case, so
that a run that is cut short leaves what it had. Exit code: 0 all agree, 1 something failed or disagreed, 2 nothing to run on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from bench.gpu import report, rivals
from bench.gpu.data import Recipe, disagreement, sample_positions, storage, values, whole
from tensorlang.errors import TensorlangError
from tensorlang.runtime.artifact import Artifact, read_artifact
from tensorlang.runtime.cuda import DeviceProgram, default_device

COPY_BYTES = 1 << 30
OpenDevice = Callable[[Artifact | None], Any]


@dataclass(frozen=True)
class Options:
    """How to run.

    Attributes:
        check: compare only, time nothing.
        only: texts of which a case's name contains one; empty: every case.
        seconds: how long one measurement takes, about.
        rivals: measure torch too, where it is there.
        json, markdown: files to write, if any.
    """

    check: bool = False
    only: tuple[str, ...] = ()
    seconds: float = 0.3
    rivals: bool = True
    json: Path | None = None
    markdown: Path | None = None


def run_all(folder: Path, options: Options, device_of: OpenDevice, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Run every case of a folder that is wanted; the results, JSON-able.

    Args:
        device_of: the device for a program; called with None, the device itself.
    """
    manifest = json.loads((folder / "manifest.json").read_text())
    device = device_of(None)
    results: dict[str, Any] = {
        "device": {**device.describe(), **_nvidia_smi()},
        "versions": {"built with": manifest["versions"], "here": {"python": sys.version.split()[0], "numpy": np.__version__}},
        "time": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "copy_gbs": None,
        "cases": [],
    }
    torch_is = rivals.torch_versions() if options.rivals and not options.check else {}
    results["versions"]["here"] |= torch_is
    rival = rivals.Rivals(folder, options.seconds) if torch_is else None
    if not options.check:
        results["copy_gbs"] = copy_bandwidth(device, options.seconds)
        say(f"copy: {results['copy_gbs']:.0f} GB/s")
    for case in manifest["cases"]:
        if options.only and not any(text in case["name"] for text in options.only):
            continue
        done = _guarded(folder, case, options, device_of, rival)
        results["cases"].append(done)
        say(_line(done))
        _write(results, options)
    results["device"] |= {f"after_{k}": v for k, v in _nvidia_smi().items() if k.startswith("clock")}
    _write(results, options)
    return results


def _guarded(folder: Path, case: Mapping[str, Any], options: Options, device_of: OpenDevice, rival: Any) -> dict[str, Any]:
    """One case; what goes wrong with it is its result."""
    if "refused" in case:
        return {"name": case["name"], "status": "not compiled", "why": case["refused"]}
    try:
        return run_case(folder, case, options, device_of, rival)
    except (TensorlangError, OSError, ValueError, MemoryError) as error:
        return {"name": case["name"], "family": case["family"], "status": "failed", "why": f"{type(error).__name__}: {error}"}


def run_case(
    folder: Path, case: Mapping[str, Any], options: Options, device_of: OpenDevice, rival: Any = None
) -> dict[str, Any]:
    """Run one case, compare its results with the expected ones, and time it.

    Raises:
        TensorlangError: the driver refuses or fails.
        ValueError, OSError: the folder is damaged.
    """
    arrays = dict(np.load(folder / f"{case['name']}.npz"))
    artifact = read_artifact(folder / f"{case['name']}.tl")
    held = case["weights"]
    artifact.weights = whole(arrays["weights"], held["places"], held["bytes"], held["digest"])
    inputs = [Recipe.of_json(r).draw() if r else arrays[f"input{k}"] for k, r in enumerate(case["inputs"])]
    entries = artifact.manifest["inputs"]
    inputs = [np.ascontiguousarray(a, storage(e["dtype"])).reshape(e["shape"]) for a, e in zip(inputs, entries, strict=True)]
    types = [e["dtype"] for e in artifact.manifest["outputs"]]
    outputs = [np.empty(e["shape"], storage(e["dtype"])) for e in artifact.manifest["outputs"]]
    device = device_of(artifact)
    program = DeviceProgram(device, artifact)
    try:
        program.run(inputs, outputs)
        worst = max(
            disagreement(values(y.reshape(-1)[sample_positions(y.size)], t), arrays[f"expected{k}"], case["allowed"])
            for k, (y, t) in enumerate(zip(outputs, types, strict=True))
        )
        kept = ("name", "family", "batch", "flop", "bytes", "launches", "assembly")
        done = {**{k: case.get(k) for k in kept}, "status": "agrees" if worst <= 1 else "disagrees", "difference": worst}
        if not options.check and case["family"] != "check":
            done |= _timed(device, program, inputs, outputs, case, options)
    finally:
        program.free()
    if rival is not None and case["rival"]:
        done["rivals"] = rival.measure(case, inputs, arrays)
    return done


def _timed(
    device: Any, program: DeviceProgram, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray], case: Mapping[str, Any],
    options: Options,
) -> dict[str, Any]:  # fmt: skip
    """Milliseconds of the launches alone (events), and of a whole call with its copies (wall clock)."""
    times = device.times(lambda: device.replay(program.graph), 3)
    times = device.times(lambda: device.replay(program.graph), rivals.runs_for(median(times), options.seconds))
    calls = []
    for _ in range(3):
        begin = time.perf_counter()
        program.run(inputs, outputs)
        calls.append((time.perf_counter() - begin) * 1e3)
    ms = median(times)
    return {
        "ms": ms, "ms_least": min(times), "ms_most": max(times), "runs": len(times), "call_ms": median(calls),
        "gflops": case["flop"] / ms / 1e6, "gbs": case["bytes"] / ms / 1e6,
    }  # fmt: skip


def copy_bandwidth(device: Any, seconds: float) -> float:
    """GB/s, read and written together, of the driver's own copy of 1 GiB within the device."""
    source = device.allocate(COPY_BYTES)
    target = device.allocate(COPY_BYTES)
    try:
        once = median(device.times(lambda: device.copy(source, target, COPY_BYTES), 3))
        ms = median(device.times(lambda: device.copy(source, target, COPY_BYTES), rivals.runs_for(once, seconds)))
        return 2 * COPY_BYTES / ms / 1e6
    finally:
        device.free(source)
        device.free(target)


def _nvidia_smi() -> dict[str, str]:
    """What nvidia-smi says of driver and clocks now; empty where it is missing."""
    fields = {
        "driver": "driver_version", "clock_sm": "clocks.sm", "clock_memory": "clocks.mem", "clock_sm_most": "clocks.max.sm",
        "clock_memory_most": "clocks.max.mem", "power_limit": "power.limit",
    }  # fmt: skip
    command = ["nvidia-smi", f"--query-gpu={','.join(fields.values())}", "--format=csv,noheader", "--id=0"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    values = [v.strip() for v in said.stdout.strip().split(",")]
    return dict(zip(fields, values, strict=True)) if said.returncode == 0 and len(values) == len(fields) else {}


def _line(done: Mapping[str, Any]) -> str:
    text = f"{done['name']:24} {done['status']}"
    if "ms" in done:
        text += f"  {done['ms']:.4f} ms"
    beside = {k: v for k, v in done.get("rivals", {}).items() if isinstance(v, float)}
    text += "".join(f"  {k} {v:.4f}" for k, v in beside.items())
    return text + (f"  {done['why']}"[:200] if "why" in done else "")


def _write(results: Mapping[str, Any], options: Options) -> None:
    for path, text in ((options.json, json.dumps(results, indent=1) + "\n"), (options.markdown, report.markdown(results))):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.tmp")
            temporary.write_text(text)
            temporary.replace(path)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; its exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--check", action="store_true", help="compare only, time nothing")
    parser.add_argument("--only", action="append", default=[], help="cases whose name contains this; may be repeated")
    parser.add_argument("--seconds", type=float, default=0.3, help="of one measurement")
    parser.add_argument("--no-rivals", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    a = parser.parse_args(argv)
    options = Options(a.check, tuple(a.only), a.seconds, not a.no_rivals, a.json, a.markdown)
    try:
        device = default_device()
    except TensorlangError as error:
        print(f"nothing to run on: {error}", file=sys.stderr)
        return 2
    results = run_all(a.folder, options, lambda artifact: device)
    bad = [c["name"] for c in results["cases"] if c["status"] in ("failed", "disagrees")]
    print(f"{len(results['cases'])} cases, {len(bad)} failed or disagree" + (f": {', '.join(bad)}" if bad else ""))
    return 1 if bad or not results["cases"] else 0


if __name__ == "__main__":
    sys.exit(main())
