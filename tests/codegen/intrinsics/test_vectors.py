"""Loads, stores, casts, operators and reductions: machine code equals the plain twin."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

MEMORY = """
@kernel("f32* x, f32* out")
def masked(ctx, x, out):
    m = lane_mask(5, 16)
    vstore(out, 0, vload_masked(x, 3, m, f32(-7.0)))
    vstore_masked(out, 16, vload(x, 0, 16), m)
    vstore(out, 32, vload_masked(x, 0, lane_mask(-2, 16), f32(1.0)))
    vstore(out, 48, vload_masked(x, 0, lane_mask(99, 16), f32(1.0)))

@kernel("f32* x, f32* out, i64 s")
def strided(ctx, x, out, s):
    vstore(out, 0, vload_strided(x, 1, 2, 16))
    vstore(out, 16, vload_strided(x, 1, 3, 16))
    vstore(out, 32, vload_strided(x, 2, s, 8))
    vstore_strided(out, 48, 2, vload(x, 0, 8))
    vstore_strided(out, 49, s, vload(x, 8, 8))

@kernel("f32* x, f32* out, i64 n")
def strided_masked(ctx, x, out, n):
    vstore(out, 0, vload_strided_masked(x, 1, 2, lane_mask(n, 16), f32(7.0)))
    vstore(out, 16, vload_strided_masked(x, 0, 2, vload(x, 0, 16) > f32(0.0), f32(-1.0)))

@kernel("f32* x, i32* index, f32* out, u8* narrow, u8* small")
def gathered(ctx, x, index, out, narrow, small):
    vstore(out, 0, vgather(x, vload(index, 0, 16)))
    vstore(out, 16, vgather(x, viota(3, 2, 16)))
    vscatter(out, vload(index, 0, 8), vload(x, 0, 8))
    vstore(small, 0, vgather(narrow, vload(index, 0, 16)))

@kernel("bool* flags, bool* out, f32* x, f32* y")
def booleans(ctx, flags, out, x, y):
    m = vload(flags, 0, 16)
    vstore(out, 0, ~m)
    vstore(out, 16, m & (vload(x, 0, 16) > f32(0.0)))
    vstore(out, 32, m | (vload(x, 0, 16) > f32(0.0)))
    vstore(out, 48, m ^ (vload(x, 0, 16) > f32(0.0)))
    vstore(y, 0, select(m, vload(x, 0, 16), f32(2.0)))
    vstore(y, 16, vcast(m, f32))
    out[64] = flags[1]
    out[65] = not flags[0]
    out[66] = bool(x[0])
    vstore(out, 67, vload_masked(flags, 0, lane_mask(3, 16), bool(1)))

@kernel("f32* x, f32* out, i64 n")
def ragged(ctx, x, out, n):
    for i in range((n + 15) // 16):
        m = lane_mask(n - i * 16, 16)
        vstore_masked(out, i * 16, vload_masked(x, i * 16, m, f32(0.0)) * f32(2.0), m)

@kernel("f32* x, f32* out")
def tile(ctx, x, out):
    t = local_array(f32, 64)
    for i in range(4):
        vstore(t, i * 16, vload(x, i * 16, 16))
    for i in range(64):
        out[i] = t[63 - i]
    s = f32(0.0)
    for i in range(64):
        s = s + t[i]
    out[64] = s
    out[65] = vextract(vload(t, 0, 16), 3)
"""


def _floats(count: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(count).astype(np.float32)


def _same(pair: tuple[list[Any], list[Any]]) -> None:
    for native, plain in zip(*pair, strict=True):
        np.testing.assert_array_equal(native, plain)


def test_masks(run_both):
    native, plain = run_both(MEMORY, "masked", _floats(32), np.zeros(64, np.float32))
    np.testing.assert_array_equal(native[1], plain[1])
    assert (native[1][5:16] == -7).all()


def test_strides(run_both):
    _same(run_both(MEMORY, "strided", _floats(64), np.zeros(96, np.float32), 5))


@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 15, 16])
def test_strides_under_a_mask_touch_nothing_beyond(run_both, n):
    """Plain Python refuses to read beyond the array: with n lanes it ends at the last element that they need."""
    x = _floats(32)[: max(2 * n, 32)]
    _same(run_both(MEMORY, "strided_masked", x, np.zeros(32, np.float32), n))
    _, plain = run_both(MEMORY, "strided_masked", x, np.zeros(32, np.float32), n)
    np.testing.assert_array_equal(plain[1][:n], x[1 : 2 * n : 2])
    assert (plain[1][n:16] == 7).all()


def test_gather_and_scatter(run_both):
    index = np.random.default_rng(1).permutation(32).astype(np.int32)
    narrow = np.arange(40, dtype=np.uint8)
    _same(run_both(MEMORY, "gathered", _floats(40), index, np.zeros(64, np.float32), narrow, np.zeros(16, np.uint8)))


def test_booleans_take_a_byte(run_both):
    flags = np.random.default_rng(2).integers(0, 2, 16).astype(bool)
    _same(run_both(MEMORY, "booleans", flags, np.zeros(96, bool), _floats(16), np.zeros(32, np.float32)))


@pytest.mark.parametrize("n", [1, 15, 16, 17, 40])
def test_ragged_ends_touch_nothing_beyond(run_both, n):
    native, plain = run_both(MEMORY, "ragged", _floats(48), np.full(48, 9, np.float32), n)
    np.testing.assert_array_equal(native[1], plain[1])
    assert (native[1][n:] == 9).all()


def test_local_array(run_both):
    native, plain = run_both(MEMORY, "tile", _floats(64), np.zeros(66, np.float32))
    np.testing.assert_allclose(native[1], plain[1], rtol=1e-6)


def test_plain_accesses_are_bounds_checked(settings, tmp_path):
    from tensorlang.codegen.native import run_plain

    source = (
        "from tensorlang.codegen.intrinsics import *\n"
        '@kernel("f32* x, f32* out")\ndef f(ctx, x, out):\n    vstore(out, 0, vload(x, 4, 16))\n'
    )
    with pytest.raises(IndexError, match="4..19 lie outside an array of 16"):
        run_plain(source, tmp_path / "m.py")["f"](None, np.zeros(16, np.float32), np.zeros(16, np.float32))


NAMES = {
    "i8": np.int8, "i16": np.int16, "i32": np.int32, "i64": np.int64,
    "u8": np.uint8, "u16": np.uint16, "u32": np.uint32, "u64": np.uint64,
    "f16": np.float16, "bf16": ml_dtypes.bfloat16, "f32": np.float32, "f64": np.float64, "bool": np.bool_,
}  # fmt: skip
CASTS = "".join(
    f'@kernel("{a}* x, {b}* y")\ndef {a}_to_{b}(ctx, x, y):\n'
    f"    vstore(y, 0, vcast(vload(x, 0, 16), {b}))\n    y[16] = {b}(x[3])\n\n"
    for a, b in [
        ("f32", "i32"), ("f32", "u8"), ("f32", "i8"), ("i8", "f32"), ("u8", "f32"), ("i32", "f32"), ("i64", "f32"),
        ("f64", "f32"), ("f32", "f64"), ("f32", "f16"), ("f16", "f32"), ("f32", "bf16"), ("bf16", "f32"),
        ("i32", "i8"), ("i8", "i32"), ("u8", "i64"), ("i32", "u32"), ("u32", "f32"), ("f32", "bool"), ("bool", "f32"),
        ("bool", "i64"), ("i64", "bool"), ("f32", "i64"), ("i16", "bf16"), ("bf16", "f16"), ("f32", "u16"),
    ]
)  # fmt: skip


@pytest.mark.parametrize("name", [line[4:].split("(")[0] for line in CASTS.splitlines() if line.startswith("def ")])
def test_casts(run_both, name):
    source, target = (NAMES[part] for part in name.split("_to_"))
    rng = np.random.default_rng(3)
    if name.startswith(("f32", "f64", "f16", "bf16")):
        low = 0 if name.endswith(("u8", "u16")) else -100
        values = rng.uniform(low, 100, 16).astype(source)
    else:
        values = rng.integers(0, 2 if source is np.bool_ else 120, 16).astype(source)
        if np.issubdtype(source, np.signedinteger):
            values = (values - 60).astype(source)
    native, plain = run_both(CASTS, name, values, np.zeros(17, target))
    np.testing.assert_array_equal(native[1], plain[1])


def test_half_floats_round_to_nearest_even_over_all_patterns(run_both):
    source = (
        '@kernel("f32* x, bf16* b, f16* h, i64 n")\ndef narrow(ctx, x, b, h, n):\n    for i in range(n // 16):\n'
        "        vstore(b, i * 16, vcast(vload(x, i * 16, 16), bf16))\n"
        "        vstore(h, i * 16, vcast(vload(x, i * 16, 16), f16))\n"
    )
    x = (np.arange(0, 1 << 32, 65537 * 4 + 8191, dtype=np.uint64)[: 16 * 1000].astype(np.uint32)).view(np.float32)
    halves = np.array([1.00390625, 1.01171875, 65519.0, 65520.0, np.inf, -np.inf, 3e-8, 2.9e-8], np.float32)
    x = np.concatenate([x, halves, halves])[-(len(x) // 16 * 16) :]
    n = len(x)
    native, _ = run_both(source, "narrow", x, np.zeros(n, ml_dtypes.bfloat16), np.zeros(n, np.float16), n)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(native[1].astype(np.float32), x.astype(ml_dtypes.bfloat16).astype(np.float32))
        np.testing.assert_array_equal(native[2], x.astype(np.float16))


BINARY = {"add": "+", "sub": "-", "mul": "*", "floordiv": "//", "mod": "%", "and": "&", "or": "|", "xor": "^"}
SHIFTS = {"shl": "<<", "shr": ">>"}
COMPARE = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}


def _operator_source() -> str:
    parts = []
    for dtype in ("i8", "i32", "u32", "i64"):
        for name, op in {**BINARY, **SHIFTS}.items():
            parts.append(
                f'@kernel("{dtype}* a, {dtype}* b, {dtype}* out")\ndef {dtype}_{name}(ctx, a, b, out):\n'
                f"    vstore(out, 0, vload(a, 0, 16) {op} vload(b, 0, 16))\n"
            )
    for dtype in ("f32", "f64", "i32", "u8"):
        for name, op in COMPARE.items():
            parts.append(
                f'@kernel("{dtype}* a, {dtype}* b, bool* out")\ndef {dtype}_{name}(ctx, a, b, out):\n'
                f"    vstore(out, 0, vload(a, 0, 16) {op} vload(b, 0, 16))\n"
            )
    for dtype in ("f32", "f64"):
        for name, op in {"add": "+", "sub": "-", "mul": "*", "div": "/", "floordiv": "//", "mod": "%"}.items():
            parts.append(
                f'@kernel("{dtype}* a, {dtype}* b, {dtype}* out")\ndef {dtype}_{name}(ctx, a, b, out):\n'
                f"    vstore(out, 0, vload(a, 0, 16) {op} vload(b, 0, 16))\n"
            )
    return "\n".join(parts)


OPERATORS = _operator_source()


@pytest.mark.parametrize("name", [line[4:].split("(")[0] for line in OPERATORS.splitlines() if line.startswith("def ")])
def test_operators(run_both, name):
    dtype, operation = name.split("_")
    rng = np.random.default_rng(4)
    t = NAMES[dtype]
    if dtype.startswith("f"):
        a, b = rng.uniform(-9, 9, 16).astype(t), rng.uniform(-3, 3, 16).astype(t)
        if operation in COMPARE:
            a[:4], b[2:6] = np.nan, np.nan
            b[8:] = a[8:]
    else:
        low = 0 if dtype.startswith("u") else -50
        a, b = rng.integers(low, 50, 16).astype(t), rng.integers(low, 50, 16).astype(t)
        b[b == 0] = 3
        if operation in SHIFTS:
            b = (np.arange(16) % 7).astype(t)
    out = np.zeros(16, bool if operation in COMPARE else t)
    native, plain = run_both(OPERATORS, name, a, b, out)
    if dtype.startswith("f") and operation in ("div", "mod"):
        np.testing.assert_allclose(native[2], plain[2], rtol=3e-6, atol=1e-6)
    else:
        np.testing.assert_array_equal(native[2], plain[2])


MIXED = """
@kernel("f32* x, f32* out, i32* k, i32* kout")
def mixed(ctx, x, out, k, kout):
    v = vload(x, 0, 16)
    v *= f32(0.5)
    out[0] += f32(1.0)
    a = x[2]
    vstore(out, 0, v * a + f32(1.0))
    vstore(out, 16, f32(2.0) - v)
    vstore(out, 32, -v)
    vstore(out, 48, select(a > f32(0.0), v, -v))
    vstore(out, 64, maximum(v, f32(0.0)))
    vstore(out, 80, fma(v, a, f32(3.0)))
    vstore(kout, 0, vload(k, 0, 16) * 3 - 1)
    vstore(kout, 16, ~vload(k, 0, 16))
    vstore(kout, 32, minimum(vload(k, 0, 16), 4))
    vstore(kout, 48, abs(vload(k, 0, 16)))
    vstore(kout, 64, sign(vload(k, 0, 16)))

@kernel("f32* x, f32* out, i32* k, i32* kout")
def reduced(ctx, x, out, k, kout):
    v = vload(x, 0, 16)
    out[0] = vreduce_add(v)
    out[1] = vreduce_mul(v)
    out[2] = vreduce_max(v)
    out[3] = vreduce_min(v)
    out[4] = vreduce_add(vload(x, 0, 48))
    out[5] = vreduce_max(vload(x, 32, 16))
    kout[0] = vreduce_add(vload(k, 0, 16))
    kout[1] = vreduce_max(vload(k, 0, 16))
    kout[2] = vreduce_min(vload(k, 0, 16))

@kernel("f32* x, f32* y, f32* out, bool* flags")
def extremes(ctx, x, y, out, flags):
    vstore(out, 0, minimum(vload(x, 0, 16), vload(y, 0, 16)))
    vstore(out, 16, maximum(vload(x, 0, 16), vload(y, 0, 16)))
    for i in range(16):
        out[32 + i] = minimum(x[i], y[i])
        out[48 + i] = maximum(x[i], f32(0.0))
        out[64 + i] = sign(x[i])
    vstore(flags, 0, isnan(vload(x, 0, 16)))
    vstore(flags, 16, isinf(vload(x, 0, 16)))
    vstore(flags, 32, logical_and(vload(x, 0, 16), vload(y, 0, 16)))
    vstore(flags, 48, logical_not(vload(x, 0, 16)))
    vstore(out, 80, sign(vload(x, 0, 16)))

@kernel("i64* a, i64* b, i64* out, i64 n")
def scalars(ctx, a, b, out, n):
    for i in range(n):
        out[i * 8] = a[i] // b[i]
        out[i * 8 + 1] = a[i] % b[i]
        out[i * 8 + 2] = a[i] * b[i] - a[i]
        out[i * 8 + 3] = a[i] // 7
        out[i * 8 + 4] = a[i] % 16
        out[i * 8 + 5] = floordiv_pos(a[i] * a[i], 5) + floormod_pos(a[i] * a[i], 5)
        out[i * 8 + 6] = select(a[i] < b[i], a[i], b[i])
        out[i * 8 + 7] = i64(f32(a[i]) / f32(4.0)) + minimum(a[i], 3)
"""


def test_mixed_vectors_and_scalars(run_both):
    k = np.arange(-8, 8, dtype=np.int32)
    native, plain = run_both(MIXED, "mixed", _floats(16), np.zeros(96, np.float32), k, np.zeros(80, np.int32))
    np.testing.assert_allclose(native[1], plain[1], rtol=1e-6)
    np.testing.assert_array_equal(native[3], plain[3])


def test_reductions(run_both):
    x = _floats(48)
    x[40] = np.nan
    k = np.arange(-8, 8, dtype=np.int32)
    native, plain = run_both(MIXED, "reduced", x, np.zeros(6, np.float32), k, np.zeros(3, np.int32))
    np.testing.assert_allclose(native[1], plain[1], rtol=1e-6)
    np.testing.assert_array_equal(native[3], plain[3])
    assert np.isnan(native[1][5])


def test_minimum_and_maximum_propagate_nan(run_both):
    x, y = _floats(16), _floats(32)[16:].copy()
    x[[0, 3]], y[[1, 3]], x[5], x[6], x[7] = np.nan, np.nan, np.inf, -np.inf, 0.0
    native, plain = run_both(MIXED, "extremes", x, y, np.zeros(96, np.float32), np.zeros(64, bool))
    np.testing.assert_array_equal(native[2], plain[2])
    np.testing.assert_array_equal(native[3], plain[3])
    assert np.isnan(native[2][[0, 1, 3, 16, 17, 19]]).all()


def test_integer_division_floors(run_both):
    rng = np.random.default_rng(5)
    a, b = rng.integers(-99, 99, 50), rng.integers(1, 9, 50) * rng.choice([-1, 1], 50)
    _same(run_both(MIXED, "scalars", a, b, np.zeros(400, np.int64), 50))
