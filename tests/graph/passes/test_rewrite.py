import numpy as np
import pytest

from tensorlang.errors import InternalError
from tensorlang.graph.rewrite import replace_values, rewrite, topological
from tests.graph.passes.graphs import Builder, assert_same_function, check, ops


def test_a_rule_that_never_fires_gives_the_same_object():
    g = Builder()
    graph = g.graph(g.relu(g.input(2, 3)))
    assert rewrite(graph, lambda rw, node: None) is graph


def test_nodes_that_stay_are_shared_and_the_old_graph_is_untouched():
    g = Builder()
    x = g.input(2, 3)
    graph = g.graph(g.exp(g.identity(g.relu(x))))
    text = str(graph)
    after = rewrite(graph, lambda rw, node: node.inputs[0] if node.op == "identity" else None)
    assert ops(after) == ["relu", "exp"]
    assert after.nodes[0] is graph.nodes[0]
    assert str(graph) == text
    check(after)


def test_added_nodes_are_rewritten_in_turn():
    g = Builder()
    graph = g.graph(g.neg(g.input(4)))

    def rule(rw, node):  # neg -> 0 - x -> x * -1
        x = node.inputs[-1]
        if node.op == "neg":
            return rw.add("sub", [np.zeros(1, np.float32), x])
        return rw.add("mul", [x, np.full(1, -1, np.float32)]) if node.op == "sub" else None

    after = rewrite(graph, rule)
    assert ops(after) == ["mul"]
    assert_same_function(graph, after)


def test_uses_follow_replacements():
    g = Builder()
    x = g.input(4)
    y = g.relu(x)
    graph = g.graph(g.exp(g.identity(y)), g.neg(g.identity(y)))
    seen = {}

    def rule(rw, node):
        if node.op == "identity":
            return node.inputs[0]
        seen[node.op] = rw.uses(node.inputs[0])

    rewrite(graph, rule)
    assert seen == {"relu": 0, "exp": 1, "neg": 1}


def test_a_rule_must_not_change_the_type():
    g = Builder()
    graph = g.graph(g.reshape(g.input(4), shape=(2, 2)))
    with pytest.raises(InternalError, match="a rule gave"):
        rewrite(graph, lambda rw, node: node.inputs[0])


def test_replace_values_follows_chains():
    g = Builder()
    x = g.input(4)
    a = g.relu(x)
    b = g.relu(a)
    graph = g.graph(g.exp(b))
    assert ops(replace_values(graph, {b: a, a: x})) == ["exp"]


def test_topological_is_stable_and_puts_producers_first():
    g = Builder()
    x = g.input(4)
    a = g.relu(x)
    b = g.neg(x)
    c = g.add(a, b)
    nodes = [c.producer, b.producer, a.producer]
    assert topological(nodes) == [a.producer, b.producer, c.producer]
    assert topological([a.producer, b.producer]) == [a.producer, b.producer]
