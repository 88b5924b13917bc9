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


def test_several_arrays_come_in_one_file(model, tmp_path):
    x = np.random.default_rng(1).standard_normal((2, 3, 32, 32), dtype=np.float32)
    np.savez(tmp_path / "feeds.npz", input=x)
    done = invoke_json("run", model, "--input", tmp_path / "feeds.npz", "--output", tmp_path)
    (expected,) = onnxruntime.InferenceSession(model).run(None, {"input": x})
    np.testing.assert_allclose(np.load(done["outputs"][0]["path"]), expected, rtol=2e-4, atol=2e-6)
    np.savez(tmp_path / "other.npz", wrong=x)
    error = invoke_json("run", model, "--input", tmp_path / "other.npz", code=1)["error"]
    assert error["type"] == "InputError" and "'wrong'" in error["message"]
    (tmp_path / "bad.npz").write_bytes(b"no archive")
    assert invoke_json("run", model, "--input", tmp_path / "bad.npz", code=1)["error"]["type"] == "InputError"
    invoke("run", model, "--input", f"input={tmp_path / 'feeds.npz'}", code=2)


@pytest.mark.parametrize("form", ["m.tl", "libm.so"])
def test_what_was_compiled_is_inspected_and_runs(model, tmp_path, form):
    saved = tmp_path / form
    invoke("compile", model, "-o", saved, "--no-verify")
    found = invoke_json("inspect", saved)
    assert found["dimensions"] == ["batch"] and found["memory"]["weights"] >= 4 * (8 * 27 + 8 + 80)
    assert "batch" in str(found["memory"]["arena"])
    steps = [k["nodes"] for k in found["kernels"]]
    assert steps == [] if form == "libm.so" else steps[-1] == "softmax" and len(steps) >= 4  # a library keeps no list of them
    assert "def main(" in found["source"] == invoke("inspect", saved, "--source").stdout.rstrip("\n") + "\n"
    assert "arena" in invoke("inspect", saved).stdout
    assert invoke_json("run", saved, "--input", "random:2x3x32x32")["outputs"][0]["shape"] == [2, 10]
    invoke("inspect", model, "--source", code=1)


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
