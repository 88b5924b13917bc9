import math

import numpy as np
import pytest

from tensorlang.graph.passes import recognise
from tests.graph.passes.graphs import Builder, assert_same_function, ops

f = np.float32


def erf_gelu(g, x, order):
    gate = g.add(g.erf(g.div(x, f(math.sqrt(2)))), f(1))
    if order == 0:
        return g.mul(g.mul(x, gate), f(0.5))
    return g.mul(f(0.5), g.mul(gate, x)) if order == 1 else g.mul(g.mul(f(0.5), x), gate)


def tanh_gelu(g, x, order):
    cube = g.pow(x, f(3)) if order else g.mul(g.mul(x, x), x)
    inner = g.mul(f(math.sqrt(2 / math.pi)), g.add(x, g.mul(cube, f(0.044715))))
    return g.mul(g.mul(f(0.5), x), g.add(g.tanh(inner), f(1)))


def hard_swish(g, x, order):
    gate = g.clip(g.add(x, f(3)), min=0.0, max=6.0)
    return g.div(g.mul(x, gate), f(6)) if order else g.mul(x, g.div(gate, f(6)))


@pytest.mark.parametrize("order", [0, 1, 2])
def test_gelu_by_erf(order):
    g = Builder()
    graph = g.graph(erf_gelu(g, g.input(4, 50), order))
    after = recognise(graph)
    assert ops(after) == ["gelu"]
    assert_same_function(graph, after)


@pytest.mark.parametrize("order", [0, 1])
def test_gelu_by_tanh(order):
    g = Builder()
    graph = g.graph(tanh_gelu(g, g.input(4, 50), order))
    after = recognise(graph)
    assert ops(after) == ["gelu"] and after.nodes[0].attrs["approximate"] == "tanh"
    assert_same_function(graph, after)


@pytest.mark.parametrize("order", [0, 1])
def test_hard_swish(order):
    g = Builder()
    graph = g.graph(hard_swish(g, g.input(4, 50), order))
    after = recognise(graph)
    assert ops(after) == ["hard_swish"]
    assert_same_function(graph, after)


def test_hard_swish_of_hard_sigmoid():
    g = Builder()
    x = g.input(40)
    graph = g.graph(g.mul(x, g.hard_sigmoid(x, alpha=1 / 6, beta=0.5)), g.mul(x, g.hard_sigmoid(x, alpha=0.2, beta=0.5)))
    after = recognise(graph)
    assert ops(after) == ["hard_swish", "hard_sigmoid", "mul"]
    assert_same_function(graph, after)


def test_silu():
    g = Builder()
    x = g.input(40)
    graph = g.graph(g.mul(g.sigmoid(x), x), g.mul(g.sigmoid(x), g.neg(x)))
    after = recognise(graph)
    assert sorted(ops(after)) == ["mul", "neg", "sigmoid", "silu"]
    assert_same_function(graph, after)


def norm(g, x, square):
    d = g.sub(x, g.reduce_mean(x, axes=(2,), keepdims=True))
    squared = g.mul(d, d) if square else g.pow(d, f(2))
    variance = g.reduce_mean(squared, axes=(2,), keepdims=True)
    return g.div(d, g.sqrt(g.add(variance, f(1e-5))))


@pytest.mark.parametrize("square", [True, False])
def test_layer_norm(square, golden):
    g = Builder()
    x = g.input(2, 3, 32)
    y = g.add(g.mul(norm(g, x, square), g.weights(32)), g.weights(32))
    graph = g.graph(y)
    after = recognise(graph)
    assert ops(after) == ["layer_norm"] and len(after.nodes[0].inputs) == 3
    golden(f"{graph}\n->\n{after}")
    assert_same_function(graph, after)


def test_layer_norm_without_scale():
    g = Builder()
    graph = g.graph(norm(g, g.input(2, 3, 32), True))
    after = recognise(graph)
    assert ops(after) == ["layer_norm"]
    assert_same_function(graph, after)


def test_a_normalisation_read_twice_keeps_its_scale_apart():
    g = Builder()
    y = norm(g, g.input(2, 3, 32), True)
    graph = g.graph(g.mul(y, g.weights(32)), g.neg(y))
    after = recognise(graph)
    assert sorted(ops(after)) == ["layer_norm", "mul", "neg"]
    assert_same_function(graph, after)


def test_other_constants_are_not_gelu():
    g = Builder()
    x = g.input(40)
    graph = g.graph(g.mul(g.mul(x, g.add(g.erf(g.mul(x, f(0.7))), f(1))), f(0.5)))
    assert "gelu" not in ops(recognise(graph))
