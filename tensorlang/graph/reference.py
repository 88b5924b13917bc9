"""Graphs run node by node by the operators' NumPy references: slow, and the meaning that everything else is compared with."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from tensorlang.errors import InputError
from tensorlang.graph.dims import at_sizes, attrs_at, shape_constraints
from tensorlang.graph.ir import Graph, Node, Value
from tensorlang.graph.registry import get
from tensorlang.ir.expr import Expr


def evaluate(
    graph: Graph,
    feeds: Mapping[str, np.ndarray],
    observe: Callable[[Node, list[np.ndarray]], None] | None = None,
) -> dict[str, np.ndarray]:
    """The outputs of `graph` on `feeds` (by input name), by output name.

    Args:
        observe: called with every node and its results.

    Raises:
        InputError: feeds that do not fit: a name, dtype, rank or size.
    """
    values, sizes = bind_inputs(graph, feeds)
    readers = {v: sum(1 for n in graph.nodes for x in n.inputs if x is v) for v in graph.values()}
    for output in graph.outputs:
        readers[output] = readers.get(output, 0) + 1

    def contents(value: Value) -> np.ndarray:
        return value.constant if value.constant is not None else values[value]

    for node in graph.nodes:
        with np.errstate(all="ignore"):
            result = get(node.op).numpy(*(contents(v) for v in node.inputs), **attrs_at(node.attrs, sizes))
        arrays = [np.asarray(a) for a in (result if isinstance(result, tuple | list) else (result,))]
        for value, array in zip(node.outputs, arrays, strict=True):
            values[value] = array.astype(value.dtype.numpy, copy=False)
        if observe is not None:
            observe(node, arrays)
        for value in node.inputs:
            if value in readers:
                readers[value] -= 1
                if not readers[value]:
                    values.pop(value, None)
    names = graph.output_names or [v.name for v in graph.outputs]
    results = {name: contents(v) for name, v in zip(names, graph.outputs, strict=True)}
    return {name: np.ascontiguousarray(a).reshape(a.shape) for name, a in results.items()}


def bind_inputs(graph: Graph, feeds: Mapping[str, np.ndarray]) -> tuple[dict[Value, np.ndarray], dict[Expr, int]]:
    """The inputs' arrays, and the sizes of the symbolic dimensions that follow from their shapes.

    Raises:
        InputError: every misfit, in one message.
    """
    expected = {v.name: v for v in graph.inputs}
    problems = [f"{name}: missing, expected {v.type}" for name, v in expected.items() if name not in feeds]
    problems += [f"{name}: the model has no such input" for name in feeds if name not in expected]
    values: dict[Value, np.ndarray] = {}
    sizes: dict[Expr, int] = {}
    for name, value in expected.items():
        if name not in feeds:
            continue
        array = np.asarray(feeds[name])
        if array.dtype != value.dtype.numpy or array.ndim != value.type.ndim:
            problems.append(f"{name}: {array.dtype}{list(array.shape)}, expected {value.type}")
            continue
        for axis, (size, d) in enumerate(zip(array.shape, value.shape, strict=True)):
            wanted = d.value if d.op == "const" else sizes.setdefault(d, size)
            if wanted != size:
                problems.append(f"{name}: dimension {axis} is {size}, expected {wanted} ({value.type})")
        values[value] = array
    if problems:
        raise InputError("inputs do not fit the model:\n" + "\n".join(f"  {p}" for p in problems))
    for a, b, node in shape_constraints(graph):
        if (left := at_sizes(a, sizes)) != (right := at_sizes(b, sizes)):
            raise InputError(
                f"the model does not work for these input sizes: at node {node.name or node.op!r} "
                f"{a} = {left} and {b} = {right} must be equal"
            )
    return values, sizes
