"""A program as data: statements in blocks, kernel calls at the leaves.

    s ::= Call(site) | ReadSize(value, dim) | Check(a, b) | Require(value) | Branch(condition, s..., s...)
        | Repeat(trips, condition, s...)
        | Own(value) | Move(from, to) | Define(dim, expr) | Grow(...) | Deliver(output)

The last line is about memory whose size only a run can tell: it is allocated when a value comes to be, handed over, and
given back after its last use. Everything else lies in the planned arena.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tensorlang.build import LoweredKernel
from tensorlang.graph.ir import Value
from tensorlang.ir.expr import Expr, const
from tensorlang.ir.stmt import PrimFunc

Lower = Callable[[PrimFunc, str], LoweredKernel]
Prepare = Callable[[LoweredKernel, Mapping[str, np.ndarray]], dict[str, np.ndarray]]


@dataclass(frozen=True)
class Argument:
    """What a kernel is called with. `place`: "arena" or "weights" (value: byte offset), "input" or "output" (its number),
    "heap" (byte offset into the memory that the variable `name` holds), "size" (an integer)."""

    place: str
    value: Expr
    name: str = ""
    shift: Expr = const(0)  # bytes behind an input's or output's beginning


@dataclass(frozen=True)
class Step:
    """One kernel call of `main`.

    Attributes:
        label: the model's nodes that it computes.
        flops, nbytes: arithmetic done and bytes of inputs and outputs, for the profile.
    """

    kernel: str
    args: tuple[Argument, ...]
    label: str
    flops: Expr
    nbytes: Expr


@dataclass
class Program:
    """A model as one emitted module.

    Attributes:
        source: all kernels and `main`.
        kernels: by name, each once.
        weights: constants and what was prepared from them, in one block of bytes.
        steps: the kernel calls in the order of the text.
        manifest: the description that the runtime reads (see `runtime.executable`).
    """

    source: str
    kernels: dict[str, LoweredKernel]
    weights: np.ndarray
    steps: list[Step]
    manifest: dict[str, Any]


@dataclass
class Site:
    """A kernel at one place of the program; symbols of the shared kernel are those of `sizes` here.

    Attributes:
        inputs, outputs: values by the kernel's parameter.
        shift: bytes to add to a parameter's address.
    """

    kernel: LoweredKernel
    inputs: dict[str, Value]
    outputs: dict[str, Value]
    sizes: dict[Expr, Expr]
    label: str
    func: PrimFunc
    shift: dict[str, Expr] = field(default_factory=dict)


Block = list["Statement"]


@dataclass(eq=False)
class Call:
    """Run a kernel."""

    site: Site


@dataclass(eq=False)
class ReadSize:
    """Let a dimension be the integer that a value holds; refuse the run if it is below `low`."""

    value: Value
    dim: Expr
    low: int | None
    label: str


@dataclass(eq=False)
class Check:
    """Refuse the run unless two dimensions are equal."""

    a: Expr
    b: Expr
    label: str


@dataclass(eq=False)
class Require:
    """Refuse the run unless the condition that a value holds is `holds`."""

    value: Value
    holds: bool
    message: str


@dataclass(eq=False)
class Define:
    """Let a dimension be what an expression is now."""

    dim: Expr
    value: Expr


@dataclass(eq=False)
class Own:
    """Memory for a value whose size is known by now; `stack`: it will grow."""

    value: Value
    stack: bool = False


@dataclass(eq=False)
class Move:
    """Hand the memory of one value over to another, whose own, if it has any (`replace`), is given back."""

    source: Value
    target: Value
    replace: bool = False


@dataclass(eq=False)
class Grow:
    """Make room in a stack of trips for one more element of `nbytes` bytes: twice as much as before when it is full.

    `kernel` copies bytes.
    """

    stack: Value
    trip: Expr
    nbytes: Expr
    kernel: str


@dataclass(eq=False)
class Deliver:
    """Give memory to the caller as an output."""

    value: Value
    number: int


@dataclass(eq=False)
class Branch:
    """One of two blocks, by the condition that a value holds."""

    condition: Value
    then: Block
    otherwise: Block
    results: list[Value]


@dataclass(eq=False)
class Repeat:
    """A block, again and again: at most as often as `trips` says, while `go` holds.

    Attributes:
        trip: the number of trips done so far, an integer of the program.
        index: the value in which the body reads it.
        go: the condition before the first trip.
        proceed: the value that a trip leaves as the condition of the next.
        results: what it changes from trip to trip.
    """

    trip: Expr
    trips: Value
    go: Value
    proceed: Value
    index: Value
    body: Block
    results: list[Value]


Statement = Call | ReadSize | Check | Require | Define | Own | Move | Grow | Deliver | Branch | Repeat
ZERO = const(0)
