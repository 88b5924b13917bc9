"""pad_einsum and decompose_padding."""

from __future__ import annotations

import numpy as np
import pytest

from tensorlang import te
from tensorlang.build import build
from tensorlang.errors import ScheduleError
from tensorlang.schedule import Schedule
from tests import programs
from tests.schedule.checks import body_of, check, replays


def einsum(source, out=(7,), reduced=(5,), reducer=te.sum, dtype="f32", shapes=((7, 5), (5,), (7,))):
    """y[i] = reducer over k of source(a, b, c, i, k)."""
    tensors = [te.placeholder(shape, name=name, dtype=dtype) for shape, name in zip(shapes, "abc", strict=True)]
    k = te.reduce_axis(reduced[0], name="k")
    y = te.compute(out, lambda i: reducer(source(*tensors, i, k), axis=k), name="y")
    return Schedule(te.create_prim_func("einsum", tensors, [y]))


# -- pad_einsum ----------------------------------------------------------------------------------------------------


def test_pad_einsum(golden):
    s = Schedule(programs.dense(7, 10, 5))
    made = s["y"].pad_einsum([4, 8, 4])
    assert [st.name for st in made] == ["x_pad", "w_pad", "y_crop"]
    golden(body_of(s))
    check(s)
    replays(s)


def test_a_padded_stage_is_tiled_without_guards():
    s = Schedule(programs.dense(7, 21, 5))
    y, out = s["y"], s["out"]
    x_pad, w_pad, crop = y.pad_einsum([4, 16, 1])
    crop.compute_inline()
    i, j = y.axis
    io, jo, ii, ji = y.tile(i, j, 4, 16)
    y.reorder(*y.reduce_axis, ii, ji)
    y.vectorize(ji)
    y.parallel(io)
    w_pad.vectorize(w_pad.axis[1])
    x_pad.compute_inline()
    assert "where" not in str(s)
    check(s)
    assert out.name == "out"


@pytest.mark.parametrize(("m", "k"), [(1, 1), (4, 8), (7, 9)])
def test_pad_einsum_of_symbolic_sizes(m, k):
    s = Schedule(programs.dense(te.var("M"), 10, te.var("K")))
    y = s["y"]
    y.pad_einsum([4, 1, 8])
    y.split(y.axis[0], 4)
    y.split(y.reduce_axis[0], 8)
    assert "where" not in str(s)
    check(s, M=m, K=k)


def test_only_the_reduction_is_padded():
    s = Schedule(programs.dense(7, 10, 5))
    assert [st.name for st in s["y"].pad_einsum([1, 1, 8])] == ["x_pad", "w_pad"]
    check(s)


def test_an_operand_without_a_padded_axis_is_read_as_it_is():
    s = Schedule(programs.dense(7, 10, 5))
    assert [st.name for st in s["y"].pad_einsum([4, 1, 1])] == ["x_pad", "y_crop"]
    check(s)


def test_a_maximum_is_padded_with_the_lowest_value():
    s = einsum(lambda a, b, c, i, k: a[i, k], reducer=te.max)
    s["y"].pad_einsum([1, 4])
    a = np.full((7, 5), -3, np.float32)
    expected = a.max(axis=1)
    np.testing.assert_array_equal(build(s)(a, np.zeros(5, np.float32), np.zeros(7, np.float32)), expected)
    check(s)


def test_infinities_do_not_leak_out_of_the_padding():
    s = einsum(lambda a, b, c, i, k: a[i, k] * b[k])
    s["y"].pad_einsum([4, 4])
    a, b = np.full((7, 5), np.inf, np.float32), np.ones(5, np.float32)
    np.testing.assert_array_equal(build(s)(a, b, np.zeros(7, np.float32)), a @ b)


def test_integers_are_padded_where_floats_are_not():
    s = einsum(lambda a, b, c, i, k: a[i, k] * c[i], dtype="i32")
    s["y"].pad_einsum([1, 8])
    assert "c_pad" not in str(s)
    rng = np.random.default_rng(0)
    a, b, c = (rng.integers(-9, 9, shape).astype(np.int32) for shape in ((7, 5), (5,), (7,)))
    np.testing.assert_array_equal(build(s)(a, b, c), (a * c[:, None]).sum(axis=1))


def test_int8_products_accumulated_wider():
    a, b = te.placeholder((7, 5), name="a", dtype="i8"), te.placeholder((5,), name="b", dtype="i8")
    k = te.reduce_axis(5, name="k")
    y = te.compute((7,), lambda i: te.sum(te.cast("i32", a[i, k]) * te.cast("i32", b[k]), axis=k), name="y")
    s = Schedule(te.create_prim_func("f", [a, b], [y]))
    s["y"].pad_einsum([4, 4])
    x, w = np.arange(-17, 18, dtype=np.int8).reshape(7, 5), np.arange(5, dtype=np.int8)
    np.testing.assert_array_equal(build(s)(x, w), x.astype(np.int32) @ w)


@pytest.mark.parametrize(
    ("source", "padding", "reason"),
    [
        (lambda a, b, c, i, k: a[i, k] * c[i], [1, 4], r"beyond the end of k, y would add 0\.0 \* c"),
        (lambda a, b, c, i, k: a[i, k] + b[k] + 1.0, [1, 4], "would add 1.0"),
        (lambda a, b, c, i, k: te.exp(a[i, k]), [1, 4], "would add exp"),
        (lambda a, b, c, i, k: a[i, k] * b[4 - k], [1, 4], "reads b at 4 - vk|reads b at"),
        (lambda a, b, c, i, k: a[i, k] * b[k], [4], "iteration variables: i, k"),
        (lambda a, b, c, i, k: a[i, k] * b[k], [4, 0], "positive integers, not 0"),
        (lambda a, b, c, i, k: a[i, k] * b[k], [4, 2.0], "positive integers, not 2.0"),
        (lambda a, b, c, i, k: a[i, k] * b[k], [7, 5], "are multiples of .7, 5. already"),
    ],
)
def test_pad_einsum_refuses(source, padding, reason):
    s = einsum(source)
    before = str(s)
    with pytest.raises(ScheduleError, match=reason):
        s["y"].pad_einsum(padding)
    assert str(s) == before and len(s.trace) == 0


def test_pad_einsum_refuses_what_is_no_reduction():
    s = Schedule(programs.dense(7, 10, 5))
    with pytest.raises(ScheduleError, match="out is not a reduction"):
        s["out"].pad_einsum([4, 4])


def test_pad_einsum_refuses_a_stage_that_was_transformed():
    s = Schedule(programs.dense(7, 10, 5))
    y = s["y"]
    y.split(y.axis[0], 4)
    with pytest.raises(ScheduleError, match="already transformed"):
        y.pad_einsum([4, 8, 4])


def test_pad_einsum_refuses_a_stage_inside_another_ones_loop():
    s = Schedule(programs.dense(7, 10, 5))
    s["y"].compute_at(s["out"], s["out"].axis[0])
    with pytest.raises(ScheduleError, match="call pad_einsum first"):
        s["y"].pad_einsum([4, 8, 4])


def test_pad_einsum_refuses_a_window():
    s = Schedule(programs.conv_nhwc(7, 4, 4))
    with pytest.raises(ScheduleError, match="only an iteration variable by itself"):
        s["conv"].pad_einsum([1, 4, 1, 1, 1, 1, 1])


def test_padding_what_is_padded_already_reads_nothing_beyond_its_operand():
    """Found by fuzzing: inlined again, the first padding is a guard, and the second one's copy has to have it too."""
    w = te.placeholder((6,), name="w")
    k = te.reduce_axis(6, name="k")
    s = Schedule(te.create_prim_func("f", [w], [te.compute((1,), lambda i: te.sum(w[k] * w[k], axis=k), name="a")]))
    s["a"].pad_einsum([1, 4])
    s["w_pad"].compute_inline()
    s["a"].pad_einsum([1, 16])
    check(s)
    replays(s)


# -- decompose_padding ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1, 3])
def test_decompose_padding(axis, golden):
    s = Schedule(programs.conv_nhwc(8, 4, 4))
    p = s["pad"]
    fill = p.decompose_padding(p.axis[axis])
    assert fill.name == "pad_fill" and "select" not in str(s)
    golden(body_of(s))
    check(s)
    replays(s)


def test_both_parts_are_scheduled_on():
    s = Schedule(programs.conv_nhwc(8, 16, 4))
    p = s["pad"]
    fill = p.decompose_padding(p.axis[0])
    fill.vectorize(fill.loops[-1])
    fill.parallel(fill.loops[1])
    p.vectorize(p.axis[-1])
    p.parallel(p.axis[1])
    check(s)
    replays(s)


def test_a_condition_on_split_loops_stays_a_guard():
    s = Schedule(programs.conv_nhwc(8, 4, 4))
    p = s["pad"]
    p.split(p.axis[1], 4)
    p.decompose_padding(p.axis[0])
    assert "select" not in str(s)
    check(s)


@pytest.mark.parametrize("n", [1, 2, 9])
def test_decompose_padding_of_a_symbolic_size(n):
    size = te.var("N")
    x = te.placeholder((size,), name="x")
    p = te.compute((size + 3,), lambda i: te.if_then_else(te.all_of(i >= 2, i < size + 2), x[i - 2], 1.0), name="p")
    out = te.compute((size,), lambda i: p[i] + p[i + 3], name="out")
    s = Schedule(te.create_prim_func("f", [x], [out]))
    s["p"].decompose_padding(s["p"].axis[0])
    assert "select" not in str(s) and "where" not in str(s)
    check(s, N=n)


def test_an_empty_inside():
    x = te.placeholder((8,), name="x")
    p = te.compute((8,), lambda i: te.if_then_else(te.all_of(i >= 5, i < 3), x[i], 1.0), name="p")
    s = Schedule(te.create_prim_func("f", [x], [p]))
    s["p"].decompose_padding(s["p"].axis[0])
    check(s)


def padding_of(value, n=8):
    x, t = te.placeholder((n,), name="x"), te.placeholder((n,), name="t", dtype="i32")
    p = te.compute((n,), lambda i: value(x, t, i), name="p")
    return Schedule(te.create_prim_func("f", [x, t], [p]))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (lambda x, t, i: x[i] + 1.0, "not a padding stage"),
        (lambda x, t, i: te.if_then_else(i < 3, x[i], x[0]), "is x.0., not a constant"),
        (lambda x, t, i: te.if_then_else(t[i] < 3, x[i], 0.0), "depends on memory"),
    ],
)
def test_decompose_padding_refuses(value, reason):
    s = padding_of(value)
    before = str(s)
    with pytest.raises(ScheduleError, match=reason):
        s["p"].decompose_padding(s["p"].axis[0])
    assert str(s) == before and len(s.trace) == 0


def test_decompose_padding_refuses_a_loop_of_others():
    s = Schedule(programs.conv_nhwc(8, 4, 4))
    p, conv = s["pad"], s["conv"]
    p.compute_at(conv, conv.axis[1])
    with pytest.raises(ScheduleError, match="not a loop of pad alone"):
        p.decompose_padding(conv.axis[1])


def test_decompose_padding_refuses_elements_written_twice():
    s = padding_of(lambda x, t, i: te.if_then_else(i < 3, x[i], 0.0), n=10)
    io, _ = s["p"].split(s["p"].axis[0], 4, tail="shift_inwards")
    with pytest.raises(ScheduleError, match="more than once"):
        s["p"].decompose_padding(io)


def test_decompose_padding_refuses_a_stage_that_was_decomposed():
    s = padding_of(lambda x, t, i: te.if_then_else(i < 3, x[i], 0.0))
    s["p"].decompose_padding(s["p"].axis[0])
    with pytest.raises(ScheduleError, match="not a padding stage"):
        s["p"].decompose_padding(s["p"].axis[0])
