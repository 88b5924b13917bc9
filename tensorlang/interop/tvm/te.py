"""Classic TVM's `te`: the functions of `tensorlang.te` under its names, on its tensors and schedules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import Any

from tensorlang import te as core_te
from tensorlang.errors import TypeCheckError
from tensorlang.interop.tvm.extern import extern
from tensorlang.interop.tvm.intrin import decl_tensor_intrin
from tensorlang.interop.tvm.lowering import body_program
from tensorlang.interop.tvm.schedule import Schedule
from tensorlang.interop.tvm.stage import Stage, thread_axis
from tensorlang.interop.tvm.tensor import _TAGS, Operation, Tensor, plain_name, plain_shape
from tensorlang.interop.tvm.tir.expr import (
    Select,
    Var as var,
    const,
    div,
    indexdiv,
    indexmod,
    infinity,
    isfinite,
    popcount,
    truncmod,
)
from tensorlang.ir import expr
from tensorlang.ir.expr import Expr, user_location
from tensorlang.te import (
    abs,
    all,
    any,
    arccos as acos,
    arccosh as acosh,
    arcsin as asin,
    arcsinh as asinh,
    arctan as atan,
    arctanh as atanh,
    ceil,
    cos,
    cosh,
    erf,
    exp,
    floor,
    floordiv,
    floormod,
    fmod,
    if_then_else,
    isinf,
    isnan,
    log,
    log1p,
    log2,
    max_value,
    min_value,
    pow as power,
    round,
    rsqrt,
    sigmoid,
    sin,
    sinh,
    sqrt,
    tan,
    tanh,
    trunc,
    truncdiv,
)
from tensorlang.te.tensor import compute_stage, is_reduce_axis

__all__ = [
    "Operation", "Schedule", "Select", "Stage", "Tensor",
    "abs", "acos", "acosh", "all", "any", "asin", "asinh", "atan", "atanh", "ceil", "comm_reducer", "compute", "const", "cos",
    "cosh", "create_schedule", "decl_tensor_intrin", "div", "erf", "exp", "extern", "floor", "floordiv", "floormod", "fmod",
    "gradient", "if_then_else", "indexdiv", "indexmod", "infinity", "isfinite", "isinf", "isnan", "log", "log1p", "log2", "max",
    "max_value", "min", "min_value", "placeholder", "popcount", "power", "prod", "reduce_axis", "round", "rsqrt", "scan",
    "sigmoid", "sin", "sinh", "size_var", "sqrt", "sum", "tag_scope", "tan", "tanh", "thread_axis", "trunc", "truncdiv",
    "truncmod", "var",
]  # fmt: skip

size_var = var
_SCOPE_TAGS: list[str] = []


def placeholder(shape: Any, dtype: Any = None, name: str = "placeholder") -> Tensor:
    """An input tensor; `float32` unless `dtype` says otherwise."""
    return Tensor(core_te.placeholder(plain_shape(shape), dtype or "float32", plain_name(name)))


def compute(
    shape: Any, fcompute: Callable[..., Any], name: str = "compute", tag: str = "", attrs: Any = None
) -> Any:
    """A stage whose element at i, j, ... is `fcompute(i, j, ...)`; a tuple of expressions makes a tensor of each.

    Args:
        tag: kept on the operation, for schedules that look for it.
        attrs: ignored.
    """
    made = compute_stage(plain_shape(shape), fcompute, plain_name(name))
    tensors = made if isinstance(made, tuple | list) else (made,)
    if tag or _SCOPE_TAGS:
        _TAGS[tensors[0].op] = tag or _SCOPE_TAGS[-1]
    faces = [Tensor(t) for t in tensors]
    return faces if isinstance(made, tuple | list) else faces[0]


@contextmanager
def tag_scope(tag: str) -> Any:
    """The tag of the stages that are made inside."""
    _SCOPE_TAGS.append(tag)
    try:
        yield
    finally:
        _SCOPE_TAGS.pop()


def reduce_axis(dom: Any, name: str = "rv", thread_tag: str = "", span: Any = None) -> Expr:
    """A variable to reduce over; `dom` is (0, extent)."""
    return core_te.reduce_axis(dom, name=plain_name(name))


def _reducer(kind: str, combine: Callable[[Any, Any], Expr] | None) -> Callable[..., Any]:
    over = getattr(core_te, kind)

    def reducer(expr: Any, axis: Any = None, where: Any = None, init: Any = None) -> Any:
        axes = axis if isinstance(axis, tuple | list) else (axis,)
        if combine is not None and where is None and [a for a in axes if not is_reduce_axis(a)]:
            return combine(expr, axis)
        return over(expr, axis=axis, where=where, init=init)

    reducer.__name__ = kind
    reducer.__doc__ = f"The {kind} over reduce axes" + ("; of two expressions, elementwise." if combine else ".")
    return reducer


sum = _reducer("sum", None)
prod = _reducer("prod", None)
max = _reducer("max", expr.maximum)
min = _reducer("min", expr.minimum)


def gradient(output: Tensor, inputs: Sequence[Tensor], head: Tensor | None = None) -> list[Tensor]:
    """The adjoints of `inputs`: of the product of `head` and `output`, or without `head` the Jacobians."""
    found = core_te.gradient(output.core, [t.core for t in inputs], head.core if head is not None else None)
    return [Tensor(t) for t in found]


def comm_reducer(fcombine: Callable[..., Any], fidentity: Callable[..., Any], name: str = "reduce") -> Callable[..., Any]:
    """A reducer from how two values are combined and the value that changes nothing; both may be of tuples."""
    return core_te.comm_reducer(fcombine, fidentity, name=plain_name(name))


def scan(
    init: Any,
    update: Any,
    state_placeholder: Any,
    inputs: Any = None,
    name: str = "scan",
    tag: str = "",
    attrs: Any = None,
) -> Any:
    """The states of a recurrence over the first dimension: given first by `init`, then by `update` from those before."""
    many = isinstance(init, tuple | list)

    def cores(given: Any) -> list[Any]:
        return [t.core for t in (given if isinstance(given, tuple | list) else [given])]

    made = core_te.scan(
        cores(init), cores(update), cores(state_placeholder), inputs=cores(inputs or []), name=plain_name(name)
    )
    tensors = [Tensor(t) for t in (made if isinstance(made, tuple | list) else [made])]
    return tensors if many else tensors[0]


def create_schedule(ops: Any) -> Schedule:
    """A schedule of everything that the operations (or tensors) need, in which nothing is transformed yet.

    Raises:
        TypeCheckError: something else is given.
    """
    given = ops if isinstance(ops, tuple | list) else [ops]
    found = []
    for item in given:
        op = item.op if isinstance(item, Tensor) else item
        if not isinstance(op, Operation):
            raise TypeCheckError(f"{user_location()}: create_schedule takes operations (C.op), not {type(item).__name__}")
        found.append(op)
    if not found:
        raise TypeCheckError(f"{user_location()}: create_schedule: no operation given")
    return Schedule(found, body_program)
