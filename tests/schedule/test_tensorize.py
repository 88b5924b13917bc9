"""blockize and tensorize: what they make, that the meaning stays (interpreter, machine code, jit off), how a trace replays."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from tensorlang import te
from tensorlang.build import build, compile_source, lower_kernel
from tensorlang.codegen.native import CpuTarget
from tensorlang.errors import BuildError, ScheduleError
from tensorlang.ir import interp
from tensorlang.ir.parser import parse_func
from tensorlang.ir.stmt import Evaluate
from tensorlang.ir.tensor_intrin import TENSORIZED
from tensorlang.ir.visitor import walk_stmt
from tensorlang.schedule import Schedule
from tensorlang.te import instructions as hw

LANES = 8


@te.compute
def axpy(a: te.f32[()], b: te.f32[LANES]):
    return te.compute((LANES,), lambda i: b[i] * a[()] + 1.0, name="c")


@te.tensor_intrin(axpy, name="test.axpy")
def axpy8(c, a, b):
    hw.vstore(c, 0, hw.vload(b, 0, LANES) * hw.vsplat(a[0], LANES) + hw.vsplat(hw.f32(1.0), LANES))


@te.compute
def row_sums(a: te.f32[4, "K"], b: te.f32["K"]):  # noqa: UP037
    k = te.reduce_axis(a.shape[1], name="k")
    return te.compute((4,), lambda i: te.sum(a[i, k] * b[k], axis=k), name="c")


def gemv_update(c, c_stride0, a, a_stride0, a_stride1, b, b_stride0, K):
    """Any layout."""
    for i in range(4):
        total = c[i * c_stride0]
        for k in range(K):
            total = total + a[i * a_stride0 + k * a_stride1] * b[k * b_stride0]
        c[i * c_stride0] = total


def gemv_reset(c, c_stride0):
    for i in range(4):
        c[i * c_stride0] = hw.f32(0.0)


def gemv_body(c, c_stride0, a, a_stride0, a_stride1, b, b_stride0, K):
    for i in range(4):
        total = hw.f32(0.0)
        for k in range(K):
            total = total + a[i * a_stride0 + k * a_stride1] * b[k * b_stride0]
        c[i * c_stride0] = total


GEMV = te.tensor_intrin(row_sums, gemv_update, reset=gemv_reset, name="test.gemv")
GEMV_WHOLE = te.tensor_intrin(row_sums, gemv_update, reset=gemv_reset, body=gemv_body, name="test.gemv_whole")
GEMV_BODY = te.tensor_intrin(row_sums, None, body=gemv_body, name="test.gemv_body")
GEMV_UPDATE = te.tensor_intrin(row_sums, gemv_update, name="test.gemv_update")
GEMV_LOOPS = te.tensor_intrin(row_sums, None, name="test.gemv_loops")


@te.compute
def matmul(x: te.f32["M", "K"], w: te.f32["K", "N"]):  # noqa: UP037
    M, K = x.shape
    _, N = w.shape
    k = te.reduce_axis(K, name="k")
    return te.compute((M, N), lambda i, j: te.sum(w[k, j] * x[i, k], axis=k), name="y")


def check(s: Schedule, **sizes: int) -> np.ndarray:
    """The scheduled program equals the first one in the interpreter, as machine code and with the jit off."""
    rng = np.random.default_rng(1)
    of = {v: sizes[v.name] for v in s.original.size_vars}
    arrays = []
    for b in s.original.inputs:
        shape = tuple(interp.evaluate_size(d, of) for d in b.shape)
        whole = (
            rng.integers(np.iinfo(b.dtype.numpy).min, np.iinfo(b.dtype.numpy).max, shape) if b.dtype.is_int else None
        )
        arrays.append((rng.standard_normal(shape) if whole is None else whole).astype(b.dtype.numpy))
    out = s.original.outputs[0]
    wanted = np.empty(tuple(interp.evaluate_size(d, of) for d in out.shape), out.dtype.numpy)
    interp.run(s.original, [*arrays, wanted, *of.values()])
    again = np.empty_like(wanted)
    interp.run(s.func, [*arrays, again, *of.values()])
    np.testing.assert_allclose(again, wanted, rtol=1e-5, atol=1e-5)
    lowered = lower_kernel(s).stages[-1].func
    interp.run(lowered, [*arrays, again.reshape(-1), *of.values()])
    np.testing.assert_allclose(again, wanted, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(build(s)(*arrays), wanted, rtol=1e-4, atol=1e-5)
    plain = build(s)
    plain.settings = replace(plain.settings, jit=False)
    np.testing.assert_allclose(plain(*arrays), wanted, rtol=1e-4, atol=1e-5)
    return wanted


def calls(s: Schedule) -> list[str]:
    """The tensor intrinsics that the lowered program calls, in order."""
    lowered = lower_kernel(s).stages[-1].func
    return [n.expr.value for n in walk_stmt(lowered.body) if isinstance(n, Evaluate)]


def tiled_matmul(m=8, n=6, k=10, split_k=True):
    s = te.create_schedule(matmul, shapes={"M": m, "N": n, "K": k})
    y = s["y"]
    i, j = y.axis
    (r,) = y.reduce_axis
    io, ii = y.split(i, 4)
    if split_k:
        ro, ri = y.split(r, 5)
        y.reorder(j, io, ro, ii, ri)
        return s, y, ii
    y.reorder(j, io, ii, r)
    return s, y, ii


# -- what they make ----------------------------------------------------------------------------------------------------


def test_the_nest_stays_and_the_build_calls_the_instruction(golden):
    s, y, tile = tiled_matmul()
    y.tensorize(tile, GEMV)
    program = str(s).split("\n", 1)[1]  # without its attributes, which name this file
    text = re.sub(r"(# test_tensorize.py):\d+", r"\1", lower_kernel(s).emitted.text)
    golden(f"{program}\n\n{text}")
    assert calls(s) == ["test.gemv.reset", "test.gemv.update"]
    check(s)


def test_a_plain_stage_is_tensorized():
    x, scale = te.placeholder((4, 32), name="x"), te.placeholder((4,), name="scale")
    out = te.compute((4, 32), lambda i, j: 1.0 + scale[i] * x[i, j], name="out")
    s = Schedule(te.create_prim_func("f", [x, scale], [out]))
    _, ji = s["out"].split(s["out"].axis[1], LANES)
    s["out"].tensorize(ji, axpy8)
    assert calls(s) == ["test.axpy.body"]
    check(s)


def test_a_whole_reduction_takes_the_body():
    s, y, tile = tiled_matmul(split_k=False)
    y.tensorize(tile, GEMV_WHOLE)
    assert calls(s) == ["test.gemv_whole.body"]
    check(s)


def test_an_intrinsic_that_is_only_a_body():
    s, y, tile = tiled_matmul(split_k=False)
    y.tensorize(tile, GEMV_BODY)
    assert calls(s) == ["test.gemv_body.body"]
    check(s)


def test_without_reset_the_tile_is_initialised_by_loops():
    s, y, tile = tiled_matmul()
    y.tensorize(tile, GEMV_UPDATE)
    assert calls(s) == ["test.gemv_update.update"]
    check(s)


def test_an_intrinsic_without_instruction_runs_its_loops():
    s, y, tile = tiled_matmul()
    y.tensorize(tile, GEMV_LOOPS)
    assert calls(s) == []
    check(s)


def test_after_decompose_reduction_both_parts_are_calls_where_they_fit():
    s, y, tile = tiled_matmul()
    y.tensorize(tile, GEMV)
    y.decompose_reduction(y.loops[2])
    assert calls(s)[-1] == "test.gemv.update"
    check(s)


def test_the_reduction_loop_of_a_tile_may_come_first():
    s, y, tile = tiled_matmul(split_k=False)
    y.reorder(y.loops[3], tile)
    y.tensorize(y.loops[2], GEMV)
    assert "test.gemv.update" in calls(s)
    check(s)


def test_strides_follow_the_layout():
    s, y, tile = tiled_matmul()
    y.tensorize(tile, GEMV)
    text = lower_kernel(s).emitted.text
    assert ", 6, offset(x," in text and ", 10, 1, offset(w," in text  # y and w by columns of 6, x by rows of 10
    check(s)


def test_rows_that_storage_align_moves_apart():
    x, w = te.placeholder((8, 10), name="x"), te.placeholder((10, 6), name="w")
    k = te.reduce_axis(10, name="k")
    copy = te.compute((8, 10), lambda i, j: x[i, j] * 2.0, name="copy")
    y = te.compute((8, 6), lambda i, j: te.sum(copy[i, k] * w[k, j], axis=k), name="y")
    s = Schedule(te.create_prim_func("f", [x, w], [y]))
    s["copy"].storage_align(0, 16)
    i, j = s["y"].axis
    _, ii = s["y"].split(i, 4)
    s["y"].reorder(j, ii)
    s["y"].tensorize(ii, GEMV_WHOLE)
    assert ", 16, 1, offset(w," in lower_kernel(s).emitted.text
    check(s)


def test_symbolic_sizes():
    s = te.create_schedule(matmul, shapes={"M": 8})
    y = s["y"]
    i, j = y.axis
    (r,) = y.reduce_axis
    _, ii = y.split(i, 4)
    y.reorder(j, ii, r)
    y.tensorize(ii, GEMV_WHOLE)
    assert calls(s) == ["test.gemv_whole.body"]
    check(s, N=5, K=7)


def test_tiles_in_private_memory():
    x, w = te.placeholder((8, 10), name="x"), te.placeholder((10, 6), name="w")
    k = te.reduce_axis(10, name="k")
    y = te.compute((8, 6), lambda i, j: te.sum(x[i, k] * w[k, j], axis=k), name="y")
    out = te.compute((8, 6), lambda i, j: te.maximum(y[i, j], 0.0), name="out")
    s = Schedule(te.create_prim_func("f", [x, w], [out]))
    io, _ = s["out"].split(s["out"].axis[0], 4)
    s["y"].compute_at(s["out"], io)
    i, j = s["y"].axis
    s["y"].reorder(j, i)
    s["y"].tensorize(i, GEMV)
    s["out"].parallel(io)
    assert "test.gemv.update" in calls(s)
    check(s)


def test_loops_outside_of_a_tile_may_still_change():
    s, y, tile = tiled_matmul()
    y.tensorize(tile, GEMV)
    j, io, ro = y.loops[:3]
    y.reorder(io, j)
    both = y.fuse(io, j)
    y.split(both, 5)  # ragged: guards whole tiles, never parts of them
    y.parallel(y.loops[0])
    check(s)


# -- text, trace, proof ------------------------------------------------------------------------------------------------


def test_the_program_parses_back():
    s, y, tile = tiled_matmul()
    y.tensorize(tile, GEMV)
    again = parse_func(str(s.func))
    assert str(again) == str(s.func)
    lowered = str(lower_kernel(s).stages[-1].func)
    assert str(parse_func(lowered)) == lowered
    np.testing.assert_array_equal(*(build(Schedule(f))(*_inputs()) for f in (s.func, again)))


def _inputs():
    rng = np.random.default_rng(3)
    return rng.standard_normal((8, 10), np.float32), rng.standard_normal((10, 6), np.float32)


def test_a_trace_replays_by_the_intrinsics_name():
    s, y, tile = tiled_matmul()
    y.tensorize(tile, GEMV, fallback=True)
    fresh = te.create_schedule(matmul, shapes={"M": 8, "N": 6, "K": 10})
    s.trace.replay(fresh)
    assert str(fresh) == str(s) and "tensor_fallback" in str(s)
    assert lower_kernel(fresh).emitted.text == lower_kernel(s).emitted.text


def test_the_step_is_proved():
    s, y, tile = tiled_matmul()
    y.tensorize(tile, GEMV)
    assert s.proof[-1].verdict.status == "proved"
    assert s.proof[-1].verdict.reason == "unified, its instruction tried"


def test_legality_sees_the_accesses_inside_a_tile():
    s, y, tile = tiled_matmul()
    y.tensorize(tile, GEMV)
    with pytest.raises(ScheduleError, match="reduction loop"):
        y.parallel(y.loops[2])  # ko: its iterations accumulate into the same elements


# -- blockize ----------------------------------------------------------------------------------------------------------


def test_blockize_makes_a_unit():
    s, y, tile = tiled_matmul()
    y.blockize(tile)
    assert "blockized=True" in str(s)
    for step in (
        lambda: y.split(tile, 2),
        lambda: y.vectorize(y.loops[-1]),
        lambda: y.reorder(y.loops[-1], tile),
        lambda: y.rfactor(y.loops[-1]),
        lambda: y.unroll(tile),
    ):
        with pytest.raises(ScheduleError, match="unit at loop i_i, which was blockized"):
            step()
    y.split(y.loops[0], 3)
    check(s)
    y.tensorize(tile, GEMV)
    check(s)


def test_blockize_takes_perfect_nests_only():
    x = te.placeholder((8, 8), name="x")
    a = te.compute((8, 8), lambda i, j: x[i, j] + 1.0, name="a")
    b = te.compute((8, 8), lambda i, j: a[i, j] * 2.0, name="b")
    s = Schedule(te.create_prim_func("f", [x], [b]))
    s["a"].compute_at(s["b"], s["b"].axis[0])
    with pytest.raises(ScheduleError, match="a tile is loops around one block"):
        s["b"].blockize(s["b"].axis[0])


# -- machines ----------------------------------------------------------------------------------------------------------


def vnni_schedule(fallback=False):
    x, w = te.placeholder((6, 16), "u8", name="x"), te.placeholder((2, 4, 16, 4), "i8", name="w")
    k = te.reduce_axis(16, name="k")
    y = te.compute(
        (6, 32),
        lambda i, j: te.sum(te.cast("i32", x[i, k]) * te.cast("i32", w[j // 16, k // 4, j % 16, k % 4]), axis=k),
        name="y",
    )
    s = Schedule(te.create_prim_func("f", [x, w], [y]))
    stage = s["y"]
    _, j = stage.axis
    (k,) = stage.reduce_axis
    _, ji = stage.split(j, 16)
    ko, ki = stage.split(k, 4)
    stage.reorder(ko, ji, ki)
    stage.tensorize(ji, "x86.vnni_dot4", fallback=fallback)
    return s


def test_vnni():
    s = vnni_schedule()
    assert calls(s) == ["x86.vnni_dot4.reset", "x86.vnni_dot4.update"]
    source = build(s).source
    assert "vpdpbusd" in source
    if CpuTarget.host().has("avx512vnni"):
        check(s)


def test_a_machine_without_the_instruction_is_a_build_error_or_falls_back():
    old = CpuTarget.of("x86_64-unknown-linux-gnu", "", "+avx2,+fma,+avx")
    s = vnni_schedule()
    source = "from tensorlang.codegen.intrinsics import *\n\n\n" + lower_kernel(s, cpu=old).emitted.text
    with pytest.raises(BuildError, match="avx512vnni"):
        compile_source(source, old)
    falling = lower_kernel(vnni_schedule(fallback=True), cpu=old)
    assert "vpdpbusd" not in falling.emitted.text and TENSORIZED not in str(falling.func)


@pytest.mark.skipif(not CpuTarget.host().has("sse4.1"), reason="an instruction of x86")
def test_any_intrinsic_of_llvm_in_an_instruction():
    @te.compute
    def mean_of_bytes(a: te.u8[16], b: te.u8[16]):
        return te.compute((16,), lambda i: te.cast("u8", (te.cast("i32", a[i]) + te.cast("i32", b[i]) + 1) // 2), name="c")

    @te.tensor_intrin(mean_of_bytes, name="test.pavgb", requires=["sse2"])
    def pavgb(c, a, b):
        hw.vstore(c, 0, hw.llvm_call("llvm.x86.sse2.pavg.b", hw.vload(a, 0, 16), hw.vload(b, 0, 16)))

    x, z = te.placeholder((4, 32), "u8", name="x"), te.placeholder((4, 32), "u8", name="z")
    out = te.compute(
        (4, 32), lambda i, j: te.cast("u8", (te.cast("i32", z[i, j]) + te.cast("i32", x[i, j]) + 1) // 2), name="out"
    )
    s = Schedule(te.create_prim_func("f", [x, z], [out]))
    _, ji = s["out"].split(s["out"].axis[1], 16)
    s["out"].tensorize(ji, pavgb)
    assert 'means="test.pavgb.body"' in build(s).source and "pavgb" in build(s).asm
    check(s)


# -- the remedies of partial tiles -------------------------------------------------------------------------------------


def test_pad_einsum_makes_tiles_whole():
    s = te.create_schedule(matmul, shapes={"M": 10, "N": 6, "K": 13})
    y = s["y"]
    y.pad_einsum([4, 1, 5])
    i, j = y.axis
    (r,) = y.reduce_axis
    io, ii = y.split(i, 4)
    ro, ri = y.split(r, 5)
    y.reorder(j, io, ro, ii, ri)
    y.tensorize(ii, GEMV)
    assert calls(s) == ["test.gemv.reset", "test.gemv.update"]
    check(s)


def test_loop_partition_leaves_whole_tiles():
    s = te.create_schedule(matmul, shapes={"M": 10, "N": 6, "K": 5})
    y = s["y"]
    i, j = y.axis
    (r,) = y.reduce_axis
    io, ii = y.split(i, 4)
    y.reorder(j, io, ii, r)
    with pytest.raises(ScheduleError, match="only part of the tile"):
        y.tensorize(ii, GEMV)
    y.loop_partition(io)
    y = s["y"]
    y.tensorize(y.loops[-2], GEMV)
    assert calls(s) == ["test.gemv.reset", "test.gemv.update"]
    check(s)
