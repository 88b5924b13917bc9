"""Control flow, and sizes that only a run can tell: operators that become statements of the program, not kernels.

    %n = bind_size(%count; defines=[u])                       from here on the dimension u is the integer in %count
    %y = if(%cond, %a, %b; then={...}, otherwise={...})  both graphs take %a, %b
    %y = require(%cond, %x; holds=True, message="...")    %x, in a run where the condition holds; another is refused
    %s, %ys = loop(%trips, %go, %s0, %a; body={...}, carried=1)
                                                         body: (i, s, a) -> (go, s, y); ys stacks y of every trip

`types` are the results' types. Where the bodies do not agree on a dimension, or it changes from trip to trip, it is one of
`defines`: the node gives it its value. ONNX, operators If, Loop, Scan.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorlang.graph.ir import TensorType, Value
from tensorlang.graph.registry import OPAQUE, Op, op
from tensorlang.ir.expr import Expr


class Structure(Op):
    """An operator that becomes statements."""

    structure = True

    def infer(self, *inputs: TensorType, types: tuple[TensorType, ...] = (), **attrs: Any) -> list[TensorType]:
        return list(types)


@op("bind_size", OPAQUE)
class BindSize(Structure):
    """The input (one i64), and its value as a dimension. A run in which it is below `low` is refused."""

    def infer(self, *inputs: TensorType, **attrs: Any) -> list[TensorType]:
        return [inputs[0]]

    def data(self, *inputs: Value, **attrs: Any) -> list[np.ndarray | None]:
        defined: tuple[Expr, ...] = attrs["defines"]
        contents = np.empty(tuple(d.value for d in inputs[0].shape), dtype=object)
        contents.fill(defined[0])
        return [contents]


@op("require", OPAQUE)
class Require(Structure):
    """The second input. A run in which the condition (a bool of one element) is not `holds` is refused with `message`."""

    def infer(self, *inputs: TensorType, **attrs: Any) -> list[TensorType]:
        return [inputs[1]]

    def data(self, *inputs: Value, **attrs: Any) -> list[np.ndarray | None]:
        return [inputs[1].data]


@op("if", OPAQUE)
class If(Structure):
    """`then` where the condition (a bool of one element) holds, else `otherwise`; both on the other inputs."""


@op("loop", OPAQUE)
class Loop(Structure):
    """`body` again and again, at most `trips` times and while the condition holds.

    Inputs: trips (one i64), condition (one bool), `carried` values that the body renews, values that it reads.
    Results: the carried values after the last trip, then the body's further results, stacked along a new first dimension.
    """
