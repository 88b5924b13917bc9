"""The figures of programs and what machine code does, against numbers worked out by hand."""

import json

import pytest
from hypothesis import given, note, strategies as st

from tensorlang import te
from tensorlang.build import build
from tensorlang.codegen.native.machine_code import HotLoops, hot_loops
from tensorlang.errors import InputError
from tensorlang.ir.expr import var
from tensorlang.schedule import Schedule
from tensorlang.schedule.figures import Level, figures_of
from tests.fuzz.budget import examples
from tests.fuzz.programs import programs
from tests.fuzz.steps import random_steps

KIB, MIB = 1024, 1024 * 1024


def matmul(m, n, k):
    x, w = te.placeholder((m, k), name="x"), te.placeholder((k, n), name="w")
    r = te.reduce_axis(k, "k")
    y = te.compute((m, n), lambda i, j: te.sum(x[i, r] * w[r, j], axis=r), name="y")
    return te.create_prim_func("matmul", [x, w], [y])


def test_naive_matmul():
    f, levels = figures_of(matmul(512, 512, 512), cache=MIB)
    assert f.flops == 2 * 512**3
    assert f.footprint == 3 * MIB
    assert f.lanes == 1
    assert levels == [
        Level(0, "i", "serial", 512, 1, 3 * MIB),
        Level(1, "j", "serial", 512, 512, MIB + 4 * KIB),  # all of w, a row of x and of y
        Level(2, "k", "serial", 512, 512 * 512, 4 * KIB + 4),  # a row, a column, an element
    ]
    assert f.bytes_moved == 512 * (MIB + 4 * KIB)  # w does not fit beside its rows: again for every i


@pytest.mark.parametrize(("cache", "moved"), [
    (4 * MIB, 3 * MIB),  # everything fits
    (2 * MIB, 3 * MIB),  # w stays, rows of x and y stream by
    (MIB, 512 * (MIB + 4 * KIB)),  # w is read for every row
    (4 * KIB, 512 * 512 * 512 * 12),  # not even a row and a column fit: three elements per point ...
])  # fmt: skip
def test_traffic_depends_on_the_cache(cache, moved):
    found = figures_of(matmul(512, 512, 512), cache=cache)[0].bytes_moved
    if cache == 4 * KIB:  # ... of which y stays during k
        moved = 512 * 512 * (512 * 8 + 4)
    assert found == moved


def test_a_tiled_matmul_moves_less():
    s = Schedule(matmul(512, 512, 512))
    y = s["y"]
    i, j = y.axis
    io, jo, ii, ji = y.tile(i, j, 64, 64)
    y.reorder(io, jo, y.reduce_axis[0], ii, ji)
    y.vectorize(ji)
    f, levels = figures_of(s.func, cache=512 * KIB)
    panel, tile = 64 * 512 * 4, 64 * 64 * 4
    by_loop = {v.loop: v for v in levels}
    assert by_loop["k"].working_set == 2 * panel + tile
    assert by_loop["k"].runs == 64
    assert by_loop["j_o"].working_set == panel + MIB + 64 * 512 * 4
    # in each of 8 rows of tiles: a panel of x once, 8 panels of w, 8 tiles of y
    assert f.bytes_moved == 8 * (panel + 8 * panel + 8 * tile)
    assert (f.flops, f.lanes) == (2 * 512**3, 64)
    # a fused loop goes through the same tiles in the same order
    y.fuse(io, jo)
    assert figures_of(s.func, cache=512 * KIB)[0].bytes_moved == 8 * (panel + 8 * panel + 8 * tile)


def test_guards_are_counted_out():
    s = Schedule(matmul(100, 30, 7))
    y = s["y"]
    y.tile(*y.axis, 16, 16)
    y.split(y.reduce_axis[0], 4)
    f, _ = figures_of(s.func)
    assert f.flops == 2 * 100 * 30 * 7
    assert f.footprint == 4 * (100 * 7 + 7 * 30 + 100 * 30)
    s = Schedule(matmul(100, 30, 7))
    s["y"].split(s["y"].axis[0], 16, tail="shift_inwards")
    assert figures_of(s.func)[0].flops == 2 * 112 * 30 * 7  # 12 rows are computed twice


def test_recomputation_counts_again():
    x = te.placeholder((34,), name="x")
    p = te.compute((34,), lambda i: x[i] * 2, name="p")
    y = te.compute((32,), lambda i: p[i] + p[i + 1] + p[i + 2], name="y")
    func = te.create_prim_func("f", [x], [y])
    assert figures_of(func)[0].flops == 34 + 2 * 32
    s = Schedule(func)
    io, _ = s["y"].split(s["y"].axis[0], 8)
    s["p"].compute_at(s["y"], io)
    assert figures_of(s.func)[0].flops == 4 * 10 + 2 * 32


def test_windows_that_overlap_move_once():
    x = te.placeholder((1002,), name="x")
    r = te.reduce_axis(3, "r")
    y = te.compute((1000,), lambda i: te.sum(x[i + r], axis=r), name="y")
    f, _ = figures_of(te.create_prim_func("f", [x], [y]), cache=64)
    assert f.bytes_moved == 4 * (1002 + 1000)


def test_data_dependent_guards_are_not_guessed():
    x, t = te.placeholder((8,), name="x"), te.placeholder((8,), "i64", name="t")
    y = te.compute((8,), lambda i: te.exp(x[t[i]]) + 1, name="y")
    f, _ = figures_of(te.create_prim_func("f", [x, t], [y]))
    assert f.flops == 16 and f.footprint == 8 * (4 + 8 + 4)


def test_symbolic_sizes():
    m, k = var("M"), var("K")
    func = matmul(m, 16, k)
    f, _ = figures_of(func, {"M": 10, "K": 4})
    assert f.flops == 2 * 10 * 16 * 4 and f.footprint == 4 * (40 + 64 + 160)
    with pytest.raises(InputError, match="depend on K"):
        figures_of(func, {"M": 10})
    kernel = build(func)
    unknown = kernel.explain(machine=False)
    assert unknown.before is None and "depend on M, K" in str(unknown)
    assert kernel.explain({"M": 10, "K": 4}, machine=False).before == f
    with pytest.raises(InputError):
        kernel.explain({"M": 10}, machine=False)


def test_a_kernel_explains_every_step():
    s = Schedule(matmul(64, 64, 64))
    y = s["y"]
    io, ii = y.split(y.axis[0], 4)
    jo, ji = y.split(y.axis[1], 16)
    y.reorder(io, jo, y.reduce_axis[0], ii, ji)
    y.vectorize(ji)
    kernel = build(s)
    e = kernel.explain(cache=8 * KIB)
    assert [r.step for r in e.steps] == [p.step for p in kernel.proof]
    assert [r.figures.lanes for r in e.steps] == [1, 1, 1, 16]
    assert e.before.bytes_moved == 64 * (64 * 64 * 4 + 64 * 4 + 64 * 4)
    # a tile of four rows: 64 steps of k need 4 rows of x, 64x16 of w, the tile; w is read 16 times in all
    assert e.steps[-1].figures.bytes_moved == 16 * (4 * 64 * 4 + 4 * 64 * 16 * 4 + 4 * 4 * 16 * 4)
    assert e.machine["vector_bits"] >= 128 and e.machine["loops"] >= 1
    assert e.machine["spills"] == 0
    assert json.loads(json.dumps(e.as_dict()))["steps"][-1]["figures"]["flops"] == 2 * 64**3
    text = str(e)
    assert "y.vectorize(j_i)" in text and "524,288" in text and "innermost loop" in text


ASM = """
f:
    subq $40, %rsp
    movq %rdi, 8(%rsp)
.LBB0_1:
    movq 8(%rsp), %rax
.LBB0_2:
    vmovups (%rax), %zmm0
    vmovups %zmm1, 64(%rsp)         # 64-byte Spill
    vaddps 128(%rsp), %zmm0, %zmm1
    leaq 16(%rsp), %rcx
    cmpq 24(%rsp), %rcx
    jne .LBB0_2
    jmp .LBB0_1
.LBB0_4:
    vmovups %ymm1, (%rax)
    jne .LBB0_4
    vmovups %xmm0, (%rsp)
    retq
"""


def test_stack_traffic_of_innermost_loops():
    assert hot_loops(ASM) == HotLoops(loops=2, spills=1, reloads=2, vector_bits=512)
    arm = "g:\n.LBB0_1:\n  ldr q0, [sp, #16]\n  fmla v1.4s, v0.4s, v2.4s\n  str q1, [sp, #32]\n  b.ne .LBB0_1\n  ret\n"
    assert hot_loops(arm) == HotLoops(loops=1, spills=1, reloads=1, vector_bits=128)
    assert hot_loops("h:\n  retq\n") == HotLoops(0, 0, 0, 0)


@examples(40)
@given(programs(), st.data())
def test_random_schedules_have_figures(program, data):
    s = Schedule(program.func)
    random_steps(data.draw, s, program)
    note(f"{s.trace}\n{s}")
    sizes = {v.name: n for v, n in program.symbols.items()}
    before, _ = figures_of(program.func, sizes)
    after, levels = figures_of(s.func, sizes)
    assert min(before.bytes_moved, after.bytes_moved, after.footprint) >= 0
    moves_nothing = {"split", "fuse", "reorder", "vectorize", "parallel", "unroll", "pragma", "tile", "annotate"}
    guarded = all(step.kwargs.get("tail", "guard") == "guard" for step in s.trace)
    if guarded and {step.primitive for step in s.trace} <= moves_nothing:
        assert after.flops in (before.flops, None) and after.footprint >= before.footprint
