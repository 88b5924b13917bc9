"""How the loops of a stage were made from its axes: enough to make them again over another part of it.

    i_o, i_i = y.split(i, 4); f = y.fuse(i_i, j)        Split(i -> i_o, i_i), Fuse(i_i, j -> f)

`compute_at` computes a smaller part of a stage in another place; its splits and fusions are then replayed on the smaller
extents (classic te's bound inference does the same), while the order of its loops and their kinds are those of the nest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tensorlang.ir.expr import Expr, const, le, lt, var
from tensorlang.ir.stmt import For
from tensorlang.ir.visitor import free_vars, substitute
from tensorlang.symbolic.bounds import prove
from tensorlang.symbolic.simplify import simplify


@dataclass(frozen=True, eq=False)
class Split:
    """parent = (loops[0] * sizes[0] + loops[1]) * sizes[1] + ... < extent.

    Attributes:
        sizes: the extents of all loops but the first.
        free: which of the sizes follows from the extent and from the number of parts; None where all were given.
        parts: the product of the other extents, where one is free.
    """

    parent: Expr
    loops: tuple[Expr, ...]
    extent: Expr
    sizes: tuple[Expr, ...]
    free: int | None = None
    parts: Expr = const(1)

    def value(self, sizes: Sequence[Expr]) -> Expr:
        """The parent in terms of the loops, the inner ones having extents `sizes`."""
        value, stride = self.loops[-1], const(1)
        for v, size in zip(self.loops[-2::-1], reversed(sizes), strict=True):
            stride = simplify(stride * size)
            value = v * stride + value
        return value


@dataclass(frozen=True, eq=False)
class Fuse:
    """outer = fused // width, inner = fused % width, where `width` is the extent of `inner`."""

    outer: Expr
    inner: Expr
    fused: Expr
    width: Expr


Relation = Split | Fuse


def fuse_relations(loops: Sequence[For], fused: Expr) -> tuple[Relation, ...]:
    """`loops`, outermost first, fused two by two; between more than two there are loops that never were."""
    found: list[Relation] = []
    outer = loops[0].var
    for inner in loops[1:]:
        both = fused if inner is loops[-1] else var(f"{outer.name}_{inner.var.name}")
        found.append(Fuse(outer, inner.var, both, inner.extent))
        outer = both
    return tuple(found)


@dataclass(frozen=True, eq=False)
class Axes:
    """What a stage's loops were made from.

    Attributes:
        roots: per iteration variable of the block, the loop variable that drove it alone; None where that is not known.
        domain: the extents of the iteration variables.
        guards: conditions that keep the stage's loops inside its axes, where it was placed last.
    """

    roots: tuple[Expr | None, ...]
    domain: tuple[Expr, ...]
    guards: tuple[Expr, ...] = ()


@dataclass(frozen=True)
class History:
    """All that is known of how loops were made: relations in order, and the axes of each stage."""

    relations: tuple[Relation, ...]
    axes: Mapping[str, Axes]


@dataclass(frozen=True)
class Replayed:
    """Axes taken apart again.

    Attributes:
        values: each axis in terms of the loops.
        loops: the loops with their extents.
        guards: which points of the loops are points of the axes.
    """

    values: dict[Expr, Expr]
    loops: dict[Expr, Expr]
    guards: list[Expr]


def replay(relations: Sequence[Relation], extents: Mapping[Expr, Expr], outer: Mapping[Expr, Expr | int]) -> Replayed:
    """The loops that `relations` make of axes with these `extents`; `outer` are the loops outside.

    A split of an axis that is not longer than the factor gives one outer iteration, and no guard.
    """
    live = dict(extents)
    steps: list[tuple[Expr, Expr]] = []
    bounds: list[tuple[Expr, Expr]] = []
    for r in relations:
        if isinstance(r, Split) and r.parent in live:
            extent = live.pop(r.parent)
            made = _parts(r, extent, outer)
            live.update(zip(r.loops, made, strict=True))
            steps.append((r.parent, r.value(made[1:])))
            points = const(1)
            for size in made:
                points = simplify(points * size)
            if simplify(points - extent, outer) is not const(0):
                bounds.append((r.parent, extent))
        elif isinstance(r, Fuse) and r.outer in live and r.inner in live:
            count, width = live.pop(r.outer), live.pop(r.inner)
            live[r.fused] = simplify(count * width)
            if width.op == "const" and width.value == 1:
                steps += [(r.outer, r.fused), (r.inner, const(0))]
            elif count.op == "const" and count.value == 1:
                steps += [(r.outer, const(0)), (r.inner, r.fused)]
            else:
                steps += [(r.outer, r.fused // width), (r.inner, r.fused % width)]
    ranges = {**outer, **live}
    whole: dict[Expr, Expr] = {}
    for v, value in reversed(steps):
        whole[v] = simplify(substitute(value, whole), ranges)
    values = {v: whole.get(v, v) for v in extents}
    guards = [simplify(lt(whole[v], extent), ranges) for v, extent in bounds]
    return Replayed(values, live, guards)


def _parts(r: Split, extent: Expr, outer: Mapping[Expr, Expr | int]) -> list[Expr]:
    """The extents of the loops that the split `r` makes of a loop of `extent` iterations."""
    sizes = list(r.sizes)
    if r.free is not None:
        sizes[r.free] = simplify((extent + r.parts - 1) // r.parts)
    rest, made = extent, []
    for size in reversed(sizes):
        if prove(le(rest, size), outer):
            made.append(rest)
            rest = const(1)
        else:
            made.append(size)
            rest = simplify((rest + size - 1) // size)
    return [rest, *reversed(made)]


def expanded(relations: Sequence[Relation], v: Expr) -> Expr:
    """`v` in terms of the loops that were made of it."""
    return simplify(substitute(v, _expansions(relations)))


def _expansions(relations: Sequence[Relation]) -> dict[Expr, Expr]:
    whole: dict[Expr, Expr] = {}
    for r in reversed(relations):
        if isinstance(r, Split):
            whole[r.parent] = substitute(r.value(r.sizes), whole)
        else:
            whole[r.outer] = substitute(r.fused // r.width, whole)
            whole[r.inner] = substitute(r.fused % r.width, whole)
    return whole


def tail_conditions(history: History, stage: str, loops: Mapping[Expr, Expr | int]) -> list[Expr]:
    """What the ragged tails of splits, and of the place of `stage`, let its guard say; in terms of `loops`."""
    whole = _expansions(history.relations)
    conditions = [lt(r.parent, r.extent) for r in history.relations if isinstance(r, Split)]
    conditions += history.axes[stage].guards
    return [
        e for e in (simplify(substitute(c, whole), loops) for c in conditions) if free_vars(e) & loops.keys()
    ]
