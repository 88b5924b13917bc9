"""Compute each thing once.

    %a = relu(%x)
    %b = relu(%x)              %a = relu(%x)
    %c = add(%a, %b)     ->    %c = add(%a, %a)

Two nodes are the same if operator, attributes and inputs are; two constants, if dtype, shape and bytes are.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np

from tensorlang.graph.ir import Graph, Node, Value
from tensorlang.graph.passes.context import Context, subject_of
from tensorlang.graph.rewrite import Rewriter, array_of, rewrite

IMPURE = {"random_normal", "random_uniform", "random_normal_like", "random_uniform_like", "bernoulli", "multinomial"}
SAMPLE = 64  # elements of a constant that make its hash key; candidates are then compared in full


def cse(graph: Graph, context: Context | None = None) -> Graph:
    """Merge equal nodes and equal constants."""
    context = context or Context()
    known: dict[Hashable, list[Value]] = {}
    constants: dict[Hashable, list[Value]] = {}

    def canonical(value: Value) -> Value:
        array = value.constant
        if array is None:
            return value
        bucket = constants.setdefault(_sample(array), [])
        for other in bucket:
            if other is value or same_bytes(array_of(other), array):
                return other
        bucket.append(value)
        return value

    def rule(rw: Rewriter, node: Node) -> list[Value] | None:
        if node.op in IMPURE:
            return None
        inputs = tuple(canonical(v) for v in node.inputs)
        key = (node.op, inputs, attrs_key(node.attrs))
        if key in known:
            context.note(subject_of(node), f"is the same as {known[key][0].name}")
            return known[key]
        if all(a is b for a, b in zip(inputs, node.inputs, strict=True)):
            known[key] = node.outputs
            return None
        merged = Node(node.op, list(inputs), node.attrs, name=node.name)
        merged.outputs = [Value(v.name, v.type, merged, data=v.data) for v in node.outputs]
        known[key] = rw.adopt(merged)
        return known[key]

    return rewrite(graph, rule)


def _sample(array: np.ndarray) -> Hashable:
    flat = array.reshape(-1) if array.flags.c_contiguous else np.ascontiguousarray(array).reshape(-1)
    return (str(array.dtype), array.shape, flat[:: max(1, flat.size // SAMPLE)].tobytes())


def same_bytes(a: np.ndarray, b: np.ndarray) -> bool:
    """Bitwise equality: NaN equals itself, and 0.0 differs from -0.0."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    flat_a, flat_b = (np.ascontiguousarray(x).reshape(-1).view(np.uint8) for x in (a, b))
    return bool(np.array_equal(flat_a, flat_b))


def attrs_key(attrs: Mapping[str, Any]) -> Hashable:
    """Equal for equal attributes; arrays by their bytes, floats by their bits as `repr` shows them."""
    return tuple((name, _freeze(attrs[name])) for name in sorted(attrs))


def _freeze(value: Any) -> Hashable:
    if isinstance(value, list | tuple):
        return ("seq", *(_freeze(v) for v in value))
    if isinstance(value, np.ndarray):
        return ("array", str(value.dtype), value.shape, value.tobytes())
    if isinstance(value, dict):
        return ("dict", attrs_key(value))
    return (type(value).__name__, repr(value) if isinstance(value, float) else value)
