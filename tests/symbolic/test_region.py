from __future__ import annotations

import pytest
from hypothesis import given

from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import const, load, minimum, var, wrap
from tensorlang.ir.visitor import free_vars
from tensorlang.symbolic.bounds import Unbounded
from tensorlang.symbolic.region import access_region, union_region
from tensorlang.symbolic.simplify import simplify
from tests.symbolic.strategies import VARIABLES, evaluate, examples, points, problem

M = var("M")
io, ii, oo, oi, kh, fo, fi, f, g = (var(name) for name in ("io", "ii", "oo", "oi", "kh", "fo", "fi", "f", "g"))


@pytest.mark.parametrize(
    ("indices", "inner", "expected"),
    [
        ((io * 8 + ii,), {ii: 8}, [(io * 8, 8)]),
        (((oo * 4 + oi) * 2 + kh,), {oi: 4, kh: 3}, [(oo * 8, 9)]),
        (((oo * 4 + oi) * 2 + kh * 2 - 1,), {oi: 4, kh: 3}, [(oo * 8 - 1, 11)]),
        (((fo * 7 + fi) // 7, (fo * 7 + fi) % 7), {fi: 7}, [(fo, 1), (const(0), 7)]),
        (((fo * 14 + fi) // 7,), {fi: 14}, [(fo * 2, 2)]),
        (((fo * 5 + fi) // 7,), {fi: 5}, [(fo * 5 // 7, 2)]),  # one element or two: two
        ((minimum(io * 8, M - 8) + ii,), {ii: 8}, [(minimum(io * 8, M - 8), 8)]),
        ((io, ii), {}, [(io, 1), (ii, 1)]),
        ((ii,), {ii: M}, [(const(0), M)]),
        ((7 - ii,), {ii: 8}, [(const(0), 8)]),
    ],
    ids=str,
)
def test_region(indices, inner, expected):
    found = access_region(indices, inner)
    assert found == [(simplify(low), wrap(extent)) for low, extent in expected]


def test_a_gather_touches_the_whole_dimension():
    table = Buffer("table", (M,), "i64")
    index = (load(table, (ii,)), io)
    assert access_region(index, {ii: 8}, shape=(M * 2, M)) == [(const(0), M * 2), (io, const(1))]
    with pytest.raises(Unbounded):
        access_region(index, {ii: 8})


def test_union():
    a = access_region((io * 2,), {})
    b = access_region((io * 2 + kh,), {kh: 3})
    assert union_region(a, b) == [(io * 2, const(3))]


@examples(300)
@given(problem())
def test_every_element_is_inside(case):
    e, known = case
    outer, *inner = VARIABLES
    ranged = {v: known[v] for v in inner}
    if any(outer in _vars(x) for x in ranged.values()):
        return
    try:
        ((low, extent),) = access_region((e,), ranged, outer={outer: known[outer]})
    except Unbounded:
        return
    for values in points(known):
        here = {v: n for v, n in values.items() if v not in inner}
        first = evaluate(low, here)
        assert first <= evaluate(e, values) < first + evaluate(extent, here)


def _vars(extent):
    return free_vars(extent) if not isinstance(extent, int) else set()
