"""f16 and bf16 in te programs: stored as halves, computed in f32, rounded to nearest even on the way back."""

import ml_dtypes
import numpy as np
import pytest

from tensorlang import te
from tensorlang.build import build
from tensorlang.schedule import Schedule
from tests.te.test_reducers import everywhere, program

RNG = np.random.default_rng(11)
NUMPY = {"f16": np.float16, "bf16": ml_dtypes.bfloat16}
HALVES = pytest.mark.parametrize("dtype", ["f16", "bf16"])


def every_value(dtype):
    """All 65536 bit patterns."""
    return np.arange(1 << 16, dtype=np.uint16).view(NUMPY[dtype])


@HALVES
def test_widening_is_exact(dtype):
    x = te.placeholder((te.var("n"),), dtype, name="x")
    kernel = build(program([x], [te.compute(x.shape, lambda i: te.cast("f32", x[i]), name="y")]))
    a = every_value(dtype)
    np.testing.assert_array_equal(kernel(a), a.astype(np.float32))


@HALVES
def test_narrowing_rounds_to_nearest_even(dtype):
    x = te.placeholder((te.var("n"),), "f32", name="x")
    kernel = build(program([x], [te.compute(x.shape, lambda i: te.cast(dtype, x[i]), name="y")]))
    whole = every_value(dtype).astype(np.float32)
    whole = whole[np.isfinite(whole)].astype(np.float64)
    a = np.concatenate([whole, whole * 1.00048828125, RNG.standard_normal(4096, dtype=np.float32) * 1e-3])
    ties = (whole[:-1] + whole[1:]) / 2
    with np.errstate(over="ignore"):
        a = np.concatenate([a, ties, [np.inf, -np.inf, np.nan, 3.4e38, 1e-45]]).astype(np.float32)
    with np.errstate(over="ignore"):
        got, expected = kernel(a), a.astype(NUMPY[dtype])
    nan = np.isnan(a)
    assert np.isnan(got[nan].astype(np.float32)).all()
    np.testing.assert_array_equal(got[~nan].view(np.uint16), expected[~nan].view(np.uint16))


@HALVES
def test_copies_keep_every_bit(dtype):
    x = te.placeholder((te.var("n"),), dtype, name="x")
    kernel = build(program([x], [te.compute(x.shape, lambda i: x[i], name="y")]))
    a = every_value(dtype)
    np.testing.assert_array_equal(kernel(a).view(np.uint16), a.view(np.uint16))


@HALVES
@pytest.mark.parametrize("vector", [False, True])
def test_arithmetic(dtype, vector):
    """Masked, strided, gathered and broadcast accesses; constants; functions; comparisons; both arms of a condition."""
    n = te.var("n")
    x = te.placeholder((2 * n,), dtype, name="x")
    at = te.placeholder((n,), "i64", name="at")

    def fn(i):
        y = te.exp(x[2 * i]) * te.const(0.75, dtype) + te.maximum(x[at[i]], x[0])
        return te.if_then_else(x[i] > te.const(0.0, dtype), y, -x[i])

    func = program([x, at], [te.compute((n,), fn, name="y")])
    s = Schedule(func)
    if vector:
        _, lane = s["y"].split(s["y"].axis[0], 8)
        s["y"].vectorize(lane)
    a, index = RNG.standard_normal(42).astype(NUMPY[dtype]), RNG.integers(0, 42, 21)
    w = a.astype(np.float32)
    expected = np.where(w[:21] > 0, np.exp(w[::2]) * 0.75 + np.maximum(w[index], w[0]), -w[:21]).astype(NUMPY[dtype])
    got = build(s)(a, index)
    assert got.dtype == expected.dtype
    # one unit in the last place: exp is a polynomial, and may end on the other side of a tie
    ulp = {"f16": 2.0**-10, "bf16": 2.0**-7}[dtype]
    np.testing.assert_allclose(got.astype(np.float32), expected.astype(np.float32), rtol=ulp, atol=1e-7)


@HALVES
def test_sums_are_rounded_once(dtype):
    """2049 ones: an accumulator of halves would stop at 2048 (f16) or 256 (bf16)."""
    m, n = te.var("m"), te.var("n")
    x = te.placeholder((m, n), dtype, name="x")
    k = te.reduce_axis(n, name="k")
    func = program([x], [te.compute((m,), lambda i: te.sum(x[i, k], axis=k), name="y")])
    got = build(func)(np.ones((3, 3000), NUMPY[dtype]))
    assert got.astype(np.float32).tolist() == [float(NUMPY[dtype](3000))] * 3


@HALVES
def test_matmul(dtype):
    x, w = te.placeholder((33, 40), dtype, name="x"), te.placeholder((40, 50), dtype, name="w")
    k = te.reduce_axis(40, name="k")
    y = te.compute((33, 50), lambda i, j: te.sum(x[i, k] * w[k, j], axis=k), name="y")
    out = te.compute((33, 50), lambda i, j: te.maximum(y[i, j], te.const(0, dtype)), name="out")
    a, b = RNG.standard_normal((33, 40)).astype(NUMPY[dtype]), RNG.standard_normal((40, 50)).astype(NUMPY[dtype])
    got = build(program([x, w], [out]))(a, b)
    expected = np.maximum(a.astype(np.float32) @ b.astype(np.float32), 0)
    np.testing.assert_allclose(got.astype(np.float32), expected, rtol=2.0**-7, atol=0.02)


@HALVES
def test_argmax(dtype):
    x = te.placeholder((6, 19), dtype, name="x")
    k = te.reduce_axis(19, name="k")
    best = te.compute((6,), lambda i: te.argmax(x[i, k], axis=k), name="best")
    a = RNG.integers(-3, 3, (6, 19)).astype(NUMPY[dtype])
    index, value = everywhere(program([x], best), [a])
    assert np.array_equal(index, a.astype(np.float32).argmax(1)) and np.array_equal(value, a.max(1))


@HALVES
@pytest.mark.parametrize("other", ["bool", "i8", "u8", "i16", "u16", "i32", "u32", "i64", "u64", "f64"])
def test_conversions(dtype, other):
    x, y = te.placeholder((64,), dtype, name="x"), te.placeholder((64,), other, name="y")
    out = te.compute((64,), lambda i: (te.cast(other, x[i]), te.cast(dtype, y[i])), name="out")
    a = RNG.integers(0, 100, 64).astype(NUMPY[dtype])
    numpy = y.dtype.numpy
    b = RNG.integers(0, 2 if other == "bool" else 100, 64).astype(numpy)
    there, back = build(program([x, y], out))(a, b)
    np.testing.assert_array_equal(there, a.astype(np.float32).astype(numpy))
    np.testing.assert_array_equal(back, b.astype(np.float32).astype(NUMPY[dtype]))
