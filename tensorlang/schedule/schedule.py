"""The scheduling language: a `Schedule` holds one loop nest; handles to its stages and loops carry the primitives.

Every primitive checks, rewrites the nest at once, and records: `print(s)` after any step shows the program as it is,
`s.trace` lists the steps, `s.proof` what is known of their legality. A step that is refused raises `ScheduleError` and
leaves the schedule as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tensorlang.errors import ScheduleError
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr, user_location
from tensorlang.ir.stmt import Block, For, PrimFunc
from tensorlang.ir.tree import block_path, find_block, loop_path, loops_of
from tensorlang.ir.visitor import blocks, walk_stmt
from tensorlang.schedule import cache, compute, legality, loops, reduction
from tensorlang.schedule.legality import Verdict
from tensorlang.schedule.trace import Step, Trace


@dataclass(frozen=True, eq=False)
class Loop:
    """A handle to a loop. It dies when the loop is split or fused away."""

    var: Expr
    name: str

    def __repr__(self) -> str:
        return self.name


@dataclass(frozen=True)
class ProofEntry:
    """What is known of one step: `status` is proved, refuted or unknown."""

    step: str
    verdict: Verdict


class Stage:
    """A handle to a stage of the program. Its methods are the primitives; loops are passed as handles."""

    def __init__(self, schedule: Schedule, name: str):
        self._schedule = schedule
        self.name = name

    def __repr__(self) -> str:
        return f"stage {self.name}"

    @property
    def axis(self) -> tuple[Loop, ...]:
        """The loops made for the stage's output dimensions, in order."""
        return self._schedule._axes(self.name)[0]

    @property
    def reduce_axis(self) -> tuple[Loop, ...]:
        """The loops made for the stage's reduction, in order."""
        return self._schedule._axes(self.name)[1]

    @property
    def loops(self) -> tuple[Loop, ...]:
        """All loops around the stage now, outermost first."""
        return self._schedule._loops_around(self.name)

    # -- loops -----------------------------------------------------------------------------------------------------
    def split(
        self, loop: Loop, factor: int | Expr | None = None, *, nparts: int | Expr | None = None, tail: str = "guard"
    ) -> tuple[Loop, Loop]:
        """Split `loop` into an outer loop and an inner one of `factor` iterations (or an outer one of `nparts`).

        for v in n  ->  for v_o in ceil(n / factor): for v_i in factor

        `tail` says what the last tile does where `factor` does not divide n: `"guard"` skips points beyond n,
        `"shift_inwards"` moves the tile back inside and recomputes some points. Always legal.
        """
        if tail not in loops.TAILS:
            raise ScheduleError(f"split: tail is one of {', '.join(loops.TAILS)}, not {tail!r}")
        if (factor is None) == (nparts is None):
            raise ScheduleError("split: give either factor or nparts")

        def run(func: PrimFunc) -> tuple[PrimFunc, list[Expr]]:
            target = self._schedule._for(loop, "split")
            if nparts is not None:
                parts = loops.as_factor(nparts, "split")
                size = loops.simplify((target.extent + parts - 1) // parts)
            else:
                size = loops.as_factor(factor, "split")
            new, pair = loops.split(func, target, size, tail)
            return new, list(pair)

        kwargs = {k: v for k, v in (("nparts", nparts), ("tail", tail)) if v not in (None, "guard")}
        def check(func: PrimFunc) -> Verdict:
            if tail == "guard":
                return legality.PROVED
            return legality.check_shift_inwards(func, self._schedule._for(loop, "split"))

        args = (loop, *([factor] if factor is not None else []))
        outer, inner = self._apply("split", args, kwargs, run, check)
        return outer, inner

    def tile(self, x: Loop, y: Loop, x_factor: int, y_factor: int) -> tuple[Loop, Loop, Loop, Loop]:
        """Split both loops and order them x_o, y_o, x_i, y_i. Returns those four."""
        xo, xi = self.split(x, x_factor)
        yo, yi = self.split(y, y_factor)
        self.reorder(xo, yo, xi, yi)
        return xo, yo, xi, yi

    def fuse(self, *fused: Loop) -> Loop:
        """One loop over the product of directly nested loops, outermost first. Always legal."""
        if len(fused) < 2:
            raise ScheduleError("fuse: give at least two loops")
        result = fused[0]
        for inner in fused[1:]:
            outer = result

            def run(func: PrimFunc, outer: Loop = outer, inner: Loop = inner) -> tuple[PrimFunc, list[Expr]]:
                new, v = loops.fuse(func, self._schedule._for(outer, "fuse"), self._schedule._for(inner, "fuse"))
                return new, [v]

            (result,) = self._apply("fuse", (outer, inner), {}, run)
        return result

    def reorder(self, *order: Loop) -> None:
        """Put perfectly nested loops into this order, outermost first. Legal if no dependence is turned around."""
        targets = [self._schedule._for(loop, "reorder") for loop in order]
        if len(set(map(id, targets))) != len(targets):
            raise ScheduleError("reorder: a loop is named twice")
        if len(targets) < 2:
            return

        def run(func: PrimFunc) -> tuple[PrimFunc, list[Expr]]:
            return loops.reorder(func, targets), []

        def check(func: PrimFunc) -> Verdict:
            loops.perfect_nest(func, targets)
            return legality.check_reorder(func, targets)

        self._apply("reorder", order, {}, run, check)

    def vectorize(self, loop: Loop) -> None:
        """Run the iterations of `loop` as vector lanes. Legal if they are independent; its extent must be constant."""
        target = self._schedule._for(loop, "vectorize")
        if target.extent.op != "const":
            raise ScheduleError(f"vectorize: the extent of {loop.name} is {target.extent}, not a constant; split it first")
        self._set_kind("vectorize", loop, "vectorized", legality.check_vectorize)

    def parallel(self, loop: Loop) -> None:
        """Share the iterations of `loop` among threads. Legal if they are independent."""
        self._set_kind("parallel", loop, "parallel", legality.check_parallel)

    def unroll(self, loop: Loop) -> None:
        """Write the iterations of `loop` out. Always legal; its extent must be constant."""
        if self._schedule._for(loop, "unroll").extent.op != "const":
            raise ScheduleError(f"unroll: the extent of {loop.name} is not a constant; split it first")
        self._set_kind("unroll", loop, "unrolled", None)

    def _set_kind(
        self, primitive: str, loop: Loop, kind: str, check: Callable[[PrimFunc, For], Verdict] | None
    ) -> None:
        def run(func: PrimFunc) -> tuple[PrimFunc, list[Expr]]:
            return loops.set_kind(func, self._schedule._for(loop, primitive), kind), []

        def checked(func: PrimFunc) -> Verdict:
            return check(func, self._schedule._for(loop, primitive)) if check else legality.PROVED

        self._apply(primitive, (loop,), {}, run, checked)

    def pragma(self, loop: Loop, key: str, value: int | str | float = 1) -> None:
        """A hint on `loop` for code generation. Never changes the meaning."""

        def run(func: PrimFunc) -> tuple[PrimFunc, list[Expr]]:
            return loops.annotate(func, self._schedule._for(loop, "pragma"), key, value), []

        self._apply("pragma", (loop, key, value), {}, run)

    # -- where stages are computed ---------------------------------------------------------------------------------
    def compute_at(self, consumer: Stage, loop: Loop) -> None:
        """Compute this stage inside `loop` of `consumer`, just the part that each iteration reads, in private memory."""
        target = self._schedule._for(loop, "compute_at")
        if not any(s is target for s in block_path(self._schedule.func.body, consumer.name)):
            raise ScheduleError(f"compute_at: {loop.name} is not a loop of stage {consumer.name}")

        def run(func: PrimFunc) -> tuple[PrimFunc, list[Expr]]:
            new, spatial, reduce = compute.compute_at(func, self.name, target)
            self._schedule._pending_axes[self.name] = (spatial, reduce)
            return new, []

        def covered(func: PrimFunc) -> Verdict:
            return legality.check_compute_at(func, self.name, self._schedule._for(loop, "compute_at", func))

        self._apply("compute_at", (consumer, loop), {}, run, after=covered)

    def compute_inline(self) -> None:
        """Let the readers of this stage compute its elements themselves."""
        self._apply("compute_inline", (), {}, lambda func: (compute.compute_inline(func, self.name), []))

    # -- copies and layouts ----------------------------------------------------------------------------------------
    def transform_layout(self, index_map: Callable[..., Any]) -> None:
        """Store this stage's buffer in another order, e.g. `lambda k, j: (j // 48, k, j % 48)`; padding holds zeros."""
        index_map = cache.IndexMap.of(index_map, len(self._schedule.block(self).iters))

        def run(func: PrimFunc) -> tuple[PrimFunc, list[Expr]]:
            new, spatial = cache.transform_layout(func, self.name, index_map)
            self._schedule._pending_axes[self.name] = (spatial, [])
            return new, []

        self._apply("transform_layout", (index_map,), {}, run)

    # -- reductions ------------------------------------------------------------------------------------------------
    def rfactor(self, loop: Loop, factor_axis: int = 0) -> Stage:
        """Split the reduction along `loop` into partial results (a new stage, returned) and their combination."""
        made: list[str] = []

        def run(func: PrimFunc) -> tuple[PrimFunc, list[Expr]]:
            new, name = reduction.rfactor(func, self.name, self._schedule._for(loop, "rfactor"), factor_axis)
            made.append(name)
            return new, []

        self._apply("rfactor", (loop, factor_axis), {}, run)
        self._schedule._discover_axes(self.name)
        self._schedule._discover_axes(made[0])
        return Stage(self._schedule, made[0])

    def decompose_reduction(self, loop: Loop) -> Stage:
        """Initialise this reduction in a stage of its own before `loop`; returns that stage."""
        made: list[str] = []

        def run(func: PrimFunc) -> tuple[PrimFunc, list[Expr]]:
            new, name = reduction.decompose_reduction(func, self.name, self._schedule._for(loop, "decompose_reduction"))
            made.append(name)
            return new, []

        def check(func: PrimFunc) -> Verdict:
            target = self._schedule._for(loop, "decompose_reduction")
            around = any(f is target for f in loops_of(block_path(func.body, self.name)))
            return legality.check_decompose_reduction(func, self.name, target) if around else legality.PROVED

        self._apply("decompose_reduction", (loop,), {}, run, check)
        self._schedule._discover_axes(made[0])
        return Stage(self._schedule, made[0])

    def _apply(
        self,
        primitive: str,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        run: Callable[[PrimFunc], tuple[PrimFunc, list[Expr]]],
        check: Callable[[PrimFunc], Verdict] | None = None,
        after: Callable[[PrimFunc], Verdict] | None = None,
    ) -> tuple[Loop, ...]:
        return self._schedule._apply(primitive, self, args, kwargs, run, check, after)


class Schedule:
    """One program under transformation.

    Attributes:
        func: the loop nest as it is now (immutable; keep it to go back).
        trace: the steps so far.
        proof: what is known of each step.
    """

    def __init__(self, func: PrimFunc):
        self.original = func
        self.func = func
        self.trace = Trace()
        self.proof: list[ProofEntry] = []
        self._axis_vars: dict[str, tuple[list[Expr], list[Expr]]] = {}
        self._pending_axes: dict[str, tuple[list[Expr], list[Expr]]] = {}
        self._origin: dict[Expr, str] = {}  # why a loop no longer exists
        self._handles: dict[Expr, Loop] = {}
        self._names: dict[str, Loop] = {}
        self._name_loops()
        for block in blocks(func.body):
            self._discover_axes(block.name)

    def __str__(self) -> str:
        return str(self.func)

    def __getitem__(self, stage: Any) -> Stage:
        """The stage named so (or of the tensor given)."""
        name = stage if isinstance(stage, str) else stage.name
        if not block_path(self.func.body, name):
            known = ", ".join(b.name for b in blocks(self.func.body))
            raise ScheduleError(f"{user_location()}: no stage {name!r}; there are: {known}")
        return Stage(self, name)

    @property
    def stages(self) -> list[Stage]:
        """All stages in program order."""
        return [Stage(self, b.name) for b in blocks(self.func.body)]

    def copy(self) -> Schedule:
        """An independent schedule in the same state; handles of this one are valid for it too."""
        other = Schedule.__new__(Schedule)
        other.original, other.func, other.trace = self.original, self.func, self.trace.copy()
        other.proof = list(self.proof)
        other._axis_vars, other._pending_axes = dict(self._axis_vars), {}
        other._origin, other._handles, other._names = dict(self._origin), dict(self._handles), dict(self._names)
        return other

    def cache_read(self, tensor: Any, scope: str = "global", readers: Sequence[Any] = ()) -> Stage:
        """Let `readers` (stages; default all) read a copy of `tensor`, made by the stage that is returned."""
        buffer = self._buffer(tensor, "cache_read")
        names = [r if isinstance(r, str) else r.name for r in readers]
        made: list[str] = []

        def run(func: PrimFunc) -> tuple[PrimFunc, list[Expr]]:
            new, name = cache.cache_read(func, buffer, scope, names)
            made.append(name)
            return new, []

        self._apply("cache_read", None, (buffer.name, scope, tuple(names)), {}, run, None)
        self._discover_axes(made[0])
        return Stage(self, made[0])

    def cache_write(self, stage: Any, scope: str = "local") -> Stage:
        """Let `stage` compute into a new buffer by the stage that is returned; the old stage becomes the copy back."""
        name = stage if isinstance(stage, str) else stage.name
        made: list[str] = []

        def run(func: PrimFunc) -> tuple[PrimFunc, list[Expr]]:
            new, inner = cache.cache_write(func, name, scope)
            made.append(inner)
            return new, []

        self._apply("cache_write", None, (name, scope), {}, run, None)
        self._axis_vars[made[0]] = self._axis_vars.pop(name)
        self._discover_axes(name)
        return Stage(self, made[0])

    # -- internals -------------------------------------------------------------------------------------------------
    def _apply(
        self,
        primitive: str,
        stage: Stage | None,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        run: Callable[[PrimFunc], tuple[PrimFunc, list[Expr]]],
        check: Callable[[PrimFunc], Verdict] | None,
        after: Callable[[PrimFunc], Verdict] | None = None,
    ) -> tuple[Loop, ...]:
        """Check, rewrite, check what came out (`after`), record; on any refusal the schedule stays as it was."""
        step = Step(primitive, stage.name if stage else None, tuple(args), dict(kwargs))
        where = user_location()
        try:
            verdict = check(self.func) if check else legality.PROVED
            if verdict.status == "refuted":
                raise ScheduleError(legality.report(self.func, step, verdict))
            new, made = run(self.func)
            if after is not None and (verdict := after(new)).status == "refuted":
                raise ScheduleError(legality.report(new, step, verdict))
        except ScheduleError as error:
            self._pending_axes.clear()
            raise ScheduleError(f"{where}: {error}") from None
        for a in args:
            if isinstance(a, Loop) and not loop_path(new.body, a.var):
                self._origin[a.var] = f"{step} at {where}"
        self.func = new
        self._name_loops()
        self._axis_vars.update(self._pending_axes)
        self._pending_axes.clear()
        handles = tuple(self._loop(v) for v in made)
        self.trace.append(step, handles)
        self.proof.append(ProofEntry(str(step), verdict))
        return handles

    def loop(self, name: str) -> Loop:
        """The loop of this (unique) name, as printed in the trace."""
        if name not in self._names:
            raise ScheduleError(f"{user_location()}: no loop {name!r}; there are: {', '.join(self._names)}")
        return self._names[name]

    def _name_loops(self) -> None:
        """Unique names for new loops, in program order, so that the same steps always give the same names."""
        for s in walk_stmt(self.func.body):
            if isinstance(s, For) and s.var not in self._handles:
                base, serial = s.var.name, 1
                name = base
                while name in self._names:
                    name, serial = f"{base}_{serial}", serial + 1
                self._names[name] = self._handles[s.var] = Loop(s.var, name)

    def _loop(self, v: Expr) -> Loop:
        return self._handles[v]

    def _for(self, loop: Loop, primitive: str, func: PrimFunc | None = None) -> For:
        """The loop of a handle in `func` (default: the program as it is now)."""
        if not isinstance(loop, Loop):
            raise ScheduleError(f"{primitive}: {loop!r} is not a loop; loops come from stage.axis or from split and fuse")
        path = loop_path((func or self.func).body, loop.var)
        if not path or not isinstance(path[-1], For):
            why = self._origin.get(loop.var)
            raise ScheduleError(f"{primitive}: loop {loop.name} no longer exists" + (f": {why}" if why else ""))
        return path[-1]

    def _discover_axes(self, stage: str) -> None:
        """Which loops drive the stage's own variables directly, right now."""
        around = {f.var for f in loops_of(block_path(self.func.body, stage))}
        block = find_block(self.func.body, stage)
        spatial = [it.binding for it in block.iters if it.kind == "spatial" and it.binding in around]
        reduce = [it.binding for it in block.iters if it.kind == "reduce" and it.binding in around]
        self._axis_vars[stage] = (spatial, reduce)

    def _axes(self, stage: str) -> tuple[tuple[Loop, ...], tuple[Loop, ...]]:
        spatial, reduce = self._axis_vars[stage]
        return tuple(self._loop(v) for v in spatial), tuple(self._loop(v) for v in reduce)

    def _loops_around(self, stage: str) -> tuple[Loop, ...]:
        return tuple(self._loop(f.var) for f in loops_of(block_path(self.func.body, stage)))

    def extent(self, loop: Loop) -> Expr:
        """How many iterations a loop has."""
        return self._for(loop, "extent").extent

    def block(self, stage: Any) -> Block:
        """The stage's block as it is now."""
        return find_block(self.func.body, stage if isinstance(stage, str) else stage.name)

    def _buffer(self, tensor: Any, primitive: str) -> Buffer:
        if isinstance(tensor, Buffer):
            return tensor
        name = tensor if isinstance(tensor, str) else tensor.name
        found: dict[str, Buffer] = {b.name: b for b in self.func.buffers}
        for block in blocks(self.func.body):
            store = compute.written_buffer(block)
            found.setdefault(store.name, store)
        if name not in found:
            raise ScheduleError(f"{primitive}: no tensor {name!r}; there are: {', '.join(found)}")
        return found[name]
