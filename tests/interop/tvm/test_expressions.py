"""tir's expressions, calls by name, lowering rules, and te's own names."""

from __future__ import annotations

import numpy as np
import pytest

import tensorlang.interop.tvm as tvm
from tensorlang.errors import BuildError, TypeCheckError
from tensorlang.interop.tvm import te, tir
from tensorlang.interop.tvm.ir import register_intrin_lowering, register_op_attr


def elementwise(fn, x, target="llvm"):
    a = te.placeholder(x.shape, dtype=x.dtype.name, name="a")
    b = te.compute(x.shape, lambda *i: fn(a(*i)), name="b")
    out = tvm.nd.empty(x.shape, b.dtype)
    tvm.build(te.create_schedule(b.op), [a, b], target)(tvm.nd.array(x), out)
    return out.numpy()


X = np.random.default_rng(0).uniform(0.5, 3, 33).astype("float32")
INTS = np.arange(-8, 9, dtype="int32")


C = {"__expf": np.exp, "logf": np.log, "sqrtf": np.sqrt, "fabs": np.abs, "rint": np.round, "tanhf": np.tanh}


def test_functions_of_c_by_name():
    a = te.placeholder(X.shape, name="a")
    outs = te.compute(X.shape, lambda i: tuple(tir.call_pure_extern("float32", n, a[i]) for n in C), name="b")
    results = [tvm.nd.empty(X.shape) for _ in C]
    tvm.build(te.create_schedule(outs[0].op), [a, *outs])(tvm.nd.array(X), *results)
    for found, expected in zip(results, C.values(), strict=True):
        np.testing.assert_allclose(found.numpy(), expected(X), rtol=1e-5)


def test_unknown_functions_of_c_are_refused():
    with pytest.raises(TypeCheckError, match="no function 'bessel'"):
        elementwise(lambda v: tir.call_pure_extern("float32", "bessel", v), X)
    with pytest.raises(TypeCheckError, match=r"powf takes 2 argument\(s\), got 1"):
        elementwise(lambda v: tir.call_pure_extern("float32", "powf", v), X)
    with pytest.raises(TypeCheckError, match="no intrinsic 'tir.unheard'"):
        elementwise(lambda v: tir.call_intrin("float32", "tir.unheard", v), X)


def test_intrinsics_under_their_names():
    np.testing.assert_allclose(elementwise(lambda v: tir.call_intrin(v.dtype, "tir.exp", v), X), np.exp(X), rtol=1e-5)


def test_the_rule_of_the_highest_level_counts_and_only_for_its_target():
    seen = []

    def rule(call):
        seen.append((call.op.name, call.dtype, isinstance(call, tir.Call)))
        return call.args[0] * 2

    register_intrin_lowering("tir.cosh", target="rocm", f=lambda call: call.args[0] * 3, level=1)
    register_intrin_lowering("tir.cosh", target="rocm", f=rule, level=5)
    register_intrin_lowering("tir.cosh", target="rocm", f=lambda call: call, level=2)
    np.testing.assert_allclose(elementwise(te.cosh, X, "rocm"), 2 * X)
    assert seen == [("tir.cosh", "float32", True)]
    np.testing.assert_allclose(elementwise(te.cosh, X), np.cosh(X), rtol=1e-5)


def test_an_intrinsic_of_the_user_needs_a_rule_for_the_target():
    register_op_attr("tir.test_triple", "TCallEffectKind", tir.CallEffectKind.Pure)
    register_intrin_lowering("tir.test_triple", target="vulkan", f=lambda call: call.args[0] * 3)

    def triple(v):
        return tir.call_intrin(v.dtype, "tir.test_triple", v)

    np.testing.assert_allclose(elementwise(triple, X, "vulkan"), 3 * X)
    with pytest.raises(BuildError, match="tir.test_triple has no lowering rule for target 'llvm'"):
        elementwise(triple, X)
    register_intrin_lowering("tir.test_triple", target="vulkan", f=lambda call: "3x", level=20)
    with pytest.raises(BuildError, match="returned str"):
        elementwise(triple, X, "vulkan")


INTEGER = [
    (lambda v: tir.indexdiv(v, 4), INTS // 4),
    (lambda v: tir.indexmod(v, 4), INTS % 4),
    (lambda v: tir.div(v, 3), np.trunc(INTS / 3)),
    (lambda v: tir.truncmod(v, 3), np.fmod(INTS, 3)),
    (lambda v: tir.Select(tir.all(v > -3, v < 3), v, 7), np.where((INTS > -3) & (INTS < 3), INTS, 7)),
    (lambda v: tir.if_then_else(tir.any(v < -3, v.equal(0)), 1, 0), (INTS < -3) | (INTS == 0)),
    (lambda v: te.max(v, 2), np.maximum(INTS, 2)),
    (lambda v: te.min(v, 2), np.minimum(INTS, 2)),
    (lambda v: tir.popcount(te.abs(v)), [abs(int(n)).bit_count() for n in INTS]),
    (lambda v: tir.Cast("int32", tir.GT(v, 1)) + tir.Cast("int32", tir.GE(v, 1)), (INTS > 1).astype(int) + (INTS >= 1)),
]


def test_integer_expressions():
    a = te.placeholder(INTS.shape, "int32", name="a")
    outs = te.compute(INTS.shape, lambda i: tuple(tir.Cast("int32", fn(a[i])) for fn, _ in INTEGER), name="b")
    results = [tvm.nd.empty(INTS.shape, "int32") for _ in INTEGER]
    tvm.build(te.create_schedule(outs[0].op), [a, *outs])(tvm.nd.array(INTS), *results)
    for found, (_, expected) in zip(results, INTEGER, strict=True):
        np.testing.assert_array_equal(found.numpy(), expected)


def test_reductions_with_a_condition():
    a = te.placeholder((4, 9), name="a")
    k = te.reduce_axis((0, 9), "k")
    b = te.compute((4,), lambda i: te.max(a[i, k], axis=k, where=k < 5), name="b")
    x, out = np.random.default_rng(0).normal(size=(4, 9)).astype("float32"), tvm.nd.empty((4,))
    tvm.build(te.create_schedule(b.op), [a, b])(tvm.nd.array(x), out)
    np.testing.assert_array_equal(out.numpy(), x[:, :5].max(1))


def test_gradients():
    a = te.placeholder((4, 9), name="a")
    k = te.reduce_axis((0, 9), "k")
    b = te.compute((4,), lambda i: te.sum(te.exp(a[i, k]), axis=k), name="b")
    (da,) = te.gradient(b, [a], te.compute((4,), lambda i: 2.0, name="head"))
    x, out = np.random.default_rng(0).normal(size=(4, 9)).astype("float32"), tvm.nd.empty((4, 9))
    tvm.build(te.create_schedule(da.op), [a, da])(tvm.nd.array(x), out)
    np.testing.assert_allclose(out.numpy(), 2 * np.exp(x), rtol=1e-5)


def test_tensors_know_what_they_are():
    a = te.placeholder((4, 6), name="a")
    k = te.reduce_axis((0, 6), "k")
    b = te.compute((4,), lambda i: te.sum(a[i][k], axis=k), name="b.local", tag="mine")
    assert (b.name, b.dtype, b.shape, b.ndim, b.value_index) == ("b_local", "float32", (4,), 1, 0)
    assert b.op.reduce_axis == [k] and len(b.op.axis) == 1 and b.op.tag == "mine" and b.op == b.op
    assert b.op.input_tensors == [a] and b.op.output(0) == b and b.op.num_outputs == 1 and str(b.op.body).startswith("[sum(")
    assert te.compute((8 / 2,), lambda i: 1.0).shape == (4,)
    with te.tag_scope("inside"):
        assert te.compute((3,), lambda i: 1.0).op.tag == "inside"
    with pytest.raises(TypeCheckError, match="2.5 is not a whole number"):
        te.compute((5 / 2,), lambda i: 1.0)


def test_int32_variables_are_indices():
    assert str(te.var("n").dtype) == "i64" and str(te.var("x", "float32").dtype) == "f32"
    assert tvm.topi.utils.get_const_tuple((3, tir.const(4))) == (3, 4)
    with pytest.raises(TypeCheckError, match="n is not a constant"):
        tvm.topi.utils.get_const_int(te.var("n"))
