"""The steps of a schedule as data and as text: replayed, they give the same program and the same code."""

import pytest
from hypothesis import given, note, strategies as st

from tensorlang import te
from tensorlang.build import build, schedule_of
from tensorlang.errors import ScheduleError
from tensorlang.ir.expr import var
from tensorlang.schedule import Schedule
from tensorlang.schedule.trace import Step, Trace
from tests.fuzz.budget import examples
from tests.fuzz.programs import programs
from tests.fuzz.steps import random_steps


def dense(m, n, k):
    x, w = te.placeholder((m, k), name="x"), te.placeholder((k, n), name="w")
    r = te.reduce_axis(k, "k")
    y = te.compute((m, n), lambda i, j: te.sum(x[i, r] * w[r, j], axis=r), name="y")
    out = te.compute((m, n), lambda i, j: te.maximum(y[i, j], 0), name="out")
    return te.create_prim_func("dense", [x, w], [out], constants=["w"])


def executed(text, func, name="schedule"):
    """A fresh schedule of `func` after the function that `text` defines."""
    names = {"te": te}
    exec(text, names)
    s = Schedule(func)
    assert names[name](s) is None
    return s


def test_text_of_a_hand_written_schedule():
    s = Schedule(dense(64, 96, 32))
    y, out = s["y"], s["out"]
    w = s.cache_read("w", "packed", ["y"])
    w.transform_layout(lambda k, j: (j // 16, k, j % 16))
    i, j = out.axis
    io, jo, ii, ji = out.tile(i, j, 8, 16)
    out.parallel(out.fuse(io, jo))
    y.compute_at(out, s["out"].loops[0])
    k = y.reduce_axis[0]
    y.reorder(k, *y.axis)
    ko, ki = y.split(k, nparts=4)
    y.pragma(ki, "note", "a \"quoted\" one")
    y.decompose_reduction(ko)
    assert s.trace.as_function() == '''\
def schedule(s: te.Schedule) -> None:
    y, out = s["y"], s["out"]
    w_packed = s.cache_read("w", "packed", ("y",))
    w_packed.transform_layout(lambda i0, i1: (i1 // 16, i0, i1 % 16,))
    i, j = out.axis
    io, ii = out.split(i, 8)
    jo, ji = out.split(j, 16)
    out.reorder(io, jo, ii, ji)
    io_jo = out.fuse(io, jo)
    out.parallel(io_jo)
    y.compute_at(out, io_jo)
    (k,) = y.reduce_axis
    i_1, j_1 = y.axis
    y.reorder(k, i_1, j_1)
    ko, ki = y.split(k, nparts=4)
    y.pragma(ki, "note", 'a "quoted" one')
    y.decompose_reduction(ko)
'''
    again = executed(s.trace.as_function("mine"), s.original, "mine")
    assert str(again) == str(s) and str(again.trace) == str(s.trace)


def test_sizes_in_factors():
    n = var("N")
    x = te.placeholder((n, n), name="x")
    func = te.create_prim_func("f", [x], [te.compute((n, n), lambda i, j: x[i, j] + 1, name="y")])
    s = Schedule(func)
    i, j = s["y"].axis
    s["y"].split(i, (n + 3) // 4)
    text = s.trace.as_function()
    assert "N = s.func.size_vars[0]" in text and "y.split(i, (N + 3) // 4)" in text
    assert str(executed(text, func)) == str(s)


def test_conditions_are_written_with_functions_of_te():
    func = dense(8, 8, 8)
    s = Schedule(func)
    s["out"].split(s["out"].axis[1], 4)
    s["out"].set_store_predicate(
        lambda i, jo, ji: te.any_of(te.not_equal(jo, 5), te.all_of(i < 8, te.minimum(ji, 3) + 1 <= 4)), *s["out"].loops
    )
    text = s.trace.as_function()
    assert "te.any_of(te.not_equal(i1, 5), te.all_of(i0 < 8, te.minimum(i2, 3) + 1 <= 4))" in text
    assert str(executed(text, func)) == str(s)


@pytest.mark.parametrize("sizes", [(512, 512, 512), (100, 100, 100), (var("M"), 96, var("K"))])
def test_default_schedules_print_short_and_replay_to_the_same_code(sizes):
    func = dense(*sizes)
    s = schedule_of(func)
    text = s.trace.as_function()
    assert text.count("\n") <= 40
    again = executed(text, func)
    assert str(again) == str(s) and build(again).source == build(s).source


def test_no_steps():
    s = Schedule(dense(4, 4, 4))
    assert s.trace.as_function() == "def schedule(s: te.Schedule) -> None:\n    pass\n"
    assert str(executed(s.trace.as_function(), s.original)) == str(s)


def test_refusals():
    with pytest.raises(ScheduleError, match="belong to no schedule"):
        Trace().as_function()
    s = Schedule(dense(4, 4, 4))
    s.trace.append(Step("pragma", "y", (s["y"].axis[0], "note", object())), ())
    with pytest.raises(ScheduleError, match="has no text"):
        s.trace.as_function()


def test_a_copy_keeps_its_own_steps():
    s = Schedule(dense(8, 8, 8))
    s["out"].split(s["out"].axis[0], 2)
    other = s.copy()
    other["out"].split(other["out"].axis[1], 4)
    assert len(s.trace) == 1 and s.trace.as_function().count("split") == 1
    assert str(executed(other.trace.as_function(), s.original)) == str(other)


@examples(60)
@given(programs(), st.data())
def test_text_of_random_schedules(program, data):
    s = Schedule(program.func)
    random_steps(data.draw, s, program)
    text = s.trace.as_function()
    note(f"{s.trace}\n{text}")
    again = executed(text, program.func)
    assert str(again) == str(s)
    assert str(again.trace) == str(s.trace)
