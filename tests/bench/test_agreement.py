"""What counts as agreement with onnxruntime, at and around the bounds."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from bench import agreement
from bench.agreement import Basis

THEIRS = np.array([0.5, -10.0, 3.0], np.float32)
BOUND = 2e-4 * 10.0 + 2e-6


def _check(ours: np.ndarray, theirs: np.ndarray = THEIRS, oracle=None) -> agreement.OutputAgreement:
    (output,) = agreement.check({"y": ours}, {"y": theirs}, oracle, {"x": np.zeros(1, np.float32)}).outputs
    return output


def _oracle(value: np.ndarray) -> bytes:
    """A model that gives ``value`` whatever its input."""
    node = onnx.helper.make_node("Constant", [], ["y"], value=onnx.numpy_helper.from_array(value))
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    y = onnx.helper.make_tensor_value_info("y", onnx.helper.np_dtype_to_tensor_dtype(value.dtype), list(value.shape))
    graph = onnx.helper.make_graph([node], "constant", [x], [y])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


@pytest.mark.parametrize(("fraction", "ok"), [(0.0, True), (0.9, True), (1.1, False)])
def test_the_bound_is_relative_to_the_largest_output(fraction: float, ok: bool) -> None:
    output = _check(THEIRS + np.float32(fraction * BOUND))
    assert output.ok is ok
    assert output.bound == pytest.approx(BOUND)
    assert output.basis is Basis.TOLERANCE
    assert bool(output.reason) is not ok


def test_zero_outputs_leave_the_absolute_bound() -> None:
    zeros = np.zeros(3, np.float32)
    assert _check(zeros + np.float32(1.9e-6), zeros).ok
    assert not _check(zeros + np.float32(2.1e-6), zeros).ok


@pytest.mark.parametrize(("error", "ok"), [(0.25, True), (0.35, False)])
def test_where_onnxruntime_differs_from_itself_three_times_that_is_allowed(error: float, ok: bool) -> None:
    output = _check(THEIRS + np.float32(error), oracle=_oracle(THEIRS + np.float32(0.1)))
    assert output.ok is ok
    assert output.basis is Basis.ORACLE
    assert output.bound == pytest.approx(0.3, rel=1e-5)


def test_a_difference_of_onnxruntime_within_the_tolerance_widens_nothing() -> None:
    output = _check(THEIRS + np.float32(1.2 * BOUND), oracle=_oracle(THEIRS + np.float32(0.9 * BOUND)))
    assert not output.ok
    assert output.basis is Basis.TOLERANCE


def test_an_unoptimised_session_serves_as_oracle() -> None:
    session = onnxruntime.InferenceSession(_oracle(THEIRS + np.float32(0.1)), providers=["CPUExecutionProvider"])
    assert _check(THEIRS + np.float32(0.2), oracle=session).ok


@pytest.mark.parametrize(
    ("ours", "word"),
    [
        (THEIRS.astype(np.float64), "dtype"),
        (THEIRS[None], "shape"),
        (np.array([0.5, np.nan, 3.0], np.float32), "NaN"),
        (np.array([0.5, -np.inf, 3.0], np.float32), "infinit"),
    ],
)
def test_what_no_tolerance_forgives(ours: np.ndarray, word: str) -> None:
    output = _check(ours, oracle=_oracle(THEIRS + np.float32(100.0)))
    assert not output.ok
    assert word in output.reason


def test_nan_and_infinities_at_the_same_places_agree() -> None:
    theirs = np.array([np.nan, np.inf, -np.inf, 2.0], np.float32)
    assert _check(theirs + np.float32(0), theirs).ok
    assert not _check(np.array([np.nan, -np.inf, np.inf, 2.0], np.float32), theirs).ok


def test_booleans_and_indices() -> None:
    assert _check(np.array([True, False]), np.array([True, False])).ok
    assert not _check(np.array([True, True]), np.array([True, False])).ok
    assert not _check(np.array([7]), np.array([8])).ok


def test_empty_outputs_agree() -> None:
    assert _check(np.zeros((0, 4), np.float32), np.zeros((0, 4), np.float32)).ok


def test_outputs_are_matched_by_name() -> None:
    with pytest.raises(ValueError, match="missing \\['y'\\], unexpected \\['z'\\]"):
        agreement.check({"z": THEIRS}, {"y": THEIRS}, None, {})


def test_the_worst_output_is_the_one_that_disagrees() -> None:
    theirs = {"good": THEIRS, "bad": THEIRS, "near": THEIRS}
    ours = {"good": THEIRS, "bad": THEIRS + np.float32(1), "near": THEIRS + np.float32(0.9 * BOUND)}
    found = agreement.check(ours, theirs, None, {})
    assert not found.ok
    assert found.worst.name == "bad"
    assert agreement.check({"good": THEIRS}, {"good": THEIRS}, None, {}).worst.name == "good"
