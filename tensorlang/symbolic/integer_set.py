"""Integer sets: are there integers that satisfy these conditions? If not, that is a proof; if so, an example.

Conditions are ordinary boolean expressions over loop variables and sizes. They are handed to isl as text: affine arithmetic,
`//` and `%` by constants, `min` and `max` exactly. What isl cannot know (a product of symbols, division by a symbol, a value
loaded from memory) becomes a variable of its own that is only held to its bounds and to being a function. The set then is
too large: empty still is a proof, and an example counts only if the conditions, evaluated, confirm it. Else `Unknown`.

On top of that, `conflict` asks whether two iterations touch the same element of a buffer.

Source: Verdoolaege, "isl: An Integer Set Library for the Polyhedral Model", ICMS 2010.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import islpy

from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr, and_, const, eq, floordiv, ne, or_, var
from tensorlang.ir.visitor import free_vars, substitute, walk
from tensorlang.symbolic.access import Access as Access
from tensorlang.symbolic.affine import Poly, build, constant_value, is_index, plus, polynomial, split_atom
from tensorlang.symbolic.interval import Interval, Ranges, RangesLike, as_ranges
from tensorlang.symbolic.simplify import simplify

_CONTEXT = islpy.Context()
_MAX_OPERATIONS = 400_000  # isl's own measure, some 50 ms: an end to exponential cases
_MAX_PAIRS = 6  # consistency constraints of opaque terms; each doubles the number of cases
_COMPARE = {"eq": "=", "ne": "!=", "lt": "<", "le": "<="}


@dataclass(frozen=True)
class Unknown:
    """Neither a proof nor an example was found."""

    reason: str


def find(conditions: Sequence[Expr], ranges: RangesLike) -> dict[Expr, int] | None | Unknown:
    """Values of all variables in range that satisfy all conditions, the smallest first, or None if there are none.

    Variables without a range are sizes (at least 1) if an extent mentions them, else any integer.
    """
    short = [simplify(c, ranges) for c in conditions]
    if any(c.op == "const" and not c.value for c in short):
        return None
    open_conditions = [c for c in short if c.op != "const"]
    question = _Question(ranges)
    needed = question.closure(v for c in open_conditions for v in free_vars(c))
    try:
        if question.solve(open_conditions, needed) is None:
            return None
        everything = question.closure([*needed, *ranges])
        values = question.solve(open_conditions, everything)
    except islpy.Error:
        return Unknown("the question is too hard for the integer-set library")
    if values is None:
        return None
    return _confirmed(values, conditions, ranges, question)


def _confirmed(
    values: dict[Expr, int], conditions: Sequence[Expr], ranges: RangesLike, question: _Question
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
        return Unknown(f"it depends on data: {terms}")
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
def _limited() -> Iterator[None]:
    """isl gives up (`islpy.Error`) after a bounded effort."""
    _CONTEXT.reset_operations()
    _CONTEXT.set_max_operations(_MAX_OPERATIONS)
    try:
        yield
    finally:
        _CONTEXT.set_max_operations(0)


def _coordinates(point: islpy.Point, variables: Sequence[Expr]) -> dict[Expr, int]:
    return {v: point.get_coordinate_val(islpy.dim_type.set, n).to_python() for n, v in enumerate(variables)}


class _Question:
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

    def solve(self, conditions: Sequence[Expr], variables: Sequence[Expr]) -> dict[Expr, int] | None:
        text = self.describe(conditions, variables)
        names = [*self.names.values(), *self.opaque.values()]
        with _limited():
            found = islpy.Set.read_from_str(_CONTEXT, f"{{ [{', '.join(names)}] : {text} }}")
            if found.is_empty():
                return None
            return _coordinates(self._smallest(found, len(variables)), variables)

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


# -- conflicts -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Counterexample:
    """Two iterations that touch the same element.

    Attributes:
        first, second: loop variable -> value, of all loops around each access.
        sizes: the symbolic sizes at which it happens.
        address: the element's index in `buffer`.
    """

    buffer: Buffer
    address: tuple[int, ...]
    accesses: tuple[Access, Access]
    first: Mapping[Expr, int]
    second: Mapping[Expr, int]
    sizes: Mapping[Expr, int]

    def __str__(self) -> str:
        element = f"{self.buffer.name}[{', '.join(map(str, self.address))}]"
        sides = [
            f"{a.stage} {a.verb} {element} in iteration {show_values(side)}"
            for a, side in zip(self.accesses, (self.first, self.second), strict=True)
        ]
        where = f" (sizes: {show_values(self.sizes)})" if self.sizes else ""
        return " and ".join(sides) + where


def show_values(values: Mapping[Expr, int]) -> str:
    return ", ".join(f"{v.name}={n}" for v, n in values.items())


Sides = tuple[Mapping[Expr, Expr], Mapping[Expr, Expr]]


def conflict(
    a: Access,
    b: Access,
    shared: Collection[Expr],
    relation: Callable[[Sides], Expr],
    *,
    apart: Expr | None = None,
    ignore_same_instance: bool = False,
    sizes: RangesLike | None = None,
) -> Counterexample | None | Unknown:
    """Whether an iteration that makes access `a` and another that makes access `b` touch the same element.

    Args:
        shared: loop variables that have the same value in both iterations (the loops outside).
        relation: what else the two iterations have to do with each other, as a condition on two renamings of loop variables.
        apart: a loop variable that `relation` wants to differ; lets most questions be answered without isl.
        ignore_same_instance: leave out pairs that are the same point of the computation, executed twice.
        sizes: what is known of symbolic sizes.

    Returns:
        The two iterations, None if it is proved that there are none, or Unknown.
    """
    left, right = _separate(a, shared, 0), _separate(b, shared, 1)
    pairs = _determined([substitute(i, left) for i in a.indices], [substitute(j, right) for j in b.indices])
    ranges: dict[Expr, Any] = dict(sizes or {})
    for access, renamed in ((a, left), (b, right)):
        for v, extent in access.loops:
            ranges[renamed.get(v, v)] = substitute(extent, renamed)
    sides: Sides = tuple(  # type: ignore[assignment]
        {v: renamed.get(v, v) for v, _ in access.loops} for access, renamed in ((a, left), (b, right))
    )
    if apart is not None and _held_apart(pairs, sides[0][apart], sides[1][apart], ranges):
        return None
    instances = [(substitute(x, left), substitute(y, right)) for x, y in zip(a.instance, b.instance, strict=False)]
    if ignore_same_instance and set(instances) <= set(pairs):
        return None
    conditions = [relation(sides)]
    conditions += [eq(x, y) for x, y in pairs]
    conditions += [substitute(c, left) for c in a.conditions] + [substitute(c, right) for c in b.conditions]
    if ignore_same_instance:
        conditions.append(_any(ne(x, y) for x, y in instances))
    found = find(conditions, ranges)
    if found is None or isinstance(found, Unknown):
        return found
    if not (a.exact and b.exact):
        return Unknown(f"which elements of {a.buffer.name} an intrinsic touches is not known")
    first = {v: found[r] for v, r in sides[0].items()}
    second = {v: found[r] for v, r in sides[1].items()}
    loop_vars = set(sides[0].values()) | set(sides[1].values())
    chosen = {v: n for v, n in found.items() if v not in loop_vars}
    address = tuple(evaluate(i, first | chosen) for i in a.indices)
    return Counterexample(a.buffer, address, (a, b), first, second, chosen)


def uncovered(
    read: Access, writes: Sequence[Access], shared: Sequence[Expr], sizes: RangesLike | None = None
) -> tuple[dict[Expr, int], tuple[int, ...]] | None | Unknown:
    """An element that `read` touches and none of `writes` does, in the same iteration of the `shared` loops.

    Returns:
        (values of the shared loops and sizes, the element's index), None if there is none, or Unknown.
    """
    extents = {v: e for v, e in read.loops if v in shared}
    outer = _Question({**(sizes or {}), **extents})
    symbols = {v for a in (read, *writes) for e in _all_exprs(a) for v in free_vars(e)}
    symbols -= {v for a in (read, *writes) for v, _ in a.loops}
    common = outer.closure([*symbols, *shared])
    try:
        with _limited():
            missing, exact = _image(read, common, sizes)
            for write in writes:
                reached, known = _image(write, common, sizes)
                if known:
                    missing = missing.subtract(reached)
                exact = exact and known
            if missing.is_empty():
                return None
            point = missing.sample_point()
    except islpy.Error:
        return Unknown("the question is too hard for the integer-set library")
    values = _coordinates(point, [*common, *(var(f"d{n}") for n in range(len(read.indices)))])
    everything = list(values.values())
    if not exact:
        return Unknown("an index is not affine")
    return dict(zip(common, everything, strict=False)), tuple(everything[len(common) :])


def _all_exprs(a: Access) -> list[Expr]:
    return [*a.indices, *a.conditions, *(extent for _, extent in a.loops)]


def _image(a: Access, common: Sequence[Expr], sizes: RangesLike | None) -> tuple[islpy.Set, bool]:
    """The set of (common values, element) that `a` touches, or a superset; and whether it is exact."""
    question = _Question({**(sizes or {}), **dict(a.loops)})
    inner = [v for v, _ in a.loops if v not in common]
    variables = [*common, *inner]
    element = [var(f"d{n}") for n in range(len(a.indices))]
    text = question.describe(
        [*a.conditions, *(eq(d, i) for d, i in zip(element, a.indices, strict=True))], [*variables, *element]
    )
    names = [question.names[v] for v in (*common, *element)]
    hidden = [*(question.names[v] for v in inner), *question.opaque.values()]
    body = f"exists ({', '.join(hidden)} : {text})" if hidden else text
    return islpy.Set.read_from_str(_CONTEXT, f"{{ [{', '.join(names)}] : {body} }}"), a.exact and not question.opaque


def _any(conditions: Iterable[Expr]) -> Expr:
    result = const(False)
    for c in conditions:
        result = or_(result, c)
    return result


def lexicographically_before(order: Sequence[Expr], first: Mapping[Expr, Expr], second: Mapping[Expr, Expr]) -> Expr:
    """Whether `first` is executed before `second` when loops nest in this order, outermost first."""
    result = const(False)
    for v in reversed(order):
        result = or_(first[v] < second[v], and_(eq(first[v], second[v]), result))
    return result


_copies: dict[tuple[Expr, int], Expr] = {}


def _separate(access: Access, shared: Collection[Expr], side: int) -> dict[Expr, Expr]:
    """A variable of its own for each loop that is not shared. The first side keeps its names."""
    if side == 0:
        return {}
    renamed = {}
    for v, _ in access.loops:
        if v not in shared:
            if (v, side) not in _copies:
                if len(_copies) > 4096:
                    _copies.clear()
                _copies[v, side] = var(v.name)
            renamed[v] = _copies[v, side]
    return renamed


def _determined(xs: list[Expr], ys: list[Expr]) -> list[tuple[Expr, Expr]]:
    """The pairs that must be equal, with what follows: x//c = y//c and x%c = y%c give x = y, for any c (a fused loop)."""
    pairs = list(zip(xs, ys, strict=True))
    known = set(pairs)
    for _ in range(4):
        new = []
        for x, y in pairs:
            if x.op == "floormod" and y.op == "floormod" and x.args[1] is y.args[1]:
                (p, c), (q, _) = x.args, y.args
                quotients = (simplify(floordiv(p, c)), simplify(floordiv(q, c)))
                whole = (p, q)
                if quotients in known and whole not in known:
                    new.append(whole)
                    known.add(whole)
        if not new:
            break
        pairs += new
    return pairs


def determined_variables(indices: Iterable[Expr], ranges: RangesLike) -> set[Expr]:
    """Variables whose values follow from those of `indices`: `io*8 + ii` with `ii < 8` tells both. Not complete."""
    known = as_ranges(ranges)
    found: set[Expr] = set()
    for index in indices:
        terms: list[tuple[int, Expr]] = []
        for monomial, c in polynomial(index).items():
            if len(monomial) == 1 and monomial[0] in ranges:
                terms.append((abs(c), monomial[0]))
            elif any(n in ranges for atom in monomial for n in walk(atom)):
                terms = []
                break
        reach = 0  # of the terms with smaller strides
        for stride, v in sorted(terms, key=lambda t: t[0]):
            if reach >= stride:
                break
            high = known.upper(polynomial(v))
            reach = reach + stride * high if high is not None else sys.maxsize
        else:
            found |= {v for _, v in terms}
    return found


def _held_apart(pairs: Sequence[tuple[Expr, Expr]], v: Expr, w: Expr, ranges: RangesLike) -> bool:
    """Whether one pair alone makes v = w: c*v + r = c*w + s with |r - s| < |c|."""
    known: Ranges | None = None
    for x, y in pairs:
        one, other = split_atom(polynomial(x), v), split_atom(polynomial(y), w)
        if one is None or other is None:
            continue
        c = constant_value(one[0])
        if not c or constant_value(other[0]) != c:
            continue
        if _mentions(one[1], v) or _mentions(other[1], w):
            continue
        difference = plus(one[1], other[1], -1)
        if not difference:
            return True
        known = known or as_ranges(ranges)
        low, high = known.bounds(difference)
        if low is not None and high is not None and -abs(c) < low and high < abs(c):
            return True
    return False


def _mentions(p: Poly, v: Expr) -> bool:
    return any(v is n for m in p for a in m if a.args for n in walk(a))
