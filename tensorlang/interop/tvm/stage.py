"""A stage of a classic schedule: its axes, and what its user asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from tensorlang.errors import ScheduleError
from tensorlang.interop.tvm.steps import Attach, Fuse, Mark, Reorder, Split, Step
from tensorlang.interop.tvm.tensor import Operation, Tensor, plain_name
from tensorlang.ir.expr import Expr, user_location, var, wrap
from tensorlang.te.tensor import PlaceholderOp


class Bodies(Protocol):
    """What a stage asks of its schedule."""

    def body_of(self, stage: Stage) -> list[Expr]: ...


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

    def __init__(self, schedule: Bodies, name: str, core: Any, axis: Sequence[Expr], reduce_axis: Sequence[Expr]):
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
        return StageOperation(self)

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


class StageOperation(Operation):
    """`s[C].op`: axes as the schedule's rewriting left them; the body as the program has it now."""

    def __init__(self, stage: Stage):
        super().__init__(stage.core, stage.name, stage.axis, stage.reduce_axis)
        self._stage = stage

    @property
    def body(self) -> list[Expr]:
        return self._stage.schedule.body_of(self._stage)
