"""A build that the cache knows loads no compiler; and targets reach `tl.compile` by registration alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tensorlang import compile as tl_compile
from tensorlang.codegen.target import registered
from tensorlang.errors import BuildError
from tests.e2e.models import perceptron

COMPILER = {"numba", "sympy", "islpy", "onnx", "tensorlang.graph", "tensorlang.te", "tensorlang.schedule", "tensorlang.lower"}
CODE = """
import json, sys
import numpy as np
import tensorlang as tl

exe = tl.compile(sys.argv[1])
y = exe(np.arange(24, dtype=np.float32).reshape(3, 8) / 24)
print(json.dumps({"loaded": sorted(sys.modules), "report": exe.build_report, "y": y.tolist()}))
"""


def save_mlp(path: Path) -> np.ndarray:
    """Two layers, [batch, 8] -> [batch, 4], of weights that are returned: relu(x @ w)[:, :4]."""
    w = np.random.default_rng(0).standard_normal((8, 8), dtype=np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "eye"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(w, "w"), numpy_helper.from_array(np.eye(8, 4, dtype=np.float32), "eye")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return w


def test_a_warm_build_loads_no_compiler(tmp_path):
    path = tmp_path / "mlp.onnx"
    w = save_mlp(path)
    environment = {**os.environ, "TENSORLANG_CACHE_DIR": str(tmp_path / "cache"), "TENSORLANG_CACHE": "1"}

    def build() -> dict:
        command = [sys.executable, "-c", CODE, str(path)]
        return json.loads(subprocess.run(command, env=environment, capture_output=True, check=True).stdout)

    cold, warm = build(), build()
    assert set(cold["loaded"]) >= COMPILER - {"sympy"}, "the probe sees nothing"
    assert COMPILER.isdisjoint(warm["loaded"])
    assert "native" in cold["report"] and set(warm["report"]) == {"cache"}
    x = np.arange(24, dtype=np.float32).reshape(3, 8) / 24
    np.testing.assert_allclose(cold["y"], np.maximum(x @ w, 0)[:, :4], rtol=1e-5, atol=1e-6)
    assert warm["y"] == cold["y"]


TARGET = """
from tensorlang.codegen.target import Target
from tensorlang.errors import BuildError

def compile_graph(graph, target, settings):
    raise BuildError(f"{target.name} was asked for {graph.name} with {settings.num_threads} threads")

class Abacus(Target):
    name = "abacus"
    graph_compiler = "abacus:compile_graph"

    def emit(self, func, name, trace):
        raise BuildError("an abacus has no kernels")

    def build(self, source, settings):
        return b""

    def load(self, code, kernels, settings):
        return {}

target = Abacus()
"""


def test_a_third_party_registers_a_target(tmp_path, monkeypatch):
    (tmp_path / "abacus.py").write_text(TARGET)
    installed = tmp_path / "abacus-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: abacus\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("[tensorlang.targets]\nabacus = abacus:target\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("TENSORLANG_NUM_THREADS", "3")
    registered.cache_clear()
    try:
        with pytest.raises(BuildError, match="abacus was asked for perceptron with 3 threads"):
            tl_compile(perceptron(1), target="abacus")
        with pytest.raises(BuildError, match="unknown target 'tpu'; there are: abacus, c, cpu"):
            tl_compile(perceptron(1), target="tpu")
    finally:
        registered.cache_clear()
