import numpy as np

from tensorlang.graph.passes import Context, Options, flatten, layout
from tensorlang.graph.passes.patches import patches
from tests.graph.passes.graphs import Builder, assert_same_function, count, ops

f = np.float32


def test_pointwise_convolutions_with_their_epilogues(golden):
    g = Builder()
    x = g.input(1, 4, 6, 6)
    y = g.relu(g.add(g.conv(x, g.weights(4, 4, 1, 1), g.weights(4)), x))
    graph = g.graph(g.conv(y, g.weights(3, 4, 1, 1)))
    after = flatten(layout(graph))
    golden(f"{graph}\n->\n{after}")
    assert count(after, "conv") == 0
    assert_same_function(graph, after)


def test_strided_padded_and_grouped_convolutions_stay():
    g = Builder()
    x = g.input(1, 4, 6, 6)
    graph = layout(
        g.graph(
            g.conv(x, g.weights(4, 4, 1, 1), strides=(2, 2)),
            g.conv(x, g.weights(4, 4, 1, 1), pad=1),
            g.conv(x, g.weights(4, 2, 1, 1), group=2),
        )
    )
    assert flatten(graph) is graph


def test_a_transformer_block_is_two_dimensional_between_its_heads():
    g = Builder()
    x = g.input(2, 5, 12)
    y = g.gelu(g.add(g.matmul(g.layer_norm(x, g.weights(12), axis=2), g.weights(12, 24)), g.weights(24)))
    y = g.add(x, g.add(g.matmul(y, g.weights(24, 12)), g.weights(12)))
    graph = g.graph(g.layer_norm(y, g.weights(12), g.weights(12), axis=2))
    after = flatten(graph)
    assert all(v.type.ndim == 2 for n in after.nodes if n.op in ("matmul", "add", "gelu") for v in n.outputs)
    assert count(after, "reshape") == 3  # norm into rows, the residual input, and the result
    assert_same_function(graph, after)


def test_rows_written_out_by_the_model_are_seen():
    """GPT-2: reshape to rows, product, reshape back, residual."""
    g = Builder()
    x = g.input(1, 6, 8)
    y = g.add(g.matmul(g.reshape(g.relu(x), shape=(6, 8)), g.weights(8, 8)), g.weights(8))
    graph = g.graph(g.add(x, g.reshape(y, shape=(1, 6, 8))))
    after = flatten(graph)
    last = [n.op for n in after.nodes if n.op != "reshape"]
    assert last == ["relu", "matmul", "add", "add"]
    assert after.nodes[-1].op == "reshape" and after.nodes[-2].output.type.ndim == 2
    assert_same_function(graph, after)


def test_a_mask_per_row_and_one_per_column():
    g = Builder()
    y = g.matmul(g.input(2, 3, 4), g.weights(4, 5))
    mask = g.input(2, 3, 1, name="mask")
    y = g.add(g.mul(y, mask), g.weights(1, 1, 5))
    graph = g.graph(g.mul(y, np.full((1, 1, 1), 2, f)))
    after = flatten(graph)
    assert all(n.output.type.ndim == 2 for n in after.nodes if n.op in ("add", "mul"))
    assert_same_function(graph, after)


def test_an_operand_per_batch_takes_the_model_s_own_shape():
    g = Builder()
    y = g.matmul(g.input(2, 3, 4), g.weights(4, 5))
    graph = g.graph(g.mul(y, g.input(2, 1, 5, name="gate")))
    assert_same_function(graph, flatten(graph))


def test_rows_flow_through_softmax_and_concat():
    g = Builder()
    y = g.matmul(g.input(2, 3, 4), g.weights(4, 5))
    graph = g.graph(g.concat(g.softmax(y, axis=2), g.relu(y), axis=2), g.softmax(y, axis=1))
    after = flatten(graph)
    assert_same_function(graph, after)
    assert after.nodes[-1].op in ("softmax", "reshape")


def test_symbolic_batch():
    g = Builder()
    x = g.input("n", "s", 4)
    graph = g.graph(g.add(x, g.relu(g.matmul(x, g.weights(4, 4)))))
    after = flatten(graph)
    assert [n.output.type.ndim for n in after.nodes if n.op == "add"] == [2]
    assert_same_function(graph, after, sizes={"n": 2, "s": 5})


def test_flatten_can_be_switched_off():
    g = Builder()
    graph = g.graph(g.matmul(g.input(2, 3, 4), g.weights(4, 5)))
    assert flatten(graph, Context(Options(flatten=False))) is graph


def test_tiling_windows_are_a_product(golden):
    g = Builder()
    graph = g.graph(g.relu(g.conv(g.input(2, 3, 8, 12), g.weights(5, 3, 4, 4), g.weights(5), strides=(4, 4))))
    after = patches(graph)
    golden(f"{graph}\n->\n{after}")
    assert "conv" not in ops(after)
    assert_same_function(graph, after)
    assert_same_function(graph, flatten(layout(after)))


def test_windows_that_leave_a_rest_are_no_product():
    g = Builder()
    graph = g.graph(
        g.conv(g.input(2, 3, 9, 8), g.weights(5, 3, 4, 4), strides=(4, 4)),
        g.conv(g.input(2, 3, 8, 8, name="y"), g.weights(5, 3, 3, 3), strides=(2, 2)),
    )
    assert patches(graph) is graph
