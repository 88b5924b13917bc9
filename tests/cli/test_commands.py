"""The commands: what they pass on, what they print, how they exit. The compiler is a fake (conftest.py)."""

from __future__ import annotations

import re

import numpy as np
import pytest

import tensorlang as tl
from tensorlang.errors import ModelError, UnsupportedOpError
from tests.cli.conftest import CERTIFICATE, invoke, invoke_json


def test_version():
    assert invoke("--version").stdout == f"tensorlang {tl.__version__}\n"


@pytest.mark.parametrize("command", ["compile", "run", "bench", "profile", "inspect", "doctor"])
def test_every_command_has_help_and_json(command):
    assert "--json" in re.sub(r"\x1b\[[\d;]*m", "", invoke(command, "--help").stdout)


@pytest.mark.parametrize(
    "args",
    [
        ["nonsense"],
        ["compile"],
        ["compile", "no-such-file.onnx"],
        ["compile", "{model}", "--shapes", "batch"],
        ["compile", "{model}", "--frobnicate"],
        ["compile", "{model}", "--precision", "float12"],
        ["compile", "{model}", "--fallback", "somebody"],
        ["run", "{model}", "--input", "x=ones"],
        ["run", "{model}", "--threads", "0"],
        ["run", "{model}", "--seed", "-1"],
        ["compile", "{model}", "-o", "model.exe"],
        ["doctor", "everything"],
        ["bench", "{model}", "--against", "nobody"],
    ],
)
def test_wrong_usage_exits_2_and_leaves_stdout_empty(args, model, compiler):
    result = invoke(*(arg.format(model=model) for arg in args), code=2)
    assert result.stdout == "" and result.stderr.count("\n") == 1 and "--help" in result.stderr
    assert compiler.calls == []


def test_compile_verifies_by_default_and_passes_shapes_on(model, compiler):
    done = invoke_json("compile", model, "--shapes", "batch=2,x=2x3")
    assert compiler.calls == [("compile", str(model), "cpu", {"batch": 2, "x": (2, 3)}, None)]
    assert done["certificate"] == {**CERTIFICATE, "seeds": [0, 1]}
    assert done["inputs"][0] == {"name": "x", "dtype": "float32", "shape": [2, 3]}
    assert done["build_cpu_seconds"] == {"import": 0.25, "kernels": 1.5}
    assert done["output"] is None and done["seconds"]["compile"] >= 0


def test_compile_passes_options_on(model, compiler):
    invoke_json("compile", model)
    assert compiler.options == {"precision": "float32", "fallback": None, "codegens": ()}
    invoke_json("compile", model, "--fallback", "onnxruntime", "--codegen", "a", "--codegen", "b", "--precision", "float32")
    assert compiler.options == {"precision": "float32", "fallback": "onnxruntime", "codegens": ("a", "b")}


def test_compile_without_verification_says_so(model, compiler):
    result = invoke("compile", model, "--no-verify")
    assert compiler.calls == [("compile", str(model), "cpu", None, False)]
    assert "not verified" in result.stdout


def test_compile_saves(model, compiler, tmp_path):
    out = tmp_path / "model.tl"
    done = invoke_json("compile", model, "-o", out)
    assert out.read_bytes() == b"12345"
    assert done["output"] == {"path": str(out), "bytes": 5}


def test_compile_prints_one_line_for_the_certificate(model, compiler):
    (line,) = [line for line in invoke("compile", model).stdout.splitlines() if line.startswith("verified")]
    assert line == "verified against fake 1.0: largest error 1.0e-07, bound 1e-4, seeds 0 1, sizes batch=2"


def test_a_failing_job_exits_1_with_the_message_and_no_traceback(model, compiler):
    compiler.error = ModelError("model.onnx is empty [0 bytes]")
    result = invoke("compile", model, code=1)
    assert result.stdout == ""
    assert result.stderr == "ModelError: model.onnx is empty [0 bytes]\n"


def test_a_failing_job_with_json_prints_one_object(model, compiler):
    compiler.error = UnsupportedOpError([("Foo", "n1", ""), ("Bar", "n2", "later")])
    error = invoke_json("compile", model, code=1)["error"]
    assert error["type"] == "UnsupportedOpError" and "Foo" in error["message"] and "Bar" in error["message"]


def test_a_bug_of_ours_is_not_dressed_up_as_a_users_error(model, compiler):
    compiler.error = tl.errors.InternalError("broken invariant")
    with pytest.raises(AssertionError, match="broken invariant"):
        invoke("compile", model)


def test_run_describes_outputs(model, compiler, saved_array):
    x = np.array([[1, 2, 3], [4, 5, np.inf]], np.float32)
    done = invoke_json("run", model, "--input", f"x={saved_array(x)}")
    first = done["outputs"][0]
    assert (first["name"], first["dtype"], first["shape"]) == ("y/0", "float32", [2, 3])
    assert (first["min"], first["max"]) == (2.0, None)  # JSON has no infinity
    assert first["path"] is None


def test_run_writes_outputs_under_safe_distinct_names(model, compiler, saved_array, tmp_path):
    x = np.ones((1, 3), np.float32)
    folder = tmp_path / "deep" / "out"
    done = invoke_json("run", model, "--input", f"x={saved_array(x)}", "--output", folder)
    assert sorted(p.name for p in folder.iterdir()) == ["y_0.npy", "y_0_1.npy"]  # from "y/0" and "y_0"
    assert [o["path"] for o in done["outputs"]] == [str(folder / "y_0.npy"), str(folder / "y_0_1.npy")]
    np.testing.assert_array_equal(np.load(folder / "y_0.npy"), x * 2)


def test_run_needs_sizes_for_open_dimensions(model, compiler):
    error = invoke_json("run", model, code=1)["error"]
    assert error["type"] == "InputError" and "--shapes batch=1" in error["message"]


def test_run_a_saved_model(compiler, tmp_path):
    path = tmp_path / "model.tl"
    path.write_bytes(b"")
    assert invoke_json("run", path)["outputs"][0]["shape"] == [4, 3]
    assert compiler.calls == [("load", str(path))]
    assert "compiled already" in invoke_json("run", path, "--shapes", "batch=1", code=1)["error"]["message"]


def test_run_prints_a_table(model, compiler):
    lines = invoke("run", model, "--shapes", "batch=2").stdout.splitlines()
    assert any(line.split()[:2] == ["y/0", "float32"] and "[2, 3]" in line for line in lines)


def test_unwritable_output_folder_is_one_message(model, compiler, tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("in the way")
    error = invoke_json("run", model, "--shapes", "batch=1", "--output", blocker / "out", code=1)["error"]
    assert "file" in error["message"]


def test_bench_against_onnxruntime(model, compiler):
    done = invoke_json("bench", model, "--shapes", "batch=2", "--against", "onnxruntime")
    assert compiler.calls[-1] == ("benchmark", [(2, 3), (2,)], str(model))
    assert done["result"]["ratio"] == 2.0


def test_bench_alone_prints_every_measure(model, compiler):
    out = invoke("bench", model, "--shapes", "batch=2").stdout
    assert compiler.calls[-1][-1] is None
    assert "ours.median_ms" in out and "ratio" in out


def test_bench_of_a_saved_model_has_no_rival(compiler, tmp_path):
    path = tmp_path / "model.tl"
    path.write_bytes(b"")
    message = invoke_json("bench", path, "--against", "onnxruntime", code=1)["error"]["message"]
    assert "cannot run a saved" in message


def test_profile_lists_kernels(model, compiler):
    done = invoke_json("profile", model, "--shapes", "batch=1")
    assert done["total_ms"] == 4.0
    assert done["kernels"] == [
        {"kernel": "relu", "ms": 1.5, "gflops": 3.0},
        {"kernel": "gemm[0]", "ms": 2.5, "gflops": None},  # NaN has no place in JSON
    ]
    text = invoke("profile", model, "--shapes", "batch=1").stdout
    assert "gemm[0]" in text and "2 kernel calls, 4.000 ms" in text
