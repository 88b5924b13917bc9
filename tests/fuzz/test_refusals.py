"""Illegal steps, one mistake each: all are refused, with a reason, and change nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tensorlang import te
from tensorlang.errors import ScheduleError
from tensorlang.ir.parser import parse_func
from tensorlang.schedule import Schedule
from tests import programs

RECURRENCE = """\
def f(x: i64[9, 9], y: i64[9, 9]) -> y:
    for i in range(8):
        for j in range(8):
            with block("y", vi=spatial(8, i), vj=spatial(8, j)):
                y[vi + 1, vj] = y[vi, vj + 1] + x[vi, vj]"""

PRODUCER = """\
def f(x: i64[8], y: i64[8, 8]) -> y:
    t = alloc(i64[8])
    for i in range(8):
        with block("t", vi=spatial(8, i)):
            t[vi] = x[vi] + 1
    for i in range(8):
        for j in range(8):
            with block("y", vi=spatial(8, i), vj=spatial(8, j)):
                y[vi, vj] = t[vi] + t[vj]"""


SHARED = """\
def f(x: i64[4, 8], y: i64[4, 8]) -> y:
    t = alloc(i64[8])
    for i in range(4):
        for j in range(8):
            with block("t", vi=spatial(4, i), vj=spatial(8, j)):
                t[vj] = x[vi, vj] + 1
        for j in range(8):
            with block("y", vi=spatial(4, i), vj=spatial(8, j)):
                y[vi, vj] = t[vj] * t[7 - vj]"""


def dense() -> Schedule:
    return Schedule(programs.dense(8, 16, 12))


def refused(s: Schedule, step: Callable[[], object], reason: str) -> None:
    before, length = str(s), len(s.trace)
    with pytest.raises(ScheduleError, match=reason):
        step()
    assert str(s) == before
    assert len(s.trace) == len(s.proof) == length


# -- loop kinds ----------------------------------------------------------------------------------------------------


def test_parallel_on_a_reduction_loop():
    s = dense()
    refused(s, lambda: s["y"].parallel(s["y"].reduce_axis[0]), "reduction loop")


def test_vectorize_on_a_reduction_loop():
    s = dense()
    refused(s, lambda: s["y"].vectorize(s["y"].reduce_axis[0]), "reduction loop")


def test_parallel_on_a_part_of_a_split_reduction():
    s = dense()
    outer, _ = s["y"].split(s["y"].reduce_axis[0], 4)
    refused(s, lambda: s["y"].parallel(outer), "reduction loop")


def test_parallel_on_a_loop_that_carries_a_dependence():
    s = Schedule(parse_func(RECURRENCE))
    refused(s, lambda: s["y"].parallel(s["y"].axis[0]), "not independent")


def test_vectorize_on_a_loop_that_carries_a_dependence():
    s = Schedule(parse_func(RECURRENCE))
    refused(s, lambda: s["y"].vectorize(s["y"].axis[0]), "not independent")


def test_the_inner_loop_of_the_same_nest_carries_none():
    s = Schedule(parse_func(RECURRENCE))
    s["y"].vectorize(s["y"].axis[1])


def test_reorder_that_turns_a_dependence_round():
    s = Schedule(parse_func(RECURRENCE))
    i, j = s["y"].axis
    refused(s, lambda: s["y"].reorder(j, i), "depend on each other")


def test_vectorize_of_an_extent_that_is_no_constant():
    s = Schedule(programs.dense(te.var("M"), 16, 12))
    refused(s, lambda: s["out"].vectorize(s["out"].axis[0]), "not a constant")


def test_unroll_of_an_extent_that_is_no_constant():
    s = Schedule(programs.dense(te.var("M"), 16, 12))
    refused(s, lambda: s["out"].unroll(s["out"].axis[0]), "not a constant")


def test_parallel_over_a_temporary_that_iterations_share():
    s = Schedule(parse_func(SHARED))
    refused(s, lambda: s["t"].parallel(s["t"].loops[0]), "not independent")


def test_vectorize_over_a_temporary_that_iterations_share():
    s = Schedule(parse_func(SHARED))
    refused(s, lambda: s["t"].vectorize(s["t"].loops[0]), "not independent")


# -- splits and fusions --------------------------------------------------------------------------------------------


def test_fusing_a_parallel_loop_with_a_serial_one():
    s = dense()
    y = s["y"]
    y.reorder(y.axis[1], y.reduce_axis[0], y.axis[0])
    y.parallel(y.axis[1])
    refused(s, lambda: y.fuse(y.axis[1], y.reduce_axis[0]), "fuse before")


def test_shifted_tiles_of_a_parallel_loop_that_accumulate():
    s = dense()
    y = s["y"]
    y.parallel(y.axis[0])
    refused(s, lambda: y.split(y.axis[0], 3, tail="shift_inwards"), "accumulate")


def test_shifted_tiles_inside_the_reduction_loop():
    s = dense()
    y = s["y"]
    y.reorder(y.reduce_axis[0], *y.axis)
    refused(s, lambda: y.split(y.axis[0], 3, tail="shift_inwards"), "twice")


def test_shifted_tiles_of_a_reduction_loop():
    s = dense()
    refused(s, lambda: s["y"].split(s["y"].reduce_axis[0], 5, tail="shift_inwards"), "twice")


# -- where stages are computed -------------------------------------------------------------------------------------


def test_compute_at_too_deep():
    x = te.placeholder((8,), name="x")
    t = te.compute((8,), lambda i: x[i] + 1.0, name="t")
    a = te.compute((8,), lambda i: t[i] * 2.0, name="a")
    b = te.compute((8,), lambda i: t[i] + a[i], name="b")
    s = Schedule(te.create_prim_func("f", [x], [b]))
    s["a"].compute_at(s["b"], s["b"].axis[0])
    refused(s, lambda: s["t"].compute_at(s["a"], s["a"].axis[0]), "not inside")


def test_compute_at_a_nest_that_does_not_read_it():
    s = dense()
    copy = s.cache_read("x", "global", ["y"])
    refused(s, lambda: s["y"].compute_at(copy, copy.axis[0]), "not inside|nothing inside")


def test_compute_at_a_loop_of_its_own():
    s = dense()
    refused(s, lambda: s["y"].compute_at(s["y"], s["y"].axis[0]), "already inside")


def test_inlining_what_reads_a_private_buffer():
    s = Schedule(parse_func(PRODUCER))
    inner = s.cache_write("y")
    s["t"].compute_at(inner, inner.axis[0])
    refused(s, inner.compute_inline, "exists only inside")


def test_inlining_an_initialisation():
    s = dense()
    init = s["y"].decompose_reduction(s["y"].reduce_axis[0])
    refused(s, init.compute_inline, "written by y too")


# -- copies --------------------------------------------------------------------------------------------------------


def test_cache_read_by_the_stage_that_writes():
    s = dense()
    refused(s, lambda: s.cache_read("y", "global", ["y"]), "y writes y")


def test_cache_write_of_half_a_reduction():
    s = dense()
    s["y"].decompose_reduction(s["y"].reduce_axis[0])
    refused(s, lambda: s.cache_write("y"), "written by y_init too")


def test_transform_layout_with_a_map_that_fails():
    s = dense()
    copy = s.cache_read("w")
    refused(s, lambda: copy.transform_layout(lambda k: (k,)), "fails on 2 index")


# -- reductions ----------------------------------------------------------------------------------------------------


def test_rfactor_after_the_initialisation_was_split_off():
    s = dense()
    s["y"].decompose_reduction(s["y"].reduce_axis[0])
    refused(s, lambda: s["y"].rfactor(s["y"].reduce_axis[0]), "split off already")


def test_rfactor_of_a_reduction_loop_that_holds_another_stage():
    s = dense()
    y = s["y"]
    outer, inner = y.split(y.reduce_axis[0], 4)
    copy = s.cache_read("x", "global", [y])
    copy.compute_at(y, outer)
    refused(s, lambda: s["y"].rfactor(inner), "other stages are computed inside the reduction loop")


def test_decompose_inside_the_reduction():
    s = dense()
    y = s["y"]
    y.reorder(y.reduce_axis[0], *y.axis)
    refused(s, lambda: y.decompose_reduction(y.axis[0]), "outside of")


def test_decompose_outside_of_where_the_buffer_lives():
    s = dense()
    y, out = s["y"], s["out"]
    y.compute_at(out, out.axis[1])
    refused(s, lambda: y.decompose_reduction(out.axis[0]), "private to an iteration")


# -- found by fuzzing ----------------------------------------------------------------------------------------------


def test_a_predicate_on_the_initialisation_of_a_reduction():
    s = dense()
    init = s["y"].decompose_reduction(s["y"].axis[0])
    refused(s, lambda: init.set_store_predicate(lambda i: i < 1, init.axis[0]), "y writes y too")


def test_a_rolling_buffer_that_is_read_beyond_what_each_iteration_computes():
    x = te.placeholder((2, 17, 4), name="x")
    s = Schedule(te.create_prim_func("f", [x], [te.compute((2, 3, 16), lambda i, j, k: x[i, j, 0] + 1.0, name="a")]))
    inner, a = s.cache_write("a", "local"), s["a"]
    a.reverse_compute_at(inner, inner.axis[1])
    a.split(a.axis[1], 4)
    refused(s, inner.rolling_buffer, "compute rows j to j")


def test_fusing_elements_with_a_reduction_that_may_be_empty():
    s = Schedule(programs.dense(te.var("M"), te.var("N"), te.var("K")))
    y = s["y"]
    refused(s, lambda: y.fuse(y.axis[1], y.reduce_axis[0]), "may be empty")


def test_computing_a_stage_at_a_loop_of_its_own_that_others_share():
    x = te.placeholder((8,), name="x")
    t = te.compute((8,), lambda i: x[i] + 1.0, name="t")
    s = Schedule(te.create_prim_func("f", [x], [te.compute((8,), lambda i: t[i] * 2.0, name="b")]))
    outer, inner = s["t"].split(s["t"].axis[0], 2)
    s["b"].reverse_compute_at(s["t"], inner)
    refused(s, lambda: s["t"].compute_at(s["b"], outer), "loop of")
