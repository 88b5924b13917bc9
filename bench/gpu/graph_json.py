"""A graph as JSON and arrays, for a machine that has torch and not the compiler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bench.gpu.data import Recipe
from tensorlang.graph import Graph
from tensorlang.ir.dtype import DType
from tensorlang.ir.expr import Expr


def graph_json(graph: Graph, recipes: Mapping[str, Recipe]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The operators in order, and the constants that no recipe draws.

    Args:
        recipes: by name of the constant.
    """
    names = {v: f"v{n}" for n, v in enumerate(graph.inputs)}
    constants: dict[str, Any] = {}
    arrays: dict[str, np.ndarray] = {}
    nodes = []
    for node in graph.nodes:
        for value in node.inputs:
            if value.constant is not None and value not in names:
                names[value] = f"c{len(names)}"
                recipe = recipes.get(value.name)
                constants[names[value]] = None if recipe is None else recipe.as_json()
                if recipe is None:
                    arrays[names[value]] = np.asarray(value.constant)
        for value in node.outputs:
            names[value] = f"v{len(names)}"
        attrs = {k: _plain(a) for k, a in node.attrs.items()}
        given = [names[v] for v in node.inputs]
        nodes.append({"op": node.op, "in": given, "out": [names[v] for v in node.outputs], "attrs": attrs})
    ends = {"inputs": [names[v] for v in graph.inputs], "outputs": [names[v] for v in graph.outputs]}
    return {**ends, "constants": constants, "nodes": nodes}, arrays


def _plain(a: Any) -> Any:
    if isinstance(a, Expr):
        return a.value if a.op == "const" else str(a)
    if isinstance(a, DType):
        return a.numpy.name
    if isinstance(a, tuple | list):
        return [_plain(x) for x in a]
    return a.item() if isinstance(a, np.generic) else a
