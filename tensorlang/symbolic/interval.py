"""Constant bounds of polynomials over ranged variables, by eliminating one atom after another.

To bound `p = c*t + r` from above, with `c` of known sign, replace `t` by an upper bound (lower, if c < 0) that may itself be
a polynomial. The bounds used, and nothing else:

    0 <= v <= extent - 1                                v has a range
    (x - c + 1)/c <= x // c <= x/c                      c > 0 constant
    0 <= x % c <= c - 1;   x % c <= x  (x >= 0)         c > 0
    min(a, b) <= a, b <= max(a, b);  select(q, a, b) is a or b

Atoms are eliminated outermost first, so `ii < min(8, M - io*8)` keeps what it knows about `io`. Incomplete, never wrong.

A polynomial is a value of i64 up to multiples of 2**64. Where that matters (an order, a quotient), `exact` says whether it is
the value itself: of loops and sizes it is, unless their coefficients are absurd; of data where bounds say so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tensorlang.ir.expr import Expr
from tensorlang.ir.visitor import walk
from tensorlang.symbolic.affine import (
    ONE,
    Poly,
    constant_value,
    integer,
    is_index,
    multiply,
    order_key,
    plus,
    polynomial,
    split_atom,
    times,
)


@dataclass(frozen=True, slots=True)
class Interval:
    """What is known of a variable when it is not `0 <= v < extent`: inclusive bounds, None where there is none."""

    low: int | None = None
    high: int | None = None


SIZE = Interval(1, None)  # a symbolic dimension

Extent = Expr | int | Interval
RangesLike = Mapping[Expr, Extent]

_ROOM = 1 << 61  # values this small may be added a few times and stay i64
_COEFFICIENT = 1 << 31  # of loops and sizes, which stay below 2**32 where they have one
_DATA = frozenset(("load", "call", "cast", "reduce"))  # where values come from that may be any i64
_FUEL = 400  # eliminations per question: enough for any index, and an end to pathological ones


class Ranges:
    """Variables with their ranges, and the memo of everything asked about them.

    A variable without a range that an extent is made of, as in `M`, `(M + 7) // 8` or `M*N`, is taken for a size: at least 1.
    """

    def __init__(self, ranges: RangesLike):
        self.low: dict[Expr, int] = {}
        self.high: dict[Expr, Poly] = {}
        self._levels: dict[Expr, int] = {}
        self._memo: dict[tuple[frozenset, int], int | None] = {}
        self._fuel = 0
        for v, extent in ranges.items():
            if isinstance(extent, Interval):
                self._raise_low(v, extent.low)
                if extent.high is not None:
                    self.high[v] = integer(extent.high)
            else:
                self.low[v] = max(0, self.low.get(v, 0))
                self.high[v] = plus(integer(extent) if isinstance(extent, int) else polynomial(extent), {ONE: -1})
        for extent in ranges.values():
            if isinstance(extent, Expr):
                self._at_least(extent, 1, ranges)

    def _raise_low(self, v: Expr, low: int | None) -> None:
        if low is not None:
            self.low[v] = max(low, self.low.get(v, low))

    def _at_least(self, e: Expr, n: int, ranged: RangesLike) -> None:
        """Record what `e >= n` says about single variables without a range, up to their being sizes."""
        p = polynomial(e)
        c = p.get(ONE, 0)
        terms = [(m, k) for m, k in p.items() if m]
        if len(terms) != 1 or terms[0][1] <= 0:
            return
        (monomial, k) = terms[0]
        n = -((c - n) // k)  # k*t + c >= n  <=>  t >= ceil((n - c) / k)
        if len(monomial) > 1:
            if n >= 1:
                for atom in monomial:
                    self._at_least(atom, 1, ranged)
            return
        atom = monomial[0]
        if atom.op == "var":
            if atom not in ranged:
                self._raise_low(atom, min(n, 1))
        elif atom.op == "floordiv" and (d := _positive(atom.args[1])) is not None:
            self._at_least(atom.args[0], n * d, ranged)
        elif atom.op == "min":
            self._at_least(atom.args[0], n, ranged)
            self._at_least(atom.args[1], n, ranged)

    # -- questions -------------------------------------------------------------------------------------------------
    def bounds(self, p: Poly) -> tuple[int | None, int | None]:
        """Inclusive (lowest, highest) value of `p`, None where unbounded or unknown."""
        return self.lower(p), self.upper(p)

    def upper(self, p: Poly) -> int | None:
        if (k := constant_value(p)) is not None:
            return k
        self._fuel = _FUEL
        return self._upper(p)

    def lower(self, p: Poly) -> int | None:
        return None if (u := self.upper(times(p, -1))) is None else -u

    def exact(self, p: Poly) -> bool:
        """Whether computing `p` in i64, which wraps, gives its value. A value by itself, such as one from memory, is that."""
        if not p or _alone(p):
            return True
        self._fuel = _FUEL
        return self._exact(p)

    def _exact(self, p: Poly) -> bool:
        if not p or _alone(p):
            return True
        if any(depends_on_data(a) for m in p for a in m):
            low, high = self._lower(p), self._upper(p)
            return low is not None and high is not None and -_ROOM < low and high < _ROOM
        for monomial, c in p.items():
            if monomial and abs(c) > _COEFFICIENT or abs(c) > _ROOM:
                return False
            if len(monomial) > 2 and sum(a in self.high or a.op != "var" for a in monomial) > 2:
                return False  # a product of three loops
        return True

    # -- elimination -----------------------------------------------------------------------------------------------
    def level(self, e: Expr) -> int:
        """How deep bounds of `e` refer to other atoms: eliminated from the highest level down."""
        if (known := self._levels.get(e)) is not None:
            return known
        self._levels[e] = 0  # an extent that mentions its own variable ends here
        inner = list(e.args)
        if e.op == "var":
            inner = [a for m in self.high.get(e, {}) for a in m]
        elif e.op == "load":
            inner = []
        found = 1 + max((self.level(a) for a in inner), default=-1)
        self._levels[e] = found
        return found

    def _upper(self, p: Poly) -> int | None:
        if (k := constant_value(p)) is not None:
            return k
        # an additive constant moves through: ask about the rest
        if c := p.get(ONE, 0):
            rest = dict(p)
            del rest[ONE]
            return None if (u := self._upper(rest)) is None else u + c
        key = (frozenset(p.items()), 0)
        if key in self._memo:
            return self._memo[key]
        if self._fuel <= 0:
            return None
        self._fuel -= 1
        found = self._eliminate(p)
        if self._fuel > 0:  # else what it is depends on what was asked before, and must not last
            self._memo[key] = found
        return found

    def _eliminate(self, p: Poly) -> int | None:
        atoms = dict.fromkeys(a for m in p for a in m)
        t = next(iter(atoms))
        if len(atoms) > 1:  # the same one in every process: the order of a set, or of `p`, is not
            t = max(atoms, key=lambda a: (self.level(a), a.op != "var", p.get((a,), 0), order_key(a)))
        parts = split_atom(p, t)
        if parts is None:
            return self._termwise(p)
        c, r = parts
        k = constant_value(c)
        sign = (k > 0) - (k < 0) if k is not None else self._sign(c)
        if sign == 0:
            return self._termwise(p) if len(p) > 1 or len(next(iter(p))) > 1 else None
        best: int | None = None
        for bound, d in self._bounds_of(t, sign > 0):
            # t <= bound/d (or >=): c*t + r <= (c*bound + d*r) / d
            u = self._upper(plus(multiply(c, bound), r, d))
            if u is not None and (best is None or u // d < best):
                best = u // d
        for options in self._choices_of(t):
            worst: int | None = None
            for option in options:
                u = self._upper(plus(multiply(c, option), r))
                if u is None:
                    break
                worst = u if worst is None else max(u, worst)
            else:
                if worst is not None and (best is None or worst < best):
                    best = worst
        return best

    def _sign(self, c: Poly) -> int:
        if (low := self._lower(c)) is not None and low >= 0:
            return 1
        if (high := self._upper(c)) is not None and high <= 0:
            return -1
        return 0

    def _lower(self, p: Poly) -> int | None:
        return None if (u := self._upper(times(p, -1))) is None else -u

    def _bounds_of(self, t: Expr, above: bool) -> list[tuple[Poly, int]]:
        """Polynomials b and integers d > 0 with t <= b/d (`above`), or t >= b/d."""
        op = t.op
        if op == "var" and above and t in self.high:
            return [(self.high[t], 1)]
        if op == "var" and not above and t in self.low:
            return [(integer(self.low[t]), 1)]
        if not t.dtype.is_int:
            return []
        if op in _INEXACT and is_index(t) and depends_on_data(t) and not all(self._exact(polynomial(a)) for a in t.args):
            return _type_bounds(t, above)  # of an operand that may have wrapped nothing is known
        if op == "floordiv":
            x, d = polynomial(t.args[0]), _positive(t.args[1])
            if d is None:
                divisor = self._lower(polynomial(t.args[1]))
                low = self._lower(x)
                if divisor is None or divisor < 1 or low is None or low < 0:
                    return []
                if not above:
                    return [({}, 1)]
                most = self._most_quotient(t.args[0], polynomial(t.args[1]))
                return [(x, 1)] if most is None else [(most, 1), (x, 1)]
            inner = self._upper(x) if above else self._lower(x)
            found = [] if inner is None else [(integer(inner // d), 1)]
            return [*found, (x if above else plus(x, integer(1 - d)), d)]
        if op == "floormod":
            c = polynomial(t.args[1])
            low = self._lower(c)
            if low is None or low < 1:
                return []
            if not above:
                return [({}, 1)]
            x = polynomial(t.args[0])
            least = self._lower(x)
            return [(plus(c, {ONE: -1}), 1), *([(x, 1)] if least is not None and least >= 0 else [])]
        if (op == "min" and above) or (op == "max" and not above):
            return [(polynomial(a), 1) for a in t.args]
        if op == "cast" and t.args[0].dtype.is_int and t.args[0].dtype.bits < t.dtype.bits == 64:
            return [(polynomial(t.args[0]), 1)]  # widening keeps the value
        return _type_bounds(t, above)

    def _most_quotient(self, v: Expr, divisor: Poly) -> Poly | None:
        """The most that `v // divisor` can be, where `v < q*divisor` for some `q`: `f // m` of a fused loop `f < 32*m`."""
        if v not in self.high:
            return None
        most = self.high[v]
        if len(divisor) == 1:
            ((monomial, k),) = divisor.items()
            q: dict[tuple[Expr, ...], int] = {}
            for m, c in most.items():
                left = list(m)
                for atom in monomial:
                    if atom not in left:
                        break
                    left.remove(atom)
                else:
                    if c % k == 0:
                        q[tuple(left)] = c // k
        else:
            lead = max(divisor, key=len)
            q = dict(integer(most.get(lead, 0) // divisor[lead]))
        rest = self._upper(plus(most, multiply(q, divisor), -1))
        return plus(q, {ONE: -1}) if rest is not None and rest < 0 else None

    def _choices_of(self, t: Expr) -> list[list[Poly]]:
        """Sets of polynomials one of which `t` equals."""
        if not (t.op in ("min", "max", "select") and is_index(t)):
            return []
        options = [polynomial(a) for a in t.args[t.op == "select" :]]
        return [options] if not depends_on_data(t) or all(map(self._exact, options)) else []

    def _termwise(self, p: Poly) -> int | None:
        """Interval arithmetic, term by term: for squares, and coefficients of unknown sign."""
        total = 0
        for monomial, c in p.items():
            intervals = [(self._lower({(a,): 1}), self._upper({(a,): 1})) for a in monomial]
            low, high = 1, 1
            if all(a is not None and b is not None for a, b in intervals):
                for a, b in intervals:
                    corners = [low * a, low * b, high * a, high * b]  # type: ignore[operator]
                    low, high = min(corners), max(corners)
            elif c < 0 and all(a is not None and a >= 0 for a, _ in intervals):
                for a, _ in intervals:
                    low *= a  # type: ignore[operator]
                high = low  # c * high is not the maximum, c * low is
            else:
                return None
            total += max(c * low, c * high)
        return total


_INEXACT = frozenset(("floordiv", "floormod", "min", "max"))
_depends: dict[Expr, bool] = {}


def depends_on_data(e: Expr) -> bool:
    """Whether `e` is made of more than loop variables, sizes and constants: it may then be any i64."""
    if e.op == "var" or e.op == "const":
        return False
    if (known := _depends.get(e)) is None:
        if len(_depends) > 50_000:
            _depends.clear()
        known = _depends[e] = any(n.op in _DATA for n in walk(e))
    return known


def _alone(p: Poly) -> bool:
    """Whether `p` is a constant, or one atom and nothing else."""
    if len(p) > 1:
        return False
    ((monomial, c),) = p.items()
    return not monomial or (len(monomial) == 1 and c == 1)


def _positive(e: Expr) -> int | None:
    return e.value if e.op == "const" and e.value > 0 else None


def _type_bounds(e: Expr, above: bool) -> list[tuple[Poly, int]]:
    if e.dtype.is_bool:
        return [({ONE: 1} if above else {}, 1)]
    if not e.dtype.is_int or (e.dtype.bits == 64 and (e.dtype.kind == "i" or above)):
        return []
    if e.dtype.kind == "u":
        return [({ONE: (1 << e.dtype.bits) - 1} if above else {}, 1)]
    half = 1 << (e.dtype.bits - 1)
    return [(integer(half - 1 if above else -half), 1)]


_contexts: dict[frozenset, Ranges] = {}


def as_ranges(ranges: RangesLike | Ranges | None) -> Ranges:
    """The shared `Ranges` of these variables and extents: asking again costs a look-up."""
    if isinstance(ranges, Ranges):
        return ranges
    key = frozenset(ranges.items()) if ranges else frozenset()
    if (found := _contexts.get(key)) is None:
        if len(_contexts) > 512:
            _contexts.clear()
        found = _contexts[key] = Ranges(ranges or {})
    return found
