from __future__ import annotations

from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import const, load, minimum, ne, var
from tensorlang.symbolic.access import Access
from tensorlang.symbolic.conflict import Counterexample, conflict, determined_variables
from tensorlang.symbolic.integer_set import Unknown
from tensorlang.symbolic.interval import SIZE

M, N = var("M"), var("N")
i, j, io, ii, f = (var(name) for name in ("i", "j", "io", "ii", "f"))


def different(v):
    return lambda sides: ne(sides[0][v], sides[1][v])


def access(indices, loops, **kwargs):
    buffer = Buffer("y", tuple(const(64) for _ in indices), "f32")
    return Access(
        "y", buffer, tuple(indices), True, tuple((v, const(e) if isinstance(e, int) else e) for v, e in loops), **kwargs
    )


def ask(a, v, shared=(), **kwargs):
    return conflict(a, a, shared, different(v), apart=v, sizes={M: SIZE, N: SIZE}, **kwargs)


def test_tiles_do_not_overlap():
    a = access([io * 8 + ii], [(io, (M + 7) // 8), (ii, 8)])
    assert ask(a, io) is None
    assert ask(a, ii, [io]) is None


def test_a_counterexample_names_both_iterations_and_the_element():
    found = ask(access([io * 6 + ii], [(io, 4), (ii, 8)]), io)
    assert isinstance(found, Counterexample)
    one, two = found.first, found.second
    assert one[io] != two[io]
    assert found.address == (one[io] * 6 + one[ii],) == (two[io] * 6 + two[ii],)


def test_points_computed_twice_can_be_left_out():
    start = minimum(io * 8, M - 8) + ii
    a = access([start], [(io, (M + 7) // 8), (ii, 8)], instance=(start,))
    assert isinstance(ask(a, io), Counterexample)
    assert ask(a, io, ignore_same_instance=True) is None


def test_a_fused_loop_of_symbolic_extents():
    fused = access([f // N, f % N], [(f, M * N)])
    assert ask(fused, f) is None
    g = io * 16 + ii
    assert ask(access([g // N, g % N], [(io, M), (ii, 16)]), io) is None


def test_data_decides():
    table = Buffer("table", (M,), "i64")
    found = ask(access([load(table, (i,))], [(i, M)]), i)
    assert isinstance(found, Unknown) and "data" in found.reason


def test_determined_variables():
    assert determined_variables([io * 8 + ii, j], {io: 4, ii: 8, j: 4}) == {io, ii, j}
    assert determined_variables([io * 6 + ii], {io: 4, ii: 8}) == set()
    assert determined_variables([io * 8 + ii // 2], {io: 4, ii: 8}) == set()
