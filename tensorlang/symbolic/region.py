"""The part of a buffer that a statement touches, as a box."""

from __future__ import annotations

from collections.abc import Sequence

from tensorlang.ir.expr import Expr, const, maximum, minimum
from tensorlang.ir.visitor import walk
from tensorlang.symbolic.affine import constant_value, plus, polynomial
from tensorlang.symbolic.bounds import Unbounded, bounds
from tensorlang.symbolic.interval import RangesLike, as_ranges
from tensorlang.symbolic.simplify import simplify

Region = list[tuple[Expr, Expr]]


def access_region(
    indices: tuple[Expr, ...],
    inner: RangesLike,
    shape: Sequence[Expr] | None = None,
    outer: RangesLike | None = None,
) -> Region:
    """Per dimension (lowest index, extent) over the variables of `inner`, in terms of the other symbols.

        io*8 + ii            inner {ii: 8}           (io*8, 8)
        (oo*4 + oi)*2 + kh   inner {oi: 4, kh: 3}    (oo*8, 9)

    The box contains every element touched; it is exact in a dimension where each inner variable occurs in one term.
    The extent is constant where a constant bounds it. Nothing is taken from the loops of `inner` being run at all: of an access
    under `for j in min(M, 1)` it is min(M, 1), although inside that loop that is 1.

    Args:
        shape: the buffer's shape: the whole dimension is the answer where an index has no bounds, or is itself read from
            memory (gathers).
        outer: what is known of other symbols (their extents), to prove more.

    Raises:
        Unbounded: no bounds, and no `shape` given.
    """
    around = outer or {}
    known = {**around, **inner}
    region: Region = []
    for dim, index in enumerate(indices):
        try:
            if any(e.op == "load" for e in walk(index)):  # memory may change between accesses
                raise Unbounded(f"{index} is read from memory")
            low, high = bounds(simplify(index, known), inner, around)
        except Unbounded:
            if shape is None:
                raise
            region.append((const(0), shape[dim]))
            continue
        region.append((low, _extent(low, high, around)))
    return region


def _extent(low: Expr, high: Expr, known: RangesLike) -> Expr:
    exact = simplify(high - low + 1, known)
    if exact.op == "const":
        return exact
    p = plus(polynomial(exact), {})
    if constant_value(p) is None and (most := as_ranges(known).upper(p)) is not None:
        return const(most)
    return exact


def union_region(a: Region, b: Region, ranges: RangesLike | None = None) -> Region:
    """The smallest box around both, per dimension; `ranges` helps to decide minima."""
    out: Region = []
    for (a_low, a_extent), (b_low, b_extent) in zip(a, b, strict=True):
        low = simplify(minimum(a_low, b_low), ranges)
        high = simplify(maximum(a_low + a_extent, b_low + b_extent), ranges)
        out.append((low, _extent(low, simplify(high - 1, ranges), ranges or {})))
    return out
