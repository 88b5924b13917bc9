"""Tiles that come while others are computed with: slots, groups of asynchronous copies, and what is proved of them."""

from __future__ import annotations

import numpy as np
import pytest

from tensorlang import te
from tensorlang.build import build
from tensorlang.codegen.barriers import grid_program, is_barrier, is_commit, waits_for
from tensorlang.codegen.cuda.emit import cuda_program
from tensorlang.codegen.race_proof import prove_no_races
from tensorlang.ir.expr import const, rebuild
from tensorlang.ir.races import RaceError, check_races
from tensorlang.ir.stmt import Evaluate, PrimFunc, Seq, Stmt
from tensorlang.ir.visitor import rewrite_stmt, walk_stmt
from tensorlang.schedule import Schedule
from tests.cuda.test_cuda import dense

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed: pip install 'tensorlang[cuda]'")


def moving_sums(ahead: int, asynchronous: bool = True) -> PrimFunc:
    """Tiles of 32 elements, turned round within a tile, that come `ahead` iterations before they are added up."""
    x = te.placeholder((8 * 32,), name="x")
    k = te.reduce_axis(8, name="k")
    y = te.compute((32,), lambda i: te.sum(x[k * 32 + 31 - i], axis=k), name="y")
    out = te.compute((32,), lambda i: y[i] * 2, name="out")
    s = Schedule(te.create_prim_func("f", [x], [out]))
    block, thread = s["out"].split(s["out"].axis[0], 32)
    s["out"].bind(block, "blockIdx.x")
    s["out"].bind(thread, "threadIdx.x")
    stage = s["y"]
    stage.compute_at(s["out"], block)
    stage.reorder(stage.reduce_axis[0], stage.axis[0])
    (k_o,) = stage.reduce_axis
    tile = s.cache_read("x", "shared", [stage])
    stage.bind(stage.axis[0], "threadIdx.x")
    tile.compute_at(stage, k_o)
    group, lanes = tile.split(tile.axis[0], 4)
    tile.bind(group, "threadIdx.x")
    tile.vectorize(lanes)
    if asynchronous:
        tile.pragma(lanes, "async_copy")
    if ahead:
        stage.software_pipeline(k_o, [0, ahead])
    return build(s, target="cuda").lowered.stages[-1].func


def changed(func: PrimFunc, wanted: int | None) -> PrimFunc:
    """The program with other numbers of groups on their way where a loop ends; None: without waiting there."""

    def rule(s: Stmt) -> Stmt | None:
        if not isinstance(s, Seq) or not (len(s.stmts) > 1 and is_barrier(s.stmts[-1]) and waits_for(s.stmts[-2]) is not None):
            return None
        if any(map(is_commit, s.stmts)):
            old = s.stmts[-2]
            new = () if wanted is None else (_waiting(old, wanted),)
            return Seq((*s.stmts[:-2], *new, s.stmts[-1]))
        return None

    return func.with_body(rewrite_stmt(func.body, rule))


def _waiting(old: Stmt, groups: int) -> Stmt:
    assert isinstance(old, Evaluate)
    return Evaluate(rebuild(old.expr, (const(groups),)))


def arrays() -> list[np.ndarray]:
    return [np.arange(256, dtype=np.float32), np.zeros(32, np.float32)]


@pytest.mark.parametrize("ahead", [0, 1, 2, 3])
def test_as_many_groups_are_on_their_way_as_come_later(ahead):
    func = cuda_program(moving_sums(ahead))
    waits = [n for s in walk_stmt(func.body) if (n := waits_for(s)) is not None]
    assert waits[-1] == max(0, ahead - 1) and set(waits[:-1]) <= {0}
    assert prove_no_races(func).status == "proved"
    given = arrays()
    check_races(func, given)
    np.testing.assert_array_equal(given[1], 2 * given[0].reshape(8, 32)[:, ::-1].sum(axis=0))


@pytest.mark.parametrize(("ahead", "wrong"), [(1, 1), (2, 2), (2, None), (3, 3)])
def test_waiting_for_too_few_is_refuted(ahead, wrong):
    func = changed(cuda_program(moving_sums(ahead)), wrong)
    found = prove_no_races(func)
    assert found.status == "refuted" and "asynchronous copy" in found.reason
    with pytest.raises(RaceError, match="has a race"):
        check_races(func, arrays())


def test_a_pipelined_loop_has_one_barrier():
    """The slots are different ones: only at its end do threads wait. Without slots, they wait between copy and use too."""

    def barriers(ahead: int) -> int:
        return sum(map(is_barrier, walk_stmt(cuda_program(moving_sums(ahead, asynchronous=False)).body)))

    assert barriers(0) == 2 and barriers(1) == 2  # one before the loop, one in it
    func = moving_sums(1, asynchronous=False)
    assert prove_no_races(grid_program(func)).status == "proved"
    assert not any(is_commit(s) for s in walk_stmt(grid_program(func).body))


def test_products_copy_asynchronously():
    kernel = build(dense(1024, 1024, 64), target="cuda")
    ptx = kernel.inspect("ptx")
    assert "cp.async.cg.shared.global" in ptx and "cp.async.ca.shared.global" in ptx
    assert ptx.count("cp.async.commit_group") == 2 and ptx.count("bar.sync") == 2
    ragged = build(dense(1000, 1000, 72), target="cuda")
    assert "copy_async4_if(" in ragged.source and str(ragged.proof[-1].verdict) == "proved"
