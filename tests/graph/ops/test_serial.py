"""Operators with hand-written kernels: machine code, and the same text as Python, against their NumPy references."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tensorlang.build.plain import PlainRunner
from tensorlang.codegen.target import find_target
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
    artifact = compile_graph(graph, find_target("cpu"), replace(Settings.from_env(), jit=True))
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


def check(op: str, arrays: list[np.ndarray], **attrs: object) -> None:
    expected = get(op).numpy(*arrays, **attrs)
    for found in run_native_and_plain(op, arrays, attrs):
        for a, b in zip(found, expected if isinstance(expected, tuple) else [expected], strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "int64", "uint8"])
@pytest.mark.parametrize(
    "shape, axis, k", [((7,), 0, 3), ((3, 40), 1, 40), ((17, 5), 0, 9), ((2, 33, 3), 1, 1), ((4, 6), 1, 0)]
)
def test_topk(shape: tuple[int, ...], axis: int, k: int, dtype: str, largest: bool) -> None:
    x = np.random.default_rng(k).integers(0, 9, shape).astype(dtype)  # many equal ones: the first comes first
    check("topk", [x], k=k, axis=axis, largest=largest)


@pytest.mark.parametrize("shape, axis", [((5, 9000), 1), ((9000, 5), 0)])
def test_topk_of_lines_that_threads_share(shape: tuple[int, ...], axis: int) -> None:
    """Lines longer than a vector that no vector divides; the largest ones stand at their ends, one in the ragged last part."""
    x = np.random.default_rng(3).integers(0, 50, shape).astype(np.float32)
    np.moveaxis(x, axis, 0)[-1] = 99
    np.moveaxis(x, axis, 0)[100] = 98
    check("topk", [x], k=7, axis=axis, largest=True)
    check("topk", [x], k=7, axis=axis, largest=False)


def test_topk_passes_by_what_is_not_a_number() -> None:
    """A vector that holds a NaN is looked at all the same."""
    x = np.zeros((2, 64), np.float32)
    x[:, 33], x[:, 40] = np.nan, 5
    for values, places in run_native_and_plain("topk", [x], {"k": 1, "axis": 1, "largest": True}):
        assert values[:, 0].tolist() == [5, 5] and places[:, 0].tolist() == [40, 40]


def test_topk_of_many() -> None:
    x = np.random.default_rng(0).standard_normal((1, 50_000)).astype(np.float32)
    check("topk", [x], k=1000, axis=1, largest=True)


@pytest.mark.parametrize("reduction", ["none", "add", "mul", "max", "min"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int64"])
def test_scatter_elements(reduction: str, dtype: str) -> None:
    rng = np.random.default_rng(1)
    x, updates = rng.integers(-4, 5, (5, 3)).astype(dtype), rng.integers(-4, 5, (4, 2)).astype(dtype)
    for axis, indices in ((0, rng.integers(-5, 5, (4, 2))), (1, rng.integers(-3, 3, (4, 2), dtype=np.int32))):
        check("scatter_elements", [x, indices, updates], axis=axis, reduction=reduction)


@pytest.mark.parametrize("reduction", ["none", "add", "mul", "max", "min"])
def test_scatter_nd(reduction: str) -> None:
    rng = np.random.default_rng(2)
    x = rng.integers(-4, 5, (4, 3, 2)).astype(np.float32)
    for depth in (1, 2, 3):
        indices = rng.integers(-2, 2, (3, 2, depth))
        check("scatter_nd", [x, indices, rng.integers(-4, 5, (3, 2, *x.shape[depth:])).astype(np.float32)], reduction=reduction)


def test_what_is_outside_is_passed_over() -> None:
    x = np.zeros(4, np.float32)
    for found in run_native_and_plain("scatter_elements", [x, np.array([9, -9, 1]), np.ones(3, np.float32)], {"axis": 0}):
        np.testing.assert_array_equal(found[0], [0, 1, 0, 0])
