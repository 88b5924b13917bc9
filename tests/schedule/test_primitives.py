"""Every primitive: what it makes (structure), that the meaning stays (interpreter and native code), what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from tensorlang import te
from tensorlang.build import build
from tensorlang.errors import ScheduleError
from tensorlang.ir import interp
from tensorlang.ir.stmt import For
from tensorlang.ir.visitor import walk_stmt
from tensorlang.schedule import Schedule
from tests import programs


def loop_names(s: Schedule) -> list[str]:
    return [f"{n.var.name}:{n.extent}:{n.kind}" for n in walk_stmt(s.func.body) if isinstance(n, For)]


def check(s: Schedule, reference, **sizes):
    """The scheduled program equals the reference in the interpreter and as machine code."""
    arrays = programs.arrays_of(s.original, **sizes)
    expected = reference(*arrays)
    out = np.empty(expected.shape, expected.dtype)
    interp.run(s.func, [*arrays, out])
    np.testing.assert_allclose(out, expected, rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(build(s)(*arrays), expected, rtol=2e-5, atol=2e-5)


def dense(m=6, n=10, k=8):
    return Schedule(programs.dense(m, n, k))


def test_split_makes_two_loops():
    s = dense()
    i, _ = s["y"].axis
    s["y"].split(i, 3)
    assert loop_names(s)[:4] == ["i_o:2:serial", "i_i:3:serial", "j:10:serial", "k:8:serial"]
    check(s, programs.dense_reference)


def test_split_guards_a_ragged_tail():
    s = dense()
    _, j = s["y"].axis
    s["y"].split(j, 4)
    assert "where" in str(s)
    check(s, programs.dense_reference)


def test_split_shifts_the_last_tile_inwards():
    s = dense()
    i, j = s["out"].axis
    s["out"].split(j, 4, tail="shift_inwards")
    assert "min(" in str(s) and "where" not in str(s)
    check(s, programs.dense_reference)


def test_split_by_nparts():
    s = dense()
    i, _ = s["out"].axis
    outer, inner = s["out"].split(i, nparts=3)
    assert (str(s.extent(outer)), str(s.extent(inner))) == ("3", "2")
    check(s, programs.dense_reference)


def test_split_of_a_symbolic_loop():
    s = Schedule(programs.dense(te.var("M"), 10, 8))
    i, _ = s["out"].axis
    s["out"].split(i, 4)
    check(s, programs.dense_reference, M=7)


@pytest.mark.parametrize("factor", [0, -1])
def test_split_refuses_a_factor_that_is_not_positive(factor):
    s = dense()
    with pytest.raises(ScheduleError, match="positive"):
        s["y"].split(s["y"].axis[0], factor)


def test_split_refuses_shift_inwards_of_a_loop_that_may_be_too_short():
    s = Schedule(programs.dense(te.var("M"), 10, 8))
    with pytest.raises(ScheduleError, match="shift_inwards"):
        s["out"].split(s["out"].axis[0], 4, tail="shift_inwards")


def test_a_loop_that_was_split_is_gone():
    s = dense()
    i, _ = s["y"].axis
    s["y"].split(i, 2)
    with pytest.raises(ScheduleError, match="no longer exists"):
        s["y"].split(i, 2)


def test_fuse():
    s = dense()
    i, j = s["out"].axis
    fused = s["out"].fuse(i, j)
    assert str(s.extent(fused)) == "60"
    check(s, programs.dense_reference)


def test_fuse_refuses_loops_that_are_not_nested_directly():
    s = dense()
    i, j = s["y"].axis
    (k,) = s["y"].reduce_axis
    with pytest.raises(ScheduleError, match="directly"):
        s["y"].fuse(i, k)


def test_reorder():
    s = dense()
    y = s["y"]
    i, j = y.axis
    (k,) = y.reduce_axis
    y.reorder(k, j, i)
    assert [n.split(":")[0] for n in loop_names(s)[:3]] == ["k", "j", "i"]
    check(s, programs.dense_reference)


def test_reorder_refuses_loops_of_different_nests():
    s = dense()
    with pytest.raises(ScheduleError, match="same nest|not alone|perfectly"):
        s["y"].reorder(s["y"].axis[0], s["out"].axis[0])


def test_tile():
    s = dense()
    out = s["out"]
    out.tile(*out.axis, 3, 5)
    assert [n.split(":")[0] for n in loop_names(s)[3:]] == ["i_o", "j_o", "i_i", "j_i"]
    check(s, programs.dense_reference)


def test_vectorize_and_parallel():
    s = dense(6, 32, 8)
    out = s["out"]
    i, j = out.axis
    _, lane = out.split(j, 16)
    out.vectorize(lane)
    out.parallel(i)
    check(s, programs.dense_reference)
    assert "vstore(out" in build(s).source


def test_vectorize_refuses_a_symbolic_extent():
    s = Schedule(programs.chain(te.var("N")))
    with pytest.raises(ScheduleError, match="not a constant"):
        s["out"].vectorize(s["out"].axis[0])


def test_unroll():
    s = dense()
    s["out"].unroll(s["out"].axis[1])
    assert "j:10:unrolled" in loop_names(s)
    check(s, programs.dense_reference)


def test_compute_at_makes_the_producer_private():
    s = dense()
    y, out = s["y"], s["out"]
    i, j = out.axis
    jo, ji = out.split(j, 5)
    y.compute_at(out, jo)
    assert [n.split(":")[:2] for n in loop_names(s)] == [
        ["i", "6"], ["j_o", "2"], ["i", "1"], ["j", "5"], ["k", "8"], ["j_i", "5"],
    ]  # fmt: skip
    check(s, programs.dense_reference)


def test_compute_at_with_ragged_tiles():
    s = dense(7, 11, 5)
    y, out = s["y"], s["out"]
    io, jo, ii, ji = out.tile(*out.axis, 4, 8)
    y.compute_at(out, jo)
    check(s, programs.dense_reference)


def test_compute_at_refuses_an_output():
    s = dense()
    with pytest.raises(ScheduleError, match="output"):
        s["out"].compute_at(s["y"], s["y"].axis[0])


def test_compute_at_refuses_a_loop_without_all_readers():
    x = te.placeholder((8,), name="x")
    y = te.compute((8,), lambda i: x[i] + 1.0, name="y")
    a = te.compute((8,), lambda i: y[i] * 2.0, name="a")
    b = te.compute((8,), lambda i: y[i] * a[i], name="b")
    s = Schedule(te.create_prim_func("f", [x], [b]))
    with pytest.raises(ScheduleError, match="not inside"):
        s["y"].compute_at(s["b"], s["b"].axis[0])


def test_compute_inline():
    s = Schedule(programs.chain(20))
    s["e"].compute_inline()
    assert [st.name for st in s.stages] == ["out"]
    check(s, lambda x: np.exp(x) * 2 + x)


def test_compute_inline_refuses_a_reduction():
    s = dense()
    with pytest.raises(ScheduleError, match="reduction"):
        s["y"].compute_inline()


def test_cache_read():
    s = dense()
    copy = s.cache_read("w", "global", ["y"])
    assert copy.name == "w_global"
    check(s, programs.dense_reference)


def test_cache_write():
    s = dense()
    inner = s.cache_write("out")
    assert inner.name == "out_local"
    check(s, programs.dense_reference)


def test_transform_layout_pads_with_zeros():
    s = dense()
    copy = s.cache_read("w", "packed", ["y"])
    copy.transform_layout(lambda k, j: (j // 4, k, j % 4))
    assert "w_packed = alloc(f32[3, 8, 4]" in str(s)
    check(s, programs.dense_reference)


def test_transform_layout_refuses_a_map_that_is_not_a_bijection():
    s = dense()
    copy = s.cache_read("w", "packed", ["y"])
    with pytest.raises(ScheduleError, match="transform_layout"):
        copy.transform_layout(lambda k, j: (j // 4, k, j % 2))


def test_rfactor():
    s = dense()
    y = s["y"]
    (k,) = y.reduce_axis
    _, inner = y.split(k, 4)
    part = y.rfactor(inner)
    assert part.name == "y_rf"
    check(s, programs.dense_reference)


def test_rfactor_with_a_ragged_reduction():
    s = dense(6, 10, 7)
    y = s["y"]
    (k,) = y.reduce_axis
    _, inner = y.split(k, 4)
    y.rfactor(inner, factor_axis=-1)
    check(s, programs.dense_reference)


def test_rfactor_refuses_a_spatial_loop():
    s = dense()
    with pytest.raises(ScheduleError, match="not a reduction loop"):
        s["y"].rfactor(s["y"].axis[0])


def test_decompose_reduction():
    s = dense()
    y = s["y"]
    init = y.decompose_reduction(y.reduce_axis[0])
    assert init.name == "y_init"
    check(s, programs.dense_reference)


def test_a_refused_step_leaves_the_schedule_as_it_was():
    s = dense()
    before, steps = str(s), len(s.trace)
    with pytest.raises(ScheduleError):
        s["y"].compute_inline()
    assert str(s) == before and len(s.trace) == steps


def test_errors_name_the_users_line():
    s = dense()
    with pytest.raises(ScheduleError, match=r"test_primitives\.py:\d+"):
        s["y"].compute_inline()


def test_trace_replays_to_the_same_program():
    s = dense(12, 32, 8)
    y, out = s["y"], s["out"]
    io, jo, ii, ji = out.tile(*out.axis, 4, 16)
    y.compute_at(out, jo)
    i, j = y.axis
    y.reorder(*y.reduce_axis, i, j)
    y.vectorize(j)
    out.parallel(io)
    again = Schedule(s.original)
    s.trace.replay(again)
    assert str(again) == str(s)
    assert build(again).source == build(s).source


def test_copy_is_independent():
    s = dense()
    t = s.copy()
    t["y"].split(t["y"].axis[0], 2)
    assert str(s) != str(t) and len(s.trace) == 0
