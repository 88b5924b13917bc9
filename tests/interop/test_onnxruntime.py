"""Scripts written for onnxruntime run with one import changed: each test runs the same script on both."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest

import tensorlang as tl
import tensorlang.interop.onnxruntime as ours
from tensorlang.errors import InputError
from tensorlang.runtime.context import get_num_threads

MODEL = onnx.parser.parse_model(
    """<ir_version: 8, opset_import: ["" : 18], producer_name: "tests">
    both (float[batch, 3] x, float[3] b) => (float[batch, 3] sum, float[batch] top) {
        one = Constant <value = int64[1] {1}> ()
        sum = Add(x, b)
        top = ReduceMax <keepdims = 0> (sum, one)
    }"""
)
X, B = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([1, 0, -9], np.float32)
both = pytest.mark.parametrize("ort", [onnxruntime, ours], ids=["onnxruntime", "tensorlang"])


@pytest.fixture
def path(tmp_path: Path) -> str:
    onnx.save(MODEL, tmp_path / "m.onnx")
    return str(tmp_path / "m.onnx")


@both
def test_a_usual_script(ort: ModuleType, path: str) -> None:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    assert "CPUExecutionProvider" in ort.get_available_providers()
    session = ort.InferenceSession(path, sess_options=options, providers=["CPUExecutionProvider"])
    assert [(i.name, i.type, i.shape) for i in session.get_inputs()] == [
        ("x", "tensor(float)", ["batch", 3]), ("b", "tensor(float)", [3]),
    ]  # fmt: skip
    assert [o.name for o in session.get_outputs()] == ["sum", "top"]
    total, top = session.run(None, {"x": X, "b": B})
    np.testing.assert_array_equal(total, X + B)
    np.testing.assert_array_equal(top, (X + B).max(1))
    (only,) = session.run(["top"], {"x": X, "b": B}, ort.RunOptions())
    np.testing.assert_array_equal(only, top)
    assert session.get_providers() == ["CPUExecutionProvider"]
    meta = session.get_modelmeta()
    assert (meta.graph_name, meta.producer_name) == ("both", "tests")


@both
def test_bytes_and_fixed_dimensions(ort: ModuleType) -> None:
    options = ort.SessionOptions()
    options.add_free_dimension_override_by_name("batch", 2)
    session = ort.InferenceSession(MODEL.SerializeToString(), options, providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == [2, 3]
    np.testing.assert_array_equal(session.run(["sum"], {"x": X, "b": B})[0], X + B)


@both
def test_io_binding(ort: ModuleType, path: str) -> None:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    binding.bind_cpu_input("x", X)
    binding.bind_ortvalue_input("b", ort.OrtValue.ortvalue_from_numpy(B))
    place = np.zeros((2, 3), np.float32)
    binding.bind_output("sum", "cpu", 0, np.float32, place.shape, place.ctypes.data)
    binding.bind_output("top")
    session.run_with_iobinding(binding)
    np.testing.assert_array_equal(place, X + B)
    total, top = binding.copy_outputs_to_cpu()
    np.testing.assert_array_equal(top, (X + B).max(1))
    assert [v.shape() for v in binding.get_outputs()] == [[2, 3], [2]]
    assert binding.get_outputs()[0].data_type() == "tensor(float)"
    binding.clear_binding_outputs()
    value = ort.OrtValue.ortvalue_from_shape_and_type([2], np.float32)
    binding.bind_ortvalue_output("top", value)
    session.run_with_iobinding(binding)
    np.testing.assert_array_equal(value.numpy(), top)


def test_inputs_bound_by_address(path: str) -> None:
    session = ours.InferenceSession(path)
    binding = session.io_binding()
    for name, array in (("x", X), ("b", B)):
        binding.bind_input(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
    binding.bind_output("sum")
    session.run_with_iobinding(binding)
    np.testing.assert_array_equal(binding.copy_outputs_to_cpu()[0], X + B)


def test_a_bound_output_is_the_memory_that_the_program_writes_to(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    session = ours.InferenceSession(path)
    binding = session.io_binding()
    binding.bind_cpu_input("x", X)
    binding.bind_cpu_input("b", B)
    place = np.zeros((2, 3), np.float32)
    binding.bind_ortvalue_output("sum", ours.OrtValue(place))
    seen = []
    enter = session.executable._enter

    def watched(frame: Any, *rest: Any) -> Any:
        results = enter(frame, *rest)
        seen.append(list(frame.outputs))
        return results

    monkeypatch.setattr(session.executable, "_enter", watched)
    session.run_with_iobinding(binding)
    assert place.ctypes.data in seen[0]
    np.testing.assert_array_equal(place, X + B)


def test_refusals(path: str) -> None:
    session = ours.InferenceSession(path)
    with pytest.raises(InputError, match="missing"):
        session.run(None, {"x": X})
    with pytest.raises(InputError, match="no output is called 'nope'"):
        session.run(["nope"], {"x": X, "b": B})
    with pytest.raises(InputError, match="only the CPU"):
        session.io_binding().bind_output("sum", "cuda")
    binding = session.io_binding()
    binding.bind_cpu_input("x", X)
    binding.bind_cpu_input("b", B)
    binding.bind_ortvalue_output("sum", ours.OrtValue(np.zeros((3, 3), np.float32)))
    with pytest.raises(InputError, match=r"sum.* is float32 \(2, 3\) here, and `out` has float32 \(3, 3\)"):
        session.run_with_iobinding(binding)
    with pytest.raises(InputError, match="not an ONNX model"):
        ours.InferenceSession(b"no model")


def test_providers_are_ignored_with_a_note(path: str) -> None:
    with pytest.warns(UserWarning, match="CUDAExecutionProvider"):
        session = ours.InferenceSession(path, providers=[("CUDAExecutionProvider", {"device_id": 0}), "CPUExecutionProvider"])
    assert session.get_providers() == ["CPUExecutionProvider"]


def test_sets_the_thread_count(path: str) -> None:
    before = get_num_threads()
    options = ours.SessionOptions()
    options.intra_op_num_threads = before + 1
    try:
        ours.InferenceSession(path, options)
        assert get_num_threads() == before + 1
    finally:
        tl.set_num_threads(before)
