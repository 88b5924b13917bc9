"""Models as C files: compiled without a warning, run here and on an emulated ARM, equal to onnxruntime or the CPU target."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

import tensorlang as tl
from tensorlang.cli.app import app
from tensorlang.codegen.c.files import model_files, workspace_bytes
from tensorlang.codegen.target import find_target
from tensorlang.config import Settings
from tensorlang.errors import BuildError, ModelError
from tensorlang.graph.c_source import compile_c
from tests.codegen.c.harness import EACH, HERE, STRICT, model_program, run_c, split
from tests.models import save_classifier

RNG = np.random.default_rng(11)
needs_gcc = pytest.mark.skipif(HERE.missing() is not None, reason="no gcc")


def save(path: Path, name: str, nodes, inputs, outputs, constants) -> Path:
    infos = [[helper.make_tensor_value_info(n, t, s) for n, t, s in values] for values in (inputs, outputs)]
    graph = helper.make_graph(nodes, name, *infos, [numpy_helper.from_array(a, n) for n, a in constants.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def perceptron(path: Path) -> Path:
    """Two layers with tanh and softmax."""
    constants = {
        "w1": RNG.standard_normal((12, 20), dtype=np.float32), "b1": RNG.standard_normal(20, dtype=np.float32),
        "w2": RNG.standard_normal((20, 5), dtype=np.float32), "b2": RNG.standard_normal(5, dtype=np.float32),
    }  # fmt: skip
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], "first"),
        helper.make_node("Tanh", ["h"], ["t"], "tanh"),
        helper.make_node("Gemm", ["t", "w2", "b2"], ["s"], "second"),
        helper.make_node("Softmax", ["s"], ["y"], "softmax", axis=-1),
    ]
    f = TensorProto.FLOAT
    return save(path, "perceptron", nodes, [("x", f, [3, 12])], [("y", f, [3, 5])], constants)


def quantised(path: Path) -> Path:
    """u8 activations, i8 weights: QuantizeLinear, QLinearConv, MaxPool, QLinearMatMul, DequantizeLinear."""
    constants = {
        "sx": np.float32(0.05), "zx": np.uint8(120), "sw": np.float32(0.02), "zw": np.int8(0),
        "w": RNG.integers(-90, 90, (8, 3, 3, 3)).astype(np.int8), "b": RNG.integers(-500, 500, 8).astype(np.int32),
        "sy": np.float32(0.1), "zy": np.uint8(100), "shape": np.array([1, -1], np.int64),
        "m": RNG.integers(-90, 90, (8 * 16, 6)).astype(np.int8), "so": np.float32(0.3), "zo": np.uint8(128),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "sx", "zx"], ["xq"], "quantise"),
        helper.make_node("QLinearConv", ["xq", "sx", "zx", "w", "sw", "zw", "sy", "zy", "b"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("MaxPool", ["c"], ["p"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Reshape", ["p", "shape"], ["r"], "reshape"),
        helper.make_node("QLinearMatMul", ["r", "sy", "zy", "m", "sw", "zw", "so", "zo"], ["q"], "matmul"),
        helper.make_node("DequantizeLinear", ["q", "so", "zo"], ["y"], "dequantise"),
    ]
    f = TensorProto.FLOAT
    arrays = {n: np.asarray(a) for n, a in constants.items()}
    return save(path, "quantised", nodes, [("x", f, [1, 3, 8, 8])], [("y", f, [1, 6])], arrays)


def choice(path: Path) -> Path:
    """If and Loop: doubled `n` times where the sum is positive, else negated."""
    f, i, b = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL

    def body(nodes, inputs, outputs, name):
        infos = [[helper.make_tensor_value_info(n, t, s) for n, t, s in values] for values in (inputs, outputs)]
        return helper.make_graph(nodes, name, *infos)

    loop = body(
        [helper.make_node("Identity", ["go"], ["still"]), helper.make_node("Add", ["v", "v"], ["twice"])],
        [("trip", i, []), ("go", b, []), ("v", f, [4])], [("still", b, []), ("twice", f, [4])], "body",
    )  # fmt: skip
    then = body([helper.make_node("Loop", ["n", "", "x"], ["many"], body=loop)], [], [("many", f, [4])], "then")
    other = body([helper.make_node("Neg", ["x"], ["minus"])], [], [("minus", f, [4])], "other")
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
        helper.make_node("Greater", ["s", "zero"], ["positive"]),
        helper.make_node("If", ["positive"], ["y"], then_branch=then, else_branch=other),
    ]
    constants = {"zero": np.asarray(np.float32(0)), "n": np.asarray(np.int64(3))}
    return save(path, "choice", nodes, [("x", f, [4])], [("y", f, [4])], constants)


@dataclass(frozen=True)
class Model:
    make: Callable[[Path], Path]
    name: str
    shape: tuple[int, ...]
    step: float = 0.0  # of the output's quantisation: results may differ by one, where a value lies between two


MODELS = [
    Model(save_classifier, "classifier", (1, 3, 32, 32)),
    Model(perceptron, "perceptron", (3, 12)),
    Model(quantised, "quantised", (1, 3, 8, 8), 0.3),
    Model(choice, "choice", (4,)),
]


def files_of(path: Path):
    graph = tl.load_model(path, shapes={"batch": 1} if path.stem == "classifier" else None)
    artifact = compile_c(graph, find_target("c"), Settings.from_env())
    return artifact, model_files(artifact.manifest["c"], artifact.weights)


@pytest.mark.parametrize("machine", EACH, ids=lambda m: m.name)
@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.name)
def test_agrees_with_onnxruntime(model, machine, tmp_path):
    path = model.make(tmp_path / f"{model.name}.onnx")
    _, files = files_of(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for seed in range(2):
        x = np.random.default_rng(seed).standard_normal(model.shape).astype(np.float32) + (1 if seed else -1)
        expected = session.run(None, {session.get_inputs()[0].name: x})
        folder = tmp_path / f"{machine.name}{seed}"
        folder.mkdir()
        data = run_c(model_program(files, model.name, [x], expected), folder, machine)
        for ours, theirs in zip(split(data, expected), expected, strict=True):
            bound = 2e-4 * np.abs(theirs).max() + 2e-6 + model.step * 1.001
            assert np.abs(ours - theirs).max() <= bound
            if model.step:
                assert np.mean(ours != theirs) <= 0.2


@needs_gcc
@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.name)
def test_the_example_runs(model, tmp_path):
    """`<model>_main.c`: one line with a checksum for each output."""
    _, files = files_of(model.make(tmp_path / f"{model.name}.onnx"))
    assert re.fullmatch(rb"\w+: -?[\d.e+-]+\n", run_c(files, tmp_path, HERE, "-O2"))


@needs_gcc
def test_executable_runs_in_this_process(tmp_path):
    exe = tl.compile(save_classifier(tmp_path / "classifier.onnx"), target="c", shapes={"batch": 1})
    cpu = tl.compile(tmp_path / "classifier.onnx", shapes={"batch": 1})
    x = RNG.standard_normal((1, 3, 32, 32)).astype(np.float32)
    np.testing.assert_allclose(exe(x), cpu(x), rtol=1e-5, atol=1e-6)


def test_export_writes_the_folder(tmp_path):
    exe = tl.compile(save_classifier(tmp_path / "classifier.onnx"), target="c", shapes={"batch": 1})
    written = exe.export_library(tmp_path / "out")
    names = ["classifier.h", "classifier.c", "classifier_weights.h", "classifier_weights.c", "classifier_main.c"]
    assert written == [tmp_path / "out" / n for n in names]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(names)


def test_a_saved_model_exports_the_same(tmp_path):
    exe = tl.compile(save_classifier(tmp_path / "classifier.onnx"), target="c", shapes={"batch": 1})
    exe.save(tmp_path / "m.tl")
    first, second = exe.export_library(tmp_path / "a"), tl.load(tmp_path / "m.tl").export_library(tmp_path / "b")
    assert [p.read_text() for p in first] == [p.read_text() for p in second]


def test_command_line_writes_the_folder(tmp_path):
    path = save_classifier(tmp_path / "classifier.onnx")
    options = ["--target", "c", "--shapes", "batch=1", "-o", str(tmp_path / "out"), "--no-verify", "--json"]
    ran = CliRunner().invoke(app, ["compile", str(path), *options])
    assert ran.exit_code == 0, ran.output
    assert (tmp_path / "out" / "classifier.c").is_file()
    assert json.loads(ran.stdout)["memory"]["workspace"] > 0


def test_memory_is_known_before_the_build(tmp_path):
    """The executable and the header tell the same, and it is what the source declares."""
    artifact, files = files_of(save_classifier(tmp_path / "classifier.onnx"))
    stated = int(re.search(r"define CLASSIFIER_WORKSPACE_BYTES (\d+)", files["classifier.h"]).group(1))
    declared = sum(4 * int(n) for n in re.findall(r"^static float \w+\[(\d+)\];", files["classifier.c"], flags=re.MULTILINE))
    assert stated == declared == workspace_bytes(artifact.manifest["c"]) == artifact.manifest["memory"]["workspace"]


@needs_gcc
def test_a_limit_of_workspace_stops_the_build(tmp_path):
    _, files = files_of(save_classifier(tmp_path / "classifier.onnx"))
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    done = subprocess.run(
        [HERE.compiler, *STRICT, "-DCLASSIFIER_WORKSPACE_LIMIT=1000", "-c", "classifier.c"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode and "needs more workspace than CLASSIFIER_WORKSPACE_LIMIT" in done.stderr


def test_same_input_same_bytes(tmp_path):
    path = save_classifier(tmp_path / "classifier.onnx")
    assert files_of(path)[1] == files_of(path)[1]


def test_nothing_is_allocated_or_included(tmp_path):
    _, files = files_of(quantised(tmp_path / "quantised.onnx"))
    text = files["quantised.c"]
    assert "alloc" not in text
    assert set(re.findall(r'#include (\S+)', text)) <= {"<math.h>", '"quantised.h"', '"quantised_weights.h"'}


def test_open_dimensions_are_refused(tmp_path):
    with pytest.raises(ModelError, match=r"\(batch\).*shapes=\{'batch': 1\}"):
        tl.compile(save_classifier(tmp_path / "classifier.onnx"), target="c")


def test_sizes_that_only_a_run_can_tell_are_refused(tmp_path):
    f, i = TensorProto.FLOAT, TensorProto.INT64
    nodes = [helper.make_node("NonZero", ["x"], ["y"], "find")]
    path = save(tmp_path / "m.onnx", "m", nodes, [("x", f, [4])], [("y", i, [1, "n"])], {})
    with pytest.raises(BuildError, match="find: operator nonzero"):
        tl.compile(path, target="c")


@needs_gcc
@pytest.mark.parametrize("name", ["a\\", "a\nint x;", "a??/", "*/é"])
def test_names_of_the_model_stay_inside_their_comments(name, tmp_path):
    """A comment that ends in a backslash, or in `??/`, would swallow the line below it."""
    f = TensorProto.FLOAT
    nodes = [helper.make_node("Neg", [name], ["n"], name), helper.make_node("Exp", ["n"], ["y"], name + "2")]
    nodes.insert(1, helper.make_node("ReduceSum", ["n"], ["s"], name, keepdims=0))
    path = save(tmp_path / "m.onnx", "m", nodes, [(name, f, [4])], [("y", f, [4]), ("s", f, [])], {})
    _, files = files_of(path)
    x = RNG.standard_normal(4).astype(np.float32)
    expected = [np.exp(-x), np.float32(-x.sum()).reshape(())]
    data = run_c(model_program(files, "m", [x], expected), tmp_path, HERE)
    for ours, theirs in zip(split(data, expected), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)
