"""The functions that emitted C calls, each compiled and compared with NumPy, at the edges above all."""

from __future__ import annotations

import ctypes
import re
import shutil
from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest

from tensorlang.codegen.c.helpers import helper, prelude
from tensorlang.codegen.c.toolchain import build_shared
from tensorlang.codegen.intrinsics import formulas, math as twins
from tensorlang.errors import InternalError
from tests.codegen.c.harness import STRICT

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc")

INTEGERS = "i8 i16 i32 i64 u8 u16 u32 u64".split()
RNG = np.random.default_rng(3)
WITH_EDGES = np.concatenate(
    [
        np.array([0, -0.0, 1, -1, np.inf, -np.inf, np.nan, 1e-40, -1e-40, 3e38, 1e-8, 65504, 65520, 65519.996], np.float32),
        (RNG.standard_normal(3000) * 10.0 ** RNG.uniform(-6, 6, 3000)).astype(np.float32),
        RNG.integers(-(2**31), 2**31, 3000).astype(np.int32).view(np.float32),
    ]
)
NAMES = [
    *(f"tl_{name}_f32" for name in (*formulas.UNARY, "pow")),
    *(f"tl_{name}_{t}" for t in INTEGERS for name in (
        "add", "sub", "mul", "min", "max", "floordiv", "floormod", "left_shift", "right_shift", "sign")),
    *(f"tl_abs_{t}" for t in ("i8", "i16", "i32", "i64", "f32", "f64")),
    *(f"tl_{source}_to_{t}" for source in ("f32", "f64") for t in INTEGERS),
    *(f"tl_{name}_{t}" for t in ("f32", "f64") for name in ("min", "max", "floormod", "sign", "isnan", "isinf")),
    "tl_bf16_to_f32", "tl_f32_to_bf16", "tl_f16_to_f32", "tl_f32_to_f16", "tl_f64_to_f16",
]  # fmt: skip


@pytest.fixture(scope="module")
def call(tmp_path_factory) -> Callable[..., np.ndarray]:
    """`call(name, dtype, arrays...)`: a helper on whole arrays."""
    definitions = prelude("\n".join(NAMES))
    loops = []
    for result, name, params in re.findall(r"static inline (\w+) (tl_\w+)\(([^)]*)\)", definitions):
        pairs = [p.split() for p in params.split(", ")]
        signature = f"void on_{name}(int n, {', '.join(f'{t} *{v}' for t, v in pairs)}, {result} *out)"
        body = f"for (int i = 0; i < n; ++i) out[i] = {name}({', '.join(f'{v}[i]' for _, v in pairs)});"
        loops.append(f"{signature};\n{signature} {{ {body} }}\n")
    source = "#include <math.h>\n#include <stdint.h>\n" + definitions + "".join(loops)
    path = tmp_path_factory.mktemp("c") / "helpers.so"
    path.write_bytes(build_shared({"helpers.c": source}, (*STRICT, "-O2")))
    library = ctypes.CDLL(str(path))

    def on(name: str, dtype: object, *arrays: np.ndarray) -> np.ndarray:
        given = [np.ascontiguousarray(a) for a in arrays]
        out = np.empty(given[0].shape, dtype)
        library[f"on_{name}"](len(out), *(ctypes.c_void_p(a.ctypes.data) for a in (*given, out)))
        return out

    return on


def same(ours: np.ndarray, theirs: np.ndarray, bound: float = 0.0) -> np.ndarray:
    with np.errstate(all="ignore"):
        near = np.abs(ours.astype(np.float64) - theirs.astype(np.float64)) <= bound * np.abs(theirs) + 2e-45 * (bound > 0)
    return (ours == theirs) | (np.isnan(ours) & np.isnan(theirs)) | near


@pytest.mark.parametrize("name", formulas.UNARY)
def test_elementary_functions_agree_with_their_formulas(call, name):
    x = WITH_EDGES
    if name in ("sin", "cos", "tan"):
        x = x[(np.abs(x) < 1e6) | ~np.isfinite(x)]
    assert same(call(f"tl_{name}_f32", np.float32, x), np.asarray(getattr(twins, name)(x)), 4e-7).all()


def test_pow_agrees_with_its_formula(call):
    x, y = WITH_EDGES, RNG.permutation(WITH_EDGES)
    assert same(call("tl_pow_f32", np.float32, x, y), np.asarray(twins.pow(x, y)), 4e-7).all()


@pytest.mark.parametrize("type_name", INTEGERS)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_integers_wrap_and_divide_as_numpy_does(call, type_name):
    dtype = np.dtype({"i": "int", "u": "uint"}[type_name[0]] + type_name[1:])
    limits = np.iinfo(dtype)
    edges = np.array([limits.min, limits.max, 0, 1, 2, 3, 7, limits.max - 1], dtype)
    if limits.min:
        edges = np.append(edges, np.array(-1, dtype))
    a = np.concatenate([np.repeat(edges, len(edges)), RNG.integers(limits.min, limits.max, 500, dtype)])
    b = np.concatenate([np.tile(edges, len(edges)), RNG.integers(limits.min, limits.max, 500, dtype)])
    meanings = {
        "add": np.add, "sub": np.subtract, "mul": np.multiply, "min": np.minimum, "max": np.maximum,
        "floordiv": np.floor_divide, "floormod": np.remainder, "left_shift": np.left_shift, "right_shift": np.right_shift,
    }  # fmt: skip
    for name, meaning in meanings.items():
        np.testing.assert_array_equal(call(f"tl_{name}_{type_name}", dtype, a, b), meaning(a, b), err_msg=name)
    np.testing.assert_array_equal(call(f"tl_sign_{type_name}", dtype, a), np.sign(a))
    if limits.min:
        np.testing.assert_array_equal(call(f"tl_abs_{type_name}", dtype, a), np.abs(a))
    for source, wide in (("f32", np.float32), ("f64", np.float64)):
        inside = WITH_EDGES[(WITH_EDGES > max(limits.min, -(2**31))) & (WITH_EDGES < min(limits.max, 2**31))].astype(wide)
        np.testing.assert_array_equal(call(f"tl_{source}_to_{type_name}", dtype, inside), inside.astype(dtype))


def test_conversions_out_of_range_are_defined(call):
    x = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30], np.float32)
    assert (call("tl_f32_to_i32", np.int32, x) == -(2**31)).all()
    assert (call("tl_f32_to_i64", np.int64, x) == -(2**63)).all()
    top = np.array([2.0**63, 1.5 * 2.0**63], np.float64)
    assert call("tl_f64_to_u64", np.uint64, top).tolist() == [2**63, 3 * 2**62]


@pytest.mark.parametrize("name", ["min", "max"])
def test_extremes_pass_nan_on(call, name):
    x, y = WITH_EDGES, RNG.permutation(WITH_EDGES)
    assert same(call(f"tl_{name}_f32", np.float32, x, y), getattr(np, f"{name}imum")(x, y)).all()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_halves_round_to_nearest_even(call):
    codes = np.arange(65536).astype(np.uint16)
    exact = codes.view(np.float16).astype(np.float32)
    assert same(call("tl_f16_to_f32", np.float32, codes), exact).all()
    x = np.concatenate([WITH_EDGES, exact, (exact[:-1] + exact[1:]) / 2])
    assert same(call("tl_f32_to_f16", np.uint16, x).view(np.float16), x.astype(np.float16)).all()
    wide = np.concatenate([x.astype(np.float64) * s for s in (1, 1 + 1e-12, 1 - 1e-12)])
    assert same(call("tl_f64_to_f16", np.uint16, wide).view(np.float16), wide.astype(np.float16)).all()
    brief = call("tl_f32_to_bf16", np.uint16, x).view(ml_dtypes.bfloat16)
    assert same(brief.astype(np.float32), x.astype(ml_dtypes.bfloat16).astype(np.float32)).all()


def test_predicates(call):
    x = WITH_EDGES
    assert (call("tl_isnan_f32", np.int32, x) == np.isnan(x)).all()
    assert (call("tl_isinf_f32", np.int32, x) == np.isinf(x)).all()


def test_an_unknown_function_is_an_internal_error():
    with pytest.raises(InternalError, match="tl_nothing_f32"):
        helper("tl_nothing_f32")
