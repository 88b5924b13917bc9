"""What is kept as bf16 numbers between kernels, and that the results are those of the rounded numbers."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from tensorlang.graph import GraphBuilder, TensorType, evaluate
from tensorlang.graph.ir import Graph, Value, constant
from tensorlang.graph.passes import Options, fuse, optimize

RNG = np.random.default_rng(0)
OPTIONS = Options(halves=True, winograd=False)
PLAIN = {"strides": (1, 1), "dilations": (1, 1), "group": 1}


def weight(*shape: int) -> Value:
    return constant(RNG.standard_normal(shape).astype(np.float32), "w")


def kinds(graph: Graph) -> dict[str, list[str]]:
    """The types that each group gives to memory, by its name."""
    return {g.name: [str(v.dtype) for v in g.outputs] for g in fuse(graph, OPTIONS) if g.kind == "kernel"}


def test_a_residual_is_read_as_the_product_reads_it():
    g = GraphBuilder()
    x = g.input("x", TensorType.of("f32", (8, 16)))
    h = g.add("relu", [g.add("matmul", [x, weight(16, 32)])])
    y = g.add("add", [g.add("matmul", [h, weight(32, 32)]), h])
    graph = Graph([x], g.nodes, [y], output_names=["y"])
    after = optimize(graph, OPTIONS)
    assert sorted(kinds(after).values()) == [["bf16"], ["bf16"], ["f32"]]  # x rounded, h, and the result
    feeds = {"x": RNG.standard_normal((8, 16)).astype(np.float32)}
    first, second = (n.inputs[1].constant for n in graph.nodes if n.op == "matmul")

    def rounded(a: np.ndarray) -> np.ndarray:
        return a.astype(ml_dtypes.bfloat16).astype(np.float32)

    hidden = rounded(np.maximum(rounded(feeds["x"]) @ rounded(first), 0))
    np.testing.assert_allclose(evaluate(after, feeds)["y"], hidden @ rounded(second) + hidden, rtol=1e-5, atol=1e-4)


def test_a_result_that_leaves_the_graph_stays_f32():
    g = GraphBuilder()
    x = g.input("x", TensorType.of("f32", (8, 16)))
    h = g.add("relu", [x])
    y = g.add("matmul", [h, weight(16, 32)])
    after = optimize(Graph([x], g.nodes, [h, y], output_names=["h", "y"]), OPTIONS)
    assert [str(v.dtype) for v in after.outputs] == ["f32", "f32"]
    feeds = {"x": RNG.standard_normal((8, 16)).astype(np.float32)}
    np.testing.assert_array_equal(evaluate(after, feeds)["h"], np.maximum(feeds["x"], 0))


def test_windows_by_channel_and_the_largest_of_a_window():
    g = GraphBuilder()
    x = g.input("x", TensorType.of("f32", (1, 16, 12, 12)))
    a = g.add("conv", [x, weight(16, 16, 3, 3)], {**PLAIN, "pads": (1, 1, 1, 1)})
    pool = {"kernel": (2, 2), "strides": (2, 2), "pads": (0, 0, 0, 0), "dilations": (1, 1)}
    b = g.add("max_pool", [g.add("relu", [a])], pool)
    c = g.add("conv", [b, weight(16, 1, 3, 3)], {**PLAIN, "group": 16, "pads": (1, 1, 1, 1)})
    y = g.add("conv", [c, weight(8, 16, 1, 1)], {**PLAIN, "pads": (0, 0, 0, 0)})
    graph = Graph([x], g.nodes, [y], output_names=["y"])
    after = optimize(graph, OPTIONS)
    pooled = next(n for n in after.nodes if n.op == "max_pool")
    assert pooled.inputs[0].dtype.name == pooled.output.dtype.name == "bf16"
    assert list(kinds(after).values()) == [["bf16"]] * 4 + [["f32"]] * 2  # the last product, and its result transposed
    feeds = {"x": RNG.standard_normal((1, 16, 12, 12)).astype(np.float32)}
    expected, got = evaluate(graph, feeds)["y"], evaluate(after, feeds)["y"]
    assert 1e-5 < np.abs(got - expected).max() / np.abs(expected).max() < 2e-2
