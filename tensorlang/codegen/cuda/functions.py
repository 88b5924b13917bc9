"""What emitted CUDA Python calls, as numba-cuda device functions. The same functions run in numba's CUDA simulator.

Elementary functions are those of CUDA's math library; each is computed in the type of its argument.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
from numba import (
    boolean,
    config,
    cuda,
    float32 as f32,
    float64 as f64,
    int8 as i8,
    int16 as i16,
    int32 as i32,
    int64 as i64,
    uint8 as u8,
    uint16 as u16,
    uint32 as u32,
    uint64 as u64,
)

if not config.ENABLE_CUDASIM:
    from llvmlite import ir
    from numba import types
    from numba.cuda.extending import intrinsic

from tensorlang.codegen.cuda.vocabulary import NAMES

SIMULATED_SECONDS = 100  # that a thread of the simulator waits for those beside it


def launch(params: str, threads: tuple[int, int, int]) -> Callable[[Any], Any]:
    """Mark a function as a kernel: its parameters' types, and the block that it is written for."""

    def mark(function: Any) -> Any:
        function.params, function.threads = params, threads
        return function

    return mark


def _device(function: Any) -> Any:
    return cuda.jit(device=True)(function)


def _of_math(name: str) -> Any:
    """A function of one argument of the math module. numba-cuda computes it in the argument's type."""
    scope: dict[str, Any] = {"call": getattr(math, name)}
    exec(f"def {name}(x):\n    return call(x)\n", scope)  # a constant text: names below only
    return _device(scope[name])


(acos, acosh, asin, asinh, atan, atanh, cos, cosh, erf, exp, expm1, log, log1p, log2, sin, sinh, sqrt, tan, tanh) = map(
    _of_math,
    "acos acosh asin asinh atan atanh cos cosh erf exp expm1 log log1p log2 sin sinh sqrt tan tanh".split(),
)


@_device
def floordiv_pos(a, b):  # type: ignore[no-untyped-def]
    return a // b


@_device
def floormod_pos(a, b):  # type: ignore[no-untyped-def]
    return a % b


@_device
def minimum(a, b):  # type: ignore[no-untyped-def]
    """NaN where either is."""
    return a if a < b or a != a else b


@_device
def maximum(a, b):  # type: ignore[no-untyped-def]
    return a if a > b or a != a else b


@_device
def fma(a, b, c):  # type: ignore[no-untyped-def]
    return a * b + c


@_device
def abs(x):  # type: ignore[no-untyped-def]
    return -x if x < 0 else x


@_device
def sign(x):  # type: ignore[no-untyped-def]
    return x if x != x else type_like(x, (x > 0)) - type_like(x, (x < 0))


if config.ENABLE_CUDASIM:

    def type_like(x, value):  # type: ignore[no-untyped-def]
        """`value` in the type of `x`."""
        return type(x)(value)

else:

    @intrinsic
    def type_like(typing_context, x, value):  # type: ignore[no-untyped-def]
        """`value` in the type of `x`: arithmetic such as `x * 0 + value` would make NaN of an infinity."""

        def cast(context, builder, signature, args):  # type: ignore[no-untyped-def]
            return context.cast(builder, args[1], value, x)

        return x(x, value), cast


@_device
def isnan(x):  # type: ignore[no-untyped-def]
    return x != x


@_device
def isinf(x):  # type: ignore[no-untyped-def]
    return math.isinf(x)


@_device
def floor(x):  # type: ignore[no-untyped-def]
    return type_like(x, math.floor(x))


@_device
def ceil(x):  # type: ignore[no-untyped-def]
    return type_like(x, math.ceil(x))


@_device
def trunc(x):  # type: ignore[no-untyped-def]
    return type_like(x, math.trunc(x))


@_device
def round(x):  # type: ignore[no-untyped-def]
    """Half to even. What is left above the whole number below is exact."""
    below = math.floor(x)
    rest = x - below
    up = rest > 0.5 or (rest == 0.5 and math.floor(below * 0.5) * 2 != below)
    return type_like(x, math.copysign(below + 1 if up else below, x))


@_device
def float_bits(x):  # type: ignore[no-untyped-def]
    """The 32 bits of an f32, as an i32."""
    return cuda.libdevice.float_as_int(x)


@_device
def from_float_bits(x):  # type: ignore[no-untyped-def]
    return cuda.libdevice.int_as_float(x)


@_device
def fmod(a, b):  # type: ignore[no-untyped-def]
    return math.fmod(a, b)


@_device
def pow(a, b):  # type: ignore[no-untyped-def]
    return math.pow(a, b)


@_device
def quotient(a, b):  # type: ignore[no-untyped-def]
    return a / b


@_device
def rsqrt(x):  # type: ignore[no-untyped-def]
    return type_like(x, 1) / math.sqrt(x)


@_device
def sigmoid(x):  # type: ignore[no-untyped-def]
    one = type_like(x, 1)
    return one / (one + math.exp(-x))


# -- halves: 16 bits in memory, f32 in registers ---------------------------------------------------------------------------
def _conversion(name: str) -> Any:
    """`from_<half>(bits)`: its value, an f32. `to_<half>(x)`: the bits of the nearest half, to even."""
    narrow = name.startswith("to_")
    if config.ENABLE_CUDASIM:
        half = np.float16 if name.endswith("_f16") else ml_dtypes.bfloat16

        def simulated(x):  # type: ignore[no-untyped-def]
            with np.errstate(all="ignore"):
                return half(x).view(np.uint16) if narrow else np.float32(np.uint16(x).view(half))

        return simulated

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        (x,) = args
        i16, i32, single = ir.IntType(16), ir.IntType(32), ir.FloatType()
        if name == "to_f16":
            return builder.bitcast(builder.fptrunc(x, ir.HalfType()), i16)
        if name == "from_f16":
            return builder.fpext(builder.bitcast(x, ir.HalfType()), single)
        if name == "to_bf16":
            return builder.asm(ir.FunctionType(i16, [single]), "cvt.rn.bf16.f32 $0, $1;", "=h,f", [x], side_effect=False)
        return builder.bitcast(builder.shl(builder.zext(x, i32), ir.Constant(i32, 16)), single)

    @intrinsic
    def convert(typing_context, x):  # type: ignore[no-untyped-def]
        wide = types.float64 if x == types.float64 and name == "to_f16" else types.float32
        return (types.uint16(wide) if narrow else types.float32(types.uint16)), generate

    return convert


from_bf16, from_f16, to_bf16, to_f16 = map(_conversion, ("from_bf16", "from_f16", "to_bf16", "to_f16"))

# -- what threads do together ----------------------------------------------------------------------------------------------
def _together(kind: str, combine: Any) -> tuple[Any, Any]:
    """`warp_<kind>(x)`: all of a warp's values combined, for each of its threads. `block_<kind>(x, parts)`: the same of a
    block, which is one row of whole warps; `parts` is shared memory for a value of each warp."""

    @_device
    def warp(x):  # type: ignore[no-untyped-def]
        x = combine(x, cuda.shfl_xor_sync(0xFFFFFFFF, x, 16))
        x = combine(x, cuda.shfl_xor_sync(0xFFFFFFFF, x, 8))
        x = combine(x, cuda.shfl_xor_sync(0xFFFFFFFF, x, 4))
        x = combine(x, cuda.shfl_xor_sync(0xFFFFFFFF, x, 2))
        return combine(x, cuda.shfl_xor_sync(0xFFFFFFFF, x, 1))

    @_device
    def block(x, parts):  # type: ignore[no-untyped-def]
        x = warp(x)
        thread = cuda.threadIdx.x
        if thread % 32 == 0:
            parts[thread // 32] = x
        cuda.syncthreads()
        x = parts[0]
        for n in range(1, cuda.blockDim.x // 32):
            x = combine(x, parts[n])
        cuda.syncthreads()  # before the next values come
        return x

    if not config.ENABLE_CUDASIM:
        return warp, block

    # The simulator has no exchange: its threads, which are Python's, meet in a dictionary.
    lock = threading.Lock()
    held: dict[Any, Any] = {}
    gates: dict[Any, threading.Barrier] = {}

    def simulated(x, parts=None):  # type: ignore[no-untyped-def]
        me: Any = threading.current_thread()
        row, count = (me.threadIdx.y, me.threadIdx.z), me._manager._block_dim[0]
        with lock:
            gate = gates.setdefault((row, count), threading.Barrier(count))
        gate.wait(SIMULATED_SECONDS)
        with lock:
            held[row] = combine(held[row], x) if row in held else x
        gate.wait(SIMULATED_SECONDS)
        x = held[row]
        gate.wait(SIMULATED_SECONDS)
        with lock:
            held.pop(row, None)
        gate.wait(SIMULATED_SECONDS)
        return x

    return simulated, simulated


@_device
def _add(a, b):  # type: ignore[no-untyped-def]
    return a + b


@_device
def _multiply(a, b):  # type: ignore[no-untyped-def]
    return a * b


warp_sum, block_sum = _together("sum", _add)
warp_prod, block_prod = _together("prod", _multiply)
warp_max, block_max = _together("max", maximum)
warp_min, block_min = _together("min", minimum)

# -- neighbouring elements by one instruction ------------------------------------------------------------------------------
def _wide(lanes: int) -> tuple[Any, Any]:
    """`load<n>(array, i)`: elements i to i + n - 1 as a tuple; `store<n>(array, i, values)`. What lies at i has to be aligned
    as a vector of n elements is."""
    if config.ENABLE_CUDASIM:

        def simulated_load(array, i):  # type: ignore[no-untyped-def]
            assert i % lanes == 0, f"element {i} is no place for a vector of {lanes}"
            return tuple(array[i + n] for n in range(lanes))

        def simulated_store(array, i, values):  # type: ignore[no-untyped-def]
            assert i % lanes == 0, f"element {i} is no place for a vector of {lanes}"
            for n in range(lanes):
                array[i + n] = values[n]

        return simulated_load, simulated_store

    def vector_at(context, builder, array_type, array, index):  # type: ignore[no-untyped-def]
        """Pointer to the vector, its LLVM type, and its alignment in bytes."""
        data = array
        if isinstance(array_type, types.Array):
            data = context.make_array(array_type)(context, builder, array).data
        element = context.get_data_type(array_type.dtype)
        vector = ir.VectorType(element, lanes)
        place = builder.gep(builder.bitcast(data, ir.PointerType(element)), [index])
        return builder.bitcast(place, ir.PointerType(vector)), vector, lanes * context.get_abi_sizeof(element)

    @intrinsic
    def load(typing_context, array, i):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
            at, vector, align = vector_at(context, builder, signature.args[0], args[0], args[1])
            value = builder.load(at, align=align)
            parts = [builder.extract_element(value, ir.Constant(ir.IntType(32), n)) for n in range(lanes)]
            return context.make_tuple(builder, signature.return_type, parts)

        return types.UniTuple(array.dtype, lanes)(array, types.int64), generate

    @intrinsic
    def store(typing_context, array, i, values):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
            at, vector, align = vector_at(context, builder, signature.args[0], args[0], args[1])
            value = ir.Constant(vector, ir.Undefined)
            for n in range(lanes):
                part = builder.extract_value(args[2], n)
                value = builder.insert_element(value, part, ir.Constant(ir.IntType(32), n))
            builder.store(value, at, align=align)
            return context.get_dummy_value()

        return types.void(array, types.int64, types.UniTuple(array.dtype, lanes)), generate

    return load, store


load2, store2 = _wide(2)
load4, store4 = _wide(4)
load8, store8 = _wide(8)

# -- copies into shared memory that a thread does not wait for --------------------------------------------------------------
def _asynchronous(count: int) -> tuple[Any, Any]:
    """`copy_async<n>(shared, i, array, j)`: elements j to j + n - 1 to places i to i + n - 1, in one `cp.async`. With `_if`, a
    condition follows: where it does not hold, zeros come, and nothing is read."""
    if config.ENABLE_CUDASIM:  # copies arrive at once

        def simulated(shared, i, array, j):  # type: ignore[no-untyped-def]
            assert i % count == 0 and j % count == 0, f"{i} or {j} is no place for a vector of {count}"
            for n in range(count):
                shared[i + n] = array[j + n]

        def simulated_if(shared, i, array, j, wanted):  # type: ignore[no-untyped-def]
            for n in range(count):
                shared[i + n] = array[j + n] if wanted else 0

        return simulated, simulated_if

    def generate(context, builder, signature, args, wanted):  # type: ignore[no-untyped-def]
        to_type, _, from_type = signature.args[:3]
        element = context.get_data_type(to_type.dtype)
        nbytes = count * context.get_abi_sizeof(element)
        shared = context.make_array(to_type)(context, builder, args[0]).data
        place = builder.gep(builder.bitcast(shared, ir.PointerType(element)), [args[1]])
        near = builder.addrspacecast(place, ir.PointerType(element, 3))
        zero = ir.Constant(args[3].type, 0)
        index = args[3] if wanted is None else builder.select(wanted, args[3], zero)  # an address that exists
        data = args[2]
        if isinstance(from_type, types.Array):
            data = context.make_array(from_type)(context, builder, data).data
        source = builder.gep(builder.bitcast(data, ir.PointerType(element)), [index])
        size = ir.Constant(ir.IntType(32), nbytes)
        brought = size if wanted is None else builder.select(wanted, size, ir.Constant(ir.IntType(32), 0))
        kind = "cg" if nbytes == 16 else "ca"
        operands = [builder.ptrtoint(near, ir.IntType(32)), builder.ptrtoint(source, ir.IntType(64)), brought]
        text = f"cp.async.{kind}.shared.global [$0], [$1], {nbytes}, $2;"  # generic addresses of global memory are its own
        call = ir.FunctionType(ir.VoidType(), [o.type for o in operands])
        builder.asm(call, text, "r,l,r,~{memory}", operands, side_effect=True)
        return context.get_dummy_value()

    @intrinsic
    def copy(typing_context, shared, i, array, j):  # type: ignore[no-untyped-def]
        def code(context, builder, signature, args):  # type: ignore[no-untyped-def]
            return generate(context, builder, signature, args, None)

        return types.void(shared, types.int64, array, types.int64), code

    @intrinsic
    def copy_if(typing_context, shared, i, array, j, wanted):  # type: ignore[no-untyped-def]
        def code(context, builder, signature, args):  # type: ignore[no-untyped-def]
            return generate(context, builder, signature, args, args[4])

        return types.void(shared, types.int64, array, types.int64, types.boolean), code

    return copy, copy_if


copy_async1, copy_async1_if = _asynchronous(1)
copy_async2, copy_async2_if = _asynchronous(2)
copy_async4, copy_async4_if = _asynchronous(4)
copy_async8, copy_async8_if = _asynchronous(8)

def _statement(text: str) -> Any:
    """A function of no arguments: an instruction that orders copies; in the simulator there is nothing to order."""
    if config.ENABLE_CUDASIM:
        return lambda: None

    @intrinsic
    def statement(typing_context):  # type: ignore[no-untyped-def]
        def code(context, builder, signature, args):  # type: ignore[no-untyped-def]
            builder.asm(ir.FunctionType(ir.VoidType(), []), text, "~{memory}", [], side_effect=True)
            return context.get_dummy_value()

        return types.void(), code

    return statement


copy_commit = _statement("cp.async.commit_group;")  # the copies that this thread began since the last one are a group
# All groups of this thread but the last n have arrived.
(copy_wait0, copy_wait1, copy_wait2, copy_wait3, copy_wait4, copy_wait5, copy_wait6, copy_wait7) = (
    _statement(f"cp.async.wait_group {n};") for n in range(8)
)

# -- what a warp does with tiles in its registers: lane 4*g + t holds elements of row (or column) g, see `codegen.warps` -------
if config.ENABLE_CUDASIM:
    _gates: dict[Any, threading.Barrier] = {}
    _given: dict[Any, dict[int, Any]] = {}
    _guard = threading.Lock()

    def _of_all_lanes(x: Any) -> list[Any]:
        """What each lane of the thread's warp gives."""
        me: Any = threading.current_thread()
        row = (me.blockIdx.x, me.blockIdx.y, me.blockIdx.z, me.threadIdx.y, me.threadIdx.z)
        with _guard:
            gate = _gates.setdefault(row, threading.Barrier(32))
            _given.setdefault(row, {})[me.threadIdx.x] = x
        gate.wait(SIMULATED_SECONDS)
        found = [_given[row][n] for n in range(32)]
        gate.wait(SIMULATED_SECONDS)
        return found

    def _bits(x: Any, half: Any) -> list[float]:
        return [float(np.float32(np.uint16(v).view(half))) for v in (int(x) & 0xFFFF, int(x) >> 16)]

    def _mma(kind: str) -> Any:
        half = {"bf16": ml_dtypes.bfloat16, "f16": np.float16}.get(kind)

        def simulated(c, a, b):  # type: ignore[no-untyped-def]
            depth = 16 if half is not None else 8
            left, right, total = np.zeros((16, depth)), np.zeros((depth, 8)), np.zeros((16, 8))
            for lane, (cs, xs, ys) in enumerate(_of_all_lanes((c, a, b))):
                g, t = divmod(lane, 4)
                for n in range(4):
                    total[g + n // 2 * 8, t * 2 + n % 2] = cs[n]
                    row, k = g + n % 2 * 8, n // 2 * depth // 2
                    for h, v in enumerate(_bits(xs[n], half) if half is not None else [xs[n]]):
                        left[row, k + (t * 2 + h if half is not None else t)] = v
                for n in range(2):
                    for h, v in enumerate(_bits(ys[n], half) if half is not None else [ys[n]]):
                        right[n * depth // 2 + (t * 2 + h if half is not None else t), g] = v
            total += left @ right
            g, t = divmod(threading.current_thread().threadIdx.x, 4)  # type: ignore[attr-defined]
            return tuple(np.float32(total[g + n // 2 * 8, t * 2 + n % 2]) for n in range(4))

        return simulated

    def _matrices(count: int, turned: bool) -> Any:
        def simulated(shared, i):  # type: ignore[no-untyped-def]
            rows = [shared[at : at + 8].copy() for at in _of_all_lanes(int(i))]
            assert all(len(r) == 8 for r in rows[: 8 * count]) and i % 8 == 0
            g, t = divmod(threading.current_thread().threadIdx.x, 4)  # type: ignore[attr-defined]
            found = []
            for n in range(count):
                matrix = np.stack(rows[8 * n : 8 * n + 8])
                low, high = (matrix.T if turned else matrix)[g, 2 * t : 2 * t + 2]
                found.append(np.uint32(int(low) | int(high) << 16))
            return tuple(found)

        return simulated

    def to_tf32(x):  # type: ignore[no-untyped-def]
        bits = int(np.float32(x).view(np.uint32))
        return np.uint32((bits + 0x1000) & 0xFFFFE000 if bits & 0x7F800000 != 0x7F800000 else bits).view(np.float32)

else:

    def _unpacked(builder: Any, value: Any, count: int) -> list[Any]:
        return [builder.extract_value(value, n) for n in range(count)]

    def _mma(kind: str) -> Any:
        """`mma_<kind>(c, a, b)`: c + a @ b of a warp's tiles by one instruction."""
        shape = "m16n8k8" if kind == "tf32" else "m16n8k16"
        operand = types.float32 if kind == "tf32" else types.uint32

        @intrinsic
        def mma(typing_context, c, a, b):  # type: ignore[no-untyped-def]
            def code(context, builder, signature, args):  # type: ignore[no-untyped-def]
                single, word = ir.FloatType(), ir.IntType(32)
                sums, left, right = (_unpacked(builder, v, n) for v, n in zip(args, (4, 4, 2), strict=True))
                words = [builder.bitcast(v, word) for v in (*left, *right)]
                text = (
                    f"mma.sync.aligned.{shape}.row.col.f32.{kind}.{kind}.f32 "
                    "{$0, $1, $2, $3}, {$4, $5, $6, $7}, {$8, $9}, {$10, $11, $12, $13};"
                )
                call = ir.FunctionType(ir.LiteralStructType([single] * 4), [word] * 6 + [single] * 4)
                constraints = "=f,=f,=f,=f,r,r,r,r,r,r,f,f,f,f"
                made = builder.asm(call, text, constraints, [*words, *sums], side_effect=True)
                return context.make_tuple(builder, signature.return_type, _unpacked(builder, made, 4))

            four = types.UniTuple(types.float32, 4)
            return four(four, types.UniTuple(operand, 4), types.UniTuple(operand, 2)), code

        return mma

    def _matrices(count: int, turned: bool) -> Any:
        """`(shared, i)`: matrices of 8 x 8 halves, of which lane n gives the place of row n % 8 of matrix n / 8."""

        @intrinsic
        def matrices(typing_context, shared, i):  # type: ignore[no-untyped-def]
            def code(context, builder, signature, args):  # type: ignore[no-untyped-def]
                element, word = ir.IntType(16), ir.IntType(32)
                data = context.make_array(signature.args[0])(context, builder, args[0]).data
                place = builder.gep(builder.bitcast(data, ir.PointerType(element)), [args[1]])
                near = builder.ptrtoint(builder.addrspacecast(place, ir.PointerType(element, 3)), word)
                results = ", ".join(f"${n}" for n in range(count))
                text = f"ldmatrix.sync.aligned.m8n8.x{count}{'.trans' if turned else ''}.shared.b16 {{{results}}}, [${count}];"
                call = ir.FunctionType(ir.LiteralStructType([word] * count), [word])
                constraints = ",".join(["=r"] * count + ["r", "~{memory}"])
                made = builder.asm(call, text, constraints, [near], side_effect=True)
                return context.make_tuple(builder, signature.return_type, _unpacked(builder, made, count))

            return types.UniTuple(types.uint32, count)(shared, types.int64), code

        return matrices

    @intrinsic
    def to_tf32(typing_context, x):  # type: ignore[no-untyped-def]
        def code(context, builder, signature, args):  # type: ignore[no-untyped-def]
            single, word = ir.FloatType(), ir.IntType(32)
            call = ir.FunctionType(word, [single])
            made = builder.asm(call, "cvt.rna.tf32.f32 $0, $1;", "=r,f", [args[0]], side_effect=False)
            return builder.bitcast(made, single)

        return types.float32(types.float32), code


_four, _four_turned, _two, _two_turned = _matrices(4, False), _matrices(4, True), _matrices(2, False), _matrices(2, True)


@_device
def _load_a(shared, at, step):  # type: ignore[no-untyped-def]
    lane = cuda.threadIdx.x
    return _four(shared, at + (lane // 8 % 2 * 8 + lane % 8) * step + lane // 16 * 8)


@_device
def _load_a_turned(shared, at, step):  # type: ignore[no-untyped-def]
    lane = cuda.threadIdx.x
    return _four_turned(shared, at + (lane // 16 * 8 + lane % 8) * step + lane // 8 % 2 * 8)


@_device
def _load_b(shared, at, step):  # type: ignore[no-untyped-def]
    return _two_turned(shared, at + cuda.threadIdx.x % 16 * step)


@_device
def _load_b_turned(shared, at, step):  # type: ignore[no-untyped-def]
    lane = cuda.threadIdx.x
    return _two(shared, at + lane % 8 * step + lane // 8 % 2 * 8)


mma_bf16, mma_f16, mma_tf32 = map(_mma, ("bf16", "f16", "tf32"))
load_a_bf16 = load_a_f16 = _load_a
load_a_turned_bf16 = load_a_turned_f16 = _load_a_turned
load_b_bf16 = load_b_f16 = _load_b
load_b_turned_bf16 = load_b_turned_f16 = _load_b_turned


@_device
def _words_of_a(shared, at, down, along):  # type: ignore[no-untyped-def]
    at += cuda.threadIdx.x // 4 * down + cuda.threadIdx.x % 4 * along
    return (
        to_tf32(shared[at]), to_tf32(shared[at + 8 * down]),
        to_tf32(shared[at + 4 * along]), to_tf32(shared[at + 8 * down + 4 * along]),
    )  # fmt: skip


@_device
def _words_of_b(shared, at, down, along):  # type: ignore[no-untyped-def]
    at += cuda.threadIdx.x // 4 * along + cuda.threadIdx.x % 4 * down
    return to_tf32(shared[at]), to_tf32(shared[at + 4 * down])


@_device
def load_a_tf32(shared, at, step):  # type: ignore[no-untyped-def]
    return _words_of_a(shared, at, step, 1)


@_device
def load_a_turned_tf32(shared, at, step):  # type: ignore[no-untyped-def]
    return _words_of_a(shared, at, 1, step)


@_device
def load_b_tf32(shared, at, step):  # type: ignore[no-untyped-def]
    return _words_of_b(shared, at, step, 1)


@_device
def load_b_turned_tf32(shared, at, step):  # type: ignore[no-untyped-def]
    return _words_of_b(shared, at, 1, step)


if config.ENABLE_CUDASIM:  # Python's own refuse infinities and NaN
    floor, ceil, trunc, round = np.floor, np.ceil, np.trunc, np.rint

    def float_bits(x):  # type: ignore[no-untyped-def]
        return np.float32(x).view(np.int32)

    def from_float_bits(x):  # type: ignore[no-untyped-def]
        return np.int32(x).view(np.float32)

__all__ = sorted(NAMES)  # noqa: PLE0605
_ = (boolean, f32, f64, i8, i16, i32, i64, u8, u16, u32, u64)
