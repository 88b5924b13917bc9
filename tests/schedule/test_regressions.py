"""Programs and steps that once came out wrong: each must be refused, or mean what the unscheduled program means."""

from __future__ import annotations

import numpy as np
import pytest

from tensorlang import te
from tensorlang.build import build
from tensorlang.errors import ScheduleError
from tensorlang.schedule import Schedule
from tests.schedule.checks import check


def _convolution() -> Schedule:
    x, w = te.placeholder((2, 12), "f32", name="x"), te.placeholder((3,), "f32", name="w")
    k = te.reduce_axis(3, name="k")
    y = te.compute((2, 10), lambda b, i: te.sum(x[b, i + k] * w[k], axis=k), name="y")
    return Schedule(te.create_prim_func("f", [x, w], [y]))


@pytest.mark.parametrize("at", [0, 1])
def test_shifted_tiles_do_not_accumulate_twice_into_what_was_initialised_before(at):
    s = _convolution()
    y = s["y"]
    y.decompose_reduction(y.axis[at])
    with pytest.raises(ScheduleError, match="y was initialised before i"):
        y.split(y.axis[1], 4, tail="shift_inwards")
    check(s)


def test_shifted_tiles_initialise_what_they_accumulate():
    s = _convolution()
    y = s["y"]
    y.decompose_reduction(y.reduce_axis[0])
    y.split(y.axis[1], 4, tail="shift_inwards")
    check(s)


def test_parts_of_a_loop_without_iterations_have_none():
    m, n = te.var("M"), te.var("N")
    x = te.placeholder((m, n), "f32", name="x")
    p = te.compute((m + 2, n), lambda i, j: te.select(te.all_of(i >= 1, i < m + 1), x[i - 1, j], -1.0), name="p")
    k = te.reduce_axis(3, name="k")
    y = te.compute((m, n), lambda i, j: te.max(p[i + k, j], axis=k), name="y")
    s = Schedule(te.create_prim_func("f", [x], [y]))
    s["p"].compute_inline()
    s["y"].loop_partition(s["y"].axis[0])
    for rows in (0, 1, 2, 5):
        for columns in (0, 3):
            if rows * columns:
                check(s, M=rows, N=columns)
            else:
                assert build(s)(np.zeros((rows, columns), np.float32)).shape == (rows, columns)


def test_lengths_of_parts_are_not_more_than_an_empty_loop_has():
    n = te.var("N")
    x = te.placeholder((n,), "f32", name="x")
    s = Schedule(te.create_prim_func("f", [x], [te.compute((n,), lambda i: x[i] + 1.0, name="y")]))
    with pytest.raises(ScheduleError, match="not known to be fewer"):
        s["y"].loop_partition(s["y"].axis[0], [1, None])


def test_sizes_at_which_a_window_is_wider_than_its_input_are_not_tried():
    m, n = te.var("M"), te.var("N")
    x = te.placeholder((m, n), "f32", name="x")
    a = te.compute((m - 2, n - 2), lambda i, j: x[i, j] + x[i + 2, j + 2], name="a")
    b = te.compute((m - 4, n - 4), lambda i, j: a[i, j] - a[i + 2, j + 1], name="b")
    s = Schedule(te.create_prim_func("f", [x], [b]))
    outer, inner = s["b"].split(s["b"].fuse(*s["b"].axis), 6)
    s["a"].compute_at(s["b"], outer)
    s["b"].vectorize(inner)
    data = np.arange(9 * 11, dtype=np.float32).reshape(9, 11) % 7
    first = data[:-2, :-2] + data[2:, 2:]
    np.testing.assert_array_equal(build(s)(data), first[:-2, :-2] - first[2:, 1:-1])
    assert s.proof[-2].verdict.status in ("proved", "unknown")
