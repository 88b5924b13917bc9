"""Reducers of tuples, reducers of the user's own, several outputs: interpreter, native code and text against NumPy."""

import numpy as np
import pytest

from tensorlang import te
from tensorlang.build import build
from tensorlang.errors import ScheduleError, TypeCheckError
from tensorlang.ir.equality import structural_hash
from tensorlang.ir.interp import run
from tensorlang.ir.parser import parse_func
from tensorlang.ir.reduction import reduction_of
from tensorlang.ir.verify import verify
from tensorlang.schedule import Schedule

RNG = np.random.default_rng(3)


def program(inputs, outputs, name="f"):
    func = te.create_prim_func(name, inputs, list(outputs))
    verify(func)
    again = parse_func(str(func))
    assert str(again) == str(func) and structural_hash(again) == structural_hash(func)
    return func


def everywhere(func, arrays, transform=None):
    """The outputs by the interpreter on the naive nest, which native code (and each transformed nest) must give exactly."""
    sizes = {d: n for b, a in zip(func.inputs, arrays, strict=True) for d, n in zip(b.shape, a.shape, strict=True)}
    shapes = [[d.value if d.op == "const" else sizes[d] for d in b.shape] for b in func.outputs]

    def interpreted(f):
        outs = [np.empty(s, b.dtype.numpy) for s, b in zip(shapes, f.outputs, strict=True)]
        run(f, [*arrays, *outs])
        return outs

    expected = interpreted(func)
    schedules = [Schedule(func)]
    if transform is not None:
        schedules.append(Schedule(func))
        transform(schedules[1])
        verify(schedules[1].func)
        for got, want in zip(interpreted(schedules[1].func), expected, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    for what in (func, *schedules):
        got = build(what)(*arrays)
        for a, b in zip(got if isinstance(got, tuple) else (got,), expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    return expected


def matrix(m=None, n=None, dtype="f32"):
    m, n = m or te.var("m"), n or te.var("n")
    return te.placeholder((m, n), dtype, name="x"), te.reduce_axis(n, name="k")


def ragged(rows=7, columns=33):
    return RNG.integers(-4, 5, (rows, columns)).astype(np.float32)


def factored(s):
    stage = s.stages[0]
    _, inner = stage.split(stage.reduce_axis[0], 8)
    stage.rfactor(inner)
    stage.parallel(stage.axis[0])


@pytest.mark.parametrize("name", ["argmax", "argmin"])
@pytest.mark.parametrize("transform", [None, factored])
def test_index_and_value(name, transform):
    x, k = matrix()
    out = te.compute((x.shape[0],), lambda i: getattr(te, name)(x[i, k], axis=k), name="best")
    a = ragged()  # many ties: the first counts
    index, value = everywhere(program([x], out), [a], transform)
    assert np.array_equal(index, getattr(np, name)(a, axis=1))
    assert np.array_equal(value, a.max(1) if name == "argmax" else a.min(1))


def test_argmax_of_nan_and_infinity_is_numpys():
    x, k = matrix()
    out = te.compute((x.shape[0],), lambda i: te.argmax(x[i, k], axis=k), name="best")
    a = np.array([[1, np.nan, 3, np.nan], [-np.inf] * 4, [np.inf, 2, np.inf, 0], [-np.inf, -np.inf, np.nan, 0]], np.float32)
    index, _ = everywhere(program([x], out), [a])
    assert np.array_equal(index, np.argmax(a, axis=1))


def test_argmax_over_two_axes_and_of_integers():
    x = te.placeholder((5, 3, 4), "i32", name="x")
    r, c = te.reduce_axis(3, name="r"), te.reduce_axis(4, name="c")
    out = te.compute((5,), lambda i: te.argmax(x[i, r, c], axis=(r, c)), name="best")
    a = RNG.integers(-3, 3, (5, 3, 4)).astype(np.int32)
    index, value = everywhere(program([x], out), [a])
    assert np.array_equal(index, a.reshape(5, -1).argmax(1)) and np.array_equal(value, a.max((1, 2)))


def test_classic_argmax_by_comm_reducer():
    m, n = te.var("m"), te.var("n")
    idx, val = te.placeholder((m, n), "i32", name="idx"), te.placeholder((m, n), "i32", name="val")
    k = te.reduce_axis((0, n), "k")
    argmax = te.comm_reducer(
        lambda x, y: (te.select(x[1] >= y[1], x[0], y[0]), te.select(x[1] >= y[1], x[1], y[1])),
        lambda t0, t1: (te.const(-1, t0), te.min_value(t1)),
        name="argmax",
    )
    t0, t1 = te.compute((m,), lambda i: argmax((idx[i, k], val[i, k]), axis=k), name="T")
    ids, values = RNG.permutation(36).reshape(4, 9).astype(np.int32), RNG.permutation(36).reshape(4, 9).astype(np.int32)
    index, value = everywhere(program([idx, val], [t0, t1]), [ids, values], factored)
    assert np.array_equal(index, ids[np.arange(4), values.argmax(1)]) and np.array_equal(value, values.max(1))


def welford():
    """Count, mean and sum of squared deviations (Chan, Golub and LeVeque's combination of partial results)."""

    def combine(x, y):
        n = x[0] + y[0]
        safe = te.maximum(n, 1.0)
        delta = y[1] - x[1]
        return n, x[1] + delta * y[0] / safe, x[2] + y[2] + delta * delta * x[0] * y[0] / safe

    return te.comm_reducer(combine, lambda *types: tuple(te.const(0, t) for t in types), name="welford")


@pytest.mark.parametrize("transform", [None, factored])
def test_welford(transform):
    x, k = matrix()
    one, zero = te.const(1.0), te.const(0.0)
    out = te.compute((x.shape[0],), lambda i: welford()((one, x[i, k], zero), axis=k), name="moments")
    a = RNG.standard_normal((5, 50), dtype=np.float32) * 3 + 10
    func = program([x], out)
    count, mean, squares = everywhere(func, [a], transform)
    np.testing.assert_allclose(count, 50)
    np.testing.assert_allclose(mean, a.mean(1), rtol=1e-5)
    np.testing.assert_allclose(squares / 50, a.var(1), rtol=1e-4)


def test_decomposed_tuple_reduction():
    x, k = matrix()
    out = te.compute((x.shape[0],), lambda i: te.argmax(x[i, k], axis=k), name="best")

    def decompose(s):
        best = s["best"]
        best.decompose_reduction(best.reduce_axis[0])

    everywhere(program([x], out), [ragged()], decompose)


def test_reducer_survives_the_text():
    x, k = matrix()
    out = te.compute((x.shape[0],), lambda i: te.argmax(x[i, k], axis=k), name="best")
    func = parse_func(str(program([x], out)))
    s = Schedule(func)
    assert reduction_of(s.block("best")).kind == "argmax"
    factored(s)
    a = ragged()
    index, value = np.empty(7, np.int64), np.empty(7, np.float32)
    run(s.func, [a, index, value])
    assert np.array_equal(index, a.argmax(1)) and np.array_equal(value, a.max(1))


def test_a_wrong_annotation_is_no_reduction():
    x, k = matrix()
    out = te.compute((x.shape[0],), lambda i: te.argmax(x[i, k], axis=k), name="best")
    text = str(program([x], out)).replace("any_of(y1 < x1", "any_of(x1 < y1")  # the annotation now says something else
    s = Schedule(parse_func(text))
    assert reduction_of(s.block("best")) is None
    with pytest.raises(ScheduleError, match="is not a reduction"):
        s["best"].rfactor(s["best"].reduce_axis[0])


def test_parallel_over_a_tuple_reduction_is_refused():
    x, k = matrix()
    out = te.compute((x.shape[0],), lambda i: te.argmax(x[i, k], axis=k), name="best")
    s = Schedule(program([x], out))
    with pytest.raises(ScheduleError, match="rfactor best along k first"):
        s["best"].parallel(s["best"].reduce_axis[0])


def test_reorder_of_a_tuple_reduction_is_proved():
    x = te.placeholder((4, 5, 6), name="x")
    a, b = te.reduce_axis(5, name="a"), te.reduce_axis(6, name="b")
    out = te.compute((4,), lambda i: te.argmax(x[i, a, b], axis=(a, b)), name="best")

    def turn(s):
        best = s["best"]
        best.reorder(best.reduce_axis[1], best.reduce_axis[0])
        assert s.proof[-1].verdict.status == "proved"

    everywhere(program([x], out), [ragged(20, 6).reshape(4, 5, 6)], turn)


def test_own_scalar_reducer():
    x, k = matrix(dtype="i64")
    xor = te.comm_reducer(lambda x, y: x ^ y, lambda t: te.const(0, t), name="xor")
    out = te.compute((x.shape[0],), lambda i: xor(x[i, k], axis=k), name="parity")
    a = RNG.integers(0, 1000, (6, 19))
    (got,) = everywhere(program([x], [out]), [a], factored)
    assert np.array_equal(got, np.bitwise_xor.reduce(a, axis=1))


@pytest.mark.parametrize("kind", ["any", "all"])
def test_logical_reductions(kind):
    x, k = matrix()
    out = te.compute((x.shape[0],), lambda i: getattr(te, kind)(x[i, k] > 3.0, axis=k), name="holds")
    a = RNG.integers(0, 5, (40, 3)).astype(np.float32)
    a[0] = 4
    (got,) = everywhere(program([x], [out]), [a], factored)
    assert np.array_equal(got, getattr(np, kind)(a > 3, axis=1))


def test_any_and_all_of_conditions():
    x = te.placeholder((9,), name="x")
    out = te.compute((9,), lambda i: te.any(x[i] < 2.0, te.all(x[i] > 4.0, i > 5)), name="y")
    a = np.arange(9, dtype=np.float32)
    (got,) = everywhere(program([x], [out]), [a])
    assert np.array_equal(got, (a < 2) | ((a > 4) & (np.arange(9) > 5)))


def test_where_skips_points():
    x, k = matrix()
    rows = (x.shape[0],)
    total = te.compute(rows, lambda i: te.sum(x[i, k], axis=k, where=k <= i), name="total")
    top = te.compute(rows, lambda i: te.argmax(x[i, k], axis=k, where=x[i, k] < 2.0), name="top")
    a = ragged()
    func = program([x], [total, *top])
    got = everywhere(func, [a])
    np.testing.assert_allclose(got[0], np.tril(a).sum(1), rtol=1e-6)
    assert np.array_equal(got[1], np.where(a < 2, a, -np.inf).argmax(1))


@pytest.mark.parametrize("transform", [None, factored])
def test_initial_value_counts_once(transform):
    x, k = matrix()
    b = te.placeholder((x.shape[0],), name="b")
    out = te.compute((x.shape[0],), lambda i: te.sum(x[i, k], axis=k, init=b[i] * 2.0), name="y")
    a, first = ragged(), RNG.standard_normal(7, dtype=np.float32)
    (got,) = everywhere(program([x, b], [out]), [a, first], transform)
    np.testing.assert_allclose(got, a.sum(1) + 2 * first, rtol=1e-5)


def test_producer_that_only_the_initial_value_reads():
    x, k = matrix(6, 5)
    b = te.placeholder((6,), name="b")
    first = te.compute((6,), lambda i: b[i] + 1.0, name="first")
    out = te.compute((6,), lambda i: te.sum(x[i, k], axis=k, init=first[i]), name="y")

    def near(s):
        s["first"].compute_at(s["y"], s["y"].axis[0])

    everywhere(program([x, b], [out]), [ragged(6, 5), ragged(1, 6)[0]], near)


def test_axis_that_begins_elsewhere():
    n = te.var("n")
    x = te.placeholder((n,), name="x")
    k = te.reduce_axis((2, n - 1), name="k", thread_tag="threadIdx.x")
    out = te.compute((1,), lambda i: te.sum(x[k] * te.cast("f32", k), axis=k), name="y")
    a = RNG.standard_normal(9, dtype=np.float32)
    (got,) = everywhere(program([x], [out]), [a], factored)
    np.testing.assert_allclose(got[0], (a * np.arange(9))[2:8].sum(), rtol=1e-5)


def test_several_outputs_of_one_stage():
    m, n = te.var("m"), te.var("n")
    x = te.placeholder((m, n), name="x")
    a, b = te.compute((m, n), lambda i, j: (x[i, j] + 1.0, te.cast("i32", x[i, j]) * 2), name="two")
    total = te.compute((m, n), lambda i, j: a[i, j] * te.cast("f32", b[i, j]), name="product")

    def tiled(s):
        two = s[a]
        assert two.name == s["two"].name
        i, j = two.axis
        _, inner = two.split(j, 8)
        two.vectorize(inner)
        two.parallel(i)

    values = ragged() + 0.5
    first, second, product = everywhere(program([x], [a, b, total]), [values], tiled)
    assert np.array_equal(first, values + 1) and np.array_equal(second, values.astype(np.int32) * 2)
    assert np.array_equal(product, first * second)


def test_output_that_nobody_wants_is_still_computed():
    x = te.placeholder((8,), name="x")
    a, b = te.compute((8,), lambda i: (x[i] + 1.0, x[i] * 2.0), name="two")
    (got,) = everywhere(program([x], [b]), [ragged(1, 8)[0]])
    assert got.shape == (8,)


STEPS = {
    "compute_inline": lambda s: s["two"].compute_inline(),
    "cache_write": lambda s: s.cache_write("two"),
    "compute_at": lambda s: s["two"].compute_at(s["out"], s["out"].axis[0]),
    "transform_layout": lambda s: s["two"].transform_layout(lambda i: (i // 4, i % 4)),
    "cache_read": lambda s: s.cache_read("two_v1", "global"),
    "shift_inwards": lambda s: s["two"].split(s["two"].axis[0], 3, tail="shift_inwards"),
    "unroll": lambda s: s["two"].unroll(s["two"].axis[0]),
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_steps_on_several_outputs_are_refused_or_right(step):
    x = te.placeholder((8,), name="x")
    a, b = te.compute((8,), lambda i: (x[i] + 1.0, x[i] * 2.0), name="two")
    out = te.compute((8,), lambda i: a[i] + b[7 - i], name="out")
    func = program([x], [out])
    s = Schedule(func)
    try:
        step(s)
    except ScheduleError:
        assert s.func is func and not s.trace
        return
    everywhere(func, [ragged(1, 8)[0]], step)


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_steps_on_a_tuple_reduction_are_refused_or_right(step):
    x = te.placeholder((8, 5), name="x")
    k = te.reduce_axis(5, name="k")
    a, b = te.compute((8,), lambda i: te.argmax(x[i, k], axis=k), name="two")
    out = te.compute((8,), lambda i: te.cast("f32", a[i]) + b[7 - i], name="out")
    func = program([x], [out])
    s = Schedule(func)
    try:
        step(s)
    except ScheduleError:
        assert s.func is func and not s.trace
        return
    everywhere(func, [ragged(8, 5)], step)


def test_cache_read_of_one_of_several_outputs():
    x = te.placeholder((8,), name="x")
    a, b = te.compute((8,), lambda i: (x[i] + 1.0, x[i] * 2.0), name="two")
    out = te.compute((8,), lambda i: a[i] + b[7 - i], name="out")
    everywhere(program([x], [out]), [ragged(1, 8)[0]], lambda s: s.cache_read(b, "local"))


@pytest.mark.parametrize(
    ("build_it", "message"),
    [
        (lambda r, x, k: r((x[0, k],), axis=k), "the combination gives 2 value"),
        (lambda r, x, k: r((x[0, k], k), axis=None), "needs axes made by te.reduce_axis"),
        (lambda r, x, k: r((x[0, k], x[0, k]), axis=k, init=(1.0,)), "init= has 1 value"),
        (lambda r, x, k: r((x[0, k], x[0, k]), axis=k, init=(te.cast("f32", k), 1.0)), "uses an axis that is reduced"),
    ],
)
def test_misused_reducers(build_it, message):
    x, k = matrix(4, 5)
    pair = te.comm_reducer(lambda x, y: (x[0] + y[0], x[-1] + y[-1]), lambda *t: (0.0, 0.0), name="pair")
    with pytest.raises(TypeCheckError, match=message) as error:
        build_it(pair, x, k)
    assert str(error.value).startswith(__file__)


def test_lanes_hold_columns_of_a_tuple_reduction():
    x = te.placeholder((11, 21), name="x")
    k = te.reduce_axis(11, name="k")
    out = te.compute((21,), lambda j: te.argmin(x[k, j], axis=k), name="best")

    def lanes(s):
        best = s["best"]
        j, k = best.axis[0], best.reduce_axis[0]
        outer, inner = best.split(j, 8)
        best.reorder(outer, k, inner)
        best.vectorize(inner)
        best.parallel(outer)

    func = program([x], out)
    a = ragged(11, 21)
    index, _ = everywhere(func, [a], lanes)
    assert np.array_equal(index, a.argmin(0))
    s = Schedule(func)
    lanes(s)
    source = build(s).source
    assert "vload_masked" in source and "# stage best_v0, best_v1 (" in source


@pytest.mark.parametrize("n", [64, 200, 1000])
@pytest.mark.parametrize("name", ["argmax", "argmin"])
def test_rows_of_tuples_are_reduced_in_vector_lanes(name, n):
    x = te.placeholder((5, n), name="x")
    k = te.reduce_axis(n, name="k")
    func = te.create_prim_func("f", [x], list(te.compute((5,), lambda i: getattr(te, name)(x[i, k], axis=k), name="best")))
    kernel = build(func)
    assert "vload" in kernel.source
    data = np.random.default_rng(0).integers(-5, 6, (5, n)).astype(np.float32)  # many ties: the first one counts
    data[1, 37:39] = np.nan
    data[2, 11] = np.inf
    data[3, 11] = -np.inf
    index, value = kernel(data)
    np.testing.assert_array_equal(index, getattr(np, name)(data, axis=1))
    np.testing.assert_array_equal(value, getattr(np, name[3:])(data, axis=1))
