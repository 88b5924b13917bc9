from __future__ import annotations

from hypothesis import given, settings

from tensorlang.ir.expr import Expr
from tensorlang.symbolic.simplify import simplify
from tests.symbolic.strategies import evaluate, points, problem


def same(e: Expr, known: dict) -> None:
    short = simplify(e, known)
    assert simplify(short, known) is short, f"not idempotent: {e} -> {short} -> {simplify(short, known)}"
    for values in points(known):
        assert evaluate(short, values) == evaluate(e, values), f"{e} -> {short} differs at {values}"


@settings(max_examples=600)
@given(problem())
def test_integers_keep_their_value(case):
    same(*case)


@settings(max_examples=400)
@given(problem(boolean=True))
def test_conditions_keep_their_value(case):
    same(*case)
