from dataclasses import replace

import numpy as np
import pytest

from tensorlang.graph.ir import Graph, Value
from tensorlang.graph.passes import Group, Options, fuse
from tensorlang.graph.reference import evaluate
from tensorlang.ir.interp import run
from tests.graph.passes.graphs import Builder, feeds_for

f = np.float32


def kernels(graph: Graph, **options) -> list[list[str]]:
    """The operators of every kernel."""
    groups = fuse(graph, Options(**options))
    check_groups(graph, groups)
    return [[n.op for n in group.nodes] for group in groups if group.kind == "kernel"]


def check_groups(graph: Graph, groups: list[Group]) -> None:
    """Every node is computed, groups come in an order that can run, and run they give the graph's outputs."""
    assert {n for group in groups for n in group.nodes} == set(graph.nodes)
    feeds = feeds_for(graph)
    sizes = {d: feeds[v.name].shape[i] for v in graph.inputs for i, d in enumerate(v.shape) if d.op == "var"}
    values: dict[Value, np.ndarray] = {v: feeds[v.name] for v in graph.inputs}
    for group in groups:
        arguments = [v.constant if v.is_constant else values[v] for v in group.inputs]
        if group.kind == "alias":
            (value,) = group.outputs
            shape = [d.value if d.op == "const" else -1 for d in value.shape]
            values[value] = arguments[0].reshape(shape)
            continue
        func = group.prim_func()
        assert len(func.inputs) == len(group.inputs) and len(func.outputs) == len(group.outputs)
        results = [np.zeros([sizes.get(d, getattr(d, "value", 0)) for d in v.shape], v.dtype.numpy) for v in group.outputs]
        run(func, [*arguments, *results, *(sizes[d] for d in func.size_vars)])
        values.update(zip(group.outputs, results, strict=True))
    for value, expected in zip(graph.outputs, evaluate(graph, feeds).values(), strict=True):
        actual = value.constant if value.is_constant else values[value]
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_a_product_takes_bias_residual_and_activation(golden):
    g = Builder()
    x = g.input(4, 5)
    y = g.add(g.matmul(x, g.weights(5, 6)), g.weights(6))
    graph = g.graph(g.softmax(g.relu(g.add(y, g.input(4, 6, name="residual"))), axis=1))
    groups = fuse(graph)
    check_groups(graph, groups)
    golden("\n".join(f"{group}\n{group.explain()}" for group in groups))
    assert [[n.op for n in group.nodes] for group in groups] == [["matmul", "add", "add", "relu"], ["softmax"]]


def test_the_later_of_two_products_takes_their_sum():
    g = Builder()
    x = g.input(4, 5)
    graph = g.graph(g.relu(g.add(g.matmul(x, g.weights(5, 6)), g.matmul(x, g.weights(5, 6)))))
    assert kernels(graph) == [["matmul"], ["matmul", "add", "relu"]]


def test_a_value_read_twice_is_stored():
    g = Builder()
    y = g.matmul(g.input(4, 5), g.weights(5, 6))
    graph = g.graph(g.relu(y), g.exp(y))
    assert kernels(graph) == [["matmul"], ["relu"], ["exp"]]


def test_a_result_of_the_graph_is_stored():
    g = Builder()
    y = g.relu(g.input(4, 5))
    graph = g.graph(y, g.exp(y))
    assert kernels(graph) == [["relu"], ["exp"]]


def test_readers_that_meet_again_keep_the_value_inside():
    g = Builder()
    y = g.add(g.matmul(g.input(4, 5), g.weights(5, 6)), g.weights(6))
    gate = g.tanh(g.mul(y, f(0.5)))
    graph = g.graph(g.mul(g.add(gate, y), g.input(4, 6, name="z")))
    assert kernels(graph) == [["matmul", "add", "mul", "tanh", "add", "mul"]]


def test_readers_that_part_do_not():
    g = Builder()
    y = g.relu(g.matmul(g.input(4, 5), g.weights(5, 6)))
    a, b = g.tanh(y), g.exp(y)
    graph = g.graph(g.add(a, b), g.neg(b))
    assert len(kernels(graph)) == 4


def test_elementwise_chains_and_their_index_operators():
    g = Builder()
    x = g.input(3, 4)
    y = g.mul(g.exp(g.transpose(x, perm=(1, 0))), g.slice(g.input(4, 9, name="z"), starts=(0, 2), shape=(4, 3), steps=(1, 1)))
    graph = g.graph(g.relu(y))
    assert kernels(graph) == [["transpose", "exp", "slice", "mul", "relu"]]


def test_a_reduction_takes_what_it_reads_and_what_follows():
    g = Builder()
    x = g.input(3, 8)
    graph = g.graph(g.sqrt(g.add(g.reduce_mean(g.exp(g.neg(x)), axes=(1,), keepdims=True), f(1))))
    assert kernels(graph) == [["neg", "exp", "reduce_mean", "add", "sqrt"]]


def test_broadcasting_back_after_a_reduction_is_another_kernel():
    g = Builder()
    x = g.input(3, 8)
    graph = g.graph(g.sub(x, g.reduce_mean(x, axes=(1,), keepdims=True)))
    assert kernels(graph) == [["reduce_mean"], ["sub"]]


def test_costly_producers_are_not_repeated():
    g = Builder()
    gate = g.exp(g.input(1, 6, name="gate"))
    shift = g.mul(g.input(1, 6, name="shift"), g.input(1, 6, name="other"))
    graph = g.graph(g.add(g.mul(g.input(50, 6), gate), shift))
    assert kernels(graph) == [["exp"], ["mul", "mul", "add"]]


def test_softmax_takes_scale_and_mask_but_no_exponential():
    g = Builder()
    x, mask = g.input(3, 8), g.input(3, 8, name="mask")
    graph = g.graph(g.neg(g.softmax(g.add(g.mul(x, f(0.5)), mask), axis=1)), g.softmax(g.tanh(mask), axis=1))
    assert kernels(graph) == [["mul", "add", "softmax", "neg"], ["tanh"], ["softmax"]]


def test_products_take_transpositions_of_their_operands():
    g = Builder()
    q, k = (g.transpose(g.input(1, 3, 2, 4, name=n), perm=p) for n, p in (("q", (0, 2, 1, 3)), ("k", (0, 2, 3, 1))))
    graph = g.graph(g.mul(g.matmul(q, k), f(0.5)), g.matmul(g.exp(g.input(2, 3)), g.weights(3, 2)))
    assert kernels(graph) == [["transpose", "transpose", "matmul", "mul"], ["exp"], ["matmul"]]


def test_windows_take_nothing_in_front():
    g = Builder()
    x = g.relu(g.input(1, 2, 6, 6))
    graph = g.graph(g.relu(g.pool("max_pool", x, 2, 2)), g.pool("avg_pool", g.exp(g.input(1, 2, 6, 6, name="y")), 3, 1))
    assert kernels(graph) == [["relu"], ["max_pool", "relu"], ["exp"], ["avg_pool"]]


def test_convolutions_take_an_epilogue(golden):
    g = Builder()
    y = g.conv(g.relu(g.input(1, 3, 5, 5)), g.weights(4, 3, 3, 3), g.weights(4), pad=1)
    graph = g.graph(g.clip(g.mul(y, g.input(1, 4, 5, 5, name="z")), min=0.0, max=6.0))
    groups = fuse(graph)
    check_groups(graph, groups)
    golden("\n".join(group.explain() for group in groups))
    assert [[n.op for n in group.nodes] for group in groups] == [["relu"], ["conv", "mul", "clip"]]


def test_reshape_is_an_alias_and_separates():
    g = Builder()
    y = g.exp(g.reshape(g.relu(g.input(2, 6)), shape=(3, 4)))
    groups = fuse(g.graph(y))
    assert [(group.kind, group.name) for group in groups] == [("kernel", "relu"), ("alias", "reshape"), ("kernel", "exp")]


def test_concat_takes_producers_and_ends_the_group():
    g = Builder()
    a, b = g.input(2, 3), g.input(2, 4, name="y")
    graph = g.graph(g.exp(g.concat(g.relu(a), g.neg(b), axis=1)))
    assert kernels(graph) == [["relu", "neg", "concat"], ["exp"]]


def test_opaque_operators_and_several_results_stand_alone():
    g = Builder()
    x = g.relu(g.input(3, 8))
    values, places = g.topk(x, k=2, axis=1)
    graph = g.graph(g.exp(values), g.neg(g.cumsum(x, axis=1)), places)
    assert kernels(graph) == [["relu"], ["topk"], ["exp"], ["cumsum"], ["neg"]]


def test_groups_have_a_limit():
    g = Builder()
    y = g.input(4)
    for _ in range(25):
        y = g.neg(y)
    sizes = [len(k) for k in kernels(g.graph(y), max_group_nodes=10)]
    assert sum(sizes) == 25 and max(sizes) <= 10


def test_inputs_have_a_limit():
    g = Builder()
    y = g.input(4)
    for position in range(9):
        y = g.add(y, g.input(4, name=f"y{position}"))
    assert len(kernels(g.graph(y), max_group_inputs=4)) == 3


def test_scalars_are_numbers_in_the_code_and_weights_are_declared(golden):
    g = Builder()
    graph = g.graph(g.mul(g.add(g.input(3), g.weights(3)), np.full((1,), 0.5, f)))
    (group,) = fuse(graph)
    func = group.prim_func("scaled")
    golden(str(replace(func, attrs={})))  # without file:line of the operators' definitions
    assert len(func.params) == 3 and len(func.attrs["constants"]) == 1
    check_groups(graph, [group])


def test_symbolic_dimensions_are_parameters():
    g = Builder()
    x = g.input("n", 4)
    graph = g.graph(g.add(g.softmax(g.mul(x, f(2)), axis=0), g.expand(g.input(1, 4, name="y"), shape=(x.shape[0], 4))))
    (group,) = fuse(graph)
    assert group.prim_func().size_vars == (x.shape[0],)
    check_groups(graph, [group])


def test_equal_groups_give_equal_programs():
    g = Builder()
    y = g.relu(g.add(g.matmul(g.input(4, 6), g.weights(6, 6)), g.weights(6)))
    graph = g.graph(g.relu(g.add(g.matmul(y, g.weights(6, 6)), g.weights(6))))
    first, second = fuse(graph)
    assert first.key() == second.key()
    assert str(first.prim_func("k")) == str(second.prim_func("k"))


@pytest.mark.parametrize("op", ["full", "range"])
def test_operators_without_inputs(op):
    g = Builder()
    attrs = {"shape": (3, 4), "value": 1.5} if op == "full" else {"start": 0, "step": 2, "size": 4}
    made = getattr(g, op)(dtype="f32", **attrs)
    graph = g.graph(g.add(g.input(3, 4), made))
    assert kernels(graph) == [[op, "add"]]


def test_numbers_that_differ_between_like_groups_are_passed():
    """Learned scalars would else make a kernel of their own for every layer."""
    g = Builder()
    x = g.input(4, 6)
    y = x
    for scale in (0.25, 0.75):
        y = g.add(g.mul(g.tanh(g.matmul(y, g.weights(6, 6))), f(scale)), f(3))
    graph = g.graph(y)
    first, second = fuse(graph)
    assert [v.type.ndim for v in first.inputs] == [2, 2, 0]  # the scale; 3 stays in the code
    assert str(first.prim_func("k")) == str(second.prim_func("k"))
    check_groups(graph, [first, second])
