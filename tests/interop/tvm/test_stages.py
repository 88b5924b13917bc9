"""Stages that are more than one expression per element: tuples, user-made reducers, scans, externs, tensor intrinsics."""

from __future__ import annotations

import numpy as np
import pytest

import tensorlang.interop.tvm as tvm
from tensorlang.errors import ScheduleError, TensorlangError, TypeCheckError
from tensorlang.interop.tvm import te, tir
from tensorlang.interop.tvm.contrib import cblas, clang
from tensorlang.interop.tvm.registry import remove_global_func


def uniform(*shape):
    return np.random.default_rng(0).uniform(-1, 1, shape).astype("float32")


def run(s, tensors, arrays, shapes, dtypes=None, target="llvm"):
    outs = [tvm.nd.empty(shape, dtype) for shape, dtype in zip(shapes, dtypes or ["float32"] * len(shapes), strict=True)]
    tvm.build(s, tensors, target)(*(tvm.nd.array(a) for a in arrays), *outs)
    return [o.numpy() for o in outs]


# -- tuples ------------------------------------------------------------------------------------------------------------


def test_the_outputs_of_a_tuple_are_scheduled_as_one():
    m, n = te.var("m"), te.var("n")
    a = te.placeholder((m, n), name="a")
    plus, times = te.compute((m, n), lambda i, j: (a[i, j] + 2, a[i, j] * 3), name="pair")
    assert plus.op == times.op and plus.op.num_outputs == 2 and times.value_index == 1
    s = te.create_schedule(plus.op)
    outer, inner = s[times].split(plus.op.axis[1], factor=8)
    s[plus].parallel(plus.op.axis[0])
    x = uniform(5, 20)
    found = run(s, [a, plus, times], [x], [x.shape] * 2)
    np.testing.assert_array_equal(found[0], x + 2)
    np.testing.assert_array_equal(found[1], x * 3)


def test_one_of_a_tuple_inside_a_loop_of_its_reader():
    a, b = te.placeholder((6, 8), name="a"), te.placeholder((6, 8), name="b")
    plus, _ = te.compute((6, 8), lambda i, j: (a[i, j] + 2, a[i, j] * 3), name="pair")
    c = te.compute((6, 8), lambda i, j: b[i, j] + plus[i, j], name="c")
    s = te.create_schedule(c.op)
    s[plus].compute_at(s[c], c.op.axis[0])
    x, y = uniform(6, 8), uniform(6, 8) * 2
    np.testing.assert_allclose(run(s, [a, b, c], [x, y], [x.shape])[0], y + (x + 2), rtol=1e-6)


def test_argmax_by_a_reducer_of_pairs():
    def combine(x, y):
        first = tir.any(x[1] > y[1], tir.all(x[1].equal(y[1]), x[0] <= y[0]))
        return tir.Select(first, x[0], y[0]), tir.Select(first, x[1], y[1])

    argmax = te.comm_reducer(combine, lambda t0, t1: (tir.const(2**31 - 1, t0), te.min_value(t1)), name="argmax")
    a, index = te.placeholder((7, 30), name="a"), te.placeholder((7, 30), "int32", name="index")
    k = te.reduce_axis((0, 30), "k")
    where, most = te.compute((7,), lambda i: argmax((index[i, k], a[i, k]), axis=k), name="best")
    s = te.create_schedule(where.op)
    s[where].split(where.op.reduce_axis[0], factor=8)
    x = uniform(7, 30)
    numbers = np.tile(np.arange(30, dtype="int32"), (7, 1))
    found = run(s, [index, a, where, most], [numbers, x], [(7,), (7,)], ["int32", "float32"])
    np.testing.assert_array_equal(found[0], x.argmax(1))
    np.testing.assert_array_equal(found[1], x.max(1))


# -- scan --------------------------------------------------------------------------------------------------------------


def recurrence(cell):
    t, n = te.var("t"), te.var("n")
    x = te.placeholder((t, n), name="x")
    state = te.placeholder((t, n), name="state")
    init = te.compute((1, n), lambda _, i: x[0, i], name="init")
    stages = cell((t, n), state, x)
    return x, init, stages, te.scan(init, stages[-1], state, inputs=[x])


def test_a_scan_whose_stages_are_split_and_bound():
    x, init, (update,), out = recurrence(
        lambda shape, s, x: [te.compute(shape, lambda t, i: s[t - 1, i] + x[t, i], name="update")]
    )
    s = te.create_schedule(out.op)
    block, thread = te.thread_axis("blockIdx.x"), te.thread_axis("threadIdx.x")
    for stage in (init, update):
        outer, inner = s[stage].split(stage.op.axis[1], factor=16)
        s[stage].bind(outer, block)
        s[stage].bind(inner, thread)
    data = uniform(6, 50)
    np.testing.assert_allclose(run(s, [x, out], [data], [data.shape], target="cuda")[0], data.cumsum(0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("place", [False, True])
def test_a_cell_of_two_stages(place):
    def cell(shape, s, x):
        twice = te.compute(shape, lambda t, i: s[t - 1, i] * 2, name="twice")
        return [twice, te.compute(shape, lambda t, i: twice[t, i] + x[t, i], name="update")]

    x, _, (twice, update), out = recurrence(cell)
    s = te.create_schedule(out.op)
    if place:
        outer, _ = s[update].split(update.op.axis[1], factor=16)
        s[twice].compute_at(s[update], outer)
    data = uniform(5, 40)
    expected = data.copy()
    for t in range(1, 5):
        expected[t] += 2 * expected[t - 1]
    np.testing.assert_allclose(run(s, [x, out], [data], [data.shape])[0], expected, rtol=1e-5, atol=1e-6)


def test_two_states():
    t, n = te.var("t"), te.var("n")
    x = te.placeholder((t, n), name="x")
    s1, s2 = te.placeholder((t, n), name="s1"), te.placeholder((t, 3), name="s2")
    init1 = te.compute((1, n), lambda _, i: x[0, i], name="init1")
    init2 = te.compute((1, 3), lambda _, i: 0.0, name="init2")
    update1 = te.compute((t, n), lambda t, i: s1[t - 1, i] + x[t, i], name="update1")
    update2 = te.compute((t, 3), lambda t, i: s2[t - 1, i] + s1[t - 1, 0], name="update2")
    out1, out2 = te.scan([init1, init2], [update1, update2], [s1, s2], inputs=[x])
    data = uniform(6, 5)
    found = run(te.create_schedule(out1.op), [x, out1, out2], [data], [(6, 5), (6, 3)])
    sums = data.cumsum(0)
    np.testing.assert_allclose(found[0], sums, rtol=1e-5, atol=1e-6)
    expected = np.concatenate([[0.0], sums[:-1, 0].cumsum()])
    np.testing.assert_allclose(found[1], np.tile(expected[:, None], (1, 3)), rtol=1e-5, atol=1e-6)


def test_time_stays_as_it_is():
    x, _, (update,), out = recurrence(
        lambda shape, s, x: [te.compute(shape, lambda t, i: s[t - 1, i] + x[t, i], name="update")]
    )
    s = te.create_schedule(out.op)
    with pytest.raises(ScheduleError, match="it is the time of a scan"):
        s[update].split(update.op.axis[0], factor=2)
    with pytest.raises(ScheduleError, match="it is the time of a scan"):
        s[out].parallel(out.op.scan_axis)


# -- extern ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def functions():
    names = []

    def register(name, fn):
        names.append(name)
        tvm.register_func(name, fn)

    yield register
    for name in names:
        remove_global_func(name)


def test_a_registered_function_between_stages(functions):
    def sort(x, y, ascending):
        assert isinstance(x, tvm.nd.NDArray) and isinstance(ascending, bool)
        tvm.nd.array(np.sort(x.numpy())).copyto(y)

    functions("test.sort", sort)
    a = te.placeholder((10,), name="a")
    b = te.compute((10,), lambda i: -a[i], name="b")
    c = te.extern((10,), [b], lambda ins, outs: tir.call_packed("test.sort", ins[0], outs[0], True), name="c")
    d = te.compute((10,), lambda i: c[i] * 2, name="d")
    x = uniform(10)
    np.testing.assert_array_equal(run(te.create_schedule(d.op), [a, d], [x], [(10,)])[0], np.sort(-x) * 2)


def test_several_outputs_and_calls_in_order(functions):
    functions("test.split", lambda x, high, low: (high.copyfrom(x.numpy() + 1), low.copyfrom(x.numpy() - 1)) and None)
    functions("test.negate", lambda x: x.copyfrom(-x.numpy()))
    a = te.placeholder((4,), name="a")
    high, low = te.extern(
        [(4,), (4,)],
        [a],
        lambda ins, outs: [
            tir.call_packed("test.split", ins[0], outs[0], outs[1]),
            tir.call_packed("test.negate", outs[1]),
        ],
        name="both",
    )
    x = uniform(4)
    found = run(te.create_schedule(high.op), [a, high, low], [x], [(4,), (4,)])
    np.testing.assert_array_equal(found[0], x + 1)
    np.testing.assert_array_equal(found[1], -(x - 1))


def test_what_a_function_raises_reaches_the_caller(functions):
    def broken(x, y):
        raise RuntimeError("out of order")

    functions("test.broken", broken)
    a = te.placeholder((4,), name="a")
    b = te.extern((4,), [a], lambda ins, outs: tir.call_packed("test.broken", ins[0], outs[0]), name="b")
    with pytest.raises(TensorlangError, match="out of order"):
        run(te.create_schedule(b.op), [a, b], [uniform(4)], [(4,)])
    unknown = te.extern((4,), [a], lambda ins, outs: tir.call_packed("test.none", ins[0], outs[0]), name="b")
    with pytest.raises(TensorlangError, match="no function is registered as 'test.none'"):
        run(te.create_schedule(unknown.op), [a, unknown], [uniform(4)], [(4,)])


def test_a_function_of_python_cannot_be_saved(functions, tmp_path):
    functions("test.copy", lambda x, y: y.copyfrom(x.numpy()))
    a = te.placeholder((4,), name="a")
    b = te.extern((4,), [a], lambda ins, outs: tir.call_packed("test.copy", ins[0], outs[0]), name="b")
    with pytest.raises(TensorlangError, match="cannot be saved"):
        tvm.build(te.create_schedule(b.op), [a, b]).save(tmp_path / "f.o")
    assert list(tmp_path.iterdir()) == []


def test_loops_written_out():
    def body(ins, outs):
        ib = tir.ir_builder.create()
        source, target = ib.buffer_ptr(ins[0]), ib.buffer_ptr(outs[0])
        best = ib.allocate("float32", (1,), name="best", scope="local")
        best[0] = source[0, 0]
        with ib.for_range(0, 24, name="i") as i:
            with ib.if_scope(source[i] > best[0]):  # one index runs over both dimensions
                best[0] = source[i]
            with ib.else_scope():
                target[i] = source[i] - 1
            target[i] = best[0]
        return ib.get()

    a = te.placeholder((4, 6), name="a")
    b = te.extern((4, 6), [a], body, name="b")
    x = uniform(4, 6)
    found = run(te.create_schedule(b.op), [a, b], [x], [(4, 6)])[0]
    np.testing.assert_array_equal(found.ravel(), np.maximum.accumulate(x.ravel()))


def test_misuse_of_extern():
    a = te.placeholder((4,), name="a")
    i = te.placeholder((4,), "int32", name="i")
    for given, body, reason in [
        ([a], lambda ins, outs: None, "the body is tir.call_packed"),
        ([a, i], lambda ins, outs: tir.call_packed("f", *ins, *outs), "tell no output type"),
        ([3], lambda ins, outs: tir.call_packed("f"), "is not a tensor"),
        ([a], lambda ins, outs: tir.call_packed(ins[0]), "registered name"),
        ([a], lambda ins, outs: tir.call_packed("f", ins[0].access_ptr("r", offset=2), outs[0]), "into the middle of a"),
        ([a], lambda ins, outs: tir.call_packed("f", tir.decl_buffer((3,)), outs[0]), "no buffer of this stage"),
    ]:
        with pytest.raises(TypeCheckError, match=reason):
            te.extern((4,), given, body, name="b")


@pytest.mark.parametrize("transa, transb", [(False, False), (True, True)])
def test_products_of_a_library(transa, transb):
    x, y = uniform(*((6, 5) if transa else (5, 6))), uniform(*((7, 6) if transb else (6, 7)))
    a, b = te.placeholder(x.shape, name="a"), te.placeholder(y.shape, name="b")
    c = cblas.matmul(a, b, transa, transb)
    expected = (x.T if transa else x) @ (y.T if transb else y)
    np.testing.assert_allclose(run(te.create_schedule(c.op), [a, b, c], [x, y], [(5, 7)])[0], expected, rtol=1e-5)
    with pytest.raises(TypeCheckError, match="to sum over"):
        cblas.matmul(a, a)
    assert tvm.get_global_func("tvm.contrib.cblas.matmul")


# -- tensor intrinsics -------------------------------------------------------------------------------------------------


def product():
    a, b = te.placeholder((12, 32), name="a"), te.placeholder((16, 32), name="b")
    k = te.reduce_axis((0, 32), "k")
    c = te.compute((12, 16), lambda i, j: te.sum(a[i, k] * b[j, k], axis=k), name="c")
    return a, b, c


def matvec(rows, length, whole_only=False, scale=None):
    a, b = te.placeholder((length,), name="a"), te.placeholder((rows, length), name="b")
    k = te.reduce_axis((0, length), "k")
    c = te.compute((rows,), lambda i: te.sum(a[k] * b[i, k] if scale is None else a[k] * b[i, k] * scale, axis=k), name="c")

    def calls(ins, outs):
        update = tir.call_extern("int32", "update", outs[0].access_ptr("w"), ins[0].access_ptr("r"), ins[1].access_ptr("r"))
        return update if whole_only else (update, tir.call_extern("int32", "reset", outs[0].access_ptr("w")), update)

    return te.decl_tensor_intrin(c.op, calls)


def tiled(c, factor=8):
    s = te.create_schedule(c.op)
    i, j = c.op.axis
    jo, ji = s[c].split(j, factor=factor)
    s[c].reorder(i, jo, ji, c.op.reduce_axis[0])
    return s, i, jo, ji


def test_tensorize_whole_then_a_part_of_the_reduction():
    a, b, c = product()
    s, i, jo, ji = tiled(c)
    s[c].tensorize(ji, matvec(8, 32, whole_only=True))
    x, y = uniform(12, 32), uniform(16, 32)
    assert "tensor_intrin" in str(tvm.lower(s, [a, b, c]))
    np.testing.assert_allclose(run(s, [a, b, c], [x, y], [(12, 16)])[0], x @ y.T, rtol=1e-4, atol=1e-5)
    ko, ki = s[c].split(c.op.reduce_axis[0], factor=16)
    s[c].reorder(i, jo, ko, ji, ki)
    s[c].tensorize(ji, matvec(8, 16))
    s[c].pragma(jo, "import_llvm", clang.create_llvm("int update(float *c) { return 0; }"))
    s[c].parallel(i)
    np.testing.assert_allclose(run(s, [a, b, c], [x, y], [(12, 16)])[0], x @ y.T, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "intrin, reason",
    [
        (lambda: matvec(4, 32), "is not update"),
        (lambda: matvec(8, 32, scale=2.0), "is not update"),
        (lambda: "update", "made by te.decl_tensor_intrin"),
    ],
)
def test_what_does_not_match_is_refused(intrin, reason):
    a, b, c = product()
    s, *_, ji = tiled(c)
    s[c].tensorize(ji, intrin())
    with pytest.raises(ScheduleError, match=reason):
        tvm.lower(s, [a, b, c])


def test_a_reduction_outside_needs_reset_and_update():
    a, b, c = product()
    s, i, jo, ji = tiled(c)
    ko, ki = s[c].split(c.op.reduce_axis[0], factor=16)
    s[c].reorder(i, jo, ko, ji, ki)
    s[c].tensorize(ji, matvec(8, 16, whole_only=True))
    with pytest.raises(ScheduleError, match="needs its reset and update"):
        tvm.lower(s, [a, b, c])


def test_misuse_of_intrinsics():
    _, _, c = product()
    with pytest.raises(TypeCheckError, match="consists of calls"):
        te.decl_tensor_intrin(c.op, lambda ins, outs: 3)
    with pytest.raises(TypeCheckError, match="operation of a computed tensor"):
        te.decl_tensor_intrin(c, lambda ins, outs: None)
    with pytest.raises(TypeCheckError, match="defines no function"):
        clang.create_llvm("int x;")
    with pytest.raises(TypeCheckError, match="none of 'r', 'w', 'rw'"):
        tir.decl_buffer((3,)).access_ptr("x")
