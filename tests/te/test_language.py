"""Tracing: shapes, names, constants, stages and what the loop nest looks like."""

import numpy as np
import pytest

from tensorlang import te
from tensorlang.errors import InputError
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr
from tensorlang.ir.stmt import Allocate, Seq
from tensorlang.ir.visitor import blocks, walk_stmt


@te.compute
def dense(x: te.f32["M", "K"], w: te.f32["N", "K"], b: te.f32["N"], scale: int = 1):
    M, K = x.shape
    N, _ = w.shape
    k = te.reduce_axis(K, name="k")
    y = te.compute((M, N), lambda i, j: te.sum(x[i, k] * w[j, k], axis=k))
    return te.compute((M, N), lambda i, j: te.maximum(y[i, j] * scale + b[j], 0), name="out")


def test_operator_describes_itself():
    assert dense.dims == ("M", "K", "N")
    assert str(dense) == "te.Operator dense(x: f32['M', 'K'], w: f32['N', 'K'], b: f32['N'], scale=1)"
    assert dense.source.endswith(".py:14")


def test_shapes_by_dimension_and_by_parameter():
    inputs, (out,) = dense.trace({"M": 128, "w": (768, None)})
    x, w, b = inputs
    assert x.shape[0] == 128 and isinstance(x.shape[1], Expr) and w.shape == (768, x.shape[1]) and b.shape == (768,)
    assert out.shape == (128, 768)


def test_loop_nest():
    func = dense.prim_func({"M": 4})
    assert [str(p) for p in func.params] == ["x: f32[4, K]", "w: f32[N, K]", "b: f32[N]", "out: f32[4, N]", "K", "N"]
    assert [b.name for b in blocks(func.body)] == ["y", "out"]
    assert isinstance(func.body, Allocate) and isinstance(func.body.body, Seq)
    y, out = blocks(func.body)
    assert [(i.var.name, str(i.extent), i.kind) for i in y.iters] == [
        ("vi", "4", "spatial"), ("vj", "N", "spatial"), ("vk", "K", "reduce"),
    ]  # fmt: skip
    assert str(y.body.value) == "y[vi, vj] + x[vi, vk] * w[vj, vk]" and str(y.init.value) == "0.0"
    assert out.init is None and str(out.body.value) == "max(y[vi, vj] * 1.0 + b[vj], 0.0)"


def test_sources_name_each_stage():
    source = dense.prim_func().attrs["source"]
    assert list(source) == ["y", "out"]
    assert source["y"].endswith("test_language.py:19") and source["out"].endswith("test_language.py:20")


def test_constants_are_compile_time():
    _, (out,) = dense.trace(scale=3)
    assert "* 3.0" in str(out.op.body)


def test_stage_is_named_after_its_variable_or_function():
    x = te.placeholder((4,), name="x")
    doubled = te.compute((4,), lambda i: 2 * x[i])

    def tripled(i):
        return 3 * x[i]

    assert doubled.name == "doubled" and te.compute((4,), tripled).name == "tripled"
    assert te.compute((4,), lambda i: x[i], name="y").name == "y"


def test_equal_names_get_suffixes():
    x = te.placeholder((4,), name="t")
    y = te.compute((4,), lambda i: x[i] + 1, name="t")
    z = te.compute((4,), lambda i: y[i] * 2, name="t")
    func = te.create_prim_func("f", [x], [z])
    assert [b.name for b in func.buffers] == ["t", "t_2"] and [b.name for b in blocks(func.body)] == ["t_1", "t_2"]
    assert str(blocks(func.body)[1].body) != "" and "t_1[" in str(blocks(func.body)[1].body.value)


def test_rest_lambda_and_rank_zero():
    x = te.placeholder((2, 3, 4), name="x")
    y = te.compute(x.shape, lambda *i: x[i] + 1, name="y")
    assert [a.name for a in y.op.axis] == ["i0", "i1", "i2"]
    r = [te.reduce_axis(d, name=f"r{n}") for n, d in enumerate(x.shape)]
    total = te.compute((), lambda: te.sum(y[tuple(r)], axis=r), name="total")
    func = te.create_prim_func("f", [x], [total])
    assert total.shape == () and func.outputs[0].ndim == 0
    out = te.compute((3,), lambda i: total[()] * te.cast("f32", i), name="out")
    assert out.op.inputs == (total,)


def test_gather_reads_an_index():
    table, ids = te.placeholder(("f32", 10)[1:] + (4,), name="table"), te.placeholder((3,), "i64", name="ids")
    rows = te.compute((3, 4), lambda i, j: table[ids[i], j])
    assert str(rows.op.body) == "table[ids[i], j]" and set(rows.op.inputs) == {table, ids}


def test_arithmetic_on_symbolic_dims():
    @te.compute
    def pool(x: te.f32["H"], k: int = 2):
        (H,) = x.shape
        r = te.reduce_axis(k, name="r")
        return te.compute(((H - k) // k + 1,), lambda i: te.max(x[i * k + r], axis=r), name="out")

    func = pool.prim_func()
    assert str(func.outputs[0].shape[0]) == "(H + -2) // 2 + 1" and [v.name for v in func.size_vars] == ["H"]
    assert pool.trace({"H": 7})[1][0].shape == (3,)
    assert pool.trace({"H": 7}, k=3)[1][0].shape == (2,)


def test_size_vars_in_order_of_first_occurrence():
    n, m = te.var("n"), te.var("m")
    x = te.placeholder((m,), name="x")
    y = te.compute((n,), lambda i: te.if_then_else(i < m, x[te.minimum(i, m - 1)], 0.0), name="y")
    assert te.create_prim_func("f", [x], [y]).size_vars == (m, n)


def test_operator_inlines_in_another():
    @te.compute
    def relu(x: te.f32["N", "M"]):
        return te.compute(x.shape, lambda i, j: te.maximum(x[i, j], 0), name="relu")

    @te.compute
    def twice(x: te.f32["A", "B"], w: te.f32["C", "B"], b: te.f32["C"]):
        return relu(dense(x, w, b, scale=2))

    func = twice.prim_func({"A": 2})
    assert [b.name for b in blocks(func.body)] == ["y", "out", "relu"]
    assert [v.name for v in func.size_vars] == ["B", "C"]


def test_several_outputs_and_outputs_that_are_inputs():
    x = te.placeholder((4,), name="x")
    y = te.compute((4,), lambda i: x[i] + 1, name="y")
    func = te.create_prim_func("f", [x], [y, x, y])
    assert [b.name for b in func.outputs] == ["y", "x_copy", "y_copy"] and func.num_outputs == 3
    assert not [s for s in walk_stmt(func.body) if isinstance(s, Allocate)]


def test_constants_of_a_prim_func():
    x, w = te.placeholder((4,), name="x"), te.placeholder((4,), name="w")
    y = te.compute((4,), lambda i: x[i] * w[i], name="y")
    assert te.create_prim_func("f", [x, w], [y], constants=["w"]).attrs["constants"] == ("w",)


def test_classic_style_schedule():
    a, b = te.placeholder((8, 8), name="A"), te.placeholder((8, 8), name="B")
    k = te.reduce_axis((0, 8), name="k")
    c = te.compute((8, 8), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), name="C")
    s = te.create_schedule(c.op)
    assert [b.name for b in s.func.buffers] == ["A", "B", "C"]
    assert [loop.name for loop in s[c].axis] == ["i", "j"]


def test_registered_schedule_is_applied_and_explicit_one_is_not_needed():
    @te.compute
    def double(x: te.f32["N"]):
        return te.compute(x.shape, lambda i: 2 * x[i], name="out")

    @te.schedule(double, target="cpu")
    def by(s: te.Schedule):
        (i,) = s["out"].axis
        s["out"].parallel(i)

    s = double.schedule({"N": 8})
    assert len(s.trace) == 1 and len(te.create_schedule(double).trace) == 0


def test_string_annotations_and_local_names():
    namespace = {"te": te, "SIZE": 3}
    exec(
        "from __future__ import annotations\n"
        "@te.compute\n"
        "def f(x: te.f32['N', SIZE], n: 'whatever this is' = 2):\n"
        "    return te.compute(x.shape, lambda i, j: x[i, j] * n, name='out')\n",
        namespace,
    )
    assert str(namespace["f"].params["x"]) == "f32['N', 3]" and namespace["f"].constants == {"n": 2}


def test_other_dtypes_and_scalars():
    @te.compute
    def f(x: te.i64["N"], s: te.f32[()], flags: te.bool_["N"]):
        return te.compute(x.shape, lambda i: te.if_then_else(flags[i], te.cast(te.f32, x[i]) * s[()], 0), name="out")

    func = f.prim_func({"N": 2})
    assert [str(b.dtype) for b in func.buffers] == ["i64", "f32", "bool", "f32"] and func.buffers[1].ndim == 0


def test_tensors_are_not_buffers_of_others():
    x = te.placeholder((2,), name="x")
    assert isinstance(x.buffer, Buffer) and x.buffer.tensor is x


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"Z": 3}, "no dimension or parameter 'Z'; known: M, K, N, x, w, b"),
        ({"x": (2, 3, 4)}, "x has 3 dimension(s), shape (2, 3, 4); expected 2"),
        ({"x": (2, 3), "w": (4, 5)}, "dimension 1 ('K') of w is 5; expected 3, the size of K in x.shape[1]"),
        ({"x": (2, 3), "K": 4}, "dimension K is given as 3 and as 4"),
    ],
)
def test_shapes_that_do_not_fit(shapes, message):
    with pytest.raises(InputError) as error:
        dense.trace(shapes)
    assert message in str(error.value)


def test_calls_with_wrong_arrays_are_refused_before_compiling():
    x, w, b = np.zeros((2, 3), np.float32), np.zeros((4, 3), np.float32), np.zeros(4, np.float32)
    for arrays, message in [
        ((x.astype(np.float64), w, b), "x has dtype float64; expected float32"),
        ((x, np.zeros((4, 5), np.float32), b), "dimension 1 ('K') of w is 5; expected 3, the size of K in x.shape[1]"),
        ((x, w, np.zeros((1, 4), np.float32)), "b has 2 dimension(s), shape (1, 4); expected 1"),
        ((x, w, [1.0, 2.0]), "b is list; expected an array of type f32['N']"),
        ((x, w), "missing a required argument: 'b'"),
    ]:
        with pytest.raises(InputError) as error:
            dense(*arrays)
        assert message in str(error.value)
