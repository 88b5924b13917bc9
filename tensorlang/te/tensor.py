"""Tensors and stages: `placeholder`, `compute`, `reduce_axis` make a graph of tensor expressions (the compute DAG)."""

from __future__ import annotations

import inspect
import linecache
import os
import re
import sys
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from tensorlang.ir.buffer import Buffer
from tensorlang.ir.dtype import DType, dtype as as_dtype
from tensorlang.ir.expr import Expr, ExprLike, cast, const, fail, load, user_location, var, wrap
from tensorlang.ir.visitor import substitute, walk
from tensorlang.symbolic.simplify import simplify
from tensorlang.te.annotations import TensorKind

Shape = tuple[int | Expr, ...]
DTypeLike = DType | TensorKind | str | np.dtype | type

_SERIAL = count()
_PACKAGE = Path(__file__).resolve().parents[1]
_EXTENTS: WeakKeyDictionary[Expr, int | Expr] = WeakKeyDictionary()  # reduce axis -> extent
_LOWS: WeakKeyDictionary[Expr, Expr] = WeakKeyDictionary()  # reduce axis -> where it begins, if not at 0
_OWNERS: WeakKeyDictionary[Expr, str] = WeakKeyDictionary()  # axis of a stage -> the stage's name


class TensorBuffer(Buffer):
    """The buffer of a tensor, which knows it: expressions mention buffers, and so lead back to stages."""

    __slots__ = ("tensor",)
    tensor: Tensor


class Tensor:
    """A tensor of the compute DAG: a placeholder, or the output of a stage. Index it to get a scalar expression.

    Attributes:
        shape: one entry per dimension: an int, or an i64 expression when it is symbolic.
        op: what computes it.
    """

    def __init__(self, op: Op, shape: Shape, dtype: DType, name: str | None = None):
        self.op = op
        self.shape = shape
        self.dtype = dtype
        self.buffer = TensorBuffer(name or op.name, tuple(wrap(d) for d in shape), dtype)
        self.buffer.tensor = self

    @property
    def name(self) -> str:
        return self.buffer.name

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __getitem__(self, index: Any) -> Expr:
        """The element at `index`, integer expressions.

        An index may itself be read from a tensor, as in `table[ids[i], j]`. Such an index must lie inside: nothing checks
        that before the program runs. The interpreter refuses one that does not; native code does not look.
        """
        index = index if isinstance(index, tuple) else (index,)
        if any(isinstance(i, slice) or i is None or i is Ellipsis for i in index):
            fail(f"{self.name}[...]: a tensor expression reads one element; slices are stages of their own")
        if len(index) != self.ndim:
            fail(f"{self.name} has {self.ndim} dimension(s) but is indexed with {len(index)}")
        return load(self.buffer, index)

    def __call__(self, *index: ExprLike) -> Expr:
        return self[index]

    def __iter__(self) -> Any:
        fail(f"{self.name} cannot be iterated over; index it, e.g. {self.name}[i]")

    def __bool__(self) -> bool:
        return bool(fail(f"{self.name} has no truth value while the program is being built"))

    def _no_arithmetic(self, other: Any) -> Any:
        fail(f"arithmetic is on elements: write {self.name}[i] inside te.compute(shape, lambda i: ...)")

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _no_arithmetic
    __matmul__ = __lt__ = __le__ = __gt__ = __ge__ = _no_arithmetic

    def __repr__(self) -> str:
        return f"Tensor({self.buffer!r})"


class Op:
    """What makes a tensor. `serial` is the order of creation, `source` the user's file:line."""

    def __init__(self, name: str, source: str):
        self.name = name
        self.source = source
        self.serial = next(_SERIAL)
        self._outputs: list[Tensor] = []

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """The tensors that it reads."""
        return ()

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        return tuple(self._outputs)

    def output(self, index: int = 0) -> Tensor:
        return self._outputs[index]


class PlaceholderOp(Op):
    """An input."""

    def __init__(self, name: str, shape: Shape, dtype: DType, source: str):
        super().__init__(name, source)
        self._outputs = [Tensor(self, shape, dtype)]


class ComputeOp(Op):
    """A stage: output[axis] = body, where body may be one reduction over `reduce_axis`; or several outputs at once.

    Attributes:
        axis: one variable per dimension of the outputs, which have one shape.
        reduce_axis: the reduction's variables; `extent_of` gives their extents.
        bodies: the elements' expressions, one per output; `reduce` nodes, all of one reducer, if the stage is a reduction.
    """

    def __init__(
        self, name: str, shape: Shape, axis: tuple[Expr, ...], bodies: tuple[Expr, ...], source: str, single: bool = True
    ):
        super().__init__(name, source)
        self.axis = axis
        self.bodies = bodies
        self.reduce_axis: tuple[Expr, ...] = bodies[0].value[1] if bodies[0].op == "reduce" else ()
        buffers = {e.value: None for body in bodies for e in walk(body) if e.op == "load"}
        self._inputs = tuple(b.tensor for b in buffers)
        names = [name] if single else [f"{name}_v{n}" for n in range(len(bodies))]
        self._outputs = [Tensor(self, shape, b.dtype, n) for b, n in zip(bodies, names, strict=True)]

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        return self._inputs

    @property
    def body(self) -> Expr:
        """The only output's expression.

        Raises:
            TypeCheckError: the stage has several outputs.
        """
        if len(self.bodies) != 1:
            fail(f"stage {self.name} computes {len(self.bodies)} tensors at once; this takes one that computes one")
        return self.bodies[0]


def unwrap_dtype(spec: DTypeLike) -> DType:
    """The dtype that `spec` names; `te.f32` and the like included."""
    return spec.dtype if isinstance(spec, TensorKind) else as_dtype(spec)


def normalise_dim(d: Any, what: str) -> int | Expr:
    """A dimension as an int, or as an i64 expression when it is symbolic."""
    if isinstance(d, np.integer):
        d = int(d)
    if isinstance(d, Expr):
        if not d.dtype.is_int:
            fail(f"{what}: a dimension has type {d.dtype}; dimensions are integers")
        if d.op != "const":
            return d
        d = int(d.value)
    if not isinstance(d, int) or isinstance(d, bool):
        fail(f"{what}: {d!r} is not a dimension; give an int or a symbolic size")
    if d < 0:
        fail(f"{what}: dimension {d} is negative")
    return d


def normalise_bound(d: Any, what: str) -> int | Expr:
    """An end of a range: like a dimension, but it may be negative."""
    if isinstance(d, int | np.integer) and not isinstance(d, bool) and d < 0:
        return int(d)
    return normalise_dim(d, what)


def normalise_shape(shape: Any, what: str) -> Shape:
    if isinstance(shape, int | Expr | np.integer):
        shape = (shape,)
    if not isinstance(shape, tuple | list):
        fail(f"{what}: the shape is a tuple of dimensions, not {type(shape).__name__}")
    return tuple(normalise_dim(d, what) for d in shape)


def checked_name(name: str) -> str:
    if not isinstance(name, str) or not name.isidentifier():
        fail(f"{name!r} is not a name for a tensor: use letters, digits and underscores")
    return name


def placeholder(shape: Sequence[ExprLike] | ExprLike, dtype: DTypeLike = "f32", name: str = "placeholder") -> Tensor:
    """An input tensor of `shape`."""
    name = checked_name(name)
    return PlaceholderOp(name, normalise_shape(shape, name), unwrap_dtype(dtype), user_location()).output()


def reduce_axis(
    extent: ExprLike | tuple[ExprLike, ExprLike] | range, name: str = "k", thread_tag: str | None = None
) -> Expr:
    """A variable to reduce over, `0 <= axis < extent`, or `low <= axis < high` for a pair; for one `te.sum(...)` or its like.

    In the program the loop begins at 0: where the axis is used, `low` is added. `thread_tag` (classic TVM) has no effect.
    """
    low: int | Expr = 0
    if isinstance(extent, range):
        extent = (extent.start, extent.stop)
    if isinstance(extent, tuple | list):
        if len(extent) != 2:
            fail(f"reduce_axis {name}: give an extent or a pair (low, high)")
        low = normalise_bound(extent[0], f"reduce_axis {name}")
        extent = simplify(wrap(normalise_bound(extent[1], f"reduce_axis {name}")) - low)
    axis = var(checked_name(name))
    if low != 0:
        _LOWS[axis] = wrap(low)
    _EXTENTS[axis] = normalise_dim(extent, f"reduce_axis {name}")
    return axis


def shifted(e: Expr) -> Expr:
    """`e` with every reduce axis that begins elsewhere than at 0 replaced by its sum with that."""
    moved = {v: v + _LOWS[v] for v in walk(e) if v.op == "var" and v in _LOWS}
    return substitute(e, moved)


def extent_of(axis: Expr) -> int | Expr:
    """The extent of a reduce axis."""
    if axis not in _EXTENTS:
        fail(f"{axis} is not a reduce axis; make one with te.reduce_axis(extent)")
    return _EXTENTS[axis]


def is_reduce_axis(e: Any) -> bool:
    return isinstance(e, Expr) and e in _EXTENTS


def compute_stage(
    shape: Sequence[ExprLike] | ExprLike,
    fcompute: Callable[..., Any],
    name: str | None = None,
    dtype: DTypeLike | None = None,
) -> Any:
    """A stage: a tensor of `shape` whose element at i, j, ... is `fcompute(i, j, ...)`.

    Args:
        fcompute: called once with symbolic indices; returns a scalar expression, or one reduction of such. A tuple of
            expressions, or a reduction of tuples, makes one stage `name` with several outputs `name_v0`, `name_v1`, ...:
            then a tuple of tensors is returned.
        name: of the stage and its tensor; without it, the variable assigned to, or a plain function's own name.
        dtype: the element type to cast to; by default that of the expression.

    Raises:
        TypeCheckError: the expression has no meaning; the message names the user's file and line.
    """
    name = checked_name(name) if name is not None else _guess_name(fcompute)
    dims = normalise_shape(shape, name)
    axis = tuple(var(n) for n in _axis_names(fcompute, len(dims), name))
    for a in axis:
        _OWNERS[a] = name
    result = fcompute(*axis)
    single = not isinstance(result, tuple | list)
    results = [result] if single else list(result)
    if not results:
        fail(f"stage {name}: the function returned an empty tuple")
    if tensors := [t.name for t in results if isinstance(t, Tensor)]:
        fail(f"stage {name}: the function returned tensor {tensors[0]}, not an element; index it")
    bodies = tuple(_as_type(name, wrap(e), dtype) for e in results)
    for body in bodies:
        _check_body(name, body, axis)
    _check_tuple(name, bodies)
    op = ComputeOp(name, dims, axis, tuple(shifted(b) for b in bodies), _source_of(fcompute), single)
    return op.output() if single else op.outputs


def _as_type(name: str, body: Expr, dtype: DTypeLike | None) -> Expr:
    if dtype is None:
        return body
    to = unwrap_dtype(dtype)
    if body.op == "reduce" and body.dtype != to:
        fail(f"stage {name}: a reduction of {body.dtype} cannot be stored as {to}; cast what is reduced")
    return const(body.value, to) if body.op == "const" else cast(to, body)


def _check_tuple(name: str, bodies: tuple[Expr, ...]) -> None:
    """Either no output is a reduction, or they are the parts of one, in order."""
    reduced = [b for b in bodies if b.op == "reduce"]
    if not reduced:
        return
    kinds = [b.value[0] for b in reduced]  # a name, or a part of a reducer: `te.math.ReducerPart`
    named = [isinstance(k, str) for k in kinds]
    parts = [0 if isinstance(k, str) else k.index for k in kinds]
    width = 1 if named[0] else kinds[0].width
    one = all(b.args == reduced[0].args and b.value[1] == reduced[0].value[1] for b in reduced)
    same = len({k if isinstance(k, str) else id(k.reducer) for k in kinds}) == 1
    if len(bodies) != width or len(reduced) != width or not one or not same or parts != list(range(width)):
        fail(
            f"stage {name}: a stage with a reduction computes that alone: all {width} part(s) of one reducer's result, "
            "in order; "
            "compute anything else in a stage of its own"
        )


def _check_body(name: str, body: Expr, axis: tuple[Expr, ...]) -> None:
    reduced = set(body.value[1]) if body.op == "reduce" else set()
    nested = next((e for e in walk(body) if e.op == "reduce" and e is not body), None)
    if nested is not None:
        fail(
            f"stage {name}: te.{nested.value[0]} must be the outermost operation of a stage; "
            "compute it in a stage of its own and use that tensor here"
        )
    for e in walk(body):
        if e.op == "load" and not isinstance(e.value, TensorBuffer):
            fail(f"stage {name} reads {e.value.name}, which is not a tensor of te")
        if e.op == "var":
            if e in _EXTENTS and e not in reduced:
                fail(f"stage {name} uses reduce axis {e.name} outside a reduction over it (te.sum(..., axis={e.name}))")
            if e in _OWNERS and e not in axis:
                fail(f"stage {name} uses index {e.name} of stage {_OWNERS[e]}; an index is known in its own stage only")


def _axis_names(fcompute: Callable[..., Any], ndim: int, name: str) -> list[str]:
    if not callable(fcompute):
        fail(f"stage {name}: the second argument is a function of the indices, not {type(fcompute).__name__}")
    parameters = list(inspect.signature(fcompute).parameters.values())
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [
        p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty
    ]
    rest = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), None)
    if len(required) > ndim or (rest is None and len(names) < ndim):
        fail(f"stage {name} has {ndim} dimension(s) but its function takes {len(required)} index(es)")
    names = names[: max(ndim, len(required))]
    missing = ndim - len(names)
    prefix = rest if rest and len(rest) <= 2 else "i"
    if missing == 1 and not names:
        return [prefix]
    return names + [f"{prefix}{n}" for n in range(missing)]


_ASSIGNMENT = re.compile(r"\s*(\w+)\s*(?::[^=]*)?=\s*(?:\w+\.)?compute\(")


def _guess_name(fcompute: Callable[..., Any]) -> str:
    own = getattr(fcompute, "__name__", "")
    if own.isidentifier():
        return own
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").startswith("tensorlang.te"):
        frame = frame.f_back
    if frame is not None:
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
        if match := _ASSIGNMENT.match(line):
            return match[1]
    return "compute"


def _source_of(fcompute: Callable[..., Any]) -> str:
    """file:line of the stage's function; files of this package are named relative to it."""
    code = getattr(fcompute, "__code__", None)
    if code is None:
        return user_location()
    path = code.co_filename
    if path.startswith(str(_PACKAGE) + os.sep):
        path = str(Path(path).relative_to(_PACKAGE.parent))
    return f"{path}:{code.co_firstlineno}"
