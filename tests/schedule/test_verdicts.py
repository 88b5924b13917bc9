"""Verdicts are executed before they are told: counterexamples by the interpreter, undecided steps by trial."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bench import schedule_cost
from tensorlang import te
from tensorlang.build import build, schedule_of
from tensorlang.errors import ScheduleError
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import const, load, var
from tensorlang.ir.parser import parse_func
from tensorlang.ir.stmt import Block, For, Iter, PrimFunc, Store
from tensorlang.ir.tree import loop_path, written_buffer
from tensorlang.ir.visitor import rewrite_stmt
from tensorlang.schedule import Schedule, legality, trial, verdict, witness
from tensorlang.schedule.verdict import RefusedStep, Verdict
from tests import programs

RECURRENCE = """\
def f(x: i64[9, 9], y: i64[9, 9]) -> y:
    for i in range(8):
        for j in range(8):
            with block("y", vi=spatial(8, i), vj=spatial(8, j)):
                y[vi + 1, vj] = y[vi, vj + 1] + x[vi, vj]"""

SCATTER = """\
def f(index: i64[{n}], x: i64[{n}], y: i64[8], {size}) -> y:
    for i in range(8):
        with block("zero", vi=spatial(8, i)):
            y[vi] = 0
    for i in range({n}):
        with block("y", vi=spatial({n}, i)):
            y[index[vi]] = x[vi]"""


def scatter(n: int | None = None) -> Schedule:
    text = SCATTER.format(n=n or "N", size="" if n else "N: i64").replace(", )", ")")
    return Schedule(parse_func(text))


def refused(step) -> RefusedStep:
    with pytest.raises(RefusedStep) as caught:
        step()
    return caught.value


# -- counterexamples -----------------------------------------------------------------------------------------------


def test_a_counterexample_is_executed_before_it_is_told(monkeypatch):
    s = Schedule(parse_func(RECURRENCE))
    executed = []
    monkeypatch.setattr(witness, "confirmed", lambda func, example: executed.append(example) or True)
    error = refused(lambda: s["y"].parallel(s["y"].axis[0]))
    assert executed == [error.verdict.counterexample]


def test_one_that_does_not_happen_is_not_told(monkeypatch):
    monkeypatch.setattr(witness, "confirmed", lambda func, example: False)
    s = Schedule(parse_func(RECURRENCE), trials="on demand")
    s["y"].parallel(s["y"].axis[0])
    decided = s.proof[-1].decided
    assert decided.status == "unknown" and "did not confirm" in decided.reason
    assert s.proof[-1].verdict.status == "refuted"  # running the program finds it all the same


def test_the_interpreter_does_not_confirm_what_does_not_happen():
    s = Schedule(parse_func(RECURRENCE))
    example = refused(lambda: s["y"].parallel(s["y"].axis[0])).verdict.counterexample
    assert witness.confirmed(s.func, example)
    elsewhere = tuple(n + 1 for n in example.address)
    assert not witness.confirmed(s.func, replace(example, address=elsewhere))
    reads = tuple(replace(a, write=False) for a in example.accesses)
    assert not witness.confirmed(s.func, replace(example, accesses=reads))


def test_a_counterexample_of_a_large_program_costs_no_memory():
    s = Schedule(programs.dense(1 << 20, 1 << 20, 1 << 20))
    error = refused(lambda: s["y"].parallel(s["y"].reduce_axis[0]))
    assert error.verdict.counterexample is not None


def test_a_missing_element_is_read_before_it_is_written():
    s = Schedule(programs.dense(8, 8, 8))
    s["y"].compute_at(s["out"], s["out"].axis[0])
    i = s["out"].axis[0]
    buffer = written_buffer(s.block("y"))

    def half(node):
        return replace(node, predicate=node.iters[1].binding < 4) if isinstance(node, Block) and node.name == "y" else None

    func = s.func.with_body(rewrite_stmt(s.func.body, half))
    found = legality.check_covered(func, loop_path(func.body, i.var), buffer)
    assert found.status == "refuted" and isinstance(found.counterexample, verdict.Missing)
    assert found.counterexample.address[1] >= 4
    whole = replace(found.counterexample, address=(found.counterexample.address[0], 0))
    assert not witness.confirmed(func, whole)


def test_the_message_is_made_only_when_it_is_read(monkeypatch):
    made = []
    monkeypatch.setattr(verdict, "report", lambda *a: made.append(a) or "text")
    s = Schedule(parse_func(RECURRENCE))
    error = refused(lambda: s["y"].parallel(s["y"].axis[0]))
    assert not made
    assert str(error).endswith("text") and made


# -- trials --------------------------------------------------------------------------------------------------------


def test_an_undecided_step_is_run_and_refuted_where_data_decides():
    s = scatter(6)
    error = refused(lambda: s["y"].parallel(s["y"].loops[0]))
    assert "depends on data" in error.verdict.reason
    assert "shows a difference: y[" in error.verdict.checked and "after the step" in str(error)
    assert len(s.trace) == 0


def test_at_symbolic_sizes_it_is_run_at_several():
    s = scatter()
    error = refused(lambda: s["y"].parallel(s["y"].loops[0]))
    assert "with N=" in error.verdict.checked


def injective() -> Schedule:
    """A program whose stores are independent, which integer sets cannot know: they know no squares."""
    n = var("N")
    x, y = Buffer("x", (n,), "i64"), Buffer("y", (n * n + n,), "i64")
    i, vi = var("i"), var("vi")
    block = Block("y", (Iter(vi, n, "spatial", i),), Store(y, (vi * vi,), load(x, (vi,)) + const(1)))
    return Schedule(PrimFunc("squares", (x, y, n), For(i, n, "serial", block)))


def test_an_undecided_step_that_changes_nothing_stays_unknown_and_says_what_was_run():
    s = injective()
    s["y"].parallel(s["y"].loops[0])
    found = s.proof[-1].verdict
    assert found.status == "unknown"
    assert "checked by running it on random data, at N=1; N=2" in found.checked
    assert str(found).startswith("unknown: ") and found.checked in str(found)


def test_default_schedules_are_run_only_when_somebody_asks(monkeypatch):
    runs = []
    tried = trial.tried
    monkeypatch.setattr(trial, "tried", lambda *a: runs.append(a) or tried(*a))
    s = injective()
    lazy = Schedule(s.original, trials="on demand")
    lazy["y"].parallel(lazy["y"].loops[0])
    assert not runs and lazy.proof[-1].decided.status == "unknown"
    assert "checked" in lazy.proof[-1].verdict.checked and len(runs) == 1
    assert lazy.proof[-1].verdict.checked and len(runs) == 1  # once
    assert schedule_of(programs.chain(64)).trials == "on demand"


def test_what_is_too_large_to_run_says_so():
    s = Schedule(parse_func(SCATTER.format(n=1 << 30, size="").replace(", )", ")")))
    s["y"].parallel(s["y"].loops[0])
    assert s.proof[-1].verdict.checked == "not checked: the program is too large to be run for it"
    with pytest.warns(verdict.UncheckedStep, match="y.parallel.*depends on data.*not checked"):
        s.settle()


def test_a_build_runs_what_was_too_much_for_a_step(monkeypatch):
    monkeypatch.setattr(trial, "AT_ONCE", 0.0)
    s = scatter(6)
    s["y"].parallel(s["y"].loops[0])
    with pytest.raises(ScheduleError, match="shows a difference"):
        build(s)


def test_rounding_is_no_difference():
    x = te.placeholder((64,), name="x")
    k = te.reduce_axis(64, name="k")
    func = te.create_prim_func("total", [x], [te.compute((), lambda: te.sum(te.exp(x[k]), axis=k), name="y")])
    s = Schedule(func)
    _, inner = s["y"].split(s["y"].reduce_axis[0], 8)
    s["y"].rfactor(inner)
    assert trial.tried(func, s.func, Verdict("unknown", "asked"), 1e5).status == "unknown"

    def other(node):
        return replace(node, value=node.value + 1) if isinstance(node, Store) and node.buffer.name == "y" else None

    wrong = rewrite_stmt(s.func.body, other)
    assert trial.tried(func, s.func.with_body(wrong), Verdict("unknown", "asked"), 1e5).status == "refuted"


def test_data_that_indexes_memory_stays_inside():
    s = scatter(5)
    (index, _), sizes = s.original.inputs, {}
    data = trial._data(s.original, sizes, 0, "indices")
    assert data[0].min() >= 0 and data[0].max() < 8 and index.name == "index"
    assert np.array_equal(data[0], trial._data(s.original, sizes, 0, "indices")[0])


def test_a_step_with_its_proof_costs_milliseconds():
    """Within a few times of the 5 ms that `python -m bench.schedule_cost` shows: a busy machine must not fail the test."""
    schedule_cost.measure("matmul 128x768x768, default")
    for case in ("matmul 1009x1009x1009, by hand", "matmul MxNxK, by hand", "conv 3x3/2 56x56 64->128, default"):
        steps = schedule_cost.measure(case)
        assert {status for _, _, status in steps} == {"proved"}
        times = sorted(ms for ms, _, _ in steps)
        assert times[len(times) // 2] < 5 and times[-1] < 40, f"{case}: {times}"


def test_tiles_that_fit_exactly_shift_nothing():
    s = Schedule(programs.dense(8, 8, 12))
    s["y"].split(s["y"].reduce_axis[0], 4, tail="shift_inwards")
    t = Schedule(programs.dense(8, 8, 12))
    with pytest.raises(RefusedStep, match="points executed twice would count twice") as caught:
        t["y"].split(t["y"].reduce_axis[0], 5, tail="shift_inwards")
    example = caught.value.verdict.counterexample
    tiles = [{v.name: n for v, n in side.items()} for side in (example.first, example.second)]
    points = [side["k_i"] + min(side["k_o"] * 5, 7) for side in tiles]
    assert tiles[0] != tiles[1] and points[0] == points[1] and example.address == (tiles[0]["i"], tiles[0]["j"])
    assert "k_i + min(k_o * 5, 7)" in str(caught.value)  # the program in which the two iterations are
