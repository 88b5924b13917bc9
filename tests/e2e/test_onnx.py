"""ONNX files: compiled, verified by onnxruntime, cached for other processes, and run by onnxruntime's own convention."""

import json
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

import tensorlang.verify
from tensorlang.compile import compile as tl_compile
from tensorlang.errors import InputError, ModelError
from tensorlang.runtime.executable import Executable
from tensorlang.session import InferenceSession
from tests.models import save_classifier


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_classifier(tmp_path_factory.mktemp("model") / "classifier.onnx")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """x: f32[batch, 3] -> y = relu(x); quick to build anew."""
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"], "relu")],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
    )
    path = tmp_path_factory.mktemp("tiny") / "tiny.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


X = np.array([[-1, 2, -3]], np.float32)


def image(batch):
    return np.random.default_rng(batch).standard_normal((batch, 3, 32, 32), dtype=np.float32)


def test_agrees_with_onnxruntime_at_every_batch(model):
    exe = tl_compile(str(model))
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        (expected,) = session.run(None, {"input": image(batch)})
        np.testing.assert_allclose(exe(image(batch)), expected, rtol=1e-4, atol=1e-6)


def test_certificate(model):
    exe = tl_compile(model, verify=True)
    certificate = json.loads(json.dumps(exe.certificate))
    assert certificate["ok"] and certificate["oracle"].startswith("onnxruntime")
    assert certificate["max_error"] <= certificate["outputs"]["probabilities"]["bound"]
    assert [s["batch"] for s in certificate["sizes"]] == [1, 2]


def test_a_wrong_build_is_not_certified(model, monkeypatch):
    exe = tl_compile(model, shapes={"batch": 1})
    right = exe.run
    monkeypatch.setattr(exe, "run", lambda feeds: {n: a + 1e-3 for n, a in right(feeds).items()})
    with pytest.raises(tensorlang.verify.VerificationError, match=r"probabilities by 0.001 \(bound") as error:
        tensorlang.verify.certify(exe, model)
    assert not error.value.certificate["ok"]


def test_a_second_process_finds_the_build_and_imports_no_compiler(model):
    tl_compile(model, shapes={"batch": 2})
    code = (
        "import sys, json, numpy as np, tensorlang as tl\n"
        f"exe = tl.compile({str(model)!r}, shapes={{'batch': 2}})\n"
        "y = exe(np.ones((2, 3, 32, 32), np.float32))\n"
        "heavy = ['numba', 'sympy', 'islpy', 'onnx', 'tensorlang.graph', 'tensorlang.te', 'tensorlang.lower']\n"
        "print(json.dumps([[m for m in heavy if m in sys.modules], list(exe.build_report), y.tolist()]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded, report, y = json.loads(done.stdout)
    assert loaded == [] and report == ["cache"]
    ours = tl_compile(model, shapes={"batch": 2})(np.ones((2, 3, 32, 32), np.float32))
    np.testing.assert_array_equal(np.array(y, np.float32), ours)


def test_a_damaged_cache_entry_is_rebuilt(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("TENSORLANG_CACHE_DIR", str(tmp_path))
    tl_compile(tiny)
    (entry,) = (tmp_path / "models").glob("*/*")
    entry.write_bytes(entry.read_bytes()[:1000])
    exe = tl_compile(tiny)
    assert "cache" not in exe.build_report and np.array_equal(exe(X), [[0, 2, 0]])
    assert "cache" in tl_compile(tiny).build_report


def test_other_shapes_and_other_bytes_are_other_builds(tiny, tmp_path):
    tl_compile(tiny, shapes={"batch": 1})
    assert "cache" in tl_compile(tiny, shapes={"batch": 1}).build_report
    assert "cache" not in tl_compile(tiny, shapes={"batch": 3}).build_report
    changed = tmp_path / tiny.name
    changed.write_bytes(tiny.read_bytes().replace(b"relu", b"ReLU"))
    assert "cache" not in tl_compile(changed, shapes={"batch": 1}).build_report


def test_a_cache_that_cannot_be_written_is_not_used(tiny, tmp_path, monkeypatch):
    blocker = tmp_path / "file"
    blocker.write_text("not a folder")
    monkeypatch.setenv("TENSORLANG_CACHE_DIR", str(blocker))
    with pytest.warns(UserWarning, match="cannot be written"):
        assert np.array_equal(tl_compile(tiny)(X), [[0, 2, 0]])


def test_the_cache_can_be_switched_off(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("TENSORLANG_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("TENSORLANG_CACHE", "0")
    assert np.array_equal(tl_compile(tiny)(X), [[0, 2, 0]])
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x07\x12\x04junk"])
def test_what_is_no_model(tmp_path, content):
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError):
        tl_compile(path)


def test_inference_session(model):
    ours = InferenceSession(str(model))
    theirs = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    for mine, other in zip(
        [*ours.get_inputs(), *ours.get_outputs()], [*theirs.get_inputs(), *theirs.get_outputs()], strict=True
    ):
        assert (mine.name, mine.type, mine.shape) == (other.name, other.type, other.shape)
    feeds = {"input": image(2)}
    (y,) = ours.run(None, feeds)
    np.testing.assert_allclose(y, theirs.run(None, feeds)[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(ours.run(["probabilities"], feeds)[0], y)
    with pytest.raises(InputError, match="no output is called 'nothing'; there are: probabilities"):
        ours.run(["nothing"], feeds)
    assert isinstance(ours.executable, Executable)


def test_sizes_at_which_the_model_does_not_work_are_passed_over(tmp_path):
    """Rows are reshaped to pairs: an odd number of them is refused by both."""
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"], "pairs"), helper.make_node("Relu", ["y"], ["z"], "relu")]
    graph = helper.make_graph(
        nodes,
        "pairs",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["m", 2])],
        [onnx.numpy_helper.from_array(np.array([-1, 2]), "shape")],
    )
    path = tmp_path / "pairs.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    exe = tl_compile(path, verify=True)
    assert [s["n"] for s in exe.certificate["sizes"]] == [2, 4]
    with pytest.raises(InputError, match=r"does not work for n = 3: at node 'pairs'"):
        exe(np.zeros(3, np.float32))
