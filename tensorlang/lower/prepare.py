"""What depends on constants alone is computed once, when a model is built: packed weights above all.

def f(x, w, out): w_packed = alloc(...); <w_packed from w>; <out from x, w_packed>          w constant
->  preparation: def f_w_packed(w, w_packed): <w_packed from w>
    main:        def f(x, w_packed, out): <out from x, w_packed>
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr
from tensorlang.ir.stmt import Allocate, CallPacked, PrimFunc, Seq, Stmt
from tensorlang.ir.tree import drop_allocation, read_buffers, replace_stmt, written_buffers
from tensorlang.ir.visitor import own_exprs, uses, walk_stmt


def split_preparation(func: PrimFunc, constants: Collection[str]) -> tuple[list[PrimFunc], PrimFunc]:
    """The root nests that read constant parameters only, each as a function of its own, and what remains.

    In the remaining function each prepared buffer is a parameter, placed after the other inputs; constants that
    nothing reads any more are dropped. What depends on a symbolic size is never prepared.
    """
    known = {b for b in func.inputs if b.name in constants}
    if not known:
        return [], func
    sizes = set(func.size_vars)
    preparations: list[PrimFunc] = []
    body = func.body
    for nest in _root_nests(func.body):
        read = read_buffers(nest)
        written = written_buffers(nest)
        if any(isinstance(s, CallPacked) for s in walk_stmt(nest)):
            continue
        if len(written) != 1 or not read or not set(read) <= known or _mentions(nest, sizes):
            continue
        target = next(iter(written))
        if target in func.params or target.align or any(d.op != "const" for d in target.shape):
            continue
        if any(n is not nest and _writes(n, target) for n in _root_nests(func.body)):
            continue
        preparations.append(PrimFunc(f"{func.name}_{target.name}", (*read, target), nest))
        body = replace_stmt(drop_allocation(body, target), nest, None)
        known.add(target)
    if not preparations:
        return [], func
    prepared = [p.outputs[0] for p in preparations]
    still_read = read_buffers(body)
    inputs = [b for b in func.inputs if b not in known or b in still_read]
    inputs += [b for b in prepared if b in still_read]
    params: tuple[Buffer | Expr, ...] = (*inputs, *func.outputs, *func.size_vars)
    return preparations, replace(func, params=params, body=body)


def _root_nests(s: Stmt) -> list[Stmt]:
    if isinstance(s, Allocate):
        return _root_nests(s.body)
    if isinstance(s, Seq):
        return [n for c in s.stmts for n in _root_nests(c)]
    return [s]


def _mentions(s: Stmt, variables: set[Expr]) -> bool:
    return any(uses(e, variables) for n in walk_stmt(s) for e in own_exprs(n))


def _writes(s: Stmt, buffer: Buffer) -> bool:
    return buffer in written_buffers(s)
