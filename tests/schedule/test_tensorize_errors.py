"""What tensorize refuses: nests that are not what an intrinsic means, instructions that are not, and bad declarations."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tensorlang import te
from tensorlang.build import build
from tensorlang.codegen.native import CpuTarget
from tensorlang.errors import BuildError, ScheduleError, TypeCheckError
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import const, load, var
from tensorlang.ir.stmt import Block, For, Iter, PrimFunc, Store
from tensorlang.schedule import Schedule
from tensorlang.te import instructions as hw
from tests.schedule.test_tensorize import GEMV, GEMV_BODY, check, row_sums, tiled_matmul


@te.compute
def dot8(a: te.f32[8], b: te.f32[8]):
    k = te.reduce_axis(8, name="k")
    return te.compute((1,), lambda i: te.sum(a[k] * b[k], axis=k), name="c")


DOT8 = te.tensor_intrin(dot8, None, name="test.dot8")


@te.compute
def add8(a: te.f32[8], b: te.f32[8]):
    return te.compute((8,), lambda i: a[i] + b[i], name="c")


@te.tensor_intrin(add8, name="test.add8")
def vector_add(c, a, b):
    hw.vstore(c, 0, hw.vload(a, 0, 8) + hw.vload(b, 0, 8))


def refuse(match, step, *args, **kwargs):
    """The step is refused with a message that has all of `match`."""
    with pytest.raises(ScheduleError) as caught:
        step(*args, **kwargs)
    for text in [match] if isinstance(match, str) else match:
        assert re.search(text, str(caught.value)), f"{text!r} is not in\n{caught.value}"


def elementwise(fcompute, shape=(4, 32), inputs=("x", "z"), dtype="f32"):
    tensors = [te.placeholder(shape, dtype, name=n) for n in inputs]
    out = te.compute(shape, lambda i, j: fcompute(*(t[i, j] for t in tensors)), name="out")
    s = Schedule(te.create_prim_func("f", tensors, [out]))
    _, ji = s["out"].split(s["out"].axis[1], 8)
    return s, s["out"], ji


# -- the nest is another computation -----------------------------------------------------------------------------------


def test_another_operation_shows_both_texts():
    s, out, ji = elementwise(lambda x, z: x * z)
    refuse(
        [r"the operations differ", r"intrinsic means: a\[i\] \+ b\[i\]", r"program has: +x\[i, j_o \* 8 \+ j_i\] \*"],
        out.tensorize,
        ji,
        vector_add,
    )
    assert "tensor_intrin" not in str(s)


def test_the_deepest_difference_is_shown():
    s, out, ji = elementwise(lambda x, z: x + te.exp(z))
    refuse(
        [r"a tensor's element is wanted", r"intrinsic means: b\[i\]", r"program has: +exp\(z"],
        out.tensorize,
        ji,
        vector_add,
    )


def test_another_type():
    s, out, ji = elementwise(lambda x, z: x + z, dtype="f64")
    refuse("one is f32, the other f64", out.tensorize, ji, vector_add)


def test_other_extents():
    s, out, ji = elementwise(lambda x, z: x + z)
    _, ji = out.split(ji, 4)
    refuse([r"extents of the loops differ", r"i in 8 \(spatial\)", r"j_i_i in 4"], out.tensorize, ji, vector_add)


def test_other_numbers_of_loops():
    s, out, ji = elementwise(lambda x, z: x + z)
    refuse("tile has 3 loop.s., the intrinsic 1", out.tensorize, out.loops[0], vector_add)


def test_another_reducer():
    x = te.placeholder((4, 8), name="x")
    k = te.reduce_axis(8, name="k")
    y = te.compute((4,), lambda i: te.max(x[i, k], axis=k), name="y")
    s = Schedule(te.create_prim_func("f", [x], [y]))
    refuse("operations differ", s["y"].tensorize, s["y"].axis[0], GEMV)


def test_a_reduction_is_no_elementwise_intrinsic():
    s, y, tile = tiled_matmul()
    refuse("y is a reduction and test.add8 is none", y.tensorize, tile, vector_add)


def test_a_place_that_is_bound_twice_differently():
    @te.compute
    def square(a: te.f32[8]):
        return te.compute((8,), lambda i: a[i] * a[i], name="c")

    intrin = te.tensor_intrin(square, None, name="test.square")
    s, out, ji = elementwise(lambda x, z: x * z)
    refuse(r"a lies at x\[i, j_o \* 8\] already", out.tensorize, ji, intrin)
    s, out, ji = elementwise(lambda x, z: x * x)
    out.tensorize(ji, intrin)
    check(s)


# -- layouts -----------------------------------------------------------------------------------------------------------


def test_a_stride_that_the_instruction_does_not_take():
    x = te.placeholder((32, 4), name="x")
    out = te.compute((4, 32), lambda i, j: x[j, i] + x[j, i], name="out")
    s = Schedule(te.create_prim_func("f", [x], [out]))
    _, ji = s["out"].split(s["out"].axis[1], 8)
    refuse(["takes no a_stride0", "stride 1", "stride 4"], s["out"].tensorize, ji, vector_add)


def test_an_index_that_is_not_linear():
    x = te.placeholder((32,), name="x")
    out = te.compute((4, 32), lambda i, j: x[j // 2] + x[j], name="out")
    s = Schedule(te.create_prim_func("f", [x], [out]))
    _, ji = s["out"].split(s["out"].axis[1], 8)
    refuse("not linear in the tile's loops", s["out"].tensorize, ji, vector_add)


def test_an_operand_that_is_written_too():
    x, i = Buffer("x", (const(40),), "f32"), var("i")
    v = var("vi")
    body = Store(x, (v,), load(x, (v + 8,)) + load(x, (v + 16,)))
    s = Schedule(PrimFunc("f", (x,), For(i, const(8), "serial", Block("x", (Iter(v, const(8), "spatial", i),), body))))
    refuse("x is written and is also another operand", s["x"].tensorize, s["x"].axis[0], vector_add)


def test_a_reduction_along_what_the_intrinsic_takes_for_rows():
    """y[j] sums over i too: as a tile of c with stride 0 along i it would be written over and over."""

    @te.compute
    def product(a: te.f32[4, 8], b: te.f32[8, 4]):
        k = te.reduce_axis(8, name="k")
        return te.compute((4, 4), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), name="c")

    x, w = te.placeholder((4, 8), name="x"), te.placeholder((8, 4), name="w")
    i, k = te.reduce_axis(4, name="i"), te.reduce_axis(8, name="k")
    y = te.compute((4,), lambda j: te.sum(x[i, k] * w[k, j], axis=[i, k]), name="y")
    s = Schedule(te.create_prim_func("f", [x, w], [y]))
    intrin = te.tensor_intrin(product, None, name="test.product")
    refuse("two points of the tile may write the same element of y", s["y"].tensorize, s["y"].axis[0], intrin)


# -- partial tiles, reductions outside ---------------------------------------------------------------------------------


def test_partial_tiles_are_refused_with_the_remedy():
    s, out, ji = elementwise(lambda x, z: x + z, shape=(4, 30))
    refuse(
        ["only part of the tile is computed, where j_o \\* 8 \\+ j_i < 30", "pad_einsum", "loop_partition"],
        out.tensorize,
        ji,
        vector_add,
    )


def test_partial_tiles_of_symbolic_sizes():
    s, out, ji = elementwise(lambda x, z: x + z, shape=(4, te.var("N")))
    refuse("only part of the tile is computed", out.tensorize, ji, vector_add)


def test_an_intrinsic_without_update_inside_of_a_reduction():
    s, y, tile = tiled_matmul()
    refuse("k_o reduces outside of the tile, and test.gemv_body has no update part", y.tensorize, tile, GEMV_BODY)


def test_vector_loops_inside():
    s, out, ji = elementwise(lambda x, z: x + z)
    out.vectorize(ji)
    refuse("j_i is vectorized", out.tensorize, ji, vector_add)


def test_loops_of_one_iteration():
    s, out, ji = elementwise(lambda x, z: x + z)
    _, one = out.split(out.loops[0], 1)
    refuse("one iteration only", out.tensorize, one, vector_add)


def test_an_unknown_name():
    s, out, ji = elementwise(lambda x, z: x + z)
    refuse(["no tensor intrinsic 'nothing'", "test.add8", "x86.vnni_dot4"], out.tensorize, ji, "nothing")


# -- later steps -------------------------------------------------------------------------------------------------------


def test_steps_on_the_loops_of_a_tile():
    s, y, tile = tiled_matmul()
    inner = y.loops[-1]
    y.tensorize(tile, GEMV)
    for step in (
        lambda: y.split(inner, 1),
        lambda: y.vectorize(tile),
        lambda: y.fuse(tile, inner),
        lambda: y.tensorize(inner, DOT8),
    ):
        refuse("tensorized with test.gemv; do this step before", step)
    check(s)


def test_steps_that_would_dissolve_a_tile():
    x, w = te.placeholder((8, 10), name="x"), te.placeholder((10, 6), name="w")
    k = te.reduce_axis(10, name="k")
    y = te.compute((8, 6), lambda i, j: te.sum(x[i, k] * w[k, j], axis=k), name="y")
    out = te.compute((8, 6), lambda i, j: te.maximum(y[i, j], 0.0), name="out")
    s = Schedule(te.create_prim_func("f", [x, w], [out]))
    i, j = s["y"].axis
    s["y"].reorder(j, i)
    _, ii = s["y"].split(i, 4)
    s["y"].tensorize(ii, GEMV)
    before = str(s)
    with pytest.raises(ScheduleError):
        s["y"].compute_at(s["out"], s["out"].axis[1])  # one row and column: the tile would have one row
    assert str(s) == before


def test_a_step_that_makes_tiles_partial():
    s, out, ji = elementwise(lambda x, z: x + z)
    out.tensorize(ji, vector_add)
    out.split(out.loops[1], 3)  # guards whole tiles
    check(s)


# -- the pair ----------------------------------------------------------------------------------------------------------


def test_an_instruction_that_is_wrong_is_refused_with_a_counterexample():
    def wrong(c, a, b):
        hw.vstore(c, 0, hw.vload(a, 0, 8) - hw.vload(b, 0, 8))

    intrin = te.tensor_intrin(add8, wrong, name="test.wrong")
    s, out, ji = elementwise(lambda x, z: x + z)
    refuse(
        [r"intrinsic test.wrong: its body", r"run as plain Python", r"c\[0\] is -?\d", r"should be"],
        out.tensorize,
        ji,
        intrin,
    )
    assert "tensor_intrin" not in str(s)


def test_a_wrong_update_on_random_strides():
    def wrong(c, c_stride0, a, a_stride0, a_stride1, b, b_stride0, K):
        for i in range(4):
            for k in range(K):
                c[i * c_stride0] = c[i * c_stride0] + a[i * K + k] * b[k * b_stride0]

    intrin = te.tensor_intrin(row_sums, wrong, name="test.wrong_strides")
    s, y, tile = tiled_matmul()
    refuse(["its update", "a \\[4, .*strides"], y.tensorize, tile, intrin)


def test_a_wrong_reset():
    def wrong(c, c_stride0):
        for i in range(4):
            c[i * c_stride0] = hw.f32(1.0)

    def update(c, c_stride0, a, a_stride0, a_stride1, b, b_stride0, K):
        for i in range(4):
            for k in range(K):
                c[i * c_stride0] = c[i * c_stride0] + a[i * a_stride0 + k * a_stride1] * b[k * b_stride0]

    intrin = te.tensor_intrin(row_sums, update, reset=wrong, name="test.wrong_reset")
    s, y, tile = tiled_matmul()
    refuse("its reset", y.tensorize, tile, intrin)


def test_an_instruction_that_writes_beyond_its_tile():
    def wide(c, a, b):
        hw.vstore(c, 0, hw.vload(a, 0, 8) + hw.vload(b, 0, 8))
        c[8] = c[7]

    intrin = te.tensor_intrin(add8, wide, name="test.wide")
    s, out, ji = elementwise(lambda x, z: x + z)
    refuse("fails, run as plain Python|outside of the tile", out.tensorize, ji, intrin)


def test_an_instruction_that_reads_beyond_its_tile():
    def wide(c, a, b):
        hw.vstore(c, 0, hw.vload(a, 0, 8) + hw.vload(b, 0, 8) + hw.vsplat(a[8] * hw.f32(0.0), 8))

    intrin = te.tensor_intrin(add8, wide, name="test.wide_read")
    s, out, ji = elementwise(lambda x, z: x + z)
    refuse("IndexError", out.tensorize, ji, intrin)


def test_an_instruction_that_changes_an_input():
    def wrong(c, a, b):
        hw.vstore(c, 0, hw.vload(a, 0, 8) + hw.vload(b, 0, 8))
        hw.vstore(a, 0, hw.vload(b, 0, 8))

    intrin = te.tensor_intrin(add8, wrong, name="test.changes_input")
    s, out, ji = elementwise(lambda x, z: x + z)
    refuse(r"a\[0\] is", out.tensorize, ji, intrin)


def test_an_instruction_that_numba_cannot_type():
    def bad(c, a, b):
        for i in range(8):
            c[i] = hw.vsplat(a[i] + b[i], 1)[0]

    intrin = te.tensor_intrin(add8, bad, name="test.untyped")
    s, out, ji = elementwise(lambda x, z: x + z)
    refuse("does not compile", out.tensorize, ji, intrin)


# -- machines ----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(CpuTarget.host().has("dotprod"), reason="this machine has Arm's dot product")
def test_an_instruction_that_this_machine_lacks():
    def schedule(**kwargs):
        x, w = te.placeholder((6, 4), "i8", name="x"), te.placeholder((4, 4), "i8", name="w")
        k = te.reduce_axis(4, name="k")
        y = te.compute((6, 4), lambda i, j: te.sum(te.cast("i32", x[i, k]) * te.cast("i32", w[j, k]), axis=k), name="y")
        s = Schedule(te.create_prim_func("f", [x, w], [y]))
        s["y"].tensorize(s["y"].axis[1], "arm.sdot4", **kwargs)
        return s

    with pytest.raises(BuildError, match="lacks: dotprod"):
        build(schedule())
    check(schedule(fallback=True))


def test_a_program_that_names_an_intrinsic_nobody_registered():
    s, out, ji = elementwise(lambda x, z: x + z)
    out.tensorize(ji, vector_add)
    text = str(s).replace("test.add8", "test.gone")
    from tensorlang.ir.parser import parse_func  # noqa: PLC0415

    with pytest.raises(ScheduleError, match="test.gone"):
        build(Schedule(parse_func(text)))


# -- declarations ------------------------------------------------------------------------------------------------------


def test_parameters_that_no_instruction_has():
    def odd(c, a, scale):
        pass

    with pytest.raises(TypeCheckError, match="takes scale; an instruction of add8 may take c, c_stride0, a"):
        te.tensor_intrin(add8, odd, name="test.odd")


def test_an_instruction_that_does_not_take_an_operand():
    def odd(c, a):
        hw.vstore(c, 0, hw.vload(a, 0, 8))

    with pytest.raises(TypeCheckError, match="does not take b; it has to take every tensor and every size"):
        te.tensor_intrin(add8, odd, name="test.odd")


def test_names_that_no_instruction_knows():
    def odd(c, a, b):
        np.add(a, b, c)

    with pytest.raises(TypeCheckError, match="np.add is nothing that an instruction knows"):
        te.tensor_intrin(add8, odd, name="test.odd")


def test_meanings_of_several_stages():
    @te.compute
    def two(a: te.f32[8]):
        b = te.compute((8,), lambda i: a[i] + 1.0, name="b")
        return te.compute((8,), lambda i: b[i] * 2.0, name="c")

    with pytest.raises(TypeCheckError, match="has to be one stage with one output; two has 2"):
        te.tensor_intrin(two, None, name="test.two")


def test_reset_of_what_is_no_reduction():
    def reset(c):
        pass

    with pytest.raises(TypeCheckError, match="parts of reductions"):
        te.tensor_intrin(add8, None, reset=reset, name="test.no_reset")


def test_lambdas():
    with pytest.raises(TypeCheckError, match="def, not as a lambda"):
        te.tensor_intrin(add8, lambda c, a, b: None, name="test.lambda")
