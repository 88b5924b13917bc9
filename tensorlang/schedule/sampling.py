"""Random decisions as steps of a schedule: recorded with what was decided, so that a trace replays to the same program.

    tiles = s.sample_perfect_tile(i, 3, max_innermost_factor=16)        # [8, 4, 16] of 512
    y.split(i, factors=tiles)

The random numbers are the schedule's own (`seed`): the same program, seed and calls decide the same. A `decision` that is
given is checked and taken instead, and uses up no random number; that is how a search changes one decision of a trace.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from random import Random
from typing import Any, Self

from tensorlang.errors import ScheduleError
from tensorlang.ir.expr import Expr, user_location
from tensorlang.ir.stmt import PrimFunc
from tensorlang.schedule.handles import Stage
from tensorlang.schedule.navigation import Navigation
from tensorlang.schedule.state import Loop

ROOT, INLINE = -1, -2  # decisions of sample_compute_location that are no loop


class Sampling(Navigation):
    """What a search leaves to chance.

    Args:
        seed: where the random numbers begin.
    """

    def __init__(self, func: PrimFunc, trials: str = "at once", seed: int = 0):
        super().__init__(func, trials)
        self._rng = Random(seed)

    def copy(self) -> Self:
        """An independent schedule in the same state, its random numbers included; handles of this one are valid for it."""
        other = super().copy()
        other._rng = Random()
        other._rng.setstate(self._rng.getstate())
        return other

    def seed(self, seed: int) -> None:
        """Begin the random numbers anew."""
        self._rng = Random(seed)

    def sample_perfect_tile(
        self, loop: Loop, n: int, max_innermost_factor: int = 16, decision: Sequence[int] | None = None
    ) -> list[int]:
        """`n` factors whose product is the extent of `loop`, every such list being equally likely; for `split(factors=)`.

        Args:
            max_innermost_factor: the last factor is at most this.
            decision: the factors, instead of random ones.

        Legality: the extent is a constant; a decision has `n` positive factors of that product within the limit.
        """
        extent = self._for(loop, "sample_perfect_tile").extent
        if extent.op != "const":
            raise self._error("sample_perfect_tile", f"the extent of {loop.name} is {extent}, not a constant")
        if n < 1 or max_innermost_factor < 1:
            raise self._error("sample_perfect_tile", "n and max_innermost_factor are at least 1")
        size = int(extent.value)
        if decision is None:
            if not _count(size, n, max_innermost_factor):
                text = f"{size} has no {n} factors the last of which is <= {max_innermost_factor}"
                raise self._error("sample_perfect_tile", text)
            decision = self._tile(size, n, max_innermost_factor)
        product = 1
        for f in decision:
            product *= f
        if len(decision) != n or any(f < 1 for f in decision) or product != size or decision[-1] > max_innermost_factor:
            raise self._error(
                "sample_perfect_tile",
                f"{list(decision)} is no list of {n} factors of {size} the last of which is <= {max_innermost_factor}",
            )
        self._decided("sample_perfect_tile", (loop, n, max_innermost_factor), list(decision))
        return list(decision)

    def _tile(self, size: int, n: int, most: int) -> list[int]:
        """Uniformly: each factor, from the last on, as likely as there are ways to go on."""
        found: list[int] = []
        for left in range(n, 1, -1):
            limit = most if left == n else size
            choices = [d for d in _divisors(size) if d <= limit]
            weights = [_count(size // d, left - 1, size) for d in choices]
            found.append(self._rng.choices(choices, weights)[0])
            size //= found[-1]
        return [size, *reversed(found)]

    def sample_categorical(
        self, candidates: Sequence[Any], probs: Sequence[float] | None = None, decision: int | None = None
    ) -> Any:
        """One of `candidates` (numbers or strings), with these probabilities.

        Args:
            probs: one per candidate, in any scale; by default all alike.
            decision: the position of the candidate, instead of a random one.

        Legality: there is a candidate, the probabilities are not negative and not all zero, and a decision is a position.
        """
        what = "sample_categorical"
        weights = [1.0] * len(candidates) if probs is None else [float(p) for p in probs]
        if not candidates:
            raise self._error(what, "there are no candidates")
        if len(weights) != len(candidates) or any(not p >= 0 for p in weights) or not sum(weights) > 0:
            raise self._error(what, f"{list(probs or ())} are no probabilities of {len(candidates)} candidates")
        if wrong := [c for c in candidates if not isinstance(c, bool | int | float | str)]:
            raise self._error(what, f"candidates are numbers or strings, not {wrong[0]!r}")
        if decision is None:
            decision = self._rng.choices(range(len(candidates)), weights)[0]
        if isinstance(decision, bool) or not isinstance(decision, int) or not 0 <= decision < len(candidates):
            raise self._error(what, f"the decision {decision!r} is no position among {len(candidates)} candidates")
        self._decided(what, (list(candidates), weights), decision)
        return candidates[decision]

    def sample_compute_location(self, stage: Any, decision: int | None = None) -> Loop | str:
        """Where `stage` may be computed: a loop of its only reader (for `compute_at`), `"root"` or `"inline"`.

        Args:
            decision: the number of the loop around the reader, outermost first; -1 for "root", -2 for "inline".

        Legality: a decision is a place that `compute_at` (`compute_inline`) accepts; random ones always are.
        """
        what = "sample_compute_location"
        handle = Stage(self, self._found(stage).name)
        loops = self._reader_loops(handle)
        if decision is None:
            decision = self._rng.choice([d for d in (*range(len(loops)), ROOT, INLINE) if self._possible(handle, loops, d)])
        elif isinstance(decision, bool) or not isinstance(decision, int) or not INLINE <= decision < len(loops):
            raise self._error(what, f"the decision {decision!r} is none of: -2 (inline), -1 (root), 0 ... {len(loops) - 1}")
        elif not self._possible(handle, loops, decision):
            where = loops[decision].name if decision >= 0 else "its readers (inlined)"
            raise self._error(what, f"{handle.name} cannot be computed at {where}")
        self._decided(what, (handle,), decision)
        return loops[decision] if decision >= 0 else "root" if decision == ROOT else "inline"

    def _reader_loops(self, stage: Stage) -> tuple[Loop, ...]:
        readers = self.get_consumers(stage)
        return readers[0].loops if len(readers) == 1 else ()

    def _possible(self, stage: Stage, loops: Sequence[Loop], decision: int) -> bool:
        """Whether the place is one that the primitives accept: they are asked, on a copy."""
        if decision == ROOT:
            return True
        trial = self.copy()
        moved = Stage(trial, stage.name)
        try:
            if decision == INLINE:
                moved.compute_inline()
            else:
                moved.compute_at(trial.get_consumers(moved)[0], loops[decision])
        except ScheduleError:
            return False
        return True

    def _decided(self, primitive: str, args: tuple[Any, ...], decision: Any) -> None:
        def unchanged(func: PrimFunc) -> tuple[PrimFunc, list[Expr]]:
            return func, []

        self._apply(primitive, None, args, {"decision": decision}, unchanged, None)

    @staticmethod
    def _error(primitive: str, text: str) -> ScheduleError:
        return ScheduleError(f"{user_location()}: {primitive}: {text}")


@lru_cache(maxsize=4096)
def _divisors(n: int) -> tuple[int, ...]:
    small = [d for d in range(1, int(n**0.5) + 1) if n % d == 0]
    return tuple(sorted({*small, *(n // d for d in small)}))


@lru_cache(maxsize=65536)
def _count(n: int, k: int, most: int) -> int:
    """How many lists of `k` factors with the product `n` there are, the last factor at most `most`."""
    if k == 1:
        return int(n <= most)
    return sum(_count(n // d, k - 1, n // d) for d in _divisors(n) if d <= most)
