"""Transposed convolutions as convolutions, and groups of convolutions merged: equal functions, and where they apply."""

from __future__ import annotations

import numpy as np
import pytest

import tensorlang as tl
from tensorlang.graph import GraphBuilder, TensorType, evaluate
from tensorlang.graph.ir import Graph, constant
from tensorlang.graph.passes import Context, Options, optimize
from tensorlang.graph.passes.merge_groups import merge_groups
from tensorlang.graph.passes.phases import phases

RNG = np.random.default_rng(0)


def model(op, channels, filters, kernel, *, strides, pads, dilations=None, extra=None, group=1, bias=True, sizes=(6, 5)):
    """`filters` in all; for a transposed convolution `extra` is the output padding."""
    spatial = len(kernel)
    b = GraphBuilder()
    x = b.input("x", TensorType.of("f32", (2, channels, *sizes[:spatial])))
    shape = (channels, filters // group) if op == "conv_transpose" else (filters, channels // group)
    inputs = [x, constant(RNG.standard_normal((*shape, *kernel)).astype(np.float32), "w")]
    if bias:
        inputs.append(constant(RNG.standard_normal(filters).astype(np.float32), "b"))
    attrs = {"strides": strides, "pads": pads, "dilations": dilations or (1,) * spatial, "group": group}
    if op == "conv_transpose":
        attrs["output_padding"] = extra or (0,) * spatial
    y = b.add("relu", [b.add(op, inputs, attrs)])
    return Graph([x], b.nodes, [y], output_names=["y"])


def ops(graph: Graph) -> list[str]:
    return [n.op for n in graph.nodes]


def assert_same(after: Graph, before: Graph, compiled: bool = True) -> None:
    feeds = {"x": RNG.standard_normal(before.inputs[0].type.static_shape).astype(np.float32)}
    expected = evaluate(before, feeds)["y"]
    np.testing.assert_allclose(evaluate(after, feeds)["y"], expected, rtol=1e-4, atol=1e-4)
    if compiled:
        np.testing.assert_allclose(tl.compile(before).run(feeds)["y"], expected, rtol=1e-4, atol=1e-4)


CASES = {
    "kernel of two strides": {"kernel": (4, 4), "strides": (2, 2), "pads": (1, 1, 1, 1)},
    "ragged phases": {"kernel": (3, 3), "strides": (2, 2), "pads": (1, 1, 1, 1), "extra": (1, 1)},
    "no padding": {"kernel": (3, 5), "strides": (2, 3), "pads": (0, 0, 0, 0), "bias": False},
    "uneven padding": {"kernel": (5, 4), "strides": (3, 2), "pads": (2, 0, 1, 2), "extra": (0, 1)},
    "kernel shorter than the stride": {"kernel": (2, 1), "strides": (3, 2), "pads": (0, 0, 0, 0), "extra": (1, 0)},
    "stride one, dilated": {"kernel": (3, 3), "strides": (1, 1), "pads": (1, 0, 2, 1), "dilations": (2, 1)},
    "one axis strided": {"kernel": (3, 3), "strides": (1, 2), "pads": (1, 1, 1, 1), "dilations": (2, 1)},
    "groups": {"kernel": (4, 3), "strides": (2, 2), "pads": (1, 1, 1, 1), "group": 2},
    "a line": {"kernel": (8,), "strides": (4,), "pads": (2, 2)},
}


@pytest.mark.parametrize("case", CASES)
def test_transposed_convolutions_become_convolutions(case):
    graph = model("conv_transpose", 4, 6, **CASES[case])
    after = phases(graph)
    assert "conv_transpose" not in ops(after) and "conv" in ops(after)
    assert_same(after, graph, compiled=case in ("ragged phases", "groups", "a line"))


@pytest.mark.parametrize("bias", [False, True])
def test_windows_that_do_not_overlap_are_a_product(bias):
    graph = model("conv_transpose", 6, 5, (2, 2), strides=(2, 2), pads=(0, 0, 0, 0), bias=bias, sizes=(8, 12))
    after = optimize(graph)
    assert "matmul" in ops(after) and not {"conv", "conv_transpose"} & {*ops(after)}
    assert_same(after, graph)


def test_padding_that_crops_the_input_stays():
    graph = model("conv_transpose", 4, 6, (2, 2), strides=(1, 1), pads=(2, 2, 2, 2))
    assert phases(graph) is graph


def test_dilated_phases_stay():
    graph = model("conv_transpose", 4, 6, (3, 3), strides=(2, 2), pads=(0, 0, 0, 0), dilations=(2, 2))
    assert phases(graph) is graph


@pytest.mark.parametrize(
    ("group", "channels", "filters", "merged"), [(8, 32, 32, 2), (4, 4, 8, 1), (6, 12, 30, 2), (32, 64, 64, 4)]
)
def test_groups_are_merged_until_they_fill_a_register(group, channels, filters, merged):
    graph = model("conv", channels, filters, (3, 3), strides=(2, 1), pads=(1, 1, 1, 1), group=group)
    after = merge_groups(graph)
    assert [n.attrs["group"] for n in after.nodes if n.op == "conv"] == [merged]
    assert_same(after, graph, compiled=group == 6)


@pytest.mark.parametrize(("group", "channels", "filters"), [(1, 8, 8), (8, 8, 8), (2, 32, 32)])
def test_groups_that_stay(group, channels, filters):
    graph = model("conv", channels, filters, (3, 3), strides=(1, 1), pads=(1, 1, 1, 1), group=group)
    assert merge_groups(graph) is graph


def test_groups_are_merged_for_the_machines_vectors():
    graph = model("conv", 32, 32, (3, 3), strides=(1, 1), pads=(1, 1, 1, 1), group=8)
    narrow = merge_groups(graph, Context(Options(lanes=8)))
    assert [n.attrs["group"] for n in narrow.nodes if n.op == "conv"] == [4]


def test_phases_of_a_depthwise_convolution_are_merged():
    graph = model("conv_transpose", 16, 16, (4, 4), strides=(2, 2), pads=(1, 1, 1, 1), group=16)
    assert [n.attrs["group"] for n in optimize(graph).nodes if n.op == "conv"] == [4]
    assert_same(optimize(graph), graph)
