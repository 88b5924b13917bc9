"""Inverse access maps: which iterations (i, k) of a stage read element x of a tensor?

The equations `index[d](i, k) == x[d]` are solved for as many iteration variables as possible; the rest are reduced over, and
what is left of the equations is a guard. Affine maps of the kind that programs have are solved without waste:

    A[i, k]                   i = x0, k = x1                                       a matrix product: no guard
    A[j, i]                   i = x1, j = x0                                       transposition
    A[i + r]                  i = x0 - r, where 0 <= x0 - r < I                    window: r is reduced over
    A[2*i + r]                r = x0 % 2 + 2*r', i = x0//2 - r'                    strided window: no iteration is wasted
    A[i*N + j], j < N         i = x0 // N, j = x0 % N                              reshape
    A[f // N, f % N]          f = x0*N + x1                                        reshape, the other way
    A[i // 2]                 i = 2*x0 + t, t < 2                                  upsampling: t is reduced over
    A[index[i]]               where index[i] == x0                                 gather: i is reduced over
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tensorlang.ir.expr import Expr, add, const, eq, floordiv, floormod, le, lt, mul, select, sub, var
from tensorlang.ir.visitor import loads, rewrite, substitute, walk
from tensorlang.symbolic.affine import linear_form
from tensorlang.symbolic.bounds import prove
from tensorlang.symbolic.simplify import simplify

Extent = int | Expr


@dataclass
class Inverse:
    """The iterations that read element `x`: those with the variables of `solution` at the values given, and the variables
    of `free` anywhere in their extents, where `guard` holds.

    Attributes:
        solution: variable -> expression of x and of free variables.
        free: variable -> extent; variables of the stage, or new ones.
        guard: conditions on x and the free variables, none of which is always true.
        match: further ones, which read tensors (`index[i] == x`), to be asked where `guard` holds and where the program
            itself reads them.
    """

    solution: dict[Expr, Expr] = field(default_factory=dict)
    free: dict[Expr, Extent] = field(default_factory=dict)
    guard: list[Expr] = field(default_factory=list)
    match: list[Expr] = field(default_factory=list)


def invert(
    index: Sequence[Expr], target: Sequence[Expr], shape: Sequence[Extent], variables: Mapping[Expr, Extent]
) -> Inverse:
    """Solve `index[d] == target[d]`, where `target[d]` is a variable below `shape[d]`, for `variables` (with extents)."""
    solver = _Solver(dict(zip(target, shape, strict=True)), dict(variables))
    gathers: list[tuple[Expr, Expr]] = []
    equations: list[tuple[Expr, Expr]] = []
    for pair in zip(index, target, strict=True):
        (gathers if loads(pair[0]) else equations).append(pair)
    solver.solve(equations)
    match = [simplify(eq(substitute(e, solver.solution), x), solver.ranges) for e, x in gathers]
    return Inverse(solver.solution, solver.unknown, solver.conditions(), match)


def proved_away(condition: Expr, ranges: Mapping[Expr, Extent], facts: Sequence[Expr]) -> Expr:
    """`condition` without the conjuncts that always hold where `facts` do."""
    condition = simplify(condition, ranges)
    if condition.op == "and":
        a, b = (proved_away(c, ranges, facts) for c in condition.args)
        return a & b
    if prove(condition, ranges, facts) or prove(_without_division(condition, ranges), ranges, facts):
        return const(True)
    return condition


def _without_division(condition: Expr, ranges: Mapping[Expr, Extent]) -> Expr:
    """a // c < b  ->  a < b*c, which bounds of products decide   (c >= 1)"""
    if condition.op == "lt" and condition.args[0].op == "floordiv":
        (a, c), b = condition.args[0].args, condition.args[1]
        if prove(le(const(1), c), ranges):
            return lt(a, mul(b, c))
    return condition


def under(guard: Sequence[Expr], value: Expr, ranges: Mapping[Expr, Extent]) -> Expr:
    """`value`, simplified by what is known where `guard` holds: its selects lose conditions that are decided there."""

    def decide(e: Expr) -> Expr | None:
        if e.op != "select" or loads(e.args[0]):
            return None
        return select(proved_away(e.args[0], ranges, guard), *e.args[1:])

    return rewrite(simplify(value, ranges), decide)


class _Solver:
    """Solves one equation after another: always the one whose solution costs least.

    1. a reshape's composite, then quotients and remainders of single variables, are replaced by variables of their own
    2. one unknown with coefficient 1 or -1
    3. mixed radix: c*v + rest, where 0 <= rest < c: both the quotient and the remainder are known
    4. of several unknowns the one with the largest extent; the others stay
    Whatever cannot be solved stays as a condition.
    """

    def __init__(self, target: dict[Expr, Extent], variables: dict[Expr, Extent]):
        self.target = target
        self.unknown = variables
        self.solution: dict[Expr, Expr] = {}
        self.pending: list[Expr] = []
        self.digits: set[Expr] = set()  # made by splitting a variable: never fused again

    @property
    def ranges(self) -> dict[Expr, Extent]:
        return {**self.target, **self.unknown}

    def conditions(self) -> list[Expr]:
        """The guard: what is not always true, each once."""
        found: list[Expr] = []
        for c in self.pending:
            c = proved_away(substitute(c, self.solution), self.ranges, found)
            found.extend(part for part in _conjuncts(c) if part.op != "const" or not part.value)
        return list(dict.fromkeys(found))

    def solve(self, equations: list[tuple[Expr, Expr]]) -> None:
        for v in [v for v, extent in self.unknown.items() if _same(extent, 1, self.ranges)]:
            self._bind(v, const(0))
        equations = self._without_quotients(equations)
        while equations:
            equations = [(simplify(substitute(e, self.solution), self.ranges), x) for e, x in equations]
            known = [(e, x) for e, x in equations if not self._mentions(e)]
            self.pending += [eq(e, x) for e, x in known]
            equations = [pair for pair in equations if pair not in known]
            for step in (self._direct, self._mixed_radix, self._widest):
                rest = step(equations)
                if rest is not None:
                    equations = rest
                    break
            else:
                self.pending += [eq(e, x) for e, x in equations]
                return

    def _mentions(self, e: Expr) -> bool:
        return any(n in self.unknown for n in walk(e))

    def _bind(self, v: Expr, value: Expr) -> None:
        """v == value, and in range."""
        extent = self.unknown.pop(v)
        value = simplify(value, self.ranges)
        self.solution = {u: substitute(e, {v: value}) for u, e in self.solution.items()}
        self.solution[v] = value
        self.pending += [le(const(0), value), lt(value, extent)]

    def _form(self, e: Expr, x: Expr) -> tuple[dict[Expr, int | Expr], Expr] | None:
        """(coefficients, right side) of the linear equation `e == x`; the right side is free of unknowns."""
        form = linear_form(e, self.unknown)
        return None if form is None else (form[0], sub(x, form[1]))

    # -- the ways to solve, cheapest first: each returns the equations left, or None ---------------------------------
    def _direct(self, equations: list[tuple[Expr, Expr]]) -> list[tuple[Expr, Expr]] | None:
        for pair in equations:
            form = self._form(*pair)
            if form is not None and len(form[0]) == 1:
                ((v, c),) = form[0].items()
                if c in (1, -1) and isinstance(c, int):
                    self._bind(v, mul(form[1], c))
                    return [p for p in equations if p is not pair]
        return None

    def _mixed_radix(self, equations: list[tuple[Expr, Expr]]) -> list[tuple[Expr, Expr]] | None:
        for pair in equations:
            form = self._form(*pair)
            if form is None:
                continue
            for v, c in form[0].items():
                if not self._positive(c) or c == 1:
                    continue
                rest = _sum((u, k) for u, k in form[0].items() if u is not v)
                if prove(le(const(0), rest), self.ranges) and prove(lt(rest, c), self.ranges):
                    self._bind(v, floordiv(form[1], c))
                    remaining = (rest, simplify(floormod(form[1], c), self.ranges))
                    return [*(p for p in equations if p is not pair), remaining]
        return None

    def _widest(self, equations: list[tuple[Expr, Expr]]) -> list[tuple[Expr, Expr]] | None:
        for pair in equations:
            form = self._form(*pair)
            if form is None:
                continue
            coefficients, right = form
            for v in sorted(coefficients, key=self._width, reverse=True):
                c = coefficients[v]
                if isinstance(c, int) and c < 0:
                    c, right = -c, mul(right, -1)
                    coefficients = {u: -k if isinstance(k, int) else mul(k, -1) for u, k in coefficients.items()}
                others = {u: k for u, k in coefficients.items() if u is not v}
                left = [p for p in equations if p is not pair]
                if isinstance(c, int) and c > 1 and len(others) == 1 and next(iter(others.values())) == 1:
                    self._strided(v, c, next(iter(others)), right)
                    return left
                if self._positive(c):
                    rest = sub(right, _sum(others.items()))
                    self.pending.append(eq(floormod(rest, c), 0))
                    self._bind(v, floordiv(rest, c))
                    return left
        return None

    def _strided(self, v: Expr, c: int, r: Expr, right: Expr) -> None:
        """c*v + r == right: r = right % c + c*r', v = right // c - r'."""
        step = self._new(r.name, simplify(floordiv(add(self.unknown[r], c - 1), c), self.ranges))
        self._bind(r, add(floormod(right, c), mul(step, c)))
        self._bind(v, sub(floordiv(right, c), step))

    def _width(self, v: Expr) -> tuple[bool, int]:
        extent = self.unknown[v]
        constant = extent if isinstance(extent, int) else extent.value if extent.op == "const" else None
        return (True, 0) if constant is None else (False, constant)

    def _positive(self, c: int | Expr) -> bool:
        return c > 0 if isinstance(c, int) else prove(le(const(1), c), self.ranges)

    def _new(self, name: str, extent: Extent) -> Expr:
        v = var(name)
        self.unknown[v] = _extent(extent)
        return v

    # -- quotients and remainders ------------------------------------------------------------------------------------
    def _without_quotients(self, equations: list[tuple[Expr, Expr]]) -> list[tuple[Expr, Expr]]:
        """The equations with every `v // c`, `v % c` of an unknown replaced: v = q*c + t. A composite such as i*N + j that
        stands there in place of v becomes an unknown first."""
        for _ in range(16):  # each round removes one divisor; deeper nests of them stay conditions
            equations = [(simplify(substitute(e, self.solution), self.ranges), x) for e, x in equations]
            found = [n for e, _ in equations for n in walk(e) if self._divides(n)]
            if not any(self._replaced(*n.args) for n in found):
                break
        return equations

    def _replaced(self, dividend: Expr, c: Expr) -> bool:
        """Whether there is a variable for `dividend // c` and `dividend % c` now, or at least one for `dividend`."""
        if dividend not in self.unknown:
            return self._fuse(dividend)
        q, t = var(dividend.name), var(dividend.name)
        extent = self.unknown[dividend]
        quotient = simplify(floordiv(extent, c), self.ranges)
        if not _same(mul(quotient, c), extent, self.ranges):
            quotient = simplify(floordiv(add(extent, sub(c, 1)), c), self.ranges)
        self.unknown[q] = _extent(quotient)
        self.unknown[t] = _extent(c)
        self.digits |= {q, t}
        self._bind(dividend, add(mul(q, c), t))
        return True

    def _divides(self, n: Expr) -> bool:
        """Whether `n` is `e // c` or `e % c` with an unknown in e and a fixed c >= 1."""
        return (
            n.op in ("floordiv", "floormod")
            and self._mentions(n.args[0])
            and not self._mentions(n.args[1])
            and self._positive(n.args[1])
        )

    def _fuse(self, e: Expr) -> bool:
        """A new unknown f for `e = i*(J*K) + j*K + k`, which runs through 0 .. I*J*K - 1, each once; i, j, k become its
        digits. False if `e` is not of that kind."""
        form = linear_form(e, self.unknown)
        if form is None or not _same(form[1], 0, self.ranges) or not self.digits.isdisjoint(form[0]):
            return False
        coefficients = dict(form[0])
        stride: Extent = 1
        digits: list[tuple[Expr, Extent]] = []
        while coefficients:
            v = next((u for u, c in coefficients.items() if _same(c, stride, self.ranges)), None)
            if v is None:
                return False
            digits.append((v, stride))
            del coefficients[v]
            stride = mul(stride, self.unknown[v])
        f = self._new("_".join(v.name for v, _ in reversed(digits)), simplify(mul(stride, 1), self.ranges))
        for n, (v, stride) in enumerate(digits):
            extent = self.unknown.pop(v)
            value = floordiv(f, stride)
            if n < len(digits) - 1:
                value = floormod(value, extent)
            self.solution = {u: substitute(x, {v: value}) for u, x in self.solution.items()}
            self.solution[v] = value
        return True


def _extent(e: Extent) -> Extent:
    return int(e.value) if isinstance(e, Expr) and e.op == "const" else e


def _sum(terms: Iterable[tuple[Expr, int | Expr]]) -> Expr:
    total: Expr = const(0)
    for v, c in terms:
        total = add(total, mul(v, c))
    return total


def _same(a: Extent, b: Extent, ranges: Mapping[Expr, Extent]) -> bool:
    difference = simplify(sub(a, b), ranges)
    return difference.op == "const" and difference.value == 0


def _conjuncts(e: Expr) -> list[Expr]:
    return [p for a in e.args for p in _conjuncts(a)] if e.op == "and" else [e]
