"""A stand-in for the compiler, so that these tests judge the command line alone (end to end: test_end_to_end.py)."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from tensorlang.cli import app, jobs

CERTIFICATE = {"oracle": "fake 1.0", "max_error": 1e-7, "bound": "1e-4", "seeds": (0, 1), "sizes": [{"batch": 2}, {}]}


@dataclass
class FakeExecutable:
    """y = 2 x, with an open dimension unless `shapes` fixed it."""

    shapes: dict | None
    saved: list[str] = field(default_factory=list)
    certificate: Any = field(default_factory=lambda: dict(CERTIFICATE))

    build_report = {"import": 0.25, "kernels": 1.5}
    host_nodes = ()
    memory = {}

    @property
    def inputs(self):
        batch = (self.shapes or {}).get("batch", "batch")
        return [
            SimpleNamespace(name="x", dtype="float32", shape=(batch, 3)),
            SimpleNamespace(name="ids", dtype="int64", shape=(2,)),
        ]

    def run(self, feeds):
        return {"y/0": feeds["x"] * 2, "y_0": feeds["ids"]}

    def save(self, path):
        Path(path).write_bytes(b"12345")

    def profile(self, feeds, roofline=False):
        rows = [{"kernel": "relu", "ms": 1.5, "gflops": 3.0}, {"kernel": "gemm[0]", "ms": 2.5, "gflops": float("nan")}]
        return SimpleNamespace(rows=rows, total_ms=4.0, peak_gflops=0.0)


@dataclass
class FakeCompiler:
    """What `tl` is to tensorlang.cli.jobs; remembers its calls."""

    calls: list[tuple] = field(default_factory=list)
    error: Exception | None = None
    options: dict = field(default_factory=dict)

    def compile(self, model, *, target, shapes, verify=None, **options):
        self.options = options
        self.calls.append(("compile", model, target, shapes, verify))
        if self.error:
            raise self.error
        return FakeExecutable(shapes)

    def load(self, path):
        self.calls.append(("load", path))
        return FakeExecutable({"batch": 4})

    def benchmark(self, exe, args, *, against):
        self.calls.append(("benchmark", [a.shape for a in args], against))
        return {"ours": {"median_ms": 1.0}, "ratio": 2.0}


@pytest.fixture
def compiler(monkeypatch) -> FakeCompiler:
    fake = FakeCompiler()
    monkeypatch.setattr(jobs, "tl", fake)
    return fake


@pytest.fixture
def model(tmp_path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"not read by the fake")
    return path


@pytest.fixture
def saved_array(tmp_path):
    def save(array, name="x.npy") -> str:
        np.save(tmp_path / name, array)
        return str(tmp_path / name)

    return save


def invoke(*args: object, code: int = 0) -> Result:
    """Run `tensorlang ARGS`; it must exit with `code`, and never by an exception of ours."""
    result = CliRunner().invoke(app, [str(a) for a in args])
    unexpected = result.exception and not isinstance(result.exception, SystemExit)
    assert not unexpected, repr(result.exception)
    assert result.exit_code == code, result.output
    return result


def invoke_json(*args: object, code: int = 0) -> dict:
    """As `invoke`, with `--json`: stdout is one JSON object and nothing else."""
    return json.loads(invoke(*args, "--json", code=code).stdout)
