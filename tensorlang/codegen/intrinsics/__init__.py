"""The vocabulary of emitted Python. `from tensorlang.codegen.intrinsics import *` is the first line of each emitted module.

Each name is one Python function (its plain twin) that runs with the jit off; `lowering/` registers, for the same
function objects, what numba compiles them to. Importing this package imports neither numba nor llvmlite.
"""

from __future__ import annotations

from tensorlang.codegen.intrinsics.arith import (
    floordiv_pos,
    floormod_pos,
    fma,
    logical_and,
    logical_not,
    logical_or,
    maximum,
    minimum,
    select,
    vreduce_add,
    vreduce_max,
    vreduce_min,
    vreduce_mul,
)  # fmt: skip
from tensorlang.codegen.intrinsics.dtypes import (
    SCALAR_TYPES,
    ScalarType,
    bf16,
    boolean,
    f16,
    f32,
    f64,
    i8,
    i16,
    i32,
    i64,
    u8,
    u16,
    u32,
    u64,
)  # fmt: skip
from tensorlang.codegen.intrinsics.functions import (
    Pointer,
    call_packed,
    check,
    chunk,
    instruction,
    kernel,
    num_threads,
    parallel_for,
    program,
    release,
    scratch,
    unrolled,
    view,
)  # fmt: skip
from tensorlang.codegen.intrinsics.machine import (
    amx_configure,
    amx_dot_bf16,
    amx_dot_i8,
    amx_dot_u8,
    amx_load,
    amx_release,
    amx_store,
    amx_zero,
    llvm_call,
    sdot,
    udot,
    vdpbf16,
    vpdpbusd,
)  # fmt: skip
from tensorlang.codegen.intrinsics.math import (
    abs,
    acos,
    acosh,
    asin,
    asinh,
    atan,
    atanh,
    ceil,
    cos,
    cosh,
    erf,
    exp,
    expm1,
    float_bits,
    floor,
    fmod,
    from_float_bits,
    isinf,
    isnan,
    log,
    log1p,
    log2,
    pow,
    quotient,
    round,
    rsqrt,
    sigmoid,
    sign,
    sin,
    sinh,
    sqrt,
    tan,
    tanh,
    trunc,
)  # fmt: skip
from tensorlang.codegen.intrinsics.memory import (
    lane_mask,
    local_array,
    offset,
    prefetch,
    prefetch_far,
    transpose_tile,
    transpose_tile_past,
    vcast,
    vextract,
    vgather,
    viota,
    vload,
    vload_masked,
    vload_repeated,
    vload_strided,
    vload_strided_masked,
    vscatter,
    vsplat,
    vstore,
    vstore_masked,
    vstore_strided,
)  # fmt: skip

__all__ = [
    # types and casts
    "f32", "f64", "f16", "bf16", "i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64", "boolean",
    # functions of a module
    "instruction", "chunk", "kernel", "program", "parallel_for", "unrolled", "num_threads", "scratch", "release", "view",
    "check", "call_packed",
    # memory and vectors
    "local_array", "offset", "prefetch", "prefetch_far", "vload", "vload_repeated", "vstore", "vload_masked", "vstore_masked",
    "vload_strided",
    "vload_strided_masked", "vstore_strided", "vgather", "vscatter", "vsplat", "viota", "lane_mask", "vcast", "vextract",
    "transpose_tile", "transpose_tile_past",
    # arithmetic
    "floordiv_pos", "floormod_pos", "select", "minimum", "maximum", "fma", "logical_and", "logical_or", "logical_not",
    "vreduce_add", "vreduce_mul", "vreduce_max", "vreduce_min",
    # instructions of some machines
    "vpdpbusd", "vdpbf16", "sdot", "udot", "llvm_call",
    "amx_configure", "amx_zero", "amx_load", "amx_dot_i8", "amx_dot_u8", "amx_dot_bf16", "amx_store", "amx_release",
    # elementary functions
    "abs", "acos", "acosh", "asin", "asinh", "atan", "atanh", "ceil", "cos", "cosh", "erf", "exp", "expm1",
    "float_bits", "floor", "fmod", "from_float_bits", "isinf", "isnan", "log", "log1p", "log2", "pow", "quotient", "round",
    "rsqrt", "sigmoid", "sign", "sin", "sinh", "sqrt", "tan", "tanh", "trunc",
]  # fmt: skip

_ = (SCALAR_TYPES, ScalarType, Pointer)  # reachable from here, but not part of the emitted vocabulary
