"""Small graphs for tests of passes, and what "equal" means for two graphs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

import tensorlang.graph.ops  # noqa: F401  (fills the registry)
from tensorlang.graph.ir import Graph, TensorType, Value, dim
from tensorlang.graph.reference import evaluate
from tensorlang.graph.registry import GraphBuilder

CONV = {"strides": (1, 1), "pads": (0, 0, 0, 0), "dilations": (1, 1), "group": 1, "layout": "NCHW"}


class Builder:
    """`g.relu(x)` appends a node; `g.graph(y)` is the graph that returns y."""

    def __init__(self, seed: int = 0):
        self.builder = GraphBuilder()
        self.inputs: list[Value] = []
        self.random = np.random.default_rng(seed)
        self.dims: dict[str, Any] = {}

    def input(self, *shape: int | str, dtype: str = "f32", name: str = "x") -> Value:
        """A string in `shape` names a symbolic dimension."""
        dims = [self.dims.setdefault(d, dim(d)) if isinstance(d, str) else d for d in shape]
        value = self.builder.input(name, TensorType.of(dtype, dims))
        self.inputs.append(value)
        return value

    def weights(self, *shape: int, scale: float = 1.0) -> np.ndarray:
        return (scale * self.random.standard_normal(shape)).astype(np.float32)

    def __getattr__(self, op: str) -> Any:
        def add(*inputs: Value | np.ndarray, **attrs: Any) -> Any:
            return self.builder.add(op.rstrip("_"), inputs, attrs)

        return add

    def conv(self, x: Value, w: np.ndarray, *bias: np.ndarray, **attrs: Any) -> Value:
        spatial = x.type.ndim - 2
        pads = attrs.pop("pad", 0)
        defaults = {
            "strides": (1,) * spatial, "pads": (pads,) * (2 * spatial), "dilations": (1,) * spatial, "group": 1,
            "layout": "NCHW",
        }  # fmt: skip
        return self.builder.add("conv", [x, w, *bias], defaults | attrs)

    def pool(self, op: str, x: Value, kernel: int, stride: int, pad: int = 0, **attrs: Any) -> Value:
        spatial = x.type.ndim - 2
        defaults = {
            "kernel": (kernel,) * spatial, "strides": (stride,) * spatial, "pads": (pad,) * (2 * spatial),
            "dilations": (1,) * spatial, "ceil_mode": False, "layout": "NCHW",
        }  # fmt: skip
        return self.builder.add(op, [x], defaults | attrs)

    def graph(self, *outputs: Value) -> Graph:
        names = [f"out{position}" for position in range(len(outputs))]
        return Graph(self.inputs, self.builder.nodes, list(outputs), dims=dict(self.dims), output_names=names)


def feeds_for(graph: Graph, seed: int = 0, sizes: Mapping[str, int] | None = None) -> dict[str, np.ndarray]:
    """Random inputs; symbolic dimensions get `sizes` (default 3)."""
    random = np.random.default_rng(seed)
    feeds = {}
    for value in graph.inputs:
        shape = [d.value if d.op == "const" else (sizes or {}).get(d.name, 3) for d in value.shape]
        if value.dtype.is_float:
            feeds[value.name] = random.standard_normal(shape).astype(value.dtype.numpy)
        else:
            feeds[value.name] = random.integers(0, 2, shape).astype(value.dtype.numpy)
    return feeds


def assert_same_function(before: Graph, after: Graph, tolerance: float = 2e-6, sizes: Mapping[str, int] | None = None) -> None:
    """Both graphs give the same outputs (shape, dtype, values within `tolerance` of the largest) on random inputs."""
    assert [v.type for v in before.inputs] == [v.type for v in after.inputs]
    for seed in (0, 1):
        feeds = feeds_for(before, seed, sizes)
        expected = [evaluate(before, feeds)[n] for n in evaluate(before, feeds)]
        actual = list(evaluate(after, feeds).values())
        assert len(expected) == len(actual)
        for old, a, b in zip(before.outputs, expected, actual, strict=True):
            assert a.dtype == b.dtype == old.dtype.numpy and a.shape == b.shape
            largest = float(np.abs(a.astype(np.float64)).max(initial=0)) if a.dtype.kind == "f" else 0.0
            np.testing.assert_allclose(b.astype(np.float64), a.astype(np.float64), rtol=0, atol=tolerance * largest + 1e-12)
    check(after)


def check(graph: Graph) -> None:
    """The graph is well formed: producers come first, types are what the operators infer, names are unique."""
    from tensorlang.graph.registry import get

    known = set(graph.inputs)
    names = [v.name for v in graph.values()]
    assert len(names) == len(set(names)), [n for n, k in Counter(names).items() if k > 1]
    for node in graph.nodes:
        for value in node.inputs:
            assert value.is_constant or value in known, f"{value!r} is read before it is made, by {node!r}"
        types = get(node.op).infer(*(v.type for v in node.inputs), **node.attrs)
        assert [v.type for v in node.outputs] == types, repr(node)
        assert all(v.producer is node for v in node.outputs)
        known |= set(node.outputs)
    assert all(v.is_constant or v in known for v in graph.outputs)


def ops(graph: Graph) -> list[str]:
    return [n.op for n in graph.nodes]


def count(graph: Graph, op: str) -> int:
    return ops(graph).count(op)
