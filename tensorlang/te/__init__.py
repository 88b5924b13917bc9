"""Layer 5: the language's front door.

@te.compute
def dense(x: te.f32["M", "K"], w: te.f32["N", "K"]):
    M, K = x.shape; N, _ = w.shape
    k = te.reduce_axis(K, name="k")
    return te.compute((M, N), lambda i, j: te.sum(x[i, k] * w[j, k], axis=k), name="y")

dense(x, w)                                        # arrays in, array out
s = te.create_schedule(dense, shapes={"M": 128})   # or by hand
"""

from __future__ import annotations

from tensorlang.schedule import Schedule
from tensorlang.te import instructions
from tensorlang.te.annotations import KINDS, TensorKind, TensorType
from tensorlang.te.extern import ExternOp, extern, extern_ir
from tensorlang.te.frontend import build_operator, compute, create_schedule, schedule
from tensorlang.te.gradient import gradient
from tensorlang.te.hybrid import HybridOp, allocate, hybrid, output_tensor
from tensorlang.te.intrin import tensor_intrin
from tensorlang.te.math import (
    abs,
    all,
    all_of,
    any,
    any_of,
    arccos,
    arccosh,
    arcsin,
    arcsinh,
    arctan,
    arctanh,
    cast,
    ceil,
    const,
    cos,
    cosh,
    equal,
    erf,
    exp,
    expm1,
    floor,
    floordiv,
    floormod,
    fma,
    fmod,
    if_then_else,
    isinf,
    isnan,
    left_shift,
    less,
    less_equal,
    log,
    log1p,
    log2,
    logical_and,
    logical_not,
    logical_or,
    max,
    max_value,
    maximum,
    min,
    min_value,
    minimum,
    not_equal,
    pow,
    prod,
    right_shift,
    round,
    rsqrt,
    select,
    sigmoid,
    sign,
    sin,
    sinh,
    sqrt,
    sum,
    tan,
    tanh,
    trunc,
    truncdiv,
    var,
)
from tensorlang.te.operator import Operator
from tensorlang.te.primfunc import create_prim_func, placeholders_of, stages_of
from tensorlang.te.reducers import argmax, argmin, comm_reducer
from tensorlang.te.scan import ScanOp, scan
from tensorlang.te.tensor import ComputeOp, Op, PlaceholderOp, Tensor, placeholder, reduce_axis

f16, f32, f64, bf16 = KINDS["f16"], KINDS["f32"], KINDS["f64"], KINDS["bf16"]
i8, i16, i32, i64 = KINDS["i8"], KINDS["i16"], KINDS["i32"], KINDS["i64"]
u8, u16, u32, u64 = KINDS["u8"], KINDS["u16"], KINDS["u32"], KINDS["u64"]
bool = bool_ = KINDS["bool"]

__all__ = [
    "ComputeOp", "ExternOp", "HybridOp",
    "Op", "Operator", "PlaceholderOp", "ScanOp", "Schedule", "Tensor", "TensorKind", "TensorType",
    "build_operator", "compute", "create_prim_func", "create_schedule", "instructions", "placeholder", "placeholders_of",
    "gradient", "reduce_axis", "schedule", "stages_of", "tensor_intrin", "var",
    "all", "allocate", "any", "argmax", "argmin", "comm_reducer", "extern", "extern_ir", "hybrid", "max", "min",
    "output_tensor", "prod", "scan", "sum",
    "abs", "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctanh", "ceil", "cos", "cosh", "erf", "exp", "expm1",
    "floor", "floordiv", "floormod", "fma", "fmod", "isinf", "isnan", "left_shift", "log", "log1p", "log2", "maximum",
    "minimum", "pow", "right_shift", "round", "rsqrt", "sigmoid", "sign", "sin", "sinh", "sqrt", "tan", "tanh", "trunc",
    "truncdiv",
    "all_of", "any_of", "cast", "const", "equal", "if_then_else", "less", "less_equal", "logical_and", "logical_not",
    "logical_or", "max_value", "min_value", "not_equal", "select",
    "bf16", "bool", "bool_", "f16", "f32", "f64", "i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64",
]  # fmt: skip
