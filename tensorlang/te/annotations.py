"""Annotations of an operator's parameters: `te.f32["M", "K"]` is a tensor type with named dimensions."""

from __future__ import annotations

from dataclasses import dataclass

from tensorlang.errors import TypeCheckError
from tensorlang.ir.dtype import SCALARS, DType
from tensorlang.ir.expr import user_location

Dim = int | str
ANONYMOUS = "_"


@dataclass(frozen=True)
class TensorType:
    """A parameter's type: a dim is a size, a name (equal names are equal sizes) or `"_"` (any size)."""

    dtype: DType
    dims: tuple[Dim, ...]

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(repr, self.dims)) or '()'}]"


@dataclass(frozen=True)
class TensorKind:
    """An element type that makes tensor types by subscript; it stands for its dtype wherever te takes one."""

    dtype: DType

    def __getitem__(self, dims: Dim | tuple[Dim, ...]) -> TensorType:
        dims = dims if isinstance(dims, tuple) else (dims,)
        for d in dims:
            named = isinstance(d, str) and d.isidentifier()
            sized = isinstance(d, int) and not isinstance(d, bool) and d >= 0
            if not named and not sized:
                raise TypeCheckError(
                    f"{user_location()}: {d!r} is not a dimension of {self}[...]; give a size >= 0 or a name like 'N'"
                )
        return TensorType(self.dtype, dims)

    def __str__(self) -> str:
        return str(self.dtype)

    __repr__ = __str__


KINDS: dict[str, TensorKind] = {name: TensorKind(dtype) for name, dtype in SCALARS.items()}
