"""What leaves the machine: sizes, load time, peak memory and C latency of compiled models, beside onnxruntime's.

Loading and memory are of fresh processes (`deploy_child`), counted from after NumPy's import, with bytecode written before.
Latency is of one process, Python's `Executable.run` and the exported library's C function in alternating blocks.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

import tensorlang as tl
from bench import build_cost, cache, measure, report
from bench.compare import Subject
from bench.feeds import Feeds

MODELS = ("resnet50", "bert")
REPEATS = 5  # fresh processes, of which the median counts
RUNS = 3  # in each of them
_LIMIT_SECONDS = 300


@dataclass(frozen=True)
class Process:
    """One engine in a fresh process; medians. Seconds and MiB."""

    load_cpu: float
    load_wall: float
    first_run_wall: float
    loaded_mib: float
    peak_mib: float
    anonymous_mib: float


@dataclass(frozen=True)
class Deployment:
    """One model. Sizes in bytes; latencies in seconds."""

    name: str
    model_bytes: int
    artifact_bytes: int
    library_bytes: int
    ours: Process
    onnxruntime: Process
    python_latency: float
    c_latency: float
    c_ratio: measure.Ratio


def run(subject: Subject, threads: int, plan: measure.Plan, repeats: int = REPEATS) -> Deployment:
    """Measure one model, compiled for its feeds' sizes, with `repeats` processes for each engine."""
    feeds = subject.feeds
    tl.set_num_threads(threads)
    executable = tl.compile(subject.path, shapes={name: tuple(array.shape) for name, array in feeds.items()})
    with tempfile.TemporaryDirectory(prefix="tensorlang-bench-") as name:
        folder = Path(name)
        artifact, library = folder / "model.tl", folder / "libmodel.so"
        executable.save(artifact)
        executable.export_library(library)
        build_cost.write_feeds(folder / "feeds.npz", feeds)
        ours = _process("tensorlang", artifact, folder / "feeds.npz", threads, repeats)
        theirs = _process("onnxruntime", subject.path, folder / "feeds.npz", threads, repeats)
        exported = CModel(library, feeds, {info.name: info.shape for info in executable.outputs}, threads)
        try:
            bound = executable.bind(feeds)
            exported()
            for output, array in bound().items():
                if not np.array_equal(array, exported.outputs[output]):
                    raise cache.BenchError(f"{subject.name}: the library's {output} differs from Python's")
            found = measure.interleave({"python": bound, "c": exported}, plan)
        finally:
            exported.close()
        return Deployment(
            subject.name, subject.path.stat().st_size, artifact.stat().st_size, library.stat().st_size, ours, theirs,
            found["python"].median, found["c"].median, measure.ratio(found["c"], found["python"]),
        )  # fmt: skip


class CModel:
    """An exported library called as a C program calls it: one instance, buffers and workspace bound once."""

    def __init__(self, library: Path, feeds: Feeds, outputs: Mapping[str, Sequence[int | str]], threads: int):
        self._library = ctypes.CDLL(str(library))
        prefix = f"tl_{library.stem.removeprefix('lib')}"
        self._instance = ctypes.c_void_p()
        self._call(f"{prefix}_create", ctypes.byref(self._instance))
        self._call(f"{prefix}_set_threads", self._instance, ctypes.c_int32(threads))
        described = json.loads(library.with_suffix(".json").read_text())
        arrays = [np.ascontiguousarray(feeds[entry["name"]]) for entry in described["inputs"]]
        self.outputs = {e["name"]: np.empty(tuple(map(int, outputs[e["name"]])), e["dtype"]) for e in described["outputs"]}
        nbytes = ctypes.c_int64()
        self._call(f"{prefix}_workspace_bytes", self._instance, None, ctypes.byref(nbytes))
        self._kept = (arrays, np.empty(nbytes.value, np.uint8))
        inputs, results = (_pointers(a) for a in (arrays, list(self.outputs.values())))
        self._run = self._library[f"{prefix}_run"]
        self._arguments = (
            self._instance, inputs, None, results, None, ctypes.c_void_p(self._kept[1].ctypes.data), nbytes,
        )  # fmt: skip
        self._destroy = self._library[f"{prefix}_destroy"]

    def _call(self, name: str, *arguments: Any) -> None:
        if status := self._library[name](*arguments):
            raise cache.BenchError(f"{name} returned {status}")

    def __call__(self) -> None:
        if status := self._run(*self._arguments):
            raise cache.BenchError(f"the library's run returned {status}")

    def close(self) -> None:
        """End the instance and its threads."""
        self._destroy(self._instance)


def _pointers(arrays: Sequence[np.ndarray]) -> Any:
    return (ctypes.c_void_p * max(1, len(arrays)))(*(a.ctypes.data for a in arrays))


def _process(engine: str, model: Path, feeds: Path, threads: int, repeats: int) -> Process:
    command = [sys.executable, str(Path(__file__).with_name("deploy_child.py")), engine, str(model), str(feeds), str(threads)]
    environment = build_cost.with_bytecode({})
    found = []
    for _ in range(1 + repeats):  # the first writes bytecode and brings files into memory
        done = subprocess.run(
            [*command, str(RUNS)],
            env=environment,
            cwd=Path(__file__).parent.parent,
            capture_output=True,
            text=True,
            check=False,
            timeout=_LIMIT_SECONDS,
        )
        if done.returncode:
            raise cache.BenchError(f"{engine}: {(done.stderr.strip().splitlines() or ['not a word'])[-1]}")
        found.append(json.loads(done.stdout.splitlines()[-1]))
    return Process(**{f: statistics.median(one[f] for one in found[1:]) for f in Process.__dataclass_fields__})


def install_bytes(distribution: str) -> int:
    """The files of an installed distribution, without bytecode."""
    files = importlib.metadata.files(distribution) or []
    return sum(f.size or 0 for f in files if f.suffix != ".pyc")


def runtime_bytes() -> int:
    """The sources that `packaging/runtime` puts into the wheel that loads and runs: what a model needs beside NumPy."""
    root = Path(tl.__file__).parent
    sources = [root / "errors.py", root / "config.py", *sorted((root / "runtime").glob("*.py"))]
    return sum(source.stat().st_size for source in sources)


def as_json(deployment: Deployment) -> dict[str, object]:
    return asdict(deployment)


def table(found: Sequence[Deployment]) -> Table:
    result = Table(title="deployment, beside onnxruntime", box=box.SIMPLE_HEAD, title_justify="left")
    result.add_column("")
    for heading in ("model", ".tl", ".so", "load CPU", "onnxruntime", "peak", "onnxruntime", "Python", "C", "C / Python"):
        result.add_column(heading, justify="right")
    for d in found:
        result.add_row(
            d.name,
            *(f"{size / 1e6:.1f} MB" for size in (d.model_bytes, d.artifact_bytes, d.library_bytes)),
            *(report.seconds(p.load_cpu) for p in (d.ours, d.onnxruntime)),
            *(f"{p.peak_mib:.0f} MiB" for p in (d.ours, d.onnxruntime)),
            *(report.seconds(latency) for latency in (d.python_latency, d.c_latency)),
            f"{d.c_ratio.median:.2f}",
        )
    return result
