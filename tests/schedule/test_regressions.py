"""Programs and steps that once came out wrong: each must be refused, or mean what the unscheduled program means."""

from __future__ import annotations

import numpy as np
import pytest

from tensorlang import te
from tensorlang.build import build
from tensorlang.errors import ScheduleError
from tensorlang.ir import interp
from tensorlang.ir.parser import parse_func
from tensorlang.ir.verify import verify
from tensorlang.lower.init import lower_init
from tensorlang.schedule import Schedule
from tensorlang.schedule.compute import has_value
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


# -- versions of a program: what is computed under a condition stays under it -----------------------------------------


def _two_products() -> Schedule:
    n = te.var("N")
    w = te.placeholder((n, n), name="w")
    t = te.compute((n, n), lambda i, j: w[i, j] + 1.0, name="t")
    k = te.reduce_axis(n, name="k")
    a = te.compute((n, n), lambda i, j: te.sum(t[i, k] * w[k, j], axis=k), name="a")
    return Schedule(te.create_prim_func("f", [w], [te.compute((n, n), lambda i, j: a[i, j] * 2.0, name="b")]))


def _to_the_root_and_back(s: Schedule, stage: str, reader: str) -> None:
    s[stage].compute_at(s[reader], s[reader].axis[0])
    s[stage].compute_root()


STEPS = {
    "compute_root": lambda s: _to_the_root_and_back(s, "t_fast", "a_fast"),
    "compute_root of a reduction": lambda s: _to_the_root_and_back(s, "a_fast", "b_fast"),
    "compute_inline": lambda s: s["t_fast"].compute_inline(),
    "cache_read": lambda s: s.cache_read("w", "global", ["a_fast"]),
    "cache_read of what one version computes": lambda s: s.cache_read("t_fast", "global", ["a_fast"]),
    "reindex": lambda s: s.reindex("a_fast", "w"),
    "reindex of what one version computes": lambda s: s.reindex("a_fast", "t_fast"),
    "cache_write": lambda s: s.cache_write("a_fast"),
    "rfactor": lambda s: s["a_fast"].rfactor(s["a_fast"].reduce_axis[0]),
    "pad_einsum": lambda s: s["a_fast"].pad_einsum([3, 4, 7]),
    "transform_layout": lambda s: s["t_fast"].transform_layout(lambda i, j: (i // 4, j, i % 4)),
    "decompose_reduction": lambda s: s["a_fast"].decompose_reduction(s["a_fast"].axis[0]),
}


@pytest.mark.parametrize("condition", [lambda n: te.equal(n, 1), lambda n: n >= 5, lambda n: te.equal(n % 4, 0)])
@pytest.mark.parametrize("step", STEPS)
def test_what_one_version_computes_is_computed_for_its_sizes_alone(step, condition):
    s = _two_products()
    s.specialize(condition(s.func.size_vars[0]))
    STEPS[step](s)
    verify(s.func)
    for n in (0, 1, 2, 4, 5):
        w = np.arange(n * n, dtype=np.float32).reshape(n, n)
        out = np.zeros((n, n), np.float32)
        interp.run(lower_init(s.func), [w, out, n])
        np.testing.assert_array_equal(out, 2 * ((w + 1) @ w))


CONDITIONAL = """\
def f(x: f32[4], y: f32[8]) -> y:
    for i in range(8):
        with alloc(f32[1]) as t:
            if i < 4:
                for j in range(1):
                    with block("t", v=spatial(1, j)):
                        t[v] = x[i]
                with block("y", v=spatial(8, i)):
                    y[v] = t[0] + 1.0
            else:
                with block("z", v=spatial(8, i)):
                    y[v] = 0.0"""

ACCUMULATED = """\
def f(x: f32[8, 3], y: f32[8]) -> y:
    for i in range(8):
        if i < 4:
            for k in range(3):
                with block("y", v=spatial(8, i), vk=reduce(3, k)):
                    with init():
                        y[v] = 0.0
                    y[v] = y[v] + x[v, vk]"""


def test_a_stage_does_not_leave_the_branch_that_makes_its_reads_safe():
    s = Schedule(parse_func(CONDITIONAL))
    with pytest.raises(ScheduleError, match="t is computed only where i < 4"):
        s["t"].compute_root()
    s = Schedule(parse_func(ACCUMULATED))
    with pytest.raises(ScheduleError, match="y is computed only where i < 4"):
        s["y"].decompose_reduction(s["y"].loops[0])


# -- what is in memory when it is read --------------------------------------------------------------------------------


def test_slots_of_a_rolling_buffer_are_stored_in_every_iteration():
    x = te.placeholder((3,), name="x")
    k = te.reduce_axis(2, name="k")
    s = Schedule(te.create_prim_func("f", [x], [te.compute((2,), lambda i: te.min(x[i + k], axis=k), name="b")]))
    copy = s.cache_read("x", "global", ["b"])
    copy.compute_at(s["b"], s["b"].axis[0])
    copy.rolling_buffer()
    with pytest.raises(ScheduleError, match=r"b reads x_global\[0\] at i=1"):
        copy.set_store_predicate(lambda i: i < 1, s["b"].axis[0])


def _two_readers() -> Schedule:
    x = te.placeholder((16,), name="x")
    y = te.compute((16,), lambda i: x[i] + 1.0, name="y")
    out = te.compute((16,), lambda i: y[i] * 2.0, name="out")
    return Schedule(te.create_prim_func("f", [x], [out, te.compute((16,), lambda i: y[i] * 3.0, name="z")]))


def test_compute_root_takes_a_stage_out_of_the_loops_that_reverse_compute_at_put_it_into():
    s = _two_readers()
    outer, _ = s["y"].split(s["y"].axis[0], 4)
    s["out"].vectorize(s["out"].split(s["out"].axis[0], 2)[1])
    s["out"].reverse_compute_at(s["y"], outer)
    before = str(s)
    s["out"].compute_root()
    assert str(s) != before and [loop.name for loop in s["out"].loops] == ["i_o_1", "i_i_1"]
    assert s.proof[-1].verdict.status == "proved"
    check(s)


def test_compute_root_of_a_stage_whose_source_lives_in_the_loop():
    x = te.placeholder((16,), name="x")
    y = te.compute((16,), lambda i: x[i] + 1.0, name="y")
    s = Schedule(te.create_prim_func("f", [x], [te.compute((16,), lambda i: y[i] * 2.0, name="out")]))
    s["out"].reverse_compute_at(s["y"], s["y"].split(s["y"].axis[0], 4)[0])
    with pytest.raises(ScheduleError, match="call compute_root for y first"):
        s["out"].compute_root()
    s["y"].compute_root()
    check(s)


PREFIX = """\
def f(x: i64[8], y: i64[1], z: i64[8]) -> (y, z):
    for k in range(8):
        with block("y", v=spatial(1, 0), vk=reduce(8, k)):
            with init():
                y[v] = 0
            y[v] = y[v] + x[vk]
        for j in range(1):
            with block("z", v=spatial(8, k + j)):
                z[v] = y[0]"""


def test_compute_root_leaves_a_stage_that_reads_partial_sums():
    s = Schedule(parse_func(PREFIX))
    with pytest.raises(ScheduleError, match="while y is still computing it|is not known"):
        s["z"].compute_root()


@pytest.mark.parametrize("guarded", [True, False])
def test_compute_at_divides_by_no_size_that_may_be_zero(guarded):
    m, n = te.var("M"), te.var("N")
    x, z = te.placeholder((m,), "f32", name="x"), te.placeholder((n,), "f32", name="z")
    p = te.compute((m,), lambda i: x[i] * 2.0, name="p")
    if guarded:
        y = te.compute((n,), lambda i: te.if_then_else(m > 0, p[i % m], 1.0) + z[i], name="y")
    else:
        y = te.compute((m * n,), lambda i: p[i % m] + z[i // m], name="y")
    s = Schedule(te.create_prim_func("f", [x, z], [y]))
    s["p"].compute_at(s["y"], s["y"].axis[0])
    assert ("range(M)" in str(s)) == guarded  # inside a loop of M*N iterations, M is not 0
    run = build(s)
    ones = np.ones(5, np.float32)
    for rows in (0, 1, 3):
        x_value = np.arange(rows, dtype=np.float32)
        filled = np.resize(x_value * 2, 5 if guarded else 5 * rows) if rows else ones[: 5 if guarded else 0]
        assert (run(x_value, ones) == filled + 1).all()


@pytest.mark.parametrize(
    "extent, known",
    [("M", 1), ("(M + 4) // 5", 1), ("M * N", 1), ("min(8, M - 8 * N)", 1), ("max(M, 2)", 0), ("M + 1", 0)],
)
def test_which_loops_say_that_a_size_is_not_zero(extent, known):
    m, n, i = te.var("M"), te.var("N"), te.var("i")
    size = eval(extent, {"M": m, "N": n, "min": te.minimum, "max": te.maximum})
    assert has_value((i % m, m), {i: size}) == bool(known)
    assert not has_value((i // n, n), {i: m})
    assert has_value((i // 4, m), {i: size})


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_a_part_computed_for_a_loop_that_may_not_run_at_all(rows):
    m = te.var("M")
    x = te.placeholder((m, 4), "f32", name="x")
    p = te.compute((m, 4), lambda i, j: x[i, j] * 2.0, name="p")
    k = te.reduce_axis(4, name="k")
    s = Schedule(te.create_prim_func("f", [x], [te.compute((4, m), lambda j, i: te.sum(p[i, k] * p[i, j], axis=k), name="y")]))
    s.specialize(m <= 1, "fast")
    s["p_fast"].compute_at(s["y_fast"], s["y_fast"].axis[0])
    s["p_fast"].split(s["p_fast"].axis[1], 2)
    s["y_fast"].split(s["y_fast"].axis[0], 1)
    assert "range(min(M, 1))" in str(s)
    check(s, M=rows)


def test_a_step_tried_out_on_data_that_clamped_indices_do_not_narrow():
    m = te.var("M")
    x = te.placeholder((m, m), "i32", name="x")
    k = te.reduce_axis(2, name="k")
    b = te.compute((m, 1, m), lambda i, j, h: te.max(x[i, h] * 2 + k.astype("i32"), axis=k), name="b")
    c = te.compute((m,), lambda i: b[i, te.maximum(te.minimum(x[i, i].astype("i64"), 0), 0), i].astype("f32"), name="c")
    s = Schedule(te.create_prim_func("f", [x], [te.compute((m, m), lambda i, j: c[j] * te.sin(c[i]), name="d")]))
    with pytest.raises(ScheduleError, match="shows a difference|is not computed there"):
        s["b"].set_store_predicate(lambda i: i < 1, s["b"].axis[0])


def test_reindex_divides_by_no_size_that_may_be_zero():
    n = te.var("N")
    x = te.placeholder((n,), "f32", name="x")
    y = te.compute((15,), lambda i: te.if_then_else(n > 0, x[i % n], 1.0), name="y")
    s = Schedule(te.create_prim_func("f", [x], [y]))
    with pytest.raises(ScheduleError, match="division by a size, which may be 0"):
        s.reindex("y", "x")
