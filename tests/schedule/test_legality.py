from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorlang.errors import ScheduleError
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr, const, load, var
from tensorlang.ir.interp import run
from tensorlang.ir.stmt import Block, For, Iter, PrimFunc, Stmt, Store, seq
from tensorlang.ir.visitor import walk_stmt
from tensorlang.schedule.legality import check_compute_at, check_parallel, check_reorder, check_vectorize
from tensorlang.schedule.loops import reorder
from tensorlang.schedule.schedule import Schedule
from tests.schedule.nests import arguments, events, nests, races, turned_round


def loops(func: PrimFunc) -> list[For]:
    return [s for s in walk_stmt(func.body) if isinstance(s, For)]


@settings(max_examples=150)
@given(nests())
def test_parallel_is_refused_exactly_where_running_finds_a_race(func):
    for loop in loops(func):
        verdict = check_parallel(func, loop)
        assert verdict.status == ("refuted" if races(func, loop) else "proved"), f"{loop.var}: {verdict}\n{func}"
        if verdict.counterexample:
            really_conflict(func, loop, verdict.counterexample)


def really_conflict(func: PrimFunc, loop: For, example) -> None:
    """Both iterations of the counterexample touch the element when the program runs, and one writes it."""
    assert example.first[loop.var] != example.second[loop.var]
    for access, side in zip(example.accesses, (example.first, example.second), strict=True):
        assert any(
            e.write == access.write
            and e.buffer is example.buffer
            and e.index == example.address
            and all(e.env[v] == n for v, n in side.items())
            for e in events(func)
        ), f"{example}: iteration {side} does not happen in\n{func}"
    assert any(a.write for a in example.accesses)


@settings(max_examples=150)
@given(nests(), st.randoms(use_true_random=False))
def test_reorder_is_refused_exactly_where_a_dependence_is_turned(func, random):
    chain = []
    for loop in loops(func):
        if chain and chain[-1].body is not loop:
            chain = []
        chain.append(loop)
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
