"""The measuring method on fake peers and a fake clock: nothing here takes time."""

from __future__ import annotations

import pytest

from bench import measure
from bench.measure import Plan, Ratio, Timing


class World:
    """A clock that only calls and rests advance, and a log of who was called when."""

    def __init__(self) -> None:
        self.now = 0.0
        self.log: list[str] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.log.append("rest")

    def peer(self, name: str, *durations: float):
        """Calls take the given durations in turn, the last one for ever."""
        left = list(durations)

        def call() -> None:
            self.log.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return call


def test_blocks_alternate_rest_between_and_turn_each_round() -> None:
    world = World()
    plan = Plan(blocks=2, block_seconds=100.0, block_calls=3, minimum_calls=1, dropped_calls=2, rest_seconds=0.05)
    sides = {"a": world.peer("a", 1.0), "b": world.peer("b", 2.0)}
    measure.interleave(sides, plan, world.clock, world.sleep)
    a, b = ["rest"] + ["a"] * 5, ["rest"] + ["b"] * 5
    assert world.log == a + b + b + a


def test_no_side_always_follows_the_same_other() -> None:
    world = World()
    plan = Plan(blocks=6, block_seconds=100.0, block_calls=1, minimum_calls=1, dropped_calls=0)
    measure.interleave({name: world.peer(name, 1.0) for name in "abc"}, plan, world.clock, world.sleep)
    order = [name for name in world.log if name != "rest"]
    assert {tuple(sorted(order[at : at + 3])) for at in range(0, 18, 3)} == {("a", "b", "c")}
    assert all(len({before for before, name in zip(order, order[1:], strict=False) if name == side}) >= 2 for side in "abc")


def test_a_rest_lasts_until_no_thread_is_busy() -> None:
    world = World()
    plan = Plan(blocks=1, block_calls=1, minimum_calls=1, dropped_calls=0, rest_seconds=0.02)
    spinning = 0.07  # seconds that a runtime's workers spin after its last call
    measure.interleave({"a": world.peer("a", 1.0)}, plan, world.clock, world.sleep, lambda: min(world.now, spinning))
    assert world.log == ["rest"] * 5 + ["a"]
    world.log.clear()
    measure.interleave({"a": world.peer("a", 1.0)}, plan, world.clock, world.sleep, lambda: world.now)
    assert world.log == ["rest"] * measure.MOST_RESTS + ["a"], "a thread that never rests is not waited for"


def test_the_first_calls_of_a_block_are_not_counted() -> None:
    world = World()
    plan = Plan(blocks=1, block_seconds=100.0, block_calls=4, dropped_calls=2)
    timing = measure.interleave({"a": world.peer("a", 50.0, 20.0, 1.0)}, plan, world.clock, world.sleep)["a"]
    assert timing.blocks == ((1.0,) * 4,)


def test_a_block_ends_by_time_but_has_a_least_number_of_calls() -> None:
    world = World()
    plan = Plan(blocks=1, block_seconds=0.3, block_calls=50, minimum_calls=3, dropped_calls=2, rest_seconds=0.0625)
    timings = measure.interleave(
        {name: world.peer(name, 2.0**power) for name, power in (("slow", 0), ("quick", -4), ("quickest", -10))},
        plan,
        world.clock,
        world.sleep,
    )
    assert {name: timing.calls for name, timing in timings.items()} == {"slow": 3, "quick": 5, "quickest": 50}


def test_full_plan_is_the_method_that_was_agreed() -> None:
    plan = measure.FULL
    assert (plan.blocks, plan.block_seconds, plan.block_calls) == (6, 0.3, 50)
    assert (plan.dropped_calls, plan.rest_seconds) == (2, 0.05)


def test_one_disturbed_block_does_not_move_the_median_but_shows_in_the_spread() -> None:
    world = World()
    plan = Plan(blocks=5, block_seconds=100.0, block_calls=4, dropped_calls=0, rest_seconds=0.0625)
    disturbed = world.peer("a", *[1.0] * 8, *[9.0] * 4, 1.0)
    timing = measure.interleave({"a": disturbed}, plan, world.clock, world.sleep)["a"]
    assert timing.median == timing.minimum == 1.0
    assert timing.block_medians == (1.0, 1.0, 9.0, 1.0, 1.0)
    assert timing.spread == 8.0


def test_ratio_is_ours_over_theirs_with_quartiles_over_rounds() -> None:
    ours = Timing(((2.0,), (2.0,), (4.0,), (2.0,), (2.0,)))
    theirs = Timing(((4.0,), (4.0,), (4.0,), (2.0,), (4.0,)))
    found = measure.ratio(ours, theirs)
    assert (found.median, found.minimum) == (0.5, 1.0)
    assert (found.low, found.high) == (0.5, 1.0)


def test_null_spread_is_symmetric_and_has_a_floor() -> None:
    assert measure.null_spread(Ratio(1.0, 1.0, 1.0, 1.0)) == measure.LEAST_SPREAD
    slower, faster = Ratio(1.25, 1.0, 1.25, 1.25), Ratio(0.8, 1.0, 0.8, 0.8)
    assert measure.null_spread(slower) == pytest.approx(0.25)
    assert measure.null_spread(faster) == pytest.approx(0.25)
    assert measure.null_spread(Ratio(1.0, 1.0, 0.5, 1.0)) == pytest.approx(1.0), "unquiet rounds count"


@pytest.mark.parametrize(("median", "tie"), [(1.0, True), (1.04, True), (0.96, True), (1.06, False), (0.94, False)])
def test_a_ratio_within_the_null_spread_is_a_tie(median: float, tie: bool) -> None:
    assert measure.is_tie(Ratio(median, median, median, median), spread=0.05) is tie


def test_geometric_mean() -> None:
    assert measure.geometric_mean([0.5, 2.0, 1.0]) == pytest.approx(1.0)
