"""Operators that users write: a `@te.compute` function as an operator of graphs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tensorlang import te
from tensorlang.graph.ir import Graph, TensorType
from tensorlang.graph.ops.common import canonical, plain, require
from tensorlang.graph.registry import OPAQUE, Kind, Op, get, replace_op
from tensorlang.ir.expr import Expr, wrap
from tensorlang.ir.interp import run


class CustomOp(Op):
    """An operator defined by a `te.Operator`: inputs are its tensors in order, attributes its compile-time constants.

    Attributes:
        reference: its NumPy meaning; without one, the interpreter runs the naive loop nest (slow, but the definition).
    """

    def __init__(self, operator: te.Operator, reference: Callable[..., Any] | None = None):
        self.operator = operator
        self.reference = reference

    def _check(self, inputs: tuple[Any, ...]) -> None:
        params = self.operator.params
        require(
            len(inputs) == len(params),
            f"{self.name}: {self.operator.name} takes {len(params)} tensor(s), the node has {len(inputs)}",
        )
        for x, (name, expected) in zip(inputs, params.items(), strict=True):
            require(
                x.dtype == expected.dtype and len(x.shape) == len(expected.dims),
                f"{self.name}: {name} is {expected}, the node gives {x}",
            )

    def _trace(self, shapes: list[tuple[int | Expr, ...]], attrs: Mapping[str, Any]) -> tuple[Any, Any]:
        by_name = dict(zip(self.operator.params, shapes, strict=True))
        return self.operator.trace(by_name, **attrs)

    def infer(self, *inputs: TensorType, **attrs: Any) -> list[TensorType]:
        self._check(inputs)
        _, outputs = self._trace([plain(x.shape) for x in inputs], attrs)
        return [TensorType(t.dtype, tuple(canonical(wrap(d)) for d in t.shape)) for t in outputs]

    def te(self, *inputs: te.Tensor, **attrs: Any) -> Any:
        return self.operator(*inputs, **attrs)

    def numpy(self, *inputs: np.ndarray, **attrs: Any) -> Any:
        if self.reference is not None:
            return self.reference(*inputs, **attrs)
        ins, outs = self._trace([x.shape for x in inputs], attrs)
        results = [np.zeros(t.shape, t.dtype.numpy) for t in outs]
        run(te.create_prim_func(self.operator.name, ins, outs), [*map(np.ascontiguousarray, inputs), *results])
        return tuple(results) if len(results) > 1 else results[0]


def register_operator(
    name: str,
    operator: te.Operator,
    reference: Callable[..., Any] | None = None,
    kind: Kind | None = None,
) -> Op:
    """Make `operator` the graph operator `name`; a custom operator of that name is replaced.

    Args:
        kind: how it fuses; by default it stands alone.
    """
    definition = CustomOp(operator, reference)
    replace_op(name, OPAQUE if kind is None else kind, definition)
    return definition


def is_reproducible(graph: Graph) -> bool:
    """Whether the model's file alone says what the graph computes; a custom operator is code of this process."""
    return not any(isinstance(get(node.op), CustomOp) for node in graph.nodes)
