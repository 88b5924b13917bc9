"""Times callables side by side, so that their ratio can be trusted on a shared machine.

Two spinning thread pools in one process fight when they alternate call by call. So sides alternate in *blocks* with a
rest between, the first calls of each block (which wake the pool) are not counted, and sides are compared by the medians
over all blocks. The order of sides turns and reverses from round to round, so that none always runs after the same other
one, and a rest lasts until the process uses no processor: a runtime's workers spin for a while after its last call (those
of onnxruntime for some 50 ms), and whoever comes next would find no core for its own.

The spread comes from a *null test*: the same peer, prepared twice, as two sides of the same run. What the two twins
differ by is noise, and a ratio within it is a tie.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Call = Callable[[], object]


@dataclass(frozen=True)
class Plan:
    """How long a block is and how many there are.

    A block ends after ``block_seconds`` or ``block_calls`` counted calls, whichever is first, but has ``minimum_calls``
    at least.
    """

    blocks: int = 6
    block_seconds: float = 0.3
    block_calls: int = 50
    minimum_calls: int = 3
    dropped_calls: int = 2
    rest_seconds: float = 0.05


FULL = Plan()
QUICK = Plan(blocks=3, block_seconds=0.1, block_calls=20, minimum_calls=2, dropped_calls=1, rest_seconds=0.02)

# Even where twins happen to agree closely, less than this is not called a difference.
LEAST_SPREAD = 0.01

# Threads that use less than this share of one core are at rest; nobody is waited for longer than this many rests.
QUIET_SHARE = 0.1
MOST_RESTS = 20


@dataclass(frozen=True)
class Timing:
    """All counted calls of one side, in seconds, by block."""

    blocks: tuple[tuple[float, ...], ...]

    @property
    def median(self) -> float:
        return statistics.median(call for block in self.blocks for call in block)

    @property
    def minimum(self) -> float:
        return min(call for block in self.blocks for call in block)

    @property
    def block_medians(self) -> tuple[float, ...]:
        return tuple(statistics.median(block) for block in self.blocks)

    @property
    def calls(self) -> int:
        return sum(len(block) for block in self.blocks)

    @property
    def spread(self) -> float:
        """(slowest - fastest block median) / median: how unquiet the machine was for this side."""
        medians = self.block_medians
        return (max(medians) - min(medians)) / self.median


def interleave(
    sides: Mapping[str, Call],
    plan: Plan = FULL,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
    used: Callable[[], float] = time.process_time,
) -> dict[str, Timing]:
    """Time every side, in alternating blocks; ``clock``, ``sleep`` and ``used`` (seconds of processor) are for tests."""
    blocks: dict[str, list[tuple[float, ...]]] = {name: [] for name in sides}
    names = list(sides)
    for round_number in range(plan.blocks):
        turn = round_number // 2 % len(names)
        order = names[turn:] + names[:turn]
        for name in order if round_number % 2 == 0 else reversed(order):
            _rest(plan.rest_seconds, sleep, used)
            blocks[name].append(_block(sides[name], plan, clock))
    return {name: Timing(tuple(done)) for name, done in blocks.items()}


def _rest(seconds: float, sleep: Callable[[float], None], used: Callable[[], float]) -> None:
    """Rest until no thread of this process is busy, `MOST_RESTS` times ``seconds`` at most."""
    for _ in range(MOST_RESTS):
        before = used()
        sleep(seconds)
        if used() - before <= QUIET_SHARE * seconds:
            return


def _block(call: Call, plan: Plan, clock: Callable[[], float]) -> tuple[float, ...]:
    for _ in range(plan.dropped_calls):
        call()
    seconds: list[float] = []
    begun = clock()
    while len(seconds) < plan.minimum_calls or (len(seconds) < plan.block_calls and clock() - begun < plan.block_seconds):
        before = clock()
        call()
        seconds.append(clock() - before)
    return tuple(seconds)


@dataclass(frozen=True)
class Ratio:
    """Time of ``ours`` over ``theirs``: below 1 we are faster.

    ``low`` and ``high`` are the quartiles of the ratio over rounds (one block of each side makes a round).
    """

    median: float
    minimum: float
    low: float
    high: float


def ratio(ours: Timing, theirs: Timing) -> Ratio:
    rounds = [a / b for a, b in zip(ours.block_medians, theirs.block_medians, strict=True)]
    low, high = _quartiles(rounds)
    return Ratio(ours.median / theirs.median, ours.minimum / theirs.minimum, low, high)


def null_spread(twins: Ratio) -> float:
    """What one peer seems to gain or lose against itself: 0.03 says that ratios of 0.97 to 1.03 mean nothing.

    The largest of three readings: the twins' ratio of medians, and both quartiles of their ratio over rounds.
    """
    return max(LEAST_SPREAD, *(math.exp(abs(math.log(r))) - 1 for r in (twins.median, twins.low, twins.high)))


def is_tie(measured: Ratio, spread: float) -> bool:
    """Whether the ratio lies within the spread of the null test."""
    return abs(math.log(measured.median)) <= math.log1p(spread)


def geometric_mean(values: Sequence[float]) -> float:
    return math.exp(statistics.fmean(math.log(value) for value in values))


def _quartiles(values: Sequence[float]) -> tuple[float, float]:
    if len(values) < 2:
        return values[0], values[0]
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, third
