"""The intrinsics that come with the CPU schedules: each does what it means, in a matmul, and assembles for its machine."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tensorlang import te
from tensorlang.build import build, compile_source, lower_kernel
from tensorlang.codegen.emit import HEADER
from tensorlang.codegen.native import CpuTarget
from tensorlang.errors import ScheduleError
from tensorlang.ir.tensor_intrin import names, registered
from tensorlang.schedule import Schedule
from tensorlang.schedule.tensorize import find_intrinsic
from tests.schedule.test_tensorize import calls, check

SHIPPED = ("x86.fma_tile_6x64", "x86.vnni_dot4", "x86.amx_i8", "x86.amx_bf16", "arm.sdot4", "arm.udot4")
AMX = CpuTarget.of(
    "x86_64-unknown-linux-gnu", "sapphirerapids", "+avx512f,+avx512vl,+avx512dq,+avx512bw,+amx-tile,+amx-int8,+amx-bf16"
)
ARM = CpuTarget.of("aarch64-unknown-linux-gnu", "", "+neon,+dotprod")
HAS_VNNI = CpuTarget.host().has("avx512vnni") and CpuTarget.host().vector_bits == 512


@pytest.mark.parametrize("name", SHIPPED)
def test_the_instruction_does_what_it_means(name):
    intrin = find_intrinsic(name)
    intrin.verify(intrin)  # as plain Python, and as machine code where this machine has the features
    assert name in names() and intrin.requires


def asm_of(s: Schedule, target: CpuTarget) -> str:
    return compile_source(f"{HEADER}\n\n{lower_kernel(s, cpu=target).emitted.text}", target, emit="asm").decode()


def f32_matmul(m=12, n=128, k=24) -> Schedule:
    x, w = te.placeholder((m, k), name="x"), te.placeholder((k, n), name="w")
    r = te.reduce_axis(k, name="k")
    y = te.compute((m, n), lambda i, j: te.sum(x[i, r] * w[r, j], axis=r), name="y")
    s = Schedule(te.create_prim_func("matmul", [x, w], [y]))
    stage = s["y"]
    i, j = stage.axis
    (r,) = stage.reduce_axis
    io, ii = stage.split(i, 6)
    jo, ji = stage.split(j, 64)
    ro, ri = stage.split(r, 12)
    stage.reorder(ro, jo, io, ii, ji, ri)
    stage.tensorize(ii, "x86.fma_tile_6x64", fallback=True)
    return s


def test_the_fma_tile_in_a_matmul():
    s = f32_matmul()
    check(s)
    if CpuTarget.host().has("avx512f"):
        assert calls(s) == ["x86.fma_tile_6x64.reset", "x86.fma_tile_6x64.update"]


@pytest.mark.skipif(not HAS_VNNI, reason="needs AVX-512")
def test_the_sums_of_the_fma_tile_stay_in_registers():
    text = build(f32_matmul()).asm
    inner = max(re.findall(r"\.LBB\d+_\d+:.*?\n\tj\w+\t\.LBB", text, re.DOTALL), key=lambda loop: loop.count("vfmadd"))
    assert inner.count("vfmadd") == 24
    assert inner.count("(%rsp)") == 0


def i8_matmul(m=12, n=64, k=16) -> Schedule:
    """A register tile of 6 rows by 4 vectors, the packed operand in the order of the instruction."""
    x, w = te.placeholder((m, k), "u8", name="x"), te.placeholder((n, k), "i8", name="w")
    packed = te.compute((n // 64, k // 4, 64, 4), lambda a, c, b, q: w[a * 64 + b, c * 4 + q], name="packed")
    r = te.reduce_axis(k, name="k")
    acc = te.compute(
        (m, n),
        lambda i, j: te.sum(te.cast("i32", packed[j // 64, r // 4, j % 64, r % 4]) * te.cast("i32", x[i, r]), axis=r),
        name="acc",
    )
    y = te.compute((m, n), lambda i, j: acc[i, j], name="y")
    s = Schedule(te.create_prim_func("matmul", [x, w], [y]))
    out, acc = s["y"], s["acc"]
    i, j = out.axis
    io, ii = out.split(i, 6)
    jo, ji = out.split(j, 64)
    out.reorder(jo, io, ii, ji)
    acc.compute_at(out, io)
    ai, aj = acc.axis
    (r,) = acc.reduce_axis
    ajo, aji = acc.split(aj, 16)
    ro, ri = acc.split(r, 4)
    acc.reorder(ro, ai, ajo, aji, ri)
    acc.tensorize(aji, "x86.vnni_dot4", fallback=True)
    _, lane = out.split(ji, 16)
    out.vectorize(lane)
    return s


def test_vnni_in_a_matmul():
    check(i8_matmul())


@pytest.mark.skipif(not HAS_VNNI, reason="needs VNNI")
def test_the_sums_of_vnni_stay_in_registers():
    text = build(i8_matmul(k=256)).asm
    inner = max(
        re.findall(r"\.LBB\d+_\d+:.*?\n\tj\w+\t\.LBB", text, re.DOTALL), key=lambda loop: loop.count("vpdpbusd")
    )
    assert inner.count("vpdpbusd") in (24, 48)
    assert not re.search(r"vmovdq\w+\t[^\n]*\(%rsp\)", inner)


def amx_matmul(dtype: str, out: str, pairs: int, name: str) -> Schedule:
    m, n, k = 32, 32, 32 * pairs
    x = te.placeholder((m, k), dtype, name="x")
    w = te.placeholder((n // 16, k // pairs, 16, pairs), dtype, name="w")
    r = te.reduce_axis(k, name="k")
    y = te.compute(
        (m, n),
        lambda i, j: te.sum(te.cast(out, x[i, r]) * te.cast(out, w[j // 16, r // pairs, j % 16, r % pairs]), axis=r),
        name="y",
    )
    s = Schedule(te.create_prim_func("matmul", [x, w], [y]))
    stage = s["y"]
    i, j = stage.axis
    (r,) = stage.reduce_axis
    io, ii = stage.split(i, 16)
    jo, ji = stage.split(j, 16)
    ro, ri = stage.split(r, 16 * pairs)
    rk, rq = stage.split(ri, pairs)
    stage.reorder(io, jo, ro, ii, ji, rk, rq)
    stage.tensorize(ii, name)
    return s


@pytest.mark.parametrize(
    ("dtype", "out", "pairs", "name", "instruction"),
    [("i8", "i32", 4, "x86.amx_i8", "tdpbssd"), ("bf16", "f32", 2, "x86.amx_bf16", "tdpbf16ps")],
)
def test_amx_in_a_matmul_assembles(dtype, out, pairs, name, instruction):
    s = amx_matmul(dtype, out, pairs, name)
    assert calls(s) == [f"{name}.reset", f"{name}.update"]
    text = asm_of(s, AMX)
    assert instruction in text and "tileloadd" in text


def test_the_dot_product_of_arm_in_a_matmul_assembles():
    x, w = te.placeholder((6, 16), "i8", name="x"), te.placeholder((2, 4, 4, 4), "i8", name="w")
    r = te.reduce_axis(16, name="k")
    y = te.compute(
        (6, 8),
        lambda i, j: te.sum(te.cast("i32", x[i, r]) * te.cast("i32", w[j // 4, r // 4, j % 4, r % 4]), axis=r),
        name="y",
    )
    s = Schedule(te.create_prim_func("matmul", [x, w], [y]))
    _, ji = s["y"].split(s["y"].axis[1], 4)
    ro, ri = s["y"].split(s["y"].reduce_axis[0], 4)
    s["y"].reorder(ro, ji, ri)
    s["y"].tensorize(ji, "arm.sdot4")
    assert re.search(r"sdot\s+v\d+\.4s", asm_of(s, ARM))


def test_layouts_that_the_packed_operand_does_not_have():
    x, w = te.placeholder((6, 16), "u8", name="x"), te.placeholder((64, 16), "i8", name="w")
    r = te.reduce_axis(16, name="k")
    y = te.compute((6, 64), lambda i, j: te.sum(te.cast("i32", x[i, r]) * te.cast("i32", w[j, r]), axis=r), name="y")
    s = Schedule(te.create_prim_func("matmul", [x, w], [y]))
    _, ji = s["y"].split(s["y"].axis[1], 16)
    ro, ri = s["y"].split(s["y"].reduce_axis[0], 4)
    s["y"].reorder(ro, ji, ri)
    with pytest.raises(ScheduleError, match="takes no b_stride0"):
        s["y"].tensorize(ji, "x86.vnni_dot4")


def test_the_fma_tile_takes_other_sizes():
    from tensorlang.schedules.cpu.intrinsics import fma_tile

    intrin = fma_tile(4, 32)
    assert registered("x86.fma_tile_4x32") is intrin
    intrin.verify(intrin)


def test_small_numbers():
    """i32 wraps as in the interpreter: sums of extremes."""
    s = i8_matmul()
    x, w = np.full((12, 16), 255, np.uint8), np.full((64, 16), -128, np.int8)
    np.testing.assert_array_equal(build(s)(x, w), x.astype(np.int32) @ w.T.astype(np.int32))
