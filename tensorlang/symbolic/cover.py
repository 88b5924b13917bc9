"""Is an element that is read one of those that a write makes? Answered by naming the iteration that writes it.

    read y[6*io + ii]      write y[6*io + a*2 + b], a < 3, b < 2      ->   a = ii // 2, b = ii % 2, both in range: yes

Each index of the write is a number in mixed radix whose digits are its own loops; the element read gives the digits. What is
left are bounds and guards, which hold or do not. Works with symbolic sizes; incomplete (`conflict.uncovered` asks integer
sets where it fails).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from tensorlang.ir.expr import Expr, const, eq, floordiv, floormod, le, lt
from tensorlang.ir.visitor import free_vars, substitute, walk
from tensorlang.symbolic.access import Access
from tensorlang.symbolic.affine import Poly, build, constant_value, plus, polynomial
from tensorlang.symbolic.bounds import prove
from tensorlang.symbolic.interval import Ranges, RangesLike, as_ranges
from tensorlang.symbolic.simplify import simplify


def writes_what_is_read(read: Access, write: Access, shared: Collection[Expr], sizes: RangesLike | None = None) -> bool:
    """Whether it is proved that every element that `read` touches, `write` touches in the same iteration of `shared`."""
    if not (read.exact and write.exact):
        return False
    own = {v: e for v, e in write.loops if v not in shared}
    ranges: dict[Expr, Any] = {**(sizes or {}), **dict(read.loops)}
    if clash := own.keys() & ranges.keys():
        own = {v: e for v, e in own.items() if v not in clash}
    known = as_ranges({**ranges, **own})
    values: dict[Expr, Expr] = {}
    for written, wanted in zip(write.indices, read.indices, strict=True):
        if not _solve(polynomial(written), polynomial(wanted), own, known, values):
            return False
    _join_components(values)
    for v in own:
        values.setdefault(v, const(0))
    if any(n in own for e in values.values() for n in walk(e)):
        return False
    at = {v: values[v] for v in own}
    facts = read.conditions
    conditions = [c for v, e in own.items() for c in (le(0, at[v]), lt(at[v], substitute(e, at)))]
    conditions += [eq(substitute(w, at), r) for w, r in zip(write.indices, read.indices, strict=True)]
    conditions += [substitute(c, at) for c in write.conditions]
    return all(prove(simplify(c, ranges), ranges, facts) for c in conditions)


def _solve(written: Poly, wanted: Poly, own: dict[Expr, Expr], known: Ranges, values: dict[Expr, Expr]) -> bool:
    """Add to `values` the digits (own loops, and `v // c` and `v % c` of them) of which `written` consists."""
    digits: list[tuple[Poly, Expr]] = []
    rest = wanted
    for monomial, c in written.items():
        mine = [a for a in monomial if any(n in own for n in walk(a))]
        if not mine:
            rest = plus(rest, {monomial: c}, -1)
            continue
        if len(mine) > 1 or not _is_digit(mine[0], own) or any(mine[0] is d for _, d in digits):
            return False
        at = monomial.index(mine[0])
        digits.append(({monomial[:at] + monomial[at + 1 :]: c}, mine[0]))
    # the largest stride first: the others together are less than it
    ordered: list[tuple[Poly, Expr]] = []
    while digits:
        first = next((d for d in digits if all(d is o or _above(d[0], o, known) for o in digits)), None)
        if first is None:
            return False
        digits.remove(first)
        ordered.append(first)
    for stride, digit in ordered:
        one = constant_value(stride) == 1
        if not one and (known.lower(stride) or 0) < 1:
            return False
        value = build(rest) if one else floordiv(build(rest), build(stride))
        if digit in values and values[digit] is not value:
            return False
        values[digit] = value
        rest = {} if one else polynomial(floormod(build(rest), build(stride)))
    return True


def _is_digit(e: Expr, own: dict[Expr, Expr]) -> bool:
    if e.op in ("floordiv", "floormod"):
        return e.args[0] in own and not any(v in own for v in free_vars(e.args[1]))
    return e in own


def _above(stride: Poly, other: tuple[Poly, Expr], known: Ranges) -> bool:
    """Whether the other digit at its greatest is less than `stride`."""
    scale, digit = other
    reach = polynomial(build(scale) * digit)
    return (known.lower(plus(stride, reach, -1)) or 0) >= 1


def _join_components(values: dict[Expr, Expr]) -> None:
    """v = (v // c) * c + v % c"""
    for e in list(values):
        if e.op == "floormod":
            v, c = e.args
            if (high := values.get(floordiv(v, c))) is not None and v not in values:
                values[v] = high * c + values[e]
