"""Tensors and operations with classic TVM's attributes, around those of `tensorlang.te`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from tensorlang.ir.dtype import DType, promote
from tensorlang.ir.expr import Expr, cast, const, fail, wrap
from tensorlang.te.tensor import Tensor as Core, compute_stage


class Operation:
    """What makes tensors, as a schedule sees it.

    Attributes:
        name: the operation's.
        axis: its variables, one per dimension of the output.
        reduce_axis: the variables that it reduces over.
        core: the operation of `tensorlang.te`, or the stage that a schedule made.
    """

    def __init__(self, core: Any, name: str, axis: Sequence[Expr], reduce_axis: Sequence[Expr], tag: str = ""):
        self.core = core
        self.name = name
        self.axis = list(axis)
        self.reduce_axis = list(reduce_axis)
        self.tag = tag

    @classmethod
    def of(cls, core: Any) -> Operation:
        """The view of an operation of `tensorlang.te`."""
        axis = tuple(getattr(core, "axis", ()))
        return cls(core, core.name, axis, tuple(getattr(core, "reduce_axis", ())), _TAGS.get(core, ""))

    @property
    def num_outputs(self) -> int:
        return len(self.core.outputs)

    def output(self, index: int) -> Tensor:
        """One of its tensors."""
        return Tensor(self.core.output(index))

    @property
    def input_tensors(self) -> list[Tensor]:
        """What it reads, in order of first use."""
        return [Tensor(t) for t in self.core.inputs]

    @property
    def body(self) -> list[Expr]:
        """The expression of an element, one per output."""
        found = getattr(self.core, "bodies", None) or (self.core.body,)
        return list(found)

    @property
    def scan_axis(self) -> Expr:
        """The variable of time of a scan."""
        found = getattr(self.core, "scan_axis", None)
        return found if found is not None else fail(f"{self.name} is not a scan")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Operation) and other.core is self.core

    def __hash__(self) -> int:
        return id(self.core)

    def __repr__(self) -> str:
        return f"{type(self.core).__name__}({self.name})"


_TAGS: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


class Tensor:
    """A tensor expression.

    Attributes:
        core: the tensor of `tensorlang.te`.
    """

    def __init__(self, core: Core, op: Operation | None = None):
        self.core = core
        self._op = op

    @property
    def op(self) -> Operation:
        """What computes it."""
        return self._op or Operation.of(self.core.op)

    @property
    def name(self) -> str:
        return self.core.name

    @property
    def shape(self) -> tuple[int | Expr, ...]:
        return self.core.shape

    @property
    def ndim(self) -> int:
        return self.core.ndim

    @property
    def dtype(self) -> str:
        """NumPy's name of the element type."""
        return dtype_name(self.core.dtype)

    @property
    def value_index(self) -> int:
        """Which of its operation's outputs it is."""
        return next((n for n, t in enumerate(outputs_of(self.core.op)) if t is self.core), 0)

    def __getitem__(self, index: Any) -> Any:
        index = index if isinstance(index, tuple) else (index,)
        if len(index) < self.ndim and not any(isinstance(i, slice) for i in index):
            return TensorSlice(self, index)
        return self.core[tuple(index)]

    def __call__(self, *index: Any) -> Any:
        return self.core[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tensor) and other.core is self.core

    def __hash__(self) -> int:
        return id(self.core)

    def __repr__(self) -> str:
        return f"Tensor(shape={list(self.shape)}, op.name={self.name})"

    def __add__(self, other: Any) -> Tensor:
        return broadcast(lambda a, b: a + b, self, other, "T_add")

    def __radd__(self, other: Any) -> Tensor:
        return broadcast(lambda a, b: a + b, other, self, "T_add")

    def __sub__(self, other: Any) -> Tensor:
        return broadcast(lambda a, b: a - b, self, other, "T_subtract")

    def __rsub__(self, other: Any) -> Tensor:
        return broadcast(lambda a, b: a - b, other, self, "T_subtract")

    def __mul__(self, other: Any) -> Tensor:
        return broadcast(lambda a, b: a * b, self, other, "T_multiply")

    def __rmul__(self, other: Any) -> Tensor:
        return broadcast(lambda a, b: a * b, other, self, "T_multiply")

    def __truediv__(self, other: Any) -> Tensor:
        return broadcast(lambda a, b: a / b, self, other, "T_divide")

    def __rtruediv__(self, other: Any) -> Tensor:
        return broadcast(lambda a, b: a / b, other, self, "T_divide")

    def __neg__(self) -> Tensor:
        return compute(self.shape, lambda *i: -self(*i), "T_negative")


class TensorSlice:
    """A tensor with its first indices given: `A[i]` of a matrix, to be indexed again."""

    def __init__(self, tensor: Tensor, index: tuple[Any, ...]):
        self.tensor = tensor
        self.index = index

    def __getitem__(self, index: Any) -> Any:
        return self.tensor[(*self.index, *(index if isinstance(index, tuple) else (index,)))]


def outputs_of(op: Any) -> tuple[Core, ...]:
    """All tensors that an operation of `tensorlang.te` makes."""
    return tuple(op._outputs)


def dtype_name(dtype: DType) -> str:
    """NumPy's name of an element type."""
    return dtype.numpy.name


def plain_name(name: str) -> str:
    """`name` as an identifier: classic names may hold dots."""
    text = re.sub(r"\W", "_", name)
    return f"t_{text}" if not text or text[0].isdigit() else text


def plain_shape(shape: Any) -> tuple[Any, ...]:
    """A shape whose floating-point dimensions, such as `N / 32`, are integers.

    Raises:
        TypeCheckError: one is not a whole number.
    """
    dims = tuple(shape) if isinstance(shape, tuple | list) else (shape,)
    if broken := [d for d in dims if isinstance(d, float) and not d.is_integer()]:
        fail(f"dimension {broken[0]} is not a whole number")
    return tuple(int(d) if isinstance(d, float) else d for d in dims)


def compute(shape: Any, fcompute: Callable[..., Any], name: str, tag: str = "") -> Tensor:
    """One stage."""
    made = Tensor(compute_stage(plain_shape(shape), fcompute, plain_name(name)))
    if tag:
        _TAGS[made.core.op] = tag
    return made


def broadcast_shape(a: Sequence[Any], b: Sequence[Any]) -> tuple[Any, ...]:
    """NumPy's rule on two shapes; a symbolic dimension fits itself and 1.

    Raises:
        TypeCheckError: they do not fit.
    """
    rank = max(len(a), len(b))
    left, right = (1,) * (rank - len(a)) + tuple(a), (1,) * (rank - len(b)) + tuple(b)
    out = []
    for x, y in zip(left, right, strict=True):
        if x is not y and x != y and not _is_one(x) and not _is_one(y):
            fail(f"shapes {list(a)} and {list(b)} do not broadcast: {x} against {y}")
        out.append(y if _is_one(x) else x)
    return tuple(out)


def _is_one(d: Any) -> bool:
    return isinstance(d, int) and d == 1


def broadcast_index(tensor: Tensor, index: Sequence[Expr]) -> Expr:
    """The element of `tensor` at `index` of a shape that it is broadcast to."""
    own = index[len(index) - tensor.ndim :]
    return tensor(*(0 if _is_one(d) else i for d, i in zip(tensor.shape, own, strict=True)))


def broadcast(fn: Callable[[Expr, Expr], Expr], a: Any, b: Any, name: str) -> Tensor:
    """`fn` on the elements of two tensors, or of one and a number, by NumPy's broadcasting."""
    if not isinstance(a, Tensor):
        assert isinstance(b, Tensor)
        return compute(b.shape, lambda *i: fn(_like(a, b), b(*i)), name, "elemwise")
    if not isinstance(b, Tensor):
        return compute(a.shape, lambda *i: fn(a(*i), _like(b, a)), name, "elemwise")
    shape = broadcast_shape(a.shape, b.shape)
    return compute(shape, lambda *i: fn(*_common(broadcast_index(a, i), broadcast_index(b, i))), name, "broadcast")


def _like(value: Any, tensor: Tensor) -> Expr:
    return wrap(value, const(0, tensor.core.dtype))


def _common(a: Expr, b: Expr) -> tuple[Expr, Expr]:
    wide = promote(a.dtype, b.dtype)
    return cast(wide, a), cast(wide, b)
