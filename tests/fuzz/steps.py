"""Random schedule steps, sensible and not: each is refused with a `ScheduleError`, or taken."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from hypothesis import strategies as st

from tensorlang.errors import ScheduleError
from tensorlang.ir.expr import Expr, var
from tensorlang.ir.stmt import Allocate, Block, For, Store
from tensorlang.ir.tree import read_buffers, written_buffers
from tensorlang.ir.verify import verify
from tensorlang.ir.visitor import blocks, free_vars, walk, walk_stmt
from tensorlang.schedule import Loop, Schedule, Stage, pipeline
from tensorlang.te import equal
from tests.fuzz import intrinsics, refusals, summary
from tests.fuzz.programs import Program
from tests.fuzz.values import Draw

FACTORS = (1, 2, 3, 4, 5, 8, 16)
SCOPES = ("global", "local", "packed")


def random_steps(draw: Draw, s: Schedule, program: Program) -> None:
    """Some steps on `s`, counted in `summary`. Each leaves a sound program, or everything as it was; what is refuted
    by two iterations and an address happens when the program runs."""
    handles: list[Loop] = [loop for stage in s.stages for loop in stage.loops]
    for _ in range(draw(st.sampled_from((6, 12, 3, 16)))):
        name = draw(st.sampled_from(NAMES))
        step = _Step(draw, s, handles)
        run = STEPS[name](step)
        before, length, proofs = str(s), len(s.trace), len(s.proof)
        try:
            run()
        except ScheduleError as error:
            assert str(s) == before, f"{name} was refused, but changed the program: {error}"
            assert (len(s.trace), len(s.proof)) == (length, proofs)
            assert str(error).strip(), name
            summary.count(name, "refused: " + refusals.check(error, program))
        else:
            verdicts = [e.verdict for e in s.proof[proofs:]]
            status = next((v.status for v in verdicts if v.status != "proved"), "proved")
            if status == "unknown" and not any(v.ran for v in verdicts):
                status = "unknown, not run"
            summary.count(name, status, symbolic=bool(program.func.size_vars))
        verify(s.func)
        assert len(s.trace) == len(s.proof)
        handles += [loop for stage in s.stages for loop in stage.loops if loop not in handles]


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
        written = set(written_buffers(self.s.block(stage)))
        return [t for t in self.s.stages if t.name != stage.name and written & set(read_buffers(self.s.block(t)))]

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
        written = [b for stage in self.s.stages for b in written_buffers(self.s.block(stage))]
        buffer = self.draw(st.sampled_from([*self.s.func.buffers, *written]))
        scope = self.draw(st.sampled_from(SCOPES))
        reading = [b.name for b in blocks(self.s.func.body) if buffer in read_buffers(b)]
        chosen: list[object] = []
        if self.draw(st.booleans()):
            chosen = [self.draw(st.sampled_from(reading)) if reading and self.draw(st.integers(0, 7)) else self.stage()]
        return lambda: self.s.cache_read(buffer.name, scope, chosen)

    def cache_write(self) -> Callable[[], object]:
        stage, scope = self.stage(), self.draw(st.sampled_from(SCOPES))
        if self.draw(st.integers(0, 3)) == 0:
            stage = self.reduction()
            try:
                stage.decompose_reduction(self.loop(stage))
            except ScheduleError:
                pass
        return lambda: self.s.cache_write(stage, scope)

    def transform_layout(self) -> Callable[[], object]:
        stage = (self.copied() if self.draw(st.booleans()) else None) or self.stage_where(self.readers)
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
        loop, key = self.loop(stage), self.key()
        return lambda: stage.pragma(loop, key)

    def key(self) -> str:
        return self.draw(st.sampled_from(("vector_reduce", "vector_reduce", "hint", "", "reducer", "tensor_intrin")))

    def annotate(self) -> Callable[[], object]:
        stage = self.stage()
        on: Loop | Stage = self.loop(stage) if self.draw(st.booleans()) else stage
        key = self.key()
        value = self.draw(st.sampled_from((1, "text", 2.5, None, object)))
        return lambda: stage.annotate(on, key, value)

    def unannotate(self) -> Callable[[], object]:
        stage = self.stage()
        on: Loop | Stage = stage
        if self.draw(st.booleans()):
            on = self.loop(stage)
        else:
            stage = on = self.stage_where(lambda stage: self.s.block(stage).annotations)
        known = list(self.s.block(stage).annotations) if on is stage else ["vector_reduce", "hint"]
        key = self.draw(st.sampled_from([*known, "hint"]))
        if self.draw(st.booleans()):
            try:
                stage.annotate(on, key, 1)
            except ScheduleError:
                pass
        return lambda: stage.unannotate(on, key)

    def bind(self) -> Callable[[], object]:
        stage = self.stage()
        loop = self.loop(stage)
        axis = self.draw(st.sampled_from(("blockIdx.x", "threadIdx.x", "threadIdx.y", "vthread", "warp")))
        return lambda: stage.bind(loop, axis)

    def loop_partition(self) -> Callable[[], object]:
        stage = self.stage_where(lambda stage: self.s.block(stage).predicate.op != "const")
        loop = self.loop(stage)
        try:  # a ragged tile, usually
            loop = stage.split(loop, self.draw(st.sampled_from((2, 3, 4, 8))))[self.draw(st.sampled_from((0, 0, 0, 1)))]
        except ScheduleError:
            pass
        if self.draw(st.integers(0, 3)):
            return lambda: stage.loop_partition(loop)
        factors = [self.factor(), None] if self.draw(st.booleans()) else [self.factor(), self.factor()]
        return lambda: stage.loop_partition(loop, factors)

    def compute_root(self) -> Callable[[], object]:
        stage = self.stage_where(self.placed if self.draw(st.booleans()) else self.reads_private)
        if self.draw(st.booleans()):
            stage = self.copy_of_a_private_copy() or stage
        return lambda: stage.compute_root()

    def copy_of_a_private_copy(self) -> Stage | None:
        reader, copy = self.stage(), None
        try:
            read = [b.name for b in read_buffers(self.s.block(reader)) if b in self.s.func.inputs]
            first = self.s.cache_read(read[0], "global", [reader])
            first.compute_at(reader, reader.loops[0])
            copy = self.s.cache_read(written_buffers(self.s.block(first)).popitem()[0].name, "global", [reader])
        except (ScheduleError, IndexError):
            pass
        return copy

    def reads_private(self, stage: Stage) -> bool:
        """Whether `stage` reads memory that lives inside a loop."""
        nests = [f for f in walk_stmt(self.s.func.body) if isinstance(f, For)]
        inside = {n.buffer for f in nests for n in walk_stmt(f) if isinstance(n, Allocate)}
        return not inside.isdisjoint(read_buffers(self.s.block(stage)))

    def placed(self, stage: Stage) -> bool:
        """Whether `stage` shares a loop with another one."""
        mine = {loop.var for loop in stage.loops}
        return any(loop.var in mine for other in self.s.stages if other.name != stage.name for loop in other.loops)

    def reverse_compute_at(self) -> Callable[[], object]:
        stage = self.stage_where(self.consumes)
        reading = self.producers(stage)
        producer = self.draw(st.sampled_from(reading)) if reading and self.draw(st.integers(0, 7)) else self.stage()
        loop = self.loop(producer)
        return lambda: stage.reverse_compute_at(producer, loop)

    def consumes(self, stage: Stage) -> bool:
        """Whether `stage` reads what another one computes, and is no reduction."""
        return bool(self.producers(stage)) and all(it.kind == "spatial" for it in self.s.block(stage).iters)

    def producers(self, stage: Stage) -> list[Stage]:
        read = read_buffers(self.s.block(stage))
        return [t for t in self.s.stages if t.name != stage.name and set(written_buffers(self.s.block(t))) & set(read)]

    def reverse_compute_inline(self) -> Callable[[], object]:
        stage = self.stage_where(self.consumes)
        if self.draw(st.booleans()):
            try:
                self.s.cache_write(stage, self.draw(st.sampled_from(SCOPES)))
            except ScheduleError:
                pass
        return lambda: stage.reverse_compute_inline()

    def reindex(self) -> Callable[[], object]:
        stage = self.stage()
        read = [b.name for b in read_buffers(self.s.block(stage))]
        anything = [b.name for b in self.s.func.buffers]
        buffer = self.draw(st.sampled_from(read if read and self.draw(st.integers(0, 7)) else anything))
        scope = self.draw(st.sampled_from(SCOPES))
        return lambda: self.s.reindex(stage, buffer, scope)

    def set_scope(self) -> Callable[[], object]:
        stage = (self.copied() if self.draw(st.booleans()) else None) or self.stage_where(self.readers)
        scope = self.draw(st.sampled_from((*SCOPES, "shared", "moon")))
        return lambda: stage.set_scope(scope)

    def copied(self) -> Stage | None:
        """A fresh copy of some tensor: what many primitives of memory are for."""
        names = [b.name for b in self.s.func.inputs]
        try:
            return self.s.cache_read(self.draw(st.sampled_from(names)), self.draw(st.sampled_from(SCOPES)))
        except ScheduleError:
            return None

    def storage_align(self) -> Callable[[], object]:
        if self.draw(st.integers(0, 3)):
            copy = self.copied()
            if copy is not None and len(copy.loops) > 1 and self.draw(st.integers(0, 3)):
                factor, offset = self.draw(st.sampled_from((8, 16, 3))), self.draw(st.sampled_from((0, 1, 2)))
                axis = self.draw(st.integers(0, len(copy.loops) - 1))
                return lambda: copy.storage_align(axis, factor, offset)
        stage = self.stage_where(lambda t: self.readers(t) and len(self.s.block(t).iters) > 1)
        axis, factor, offset = (self.draw(st.sampled_from(c)) for c in ((0, 0, 1, -2, -1, 5), (8, 16, 3, 0), (0, 1, 2, 20)))
        return lambda: stage.storage_align(axis, factor, offset)

    def pad_einsum(self) -> Callable[[], object]:
        stage = self.reduction()
        reductions = [t for t in self.s.stages if self.s.block(t).init is not None]
        untouched = [t for t in reductions if len(t.loops) == len(self.s.block(t).iters)]
        if untouched and self.draw(st.integers(0, 3)):
            stage = self.draw(st.sampled_from(untouched))
        count = len(self.s.block(stage).iters) + self.draw(st.sampled_from((0, 0, 0, 0, 0, 1)))
        padding = [self.draw(st.sampled_from((1, 2, 4, 8, 16, 0))) for _ in range(count)]
        return lambda: stage.pad_einsum(padding)

    def decompose_padding(self) -> Callable[[], object]:
        stage = self.stage_where(lambda t: any(e.op == "select" for e in _values(self.s.block(t))))
        loop = self.loop(stage)
        return lambda: stage.decompose_padding(loop)

    def blockize(self) -> Callable[[], object]:
        stage = self.stage_where(self.placed) if self.draw(st.booleans()) else self.stage()
        loop = stage.loops[0] if stage.loops and self.draw(st.booleans()) else self.loop(stage)
        return lambda: stage.blockize(loop)

    def tensorize(self) -> Callable[[], object]:
        stage = (self.copied() if self.draw(st.booleans()) else None) or self.stage_where(
            lambda t: any(e.op == "load" for e in _values(self.s.block(t)))
        )
        loops = stage.loops
        loop = loops[-1] if loops and self.draw(st.integers(0, 3)) else self.loop(stage)
        dtypes = [b.dtype.name for b in written_buffers(self.s.block(stage)) if b.dtype.name in intrinsics.COPIES]
        if loops and self.draw(st.booleans()):
            loop = loops[-1]
        names = intrinsics.COPIES[dtypes[0]] if dtypes and self.draw(st.integers(0, 7)) else intrinsics.ALL
        name = self.draw(st.sampled_from(names))
        return lambda: stage.tensorize(loop, name, fallback=True)

    def specialize(self) -> Callable[[], object]:
        v = self.draw(st.sampled_from([*self.s.func.size_vars, var("Z")]))
        n = self.draw(st.sampled_from((1, 2, 4, 8)))
        condition = self.draw(st.sampled_from((equal(v % n, 0), equal(v, n), v >= n + 1, v <= n, v >= 0)))
        return lambda: self.s.specialize(condition)

    def rolling_buffer(self) -> Callable[[], object]:
        reader = self.stage_where(self.has_window)
        read = [b.name for b in read_buffers(self.s.block(reader)) if b not in written_buffers(self.s.block(reader))]
        stage = self.stage()
        try:
            if read and self.draw(st.integers(0, 7)):
                stage = self.s.cache_read(read[0], self.draw(st.sampled_from(SCOPES)), [reader])
                stage.compute_at(reader, reader.loops[self.draw(st.sampled_from((0, 0, 0, 1)))])
        except (ScheduleError, IndexError):
            pass
        return lambda: stage.rolling_buffer()

    def prefetch(self) -> Callable[[], object]:
        stage = self.stage()
        block = self.s.block(stage)
        names = [b.name for b in (*read_buffers(block), *written_buffers(block))]
        name, loop, ahead = self.draw(st.sampled_from(names)), self.loop(stage), self.draw(st.sampled_from((1, 1, 2, 5, 0)))
        if self.draw(st.booleans()):
            return lambda: stage.prefetch(name, loop, ahead)
        over, among = self.loop(stage), self.draw(st.sampled_from((1, 2, 3)))
        return lambda: stage.prefetch(name, loop, ahead, among=among, over=over)

    def double_buffer(self) -> Callable[[], object]:
        stage = self.placed_copy()
        return lambda: stage.double_buffer()

    def software_pipeline(self) -> Callable[[], object]:
        stage = self.placed_copy()
        loop = self.loop(stage)
        path = [f for f in walk_stmt(self.s.func.body) if isinstance(f, For) and f.var is loop.var]
        inside = path and any(b.name == stage.name for b in blocks(path[0]))
        stages = pipeline.stages_for_double_buffer(path[0], stage.name) if inside else [0, 1]
        if self.draw(st.integers(0, 2)) == 0:
            stages = [self.draw(st.sampled_from((0, 0, 1, 2))) for _ in stages]
        if self.draw(st.integers(0, 9)) == 0:
            stages = stages[1:]
        return lambda: stage.software_pipeline(loop, stages)

    def placed_copy(self) -> Stage:
        """Usually a stage at a loop of its reader: a fresh copy of what that reads, or another one."""
        reader = self.stage()
        read = [b.name for b in read_buffers(self.s.block(reader)) if b not in written_buffers(self.s.block(reader))]
        try:
            if read and reader.loops and self.draw(st.integers(0, 3)):
                copy = self.s.cache_read(self.draw(st.sampled_from(read)), "global", [reader])
                copy.compute_at(reader, self.draw(st.sampled_from(reader.loops)))
                return copy
        except ScheduleError:
            pass
        return self.stage_where(self.placed)

    def has_window(self, stage: Stage) -> bool:
        """Whether `stage` reads something at the sum of an output's axis and one of its reduction."""
        kinds = {it.var: it.kind for it in self.s.block(stage).iters}
        indices = [i for e in _values(self.s.block(stage)) for n in walk(e) if n.op == "load" for i in n.args]
        return any({kinds.get(v) for v in free_vars(i)} == {"spatial", "reduce"} for i in indices)

    def set_store_predicate(self) -> Callable[[], object]:
        stage = self.stage()
        loop, n = self.loop(stage), self.draw(st.sampled_from((0, 1, 2)))
        condition = self.draw(st.sampled_from((lambda v: v < n, lambda v: v >= 0, lambda v: v <= 100)))
        return lambda: stage.set_store_predicate(condition(loop.var))

    def cache_inplace(self) -> Callable[[], object]:
        stage, scope = self.stage(), self.draw(st.sampled_from(SCOPES))
        return lambda: self.s.cache_inplace(stage, scope)


def _values(block: Block) -> list[Expr]:
    return [s.value for s in walk_stmt(block.body) if isinstance(s, Store)]


def _known(names: Iterable[str]) -> list[str]:
    return [n for n in names if hasattr(Stage, n) or hasattr(Schedule, n)]


STEPS: dict[str, Callable[[_Step], Callable[[], object]]] = {
    name: getattr(_Step, name)
    for name in _known((
        "split", "fuse", "reorder", "tile", "vectorize", "parallel", "unroll", "bind", "compute_at", "compute_inline",
        "compute_root", "reverse_compute_at", "reverse_compute_inline", "cache_read", "cache_write", "cache_inplace",
        "reindex", "transform_layout", "set_scope", "storage_align", "rolling_buffer", "set_store_predicate", "rfactor",
        "decompose_reduction", "pad_einsum", "decompose_padding", "loop_partition", "specialize", "blockize", "tensorize",
        "double_buffer", "software_pipeline", "prefetch", "pragma", "annotate", "unannotate",
    ))
}  # fmt: skip
NAMES = (
    *STEPS, "split", "split", "reorder", "reorder", "vectorize", "parallel", "compute_at", "compute_at", "compute_at",
    "rfactor", "reverse_compute_at", "cache_read", *(n for n in ("reverse_compute_inline", "tensorize", "specialize",
    "pad_einsum", "pad_einsum", "decompose_padding", "storage_align", *("rolling_buffer",) * 4,
    "reverse_compute_at", "annotate", "specialize", "blockize", "decompose_padding",
    "software_pipeline", "software_pipeline") if n in STEPS),
)  # fmt: skip
