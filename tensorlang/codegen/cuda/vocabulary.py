"""The names that emitted CUDA Python may use; `functions` defines them, and needs numba-cuda, which this module does not."""

from __future__ import annotations

TYPES = ("i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64", "f32", "f64", "boolean")
FUNCTIONS = (
    "floordiv_pos", "floormod_pos", "minimum", "maximum", "fma", "abs", "acos", "acosh", "asin", "asinh", "atan", "atanh",
    "ceil", "cos", "cosh", "erf", "exp", "expm1", "float_bits", "floor", "fmod", "from_float_bits", "isinf", "isnan", "log",
    "log1p", "log2", "pow", "quotient", "round", "rsqrt", "sigmoid", "sign", "sin", "sinh", "sqrt", "tan", "tanh", "trunc",
)  # fmt: skip
COLLECTIVES = tuple(f"{who}_{kind}" for who in ("warp", "block") for kind in ("sum", "prod", "max", "min"))
HALVES = ("from_bf16", "from_f16", "to_bf16", "to_f16")  # between f32 and the 16 bits of a half
WIDE = ("load2", "load4", "load8", "store2", "store4", "store8")  # of neighbouring elements by one instruction
COPIES = tuple(f"copy_async{n}{under}" for n in (1, 2, 4, 8) for under in ("", "_if"))
ORDER = ("copy_commit", *(f"copy_wait{n}" for n in range(8)))
KINDS = ("bf16", "f16", "tf32")  # what tensor cores multiply
WARPS = tuple(f"{word}_{k}" for k in KINDS for word in ("mma", "load_a", "load_a_turned", "load_b", "load_b_turned"))
NAMES = frozenset(["cuda", "launch", *TYPES, *FUNCTIONS, *COLLECTIVES, *HALVES, *WIDE, *COPIES, *ORDER, *WARPS])
