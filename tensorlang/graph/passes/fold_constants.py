"""Compute at build time what no input changes.

    %w_t = transpose(%w, perm=[1, 0])        const w_t: f32[64, 32]
    %y = matmul(%x, %w_t)              ->    %y = matmul(%x, %w_t)

Shape arithmetic whose result is known as numbers becomes a constant too. A result larger than `Options.fold_limit` that is
made of smaller constants (an expanded scalar, say) stays a node: computing it costs less than storing it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorlang.graph.ir import Graph, Node, Value
from tensorlang.graph.passes.context import Context
from tensorlang.graph.registry import OPAQUE, as_ints, get
from tensorlang.graph.rewrite import Rewriter, array_of, rewrite
from tensorlang.ir.expr import Expr


def fold_constants(graph: Graph, context: Context | None = None) -> Graph:
    """Replace nodes over constants by their values, as the operators' NumPy references give them."""
    limit = (context or Context()).options.fold_limit
    return rewrite(graph, lambda rw, node: fold(rw, node, limit))


def fold(rw: Rewriter, node: Node, limit: int = 1 << 22) -> list[Value] | None:
    """The constants that `node` computes, or None if it depends on an input, or would grow too large."""
    known = [_contents(v) for v in node.outputs]
    contents = [a for a in known if a is not None]
    if len(contents) == len(node.outputs):
        return [rw.constant(a, v.name) for a, v in zip(contents, node.outputs, strict=True)]
    if not node.inputs or not all(v.is_constant for v in node.inputs):
        return None
    definition = get(node.op)
    if definition.structure:
        return None
    if definition.kind is OPAQUE and not node.inputs:
        return None
    size = 0
    for value in node.outputs:
        shape = as_ints(value.shape)
        if shape is None:
            return None
        size += int(np.prod(shape, dtype=np.int64)) * value.dtype.nbytes
    if size > max(limit, 2 * sum(array_of(v).nbytes for v in node.inputs)):
        return None
    attrs = {name: _as_number(value) for name, value in node.attrs.items()}
    if any(_is_symbolic(value) for value in attrs.values()):
        return None
    with np.errstate(all="ignore"):
        result = definition.numpy(*(array_of(v) for v in node.inputs), **attrs)
    arrays = result if isinstance(result, tuple | list) else (result,)
    return [
        rw.constant(np.ascontiguousarray(np.asarray(a, dtype=v.dtype.numpy)).reshape(as_ints(v.shape)), v.name)
        for a, v in zip(arrays, node.outputs, strict=True)
    ]


def _contents(value: Value) -> np.ndarray | None:
    """The array of an integer value all of whose elements are known numbers."""
    shape = as_ints(value.shape)
    if value.data is None or shape is None or value.dtype.is_float or not all(e.op == "const" for e in value.data.flat):
        return None
    return np.array([e.value for e in value.data.flat], value.dtype.numpy).reshape(shape)


def _as_number(attribute: Any) -> Any:
    """An attribute with constant expressions as integers."""
    if isinstance(attribute, Expr) and attribute.op == "const":
        return attribute.value
    return tuple(_as_number(a) for a in attribute) if isinstance(attribute, tuple | list) else attribute


def _is_symbolic(attribute: Any) -> bool:
    if isinstance(attribute, tuple | list):
        return any(_is_symbolic(a) for a in attribute)
    return isinstance(attribute, Expr)
