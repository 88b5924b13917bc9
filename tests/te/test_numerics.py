"""What traced programs compute: by the interpreter, natively, and with the jit off, against NumPy."""

import math

import numpy as np
import pytest

import tensorlang as tl
from tensorlang import te
from tensorlang.ir.interp import run

RANDOM = np.random.default_rng(0)


def floats(*shape):
    return RANDOM.standard_normal(shape, dtype=np.float32)


def interpret(func, *arrays, shape, dtype=np.float32):
    out = np.empty(shape, dtype)
    run(func, [*arrays, out])
    return out


@te.compute
def dense(x: te.f32["M", "K"], w: te.f32["N", "K"], b: te.f32["N"], scale: float = 1.0):
    M, K = x.shape
    N, _ = w.shape
    k = te.reduce_axis(K, name="k")
    y = te.compute((M, N), lambda i, j: te.sum(x[i, k] * w[j, k], axis=k), name="y")
    return te.compute((M, N), lambda i, j: te.maximum(y[i, j] * scale + b[j], 0), name="out")


@te.compute
def windows(x: te.f32["H", "W"], size: int = 3):
    """Maxima over windows with a border of minus infinity, and the sums of rows."""
    H, W = x.shape
    r, c = te.reduce_axis(size, name="r"), te.reduce_axis(size, name="c")
    pad = size // 2

    def padded(i, j):
        inside = te.all_of(i >= pad, i < H + pad, j >= pad, j < W + pad)
        return te.if_then_else(inside, x[i - pad, j - pad], te.min_value("f32"))

    p = te.compute((H + 2 * pad, W + 2 * pad), padded, name="p")
    k = te.reduce_axis(W, name="k")
    return (
        te.compute((H, W), lambda i, j: te.max(p[i + r, j + c], axis=[r, c]), name="peaks"),
        te.compute((H,), lambda i: te.sum(x[i, k], axis=k), name="sums"),
    )


@te.compute
def lookup(table: te.f32["V", "D"], ids: te.i64["B", "L"]):
    D = table.shape[1]
    B, L = ids.shape
    return te.compute((B, L, D), lambda b, i, d: table[ids[b, i], d] * 2, name="rows")


@pytest.mark.parametrize(("m", "n", "k"), [(1, 1, 1), (5, 7, 3), (6, 64, 33)])
def test_dense(m, n, k):
    x, w, b = floats(m, k), floats(n, k), floats(n)
    expected = np.maximum(x @ w.T * np.float32(0.5) + b, 0)
    func = dense.prim_func(scale=0.5)  # one symbolic program for all sizes
    np.testing.assert_allclose(interpret(func, x, w, b, shape=(m, n)), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(dense(x, w, b, scale=0.5), expected, rtol=1e-5, atol=1e-5)


def test_windows():
    x = floats(9, 7)
    around = np.pad(x, 1, constant_values=-np.inf)
    expected = np.lib.stride_tricks.sliding_window_view(around, (3, 3)).max(axis=(2, 3))
    for peaks, sums in (windows(x), windows(np.asfortranarray(x))):
        np.testing.assert_array_equal(peaks, expected)
        np.testing.assert_allclose(sums, x.sum(axis=1), rtol=1e-5, atol=1e-6)


def test_gather():
    table, ids = floats(10, 5), RANDOM.integers(0, 10, (2, 3))
    np.testing.assert_array_equal(lookup(table, ids), table[ids] * 2)
    np.testing.assert_array_equal(interpret(lookup.prim_func(), table, ids, shape=(2, 3, 5)), table[ids] * 2)


def test_one_kernel_for_all_sizes():
    kernel = dense.build(shapes={"K": 8})
    for m, n in ((1, 3), (4, 5), (2, 0)):
        x, w, b = floats(m, 8), floats(n, 8), floats(n)
        np.testing.assert_allclose(kernel(x, w, b), np.maximum(x @ w.T + b, 0), rtol=1e-5, atol=1e-5)


def test_kernels_are_kept_by_shapes_and_constants():
    x, w, b = floats(2, 3), floats(4, 3), floats(4)
    before = len(dense._kernels)
    dense(x, w, b, scale=7.0)
    dense(x, w, b, scale=7.0)
    dense(x, w, b, scale=8.0)
    dense(x[:1], w, b, scale=7.0)
    assert len(dense._kernels) == before + 3


def test_into_own_memory():
    x, w, b = floats(2, 3), floats(4, 3), floats(4)
    out = np.empty((2, 4), np.float32)
    assert dense(x, w, b, out=out) is out
    np.testing.assert_allclose(out, np.maximum(x @ w.T + b, 0), rtol=1e-5, atol=1e-5)


def test_scalars_bools_and_integers():
    @te.compute
    def f(x: te.i32["N"], s: te.f32[()], keep: te.bool_["N"]):
        n = x.shape[0]
        k = te.reduce_axis(n, name="k")
        y = te.compute((n,), lambda i: te.if_then_else(keep[i], te.cast(te.f32, x[i] // 2 % 3) * s[()], -1.0), name="y")
        return y, te.compute((), lambda: te.sum(y[k], axis=k), name="total")

    x, keep = RANDOM.integers(-9, 9, 11).astype(np.int32), RANDOM.integers(0, 2, 11).astype(bool)
    y, total = f(x, 0.25, keep)
    expected = np.where(keep, (x // 2 % 3).astype(np.float32) * np.float32(0.25), np.float32(-1))
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_allclose(total, expected.sum(), rtol=1e-6)
    assert total.shape == ()


def test_operators_compose():
    @te.compute
    def two_layers(x: te.f32["B", "D"], w: te.f32["D", "D"], b: te.f32["D"]):
        return dense(dense(x, w, b), w, b, scale=2.0)

    x, w, b = floats(3, 6), floats(6, 6), floats(6)
    hidden = np.maximum(x @ w.T + b, 0)
    np.testing.assert_allclose(two_layers(x, w, b), np.maximum(hidden @ w.T * 2 + b, 0), rtol=1e-4, atol=1e-5)


def test_registered_schedule_compiles():
    @te.compute
    def double(x: te.f32["N", "M"]):
        return te.compute(x.shape, lambda i, j: 2 * x[i, j], name="out")

    seen = []

    @te.schedule(double)
    def by(s: te.Schedule):
        i, j = s["out"].axis
        jo, ji = s["out"].split(j, 4)
        s["out"].parallel(i)
        seen.append(str(s))

    x = floats(5, 11)
    np.testing.assert_array_equal(double(x), 2 * x)
    assert len(seen) == 1


def test_classic_style():
    a, b = te.placeholder((5, 8), name="A"), te.placeholder((8, 6), name="B")
    k = te.reduce_axis((0, 8), name="k")
    c = te.compute((5, 6), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), name="C")
    s = te.create_schedule(c.op)
    s[c].split(s[c].reduce_axis[0], 4)
    x, y = floats(5, 8), floats(8, 6)
    np.testing.assert_allclose(te.build_operator(s)(x, y), x @ y, rtol=1e-5, atol=1e-5)


def test_dlpack():
    class Exported:
        def __init__(self, array):
            self.array = array

        def __dlpack__(self, **kwargs):
            return self.array.__dlpack__(**kwargs)

        def __dlpack_device__(self):
            return self.array.__dlpack_device__()

    x, w, b = floats(2, 3), floats(4, 3), floats(4)
    np.testing.assert_array_equal(dense(Exported(x), Exported(w), Exported(b)), dense(x, w, b))


FUNCTIONS = {
    "exp": np.exp, "log": lambda x: np.log(np.abs(x)), "tanh": np.tanh, "sin": np.sin, "cos": np.cos, "floor": np.floor,
    "ceil": np.ceil, "trunc": np.trunc, "round": np.round, "sign": np.sign, "erf": None,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
}  # fmt: skip


def test_functions():
    """All at once: one kernel with an output for each."""

    @te.compute
    def f(x: te.f32["N"]):
        def stage(name):
            function = getattr(te, name)
            return te.compute(x.shape, lambda i: function(te.abs(x[i]) if name == "log" else x[i]), name=f"{name}_out")

        return tuple(stage(name) for name in FUNCTIONS)

    x = np.linspace(-3, 3, 37, dtype=np.float32) + np.float32(0.01)
    for (name, reference), got in zip(FUNCTIONS.items(), f(x), strict=True):
        expected = np.vectorize(math.erf)(x) if reference is None else reference(x)
        np.testing.assert_allclose(got, expected, rtol=2e-6, atol=2e-6, err_msg=name)


def test_functions_of_two():
    x, y = te.placeholder((9,), name="x"), te.placeholder((9,), name="y")
    outs = [te.compute((9,), lambda i, f=f: f(x[i], y[i])) for f in (te.pow, te.fmod, te.minimum)]
    func = te.create_prim_func("f", [x, y], outs)
    a, b = np.linspace(0.5, 9, 9, dtype=np.float32), np.linspace(3, 0.7, 9, dtype=np.float32)
    results = [np.empty(9, np.float32) for _ in outs]
    run(func, [a, b, *results])
    for got, expected in zip(results, (a**b, np.fmod(a, b), np.minimum(a, b)), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-6)


def remainder_operands(dtype):
    """Of all magnitudes; with infinities, NaN and zeros for floats, the ends of the range for integers."""
    numpy = getattr(te, dtype).dtype.numpy
    if dtype[0] == "f":
        x, y = RANDOM.standard_normal((2, 400)) * 10.0 ** RANDOM.integers(-4 if dtype == "f16" else -30, 4, (2, 400))
        edges = np.array([0, -0.0, np.inf, -np.inf, np.nan, 3, -3, 5.5]), np.array([1, 1, 2, 2, 2, 0, np.inf, -np.inf])
        return tuple(np.concatenate(v).astype(numpy) for v in zip((x, y), edges, strict=True))
    ends = np.iinfo(numpy)
    x, y = RANDOM.integers(ends.min, ends.max, (2, 400), dtype=numpy, endpoint=True)
    y[y == 0] = 3
    x[:4], y[:4] = (ends.min, 5, ends.min, ends.max), (ends.max if dtype[0] == "u" else -1, *([ends.min or 7] * 3))
    return x, y


@pytest.mark.parametrize("dtype", ["f16", "f32", "f64", "i8", "i32", "i64", "u8", "u32"])
def test_remainders_with_the_sign_of_the_dividend_are_exact(dtype):
    a, b = remainder_operands(dtype)
    x, y = te.placeholder(a.shape, dtype, name="x"), te.placeholder(b.shape, dtype, name="y")
    out = te.compute(a.shape, lambda i: te.fmod(x[i], y[i]), name="out")
    with np.errstate(all="ignore"):
        expected = np.fmod(a, b)
    func = te.create_prim_func("f", [x, y], [out])
    s = te.create_schedule(out)
    s["out"].vectorize(s["out"].split(s["out"].axis[0], 8)[1])
    for got in (interpret(func, a, b, shape=a.shape, dtype=a.dtype), te.build_operator(func)(a, b), tl.build(s)(a, b)):
        np.testing.assert_array_equal(got, expected)
        if dtype[0] == "f":
            zeros = expected == 0
            np.testing.assert_array_equal(np.signbit(got[zeros]), np.signbit(expected[zeros]))


@pytest.mark.parametrize("dtype", ["i8", "i32", "i64"])
def test_truncating_division_at_the_ends_of_the_range(dtype):
    a, b = remainder_operands(dtype)
    x, y = te.placeholder(a.shape, dtype, name="x"), te.placeholder(b.shape, dtype, name="y")
    func = te.create_prim_func("f", [x, y], [te.compute(a.shape, lambda i: te.truncdiv(x[i], y[i]), name="q")])
    b[0] = 2  # the least integer over -1 has no quotient
    with np.errstate(all="ignore"):
        expected = (a - np.fmod(a, b)) // b
        for got in (interpret(func, a, b, shape=a.shape, dtype=a.dtype), te.build_operator(func)(a, b)):
            np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("dtype", ["i32", "i64"])
def test_truncating_division(dtype):
    x, y = te.placeholder((81,), dtype, name="x"), te.placeholder((81,), dtype, name="y")
    q = te.compute((81,), lambda i: te.truncdiv(x[i], y[i]), name="q")
    numpy = x.dtype.numpy
    a, b = (v.ravel().astype(numpy) for v in np.meshgrid(np.arange(-4, 5), [-4, -3, -2, -1, 1, 2, 3, 4, 5]))
    func = te.create_prim_func("f", [x, y], [q])
    expected = np.trunc(a / b).astype(numpy)
    np.testing.assert_array_equal(interpret(func, a, b, shape=81, dtype=numpy), expected)
    np.testing.assert_array_equal(te.build_operator(func)(a, b), expected)
