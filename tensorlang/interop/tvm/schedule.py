"""Classic te's schedule: stages that remember what their user asked for (`steps`); `realise` carries it out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tensorlang.errors import ScheduleError
from tensorlang.interop.tvm.stage import Stage, StageOperation
from tensorlang.interop.tvm.steps import CacheRead, CacheWrite, Dataflow, Fuse, Reorder, RFactor, Step
from tensorlang.interop.tvm.tensor import Operation, Tensor, outputs_of, plain_name
from tensorlang.ir.expr import Expr, user_location, var
from tensorlang.te import placeholder
from tensorlang.te.primfunc import stages_of
from tensorlang.te.scan import ScanOp
from tensorlang.te.tensor import PlaceholderOp, Tensor as Core


class _Made:
    """What stands for the operation of a stage that the schedule made."""

    def __init__(self, kind: str, stage: Stage | None = None):
        self.kind = kind
        self.stage = stage

    def __repr__(self) -> str:
        return self.kind


class Schedule:
    """A schedule of everything that some operations need.

    Attributes:
        outputs: the operations.
        stages: one per operation, producers first; inputs too, which have nothing to schedule.
    """

    def __init__(self, outputs: Sequence[Operation], carry_out: Callable[[Schedule], Any]):
        self.outputs = list(outputs)
        self.dataflow: list[Dataflow] = []
        self._carry_out = carry_out  # `lowering.body_program`, which is built on this module
        self._of: dict[Any, Stage] = {}
        self.stages: list[Stage] = []
        for tensor in stages_of([t for op in outputs for t in outputs_of(op.core)]):
            if isinstance(tensor.op, ScanOp) and tensor.op not in self._of:
                for state in (*tensor.op.state, *(t for c in tensor.op.cell for t in c.outputs)):
                    self._add_operation(state.op, in_cell=True)
            self._add_operation(tensor.op)

    def _add_operation(self, core: Any, in_cell: bool = False) -> None:
        if core in self._of:
            return
        op = Operation.of(core)
        stage = Stage(self, op.name, core, op.axis, op.reduce_axis)
        time = stage.axis[:1] if isinstance(core, ScanOp) or (in_cell and not isinstance(core, PlaceholderOp)) else []
        for axis in time:
            stage.leaf_iter_vars.remove(axis)
            stage._gone[axis] = "it is the time of a scan, which runs in order and as one loop"
        self._of[core] = stage
        self.stages.append(stage)

    @property
    def output_tensors(self) -> list[Core]:
        return [t for op in self.outputs for t in outputs_of(op.core)]

    def __getitem__(self, key: Any) -> Stage:
        op = key.op.core if isinstance(key, Tensor) else key.core if isinstance(key, Operation) else key
        if (stage := self._of.get(op)) is None:
            known = ", ".join(s.name for s in self.stages)
            name = getattr(key, "name", key)
            raise ScheduleError(f"{user_location()}: {name} is not a stage of this schedule; there are: {known}")
        return stage

    def __contains__(self, key: Any) -> bool:
        op = key.op.core if isinstance(key, Tensor) else key.core if isinstance(key, Operation) else key
        return op in self._of

    @property
    def stage_map(self) -> dict[Any, Stage]:
        return dict(self._of)

    def normalize(self) -> Schedule:
        """Itself: axes begin at 0 as they are."""
        return self

    def create_group(self, outputs: Any, inputs: Any, include_inputs: bool = False) -> Schedule:
        """Refused: groups of stages are not scheduled as one here.

        Raises:
            ScheduleError: always.
        """
        raise ScheduleError(f"{user_location()}: create_group: attach each stage by itself with compute_at")

    def cache_write(self, tensor: Tensor | Sequence[Tensor], scope: str) -> Any:
        """A new stage computes what the tensor's did, into a buffer of `scope`; the old stage copies from there."""
        where = user_location()
        if isinstance(tensor, tuple | list):
            if len(tensor) != 1:
                raise ScheduleError(f"{where}: cache_write: give one tensor; the outputs of one operation move together")
            return [self.cache_write(tensor[0], scope)]
        stage = self[tensor]
        if stage.is_input:
            raise ScheduleError(f"{where}: cache_write: {stage.name} is an input; cache_read copies inputs")
        if stage.steps:
            raise ScheduleError(f"{where}: cache_write: {stage.name} was transformed already; call cache_write first")
        axis = [var(f"{a.name}_c") for a in stage.axis]
        made = self._add(f"{stage.name}_{plain_name(scope)}", "cache_write", axis, stage.reduce_axis, before=stage)
        stage.reduce_axis, stage.leaf_iter_vars = [], list(stage.axis)
        self.dataflow.append(CacheWrite(where, stage, scope, made))
        return self._tensor(made, Tensor(stage.core.output()))

    def cache_read(self, tensor: Tensor, scope: str, readers: Sequence[Any]) -> Tensor:
        """A new stage copies `tensor` into a buffer of `scope`, from which the `readers` read."""
        where = user_location()
        stages = tuple(self[r] for r in (readers if isinstance(readers, tuple | list) else [readers]))
        source = self[tensor]
        axis = [var(f"ax{n}") for n in range(tensor.ndim)]
        made = self._add(f"{source.name}_{plain_name(scope)}", "cache_read", axis, (), after=source)
        self.dataflow.append(CacheRead(where, source, scope, stages, made))
        return self._tensor(made, tensor)

    def rfactor(self, tensor: Tensor, axis: Expr, factor_axis: int = 0) -> Tensor:
        """A new stage holds partial results, one per iteration of `axis`; the tensor's stage combines them."""
        where = user_location()
        stage = self[tensor]
        stage._position(axis, "rfactor")
        reduction = stage._reduction_axes()
        if axis not in reduction:
            raise ScheduleError(f"{where}: rfactor: {axis} does not belong to the reduction of {stage.name}")
        mixed = [s for s in stage.steps if isinstance(s, Fuse) and 0 < sum(a in reduction for a in s.takes) < len(s.takes)]
        if mixed:
            raise ScheduleError(
                f"{where}: rfactor: a loop of {stage.name} runs over elements and reduction at once, since {mixed[0].where}"
            )
        before = tuple(s for s in stage.steps if not isinstance(s, Reorder) and s.takes[0] in reduction)
        left = [a for a in stage.leaf_iter_vars if a in reduction and a is not axis]
        ndim = len(stage.axis)
        position = factor_axis if factor_axis >= 0 else ndim + 1 + factor_axis
        own = [var(f"{a.name}_rf") for a in stage.axis]
        own.insert(max(0, min(position, ndim)), var(axis.name))
        made = self._add(f"{stage.name}_rf", "rfactor", own, left, before=stage)
        for leaf in left:  # marks on what moves, move
            if leaf in stage.marks:
                made.marks[leaf] = stage.marks.pop(leaf)
        combine = var(f"{axis.name}_v")
        if axis in stage.marks:
            stage.marks[combine] = stage.marks.pop(axis)
        stage._gone[axis] = f"rfactor made it {combine.name} here and an axis of {made.name} at {where}"
        stage.steps = [s for s in (_without(s, reduction) for s in stage.steps) if s is not None]
        stage.leaf_iter_vars = [a for a in stage.leaf_iter_vars if a not in reduction] + [combine]
        stage.reduce_axis = [combine]
        self.dataflow.append(RFactor(where, stage, axis, factor_axis, made, combine, before))
        return self._tensor(made, tensor)

    def body_of(self, stage: Stage) -> list[Expr]:
        """The expressions that a stage stores, after the dataflow steps so far."""
        found: list[Expr] = self._carry_out(self).bodies(stage)
        return found

    def _add(
        self,
        name: str,
        kind: str,
        axis: Sequence[Expr],
        reduce_axis: Sequence[Expr],
        before: Stage | None = None,
        after: Stage | None = None,
    ) -> Stage:
        made = Stage(self, name, _Made(kind), axis, reduce_axis)
        position = self.stages.index(before) if before is not None else self.stages.index(after) + 1  # type: ignore[arg-type]
        self.stages.insert(position, made)
        return made

    def _tensor(self, stage: Stage, like: Tensor) -> Tensor:
        """A tensor that stands for the output of a stage made by the schedule."""
        core = placeholder(like.shape, like.core.dtype, name=plain_name(stage.name))
        stage.core = core.op
        self._of[core.op] = stage
        return Tensor(core, StageOperation(stage))


def _without(step: Step, axes: set[Expr]) -> Step | None:
    """`step` as far as it concerns other axes."""
    if isinstance(step, Reorder):
        order = tuple(a for a in step.order if a not in axes)
        return Reorder(step.where, order) if len(order) > 1 else None
    return None if step.takes[0] in axes else step
