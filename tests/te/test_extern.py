"""te.extern: functions of the user as stages, in the interpreter, natively and with the jit off."""

from dataclasses import replace

import numba
import numpy as np
import pytest

from tensorlang import te
from tensorlang.build import Kernel, build
from tensorlang.errors import BuildError, InputError, ScheduleError, TypeCheckError
from tensorlang.ir import packed
from tensorlang.ir.expr import load, var
from tensorlang.ir.interp import run
from tensorlang.ir.packed import PackedCallError
from tensorlang.ir.stmt import For, Store, seq
from tensorlang.schedule import Schedule
from tests.te.test_reducers import everywhere, program

RNG = np.random.default_rng(7)


def sort_rows(x, out):
    out[...] = np.sort(x, axis=1)


def sorted_rows(m=None, n=None):
    m, n = m or te.var("m"), n or te.var("n")
    x = te.placeholder((m, n), name="x")
    doubled = te.compute((m, n), lambda i, j: x[i, j] * 2.0, name="doubled")
    y = te.extern((m, n), [doubled], sort_rows)
    return x, te.compute((m, n), lambda i, j: y[i, j] + 1.0, name="out")


def test_numpy_function_between_stages():
    x, out = sorted_rows()
    a = RNG.standard_normal((5, 7), dtype=np.float32)
    (got,) = everywhere(program([x], [out]), [a])
    np.testing.assert_allclose(got, np.sort(a * 2, axis=1) + 1, rtol=1e-6)


def test_text(golden):
    x, out = sorted_rows()
    golden(str(replace(program([x], [out]), attrs={})))


def test_with_the_jit_off():
    x, out = sorted_rows()
    kernel = build(program([x], [out]))
    plain = Kernel(kernel.lowered, kernel.original, replace(kernel.settings, jit=False))
    a = RNG.standard_normal((3, 4), dtype=np.float32)
    assert np.array_equal(plain(a), kernel(a))


def test_several_outputs_and_types():
    x = te.placeholder((6,), "i16", name="x")

    def split(x, order, half):
        order[...] = np.argsort(x, kind="stable")
        half[...] = x / 2

    order, half = te.extern([(6,), (6,)], [x], split, dtype=["i64", "f64"])
    a = RNG.integers(-9, 9, 6).astype(np.int16)
    got = everywhere(program([x], [order, half]), [a])
    assert np.array_equal(got[0], np.argsort(a, kind="stable")) and np.array_equal(got[1], a / 2)


def test_numba_function():
    @numba.njit
    def running(x, out):
        total = 0.0
        for i in range(len(x)):
            total += x[i]
            out[i] = total

    x = te.placeholder((te.var("n"),), name="x")
    out = te.extern(x.shape, [x], running, name="running")
    a = RNG.standard_normal(9, dtype=np.float32)
    (got,) = everywhere(program([x], [out]), [a])
    np.testing.assert_allclose(got, np.cumsum(a), rtol=1e-5)


def test_what_it_raises_reaches_the_caller():
    def broken(x, out):
        raise ZeroDivisionError("no such thing")

    x = te.placeholder((4,), name="x")
    y = te.extern((4,), [x], broken)
    out = te.compute((4,), lambda i: y[i] + 1.0, name="out")
    kernel, a = build(program([x], [out])), np.ones(4, np.float32)
    for _ in range(2):
        with pytest.raises(PackedCallError, match="broken.*ZeroDivisionError: no such thing"):
            kernel(a)
    with pytest.raises(PackedCallError, match="no such thing"):
        run(kernel.original, [a, a.copy()])


def test_inputs_are_read_only():
    def writes(x, out):
        x[0] = 1

    x = te.placeholder((4,), name="x")
    kernel = build(program([x], [te.extern((4,), [x], writes)]))
    with pytest.raises(PackedCallError, match="read-only"):
        kernel(np.zeros(4, np.float32))


def test_readers_stay_behind_it():
    x, out = sorted_rows(4, 4)
    s = Schedule(program([x], [out]))
    with pytest.raises(ScheduleError):
        s["sort_rows"].compute_inline()
    with pytest.raises(ScheduleError):
        s["doubled"].compute_inline()
    with pytest.raises(ScheduleError):
        s["sort_rows"].compute_at(s["out"], s["out"].axis[0])
    with pytest.raises(ScheduleError, match="as a whole"):
        s["doubled"].transform_layout(lambda i, j: (j, i))


def test_its_input_and_output_may_be_copied():
    x, out = sorted_rows(4, 4)

    def copied(s):
        s.cache_read("doubled", "global")
        s.cache_read("sort_rows", "global", ["out"])
        s["out"].vectorize(s["out"].axis[1])

    everywhere(program([x], [out]), [RNG.standard_normal((4, 4), dtype=np.float32)], copied)


def test_statement_of_the_ir():
    def reverse(ins, outs):
        i = var("i")
        n = ins[0].shape[0]
        return seq(
            For(i, n, "serial", Store(outs[0], (i,), load(ins[0], (n - 1 - i,)))),
            Store(outs[0], (n * 0,), load(outs[0], (n * 0,)) * 2.0),
        )

    x = te.placeholder((te.var("n"),), name="x")
    out = te.extern_ir(x.shape, [x], reverse, name="reverse")
    a = RNG.standard_normal(9, dtype=np.float32)
    func = program([x], [out])
    (got,) = everywhere(func, [a])
    expected = a[::-1].copy()
    expected[0] *= 2
    assert np.array_equal(got, expected)
    s = Schedule(func)
    with pytest.raises(ScheduleError, match="part of the statement"):
        s["reverse"].split(s.loop("i"), 2)


def test_refusals():
    x = te.placeholder((4,), name="x")
    other = te.placeholder((4,), name="other")
    with pytest.raises(TypeCheckError, match="a list of tensors"):
        te.extern((4,), [3], sort_rows)
    with pytest.raises(TypeCheckError, match="dtype= is needed"):
        te.extern((4,), [], sort_rows)
    with pytest.raises(TypeCheckError, match="takes a function"):
        te.extern((4,), [x], None)
    with pytest.raises(TypeCheckError, match="reads other, which is no input"):
        te.extern_ir((4,), [x], lambda i, o: Store(o[0], (var("i") * 0,), load(other.buffer, (0,))))
    with pytest.raises(TypeCheckError, match="does not write"):
        te.extern_ir((4,), [x], lambda i, o: seq())
    with pytest.raises(InputError, match="registered already"):
        packed.register("test_refusals", sort_rows)
        packed.register("test_refusals", test_text)
    with pytest.raises(BuildError, match="no packed function"):
        packed.lookup("nowhere")


STEPS = {
    "inline": lambda s: s["sort_rows"].compute_inline(),
    "inline_producer": lambda s: s["doubled"].compute_inline(),
    "at": lambda s: s["sort_rows"].compute_at(s["out"], s["out"].axis[0]),
    "copy": lambda s: s.cache_write("sort_rows", "local"),
    "copy_producer": lambda s: s.cache_write("doubled", "local"),
    "copy_reader": lambda s: s.cache_write("out", "local"),
    "read": lambda s: s.cache_read("sort_rows", "local"),
    "read_input": lambda s: s.cache_read("doubled", "local"),
    "read_first": lambda s: s.cache_read("x", "local"),
    "layout": lambda s: s["doubled"].transform_layout(lambda i, j: (j, i)),
    "layout_output": lambda s: s["sort_rows"].transform_layout(lambda i, j: (j, i)),
    "reader_at": lambda s: s["doubled"].compute_at(s["out"], s["out"].axis[0]),
    "vectorize": lambda s: s["out"].vectorize(s["out"].axis[1]),
    "shift": lambda s: s["doubled"].split(s["doubled"].axis[1], 3, tail="shift_inwards"),
    "fuse": lambda s: s["doubled"].fuse(*s["doubled"].axis),
    "parallel": lambda s: s["doubled"].parallel(s["doubled"].axis[0]),
    "storage": lambda s: s["doubled"].storage_align(0, 16, 0),
}


@pytest.mark.parametrize("step", STEPS)
def test_steps_are_refused_or_right(step):
    x, out = sorted_rows(4, 7)
    func = program([x], [out])
    s = Schedule(func)
    try:
        STEPS[step](s)
    except (ScheduleError, AttributeError):
        assert s.func is func
        return
    a = RNG.standard_normal((4, 7), dtype=np.float32)
    got = np.empty_like(a)
    run(s.func, [a, got])
    np.testing.assert_allclose(got, np.sort(a * 2, axis=1) + 1, rtol=1e-6)
    np.testing.assert_allclose(build(s)(a), got, rtol=1e-6)
