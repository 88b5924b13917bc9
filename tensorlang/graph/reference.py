"""Graphs run node by node by the operators' NumPy references: slow, and the meaning that everything else is compared with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tensorlang.errors import InputError
from tensorlang.graph.dims import at_sizes, attrs_at, shape_constraints
from tensorlang.graph.ir import Graph, Node, TensorType, Value
from tensorlang.graph.registry import get
from tensorlang.ir.expr import Expr

Observe = Callable[[Node, list[np.ndarray]], None]


def evaluate(graph: Graph, feeds: Mapping[str, np.ndarray], observe: Observe | None = None) -> dict[str, np.ndarray]:
    """The outputs of `graph` on `feeds` (by input name), by output name.

    Args:
        observe: called with every node and its results.

    Raises:
        InputError: feeds that do not fit: a name, dtype, rank or size.
    """
    values, sizes = bind_inputs(graph, feeds)
    results = _Run(sizes, observe).graph(graph, values)
    names = graph.output_names or [v.name for v in graph.outputs]
    return {name: np.ascontiguousarray(a).reshape(a.shape) for name, a in zip(names, results, strict=True)}


class _Run:
    """One evaluation: the sizes known so far."""

    def __init__(self, sizes: dict[Expr, int], observe: Observe | None):
        self.sizes = sizes
        self.observe = observe

    def graph(self, graph: Graph, values: dict[Value, np.ndarray]) -> list[np.ndarray]:
        """The outputs; `values` holds the inputs and is emptied of what nobody reads any more."""
        readers = {v: sum(1 for n in graph.nodes for x in n.inputs if x is v) for v in graph.values()}
        for output in graph.outputs:
            readers[output] = readers.get(output, 0) + 1

        def contents(value: Value) -> np.ndarray:
            return value.constant if value.constant is not None else values[value]

        for node in graph.nodes:
            arrays = self._node(node, [contents(v) for v in node.inputs])
            for value, array in zip(node.outputs, arrays, strict=True):
                values[value] = array.astype(value.dtype.numpy, copy=False)
            if self.observe is not None:
                self.observe(node, arrays)
            for value in node.inputs:
                if value in readers:
                    readers[value] -= 1
                    if not readers[value]:
                        values.pop(value, None)
        return [contents(v) for v in graph.outputs]

    def _node(self, node: Node, inputs: list[np.ndarray]) -> list[np.ndarray]:
        if node.op == "bind_size":
            return [self._size(node, inputs[0])]
        if node.op == "require":
            if bool(inputs[0].reshape(())) is not node.attrs["holds"]:
                raise InputError(f"the model does not work for this input: {node.attrs['message']}")
            return [inputs[1]]
        if node.op == "if":
            branch = node.attrs["then" if inputs[0].reshape(()) else "otherwise"]
            results = self.graph(branch, dict(zip(branch.inputs, inputs[1:], strict=True)))
            self._define(node, node.outputs, results)
            return results
        if node.op == "loop":
            return self._loop(node, inputs)
        with np.errstate(all="ignore"):
            result = get(node.op).numpy(*inputs, **attrs_at(node.attrs, self.sizes))
        return [np.asarray(a) for a in (result if isinstance(result, tuple | list) else (result,))]

    def _size(self, node: Node, array: np.ndarray) -> np.ndarray:
        found = int(array.reshape(()))
        if node.attrs["low"] is not None and found < node.attrs["low"]:
            raise InputError(f"the model does not work for this input: at node {node.name or node.op!r} a size is {found}")
        self.sizes[node.defines[0]] = found
        return array

    def _loop(self, node: Node, inputs: list[np.ndarray]) -> list[np.ndarray]:
        body, count = node.attrs["body"], node.attrs["carried"]
        trips, go = int(inputs[0].reshape(())), bool(inputs[1].reshape(()))
        carried, read = inputs[2 : 2 + count], inputs[2 + count :]
        scans: list[list[np.ndarray]] = [[] for _ in node.outputs[count:]]
        trip = 0
        while go and trip < trips:
            self._define(node, body.inputs[1 : 1 + count], carried)
            given = [np.array(trip, np.int64), *carried, *read]
            end, *results = self.graph(body, dict(zip(body.inputs, given, strict=True)))
            carried, go = results[:count], bool(end.reshape(()))
            for column, array in zip(scans, results[count:], strict=True):
                column.append(array)
            trip += 1
        stacked = [self._stack(c, v.type) for c, v in zip(scans, node.outputs[count:], strict=True)]
        self._define(node, node.outputs, [*carried, *stacked])
        return [*carried, *stacked]

    def _stack(self, parts: Sequence[np.ndarray], type: TensorType) -> np.ndarray:
        if parts:
            return np.stack(parts)
        sizes = [at_sizes(d, self.sizes) for d in type.shape[1:]]
        return np.zeros((0, *(n if isinstance(n, int) else 0 for n in sizes)), type.dtype.numpy)

    def _define(self, node: Node, values: Sequence[Value], arrays: Sequence[np.ndarray]) -> None:
        """Give the dimensions that `node` defines the sizes of `arrays`."""
        for value, array in zip(values, arrays, strict=True):
            for d, size in zip(value.shape, array.shape, strict=True):
                if d in node.defines:
                    self.sizes[d] = size


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
        left, right = at_sizes(a, sizes), at_sizes(b, sizes)
        if isinstance(left, int) and isinstance(right, int) and left != right:
            raise InputError(
                f"the model does not work for these input sizes: at node {node.name or node.op!r} "
                f"{a} = {left} and {b} = {right} must be equal"
            )
    return values, sizes
