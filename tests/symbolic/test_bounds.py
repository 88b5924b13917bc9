from __future__ import annotations

import pytest
from hypothesis import given

from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import const, eq, le, load, lt, maximum, minimum, var
from tensorlang.ir.visitor import free_vars
from tensorlang.symbolic.bounds import Unbounded, bounds, const_bounds, prove
from tensorlang.symbolic.interval import SIZE
from tests.symbolic.strategies import evaluate, examples, points, problem

M, N = var("M"), var("N")
i, j, io, ii = (var(name) for name in ("i", "j", "io", "ii"))


@examples(200)
@given(problem())
def test_constant_bounds_enclose_every_value(case):
    e, known = case
    low, high = const_bounds(e, known)
    for values in points(known):
        assert (low is None or low <= evaluate(e, values)) and (high is None or evaluate(e, values) <= high)


@examples(200)
@given(problem())
def test_symbolic_bounds_enclose_every_value(case):
    e, known = case
    try:
        low, high = bounds(e, known)
    except Unbounded:
        return
    for values in points(known):
        sizes = {v: n for v, n in values.items() if v not in known}
        assert evaluate(low, sizes) <= evaluate(e, values) <= evaluate(high, sizes)


@examples(200)
@given(problem(boolean=True))
def test_what_is_proved_holds(case):
    cond, known = case
    if prove(cond, known):
        assert all(evaluate(cond, values) for values in points(known))


@examples(100)
@given(problem(boolean=True), problem(boolean=True))
def test_what_is_proved_from_facts_holds_where_they_do(case, other):
    (cond, known), (fact, _) = case, other
    if all(v in known or v in (M, N) for v in free_vars(fact)) and prove(cond, known, [fact]):
        assert all(evaluate(cond, v) for v in points(known) if evaluate(fact, {M: 1, N: 1} | v))


def test_bounds_of_a_tile():
    assert bounds(io * 8 + ii, {ii: 8}) == (io * 8, io * 8 + 7)
    assert bounds(M - i, {i: M}) == (const(1), M)
    assert bounds((i + 3) // 4, {i: M}) == (const(0), (M + 2) // 4)
    assert bounds(minimum(i, 5), {i: 8}) == (const(0), const(5))


def test_constant_bounds_use_symbolic_extents():
    assert const_bounds(i - M, {i: M}) == (None, -1)
    assert const_bounds(io * 8 - M, {io: (M + 7) // 8}) == (None, -1)
    assert const_bounds(M * N - M, {M: SIZE, N: SIZE}) == (0, None)


def test_a_gathered_index_is_unbounded():
    table = Buffer("table", (const(8),), "i64")
    with pytest.raises(Unbounded):
        bounds(load(table, (i,)), {i: 8})
    byte = Buffer("byte", (const(8),), "u8")
    assert bounds(load(byte, (i,)).astype("i64"), {i: 8}) == (const(0), const(255))


def test_prove_by_bounds_and_by_integer_sets():
    assert prove(lt(io * 8 + ii, M + 7), {io: (M + 7) // 8, ii: 8})
    assert not prove(lt(io * 8 + ii, M), {io: (M + 7) // 8, ii: 8})
    assert prove(lt(io * 8 + ii, M), {io: M // 8, ii: 8})
    assert prove(le(i, j), {i: 8, j: 8}, [le(i * 2, j * 2 + 1)])
    assert prove(lt(i, 4), {i: 8}, [lt(i // 2, 2)])
    assert prove(eq(i % 2, 0), {i: 64}, [eq(i % 4, 2)])
    assert not prove(eq(i % 4, 0), {i: 64}, [eq(i % 2, 0)])
    assert prove(le(maximum(i, j), 7), {i: 8, j: 8})
