"""Control flow as operators of graphs (`if`, `loop`, `bind_size`, `require`): machine code against NumPy and the reference."""

from __future__ import annotations

import numpy as np
import pytest

import tensorlang as tl
from tensorlang.errors import InputError
from tensorlang.graph import Graph, GraphBuilder, TensorType, Value, constant, dim, evaluate, runtime_dim

RNG = np.random.default_rng(0)


def f32(*shape: object) -> TensorType:
    return TensorType.of("f32", shape)


def single(dtype: str) -> TensorType:
    return TensorType.of(dtype, ())


def body(inputs: list[TensorType], build) -> Graph:
    """A graph of `inputs`, whose nodes and outputs `build(builder, values)` makes."""
    builder = GraphBuilder()
    values = [Value(f"b{k}", t) for k, t in enumerate(inputs)]
    return Graph(values, builder.nodes, list(build(builder, values)), "body")


def whole(builder: GraphBuilder, inputs: list[Value], outputs: list[Value], dims: dict | None = None) -> Graph:
    names = [f"y{k}" for k in range(len(outputs))]
    return Graph(inputs, builder.nodes, outputs, "test", dims or {}, names)


def agree(graph: Graph, *arrays: np.ndarray) -> list[np.ndarray]:
    """The outputs of machine code, after comparing them with those of the reference."""
    feeds = {v.name: a for v, a in zip(graph.inputs, arrays, strict=True)}
    found, expected = tl.compile(graph).run(feeds), evaluate(graph, feeds)
    for name, theirs in expected.items():
        assert (found[name].dtype, found[name].shape) == (theirs.dtype, theirs.shape)
        np.testing.assert_allclose(found[name], theirs, rtol=1e-5, atol=1e-6)
    return list(found.values())


def choice() -> Graph:
    """y = exp(x) where the condition holds, else x - 1"""
    builder = GraphBuilder()
    condition, x = builder.input("c", single("bool")), builder.input("x", f32(3, 4))
    then = body([f32(3, 4)], lambda b, v: [b.add("exp", [v[0]])])
    otherwise = body([f32(3, 4)], lambda b, v: [b.add("sub", [v[0], constant(np.float32(1))])])
    y = builder.add("if", [condition, x], {"then": then, "otherwise": otherwise, "types": (f32(3, 4),), "defines": ()})
    return whole(builder, [condition, x], list(y) if isinstance(y, tuple) else [y])


def test_if_runs_the_branch_that_the_condition_says() -> None:
    x = RNG.standard_normal((3, 4)).astype(np.float32)
    np.testing.assert_allclose(agree(choice(), np.array(True), x)[0], np.exp(x), rtol=1e-5)
    np.testing.assert_allclose(agree(choice(), np.array(False), x)[0], x - 1, rtol=1e-5)


def test_if_defines_a_size_that_its_branches_differ_in() -> None:
    builder = GraphBuilder()
    condition, x = builder.input("c", single("bool")), builder.input("x", f32(4))
    n = runtime_dim("n")
    then = body([f32(4)], lambda b, v: [b.add("concat", [v[0], v[0]], {"axis": 0})])
    otherwise = body([f32(4)], lambda b, v: [b.add("relu", [v[0]])])
    y = builder.add("if", [condition, x], {"then": then, "otherwise": otherwise, "types": (f32(n),), "defines": (n,)})
    y = y[0] if isinstance(y, tuple) else y
    graph = whole(builder, [condition, x], [builder.add("neg", [y])])
    data = np.arange(-2, 2, dtype=np.float32)
    np.testing.assert_array_equal(agree(graph, np.array(True), data)[0], -np.concatenate([data, data]))
    np.testing.assert_array_equal(agree(graph, np.array(False), data)[0], -np.maximum(data, 0))


def counting(limit: float = 1e9) -> Graph:
    """`trips` times, while s < limit: s -> 2 s + a; every trip's new s is stacked"""
    builder = GraphBuilder()
    trips, s, a = builder.input("n", single("i64")), builder.input("s", f32(2)), builder.input("a", f32(2))
    count = runtime_dim("count")

    def trip(b: GraphBuilder, v: list[Value]) -> list[Value]:
        _, state, added = v
        new = b.add("add", [b.add("add", [state, state]), added])
        largest = b.add("reduce_max", [new], {"axes": (0,), "keepdims": False})
        return [b.add("less", [largest, constant(np.float32(limit))]), new, new]

    inner = body([single("i64"), f32(2), f32(2)], trip)
    attrs = {"body": inner, "carried": 1, "types": (f32(2), f32(count, 2)), "defines": (count,)}
    made = builder.add("loop", [trips, constant(np.array(True)), s, a], attrs)
    return whole(builder, [trips, s, a], list(made))


def counted(trips: int, s: np.ndarray, a: np.ndarray, limit: float) -> tuple[np.ndarray, np.ndarray]:
    rows = []
    for _ in range(trips):
        s = 2 * s + a
        rows.append(s)
        if s.max() >= limit:
            break
    return s, np.array(rows, np.float32).reshape(-1, 2)


@pytest.mark.parametrize(("trips", "limit"), [(0, 1e9), (1, 1e9), (5, 1e9), (50, 40.0)])
def test_loop_carries_and_stacks(trips: int, limit: float) -> None:
    s, a = np.array([1, 2], np.float32), np.array([0.5, -1], np.float32)
    last, rows = agree(counting(limit), np.array(trips), s, a)
    expected = counted(trips, s, a, limit)
    np.testing.assert_array_equal(last, expected[0])
    np.testing.assert_array_equal(rows, expected[1])
    assert trips < 50 or len(rows) < 50  # the condition ended it


def test_bind_size_makes_a_number_a_dimension() -> None:
    builder = GraphBuilder()
    count, x = builder.input("n", single("i64")), builder.input("x", f32(8))
    n = runtime_dim("n")
    builder.add("bind_size", [count], {"defines": (n,), "low": 1})
    part = builder.add("slice", [x], {"starts": (0,), "shape": (n,), "steps": (1,)})
    graph = whole(builder, [count, x], [builder.add("exp", [part])])
    x_data = RNG.standard_normal(8).astype(np.float32)
    for size in (1, 3, 8):
        np.testing.assert_allclose(agree(graph, np.array(size), x_data)[0], np.exp(x_data[:size]), rtol=1e-5)
    with pytest.raises(InputError):
        tl.compile(graph).run({"n": np.array(0), "x": x_data})


def test_require_refuses_a_run_with_its_message() -> None:
    builder = GraphBuilder()
    m = dim("m")
    ok, x = builder.input("ok", single("bool")), builder.input("x", f32(m))
    checked = builder.add("require", [ok, x], {"holds": True, "message": "x is not what it seems"})
    exe = tl.compile(whole(builder, [ok, x], [builder.add("neg", [checked])], {"m": m}))
    data = np.arange(3, dtype=np.float32)
    np.testing.assert_array_equal(exe(np.array(True), data), -data)
    with pytest.raises(InputError, match="x is not what it seems"):
        exe(np.array(False), data)
    np.testing.assert_array_equal(exe(np.array(True), data), -data)  # a refused run leaves nothing behind


def test_an_unread_output_of_run_time_size_has_memory_all_the_same() -> None:
    """k is read while the program runs; nobody reads the positions that top-k also writes."""
    builder = GraphBuilder()
    x, k = builder.input("x", f32(2, 9)), builder.input("k", single("i64"))
    size = runtime_dim("k")
    builder.add("bind_size", [k], {"defines": (size,), "low": 0})
    values, _ = builder.add("topk", [x], {"k": size, "axis": 1})
    graph = whole(builder, [x, k], [builder.add("exp", [values])])
    agree(graph, RNG.standard_normal((2, 9)).astype(np.float32), np.array(4))
