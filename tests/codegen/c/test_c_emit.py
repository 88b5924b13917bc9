"""The text of emitted C: the same loops as the emitted Python, readable, and what has no meaning in C refused."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest

import tensorlang as tl
from tensorlang import te
from tensorlang.build import lower_kernel
from tensorlang.codegen.c.emit import c_identifier, emit_c_kernel
from tensorlang.codegen.c.intervals import Intervals
from tensorlang.codegen.c.printer import CPrinter
from tensorlang.codegen.emit import emit_kernel
from tensorlang.errors import BuildError
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.dtype import f32, i8, i32, i64
from tensorlang.ir.expr import call, cast, const, floordiv, load, minimum, neg, select, var
from tensorlang.schedule import Schedule
from tests import programs

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc")


def loops(text: str, pattern: str) -> list[tuple[str, str]]:
    return [m.groups() for m in re.finditer(pattern, text)]


@pytest.mark.parametrize(
    "func",
    [programs.dense(8, 12, 20), programs.softmax(4, 30), programs.conv_nhwc(9, 4, 8), programs.chain(100)],
    ids=lambda f: f.name,
)
def test_the_same_loops_as_in_python(func):
    """Of one kernel IR: names, extents, order and comments."""
    lowered = lower_kernel(func, target="c").stages[-1].func
    c, python = emit_c_kernel(lowered).text, emit_kernel(lowered).text
    python = re.sub(r"parallel_for.*", "", python)
    ours = loops(c, r"for \(int32_t (\w+) = 0; \w+ < (\w+); \+\+\w+\)")
    assert ours == loops(python, r"for (\w+) in range\((\w+)\)") and ours
    assert loops(c, r"// (stage \w+)") == loops(python, r"# (stage \w+)")


@pytest.mark.parametrize("name", ["dense", "softmax", "conv"])
def test_text(name, golden):
    func = {
        "dense": programs.dense(8, 16, 20), "softmax": programs.softmax(4, 30), "conv": programs.conv_nhwc(6, 3, 8),
    }[name]  # fmt: skip
    kernel = tl.build(func, target="c")
    golden(re.sub(r" \(\S*programs\.py:\d+\)", "", kernel.source))


@needs_gcc
def test_symbolic_sizes_are_parameters():
    kernel = tl.build(programs.dense(var("m"), var("n"), var("k")), target="c")
    assert "int64_t m" in kernel.source
    rng = np.random.default_rng(0)
    for m, n, k in ((3, 5, 7), (1, 1, 1), (4, 16, 2)):
        x, w, b = (rng.standard_normal(s).astype(np.float32) for s in ((m, k), (k, n), (n,)))
        np.testing.assert_allclose(kernel(x, w, b), programs.dense_reference(x, w, b), rtol=1e-5, atol=1e-6)


def test_without_a_compiler_the_error_says_so(monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    kernel = tl.build(programs.chain(8), target="c")
    assert "tl_exp_f32" in kernel.source
    with pytest.raises(BuildError, match="needs a C compiler, and there is none.*install gcc"):
        kernel(np.zeros(8, np.float32))


def test_thread_axes_are_refused():
    s = Schedule(programs.chain(64))
    s["out"].bind(s["out"].axis[0], "threadIdx.x")
    with pytest.raises(BuildError, match=r"bound to threadIdx\.x, and C has no thread axes"):
        tl.build(s, target="c")


@pytest.mark.parametrize(
    ("name", "expected"),
    [("dense", "dense"), ("for", "k_for"), ("round", "k_round"), ("expf", "k_expf"), ("tl_x", "k_tl_x"), ("3d", "k_3d"),
     ("a.b", "a_b"), ("x_t", "k_x_t"), ("__x", "x"), ("größe", "gr__e")],
)  # fmt: skip
def test_identifiers_mean_nothing_else(name, expected):
    assert c_identifier(name) == expected


# -- expressions ---------------------------------------------------------------------------------------------------


def show(e, extents=None, bits=64) -> str:
    return CPrinter(lambda v: v.name, lambda b: b.name, extents or {}, bits)(e)


A, B = var("i"), var("j")
X, Y = Buffer("x", (const(9),), i8), Buffer("y", (const(9),), i32)


@pytest.mark.parametrize(
    ("e", "expected"),
    [
        (floordiv(A, 4), "i / 4"),
        (floordiv(A - 5, 4), "tl_floordiv_i64(i - 5, 4)"),
        (minimum(A, 3), "tl_min_i64(i, 3)"),
        (load(Y, [A]) + 1, "tl_add_i32(y[i], 1)"),
        (cast(i32, load(X, [A])) * cast(i32, load(X, [B])), "(int32_t)x[i] * (int32_t)x[j]"),
        (load(X, [A]) + load(X, [B]), "(int8_t)(x[i] + x[j])"),
        (neg(const(-1.5, f32)), "-(-1.5f)"),
        (const(float("inf"), f32), "INFINITY"),
        (const(-(2**31), i32), "INT32_MIN"),
        (const(2**40, i64), "INT64_C(1099511627776)"),
        (cast(i32, const(2.5, f32)), "tl_f32_to_i32(2.5f)"),
        (select(A < 3, 1.0, 2.0) + 1.0, "(i < 3 ? 1.0f : 2.0f) + 1.0f"),
        ((A < 3) & (B < 2) | (A < 1), "(i < 3 && j < 2) || i < 1"),
        (call("right_shift", load(Y, [A]), 3), "y[i] >> 3"),
        (call("left_shift", load(Y, [A]), 3), "(int32_t)((uint32_t)y[i] << 3)"),
        (call("left_shift", load(Y, [A]), load(Y, [B])), "tl_left_shift_i32(y[i], y[j])"),
        (call("bitwise_and", load(Y, [A]), call("bitwise_xor", load(Y, [B]), 1)), "y[i] & (y[j] ^ 1)"),
    ],
    ids=str,
)
def test_expressions(e, expected):
    """`i` and `j` are loops of 9 iterations; arithmetic that may leave its type goes through a function that wraps."""
    assert show(e, {A: 9, B: 9}) == expected


def test_intervals():
    found = Intervals({A: const(9), B: 4})
    assert found(A * 4 + B - 3) == (-3, 32)
    assert found(floordiv(A, 2) % 3) == (0, 2)
    assert not found.overflows(cast(i32, load(X, [A])) * 1000)
    assert found.overflows(load(Y, [A]) * 2)


def test_wide_loops_use_64_bits():
    """Index arithmetic that leaves 32 bits is not cut."""
    n = 1 << 33
    x = te.placeholder((4,), "f32", name="x")
    out = te.compute((n,), lambda i: x[i % 4], name="out")
    text = lower_kernel(te.create_prim_func("wide", [x], [out]), target="c").emitted.text
    assert f"int64_t i = 0; i < INT64_C({n})" in text


def rows(n) -> Schedule:
    """b[i, j] = a[i, n - 1 - j] of a stage a = 2 x that is computed a row at a time."""
    x = te.placeholder((4, n), name="x")
    a = te.compute((4, n), lambda i, j: x[i, j] * 2.0, name="a")
    b = te.compute((4, n), lambda i, j: a[i, n - 1 - j], name="b")
    s = Schedule(te.create_prim_func("rows", [x], [b]))
    s["a"].compute_at(s["b"], s["b"].axis[0])
    return s


@needs_gcc
@pytest.mark.parametrize("size", [100, 2048, "n"])
def test_what_is_too_large_for_the_stack_is_workspace(size):
    """One row of it, which all iterations use: up to 1024 bytes lie on the stack."""
    kernel = tl.build(rows(var("n") if size == "n" else size), target="c")
    workspace = {name: str(nbytes) for name, nbytes in kernel.lowered.emitted.workspace}
    assert workspace == {100: {}, 2048: {"a": "8192"}, "n": {"a": "n * 4"}}[size]
    assert ("float a[100];" in kernel.source) == (size == 100)
    x = np.random.default_rng(0).standard_normal((4, 300 if size == "n" else size)).astype(np.float32)
    np.testing.assert_array_equal(kernel(x), 2 * x[:, ::-1])
