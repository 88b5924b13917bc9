"""The standard models: sound, of the stated size, run by onnxruntime, outputs that depend on inputs."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from bench import cache, models
from bench.models import flops

SMALL = ("mlp", "mobilenet_v2")


def _run(name: str, seed: int) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(models.path(name)), providers=["CPUExecutionProvider"])
    return session.run(None, models.inputs(name, seed))[0]


@pytest.mark.parametrize("name", models.NAMES)
def test_gflop_is_as_stated_and_the_checker_is_content(name: str) -> None:
    model = models.build(name)
    assert models.gflop(model) == pytest.approx(models.GFLOP[name], rel=0.03)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    onnx.checker.check_model(model)


@pytest.mark.parametrize("name", models.NAMES)
def test_onnxruntime_gives_sane_outputs(name: str) -> None:
    output = _run(name, seed=0)
    assert np.isfinite(output).all()
    assert 0.1 < output.std() < 10, "activations neither vanish nor explode"


@pytest.mark.parametrize("name", SMALL)
def test_outputs_depend_on_inputs(name: str) -> None:
    first, second = _run(name, seed=0), _run(name, seed=1)
    assert np.linalg.norm(first - second) > 0.1 * np.linalg.norm(first)


@pytest.mark.parametrize("name", ("bert", "gpt2"))
def test_token_ids_are_within_the_vocabulary(name: str) -> None:
    model = models.build(name)
    vocabulary = {tensor.name: tensor.dims[0] for tensor in model.graph.initializer}
    ids = models.inputs(model, seed=3)["input_ids"]
    table = next(node.input[0] for node in model.graph.node if node.op_type == "Gather" and "input_ids" in node.input)
    assert ids.dtype == np.int64
    assert 0 <= ids.min() < ids.max() < vocabulary[table]


def test_gpt2_is_causal() -> None:
    """A changed last token changes no earlier position."""
    session = onnxruntime.InferenceSession(str(models.path("gpt2")), providers=["CPUExecutionProvider"])
    feeds = models.inputs("gpt2", seed=0)
    before = session.run(None, feeds)[0]
    feeds["input_ids"][0, -1] = (feeds["input_ids"][0, -1] + 1) % 16384
    after = session.run(None, feeds)[0]
    np.testing.assert_allclose(after[:, :-1], before[:, :-1], rtol=0, atol=1e-4)
    assert np.abs(after[:, -1] - before[:, -1]).max() > 1e-2


def test_inputs_are_seeded() -> None:
    one, same, other = (models.inputs("mlp", seed)["input"] for seed in (0, 0, 1))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_a_second_build_gives_the_same_file(tmp_path, monkeypatch) -> None:
    first = models.path("mlp").read_bytes()
    monkeypatch.setenv(cache.ENVIRONMENT_VARIABLE, str(tmp_path))
    again = models.path("mlp")
    assert again.is_relative_to(tmp_path)
    assert again.read_bytes() == first
    assert [file.name for file in again.parent.iterdir()] == [again.name], "no temporary files stay behind"


def test_an_unknown_model_is_refused_with_the_list() -> None:
    with pytest.raises(cache.BenchError, match="resnet50"):
        models.path("resnet51")


def test_operators_are_those_of_the_exporter() -> None:
    counts = {}
    for node in models.build("bert").graph.node:
        counts[node.op_type] = counts.get(node.op_type, 0) + 1
    assert counts["LayerNormalization"] == 9  # one after the embeddings, two a layer
    assert counts["Erf"] == counts["Softmax"] == 4
    assert counts["MatMul"] == 4 * 8
    assert "Gelu" not in counts and "Attention" not in counts


def test_flops_of_a_dynamic_model_are_refused() -> None:
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 4])
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", "n"])
    nodes = [
        onnx.helper.make_node("Transpose", ["x"], ["t"]),
        onnx.helper.make_node("MatMul", ["x", "t"], ["y"], name="product"),
    ]
    with pytest.raises(ValueError, match="product"):
        flops.count(onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", [x], [y])))


def test_flops_of_a_grouped_strided_convolution() -> None:
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 8, 9, 9])
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    weight = onnx.numpy_helper.from_array(np.zeros((16, 2, 3, 3), np.float32), "w")
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"], group=4, strides=[2, 2])
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", [x], [y], [weight]))
    assert flops.count(model) == 2 * (16 * 4 * 4) * (2 * 3 * 3)
