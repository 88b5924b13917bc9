from __future__ import annotations

import pytest
import sympy

from tensorlang.errors import InternalError
from tensorlang.ir.expr import const, floordiv, var
from tensorlang.symbolic.sympy_view import (
    FloorMod,
    equal,
    exact_quotient,
    from_sympy,
    solve_equal_shapes,
    to_sympy,
)

M, K, N, a, b, c = (var(name) for name in ("M", "K", "N", "a", "b", "c"))


def test_round_trip():
    for e in (M * K + 3, M // 8 * N + (M + 7) // 8, (M * N) % 5, const(0), M * M * M):
        assert equal(from_sympy(to_sympy(e)), e)


def test_modulo_is_opaque_because_sympys_own_is_wrong():
    nested = (6 * (M % 4)) % 64
    s = to_sympy(nested)
    assert s.func is FloorMod and not s.has(sympy.Mod)
    assert from_sympy(s) is (M % 4 * 6) % 64


def test_fractions_do_not_come_back():
    with pytest.raises(InternalError):
        from_sympy(to_sympy(M) / 2)


def test_equal():
    assert equal(M * K, K * M)
    assert equal((M + 1) * K, K + M * K)
    assert equal(12, const(12))
    assert equal((M * 8) // 8, M)
    assert not equal(M * K, M * N)
    assert not equal(M, M + 1)


@pytest.mark.parametrize(
    ("numerator", "denominator", "expected"),
    [
        (a * b * c, a * c, b),
        (a * b + a * c, a, b + c),
        (M * 64, 8, M * 8),
        (M * 12 * 64, M * 768, const(1)),
        (floordiv(M, 2) * N, floordiv(M, 2), N),
        (24, 6, const(4)),
        (24, 7, None),
        (M * 7, 2, None),
        (a * b, c, None),
        (M * M - 1, M + 1, M - 1),
    ],
    ids=str,
)
def test_exact_quotient(numerator, denominator, expected):
    assert exact_quotient(numerator, denominator) is expected


def test_solve_equal_shapes():
    assert solve_equal_shapes([(M, 128), (M * K, M * N)]) == ({M: const(128), N: K}, [])
    assert solve_equal_shapes([(M + N, M + 3)]) == ({N: const(3)}, [])
    assert solve_equal_shapes([(M * 2, K * 4)]) == ({M: K * 2}, []) or solve_equal_shapes([(M * 2, K * 4)])[1] == []


@pytest.mark.parametrize("pairs", [[(M, 3), (M, 4)], [(M + 1, 1)], [(M * 2, 7)], [(3, 4)]], ids=str)
def test_no_sizes_satisfy(pairs):
    assert solve_equal_shapes(pairs) is None


def test_what_cannot_be_solved_is_left_for_run_time():
    solved, left = solve_equal_shapes([(M * 2, K * K)])
    assert solved == {} and len(left) == 1
