from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, strategies as st

from tensorlang.errors import ScheduleError
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr, and_, const, load, lt, maximum, select, var
from tensorlang.ir.interp import run
from tensorlang.ir.stmt import Allocate, Block, For, Iter, PrimFunc, Stmt, Store, seq
from tensorlang.ir.visitor import rewrite_stmt, walk_stmt
from tensorlang.schedule.legality import (
    check_compute_at,
    check_decompose_reduction,
    check_parallel,
    check_reorder,
    check_shift_inwards,
    check_vectorize,
)
from tensorlang.schedule.loops import reorder
from tensorlang.schedule.schedule import Schedule
from tests.schedule.nests import arguments, events, nests, races, turned_round
from tests.symbolic.strategies import examples


def loops(func: PrimFunc) -> list[For]:
    return [s for s in walk_stmt(func.body) if isinstance(s, For)]


def perfect_nest(func: PrimFunc) -> list[For]:
    """The innermost loops with nothing between them."""
    chain: list[For] = []
    for loop in loops(func):
        if chain and chain[-1].body is not loop:
            chain = []
        chain.append(loop)
    return chain


@examples(150)
@given(nests())
def test_parallel_is_refused_exactly_where_running_finds_a_race(func):
    for loop in loops(func):
        verdict = check_parallel(func, loop)
        assert verdict.status == ("refuted" if races(func, loop) else "proved"), f"{loop.var}: {verdict}\n{func}"
        if verdict.counterexample:
            really_conflict(func, loop, verdict.counterexample)


@examples(100)
@given(nests(symbolic=True))
def test_a_proof_holds_for_every_size_and_a_counterexample_at_its_own(func):
    for loop in loops(func):
        verdict = check_parallel(func, loop)
        if verdict.status == "proved":
            assert not any(races(func, loop, size) for size in (1, 2, 3, 5)), f"{loop.var}\n{func}"
        elif verdict.status == "refuted":
            (size,) = verdict.counterexample.sizes.values() or (1,)
            really_conflict(func, loop, verdict.counterexample, size)
        else:
            assert "%" in verdict.reason, verdict  # t % M is not affine


@examples(100)
@given(nests(symbolic=True), st.randoms(use_true_random=False))
def test_a_reorder_is_proved_for_every_size(func, random):
    chain = perfect_nest(func)
    if len(chain) < 2:
        return
    order = random.sample(chain, len(chain))
    verdict = check_reorder(func, order)
    if verdict.status == "proved":
        assert not any(turned_round(func, chain, order, size) for size in (1, 2, 3, 5)), f"{order}\n{func}"
    elif verdict.status == "refuted":
        (size,) = verdict.counterexample.sizes.values() or (1,)
        assert turned_round(func, chain, order, size)


def really_conflict(func: PrimFunc, loop: For, example, size: int = 3) -> None:
    """Both iterations of the counterexample touch the element when the program runs, and one writes it."""
    assert example.first[loop.var] != example.second[loop.var]
    for access, side in zip(example.accesses, (example.first, example.second), strict=True):
        assert any(
            e.write == access.write
            and e.buffer is example.buffer
            and e.index == example.address
            and all(e.env[v] == n for v, n in side.items())
            for e in events(func, size)
        ), f"{example}: iteration {side} does not happen in\n{func}"
    assert any(a.write for a in example.accesses)


@examples(150)
@given(nests(), st.randoms(use_true_random=False))
def test_reorder_is_refused_exactly_where_a_dependence_is_turned(func, random):
    chain = perfect_nest(func)
    if len(chain) < 2:
        return
    order = random.sample(chain, len(chain))
    verdict = check_reorder(func, order)
    assert verdict.status == ("refuted" if turned_round(func, chain, order) else "proved"), f"{order}: {verdict}\n{func}"
    if verdict.status == "proved":
        before, after = arguments(func), arguments(func)
        run(func, before)
        run(reorder(func, order), after)
        for x, y in zip(before, after, strict=True):
            np.testing.assert_array_equal(x, y)


# -- one program per idea ------------------------------------------------------------------------------------------


def matmul(m: Expr | int, n: Expr | int, k: Expr | int) -> PrimFunc:
    """y[i, j] = sum over r of x[i, r] * w[j, r]; out[i, j] = max(y[i, j], 0). Sizes may be symbolic."""
    m, n, k = (const(d) if isinstance(d, int) else d for d in (m, n, k))
    x, w = Buffer("x", (m, k), "i64"), Buffer("w", (n, k), "i64")
    y, out = Buffer("y", (m, n), "i64"), Buffer("out", (m, n), "i64")
    i, j, r, vi, vj, vr = (var(name) for name in ("i", "j", "r", "vi", "vj", "vr"))
    update = Store(y, (vi, vj), load(y, (vi, vj)) + load(x, (vi, vr)) * load(w, (vj, vr)))
    block: Stmt = Block(
        "y",
        (Iter(vi, m, "spatial", i), Iter(vj, n, "spatial", j), Iter(vr, k, "reduce", r)),
        update,
        Store(y, (vi, vj), const(0)),
    )
    for v, extent in ((r, k), (j, n), (i, m)):
        block = For(v, extent, "serial", block)
    i2, j2, ui, uj = (var(name) for name in ("i", "j", "ui", "uj"))
    last: Stmt = Block(
        "out",
        (Iter(ui, m, "spatial", i2), Iter(uj, n, "spatial", j2)),
        Store(out, (ui, uj), maximum(load(y, (ui, uj)), 0)),
    )
    for v, extent in ((j2, n), (i2, m)):
        last = For(v, extent, "serial", last)
    sizes = tuple(d for d in (m, n, k) if d.op == "var")
    return PrimFunc("matmul", (x, w, out, *sizes), Allocate(y, seq(block, last)))


SYMBOLIC = tuple(var(name) for name in "MNK")


def status(schedule: Schedule) -> list[str]:
    return [entry.verdict.status for entry in schedule.proof]


@pytest.mark.parametrize("shape", [(12, 16, 10), SYMBOLIC], ids=["constant", "symbolic"])
def test_a_tiled_matmul_is_proved(shape):
    s = Schedule(matmul(*shape))
    y, out = s["y"], s["out"]
    i, j = out.axis
    io, jo, ii, ji = out.tile(i, j, 6, 8)
    y.compute_at(out, jo)
    out.parallel(out.fuse(io, jo))
    out.vectorize(ji)
    yi, yj = y.axis
    (k,) = y.reduce_axis
    ko, ki = y.split(k, 4)
    y.reorder(ko, yi, ki, yj)
    y.vectorize(yj)
    assert set(status(s)) == {"proved"}


def test_a_reduction_loop_cannot_be_parallel():
    s = Schedule(matmul(*SYMBOLIC))
    (k,) = s["y"].reduce_axis
    with pytest.raises(ScheduleError, match="rfactor y along r first"):
        s["y"].parallel(k)
    with pytest.raises(ScheduleError, match="rfactor"):
        s["y"].vectorize(s["y"].split(k, 4)[1])


def test_after_rfactor_it_can():
    s = Schedule(matmul(4, 4, 32))
    ko, ki = s["y"].split(s["y"].reduce_axis[0], 8)
    part = s["y"].rfactor(ki)
    loop = next(f for f in loops(s.func) if f.var is ki.var)
    assert check_parallel(s.func, loop).status == "proved"
    assert part.name == "y_rf"


def test_tiles_shifted_inwards_may_run_in_parallel_where_they_recompute_the_same():
    s = Schedule(matmul(10, 16, 4))
    io, _ = s["out"].split(s["out"].axis[0], 8, tail="shift_inwards")
    s["out"].parallel(io)
    assert status(s)[-1] == "proved"


def test_but_not_where_they_accumulate():
    s = Schedule(matmul(10, 16, 4))
    io, ii = s["y"].split(s["y"].axis[0], 8, tail="shift_inwards")
    with pytest.raises(ScheduleError, match='tail="guard"'):
        s["y"].parallel(io)


def test_passes_over_an_element_do_not_interleave():
    """The overlap of shifted tiles is computed twice: once per tile, each time from its initial value."""
    s = Schedule(matmul(10, 16, 4))
    io, ii = s["y"].split(s["y"].axis[0], 8, tail="shift_inwards")
    j, (k,) = s["y"].axis[-1], s["y"].reduce_axis
    s["y"].reorder(io, k, j, ii)  # within a tile: fine
    with pytest.raises(ScheduleError, match="turns round"):
        s["y"].reorder(k, io)


def test_points_of_a_reduction_are_not_computed_twice():
    func = matmul(10, 16, 10)
    i, j, k = loops(func)[:3]
    assert check_shift_inwards(func, i).status == "proved"
    verdict = check_shift_inwards(func, k)
    assert verdict.status == "refuted" and "guard" in verdict.remedy


def test_a_reduction_is_initialised_once_per_pass():
    s = Schedule(matmul(10, 16, 4))
    s["y"].split(s["y"].axis[0], 8, tail="shift_inwards")
    io, ii, j, k = loops(s.func)[:4]
    assert check_decompose_reduction(s.func, "y", k).status == "proved"
    assert check_decompose_reduction(s.func, "y", ii).status == "proved"
    verdict = check_decompose_reduction(s.func, "y", io)
    assert verdict.status == "refuted"
    assert verdict.counterexample.first[io.var] != verdict.counterexample.second[io.var]


def test_fused_symbolic_loops_keep_their_components_apart():
    s = Schedule(matmul(*SYMBOLIC))
    f = s["out"].fuse(*s["out"].axis)
    fo, fi = s["out"].split(f, 16)
    s["out"].vectorize(fi)
    s["out"].parallel(fo)
    assert set(status(s)) == {"proved"}


def test_a_shared_temporary_is_refused_with_the_remedy():
    x, t, y = Buffer("x", (const(8),), "f32"), Buffer("t", (const(1),), "f32"), Buffer("y", (const(8),), "f32")
    i, vi, vt = var("i"), var("vi"), var("vt")
    first = Block(
        "t", (Iter(vt, const(1), "spatial", const(0)), Iter(vi, const(8), "spatial", i)), Store(t, (vt,), load(x, (vi,)))
    )
    ui = var("ui")
    second = Block("y", (Iter(ui, const(8), "spatial", i),), Store(y, (ui,), load(t, (const(0),))))
    loop = For(i, const(8), "serial", seq(first, second))
    shared = PrimFunc("f", (x, y), Allocate(t, loop))
    verdict = check_parallel(shared, loop)
    assert verdict.status == "refuted" and "private" in verdict.remedy
    private = For(i, const(8), "serial", Allocate(t, loop.body))
    assert check_parallel(PrimFunc("f", (x, y), private), private).status == "proved"


def test_scattered_writes_are_unknown_not_fine():
    M = SYMBOLIC[0]
    index, y = Buffer("index", (M,), "i64"), Buffer("y", (M,), "f32")
    i, vi = var("i"), var("vi")
    block = Block("y", (Iter(vi, M, "spatial", i),), Store(y, (load(index, (vi,)),), const(1.0)))
    loop = For(i, M, "serial", block)
    verdict = check_parallel(PrimFunc("scatter", (index, y, M), loop), loop)
    assert verdict.status == "unknown" and "depends on data" in verdict.reason


def test_a_recurrence_is_refused_and_its_inner_loop_is_not():
    """y[i, j] = y[i - 1, j] + 1"""
    M, N, _ = SYMBOLIC
    y = Buffer("y", (M, N), "i64")
    i, j, vi, vj = (var(name) for name in ("i", "j", "vi", "vj"))
    value = select(lt(0, vi), load(y, (vi - 1, vj)) + 1, 0)
    block = Block("y", (Iter(vi, M, "spatial", i), Iter(vj, N, "spatial", j)), Store(y, (vi, vj), value))
    inner = For(j, N, "serial", block)
    outer = For(i, M, "serial", inner)
    func = PrimFunc("scan", (y, M, N), outer)
    verdict = check_vectorize(func, outer)
    assert verdict.status == "refuted"
    example = verdict.counterexample
    assert abs(example.first[i] - example.second[i]) == 1 and example.first[j] == example.second[j]
    assert check_vectorize(func, inner).status == "proved"
    assert check_reorder(func, [inner, outer]).status == "proved"


def test_a_skewed_recurrence_cannot_be_interchanged():
    """y[i, j] = y[i - 1, j + 1]: Allen & Kennedy's example of a dependence (<, >)."""
    y = Buffer("y", (const(4), const(4)), "i64")
    i, j, vi, vj = (var(name) for name in ("i", "j", "vi", "vj"))
    value = select(and_(lt(0, vi), lt(vj, 3)), load(y, (vi - 1, vj + 1)) + 1, 0)
    block = Block("y", (Iter(vi, const(4), "spatial", i), Iter(vj, const(4), "spatial", j)), Store(y, (vi, vj), value))
    inner = For(j, const(4), "serial", block)
    outer = For(i, const(4), "serial", inner)
    verdict = check_reorder(PrimFunc("skewed", (y,), outer), [inner, outer])
    assert verdict.status == "refuted"


@pytest.mark.parametrize("shape", [(12, 16, 10), SYMBOLIC], ids=["constant", "symbolic"])
def test_compute_at_covers_what_is_read(shape):
    s = Schedule(matmul(*shape))
    io, ii = s["out"].split(s["out"].axis[0], 6)
    s["y"].compute_at(s["out"], io)
    loop = next(f for f in loops(s.func) if f.var is io.var)
    assert check_compute_at(s.func, "y", loop).status == "proved"


def test_a_gap_in_what_was_computed_is_found():
    s = Schedule(matmul(12, 16, 10))
    io, ii = s["out"].split(s["out"].axis[0], 6)
    s["y"].compute_at(s["out"], io)

    def shorten(node: Stmt) -> Stmt | None:
        if isinstance(node, Block) and node.name == "y":
            return replace(node, predicate=lt(node.iters[0].binding, 11))
        return None

    func = s.func.with_body(rewrite_stmt(s.func.body, shorten))
    loop = next(f for f in loops(func) if f.var is io.var)
    verdict = check_compute_at(func, "y", loop)
    assert verdict.status == "refuted" and "y[11, " in verdict.reason


def test_the_message_names_loop_reason_remedy_and_both_iterations(golden):
    s = Schedule(matmul(*SYMBOLIC))
    with pytest.raises(ScheduleError) as error:
        s["y"].parallel(s["y"].reduce_axis[0])
    golden(str(error.value).partition(": ")[2])  # after file:line


def test_a_refused_step_leaves_the_schedule_as_it_was():
    s = Schedule(matmul(*SYMBOLIC))
    before = s.func
    with pytest.raises(ScheduleError):
        s["y"].parallel(s["y"].reduce_axis[0])
    assert s.func is before and len(s.trace) == 0
