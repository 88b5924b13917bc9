"""A register tile written as loops over a local array stays in vector registers: the project's central speed point."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tensorlang.build import compile_and_load, compile_source
from tensorlang.codegen.native import CpuTarget
from tensorlang.runtime.context import context_address

AVX512 = CpuTarget.of("x86_64-unknown-linux-gnu", "", "+avx512f,+avx512vl,+avx512dq,+avx512bw,+avx2,+fma,+f16c")
AVX2 = CpuTarget.of("x86_64-unknown-linux-gnu", "", "+avx,+avx2,+fma,+f16c")
NEON = CpuTarget.of("aarch64-unknown-linux-gnu")


def micro_kernel(rows: int, vectors: int, lanes: int) -> str:
    width = vectors * lanes
    tile = f"acc, i * {width} + j * {lanes}"
    return f"""
from tensorlang.codegen.intrinsics import *

@kernel("f32* a, f32* b, f32* c, i64 k_size")
def tile(ctx, a, b, c, k_size):
    acc = local_array(f32, {rows * width})
    for i in range({rows}):
        for j in range({vectors}):
            vstore({tile}, vsplat(f32(0.0), {lanes}))
    for k in range(k_size):
        for i in range({rows}):
            x = a[k * {rows} + i]
            for j in range({vectors}):
                vstore({tile}, vload({tile}, {lanes}) + vsplat(x, {lanes}) * vload(b, k * {width} + j * {lanes}, {lanes}))
    for i in range({rows}):
        for j in range({vectors}):
            vstore(c, i * {width} + j * {lanes}, vload({tile}, {lanes}))
"""


def inner_loop(asm: str, fma: str) -> list[str]:
    """The instructions of the loop that holds the multiply-adds: from its label to the jump back to it."""
    lines = asm.splitlines()
    uses = [k for k, line in enumerate(lines) if fma in line]
    start = max(k for k in range(uses[0]) if re.match(r"\.L\w+:", lines[k]))
    stop = next(k for k in range(uses[0], len(lines)) if lines[start].rstrip(":") in lines[k])
    return [line.strip() for line in lines[start + 1 : stop + 1]]


@pytest.mark.parametrize(
    ("target", "lanes", "rows", "vectors", "fma", "stack"),
    [
        (AVX512, 16, 6, 4, "vfmadd", "%rsp"),
        (AVX512, 16, 8, 3, "vfmadd", "%rsp"),
        (AVX512, 16, 14, 2, "vfmadd", "%rsp"),
        (AVX512, 16, 28, 1, "vfmadd", "%rsp"),
        (AVX2, 8, 6, 2, "vfmadd", "%rsp"),
        (AVX2, 8, 4, 3, "vfmadd", "%rsp"),
        (NEON, 4, 8, 3, "fmla", "[sp"),
    ],
)
def test_accumulators_stay_in_registers(settings, target, lanes, rows, vectors, fma, stack):
    asm = compile_source(micro_kernel(rows, vectors, lanes), target, emit="asm", settings=settings).decode()
    loop = inner_loop(asm, fma)
    copies = sum(fma in line for line in loop) / (rows * vectors)
    assert copies == int(copies) >= 1, "every accumulator once per step"
    assert not [line for line in loop if stack in line], "no spills in the loop"
    stores = [line for line in loop if re.match(r"(vmov\w+\s+%[xyz]mm\d+, .*\(|st[rp]\s+q)", line)]
    assert not stores, "no stores in the loop"


@pytest.mark.parametrize(("rows", "vectors"), [(6, 4), (14, 2)])
def test_the_tile_computes_a_product(settings, rows, vectors):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((50, rows), np.float32), rng.standard_normal((50, vectors * 16), np.float32)
    c = np.zeros((rows, vectors * 16), np.float32)
    tile = compile_and_load(micro_kernel(rows, vectors, 16), settings=settings)["tile"]
    assert tile(context_address(), a.ctypes.data, b.ctypes.data, c.ctypes.data, 50) == 0
    np.testing.assert_allclose(c, a.T @ b, atol=1e-4)
