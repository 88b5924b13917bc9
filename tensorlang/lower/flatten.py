"""Every buffer becomes one-dimensional, row-major: y[i, j] -> y[i*N + j], rows being padded where `storage_align` says so."""

from __future__ import annotations

from dataclasses import replace

from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr, const, load
from tensorlang.ir.stmt import Allocate, CallPacked, For, PrimFunc, Stmt, Store
from tensorlang.ir.visitor import map_exprs, rewrite, rewrite_stmt, walk_stmt
from tensorlang.symbolic.simplify import simplify
from tensorlang.symbolic.strides import strides


def flatten_buffers(func: PrimFunc) -> PrimFunc:
    ranges: dict[Expr, Expr | int] = {s.var: s.extent for s in walk_stmt(func.body) if isinstance(s, For)}
    flat: dict[Buffer, Buffer] = {}

    def flattened(buffer: Buffer) -> Buffer:
        if buffer not in flat:
            flat[buffer] = buffer if buffer.ndim == 1 else buffer.with_(shape=(_size(buffer),), align=())
        return flat[buffer]

    def on_expr(e: Expr) -> Expr | None:
        if e.op != "load":
            return None
        return load(flattened(e.value), (flat_index(e.value, e.args, ranges),))

    def on_stmt(s: Stmt) -> Stmt | None:
        if isinstance(s, Store):
            buffer, indices = flattened(s.buffer), (flat_index(s.buffer, s.indices, ranges),)
            return s if buffer is s.buffer and indices == s.indices else Store(buffer, indices, s.value)
        if isinstance(s, CallPacked):
            args = tuple(flattened(a) if isinstance(a, Buffer) else a for a in s.args)
            shapes = s.shapes or tuple(b.shape for b in s.buffers)
            return CallPacked(s.name, args, tuple(map(flattened, s.outputs)), shapes)
        if isinstance(s, Allocate) and flattened(s.buffer) is not s.buffer:
            return Allocate(flattened(s.buffer), s.body)
        return None

    body = rewrite_stmt(map_exprs(func.body, lambda e: rewrite(e, on_expr)), on_stmt)
    params = tuple(flattened(p) if isinstance(p, Buffer) else p for p in func.params)
    return func if params == func.params and body is func.body else replace(func, params=params, body=body)


def flat_index(buffer: Buffer, index: tuple[Expr, ...], ranges: dict[Expr, Expr | int]) -> Expr:
    """The row-major position of `index` in `buffer`."""
    wide = [i if i.dtype.name == "i64" else i.astype("i64") for i in index]
    position: Expr = const(0)
    if buffer.align:
        for stride, i in zip(strides(buffer), wide, strict=True):
            position = position + stride * i
        return simplify(position, ranges)
    for d, i in zip(buffer.shape, wide, strict=True):
        position = position * d + i
    return simplify(position, ranges)


def _size(buffer: Buffer) -> Expr:
    if buffer.align:
        return simplify(strides(buffer)[0] * buffer.shape[0])
    size: Expr = const(1)
    for d in buffer.shape:
        size = size * d
    return simplify(size)
