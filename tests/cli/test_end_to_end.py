"""The command line on the real compiler and a real, tiny model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from tests.cli.conftest import invoke, invoke_json
from tests.models import save_classifier


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_classifier(tmp_path_factory.mktemp("model") / "classifier.onnx")


def test_run_equals_onnxruntime(model, saved_array, tmp_path):
    x = np.random.default_rng(1).standard_normal((2, 3, 32, 32), dtype=np.float32)
    done = invoke_json("run", model, "--input", f"input={saved_array(x)}", "--output", tmp_path / "out")
    (output,) = done["outputs"]
    assert (output["name"], output["shape"]) == ("probabilities", [2, 10])
    (expected,) = onnxruntime.InferenceSession(model).run(None, {"input": x})
    np.testing.assert_allclose(np.load(output["path"]), expected, rtol=2e-4, atol=2e-6)


def test_compile_leaves_a_certificate(model):
    done = invoke_json("compile", model, "--shapes", "batch=1")
    assert done["certificate"]
    assert done["inputs"] == [{"name": "input", "dtype": "float32", "shape": [1, 3, 32, 32]}]
    assert "verified" in invoke("compile", model, "--shapes", "batch=1").stdout


def test_inspect(model):
    found = invoke_json("inspect", model)
    assert found["dimensions"] == ["batch"]
    assert found["outputs"] == [{"name": "probabilities", "dtype": "float32", "shape": ["batch", 10]}]
    assert found["parameters"] >= 8 * 3 * 9 + 8 + 80


def test_profile(model):
    kernels = invoke_json("profile", model, "--shapes", "batch=1")["kernels"]
    assert kernels and all(isinstance(row, dict) for row in kernels)


def test_bench_against_onnxruntime(model):
    assert invoke_json("bench", model, "--shapes", "batch=1", "--against", "onnxruntime")["result"]


@pytest.mark.parametrize("damage", ["empty", "truncated", "text"])
def test_damaged_model_is_one_error(model, tmp_path, damage):
    data = {"empty": b"", "truncated": model.read_bytes()[:-100], "text": b"not a model\n" * 50}[damage]
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(data)
    error = invoke_json("run", bad, "--shapes", "batch=1", code=1)["error"]
    assert error["type"] == "ModelError" and "bad.onnx" in error["message"]


def test_doctor_compiles_and_runs_a_kernel():
    test = invoke_json("doctor")["self_test"]
    assert test["ok"] and test["max_error"] <= 2e-6


def test_as_a_process(model):
    """The installed program itself: exit codes, and stdout free of anything but the report."""
    command = [sys.executable, "-m", "tensorlang.cli"]
    done = subprocess.run([*command, "run", model, "--shapes", "batch=1"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("outputs")
    done = subprocess.run([*command, "run", "missing.onnx"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
