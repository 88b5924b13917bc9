"""Symbolic bounds of index expressions, and proofs of conditions."""

from __future__ import annotations

from collections.abc import Sequence

from tensorlang.ir.expr import Expr, const, floordiv, maximum, minimum, not_
from tensorlang.ir.visitor import walk
from tensorlang.symbolic.affine import Poly, build, constant_value, is_index, multiply, order_key, plus, polynomial
from tensorlang.symbolic.integer_set import impossible
from tensorlang.symbolic.interval import Ranges, RangesLike, as_ranges
from tensorlang.symbolic.simplify import simplify


class Unbounded(ValueError):
    """An expression has no bounds over the ranged variables, e.g. a gathered index `t[i]` with `i` ranged."""


def const_bounds(e: Expr, ranges: RangesLike) -> tuple[int | None, int | None]:
    """Inclusive constant (lowest, highest) value of the integer `e`; None where unbounded or unknown."""
    return as_ranges(ranges).bounds(polynomial(simplify(e, ranges)))


def bounds(e: Expr, ranges: RangesLike, outside: RangesLike | None = None) -> tuple[Expr, Expr]:
    """Inclusive symbolic (lowest, highest) value of `e` over the variables of `ranges`; other symbols stay opaque.

    Exact where each ranged variable occurs in one term only, else possibly wider.

    Args:
        outside: what is known where the answer is used, if that is not inside the loops of `ranges` (each of which runs at
            least once for those inside).

    Raises:
        Unbounded: a ranged variable stands where nothing bounds it (under a load, or multiplied by an unknown sign).
    """
    known = as_ranges(ranges)
    finder = _BoundsFinder(known, set(ranges))
    e = simplify(e, ranges)
    around = ranges if outside is None else outside
    return simplify(finder.extreme(polynomial(e), False), around), simplify(finder.extreme(polynomial(e), True), around)


class _BoundsFinder:
    def __init__(self, ranges: Ranges, variables: set[Expr]):
        self.ranges = ranges
        self.variables = variables

    def _mentions(self, e: Expr) -> bool:
        return any(n in self.variables for n in walk(e))

    def extreme(self, p: Poly, above: bool) -> Expr:
        """The highest (`above`) or lowest value of `p`, as an expression free of the ranged variables."""
        while True:
            atoms = dict.fromkeys(a for m in p for a in m if self._mentions(a))
            if not atoms:
                return build(p)
            t = max(atoms, key=lambda a: (self.ranges.level(a), order_key(a)))
            c = {m[: m.index(t)] + m[m.index(t) + 1 :]: k for m, k in p.items() if t in m}
            r = {m: k for m, k in p.items() if t not in m}
            sign = self._sign(c)
            if sign == 0:
                raise Unbounded(f"{build(p)}: the sign of the coefficient of {t} is unknown")
            t_above = above == (sign > 0)
            p = plus(r, multiply(c, polynomial(self._atom(t, t_above))))

    def _sign(self, c: Poly) -> int:
        if (k := constant_value(c)) is not None:
            return (k > 0) - (k < 0)
        low, high = self.ranges.bounds(c)
        return 1 if low is not None and low >= 0 else -1 if high is not None and high <= 0 else 0

    def _atom(self, t: Expr, above: bool) -> Expr:
        op = t.op
        if op == "var":
            if above:
                if t in self.ranges.high:
                    return build(self.ranges.high[t])
            elif t in self.ranges.low:
                return const(self.ranges.low[t])
        elif is_index(t) and op == "floordiv" and not self._mentions(t.args[1]):
            sign = self._sign(polynomial(t.args[1]))
            if sign:
                return floordiv(self.extreme(polynomial(t.args[0]), above == (sign > 0)), t.args[1])
        elif is_index(t) and op == "floormod":
            low, high = self.ranges.bounds({(t,): 1})
            if low is not None and not above:
                return const(low)
            if high is not None and above:
                return const(high)
            if self._sign(polynomial(t.args[1])) > 0:
                return self.extreme(plus(polynomial(t.args[1]), {(): -1}), True) if above else const(0)
        elif is_index(t) and op in ("min", "max"):
            join = minimum if op == "min" else maximum
            return join(*(self.extreme(polynomial(a), above) for a in t.args))
        elif is_index(t) and op == "select":
            join = maximum if above else minimum
            return join(*(self.extreme(polynomial(a), above) for a in t.args[1:]))
        low, high = self.ranges.bounds({(t,): 1})
        found = high if above else low
        if found is None:
            raise Unbounded(f"{t} has no {'upper' if above else 'lower'} bound")
        return const(found)


def prove(cond: Expr, ranges: RangesLike, facts: Sequence[Expr] = ()) -> bool:
    """Whether `cond` holds for all values in range that satisfy `facts`. False means: not proved.

    Bounds decide most questions; integer sets the rest.
    """
    known = as_ranges(ranges)
    short = simplify(cond, ranges)
    if short.op == "const":
        return bool(short.value)
    if short.op == "and":
        return all(prove(c, ranges, facts) for c in short.args)
    if short in facts or any(f.op == "and" and short in _conjuncts(f) for f in facts):
        return True
    key = (known, short, tuple(facts))
    if key not in _proofs:
        if len(_proofs) > 4096:
            _proofs.clear()
        _proofs[key] = impossible([not_(short), *facts], ranges)
    return _proofs[key]


_proofs: dict[tuple[Ranges, Expr, tuple[Expr, ...]], bool] = {}


def _conjuncts(e: Expr) -> list[Expr]:
    found, stack = [], [e]
    while stack:
        e = stack.pop()
        if e.op == "and":
            stack.extend(e.args)
        else:
            found.append(e)
    return found
