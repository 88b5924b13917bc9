"""Integer sets: are there integers that satisfy these conditions? If not, that is a proof; if so, an example.

Conditions are ordinary boolean expressions over loop variables and sizes. They are handed to isl as text: affine arithmetic,
`//` and `%` by constants, `min` and `max` exactly. What isl cannot know (a product of symbols, division by a symbol, a value
loaded from memory) becomes a variable of its own that is only held to its bounds and to being a function. The set then is
too large: empty still is a proof, and an example counts only if the conditions, evaluated, confirm it. Else `Unknown`.

Source: Verdoolaege, "isl: An Integer Set Library for the Polyhedral Model", ICMS 2010.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import islpy

from tensorlang.ir.expr import Expr, const
from tensorlang.ir.visitor import free_vars, substitute, walk
from tensorlang.symbolic.affine import Poly, build, is_index, polynomial
from tensorlang.symbolic.interval import Interval, Ranges, RangesLike, as_ranges
from tensorlang.symbolic.simplify import simplify

CONTEXT = islpy.Context()
_MAX_OPERATIONS = 100_000  # isl's own measure, some 20 ms: an end to exponential cases
_MAX_PAIRS = 6  # consistency constraints of opaque terms; each doubles the number of cases
DATA = "it depends on data"  # how a reason begins where memory decides
_COMPARE = {"eq": "=", "ne": "!=", "lt": "<", "le": "<="}


@dataclass(frozen=True)
class Unknown:
    """Neither a proof nor an example was found."""

    reason: str


def find(conditions: Sequence[Expr], ranges: RangesLike) -> dict[Expr, int] | None | Unknown:
    """Values of all variables in range that satisfy all conditions, the smallest first, or None if there are none.

    Variables without a range are sizes (at least 1) if an extent mentions them, else any integer.
    """
    open_conditions = _open(conditions, ranges)
    if open_conditions is None:
        return None
    question = Question(ranges)
    needed = question.closure(v for c in open_conditions for v in free_vars(c))
    hard: dict[Expr, int] | Unknown = Unknown("the question is too hard for the integer-set library")
    try:
        if question.solve(open_conditions, needed, sample=False) is None:
            return None
    except islpy.Error:
        return _at_some_sizes(conditions, ranges) or hard
    if question.opaque and (found := _at_some_sizes(conditions, ranges)) is not None:
        return found
    try:
        values = question.solve(open_conditions, question.closure([*needed, *ranges]))
    except islpy.Error:
        return hard
    return None if values is None else _confirmed(values, conditions, ranges, question)


_TRIED_SIZES = ((1, 1), (2, 3), (3, 2), (5, 7), (8, 5))


def _at_some_sizes(conditions: Sequence[Expr], ranges: RangesLike) -> dict[Expr, int] | None:
    """An example with sizes as constants, at which their products are affine."""
    mentioned = {v for c in conditions for v in free_vars(c)}
    mentioned |= {v for e in ranges.values() if isinstance(e, Expr) for v in free_vars(e)}
    loops = {v for v, e in ranges.items() if not isinstance(e, Interval)}
    symbols = sorted((v for v in mentioned - loops if is_index(v)), key=lambda v: v.value[1])
    if not symbols:
        return None
    for choice in _TRIED_SIZES:
        sizes = {v: choice[n % 2] for n, v in enumerate(symbols)}
        if not all(_inside(n, ranges.get(v)) for v, n in sizes.items()):
            continue
        at: dict[Expr, Expr] = {v: const(n) for v, n in sizes.items()}
        known = {v: simplify(substitute(e, at)) if isinstance(e, Expr) else e for v, e in ranges.items() if v not in sizes}
        here = _open([substitute(c, at) for c in conditions], known)
        if here is None:
            continue
        question = Question(known)
        try:
            values = question.solve(here, question.closure([*known]))
        except islpy.Error:
            continue
        if values is not None and isinstance(found := _confirmed(values, here, known, question), dict):
            return {**sizes, **found}
    return None


def _inside(n: int, known: Interval | int | Expr | None) -> bool:
    if not isinstance(known, Interval):
        return True
    return (known.low is None or n >= known.low) and (known.high is None or n <= known.high)


def impossible(conditions: Sequence[Expr], ranges: RangesLike) -> bool:
    """Whether it is proved that no values in range satisfy all conditions. Faster than `find`: no example is made."""
    open_conditions = _open(conditions, ranges)
    if open_conditions is None:
        return True
    question = Question(ranges)
    needed = question.closure(v for c in open_conditions for v in free_vars(c))
    if _holds_at_a_corner(open_conditions, needed, ranges):
        return False
    try:
        return question.solve(open_conditions, needed, sample=False) is None
    except islpy.Error:
        return False


def _open(conditions: Sequence[Expr], ranges: RangesLike) -> list[Expr] | None:
    """What is left of `conditions` after simplification; None if one of them is false."""
    short = [simplify(c, ranges) for c in conditions]
    if any(c.op == "const" and not c.value for c in short):
        return None
    return [c for c in short if c.op != "const"]


_CORNER_SIZES = (1, 2, 7, 60)


def _holds_at_a_corner(conditions: Sequence[Expr], variables: Sequence[Expr], ranges: RangesLike) -> bool:
    """Whether all hold with every variable at its first, or every one at its last value, for some sizes."""
    try:
        for size in _CORNER_SIZES:
            values: dict[Expr, int] = {}
            for v in variables:  # sizes come first, and older loops before younger ones
                extent = ranges.get(v)
                if isinstance(extent, Interval):
                    values[v] = max(size, extent.low or size)
                    if extent.high is not None and values[v] > extent.high:
                        return False
                else:
                    values[v] = size if extent is None else evaluate(extent, values) - 1
                if values[v] < 0:
                    return False
            if all(evaluate(c, values) for c in conditions):
                return True
            first = {v: values[v] if isinstance(ranges.get(v), Interval | None) else 0 for v in variables}
            if all(evaluate(c, first) for c in conditions):
                return True
            if all(isinstance(ranges.get(v), int) for v in variables):
                return False
    except (KeyError, ZeroDivisionError):
        pass
    return False


def _confirmed(
    values: dict[Expr, int], conditions: Sequence[Expr], ranges: RangesLike, question: Question
) -> dict[Expr, int] | Unknown:
    if not question.opaque:
        return values
    terms = ", ".join(sorted({str(t) for t in question.opaque}))
    try:
        holds = all(evaluate(c, values) for c in conditions) and all(
            0 <= values[v] < evaluate(extent, values)
            for v, extent in ranges.items()
            if v in values and not isinstance(extent, Interval)
        )
    except KeyError:
        return Unknown(f"{DATA}: {terms}")
    except ZeroDivisionError:
        return Unknown(f"a divisor may be 0: {terms}")
    return values if holds else Unknown(f"{terms} is not affine")


_EVALUATE: dict[str, Callable[..., Any]] = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b,
    "floordiv": lambda a, b: a // b, "floormod": lambda a, b: a % b, "min": min, "max": max,
    "eq": lambda a, b: a == b, "ne": lambda a, b: a != b, "lt": lambda a, b: a < b, "le": lambda a, b: a <= b,
    "and": lambda a, b: a and b, "or": lambda a, b: a or b, "not": lambda a: not a,
    "select": lambda c, a, b: a if c else b,
}  # fmt: skip


def evaluate(e: Expr | int, values: Mapping[Expr, int]) -> Any:
    """The value of an integer or boolean expression. KeyError if it reads memory or calls anything."""
    if isinstance(e, int):
        return e
    memo: dict[Expr, Any] = {}
    for n in walk(e):
        if n.op == "const":
            memo[n] = n.value
        elif n.op == "var":
            memo[n] = values[n]
        elif n.op == "cast" and n.dtype.is_int and n.args[0].dtype.is_int:
            memo[n] = memo[n.args[0]]
        else:
            memo[n] = _EVALUATE[n.op](*(memo[a] for a in n.args))
    return memo[e]


@contextmanager
def limited() -> Iterator[None]:
    """isl gives up (`islpy.Error`) after a bounded effort."""
    CONTEXT.reset_operations()
    CONTEXT.set_max_operations(_MAX_OPERATIONS)
    try:
        yield
    finally:
        CONTEXT.set_max_operations(0)


def coordinates(point: islpy.Point, variables: Sequence[Expr]) -> dict[Expr, int]:
    return {v: point.get_coordinate_val(islpy.dim_type.set, n).to_python() for n, v in enumerate(variables)}


class Question:
    """One set under construction: variables' names, and the opaque terms met on the way."""

    def __init__(self, ranges: RangesLike):
        self.extents = ranges
        self.ranges: Ranges = as_ranges(ranges)
        self.names: dict[Expr, str] = {}
        self.opaque: dict[Expr, str] = {}

    def closure(self, variables: Iterable[Expr]) -> list[Expr]:
        """`variables` and all that their extents mention: sizes first, then in order of age."""
        found: set[Expr] = set()
        stack = list(variables)
        while stack:
            v = stack.pop()
            if v not in found:
                found.add(v)
                extent = self.extents.get(v)
                if isinstance(extent, Expr):
                    stack.extend(free_vars(extent))
        return sorted(found, key=lambda v: (v in self.extents, v.value[1]))

    def solve(self, conditions: Sequence[Expr], variables: Sequence[Expr], sample: bool = True) -> dict[Expr, int] | None:
        """A point that satisfies everything (`{}` if no `sample` is wanted), or None."""
        text = self.describe(conditions, variables)
        names = [*self.names.values(), *self.opaque.values()]
        with limited():
            found = islpy.Set.read_from_str(CONTEXT, f"{{ [{', '.join(names)}] : {text} }}")
            if found.is_empty():
                return None
            if not sample:
                return {}
            return coordinates(self._smallest(found, len(variables)), variables)

    def describe(self, conditions: Sequence[Expr], variables: Sequence[Expr], prefix: str = "x") -> str:
        """Ranges of `variables` and `conditions` as text; names them, and the opaque terms met, on the way."""
        self.names = {v: f"{prefix}{n}" for n, v in enumerate(variables)}
        self.opaque = {}
        parts = []
        for v in variables:
            extent = self.extents.get(v)
            name = self.names[v]
            if isinstance(extent, Expr | int):
                parts.append(f"0 <= {name} < {self.integer(extent)}")
                continue
            low = self.ranges.low.get(v)
            if low is not None:
                parts.append(f"{low} <= {name}")
            if v in self.ranges.high:
                parts.append(f"{name} <= {self.polynomial(self.ranges.high[v])}")
        parts += [self.condition(c) for c in conditions]
        parts += self._opaque_constraints()
        return " and ".join(parts) or "true"

    def _smallest(self, found: islpy.Set, count: int) -> islpy.Point:
        """A point with small sizes and early iterations, so that a person can follow it."""
        if not self.opaque and all(v in self.ranges.low for v in list(self.names)[:count]):
            return found.lexmin().sample_point()
        return found.sample_point()

    # -- text ------------------------------------------------------------------------------------------------------
    def integer(self, e: Expr | int) -> str:
        return str(e) if isinstance(e, int) else self.polynomial(polynomial(e))

    def polynomial(self, p: Poly) -> str:
        terms = []
        for monomial, c in p.items():
            if not monomial:
                terms.append(str(c))
            elif len(monomial) == 1:
                terms.append(f"{c}*{self.atom(monomial[0])}")
            else:
                terms.append(f"{c}*{self._opaque(build({monomial: 1}))}")
        return "(" + (" + ".join(terms) or "0") + ")"

    def atom(self, e: Expr) -> str:
        if e in self.names:
            return self.names[e]
        if is_index(e):
            if e.op == "floordiv" and e.args[1].op == "const" and e.args[1].value > 0:
                return f"floor({self.integer(e.args[0])}/{e.args[1].value})"
            if e.op == "floormod" and e.args[1].op == "const" and e.args[1].value > 0:
                return f"({self.integer(e.args[0])} mod {e.args[1].value})"
            if e.op in ("min", "max"):
                return f"{e.op}({self.integer(e.args[0])}, {self.integer(e.args[1])})"
        return self._opaque(e)

    def condition(self, e: Expr) -> str:
        if e.op == "const":
            return "true" if e.value else "false"
        if e.op in ("and", "or"):
            return f"({self.condition(e.args[0])} {e.op} {self.condition(e.args[1])})"
        if e.op == "not":
            return f"(not {self.condition(e.args[0])})"
        if e.op in _COMPARE and is_index(e.args[0]) and is_index(e.args[1]):
            return f"({self.integer(e.args[0])} {_COMPARE[e.op]} {self.integer(e.args[1])})"
        return f"({self._opaque(e)} = 1)"

    def _opaque(self, e: Expr) -> str:
        if e not in self.opaque:
            self.opaque[e] = f"u{len(self.opaque)}"
        return self.opaque[e]

    def _opaque_constraints(self) -> list[str]:
        parts: list[str] = []
        done: list[Expr] = []
        pairs = 0
        while len(done) < len(self.opaque):  # constraints may mention further opaque terms
            t = list(self.opaque)[len(done)]
            name = self.opaque[t]
            low, high = self.ranges.bounds({(t,): 1}) if t.dtype.is_int or t.dtype.is_bool else (None, None)
            if low is not None:
                parts.append(f"{low} <= {name}")
            if high is not None:
                parts.append(f"{name} <= {high}")
            if t.op in ("floordiv", "floormod") and is_index(t):
                parts.append(f"{self.integer(t.args[1])} != 0")
            if t.op == "floormod" and (self.ranges.lower(polynomial(t.args[1])) or 0) >= 1:
                parts.append(f"0 <= {name} < {self.integer(t.args[1])}")
            for other in done:
                if pairs < _MAX_PAIRS and _same_function(t, other):
                    differ = [
                        f"{self.integer(a)} != {self.integer(b)}" for a, b in zip(t.args, other.args, strict=True) if a is not b
                    ]
                    parts.append("(" + " or ".join([*differ, f"{name} = {self.opaque[other]}"]) + ")")
                    pairs += 1
            done.append(t)
        return parts


def _same_function(a: Expr, b: Expr) -> bool:
    integers = all(is_index(x) for x in (*a.args, *b.args))
    return a.op == b.op and a.value is b.value and len(a.args) == len(b.args) and integers and bool(a.args)
