"""Flattened indices and fused loops with symbolic sizes, taken apart again: integer sets know no products of symbols.

    i*N + j = k*N + l,   0 <= j, l < N        ->   i = k and j = l
    f // N, f % N        with f < M*N         ->   a, b with a < M, b < N, and f = a*N + b

Source: Grosser, Ramanujam, Pouchet, Sadayappan & Pop, "Optimistic Delinearization of Parametrically Sized Arrays", ICS 2015;
here nothing is optimistic: a stride is taken only where the rest is proved to be smaller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import gcd
from typing import Any

from tensorlang.ir.expr import Expr, and_, eq, le, lt, ne, or_, var
from tensorlang.ir.visitor import free_vars, rewrite, substitute, walk
from tensorlang.symbolic.affine import Monomial, Poly, build, plus, polynomial
from tensorlang.symbolic.interval import Interval, Ranges, RangesLike, as_ranges
from tensorlang.symbolic.simplify import simplify

Pair = tuple[Expr, Expr]
_COMPARE = {"eq": eq, "ne": ne, "lt": lt, "le": le}
_MOST_FUSED = 3  # levels of fusion that are taken apart


def separated(pairs: Sequence[Pair], ranges: RangesLike) -> list[Pair]:
    """Equations that hold where those of `pairs` do, and the other way round, with fewer products of symbols in them."""
    if all(_is_plain(e, ranges) for pair in pairs for e in pair):
        return list(pairs)
    known = as_ranges(ranges)
    found: list[Pair] = []
    work = list(reversed(pairs))
    while work:
        x, y = work.pop()
        parts = _by_stride(polynomial(x), polynomial(y), ranges, known)
        if parts is None:
            found.append((x, y))
        else:
            work += reversed(parts)
    return found


def _is_plain(e: Expr, ranges: RangesLike) -> bool:
    return all(len(m) <= 1 for m in polynomial(e))


def _by_stride(p: Poly, q: Poly, ranges: RangesLike, known: Ranges) -> list[Pair] | None:
    """S*a + r = S*b + s, |r - s| < S, as a = b and r = s, for the largest stride S there is."""
    strides = {_symbolic(m, ranges) for side in (p, q) for m in side if len(m) > 1}
    for s in sorted((s for s in strides if s), key=lambda s: (-len(s), [a.value[1] if a.op == "var" else 0 for a in s])):
        above, below = zip(*(_divided(side, s) for side in (p, q)), strict=True)
        if not any(above):
            continue
        c = gcd(*(k for side in above for k in side.values()))
        stride: Poly = {s: c}
        difference = plus(below[0], below[1], -1)
        high, low = known.upper(plus(difference, stride, -1)), known.lower(plus(difference, stride))
        if (high is not None and high < 0) and (low is not None and low > 0):
            quotients = [build({m: k // c for m, k in side.items()}) for side in above]
            return [(quotients[0], quotients[1]), (build(below[0]), build(below[1]))]
    return None


def _symbolic(m: Monomial, ranges: RangesLike) -> Monomial:
    """The factors of `m` that no loop changes."""
    return tuple(a for a in m if not any(_is_loop(n, ranges) for n in walk(a)))


def _is_loop(v: Expr, ranges: RangesLike) -> bool:
    return v.op == "load" or (v in ranges and not isinstance(ranges[v], Interval))


def _divided(p: Poly, s: Monomial) -> tuple[dict[Monomial, int], dict[Monomial, int]]:
    """(a, r) with p = s*a + r"""
    a: dict[Monomial, int] = {}
    r: dict[Monomial, int] = {}
    for m, c in p.items():
        left = list(m)
        try:
            for atom in s:
                left.remove(atom)
        except ValueError:
            r[m] = c
        else:
            a[tuple(left)] = c
    return a, r


class Components:
    """Loops over products of symbolic sizes, as the loops that were fused into them.

    Attributes:
        ranges: with the components instead of the fused loops.
    """

    def __init__(self, exprs: Iterable[Expr], ranges: Mapping[Expr, Any]):
        """Looks for `v // c` and `v % c` in `exprs`, where c is symbolic and v < n*c."""
        self.ranges: dict[Expr, Any] = dict(ranges)
        self.parts: dict[Expr, tuple[Expr, Expr, Expr]] = {}  # v -> (a, b, c) with v = a*c + b, outermost fusion first
        work = list(exprs)
        for _ in range(_MOST_FUSED):
            divisors: dict[Expr, set[Expr]] = {}
            for e in work:
                for n in walk(e):
                    if n.op in ("floordiv", "floormod") and n.args[0] in self.ranges and n.args[1].op != "const":
                        divisors.setdefault(n.args[0], set()).add(n.args[1])
            made = [v for v, found in divisors.items() if self._take_apart(v, found)]
            if not made:
                break
            work = [self.of(e) for e in work]

    def _take_apart(self, v: Expr, divisors: set[Expr]) -> bool:
        extent = self.ranges[v]
        if not isinstance(extent, Expr):
            return False
        for c in sorted(divisors, key=lambda c: (len(list(walk(c))), str(c))):
            if any(_is_loop(u, self.ranges) for u in free_vars(c)):
                continue
            ((factor, k),) = found.items() if len(found := polynomial(c)) == 1 else [((), 0)]
            times, rest = _divided(polynomial(extent), factor)
            if factor and not rest and all(n % k == 0 for n in times.values()):
                count = build({m: n // k for m, n in times.items()})
                a, b = var(f"{v.name}_a"), var(f"{v.name}_b")
                self.parts[v] = (a, b, c)
                del self.ranges[v]
                self.ranges[a], self.ranges[b] = count, c
                return True
        return False

    def of(self, e: Expr) -> Expr:
        """The index or condition `e` in terms of components; comparisons of two such loops become lexicographic."""
        if not self.parts:
            return e
        for _ in range(_MOST_FUSED):
            e = rewrite(e, self._compared)
        for v, (a, b, c) in self.parts.items():
            e = substitute(e, {v: a * c + b})
        return simplify(e, self.ranges)

    def _compared(self, e: Expr) -> Expr | None:
        if e.op not in _COMPARE or not all(v in self.parts for v in e.args):
            return None
        (a, b, c), (x, y, d) = (self.parts[v] for v in e.args)
        if c is not d:
            return None
        first, last = _COMPARE[e.op](a, x), _COMPARE[e.op](b, y)
        if e.op == "eq":
            return and_(first, last)
        return or_(first, last) if e.op == "ne" else or_(lt(a, x), and_(eq(a, x), last))

    def values(self, found: Mapping[Expr, int], evaluate: Callable[[Expr, Mapping[Expr, int]], int]) -> dict[Expr, int]:
        """`found`, values of components, with those of the loops themselves."""
        values = dict(found)
        for v, (a, b, c) in reversed(self.parts.items()):
            if a in values and b in values:
                values[v] = values.pop(a) * evaluate(c, found) + values.pop(b)
        return values
