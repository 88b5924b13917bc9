import numpy as np

from tensorlang.graph.passes import Context, Options, cse, dce
from tensorlang.graph.passes.fold_constants import fold_constants
from tests.graph.passes.graphs import Builder, assert_same_function, count, ops


def test_constants_fold(golden):
    g = Builder()
    x = g.input(4, 3)
    w = g.transpose(np.arange(6, dtype=np.float32).reshape(2, 3), perm=(1, 0))
    graph = g.graph(g.matmul(x, g.mul(w, np.float32(2))))
    after = fold_constants(graph)
    golden(f"{graph}\n->\n{after}")
    assert_same_function(graph, after, tolerance=0)


def test_shape_arithmetic_folds_when_known():
    g = Builder()
    x = g.input("n", 7)
    sizes = g.shape(x)
    width = g.gather(sizes, np.array(1), axis=0)
    graph = g.graph(width, g.gather(sizes, np.array(0), axis=0))
    after = fold_constants(graph)
    assert after.outputs[0].constant == 7
    assert not after.outputs[1].is_constant


def test_large_results_of_small_constants_stay_nodes():
    g = Builder()
    graph = g.graph(g.expand(np.ones((1, 1), np.float32), shape=(64, 64)))
    assert fold_constants(graph, Context(Options(fold_limit=1024))) is graph
    assert not fold_constants(graph).nodes


def test_dead_nodes_go_and_inputs_stay():
    g = Builder()
    x, unused = g.input(3), g.input(5, name="unused")
    g.exp(x)
    graph = g.graph(g.neg(x))
    after = dce(graph)
    assert ops(after) == ["neg"] and after.inputs == [x, unused]
    assert dce(after) is after


def test_equal_nodes_merge(golden):
    g = Builder()
    x = g.input(4, 3)
    a, b = (g.add(g.mul(x, np.full((3,), 2, np.float32)), np.ones(3, np.float32)) for _ in range(2))
    graph = g.graph(g.sub(g.relu(a), g.relu(b)))
    after = cse(graph)
    golden(f"{graph}\n->\n{after}")
    assert_same_function(graph, after, tolerance=0)


def test_constants_that_differ_in_one_bit_do_not_merge():
    g = Builder()
    x = g.input(1000)
    c = np.ones(1000, np.float32)
    d = c.copy()
    d[501] = np.nextafter(np.float32(1), np.float32(2))
    graph = g.graph(g.mul(x, c), g.mul(x, d))
    assert count(cse(graph), "mul") == 2
    graph = g.graph(g.mul(x, np.zeros(1000, np.float32)), g.mul(x, -np.zeros(1000, np.float32)))
    assert count(dce(cse(graph)), "mul") == 2


def test_attributes_tell_nodes_apart():
    g = Builder()
    x = g.input(4, 4)
    graph = g.graph(g.softmax(x, axis=0), g.softmax(x, axis=1), g.softmax(x, axis=1))
    after = cse(graph)
    assert count(after, "softmax") == 2
    assert after.outputs[1] is after.outputs[2]
