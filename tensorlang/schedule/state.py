"""One program under transformation: the nest, the names of its loops, and how a step is checked, applied and recorded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

from tensorlang.errors import ScheduleError
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr, user_location
from tensorlang.ir.stmt import Block, For, PrimFunc
from tensorlang.ir.tree import block_path, find_block, loop_path, loops_of
from tensorlang.ir.visitor import blocks, walk_stmt
from tensorlang.schedule import compute, legality
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

    def copy(self) -> Self:
        """An independent schedule in the same state; handles of this one are valid for it too."""
        other = type(self).__new__(type(self))
        other.original, other.func, other.trace = self.original, self.func, self.trace.copy()
        other.proof = list(self.proof)
        other._axis_vars, other._pending_axes = dict(self._axis_vars), {}
        other._origin, other._handles, other._names = dict(self._origin), dict(self._handles), dict(self._names)
        return other
