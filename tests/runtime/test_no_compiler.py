"""Loading and running what was compiled imports neither numba, llvmlite, sympy, islpy nor onnx."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

import tensorlang as tl
from tensorlang.graph import Graph, GraphBuilder, TensorType

BLOCKED = """
import sys
import numpy as np

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("numba", "llvmlite", "sympy", "islpy", "onnx"):
            raise ImportError(f"{name} must not be needed")

sys.meta_path.insert(0, Blocked())
import tensorlang as tl

exe = tl.load(sys.argv[1])
np.testing.assert_allclose(exe(np.ones((2, 64), np.float32)), np.load(sys.argv[2]), rtol=1e-5)
print("ran")
"""


def test_an_artifact_runs_without_the_compiler(tmp_path: Path) -> None:
    builder = GraphBuilder()
    x = builder.input("x", TensorType.of("f32", (2, 64)))
    weights = np.random.default_rng(0).random((64, 32), np.float32)
    product = builder.add("matmul", [x, weights])
    assert not isinstance(product, tuple)
    graph = Graph([x], builder.nodes, [product], output_names=["y"])
    exe = tl.compile(graph)
    exe.save(tmp_path / "m.tl")
    np.save(tmp_path / "y.npy", exe(np.ones((2, 64), np.float32)))
    command = [sys.executable, "-c", BLOCKED, str(tmp_path / "m.tl"), str(tmp_path / "y.npy")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout == "ran\n", done.stderr


def test_the_processor_is_described_as_llvm_does() -> None:
    import llvmlite.binding as llvm

    from tensorlang.runtime.machine import host_features, host_triple

    used = {f[1:] for f in tl.CpuTarget.host().features.split(",") if f.startswith("+")}
    assert used and used <= host_features(), "a model saved here must load here"
    assert host_triple().split("-")[0] == llvm.get_process_triple().split("-")[0]


def test_the_first_level_cache_is_what_the_system_says() -> None:
    from tensorlang.runtime.machine import first_level_cache

    found = first_level_cache()
    assert found is None or (found[0] % (64 * found[1]) == 0 and 8 * 1024 <= found[0] <= 1 << 20)
