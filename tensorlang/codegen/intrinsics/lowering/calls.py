"""Calls between emitted functions, parallel loops, and what reaches the context.

The context is an array of 8-byte slots (`Slot`): code reaches the pool and the allocator only through it, so that an
object file has no undefined symbols of ours. Every function returns an i32 status; one that is not 0 leaves at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.datamodel import models, register_default
from numba.core.typing.typeof import typeof_impl

from tensorlang.codegen.intrinsics import functions
from tensorlang.codegen.intrinsics.abi import Slot
from tensorlang.codegen.intrinsics.lowering.registry import DTypeName, declare, literal, lowers
from tensorlang.codegen.intrinsics.lowering.types import (
    BYTE_POINTER,
    I8,
    I32,
    I64,
    NUMBA,
    Context,
    Pointer,
    element_ir,
    parameter_type,
    scalar_of,
)


class Callee:
    """Stands for an emitted function while another one is compiled: its symbol and declared parameters."""

    __slots__ = ("symbol", "kind", "parameters", "__weakref__")

    def __init__(self, symbol: str, kind: str, parameters: tuple[str, ...]):
        self.symbol, self.kind, self.parameters = symbol, kind, parameters


class CalleeType(types.Callable):
    """The numba type of one `Callee`."""

    def __init__(self, callee: Callee):
        self.callee = callee
        self.formal = tuple(parameter_type(text) for text in callee.parameters)
        super().__init__(name=f"Callee({callee.symbol})")

    def accepts(self, actual: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """The types that the actual arguments are cast to before the call, None where they do not fit."""
        if len(actual) != len(self.formal):
            return None
        chosen = []
        for have, want in zip(actual, self.formal, strict=True):
            if isinstance(want, Pointer) and isinstance(types.unliteral(have), types.Integer):
                chosen.append(types.int64)  # a byte address
            elif isinstance(want, Pointer) != isinstance(have, Pointer):
                return None
            else:
                chosen.append(have if isinstance(want, Pointer) else want)
        return tuple(chosen)

    def get_call_type(self, context: Any, args: Any, kws: Any) -> Any:
        if kws or not args or not isinstance(args[0], Context) or self.callee.kind == "chunk":
            return None
        actual = self.accepts(args[1:])
        return None if actual is None else types.none(args[0], *actual)

    def get_call_signatures(self) -> Any:
        return [types.none(*self.formal)], False

    def get_impl_key(self, sig: Any) -> Any:
        return self


@typeof_impl.register(Callee)
def _typeof_callee(value: Callee, context: Any) -> CalleeType:
    return CalleeType(value)


@register_default(CalleeType)
class _CalleeModel(models.OpaqueModel):
    pass


def _as_c(b: ir.IRBuilder, value: Any, formal: Any) -> Any:
    """A value as it crosses a C boundary: addresses become pointers, booleans bytes."""
    if isinstance(formal, Pointer):
        to = element_ir(scalar_of(formal.dtype)).as_pointer()
        return b.inttoptr(value, to) if isinstance(value.type, ir.IntType) else b.bitcast(value, to)
    return b.zext(value, I8) if formal == types.boolean else value


def return_if_failed(b: ir.IRBuilder, status: Any) -> None:
    """Leave the function with `status` unless it is 0."""
    with b.if_then(b.icmp_unsigned("!=", status, I32(0)), likely=False):
        b.ret(status)


def call_callee(callee_type: CalleeType) -> Callable[..., Any]:
    """The implementation of a direct call, as numba's lowering wants it."""

    def implementation(b: ir.IRBuilder, args: Any, loc: Any = None) -> Any:
        passed = [args[0], *(_as_c(b, v, t) for v, t in zip(args[1:], callee_type.formal, strict=True))]
        fn = declare(b, callee_type.callee.symbol, I32, [v.type for v in passed])
        return_if_failed(b, b.call(fn, passed))
        return ir.Constant(BYTE_POINTER, None)

    return implementation


def slot(b: ir.IRBuilder, ctx: Any, index: int) -> Any:
    """The i64 in a slot of the context."""
    words = b.bitcast(ctx, I64.as_pointer())
    return b.load(b.gep(words, [I64(index)]), align=8)


def _slot_function(b: ir.IRBuilder, ctx: Any, index: int, result: ir.Type, arguments: list[ir.Type]) -> Any:
    return b.inttoptr(slot(b, ctx, index), ir.FunctionType(result, arguments).as_pointer())


@lowers(functions.parallel_for)
def parallel_for(body: Any, ctx: Any, count: Any, *arguments: Any) -> Any:
    if not isinstance(body, CalleeType) or body.callee.kind != "chunk" or not isinstance(ctx, Context):
        return None
    actual = body.accepts(arguments)
    if actual is None:
        return None

    def emit(b: ir.IRBuilder, _: Any, context: Any, n: Any, *values: Any) -> None:
        passed = [_as_c(b, v, t) for v, t in zip(values, body.formal, strict=True)]
        record = cgutils.alloca_once(b, ir.LiteralStructType([v.type for v in passed]))
        for position, value in enumerate(passed):
            b.store(value, b.gep(record, [I32(0), I32(position)]))
        entry_type = ir.FunctionType(I32, [BYTE_POINTER, I64, I64, BYTE_POINTER])
        entry = declare(b, body.callee.symbol + ".chunk", entry_type.return_type, list(entry_type.args))
        run = _slot_function(b, context, Slot.PARALLEL_FOR, I32, [BYTE_POINTER, I64, I64, I64])
        return_if_failed(b, b.call(run, [context, b.ptrtoint(entry, I64), n, b.ptrtoint(record, I64)]))

    return types.none(body, ctx, types.int64, *actual), emit


@lowers(functions.num_threads)
def num_threads(ctx: Any) -> Any:
    if not isinstance(ctx, Context):
        return None

    def emit(b: ir.IRBuilder, context: Any) -> Any:
        return slot(b, context, Slot.NUM_THREADS)

    return types.int64(ctx), emit


@lowers(functions.scratch)
def scratch(ctx: Any, nbytes: Any) -> Any:
    if not isinstance(ctx, Context):
        return None

    def emit(b: ir.IRBuilder, context: Any, size: Any) -> Any:
        result = cgutils.alloca_once(b, I64)
        allocate = _slot_function(b, context, Slot.ALLOCATE, I32, [BYTE_POINTER, I64, BYTE_POINTER])
        return_if_failed(b, b.call(allocate, [context, size, b.bitcast(result, BYTE_POINTER)]))
        return b.load(result)

    return types.int64(ctx, types.int64), emit


@lowers(functions.release)
def release(ctx: Any, address: Any) -> Any:
    if not isinstance(ctx, Context):
        return None

    def emit(b: ir.IRBuilder, context: Any, at: Any) -> None:
        b.call(_slot_function(b, context, Slot.RELEASE, I32, [BYTE_POINTER, I64]), [context, at])

    return types.none(ctx, types.int64), emit


@lowers(functions.view)
def view(address: Any, dtype: Any) -> Any:
    if not isinstance(dtype, DTypeName):
        return None

    def emit(b: ir.IRBuilder, at: Any, _: Any) -> Any:
        return b.inttoptr(at, element_ir(dtype.scalar).as_pointer())

    return Pointer(NUMBA[dtype.scalar.name])(types.int64, dtype), emit


@lowers(functions.call_packed)
def call_packed(function: Any, *words: Any) -> Any:
    kept = tuple(t if isinstance(t, Pointer) else types.float64 if isinstance(t, types.Float) else types.int64 for t in words)

    def emit(b: ir.IRBuilder, address: Any, *values: Any) -> None:
        record = cgutils.alloca_once(b, ir.ArrayType(I64, max(len(values), 1)))
        for position, (value, t) in enumerate(zip(values, kept, strict=True)):
            if isinstance(t, Pointer):
                value = b.ptrtoint(value, I64)
            elif isinstance(t, types.Float):
                value = b.bitcast(value, I64)
            b.store(value, b.gep(record, [I32(0), I32(position)]))
        entry = ir.FunctionType(I32, [I64.as_pointer()]).as_pointer()
        words_ = b.bitcast(record, I64.as_pointer())
        return_if_failed(b, b.call(b.inttoptr(address, entry), [words_]))

    return types.none(types.int64, *kept), emit


@lowers(functions.check)
def check(condition: Any, status: Any) -> Any:
    code = literal(status)
    if condition != types.boolean or code is None or code <= 0:
        return None

    def emit(b: ir.IRBuilder, holds: Any, _: Any) -> None:
        return_if_failed(b, b.select(holds, I32(0), I32(code)))

    return types.none(condition, status), emit
