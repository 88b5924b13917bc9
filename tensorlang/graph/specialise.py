"""A graph with some of its open dimensions fixed: `shapes={"batch": 1}` or `shapes={"image": (1, 3, 224, 224)}`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tensorlang.errors import InputError
from tensorlang.graph.ir import Graph, Node, TensorType, Value
from tensorlang.graph.registry import GraphBuilder
from tensorlang.ir.expr import Expr, const
from tensorlang.ir.visitor import substitute

Shapes = Mapping[str, Any]


def specialise(graph: Graph, shapes: Shapes | None) -> Graph:
    """`graph` with dimensions fixed; types are inferred and shape arithmetic folded anew.

    Args:
        shapes: sizes by dimension name, or whole shapes by input name (None or a string leaves a dimension as it is).

    Raises:
        InputError: a name is unknown (all such are listed), or a shape contradicts the model.
    """
    sizes = fixed_sizes(graph, shapes or {})
    if not sizes:
        return graph
    builder = GraphBuilder()
    new: dict[Value, Value] = {}
    for value in graph.inputs:
        new[value] = Value(value.name, _substituted(value.type, sizes))
        builder.unique(value.name)
    for node in graph.nodes:
        inputs = [new.get(v, v) for v in node.inputs]
        attrs = {k: _attribute(v, sizes) for k, v in node.attrs.items()}
        made = builder.add(node.op, inputs, attrs, name=node.name)
        made = made if isinstance(made, tuple) else (made,)
        for old, fresh in zip(node.outputs, made, strict=True):
            fresh.name = old.name
            new[old] = fresh
    dims = {n: v for n, v in graph.dims.items() if v not in sizes}
    outputs = [new.get(v, v) for v in graph.outputs]
    nodes: list[Node] = builder.nodes
    return Graph([new[v] for v in graph.inputs], nodes, outputs, graph.name, dims, list(graph.output_names))


def fixed_sizes(graph: Graph, shapes: Shapes) -> dict[Expr, Expr]:
    """The value of every dimension that `shapes` fixes."""
    inputs = {v.name: v for v in graph.inputs}
    if unknown := [n for n in shapes if n not in inputs and n not in graph.dims]:
        known = ", ".join([*graph.dims, *inputs])
        raise InputError(f"shapes names no dimension or input of the model: {', '.join(unknown)}; there are: {known}")
    sizes: dict[Expr, Expr] = {}

    def fix(dim: Expr, size: Any, what: str) -> None:
        if size is None or isinstance(size, str):
            return
        if not isinstance(size, int | np.integer) or isinstance(size, bool) or size < 0:
            hint = f"; several sizes are a set: {set(size)}" if isinstance(size, list | tuple) and size else ""
            raise InputError(f"shapes: {what} is {size!r}; a size is an integer >= 0{hint}")
        known = substitute(dim, sizes)
        if known.op == "var":
            sizes[known] = const(int(size))
        elif known.op == "const" and known.value != size:
            raise InputError(f"shapes: {what} is {size}, but it must be {known.value}")

    for name, size in shapes.items():
        if name in graph.dims and (name not in inputs or not isinstance(size, Sequence)):
            fix(graph.dims[name], size, name)
    for name, value in inputs.items():
        if name not in shapes or (name in graph.dims and not isinstance(shapes[name], Sequence)):  # a dimension's name too
            continue
        shape = shapes[name]
        if not isinstance(shape, Sequence) or len(shape) != len(value.shape):
            raise InputError(f"shapes: {value.name} has {len(value.shape)} dimension(s), {value.type}; got {shape!r}")
        for axis, (dim, size) in enumerate(zip(value.shape, shape, strict=True)):
            fix(dim, size, f"dimension {axis} of {name}")
    return sizes


def _substituted(type: TensorType, sizes: Mapping[Expr, Expr]) -> TensorType:
    return TensorType(type.dtype, tuple(substitute(d, sizes) for d in type.shape))


def _attribute(value: Any, sizes: Mapping[Expr, Expr]) -> Any:
    if isinstance(value, Expr):
        return substitute(value, sizes)
    if isinstance(value, tuple | list):
        return type(value)(_attribute(v, sizes) for v in value)
    return value
