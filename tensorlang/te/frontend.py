"""The entry points that take more than one kind: `compute`, `create_schedule`, `schedule`, `build_operator`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, overload

from tensorlang.build import Kernel, build
from tensorlang.errors import TypeCheckError
from tensorlang.ir.expr import ExprLike, fail
from tensorlang.ir.stmt import PrimFunc
from tensorlang.schedule import Schedule
from tensorlang.te.operator import Operator, ScheduleFunction, Shapes, caller_locals
from tensorlang.te.primfunc import create_prim_func, placeholders_of
from tensorlang.te.tensor import DTypeLike, Op, Tensor, compute_stage


@overload
def compute(fn: Callable[..., Any], /) -> Operator: ...
@overload
def compute(
    shape: Sequence[ExprLike] | ExprLike,
    fcompute: Callable[..., Any],
    name: str | None = None,
    dtype: DTypeLike | None = None,
) -> Tensor: ...
def compute(
    shape: Any, fcompute: Callable[..., Any] | None = None, name: str | None = None, dtype: DTypeLike | None = None
) -> Any:
    """A decorator that makes an operator, or with a shape and a function a stage (see `compute_stage`).

    @te.compute
    def double(x: te.f32["N"]):
        return te.compute(x.shape, lambda i: 2 * x[i], name="out")
    """
    if fcompute is None:
        if not callable(shape):
            fail("te.compute(shape, function) makes a stage; the function of the indices is missing")
        if not hasattr(shape, "__code__"):
            fail(f"@te.compute decorates a function, not {type(shape).__name__}")
        return Operator(shape, caller_locals())
    return compute_stage(shape, fcompute, name, dtype)


def schedule(op: Operator, target: str = "cpu") -> Callable[[ScheduleFunction], ScheduleFunction]:
    """Register the decorated function, which takes a `te.Schedule`, as the way to compile `op` for `target`."""
    if not isinstance(op, Operator):
        fail(f"@te.schedule(op) takes an operator made by @te.compute, not {type(op).__name__}")

    def register(fn: ScheduleFunction) -> ScheduleFunction:
        op.register_schedule(fn, target)
        return fn

    return register


def create_schedule(
    what: Operator | Op | Tensor | Sequence[Op | Tensor], shapes: Shapes | None = None, **constants: Any
) -> Schedule:
    """The naive loop nest as a schedule, to be transformed by hand.

    Args:
        what: an operator, or the op(s) or tensor(s) that are the outputs (classic TVM's `create_schedule(C.op)`).
        shapes: of an operator: sizes by dimension name, or shapes by parameter name.
        constants: an operator's compile-time parameters.
    """
    if isinstance(what, Operator):
        return Schedule(what.prim_func(shapes, **constants))
    if shapes is not None or constants:
        fail("create_schedule: shapes and constants belong to operators; these tensors have their shapes already")
    outputs = _as_tensors(what)
    return Schedule(create_prim_func(outputs[-1].name, placeholders_of(outputs), outputs))


def _as_tensors(what: Any) -> list[Tensor]:
    tensors: list[Tensor] = []
    for item in what if isinstance(what, tuple | list) else (what,):
        if not isinstance(item, Tensor | Op):
            raise TypeCheckError(f"create_schedule takes an operator, tensors or their ops, not {type(item).__name__}")
        tensors += item.outputs if isinstance(item, Op) else (item,)
    if not tensors:
        raise TypeCheckError("create_schedule: no output given")
    return list(dict.fromkeys(tensors))


def build_operator(
    what: Operator | Schedule | PrimFunc,
    target: str = "cpu",
    shapes: Shapes | None = None,
    schedule: ScheduleFunction | None = None,
    **constants: Any,
) -> Kernel:
    """`tl.build`: a kernel from an operator, a schedule or a loop nest.

    Args:
        shapes: of an operator: sizes by dimension name or shapes by parameter name; symbols left out stay symbolic.
        schedule: a function that transforms a `te.Schedule` in place; without it the registered or the default one.
        constants: an operator's compile-time parameters.
    """
    if isinstance(what, Operator):
        return what.build(target, shapes, schedule, **constants)
    if shapes is not None or constants:
        fail("tl.build: shapes and constants belong to operators; this program has its shapes already")
    if schedule is not None:
        if isinstance(what, Schedule):
            fail("tl.build: schedule= is given, but what is built is a schedule already")
        return build(what, target=target, schedule=schedule)
    return build(what, target=target)
