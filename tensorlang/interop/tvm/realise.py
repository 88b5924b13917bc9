"""A classic schedule carried out, on a `tensorlang.schedule.Schedule` of the naive loop nest.

The order in which classic te's user called does not matter; this one makes every step meet the program that it needs:

    1. dataflow, as called: cache_write, cache_read, rfactor (after the splits of its reduction)
    2. compute_inline
    3. readers before what they read: compute_at, then split, fuse and reorder, as called on the stage
    4. tensorize, then how axes run: vectorize, unroll, parallel, bind, pragma

All checks and proofs are those of the schedule underneath. A step that it refuses is reported with the line of the user's
call, not that of `lower`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from tensorlang import te
from tensorlang.errors import ScheduleError
from tensorlang.interop.tvm.intrin import TensorIntrin
from tensorlang.interop.tvm.schedule import Schedule
from tensorlang.interop.tvm.stage import Stage, ThreadAxis
from tensorlang.interop.tvm.steps import CacheRead, CacheWrite, Dataflow, Fuse, Mark, RFactor, Split, Step
from tensorlang.ir.expr import Expr
from tensorlang.ir.stmt import PrimFunc, Store
from tensorlang.ir.visitor import free_vars
from tensorlang.schedule import Loop


class Realised:
    """A classic schedule and the one that carries it out.

    Attributes:
        schedule: the schedule underneath.
    """

    def __init__(self, classic: Schedule, func: PrimFunc, names: Mapping[Any, str]):
        self.classic = classic
        self.schedule = te.Schedule(func)
        self.names: dict[Stage, str] = {stage: names[op] for op, stage in classic.stage_map.items() if op in names}
        self.loops: dict[Expr, Loop] = {}
        for stage in self.names:
            self._find_axes(stage, *stage.first_axes)

    def run(self) -> None:
        """Carry everything out."""
        self.dataflow()
        stages = [s for s in self.classic.stages if s in self.names]
        for stage in stages:
            if stage.inlined:
                with _reported(stage.inlined, f"compute_inline of {stage.name}"):
                    self._core(stage).compute_inline()
        for stage in reversed(stages):
            if not stage.inlined:
                self._place(stage)
        for stage in stages:
            if not stage.inlined:
                self._finish(stage)

    def dataflow(self) -> None:
        """Carry out what adds stages."""
        for step in self.classic.dataflow:
            with _reported(step.where, _text(step)):
                self._dataflow_step(step)

    def bodies(self, stage: Stage) -> list[Expr]:
        """What a stage stores."""
        block = self.schedule.block(self.names[stage])
        return [block.body.value] if isinstance(block.body, Store) else []

    # -- internals -----------------------------------------------------------------------------------------------------
    def _core(self, stage: Stage) -> Any:
        return self.schedule[self.names[stage]]

    def _find_axes(self, stage: Stage, axis: Sequence[Expr], reduce_axis: Sequence[Expr]) -> None:
        """The loops of a stage that has just been made or moved, for its axes."""
        core = self._core(stage)
        own = list(axis)[max(0, len(axis) - len(core.axis)) :]  # a stage in a scan has no loop of its own for time
        self.loops.update(zip(own, core.axis, strict=False))
        self.loops.update(zip(reduce_axis, core.reduce_axis, strict=False))

    def _dataflow_step(self, step: Dataflow) -> None:
        if isinstance(step, CacheWrite):
            made = self.schedule.cache_write(self.names[step.stage], _scope(step.scope))
        elif isinstance(step, CacheRead):
            source = self.names.get(step.tensor, step.tensor.name)
            made = self.schedule.cache_read(source, _scope(step.scope), [self.names[r] for r in step.readers])
        else:
            for before in step.before:
                self._step(step.stage, before)
            made = self._core(step.stage).rfactor(self.loops[step.axis], step.factor_axis)
        self.names[step.made] = made.name
        if isinstance(step, RFactor):
            for own, loop in zip(step.stage.axis, self._core(step.stage).axis, strict=True):
                self.loops[own] = loop
            (self.loops[step.combine],) = self._core(step.stage).reduce_axis
        elif isinstance(step, CacheWrite):
            self._find_axes(step.stage, step.stage.first_axes[0], ())
        self._find_axes(step.made, *step.made.first_axes)

    def _place(self, stage: Stage) -> None:
        core = self._core(stage)
        if stage.attach is not None:
            consumer, axis = stage.attach.consumer, stage.attach.axis
            with _reported(stage.attach.where, f"compute_at of {stage.name} at {axis} of {consumer.name}"):
                if consumer.inlined:
                    raise ScheduleError(f"{consumer.name} is computed inline and has no loops")
                consumer._position(axis, "compute_at")
                core.compute_at(self._core(consumer), self.loops[axis])
            self._find_axes(stage, stage.axis, stage.reduce_axis)
        for step in stage.steps:
            self._step(stage, step)

    def _step(self, stage: Stage, step: Step) -> None:
        core = self._core(stage)
        names = ", ".join(a.name for a in step.takes)
        with _reported(step.where, f"{type(step).__name__.lower()} of {names} of {stage.name}"):
            loops = [self.loops[a] for a in step.takes]
            if isinstance(step, Split):
                size = {"factor": step.factor} if step.nparts is None else {"nparts": step.nparts}
                self.loops[step.outer], self.loops[step.inner] = core.split(loops[0], **size)
            elif isinstance(step, Fuse):
                self.loops[step.fused] = core.fuse(*loops)
            else:
                core.reorder(*loops)

    def _finish(self, stage: Stage) -> None:
        core = self._core(stage)
        marks = [(a, m) for a, m in stage.marks.items() if any(a is leaf for leaf in stage.leaf_iter_vars)]
        if stage.predicate is not None:
            self._check_predicate(stage, *stage.predicate)
        inside: set[Expr] = set()
        for axis, mark in marks:
            if mark.kind == "tensorize":
                with _reported(mark.where, f"tensorize of {axis} of {stage.name}"):
                    self._tensorize(stage, axis, mark.value)
                inside.update(stage.leaf_iter_vars[stage.leaf_iter_vars.index(axis) :])
        for where, axis, key, value in stage.pragmas:
            if axis not in inside and any(axis is leaf for leaf in stage.leaf_iter_vars) and key != "import_llvm":
                with _reported(where, f"pragma on {axis} of {stage.name}"):
                    core.pragma(self.loops[axis], key, _pragma_value(value))
        for axis, mark in marks:
            if mark.kind != "tensorize" and axis not in inside:
                with _reported(mark.where, f"{mark.kind} of {axis} of {stage.name}"):
                    self._run_as(core, self.loops[axis], mark)

    def _run_as(self, core: Any, loop: Loop, mark: Mark) -> None:
        if mark.kind != "bind":
            getattr(core, mark.kind)(loop)
            return
        thread: ThreadAxis = mark.value
        extent = self.schedule.extent(loop)
        if isinstance(thread.extent, int) and extent.op == "const" and extent.value != thread.extent:
            raise ScheduleError(f"{thread.thread_tag} has {thread.extent} threads, but {loop.name} {extent.value} iterations")
        core.pragma(loop, "thread", thread.thread_tag)

    def _tensorize(self, stage: Stage, axis: Expr, intrin: Any) -> None:
        if not isinstance(intrin, TensorIntrin):
            raise ScheduleError("the second argument is an intrinsic made by te.decl_tensor_intrin")
        before = stage.leaf_iter_vars[: stage.leaf_iter_vars.index(axis)]
        reduced = [a for a in before if a in stage._reduction_axes()]
        if reduced and "update" not in intrin.calls:
            raise ScheduleError(
                f"{reduced[0]} reduces outside of {axis}, so {intrin.name} needs its reset and update: return a triple"
            )
        self._core(stage).tensorize(self.loops[axis], intrin.core, fallback=True)

    def _check_predicate(self, stage: Stage, where: str, predicate: Expr) -> None:
        reduction = stage._reduction_axes()
        chosen = {m.value.var for a, m in stage.marks.items() if m.kind == "bind" and a in reduction}
        for v in sorted(free_vars(predicate), key=lambda v: v.name):
            if v not in chosen:
                raise ScheduleError(
                    f"{where}: set_store_predicate of {stage.name}: {v} is not a thread axis bound to its reduction, so the "
                    "predicate would leave elements out"
                )


def _scope(scope: str) -> str:
    """The scope of a CPU's memory for any of classic te's: what one iteration owns, or everybody's."""
    return "local" if scope in ("local", "warp") or scope.startswith("local") else "global"


def _pragma_value(value: Any) -> Any:
    return value if isinstance(value, int | float | str) else 1 if value is None else str(value)


def _without_location(message: str) -> str:
    """An error's text without the file:line at its beginning, where a better one is known."""
    return re.sub(r"^\S+:\d+: ", "", message)


def _text(step: Dataflow) -> str:
    of = step.tensor.name if isinstance(step, CacheRead) else step.stage.name
    primitive = {"CacheWrite": "cache_write", "CacheRead": "cache_read", "RFactor": "rfactor"}[type(step).__name__]
    return f"{primitive} of {of}"


@contextmanager
def _reported(where: str, what: str) -> Iterator[None]:
    """Errors inside name the user's call."""
    try:
        yield
    except ScheduleError as error:
        text = str(error)
        if text.startswith(where):
            raise
        raise ScheduleError(f"{where}: {what}, carried out by lower: {_without_location(text)}") from None


def carry_out(classic: Schedule, func: PrimFunc, names: Mapping[Any, str]) -> te.Schedule:
    """The schedule that `classic` describes, of `func`.

    Args:
        names: of stages in `func`, by operation of te.

    Raises:
        ScheduleError: a step was refused; the message begins with the line of the call.
    """
    realised = Realised(classic, func, names)
    realised.run()
    return realised.schedule
