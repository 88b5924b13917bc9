"""Every buffer becomes one-dimensional, row-major: y[i, j] -> y[i*N + j]."""

from __future__ import annotations

from dataclasses import replace

from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr, const, load
from tensorlang.ir.stmt import Allocate, For, PrimFunc, Stmt, Store
from tensorlang.ir.visitor import map_exprs, rewrite, rewrite_stmt, walk_stmt
from tensorlang.symbolic.simplify import simplify


def flatten_buffers(func: PrimFunc) -> PrimFunc:
    ranges: dict[Expr, Expr | int] = {s.var: s.extent for s in walk_stmt(func.body) if isinstance(s, For)}
    flat: dict[Buffer, Buffer] = {}

    def flattened(buffer: Buffer) -> Buffer:
        if buffer not in flat:
            flat[buffer] = buffer if buffer.ndim == 1 else buffer.with_(shape=(_size(buffer.shape),))
        return flat[buffer]

    def on_expr(e: Expr) -> Expr | None:
        if e.op != "load":
            return None
        return load(flattened(e.value), (flat_index(e.value.shape, e.args, ranges),))

    def on_stmt(s: Stmt) -> Stmt | None:
        if isinstance(s, Store):
            buffer, indices = flattened(s.buffer), (flat_index(s.buffer.shape, s.indices, ranges),)
            return s if buffer is s.buffer and indices == s.indices else Store(buffer, indices, s.value)
        if isinstance(s, Allocate) and flattened(s.buffer) is not s.buffer:
            return Allocate(flattened(s.buffer), s.body)
        return None

    body = rewrite_stmt(map_exprs(func.body, lambda e: rewrite(e, on_expr)), on_stmt)
    params = tuple(flattened(p) if isinstance(p, Buffer) else p for p in func.params)
    return func if params == func.params and body is func.body else replace(func, params=params, body=body)


def flat_index(shape: tuple[Expr, ...], index: tuple[Expr, ...], ranges: dict[Expr, Expr | int]) -> Expr:
    """The row-major position of `index` in `shape`."""
    position: Expr = const(0)
    for d, i in zip(shape, index, strict=True):
        position = position * d + (i if i.dtype.name == "i64" else i.astype("i64"))
    return simplify(position, ranges)


def _size(shape: tuple[Expr, ...]) -> Expr:
    size: Expr = const(1)
    for d in shape:
        size = size * d
    return simplify(size)
