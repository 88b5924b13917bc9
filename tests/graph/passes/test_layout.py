import numpy as np
import pytest

from tensorlang.graph.passes import Context, Options, layout, simplify
from tensorlang.graph.passes.layout_rules import commute
from tensorlang.graph.passes.shape_ops import compose, factor, inverse
from tensorlang.graph.registry import ELEMENTWISE, get
from tensorlang.ir.expr import wrap
from tests.graph.passes.graphs import Builder, assert_same_function, count, ops


def test_a_chain_of_convolutions_is_transposed_once_at_each_end(golden):
    g = Builder()
    y = g.relu(g.conv(g.input(1, 3, 8, 8), g.weights(4, 3, 3, 3), g.weights(4), pad=1))
    y = g.mul(g.conv(y, g.weights(4, 1, 3, 3), group=4, pad=1), g.weights(4, 1, 1))
    graph = g.graph(g.conv(g.pool("max_pool", y, 2, 2), g.weights(5, 4, 1, 1)))
    after = layout(graph)
    golden(f"{graph}\n->\n{after}")
    assert count(after, "transpose") == 2
    assert_same_function(graph, after)


def test_without_convolutions_and_transpositions_nothing_changes():
    g = Builder()
    graph = g.graph(g.softmax(g.relu(g.input(2, 3, 4)), axis=1))
    assert layout(graph) is graph


def test_layout_can_be_kept():
    g = Builder()
    graph = g.graph(g.conv(g.input(1, 3, 8, 8), g.weights(4, 3, 3, 3)))
    assert layout(graph, Context(Options(layout="keep"))) is graph


def test_a_shape_that_is_stretched_itself_stays_where_it_is():
    g = Builder()
    y = g.expand(g.relu(g.conv(g.input(1, 3, 8, 8), g.weights(4, 3, 3, 3), pad=1)), shape=(8, 1))
    assert commute(y.producer, (0, 2, 3, 1)) is None
    graph = g.graph(g.conv(y, g.weights(4, 4, 1, 1)))
    assert_same_function(graph, layout(graph))


def test_one_channel_needs_no_transposition_at_all():
    g = Builder()
    y = g.conv(g.input(2, 1, 8, 8), g.weights(4, 1, 3, 3))
    graph = g.graph(g.reshape(g.reduce_mean(y, axes=(2, 3), keepdims=True), shape=(2, 4)))
    after = layout(graph)
    assert "transpose" not in ops(after)
    assert_same_function(graph, after)


MIDDLES = {
    "residual": lambda g, y: g.add(g.relu(y), g.conv(y, g.weights(4, 4, 1, 1))),
    "scale per pixel": lambda g, y: g.mul(y, g.weights(8, 8)),
    "scale per channel": lambda g, y: g.mul(g.add(y, np.float32(1)), g.weights(1, 4, 1, 1)),
    "squeeze and excite": lambda g, y: g.mul(
        y, g.sigmoid(g.conv(g.reduce_mean(y, axes=(2, 3), keepdims=True), g.weights(4, 4, 1, 1)))
    ),
    "concat": lambda g, y: g.concat(y, g.relu(y), axis=1),
    "concat of rows": lambda g, y: g.concat(y, y, axis=2),
    "channel slice": lambda g, y: g.slice(y, starts=(0, 1, 0, 0), shape=(1, 2, 8, 8), steps=(1, 1, 1, 1)),
    "strided slice": lambda g, y: g.slice(y, starts=(0, 0, 7, 1), shape=(1, 4, 4, 3), steps=(1, 1, -2, 2)),
    "pad": lambda g, y: g.pad(y, pads=(0, 0, 1, 2, 0, 1, 3, 0), value=1.5),
    "edge pad": lambda g, y: g.pad(y, pads=(0, 0, 1, 2, 0, 0, 3, 0), mode="edge"),
    "average": lambda g, y: g.pool("avg_pool", y, 3, 2, 1, count_include_pad=True),
    "transposed": lambda g, y: g.conv_transpose(
        y, g.weights(4, 3, 3, 3), g.weights(3), strides=(2, 2), pads=(1, 1, 1, 1), dilations=(1, 1),
        output_padding=(1, 1), group=1, layout="NCHW",
    ),
    "grouped": lambda g, y: g.conv(y, g.weights(6, 2, 3, 3), group=2, pad=1),
    "multiplied depthwise": lambda g, y: g.conv(y, g.weights(8, 1, 3, 3), group=4, pad=1),
    "softmax over channels": lambda g, y: g.softmax(y, axis=1),
    "mean over channels": lambda g, y: g.mul(y, g.reduce_mean(y, axes=(1,), keepdims=True)),
    "sum without dims": lambda g, y: g.reshape(g.reduce_sum(y, axes=(3,), keepdims=False), shape=(1, 4, 8, 1)),
    "resize": lambda g, y: g.resize_nearest(
        y, shape=(1, 4, 16, 16), scales=(1.0, 1.0, 2.0, 2.0), coordinates="asymmetric", rounding="floor"
    ),
    "channel shuffle": lambda g, y: g.reshape(
        g.transpose(g.reshape(y, shape=(1, 2, 2, 8, 8)), perm=(0, 2, 1, 3, 4)), shape=(1, 4, 8, 8)
    ),
    "depth to space": lambda g, y: g.depth_to_space(y, blocksize=2, mode="CRD"),
    "prelu": lambda g, y: g.prelu(y, g.weights(4, 1, 1)),
    "where": lambda g, y: g.where(g.less(y, np.zeros((1, 4, 1, 1), np.float32)), y, g.neg(y)),
    "gather of channels": lambda g, y: g.gather(y, np.array([2, 0, 1]), axis=1),
    "expand": lambda g, y: g.expand(g.reduce_max(y, axes=(2, 3), keepdims=True), shape=(1, 4, 5, 6)),
    "tile": lambda g, y: g.tile(y, repeats=(1, 2, 1, 3)),
    "batch_norm": lambda g, y: g.batch_norm(y, *(abs(g.weights(4)) for _ in range(4))),
    "opaque": lambda g, y: g.cumsum(y, axis=1),
    "instance_norm": lambda g, y: g.instance_norm(y, g.weights(4), g.weights(4)),
    "argmax": lambda g, y: g.mul(y, g.cast(g.argmax(y, axis=1), dtype="f32")),
    "row vector": lambda g, y: g.add(y, g.weights(8)),
}  # fmt: skip


@pytest.mark.parametrize("middle", MIDDLES)
def test_between_convolutions(middle):
    g = Builder()
    y = MIDDLES[middle](g, g.conv(g.input(1, 3, 8, 8), g.weights(4, 3, 3, 3), pad=1))
    graph = g.graph(g.conv(y, g.weights(2, y.shape[1].value, 1, 1)))
    after = layout(simplify(graph))
    moved = {"opaque": 4, "instance_norm": 4, "channel shuffle": 3, "depth to space": 3}.get(middle, 2)
    assert count(after, "transpose") <= moved
    assert_same_function(graph, after, tolerance=1e-5)


def test_one_dimensional_convolutions_become_two_dimensional():
    g = Builder()
    y = g.relu(g.conv(g.input(2, 3, 20), g.weights(4, 3, 5), strides=(2,), pads=(1, 2), dilations=(2,)))
    graph = g.graph(g.conv(y, g.weights(4, 1, 3), group=4))
    after = layout(graph)
    assert all(n.inputs[0].type.ndim == 4 for n in after.nodes if n.op == "conv")
    assert count(after, "transpose") == 2
    assert_same_function(graph, after)


def test_three_dimensional_convolutions():
    g = Builder()
    graph = g.graph(g.relu(g.conv(g.input(1, 2, 4, 5, 6), g.weights(3, 2, 2, 3, 2), pad=1)))
    assert_same_function(graph, layout(graph))


def test_patch_embedding_flows_into_tokens_without_transposition():
    """[1, C, h, w] -> [1, C, h*w] -> [1, h*w, C] is what channels-last holds anyway."""
    g = Builder()
    y = g.conv(g.input(1, 3, 8, 8), g.weights(6, 3, 3, 3), pad=1)
    y = g.transpose(g.reshape(y, shape=(1, 6, 64)), perm=(0, 2, 1))
    graph = g.graph(g.layer_norm(y, g.weights(6), axis=2))
    after = layout(graph)
    assert count(after, "transpose") == 1  # the image
    assert_same_function(graph, after)


def test_attention_is_transposed_no_more_than_written():
    g = Builder()
    x = g.input(2, 5, 12)
    heads = [g.transpose(g.reshape(g.matmul(x, g.weights(12, 12)), shape=(2, 5, 3, 4)), perm=(0, 2, 1, 3)) for _ in range(3)]
    q, k, v = heads
    scores = g.softmax(g.mul(g.matmul(q, g.transpose(k, perm=(0, 1, 3, 2))), np.float32(0.5)), axis=3)
    y = g.reshape(g.transpose(g.matmul(scores, v), perm=(0, 2, 1, 3)), shape=(2, 5, 12))
    graph = g.graph(g.add(g.matmul(y, g.weights(12, 12)), x))
    after = layout(graph)
    assert count(after, "transpose") == 4
    assert_same_function(graph, after)


def test_detection_head_keeps_its_result_in_place():
    """[1, A*K, h, w] -> [1, A, K, h, w] -> [1, A, h, w, K] -> [1, A*h*w, K]: one transposition, of the result."""
    g = Builder()
    y = g.conv(g.input(1, 3, 4, 4), g.weights(3 * 7, 3, 1, 1))
    y = g.transpose(g.reshape(y, shape=(1, 3, 7, 4, 4)), perm=(0, 1, 3, 4, 2))
    graph = g.graph(g.reshape(g.sigmoid(y), shape=(1, 48, 7)))
    after = layout(graph)
    assert count(after, "transpose") == 2
    assert_same_function(graph, after)


def test_symbolic_sizes():
    g = Builder()
    x = g.input("n", 3, "h", "w")
    y = g.relu(g.conv(x, g.weights(4, 3, 3, 3), pad=1, strides=(2, 2)))
    n, c, h, w = y.shape
    graph = g.graph(g.transpose(g.reshape(y, shape=(n, c, h * w)), perm=(0, 2, 1)), g.reduce_mean(y, axes=(2, 3)))
    after = layout(graph)
    assert count(after, "transpose") == 1
    assert_same_function(graph, after, sizes={"n": 2, "h": 7, "w": 10})


def test_transpositions_alone_cancel_through_elementwise_operators():
    g = Builder()
    y = g.transpose(g.relu(g.transpose(g.input(2, 3, 4), perm=(0, 2, 1))), perm=(0, 2, 1))
    after = layout(g.graph(y))
    assert ops(after) == ["relu"]


def test_every_elementwise_operator_commutes_or_has_an_axis():
    """The generic rule must not meet an elementwise operator that gives a dimension a meaning by its place."""
    g = Builder()
    x = g.input(2, 3, 4)
    node = g.relu(x).producer
    assert commute(node, (0, 2, 1)).outputs == [(0, 2, 1)]
    assert get("batch_norm").kind is ELEMENTWISE
    bn = g.batch_norm(x, *(g.weights(3) for _ in range(4))).producer
    assert commute(bn, (0, 2, 1)).attrs["axis"] == 2


def test_permutations():
    assert compose((2, 0, 1), inverse((2, 0, 1))) == (0, 1, 2)
    x = np.arange(24).reshape(2, 3, 4)
    assert np.array_equal(x.transpose(1, 2, 0).transpose(2, 1, 0), x.transpose(compose((1, 2, 0), (2, 1, 0))))


@pytest.mark.parametrize(
    "old, new, groups",
    [
        ((8, 6, 5), (8, 2, 15), [([0], [0]), ([1, 2], [1, 2])]),
        ((1, 6, 4, 4), (1, 6, 16), [([0], [0]), ([1], [1]), ([2, 3], [2])]),
        ((12,), (3, 4), [([0], [0, 1])]),
        ((2, 1, 3), (2, 3), [([0], [0]), ([1], []), ([2], [1])]),
        ((2, 3), (2, 1, 3), [([0], [0]), ([], [1]), ([1], [2])]),
        ((4, 6, 2), (8, 6), [([0, 1, 2], [0, 1])]),
    ],
)
def test_reshapes_factor(old, new, groups):
    assert factor([wrap(d) for d in old], [wrap(d) for d in new]) == groups


def test_after_layout_simplify_finds_nothing():
    g = Builder()
    y = g.relu(g.conv(g.input(1, 3, 8, 8), g.weights(4, 3, 3, 3), pad=1))
    after = layout(g.graph(g.reshape(g.reduce_mean(y, axes=(2, 3)), shape=(1, 4))))
    assert simplify(after) is after
