"""Products of quantised numbers in integers: the rewrite, its exactness, and the kernels that it becomes."""

from __future__ import annotations

import numpy as np
import pytest

import tensorlang as tl
from tensorlang import te
from tensorlang.build import lower_kernel
from tensorlang.codegen.native import CpuTarget
from tensorlang.graph import GraphBuilder, TensorType, evaluate
from tensorlang.graph.ir import Graph, Value, constant
from tensorlang.graph.passes import optimize
from tensorlang.graph.passes.integers import integers
from tensorlang.graph.registry import get

RNG = np.random.default_rng(0)
VNNI = CpuTarget.host().has("avx512vnni")


def codes(kind: str, *shape: int) -> np.ndarray:
    info = np.iinfo(kind)
    return RNG.integers(info.min, info.max + 1, shape).astype(kind)


def less_zero(b: GraphBuilder, x: Value, zero: Value | np.ndarray) -> Value:
    wide = b.add("cast", [x], {"dtype": "i32"})
    return b.add("sub", [wide, b.add("cast", [zero], {"dtype": "i32"})])


Feeds = dict[str, np.ndarray]


def matmul(a: str, b: str, zero_a=3, zero_b=-7, m=5, k=10, n=19, dynamic=False) -> tuple[Graph, Feeds, np.ndarray]:
    """A product of bytes less their zero points, feeds, and the result."""
    g = GraphBuilder()
    x = g.input("x", TensorType.of(a, (m, k)))
    z = g.input("z", TensorType.of(a, ())) if dynamic else np.array(zero_a, {"u8": np.uint8, "i8": np.int8}[a])
    names = {"u8": "uint8", "i8": "int8"}
    weight = codes(names[b], k, n)
    right = constant(weight.astype(np.int32) - zero_b, "w")
    y = g.add("matmul", [less_zero(g, x, z), right])
    graph = Graph([x, z] if dynamic else [x], g.nodes, [y], output_names=["y"])
    feeds = {"x": codes(names[a], m, k)}
    if dynamic:
        feeds["z"] = np.array(zero_a, names[a])
    return graph, feeds, (feeds["x"].astype(np.int32) - zero_a) @ (weight.astype(np.int32) - zero_b)


def of(graph: Graph, op: str) -> list[tuple[str, ...]]:
    return [tuple(v.dtype.name for v in n.inputs[:2]) for n in graph.nodes if n.op == op]


@pytest.mark.parametrize("a", ["u8", "i8"])
@pytest.mark.parametrize(("b", "zero_b"), [("u8", 128), ("u8", 77), ("i8", 0), ("i8", 5)])
@pytest.mark.parametrize("dynamic", [False, True])
def test_products_of_any_signs_and_zero_points_are_exact(a, b, zero_b, dynamic):
    graph, feeds, expected = matmul(a, b, zero_b=zero_b, dynamic=dynamic)
    after = integers(graph)
    assert of(after, "matmul") == [("u8", "i8")]
    for g in (after, optimize(graph)):
        np.testing.assert_array_equal(list(_values(evaluate(g, feeds)))[0], expected)
    np.testing.assert_array_equal(tl.compile(graph).run(feeds)["y"], expected)


@pytest.mark.parametrize(("m", "k", "n"), [(1, 4, 16), (37, 64, 100), (70, 33, 17), (3, 260, 48)])
def test_ragged_sizes(m, k, n):
    graph, feeds, expected = matmul("u8", "i8", zero_b=0, m=m, k=k, n=n)
    np.testing.assert_array_equal(tl.compile(graph).run(feeds)["y"], expected)


def test_too_few_columns_stay_as_they_are():
    graph, _, _ = matmul("u8", "i8", n=4)
    assert integers(graph) is graph


def convolution(channels=6, zero_w=-9, dynamic=False, pads=(1, 0, 1, 2)) -> tuple[Graph, dict[str, np.ndarray]]:
    g = GraphBuilder()
    x = g.input("x", TensorType.of("u8", (2, channels, 7, 9)))
    z = g.input("z", TensorType.of("u8", ())) if dynamic else np.array(11, np.uint8)
    weight = constant(codes("uint8", 17, channels, 3, 3).astype(np.int32) + zero_w, "w")
    attrs = {"strides": (2, 1), "dilations": (1, 1), "group": 1, "pads": pads}
    y = g.add("conv", [less_zero(g, x, z), weight], attrs)
    feeds = {"x": codes("uint8", 2, channels, 7, 9), **({"z": np.array(200, np.uint8)} if dynamic else {})}
    return Graph([x, z] if dynamic else [x], g.nodes, [y], output_names=["y"]), feeds


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(("channels", "zero_w"), [(6, -9), (8, -128), (3, -120)])
def test_convolutions_are_padded_with_the_zero_point(channels, zero_w, dynamic):
    graph, feeds = convolution(channels, zero_w, dynamic)
    after = integers(graph)
    assert ("u8", "i8") in of(after, "conv")
    expected = list(_values(evaluate(graph, feeds)))[0]
    np.testing.assert_array_equal(list(_values(evaluate(after, feeds)))[0], expected)
    np.testing.assert_array_equal(tl.compile(graph).run(feeds)["y"], expected)


def _values(result):
    return result.values() if isinstance(result, dict) else result


def quantised_model() -> tuple[Graph, dict[str, np.ndarray]]:
    """dequantize, matmul by per-column weights, quantize."""
    g = GraphBuilder()
    x = g.input("x", TensorType.of("u8", (9, 24)))
    scales = (RNG.random(32) * 0.01 + 0.001).astype(np.float32)
    scale, zero = np.array(0.02, np.float32), np.array(131, np.uint8)
    left = g.add("dequantize", [x, scale, zero], {"of": "u8", "dtype": "f32", "axis": 0})
    right = g.add("dequantize", [codes("int8", 24, 32), scales, np.zeros(32, np.int8)], {"of": "i8", "dtype": "f32", "axis": 1})
    y = g.add("matmul", [left, right])
    q = g.add("quantize", [y, np.array(0.05, np.float32), np.array(100, np.uint8)], {"to": "u8"})
    return Graph([x], g.nodes, [q], output_names=["q"]), {"x": codes("uint8", 9, 24)}


def test_quantised_floats_become_one_rescaled_product():
    graph, feeds = quantised_model()
    after = integers(graph)
    assert of(after, "matmul") == [("u8", "i8")] and [n.op for n in after.nodes][-1] == "requantize"
    before = list(_values(evaluate(graph, feeds)))[0].astype(int)
    result = tl.compile(graph).run(feeds)["q"]
    np.testing.assert_array_equal(result, list(_values(evaluate(after, feeds)))[0])
    assert np.abs(result.astype(int) - before).max() <= 1 and (result != before).mean() < 0.02


@pytest.mark.skipif(not VNNI, reason="needs VNNI")
def test_the_default_schedule_uses_the_instruction():
    a, b = te.placeholder((te.var("M"), 64), "u8", name="a"), te.placeholder((64, 100), "i8", name="b")
    func = te.create_prim_func("product", [a, b], [get("matmul").te(a, b)], constants=("b",))
    text = lower_kernel(func).emitted.text
    assert "vpdpbusd" in text and "b_packed" in text
