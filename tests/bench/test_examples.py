"""Every example runs to its end in a fresh process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench import cache, zoo

ROOT = Path(__file__).resolve().parents[2]


def run_example(name: str) -> str:
    done = subprocess.run([sys.executable, "-m", f"examples.{name}"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_dense() -> None:
    output = run_example("dense")
    assert output.count("equal to NumPy") == 2
    assert "refused" in output


def test_custom_operator() -> None:
    output = run_example("custom_operator")
    assert output.count("equal to NumPy") == 2
    assert "onnxruntime" in output or "against" in output, "the timing beside the composition"


def test_compile_model() -> None:
    assert "the same bits" in run_example("compile_model")


def test_demo() -> None:
    try:
        zoo.path("mnist-conv")
    except cache.BenchError as error:
        pytest.skip(f"no network: {error}")
    output = run_example("demo")
    assert "reads     7" in output
    assert "agrees" in output
    assert "ratio" in output
