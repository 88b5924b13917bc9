"""In which memory, and in which order, stages are stored: copies, layouts, scopes, padding, circular buffers, predicates."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tensorlang import te
from tensorlang.build import build
from tensorlang.ir import interp
from tensorlang.ir.expr import var
from tensorlang.ir.parser import parse_func
from tensorlang.ir.stmt import Allocate, For
from tensorlang.ir.visitor import walk_stmt
from tensorlang.lower import PASSES, lower, with_prefetch
from tensorlang.schedule import Schedule
from tests import programs
from tests.schedule.test_placement import chain, dense, elementwise, nest, refused
from tests.schedule.test_primitives import check


def stencil(rows: object, stride: int = 1, taps: int = 3) -> tuple[Schedule, Callable[..., np.ndarray]]:
    """out[i, j] = sum over t of (2 * x + 1)[stride*i + t, j]"""
    x = te.placeholder((rows, 10), name="x")
    y = te.compute((rows, 10), lambda i, j: x[i, j] * 2.0 + 1.0, name="y")

    def window(i, j):
        total = y[i * stride, j]
        for t in range(1, taps):
            total = total + y[i * stride + t, j]
        return total

    out = te.compute(((rows - taps) // stride + 1, 10), window, name="out")

    def reference(x: np.ndarray) -> np.ndarray:
        n = (len(x) - taps) // stride + 1
        return sum((x * 2 + 1)[t : t + stride * (n - 1) + 1 : stride] for t in range(taps))

    return Schedule(te.create_prim_func("stencil", [x], [out])), reference


def shapes(s: Schedule) -> dict[str, str]:
    return {a.buffer.name: str(a.buffer.shape[0]) for a in walk_stmt(s.func.body) if isinstance(a, Allocate)}


# -- cache_read ----------------------------------------------------------------------------------------------------


def test_a_copy_is_computed_at_any_loop_of_its_reader(golden):
    s = dense()
    y, out = s["y"], s["out"]
    io, jo, ii, ji = out.tile(*out.axis, 4, 16)
    y.compute_at(out, jo)
    w = s.cache_read("w", "packed", [y])
    w.compute_at(out, jo)
    ko, ki = y.split(y.reduce_axis[0], 4)
    y.reorder(ko, *y.axis, ki)
    x = s.cache_read("x", "local", [y])
    x.compute_at(y, ko)
    golden(nest(s))
    check(s, programs.dense_reference)


def test_cache_read_of_a_private_tensor_copies_what_is_read_there(golden):
    s = dense(13, 30, 8)
    y, out = s["y"], s["out"]
    _, jo, ii, _ = out.tile(*out.axis, 4, 16)
    y.compute_at(out, jo)
    copy = s.cache_read("y", "local", [out])
    assert [str(s.extent(a)) for a in copy.axis] == ["4", "16"]
    copy.compute_at(out, ii)
    golden(nest(s))
    check(s, programs.dense_reference)


def test_cache_read_for_one_of_two_readers():
    s, reference = elementwise()
    s.cache_read("a", "global", ["c"])
    assert [x.name for x in s.stages] == ["a", "b", "a_global", "c"] or "a_global" in str(s)
    check(s, reference)


def test_cache_read_refuses_a_stage_that_does_not_read_it():
    s = dense()
    refused(s, lambda: s.cache_read("w", "global", ["out"]), "out does not read w")


def test_cache_read_refuses_the_writer():
    s = dense()
    refused(s, lambda: s.cache_read("y", "global", ["y"]), "y writes y")


def test_cache_read_refuses_an_unknown_tensor_and_scope():
    s = dense()
    refused(s, lambda: s.cache_read("q"), "no tensor 'q'")
    refused(s, lambda: s.cache_read("w", "somewhere"), "no scope")


def test_cache_read_refuses_readers_in_the_loops_that_write():
    s = Schedule(
        parse_func("""
@prim_func()
def f(x: f32[8], out: f32[8]) -> out:
    y = alloc(f32[8])
    for i in range(8):
        with block("y", vi=spatial(8, i)):
            y[vi] = x[vi]
        with block("out", vi=spatial(8, i)):
            out[vi] = y[vi] * 2.0
""")
    )
    refused(s, lambda: s.cache_read("y"), "in the loops that write it")


# -- cache_write ---------------------------------------------------------------------------------------------------


def test_cache_write_takes_the_loops_of_a_scheduled_stage(golden):
    s = dense()
    y = s["y"]
    i, j = y.axis
    io, ii = y.split(i, 4)
    ko, ki = y.split(y.reduce_axis[0], 4)
    y.reorder(ko, io, j, ki, ii)
    inner = s.cache_write(y)
    yo, _ = y.split(y.axis[0], 6)
    inner.compute_at(y, yo)
    golden(nest(s))
    check(s, programs.dense_reference)


def test_cache_write_inside_a_loop_of_another_stage(golden):
    s = dense()
    y, out = s["y"], s["out"]
    _, jo, _, _ = out.tile(*out.axis, 5, 16)
    y.compute_at(out, jo)
    inner = s.cache_write(y)
    inner.split(inner.axis[1], 8)
    golden(nest(s))
    check(s, programs.dense_reference)


def test_cache_write_takes_what_is_computed_inside():
    s = dense()
    y, out = s["y"], s["out"]
    y.compute_at(out, out.axis[0])
    s.cache_write(out)
    assert [x.name for x in s.stages] == ["y", "out_local", "out"]
    check(s, programs.dense_reference)


def test_cache_write_refuses_half_a_reduction():
    s = dense()
    s["y"].decompose_reduction(s["y"].reduce_axis[0])
    refused(s, lambda: s.cache_write("y"), "written by y_init too")


def test_cache_write_refuses_a_scope_that_does_not_exist():
    s = dense()
    refused(s, lambda: s.cache_write("y", "nowhere"), "no scope")


# -- transform_layout ----------------------------------------------------------------------------------------------


def test_transform_layout_inside_a_loop(golden):
    s = dense(13, 30, 8)
    y, out = s["y"], s["out"]
    _, jo, _, _ = out.tile(*out.axis, 4, 16)
    y.compute_at(out, jo)
    w = s.cache_read("w", "packed", [y])
    w.compute_at(out, jo)
    w.transform_layout(lambda k, j: (j // 8, k, j % 8))
    golden(nest(s))
    check(s, programs.dense_reference)


def test_transform_layout_refuses_a_reduction_a_parameter_and_inner_stages():
    s = dense()
    refused(s, lambda: s["y"].transform_layout(lambda i, j, k: (j, i)), "not a plain stage")
    refused(s, lambda: s["out"].transform_layout(lambda i, j: (j, i)), "is a parameter")
    t, _ = elementwise()
    t["a"].compute_inline()
    copy = t.cache_read("x", "global", ["b"])
    copy.compute_at(t["b"], t["b"].axis[0])
    refused(t, lambda: t["b"].transform_layout(lambda i, j: (j, i)), "computed in the loops of b")


@pytest.mark.parametrize(
    "index_map, reason",
    [
        (lambda i, j: (i, i), "appears twice"),
        (lambda i, j: (i,), "must appear once"),
        (lambda i, j: (i + j, j), "is none of"),
        (lambda i, j: (i // 4, j, i % 2), "must appear once"),
        (lambda i: (i,), "the map fails"),
    ],
)
def test_transform_layout_refuses_what_is_no_bijection(index_map, reason):
    s, _ = elementwise()
    refused(s, lambda: s["a"].transform_layout(index_map), reason)


# -- reindex -------------------------------------------------------------------------------------------------------


def windows(pad: bool = False) -> tuple[Schedule, Callable[..., np.ndarray]]:
    x, w = te.placeholder((19,), name="x"), te.placeholder((3,), name="w")
    k = te.reduce_axis(3, "k")

    def element(i):
        return te.if_then_else(i * 2 + k < 19, x[i * 2 + k], 0.0) if pad else x[i * 2 + k]

    n = 10 if pad else 9
    y = te.compute((n,), lambda i: te.sum(element(i) * w[k], axis=k), name="y")

    def reference(x: np.ndarray, w: np.ndarray) -> np.ndarray:
        padded = np.concatenate([x, np.zeros(2, x.dtype)])
        return np.array([(padded[2 * i : 2 * i + 3] * w).sum() for i in range(n)], x.dtype)

    return Schedule(te.create_prim_func("windows", [x, w], [y])), reference


@pytest.mark.parametrize("pad", [False, True])
def test_reindex_makes_a_window_a_matrix(pad, golden):
    s, reference = windows(pad)
    y = s["y"]
    copy = s.reindex(y, "x")
    io, _ = y.split(y.axis[0], 4)
    copy.compute_at(y, io)
    golden(nest(s), f"reindex_pad_{pad}")
    check(s, reference)


def test_reindex_refuses():
    s, _ = windows()
    refused(s, lambda: s.reindex("y", "y"), "in the order of its axes already")
    t, _ = stencil(12)
    refused(t, lambda: t.reindex("out", "y"), "3 different elements")
    refused(t, lambda: t.reindex("y", "out"), "does not read out")


# -- set_scope, storage_align --------------------------------------------------------------------------------------


def test_set_scope():
    s = dense()
    y, out = s["y"], s["out"]
    y.set_scope("local")
    y.compute_at(out, out.axis[0])
    assert 'y = alloc(f32[12, 32], scope="local")' in str(s)
    check(s, programs.dense_reference)


def test_a_large_local_buffer_does_not_go_on_the_stack():
    s, reference = chain(3 * 65536)
    s["out"].split(s["out"].axis[0], 65536)
    s["y"].set_scope("local")
    s["y"].compute_at(s["out"], s["out"].loops[0])
    assert "local_array" not in build(s).source
    check(s, reference)


# -- prefetch ------------------------------------------------------------------------------------------------------


def rows(m: object, n: object) -> Schedule:
    """y[i] = sum of x[i, :]"""
    x, k = te.placeholder((m, n), name="x"), te.reduce_axis(n, name="k")
    return Schedule(te.create_prim_func("f", [x], [te.compute((m,), lambda i: te.sum(x[i, k], axis=k), name="y")]))


PREFETCHED = """\
    for i in range(12):
        if i + 2 < 12:
            for i_line in range(3):
                prefetch(x, i * 40 + i_line * 16 + 80)
"""


def test_prefetch_names_each_line_of_a_later_iteration_once():
    s = rows(12, 40)
    s["y"].prefetch("x", s["y"].axis[0], 2)
    assert 'for i in range(12, prefetch=(("x", 2),)):' in nest(s)
    assert str(parse_func(nest(s))) == nest(s)
    kernel = build(s)
    assert PREFETCHED in kernel.source
    assert "prefetcht0" in kernel.asm
    check(s, lambda x: x.sum(1))


@pytest.mark.parametrize("m, n", [(9, 33), (1, 1), (5, 0), (0, 4)])
def test_prefetch_of_ragged_symbolic_tiles_names_only_what_there_is(m, n):
    s = rows(te.var("M"), te.var("N"))
    outer, _ = s["y"].split(s["y"].axis[0], 4)
    s["y"].prefetch("x", outer)
    s["y"].prefetch("x", s["y"].reduce_axis[0], 3)
    x = np.arange(m * n, dtype=np.float32).reshape(m, n)
    lowered = lower(s.func, with_prefetch(PASSES))[-1].func
    y = np.zeros(m, np.float32)
    interp.run(lowered, [x.reshape(-1), y, m, n])  # a line outside of x is an error here
    assert (y == x.sum(1)).all() and (build(s)(x) == y).all()


SHARED = """\
        for k_o in range(20):
            prefetch(w, at2 * 640 + at1 * 320 + k_o * 16)
            for k_i in unrolled(2):
"""


def panels(m: object, k: int, n: int) -> Schedule:
    """y[i, p, j] = sum over k of x[i, k] * w[p, k, j], panel by panel, two tiles of four rows each"""
    x, w, r = te.placeholder((m, k), name="x"), te.placeholder((n, k, 16), name="w"), te.reduce_axis(k, name="k")
    y = te.compute((m, n, 16), lambda i, p, j: te.sum(x[i, r] * w[p, r, j], axis=r), name="y")
    s = Schedule(te.create_prim_func("f", [x, w], [y]))
    i, p, j = s["y"].axis
    outer, inner = s["y"].split(i, 4)
    s["y"].reorder(p, outer, s["y"].reduce_axis[0], inner, j)
    s["y"].vectorize(j)
    return s


def product(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    return np.einsum("ik,pkj->ipj", x, w)


def test_prefetch_shared_among_iterations_asks_for_each_line_once():
    s = panels(8, 40, 3)
    y = s["y"]
    at = y.fuse(*y.loops[:2])
    outer, inner = y.split(y.reduce_axis[0], 2)
    y.unroll(inner)
    y.prefetch("w", at, 2, among=2, over=outer)
    assert 'prefetch=(("w", 2, 2),)' in nest(s)
    (within,) = [line for line in nest(s).splitlines() if 'prefetch_within=("w",)' in line]
    assert f"for {outer.name} in " in within
    assert str(parse_func(nest(s))) == nest(s)
    kernel = build(s)
    assert SHARED in kernel.source
    assert "at2 = floordiv_pos(minimum(p_i_o + 2, 5), 2)" in kernel.source  # 2 times 20 shares: the 40 lines of the panel
    check(s, product)


@pytest.mark.parametrize("m, k, n", [(9, 5, 2), (3, 1, 1), (8, 64, 3)])
def test_prefetch_shared_names_only_what_there_is(m, k, n):
    s = panels(te.var("M"), k, n)
    s["y"].prefetch("w", s["y"].loops[0], 1, over=s["y"].reduce_axis[0])
    s["y"].prefetch("x", s["y"].loops[1], 3, among=2, over=s["y"].reduce_axis[0])
    x, w = (np.arange(np.prod(size), dtype=np.float32).reshape(size) for size in ((m, k), (n, k, 16)))
    lowered = lower(s.func, with_prefetch(PASSES))[-1].func
    y = np.zeros(m * n * 16, np.float32)
    interp.run(lowered, [x.reshape(-1), w.reshape(-1), y, m])  # a line outside is an error here
    np.testing.assert_allclose(y.reshape(m, n, 16), product(x, w), rtol=1e-5)
    np.testing.assert_allclose(build(s)(x, w), product(x, w), rtol=1e-5)


def test_prefetch_of_what_is_read_elsewhere_by_now_is_no_instruction():
    s = rows(12, 40)
    s["y"].prefetch("x", s["y"].axis[0])
    s.cache_read("x", "global", [s["y"]])
    assert "prefetch(x" not in build(s).source
    check(s, lambda x: x.sum(1))


def test_prefetch_refuses():
    s = dense()
    y, out = s["y"], s["out"]
    refused(s, lambda: out.prefetch("x", out.axis[0]), "nothing in .* reads 'x'; it reads: b, y")
    refused(s, lambda: out.prefetch("y", y.axis[0]), "is not a loop of stage out")
    refused(s, lambda: out.prefetch("y", out.axis[0], 0), "a number of iterations from 1 on")
    refused(s, lambda: out.prefetch("y", out.axis[0], among=2), "name it by over=")
    refused(s, lambda: out.prefetch("y", out.axis[0], among=0, over=out.axis[1]), "among how many is a number")
    refused(s, lambda: out.prefetch("y", out.axis[1], over=out.axis[0]), "is no loop within")
    refused(s, lambda: out.annotate(out.axis[0], "prefetch", (("y", 1),)), "part of the program")
    out.vectorize(out.axis[1])
    refused(s, lambda: out.prefetch("y", out.axis[1]), "iterations are lanes")
    y.compute_at(out, out.axis[0])
    refused(s, lambda: out.prefetch(y, out.axis[0]), "private to an iteration")


def test_set_scope_refuses():
    s = dense()
    refused(s, lambda: s["out"].set_scope("local"), "is a parameter")
    refused(s, lambda: s["y"].set_scope("nowhere"), "no scope")


@pytest.mark.parametrize("factor, offset, row", [(16, 0, 32), (16, 1, 33), (1, 0, 30), (7, 3, 31)])
def test_storage_align_pads_rows(factor, offset, row):
    s = dense(12, 30, 8)
    s["y"].storage_align(0, factor, offset)
    flat = next(stage.func for stage in lower(s.func) if stage.name == "flatten")
    assert f"y = alloc(f32[{12 * row}])" in str(flat)
    assert str(parse_func(nest(s))) == nest(s)
    check(s, programs.dense_reference)


def test_storage_align_of_private_rows_and_outer_axes():
    s = dense(12, 30, 8)
    y, out = s["y"], s["out"]
    y.storage_align(-2, 16)
    io, _ = out.split(out.axis[0], 4)
    y.compute_at(out, io)
    flat = next(stage.func for stage in lower(s.func) if stage.name == "flatten")
    assert 'y = alloc(f32[128], scope="local")' in str(flat)
    check(s, programs.dense_reference)


def test_storage_align_of_a_symbolic_row():
    s = Schedule(programs.dense(te.var("M"), te.var("N"), te.var("K")))
    s["y"].storage_align(0, 8, 1)
    check(s, programs.dense_reference, M=7, N=11, K=5)


def test_storage_align_refuses():
    s = dense()
    refused(s, lambda: s["out"].storage_align(0, 16), "is a parameter")
    refused(s, lambda: s["y"].storage_align(1, 16), "side by side")
    refused(s, lambda: s["y"].storage_align(5, 16), "none of number 5")
    refused(s, lambda: s["y"].storage_align(0, 0), "at least 1")
    refused(s, lambda: s["y"].storage_align(0, 4, 4), "offset below")


# -- rolling_buffer ------------------------------------------------------------------------------------------------


def test_rolling_buffer_computes_each_row_once(golden):
    s, reference = stencil(12)
    y, out = s["y"], s["out"]
    y.compute_at(out, out.axis[0])
    y.rolling_buffer()
    assert shapes(s) == {"y": "3"}
    golden(nest(s))
    check(s, reference)


@pytest.mark.parametrize("stride, taps", [(1, 2), (2, 3), (2, 5), (3, 4)])
def test_rolling_buffer_inside_tiles(stride, taps):
    s, reference = stencil(31, stride, taps)
    y, out = s["y"], s["out"]
    jo, ji = out.split(out.axis[1], 4)
    io, ii = out.split(out.axis[0], 4)
    out.reorder(io, jo, ii, ji)
    y.split(y.axis[1], 3)
    y.compute_at(out, ii)
    y.rolling_buffer(ii)
    out.split(ii, 3)
    out.parallel(io)
    check(s, reference)


def test_rolling_buffers_of_a_chain():
    x = te.placeholder((20, 6), name="x")
    a = te.compute((20, 6), lambda i, j: x[i, j] * 2.0, name="a")
    b = te.compute((18, 6), lambda i, j: a[i, j] + a[i + 1, j] + a[i + 2, j], name="b")
    c = te.compute((16, 6), lambda i, j: b[i, j] + b[i + 1, j] * b[i + 2, j], name="c")
    s = Schedule(te.create_prim_func("f", [x], [c]))
    i = s["c"].axis[0]
    s["b"].compute_at(s["c"], i)
    s["a"].compute_at(s["c"], i)
    s["b"].rolling_buffer()
    s["a"].rolling_buffer()
    assert shapes(s) == {"b": "3", "a": "5"}

    def reference(x: np.ndarray) -> np.ndarray:
        b = x[:-2] * 2 + x[1:-1] * 2 + x[2:] * 2
        return b[:-2] + b[1:-1] * b[2:]

    check(s, reference)


def test_rolling_buffer_of_symbolic_rows():
    s, reference = stencil(te.var("N"))
    s["y"].compute_at(s["out"], s["out"].axis[0])
    s["y"].rolling_buffer()
    check(s, reference, N=9)


def test_rolling_buffer_keeps_its_loop_in_order():
    s, _ = stencil(12)
    y, out = s["y"], s["out"]
    i = out.axis[0]
    y.compute_at(out, i)
    y.rolling_buffer()
    refused(s, lambda: out.parallel(i), "not independent")
    refused(s, lambda: out.split(i, 4, tail="shift_inwards"), "in order")
    refused(s, lambda: y.compute_at(out, out.axis[1]), "after rolling_buffer")
    refused(s, y.compute_root, "after rolling_buffer")
    refused(s, y.compute_inline, "order of its axes")


def test_rolling_buffer_refuses_a_stage_at_the_root_and_other_loops():
    s, _ = stencil(12)
    y, out = s["y"], s["out"]
    refused(s, y.rolling_buffer, "at the root")
    io, ii = out.split(out.axis[0], 5)
    y.compute_at(out, ii)
    refused(s, lambda: y.rolling_buffer(io), "computed at i_i, not at i_o")


def test_rolling_buffer_refuses_parallel_loops():
    s, _ = stencil(12)
    y, out = s["y"], s["out"]
    y.compute_at(out, out.axis[0])
    out.parallel(out.axis[0])
    refused(s, y.rolling_buffer, "cannot use what earlier ones")


def test_rolling_buffer_refuses_windows_that_share_nothing():
    s, _ = stencil(12, stride=3, taps=3)
    s["y"].compute_at(s["out"], s["out"].axis[0])
    refused(s, s["y"].rolling_buffer, "share nothing")


def test_rolling_buffer_refuses_what_does_not_move():
    s = dense()
    w = s.cache_read("w", "global", ["y"])
    w.compute_at(s["y"], s["y"].axis[0])
    refused(s, w.rolling_buffer, "no dimension")


def test_rolling_buffer_refuses_windows_that_move_backwards():
    x = te.placeholder((12,), name="x")
    y = te.compute((12,), lambda i: x[i] + 1.0, name="y")
    out = te.compute((10,), lambda i: y[11 - i] + y[10 - i], name="out")
    s = Schedule(te.create_prim_func("f", [x], [out]))
    s["y"].compute_at(s["out"], s["out"].axis[0])
    refused(s, s["y"].rolling_buffer, "no window that moves forward")


# -- set_store_predicate -------------------------------------------------------------------------------------------


def test_set_store_predicate_where_everything_is_still_written(golden):
    """Two iterations of t compute the same; one of them is enough."""
    s = Schedule(
        parse_func("""
@prim_func()
def f(x: f32[8], out: f32[8]) -> out:
    for t in range(2):
        for i in range(8):
            with block("out", vi=spatial(8, i)):
                out[vi] = x[vi] * 2.0
""")
    )
    out = s["out"]
    t, _ = out.loops
    out.set_store_predicate(lambda t: t.equal(0), t)
    golden(nest(s))
    check(s, lambda x: x * 2)
    again = Schedule(s.original)
    s.trace.replay(again)
    assert str(again) == str(s)


def test_set_store_predicate_as_an_expression():
    s = dense()
    out = s["out"]
    io, ii = out.split(out.axis[0], 5)
    out.set_store_predicate(io.var * 5 + ii.var < 12)
    check(s, programs.dense_reference)
    refused(s, lambda: out.compute_inline(), "is an output")


def test_set_store_predicate_on_the_reduction_stores_the_result_once():
    s = dense()
    y = s["y"]
    before = nest(s)
    y.set_store_predicate(lambda k: k.equal(0), y.reduce_axis[0])
    assert nest(s) == before
    check(s, programs.dense_reference)


def test_set_store_predicate_refuses_to_leave_elements_out():
    s = dense()
    y, out = s["y"], s["out"]
    refused(s, lambda: out.set_store_predicate(lambda i: i < 11, out.axis[0]), r"no longer writes out\[11, 0\]")
    refused(s, lambda: y.set_store_predicate(lambda i: i < 11, y.axis[0]), r"out reads y\[11, 0\]")


def test_set_store_predicate_refuses():
    s = dense()
    y, out = s["y"], s["out"]
    (k,) = y.reduce_axis
    refused(s, lambda: y.set_store_predicate(lambda k: k.equal(8), k), "nothing would be stored")
    refused(s, lambda: y.set_store_predicate(lambda i, k: te.all_of(i < 3, k < 3), y.axis[0], k), "one condition on both")
    refused(s, lambda: y.set_store_predicate(var("q") < 3), "q is no loop around y")
    refused(s, lambda: out.set_store_predicate(lambda i: i < 3, k), "no loop around out")
    refused(s, lambda: out.set_store_predicate(lambda i: i + 1, out.axis[0]), "is no condition")
    refused(s, lambda: out.set_store_predicate(lambda: True), "is no condition")
    assert not any(isinstance(f, For) and f.kind != "serial" for f in walk_stmt(s.func.body))


def test_a_predicate_given_as_an_expression_reads_and_replays_like_one_given_as_a_function():
    s = dense()
    out = s["out"]
    io, ii = out.split(out.axis[0], 5)
    out.set_store_predicate(io.var * 5 + ii.var < 12)
    assert str(s.trace).endswith("out.set_store_predicate(lambda i0, i1: i0 * 5 + i1 < 12, i_o, i_i)")
    again = Schedule(s.original)
    s.trace.replay(again)
    assert str(again) == str(s) and str(again.trace) == str(s.trace)
