"""One program under transformation: the nest, the names of its loops, and how a step is checked, applied and recorded."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, Self

from tensorlang.errors import ScheduleError
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr, const, user_location
from tensorlang.ir.stmt import Block, For, PrimFunc
from tensorlang.ir.tree import block_path, find_block, loop_path, loops_of, written_buffers
from tensorlang.ir.visitor import blocks, walk_stmt
from tensorlang.schedule import legality, trial
from tensorlang.schedule.relations import Axes, History, Relation, Split, expanded, fuse_relations
from tensorlang.schedule.tensorize import check_outside_units, check_units_intact
from tensorlang.schedule.trace import Step, Trace
from tensorlang.schedule.verdict import ProofEntry, RefusedStep, UncheckedStep, Verdict, both


@dataclass(frozen=True, eq=False)
class Loop:
    """A handle to a loop. It dies when the loop is split or fused away."""

    var: Expr
    name: str

    def __repr__(self) -> str:
        return self.name


class Named(Protocol):
    """Anything with a name: a handle to a stage."""

    @property
    def name(self) -> str: ...


class ScheduleState:
    """A program with the steps that were taken on it; what `Schedule` and the handles to its stages share.

    Attributes:
        func: the loop nest as it is now (immutable; keep it to go back).
        trace: the steps so far.
        proof: what is known of each step.
        trials: when a step that cannot be decided is run: "at once" where that is cheap, else at the build (a user's
            schedule), or "on demand", when somebody reads the verdict (default schedules, which the tests have run).
    """

    def __init__(self, func: PrimFunc, trials: str = "at once"):
        self.trials = trials
        self.original = func
        self.func = func
        self.trace = Trace(partial(type(self), func, trials="on demand"))
        self.proof: list[ProofEntry] = []
        self._axis_vars: dict[str, tuple[list[Expr], list[Expr]]] = {}
        self._pending_axes: dict[str, tuple[list[Expr], list[Expr]]] = {}
        self._relations: tuple[Relation, ...] = ()
        self._axes_of: dict[str, Axes] = {}
        self._pending_moves: dict[str, Axes] = {}
        self._origin: dict[Expr, str] = {}  # why a loop no longer exists
        self._handles: dict[Expr, Loop] = {}
        self._names: dict[str, Loop] = {}
        self._name_loops()
        for block in blocks(func.body):
            self._discover_axes(block.name)

    def __str__(self) -> str:
        return str(self.func)

    # -- internals -------------------------------------------------------------------------------------------------
    def _apply(
        self,
        primitive: str,
        stage: Named | None,
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
                raise RefusedStep(where, step, verdict, verdict.program or self.func)
            new, made = run(self.func)
            check_units_intact(self.func, new, primitive)
            if after is not None and (verdict := both(verdict, after(new))).status == "refuted":
                raise RefusedStep(where, step, verdict, new)
            entry = self._entry(where, step, verdict, new)
        except RefusedStep:
            self._pending_axes.clear()
            self._pending_moves.clear()
            raise
        except ScheduleError as error:
            self._pending_axes.clear()
            self._pending_moves.clear()
            raise ScheduleError(f"{where}: {error}") from None
        for a in args:
            if isinstance(a, Loop) and not loop_path(new.body, a.var):
                self._origin[a.var] = f"{step} at {where}"
        self._relations += self._relation(step, made, new)
        self.func = new
        self._name_loops()
        self._axis_vars.update(self._pending_axes)
        self._pending_axes.clear()
        self._axes_of.update(self._pending_moves)
        self._pending_moves.clear()
        handles = tuple(self._loop(v) for v in made)
        self.trace.append(step, handles)
        self.proof.append(entry)
        return handles

    def _entry(self, where: str, step: Step, verdict: Verdict, new: PrimFunc) -> ProofEntry:
        """The record of a step that leads to `new`. One that is not decided is tried out, now if that is cheap.

        Raises:
            RefusedStep: running the program shows that the step changes its meaning.
        """
        if verdict.status != "unknown":
            return ProofEntry(str(step), verdict)
        before = self.func
        if self.trials == "at once":
            verdict = trial.tried(before, new, verdict, trial.AT_ONCE if verdict.suspect is None else trial.THOROUGH)
            if verdict.status == "refuted":
                raise RefusedStep(where, step, verdict, before)
            if verdict.checked:
                return ProofEntry(str(step), verdict)

        def thoroughly() -> Verdict:
            return trial.not_tried(trial.tried(before, new, verdict, trial.THOROUGH))

        return ProofEntry(str(step), verdict, thoroughly)

    def settle(self) -> None:
        """Try out every step that is not decided and has not been run yet. Builds of a user's schedule ask for it.

        Raises:
            RefusedStep: running the program shows that a step changed its meaning.
        """
        where = user_location()
        for entry in self.proof:
            if entry.verdict.status == "refuted":
                raise RefusedStep(where, entry.step, entry.verdict, self.func)
            if entry.verdict.status == "unknown" and not entry.verdict.ran:
                warnings.warn(f"{where}: {entry.step}: {entry.verdict}", UncheckedStep, stacklevel=2)

    def _relation(self, step: Step, made: Sequence[Expr], new: PrimFunc) -> tuple[Relation, ...]:
        """How the loops `made` by a split or a fusion follow from those before it; any other step makes none."""
        if step.primitive == "split" and len(made) >= 2:
            old = self._for(step.args[0], "split")
            extents = [loop_path(new.body, v)[-1].extent for v in made]  # type: ignore[attr-defined]
            factors = step.kwargs.get("factors", ())
            free = 0 if step.kwargs.get("nparts") is not None else next((n - 1 for n, f in enumerate(factors) if f is None), -1)
            parts: Expr = const(1)
            for n, extent in enumerate(extents):
                parts = parts * extent if n != free + 1 else parts
            kept = (None, const(1)) if free < 0 else (free, parts)
            return (Split(old.var, tuple(made), old.extent, tuple(extents[1:]), *kept),)
        if step.primitive == "fuse" and len(made) == 1:
            return fuse_relations([self._for(a, "fuse") for a in step.args], made[0])
        return ()

    def _history(self) -> History:
        """How the loops of all stages were made."""
        return History(self._relations, self._axes_of)

    def _copy_axes(self, stages: Mapping[str, str], loops: Mapping[Expr, Expr]) -> None:
        """Within a step: stages were copied (old name -> new), with loops of their own (old variable -> new)."""
        for old, new in stages.items():
            spatial, reduce = self._axis_vars.get(old, ([], []))
            self._pending_axes[new] = ([loops.get(v, v) for v in spatial], [loops.get(v, v) for v in reduce])
            known = self._axes_of.get(old)
            if known is not None:  # how the copy's loops were made is not kept: its axes cannot be made again
                self._pending_moves[new] = replace(known, roots=(None,) * len(known.roots))

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """Several steps of which, if one is refused, none was taken."""
        before = self.copy()
        try:
            yield
        except ScheduleError:
            self.__dict__.update(before.__dict__)
            raise

    def _move(self, func: PrimFunc, axes: Mapping[str, Axes]) -> None:
        """Within a step that leads to `func`: these stages get other loops, made from `axes`."""
        for stage, made in axes.items():
            kinds = [it.kind for it in find_block(func.body, stage).iters]
            roots = [(v, kind) for v, kind in zip(made.roots, kinds, strict=True) if v is not None]
            self._pending_axes[stage] = ([v for v, k in roots if k == "spatial"], [v for v, k in roots if k == "reduce"])
            self._pending_moves[stage] = made

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
        if inside := next((s.name for s in path if isinstance(s, Block)), None):
            raise ScheduleError(f"{primitive}: loop {loop.name} is part of the statement of extern stage {inside}")
        check_outside_units(path, primitive)
        return path[-1]

    def _discover_axes(self, stage: str) -> None:
        """Which loops drive the stage's own variables directly, right now."""
        around = {f.var for f in loops_of(block_path(self.func.body, stage))}
        block = find_block(self.func.body, stage)
        spatial = [it.binding for it in block.iters if it.kind == "spatial" and it.binding in around]
        reduce = [it.binding for it in block.iters if it.kind == "reduce" and it.binding in around]
        self._axis_vars[stage] = (spatial, reduce)
        roots = tuple(self._root(it.binding, around) for it in block.iters)
        if not len(self.trace) and not (block.predicate.op == "const" and block.predicate.value):
            roots = (None,) * len(roots)  # a guard that the program was written with
        self._axes_of[stage] = Axes(roots, tuple(it.extent for it in block.iters))

    def _root(self, binding: Expr, around: Collection[Expr]) -> Expr | None:
        """The loop that alone drove an iteration variable bound to `binding`, before it was split and fused."""
        if binding in around or binding.op == "const":
            return binding if binding in around else None
        parents: dict[Expr, None] = {}
        for r in self._relations:
            parents |= {r.parent: None} if isinstance(r, Split) else {r.outer: None, r.inner: None}
        return next((v for v in parents if expanded(self._relations, v) is binding), None)

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
            for written in written_buffers(block):
                found.setdefault(written.name, written)
        if name not in found:
            raise ScheduleError(f"{primitive}: no tensor {name!r}; there are: {', '.join(found)}")
        return found[name]

    def copy(self) -> Self:
        """An independent schedule in the same state; handles of this one are valid for it too."""
        other = type(self).__new__(type(self))
        other.original, other.func, other.trace = self.original, self.func, self.trace.copy()
        other.proof, other.trials = list(self.proof), self.trials
        other._axis_vars, other._pending_axes = dict(self._axis_vars), {}
        other._relations, other._axes_of, other._pending_moves = self._relations, dict(self._axes_of), {}
        other._origin, other._handles, other._names = dict(self._origin), dict(self._handles), dict(self._names)
        return other
