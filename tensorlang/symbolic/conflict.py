"""Do two iterations touch the same element? Is every element that is read written before? Asked of integer sets.

Decided on the indices of multi-dimensional buffers, before they are flattened: integer sets know no products of symbols. Of a
fused loop, `x // c` and `x % c` in the same index give back `x`. Most questions need no integer set: one index `c*v + r` with
`|r - r'| < |c|` keeps different values of `v` apart.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import islpy

from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr, and_, const, eq, floordiv, load, ne, or_, var
from tensorlang.ir.visitor import free_vars, substitute, walk
from tensorlang.symbolic.access import Access
from tensorlang.symbolic.affine import Poly, constant_value, plus, polynomial, split_atom
from tensorlang.symbolic.cover import writes_what_is_read
from tensorlang.symbolic.delinearise import Components, separated
from tensorlang.symbolic.integer_set import CONTEXT, Question, Unknown, coordinates, evaluate, find, limited
from tensorlang.symbolic.interval import SIZE, Interval, Ranges, RangesLike, as_ranges
from tensorlang.symbolic.simplify import simplify


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
    right = {**right, **_other_memory(b, right)}
    exact = a.exact and b.exact  # else any element may be the one that both touch
    pairs = _determined([substitute(i, left) for i in a.indices], [substitute(j, right) for j in b.indices]) if exact else []
    ranges: dict[Expr, Any] = dict(sizes or {})
    for access, renamed in ((a, left), (b, right)):
        for v, extent in access.loops:
            ranges[renamed.get(v, v)] = substitute(extent, renamed)
    sides: Sides = tuple(  # type: ignore[assignment]
        {v: renamed.get(v, v) for v, _ in access.loops} for access, renamed in ((a, left), (b, right))
    )
    if apart is not None and exact and _held_apart(pairs, sides[0][apart], sides[1][apart], ranges):
        return None
    instances = [(substitute(x, left), substitute(y, right)) for x, y in zip(a.instance, b.instance, strict=False)]
    if ignore_same_instance and set(instances) <= set(pairs):
        return None
    conditions = [relation(sides)]
    conditions += [substitute(c, left) for c in a.conditions] + [substitute(c, right) for c in b.conditions]
    if ignore_same_instance:
        conditions.append(_any(ne(x, y) for x, y in instances))
    fused = Components([*conditions, *(e for pair in pairs for e in pair)], ranges)
    pairs = separated([(fused.of(x), fused.of(y)) for x, y in _without_consequences(pairs)], fused.ranges)
    conditions = [fused.of(c) for c in conditions] + [eq(x, y) for x, y in pairs]
    found = find(conditions, fused.ranges)
    if found is None or isinstance(found, Unknown):
        return found
    if any(found.get(v) == 0 for v in _possibly_empty(fused.ranges)):  # an example without empty tensors says more
        sizes_of_one = {v: SIZE if v in _possibly_empty(fused.ranges) else e for v, e in fused.ranges.items()}
        better = find(conditions, sizes_of_one)
        found = better if isinstance(better, dict) else found
    found = fused.values(found, evaluate)
    if not exact:
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
    if not read.exact:
        return Unknown(f"which elements of {read.buffer.name} a packed function reads is not known")
    if any(write.exact and writes_what_is_read(read, write, shared, sizes) for write in writes):
        return None
    extents = {v: e for v, e in read.loops if v in shared}
    outer = Question({**(sizes or {}), **extents})
    symbols = {v for a in (read, *writes) for e in _all_exprs(a) for v in free_vars(e)}
    symbols -= {v for a in (read, *writes) for v, _ in a.loops}
    common = outer.closure([*symbols, *shared])
    try:
        with limited():
            missing, exact = _image(read, common, sizes)
            for write in writes:
                reached, known = _image(write, common, sizes)
                if known:
                    missing = missing.subtract(reached)
                exact = exact and known
            if missing.is_empty():
                return None
            point = _with_elements(missing, common, sizes).sample_point()
    except islpy.Error:
        return Unknown("the question is too hard for the integer-set library")
    values = coordinates(point, [*common, *(var(f"d{n}") for n in range(len(read.indices)))])
    everything = list(values.values())
    if not exact:
        return Unknown("an index is not affine")
    return dict(zip(common, everything, strict=False)), tuple(everything[len(common) :])


def _possibly_empty(ranges: Mapping[Expr, Any]) -> list[Expr]:
    """Sizes that may be 0."""
    return [v for v, e in ranges.items() if isinstance(e, Interval) and e.low == 0]


def _with_elements(points: islpy.Set, common: Sequence[Expr], sizes: RangesLike | None) -> islpy.Set:
    """Those of `points`, whose first coordinates are `common`, where no size is 0; all of them if there are none."""
    zero = set(_possibly_empty(sizes or {}))
    where = " and ".join(f"x{n} >= 1" for n, v in enumerate(common) if v in zero)
    if not where:
        return points
    names = ", ".join(f"x{n}" for n in range(points.dim(islpy.dim_type.set)))
    inside = points.intersect(islpy.Set.read_from_str(CONTEXT, f"{{ [{names}] : {where} }}"))
    return points if inside.is_empty() else inside


def _all_exprs(a: Access) -> list[Expr]:
    return [*a.indices, *a.conditions, *(extent for _, extent in a.loops)]


def _image(a: Access, common: Sequence[Expr], sizes: RangesLike | None) -> tuple[islpy.Set, bool]:
    """The set of (common values, element) that `a` touches, or a superset; and whether it is exact."""
    question = Question({**(sizes or {}), **dict(a.loops)})
    inner = [v for v, _ in a.loops if v not in common]
    variables = [*common, *inner]
    element = [var(f"d{n}") for n in range(len(a.indices))]
    text = question.describe(
        [*a.conditions, *(eq(d, i) for d, i in zip(element, a.indices, strict=True))], [*variables, *element]
    )
    names = [question.names[v] for v in (*common, *element)]
    hidden = [*(question.names[v] for v in inner), *question.opaque.values()]
    body = f"exists ({', '.join(hidden)} : {text})" if hidden else text
    return islpy.Set.read_from_str(CONTEXT, f"{{ [{', '.join(names)}] : {body} }}"), a.exact and not question.opaque


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
_memories: WeakKeyDictionary[Buffer, Buffer] = WeakKeyDictionary()


def _other_memory(access: Access, renamed: Mapping[Expr, Expr]) -> dict[Expr, Expr]:
    """Loads in `access` from memory that each iteration has of its own: in another iteration they may give anything."""
    if not access.private:
        return {}
    found: dict[Expr, Expr] = {}
    exprs = (*access.indices, *access.conditions, *access.instance)
    for node in dict.fromkeys(n for e in exprs for n in walk(e) if n.op == "load" and n.value in access.private):
        copy = _memories.setdefault(node.value, Buffer(node.value.name, node.value.shape, node.value.dtype))
        found[node] = load(copy, tuple(substitute(i, {**renamed, **found}) for i in node.args))
    return found


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
    if any(x.op == "floormod" for x in xs):
        xs, ys = [simplify(x) for x in xs], [simplify(y) for y in ys]
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


def _without_consequences(pairs: list[tuple[Expr, Expr]]) -> list[tuple[Expr, Expr]]:
    """Without x//c = y//c and x%c = y%c where x = y is there and c is symbolic, which integer sets do not know."""
    known = set(pairs)

    def follows(x: Expr, y: Expr) -> bool:
        divided = x.op in ("floordiv", "floormod") and x.op == y.op and x.args[1] is y.args[1] and x.args[1].op != "const"
        return divided and (x.args[0], y.args[0]) in known

    return [(x, y) for x, y in pairs if not follows(x, y)]


def determined_variables(indices: Iterable[Expr], ranges: RangesLike) -> set[Expr]:
    """Variables of `ranges` whose values follow from those of `indices`: `io*8 + ii` with `ii < 8` tells both.

    Other variables count as constants. Not complete.
    """
    known = as_ranges(ranges)
    found = {v for v in ranges if known.upper(polynomial(v)) == 0}
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
