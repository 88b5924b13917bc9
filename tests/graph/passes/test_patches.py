"""Convolutions whose windows tile the image become products of matrices."""

from __future__ import annotations

import numpy as np
import pytest

from tensorlang.graph import GraphBuilder, TensorType, evaluate
from tensorlang.graph.ir import Graph, constant
from tensorlang.graph.passes.patches import patches


def model(kernel: int, stride: int, bias: bool) -> Graph:
    rng = np.random.default_rng(0)
    b = GraphBuilder()
    x = b.input("x", TensorType.of("f32", (2, 6, 8, 12)))
    inputs = [x, constant(rng.standard_normal((5, 6, kernel, kernel)).astype(np.float32), "w")]
    if bias:
        inputs.append(constant(rng.standard_normal(5).astype(np.float32), "b"))
    y = b.add("conv", inputs, {"strides": (stride,) * 2, "pads": (0,) * 4, "dilations": (1, 1), "group": 1})
    return Graph([x], b.nodes, [y], output_names=["y"])


def ops(graph: Graph) -> list[str]:
    return [n.op for n in graph.nodes]


@pytest.mark.parametrize("bias", [False, True])
def test_windows_that_tile(bias):
    graph = model(2, 2, bias)
    product = patches(graph)
    assert "matmul" in ops(product) and "conv" not in ops(product)
    feeds = {"x": np.random.default_rng(1).standard_normal((2, 6, 8, 12)).astype(np.float32)}
    np.testing.assert_allclose(evaluate(product, feeds)["y"], evaluate(graph, feeds)["y"], rtol=1e-5, atol=1e-5)


def test_windows_that_overlap_stay():
    assert "conv" in ops(patches(model(3, 2, False)))
