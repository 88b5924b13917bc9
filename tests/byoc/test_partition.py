"""Graphs split between code generators: who gets what, and that regions never wait for each other."""

from __future__ import annotations

import json

import numpy as np
import pytest

import tensorlang as tl
from tensorlang.errors import BuildError, InputError
from tensorlang.graph import ops  # noqa: F401 - fills the registry
from tensorlang.graph.generator import Generator
from tensorlang.graph.ir import Graph, TensorType
from tensorlang.graph.partition import partition
from tensorlang.graph.patterns import pattern
from tensorlang.graph.reference import evaluate
from tensorlang.graph.registry import GraphBuilder


class Recording(Generator):
    """Takes some operators, and computes by their references; remembers what it was asked."""

    def __init__(self, name="recording", takes=(), patterns=(), memory="", min_nodes=1):
        self.name, self.takes, self.patterns, self.memory, self.min_nodes = name, takes, patterns, memory, min_nodes
        self.graphs = []
        self.copied = []

    def supports(self, node):
        return node.op in self.takes

    def compile(self, graph, settings):
        self.graphs.append(graph)
        return json.dumps([len(self.graphs) - 1]).encode()

    def load(self, code, settings):
        graph = self.graphs[json.loads(code)[0]]
        return lambda inputs: list(evaluate(graph, dict(zip([v.name for v in graph.inputs], inputs, strict=True))).values())

    def copy(self, source, destination, memory):
        self.copied.append((source.shape, memory))
        super().copy(source, destination, memory)


def build(make, *shapes):
    b = GraphBuilder()
    inputs = [b.input(f"x{n}", TensorType.of("f32", s)) for n, s in enumerate(shapes)]
    result = make(b, *inputs)
    return Graph(inputs, b.nodes, list(result) if isinstance(result, tuple) else [result], "model")


def feeds(graph):
    rng = np.random.default_rng(1)
    return {v.name: rng.standard_normal(v.type.static_shape).astype(np.float32) for v in graph.inputs}


def ops_of(node):
    return [n.op for n in node.attrs["region"].graph.nodes]


def checked(graph, generators, **kwargs):
    """The split graph, run whole and compared with the one graph."""
    exe = tl.compile(graph, codegens=generators, **kwargs)
    x = feeds(graph)
    for name, value in evaluate(graph, x).items():
        np.testing.assert_allclose(exe.run(x)[name], value, rtol=1e-5, atol=1e-5)
    return exe


def test_neighbours_become_one_region_and_the_rest_stays():
    graph = build(lambda b, x: b.add("softmax", [b.add("relu", [b.add("exp", [x])])], {"axis": 1}), (2, 3))
    g = Recording(takes=("exp", "relu"))
    split = partition(graph, [g])
    assert [n.op for n in split.graph.nodes] == ["external", "softmax"]
    assert ops_of(split.regions[0]) == ["exp", "relu"]
    assert str(split) == "recording_0: 2 nodes for recording\n1 nodes stay"
    checked(graph, [g])


def test_a_path_that_leaves_and_comes_back_divides_a_region():
    #  exp -> softmax -> add      exp and add may not be one: softmax would come both after and before it
    #      \____________/
    def make(b, x):
        e = b.add("exp", [x])
        return b.add("add", [e, b.add("softmax", [e], {"axis": 1})])

    graph = build(make, (2, 3))
    g = Recording(takes=("exp", "add"))
    assert [ops_of(n) for n in partition(graph, [g]).regions] == [["exp"], ["add"]]
    checked(graph, [g])


def test_two_regions_that_would_wait_for_each_other_stay_apart():
    # r1 = {exp, add1} and s = {neg, abs} of two generators: exp -> neg, abs -> add1 would be a cycle of regions
    def make(b, x, y):
        e = b.add("exp", [x])
        n = b.add("neg", [e])
        a = b.add("abs", [y])
        joined = b.add("add", [e, a])
        return joined, b.add("sub", [n, a])

    graph = build(make, (2, 3), (2, 3))
    first, second = Recording("first", ("exp", "add")), Recording("second", ("neg", "abs", "sub"))
    exe = checked(graph, [first, second])
    counts = exe._artifact.manifest["hosted"]["counts"]
    assert counts["regions for first"] + counts["regions for second"] >= 3


def test_a_region_may_have_several_results():
    def make(b, x):
        e = b.add("exp", [x])
        return b.add("relu", [e]), b.add("softmax", [e], {"axis": 0})

    graph = build(make, (3,))
    split = partition(graph, [Recording(takes=("exp", "relu"))])
    assert len(split.regions[0].outputs) == 2
    checked(graph, [Recording(takes=("exp", "relu"))])


def test_the_first_generator_has_the_first_choice():
    graph = build(lambda b, x: b.add("relu", [b.add("exp", [x])]), (3,))
    split = partition(graph, [Recording("a", ("relu",)), Recording("b", ("relu", "exp"))])
    assert [n.attrs["generator"] for n in split.regions] == ["b", "a"]


def test_small_regions_are_left_to_the_target():
    graph = build(lambda b, x: b.add("exp", [b.add("softmax", [b.add("relu", [b.add("exp", [x])])], {"axis": 0})]), (3,))
    split = partition(graph, [Recording(takes=("exp", "relu"), min_nodes=2)])
    assert [ops_of(n) for n in split.regions] == [["exp", "relu"]]
    assert split.kept == 2


def test_only_restricts_a_generator():
    graph = build(lambda b, x: b.add("relu", [b.add("exp", [x])]), (3,))
    restricted = Recording(takes=("exp", "relu")).only(lambda n: n.op == "exp")
    assert [ops_of(n) for n in partition(graph, [restricted]).regions] == [["exp"]]


# -- patterns ---------------------------------------------------------------------------------------------------------


@pattern
def dense(p, x, w, b):
    return p.relu(p.add(p.matmul(x, w), b))


def test_a_pattern_takes_whole_occurrences_in_either_order_of_operands():
    rng = np.random.default_rng(0)

    def make(b, x):
        for _ in range(2):
            x = b.add("relu", [b.add("add", [rng.random(4, np.float32), b.add("matmul", [x, rng.random((4, 4), np.float32)])])])
        return b.add("matmul", [x, rng.random((4, 4), np.float32)])

    graph = build(make, (2, 4))
    g = Recording(patterns=[dense])
    split = partition(graph, [g])
    assert [ops_of(n) for n in split.regions] == [["matmul", "add", "relu"] * 2]
    assert split.kept == 1
    checked(graph, [g])


def test_a_pattern_does_not_match_where_somebody_else_reads_what_is_inside():
    def make(b, x, w, c):
        m = b.add("matmul", [x, w])
        return b.add("relu", [b.add("add", [m, c])]), b.add("exp", [m])

    graph = build(make, (2, 2), (2, 2), (2,))
    assert partition(graph, [Recording(patterns=[dense])]).regions == []


def test_attributes_and_repeated_operands_of_a_pattern_count():
    @pattern
    def square_softmax(p, x):
        return p.softmax(p.mul(x, x), axis=1)

    def make(axis, same):
        return lambda b, x, y: b.add("softmax", [b.add("mul", [x, x if same else y])], {"axis": axis})

    found = [
        len(partition(build(make(axis, same), (2, 2), (2, 2)), [Recording(patterns=[square_softmax])]).regions)
        for axis, same in ((1, True), (0, True), (1, False))
    ]
    assert found == [1, 0, 0]


def test_accepts_can_refuse_an_occurrence():
    class Fussy(Recording):
        def accepts(self, match):
            return match[0].inputs[1].shape[0].value > 8

    graph = build(lambda b, x, w, c: b.add("relu", [b.add("add", [b.add("matmul", [x, w]), c])]), (2, 2), (2, 2), (2,))
    assert partition(graph, [Fussy(patterns=[dense])]).regions == []


def test_wrong_patterns_are_refused():
    with pytest.raises(InputError, match="operator 'conv3000', which there is not"):
        pattern(lambda p, x: p.conv3000(x))
    with pytest.raises(InputError, match="returns Anything"):
        pattern(lambda p, x: x)


# -- memories ---------------------------------------------------------------------------------------------------------


def test_values_are_copied_at_the_border_once_each_and_counted():
    def make(b, x):
        e = b.add("exp", [x])  # on the device, from x
        s = b.add("softmax", [e], {"axis": 1})  # on the host, which needs e twice
        t = b.add("sigmoid", [e])
        return b.add("add", [b.add("relu", [s]), b.add("relu", [t])])

    graph = build(make, (2, 3))
    g = Recording("device", ("exp", "relu"), memory="device")
    exe = checked(graph, [g])
    counts = exe._artifact.manifest["hosted"]["counts"]
    # in: x, s, t; out: e once, both relus
    assert counts["copies between memories"] == 6 and counts["bytes copied"] == 6 * 2 * 3 * 4
    g.copied.clear()
    exe.run(feeds(graph))
    assert sorted(memory for _, memory in g.copied) == ["", "", "", "device", "device", "device"]


def test_generators_in_the_hosts_memory_need_no_copies():
    graph = build(lambda b, x: b.add("relu", [b.add("exp", [x])]), (3,))
    assert checked(graph, [Recording(takes=("exp",))])._artifact.manifest["hosted"]["counts"]["copies between memories"] == 0


def test_a_region_that_gives_the_wrong_shape_is_an_error():
    class Wrong(Recording):
        def load(self, code, settings):
            return lambda inputs: [inputs[0][:1]]

    graph = build(lambda b, x: b.add("exp", [x]), (3,))
    with pytest.raises(BuildError, match=r"float32\[1\] for an output of region wrong_0 that is float32\[3\]"):
        tl.compile(graph, codegens=[Wrong("wrong", ("exp",))]).run(feeds(graph))


def test_unknown_generators_are_refused():
    graph = build(lambda b, x: b.add("exp", [x]), (3,))
    with pytest.raises(BuildError, match="no code generator 'nobody'; there are: .*onnxruntime"):
        tl.compile(graph, codegens=["nobody"])


@pytest.mark.parametrize("seed", range(12))
def test_random_graphs_between_random_generators(seed):
    rng = np.random.default_rng(seed)

    def make(b, x, y):
        values = [x, y]
        for _ in range(int(rng.integers(4, 14))):
            if rng.random() < 0.5:
                op, operands = str(rng.choice(["tanh", "neg", "sigmoid"])), [values[rng.integers(len(values))]]
            else:
                op, operands = str(rng.choice(["add", "sub", "maximum"])), [values[rng.integers(len(values))] for _ in "ab"]
            values.append(b.add(op, operands))
        return tuple(values[-1 - k] for k in range(int(rng.integers(1, 4))))

    graph = build(make, (2, 3), (2, 3))
    chosen = {node: int(rng.integers(3)) for node in graph.nodes}

    class Chosen(Recording):
        def supports(self, node):
            return chosen.get(node) == int(self.name[-1])

    memory = "far" if seed % 2 else ""
    split = partition(graph, [Chosen("g0", memory=memory), Chosen("g1")])
    done = set(split.graph.inputs)
    for node in split.graph.nodes:
        assert all(v.is_constant or v in done for v in node.inputs)
        done.update(node.outputs)
    x = feeds(graph)
    expected = evaluate(graph, x)
    for name, value in evaluate(split.graph, x).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-6, atol=1e-6)
    inside = sum(len(n.attrs["region"].graph.nodes) for n in split.regions)
    assert inside + split.kept == len(graph.nodes)
    assert inside == sum(k < 2 for k in chosen.values())
