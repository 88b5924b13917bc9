"""Convolutions that stay channels-second because transpositions would cost more, and what becomes of them."""

import numpy as np
import pytest

from tensorlang import compile as compile_model
from tensorlang.graph.passes import Context, Options, flatten, layout, optimize
from tensorlang.graph.reference import evaluate
from tests.graph.passes.graphs import Builder, assert_same_function, count, feeds_for

CHOOSE = Options(channels_second=True)


def layouts(graph):
    return [n.attrs["layout"] for n in graph.nodes if n.op == "conv"]


def test_one_depthwise_convolution_is_not_transposed():
    g = Builder()
    y = g.relu(g.conv(g.input(1, 8, 12, 12), g.weights(8, 1, 3, 3), g.weights(8), group=8, pad=1))
    graph = g.graph(y)
    assert layout(graph, Context(CHOOSE)) is graph
    assert count(layout(graph), "transpose") == 2


def test_a_chain_of_dense_convolutions_goes_to_channels_last():
    g = Builder()
    y = g.input(1, 16, 14, 14)
    for _ in range(3):
        y = g.relu(g.conv(y, g.weights(64, y.shape[1].value, 5, 5), pad=2))
    after = layout(g.graph(y), Context(CHOOSE))
    assert layouts(after) == ["NHWC"] * 3 and count(after, "transpose") == 2


def test_what_a_dense_chain_is_joined_to_goes_with_it():
    g = Builder()
    y = g.conv(g.input(1, 8, 14, 14), g.weights(8, 1, 3, 3), group=8, pad=1)
    y = g.conv(g.relu(y), g.weights(64, 8, 3, 3), pad=1)
    assert layouts(layout(g.graph(y), Context(CHOOSE))) == ["NHWC"] * 2  # Winograd's method is at home there


def test_convolutions_apart_from_each_other_are_decided_apart():
    g = Builder()
    small = g.conv(g.input(1, 8, 12, 12), g.weights(8, 1, 3, 3), group=8)
    large = g.conv(g.input(1, 16, 8, 8), g.weights(32, 16, 3, 3), pad=1)
    assert layouts(layout(g.graph(small, large), Context(CHOOSE))) == ["NCHW", "NHWC"]


def test_a_transposition_of_the_model_pays_for_channels_last():
    g = Builder()
    x = g.transpose(g.input(1, 12, 12, 8), perm=(0, 3, 1, 2))
    y = g.transpose(g.conv(x, g.weights(8, 1, 3, 3), group=8), perm=(0, 2, 3, 1))
    after = layout(g.graph(y), Context(CHOOSE))
    assert layouts(after) == ["NHWC"] and count(after, "transpose") == 0


def test_a_pointwise_convolution_is_a_product_with_planes(golden):
    g = Builder()
    x = g.input(1, 4, 8, 8)
    y = g.relu(g.add(g.conv(x, g.weights(4, 4, 1, 1), g.weights(4)), x))
    graph = g.graph(g.mul(y, g.weights(1, 4, 1, 1)))
    after = flatten(layout(graph, Context(CHOOSE)), Context(CHOOSE))
    golden(f"{graph}\n->\n{after}")
    assert count(after, "conv") == 0 and count(after, "transpose") == 0
    assert_same_function(graph, after)


MODELS = {
    "pointwise": lambda g, x: g.relu(g.conv(x, g.weights(5, 6, 1, 1), g.weights(5))),
    "pointwise, strided": lambda g, x: g.relu(g.conv(x, g.weights(5, 6, 1, 1), g.weights(5), strides=(2, 2))),
    "pointwise, then depthwise": lambda g, x: g.conv(g.conv(x, g.weights(6, 6, 1, 1)), g.weights(6, 1, 3, 3), group=6, pad=1),
    "scaled by itself": lambda g, x: g.mul(
        x, g.sigmoid(g.conv(g.reduce_mean(x, axes=(2, 3), keepdims=True), g.weights(6, 6, 1, 1), g.weights(6)))
    ),
    "window of every other element": lambda g, x: g.relu(
        g.conv(x, g.weights(7, 6, 3, 3), g.weights(7), strides=(2, 2), pad=1)
    ),
    "scale per pixel": lambda g, x: g.mul(g.conv(x, g.weights(6, 6, 1, 1)), g.weights(18, 18)),
}


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", MODELS)
def test_compiled(name, batch):
    g = Builder()
    graph = g.graph(MODELS[name](g, g.input(batch, 6, 18, 18)))
    after = optimize(graph, CHOOSE)
    assert count(after, "transpose") == 0
    assert_same_function(graph, after)
    feeds = feeds_for(graph)
    (expected,) = evaluate(graph, feeds).values()
    (result,) = compile_model(graph, target="cpu").run(feeds).values()
    np.testing.assert_allclose(result, expected, rtol=2e-5, atol=2e-5)


def test_a_reduction_over_an_image_is_one_over_a_line():
    g = Builder()
    graph = g.graph(g.reduce_mean(g.input(2, 3, 5, 7), axes=(2, 3), keepdims=True))
    after = flatten(graph)
    (node,) = (n for n in after.nodes if n.op == "reduce_mean")
    assert [d.value for d in node.inputs[0].shape] == [2, 3, 35]
    assert_same_function(graph, after)


def test_a_reduction_keeps_the_shape_of_what_fuses_into_it():
    g = Builder()
    graph = g.graph(g.reduce_sum(g.relu(g.input(2, 3, 5, 7)), axes=(2, 3), keepdims=False))
    assert flatten(graph) is graph
