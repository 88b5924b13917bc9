"""Remove operators that do nothing, and write the rest in the simplest equal form.

    %a = identity(%x)
    %b = reshape(%a, shape=[2, 6])
    %c = reshape(%b, shape=[3, 4])      %c = reshape(%x, shape=[3, 4])
    %d = pow(%c, %two)             ->   %d = mul(%c, %c)
    %e = div(%d, %four)                 %e = mul(%d, %quarter)

The rules are in `algebra` (values) and `movement` (shapes); constants fold along the way.
"""

from __future__ import annotations

from tensorlang.graph.ir import Graph
from tensorlang.graph.passes import algebra, movement
from tensorlang.graph.passes.context import Context
from tensorlang.graph.passes.rules import simplify_node
from tensorlang.graph.rewrite import rewrite

__all__ = ["algebra", "movement", "simplify"]  # importing the two fills the table


def simplify(graph: Graph, context: Context | None = None) -> Graph:
    """Apply the rules, and fold constants, until nothing changes."""
    limit = (context or Context()).options.fold_limit
    return rewrite(graph, lambda rw, node: simplify_node(rw, node, limit))
