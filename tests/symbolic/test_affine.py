from __future__ import annotations

from hypothesis import given

from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import const, load, minimum, var
from tensorlang.symbolic.affine import build, linear_form, polynomial
from tests.symbolic.strategies import SIZES, VARIABLES, evaluate, points, problem

i, j = var("i"), var("j")
N = var("N")


def test_coefficients_are_numbers_where_constant_and_symbols_else():
    coefficients, rest = linear_form(i * 8 + j * N + N * 2 + 3, {i, j})
    assert coefficients == {i: 8, j: N} and rest is N * 2 + 3


def test_terms_that_cancel_are_not_there():
    coefficients, rest = linear_form(i * 8 + j - i * 8, {i, j})
    assert coefficients == {j: 1} and rest is const(0)


def test_what_is_not_linear():
    x = Buffer("x", (const(8),), "i64")
    for e in (i * j, i * i, i // 2, i % 2, minimum(i, j), load(x, (i,)), (i // 2) * N):
        assert linear_form(e, {i, j}) is None
    assert linear_form(j + i // 2, {j}) == ({j: 1}, i // 2)  # i is no variable here


@given(problem())
def test_a_polynomial_has_the_value_of_its_expression(case):
    e, known = case
    rebuilt = build(polynomial(e))
    for values in points(known):
        assert evaluate(rebuilt, values) == evaluate(e, values)


@given(problem())
def test_a_linear_form_has_the_value_of_its_expression(case):
    e, known = case
    form = linear_form(e, set(VARIABLES))
    if form is None:
        return
    coefficients, rest = form
    total = rest
    for v, c in coefficients.items():
        total = total + v * c
    for values in points(known):
        values |= {s: 2 for s in SIZES if s not in values}
        assert evaluate(total, values) == evaluate(e, values)
