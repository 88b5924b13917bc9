"""A region of a graph that another code generator computes, as one operator (made by `graph.partition`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tensorlang.graph.ir import Graph, TensorType
from tensorlang.graph.reference import evaluate
from tensorlang.graph.registry import OPAQUE, Op, get, op
from tensorlang.ir.expr import Expr


@dataclass(frozen=True, eq=False)
class Region:
    """What the operator computes: a graph of its own, whose inputs and outputs are the node's. No pass looks inside."""

    graph: Graph

    def __str__(self) -> str:
        return f"region {self.graph.name} of {len(self.graph.nodes)} nodes"


@op("external", OPAQUE)
class External(Op):
    """(x...) -> (y...), computed by the code generator `generator` from `region`."""

    def infer(self, *inputs: TensorType, region: Region, **attrs: Any) -> list[TensorType]:
        return [v.type for v in region.graph.outputs]

    def constraints(self, *inputs: TensorType, region: Region, **attrs: Any) -> list[tuple[Expr, Expr]]:
        found: list[tuple[Expr, Expr]] = []
        for node in region.graph.nodes:
            found += get(node.op).constraints(*(v.type for v in node.inputs), **node.attrs)
        return found

    def numpy(self, *inputs: np.ndarray, region: Region, **attrs: Any) -> tuple[np.ndarray, ...]:
        graph = region.graph
        feeds = {v.name: a for v, a in zip(graph.inputs, inputs, strict=True)}
        return tuple(evaluate(graph, feeds).values())


@op("copy_to", OPAQUE)
class CopyTo(Op):
    """x -> x, in the memory of the target `memory` ("" is the host's). Made by `graph.partition`, one for each crossing."""

    def infer(self, x: TensorType, **attrs: Any) -> list[TensorType]:
        return [x]

    def numpy(self, x: np.ndarray, **attrs: Any) -> np.ndarray:
        return x.copy()
