"""The graph IR: a typed, acyclic dataflow of operators, with symbolic shapes.

    Graph ::= inputs, nodes in topological order, outputs
    Node  ::= outputs = op(inputs; attrs)              op: a name in the registry
    Value ::= name: dtype[dim, ...]                    a dim is an integer expression; a variable in it is a model dimension

A graph input, a constant or a node's output is a `Value`. Constants carry their array. A small integer value that is known
as expressions of the model's dimensions (shape arithmetic) carries them in `data`, so that `Shape -> Gather -> Concat ->
Reshape` chains fold while the graph is being built. Shapes are attributes of operators, never run-time tensors, wherever
they are known that way.

Control flow is operators that hold graphs (`if`, `loop`): whatever such a graph reads from outside is passed in, as inputs of
the node and of the graph alike. Sizes that only a run can tell are dimensions too: a node `bind_size` reads a computed integer
and gives its value to a dimension, and from there on types, attributes and kernels mention it like any other. `if` and `loop`
give values to those dimensions of their results that their bodies do not agree on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from tensorlang.errors import ModelError
from tensorlang.ir.dtype import DType, dtype as as_dtype
from tensorlang.ir.expr import Expr, ExprLike, var, wrap
from tensorlang.ir.visitor import free_vars


@dataclass(frozen=True)
class TensorType:
    """dtype and shape; every dim is an i64 expression (constants included)."""

    dtype: DType
    shape: tuple[Expr, ...]

    @classmethod
    def of(cls, dtype: DType | str | np.dtype, shape: Iterable[ExprLike]) -> TensorType:
        return cls(as_dtype(dtype), tuple(wrap(d) for d in shape))

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def is_static(self) -> bool:
        return all(d.op == "const" for d in self.shape)

    @property
    def static_shape(self) -> tuple[int, ...]:
        """The shape as integers.

        Raises:
            ModelError: a dimension is symbolic.
        """
        if not self.is_static:
            raise ModelError(f"{self} has symbolic dimensions; pass shapes= to fix them")
        return tuple(d.value for d in self.shape)

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclass(eq=False)
class Value:
    """One tensor of the graph.

    Attributes:
        producer: the node that computes it; None for inputs and constants.
        constant: its array, if it is a constant.
        data: its elements as i64 expressions of the model's dimensions (object array of `Expr`), if known. A constant
            integer array of at most 64 elements always has it.
    """

    name: str
    type: TensorType
    producer: Node | None = None
    constant: np.ndarray | None = None
    data: np.ndarray | None = None

    @property
    def shape(self) -> tuple[Expr, ...]:
        return self.type.shape

    @property
    def dtype(self) -> DType:
        return self.type.dtype

    @property
    def is_constant(self) -> bool:
        return self.constant is not None

    def __repr__(self) -> str:
        return f"%{self.name}: {self.type}"


@dataclass(eq=False)
class Node:
    """An application of an operator. `name` is the user's node name (from the model file), for messages."""

    op: str
    inputs: list[Value]
    attrs: Mapping[str, Any]
    outputs: list[Value] = field(default_factory=list)
    name: str = ""

    @property
    def output(self) -> Value:
        return self.outputs[0]

    @property
    def defines(self) -> tuple[Expr, ...]:
        """The run-time dimensions that this node gives a value to."""
        return tuple(self.attrs.get("defines", ()))

    @property
    def bodies(self) -> tuple[Graph, ...]:
        """The graphs that it holds."""
        return tuple(v for v in self.attrs.values() if isinstance(v, Graph))

    def needed_dims(self) -> set[Expr]:
        """The dimensions that its attributes and types mention and it does not define, bodies included."""
        found = _dims_in(self.attrs)
        for value in (*self.inputs, *self.outputs):
            found |= _dims_in(value.shape)
        for body in self.bodies:
            found |= body.needed_dims()
        return found - set(self.defines)

    def __repr__(self) -> str:
        attrs = "".join(f", {k}={_show(v)}" for k, v in self.attrs.items())
        return (
            f"{', '.join(map(repr, self.outputs))} = {self.op}({', '.join('%' + v.name for v in self.inputs)}{attrs})"
            + (f"  # {self.name}" if self.name else "")
        )


def _dims_in(value: Any) -> set[Expr]:
    if isinstance(value, Expr):
        return free_vars(value)
    if isinstance(value, TensorType):
        return _dims_in(value.shape)
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, tuple | list):
        return set().union(*map(_dims_in, value)) if value else set()
    return set()


def _show(value: Any) -> str:
    if isinstance(value, Graph):
        return "{" + str(value).replace("\n", "\n    ") + "}"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_show(v) for v in value) + "]"
    if isinstance(value, np.ndarray):
        return f"array{value.shape}"
    return str(value)


@dataclass(eq=False)
class Graph:
    """A model. Passes take a Graph and return a Graph (a new one, or the same object when nothing changed).

    Attributes:
        dims: the model's symbolic dimensions by name (i64 variables that occur in shapes).
        opset: where it came from, for messages.
    """

    inputs: list[Value]
    nodes: list[Node]
    outputs: list[Value]
    name: str = "main"
    dims: dict[str, Expr] = field(default_factory=dict)
    output_names: list[str] = field(default_factory=list)

    def values(self) -> Iterator[Value]:
        """Inputs, then every node's outputs, in order (constants are found at their uses)."""
        yield from self.inputs
        for node in self.nodes:
            yield from node.outputs

    def constants(self) -> list[Value]:
        """Constants in order of first use."""
        seen: dict[Value, None] = {}
        for node in self.nodes:
            for value in node.inputs:
                if value.is_constant:
                    seen.setdefault(value)
        for value in self.outputs:
            if value.is_constant:
                seen.setdefault(value)
        return list(seen)

    def needed_dims(self) -> set[Expr]:
        """The dimensions that it mentions and does not define."""
        found, defined = set[Expr](), set[Expr]()
        for value in (*self.inputs, *self.outputs):
            found |= _dims_in(value.shape)
        for node in self.nodes:
            found |= node.needed_dims()
            defined.update(node.defines)
        return found - defined

    def uses(self) -> dict[Value, list[Node]]:
        """The nodes that read each value, in order; graph outputs are not counted."""
        found: dict[Value, list[Node]] = {}
        for node in self.nodes:
            for value in node.inputs:
                found.setdefault(value, []).append(node)
        return found

    def __str__(self) -> str:
        lines = [f"graph {self.name}({', '.join(map(repr, self.inputs))}):"]
        lines += [f"  const {v!r}" for v in self.constants()]
        lines += [f"  {n!r}" for n in self.nodes]
        lines.append(f"  return {', '.join('%' + v.name for v in self.outputs)}")
        return "\n".join(lines)


def constant(array: np.ndarray, name: str = "const") -> Value:
    """A constant value; small arrays of integers or conditions carry `data` too."""
    array = np.asarray(array)
    value = Value(name, TensorType.of(array.dtype, array.shape), constant=array)
    if array.dtype.kind in "iub" and array.size <= 64:
        data = np.empty(array.shape, dtype=object)
        for index in np.ndindex(array.shape):
            data[index] = wrap(array[index].item())
        value.data = data
    return value


def dim(name: str) -> Expr:
    """A fresh symbolic dimension."""
    return var(name)


_LOWEST: WeakKeyDictionary[Expr, int | None] = WeakKeyDictionary()


def runtime_dim(name: str, low: int | None = 0) -> Expr:
    """A fresh integer whose value a node of the graph will tell: at least `low`, if that is given."""
    fresh = var(name)
    _LOWEST[fresh] = low
    return fresh


def lowest(v: Expr) -> int | None:
    """The least value of a dimension: what `runtime_dim` was told, or 1."""
    return _LOWEST.get(v, 1)
