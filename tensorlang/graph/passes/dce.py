"""Remove nodes whose results nobody reads.

%a = relu(%x)
%b = neg(%x)          ->    %b = neg(%x)
return %b                   return %b
"""

from __future__ import annotations

from tensorlang.graph.ir import Graph
from tensorlang.graph.passes.context import Context
from tensorlang.graph.rewrite import live_nodes, with_body


def dce(graph: Graph, context: Context | None = None) -> Graph:
    """Keep the nodes that the outputs need. Inputs stay, read or not: they are the model's signature."""
    live = live_nodes(graph.nodes, graph.outputs)
    return graph if len(live) == len(graph.nodes) else with_body(graph, live)
