"""Classic te's schedule: stages that remember what their user asked for (`steps`); `realise` carries it out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from tensorlang.errors import ScheduleError
from tensorlang.interop.tvm.steps import (
    Attach,
    CacheRead,
    CacheWrite,
    Dataflow,
    Fuse,
    Mark,
    Reorder,
    RFactor,
    Split,
    Step,
)
from tensorlang.interop.tvm.tensor import Operation, Tensor, outputs_of, plain_name
from tensorlang.ir.expr import Expr, user_location, var, wrap
from tensorlang.te import placeholder
from tensorlang.te.primfunc import stages_of
from tensorlang.te.scan import ScanOp
from tensorlang.te.tensor import PlaceholderOp, Tensor as Core


class ThreadAxis:
    """An axis of GPU threads, to bind loops to. On a CPU the loop bound to it is a loop.

    Attributes:
        var: its variable, for predicates.
        thread_tag: such as `"blockIdx.x"`.
        extent: how many threads there are, if that was given.
    """

    def __init__(self, thread_tag: str, name: str, extent: Any = None):
        self.thread_tag = thread_tag
        self.name = name or thread_tag
        self.extent = extent
        self.var = var(plain_name(self.name))

    def __repr__(self) -> str:
        return f"thread_axis({self.thread_tag!r})"


def thread_axis(dom: Any = None, tag: str = "", name: str = "") -> ThreadAxis:
    """An axis of GPU threads: `thread_axis("threadIdx.x")` or `thread_axis((0, 64), "threadIdx.x")`.

    Raises:
        ScheduleError: there is no tag, or the domain does not begin at 0.
    """
    if isinstance(dom, str):
        dom, tag, name = None, dom, tag or name
    if not tag:
        raise ScheduleError(f"{user_location()}: thread_axis needs a tag, such as 'threadIdx.x'")
    if isinstance(dom, tuple | list):
        if len(dom) != 2 or not (isinstance(dom[0], int) and dom[0] == 0):
            raise ScheduleError(f"{user_location()}: thread_axis {tag}: the domain is (0, extent), not {dom}")
        dom = dom[1]
    return ThreadAxis(tag, name, dom)


class Stage:
    """How one operation is computed: its axes as they are now, and the steps that made them.

    Attributes:
        name: the operation's name.
        leaf_iter_vars: the axes of the loop nest, outermost first.
    """

    def __init__(self, schedule: Schedule, name: str, core: Any, axis: Sequence[Expr], reduce_axis: Sequence[Expr]):
        self.schedule = schedule
        self.name = name
        self.core = core  # the operation of te, or what stands for a stage that the schedule made
        self.axis = list(axis)
        self.reduce_axis = list(reduce_axis)
        self.leaf_iter_vars = [*self.axis, *self.reduce_axis]
        self.first_axes = (tuple(axis), tuple(reduce_axis))  # before cache_write and rfactor
        self.steps: list[Step] = []
        self.marks: dict[Expr, Mark] = {}
        self.pragmas: list[tuple[str, Expr, str, Any]] = []
        self.is_input = isinstance(core, PlaceholderOp)
        self.attach: Attach | None = None
        self.inlined: str | None = None  # where
        self.predicate: tuple[str, Expr] | None = None
        self.hints: list[tuple[str, str, tuple[Any, ...]]] = []
        self._gone: dict[Expr, str] = {}

    def __repr__(self) -> str:
        return f"stage({self.name}, {self.core!r})"

    @property
    def op(self) -> Operation:
        """The operation as the schedule has rewritten it."""
        return _StageOperation(self)

    @property
    def is_root(self) -> bool:
        return self.attach is None and self.inlined is None

    # -- loops ---------------------------------------------------------------------------------------------------------
    def split(self, parent: Expr, factor: Any = None, nparts: Any = None) -> tuple[Expr, Expr]:
        """`parent` becomes an outer axis and an inner one of `factor` iterations, or an outer one of `nparts`.

        Raises:
            ScheduleError: it is not an axis of the stage now, or not exactly one of the two sizes is given.
        """
        where = user_location()
        if (factor is None) == (nparts is None):
            raise ScheduleError(f"{where}: split: give either factor or nparts")
        position = self._position(parent, "split")
        outer, inner = var(f"{parent.name}_o"), var(f"{parent.name}_i")
        self._replace(Split(where, parent, outer, inner, factor, nparts), slice(position, position + 1), "split")
        return outer, inner

    def fuse(self, *args: Expr) -> Expr:
        """One axis for neighbours, given outermost first.

        Raises:
            ScheduleError: they are not neighbours in this order.
        """
        where = user_location()
        axes = tuple(args[0]) if len(args) == 1 and isinstance(args[0], tuple | list) else args
        if not axes:
            raise ScheduleError(f"{where}: fuse: give at least one axis")
        if len(axes) == 1:
            self._position(axes[0], "fuse")
            return axes[0]
        first = self._position(axes[0], "fuse")
        if tuple(self.leaf_iter_vars[first : first + len(axes)]) != axes:
            now = ", ".join(a.name for a in self.leaf_iter_vars)
            names = ", ".join(a.name for a in axes)
            raise ScheduleError(f"{where}: fuse: {names} are not neighbours in this order; {self.name} has: {now}")
        fused = var("_".join(a.name for a in axes) + "_f")
        self._replace(Fuse(where, axes, fused), slice(first, first + len(axes)), "fused")
        return fused

    def reorder(self, *args: Expr) -> None:
        """The axes named take each other's places, in this order.

        Raises:
            ScheduleError: one is not an axis of the stage now, or is named twice.
        """
        where = user_location()
        positions = sorted(self._position(a, "reorder") for a in args)
        if len(set(args)) != len(args):
            raise ScheduleError(f"{where}: reorder: an axis of {self.name} is named twice")
        for position, axis in zip(positions, args, strict=True):
            self.leaf_iter_vars[position] = axis
        if len(args) > 1:
            self.steps.append(Reorder(where, tuple(args)))

    def tile(
        self, x_parent: Expr, y_parent: Expr, x_factor: Any, y_factor: Any
    ) -> tuple[Expr, Expr, Expr, Expr]:
        """Split both and order them x_outer, y_outer, x_inner, y_inner; returns those."""
        xo, xi = self.split(x_parent, factor=x_factor)
        yo, yi = self.split(y_parent, factor=y_factor)
        self.reorder(xo, yo, xi, yi)
        return xo, yo, xi, yi

    def vectorize(self, var: Expr) -> None:
        """Run the iterations of an axis as vector lanes."""
        self._mark(var, "vectorize")

    def unroll(self, var: Expr) -> None:
        """Write the iterations of an axis out."""
        self._mark(var, "unroll")

    def parallel(self, var: Expr) -> None:
        """Share the iterations of an axis among threads."""
        self._mark(var, "parallel")

    def bind(self, ivar: Expr, thread_ivar: ThreadAxis) -> None:
        """Bind an axis to GPU threads, which are a loop here."""
        if not isinstance(thread_ivar, ThreadAxis):
            raise ScheduleError(f"{user_location()}: bind: the second argument is a thread axis (te.thread_axis)")
        self._mark(ivar, "bind", thread_ivar)

    def pragma(self, var: Expr, pragma_type: str, pragma_value: Any = None) -> None:
        """A hint to code generation on an axis. `import_llvm` names the source of functions that intrinsics call."""
        self._position(var, "pragma")
        self.pragmas.append((user_location(), var, pragma_type, pragma_value))

    def tensorize(self, var: Expr, tensor_intrin: Any) -> None:
        """From this axis inwards the stage is what the intrinsic computes, which is checked when the schedule is lowered."""
        self._mark(var, "tensorize", tensor_intrin)

    # -- placement -----------------------------------------------------------------------------------------------------
    def compute_at(self, parent: Stage, scope: Expr) -> None:
        """Compute the stage inside `scope`, an axis of the stage `parent`, just the part that each iteration reads."""
        where = user_location()
        if not isinstance(parent, Stage):
            raise ScheduleError(f"{where}: compute_at: the first argument is a stage, s[tensor]")
        if parent is self:
            raise ScheduleError(f"{where}: compute_at: {self.name} cannot be computed inside itself")
        parent._position(scope, "compute_at")
        self.attach, self.inlined = Attach(where, parent, scope), None

    def compute_inline(self) -> None:
        """Let the readers of the stage compute its elements themselves."""
        self.attach, self.inlined = None, user_location()

    def compute_root(self) -> None:
        """Compute the whole stage before its readers begin, as it is without `compute_at`."""
        self.attach = self.inlined = None

    # -- memory and hints ----------------------------------------------------------------------------------------------
    def set_store_predicate(self, predicate: Expr) -> None:
        """Which of the threads that hold an element store it; all of them are one here.

        Only variables of thread axes that are bound to the stage's reduction may occur: such a predicate chooses among
        threads with the same value, which in a loop is its final one. Any other is refused when the schedule is lowered.
        """
        self.predicate = (user_location(), wrap(predicate))

    def set_scope(self, scope: str) -> None:
        """The memory that the stage's buffer would be in on a GPU; kept as a hint."""
        self.hints.append((user_location(), "set_scope", (scope,)))

    def env_threads(self, threads: Any) -> None:
        """Thread axes that a group of stages shares; kept as a hint."""
        self.hints.append((user_location(), "env_threads", tuple(threads) if isinstance(threads, Iterable) else (threads,)))

    def double_buffer(self) -> None:
        """Two buffers by turns, for copies that run beside the computation; kept as a hint."""
        self.hints.append((user_location(), "double_buffer", ()))

    def storage_align(self, axis: Expr, factor: int, offset: int) -> None:
        """The stride of an axis; kept as a hint."""
        self.hints.append((user_location(), "storage_align", (axis, factor, offset)))

    def prefetch(self, tensor: Tensor, var: Expr, offset: Any) -> None:
        """Fetch what an axis reads of `tensor` so many iterations ahead; kept as a hint."""
        self._position(var, "prefetch")
        self.hints.append((user_location(), "prefetch", (tensor.name, var, offset)))

    # -- internals -----------------------------------------------------------------------------------------------------
    def _position(self, axis: Any, primitive: str) -> int:
        if not isinstance(axis, Expr):
            raise ScheduleError(f"{user_location()}: {primitive}: {axis!r} is not an axis of {self.name}")
        for position, leaf in enumerate(self.leaf_iter_vars):
            if leaf is axis:
                return position
        why = f"; {self._gone[axis]}" if axis in self._gone else ""
        now = ", ".join(a.name for a in self.leaf_iter_vars) or "none"
        raise ScheduleError(
            f"{user_location()}: {primitive}: {axis} is not an axis of stage {self.name}{why}; it has: {now}"
        )

    def _replace(self, step: Split | Fuse, places: slice, verb: str) -> None:
        for axis in step.takes:
            made = ", ".join(a.name for a in step.makes)
            self._gone[axis] = f"it was {verb} into {made} at {step.where}"
        self.leaf_iter_vars[places] = step.makes
        self.steps.append(step)

    def _mark(self, axis: Expr, kind: str, value: Any = None) -> None:
        self._position(axis, kind)
        self.marks[axis] = Mark(user_location(), kind, value)

    def _reduction_axes(self) -> set[Expr]:
        """All axes, present or gone, that run over the reduction only."""
        found = set(self.reduce_axis)
        for step in self.steps:
            if not isinstance(step, Reorder) and all(a in found for a in step.takes):
                found.update(step.makes)
        return found


class _StageOperation(Operation):
    """`s[C].op`: axes as the schedule's rewriting left them; the body as the program has it now."""

    def __init__(self, stage: Stage):
        super().__init__(stage.core, stage.name, stage.axis, stage.reduce_axis)
        self._stage = stage

    @property
    def body(self) -> list[Expr]:
        return self._stage.schedule.body_of(self._stage)


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

    def __init__(self, outputs: Sequence[Operation], carry_out: Any):
        self.outputs = list(outputs)
        self.dataflow: list[Dataflow] = []
        self._carry_out = carry_out  # `realise.carry_out`, which is built on this module
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
        return Tensor(core, _StageOperation(stage))


def _without(step: Step, axes: set[Expr]) -> Step | None:
    """`step` as far as it concerns other axes."""
    if isinstance(step, Reorder):
        order = tuple(a for a in step.order if a not in axes)
        return Reorder(step.where, order) if len(order) > 1 else None
    return None if step.takes[0] in axes else step


def without_location(message: str) -> str:
    """An error's text without the file:line at its beginning, where a better one is known."""
    return re.sub(r"^\S+:\d+: ", "", message)
