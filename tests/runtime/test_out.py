"""`Executable.run(feeds, out=...)`: results in the caller's own memory."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from onnx import TensorProto, helper

import tensorlang as tl
from tensorlang.errors import InputError

SHAPE = (6, 40)


@pytest.fixture(scope="module")
def exe() -> tl.Executable:
    """y = x + 1, z = Transpose(x)."""
    one = helper.make_tensor("one", TensorProto.FLOAT, [], [1.0])
    nodes = [helper.make_node("Add", ["x", "one"], ["y"]), helper.make_node("Transpose", ["x"], ["z"], perm=[1, 0])]
    values = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", SHAPE), ("y", SHAPE), ("z", SHAPE[::-1]))
    ]
    graph = helper.make_graph(nodes, "two", values[:1], values[1:], [one])
    return tl.compile(tl.from_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)))


X = np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32)


def test_the_given_array_is_written_and_returned(exe: tl.Executable) -> None:
    y = np.zeros(SHAPE, np.float32)
    found = exe.run({"x": X}, out={"y": y})
    assert found["y"] is y and found["z"].shape == SHAPE[::-1]
    np.testing.assert_array_equal(y, X + 1)
    np.testing.assert_array_equal(found["z"], X.T)


def test_an_array_that_starts_anywhere_or_is_no_block_gets_the_same(exe: tl.Executable) -> None:
    odd = np.zeros(X.size + 1, np.float32)[1:].reshape(SHAPE)
    strided = np.zeros((40, 12), np.float32)[:, ::2]
    found = exe.run({"x": X}, out={"y": odd, "z": strided})
    assert found["z"] is strided
    np.testing.assert_array_equal(odd, X + 1)
    np.testing.assert_array_equal(strided, X.T)


def test_the_input_itself_may_be_the_output(exe: tl.Executable) -> None:
    x = X.copy()
    found = exe.run({"x": x}, out={"y": x})
    np.testing.assert_array_equal(x, X + 1)
    np.testing.assert_array_equal(found["z"], X.T)


def read_only() -> np.ndarray:
    array = np.zeros(SHAPE, np.float32)
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ({"w": np.zeros(SHAPE, np.float32)}, "no output is called 'w'"),
        ({"y": np.zeros(SHAPE[::-1], np.float32)}, r"float32 \(40, 6\)"),
        ({"y": np.zeros(SHAPE)}, "float64"),
        ({"y": read_only()}, "read-only"),
        ({"y": [0.0]}, "list"),
    ],
    ids=["name", "shape", "dtype", "read-only", "list"],
)
def test_what_does_not_fit_is_refused_before_the_run(exe: tl.Executable, out: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        exe.run({"x": X}, out=out)


def test_a_binding_reads_what_its_inputs_hold_and_writes_to_its_outputs(exe: tl.Executable) -> None:
    x, y = X.copy(), np.zeros(SHAPE, np.float32)
    bound = exe.bind({"x": x}, {"y": y})
    z = bound.outputs["z"]
    for value in (0.0, 3.0):
        x[...] = value
        found = bound()
        assert found["y"] is y and found["z"] is z
        np.testing.assert_array_equal(y, x + 1)
        np.testing.assert_array_equal(z, x.T)


def test_a_binding_of_arrays_that_need_copies_follows_them_too(exe: tl.Executable) -> None:
    wide, strided = np.zeros((SHAPE[0], 80), np.float32), np.zeros((40, 12), np.float32)[:, ::2]
    bound = exe.bind({"x": wide[:, ::2]}, {"z": strided})
    for value in (1.0, 2.0):
        wide[...] = value
        assert bound()["z"] is strided
        np.testing.assert_array_equal(strided, wide[:, ::2].T)


def test_a_binding_refuses_what_a_run_refuses(exe: tl.Executable) -> None:
    with pytest.raises(InputError, match="'x' is missing"):
        exe.bind({"y": X})
    with pytest.raises(InputError, match="float64"):
        exe.bind({"x": X}, {"y": np.zeros(SHAPE)})


def test_bindings_of_one_executable_run_beside_each_other(exe: tl.Executable) -> None:
    inputs = [np.full(SHAPE, k, np.float32) for k in range(4)]
    bindings = [exe.bind({"x": x}) for x in inputs]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda k: bindings[k % 4](), range(200)))
    for x, bound in zip(inputs, bindings, strict=True):
        np.testing.assert_array_equal(bound.outputs["y"], x + 1)
