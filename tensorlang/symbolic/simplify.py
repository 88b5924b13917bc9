"""The one simplifier of expressions. Its rules, where c is a positive constant and p, q, r are integer polynomials:

    + - *      like terms collect; terms in one order; c*k*(p // c) + k*(p % c) -> k*p
    //         (c*q + r) // c -> q + r // c;   r // c -> n                         if n*c <= r < n*c + c
               (g*p + k) // (g*c) -> (p + k//g) // c;   (p // a + k) // c -> (p + a*k) // (a*c)
               p % (a*c) // c -> p // c % a
    %          (c*q + r) % c -> r % c;         r % c -> r - n*c                    if n*c <= r < n*c + c
               (g*p + k) % (g*c) -> g*((p + k//g) % c) + k % g;   (k*(p % a) + r) % c -> (k*p + r) % c   if c divides k*a
    min max    operands another one bounds are dropped
    < <= == != the difference's bounds decide, else what both sides share cancels and common factors divide out
    and or not absorption, complements, negated comparisons of integers turned round
    select     a decided condition chooses

`//` and `%` by a symbolic N obey the same rules with the terms that contain N, once N >= 1 is known. All of it is for scalar
i64; other types are left as they are, apart from indices inside them. Arithmetic of loops and sizes is taken not to overflow.
Of data from memory it may: there the rules for `+ - *` alone hold (they do modulo 2**64), and those for `// %`, comparisons
and extrema only where bounds show that nothing wraps (`Ranges.exact`): `x*3 // 3` is not `x`.
"""

from __future__ import annotations

from collections.abc import Callable
from math import gcd

from tensorlang.ir.expr import (
    Expr,
    and_,
    const,
    eq,
    floordiv,
    floormod,
    le,
    lt,
    maximum,
    minimum,
    ne,
    not_,
    or_,
    rebuild,
    select,
)  # fmt: skip
from tensorlang.ir.visitor import walk
from tensorlang.symbolic.affine import (
    ARITHMETIC,
    ONE,
    Poly,
    build,
    combine,
    constant_value,
    integer,
    is_index,
    order_key,
    plus,
    polynomial,
    times,
)  # fmt: skip
from tensorlang.symbolic.interval import SIZE as SIZE, Extent as Extent, Interval as Interval, Ranges, RangesLike, as_ranges

TRUE, FALSE = const(True), const(False)
_MEMO_LIMIT = 20_000
_ROUNDS = 4  # a rule may enable another one; two rounds are usual
_SETTLED = frozenset(("const", "var", *ARITHMETIC))  # a polynomial of variables is in its final form


def simplify(e: Expr, ranges: RangesLike | None = None) -> Expr:
    """An expression equal to `e` wherever the variables of `ranges` are in range; simplifying it again changes nothing.

    Args:
        ranges: extent of variables, constant or symbolic (`0 <= v < extent`), or an `Interval`; `SIZE` marks a symbolic
            dimension (at least 1). Variables that extents are made of are taken for sizes unless they have an entry of
            their own. About other variables nothing is assumed. A divisor is never 0.
    """
    if e.op in ("const", "var"):
        return e
    simplifier = _simplifier(as_ranges(ranges))
    if (done := simplifier.done.get(e)) is not None:
        return done
    after = simplifier.once(e)
    settled = False
    for _ in range(_ROUNDS):
        settled = all(n.op in _SETTLED for n in walk(after))
        if settled:
            break
        now, after = after, simplifier.once(after)
        settled = now is after
        if settled:
            break
    if len(simplifier.done) > _MEMO_LIMIT:
        _simplifiers.pop(simplifier.ranges, None)
    simplifier.done[e] = after
    if settled:  # else what `after` becomes must not depend on who asked first
        simplifier.done[after] = after
    return after


_simplifiers: dict[Ranges, _Simplifier] = {}


def _simplifier(ranges: Ranges) -> _Simplifier:
    if (found := _simplifiers.get(ranges)) is None:
        if len(_simplifiers) > 512:
            _simplifiers.clear()
        found = _simplifiers[ranges] = _Simplifier(ranges)
    return found


class _Simplifier:
    """One bottom-up pass under fixed ranges. Integer arithmetic stays a polynomial until something else needs it."""

    def __init__(self, ranges: Ranges):
        self.ranges = ranges
        self.done: dict[Expr, Expr] = {}
        self.polys: dict[Expr, Poly] = {}  # of source nodes, simplified
        self.exprs: dict[Expr, Expr] = {}
        self._rules: dict[str, Callable[[Expr], Expr]] = {
            "min": self._extremum, "max": self._extremum, "and": self._and, "or": self._or, "not": self._not,
            "eq": self._compare, "ne": self._compare, "lt": self._compare, "le": self._compare, "select": self._select,
        }  # fmt: skip

    def once(self, e: Expr) -> Expr:
        for node in walk(e):
            if node in self.exprs or node in self.polys:
                continue
            op = node.op
            if is_index(node) and op in ARITHMETIC:
                a, b = node.args
                self.polys[node] = self.recombine(combine(node, self.poly(a), self.poly(b)))
            elif is_index(node) and op == "floordiv":
                self.polys[node] = self.floordiv(self.poly(node.args[0]), self.poly(node.args[1]))
            elif is_index(node) and op == "floormod":
                self.polys[node] = self.floormod(self.poly(node.args[0]), self.poly(node.args[1]))
            elif (rule := self._rules.get(op)) is not None:
                self.exprs[node] = rule(node)
            else:
                self.exprs[node] = self._rebuilt(node)
        return self.expr(e)

    def expr(self, node: Expr) -> Expr:
        if (found := self.exprs.get(node)) is None:
            found = self.exprs[node] = build(self.polys[node])
        return found

    def poly(self, node: Expr) -> Poly:
        if (found := self.polys.get(node)) is None:
            found = self.polys[node] = polynomial(self.exprs[node])
        return found

    def _rebuilt(self, node: Expr) -> Expr:
        return rebuild(node, tuple(self.expr(a) for a in node.args)) if node.args else node

    # -- integer arithmetic ----------------------------------------------------------------------------------------
    def recombine(self, p: Poly) -> Poly:
        """c*k*(x // c) + k*(x % c) -> k*x"""
        for monomial in p:
            if len(monomial) == 1 and monomial[0].op == "floormod":
                mod = monomial[0]
                x, c = polynomial(mod.args[0]), polynomial(mod.args[1])
                quotient = self.floordiv(x, c)
                if len(quotient) == 1:
                    ((q, n),) = quotient.items()
                    k = p[monomial]
                    scale = constant_value(c)
                    if n == 1 and scale and q and p.get(q) == k * scale:
                        rest = {m: v for m, v in p.items() if m != q and m != monomial}
                        return self.recombine(plus(rest, x, k))
                    if n == 1 and scale is None and len(c) == 1:
                        ((d, one),) = c.items()
                        both = tuple(sorted(q + d, key=order_key))
                        if one == 1 and p.get(both) == k:
                            rest = {m: v for m, v in p.items() if m != both and m != monomial}
                            return self.recombine(plus(rest, x, k))
        return p

    def floordiv(self, p: Poly, d: Poly) -> Poly:
        if not (self.ranges.exact(p) and self.ranges.exact(d)):
            return p if constant_value(d) == 1 else polynomial(floordiv(build(p), build(d)))
        c = constant_value(d)
        if c is None or c <= 0:
            return self._divide_symbolic(p, d)[0]
        if c == 1:
            return p
        q, r = _split(p, c)
        if (n := self._block(r, c)) is not None:
            return plus(q, integer(n))
        k = r.get(ONE, 0)
        terms = {m: v for m, v in r.items() if m}
        g = gcd(c, *terms.values())
        if g > 1:
            inner = {m: v // g for m, v in terms.items()}
            return plus(q, self.floordiv(plus(inner, integer(k // g)), {ONE: c // g}))
        divided = [m for m, v in terms.items() if v == 1 and len(m) == 1 and m[0].op == "floordiv" and _positive(m[0].args[1])]
        if len(divided) == 1:  # (x + y // a) // c -> (a*x + y) // (a*c)
            ((atom,),) = divided
            scale = _positive(atom.args[1]) or 1
            rest = {m: v for m, v in r.items() if m != (atom,)}
            inside = plus(polynomial(atom.args[0]), times(rest, scale))
            if scale * c <= 1 << 61 and self.ranges.exact(inside):
                return plus(q, self.floordiv(inside, {ONE: scale * c}))
        if len(terms) == 1:
            ((monomial, v),) = terms.items()
            if v == 1 and len(monomial) == 1 and k == 0 and monomial[0].op == "floormod":
                atom = monomial[0]
                if (a := _positive(atom.args[1])) and a % c == 0:
                    return plus(q, self.floormod(self.floordiv(polynomial(atom.args[0]), {ONE: c}), {ONE: a // c}))
        if (found := self._coarse(r, c)) is not None:  # (4*x + i) // 32 -> x // 8   (0 <= i < 4)
            g, coarse, _ = found
            return plus(q, self.floordiv(coarse, {ONE: c // g}))
        return plus(q, polynomial(floordiv(build(r), c)))

    def floormod(self, p: Poly, d: Poly) -> Poly:
        if not (self.ranges.exact(p) and self.ranges.exact(d)):
            return {} if constant_value(d) == 1 else polynomial(floormod(build(p), build(d)))
        c = constant_value(d)
        if c is None or c <= 0:
            return self._divide_symbolic(p, d)[1]
        if c == 1:
            return {}
        _, r = _split(p, c)
        for monomial, v in r.items():
            if len(monomial) == 1 and monomial[0].op == "floormod":
                a = _positive(monomial[0].args[1])
                if a and v * a % c == 0:
                    rest = {m: w for m, w in r.items() if m != monomial}
                    whole = plus(rest, polynomial(monomial[0].args[0]), v)
                    if self.ranges.exact(whole):
                        return self.floormod(whole, d)
        if (n := self._block(r, c)) is not None:
            return plus(r, {ONE: -n * c} if n else {})
        k = r.get(ONE, 0)
        terms = {m: v for m, v in r.items() if m}
        g = gcd(c, *terms.values())
        if g > 1:
            inner = plus({m: v // g for m, v in terms.items()}, integer(k // g))
            return plus(times(self.floormod(inner, {ONE: c // g}), g), integer(k % g))
        if (found := self._coarse(r, c)) is not None:  # (4*x + i) % 32 -> x % 8 * 4 + i   (0 <= i < 4)
            g, coarse, fine = found
            return plus(fine, self.floormod(coarse, {ONE: c // g}), g)
        return polynomial(floormod(build(r), c))

    def _coarse(self, r: Poly, c: int) -> tuple[int, Poly, Poly] | None:
        """g, x and i with r = g*x + i, g a divisor of c, and 0 <= i < g."""
        for g in sorted({gcd(c, v) for m, v in r.items() if m} - {1, c}, reverse=True):
            fine = {m: v % g if not m else v for m, v in r.items() if (not m or v % g) and not (not m and v % g == 0)}
            low, high = self.ranges.bounds(fine)
            if low is not None and high is not None and low >= 0 and high < g:
                return g, {m: v // g for m, v in plus(r, fine, -1).items()}, fine
        return None

    def _block(self, r: Poly, c: int) -> int | None:
        """n with n*c <= r < (n+1)*c, if that is proved."""
        low, high = self.ranges.bounds(r)
        return None if low is None or high is None or low // c != high // c else low // c

    def _divide_symbolic(self, p: Poly, d: Poly) -> tuple[Poly, Poly]:
        """(p // d, p % d) where d is not a positive constant."""
        low = self.ranges.lower(d)
        if low is not None and low >= 1:
            q, r = _split_symbolic(p, d)
            at_least, below = self.ranges.lower(r), self.ranges.upper(plus(r, d, -1))
            if at_least is not None and at_least >= 0 and below is not None and below < 0:
                return q, r
            x, y = build(r), build(d)
            return plus(q, polynomial(floordiv(x, y))), polynomial(floormod(x, y))
        x, y = build(p), build(d)
        return polynomial(floordiv(x, y)), polynomial(floormod(x, y))

    # -- order -----------------------------------------------------------------------------------------------------
    def _extremum(self, node: Expr) -> Expr:
        """min(a, b) -> a if a <= b; operands in one order."""
        if not is_index(node):
            return self._rebuilt(node)
        op = node.op
        operands: list[Expr] = []
        for a in node.args:
            _flatten(self.expr(a), op, operands)
        kept: list[Expr] = []
        for i, a in enumerate(operands):
            others = kept + operands[i + 1 :]
            if a not in others and not any(self._never_beyond(b, a, op) for b in others):
                kept.append(a)
        kept.sort(key=order_key)
        join = minimum if op == "min" else maximum
        result = kept[0]
        for a in kept[1:]:
            result = join(result, a)
        return result

    def _never_beyond(self, b: Expr, a: Expr, op: str) -> bool:
        """Whether `b` makes `a` superfluous: b <= a for min, b >= a for max."""
        if not (self.ranges.exact(polynomial(a)) and self.ranges.exact(polynomial(b))):
            return a is b
        difference = plus(polynomial(b), polynomial(a), -1)
        if op == "max":
            difference = times(difference, -1)
        high = self.ranges.upper(difference)
        return high is not None and high <= 0

    def _compare(self, node: Expr) -> Expr:
        x, y = node.args
        if not (is_index(x) and is_index(y)):
            return self._rebuilt(node)
        a, b = self.poly(x), self.poly(y)
        d, op = plus(a, b, -1), node.op
        if not (self.ranges.exact(a) and self.ranges.exact(b)):
            if not d:  # the same value on both sides, whatever it is
                return const(op in ("eq", "le"))
            if op in ("eq", "ne") and constant_value(d) is not None:
                return const(op == "ne")
            return rebuild(node, (build(a), build(b)))
        low, high = self.ranges.bounds(d)
        if op == "lt" or op == "le":
            limit = -1 if op == "lt" else 0
            if high is not None and high <= limit:
                return TRUE
            if low is not None and low > limit:
                return FALSE
        elif (low is not None and low > 0) or (high is not None and high < 0):
            return FALSE if op == "eq" else TRUE
        elif low == high == 0:
            return TRUE if op == "eq" else FALSE
        g = gcd(*(v for m, v in d.items() if m))
        if g > 1:
            k = d.get(ONE, 0)
            if op in ("eq", "ne") and k % g:
                return FALSE if op == "eq" else TRUE
            # g*p + k < 0 <=> p + floor-or-ceil(k / g) < 0
            d = plus({m: v // g for m, v in d.items() if m}, integer(k // g if op != "le" else -(-k // g)))
        positive = {m: v for m, v in d.items() if v > 0}
        negative = {m: -v for m, v in d.items() if v < 0}
        if not any(positive) and op in ("eq", "ne"):
            positive, negative = negative, positive
        if op in ("eq", "ne") and ONE in positive and len(positive) > 1:  # the constant stands on the right
            negative = {**negative, ONE: -positive.pop(ONE)}
        make = {"lt": lt, "le": le, "eq": eq, "ne": ne}[op]
        return make(build(positive), build(negative))

    # -- logic -----------------------------------------------------------------------------------------------------
    def _and(self, node: Expr) -> Expr:
        return self._connective(node, and_, FALSE)

    def _or(self, node: Expr) -> Expr:
        return self._connective(node, or_, TRUE)

    def _connective(self, node: Expr, join: Callable[[Expr, Expr], Expr], absorbing: Expr) -> Expr:
        """and: drop duplicates, False if p and not p both stand; the dual for or."""
        if node.dtype.lanes != 1:
            return self._rebuilt(node)
        operands: list[Expr] = []
        for a in node.args:
            _flatten(self.expr(a), node.op, operands)
        kept: list[Expr] = []
        for a in operands:
            if a is absorbing or _negation(a) in kept:
                return absorbing
            if a not in kept and a.op != "const":
                kept.append(a)
        if not kept:
            return not_(absorbing)
        result = kept[0]
        for a in kept[1:]:
            result = join(result, a)
        return result

    def _not(self, node: Expr) -> Expr:
        return _negation(self.expr(node.args[0]))

    def _select(self, node: Expr) -> Expr:
        cond, a, b = (self.expr(x) for x in node.args)
        if cond.op == "not":
            cond, a, b = cond.args[0], b, a
        return select(cond, a, b)


def _negation(p: Expr) -> Expr:
    """not p, without the `not` for comparisons of integers (floats have NaN, so there `not (a < b)` is not `b <= a`)."""
    if p.op in ("lt", "le", "eq", "ne") and p.args[0].dtype.is_int and p.dtype.lanes == 1:
        a, b = p.args
        if p.op == "lt":
            return le(b, a)
        if p.op == "le":
            return lt(b, a)
        return ne(a, b) if p.op == "eq" else eq(a, b)
    return not_(p)


def _flatten(e: Expr, op: str, into: list[Expr]) -> None:
    if e.op == op:
        for a in e.args:
            _flatten(a, op, into)
    else:
        into.append(e)


def _positive(e: Expr) -> int | None:
    return e.value if e.op == "const" and e.value > 0 else None


def _split(p: Poly, c: int) -> tuple[Poly, Poly]:
    """(q, r) with p == c*q + r, the coefficients of r smaller than c and of the sign they had, its constant in [0, c)."""
    q: dict[tuple[Expr, ...], int] = {}
    r: dict[tuple[Expr, ...], int] = {}
    for monomial, v in p.items():
        n = v // c if v >= 0 or not monomial else -(-v // c)
        if n:
            q[monomial] = n
        if v - n * c:
            r[monomial] = v - n * c
    return q, r


def _split_symbolic(p: Poly, d: Poly) -> tuple[Poly, Poly]:
    """(q, r) with p == d*q + r: terms that contain a divisor of one term; p == k*d for any divisor."""
    if len(d) == 1:
        ((divisor, k),) = d.items()
        q: dict[tuple[Expr, ...], int] = {}
        r: dict[tuple[Expr, ...], int] = {}
        for monomial, v in p.items():
            rest = list(monomial)
            try:
                for atom in divisor:
                    rest.remove(atom)
            except ValueError:
                rest = None  # type: ignore[assignment]
            if rest is not None and v % k == 0:
                q[tuple(rest)] = v // k
            else:
                r[monomial] = v
        return q, r
    lead = next(iter(d))
    if lead in p and p[lead] % d[lead] == 0:
        n = p[lead] // d[lead]
        if not (left := plus(p, d, -n)):
            return {ONE: n}, {}
        if ONE in left and len(left) == 1:
            return {ONE: n}, left
    return {}, p
