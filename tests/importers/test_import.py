"""Reading models: dimensions, shapes=, constants, functions, subgraphs."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import tensorlang as tl
from tensorlang.errors import InputError
from tensorlang.graph import evaluate
from tests.importers.models import model, node

F = np.float32


def relu(shape, name="x"):
    return model([node("Relu", [name], ["y"], name="act")], [(name, F, shape)], ["y"])


def test_equal_names_are_one_dimension():
    m = model([node("Add", ["a", "b"], ["y"])], [("a", F, ["batch", 3]), ("b", F, ["batch", 3])], ["y"])
    graph = tl.from_onnx(m)
    assert list(graph.dims) == ["batch"]
    assert graph.inputs[0].shape[0] is graph.inputs[1].shape[0] is graph.outputs[0].shape[0] is graph.dims["batch"]


@pytest.mark.parametrize("dim", [None, "?", -1, 0])
def test_unnamed_dimensions_are_different(dim):
    m = relu([1, 1])
    for d in m.graph.input[0].type.tensor_type.shape.dim:
        d.Clear()
        if isinstance(dim, str):
            d.dim_param = dim
        elif dim is not None:
            d.dim_value = dim
    graph = tl.from_onnx(m)
    assert list(graph.dims) == ["x_dim_0", "x_dim_1"]
    assert graph.inputs[0].shape[0] is not graph.inputs[0].shape[1]


@pytest.mark.parametrize("shapes", [{"batch": 2}, {"x": (2, 3)}, {"x": (2, None), "batch": 2}, {"x": ("batch", 3), "batch": 2}])
def test_shapes_fix_dimensions(shapes):
    graph = tl.from_onnx(relu(["batch", 3]), shapes=shapes)
    assert graph.outputs[0].type.static_shape == (2, 3) and not graph.dims


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"bach": 2}, "'bach'.*open dimensions: 'batch'.*inputs: 'x'"),
        ({"batch": 0}, "at least 1"),
        ({"batch": 2.5}, "integer"),
        ({"x": (2,)}, "2 dimension"),
        ({"x": (2, 4)}, "fixes it at 3"),
        ({"x": (2, 3), "batch": 3}, "given as"),
    ],
)
def test_shapes_that_do_not_fit(shapes, message):
    with pytest.raises(InputError, match=message):
        tl.from_onnx(relu(["batch", 3]), shapes=shapes)


def test_names_of_inputs_and_outputs_are_the_models_own():
    m = model([node("Relu", ["input.1"], ["output/1"])], [("input.1", F, [2])], ["output/1"])
    graph = tl.from_onnx(m)
    assert evaluate(graph, {"input.1": np.array([-1, 1], F)})["output/1"].tolist() == [0, 1]


def test_shape_arithmetic_leaves_no_nodes():
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "zero"], ["n"], axis=0),
        node("Unsqueeze", ["n", "axes"], ["n1"]),
        node("Concat", ["n1", "minus"], ["target"], axis=0),
        node("Reshape", ["x", "target"], ["y"]),
    ]
    weights = {"zero": np.array(0), "axes": np.array([0]), "minus": np.array([-1])}
    graph = tl.from_onnx(model(nodes, [("x", F, ["N", 3, "H", "W"])], ["y"], weights))
    assert [n.op for n in graph.nodes] == ["reshape"]
    assert str(graph.outputs[0].type) == "f32[N, H * W * 3]"


def test_a_shape_that_is_asked_for_is_computed():
    graph = tl.from_onnx(model([node("Shape", ["x"], ["s"])], [("x", F, ["N", 3])], [("s", np.int64, [2])]))
    assert evaluate(graph, {"x": np.zeros((5, 3), F)})["s"].tolist() == [5, 3]


def test_constants_fold():
    nodes = [node("Transpose", ["w"], ["wt"]), node("Mul", ["wt", "two"], ["w2"]), node("MatMul", ["x", "w2"], ["y"])]
    w = np.arange(6, dtype=F).reshape(2, 3)
    graph = tl.from_onnx(model(nodes, [("x", F, [4, 3])], ["y"], {"w": w, "two": F(2)}))
    assert [n.op for n in graph.nodes] == ["matmul"]
    assert (graph.nodes[0].inputs[1].constant == w.T * 2).all()


def test_initialisers_listed_as_inputs_are_constants():
    m = model([node("Add", ["x", "w"], ["y"])], [("x", F, [2]), ("w", F, [2])], ["y"], {"w": np.ones(2, F)})
    assert [v.name for v in tl.from_onnx(m).inputs] == ["x"]


def test_local_functions_are_inlined():
    double = helper.make_function(
        "local", "Double", ["a"], ["b"], [node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 17)]
    )
    m = model([node("Double", ["x"], ["y"], domain="local")], [("x", F, [3])], ["y"], domains={"local": 1})
    m.functions.append(double)
    assert evaluate(tl.from_onnx(m), {"x": np.array([1, 2, 3], F)})["y"].tolist() == [2, 4, 6]


def test_operators_defined_by_functions_need_no_rule():
    m = model([node("MeanVarianceNormalization", ["x"], ["y"], axes=[1])], [("x", F, [2, 4])], ["y"])
    x = np.random.default_rng(0).standard_normal((2, 4)).astype(F)
    expected = (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True)
    np.testing.assert_allclose(evaluate(tl.from_onnx(m), {"x": x})["y"], expected, atol=1e-5)


def branch(name, op):
    info = helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, None)
    return helper.make_graph([node(op, ["x"], [f"{name}_out"])], name, [], [info])


def test_if_with_a_known_condition_is_one_branch():
    conditional = node("If", ["c"], ["y"], then_branch=branch("then", "Relu"), else_branch=branch("else", "Neg"))
    graph = tl.from_onnx(model([conditional], [("x", F, [2])], ["y"], {"c": np.array(False)}))
    assert [n.op for n in graph.nodes] == ["neg"]


def test_a_loop_of_known_length_is_unrolled():
    body = helper.make_graph(
        [node("Add", ["s", "x"], ["s2"]), node("Identity", ["c"], ["c2"]), node("Identity", ["s2"], ["scan"])],
        "body",
        [helper.make_tensor_value_info("i", TensorProto.INT64, []), helper.make_tensor_value_info("c", TensorProto.BOOL, []),
         helper.make_tensor_value_info("s", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("c2", TensorProto.BOOL, []), helper.make_tensor_value_info("s2", TensorProto.FLOAT, [2]),
         helper.make_tensor_value_info("scan", TensorProto.FLOAT, [2])],
    )  # fmt: skip
    m = model([node("Loop", ["n", "", "zero"], ["last", "all"], body=body)], [("x", F, [2])], ["last", "all"],
              {"n": np.array(3), "zero": np.zeros(2, F)})  # fmt: skip
    out = evaluate(tl.from_onnx(m), {"x": np.array([1, 2], F)})
    assert out["last"].tolist() == [3, 6] and out["all"].tolist() == [[1, 2], [2, 4], [3, 6]]


def test_the_source_may_be_a_path_bytes_or_a_model(tmp_path):
    m = relu([2])
    path = tmp_path / "no_such_ending"
    onnx.save(m, path)
    for source in (path, str(path), path.read_bytes(), m):
        assert [n.op for n in tl.load_model(source).nodes] == ["relu"]


def test_external_data_is_found_beside_the_file(tmp_path):
    w = np.arange(512, dtype=F)
    m = model([node("Add", ["x", "w"], ["y"])], [("x", F, [512])], ["y"])
    m.graph.initializer.append(numpy_helper.from_array(w, "w"))
    onnx.save(m, tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0, location="weights.bin")
    graph = tl.from_onnx(tmp_path / "m.onnx")
    assert (graph.nodes[0].inputs[1].constant == w).all()


def test_same_file_same_graph(tmp_path):
    m = relu(["batch", 3])
    assert str(tl.from_onnx(m)) == str(tl.from_onnx(m))
