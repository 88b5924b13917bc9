"""Random schedule steps, sensible and not: each is refused with a `ScheduleError`, or taken."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import strategies as st

from tensorlang.errors import ScheduleError
from tensorlang.ir.expr import var
from tensorlang.ir.tree import written_buffer
from tensorlang.ir.verify import verify
from tensorlang.schedule import Loop, Schedule, Stage
from tensorlang.schedule.compute import readers
from tests.fuzz.values import Draw

FACTORS = (1, 2, 3, 4, 5, 8, 16)
SCOPES = ("global", "local", "packed")


def random_steps(draw: Draw, s: Schedule, most: int = 8) -> dict[str, int]:
    """Up to `most` steps on `s`; returns how many were taken and refused, per primitive. Each leaves a sound program, or
    everything as it was."""
    counts: dict[str, int] = {}
    handles: list[Loop] = [loop for stage in s.stages for loop in stage.loops]
    for _ in range(draw(st.integers(1, most))):
        name = draw(st.sampled_from(NAMES))
        step = _Step(draw, s, handles)
        run = STEPS[name](step)
        before, length, proofs = str(s), len(s.trace), len(s.proof)
        try:
            run()
        except ScheduleError as error:
            # tile and a fusion of three loops are several steps: those before the one that is refused stay
            if name not in COMPOUND:
                assert str(s) == before, f"{name} was refused, but changed the program: {error}"
                assert (len(s.trace), len(s.proof)) == (length, proofs)
            outcome = "refused"
        else:
            outcome = "taken"
        verify(s.func)
        assert len(s.trace) == len(s.proof)
        counts[f"{name} {outcome}"] = counts.get(f"{name} {outcome}", 0) + 1
        handles += [loop for stage in s.stages for loop in stage.loops if loop not in handles]
    return counts


class _Step:
    """Random arguments for one step on a schedule as it is now."""

    def __init__(self, draw: Draw, s: Schedule, handles: list[Loop]):
        self.draw, self.s, self.handles = draw, s, handles

    def stage(self) -> Stage:
        return self.draw(st.sampled_from(self.s.stages))

    def stage_where(self, wanted: Callable[[Stage], object]) -> Stage:
        """Usually a stage that is `wanted`, if there is one."""
        found = [stage for stage in self.s.stages if wanted(stage)]
        return self.draw(st.sampled_from(found)) if found and self.draw(st.integers(0, 7)) else self.stage()

    def readers(self, stage: Stage) -> list[Stage]:
        return [self.s[b.name] for b in readers(self.s.func, written_buffer(self.s.block(stage)))]

    def reduction(self) -> Stage:
        return self.stage_where(lambda stage: self.s.block(stage).init is not None)

    def loop(self, stage: Stage) -> Loop:
        """Usually a loop of `stage` as it is now."""
        loops = stage.loops
        if not loops or self.draw(st.integers(0, 15)) == 0:
            if not self.handles:
                return Loop(var("none"), "none")
            return self.draw(st.sampled_from(self.handles))
        return self.draw(st.sampled_from(loops))

    def factor(self) -> int:
        return self.draw(st.sampled_from((*FACTORS, *FACTORS, 0, -2, 100)))

    # -- primitives: each draws its arguments, and returns the call ------------------------------------------------
    def split(self) -> Callable[[], object]:
        stage = self.stage()
        loop, factor = self.loop(stage), self.factor()
        tail = self.draw(st.sampled_from(("guard", "guard", "shift_inwards", "round_up")))
        if self.draw(st.integers(0, 4)) == 0:
            return lambda: stage.split(loop, nparts=factor, tail=tail)
        return lambda: stage.split(loop, factor, tail=tail)

    def fuse(self) -> Callable[[], object]:
        stage = self.stage()
        loops = stage.loops
        if len(loops) >= 2 and self.draw(st.integers(0, 7)):
            first = self.draw(st.integers(0, len(loops) - 2))
            chosen = loops[first : first + self.draw(st.integers(2, 3))]
        else:
            chosen = (self.loop(stage), self.loop(stage))
        return lambda: stage.fuse(*chosen)

    def reorder(self) -> Callable[[], object]:
        stage = self.stage()
        loops = list(stage.loops)
        if len(loops) >= 2 and self.draw(st.integers(0, 7)):
            order = self.draw(st.permutations(loops))
            order = order[: self.draw(st.integers(2, len(loops)))]
        else:
            order = [self.loop(stage), self.loop(stage)]
        return lambda: stage.reorder(*order)

    def tile(self) -> Callable[[], object]:
        stage = self.stage()
        x, y = self.loop(stage), self.loop(stage)
        a, b = self.factor(), self.factor()
        return lambda: stage.tile(x, y, a, b)

    def vectorize(self) -> Callable[[], object]:
        stage = self.stage()
        loops = stage.loops
        loop = loops[-1] if loops and self.draw(st.booleans()) else self.loop(stage)
        return lambda: stage.vectorize(loop)

    def parallel(self) -> Callable[[], object]:
        stage = self.stage()
        loops = stage.loops
        loop = loops[0] if loops and self.draw(st.booleans()) else self.loop(stage)
        return lambda: stage.parallel(loop)

    def unroll(self) -> Callable[[], object]:
        stage = self.stage()
        loop = self.loop(stage)
        return lambda: stage.unroll(loop)

    def compute_at(self) -> Callable[[], object]:
        stage = self.stage_where(self.readers)
        reading = self.readers(stage)
        consumer = self.draw(st.sampled_from(reading)) if reading and self.draw(st.integers(0, 7)) else self.stage()
        loop = self.loop(consumer)
        return lambda: stage.compute_at(consumer, loop)

    def compute_inline(self) -> Callable[[], object]:
        stage = self.stage_where(self.readers)
        return lambda: stage.compute_inline()

    def cache_read(self) -> Callable[[], object]:
        written = [written_buffer(self.s.block(stage)) for stage in self.s.stages]
        buffer = self.draw(st.sampled_from([*self.s.func.buffers, *written]))
        scope = self.draw(st.sampled_from(SCOPES))
        reading = [b.name for b in readers(self.s.func, buffer)]
        chosen: list[object] = []
        if self.draw(st.booleans()):
            chosen = [self.draw(st.sampled_from(reading)) if reading and self.draw(st.integers(0, 7)) else self.stage()]
        return lambda: self.s.cache_read(buffer.name, scope, chosen)

    def cache_write(self) -> Callable[[], object]:
        stage, scope = self.stage(), self.draw(st.sampled_from(SCOPES))
        return lambda: self.s.cache_write(stage, scope)

    def transform_layout(self) -> Callable[[], object]:
        stage = self.stage_where(self.readers)
        rank = len(self.s.block(stage).iters)
        order = self.draw(st.permutations(range(rank)))
        at, c = self.draw(st.integers(0, max(rank - 1, 0))), self.draw(st.sampled_from((2, 3, 4)))
        divide = self.draw(st.booleans())

        def index_map(*i: object) -> tuple[object, ...]:
            if not divide or not rank:
                return tuple(i[n] for n in order)
            return (*(i[n] // c if n == at else i[n] for n in order), i[at] % c)  # type: ignore[operator]

        return lambda: stage.transform_layout(index_map)

    def rfactor(self) -> Callable[[], object]:
        stage = self.reduction()
        reduce = stage.reduce_axis
        loop = self.draw(st.sampled_from(reduce)) if reduce and self.draw(st.booleans()) else self.loop(stage)
        axis = self.draw(st.sampled_from((0, -1, 0, -1, 1, 7)))
        return lambda: stage.rfactor(loop, axis)

    def decompose_reduction(self) -> Callable[[], object]:
        stage = self.reduction()
        loop = self.loop(stage)
        return lambda: stage.decompose_reduction(loop)

    def pragma(self) -> Callable[[], object]:
        stage = self.stage()
        loop = self.loop(stage)
        return lambda: stage.pragma(loop, "vector_reduce")


STEPS: dict[str, Callable[[_Step], Callable[[], object]]] = {
    name: getattr(_Step, name)
    for name in (
        "split", "fuse", "reorder", "tile", "vectorize", "parallel", "unroll", "compute_at", "compute_inline", "cache_read",
        "cache_write", "transform_layout", "rfactor", "decompose_reduction", "pragma",
    )
}  # fmt: skip
COMPOUND = ("tile", "fuse")
NAMES = (*STEPS, "split", "split", "reorder", "vectorize", "parallel", "compute_at", "compute_at", "compute_at", "rfactor")
