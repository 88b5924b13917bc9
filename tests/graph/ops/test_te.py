"""Every operator's tensor expression, run as a naive loop nest by the interpreter, equals its NumPy reference.

Each case runs twice: with the sizes of its arrays, and with every dimension larger than 1 symbolic where the case allows.
"""

# ruff: noqa: E501  a case is a line
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from tensorlang import te
from tensorlang.graph import TensorType, get, names
from tensorlang.graph.dims import attrs_at
from tensorlang.graph.ops.external import CopyTo, External
from tensorlang.graph.ops.formats import FLOATS, INTEGERS, ROUNDINGS
from tensorlang.graph.ops.serial import SerialOp
from tensorlang.ir.expr import var
from tensorlang.ir.interp import run

RNG = np.random.default_rng(7)


def f(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def ints(low: int, high: int, *shape: int, dtype: str = "int64") -> np.ndarray:
    return RNG.integers(low, high, shape).astype(dtype)


def bools(*shape: int) -> np.ndarray:
    return RNG.integers(0, 2, shape).astype(bool)


@dataclass
class Case:
    op: str
    inputs: list[np.ndarray]
    attrs: dict[str, Any] = field(default_factory=dict)
    symbolic: bool = True  # also with symbolic dimensions
    fixed: tuple[int, ...] = ()  # inputs whose dimensions stay constant
    fixed_axes: tuple[int, ...] = ()  # axes of input 0 that stay constant
    tolerance: float = 2e-6

    def __str__(self) -> str:
        shapes = "x".join(str(list(a.shape)) for a in self.inputs).replace(" ", "")
        attrs = ",".join(f"{k}={v}" for k, v in self.attrs.items()).replace(" ", "")
        return f"{self.op}-{shapes}-{attrs}"[:110]


CONV = {"strides": (1, 1), "pads": (1, 1, 1, 1), "dilations": (1, 1), "group": 1, "layout": "NCHW"}
POOL = {"kernel": (3, 3), "strides": (2, 2), "pads": (1, 1, 1, 1), "dilations": (1, 1), "layout": "NCHW"}
RESIZE = {"scales": (None,) * 4, "coordinates": "half_pixel"}
UP = {"shape": (1, 2, 7, 9), **RESIZE}
NUMBERS = np.concatenate(
    [np.array([np.nan, -np.nan, 0, -0.0, np.inf, -np.inf, 1e30, -1e30, 6.25, 1e-40, 464, 465, -464, 248, 2**-10, 3 * 2**-11], np.float32),
     f(40) * 10.0 ** ints(-8, 6, 40)], dtype=np.float32, casting="same_kind",
)  # fmt: skip
HALVES = np.arange(-9, 10, dtype=np.float32)  # over 2: ties

FLOAT_UNARY = (
    "relu neg abs exp sin cos tan tanh sigmoid erf floor ceil round trunc sign identity isnan isinf softplus softsign mish silu "
    "hard_swish arctan sinh cosh arcsinh expm1 elu celu leaky_relu thresholded_relu gelu shrink"
).split()
POSITIVE_UNARY = "log log2 log1p sqrt rsqrt reciprocal arccosh".split()
UNIT_UNARY = "arcsin arccos arctanh".split()

CASES = [
    *(Case(n, [f(3, 5)]) for n in FLOAT_UNARY),
    *(Case(n, [np.abs(f(3, 5)) + 1.1]) for n in POSITIVE_UNARY),
    *(Case(n, [np.tanh(f(3, 5))]) for n in UNIT_UNARY),
    *(Case(n, [ints(-5, 5, 4, 3, dtype="int32")]) for n in ("relu", "neg", "abs", "sign", "bitwise_not")),
    Case("not", [bools(6)]),
    Case("gelu", [f(3, 5)], {"approximate": "tanh"}),
    Case("selu", [f(3, 5)], {"alpha": 1.67, "gamma": 1.05}),
    Case("hard_sigmoid", [f(3, 5)], {"alpha": 0.2, "beta": 0.5}),
    Case("isinf", [np.array([np.inf, -np.inf, 0, np.nan], np.float32)], {"positive": False, "negative": True}),
    Case("cast", [f(3, 5) * 9], {"dtype": "i32"}),
    Case("cast", [ints(-2, 2, 7)], {"dtype": "bool"}),
    Case("cast", [bools(7)], {"dtype": "f32"}),
    *(Case("encode", [NUMBERS], {"to": n, "saturate": s}) for n in FLOATS for s in (True, False)),
    *(Case("encode", [np.abs(NUMBERS[2:])], {"to": "f8e8m0", "saturate": s, "rounding": r}) for r in ROUNDINGS for s in (True, False)),
    *(Case("encode", [ints(-40, 40, 20, dtype="int32")], {"to": n}) for n in INTEGERS),
    *(Case("encode", [f(20) * 9], {"to": n}) for n in INTEGERS),
    Case("encode", [bools(5)], {"to": "f8e5m2"}),
    *(Case("decode", [ints(0, 2 * f.sign, 2 * f.sign, dtype="uint8")], {"of": n, "dtype": "f32"}) for n, f in FLOATS.items()),
    Case("decode", [np.arange(256, dtype=np.uint8)], {"of": "f8e8m0", "dtype": "f32"}),
    Case("decode", [np.arange(256, dtype=np.uint8)], {"of": "i4", "dtype": "i64"}),
    Case("decode", [ints(0, 2, 9, dtype="uint8")], {"of": "u2", "dtype": "bool"}),
    *(Case("unpack", [ints(0, 256, 3, 5, dtype="uint8")], {"bits": n}) for n in (2, 4)),
    Case("append_rows", [f(2, 3, 5, 4), f(2, 3, 2, 4), np.array([[1], [3]])], {"size": 5}, symbolic=False),
    Case("append_rows", [f(1, 3, 2, 4), f(1, 3, 2, 4), np.array([[2]])], {"size": 7}),
    Case("reinterpret", [ints(0, 9, 9, dtype="uint8")], {"dtype": "u8"}),
    Case("bits", [np.array([1.5, -0.0, 3e-45, np.inf], np.float32)], {"dtype": "i32"}),
    Case("bits", [np.array([0x3FC00000, -(2**31), 2, 0x7F800000], np.int32)], {"dtype": "f32"}),
    *(Case("quantize", [f(4, 6) * 90, np.array(0.37, np.float32)], {"to": t}) for t in ("u8", "i8", "u16", "i16", "i4", "u2")),
    Case("quantize", [HALVES, np.array(2, np.float32), np.array(-3, np.int8)], {"to": "i8"}),
    Case("quantize", [np.array([np.nan, np.inf, -np.inf, 3e9, -3e9], np.float32), np.array(1, np.float32)], {"to": "i8"}),
    Case("quantize", [f(3, 4, 5) * 9, np.abs(f(4)) + 0.1, ints(0, 9, 4, dtype="uint8")], {"to": "u8", "axis": 1}),
    Case("quantize", [f(3, 5) * 9, np.abs(f(3, 3)) + 0.1, ints(0, 16, 3, 3, dtype="uint8")], {"to": "i4", "axis": 1, "block": 2},
         symbolic=False),
    Case("quantize", [f(3, 5), np.abs(f(3)) + 0.1], {"to": "f8e4m3fn", "axis": 0}),
    Case("quantize", [ints(-99, 99, 9, dtype="int32"), np.array(0.3, np.float32)], {"to": "i8", "precision": "f32"}),
    Case("dequantize", [ints(0, 256, 4, 5, dtype="uint8"), np.array(0.3, np.float32), np.array(7, np.uint8)], {"of": "u8", "dtype": "f32"}),
    Case("dequantize", [ints(-9, 9, 3, 4, dtype="int32"), f(4)], {"of": "i32", "dtype": "f32", "axis": -1}),
    Case("dequantize", [ints(0, 16, 3, 5, dtype="uint8"), f(3, 3), ints(0, 16, 3, 3, dtype="uint8")],
         {"of": "i4", "dtype": "f32", "axis": 1, "block": 2}, symbolic=False),
    Case("dequantize", [ints(0, 16, 6, dtype="uint8"), np.array(0.5, np.float32)], {"of": "f4e2m1", "dtype": "f32"}),
    Case("requantize", [ints(-9999, 9999, 3, 4, dtype="int32"), np.array(0.01, np.float32), np.array(3, np.uint8)], {"to": "u8"}),
    Case("requantize", [ints(-999, 999, 3, 4, 2, dtype="int32"), np.abs(f(4))], {"to": "i8", "axis": 1}),
    *(Case(n, [f(4), np.abs(f(4))]) for n in ("range_scale", "range_zero")),
    Case("range_scale", [np.zeros(2, np.float32), np.array([0, 5], np.float32)]),
    Case("clip", [f(3, 5)], {"min": -0.5, "max": 0.25}),
    Case("clip", [ints(-9, 9, 5)], {"min": None, "max": 3}),
    *(Case(n, [f(2, 3, 5), f(3, 1)]) for n in ("add", "sub", "mul", "div", "minimum", "maximum", "less", "greater_equal")),
    *(Case(n, [ints(0, 3, 4, 5), ints(0, 3, 5)]) for n in ("equal", "not_equal", "less_equal", "greater")),
    Case("div", [ints(-9, 9, 4, 5), ints(1, 4, 5)]),
    Case("pow", [np.abs(f(4, 5)), f(5)], tolerance=1e-5),
    Case("mod", [ints(-9, 9, 4, 5), ints(1, 4, 5)], {"fmod": False}),
    Case("mod", [ints(-9, 9, 4, 5), ints(1, 4, 5)], {"fmod": True}),
    Case("mod", [f(4, 5) * 5, f(5) + 3], {"fmod": False}),
    Case("mod", [f(4, 5) * 5, f(5) + 3], {"fmod": True}),
    *(Case(n, [bools(4, 1), bools(1, 5)]) for n in ("and", "or", "xor")),
    *(Case(n, [ints(0, 99, 6), ints(0, 5, 6)]) for n in ("bitwise_and", "bitwise_or", "bitwise_xor", "left_shift", "right_shift")),
    Case("scatter_elements", [f(5, 3), np.array([[0, 2, -1], [3, 1, 0]]), f(2, 3)], {"axis": 0}),
    Case("scatter_elements", [f(5, 3), ints(0, 5, 2, 3), f(2, 3)], {"axis": 0, "reduction": "add"}),
    Case("scatter_nd", [f(4, 3, 2), np.array([[0, 1], [-1, 2]]), f(2, 2)], symbolic=False),
    Case("scatter_nd", [f(4, 3), ints(0, 4, 5, 1), f(5, 3)], {"reduction": "max"}, symbolic=False),
    Case("topk", [np.array([[3, 1, 3, 2, 0]], np.float32)], {"k": 3, "axis": 1}),
    Case("topk", [f(4, 3)], {"k": 2, "axis": 0, "largest": False}),
    *(Case("winograd_input", [f(2, 5, 7, 3)], {"m": m, "pads": (1, 0, 1, 2)}, fixed_axes=(1, 2)) for m in (2, 4)),
    *(Case("winograd_output", [f(m + 2, m + 2, 2, 2, 1, 3), f(3)], {"m": m, "height": m + 1, "width": m}, symbolic=False) for m in (2, 4)),
    Case("prelu", [f(2, 3, 4), f(3, 1)]),
    Case("where", [bools(4, 1), f(4, 5), f(5)]),
    Case("reshape", [f(2, 3, 4)], {"shape": (6, 4)}, symbolic=False),
    Case("reshape", [f(4, 6)], {"shape": (2, 2, 1, 3, 2)}, symbolic=False),
    Case("reshape", [f(1, 6, 1)], {"shape": (6,)}, symbolic=False),
    Case("reshape", [f(3, 8)], {"shape": (4, 6)}, symbolic=False),
    Case("transpose", [f(2, 3, 4)], {"perm": (2, 0, 1)}),
    Case("expand", [f(3, 1)], {"shape": (2, 1, 4)}),
    Case("concat", [f(2, 3), f(2, 1), f(2, 4)], {"axis": 1}),
    Case("slice", [f(5, 6)], {"starts": (1, 5), "shape": (3, 3), "steps": (1, -2)}),
    Case("pad", [f(3, 4)], {"pads": (1, 0, 0, 2), "mode": "constant", "value": 1.5}),
    *(Case("pad", [f(3, 4)], {"pads": (2, 1, 1, 3), "mode": m}) for m in ("edge", "reflect", "wrap")),
    Case("pad", [f(5, 4)], {"pads": (-1, 0, 1, -2), "mode": "constant"}),
    Case("tile", [f(2, 3)], {"repeats": (2, 1)}),
    *(Case("depth_to_space", [f(2, 8, 2, 3)], {"blocksize": 2, "mode": m}) for m in ("DCR", "CRD")),
    *(Case("space_to_depth", [f(2, 2, 4, 6)], {"blocksize": 2, "mode": m}) for m in ("DCR", "CRD")),
    Case("trilu", [f(2, 4, 5)], {"upper": True, "k": 1}),
    Case("trilu", [f(4, 4)], {"upper": False, "k": 0}),
    Case("shape", [f(2, 3, 4)], {"start": 1}),
    Case("size", [f(2, 3, 4)]),
    Case("full", [], {"shape": (2, 3), "value": 7, "dtype": "i64"}),
    Case("range", [], {"start": 3, "step": -2, "size": 5, "dtype": "i32"}),
    Case("range", [], {"start": 0.5, "step": 0.25, "size": 4, "dtype": "f32"}),
    Case("eye_like", [f(3, 4)], {"k": 1, "dtype": "f32"}),
    Case("gather", [f(5, 3), ints(-5, 5, 2, 4)], {"axis": 0}),
    Case("gather", [f(3, 5), ints(0, 5)], {"axis": 1}),
    Case("gather_elements", [f(5, 3), ints(-5, 5, 4, 3)], {"axis": 0}, symbolic=False),
    Case("gather_nd", [f(4, 5, 3), ints(0, 4, 6, 2)], symbolic=False),
    Case("gather_nd", [f(2, 5, 3), ints(0, 3, 2, 4, 1)], {"batch_dims": 1}, symbolic=False),
    Case("one_hot", [ints(-4, 6, 3, 2), f(2)], {"depth": 4, "axis": 1}),
    *(
        Case(n, [np.abs(f(2, 3, 4)) + 0.5], {"axes": axes, "keepdims": keep}, tolerance=1e-5)
        for n in names()
        if n.startswith("reduce_")
        for axes, keep in (((1,), True), ((0, 2), False), ((0, 1, 2), False))
    ),
    Case("reduce_sum", [ints(-9, 9, 3, 4)], {"axes": (1,), "keepdims": False}),
    Case("reduce_mean", [ints(-9, 9, 3, 4)], {"axes": (1,), "keepdims": True}),
    Case("reduce_l1", [f(3, 4)], {"axes": (), "keepdims": True}),
    *(Case(n, [f(3, 5)], {"axis": 1, "keepdims": k}) for n in ("argmax", "argmin") for k in (True, False)),
    Case("argmax", [np.array([[1, 3, 3, 0]], np.float32)], {"axis": 1, "last": True}),
    Case("argmin", [np.array([[1, 0, 3, 0]], np.float32)], {"axis": 1}),
    *(
        Case("cumsum", [f(3, 5)], {"axis": 1, "exclusive": e, "reverse": r})
        for e in (False, True)
        for r in (False, True)
    ),
    Case("matmul", [f(3, 4), f(4, 5)], tolerance=1e-5),
    Case("matmul", [f(2, 1, 3, 4), f(5, 4, 2)], tolerance=1e-5),
    Case("matmul", [f(4), f(4, 5)], tolerance=1e-5),
    Case("matmul", [f(2, 3, 4), f(4)], tolerance=1e-5),
    Case("matmul", [f(4), f(4)], tolerance=1e-5),
    Case("matmul", [ints(-3, 3, 3, 4, dtype="int32"), ints(-3, 3, 4, 2, dtype="int32")]),
    Case("conv", [f(2, 3, 6, 5), f(4, 3, 3, 3)], CONV, fixed=(1,), fixed_axes=(1,), tolerance=1e-5),
    Case("conv", [f(1, 4, 7, 6), f(6, 2, 3, 3), f(6)], {**CONV, "group": 2, "strides": (2, 1)}, fixed=(1, 2), fixed_axes=(1,),
         tolerance=1e-5),
    Case("conv", [f(1, 4, 6, 6), f(4, 1, 3, 3), f(4)], {**CONV, "group": 4, "dilations": (2, 2), "pads": (2, 1, 2, 3)},
         fixed=(1, 2), fixed_axes=(1,), tolerance=1e-5),
    Case("conv", [f(2, 3, 8), f(4, 3, 3)], {**CONV, "strides": (2,), "pads": (1, 1), "dilations": (1,)}, fixed=(1,), fixed_axes=(1,),
         tolerance=1e-5),
    Case("conv", [f(1, 2, 4, 4, 4), f(3, 2, 2, 2, 2)], {**CONV, "strides": (1,) * 3, "pads": (0,) * 6, "dilations": (1,) * 3},
         fixed=(1,), fixed_axes=(1,), tolerance=1e-5),
    Case("conv", [f(2, 6, 5, 3), f(3, 3, 3, 4), f(4)], {**CONV, "layout": "NHWC"}, fixed=(1, 2), fixed_axes=(3,), tolerance=1e-5),
    Case("conv", [f(1, 6, 5, 4), f(3, 3, 2, 6)], {**CONV, "layout": "NHWC", "group": 2}, fixed=(1,), fixed_axes=(3,), tolerance=1e-5),
    Case("conv", [f(1, 6, 5, 4), f(3, 3, 4), f(4)], {**CONV, "layout": "NHWC", "group": 4, "strides": (2, 2)}, fixed=(1, 2),
         fixed_axes=(3,), tolerance=1e-5),
    *(
        Case("conv_transpose", [f(1, 4, 3, 4), w, f(n)],
             {**CONV, "pads": pads, "strides": (2, 2), "output_padding": extra, "group": g},
             fixed=(1, 2), fixed_axes=(1,), tolerance=1e-5)
        for w, n, pads, extra, g in (
            (f(4, 3, 2, 2), 3, (0, 0, 0, 0), (0, 0), 1),
            (f(4, 3, 3, 3), 3, (1, 0, 1, 2), (1, 1), 1),
            (f(4, 2, 3, 3), 4, (1, 1, 1, 1), (0, 1), 2),
        )
    ),
    Case("conv_transpose", [f(1, 3, 4, 4), f(3, 3, 4, 2)],
         {**CONV, "strides": (1, 2), "output_padding": (0, 0), "dilations": (2, 1), "layout": "NHWC"}, fixed=(1,), fixed_axes=(3,),
         tolerance=1e-5),
    *(
        Case(n, [f(1, 2, 7, 6)], {**POOL, **more}, fixed_axes=(1,), tolerance=1e-5)
        for n in ("max_pool", "avg_pool", "lp_pool")
        for more in ({}, {"ceil_mode": True}, {"dilations": (2, 1), "strides": (1, 1)}, {"pads": (0, 0, 0, 0)})
    ),
    *(
        Case("avg_pool", [f(1, 2, 7, 6)], {**POOL, "count_include_pad": True, "ceil_mode": c}, fixed_axes=(1,), tolerance=1e-5)
        for c in (False, True)
    ),
    Case("max_pool", [f(1, 5, 6, 2)], {**POOL, "layout": "NHWC"}, fixed_axes=(3,)),
    Case("max_pool", [ints(-9, 0, 1, 2, 5, 5, dtype="int8")], POOL, fixed_axes=(1,)),
    *(Case(n, [f(2, 3, 4) * 30], {"axis": a}, tolerance=1e-5) for n in ("softmax", "log_softmax") for a in (0, 1, 2)),
    Case("layer_norm", [f(2, 3, 8), f(8), f(8)], {"axis": 2, "epsilon": 1e-5}, tolerance=1e-5),
    Case("layer_norm", [f(2, 3, 4), f(3, 4)], {"axis": 1, "epsilon": 1e-3}, tolerance=1e-5),
    Case("rms_norm", [f(2, 3, 8), f(8)], {"axis": 2, "epsilon": 1e-5}, tolerance=1e-5),
    Case("batch_norm", [f(2, 3, 4), f(3), f(3), f(3), np.abs(f(3))], {"epsilon": 1e-3, "axis": 1}, tolerance=1e-5),
    Case("batch_norm", [f(2, 4, 3), f(3), f(3), f(3), np.abs(f(3))], {"epsilon": 1e-3, "axis": 2}, tolerance=1e-5),
    Case("instance_norm", [f(2, 3, 4, 5), f(3), f(3)], {"epsilon": 1e-5}, tolerance=1e-5),
    Case("group_norm", [f(2, 4, 3, 2), f(4), f(4)], {"groups": 2}, fixed=(1, 2), fixed_axes=(1,), tolerance=1e-5),
    Case("lrn", [f(1, 5, 2, 2)], {"size": 3, "alpha": 0.1, "beta": 0.75, "bias": 1.0}, tolerance=1e-5),
    *(Case("lp_norm", [f(3, 4)], {"axis": 1, "p": p}, tolerance=1e-5) for p in (1, 2)),
    *(
        Case("resize_nearest", [f(1, 2, 4, 3)], {**UP, "coordinates": c, "rounding": r}, symbolic=False)
        for c, r in (("asymmetric", "floor"), ("half_pixel", "round_prefer_floor"), ("align_corners", "ceil"),
                     ("half_pixel", "round_prefer_ceil"))
    ),
    Case("resize_nearest", [f(1, 2, 3, 4)], {"shape": (1, 2, 6, 8), "scales": (1.0, 1.0, 2.0, 2.0), "coordinates": "asymmetric",
                                             "rounding": "floor"}, symbolic=False),
    *(
        Case("resize_linear", [f(1, 2, 4, 3)], {**UP, "coordinates": c}, symbolic=False, tolerance=1e-5)
        for c in ("asymmetric", "half_pixel", "pytorch_half_pixel", "align_corners", "half_pixel_symmetric")
    ),
    Case("resize_linear", [f(1, 2, 8, 6)], {"shape": (1, 2, 1, 4), **RESIZE, "coordinates": "pytorch_half_pixel"}, symbolic=False,
         tolerance=1e-5),
    *(
        Case("resize_cubic", [f(1, 2, 4, 3)], {**UP, "exclude_outside": e}, symbolic=False, tolerance=1e-5) for e in (False, True)
    ),
    *(
        Case("grid_sample", [f(2, 3, 4, 5), 1.5 * f(2, 3, 2, 2)], {"mode": m, "outside": o, "align_corners": a}, symbolic=False, tolerance=1e-4)
        for m in ("nearest", "linear", "cubic") for o in ("zeros", "border", "reflection") for a in (False, True)
    ),
    *(
        Case("roi_align", [f(2, 3, 6, 7), np.array([[0, 0, 5, 4], [1, 2, 3, 6], [-2, 1, 9, 3]], np.float32), np.array([0, 1, 1])],
             {"height": 2, "width": 3, "sampling": k, "spatial_scale": 0.9, "half_pixel": h, "mode": m}, symbolic=False, tolerance=1e-4)
        for k in (0, 2) for h in (False, True) for m in ("avg", "max")
    ),
    *(
        Case("deform_columns", [f(1, 4, 4, 5), f(1, 2 * 8, 3, 4), *mask], {"kernel": (2, 2), "strides": (1, 1), "pads": (0, 0, 0, 0), "dilations": (1, 1), "groups": 2},
             symbolic=False, tolerance=1e-4)
        for mask in ([], [f(1, 8, 3, 4)])
    ),
    Case("col2im", [f(1, 12, 15)], {"image": (5, 6), "block": (2, 3), "strides": (2, 1), "pads": (1, 0, 0, 1), "dilations": (1, 1)}, symbolic=False, tolerance=1e-5),
    *(
        Case("max_pool_indices", [f(2, 2, 5, 6)], {"kernel": (3, 2), "strides": (2, 1), "pads": (1, 0, 1, 1), "dilations": (1, 2), "column_major": c}, symbolic=False)
        for c in (False, True)
    ),
    Case("relabel", [f(3, 4, 3)], {"labels": (1, 0, 1)}),
    Case("reverse_sequence", [f(4, 3, 2), np.array([1, 4, 0])], {"batch": 1, "time": 0}),
    *(Case("write_cache", [f(2, 5, 3), f(2, 4, 3), np.array([0, 3])], {"axis": 1, "circular": c}) for c in (False, True)),
    Case("weighted_taps", [f(2, 5, 3), ints(0, 5, 4, 2), f(4, 2)], {"axis": 1}, tolerance=1e-5),
    Case("det", [f(2, 4, 4)], symbolic=False, tolerance=1e-4),
    Case("det", [np.array([[0.0, 2.0], [3.0, 1.0]], np.float32)], symbolic=False, tolerance=1e-5),
    *(Case("cumprod", [f(3, 4)], {"axis": 1, "exclusive": e, "reverse": r}, tolerance=1e-5) for e in (False, True) for r in (False, True)),
    Case("random_uniform", [], {"shape": (3, 5), "seed": 7}),
    Case("pow", [ints(-3, 4, 4, 5), ints(-2, 7, 4, 5)]),
    *(Case(n, [ints(-99, 99, 6, dtype="int32"), np.array([0, 1, 31, 32, -1, 40], np.int32)]) for n in ("left_shift", "right_shift")),
    Case("mod", [10 * f(4, 5), f(4, 5)], {"fmod": True}, tolerance=1e-5),
]  # fmt: skip


def execute(case: Case, inputs: list[te.Tensor], attrs: dict[str, Any]) -> list[np.ndarray]:
    definition = get(case.op)
    outs = definition.te(*inputs, **attrs)
    outs = list(outs) if isinstance(outs, tuple) else [outs]
    types = definition.infer(*(TensorType.of(t.dtype, t.shape) for t in inputs), **attrs)
    assert [(t.dtype, t.ndim) for t in outs] == [(t.dtype, t.ndim) for t in types]
    func = te.create_prim_func("case", inputs, outs)
    sizes = {v: n for t, a in zip(inputs, case.inputs, strict=True) for v, n in zip(t.shape, a.shape, strict=True)}
    buffers = []
    for t, kind in zip(outs, types, strict=True):
        by_te = attrs_at({"shape": t.shape}, sizes)["shape"]
        by_rule = attrs_at({"shape": kind.shape}, sizes)["shape"]
        assert by_te == by_rule
        buffers.append(np.zeros(by_te, t.dtype.numpy))
    run(func, [*case.inputs, *buffers, *(sizes[v] for v in func.size_vars)])
    return buffers


def check(case: Case, results: list[np.ndarray]) -> None:
    with np.errstate(all="ignore"):
        expected = get(case.op).numpy(*case.inputs, **case.attrs)
    expected = list(expected) if isinstance(expected, tuple) else [expected]
    for ours, theirs in zip(results, expected, strict=True):
        assert ours.dtype == np.asarray(theirs).dtype
        np.testing.assert_allclose(ours, theirs, rtol=case.tolerance, atol=case.tolerance)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_expression_equals_reference(case):
    inputs = [te.placeholder(a.shape, a.dtype, name=f"x{i}") for i, a in enumerate(case.inputs)]
    check(case, execute(case, inputs, case.attrs))


@pytest.mark.parametrize("case", [c for c in CASES if c.symbolic and c.inputs], ids=str)
def test_with_symbolic_dimensions(case):
    """Equal sizes share a symbol: where shapes must agree they do, and everything that fits 5 fits any size."""
    symbols: dict[int, Any] = {}
    inputs = []
    for position, a in enumerate(case.inputs):
        dims = []
        for axis, n in enumerate(a.shape):
            keep = n == 1 or position in case.fixed or (position == 0 and axis in case.fixed_axes)
            dims.append(n if keep else symbols.setdefault(n, var(f"n{n}")))
        inputs.append(te.placeholder(dims, a.dtype, name=f"x{position}"))
    check(case, execute(case, inputs, case.attrs))


def test_every_operator_has_a_case():
    covered = {c.op for c in CASES}
    # not te: test_serial, test_control, tests/byoc
    covered |= {n for n in names() if get(n).structure or isinstance(get(n), SerialOp | External | CopyTo)}
    assert sorted(set(names()) - covered - {n for n in names() if "." in n}) == []
