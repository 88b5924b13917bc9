"""What a classic schedule remembers: the steps that its user took, each with the line where it was taken.

Classic te's schedule is a description: the order of calls on different stages does not matter, a mark such as `tensorize`
can be set again, and nothing is carried out before `lower`. These are its words; `realise` carries them out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tensorlang.ir.expr import Expr


@dataclass(frozen=True)
class Split:
    """One axis becomes two, of `factor` iterations inside or `nparts` outside."""

    where: str
    parent: Expr
    outer: Expr
    inner: Expr
    factor: Any = None
    nparts: Any = None

    @property
    def makes(self) -> tuple[Expr, ...]:
        return (self.outer, self.inner)

    @property
    def takes(self) -> tuple[Expr, ...]:
        return (self.parent,)


@dataclass(frozen=True)
class Fuse:
    """Neighbours become one axis."""

    where: str
    parents: tuple[Expr, ...]
    fused: Expr

    @property
    def makes(self) -> tuple[Expr, ...]:
        return (self.fused,)

    @property
    def takes(self) -> tuple[Expr, ...]:
        return self.parents


@dataclass(frozen=True)
class Reorder:
    """The axes named change places among themselves."""

    where: str
    order: tuple[Expr, ...]

    @property
    def makes(self) -> tuple[Expr, ...]:
        return ()

    @property
    def takes(self) -> tuple[Expr, ...]:
        return self.order


Step = Split | Fuse | Reorder


@dataclass(frozen=True)
class Mark:
    """How one axis runs: `kind` is vectorize, unroll, parallel, bind or tensorize; `value` the thread axis or intrinsic."""

    where: str
    kind: str
    value: Any = None


@dataclass(frozen=True)
class Attach:
    """Where a stage is computed: inside `axis` of the stage `consumer`."""

    where: str
    consumer: Any
    axis: Expr


@dataclass(frozen=True)
class CacheWrite:
    """Stage `made` computes what `stage` did, into a buffer of `scope`; `stage` becomes the copy from it."""

    where: str
    stage: Any
    scope: str
    made: Any


@dataclass(frozen=True)
class CacheRead:
    """Stage `made` copies `tensor` into a buffer of `scope`, from which `readers` read."""

    where: str
    tensor: Any
    scope: str
    readers: tuple[Any, ...]
    made: Any


@dataclass(frozen=True)
class RFactor:
    """Stage `made` holds partial results of `stage`, one per iteration of `axis`; `combine` runs over them in `stage`.

    `before` are the steps on the reduction that came first.
    """

    where: str
    stage: Any
    axis: Expr
    factor_axis: int
    made: Any
    combine: Expr
    before: tuple[Step, ...] = field(default_factory=tuple)


Dataflow = CacheWrite | CacheRead | RFactor
