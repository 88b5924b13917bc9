"""f16 and bf16 are storage: what is loaded becomes f32, arithmetic is f32's, and a store rounds to nearest even.

y[i] = x[i] * 2 + y[i]    (all f16)   ->   y[i] = cast(f16, cast(f32, x[i]) * 2 + cast(f32, y[i]))

A cast to a half in the program rounds there too. A buffer inside the function that accumulates (its store reads itself)
becomes f32, so that a sum is rounded once, not at every step: native results are at least as accurate as the interpreter's,
which rounds every operation to its own type.
"""

from __future__ import annotations

import numpy as np

from tensorlang.ir.buffer import Buffer
from tensorlang.ir.dtype import DType, f32
from tensorlang.ir.expr import Expr, cast, const, load, rebuild
from tensorlang.ir.stmt import Allocate, CallPacked, PrimFunc, Stmt, Store
from tensorlang.ir.visitor import loads, map_exprs, rewrite_stmt, walk, walk_stmt


def widen_halves(func: PrimFunc) -> PrimFunc:
    buffers = {s.buffer for s in walk_stmt(func.body) if isinstance(s, Allocate)}
    if not any(_is_half(b.dtype) for b in (*func.buffers, *buffers)) and not _mentions_halves(func.body):
        return func
    found = [b for b in _accumulators(func.body) & buffers if _is_half(b.dtype)]
    wide = {b: Buffer(b.name, b.shape, f32, b.scope, b.align) for b in found}
    memo: dict[Expr, Expr] = {}

    def on_expr(e: Expr) -> Expr:
        if e not in memo:
            for node in walk(e):
                if node not in memo:
                    memo[node] = _widened(node, tuple(memo[a] for a in node.args), wide)
        return memo[e]

    def on_stmt(s: Stmt) -> Stmt | None:
        if isinstance(s, Allocate) and s.buffer in wide:
            return Allocate(wide[s.buffer], s.body)
        if not isinstance(s, Store):
            return None
        target, value = wide.get(s.buffer, s.buffer), s.value
        if value.dtype.scalar != target.dtype:
            inner = value.args[0] if value.op == "cast" else value
            value = inner if inner.dtype == target.dtype else cast(target.dtype, value)  # what was rounded is moved as it is
        return s if target is s.buffer and value is s.value else Store(target, s.indices, value)

    return func.with_body(rewrite_stmt(map_exprs(func.body, on_expr), on_stmt))


def _widened(e: Expr, args: tuple[Expr, ...], wide: dict[Buffer, Buffer]) -> Expr:
    """`e` of the operands `args`, in f32 where it is a half."""
    if e.op == "load" and e.value in wide:
        return load(wide[e.value], args)
    if not _is_half(e.dtype):
        return rebuild(e, args) if e.args else e
    if e.op == "const":
        return const(float(np.asarray(e.value, e.dtype.numpy)), f32)
    if e.op == "load":
        return cast(f32, load(e.value, args))
    if e.op == "cast":
        return cast(f32, cast(e.dtype, args[0]))  # rounds
    return rebuild(e, args)


def _is_half(dtype: DType) -> bool:
    return dtype.is_float and dtype.bits == 16


def _mentions_halves(body: Stmt) -> bool:
    return any(_is_half(n.dtype) for s in walk_stmt(body) if isinstance(s, Store) for n in walk(s.value))


def _accumulators(body: Stmt) -> set[Buffer]:
    """Buffers with a store that reads them, and that no packed function sees."""
    found = {s.buffer for s in walk_stmt(body) if isinstance(s, Store) and any(e.value is s.buffer for e in loads(s.value))}
    return found - {b for s in walk_stmt(body) if isinstance(s, CallPacked) for b in s.buffers}
