import numpy as np
import pytest

from tensorlang.graph.passes import Context, fold_affine
from tests.graph.passes.graphs import Builder, assert_same_function, ops

f = np.float32


def batch_norm(g, x, channels, **attrs):
    scale, bias, mean = (g.weights(channels) for _ in range(3))
    return g.batch_norm(x, scale, bias, mean, np.abs(g.weights(channels)) + f(0.5), epsilon=1e-3, **attrs)


def test_everything_after_a_convolution_folds_into_it(golden):
    g = Builder()
    y = g.conv(g.input(1, 3, 8, 8), g.weights(4, 3, 3, 3), pad=1)
    y = g.sub(g.mul(batch_norm(g, y, 4), g.weights(4, 1, 1)), f(0.25))
    graph = g.graph(g.relu(g.div(y, f(3))))
    context = Context()
    after = fold_affine(graph, context)
    golden(f"{graph}\n->\n{after}\nbecause\n" + "\n".join(map(str, context.notes)))
    assert ops(after) == ["conv", "relu"]
    assert_same_function(graph, after)


@pytest.mark.parametrize("group", [2, 4])
def test_grouped_convolutions(group):
    g = Builder()
    graph = g.graph(batch_norm(g, g.conv(g.input(2, 4, 6, 6), g.weights(8, 4 // group, 3, 3), g.weights(8), group=group), 8))
    after = fold_affine(graph)
    assert ops(after) == ["conv"]
    assert_same_function(graph, after)


def test_transposed_convolution():
    g = Builder()
    x = g.input(1, 4, 5, 5)
    y = g.conv_transpose(
        x, g.weights(4, 6, 2, 2), strides=(2, 2), pads=(0,) * 4, dilations=(1, 1), output_padding=(0, 0), group=1,
        layout="NCHW",
    )  # fmt: skip
    graph = g.graph(batch_norm(g, y, 6))
    after = fold_affine(graph)
    assert ops(after) == ["conv_transpose"]
    assert_same_function(graph, after)


def test_normalisation_alone_is_a_product_and_a_sum():
    g = Builder()
    graph = g.graph(batch_norm(g, g.input(2, 4, 5, 5), 4), batch_norm(g, g.input(2, 4, 5, 5, name="y"), 5, axis=2))
    after = fold_affine(graph)
    assert ops(after) == ["mul", "add", "mul", "add"]
    assert_same_function(graph, after)


def test_normalisation_after_a_product_folds_into_its_weights():
    g = Builder()
    y = g.add(g.matmul(g.input(7, 8), g.weights(8, 6)), g.weights(6))
    graph = g.graph(batch_norm(g, y, 6))
    after = fold_affine(graph)
    assert ops(after) == ["matmul", "add", "add"] or ops(after) == ["matmul", "add"]
    assert_same_function(graph, after)


def test_a_convolution_read_twice_keeps_its_weights():
    g = Builder()
    y = g.conv(g.input(1, 3, 8, 8), g.weights(4, 3, 3, 3))
    graph = g.graph(g.mul(y, f(2)), g.relu(y))
    assert fold_affine(graph) is graph


def test_a_scale_per_pixel_does_not_fold():
    g = Builder()
    graph = g.graph(g.mul(g.conv(g.input(1, 3, 4, 4), g.weights(4, 3, 1, 1)), g.weights(4, 4)))
    assert fold_affine(graph) is graph


def test_a_scale_that_enlarges_the_result_does_not_fold():
    g = Builder()
    graph = g.graph(g.mul(g.conv(g.input(1, 3, 4, 4), g.weights(4, 3, 1, 1)), g.weights(2, 1, 1, 1)))
    assert fold_affine(graph) is graph


def test_zero_padding_joins_the_convolution():
    g = Builder()
    x = g.pad(g.input(1, 3, 8, 8), pads=(0, 0, 1, 2, 0, 0, 3, 0))
    graph = g.graph(g.conv(x, g.weights(4, 3, 3, 3), pads=(1, 0, 0, 1)))
    after = fold_affine(graph)
    assert ops(after) == ["conv"] and tuple(after.nodes[0].attrs["pads"]) == (2, 2, 3, 1)
    assert_same_function(graph, after)


@pytest.mark.parametrize(
    "pads, attrs", [((0, 1, 0, 0) * 2, {}), ((0, 0, 1, 1) * 2, {"value": 1.0}), ((0, 0, 1, 1) * 2, {"mode": "edge"})]
)
def test_other_padding_stays(pads, attrs):
    g = Builder()
    x = g.pad(g.input(1, 3, 8, 8), pads=pads, **attrs)
    graph = g.graph(g.conv(x, g.weights(4, x.shape[1].value, 3, 3)))
    assert fold_affine(graph) is graph


def test_zero_padding_joins_the_average():
    g = Builder()
    x = g.pad(g.input(1, 3, 8, 8), pads=(0, 0, 1, 1) * 2)
    graph = g.graph(g.pool("avg_pool", x, 3, 1), g.pool("max_pool", x, 3, 1))
    after = fold_affine(graph)
    assert sorted(ops(after)) == ["avg_pool", "max_pool", "pad"]
    assert_same_function(graph, after)
