"""Control flow: bodies are optimised as graphs of their own, constants from outside move in, decided branches are taken.

    %y = loop(%n, %go, %x, %w; body={... matmul(x, w) ...})    w: a constant outside
 ->  %y = loop(%n, %go, %x; body={... matmul(x, %w) ...})
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from tensorlang.graph.ir import Graph, Node, Value
from tensorlang.graph.passes.context import Context, subject_of
from tensorlang.graph.rewrite import Rewriter, live_nodes, rewrite

Optimise = Callable[[Graph, Context], Graph]


def bodies(graph: Graph, context: Context, optimise: Optimise) -> Graph:
    """`graph` with the bodies of its nodes optimised by `optimise`."""
    if not any(n.bodies for n in graph.nodes):
        return graph

    def rule(rw: Rewriter, node: Node) -> list[Value] | None:
        if not node.bodies:
            return None
        if node.op == "if" and (condition := node.inputs[0].constant) is not None and not node.defines:
            context.note(subject_of(node), "its condition is known: one branch is taken")
            taken: Graph = node.attrs["then" if condition.reshape(()) else "otherwise"]
            return _inline(rw, taken, dict(zip(taken.inputs, node.inputs[1:], strict=True)))
        first = 1 if node.op == "if" else 2 + node.attrs["carried"]
        own = 0 if node.op == "if" else 1 + node.attrs["carried"]
        captured = node.inputs[first:]
        kept = [n for n, v in enumerate(captured) if not v.is_constant]
        attrs = dict(node.attrs)
        for name, body in node.attrs.items():
            if isinstance(body, Graph):
                known = dict(zip(body.inputs[own:], captured, strict=True))
                known = {formal: v for formal, v in known.items() if v.is_constant}
                inside = _with_constants(body, known) if known else body
                inputs = [*body.inputs[:own], *(body.inputs[own + n] for n in kept)]
                attrs[name] = optimise(replace(inside, inputs=inputs), context)
        moved = Node(node.op, [*node.inputs[:first], *(captured[n] for n in kept)], attrs, name=node.name)
        moved.outputs = [Value(v.name, v.type, moved, data=v.data) for v in node.outputs]
        return rw.adopt(moved)

    return rewrite(graph, rule)


def _with_constants(body: Graph, known: Mapping[Value, Value]) -> Graph:
    rw = Rewriter(body)
    for formal, value in known.items():
        rw._new[formal] = value
    for node in body.nodes:
        for old, new in zip(node.outputs, rw.copy(node), strict=True):
            rw.replace(old, new)
    outputs = [rw[v] for v in body.outputs]
    return replace(body, nodes=live_nodes(list(rw.nodes), outputs), outputs=outputs)


def _inline(rw: Rewriter, body: Graph, given: Mapping[Value, Value]) -> list[Value]:
    new = dict(given)
    for node in body.nodes:
        moved = Node(node.op, [new.get(v, v) for v in node.inputs], node.attrs, name=node.name)
        moved.outputs = [Value(rw.fresh(v.name), v.type, moved, data=v.data) for v in node.outputs]
        new.update(zip(node.outputs, rw.adopt(moved), strict=True))
    return [new.get(v, v) for v in body.outputs]
