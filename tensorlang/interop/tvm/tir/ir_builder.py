"""Statements written one after the other: `ir_builder.create()`, loops and conditions as `with` blocks, then `get()`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tensorlang.errors import TypeCheckError
from tensorlang.interop.tvm.tensor import plain_name, plain_shape
from tensorlang.interop.tvm.tir.buffer import Buffer, Calls, HostCall
from tensorlang.ir.buffer import Buffer as CoreBuffer
from tensorlang.ir.dtype import dtype as as_dtype
from tensorlang.ir.expr import Expr, load, user_location, var, wrap
from tensorlang.ir.stmt import Allocate, For, If, Stmt, Store, seq
from tensorlang.ir.visitor import substitute_stmt

_KINDS = {"serial": "serial", "parallel": "parallel", "vectorize": "vectorized", "unroll": "unrolled"}


class Pointer:
    """Memory that a builder writes: `p[i]` reads an element, `p[i] = x` emits a store."""

    def __init__(self, builder: IRBuilder, buffer: CoreBuffer):
        self._builder = builder
        self.buffer = buffer

    def _index(self, index: Any) -> tuple[Expr, ...]:
        given = tuple(wrap(i) for i in (index if isinstance(index, tuple) else (index,)))
        if len(given) == self.buffer.ndim:
            return given
        if len(given) != 1:
            raise TypeCheckError(
                f"{user_location()}: {self.buffer.name} has {self.buffer.ndim} dimension(s), but {len(given)} indices are given"
            )
        flat, found = given[0], []  # one index runs over all elements in row-major order
        for d in reversed(self.buffer.shape[1:]):
            found.append(flat % d)
            flat = flat // d
        return (flat, *reversed(found))

    def __getitem__(self, index: Any) -> Expr:
        return load(self.buffer, self._index(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        at = self._index(index)
        self._builder.emit(Store(self.buffer, at, wrap(value, load(self.buffer, at)).astype(self.buffer.dtype)))


class IRBuilder:
    """A list of statements under construction."""

    def __init__(self) -> None:
        self._open: list[list[Any]] = [[]]

    def emit(self, stmt: Any) -> None:
        """Append a statement, or a call made by `call_extern` or `call_packed`."""
        self._open[-1].append(stmt)

    def get(self) -> Any:
        """What was written: a statement, or the calls.

        Raises:
            TypeCheckError: nothing was, or calls of foreign functions stand among loops.
        """
        (items,) = self._open
        if not items:
            raise TypeCheckError(f"{user_location()}: ir_builder: nothing was emitted")
        if any(isinstance(i, HostCall) for i in items):
            if not all(isinstance(i, HostCall) for i in items):
                raise TypeCheckError(f"{user_location()}: ir_builder: calls of foreign functions stand beside other statements")
            return items[0] if len(items) == 1 else Calls(items)
        return _close(items)

    @contextmanager
    def for_range(self, begin: Any, end: Any, name: str = "i", dtype: str = "int32", kind: str = "serial") -> Iterator[Expr]:
        """A loop from `begin` to before `end`; gives its variable."""
        if kind not in _KINDS:
            raise TypeCheckError(f"{user_location()}: for_range: kind is one of {', '.join(_KINDS)}, not {kind!r}")
        v, low = var(plain_name(name)), wrap(begin)
        self._open.append([])
        yield v
        body = _close(self._open.pop())
        body = substitute_stmt(body, {v: low + v}) if not (low.op == "const" and low.value == 0) else body
        self.emit(For(v, wrap(end) - low, _KINDS[kind], body))

    @contextmanager
    def if_scope(self, cond: Any) -> Iterator[None]:
        """Statements that run where the condition holds."""
        self._open.append([])
        yield
        self.emit(If(wrap(cond), _close(self._open.pop())))

    @contextmanager
    def else_scope(self) -> Iterator[None]:
        """Statements that run where that of the `if_scope` just before does not."""
        before = self._open[-1].pop() if self._open[-1] else None
        if not isinstance(before, If) or before.else_ is not None:
            raise TypeCheckError(f"{user_location()}: else_scope follows an if_scope")
        self._open.append([])
        yield
        self.emit(If(before.cond, before.then, _close(self._open.pop())))

    def allocate(self, dtype: str, shape: Any, name: str = "buf", scope: str = "") -> Pointer:
        """Memory that lives until the end of the block."""
        dims = tuple(wrap(d) for d in plain_shape(shape))
        buffer = CoreBuffer(plain_name(name), dims, as_dtype(dtype), "local" if "local" in scope else "global")
        self._open[-1].append(buffer)
        return Pointer(self, buffer)

    def buffer_ptr(self, buf: Buffer, shape: Any = None) -> Pointer:
        """A declared buffer, to read and write."""
        return Pointer(self, buf.core)

    def scope_attr(self, node: Any, attr_key: str, value: Any) -> None:
        """A hint; ignored."""

    def likely(self, expr: Any) -> Expr:
        """The condition itself."""
        return wrap(expr)


def _close(items: list[Any]) -> Stmt:
    """The statements as one; what is allocated among them lives to their end."""
    body: list[Stmt] = []
    for item in reversed(items):
        if isinstance(item, CoreBuffer):
            body = [Allocate(item, seq(*body))]
        elif isinstance(item, HostCall):
            raise TypeCheckError(f"{item.where}: {item.name}: calls of foreign functions do not go into loops here")
        else:
            body.insert(0, item)
    return seq(*body)


def create() -> IRBuilder:
    """An empty builder."""
    return IRBuilder()
