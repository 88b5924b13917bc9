"""Instructions of some machines, through LLVM's intrinsics of their names.

AMX: tiles are named by number, as in the instructions themselves, and their shapes are set by hand; LLVM's other forms, which
let it choose registers, configure them at the entry of every function. Linux lets a process touch tile registers only once it
has asked (arch_prctl(ARCH_REQ_XCOMP_PERM, 18)); a flag in the module remembers that it was.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types

from tensorlang.codegen.intrinsics import machine
from tensorlang.codegen.intrinsics.lowering.registry import declare, literal, lowers
from tensorlang.codegen.intrinsics.lowering.types import BYTE_POINTER, I8, I64, Pointer, Vec, bfloat16, scalar_of

_INDEX = types.int64
_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XFEATURE_TILEDATA = 158, 0x1023, 18
_AMX_FLAG = "tl.amx_permitted"


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


@lowers(machine.amx_configure)
def amx_configure(rows: Any, groups: Any) -> Any:
    """Palette 1; two bytes a tile say how wide its rows are (from 16 on), one how many it has (from 48 on)."""

    def emit(b: ir.IRBuilder, rows_: Any, groups_: Any) -> None:
        _permit_amx(b)
        words = ir.ArrayType(I64, 8)
        with b.goto_entry_block():
            config = b.alloca(words)
            config.align = 64
        left = b.mul(groups_, I64(4))
        values = [
            I64(1), I64(0),
            I64(0x0040_0040_0040_0040),
            b.add(b.mul(left, I64(0x0001_0001)), I64(0x0040_0040 << 32)),
            I64(0), I64(0),
            b.add(b.mul(rows_, I64(0x0000_0101_0101_0101)), b.mul(groups_, I64(0x0101 << 48))),
            I64(0),
        ]  # fmt: skip
        for n, value in enumerate(values):
            b.store(value, b.gep(config, [I64(0), I64(n)]))
        b.call(declare(b, "llvm.x86.ldtilecfg", ir.VoidType(), [BYTE_POINTER]), [b.bitcast(config, BYTE_POINTER)])

    return types.none(_INDEX, _INDEX), emit


@lowers(machine.amx_release)
def amx_release() -> Any:
    def emit(b: ir.IRBuilder) -> None:
        b.call(declare(b, "llvm.x86.tilerelease", ir.VoidType(), []), [])

    return types.none(), emit


def _amx(function: Any, name: str, operands: int) -> None:
    """An operation on tiles that are named by literals."""

    @lowers(function)
    def typer(*tiles: Any) -> Any:
        numbers = [literal(t) for t in tiles]
        if len(tiles) != operands or any(n is None or not 0 <= n < 8 for n in numbers):
            return None

        def emit(b: ir.IRBuilder, *_: Any) -> None:
            b.call(declare(b, f"llvm.x86.{name}", ir.VoidType(), [I8] * operands), [I8(n) for n in numbers])

        return types.none(*tiles), emit


def _amx_memory(function: Any, name: str) -> None:
    @lowers(function)
    def typer(tile: Any, p: Any, stride: Any) -> Any:
        number = literal(tile)
        if number is None or not isinstance(p, Pointer):
            return None
        size = scalar_of(p.dtype).bits // 8

        def emit(b: ir.IRBuilder, _: Any, pointer: Any, step: Any) -> None:
            fn = declare(b, f"llvm.x86.{name}", ir.VoidType(), [I8, BYTE_POINTER, I64])
            b.call(fn, [I8(number), b.bitcast(pointer, BYTE_POINTER), b.mul(step, I64(size))])

        return types.none(tile, p, _INDEX), emit


_amx(machine.amx_zero, "tilezero", 1)
_amx(machine.amx_dot_i8, "tdpbssd", 3)
_amx(machine.amx_dot_u8, "tdpbusd", 3)
_amx(machine.amx_dot_bf16, "tdpbf16ps", 3)
_amx_memory(machine.amx_load, "tileloadd64")
_amx_memory(machine.amx_store, "tilestored64")
