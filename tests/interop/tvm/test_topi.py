"""The operator inventory against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import tensorlang.interop.tvm as tvm
from tensorlang.errors import TypeCheckError
from tensorlang.interop.tvm import te, topi

RANDOM = np.random.default_rng(0)


def f(*shape):
    return RANDOM.uniform(0.5, 2, shape).astype("float32")


def evaluate(*cases, schedule=None):
    """The results of (function, arrays) pairs, all of them outputs of one built function."""
    inputs, arrays, outs = [], [], []
    for number, (fn, given) in enumerate(cases):
        own = [te.placeholder(a.shape, a.dtype.name, name=f"x{number}_{n}") for n, a in enumerate(given)]
        inputs += own
        arrays += given
        outs.append(fn(*own))
    s = schedule(outs[0]) if schedule else te.create_schedule([out.op for out in outs])
    results = [tvm.nd.empty(out.shape, out.dtype) for out in outs]
    tvm.build(s, [*inputs, *outs])(*(tvm.nd.array(a) for a in arrays), *results)
    return [r.numpy() for r in results]


CASES = {
    "broadcast_add": (topi.broadcast_add, np.add, [f(3, 1, 5), f(4, 1)]),
    "number": (lambda x: 2 / (x * 3 - 1.5) + 1, lambda x: 2 / (x * 3 - 1.5) + 1, [f(3, 4)]),
    "operators": (lambda x, y: -(x - y) / y, lambda x, y: -(x - y) / y, [f(3, 4), f(4)]),
    "maximum": (topi.maximum, np.maximum, [f(3, 4), f(3, 4)]),
    "power": (topi.power, np.power, [f(3, 4), f(4)]),
    "where": (lambda x, y: topi.where(topi.less(x, y), x, y), np.minimum, [f(3, 4), f(4)]),
    "clip": (lambda x: topi.clip(x, 0.8, 1.2), lambda x: np.clip(x, 0.8, 1.2), [f(3, 4)]),
    "cast": (lambda x: topi.cast(x, "int32"), lambda x: x.astype("int32"), [f(3, 4)]),
    "elemwise_sum": (lambda *xs: topi.elemwise_sum(xs), lambda *xs: sum(xs), [f(3, 4), f(3, 4), f(3, 4)]),
    "full_like": (lambda x: topi.full_like(x, 7), lambda x: np.full_like(x, 7), [f(3, 4)]),
    "exp": (topi.exp, np.exp, [f(3, 4)]),
    "transpose": (lambda x: topi.transpose(x, (2, 0, 1)), lambda x: x.transpose(2, 0, 1), [f(3, 4, 5)]),
    "reshape": (lambda x: topi.reshape(x, (6, 10)), lambda x: x.reshape(6, 10), [f(3, 4, 5)]),
    "expand_dims": (lambda x: topi.expand_dims(x, -1, 2), lambda x: x[..., None, None], [f(3, 4)]),
    "squeeze": (topi.squeeze, np.squeeze, [f(3, 1, 4, 1)]),
    "concatenate": (lambda *xs: topi.concatenate(xs, 1), lambda *xs: np.concatenate(xs, 1), [f(3, 4), f(3, 1), f(3, 2)]),
    "flip": (lambda x: topi.flip(x, 1), lambda x: x[:, ::-1], [f(3, 4)]),
    "take": (lambda x, i: topi.take(x, i, 1), lambda x, i: np.take(x, i, 1), [f(3, 4), np.array([[3, 0], [1, 1]], "int32")]),
    "broadcast_to": (lambda x: topi.broadcast_to(x, (3, 4)), lambda x: np.broadcast_to(x, (3, 4)), [f(4)]),
    "sum": (lambda x: topi.sum(x, axis=(0, -1)), lambda x: x.sum((0, 2)), [f(3, 4, 5)]),
    "sum of all": (topi.sum, np.sum, [f(3, 4)]),
    "max keepdims": (lambda x: topi.max(x, 1, keepdims=True), lambda x: x.max(1, keepdims=True), [f(3, 4)]),
    "min": (lambda x: topi.min(x, 0), lambda x: x.min(0), [f(3, 4)]),
    "prod": (lambda x: topi.prod(x, 1), lambda x: x.prod(1), [f(3, 4)]),
    "argmax": (lambda x: topi.argmax(x, 1), lambda x: x.argmax(1).astype("int32"), [f(3, 4, 5)]),
    "argmin of all": (topi.argmin, lambda x: np.int32(x.argmin()), [f(3, 4)]),
    "relu": (lambda x: topi.nn.relu(x - 1), lambda x: np.maximum(x - 1, 0), [f(3, 4)]),
    "leaky_relu": (lambda x: topi.nn.leaky_relu(x - 1, 0.1), lambda x: np.where(x > 1, x - 1, 0.1 * (x - 1)), [f(3, 4)]),
    "softmax": (topi.nn.softmax, topi.testing.softmax_python, [f(3, 4)]),
    "softmax of axis 1": (lambda x: topi.nn.softmax(x, 1), lambda x: topi.testing.softmax_python(x, 1), [f(3, 4, 5)]),
    "log_softmax": (topi.nn.log_softmax, topi.testing.log_softmax_python, [f(3, 4)]),
    "dense": (topi.nn.dense, lambda x, w, b: x @ w.T + b, [f(3, 4), f(5, 4), f(5)]),
    "batch_matmul": (topi.nn.batch_matmul, topi.testing.batch_matmul, [f(2, 3, 4), f(2, 5, 4)]),
    "bias_add": (topi.nn.bias_add, lambda x, b: x + b[:, None], [f(2, 3, 4), f(3)]),
    "flatten": (topi.nn.flatten, lambda x: x.reshape(2, -1), [f(2, 3, 4)]),
    "pad": (lambda x: topi.nn.pad(x, (1, 0), (0, 2), 9.0), lambda x: np.pad(x, ((1, 0), (0, 2)), constant_values=9), [f(3, 4)]),
}


@pytest.mark.parametrize("part", range(4))
def test_operations(part):
    names = list(CASES)[part::4]
    results = evaluate(*((CASES[n][0], CASES[n][2]) for n in names))
    for name, found in zip(names, results, strict=True):
        _, expected, arrays = CASES[name]
        wanted = expected(*arrays)
        assert found.shape == wanted.shape and found.dtype == wanted.dtype, name
        np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=1e-6, err_msg=name)


CONVOLUTIONS = [(1, 2, 1), ((2, 1), (1, 0), 1), (1, (0, 1, 2, 0), 1), (1, "SAME", 1), (1, "VALID", 2)]


def test_convolutions():
    x, w = f(2, 3, 9, 8), f(4, 3, 3, 3)
    cases = [(lambda d, k, args=args: topi.nn.conv2d_nchw(d, k, *args), [x, w]) for args in CONVOLUTIONS]
    for (stride, padding, dilation), found in zip(CONVOLUTIONS, evaluate(*cases), strict=True):
        dilated = np.zeros((4, 3, 2 * dilation + 1, 2 * dilation + 1), "float32")
        dilated[:, :, ::dilation, ::dilation] = w
        expected = topi.testing.conv2d_nchw_python(x, dilated, stride, padding)
        np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_a_scheduled_convolution():
    x, w = f(2, 3, 9, 8), f(4, 3, 3, 3)
    expected = topi.testing.conv2d_nchw_python(x, w, 1, 1)

    def fn(data, kernel):
        return topi.nn.relu(topi.cuda.conv2d_nchw(data, kernel, 1, 1, 1) - 4)

    (found,) = evaluate((fn, [x, w]), schedule=lambda out: topi.cuda.schedule_conv2d_nchw([out]))
    np.testing.assert_allclose(found, np.maximum(expected - 4, 0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "fn, schedule, expected",
    [
        (lambda x: topi.sum(topi.exp(x) / 2.0), topi.cuda.schedule_reduce, lambda x: (np.exp(x) / 2).sum()),
        (topi.nn.softmax, topi.x86.schedule_softmax, topi.testing.softmax_python),
        (lambda x: topi.exp(x) + x, topi.generic.schedule_injective, lambda x: np.exp(x) + x),
    ],
)
def test_schedules(fn, schedule, expected):
    x = f(20, 30)
    seen = []

    def by(out):
        seen.append(schedule(out))
        return seen[0]

    (found,) = evaluate((fn, [x]), schedule=by)
    np.testing.assert_allclose(found, expected(x), rtol=1e-4)
    inlined = [s.name for s in seen[0].stages if s.inlined]
    assert inlined == [n for n in inlined if n.startswith("T_") and "softmax" not in n]
    assert str(seen[0].stages).startswith("[stage(x0_0, ")


def test_misuse():
    a, b = te.placeholder((3, 4), name="a"), te.placeholder((3, 5), name="b")
    for fn, reason in [
        (lambda: a + b, "do not broadcast: 4 against 5"),
        (lambda: topi.transpose(a, (0, 0)), "is no order of 2"),
        (lambda: topi.sum(a, axis=2), "axis 2 of a tensor of 2"),
        (lambda: topi.reshape(a, (5, 5)), "has 12 elements"),
        (lambda: topi.elemwise_sum([a, b]), "has shape"),
        (lambda: topi.squeeze(a, 0), "has extent 3"),
        (lambda: topi.nn.dense(a, te.placeholder((3,), name="c")), "are matrices"),
        (lambda: topi.nn.conv2d_nchw(a, b, 1, 0), "have 4 dimensions"),
        (lambda: topi.nn.conv2d(a, b, 1, 0, 1, "NHWC"), "layouts"),
        (lambda: topi.add(1, 2), "one of the operands is a tensor"),
        (lambda: topi.take(a, b, mode="raise"), "mode is"),
    ]:
        with pytest.raises(TypeCheckError, match=reason):
            fn()


def test_arange():
    for args in [(5,), (2, 9, 3), (5, 0, -2), (0.5, 3.0, 0.25)]:
        out = topi.arange(*args)
        result = tvm.nd.empty(out.shape, out.dtype)
        tvm.build(te.create_schedule(out.op), [out])(result)
        np.testing.assert_array_equal(result.numpy(), np.arange(*args, dtype="float32"))
