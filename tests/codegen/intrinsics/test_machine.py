"""Instructions that only some machines have: the plain twin, the machine code where this machine has it, the text elsewhere."""

from __future__ import annotations

import numpy as np
import pytest

from tensorlang.build import compile_source
from tensorlang.codegen.intrinsics import vdpbf16
from tensorlang.codegen.native import CpuTarget, run_plain
from tests.codegen.intrinsics.conftest import HEADER

VNNI = """
@kernel("i32* c, u8* a, i8* b")
def dot(ctx, c, a, b):
    vstore(c, 0, vpdpbusd(vload(c, 0, 16), vload_repeated(a, 1, 4, 16), vload(b, 0, 64)))
"""
BF16 = """
@kernel("f32* c, bf16* a, bf16* b")
def dot(ctx, c, a, b):
    vstore(c, 0, vdpbf16(vload(c, 0, 16), vload_repeated(a, 0, 2, 16), vload(b, 0, 32)))
"""
ARM = """
@kernel("i32* c, i8* a, i8* b, u32* d, u8* e")
def dot(ctx, c, a, b, d, e):
    vstore(c, 0, sdot(vload(c, 0, 4), vload_repeated(a, 0, 4, 4), vload(b, 0, 16)))
    vstore(d, 0, udot(vload(d, 0, 4), vload_repeated(e, 0, 4, 4), vload(e, 4, 16)))
"""
AMX = """
@instruction("i32* c, i8* a, i8* b", requires="amx-tile amx-int8")
def step(ctx, c, a, b):
    amx_load(0, c, 16)
    amx_load(4, a, 64)
    amx_load(6, b, 64)
    amx_dot_i8(0, 4, 6)
    amx_store(0, c, 16)

@kernel("i32* c, i8* a, i8* b, f32* d, bf16* e, bf16* f")
def dot(ctx, c, a, b, d, e, f):
    amx_configure(16, 16)
    step(ctx, c, a, b)
    amx_load(1, d, 16)
    amx_load(5, e, 32)
    amx_load(7, f, 32)
    amx_dot_bf16(1, 5, 7)
    amx_store(1, d, 16)
    amx_release()

@kernel("i32* c, u8* a, i8* b, i64 rows, i64 groups")
def small(ctx, c, a, b, rows, groups):
    amx_configure(rows, groups)
    amx_zero(3)
    amx_load(4, a, 4 * groups + 8)
    amx_load(6, b, 64)
    amx_dot_u8(3, 4, 6)
    amx_dot_u8(3, 4, 6)
    amx_store(3, c, 20)
    amx_release()
"""
SAPPHIRE = "+avx512f,+avx512vl,+avx512dq,+avx512bw,+amx-tile,+amx-int8,+amx-bf16"


@pytest.mark.skipif(not CpuTarget.host().has("avx512vnni"), reason="this machine has no VNNI")
def test_vnni_sums_exactly_and_wraps(run_both):
    rng = np.random.default_rng(0)
    c = rng.integers(-(2**31), 2**31, 16).astype(np.int32)
    a, b = rng.integers(0, 256, 8).astype(np.uint8), rng.integers(-128, 128, 64).astype(np.int8)
    native, plain = run_both(VNNI, "dot", c, a, b)
    np.testing.assert_array_equal(native[0], plain[0])
    wanted = (c.astype(np.int64) + b.reshape(16, 4).astype(np.int64) @ a[1:5].astype(np.int64)).astype(np.uint32)
    np.testing.assert_array_equal(native[0].view(np.uint32), wanted)


def test_amx_assembles_and_asks_for_permission_before_any_tile_is_touched():
    target = CpuTarget.of("x86_64-unknown-linux-gnu", "sapphirerapids", SAPPHIRE)
    text = compile_source(HEADER + AMX, target, emit="asm").decode()
    for instruction in ("tdpbssd", "tdpbf16ps", "tileloadd", "tilestored", "ldtilecfg"):
        assert instruction in text
    kernel = text[text.index("dot:") : text.index(".size\tdot")]
    assert "syscall" in kernel and "tl.amx_permitted" in kernel[: kernel.index("ldtilecfg")]


@pytest.mark.skipif(not CpuTarget.host().has("amx-int8"), reason="this machine has no AMX")
@pytest.mark.parametrize(("rows", "groups"), [(16, 16), (1, 1), (7, 12), (16, 3)])
def test_tiles_of_any_shape(run_both, rows, groups):
    rng = np.random.default_rng(3)
    c, a = np.zeros(20 * 16, np.int32), rng.integers(0, 256, 16 * (4 * groups + 8)).astype(np.uint8)
    b = rng.integers(-128, 128, 64 * groups).astype(np.int8)
    native, plain = run_both(AMX, "small", c, a, b, rows, groups)
    np.testing.assert_array_equal(native[0], plain[0])
    left = a.reshape(16, -1)[:rows, : 4 * groups].astype(int)
    right = b.reshape(groups, 16, 4).transpose(0, 2, 1).reshape(4 * groups, 16).astype(int)
    np.testing.assert_array_equal(native[0].reshape(16, 20)[:rows, :16], 2 * (left @ right))
    assert not native[0].reshape(16, 20)[rows:].any() and not native[0].reshape(16, 20)[:, 16:].any()


def test_bf16_products_assemble():
    target = CpuTarget.of("x86_64-unknown-linux-gnu", "", "+avx512f,+avx512vl,+avx512dq,+avx512bw,+avx512bf16")
    text = compile_source(HEADER + BF16, target, emit="asm").decode()
    assert "vdpbf16ps" in text and "%zmm" in text


def test_the_twin_of_bf16_products():
    rng = np.random.default_rng(2)
    c, a, b = (rng.standard_normal(n).astype(t) for n, t in ((16, np.float32), (32, "bfloat16"), (32, "bfloat16")))
    exact = c + (a.astype(float) * b.astype(float)).reshape(16, 2).sum(axis=1)
    np.testing.assert_allclose(vdpbf16(c, a, b), exact, rtol=1e-6, atol=1e-6)


def test_the_dot_products_of_arm_assemble():
    target = CpuTarget.of("aarch64-unknown-linux-gnu", "", "+neon,+dotprod")
    text = compile_source(HEADER + ARM, target, emit="asm").decode()
    assert "sdot\tv" in text and "udot\tv" in text


def test_the_plain_twins(tmp_path):
    rng = np.random.default_rng(1)
    c, a, b = (
        rng.integers(-9, 9, 256).astype(np.int32),
        *(rng.integers(-128, 128, 1024).astype(np.int8) for _ in range(2)),
    )
    d, e, f = (
        rng.standard_normal(256).astype(np.float32),
        *(rng.standard_normal(512).astype("bfloat16") for _ in range(2)),
    )
    wanted = c.reshape(16, 16) + a.reshape(16, 64).astype(int) @ b.reshape(16, 16, 4).transpose(0, 2, 1).reshape(
        64, 16
    ).astype(int)
    floats = d.reshape(16, 16) + e.reshape(16, 32).astype(float) @ f.reshape(16, 16, 2).transpose(0, 2, 1).reshape(
        32, 16
    ).astype(float)
    run_plain(HEADER + AMX, tmp_path / "amx.py")["dot"](None, c, a, b, d, e, f)
    np.testing.assert_array_equal(c.reshape(16, 16), wanted)
    np.testing.assert_allclose(d.reshape(16, 16), floats, rtol=1e-4, atol=1e-4)
    c, a, b = c[:4].copy(), a[:4], b[:16]
    u, e8 = rng.integers(0, 9, 4).astype(np.uint32), rng.integers(0, 256, 20).astype(np.uint8)
    want_s = c + b.reshape(4, 4).astype(int) @ a.astype(int)
    want_u = u + e8[4:].reshape(4, 4).astype(int) @ e8[:4].astype(int)
    run_plain(HEADER + ARM, tmp_path / "arm.py")["dot"](None, c, a, b, u, e8)
    np.testing.assert_array_equal(c, want_s)
    np.testing.assert_array_equal(u, want_u)


OFFSET = """
@kernel("f32* x, f32* out, i64 n")
def shifted(ctx, x, out, n):
    y = offset(x, n)
    out[0] = y[1]
    vstore(offset(out, 2), 0, vload_repeated(y, 2, 2, 4))
"""


def test_offset_and_repeated_loads(run_both):
    x = np.arange(16, dtype=np.float32)
    native, plain = run_both(OFFSET, "shifted", x, np.zeros(10, np.float32), 5)
    np.testing.assert_array_equal(native[1], plain[1])
    np.testing.assert_array_equal(native[1], [6, 0, 7, 8, 7, 8, 7, 8, 7, 8])
