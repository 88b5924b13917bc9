"""Loads, stores, local arrays and element access of typed pointers."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types

from tensorlang.codegen.intrinsics import memory
from tensorlang.codegen.intrinsics.lowering.registry import DTypeName, declare, literal, lowers, splat, suffix
from tensorlang.codegen.intrinsics.lowering.types import (
    I8,
    I32,
    I64,
    NUMBA,
    Pointer,
    Vec,
    element_ir,
    scalar_of,
)

_INDEX = types.int64


def _is_index(t: Any) -> bool:
    return isinstance(t, types.Integer)


def _align(p: Pointer) -> int:
    return scalar_of(p.dtype).bits // 8


def _from_memory(b: ir.IRBuilder, value: Any) -> Any:
    """Booleans are bytes in memory and bits in registers."""
    zero = ir.Constant(value.type, [0] * value.type.count) if isinstance(value.type, ir.VectorType) else value.type(0)
    return b.icmp_unsigned("!=", value, zero)


def _is_bool(t: Any) -> bool:
    return t.dtype == types.boolean


def _memory_vector(vec: Vec) -> ir.VectorType:
    return ir.VectorType(element_ir(scalar_of(vec.dtype)), vec.lanes)


def _at(b: ir.IRBuilder, pointer: Any, index: Any, to: ir.Type) -> Any:
    return b.bitcast(b.gep(pointer, [index], inbounds=True), to.as_pointer())


def _load(b: ir.IRBuilder, p: Pointer, pointer: Any, index: Any, lanes: int) -> Any:
    vector = _memory_vector(Vec(p.dtype, lanes))
    return b.load(_at(b, pointer, index, vector), align=_align(p), typ=vector)


def _as_memory(b: ir.IRBuilder, vec: Vec, value: Any) -> Any:
    return b.zext(value, _memory_vector(vec)) if _is_bool(vec) else value


def _constant_vector(values: list[int], element: ir.Type = I32) -> ir.Constant:
    return ir.Constant(ir.VectorType(element, len(values)), values)


@lowers(operator.getitem)
def getitem(p: Any, i: Any) -> Any:
    if not isinstance(p, Pointer) or not _is_index(i):
        return None

    def emit(b: ir.IRBuilder, pointer: Any, index: Any) -> Any:
        value = b.load(b.gep(pointer, [index], inbounds=True), align=_align(p))
        return _from_memory(b, value) if _is_bool(p) else value

    return p.dtype(p, _INDEX), emit


@lowers(operator.setitem)
def setitem(p: Any, i: Any, value: Any) -> Any:
    if not isinstance(p, Pointer) or not _is_index(i) or isinstance(value, Vec):
        return None

    def emit(b: ir.IRBuilder, pointer: Any, index: Any, v: Any) -> None:
        b.store(b.zext(v, I8) if _is_bool(p) else v, b.gep(pointer, [index], inbounds=True), align=_align(p))

    return types.none(p, _INDEX, p.dtype), emit


@lowers(memory.local_array)
def local_array(dtype: Any, size: Any) -> Any:
    count = literal(size)
    if not isinstance(dtype, DTypeName) or count is None:
        return None
    result = Pointer(NUMBA[dtype.scalar.name])

    def emit(b: ir.IRBuilder, _: Any, __: Any) -> Any:
        element = element_ir(dtype.scalar)
        with b.goto_entry_block():  # unlike numba's `alloca_once` without zeros: LLVM takes seconds over those
            array = b.alloca(ir.ArrayType(element, count))
        array.align = 64
        return b.bitcast(array, element.as_pointer())

    return result(dtype, size), emit


@lowers(memory.offset)
def offset(p: Any, i: Any) -> Any:
    if not isinstance(p, Pointer) or not _is_index(i):
        return None

    def emit(b: ir.IRBuilder, pointer: Any, index: Any) -> Any:
        return b.gep(pointer, [index], inbounds=True)

    return p(p, _INDEX), emit


def _prefetch(function: Any, locality: int) -> None:
    @lowers(function)
    def typer(p: Any, i: Any) -> Any:
        if not isinstance(p, Pointer) or not _is_index(i):
            return None

        def emit(b: ir.IRBuilder, pointer: Any, index: Any) -> None:
            bytes_ = I8.as_pointer()
            kind = ir.FunctionType(ir.VoidType(), [bytes_, I32, I32, I32])
            called = cgutils.get_or_insert_function(b.module, kind, "llvm.prefetch.p0i8")
            address = b.bitcast(b.gep(pointer, [index], inbounds=True), bytes_)
            b.call(called, [address, I32(0), I32(locality), I32(1)])  # to read, data

        return types.none(p, _INDEX), emit


_prefetch(memory.prefetch, 3)  # into all levels
_prefetch(memory.prefetch_far, 2)  # all but the first


@lowers(memory.vload_repeated)
def vload_repeated(p: Any, i: Any, count: Any, times: Any) -> Any:
    lanes, copies = literal(count), literal(times)
    if not isinstance(p, Pointer) or not _is_index(i) or lanes is None or copies is None:
        return None

    def emit(b: ir.IRBuilder, pointer: Any, index: Any, _: Any, __: Any) -> Any:
        value = _load(b, p, pointer, index, lanes)
        picks = _constant_vector([lane for _ in range(copies) for lane in range(lanes)])
        value = b.shuffle_vector(value, ir.Constant(value.type, ir.Undefined), picks)
        return _from_memory(b, value) if _is_bool(p) else value

    return Vec(p.dtype, lanes * copies)(p, _INDEX, count, times), emit


@lowers(memory.vload)
def vload(p: Any, i: Any, lanes: Any) -> Any:
    if not isinstance(p, Pointer) or not _is_index(i) or literal(lanes) is None:
        return None

    def emit(b: ir.IRBuilder, pointer: Any, index: Any, _: Any) -> Any:
        value = _load(b, p, pointer, index, lanes.literal_value)
        return _from_memory(b, value) if _is_bool(p) else value

    return Vec(p.dtype, lanes.literal_value)(p, _INDEX, lanes), emit


@lowers(memory.vstore)
def vstore(p: Any, i: Any, value: Any) -> Any:
    if not isinstance(p, Pointer) or not _is_index(i) or not isinstance(value, Vec) or value.dtype != p.dtype:
        return None

    def emit(b: ir.IRBuilder, pointer: Any, index: Any, v: Any) -> None:
        v = _as_memory(b, value, v)
        b.store(v, _at(b, pointer, index, v.type), align=_align(p))

    return types.none(p, _INDEX, value), emit


def _is_mask(t: Any) -> bool:
    return isinstance(t, Vec) and t.dtype == types.boolean


def _load_masked(b: ir.IRBuilder, p: Pointer, pointer: Any, index: Any, mask: Any, fallback: Any) -> Any:
    vector = fallback.type
    address = _at(b, pointer, index, vector)
    fn = declare(b, f"llvm.masked.load.{suffix(vector)}.p0", vector, [address.type, I32, mask.type, vector])
    return b.call(fn, [address, I32(_align(p)), mask, fallback])


@lowers(memory.vload_masked)
def vload_masked(p: Any, i: Any, mask: Any, other: Any) -> Any:
    if not isinstance(p, Pointer) or not _is_index(i) or not _is_mask(mask):
        return None
    vec = Vec(p.dtype, mask.lanes)

    def emit(b: ir.IRBuilder, pointer: Any, index: Any, m: Any, rest: Any) -> Any:
        fallback = _as_memory(b, vec, splat(b, rest, mask.lanes))
        value = _load_masked(b, p, pointer, index, m, fallback)
        return _from_memory(b, value) if _is_bool(p) else value

    return vec(p, _INDEX, mask, p.dtype), emit


@lowers(memory.vstore_masked)
def vstore_masked(p: Any, i: Any, value: Any, mask: Any) -> Any:
    if not isinstance(p, Pointer) or not _is_index(i) or not _is_mask(mask) or not isinstance(value, Vec):
        return None
    if value.dtype != p.dtype or value.lanes != mask.lanes:
        return None

    def emit(b: ir.IRBuilder, pointer: Any, index: Any, v: Any, m: Any) -> None:
        v = _as_memory(b, value, v)
        address = _at(b, pointer, index, v.type)
        fn = declare(b, f"llvm.masked.store.{suffix(v.type)}.p0", ir.VoidType(), [v.type, address.type, I32, m.type])
        b.call(fn, [v, address, I32(_align(p)), m])

    return types.none(p, _INDEX, value, mask), emit


def _gather(b: ir.IRBuilder, p: Pointer, pointer: Any, index: Any, lanes: int) -> Any:
    """Elements at an i64 index vector, one scalar load each, which LLVM joins where that pays.

    Not the machine's gather: 13 ns against 37 for 16 elements in the first-level cache (it is slow on many a server since
    its microcode keeps secrets), and where the places are constants nothing of their computation is left.
    """
    vector = _memory_vector(Vec(p.dtype, lanes))
    value: Any = ir.Constant(vector, ir.Undefined)
    for lane in range(lanes):
        at = b.gep(pointer, [b.extract_element(index, I32(lane))], inbounds=True)
        value = b.insert_element(value, b.load(at, align=_align(p)), I32(lane))
    return _from_memory(b, value) if _is_bool(p) else value


def _strided_by_shuffles(b: ir.IRBuilder, p: Pointer, pointer: Any, index: Any, stride: int, lanes: int) -> Any:
    """A stride of 2: two whole vectors, the second placed to end at the last element needed, and one shuffle."""
    low = _load(b, p, pointer, index, lanes)
    high = _load(b, p, pointer, b.add(index, I64(lanes - 1)), lanes)
    picks = [lane * stride if lane * stride < lanes else lanes + lane * stride - (lanes - 1) for lane in range(lanes)]
    return b.shuffle_vector(low, high, _constant_vector(picks))


def _steps(b: ir.IRBuilder, base: Any, stride: Any, lanes: int) -> Any:
    return b.add(splat(b, base, lanes), b.mul(splat(b, stride, lanes), _constant_vector(list(range(lanes)), I64)))


@lowers(memory.vload_strided)
def vload_strided(p: Any, i: Any, stride: Any, lanes: Any) -> Any:
    count, step = literal(lanes), literal(stride)
    if not isinstance(p, Pointer) or not _is_index(i) or not _is_index(stride) or count is None:
        return None

    def emit(b: ir.IRBuilder, pointer: Any, index: Any, by: Any, _: Any) -> Any:
        if step == 2 and count > 2 and not _is_bool(p):
            return _strided_by_shuffles(b, p, pointer, index, step, count)
        return _gather(b, p, pointer, _steps(b, index, by, count), count)

    return Vec(p.dtype, count)(p, _INDEX, stride if step is not None else _INDEX, lanes), emit


@lowers(memory.vload_strided_masked)
def vload_strided_masked(p: Any, i: Any, stride: Any, mask: Any, other: Any) -> Any:
    """A stride of 2: two neighbouring vectors, of which the even elements that are asked for are read, and one shuffle."""
    if not isinstance(p, Pointer) or not _is_index(i) or literal(stride) != 2 or not _is_mask(mask) or mask.lanes % 2:
        return None
    vec, lanes = Vec(p.dtype, mask.lanes), mask.lanes

    def emit(b: ir.IRBuilder, pointer: Any, index: Any, _: Any, m: Any, rest: Any) -> Any:
        fallback = _as_memory(b, vec, splat(b, rest, lanes))
        halves = []
        for first in (0, lanes // 2):
            picks = [first + lane // 2 if lane % 2 == 0 else lanes for lane in range(lanes)]
            wide = b.shuffle_vector(m, ir.Constant(m.type, None), _constant_vector(picks))
            halves.append(_load_masked(b, p, pointer, b.add(index, I64(2 * first)), wide, fallback))
        value = b.shuffle_vector(*halves, _constant_vector([2 * lane for lane in range(lanes)]))
        return _from_memory(b, value) if _is_bool(p) else value

    return vec(p, _INDEX, stride, mask, p.dtype), emit


def _scatter(b: ir.IRBuilder, vec: Vec, pointer: Any, index: Any, value: Any) -> None:
    value = _as_memory(b, vec, value)
    for lane in range(vec.lanes):
        at = b.gep(pointer, [b.extract_element(index, I32(lane))], inbounds=True)
        b.store(b.extract_element(value, I32(lane)), at, align=scalar_of(vec).bits // 8)


@lowers(memory.vstore_strided)
def vstore_strided(p: Any, i: Any, stride: Any, value: Any) -> Any:
    if not isinstance(p, Pointer) or not isinstance(value, Vec) or value.dtype != p.dtype:
        return None

    def emit(b: ir.IRBuilder, pointer: Any, index: Any, by: Any, v: Any) -> None:
        _scatter(b, value, pointer, _steps(b, index, by, value.lanes), v)

    return types.none(p, _INDEX, _INDEX, value), emit


def _is_index_vector(t: Any) -> bool:
    return isinstance(t, Vec) and isinstance(t.dtype, types.Integer)


def _wide_index(b: ir.IRBuilder, index: Any, vec: Vec) -> Any:
    if scalar_of(vec).bits == 64:
        return index
    to = ir.VectorType(I64, vec.lanes)
    return b.sext(index, to) if scalar_of(vec).kind == "i" else b.zext(index, to)


@lowers(memory.transpose_tile)
def transpose_tile(to: Any, to_stride: Any, source: Any, stride: Any, size: Any) -> Any:
    return _transpose_tile(to, source, size, _store_lines)


@lowers(memory.transpose_tile_past)
def transpose_tile_past(to: Any, to_stride: Any, source: Any, stride: Any, size: Any) -> Any:
    return _transpose_tile(to, source, size, _store_lines_past)


def _transpose_tile(to: Any, source: Any, size: Any, store: Callable[..., None]) -> Any:
    count = literal(size)
    if not isinstance(to, Pointer) or to != source or count is None or count & (count - 1) or _is_bool(to):
        return None

    def emit(b: ir.IRBuilder, target: Any, to_by: Any, pointer: Any, by: Any, _: Any) -> None:
        rows = [_load(b, source, pointer, b.mul(by, I64(n)), count) for n in range(count)]
        step = 1
        while step < count:  # rows n and n + step exchange the halves of every block of 2 * step lanes
            low = [lane + count - step if lane & step else lane for lane in range(count)]
            high = [lane + count if lane & step else lane + step for lane in range(count)]
            for n in (n for n in range(count) if not n & step):
                a, c = rows[n], rows[n + step]
                rows[n] = b.shuffle_vector(a, c, _constant_vector(low))
                rows[n + step] = b.shuffle_vector(a, c, _constant_vector(high))
            step *= 2
        store(b, to, target, to_by, rows)

    return types.none(to, _INDEX, source, _INDEX, size), emit


def _store_lines(b: ir.IRBuilder, to: Pointer, target: Any, by: Any, rows: list[Any]) -> None:
    for n, row in enumerate(rows):
        b.store(row, _at(b, target, b.mul(by, I64(n)), row.type), align=_align(to))


def _store_lines_past(b: ir.IRBuilder, to: Pointer, target: Any, by: Any, rows: list[Any]) -> None:
    """Non-temporal stores are of whole vectors at their own alignment: asked for in each tile, since callers own the memory."""
    size = len(rows) * _align(to)
    where = b.or_(b.ptrtoint(target, I64), b.mul(by, I64(_align(to))))
    with b.if_else(b.icmp_unsigned("==", b.and_(where, I64(size - 1)), I64(0))) as (whole, other):
        with whole:
            for n, row in enumerate(rows):
                past = b.store(row, _at(b, target, b.mul(by, I64(n)), row.type), align=size)
                past.set_metadata("nontemporal", b.module.add_metadata([ir.IntType(32)(1)]))
        with other:
            _store_lines(b, to, target, by, rows)


@lowers(memory.vgather)
def vgather(p: Any, index: Any) -> Any:
    if not isinstance(p, Pointer) or not _is_index_vector(index):
        return None

    def emit(b: ir.IRBuilder, pointer: Any, at: Any) -> Any:
        return _gather(b, p, pointer, _wide_index(b, at, index), index.lanes)

    return Vec(p.dtype, index.lanes)(p, index), emit


@lowers(memory.vscatter)
def vscatter(p: Any, index: Any, value: Any) -> Any:
    if not isinstance(p, Pointer) or not _is_index_vector(index) or not isinstance(value, Vec):
        return None

    def emit(b: ir.IRBuilder, pointer: Any, at: Any, v: Any) -> None:
        _scatter(b, value, pointer, _wide_index(b, at, index), v)

    return types.none(p, index, value), emit


@lowers(memory.vsplat)
def vsplat(x: Any, lanes: Any) -> Any:
    count = literal(lanes)
    if count is None or isinstance(x, (Vec, Pointer)):
        return None
    x = types.unliteral(x)

    def emit(b: ir.IRBuilder, value: Any, _: Any) -> Any:
        return splat(b, value, count)

    return Vec(x, count)(x, lanes), emit


@lowers(memory.viota)
def viota(base: Any, stride: Any, lanes: Any) -> Any:
    count = literal(lanes)
    if count is None:
        return None

    def emit(b: ir.IRBuilder, first: Any, by: Any, _: Any) -> Any:
        return _steps(b, first, by, count)

    return Vec(types.int64, count)(_INDEX, _INDEX, lanes), emit


@lowers(memory.lane_mask)
def lane_mask(count: Any, lanes: Any) -> Any:
    total = literal(lanes)
    if total is None or not _is_index(count):
        return None

    def emit(b: ir.IRBuilder, n: Any, _: Any) -> Any:
        # compare in 32 bits: a mask is then one instruction for 16 lanes
        fits = b.select(b.icmp_signed("<", n, I64(total)), n, I64(total))
        held = b.trunc(b.select(b.icmp_signed(">", fits, I64(0)), fits, I64(0)), I32)
        return b.icmp_signed("<", _constant_vector(list(range(total))), splat(b, held, total))

    return Vec(types.boolean, total)(_INDEX, lanes), emit


@lowers(memory.vextract)
def vextract(value: Any, lane: Any) -> Any:
    if not isinstance(value, Vec) or literal(lane) is None:
        return None

    def emit(b: ir.IRBuilder, v: Any, _: Any) -> Any:
        return b.extract_element(v, I32(lane.literal_value))

    return value.dtype(value, lane), emit
