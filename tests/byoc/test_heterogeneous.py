"""A model on the CPU and on a device that has a memory of its own: OpenCL, where a driver is installed."""

import numpy as np
import pytest

import tensorlang as tl
from tensorlang.codegen.target import find_target
from tensorlang.graph import ops  # noqa: F401 - fills the registry
from tensorlang.graph.generator import find_generator
from tensorlang.graph.ir import Graph, TensorType
from tensorlang.graph.reference import evaluate
from tensorlang.graph.registry import GraphBuilder

MISSING = [n.what for n in find_target("opencl").needs() if not n.found]
rng = np.random.default_rng(0)


def values(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def network():
    b = GraphBuilder()
    x = b.input("x", TensorType.of("f32", (2, 3, 8, 8)))
    attrs = {"strides": (1, 1), "pads": (1, 1, 1, 1), "dilations": (1, 1)}
    y = b.add("relu", [b.add("conv", [x, values(4, 3, 3, 3), values(4)], attrs)])
    y = b.add("reduce_mean", [y], {"axes": (2, 3), "keepdims": False})
    y = b.add("add", [b.add("matmul", [y, values(4, 5)]), values(5)])
    return Graph([x], b.nodes, [b.add("softmax", [y], {"axis": 1})], "network")


@pytest.mark.skipif(bool(MISSING), reason=f"missing: {', '.join(MISSING)}")
def test_a_graph_is_split_over_the_cpu_and_opencl_with_copies_counted(tmp_path):
    graph, x = network(), values(2, 3, 8, 8)
    heavy = find_generator("opencl").only(lambda node: node.op in ("conv", "relu", "matmul"))
    exe = tl.compile(graph, codegens=[heavy])
    np.testing.assert_allclose(exe(x), evaluate(graph, {"x": x})["softmax"], rtol=1e-4, atol=1e-5)
    counts = exe.placement["counts"]
    assert counts["regions for opencl"] == 2
    assert counts["copies between memories"] == 4
    sizes = [2 * 3 * 8 * 8, 2 * 4 * 8 * 8, 2 * 4, 2 * 5]
    assert counts["bytes copied"] == 4 * sum(sizes)
    exe.save(tmp_path / "m.tl")
    np.testing.assert_array_equal(tl.load(tmp_path / "m.tl")(x), exe(x))


def test_the_report_says_what_went_where_and_why():
    graph, x = network(), values(2, 3, 8, 8)
    exe = tl.compile(graph, codegens=[find_generator("c").only(lambda node: node.op == "softmax")])
    np.testing.assert_allclose(exe(x), evaluate(graph, {"x": x})["softmax"], rtol=1e-4, atol=1e-5)
    assert exe.placement["counts"]["regions for c"] == 1
    assert exe.placement["counts"]["copies between memories"] == 0  # C runs in this process's memory
    assert tl.compile(graph).placement == {}
