"""Work spread over forked processes gives what a loop gives, whatever happens to the children."""

from __future__ import annotations

import os
import time

import pytest

from tensorlang.codegen.native.forked import forked_map

ITEMS = list(range(20))


@pytest.mark.parametrize("workers", [1, 2, 3, 50])
def test_results_come_in_order(workers):
    assert forked_map(lambda x: x * x, ITEMS, [1.0] * 20, workers) == [x * x for x in ITEMS]


def test_children_do_the_work():
    def work(x: int) -> int:
        time.sleep(0.01)  # so that nobody has done it all before the other begins
        return os.getpid()

    pids = forked_map(work, ITEMS, [1.0] * 20, 2)
    assert len(set(pids)) == 2 and 0 < pids.count(os.getpid()) < 20


def test_the_heaviest_come_first():
    done: list[int] = []
    forked_map(done.append, ITEMS, [float(x % 7) for x in ITEMS], 1)
    assert done == ITEMS, "alone, in order"
    started = time.monotonic()
    times = forked_map(lambda x: time.sleep(0.01) or time.monotonic() - started, ITEMS, [float(x % 7) for x in ITEMS], 2)
    assert max(times[6], times[13]) < min(times[0], times[7], times[14])


def test_a_dying_child_costs_time_only():
    parent = os.getpid()

    def work(x: int) -> int:
        if os.getpid() != parent:
            os._exit(9)
        return x + 1

    assert forked_map(work, ITEMS, [1.0] * 20, 3) == [x + 1 for x in ITEMS]


def test_an_error_is_raised_by_the_parent():
    def work(x: int) -> int:
        if x == 7:
            raise ValueError("seven")
        return x

    with pytest.raises(ValueError, match="seven"):
        forked_map(work, ITEMS, [1.0] * 20, 2)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)  # no zombies


def test_large_results_pass(monkeypatch):
    assert [len(r) for r in forked_map(lambda x: bytes(3_000_000), ITEMS[:4], [1.0] * 4, 2)] == [3_000_000] * 4
