"""split, fuse, reorder, bind, hints: what they make, that the meaning stays, and each way to misuse them."""

from __future__ import annotations

import numpy as np
import pytest

from tensorlang import te
from tensorlang.build import build
from tensorlang.errors import ScheduleError
from tensorlang.ir import interp
from tensorlang.schedule import Schedule
from tests import programs
from tests.schedule.checks import body_of, check, loops_of, replays


def dense(m=6, n=10, k=8):
    return Schedule(programs.dense(m, n, k))


# -- split ---------------------------------------------------------------------------------------------------------


def test_split_by_factors(golden):
    s = dense()
    i, j = s["y"].axis
    s["y"].split(i, factors=[None, 2, 2])
    assert loops_of(s)[:4] == ["i_0:2:serial", "i_1:2:serial", "i_2:2:serial", "j:10:serial"]
    s["y"].split(j, factors=[2, 5])
    golden(body_of(s))
    check(s)
    replays(s)


def test_split_by_factors_infers_any_one():
    s = dense(24)
    made = s["out"].split(s["out"].axis[0], factors=[2, None, 3])
    assert [str(s.extent(v)) for v in made] == ["2", "4", "3"]
    assert "where" not in str(s)
    check(s)


def test_split_by_nparts_makes_as_many():
    s = dense(5)
    outer, inner = s["out"].split(s["out"].axis[0], nparts=4)
    assert (str(s.extent(outer)), str(s.extent(inner))) == ("4", "2")
    check(s)


def test_split_takes_nparts_as_the_third_argument():
    s = dense()
    outer, _ = s["out"].split(s["out"].axis[0], None, 3)
    assert str(s.extent(outer)) == "3"


@pytest.mark.parametrize("m", [1, 7, 12])
def test_split_of_a_symbolic_loop_by_factors(m):
    s = Schedule(programs.dense(te.var("M"), 10, 8))
    s["y"].split(s["y"].axis[0], factors=[None, 2, 3])
    check(s, M=m)


def test_split_by_factors_shifts_the_last_tile_inwards():
    s = dense(7)
    s["out"].split(s["out"].axis[0], factors=[None, 2, 2], tail="shift_inwards")
    assert "where" not in str(s)
    check(s)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"factors": [2, 2]}, "does not cover the 6"),
        ({"factors": [None, None, 2]}, "only one factor may be None"),
        ({"factors": [6]}, "at least two"),
        ({"factors": [None, 0]}, "positive"),
        ({"factors": [None, 2.5]}, "positive"),
        ({"factors": [None, 2], "factor": 2}, "one of factor, nparts and factors"),
        ({}, "one of factor, nparts and factors"),
        ({"nparts": 0}, "positive"),
        ({"factor": 2, "tail": "cut"}, "tail is one of"),
    ],
)
def test_split_refuses(options, reason):
    s = dense()
    before = str(s)
    with pytest.raises(ScheduleError, match=reason):
        s["y"].split(s["y"].axis[0], **options)
    assert str(s) == before and len(s.trace) == 0


def test_split_of_a_symbolic_loop_refuses_factors_that_may_not_cover_it():
    s = Schedule(programs.dense(te.var("M"), 10, 8))
    with pytest.raises(ScheduleError, match="does not cover"):
        s["y"].split(s["y"].axis[0], factors=[4, 4])


def test_split_refuses_what_is_no_loop():
    s = dense()
    with pytest.raises(ScheduleError, match="not a loop"):
        s["y"].split("i", 2)


# -- fuse ----------------------------------------------------------------------------------------------------------


def test_fuse_of_three_loops_is_one_step(golden):
    s = Schedule(programs.conv_nhwc(6, 4, 4))
    out = s["out"]
    fused = out.fuse(*out.axis[:3])
    assert str(s.extent(fused)) == "36" and len(s.trace) == 1
    golden(body_of(s))
    check(s)
    replays(s)


def test_fuse_takes_a_list():
    s = dense()
    assert str(s.extent(s["out"].fuse(list(s["out"].axis)))) == "60"
    check(s)


def test_fuse_refuses_and_leaves_everything():
    s = dense()
    y = s["y"]
    i, j = y.axis
    (k,) = y.reduce_axis
    before = str(s)
    with pytest.raises(ScheduleError, match="directly"):
        y.fuse(i, j, s["out"].axis[0])
    with pytest.raises(ScheduleError, match="directly"):
        y.fuse(j, i)
    with pytest.raises(ScheduleError, match="at least two"):
        y.fuse(k)
    assert str(s) == before and len(s.trace) == 0


def test_fuse_refuses_loops_of_two_kinds():
    s = dense()
    i, j = s["out"].axis
    s["out"].parallel(i)
    with pytest.raises(ScheduleError, match="i is parallel and j is serial"):
        s["out"].fuse(i, j)


# -- reorder and tile ----------------------------------------------------------------------------------------------


def test_reorder_leaves_loops_between_in_place(golden):
    s = dense()
    y = s["y"]
    i, _ = y.axis
    (k,) = y.reduce_axis
    y.reorder(k, i)
    assert loops_of(s)[:3] == ["k:8:serial", "j:10:serial", "i:6:serial"]
    golden(body_of(s))
    check(s)


def test_reorder_refuses_a_loop_named_twice():
    s = dense()
    i, j = s["y"].axis
    with pytest.raises(ScheduleError, match="twice"):
        s["y"].reorder(i, j, i)


def test_reorder_refuses_to_turn_a_dependence_round():
    x = te.placeholder((8, 8), name="x")
    y = te.compute((8, 8), lambda i, j: x[i, j] + 1.0, name="y")
    z = te.compute((8, 8), lambda i, j: y[i, j] * 2.0, name="z")
    s = Schedule(te.create_prim_func("f", [x], [z]))
    s["y"].compute_at(s["z"], s["z"].axis[1])
    with pytest.raises(ScheduleError, match="alone|perfectly"):
        s["z"].reorder(s["y"].axis[0], s["z"].axis[0])


def test_tile_takes_both_steps_or_none():
    s = dense()
    y, out = s["y"], s["out"]
    before = str(s)
    with pytest.raises(ScheduleError):
        y.tile(y.axis[0], out.axis[1], 2, 2)
    assert str(s) == before and len(s.trace) == 0
    assert y.tile(*y.axis, 2, 5)[0].name == "i_o"
    check(s)
    replays(s)


def test_tile_vectorize_parallel_unroll(golden):
    s = dense(8, 32)
    y = s["y"]
    io, jo, ii, ji = y.tile(*y.axis, 4, 16)
    y.reorder(io, jo, *y.reduce_axis, ii, ji)
    y.vectorize(ji)
    y.unroll(ii)
    y.parallel(y.fuse(io, jo))
    golden(body_of(s))
    check(s)
    replays(s)


def test_classic_order_and_names_of_arguments():
    s = dense(16, 32)
    y = s["y"]
    i, j = y.axis
    (k,) = y.reduce_axis
    xo, yo, xi, yi = y.tile(i, j, x_factor=4, y_factor=16)
    ko, ki = y.split(k, factor=4)
    y.reorder(xo, yo, ko, ki, xi, yi)
    y.vectorize(yi)
    y.pragma(ki, "unroll_explicit")
    fused = y.fuse(xo, yo)
    y.split(fused, nparts=2)
    check(s)
    replays(s)


# -- bind ----------------------------------------------------------------------------------------------------------


def test_bind_runs_as_loops_on_a_cpu(golden):
    s = dense(8, 12)
    y, out = s["y"], s["out"]
    io, jo, ii, ji = out.tile(*out.axis, 4, 4)
    y.compute_at(out, jo)
    out.bind(io, "blockIdx.y")
    out.bind(jo, "blockIdx.x")
    out.bind(ii, "threadIdx.y")
    out.bind(ji, "threadIdx.x")
    golden(body_of(s))
    check(s)
    replays(s)


def test_bind_takes_a_thread_axis_and_virtual_threads_nest():
    class ThreadAxis:
        thread_tag = "vthread"

    s = dense()
    i, j = s["out"].axis
    s["out"].bind(i, ThreadAxis())
    s["out"].bind(j, "vthread")
    assert loops_of(s)[3:] == ["i:6:vthread", "j:10:vthread"]
    check(s)


def test_bind_refuses_an_axis_that_does_not_exist():
    s = dense()
    with pytest.raises(ScheduleError, match="there is no axis 'threadIdx.w'"):
        s["out"].bind(s["out"].axis[0], "threadIdx.w")


def test_bind_refuses_an_axis_that_is_taken():
    s = dense()
    i, j = s["out"].axis
    s["out"].bind(i, "threadIdx.x")
    with pytest.raises(ScheduleError, match="inside i, which is bound to threadIdx.x already"):
        s["out"].bind(j, "threadIdx.x")


def test_bind_refuses_a_loop_that_runs_otherwise():
    s = dense(8, 16)
    _, j = s["out"].axis
    s["out"].vectorize(j)
    with pytest.raises(ScheduleError, match="vectorized already"):
        s["out"].bind(j, "threadIdx.x")


def test_bind_refuses_a_reduction_loop():
    s = dense()
    k = s["y"].reduce_axis[0]
    for axis in ("blockIdx.x", "vthread"):
        with pytest.raises(ScheduleError, match="rfactor"):
            s["y"].bind(k, axis)
    _, inner = s["y"].split(k, 2)
    with pytest.raises(ScheduleError, match="rfactor"):
        s["y"].bind(inner, "threadIdx.x")  # a part of the reduction: the threads would have to add up what is not theirs


def test_a_whole_reduction_bound_to_threads_is_a_sum_in_any_order():
    s = dense()
    s["y"].bind(s["y"].reduce_axis[0], "threadIdx.x")
    check(s)
    results = []
    for func, order in ((s.original, "ascending"), (s.func, "reversed"), (s.func, "shuffled")):
        arrays = programs.arrays_of(s.original)
        outputs = [np.full([d.value for d in b.shape], np.nan, b.dtype.numpy) for b in func.outputs]
        interp.run(func, [*arrays, *outputs], order=order)
        results.append(outputs[0])
    np.testing.assert_array_equal(results[1:], [results[0]] * 2)


# -- hints ---------------------------------------------------------------------------------------------------------


def test_hints_stand_in_the_program_and_change_nothing(golden):
    s = dense()
    y = s["y"]
    i, j = y.axis
    y.pragma(i, "auto_unroll_max_step", 16)
    y.pragma(i, "unroll_explicit", True)
    y.annotate(j, "why", "columns")
    y.annotate(y, "tiles", (4, 8))
    golden(body_of(s))
    check(s)
    replays(s)
    y.unannotate(j, "why")
    y.unannotate(y, "tiles")
    assert "columns" not in str(s) and "tiles" not in str(s)
    replays(s)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("reducer", "sum", "is part of the program"),
        ("tensor_intrin", "dot", "is part of the program"),
        (3, 1, "a string"),
        ("", 1, "a string"),
        ("k", object(), "is data"),
        ("k", float("nan"), "is data"),
        ("k", [1, lambda: 0], "is data"),
    ],
)
def test_annotate_refuses(key, value, reason):
    s = dense()
    with pytest.raises(ScheduleError, match=reason):
        s["y"].annotate(s["y"], key, value)


def test_unannotate_refuses_what_is_not_there():
    s = dense()
    s["y"].annotate(s["y"].axis[0], "a", 1)
    with pytest.raises(ScheduleError, match="no annotation 'b'; it has: 'a'"):
        s["y"].unannotate(s["y"].axis[0], "b")


# -- vectorize, unroll ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("primitive", ["vectorize", "unroll"])
def test_constant_extents_are_asked_for(primitive):
    s = Schedule(programs.chain(te.var("N")))
    with pytest.raises(ScheduleError, match="the extent of i_1 is N, not a constant"):
        getattr(s["out"], primitive)(s["out"].axis[0])


def test_vectorize_refuses_a_reduction():
    s = dense()
    with pytest.raises(ScheduleError, match="reduction loop"):
        s["y"].vectorize(s["y"].reduce_axis[0])


# -- tir.Schedule's way of calling -----------------------------------------------------------------------------------


def test_the_same_steps_called_on_the_schedule():
    s, t = dense(8, 16), dense(8, 16)
    y = s.get_block("y")
    i, j, k = s.get_loops(y)
    i0, i1 = s.split(i, [None, 4])
    j0, j1 = s.split(j, factors=[4, None])
    s.reorder(i0, j0, i1, k, j1)
    s.vectorize(j1)
    s.unroll(i1)
    s.parallel(s.fuse(i0, j0))
    s.annotate(y, "a", 1)
    s.annotate(k, "b", 2)
    s.unannotate(k, "b")
    s.bind(s.get_loops("out")[0], "blockIdx.x")
    s.trace.replay(t)
    assert str(s) == str(t)
    check(s)


def test_a_step_on_the_schedule_names_the_callers_line():
    s = dense()
    with pytest.raises(ScheduleError, match=r"test_loops.py:\d+: .*not a loop"):
        s.vectorize("i")


def test_bound_kernels_build_with_threads():
    s = dense(8, 16)
    s["out"].bind(s["out"].axis[0], "blockIdx.x")
    s["y"].parallel(s["y"].axis[0])
    arrays = programs.arrays_of(s.original)
    np.testing.assert_allclose(build(s)(*arrays), programs.dense_reference(*arrays), rtol=2e-5, atol=2e-5)
