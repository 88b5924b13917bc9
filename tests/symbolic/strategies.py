"""Random integer and boolean expressions over small ranges, and their meaning evaluated point by point."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from hypothesis import settings, strategies as st

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
    select,
    var,
)  # fmt: skip
from tensorlang.ir.visitor import walk

VARIABLES = [var(name) for name in "ijk"]
SIZES = [var(name) for name in "MN"]


def examples(n: int) -> settings:
    """`n` examples, or as many as the profile asks for, if those are more (`make fuzz`)."""
    return settings(max_examples=max(n, settings().max_examples))


_TEXT = {
    "add": "({} + {})", "sub": "({} - {})", "mul": "({} * {})", "floordiv": "({} // {})", "floormod": "({} % {})",
    "min": "min({}, {})", "max": "max({}, {})", "eq": "({} == {})", "ne": "({} != {})", "lt": "({} < {})",
    "le": "({} <= {})", "and": "({} and {})", "or": "({} or {})", "not": "(not {})", "select": "({1} if {0} else {2})",
}  # fmt: skip


@lru_cache(maxsize=4096)
def _compiled(e: Expr) -> tuple[Any, tuple[Expr, ...]]:
    memo: dict[Expr, str] = {}
    variables = []
    for n in walk(e):
        if n.op == "var":
            variables.append(n)
            memo[n] = f"{n.name}{n.value[1]}"
        else:
            memo[n] = f"({n.value})" if n.op == "const" else _TEXT[n.op].format(*(memo[a] for a in n.args))
    return eval(f"lambda {', '.join(memo[v] for v in variables)}: {memo[e]}"), tuple(variables)


def evaluate(e: Expr, values: Mapping[Expr, int]) -> Any:
    """What Python says. Written anew, not with the evaluator under test."""
    function, variables = _compiled(e)
    return function(*(values[v] for v in variables))


def points(ranges: Mapping[Expr, Expr | int]) -> Iterator[dict[Expr, int]]:
    """Every assignment in range; sizes that extents mention take the values 1 to 3."""
    sizes = [s for s in SIZES if any(isinstance(x, Expr) and s in set(walk(x)) for x in ranges.values())]
    for chosen in itertools.product(range(1, 4), repeat=len(sizes)):
        yield from _loops(list(ranges.items()), dict(zip(sizes, chosen, strict=True)))


def _loops(left: list[tuple[Expr, Expr | int]], values: dict[Expr, int]) -> Iterator[dict[Expr, int]]:
    if not left:
        yield dict(values)
        return
    (v, extent), *rest = left
    for value in range(extent if isinstance(extent, int) else evaluate(extent, values)):
        yield from _loops(rest, {**values, v: value})


@st.composite
def ranges(draw: st.DrawFn, symbolic: bool = True) -> dict[Expr, Expr | int]:
    out: dict[Expr, Expr | int] = {}
    M, N = SIZES
    for v in VARIABLES:
        kinds: list[Any] = [draw(st.integers(1, 6))]
        if symbolic:
            kinds += [M, N, (M + 3) // 4, M + 2]
            if out:
                outer = next(iter(out))
                kinds += [minimum(4, M * 4 - outer), outer + 1]
            else:
                kinds += [M * N]
        extent = draw(st.sampled_from(kinds))
        out[v] = extent
    return out


_BINARY = [
    lambda a, b: a + b, lambda a, b: a - b, lambda a, b: a * b, minimum, maximum, lambda a, b: a + b,
]  # fmt: skip


def integer(draw: st.DrawFn, leaves: list[Expr], sizes: list[Expr], depth: int) -> Expr:
    """A random integer expression. Written with draws, not `st.recursive`: that is many times slower here."""
    kind = draw(st.integers(0, 9)) if depth else 0
    if kind <= 1:
        at = draw(st.integers(0, len(leaves) + 1))
        return leaves[at] if at < len(leaves) else const(draw(st.integers(-9, 20)))
    a = integer(draw, leaves, sizes, depth - 1)
    if kind <= 4:
        return draw(st.sampled_from(_BINARY))(a, integer(draw, leaves, sizes, depth - 1))
    if kind == 5:
        return a * draw(st.integers(-8, 12))
    if kind <= 8:
        at = draw(st.integers(0, 12 + len(sizes)))
        divisor = sizes[at - 13] if at > 12 else const(max(1, at))
        return draw(st.sampled_from([floordiv, floormod]))(a, divisor)
    return select(condition(draw, leaves, sizes, depth - 1, 1), a, integer(draw, leaves, sizes, depth - 1))


def condition(draw: st.DrawFn, leaves: list[Expr], sizes: list[Expr], depth: int, width: int) -> Expr:
    kind = draw(st.integers(0, 4)) if width else 0
    if kind == 3:
        return not_(condition(draw, leaves, sizes, depth, width - 1))
    if kind > 0:
        join = and_ if kind == 1 else or_
        return join(condition(draw, leaves, sizes, depth, width - 1), condition(draw, leaves, sizes, depth, width - 1))
    compare = draw(st.sampled_from([lt, le, eq, ne]))
    return compare(integer(draw, leaves, sizes, depth), integer(draw, leaves, sizes, depth))


@st.composite
def problem(draw: st.DrawFn, boolean: bool = False) -> tuple[Expr, dict[Expr, Expr | int]]:
    known = draw(ranges())
    sizes = [s for s in SIZES if any(isinstance(x, Expr) and s in set(walk(x)) for x in known.values())]
    leaves = [*VARIABLES, *sizes]
    return condition(draw, leaves, sizes, 2, 2) if boolean else integer(draw, leaves, sizes, 3), known
