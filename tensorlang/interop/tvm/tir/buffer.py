"""Symbolic buffers and the calls on them, as bodies of extern stages and tensor intrinsics are written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tensorlang.errors import TypeCheckError
from tensorlang.interop.tvm.tensor import plain_name, plain_shape
from tensorlang.ir.buffer import Buffer as CoreBuffer
from tensorlang.ir.dtype import dtype as as_dtype
from tensorlang.ir.expr import Expr, load, user_location, var, wrap
from tensorlang.ir.stmt import Stmt, Store


class Buffer:
    """Memory by shape, element type and strides.

    Attributes:
        strides: elements between neighbours, one per dimension; empty for a compact buffer.
        core: the buffer of the loop-nest IR that loads and stores on it name.
    """

    def __init__(
        self, shape: Sequence[Any], dtype: str, name: str, strides: Sequence[Any] = (), scope: str = "", **layout: Any
    ):
        self.shape = plain_shape(tuple(shape))
        self.dtype = dtype
        self.name = name
        self.strides = list(strides)
        self.scope = scope or "global"
        self.elem_offset = layout.get("elem_offset")
        self.offset_factor = layout.get("offset_factor", 0)
        self.data_alignment = layout.get("data_alignment", -1)
        self.core = layout.get("core") or CoreBuffer(plain_name(name), tuple(wrap(d) for d in self.shape), as_dtype(dtype))

    @property
    def data(self) -> Buffer:
        """What a call is given of it: itself."""
        return self

    def access_ptr(
        self, access_mask: str | int, ptr_type: str = "handle", content_lanes: int = 1, offset: Any = 0
    ) -> AccessPtr:
        """A pointer to its elements from `offset` on; `access_mask` is "r", "w" or "rw" (or 1, 2, 3)."""
        mask = {1: "r", 2: "w", 3: "rw"}.get(access_mask, access_mask) if isinstance(access_mask, int) else access_mask
        if not isinstance(mask, str) or not mask or set(mask) - set("rw"):
            raise TypeCheckError(f"{user_location()}: access_ptr of {self.name}: {access_mask!r} is none of 'r', 'w', 'rw'")
        return AccessPtr(self, mask, offset)

    def vload(self, begin: Any, dtype: str | None = None) -> Expr:
        """The element at `begin`.

        Raises:
            TypeCheckError: more than one element is asked for.
        """
        self._check_scalar(dtype, "vload")
        return load(self.core, begin if isinstance(begin, tuple | list) else (begin,))

    def vstore(self, begin: Any, value: Any) -> Stmt:
        """Store one element at `begin`."""
        index = tuple(wrap(i) for i in (begin if isinstance(begin, tuple | list) else (begin,)))
        return Store(self.core, index, wrap(value, load(self.core, index)))

    def __getitem__(self, index: Any) -> Expr:
        return load(self.core, index if isinstance(index, tuple) else (index,))

    def _check_scalar(self, dtype: str | None, what: str) -> None:
        if dtype is not None and as_dtype(dtype) != as_dtype(self.dtype):
            raise TypeCheckError(f"{user_location()}: {what} of {self.name}: elements are {self.dtype}, not {dtype}")

    def __repr__(self) -> str:
        return f"buffer({self.name}, {list(self.shape)}, {self.dtype})"


@dataclass(frozen=True)
class AccessPtr:
    """A pointer into a buffer, with what the callee may do through it."""

    buffer: Buffer
    mask: str
    offset: Any = 0


def decl_buffer(
    shape: Any,
    dtype: str | None = None,
    name: str = "buffer",
    data: Any = None,
    strides: Sequence[Any] | None = None,
    elem_offset: Any = None,
    scope: str = "",
    data_alignment: int = -1,
    offset_factor: int = 0,
    buffer_type: str = "",
) -> Buffer:
    """A symbolic buffer. Where it lies, its alignment and strides are what the compiler makes them; what is declared of them
    is kept for the bodies that mention it."""
    dims = shape if isinstance(shape, tuple | list) else (shape,)
    return Buffer(
        dims,
        dtype or "float32",
        name,
        strides or (),
        scope,
        elem_offset=elem_offset if elem_offset is not None else var(f"{plain_name(name)}_offset"),
        data_alignment=data_alignment,
        offset_factor=offset_factor,
    )


@dataclass(frozen=True)
class HostCall:
    """A call for its effect: `kind` is "packed", a registered Python function, or "extern", a function of foreign code."""

    kind: str
    name: str
    args: tuple[Any, ...]
    dtype: str = "int32"
    where: str = ""

    def __str__(self) -> str:
        shown = [a.buffer.name if isinstance(a, AccessPtr) else getattr(a, "name", a) for a in self.args]
        return f"call_{self.kind}({', '.join(map(str, [repr(self.name), *shown]))})"


class Calls(tuple[HostCall, ...]):
    """Calls that run one after the other."""


def call_packed(*args: Any) -> HostCall:
    """A call of the registered function whose name comes first, on buffers (as arrays) and scalars.

    Raises:
        TypeCheckError: the first argument is not a name.
    """
    if not args or not isinstance(args[0], str):
        raise TypeCheckError(f"{user_location()}: call_packed: the first argument is the function's registered name")
    return HostCall("packed", args[0], args[1:], where=user_location())


def call_extern(dtype: str, func_name: str, *args: Any) -> HostCall:
    """A call of a function of foreign code for its effect; see `te.decl_tensor_intrin` for what stands in for it."""
    return HostCall("extern", func_name, args, dtype, user_location())
