"""The operator registry: beside each other, an operator's type rule, te definition, fusion kind and NumPy reference.

    @op("relu", ELEMENTWISE)
    class Relu(Op):
        def infer(self, x, **attrs): return [x]
        def te(self, x, **attrs): return te.compute(x.shape, lambda *i: te.maximum(x[i], 0), name="relu")
        def numpy(self, x, **attrs): return np.maximum(x, 0)

Every method takes the node's inputs positionally and its attributes by name. `infer` takes `TensorType`s and returns a list
of them; `te` takes `te.Tensor`s and returns a tensor or a tuple of them; `numpy` takes arrays and returns an array or a tuple.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from typing import Any

import numpy as np

from tensorlang.errors import InternalError
from tensorlang.graph.ir import Node, TensorType, Value, constant
from tensorlang.ir.expr import Expr


class Kind(IntEnum):
    """How an operator may fuse, from easiest to never."""

    ELEMENTWISE = 0  # output[i] reads inputs at i (after broadcasting of size-1 dims)
    INJECTIVE = 1  # output[i] reads one element per input at an index computed from i: transpose, slice, concat, pad
    REDUCTION = 2  # reduces along axes: fuses elementwise producers, and elementwise consumers at the output
    CONTRACTION = 3  # matmul, conv: takes an elementwise/injective epilogue
    COMPOUND = 4  # several stages (softmax, layer norm): takes elementwise producers and consumers
    OPAQUE = 5  # stands alone


ELEMENTWISE, INJECTIVE, REDUCTION, CONTRACTION, COMPOUND, OPAQUE = Kind


class Op:
    """Base of operator definitions."""

    name: str = ""
    kind: Kind = OPAQUE
    structure: bool = False  # part of the program's control, not a kernel: it has neither `te` nor `numpy`

    def infer(self, *inputs: TensorType, **attrs: Any) -> list[TensorType]:
        raise NotImplementedError(self.name)

    def te(self, *inputs: Any, **attrs: Any) -> Any:
        raise NotImplementedError(self.name)

    def numpy(self, *inputs: np.ndarray, **attrs: Any) -> Any:
        raise NotImplementedError(self.name)

    def constraints(self, *inputs: TensorType, **attrs: Any) -> list[tuple[Expr, Expr]]:
        """Pairs of dimensions that `infer` took to be equal although it could not tell; a run checks them."""
        return []

    def data(self, *inputs: Value, **attrs: Any) -> list[np.ndarray | None] | None:
        """Symbolic contents of the outputs (object arrays of i64 `Expr`), where inputs' `data` or shapes determine them."""
        return None


_REGISTRY: dict[str, Op] = {}


def op(name: str, kind: Kind) -> Callable[[type[Op]], type[Op]]:
    """Register an operator under `name`."""

    def register(cls: type[Op]) -> type[Op]:
        if name in _REGISTRY:
            raise InternalError(f"operator {name!r} is registered twice")
        instance = cls()
        instance.name, instance.kind = name, kind
        _REGISTRY[name] = instance
        return cls

    return register


def replace_op(name: str, kind: Kind, definition: Op) -> None:
    """Register a definition that is not part of this package; a later one of the same name takes its place."""
    definition.name, definition.kind = name, kind
    _REGISTRY[name] = definition


def get(name: str) -> Op:
    """The definition of operator `name`.

    Raises:
        InternalError: there is none (importers check before they emit).
    """
    if name not in _REGISTRY:
        raise InternalError(f"no operator {name!r} in the registry")
    return _REGISTRY[name]


def names() -> list[str]:
    return sorted(_REGISTRY)


class GraphBuilder:
    """Builds a graph in topological order: types are inferred and shape arithmetic folded at every `add`."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self._names: dict[str, int] = {}

    def unique(self, hint: str) -> str:
        """A value name not used before, made of word characters."""
        base = "".join(c if c.isalnum() or c == "_" else "_" for c in hint) or "v"
        serial = self._names.get(base, 0)
        self._names[base] = serial + 1
        return f"{base}_{serial}" if serial else base

    def input(self, name: str, type: TensorType) -> Value:
        return Value(self.unique(name), type)

    def add(
        self, op_name: str, inputs: Sequence[Value | np.ndarray], attrs: Mapping[str, Any] | None = None, name: str = ""
    ) -> Value | tuple[Value, ...]:
        """Append `op_name(inputs; attrs)`; its output value, or a tuple when it has several.

        Raises:
            TypeCheckError, ModelError: the inputs do not fit the operator.
        """
        attrs = dict(attrs or {})
        values = [v if isinstance(v, Value) else constant(v, self.unique("const")) for v in inputs]
        definition = get(op_name)
        types = definition.infer(*(v.type for v in values), **attrs)
        node = Node(op_name, values, attrs, name=name)
        contents = definition.data(*values, **attrs) or [None] * len(types)
        hint = name or op_name
        node.outputs = [
            Value(self.unique(hint), t, producer=node, data=d) for t, d in zip(types, contents, strict=True)
        ]
        self.nodes.append(node)
        return node.outputs[0] if len(node.outputs) == 1 else tuple(node.outputs)


def as_ints(dims: Sequence[Expr]) -> tuple[int, ...] | None:
    """`dims` as integers, or None if one is symbolic."""
    return tuple(d.value for d in dims) if all(d.op == "const" for d in dims) else None
