"""A user's `@te.compute` function as an ONNX operator of a custom domain: imported, checked against NumPy, timed."""

import numpy as np
import pytest

import tensorlang as tl
from tensorlang import te
from tensorlang.errors import InputError, ModelError
from tensorlang.graph import evaluate
from tests.importers.models import model, node

F = np.float32


@te.compute
def hard_mish(x: te.f32["N", "C"], alpha: float = 1.0):
    """x * min(alpha, max(0, x + 2)) / 2, an approximation of mish (arXiv 1908.08681)."""
    N, C = x.shape
    return te.compute((N, C), lambda i, j: x[i, j] * te.minimum(te.maximum(x[i, j] + 2.0, 0.0), alpha) * 0.5, name="hard_mish")


def hard_mish_numpy(x, alpha=1.0):
    return x * np.minimum(np.maximum(x + F(2), F(0)), F(alpha)) * F(0.5)


def network(**attributes):
    nodes = [
        node("MatMul", ["x", "w"], ["h"], name="fc"),
        node("HardMish", ["h"], ["m"], name="act", domain="com.acme", **attributes),
        node("Add", ["m", "b"], ["y"], name="bias"),
    ]
    rng = np.random.default_rng(1)
    weights = {"w": rng.standard_normal((8, 5)).astype(F), "b": rng.standard_normal(5).astype(F)}
    return model(nodes, [("x", F, ["batch", 8])], ["y"], weights, domains={"com.acme": 1}), weights


@pytest.fixture(autouse=True)
def registered():
    tl.register_onnx_op("com.acme", "HardMish", hard_mish)


@pytest.mark.parametrize("attributes", [{}, {"alpha": 2.0}])
def test_import_and_reference(attributes):
    m, weights = network(**attributes)
    x = np.random.default_rng(0).standard_normal((3, 8)).astype(F)
    graph = tl.from_onnx(m)
    assert [n.op for n in graph.nodes] == ["matmul", "com.acme.HardMish", "add"]
    assert str(graph.outputs[0].type) == "f32[batch, 5]"
    expected = hard_mish_numpy(x @ weights["w"], **attributes) + weights["b"]
    np.testing.assert_allclose(evaluate(graph, {"x": x})["y"], expected, rtol=1e-6, atol=1e-6)


def test_a_reference_in_numpy_is_used():
    calls = []

    def reference(x, alpha=1.0):
        calls.append(x.shape)
        return hard_mish_numpy(x, alpha)

    tl.register_onnx_op("com.acme", "HardMish", hard_mish, reference=reference)
    evaluate(tl.from_onnx(network()[0]), {"x": np.ones((3, 8), F)})
    assert calls == [(3, 5)]


def test_compiled_in_a_model():
    m, weights = network(alpha=2.0)
    x = np.random.default_rng(0).standard_normal((3, 8)).astype(F)
    exe = tl.compile(tl.from_onnx(m, shapes={"batch": 3}))
    expected = hard_mish_numpy(x @ weights["w"], 2.0) + weights["b"]
    np.testing.assert_allclose(exe(x), expected, rtol=1e-5, atol=1e-5)


def test_benchmark_against_the_composition_that_onnxruntime_runs():
    nodes = [
        node("Add", ["x", "two"], ["a"]),
        node("Clip", ["a", "zero", "alpha"], ["c"]),
        node("Mul", ["x", "c"], ["p"]),
        node("Mul", ["p", "half"], ["y"]),
    ]
    weights = {"two": F(2), "zero": F(0), "alpha": F(1), "half": F(0.5)}
    composition = model(nodes, [("x", F, ["N", "C"])], ["y"], weights)
    x = np.random.default_rng(0).standard_normal((64, 256)).astype(F)
    found = tl.benchmark(hard_mish, [x], against=composition, blocks=2, block_seconds=0.01, rest_seconds=0)
    assert found.error < 1e-6 and found.ours > 0 and found.theirs > 0 and "us against" in str(found)
    by_numpy = tl.benchmark(hard_mish, [x], against=hard_mish_numpy, blocks=1, block_seconds=0.01, rest_seconds=0)
    assert by_numpy.error < 1e-6


def test_benchmark_refuses_a_comparison_of_other_outputs():
    with pytest.raises(InputError, match="differ in shape"):
        tl.benchmark(lambda x: x, [np.ones(3, F)], against=lambda x: x[:1], blocks=1)


def test_unknown_attributes_are_named():
    with pytest.raises(ModelError, match="'act'.*'beta' is no compile-time constant of hard_mish.*alpha"):
        tl.from_onnx(network(beta=1.0)[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("com.acme", "X", hard_mish_numpy), "@te.compute"),
        (("", "Relu", hard_mish), "domain of its own"),
        (("ai.onnx", "X", hard_mish), "domain"),
    ],
)
def test_refused_registrations(arguments, message):
    with pytest.raises(InputError, match=message):
        tl.register_onnx_op(*arguments)


def test_a_node_that_does_not_fit_the_operator():
    m = model(
        [node("HardMish", ["x"], ["y"], name="act", domain="com.acme")], [("x", F, [2, 3, 4])], ["y"], domains={"com.acme": 1}
    )
    with pytest.raises(ModelError, match="'act'.*x is f32"):
        tl.from_onnx(m)
