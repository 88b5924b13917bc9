from __future__ import annotations

from hypothesis import given

from tensorlang.ir.expr import const, eq, lt, not_, var
from tensorlang.symbolic.integer_set import Unknown, find
from tensorlang.symbolic.interval import SIZE
from tests.symbolic.strategies import evaluate, examples, points, problem

M, N = var("M"), var("N")
i, j, io, ii, f = (var(name) for name in ("i", "j", "io", "ii", "f"))


@examples(150)
@given(problem(boolean=True))
def test_find_agrees_with_enumeration(case):
    cond, known = case
    satisfied = any(evaluate(cond, values) for values in points(known))
    found = find([cond], known)
    if found is None:
        assert not satisfied
    elif not isinstance(found, Unknown):
        assert evaluate(cond, found)
        for v, extent in known.items():
            assert 0 <= found[v] < evaluate(const(extent) if isinstance(extent, int) else extent, found)
    if all(isinstance(extent, int) for extent in known.values()) and not satisfied:
        assert found is None or isinstance(found, Unknown)


@examples(100)
@given(problem(boolean=True))
def test_constant_affine_questions_are_decided(case):
    cond, known = case
    if all(isinstance(extent, int) for extent in known.values()):
        found = find([cond], known)
        if isinstance(found, Unknown):  # only for products of variables
            assert "not affine" in found.reason or "too hard" in found.reason


def test_the_example_is_small():
    assert find([not_(lt(io * 8 + ii, M))], {io: (M + 7) // 8, ii: 8, M: SIZE}) == {M: 1, io: 0, ii: 1}


def test_products_of_symbols_are_proofs_when_empty_and_checked_when_not():
    known = {i: M, j: M, N: SIZE, M: SIZE}
    assert find([eq(i * N, j * N + 1), eq(i, j)], known) is None
    found = find([lt(i * N, M)], known)
    assert isinstance(found, Unknown) or found[i] * found[N] < found[M]
