"""Nests that are instructions of a warp become calls on registers, and their arrays hold what one lane has.

    for ii in range(16, tensor_intrin="cuda.mma_f16"): ...  ->  call("cuda.mma_f16", c[...], a[...], b[...])

A tile is passed by its registers: the place of each is a function of `warps.REGISTERS`. Arrays keep their numbering here; what
belongs to other lanes goes when each thread gets arrays of its own (`emit`), as for all private arrays.
"""

from __future__ import annotations

from tensorlang.codegen.warps import Call, call_of, fragments
from tensorlang.errors import BuildError
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.dtype import u32
from tensorlang.ir.expr import Expr, call, const, load
from tensorlang.ir.stmt import Evaluate, For, PrimFunc, Stmt, Store
from tensorlang.ir.visitor import children, replace_buffers, walk_stmt, with_children

RESET = ".reset"


def with_calls(func: PrimFunc) -> tuple[PrimFunc, set[str]]:
    """`func` with a call for each instruction, and the names of the arrays that lie in registers."""
    held = fragments(func.body)
    if not held:
        return func, set()
    pairs = {b: Buffer(b.name, b.shape, u32, b.scope) for b in held if b.dtype.nbytes == 2}

    def made(s: Stmt) -> Stmt:
        found = call_of(s)
        if found is not None:
            return Evaluate(_call(func, s, found, pairs))
        return with_children(s, tuple(made(c) for c in children(s)))

    body = made(func.body)
    for s in walk_stmt(body):
        if isinstance(s, Store) and s.buffer in pairs:
            raise BuildError(f"{func.name}: {s.buffer.name} lies in the registers of warps; only their instructions write it")
    return func.with_body(replace_buffers(body, pairs)), {b.name for b in held}


def _call(func: PrimFunc, s: Stmt, found: Call, pairs: dict[Buffer, Buffer]) -> Expr:
    name = found.instruction.name
    target = load(pairs.get(found.target.buffer, found.target.buffer), (found.registers(found.target),))
    if found.reset:
        return call(f"{name}{RESET}", target)
    if found.instruction.action == "mma":
        operands = [load(pairs.get(t.buffer, t.buffer), (found.registers(t),)) for t in found.sources]
        return call(name, target, *operands)
    (source,) = found.sources
    if source.buffer in func.params:
        raise BuildError(f"{func.name}: {name} reads {source.buffer.name}, which is not in shared memory; cache_read it there")
    far = next(d for d in source.steps if d != found.instruction.near)
    return call(name, target, load(source.buffer, (source.base,)), const(source.steps[far]))


def is_call(s: Stmt) -> bool:
    """Whether a statement is an instruction of a warp."""
    return isinstance(s, Evaluate) and s.expr.op == "call" and str(s.expr.value).startswith("cuda.")


def all_calls(s: Stmt) -> bool | None:
    """Whether all that a nest does are instructions of warps; None: some of it.

    The lanes of a warp go through it together."""
    leaves = [c for c in walk_stmt(s) if not children(c)]
    calls = [is_call(c) for c in leaves]
    return all(calls) if all(calls) or not any(calls) else None


def first_loop(s: Stmt) -> str:
    """A name to speak of a nest by."""
    return next((c.var.name for c in walk_stmt(s) if isinstance(c, For)), "")
