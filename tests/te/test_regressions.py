"""Expressions and calls that once came out wrong: machine code, plain Python and the interpreter against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from tensorlang import te
from tensorlang.build import Kernel, build
from tensorlang.config import Settings
from tensorlang.errors import InputError
from tensorlang.ir.interp import run
from tensorlang.schedule import Schedule


@pytest.mark.parametrize("dtype", ["f32", "f64", "f16", "i32", "i8", "u8"])
def test_fmod(dtype):
    x, y = te.placeholder((3, 13), dtype, name="x"), te.placeholder((3, 13), dtype, name="y")
    func = te.create_prim_func("f", [x, y], [te.compute((3, 13), lambda i, j: te.fmod(x[i, j], y[i, j]), name="o")])
    s = Schedule(func)
    s["o"].vectorize(s["o"].split(s["o"].axis[1], 8)[1])
    rng = np.random.default_rng(0)
    numpy = func.outputs[0].dtype.numpy
    if dtype[0] == "f":
        strange = [np.nan, np.inf, -np.inf, -0.0, 7.5, -7.5, 6.0e4, -0.3]
        a, b = (rng.choice(np.array(strange), (3, 13)).astype(numpy) for _ in range(2))
    else:
        low = 0 if dtype[0] == "u" else -100
        a, b = rng.integers(low, 100, (3, 13)).astype(numpy), rng.integers(1, 9, (3, 13)).astype(numpy)
        b = b if dtype[0] == "u" else (b * rng.choice([-1, 1], b.shape)).astype(numpy)
    with np.errstate(all="ignore"):
        expected = np.fmod(a, b)
        kernel = build(s)
        out = np.zeros_like(a)
        run(func, [a, b, out])
        for got in (out, build(func)(a, b), kernel(a, b), Kernel(kernel.lowered, kernel.original, Settings(jit=False))(a, b)):
            np.testing.assert_array_equal(got, expected)


def _flip_and_add_one(outputs=1):
    x = te.placeholder((5, 4), "f32", name="x")
    both = [te.compute((5, 4), lambda i, j, n=n: x[4 - i, 3 - j] + float(n + 1), name=f"o{n}") for n in range(outputs)]
    return build(te.create_prim_func("f", [x], both))


def test_an_output_may_share_memory_with_an_input():
    memory = np.arange(24, dtype=np.float32).reshape(6, 4)
    expected = memory[:5][::-1, ::-1] + np.float32(1)
    same = memory[:5].copy()
    assert _flip_and_add_one()(same, out=same) is same
    np.testing.assert_array_equal(same, expected)
    _flip_and_add_one()(memory[:5], out=memory[1:])
    np.testing.assert_array_equal(memory[1:], expected)


def test_outputs_share_no_memory():
    x, out = np.zeros((5, 4), np.float32), np.zeros((6, 4), np.float32)
    with pytest.raises(InputError, match="share memory"):
        _flip_and_add_one(2)(x, out=(out[:5], out[1:]))
