"""Operators with hand-written kernels: machine code, and the same text as Python, against their NumPy references."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tensorlang.compile import PlainRunner
from tensorlang.config import Settings
from tensorlang.graph import Graph, GraphBuilder, TensorType, get
from tensorlang.graph.compiler import compile_graph
from tensorlang.runtime.executable import Executable, NativeRunner


def run_native_and_plain(op: str, arrays: list[np.ndarray], attrs: dict[str, object]) -> list[list[np.ndarray]]:
    builder = GraphBuilder()
    inputs = [builder.input(f"x{k}", TensorType.of(a.dtype, a.shape)) for k, a in enumerate(arrays)]
    made = builder.add(op, inputs, attrs)
    outputs = list(made) if isinstance(made, tuple) else [made]
    graph = Graph(inputs, builder.nodes, outputs, output_names=[f"y{k}" for k in range(len(outputs))])
    artifact = compile_graph(graph, "cpu", replace(Settings.from_env(), jit=True))
    results = []
    for runner in (NativeRunner(artifact), PlainRunner(artifact)):
        found = Executable(artifact, runner)(*arrays)
        results.append(list(found) if isinstance(found, tuple) else [found])
    return results


@pytest.mark.parametrize("shape", [(7,), (3, 4), (2, 3, 5), (1,), (0, 3)])
@pytest.mark.parametrize("dtype", ["float32", "int64", "bool"])
def test_nonzero(shape: tuple[int, ...], dtype: str) -> None:
    x = (np.random.default_rng(0).integers(0, 3, shape)).astype(dtype)
    buffer, count = get("nonzero").numpy(x)
    for found, n in run_native_and_plain("nonzero", [x], {}):
        assert n == count
        np.testing.assert_array_equal(found[:, : int(n)], buffer[:, : int(count)])


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("rows, columns, values", [(1, 1, 3), (17, 1, 5), (40, 2, 3), (33, 3, 2), (8, 1, 100)])
def test_unique(rows: int, columns: int, values: int, ordered: bool) -> None:
    x = np.random.default_rng(rows).integers(0, values, (rows, columns)).astype(np.float32)
    first, inverse, counts, _, count = get("unique").numpy(x, ordered=ordered)
    n = int(count)
    for f, i, c, _, found in run_native_and_plain("unique", [x], {"ordered": ordered}):
        assert found == n
        np.testing.assert_array_equal(f[:n], first[:n])
        np.testing.assert_array_equal(i, inverse)
        np.testing.assert_array_equal(c[:n], counts[:n])
        np.testing.assert_array_equal(x[f[:n]][i], x)


@pytest.mark.parametrize("corners", [True, False])
@pytest.mark.parametrize("limit", [0, 2, 100])
def test_non_max_suppression(corners: bool, limit: int) -> None:
    rng = np.random.default_rng(limit)
    boxes, scores = rng.random((2, 20, 4), np.float32), rng.random((2, 3, 20), np.float32)
    inputs = [boxes, scores, np.array(limit), np.array(0.3, np.float32), np.array(0.2, np.float32)]
    selected, _, count = get("non_max_suppression").numpy(*inputs, corners=corners)
    assert limit == 0 or count > 0
    for found, _, n in run_native_and_plain("non_max_suppression", inputs, {"corners": corners}):
        assert n == count
        np.testing.assert_array_equal(found[: int(n)], selected[: int(n)])
