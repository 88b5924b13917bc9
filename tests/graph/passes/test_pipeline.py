"""The whole pipeline on random graphs: same outputs, and fused groups that run to the same outputs."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings, strategies as st

from tensorlang.graph.ir import Graph, Value
from tensorlang.graph.passes import Context, Options, fuse, graph_report, optimize
from tests.graph.passes.graphs import Builder, assert_same_function, count
from tests.graph.passes.test_fuse import check_groups

UNARY = ["relu", "neg", "tanh", "sigmoid", "abs", "silu", "identity", "exp"]
BINARY = ["add", "sub", "mul", "maximum"]


def random_graph(draw, symbolic: bool = False) -> Graph:
    """A dozen operators on images and sequences, wired at random."""
    g = Builder(seed=draw(st.integers(0, 1000)))
    if symbolic:
        values = [g.input("n", 4, "h", 6)]
    elif draw(st.booleans()):
        values = [g.input(draw(st.integers(1, 2)), draw(st.integers(1, 4)), 6, draw(st.integers(4, 6)))]
    else:
        values = [g.input(draw(st.integers(1, 2)), 6, draw(st.integers(2, 8)))]
    if draw(st.booleans()) and not symbolic:
        values.append(g.input(*(d.value for d in values[0].shape), name="y"))
    for _ in range(draw(st.integers(3, 12))):
        x = draw(st.sampled_from(values[-4:]))
        made = draw(st.sampled_from(STEPS))(g, draw, x, values)
        if made is not None and all(d.op != "const" or d.value > 0 for d in made.shape) and made.type.ndim <= 5:
            values.append(made)
    outputs = draw(st.lists(st.sampled_from(values[1:] or values), min_size=1, max_size=2, unique=True)) + [values[-1]]
    return g.graph(*dict.fromkeys(outputs))


def unary(g, draw, x, values):
    y = getattr(g, draw(st.sampled_from(UNARY)))(g.clip(x, min=-4.0, max=4.0))
    return y


def binary(g, draw, x, values):
    same = [v for v in values if v.type == x.type]
    return getattr(g, draw(st.sampled_from(BINARY)))(x, draw(st.sampled_from(same)))


def per_channel(g, draw, x, values):
    axis = draw(st.integers(0, x.type.ndim - 1))
    if x.shape[axis].op != "const":
        return None
    shape = [x.shape[axis].value if a == axis else 1 for a in range(x.type.ndim)]
    shape = shape[draw(st.integers(0, axis)) :] if draw(st.booleans()) else shape
    return getattr(g, draw(st.sampled_from(["add", "mul"])))(x, g.weights(*shape))


def conv(g, draw, x, values):
    channels = x.shape[1]
    if x.type.ndim not in (3, 4) or channels.op != "const":
        return None
    kernel, pad = draw(st.sampled_from([(1, 0), (3, 1), (2, 0), (3, 0)]))
    stride = draw(st.sampled_from([1, 1, 2]))
    spatial = x.shape[2:]
    if any(d.op == "const" and d.value + 2 * pad < kernel for d in spatial) or (kernel > 1 and pad == 0 and len(values) > 5):
        return None
    group = channels.value if draw(st.integers(0, 3)) == 0 else 1
    out = channels.value if group > 1 else draw(st.integers(1, 5))
    w = g.weights(out, channels.value // group, *(kernel,) * len(spatial), scale=0.5)
    bias = [g.weights(out)] if draw(st.booleans()) else []
    return g.conv(x, w, *bias, pad=pad, group=group, strides=(stride,) * len(spatial))


def pool(g, draw, x, values):
    if x.type.ndim != 4:
        return None
    if draw(st.booleans()):
        return g.reduce_mean(x, axes=(2, 3), keepdims=draw(st.booleans()))
    return g.pool(draw(st.sampled_from(["max_pool", "avg_pool"])), x, 3, draw(st.integers(1, 2)), 1)


def transpose(g, draw, x, values):
    return g.transpose(x, perm=tuple(draw(st.permutations(range(x.type.ndim)))))


def reshape(g, draw, x, values):
    dims = list(x.shape)
    if draw(st.booleans()) and len(dims) > 1:
        at = draw(st.integers(0, len(dims) - 2))
        dims[at : at + 2] = [dims[at] * dims[at + 1]]
    else:
        splits = [a for a, d in enumerate(dims) if d.op == "const" and d.value in (4, 6, 8)]
        if not splits:
            dims.insert(draw(st.integers(0, len(dims))), 1)
        else:
            at = draw(st.sampled_from(splits))
            dims[at : at + 1] = [2, dims[at].value // 2]
    return g.reshape(x, shape=tuple(d if isinstance(d, int) or d.op != "const" else d.value for d in dims))


def concat(g, draw, x, values):
    axis = draw(st.integers(0, x.type.ndim - 1))

    def beside(v: Value) -> bool:
        same = [a is b for a, b in zip(v.shape, x.shape, strict=False)]
        return v.type.ndim == x.type.ndim and all(same[:axis] + same[axis + 1 :])

    fits = [v for v in values if beside(v)]
    return g.concat(x, draw(st.sampled_from(fits)), axis=axis)


def cut(g, draw, x, values):
    axis = draw(st.integers(0, x.type.ndim - 1))
    if x.shape[axis].op != "const":
        return None
    start = draw(st.integers(0, x.shape[axis].value - 1))
    size = draw(st.integers(1, x.shape[axis].value - start))
    at = [0] * x.type.ndim
    at[axis] = start
    shape = [size if a == axis else (d.value if d.op == "const" else d) for a, d in enumerate(x.shape)]
    return g.slice(x, starts=tuple(at), shape=tuple(shape), steps=(1,) * x.type.ndim)


def pad(g, draw, x, values):
    pads = [0] * (2 * x.type.ndim)
    pads[draw(st.integers(0, len(pads) - 1))] = 1
    return g.pad(x, pads=tuple(pads), value=draw(st.sampled_from([0.0, 0.5])))


def normalise(g, draw, x, values):
    last = x.type.ndim - 1
    if x.shape[last].op == "const" and draw(st.booleans()):
        return g.layer_norm(x, g.weights(x.shape[last].value), axis=last)
    return g.softmax(x, axis=draw(st.integers(0, last)))


def reduce(g, draw, x, values):
    if x.type.ndim < 2:
        return None
    axis = draw(st.integers(0, x.type.ndim - 1))
    op = draw(st.sampled_from(["reduce_sum", "reduce_max", "reduce_mean"]))
    y = getattr(g, op)(x, axes=(axis,), keepdims=True)
    return g.sub(x, y) if draw(st.booleans()) else y


def product(g, draw, x, values):
    if x.type.ndim < 2 or x.shape[-1].op != "const":
        return None
    columns = draw(st.sampled_from([x.shape[-1].value, 3]))
    y = g.matmul(x, g.weights(x.shape[-1].value, columns, scale=0.5))
    return g.add(y, g.weights(columns)) if draw(st.booleans()) else y


def attention(g, draw, x, values):
    if x.type.ndim < 2:
        return None
    swap = (*range(x.type.ndim - 2), x.type.ndim - 1, x.type.ndim - 2)
    return g.matmul(x, g.transpose(x, perm=swap))


STEPS = [
    unary, unary, binary, binary, per_channel, conv, conv, conv, pool, transpose, transpose, reshape, reshape, concat, cut,
    pad, normalise, reduce, product, product, attention,
]  # fmt: skip


@settings(max_examples=80)
@given(st.data())
def test_random_graphs_keep_their_meaning(data):
    graph = random_graph(data.draw)
    after = optimize(graph)
    assert_same_function(graph, after, tolerance=1e-4)


@settings(max_examples=30)
@given(st.data())
def test_random_graphs_with_symbolic_sizes_keep_their_meaning(data):
    graph = random_graph(data.draw, symbolic=True)
    assert_same_function(graph, optimize(graph), tolerance=1e-4, sizes={"n": 2, "h": 7})


@settings(max_examples=30)
@given(st.data())
def test_fused_groups_of_random_graphs_run_to_the_same_outputs(data):
    graph = optimize(random_graph(data.draw))
    check_groups(graph, fuse(graph))


def small_network() -> tuple[Graph, Value]:
    g = Builder()
    y = g.conv(g.input(1, 3, 8, 8), g.weights(8, 3, 3, 3), pad=1)
    y = g.relu(g.batch_norm(y, *(np.abs(g.weights(8)) + np.float32(0.5) for _ in range(4))))
    z = g.relu(g.add(g.conv(y, g.weights(8, 8, 1, 1), g.weights(8)), y))
    pooled = g.reshape(g.reduce_mean(z, axes=(2, 3), keepdims=True), shape=(1, 8))
    return g.graph(g.softmax(g.add(g.matmul(pooled, g.weights(8, 5)), g.weights(5)), axis=1)), y


def test_a_small_network(golden):
    graph, _ = small_network()
    context = Context()
    after = optimize(graph, context=context)
    groups = fuse(after)
    golden("\n".join([str(after), "", *map(str, groups), "", *graph_report(context)]))
    assert_same_function(graph, after, tolerance=1e-5)
    check_groups(after, groups)


def test_optimising_twice_changes_nothing():
    graph, _ = small_network()
    once = optimize(graph)
    assert optimize(once) is once


def test_options_reach_the_passes():
    graph, _ = small_network()
    assert count(optimize(graph, Options(layout="keep")), "transpose") == 0
    assert count(optimize(graph, Options(flatten=False)), "conv") == 2


def test_dumps(tmp_path, monkeypatch):
    monkeypatch.setenv("TENSORLANG_DUMP", str(tmp_path))
    graph, _ = small_network()
    optimize(graph)
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names[0] == "main.graph.00.input.txt" and any("layout" in n for n in names)
    assert (tmp_path / names[0]).read_text() == f"{graph}\n"
