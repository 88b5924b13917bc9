"""loop_partition and specialize: parts without guards, versions for some sizes."""

from __future__ import annotations

import numpy as np
import pytest

from tensorlang import te
from tensorlang.build import build
from tensorlang.errors import ScheduleError
from tensorlang.ir.visitor import blocks
from tensorlang.schedule import Schedule
from tests import programs
from tests.schedule.checks import body_of, check, replays


def guards(s: Schedule) -> dict[str, str]:
    return {b.name: str(b.predicate) for b in blocks(s.func.body)}


def test_the_tail_of_a_split(golden):
    s = Schedule(programs.dense(10, 7, 5))
    y = s["y"]
    io, _ = y.split(y.axis[0], 4)
    main, tail = y.loop_partition(io)
    assert (str(s.extent(main)), str(s.extent(tail))) == ("2", "1")
    assert "where" not in str(s)
    golden(body_of(s))
    check(s)
    replays(s)


@pytest.mark.parametrize("n", [1, 3, 4, 10, 16])
def test_the_tail_of_a_symbolic_split(n, golden):
    s = Schedule(programs.dense(te.var("N"), 7, 5))
    y = s["y"]
    io, _ = y.split(y.axis[0], 4)
    y.loop_partition(io)
    assert guards(s)["y"] == "True" and guards(s)["y_tail"] != "True"
    if n == 1:
        golden(body_of(s), "the_tail_of_a_symbolic_split")
    check(s, N=n)


def test_padding_is_peeled_off_both_ends(golden):
    s = Schedule(programs.conv_nhwc(8, 4, 4))
    p = s["pad"]
    head, main, tail = p.loop_partition(p.axis[1])
    assert [str(s.extent(v)) for v in (head, main, tail)] == ["1", "8", "1"]
    p.loop_partition(p.axis[2])
    golden(body_of(s))
    assert "select" not in str(s)[str(s).index('"pad"') : str(s).index('"pad_tail"')]
    check(s)


def test_the_parts_are_scheduled_on_by_themselves():
    s = Schedule(programs.dense(9, 32, 5))
    y = s["y"]
    i, j = y.axis
    (k,) = y.reduce_axis
    _, ji = y.split(j, 16)
    io, ii = y.split(i, 4)
    y.reorder(io, k, ii)
    _, tail = y.loop_partition(io)
    y.vectorize(ji)
    y.parallel(s.loop("i_o_main"))
    s["y_tail"].unroll(tail)
    check(s)
    replays(s)


def test_lanes_keep_their_mask():
    s = Schedule(programs.dense(4, 21, 5))
    out = s["out"]
    jo, ji = out.split(out.axis[1], 8)
    out.vectorize(ji)
    out.loop_partition(jo)
    assert guards(s)["out"] == "True" and "5" in guards(s)["out_tail"]
    check(s)


def test_a_reduction_is_initialised_in_its_first_part(golden):
    s = Schedule(programs.dense(3, 4, 10))
    y = s["y"]
    ko, _ = y.split(y.reduce_axis[0], 4)
    y.loop_partition(ko)
    assert [b.init is None for b in blocks(s.func.body)] == [False, True, True]
    golden(body_of(s))
    check(s)


def test_a_reduction_outside_of_the_loop_is_initialised_in_every_part():
    s = Schedule(programs.dense(10, 4, 6))
    y = s["y"]
    i, j = y.axis
    io, ii = y.split(i, 4)
    y.reorder(y.reduce_axis[0], io, ii, j)
    y.loop_partition(io)
    check(s)


def test_parts_of_given_lengths():
    s = Schedule(programs.dense(10, 4, 6))
    y = s["y"]
    made = y.loop_partition(y.axis[0], [3, None, 2])
    assert [str(s.extent(v)) for v in made] == ["3", "5", "2"]
    assert [st.name for st in s.stages] == ["y", "y_part1", "y_part2", "out"]
    check(s)
    replays(s)


def test_private_memory_is_each_parts_own():
    s = Schedule(programs.dense(10, 8, 6))
    y, out = s["y"], s["out"]
    io, ii = out.split(out.axis[0], 4)
    y.compute_at(out, io)
    out.loop_partition(io)
    assert [st.name for st in s.stages] == ["y", "out", "y_tail", "out_tail"]
    assert "y_tail = alloc" in str(s)
    check(s)


@pytest.mark.parametrize("parts", [[4, 4], [4, 4, 4], [11, None], [None, None], [10], [0, None], [2.5, None]])
def test_refuses_lengths_that_are_not_the_loops(parts):
    s = Schedule(programs.dense(10, 4, 6))
    before = str(s)
    with pytest.raises(ScheduleError, match="loop_partition"):
        s["y"].loop_partition(s["y"].axis[0], parts)
    assert str(s) == before and len(s.trace) == 0


def test_refuses_lengths_beyond_a_symbolic_size():
    s = Schedule(programs.dense(te.var("N"), 4, 6))
    with pytest.raises(ScheduleError, match="not known to be fewer"):
        s["y"].loop_partition(s["y"].axis[0], [4, None])


def test_refuses_a_loop_without_guards():
    s = Schedule(programs.dense(10, 4, 6))
    with pytest.raises(ScheduleError, match="no guard inside i depends on it"):
        s["y"].loop_partition(s["y"].axis[0])


def test_refuses_where_no_iteration_is_free_of_guards():
    s = Schedule(programs.dense(3, 4, 6))
    y = s["y"]
    io, _ = y.split(y.axis[0], 4)
    with pytest.raises(ScheduleError, match="in no iteration of i_o"):
        y.loop_partition(io)


def test_refuses_a_reduction_whose_first_part_may_be_empty():
    s = Schedule(programs.dense(4, 4, te.var("K")))
    y = s["y"]
    ko, _ = y.split(y.reduce_axis[0], 4)
    with pytest.raises(ScheduleError, match="may be empty .*decompose_reduction first"):
        y.loop_partition(ko)


def test_an_initialisation_of_its_own_lets_the_first_part_be_empty():
    for size in (3, 9):
        s = Schedule(programs.dense(4, 4, te.var("K")))
        y = s["y"]
        y.decompose_reduction(y.reduce_axis[0])
        ko, _ = y.split(y.reduce_axis[0], 4)
        y.loop_partition(ko)
        check(s, K=size)


def test_refuses_a_bound_loop():
    s = Schedule(programs.dense(10, 4, 6))
    s["out"].bind(s["out"].axis[0], "threadIdx.x")
    with pytest.raises(ScheduleError, match="bound to threadIdx.x"):
        s["out"].loop_partition(s["out"].axis[0], [5, 5])


def test_refuses_a_loop_over_elements_and_reduction():
    s = Schedule(programs.dense(4, 6, 10))
    y = s["y"]
    f = y.fuse(y.axis[1], y.reduce_axis[0])
    with pytest.raises(ScheduleError, match="runs over output elements and the reduction"):
        y.loop_partition(f, [30, 30])


# -- specialize ----------------------------------------------------------------------------------------------------


def fast_dense() -> Schedule:
    n = te.var("N")
    s = Schedule(programs.dense(n, 10, 8))
    s.specialize(te.equal(n % 4, 0))
    return s


@pytest.mark.parametrize("n", [1, 4, 7, 12])
def test_specialize_adds_a_path_without_tails(n, golden):
    s = fast_dense()
    fast, general = s["y_fast"], s["y"]
    for y in (fast, general):
        _, ii = y.split(y.axis[0], 4)
        y.unroll(ii)
    assert guards(s)["y_fast"] == "True" and guards(s)["y"] != "True"
    if n == 1:
        golden(body_of(s), "specialize_adds_a_path_without_tails")
        replays(s)
    check(s, N=n)


@pytest.mark.parametrize("n", [5, 8, 16, 20])
@pytest.mark.parametrize(
    ("condition", "extent"),
    [
        (lambda n: te.equal(n, 16), "16"),
        (lambda n: n >= 8, "max(N, 8)"),
        (lambda n: n < 9, "min(N, 8)"),
        (lambda n: te.all_of(te.equal(n % 4, 0), n >= 8), "max(N // 4 * 4, 8)"),
        (lambda n: te.not_equal(n, 8), "N"),
    ],
)
def test_specialize_on(condition, extent, n):
    size = te.var("N")
    s = Schedule(programs.chain(size))
    s.specialize(condition(size), "special")
    e = s["e_special"]
    assert str(s.extent(e.axis[0])) == extent
    e.compute_inline()
    e = s["out_special"]
    if extent in ("16", "max(N, 8)"):
        e.split(e.axis[0], 8, tail="shift_inwards")
    check(s, N=n)


def test_versions_take_all_primitives():
    s = fast_dense()
    w = s.cache_read("w", "global", ["y_fast"])
    y, out = s["y_fast"], s["out_fast"]
    io, jo, ii, ji = out.tile(*out.axis, 4, 5)
    y.compute_at(out, jo)
    y.reorder(y.reduce_axis[0], *y.axis)
    out.parallel(io)
    s["y"].parallel(s["y"].axis[0])
    s["out"].vectorize(s["out"].axis[1])
    assert w.name == "w_global"
    for n in (4, 6):
        check(s, N=n)


def test_both_versions_read_one_copy():
    s = fast_dense()
    s.cache_read("w")
    for n in (4, 6):
        check(s, N=n)


def test_specialize_twice():
    s = fast_dense()
    s.specialize(s.func.size_vars[0] >= 8, "long")
    assert sorted(st.name for st in s.stages) == sorted(
        ["y_fast_long", "out_fast_long", "y_long", "out_long", "y_fast", "out_fast", "y", "out"]
    )
    for n in (4, 6, 8, 9):
        check(s, N=n)


@pytest.mark.parametrize(
    ("condition", "reason"),
    [
        (lambda n: te.var("other") > 3, "other is not a size"),
        (lambda n: n % 4, "is a comparison of sizes"),
        (lambda n: True, "is a comparison of sizes"),
        (lambda n: te.equal(16 % n, 0), "which may be 0"),
        (lambda n: n >= 0, "always True"),
        (lambda n: n < 0, "always False"),
    ],
)
def test_specialize_refuses(condition, reason):
    n = te.var("N")
    s = Schedule(programs.chain(n))
    with pytest.raises(ScheduleError, match=reason):
        s.specialize(condition(n))
    assert len(s.trace) == 0


def test_specialize_refuses_constant_shapes():
    s = Schedule(programs.chain(8))
    with pytest.raises(ScheduleError, match="all shapes are constant"):
        s.specialize(te.var("N") > 3)


def test_empty_parts_of_an_empty_tensor():
    s = Schedule(programs.chain(te.var("N")))
    e = s["e"]
    io, _ = e.split(e.axis[0], 4)
    e.loop_partition(io)
    x = np.empty((0,), np.float32)
    assert build(s)(x).shape == (0,)
