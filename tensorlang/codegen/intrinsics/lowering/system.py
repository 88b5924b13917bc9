"""Atomics, system calls and the like, for the thread pool."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types

from tensorlang.codegen.intrinsics import system
from tensorlang.codegen.intrinsics.lowering.calls import return_if_failed, slot
from tensorlang.codegen.intrinsics.lowering.registry import declare, lowers
from tensorlang.codegen.intrinsics.lowering.types import BYTE_POINTER, I1, I32, I64, Context, context_type

_I = types.int64
UNROLL_SYMBOL = "tl.unroll"  # calls of it are replaced by metadata of the loop they end


def _atomic(function: Any, result: Any, arity: int) -> None:
    """An atomic on the 8-byte word at an address: `tl.<name>`, defined per target when linking (`native.support`)."""
    name, kept = f"tl.{function.__name__}", I1 if result == types.boolean else ir.VoidType() if result == types.none else I64

    @lowers(function)
    def typer(*operands: Any) -> Any:
        if len(operands) != arity:
            return None

        def emit(b: ir.IRBuilder, *values: Any) -> Any:
            value = b.call(declare(b, name, kept, [I64] * arity), values)
            return None if result == types.none else value

        return result(*[_I] * arity), emit


_atomic(system.atomic_load, _I, 1)
_atomic(system.atomic_store, types.none, 2)
_atomic(system.atomic_add, _I, 2)
_atomic(system.atomic_or, _I, 2)
_atomic(system.atomic_claim, types.boolean, 3)


@lowers(system.cpu_pause)
def cpu_pause() -> Any:
    def emit(b: ir.IRBuilder) -> None:
        b.call(declare(b, "tl.pause", ir.VoidType(), []), [])  # defined per target when linking

    return types.none(), emit


@lowers(system.unroll)
def unroll() -> Any:
    def emit(b: ir.IRBuilder) -> None:
        b.call(declare(b, UNROLL_SYMBOL, ir.VoidType(), []), [])

    return types.none(), emit


@lowers(system.syscall)
def syscall(number: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    def emit(builder: ir.IRBuilder, *values: Any) -> Any:
        return builder.call(declare(builder, "tl.syscall", I64, [I64] * 5), values)  # defined per target when linking

    return _I(_I, _I, _I, _I, _I), emit


@lowers(system.context_at)
def context_at(address: Any) -> Any:
    return context_type(_I), lambda b, a: b.inttoptr(a, BYTE_POINTER)


@lowers(system.address_of)
def address_of(ctx: Any) -> Any:
    return (_I(ctx), lambda b, c: b.ptrtoint(c, I64)) if isinstance(ctx, Context) else None


@lowers(system.call_chunk)
def call_chunk(body: Any, ctx: Any, begin: Any, end: Any, arguments: Any) -> Any:
    if not isinstance(ctx, Context):
        return None

    def emit(b: ir.IRBuilder, fn: Any, context: Any, first: Any, last: Any, packed: Any) -> Any:
        entry = ir.FunctionType(I32, [BYTE_POINTER, I64, I64, BYTE_POINTER]).as_pointer()
        return b.zext(b.call(b.inttoptr(fn, entry), [context, first, last, b.inttoptr(packed, BYTE_POINTER)]), I64)

    return _I(_I, ctx, _I, _I, _I), emit


@lowers(system.context_slot)
def context_slot(ctx: Any, index: Any) -> Any:
    if not isinstance(ctx, Context) or not isinstance(index, types.IntegerLiteral):
        return None
    return _I(ctx, index), lambda b, context, _: slot(b, context, index.literal_value)


@lowers(system.allocate)
def allocate(nbytes: Any) -> Any:
    def emit(b: ir.IRBuilder, size: Any) -> Any:
        return b.call(declare(b, "tl.allocate", I64, [I64]), [size])  # defined per target when linking

    return _I(_I), emit


@lowers(system.deallocate)
def deallocate(address: Any) -> Any:
    def emit(b: ir.IRBuilder, at: Any) -> None:
        b.call(declare(b, "tl.free", ir.VoidType(), [I64]), [at])

    return types.none(_I), emit


@lowers(system.fail)
def fail(status: Any) -> Any:
    def emit(b: ir.IRBuilder, value: Any) -> None:
        return_if_failed(b, b.trunc(value, I32))

    return types.none(_I), emit
