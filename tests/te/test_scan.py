"""te.scan: recurrences of one and several states and stages, by the interpreter and natively, against NumPy."""

from dataclasses import replace

import numpy as np
import pytest

from tensorlang import te
from tensorlang.build import build
from tensorlang.errors import ScheduleError, TypeCheckError
from tensorlang.ir.interp import run
from tensorlang.ir.verify import verify
from tensorlang.schedule import Schedule
from tests.te.test_reducers import everywhere, program

RNG = np.random.default_rng(5)


def cumulative(m=None, n=None):
    m, n = m or te.var("m"), n or te.var("n")
    x = te.placeholder((m, n), name="x")
    state = te.placeholder((m, n), name="state")
    init = te.compute((1, n), lambda _, i: x[0, i], name="s_init")
    update = te.compute((m, n), lambda t, i: state[t - 1, i] + x[t, i], name="s_update")
    return x, te.scan(init, update, state, inputs=[x], name="s"), init, update


def test_cumulative_sum():
    x, s, _, _ = cumulative()
    assert s.op.scan_axis.name == "s_t" and len(s.op.spatial_axis) == 1
    a = RNG.standard_normal((9, 5), dtype=np.float32)
    (got,) = everywhere(program([x], [s]), [a])
    np.testing.assert_allclose(got, np.cumsum(a, axis=0), rtol=1e-5)


def test_of_one_row():
    x, s, _, _ = cumulative()
    a = RNG.standard_normal((1, 5), dtype=np.float32)
    assert np.array_equal(build(program([x], [s]))(a), a)


def test_text(golden):
    x, s, _, _ = cumulative()
    golden(str(replace(program([x], [s]), attrs={})))


def test_schedule_of_the_stages():
    x, scan, init, update = cumulative()

    def transform(s):
        _, inner = s[update].split(s[update].axis[0], 4)
        s[update].vectorize(inner)
        s[init].parallel(s[init].axis[1])

    a = RNG.standard_normal((9, 10), dtype=np.float32)
    everywhere(program([x], [scan]), [a], transform)


def test_time_is_not_parallel():
    x, scan, _, update = cumulative(8, 4)
    s = Schedule(program([x], [scan]))
    time = s[update].loops[0]
    with pytest.raises(ScheduleError, match="not independent"):
        s[update].parallel(time)
    s[update].parallel(s[update].axis[0])
    assert s.proof[-1].verdict.status == "proved"


def test_time_may_go_inside():
    x, scan, _, update = cumulative(8, 4)

    def turn(s):
        time, i = s[update].loops
        s[update].reorder(i, time)
        assert s.proof[-1].verdict.status == "proved"

    everywhere(program([x], [scan]), [RNG.standard_normal((8, 4), dtype=np.float32)], turn)


def test_cell_of_several_stages():
    m, n = te.var("m"), te.var("n")
    x = te.placeholder((m, n), name="x")
    state = te.placeholder((m, n), name="state")
    init = te.compute((1, n), lambda _, i: x[0, i], name="s_init")
    doubled = te.compute((m, n), lambda t, i: state[t - 1, i] * 0.5, name="doubled")
    update = te.compute((m, n), lambda t, i: doubled[t, i] + x[t, i], name="s_update")
    s = te.scan(init, update, state, name="s")
    a = RNG.standard_normal((7, 6), dtype=np.float32)
    expected = a.copy()
    for t in range(1, 7):
        expected[t] += expected[t - 1] * 0.5

    def parallel(s):
        s["doubled"].parallel(s["doubled"].axis[0])

    (got,) = everywhere(program([x], [s]), [a], parallel)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def recurrent(n=6):
    """A recurrent network: s[t] = tanh(W s[t-1] + x[t]), a reduction in the cell."""
    m = te.var("m")
    x, w = te.placeholder((m, n), name="x"), te.placeholder((n, n), name="w")
    state = te.placeholder((m, n), name="state")
    k = te.reduce_axis(n, name="k")
    init = te.compute((1, n), lambda _, i: x[0, i], name="s_init")
    product = te.compute((m, n), lambda t, i: te.sum(state[t - 1, k] * w[k, i], axis=k), name="product")
    update = te.compute((m, n), lambda t, i: te.tanh(product[t, i] + x[t, i]), name="s_update")
    return x, w, te.scan(init, update, state, name="s")


def recurrent_reference(x, w):
    out = x.copy()
    for t in range(1, len(x)):
        out[t] = np.tanh(out[t - 1] @ w + x[t])
    return out


def test_recurrent_network():
    x, w, s = recurrent()
    a, b = RNG.standard_normal((5, 6), dtype=np.float32), RNG.standard_normal((6, 6), dtype=np.float32)
    (got,) = everywhere(program([x, w], [s]), [a, b])
    np.testing.assert_allclose(got, recurrent_reference(a, b), rtol=1e-4, atol=1e-5)


def test_scan_between_other_stages():
    x, w, s = recurrent()
    m = x.shape[0]
    out = te.compute((m, 6), lambda t, i: te.maximum(s[t, i], 0.0), name="out")
    a, b = RNG.standard_normal((5, 6), dtype=np.float32), RNG.standard_normal((6, 6), dtype=np.float32)
    (got,) = everywhere(program([x, w], [out]), [a, b])
    np.testing.assert_allclose(got, np.maximum(recurrent_reference(a, b), 0), rtol=1e-4, atol=1e-5)


def test_reduction_that_updates_the_state_itself():
    n = 4
    x, w = te.placeholder((1, n), name="x"), te.placeholder((n, n), name="w")
    state = te.placeholder((6, n), name="state")
    k = te.reduce_axis(n, name="k")
    update = te.compute((6, n), lambda t, i: te.sum(state[t - 1, k] * w[k, i], axis=k), name="power")
    s = te.scan(x, update, state, name="powers")  # the initial value is an input: it is copied
    a, b = RNG.standard_normal((1, n), dtype=np.float32), RNG.standard_normal((n, n), dtype=np.float32)
    func = program([x, w], [s])
    (got,) = everywhere(func, [a, b])
    expected = np.stack([(a @ np.linalg.matrix_power(b, t))[0] for t in range(6)])
    np.testing.assert_allclose(got, expected, rtol=1e-4)
    schedule = Schedule(func)
    with pytest.raises(ScheduleError, match="which it computes itself"):
        schedule["power"].rfactor(schedule["power"].reduce_axis[0])


def test_two_states():
    """Fibonacci-like: each state reads both states' earlier rows."""
    m, n = te.var("m"), 3
    x, y = te.placeholder((m, n), name="x"), te.placeholder((m, n), name="y")
    p, q = te.placeholder((m, n), name="p"), te.placeholder((m, n), name="q")
    first = [te.compute((1, n), lambda t, i, s=s: s[t, i], name=f"{s.name}_init") for s in (x, y)]
    p_next = te.compute((m, n), lambda t, i: q[t - 1, i] + x[t, i], name="p_next")
    q_next = te.compute((m, n), lambda t, i: p[t - 1, i] - q[t - 1, i] + y[t, i], name="q_next")
    both = te.scan(first, [p_next, q_next], [p, q], inputs=[x, y], name="pq")
    a, b = RNG.standard_normal((2, 8, n), dtype=np.float32)
    u, v = a.copy(), b.copy()
    for t in range(1, 8):
        u[t], v[t] = v[t - 1] + a[t], u[t - 1] - v[t - 1] + b[t]
    got = everywhere(program([x, y], both), [a, b])
    np.testing.assert_allclose(got[0], u, rtol=1e-5)
    np.testing.assert_allclose(got[1], v, rtol=1e-5)


def test_two_initial_rows():
    state, init = te.placeholder((10,), "i64", name="state"), te.placeholder((2,), "i64", name="first")
    update = te.compute((10,), lambda t: state[t - 1] + state[t - 2], name="next")
    s = te.scan(init, update, state, name="fibonacci")
    (got,) = everywhere(program([init], [s]), [np.array([1, 1])])
    assert got.tolist() == [1, 1, 2, 3, 5, 8, 13, 21, 34, 55]


def test_update_of_two_outputs():
    m = te.var("m")
    x, p, q = (te.placeholder((m,), name=n) for n in "xpq")
    first = [te.compute((1,), lambda t: x[t], name="p0"), te.compute((1,), lambda t: x[t] * 2.0, name="q0")]
    updates = te.compute((m,), lambda t: (p[t - 1] + q[t - 1] + x[t], p[t - 1] - q[t - 1]), name="next")
    both = te.scan(first, updates, [p, q], name="pq")
    a = RNG.standard_normal(6, dtype=np.float32)
    u, v = a.copy(), a * 2
    for t in range(1, 6):
        u[t], v[t] = u[t - 1] + v[t - 1] + a[t], u[t - 1] - v[t - 1]
    got = everywhere(program([x], both), [a])
    np.testing.assert_allclose(got[0], u, rtol=1e-5)
    np.testing.assert_allclose(got[1], v, rtol=1e-5)


def wrong(update, message, init_rows=1, state_shape=(4, 3)):
    state, x = te.placeholder(state_shape, name="state"), te.placeholder((4, 3), name="x")
    init = te.compute((init_rows, 3), lambda t, i: x[t, i], name="init")
    with pytest.raises(TypeCheckError, match=message) as error:
        te.scan(init, update(state, x), state)
    assert str(error.value).startswith(__file__)


def test_refusals():
    def stage(fn, shape=(4, 3)):
        return lambda s, x: te.compute(shape, lambda t, i: fn(s, x, t, i), name="next")

    wrong(stage(lambda s, x, t, i: s[t, i] + 1.0), "read at an earlier row")
    wrong(stage(lambda s, x, t, i: s[t + 1, i]), "read at an earlier row")
    wrong(stage(lambda s, x, t, i: s[t // 2, i]), "read at an earlier row")
    wrong(stage(lambda s, x, t, i: s[t - 2, i]), r"the initial value has 1 row")
    wrong(stage(lambda s, x, t, i: s[t - 1, i], (5, 3)), "do not fit")

    def two_stages(s, x):
        half = te.compute((4, 3), lambda t, i: s[t - 1, i] * 0.5, name="half")
        return te.compute((4, 3), lambda t, i: half[t - 1, i], name="next")

    wrong(two_stages, "is read at the same row")
    with pytest.raises(TypeCheckError, match="give one of each"):
        te.scan([], [], [])


def two_stage(m, n, inside):
    """A scan whose cell has two stages; as the output, or read by another stage."""
    x, state = te.placeholder((m, n), name="x"), te.placeholder((m, n), name="state")
    init = te.compute((1, n), lambda r, i: x[0, i], name="s_init")
    doubled = te.compute((m, n), lambda t, i: state[t - 1, i] * 0.5, name="doubled")
    update = te.compute((m, n), lambda t, i: doubled[t, i] + x[t, i], name="s_update")
    s = te.scan(init, update, state, name="s")
    out = te.compute((m, n), lambda t, i: s[m - 1 - t, i] * 2.0, name="out") if inside else s
    return program([x], [out])


def last(s):
    return s.stages[-1]


STEPS = {
    "cell_at_time": lambda s: s["doubled"].compute_at(s["s_update"], s["s_update"].loops[0]),
    "cell_at_point": lambda s: s["doubled"].compute_at(s["s_update"], s["s_update"].loops[1]),
    "cell_inline": lambda s: s["doubled"].compute_inline(),
    "cell_copy": lambda s: s.cache_write("doubled", "local"),
    "cell_read": lambda s: s.cache_read("doubled", "local"),
    "cell_layout": lambda s: s["doubled"].transform_layout(lambda i, j: (j, i)),
    "split_time": lambda s: s["s_update"].split(s["s_update"].loops[0], 2),
    "shift": lambda s: s["s_update"].split(s["s_update"].loops[1], 4, tail="shift_inwards"),
    "shift_time": lambda s: s["s_update"].split(s["s_update"].loops[0], 3, tail="shift_inwards"),
    "write_update": lambda s: s.cache_write("s_update", "local"),
    "write_init": lambda s: s.cache_write("s_init", "local"),
    "read_in_update": lambda s: s.cache_read("s", "local", ["doubled"]),
    "read": lambda s: s.cache_read("s", "local"),
    "read_last": lambda s: s.cache_read("s", "local", [last(s).name]),
    "inline_init": lambda s: s["s_init"].compute_inline(),
    "inline_update": lambda s: s["s_update"].compute_inline(),
    "init_at": lambda s: s["s_init"].compute_at(s["s_update"], s["s_update"].loops[0]),
    "update_at": lambda s: s["s_update"].compute_at(last(s), last(s).loops[0]),
    "layout_init": lambda s: s["s_init"].transform_layout(lambda i, j: (j, i)),
    "layout_update": lambda s: s["s_update"].transform_layout(lambda i, j: (j, i)),
    "fuse": lambda s: s["s_update"].fuse(*s["s_update"].loops),
    "reorder": lambda s: s["s_update"].reorder(*s["s_update"].loops[::-1]),
    "parallel_time": lambda s: s["s_update"].parallel(s["s_update"].loops[0]),
    "vectorize": lambda s: s["s_update"].vectorize(s["s_update"].loops[1]),
}
LEGAL = {"cell_at_time", "cell_at_point", "cell_inline", "cell_copy", "cell_read", "split_time"}


@pytest.mark.parametrize("inside", [False, True], ids=["output", "intermediate"])
@pytest.mark.parametrize("symbolic", [False, True], ids=["constant", "symbolic"])
@pytest.mark.parametrize("step", STEPS)
def test_steps_are_refused_or_right(step, symbolic, inside):
    m, n = (te.var("m"), te.var("n")) if symbolic else (5, 6)
    func = two_stage(m, n, inside)
    s = Schedule(func)
    try:
        STEPS[step](s)
    except ScheduleError:
        assert s.func is func and step not in LEGAL
        return
    x = RNG.standard_normal((5, 6), dtype=np.float32)
    results = []
    for f in (func, s.func):
        verify(f)
        for order in ("ascending", "reversed"):
            results.append(np.empty_like(x))
            run(f, [x, results[-1], *([] if not symbolic else [5, 6])], order=order)
    assert all(np.array_equal(r, results[0]) for r in results)
