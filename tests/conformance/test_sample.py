"""A sample of ONNX's backend tests on machine code: each is right, or refused in words. `make conformance` runs all of them.

The sample is fixed: every operator's first test, thinned out to what the time allows.
"""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from tensorlang.errors import InputError, UnsupportedOpError
from tensorlang.interop import onnx_backend
from tests.conformance.run import table
from tests.conformance.suite import cases, check, operators

PARTS = 4


def sample() -> list[str]:
    """The first test of every operator, every fourth one."""
    first: dict[str, str] = {}
    for id, operator in operators().items():
        if id.startswith("node/"):
            first.setdefault(operator, id)
    return sorted(first.values())[::4]


@pytest.mark.parametrize("part", range(PARTS))
def test_sample(part):
    wrong, passed = [], 0
    for id in sample()[part::PARTS]:
        verdict, message = check(cases()[id])
        passed += verdict == "pass"
        if verdict not in ("pass", "unsupported") and "random" not in id:
            wrong.append(f"{id}: {verdict}: {message[:200]}")
    assert not wrong, "\n".join(wrong)
    assert passed > 5


def test_every_kind_of_test_is_there():
    kinds = {id.partition("/")[0] for id in cases()}
    assert kinds == {"node", "real", "simple", "pytorch-converted", "pytorch-operator"}
    assert len(cases()) > 2000 or onnx.__version__ < "1.23"


def test_the_table_counts_and_lists():
    add, relu = "node/test_add", "node/test_relu"
    wrong = {"id": relu, "verdict": "error", "message": "no\nway"}
    text = table({add: {"id": add, "verdict": "pass", "message": ""}, relu: wrong})
    assert "2 tests, 1 pass, 1 error" in text
    assert "| Add | 1 |" in text and "- `node/test_relu` error: no way" in text


# -- the interface ---------------------------------------------------------------------------------------------------


def expand_model() -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [3])
    axes = helper.make_tensor_value_info("axes", onnx.TensorProto.INT64, [1])
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node("Unsqueeze", ["x", "axes"], ["y"])], "g", [x, axes], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])


def test_what_hangs_on_contents_is_specialised_and_kept():
    prepared = onnx_backend.prepare(expand_model())
    x = np.arange(3, dtype=np.float32)
    for axis, shape in ((0, (1, 3)), (1, (3, 1)), (0, (1, 3))):
        (y,) = prepared.run([x, np.array([axis])])
        assert y.shape == shape
        np.testing.assert_array_equal(y.ravel(), x)
    assert prepared.executable is None and prepared.needs == ("axes",) and len(prepared._specialised) == 2


def test_inputs_by_name_and_by_position():
    prepared = onnx_backend.prepare(expand_model())
    x, axes = np.zeros(3, np.float32), np.array([0])
    assert prepared.run({"axes": axes, "x": x})[0].shape == (1, 3)
    with pytest.raises(InputError, match="takes 2 input"):
        prepared.run([x])
    with pytest.raises(InputError, match="'axes' got float32"):
        prepared.run([x, x])


def test_run_node():
    node = helper.make_node("Add", ["a", "b"], ["c"])
    (c,) = onnx_backend.run_node(node, [np.ones(3, np.float32), np.full(3, 2, np.float32)])
    np.testing.assert_array_equal(c, np.full(3, 3, np.float32))


def test_devices():
    assert onnx_backend.supports_device("CPU") and not onnx_backend.supports_device("CUDA:0")
    with pytest.raises(InputError, match="device 'CUDA'"):
        onnx_backend.prepare(expand_model(), "CUDA")


def test_a_model_of_an_unknown_operator():
    model = expand_model()
    model.graph.node[0].op_type = "Nothing"
    assert not onnx_backend.is_compatible(model) and onnx_backend.is_compatible(expand_model())
    with pytest.raises(UnsupportedOpError, match="Nothing"):
        onnx_backend.prepare(model)
