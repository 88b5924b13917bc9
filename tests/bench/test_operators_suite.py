"""The operator suite: every case is a sound model that onnxruntime runs; spot checks against NumPy."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from bench import cache, operators

BIG = ("30522", "4096", "16m")  # tens of megabytes
LIGHT = [name for name, case in operators.CASES.items() if case.flop < 3e7 and not any(big in name for big in BIG)]


def _run(name: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
    case = operators.get(name)
    session = onnxruntime.InferenceSession(case.model.SerializeToString(), providers=["CPUExecutionProvider"])
    feeds = case.inputs(seed=0)
    return feeds, session.run(None, feeds)[0]


@pytest.mark.parametrize("name", LIGHT)
def test_case_runs_and_is_finite(name: str) -> None:
    _, output = _run(name)
    assert np.isfinite(output).all()
    assert output.size == 1 or output.std() > 0


def test_names_say_the_sizes() -> None:
    for name, case in operators.CASES.items():
        if case.family == "matmul" and name.startswith("matmul_1"):
            m, k, n = (int(size) for size in name.split("_")[1].split("x"))
            assert case.flop == 2 * m * k * n


def test_least_bytes_counts_every_array_once() -> None:
    assert operators.get("add_small_1x64").least_bytes == 3 * 64 * 4
    gather = operators.get("gather_30522x768_128")
    assert gather.least_bytes == 128 * 8 + 128 * 768 * 4, "the table itself is not read"


def test_gelu_is_gelu() -> None:
    feeds, output = _run("gelu_128x3072")
    x = feeds["x"].ravel()[:100].astype(np.float64)
    from_tanh = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    np.testing.assert_allclose(output.ravel()[:100], from_tanh, atol=2e-3)


def test_paths_are_stable_and_unknown_names_are_refused() -> None:
    case = operators.get("softmax_1x1000")
    assert case.path() == case.path() and case.path().exists()
    with pytest.raises(cache.BenchError, match="no operator case"):
        operators.get("softmin")
