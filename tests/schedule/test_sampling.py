"""Sampling and navigation."""

from __future__ import annotations

from collections import Counter
from math import prod

import pytest

from tensorlang import te
from tensorlang.errors import ScheduleError
from tensorlang.schedule import Schedule
from tensorlang.schedule.state import Loop
from tests import programs
from tests.schedule.checks import check, loops_of, replays


def dense(m=24, n=16, k=8):
    return Schedule(programs.dense(m, n, k))


# -- sampling ------------------------------------------------------------------------------------------------------


def sampled(seed: int) -> Schedule:
    s = dense()
    s.seed(seed)
    y, out = s["y"], s["out"]
    y.split(y.axis[0], factors=s.sample_perfect_tile(y.axis[0], 3, 4))
    where = s.sample_compute_location(y)
    if isinstance(where, Loop):
        y.compute_at(out, where)
    out.pragma(out.axis[0], "auto_unroll_max_step", s.sample_categorical([0, 16, 64], [0.25, 0.25, 0.5]))
    return s


def test_one_seed_decides_one_way_and_the_trace_keeps_it():
    assert len({str(sampled(seed).trace) for seed in range(8)}) > 3
    for seed in range(4):
        s = sampled(seed)
        assert str(sampled(seed)) == str(s)
        assert "decision=" in str(s.trace)
        replays(s)
    check(sampled(1))


def test_a_copy_goes_on_alike():
    s = dense()
    s.sample_categorical([1, 2, 3])
    t = s.copy()
    i = s["y"].axis[0]
    assert [s.sample_perfect_tile(i, 3) for _ in range(5)] == [t.sample_perfect_tile(i, 3) for _ in range(5)]


def test_a_refused_step_uses_up_no_random_number():
    s, t = dense(), dense()
    with pytest.raises(ScheduleError):
        s["y"].tile(s["y"].axis[0], s["out"].axis[0], 2, 2)
    assert s.sample_categorical(range(1000)) == t.sample_categorical(range(1000))


def test_perfect_tiles_are_perfect_and_equally_likely():
    s = dense(12)
    i = s["y"].axis[0]
    found = Counter(tuple(s.sample_perfect_tile(i, 2, 4)) for _ in range(400))
    assert set(found) == {(12, 1), (6, 2), (4, 3), (3, 4)}
    assert min(found.values()) > 60
    assert all(prod(s.sample_perfect_tile(i, n)) == 12 for n in (1, 2, 3, 4, 5))


def test_a_decision_is_taken():
    s = dense()
    i = s["y"].axis[0]
    assert s.sample_perfect_tile(i, 3, 8, decision=[2, 3, 4]) == [2, 3, 4]
    assert s.sample_categorical(["a", "b"], [1, 0], decision=1) == "b"
    assert s.sample_compute_location("y", decision=1) is s["out"].axis[1]
    assert s.sample_compute_location(s["y"], decision=-1) == "root"
    replays(s)


def test_categorical_keeps_to_its_probabilities():
    s = dense()
    found = Counter(s.sample_categorical([1, 2, 3], [3, 0, 1]) for _ in range(400))
    assert found[2] == 0 and found[1] > 2 * found[3] > 0


def test_locations_are_those_that_are_legal():
    s = Schedule(programs.chain(8))
    found = {str(s.sample_compute_location("e")) for _ in range(40)}
    assert found == {"i_1", "root", "inline"}
    assert {str(dense().sample_compute_location("y", decision=d)) for d in (0, 1, -1)} == {"i_1", "j_1", "root"}
    outputs = {s.sample_compute_location("out") for _ in range(5)}
    assert outputs == {"root"}


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda s, i: s.sample_perfect_tile(i, 2, 4, decision=[6, 5]), "is no list of 2 factors of 24"),
        (lambda s, i: s.sample_perfect_tile(i, 2, 4, decision=[3, 8]), "the last of which is <= 4"),
        (lambda s, i: s.sample_perfect_tile(i, 3, 4, decision=[6, 4]), "is no list of 3"),
        (lambda s, i: s.sample_perfect_tile(i, 2, 4, decision=[-6, -4]), "is no list of 2"),
        (lambda s, i: s.sample_perfect_tile(i, 0), "at least 1"),
        (lambda s, i: s.sample_perfect_tile(i, 1, 4), "24 has no 1 factors"),
        (lambda s, i: s.sample_perfect_tile("i", 2), "not a loop"),
        (lambda s, i: s.sample_categorical([]), "no candidates"),
        (lambda s, i: s.sample_categorical([1, 2], [1]), "no probabilities of 2"),
        (lambda s, i: s.sample_categorical([1, 2], [1, -1]), "no probabilities"),
        (lambda s, i: s.sample_categorical([1, 2], [0, 0]), "no probabilities"),
        (lambda s, i: s.sample_categorical([1, object()]), "numbers or strings"),
        (lambda s, i: s.sample_categorical([1, 2], decision=2), "no position among 2"),
        (lambda s, i: s.sample_compute_location("nothing"), "no stage 'nothing'"),
        (lambda s, i: s.sample_compute_location("y", decision=2), "none of: -2"),
        (lambda s, i: s.sample_compute_location("y", decision=-2), "cannot be computed at its readers"),
        (lambda s, i: s.sample_compute_location("out", decision=0), "none of: -2"),
    ],
)
def test_sampling_refuses(call, reason):
    s = dense()
    with pytest.raises(ScheduleError, match=reason):
        call(s, s["y"].axis[0])
    assert len(s.trace) == 0


def test_a_perfect_tile_of_a_symbolic_loop_is_refused():
    s = Schedule(programs.chain(te.var("N")))
    with pytest.raises(ScheduleError, match="N, not a constant"):
        s.sample_perfect_tile(s["out"].axis[0], 2)


# -- navigation ----------------------------------------------------------------------------------------------------


def names(stages) -> list[str]:
    return [st.name for st in stages]


def test_navigation():
    s = Schedule(programs.softmax(4, 8))
    e = s.get_block("e")
    assert names(s.get_producers(e)) == ["top"] and names(s.get_consumers("e")) == ["total", "out"]
    assert names(s.get_producers("out")) == ["e", "total"] and names(s.get_consumers(s["out"])) == []
    assert names(s.get_output_blocks()) == ["out"]
    assert [loop.name for loop in s.get_loops("top")] == ["i", "r"]
    s["total"].compute_at(s["out"], s["out"].axis[0])
    assert names(s.get_child_blocks(s["out"].axis[0])) == ["total", "out"]
    assert names(s.get_child_blocks("top")) == []
    assert s.loop("i") is s.get_loops("top")[0]
    assert len(s.trace) == 1 and loops_of(s)


@pytest.mark.parametrize("question", ["get_block", "get_loops", "get_producers", "get_consumers", "get_child_blocks"])
def test_navigation_names_the_stages_that_there_are(question):
    with pytest.raises(ScheduleError, match=r"test_sampling.py:\d+: no stage 'z'; there are: y, out"):
        getattr(dense(), question)("z")


def test_a_loop_that_is_gone_has_no_children():
    s = dense()
    i = s["y"].axis[0]
    s["y"].split(i, 2)
    with pytest.raises(ScheduleError, match="no longer exists"):
        s.get_child_blocks(i)
