"""Atomics, system calls and the like, for the thread pool."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types

from tensorlang.codegen.intrinsics import system
from tensorlang.codegen.intrinsics.lowering.calls import return_if_failed, slot
from tensorlang.codegen.intrinsics.lowering.registry import declare, lowers
from tensorlang.codegen.intrinsics.lowering.types import BYTE_POINTER, I32, I64, Context, context_type

_I = types.int64
UNROLL_SYMBOL = "tl.unroll"  # calls of it are replaced by metadata of the loop they end


def _word(b: ir.IRBuilder, address: Any) -> Any:
    return b.inttoptr(address, I64.as_pointer())


@lowers(system.atomic_load)
def atomic_load(address: Any) -> Any:
    return _I(_I), lambda b, a: b.load_atomic(_word(b, a), "acquire", 8)


@lowers(system.atomic_store)
def atomic_store(address: Any, value: Any) -> Any:
    def emit(b: ir.IRBuilder, a: Any, v: Any) -> None:
        b.store_atomic(v, _word(b, a), "release", 8)

    return types.none(_I, _I), emit


@lowers(system.atomic_add)
def atomic_add(address: Any, value: Any) -> Any:
    return _I(_I, _I), lambda b, a, v: b.atomic_rmw("add", _word(b, a), v, "seq_cst")


@lowers(system.atomic_or)
def atomic_or(address: Any, value: Any) -> Any:
    return _I(_I, _I), lambda b, a, v: b.atomic_rmw("or", _word(b, a), v, "seq_cst")


@lowers(system.atomic_claim)
def atomic_claim(address: Any, expected: Any, value: Any) -> Any:
    def emit(b: ir.IRBuilder, a: Any, old: Any, new: Any) -> Any:
        return b.extract_value(b.cmpxchg(_word(b, a), old, new, "seq_cst", "acquire"), 1)

    return types.boolean(_I, _I, _I), emit


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
        found = builder.module.globals.get("syscall")
        fn = found or ir.Function(builder.module, ir.FunctionType(I64, [I64], var_arg=True), "syscall")
        return builder.call(fn, values)

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
        entry = ir.FunctionType(I32, [BYTE_POINTER, I64, I64, I64]).as_pointer()
        return b.zext(b.call(b.inttoptr(fn, entry), [context, first, last, packed]), I64)

    return _I(_I, ctx, _I, _I, _I), emit


@lowers(system.context_slot)
def context_slot(ctx: Any, index: Any) -> Any:
    if not isinstance(ctx, Context) or not isinstance(index, types.IntegerLiteral):
        return None
    return _I(ctx, index), lambda b, context, _: slot(b, context, index.literal_value)


@lowers(system.allocate)
def allocate(nbytes: Any) -> Any:
    def emit(b: ir.IRBuilder, size: Any) -> Any:
        return b.call(declare(b, "aligned_alloc", I64, [I64, I64]), [I64(64), size])

    return _I(_I), emit


@lowers(system.deallocate)
def deallocate(address: Any) -> Any:
    def emit(b: ir.IRBuilder, at: Any) -> None:
        b.call(declare(b, "free", ir.VoidType(), [I64]), [at])

    return types.none(_I), emit


@lowers(system.fail)
def fail(status: Any) -> Any:
    def emit(b: ir.IRBuilder, value: Any) -> None:
        return_if_failed(b, b.trunc(value, I32))

    return types.none(_I), emit
