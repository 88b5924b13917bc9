"""A `Buffer` names a piece of memory with a shape. Two buffers are the same only if they are the same object."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tensorlang.ir.dtype import DType, dtype as as_dtype

if TYPE_CHECKING:
    from tensorlang.ir.expr import Expr


SCOPES = ("global", "local", "shared", "packed")


def is_scope(text: str) -> bool:
    """Whether a buffer may live in `text`: one of SCOPES, or a memory of a target's own, `"target.memory"`."""
    return text in SCOPES or ("." in text and all(part.isidentifier() for part in text.split(".")))


class Buffer:
    """Row-major memory of `shape` elements of `dtype`; never mutated after construction.

    Attributes:
        scope: `"global"` (a parameter, or workspace shared by all iterations), `"local"` (private to the iteration that
            allocates it: a register tile or a small stack array), `"shared"` (one GPU thread block). `"packed"` is global
            memory that holds an operand rearranged for the loops that read it. A target's own memory has a name with a
            dot, `"accel.acc"`, and stays what it is; who does not know it takes it for global.
        align: (axis, factor, offset): how far apart elements along `axis` lie, in elements, is `offset` modulo `factor`.
            Without an entry they lie as close as the dimensions inside allow.
    """

    __slots__ = ("align", "dtype", "name", "scope", "shape", "__weakref__")

    def __init__(
        self,
        name: str,
        shape: tuple[Expr, ...],
        dtype: DType | str,
        scope: str = "global",
        align: tuple[tuple[int, int, int], ...] = (),
    ):
        self.name = name
        self.shape = tuple(shape)
        self.dtype = as_dtype(dtype)
        self.scope = scope
        self.align = tuple(sorted(align))

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def with_(
        self,
        *,
        name: str | None = None,
        shape: tuple[Expr, ...] | None = None,
        scope: str | None = None,
        align: tuple[tuple[int, int, int], ...] | None = None,
    ) -> Buffer:
        """A new buffer that differs in what is given."""
        return Buffer(
            name or self.name,
            self.shape if shape is None else shape,
            self.dtype,
            scope or self.scope,
            self.align if align is None else align,
        )

    def __repr__(self) -> str:
        return f"{self.name}: {self.dtype}[{', '.join(map(str, self.shape))}]"
