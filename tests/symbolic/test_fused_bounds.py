"""The outer part of a fused loop, `f // m` with `f < n*m`, is less than `n`, whatever the symbols in `m` are."""

from __future__ import annotations

from itertools import product

from hypothesis import given, strategies as st

from tensorlang.ir.expr import const, lt, var
from tensorlang.symbolic.bounds import prove
from tensorlang.symbolic.interval import SIZE
from tensorlang.symbolic.simplify import simplify
from tests.symbolic.strategies import evaluate

N, M, F, J = var("N"), var("M"), var("f"), var("j")
SIZES = {N: SIZE, M: SIZE}


def test_a_constant_number_of_symbolic_rows():
    rows = (N + 13) // 14
    assert prove(lt(F // rows, 32), {F: rows * 32})
    assert not prove(lt(F // rows, 31), {F: rows * 32})
    assert prove(lt(F // rows * 32 + J, 1024), {F: rows * 32, J: const(32)})


def test_symbolic_numbers_of_rows():
    assert prove(lt(F // N, M + 1), {F: simplify(N * (M + 1)), **SIZES})
    assert not prove(lt(F // N, M), {F: simplify(N * (M + 1)), **SIZES})
    assert prove(lt(F // (N + 1), 5), {F: simplify((N + 1) * 5), **SIZES})


@st.composite
def sizes(draw):
    """An affine or quadratic expression of the sizes."""
    terms = [t * draw(st.integers(-2, 4)) for t in (N, M, N * M, (N + 3) // 4) if draw(st.booleans())]
    total = const(draw(st.integers(-3, 6)))
    for t in terms:
        total = total + t
    return simplify(total)


@given(sizes(), sizes(), sizes())
def test_nothing_is_proved_that_fails(extent, divisor, limit):
    if not prove(lt(F // divisor, limit), {F: extent, **SIZES}):
        return
    for n, m in product(range(1, 5), repeat=2):
        at = {N: n, M: m}
        if (d := evaluate(divisor, at)) != 0:
            assert all(f // d < evaluate(limit, at) for f in range(max(evaluate(extent, at), 0)))
