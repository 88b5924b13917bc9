"""Statements and functions: frozen trees, rewritten by building new ones. Compared by identity.

    PrimFunc ::= def name(params): body                      params: buffers (inputs, then outputs), then i64 variables
    s ::= Seq(s...) | Allocate(buffer, s)                    memory that lives while s runs
        | For(var, extent, kind, s)                          0 <= var < extent
        | If(cond, s, s?) | Store(buffer, indices, value) | Evaluate(call)
        | MultiStore(Store...)                               all indices and values first, then the stores in order
        | CallPacked(name, args, outputs)                    a registered function of the host, on whole buffers
        | Block(name, iters, predicate, init?, s)            one point of a stage's computation

A `Block` is the unit of scheduling. Its body sees only its own iteration variables: each `Iter` has a domain
`0 <= var < extent`, a kind (`spatial`: distinct points write distinct elements; `reduce`: points accumulate into the same
element), and the `binding` through which the loops outside drive it. A block runs where its predicate holds (an expression
of the loops outside). `init` runs before the body at the first of the points that accumulate into an element.

A `MultiStore` is Python's `a[i], b[i] = x, y`: it updates a tuple (a value and its index) from what the tuple was. A block
whose reducer was made by the user says so in its annotation `reducer` (see `reduction`).
Loop kinds: `serial`, `parallel`, `vectorized`, `unrolled`, or a GPU axis such as `blockIdx.x`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr, const

TRUE = const(True)


# `printer`, which is built on this module, registers itself here: how statements and functions are written as text.
PRINTERS: dict[str, Callable[[Any], str]] = {}


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class Stmt:
    """Base of all statements. `str` and `repr` are program text."""

    def __str__(self) -> str:
        return PRINTERS["stmt"](self)

    def __repr__(self) -> str:
        return PRINTERS["stmt"](self)


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class Store(Stmt):
    buffer: Buffer
    indices: tuple[Expr, ...]
    value: Expr


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class MultiStore(Stmt):
    """Simultaneous stores: every index and value is computed before the first element is written."""

    stores: tuple[Store, ...]


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class CallPacked(Stmt):
    """`name(*args)`: a function of the host process (`ir.packed`) on whole buffers, passed as arrays, and scalars.

    It reads the buffers among `args` and writes those that are `outputs` too; nothing is known of which elements. Such code
    runs in this process only: it cannot be exported. `shapes` are those that the function sees, one for each buffer among
    `args`: the buffers' own (None), until they are flattened.
    """

    name: str
    args: tuple[Buffer | Expr, ...]
    outputs: tuple[Buffer, ...]
    shapes: tuple[tuple[Expr, ...], ...] | None = None

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        return tuple(a for a in self.args if isinstance(a, Buffer))


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class Evaluate(Stmt):
    """An intrinsic called for its effect (made by `tensorize` and by lowering)."""

    expr: Expr


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class Seq(Stmt):
    stmts: tuple[Stmt, ...]


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class If(Stmt):
    cond: Expr
    then: Stmt
    else_: Stmt | None = None


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class Allocate(Stmt):
    buffer: Buffer
    body: Stmt


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class For(Stmt):
    var: Expr
    extent: Expr
    kind: str
    body: Stmt
    annotations: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, slots=True)
class Iter:
    """An iteration variable of a block."""

    var: Expr
    extent: Expr
    kind: str  # "spatial" | "reduce"
    binding: Expr


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class Block(Stmt):
    name: str
    iters: tuple[Iter, ...]
    body: Stmt
    init: Stmt | None = None
    predicate: Expr = TRUE
    annotations: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, repr=False)
class PrimFunc:
    """A kernel as a loop nest.

    Attributes:
        params: buffers, inputs first and outputs last, then free i64 variables (symbolic sizes).
        num_outputs: how many of the buffers are outputs.
        attrs: what later stages should know, e.g. `"source"`: file:line of each stage.
    """

    name: str
    params: tuple[Buffer | Expr, ...]
    body: Stmt
    num_outputs: int = 1
    attrs: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return PRINTERS["func"](self)

    def __repr__(self) -> str:
        return PRINTERS["func"](self)

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        return tuple(p for p in self.params if isinstance(p, Buffer))

    @property
    def inputs(self) -> tuple[Buffer, ...]:
        buffers = self.buffers
        return buffers[: len(buffers) - self.num_outputs]

    @property
    def outputs(self) -> tuple[Buffer, ...]:
        buffers = self.buffers
        return buffers[len(buffers) - self.num_outputs :]

    @property
    def size_vars(self) -> tuple[Expr, ...]:
        return tuple(p for p in self.params if isinstance(p, Expr))

    def with_body(self, body: Stmt) -> PrimFunc:
        return self if body is self.body else replace(self, body=body)


def seq(*stmts: Stmt | None) -> Stmt:
    """`stmts` one after the other, flattened; a single one is itself."""
    flat: list[Stmt] = []
    for s in stmts:
        if isinstance(s, Seq):
            flat.extend(s.stmts)
        elif s is not None:
            flat.append(s)
    return flat[0] if len(flat) == 1 else Seq(tuple(flat))
