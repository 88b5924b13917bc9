"""te.gradient: adjoints against finite differences in f64, their shape as programs, natively, and what is refused."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from tensorlang import te
from tensorlang.errors import TypeCheckError
from tensorlang.ir.expr import Expr, const, var
from tensorlang.ir.interp import run
from tensorlang.ir.visitor import substitute
from tensorlang.te.tensor import extent_of
from tests.fuzz.budget import examples


def evaluate(inputs, outputs, arrays, sizes=None):
    """`outputs` by the interpreter."""
    func = te.create_prim_func("f", inputs, outputs)
    lookup = sizes or {}
    shapes = [tuple(d if isinstance(d, int) else int(te_size(d, lookup)) for d in t.shape) for t in outputs]
    results = [np.zeros(s, t.dtype.numpy) for s, t in zip(shapes, outputs, strict=True)]
    run(func, [*arrays, *results, *(lookup[v] for v in func.size_vars)])
    return results


def te_size(d: Expr, sizes):
    return substitute(d, {v: const(n) for v, n in sizes.items()}).value


def check(output, inputs, arrays=None, sizes=None, seed=0, low=-1.5, high=1.5, wrt=None, tolerance=1e-6):
    """The adjoints of floating inputs are those that central differences of random directions see. Returns them."""
    rng = np.random.default_rng(seed)
    sizes = sizes or {}

    def shape_of(t):
        return tuple(d if isinstance(d, int) else te_size(d, sizes) for d in t.shape)

    arrays = arrays or [rng.uniform(low, high, shape_of(t)) for t in inputs]
    wrt = wrt or [t for t in inputs if t.dtype.is_float]
    head = te.placeholder(output.shape, output.dtype, name="head")
    weights = rng.uniform(-1, 1, shape_of(output))
    grads = te.gradient(output, wrt, head)
    assert [g.shape for g in grads] == [t.shape for t in wrt]
    found = evaluate([*inputs, head], grads, [*arrays, weights], sizes)
    step = 1e-6
    for _ in range(3):
        directions = {t: rng.uniform(-1, 1, a.shape) for t, a in zip(inputs, arrays, strict=True) if t in wrt}
        moved = [
            evaluate(
                inputs,
                [output],
                [a + s * directions[t] if t in wrt else a for t, a in zip(inputs, arrays, strict=True)],
                sizes,
            )[0]
            for s in (step, -step)
        ]
        expected = (weights * (moved[0] - moved[1])).sum() / (2 * step)
        got = sum((g * directions[t]).sum() for g, t in zip(found, wrt, strict=True))
        scale = 1 + sum(np.abs(g * directions[t]).sum() for g, t in zip(found, wrt, strict=True))
        assert abs(got - expected) <= tolerance * scale, (got, expected)
    return found


def body_of(tensor):
    return str(tensor.op.body)


def matmul(m, n, k, dtype="f64"):
    x, w = te.placeholder((m, k), dtype, name="x"), te.placeholder((n, k), dtype, name="w")
    r = te.reduce_axis(k, "k")
    return x, w, te.compute((m, n), lambda i, j: te.sum(x[i, r] * w[j, r], axis=r), name="y")


def test_gradients_of_a_matmul_are_matmuls():
    x, w, y = matmul(5, 6, 7)
    check(y, [x, w])
    head = te.placeholder((5, 6), "f64", name="head")
    x_grad, w_grad = te.gradient(y, [x, w], head)
    assert body_of(x_grad) == "sum(head[i, j] * w[j, k], axis=[j])"
    assert body_of(w_grad) == "sum(head[i, j] * x[i, k], axis=[i])"


def test_symbolic_matmul():
    m, n, k = var("M"), var("N"), var("K")
    x, w, y = matmul(m, n, k)
    check(y, [x, w], sizes={m: 3, n: 4, k: 5})
    head = te.placeholder((m, n), "f64", name="head")
    assert body_of(te.gradient(y, [x], head)[0]) == "sum(head[i, j] * w[j, k], axis=[j])"


def test_transposition_broadcast_and_reshape_need_no_guard():
    m, n = var("M"), var("N")
    x, b = te.placeholder((m, n), "f64", name="x"), te.placeholder((n,), "f64", name="b")
    turned = te.compute((n, m), lambda i, j: x[j, i] + b[i], name="turned")
    flat = te.compute((n * m,), lambda f: turned[f // m, f % m], name="flat")
    deep = te.compute((m, n), lambda i, j: flat[j * m + i], name="deep")
    check(deep, [x, b], sizes={m: 3, n: 4})
    head = te.placeholder((m, n), "f64", name="head")
    grads = te.gradient(deep, [x, b, turned, flat], head)
    assert body_of(grads[1]) == "sum(turned_grad[i, j], axis=[j])"
    assert body_of(grads[2]) == "flat_grad[M * i + j]"
    assert body_of(grads[3]) == "head[f % M, f // M]"


def test_upsampling_sums_its_window():
    x = te.placeholder((3, 4), "f64", name="x")
    y = te.compute((6, 12), lambda i, j: x[i // 2, j // 3], name="y")
    check(y, [x])
    head = te.placeholder((6, 12), "f64", name="head")
    func = te.create_prim_func("g", [head], te.gradient(y, [x], head))
    assert "select" not in str(func)


def conv(h, r, stride, dilation, pad, channels=2, features=3):
    x = te.placeholder((channels, h), "f64", name="x")
    w = te.placeholder((features, channels, r), "f64", name="w")
    out = (h + 2 * pad - dilation * (r - 1) - 1) // stride + 1
    c, q = te.reduce_axis(channels, "c"), te.reduce_axis(r, "r")

    def padded(n, i):
        return te.if_then_else(te.all_of(i >= pad, i < h + pad), x[n, i - pad], 0.0)

    p = te.compute((channels, h + 2 * pad), padded, name="p")
    y = te.compute(
        (features, out), lambda o, i: te.sum(p[c, i * stride + q * dilation] * w[o, c, q], axis=[c, q]), name="y"
    )
    return x, w, y


WINDOWS = [(1, 1, 0), (1, 1, 1), (2, 1, 1), (3, 1, 0), (1, 2, 2), (2, 3, 1), (2, 2, 0)]


@pytest.mark.parametrize(("stride", "dilation", "pad"), WINDOWS)
def test_convolution(stride, dilation, pad):
    x, w, y = conv(13, 3, stride, dilation, pad)
    check(y, [x, w])


def test_a_strided_window_wastes_no_iteration():
    x, _, y = conv(12, 4, 2, 1, 0)
    head = te.placeholder(y.shape, "f64", name="head")
    grad = te.gradient(y, [x], head)[0]
    part = next(t for t in te.stages_of([grad]) if t.name == "p_grad")
    assert [extent_of(k) for k in part.op.reduce_axis] == [3, 2]  # features, and half of the taps


def test_depthwise_in_one_stage_with_padding():
    h = 9
    x, w = te.placeholder((3, h), "f64", name="x"), te.placeholder((3, 3), "f64", name="w")
    r = te.reduce_axis(3, "r")

    def term(c, i):
        at = i * 2 + r - 1
        return te.sum(te.if_then_else(te.all_of(at >= 0, at < h), x[c, at], 0.0) * w[c, r], axis=r)

    check(te.compute((3, 5), term, name="y"), [x, w])


def softmax(x, n, m):
    k, q = te.reduce_axis(m, "k"), te.reduce_axis(m, "q")
    top = te.compute((n,), lambda i: te.max(x[i, k], axis=k), name="top")
    e = te.compute((n, m), lambda i, j: te.exp(x[i, j] - top[i]), name="e")
    s = te.compute((n,), lambda i: te.sum(e[i, q], axis=q), name="s")
    return te.compute((n, m), lambda i, j: e[i, j] / s[i], name="softmax")


def test_softmax():
    x = te.placeholder((4, 7), "f64", name="x")
    y = softmax(x, 4, 7)
    (found,) = check(y, [x])
    assert np.abs(found.sum(axis=1)).max() < 1e-12  # its rows sum to 1 whatever x is


def test_layer_norm():
    n, m = 3, 8
    x = te.placeholder((n, m), "f64", name="x")
    g, b = te.placeholder((m,), "f64", name="g"), te.placeholder((m,), "f64", name="b")
    k, q = te.reduce_axis(m, "k"), te.reduce_axis(m, "q")
    total = te.compute((n,), lambda i: te.sum(x[i, k], axis=k), name="total")
    centred = te.compute((n, m), lambda i, j: x[i, j] - total[i] / m, name="centred")
    squares = te.compute((n,), lambda i: te.sum(centred[i, q] * centred[i, q], axis=q), name="squares")
    y = te.compute((n, m), lambda i, j: centred[i, j] * te.rsqrt(squares[i] / m + 1e-5) * g[j] + b[j], name="y")
    check(y, [x, g, b])


@pytest.mark.parametrize("kind", ["max", "min"])
def test_pooling(kind):
    x = te.placeholder((2, 9), "f64", name="x")
    r = te.reduce_axis(3, "r")
    y = te.compute((2, 4), lambda c, i: getattr(te, kind)(x[c, i * 2 + r], axis=r), name="y")
    check(y, [x])


def test_ties_share_equally():
    x, head = te.placeholder((6,), "f64", name="x"), te.placeholder((), "f64", name="head")
    k = te.reduce_axis(6, "k")
    y = te.compute((), lambda: te.max(x[k], axis=k), name="y")
    (grad,) = evaluate([x, head], te.gradient(y, [x], head), [np.array([1.0, 3, 3, 0, 3, 2]), np.array(6.0)])
    np.testing.assert_array_equal(grad, [0, 2, 2, 0, 2, 0])


def test_extremum_of_rounded_terms():
    """Terms that may be computed differently in two kernels are stored, so that the best one is found again."""
    x, w = te.placeholder((4, 5), "f64", name="x"), te.placeholder((5,), "f64", name="w")
    k = te.reduce_axis(5, "k")
    y = te.compute((4,), lambda i: te.max(x[i, k] * w[k] + x[i, 0], axis=k), name="y")
    check(y, [x, w])
    head = te.placeholder((4,), "f64", name="head")
    assert "y_terms" in [t.name for t in te.stages_of(te.gradient(y, [x], head))]


@pytest.mark.parametrize("zeros", [0, 1, 2])
def test_products_with_zeros(zeros):
    x = te.placeholder((3, 4), "f64", name="x")
    k = te.reduce_axis(4, "k")
    y = te.compute((3,), lambda i: te.prod(x[i, k], axis=k), name="y")
    a = np.random.default_rng(1).uniform(0.5, 2, (3, 4))
    a[1, :zeros] = 0
    (found,) = check(y, [x], [a])
    assert np.count_nonzero(found[1]) == (4, 1, 0)[zeros]


def test_gather_scatters_back():
    table, ids = te.placeholder((6, 3), "f64", name="table"), te.placeholder((2, 4), "i64", name="ids")
    y = te.compute((2, 4, 3), lambda b, i, d: table[ids[b, i], d] * 2.0, name="y")
    index = np.array([[0, 5, 5, 1], [1, 1, 3, 0]])
    (found,) = check(y, [table, ids], [np.ones((6, 3)), index], wrt=[table])
    assert (found[[2, 4]] == 0).all() and (found[[0, 1, 3, 5]] != 0).all()


def test_a_tensor_used_often():
    x = te.placeholder((5,), "f64", name="x")
    k = te.reduce_axis(5, "k")
    a = te.compute((5,), lambda i: te.tanh(x[i]), name="a")
    b = te.compute((5,), lambda i: a[i] * a[4 - i] + x[i] * x[i] * x[0], name="b")
    s = te.compute((), lambda: te.sum(b[k] * a[k], axis=k), name="s")
    check(te.compute((5,), lambda i: b[i] * s[()] + a[i], name="y"), [x])


def test_diagonal_and_clamped_reads():
    x = te.placeholder((4, 4), "f64", name="x")
    y = te.compute((4, 6), lambda i, j: x[i, i] * x[te.minimum(j, 3), i] + x[(i * 6 + j) % 4, (i + 3 * j) // 8], name="y")
    check(y, [x])


def test_jacobian_and_scalar_output():
    x, w, y = matmul(2, 3, 4)
    jacobian = te.gradient(y, [x])[0]
    assert jacobian.shape == (2, 3, 2, 4)
    a, b = np.random.default_rng(0).uniform(-1, 1, (2, 4)), np.random.default_rng(1).uniform(-1, 1, (3, 4))
    np.testing.assert_array_equal(evaluate([x, w], [jacobian], [a, b])[0], np.einsum("ip,jk->ijpk", np.eye(2), b))
    assert not jacobian.op.reduce_axis
    i, j = te.reduce_axis(2, "i"), te.reduce_axis(3, "j")
    loss = te.compute((), lambda: te.sum(y[i, j] * y[i, j], axis=[i, j]), name="loss")
    grads = te.gradient(loss, [x, y, loss])
    assert [g.shape for g in grads] == [(2, 4), (2, 3), ()]
    dx, dy, one = evaluate([x, w], grads, [a, b])
    np.testing.assert_allclose(dx, 2 * (a @ b.T) @ b, rtol=1e-12)
    np.testing.assert_allclose(dy, 2 * (a @ b.T), rtol=1e-12)
    assert one == 1


def test_a_head_with_a_prefix():
    x, w, y = matmul(2, 3, 4)
    head = te.placeholder((5, 2, 3), "f64", name="head")
    rng = np.random.default_rng(0)
    h, a, b = rng.uniform(-1, 1, (5, 2, 3)), rng.uniform(-1, 1, (2, 4)), rng.uniform(-1, 1, (3, 4))
    (found,) = evaluate([x, w, head], te.gradient(y, w, head), [a, b, h])
    np.testing.assert_allclose(found, np.einsum("pij,ik->pjk", h, a), rtol=1e-12)


def test_axes_of_extent_one_and_terms_that_vanish_leave_nothing():
    x = te.placeholder((1, 4), "f64", name="x")
    y = te.compute((1, 4), lambda i, j: x[i, j] * 2.0 + te.if_then_else(j > 7, x[i, j - 1], 0.0), name="y")
    check(y, [x])
    assert body_of(te.gradient(y, [x], te.placeholder((1, 4), "f64", name="head"))[0]) == "head[0, j] * f64(2.0)"


def test_unrelated_input_and_identity():
    x, w, _ = matmul(2, 3, 4)
    y = te.compute((2,), lambda i: te.floor(x[i, 0]) + te.cast("f64", te.cast("i32", x[i, 1])), name="y")
    for g in te.gradient(y, [w, x]):
        assert not np.any(evaluate([x, w], [g], [np.ones((2, 4)), np.ones((3, 4))])[0])
    (eye,) = te.gradient(x, [x])
    np.testing.assert_array_equal(evaluate([x], [eye], [np.ones((2, 4))])[0].reshape(8, 8), np.eye(8))


def test_mixed_precision_sums_in_the_stage_s_type():
    x, head = te.placeholder((3, 5), "f16", name="x"), te.placeholder((5,), "f32", name="head")
    k = te.reduce_axis(3, "k")
    y = te.compute((5,), lambda j: te.sum(te.cast("f32", x[k, j]) * 0.1, axis=k), name="y")
    (g,) = te.gradient(y, [x], head)
    assert g.dtype.name == "f16"
    found = evaluate([x, head], [g], [np.ones((3, 5), np.float16), np.arange(5, dtype=np.float32)])[0]
    np.testing.assert_array_equal(found, np.tile((np.arange(5, dtype=np.float32) * np.float32(0.1)).astype(np.float16), (3, 1)))


def test_relu_and_abs_at_zero():
    x, head = te.placeholder((3,), "f64", name="x"), te.placeholder((3,), "f64", name="head")
    a, h = np.array([-1.0, 0, 2]), np.ones(3)
    for f, expected in (
        (lambda v: te.maximum(v, 0), [0, 0, 1]),
        (lambda v: te.minimum(0, v), [1, 0, 0]),
        (te.abs, [-1, 0, 1]),
        (lambda v: te.maximum(v, -v), [-1, 0, 1]),
    ):
        y = te.compute((3,), lambda i, f=f: f(x[i]), name="y")
        np.testing.assert_array_equal(evaluate([x, head], te.gradient(y, [x], head), [a, h])[0], expected)


UNARY = [
    "exp", "expm1", "log", "log2", "log1p", "sqrt", "rsqrt", "tanh", "sigmoid", "erf", "sin", "cos", "tan", "arcsin", "arccos",
    "arctan", "sinh", "cosh", "arcsinh", "arctanh", "abs", "floor", "ceil", "trunc", "round", "sign",
]  # fmt: skip


def test_functions():
    x = te.placeholder((5,), "f64", name="x")
    for name in UNARY:
        function = getattr(te, name)
        y = te.compute((5,), lambda i, f=function: f(x[i]), name="y")
        check(y, [x], [np.array([0.11, 0.27, 0.45, 0.62, 0.93])])
    y = te.compute((5,), lambda i: te.arccosh(x[i]), name="y")
    check(y, [x], [np.array([1.1, 1.27, 2.45, 3.62, 5.93])])


def test_functions_of_several():
    x, w = te.placeholder((4,), "f64", name="x"), te.placeholder((4,), "f64", name="w")
    for f in (
        te.pow, te.fmod, te.maximum, te.minimum,
        lambda a, b: a / b, lambda a, b: te.fma(a, b, a), lambda a, b: -a - b, lambda a, b: b - a * 3.0, te.floormod,
        lambda a, b: te.if_then_else(a < b, a * a, te.pow(b, 3.0) + te.pow(a, 2.0)),
    ):  # fmt: skip
        y = te.compute((4,), lambda i, f=f: f(x[i], w[i]), name="y")
        check(y, [x, w], [np.array([0.3, 1.7, 2.2, 0.9]), np.array([1.1, 0.6, 0.7, 1.4])])


@pytest.mark.parametrize("case", ["integer output", "integer input", "head dtype", "head shape", "not a tensor"])
def test_refusals(case):
    x, n = te.placeholder((3,), "f64", name="x"), te.placeholder((3,), "i32", name="n")
    y = te.compute((3,), lambda i: x[i] * te.cast("f64", n[i]), name="y")
    z = te.compute((3,), lambda i: n[i] + 1, name="z")
    calls = {
        "integer output": (lambda: te.gradient(z, [x]), "z is i32; only floating-point"),
        "integer input": (lambda: te.gradient(y, [n]), "n is i32; only floating-point"),
        "head dtype": (lambda: te.gradient(y, [x], te.placeholder((3,), "f32", name="h")), "h is f32, the output y is f64"),
        "head shape": (
            lambda: te.gradient(y, [x], te.placeholder((3, 2), "f64", name="h")),
            r"\(3, 2\) of h does not end in \(3\)",
        ),
        "not a tensor": (lambda: te.gradient(y, [3]), "takes tensors, not int"),
    }
    call, message = calls[case]
    with pytest.raises(TypeCheckError, match=message):
        call()


def test_stages_of_other_kinds_are_refused_only_on_the_way():
    x = te.placeholder((4, 3), "f64", name="x")
    k = te.reduce_axis(4, "k")
    at, best = te.compute((3,), lambda j: te.argmax((k, x[k, j]), axis=k), name="best")
    with pytest.raises(TypeCheckError, match="best.* is not a plain stage"):
        te.gradient(best, [x])
    doubled = te.extern((4, 3), [x], lambda ins, outs: np.multiply(ins[0], 2, out=outs[0]), dtype="f64", name="doubled")
    with pytest.raises(TypeCheckError, match="doubled is not a plain stage"):
        te.gradient(doubled, [x])
    begun = te.compute((3,), lambda j: te.sum(x[k, j], axis=k, init=1.0), name="begun")
    with pytest.raises(TypeCheckError, match="begun is not a plain sum"):
        te.gradient(begun, [x])
    y = te.compute((3,), lambda j: x[at[j], j] * x[0, j], name="y")  # the index itself has no derivative
    check(y, [x])


NATIVE = {
    "strided windows": lambda: conv(13, 3, 2, 1, 1)[::2],
    "dilated windows": lambda: conv(13, 3, 1, 2, 2)[::2],
    "matmul": lambda: matmul(9, 10, 11)[::2],
}


@pytest.mark.parametrize("case", NATIVE)
def test_machine_code_agrees_with_the_interpreter(case):
    x, y = NATIVE[case]()
    head = te.placeholder(y.shape, y.dtype, name="head")
    inputs = [*te.placeholders_of([y]), head]
    grads = te.gradient(y, inputs[:-1], head)
    rng = np.random.default_rng(0)
    arrays = [rng.uniform(-1, 1, t.shape) for t in inputs]
    found = te.build_operator(te.create_prim_func("g", inputs, grads))(*arrays)
    for a, b in zip(found, evaluate(inputs, grads, arrays), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_softmax_pooling_and_gather_natively():
    x, ids = te.placeholder((4, 7), "f64", name="x"), te.placeholder((5,), "i64", name="ids")
    y = softmax(x, 4, 7)
    r = te.reduce_axis(2, "r")
    p = te.compute((4, 3), lambda i, j: te.max(y[i, j * 2 + r], axis=r), name="p")
    z = te.compute((5, 3), lambda i, j: p[ids[i], j] * y[0, j], name="z")
    head = te.placeholder((5, 3), "f64", name="head")
    grads = te.gradient(z, [x, y], head)
    rng = np.random.default_rng(0)
    arrays = [rng.uniform(-1, 1, (4, 7)), np.array([3, 0, 3, 1, 1]), rng.uniform(-1, 1, (5, 3))]
    check(z, [x, ids], arrays[:2], wrt=[x])
    found = te.build_operator(te.create_prim_func("g", [x, ids, head], grads))(*arrays)
    for a, b in zip(found, evaluate([x, ids, head], grads, arrays), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9)


@te.compute
def step(x: te.f32["B", "K"], w: te.f32["N", "K"], t: te.f32["B", "N"]):
    """The gradient of a squared error of relu(x @ w.T), as an operator."""
    b, k = x.shape
    n = w.shape[0]
    r, i, j = te.reduce_axis(k, "r"), te.reduce_axis(b, "i"), te.reduce_axis(n, "j")
    y = te.compute((b, n), lambda p, q: te.sum(x[p, r] * w[q, r], axis=r), name="y")
    e = te.compute((b, n), lambda p, q: te.maximum(y[p, q], 0) - t[p, q], name="e")
    loss = te.compute((), lambda: te.sum(e[i, j] * e[i, j], axis=[i, j]), name="loss")
    return tuple(te.gradient(loss, [w, x]))


def test_natively_for_all_sizes():
    rng = np.random.default_rng(0)
    kernel = step.build(shapes={})
    for b, k, n in ((4, 5, 6), (17, 33, 8)):
        x, w, t = (rng.standard_normal(s, dtype=np.float32) for s in ((b, k), (n, k), (b, n)))
        y = x @ w.T
        d = 2 * (np.maximum(y, 0) - t) * (y > 0)
        w_grad, x_grad = kernel(x, w, t)
        np.testing.assert_allclose(w_grad, d.T @ x, rtol=2e-4, atol=2e-4)
        np.testing.assert_allclose(x_grad, d @ w, rtol=2e-4, atol=2e-4)


def test_adjoints_are_scheduled_like_any_stage():
    x, w, y = matmul(16, 24, 8, "f32")
    head = te.placeholder((16, 24), "f32", name="head")
    (x_grad,) = te.gradient(y, [x], head)
    s = te.create_schedule(x_grad)
    stage = s[x_grad]
    i, k = stage.axis
    (j,) = stage.reduce_axis
    stage.reorder(i, j, k)
    stage.vectorize(k)
    stage.parallel(i)
    rng = np.random.default_rng(0)
    a, h = rng.standard_normal((24, 8), dtype=np.float32), rng.standard_normal((16, 24), dtype=np.float32)
    np.testing.assert_allclose(te.build_operator(s)(a, h), h @ a, rtol=1e-4, atol=1e-4)


# -- random programs ---------------------------------------------------------------------------------------------------
SIZES = (1, 2, 3, 4, 6)


@st.composite
def random_programs(draw):
    """Two or three stages over two tensors, every read in bounds by construction, everything smooth almost everywhere."""
    m, n = draw(st.sampled_from(SIZES)), draw(st.sampled_from(SIZES))
    symbols = (var("M"), var("N")) if draw(st.booleans()) else (m, n)
    sizes = dict(zip(symbols, (m, n), strict=True)) if isinstance(symbols[0], Expr) else {}
    x = te.placeholder(symbols, "f64", name="x")
    w = te.placeholder((4,), "f64", name="w")
    ids = te.placeholder((3,), "i64", name="ids")
    tensors = [(x, symbols), (w, (4,))]
    for name in "ab"[: draw(st.integers(1, 2))]:
        dims = tuple(draw(st.sampled_from([*symbols, 2, 3, 5])) for _ in range(draw(st.integers(1, 2))))
        reduced = tuple(draw(st.sampled_from([*symbols, 2, 3])) for _ in range(draw(st.integers(0, 2))))
        axes = [te.reduce_axis(d, f"r{n}") for n, d in enumerate(reduced)]
        kind = draw(st.sampled_from(["sum", "sum", "prod", "max", "min"]))

        def read(space, tensors=tuple(tensors)):
            tensor, shape = draw(st.sampled_from(tensors))
            index = []
            inside = te.const(True)
            for d in shape:
                v, e = draw(st.sampled_from(space))
                u, f = draw(st.sampled_from(space))
                c = draw(st.integers(1, 3))
                how = draw(st.integers(0, 8))
                choice = {
                    0: v * c + u - 1, 1: v * c - u, 2: (v * f + u) // c if v is not u else v // c, 3: v // c, 4: v - c + 1,
                    5: (v * f + u) if v is not u else d - 1 - v, 6: ids[v % 3] + u,
                }.get(how, v)  # fmt: skip
                if how == 7 or how == 2:
                    choice = choice % d
                elif how == 8:
                    choice = te.minimum(choice, d - 1)
                inside = te.all_of(inside, choice >= 0, choice < d)
                index.append(choice)
            return te.if_then_else(inside, tensor[tuple(index)], draw(st.sampled_from([0.0, 0.7])))

        def term(*i, dims=dims, reduced=reduced, axes=axes, kind=kind, read=read):
            space = [*zip(i, dims, strict=True), *zip(axes, reduced, strict=True)]
            f = draw(st.sampled_from([te.tanh, te.sin, lambda e: e, lambda e: te.exp(-e * e), lambda e: te.tanh(e) * e]))
            e = draw(st.sampled_from([lambda a, b: a * b, lambda a, b: a + b, te.maximum, lambda a, b: a - b]))(
                f(read(space)), read(space)
            )
            e = te.tanh(e) * 0.2 + 1.0 if kind == "prod" else e
            return getattr(te, kind)(e, axis=axes) if axes else e

        tensors.append((te.compute(dims, term, name=name), dims))
    seed = draw(st.integers(0, 3))
    rng = np.random.default_rng(seed)
    arrays = [rng.uniform(-1, 1, (m, n)), rng.uniform(-1, 1, 4), rng.integers(0, 4, 3)]
    return tensors[-1][0], [x, w, ids], arrays, sizes


@examples(60)
@given(random_programs())
def test_random_programs(program):
    output, inputs, arrays, sizes = program
    check(output, inputs, arrays, sizes, wrt=[t for t in inputs if t.dtype.is_float], tolerance=1e-5)
