"""Instructions of some machines, through LLVM's intrinsics of their names.

AMX: LLVM's `.internal` forms carry their shapes, and its back end then writes the tile configuration itself, at the entry of
the function. Linux lets a process touch tile registers only once it has asked (arch_prctl(ARCH_REQ_XCOMP_PERM, 18)), so the
tile's work is a function of its own, which is called after the question; a flag in the module remembers that it was asked.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types

from tensorlang.codegen.intrinsics import machine
from tensorlang.codegen.intrinsics.lowering.registry import declare, lowers
from tensorlang.codegen.intrinsics.lowering.types import BYTE_POINTER, I8, I16, I64, Pointer, Vec, bfloat16

_INDEX = types.int64
_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XFEATURE_TILEDATA = 158, 0x1023, 18
_AMX_FLAG = "tl.amx_permitted"


class _AmxType(ir.Type):
    """LLVM's x86_amx, which llvmlite does not name."""

    def _to_string(self) -> str:
        return "x86_amx"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _AmxType)

    def __hash__(self) -> int:
        return hash("x86_amx")


def _is_vec(t: Any, dtype: Any, lanes: int) -> bool:
    return isinstance(t, Vec) and t.dtype == dtype and t.lanes == lanes


def _dot(function: Any, acc_type: Any, a_type: Any, b_type: Any, names: dict[int, str]) -> None:
    @lowers(function)
    def typer(acc: Any, a: Any, b: Any) -> Any:
        lanes = getattr(acc, "lanes", 0)
        if lanes not in names or not _is_vec(acc, acc_type, lanes):
            return None
        if not _is_vec(a, a_type, 4 * lanes) or not _is_vec(b, b_type, 4 * lanes):
            return None

        def emit(builder: ir.IRBuilder, total: Any, x: Any, y: Any) -> Any:
            fn = declare(builder, names[lanes], total.type, [total.type, x.type, y.type])
            return builder.call(fn, [total, x, y])

        return acc(acc, a, b), emit


_dot(
    machine.vpdpbusd,
    types.int32,
    types.uint8,
    types.int8,
    {lanes: f"llvm.x86.avx512.vpdpbusd.{32 * lanes}" for lanes in (16, 8, 4)},
)


class _BfloatType(ir.Type):
    """LLVM's bfloat, which llvmlite does not name."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BfloatType)

    def __hash__(self) -> int:
        return hash("bfloat")


@lowers(machine.vdpbf16)
def vdpbf16(acc: Any, a: Any, b: Any) -> Any:
    lanes = getattr(acc, "lanes", 0)
    if lanes not in (16, 8, 4) or not _is_vec(acc, types.float32, lanes):
        return None
    if not _is_vec(a, bfloat16, 2 * lanes) or not _is_vec(b, bfloat16, 2 * lanes):
        return None

    def emit(builder: ir.IRBuilder, total: Any, x: Any, y: Any) -> Any:
        pairs = ir.VectorType(_BfloatType(), 2 * lanes)
        fn = declare(builder, f"llvm.x86.avx512bf16.dpbf16ps.{32 * lanes}", total.type, [total.type, pairs, pairs])
        return builder.call(fn, [total, builder.bitcast(x, pairs), builder.bitcast(y, pairs)])

    return acc(acc, a, b), emit


_ARM = {4: "v4i32.v16i8", 2: "v2i32.v8i8"}
_dot(machine.sdot, types.int32, types.int8, types.int8, {n: f"llvm.aarch64.neon.sdot.{t}" for n, t in _ARM.items()})
_dot(machine.udot, types.uint32, types.uint8, types.uint8, {n: f"llvm.aarch64.neon.udot.{t}" for n, t in _ARM.items()})


@lowers(machine.llvm_call)
def llvm_call(name: Any, *args: Any) -> Any:
    if not isinstance(name, types.StringLiteral) or not args:
        return None
    result = types.unliteral(args[0])

    def emit(builder: ir.IRBuilder, _: Any, *values: Any) -> Any:
        fn = declare(builder, name.literal_value, values[0].type, [v.type for v in values])
        return builder.call(fn, list(values))

    # Literals stay literals: LLVM wants some operands to be constants.
    return result(name, *args), emit


def _permit_amx(b: ir.IRBuilder) -> None:
    module = b.module
    flag = module.globals.get(_AMX_FLAG)
    if flag is None:
        flag = ir.GlobalVariable(module, I8, _AMX_FLAG)
        flag.linkage, flag.initializer = "linkonce_odr", I8(0)
    with b.if_then(b.icmp_unsigned("==", b.load(flag), I8(0)), likely=False):
        found = module.globals.get("syscall")
        fn = found or ir.Function(module, ir.FunctionType(I64, [I64], var_arg=True), "syscall")
        b.call(fn, [I64(_ARCH_PRCTL), I64(_ARCH_REQ_XCOMP_PERM), I64(_XFEATURE_TILEDATA)])
        b.store(I8(1), flag)


def _amx_function(module: ir.Module, name: str) -> ir.Function:
    """`c[16 rows of 64 bytes] += a * b` as a function of three (address, stride in bytes)."""
    symbol = f"tl.amx.{name}"
    if (found := module.globals.get(symbol)) is not None:
        return found
    fn = ir.Function(module, ir.FunctionType(ir.VoidType(), [BYTE_POINTER, I64] * 3), symbol)
    fn.linkage = "linkonce_odr"
    fn.attributes.add("noinline")
    b = ir.IRBuilder(fn.append_basic_block())
    amx, rows, width = _AmxType(), I16(16), I16(64)
    load = declare(b, "llvm.x86.tileloadd64.internal", amx, [I16, I16, BYTE_POINTER, I64])
    tiles = [b.call(load, [rows, width, at, step]) for at, step in zip(fn.args[::2], fn.args[1::2], strict=True)]
    dot = declare(b, f"llvm.x86.{name}.internal", amx, [I16, I16, I16, amx, amx, amx])
    result = b.call(dot, [rows, width, width, *tiles])
    store = declare(b, "llvm.x86.tilestored64.internal", ir.VoidType(), [I16, I16, BYTE_POINTER, I64, amx])
    b.call(store, [rows, width, *fn.args[:2], result])
    b.ret_void()
    return fn


def _amx(function: Any, c_type: Any, ab_type: Any, bytes_per_element: int, name: str) -> None:
    """16 rows of 64 bytes in every tile."""

    @lowers(function)
    def typer(c: Any, c_stride: Any, a: Any, a_stride: Any, b: Any, b_stride: Any) -> Any:
        if not all(isinstance(p, Pointer) for p in (c, a, b)) or (c.dtype, a.dtype, b.dtype) != (
            c_type,
            ab_type,
            ab_type,
        ):
            return None

        def emit(builder: ir.IRBuilder, *values: Any) -> None:
            _permit_amx(builder)
            passed = []
            for pointer, stride, size in zip(
                values[::2], values[1::2], (4, bytes_per_element, bytes_per_element), strict=True
            ):
                passed += [builder.bitcast(pointer, BYTE_POINTER), builder.mul(stride, I64(size))]
            builder.call(_amx_function(builder.module, name), passed)

        return types.none(c, _INDEX, a, _INDEX, b, _INDEX), emit


_amx(machine.amx_dot_i8, types.int32, types.int8, 1, "tdpbssd")
_amx(machine.amx_dot_bf16, types.float32, bfloat16, 2, "tdpbf16ps")
