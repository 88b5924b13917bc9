"""Where stages are computed: what each primitive makes (golden), that the meaning stays, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from tensorlang import te
from tensorlang.errors import ScheduleError
from tensorlang.ir import interp
from tensorlang.ir.parser import parse_func
from tensorlang.ir.stmt import For
from tensorlang.ir.visitor import blocks, walk_stmt
from tensorlang.lower import lower
from tensorlang.schedule import Schedule
from tests import programs
from tests.schedule.test_primitives import check

Reference = Callable[..., np.ndarray]


def dense(m=12, n=32, k=8) -> Schedule:
    return Schedule(programs.dense(m, n, k))


def blur() -> tuple[Schedule, Reference]:
    """Three stages, each a window over the one before."""
    x = te.placeholder((40,), name="x")
    a = te.compute((38,), lambda i: x[i] + x[i + 1] + x[i + 2], name="a")
    b = te.compute((36,), lambda i: a[i] * a[i + 2], name="b")
    c = te.compute((36,), lambda i: b[i] + 1.0, name="c")

    def reference(x: np.ndarray) -> np.ndarray:
        a = x[:-2] + x[1:-1] + x[2:]
        return a[:-2] * a[2:] + 1

    return Schedule(te.create_prim_func("blur", [x], [c])), reference


def elementwise() -> tuple[Schedule, Reference]:
    """c reads a twice, directly and through b."""
    x = te.placeholder((10, 12), name="x")
    a = te.compute((10, 12), lambda i, j: x[i, j] * 2.0, name="a")
    b = te.compute((10, 12), lambda i, j: a[i, j] + 1.0, name="b")
    c = te.compute((10, 12), lambda i, j: a[i, j] * b[i, j], name="c")
    return Schedule(te.create_prim_func("elementwise", [x], [c])), lambda x: (x * 2) * (x * 2 + 1)


def chain(n: object = 20) -> tuple[Schedule, Reference]:
    x = te.placeholder((n,), name="x")
    y = te.compute((n,), lambda i: x[i] + 1.0, name="y")
    out = te.compute((n,), lambda i: y[i] * 2.0, name="out")
    return Schedule(te.create_prim_func("chain", [x], [out])), lambda x: (x + 1) * 2


def nest(s: Schedule) -> str:
    """The program without the places in this file that it comes from."""
    return str(replace(s.func, attrs={}))


def kinds(s: Schedule) -> dict[str, str]:
    return {f.var.name: f.kind for f in walk_stmt(s.func.body) if isinstance(f, For) and f.kind != "serial"}


def refused(s: Schedule, step: Callable[[], object], reason: str) -> None:
    """The step is refused for this reason, and the schedule stays as it was."""
    before, steps = str(s), len(s.trace)
    with pytest.raises(ScheduleError, match=reason):
        step()
    assert str(s) == before and len(s.trace) == steps


# -- compute_at ----------------------------------------------------------------------------------------------------


def test_compute_at_replays_what_was_done_before(golden):
    s = dense()
    y, out = s["y"], s["out"]
    i, j = y.axis
    (k,) = y.reduce_axis
    io, ii = y.split(i, 4)
    jo, ji = y.split(j, 8)
    ko, ki = y.split(k, 4)
    y.reorder(io, jo, ko, ii, ki, ji)
    y.vectorize(ji)
    y.unroll(ki)
    oio, ojo, oii, oji = out.tile(*out.axis, 6, 16)
    y.compute_at(out, ojo)
    golden(nest(s))
    check(s, programs.dense_reference)


def test_the_order_of_compute_at_and_split_makes_no_difference():
    texts = []
    for early in (True, False):
        s = dense()
        y, out = s["y"], s["out"]
        _, ojo, _, _ = out.tile(*out.axis, 4, 16)
        if early:
            y.compute_at(out, ojo)
        i, j = y.axis
        jo, ji = y.split(j, 8)
        y.reorder(jo, i, ji)
        y.vectorize(ji)
        if not early:
            y.compute_at(out, ojo)
        texts.append(str(s))
    assert texts[0] == texts[1]


def test_handles_to_loops_stay_valid():
    s = dense()
    y, out = s["y"], s["out"]
    _, ji = y.split(y.axis[1], 8)
    y.compute_at(out, out.axis[0])
    y.vectorize(ji)
    assert kinds(s) == {"j_i": "vectorized"}
    check(s, programs.dense_reference)


def test_a_split_by_more_than_there_is_gives_one_tile():
    s = dense()
    y, out = s["y"], s["out"]
    _, ji = y.split(y.axis[1], 8)
    _, jo, _, _ = out.tile(*out.axis, 4, 4)
    y.compute_at(out, jo)
    assert str(s.extent(ji)) == "4" and "where" not in str(s)
    check(s, programs.dense_reference)


@pytest.mark.parametrize("parts", [3, 4])
def test_nparts_are_parts_of_what_there_is(parts):
    s = dense()
    y, out = s["y"], s["out"]
    outer, inner = y.split(y.axis[1], nparts=parts)
    _, jo, _, _ = out.tile(*out.axis, 4, 16)
    y.compute_at(out, jo)
    assert str(s.extent(inner)) == str(-(-16 // parts))
    check(s, programs.dense_reference)


def test_fused_loops_of_producer_and_consumer():
    s = dense()
    y, out = s["y"], s["out"]
    y.split(y.fuse(*y.axis), 5)
    go, gi = out.split(out.fuse(*out.axis), 48)
    y.compute_at(out, go)
    check(s, programs.dense_reference)
    y.compute_at(out, gi)
    check(s, programs.dense_reference)


@pytest.mark.parametrize("sizes", [(7, 11, 5), (4, 16, 8)])
def test_symbolic_sizes(sizes):
    s = Schedule(programs.dense(te.var("M"), te.var("N"), te.var("K")))
    y, out = s["y"], s["out"]
    y.split(y.axis[0], 3)
    y.split(y.axis[1], 4)
    io, _ = out.split(out.axis[0], 4)
    y.compute_at(out, io)
    assert all(entry.verdict.status == "proved" for entry in s.proof)
    check(s, programs.dense_reference, **dict(zip("MNK", sizes, strict=True)))


def test_private_memory_of_symbolic_rows_is_one_row():
    s = Schedule(programs.dense(te.var("M"), te.var("N"), te.var("K")))
    s["y"].compute_at(s["out"], s["out"].axis[0])
    narrowed = next(stage.func for stage in lower(s.func) if stage.name == "narrow")
    assert "alloc(f32[1, N])" in str(narrowed)


def test_a_chain_of_producers_moves_along(golden):
    s, reference = blur()
    a, b, c = s["a"], s["b"], s["c"]
    bo, _ = b.split(b.axis[0], 4)
    a.compute_at(b, bo)
    co, _ = c.split(c.axis[0], 10)
    b.compute_at(c, co)
    golden(nest(s))
    check(s, reference)


def test_several_consumers_inside_the_loop():
    s, reference = elementwise()
    a, b, c = s["a"], s["b"], s["c"]
    b.compute_at(c, c.axis[0])
    a.compute_at(c, c.axis[0])
    assert [x.name for x in blocks(s.func.body)] == ["a", "b", "c"]
    check(s, reference)


def test_compute_at_again_moves_the_stage():
    s = dense()
    y, out = s["y"], s["out"]
    io, jo, ii, ji = out.tile(*out.axis, 4, 16)
    for loop in (jo, io, ji, ii):
        y.compute_at(out, loop)
        check(s, programs.dense_reference)


def test_the_trace_of_moved_stages_replays():
    s, _ = blur()
    bo, _ = s["b"].split(s["b"].axis[0], 4)
    s["a"].compute_at(s["b"], bo)
    co, _ = s["c"].split(s["c"].axis[0], 10)
    s["b"].compute_at(s["c"], co)
    s["b"].compute_root()
    again = Schedule(s.original)
    s.trace.replay(again)
    assert str(again) == str(s)


def test_compute_at_refuses_a_loop_of_another_stage():
    s, _ = blur()
    refused(s, lambda: s["a"].compute_at(s["c"], s["b"].axis[0]), "not a loop of stage c")


def test_compute_at_refuses_a_loop_of_its_own():
    s = dense()
    refused(s, lambda: s["y"].compute_at(s["y"], s["y"].axis[0]), "a loop of its own")


def test_compute_at_refuses_when_a_reader_is_outside():
    s, _ = elementwise()
    refused(s, lambda: s["a"].compute_at(s["b"], s["b"].axis[0]), "c reads a but is not inside")


def test_compute_at_refuses_a_loop_where_nothing_reads_it():
    s, _ = elementwise()
    copy = s.cache_read("x", "global", ["a"])
    refused(s, lambda: s["b"].compute_at(copy, copy.axis[0]), "not inside")


def test_compute_at_refuses_an_output():
    s, _ = chain()
    refused(s, lambda: s["out"].compute_at(s["y"], s["y"].axis[0]), "is an output")


def test_compute_at_refuses_what_reads_private_memory():
    s, _ = elementwise()
    a, b, c = s["a"], s["b"], s["c"]
    b.compute_at(c, c.axis[1])
    a.compute_at(c, c.axis[1])
    refused(s, lambda: b.compute_at(c, c.axis[0]), "exists only inside loop j")


def test_compute_at_refuses_a_vector_of_unknown_length():
    """Row i is read up to its diagonal, and that may be any length."""
    s = Schedule(
        parse_func("""
@prim_func()
def f(x: f32[64], out: f32[N], N: i64) -> out:
    y = alloc(f32[64])
    for i in vectorized(64):
        with block("y", vi=spatial(64, i)):
            y[vi] = x[vi]
    for i in range(N):
        for k in range(i + 1):
            with block("out", vi=spatial(N, i), vk=reduce(i + 1, k), where=k < 64):
                with init():
                    out[vi] = 0.0
                out[vi] = out[vi] + y[vk]
""")
    )
    refused(s, lambda: s["y"].compute_at(s["out"], s["out"].loops[0]), "is vectorized, but would have")


def test_compute_at_refuses_a_guard_that_is_not_a_tail():
    s = Schedule(
        parse_func("""
@prim_func()
def f(x: f32[8], out: f32[8]) -> out:
    y = alloc(f32[8])
    for i in range(8):
        with block("y", vi=spatial(8, i), where=i < 5):
            y[vi] = x[vi]
    for i in range(8):
        with block("out", vi=spatial(8, i)):
            out[vi] = select(vi < 5, y[vi], 0.0)
""")
    )
    refused(s, lambda: s["y"].compute_at(s["out"], s["out"].axis[0]), "already transformed|only where|not known")


def test_compute_at_refuses_half_a_reduction():
    s = dense()
    s["y"].decompose_reduction(s["y"].reduce_axis[0])
    refused(s, lambda: s["y"].compute_at(s["out"], s["out"].axis[0]), "y_init computes y in the loops of y")


# -- compute_root --------------------------------------------------------------------------------------------------


def test_compute_root_undoes_compute_at():
    s = dense()
    y, out = s["y"], s["out"]
    y.split(y.axis[1], 8)
    io, _ = out.split(out.axis[0], 5)
    before = str(s)
    y.compute_at(out, io)
    assert str(s) != before
    y.compute_root()
    assert str(s) == before
    check(s, programs.dense_reference)


def test_compute_root_of_a_stage_at_the_root_changes_nothing():
    s = dense()
    before = str(s)
    s["y"].compute_root()
    assert str(s) == before


def test_compute_root_takes_along_what_is_computed_inside(golden):
    s, reference = blur()
    a, b, c = s["a"], s["b"], s["c"]
    co, _ = c.split(c.axis[0], 10)
    b.compute_at(c, co)
    a.compute_at(b, b.axis[0])
    b.compute_root()
    golden(nest(s))
    check(s, reference)


def test_compute_root_refuses_what_reads_private_memory():
    s, _ = elementwise()
    a, b, c = s["a"], s["b"], s["c"]
    b.compute_at(c, c.axis[0])
    a.compute_at(c, c.axis[0])
    refused(s, b.compute_root, "exists only inside loop i")


# -- reverse_compute_at --------------------------------------------------------------------------------------------


def test_reverse_compute_at_consumes_tile_by_tile(golden):
    s = dense(13, 30, 8)
    y, out = s["y"], s["out"]
    io, jo, _, _ = y.tile(*y.axis, 4, 16)
    _, ji = out.split(out.axis[1], 8)
    out.vectorize(ji)
    out.reverse_compute_at(y, jo)
    y.parallel(io)
    golden(nest(s))
    check(s, programs.dense_reference)


def test_reverse_compute_at_with_symbolic_sizes():
    s = Schedule(programs.dense(te.var("M"), te.var("N"), te.var("K")))
    y, out = s["y"], s["out"]
    _, jo, _, _ = y.tile(*y.axis, 4, 16)
    out.reverse_compute_at(y, jo)
    assert s.proof[-1].verdict.status == "proved"
    check(s, programs.dense_reference, M=7, N=40, K=5)


def test_reverse_compute_at_with_a_shift():
    x = te.placeholder((20,), name="x")
    y = te.compute((20,), lambda i: x[i] + 1.0, name="y")
    out = te.compute((18,), lambda i: y[i + 2] * 2.0, name="out")
    s = Schedule(te.create_prim_func("f", [x], [out]))
    io, _ = s["y"].split(s["y"].axis[0], 4)
    s["out"].reverse_compute_at(s["y"], io)
    check(s, lambda x: (x[2:] + 1) * 2)


def test_reverse_compute_at_refuses_an_incomplete_reduction():
    s = dense()
    y = s["y"]
    ko, _ = y.split(y.reduce_axis[0], 4)
    y.reorder(ko, *y.axis)
    refused(s, lambda: s["out"].reverse_compute_at(y, ko), "k_o is a reduction loop")


def test_reverse_compute_at_refuses_a_window():
    s, _ = blur()
    refused(s, lambda: s["b"].reverse_compute_at(s["a"], s["a"].axis[0]), "several elements of a")


def test_reverse_compute_at_refuses_a_reduction():
    x = te.placeholder((8, 6), name="x")
    y = te.compute((8, 6), lambda i, j: x[i, j] + 1.0, name="y")
    k = te.reduce_axis(6, "k")
    out = te.compute((8,), lambda i: te.sum(y[i, k], axis=k), name="out")
    s = Schedule(te.create_prim_func("f", [x], [out]))
    refused(s, lambda: s["out"].reverse_compute_at(s["y"], s["y"].axis[0]), "is a reduction")


def test_reverse_compute_at_refuses_what_reads_something_later():
    x = te.placeholder((8,), name="x")
    y = te.compute((8,), lambda i: x[i] + 1.0, name="y")
    z = te.compute((8,), lambda i: x[i] * 3.0, name="z")
    out = te.compute((8,), lambda i: y[i] * z[i], name="out")
    s = Schedule(te.create_prim_func("f", [x], [out]))
    first, second, _ = s.stages
    refused(s, lambda: s["out"].reverse_compute_at(first, first.axis[0]), f"which {second.name} computes later")


def test_reverse_compute_at_refuses_an_index_that_is_not_its_own():
    x = te.placeholder((8,), name="x")
    y = te.compute((8,), lambda i: x[i] + 1.0, name="y")
    out = te.compute((4,), lambda i: y[i * 2] * 2.0, name="out")
    s = Schedule(te.create_prim_func("f", [x], [out]))
    refused(s, lambda: s["out"].reverse_compute_at(s["y"], s["y"].axis[0]), "not an index of its own")


def test_reverse_compute_at_refuses_elements_that_read_nothing():
    """Padding: no iteration of the producer says when they are computed."""
    x = te.placeholder((8,), name="x")
    y = te.compute((8,), lambda i: x[i] + 1.0, name="y")
    out = te.compute((12,), lambda i: te.if_then_else(te.all_of(i >= 2, i < 10), y[i - 2], 0.0), name="out")
    s = Schedule(te.create_prim_func("f", [x], [out]))
    refused(s, lambda: s["out"].reverse_compute_at(s["y"], s["y"].axis[0]), "no longer writes out")


def test_reverse_compute_at_refuses_what_another_stage_computes_too():
    s = Schedule(
        parse_func("""
@prim_func()
def f(x: f32[8], out: f32[8]) -> out:
    y = alloc(f32[8])
    for i in range(1):
        with block("first", vi=spatial(1, i)):
            y[vi] = 0.0
    for i in range(7):
        with block("y", vi=spatial(8, i + 1)):
            y[vi] = x[vi]
    for i in range(8):
        with block("out", vi=spatial(8, i)):
            out[vi] = y[vi] * 2.0
""")
    )
    refused(s, lambda: s["out"].reverse_compute_at(s["y"], s["y"].loops[0]), "computed by first too")


# -- inlining ------------------------------------------------------------------------------------------------------


def test_compute_inline_into_all_readers(golden):
    s, reference = elementwise()
    s["a"].split(s["a"].axis[1], 5)
    s["a"].compute_inline()
    golden(nest(s))
    check(s, reference)


def test_compute_inline_refuses_an_output():
    s, _ = chain()
    refused(s, s["out"].compute_inline, "is an output")


def test_compute_inline_refuses_what_reads_private_memory():
    s, _ = elementwise()
    a = s["a"]
    x = s.cache_read("x", "global", ["a"])
    x.compute_at(a, a.axis[0])
    refused(s, a.compute_inline, "exists only inside")


def test_reverse_compute_inline(golden):
    x = te.placeholder((7, 9), name="x")
    a = te.compute((7, 9), lambda i, j: x[i, j] + 1.0, name="a")
    c = te.compute((8, 7), lambda i, j: a[j, i + 1] * 2.0, name="c")
    s = Schedule(te.create_prim_func("f", [x], [c]))
    s["a"].split(s["a"].axis[1], 4)
    s["c"].reverse_compute_inline()
    golden(nest(s))
    check(s, lambda x: ((x + 1) * 2).T[1:])


def test_a_stage_that_swallowed_another_is_scheduled_on():
    s, reference = chain()
    s["out"].reverse_compute_inline()
    y = s["y"]
    _, lane = y.split(y.axis[0], 4)
    y.vectorize(lane)
    check(s, reference)


def test_reverse_compute_inline_refuses_a_reduction_before_it():
    s = dense()
    refused(s, s["out"].reverse_compute_inline, "none of which is a plain stage")


def test_reverse_compute_inline_refuses_a_reduction():
    s, _ = chain()
    t = dense()
    refused(t, t["y"].reverse_compute_inline, "is a reduction")


def test_reverse_compute_inline_refuses_other_readers():
    x = te.placeholder((8,), name="x")
    y = te.compute((8,), lambda i: x[i] + 1.0, name="y")
    a = te.compute((8,), lambda i: y[i] * 2.0, name="a")
    b = te.compute((8,), lambda i: y[i] * 3.0, name="b")
    s = Schedule(te.create_prim_func("f", [x], [a, b]))
    refused(s, s["a"].reverse_compute_inline, "b reads y too")


def test_reverse_compute_inline_refuses_a_window():
    s, _ = blur()
    refused(s, s["b"].reverse_compute_inline, "several elements of a")


def test_reverse_compute_inline_refuses_a_broadcast():
    x = te.placeholder((8,), name="x")
    y = te.compute((8,), lambda i: x[i] + 1.0, name="y")
    out = te.compute((8, 4), lambda i, j: y[i] * 2.0, name="out")
    s = Schedule(te.create_prim_func("f", [x], [out]))
    refused(s, s["out"].reverse_compute_inline, "several times, along vj")


def test_reverse_compute_inline_refuses_padding():
    x = te.placeholder((8,), name="x")
    y = te.compute((8,), lambda i: x[i] + 1.0, name="y")
    out = te.compute((12,), lambda i: te.if_then_else(te.all_of(i >= 2, i < 10), y[i - 2], 0.0), name="out")
    s = Schedule(te.create_prim_func("f", [x], [out]))
    refused(s, s["out"].reverse_compute_inline, "padding")


def test_reverse_compute_inline_refuses_what_is_computed_later():
    s = Schedule(
        parse_func("""
@prim_func()
def f(x: f32[8], z: f32[8], out: f32[8]) -> (z, out):
    y = alloc(f32[8])
    for i in range(8):
        with block("y", vi=spatial(8, i)):
            y[vi] = x[vi] + 1.0
    for i in range(8):
        with block("z", vi=spatial(8, i)):
            z[vi] = x[vi] * 3.0
    for i in range(8):
        with block("out", vi=spatial(8, i)):
            out[vi] = y[vi] * z[vi]
""")
    )
    refused(s, s["out"].reverse_compute_inline, "reads z, which z computes after y has begun")


# -- in any order --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["ascending", "reversed", "shuffled"])
def test_parallel_loops_in_any_order(order):
    s = dense(13, 30, 8)
    y, out = s["y"], s["out"]
    io, jo, _, _ = out.tile(*out.axis, 4, 16)
    y.compute_at(out, jo)
    y.parallel(y.axis[1])
    out.parallel(io)
    arrays = programs.arrays_of(s.original)
    result = np.empty((13, 30), np.float32)
    interp.run(s.func, [*arrays, result], order=order)
    np.testing.assert_allclose(result, programs.dense_reference(*arrays), rtol=2e-5, atol=2e-5)


# -- stages that compute several tensors ---------------------------------------------------------------------------


def largest() -> tuple[Schedule, Reference]:
    """out[i] = the position of row i's largest element, plus 1: a reduction of tuples, with a reader."""
    x = te.placeholder((9, 12), name="x")
    k = te.reduce_axis(12, "k")
    first, top = te.compute((9,), lambda i: te.argmax((k, x[i, k]), axis=k), name="best")
    out = te.compute((9,), lambda i: te.cast("f32", first[i]) + top[i], name="out")
    return Schedule(te.create_prim_func("largest", [x], [out])), lambda x: (x.argmax(1) + x.max(1)).astype(np.float32)


def test_a_reduction_of_tuples_is_computed_at_a_loop():
    s, reference = largest()
    best = next(stage for stage in s.stages if stage.name != "out")
    out = s["out"]
    best.split(best.reduce_axis[0], 5)
    io, _ = out.split(out.axis[0], 4)
    best.compute_at(out, io)
    check(s, reference)
    inner = s.cache_write(best)
    inner.compute_at(best, best.axis[0])
    check(s, reference)
    best.compute_root()
    check(s, reference)
