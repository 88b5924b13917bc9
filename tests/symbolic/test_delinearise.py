"""Flattened indices, fused loops and coverage with symbolic sizes: proofs hold at every size tried, examples are real."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, strategies as st

from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import const, lt, minimum, ne, var
from tensorlang.symbolic.access import Access
from tensorlang.symbolic.conflict import Counterexample, conflict, uncovered
from tensorlang.symbolic.cover import writes_what_is_read
from tensorlang.symbolic.delinearise import Components, separated
from tensorlang.symbolic.integer_set import Unknown, evaluate
from tensorlang.symbolic.interval import SIZE
from tests.symbolic.strategies import examples

M, N, K = (var(n) for n in "MNK")
i, j, k, f, io, ii, a, b = (var(n) for n in ("i", "j", "k", "f", "io", "ii", "a", "b"))
SIZES = {M: SIZE, N: SIZE, K: SIZE}


def access(indices, loops, write=True, **kwargs):
    buffer = Buffer("y", tuple(const(64) for _ in indices), "f32")
    extents = tuple((v, const(e) if isinstance(e, int) else e) for v, e in loops)
    return Access("y", buffer, tuple(indices), write, extents, **kwargs)


def asked(x, v):
    return conflict(x, x, (), lambda s: ne(s[0][v], s[1][v]), apart=v, sizes=SIZES)


@pytest.mark.parametrize(
    "indices, loops, v",
    [
        ([i * N + j], [(i, M), (j, N)], i),
        ([i * N + j], [(i, M), (j, N)], j),
        ([i * N * K + j * K + k], [(i, M), (j, N), (k, K)], j),
        ([i * N * 4 + j * 4 + k], [(i, M), (j, N), (k, 4)], i),
        ([f // N, f % N], [(f, M * N)], f),
        ([f // (N * K), (f // K) % N, f % K], [(f, M * N * K)], f),
        ([(i * N + j) // K, (i * N + j) % K], [(i, M), (j, N)], j),
        ([(io * 16 + ii) // N, (io * 16 + ii) % N], [(io, (M * N + 15) // 16), (ii, 16)], io),
        ([io * K + ii], [(io, (M + K - 1) // K), (ii, K)], io),
    ],
    ids=str,
)
def test_products_of_sizes_are_taken_apart(indices, loops, v):
    assert asked(access(indices, loops), v) is None


@pytest.mark.parametrize(
    "indices, loops, v",
    [
        ([i * N + j], [(i, M), (j, N + 1)], i),
        ([i * N + j * 2], [(i, M), (j, N)], i),
        ([f // N], [(f, M * N)], f),
        ([f % N], [(f, M * N)], f),
        ([f // (N * K), f % K], [(f, M * N * K)], f),
        ([minimum(io * K, M - K) + ii], [(io, (M + K - 1) // K), (ii, K)], io),
    ],
    ids=str,
)
def test_an_example_is_found_at_small_sizes(indices, loops, v):
    x = access(indices, loops)
    found = asked(x, v)
    assert isinstance(found, Counterexample), found
    assert found.first[v] != found.second[v]
    for side in (found.first, found.second):
        values = {**side, **found.sizes}
        assert tuple(evaluate(e, values) for e in x.indices) == found.address
        assert all(0 <= side[u] < evaluate(e, values) for u, e in x.loops)


terms = st.sampled_from([i, j, i * N, j * N, i * M, j * 2, i * N * 2, const(1)])
indices = st.lists(terms, min_size=1, max_size=3).map(lambda ts: sum(ts[1:], ts[0]))
extents = st.sampled_from([M, N, const(3), N * 2, M + N])


@examples(60)
@given(indices, extents, extents)
def test_verdicts_agree_with_enumeration(index, first, second):
    x = access([index], [(i, first), (j, second)])
    found = asked(x, i)
    if found is None:
        for m, n in product((1, 2, 3, 4), repeat=2):
            seen: dict[int, int] = {}
            at = {M: m, N: n}
            for p, q in product(range(evaluate(first, at)), range(evaluate(second, at))):
                element = evaluate(index, {**at, i: p, j: q})
                assert seen.setdefault(element, p) == p, f"{index} at M={m}, N={n}"
    elif isinstance(found, Counterexample):
        for side in (found.first, found.second):
            assert evaluate(index, {**side, **found.sizes}) == found.address[0]
    else:
        assert isinstance(found, Unknown) and found.reason


def test_separated_equations_mean_the_same():
    loops = {i: M, j: N, a: M, b: N, **SIZES}
    assert separated([(i * N + j, a * N + b)], loops) == [(i, a), (j, b)]
    assert separated([(i * N + j, a * N + b)], {**loops, j: N + 1}) == [(i * N + j, a * N + b)]
    assert separated([(i * 8 + j, a * 8 + b)], loops) == [(i * 8 + j, a * 8 + b)]  # integer sets know that


def test_components_compare_as_their_loop_does():
    g = var("f")
    parts = Components([f // N, f % N, g // N], {f: M * N, g: M * N, **SIZES})
    condition = parts.of(lt(f, g))
    for n, x, y in product((1, 2, 3), range(6), range(6)):
        values = {N: n, M: 6}
        for v, value in ((f, x), (g, y)):
            high, low, _ = parts.parts[v]
            values[high], values[low] = divmod(value, n)
        assert evaluate(condition, values) == (x < y)


@pytest.mark.parametrize(
    "read, write",
    [
        (access([io * 6 + ii], [(io, M), (ii, 6)]), access([io * 6 + a * 2 + b], [(io, M), (a, 3), (b, 2)])),
        (access([io * K + ii], [(io, M), (ii, K)]), access([io * K + a], [(io, M), (a, K)])),
        (access([i, j], [(io, M), (i, N), (j, K)]), access([f // K, f % K], [(io, M), (f, N * K)])),
        (
            access([io * 8 + ii], [(io, (M + 7) // 8), (ii, 8)], conditions=(lt(io * 8 + ii, M),)),
            access([io * 8 + a], [(io, (M + 7) // 8), (a, 8)], conditions=(lt(io * 8 + a, M),)),
        ),
    ],
)
def test_the_iteration_that_writes_is_named(read, write):
    assert writes_what_is_read(read, write, [io], SIZES)


@pytest.mark.parametrize(
    "read, write",
    [
        (access([io * 6 + ii], [(io, M), (ii, 6)]), access([io * 6 + a * 2 + b], [(io, M), (a, 3), (b, 1)])),
        (access([ii + 1], [(io, M), (ii, 6)]), access([a], [(io, M), (a, 6)])),
        (access([ii], [(io, M), (ii, 6)]), access([a], [(io, M), (a, 6)], conditions=(lt(a, 5),))),
    ],
)
def test_a_gap_is_not_covered(read, write):
    assert not writes_what_is_read(read, write, [io], SIZES)
    missing = uncovered(read, [write], [io], SIZES)
    assert isinstance(missing, tuple)
