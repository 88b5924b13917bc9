"""te.hybrid: stages written as loops and assignments, against the same loops in NumPy, and what it refuses."""

from dataclasses import replace

import numpy as np
import pytest

from tensorlang import te
from tensorlang.build import Kernel, build
from tensorlang.config import Settings
from tensorlang.errors import ScheduleError, TypeCheckError
from tensorlang.ir.interp import run
from tensorlang.ir.verify import verify
from tensorlang.schedule import Schedule

RNG = np.random.default_rng(3)


@te.hybrid
def running_sum(x):
    y = te.output_tensor(x.shape, x.dtype)
    y[0] = x[0]
    for i in range(1, x.shape[0]):
        y[i] = y[i - 1] + x[i]
    return y


@te.hybrid
def gram(a, scale=2.0, mirrored=False):
    """Products of rows; the lower half is zero, or the upper half's mirror image."""
    n, m = a.shape
    out = te.output_tensor((n, n), "f32")
    total = te.allocate((1,), "f32")
    for i in range(n):
        for j in range(n):
            out[i, j] = 0.0
        for j in range(i, n):
            total[0] = 0.0
            for k in range(m):
                total[0] += a[i, k] * a[j, k]
            if i == j and not i > 3:
                out[i, j] = total[0] * scale
            elif 1 <= i < 3 or scale == 7.0:
                out[i, j] = total[0] if total[0] > 0 else -total[0]
            else:
                out[i, j] = max(total[0], 1.0)
    if mirrored:
        for i in range(n):
            for j in range(i):
                out[i, j] = out[j, i]
    return out


def gram_in_numpy(a: np.ndarray, scale: float = 2.0, mirrored: bool = False) -> np.ndarray:
    n, _ = a.shape
    out = np.zeros((n, n))
    for i in range(n):
        for j in range(i, n):
            total = float(a[i].astype(np.float64) @ a[j].astype(np.float64))
            if i == j and not i > 3:
                out[i, j] = total * scale
            elif 1 <= i < 3 or scale == 7.0:
                out[i, j] = abs(total)
            else:
                out[i, j] = max(total, 1.0)
    return np.triu(out) + np.triu(out, 1).T if mirrored else out


@te.hybrid
def smallest_pair(x):
    least = te.output_tensor((1,), "f32")
    position = te.output_tensor((1,), "i64")
    least[0] = x[0]
    position[0] = 0
    for i in range(x.shape[0]):
        if x[i] * 2 < x[0]:
            least[0] = min(least[0], x[i])
        position[0] += 1
    return least, position


def everywhere(func, arrays, shapes, sizes=()):
    """The outputs by the interpreter, by the default schedule as machine code and as plain Python: all agree."""
    verify(func)
    outs = [np.full(shape, 77, b.dtype.numpy) for shape, b in zip(shapes, func.outputs, strict=True)]
    run(func, [*arrays, *outs, *sizes])
    kernel = build(func)
    for k in (kernel, Kernel(kernel.lowered, kernel.original, Settings(jit=False))):
        got = k(*arrays)
        for g, o in zip(got if isinstance(got, tuple) else (got,), outs, strict=True):
            np.testing.assert_allclose(g, o, rtol=1e-5, atol=1e-6)
    return outs


def scheduled(func, steps):
    s = Schedule(func)
    steps(s)
    return s


@pytest.mark.parametrize("n", [1, 2, 9])
def test_a_recurrence(n):
    x = te.placeholder((te.var("N"),), name="x")
    a = RNG.standard_normal(n).astype(np.float32)
    (y,) = everywhere(te.create_prim_func("f", [x], [running_sum(x)]), [a], [(n,)], [n])
    np.testing.assert_allclose(y, np.cumsum(a.astype(np.float64)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scale", [2.0, 7.0])
@pytest.mark.parametrize("mirrored", [False, True])
def test_triangles_scratch_and_branches(scale, mirrored):
    a = te.placeholder((6, 4), name="a")
    func = te.create_prim_func("f", [a], [gram(a, scale, mirrored=mirrored)])
    data = RNG.standard_normal((6, 4)).astype(np.float32)
    (out,) = everywhere(func, [data], [(6, 6)])
    np.testing.assert_allclose(out, gram_in_numpy(data, scale, mirrored), rtol=1e-5, atol=1e-6)


def test_text(golden):
    a = te.placeholder((6, 4), name="a")
    golden(str(replace(te.create_prim_func("f", [a], [gram(a)]), attrs={})))


def test_several_outputs_and_guards_read_from_memory():
    x = te.placeholder((7,), name="x")
    a = np.array([3, 1, 4, 1, 5, -9, 2], np.float32)
    least, position = everywhere(te.create_prim_func("f", [x], list(smallest_pair(x))), [a], [(1,), (1,)])
    assert least[0] == -9 and position[0] == 7


def test_among_other_stages_and_in_operators():
    @te.compute
    def twice_the_sum(x: te.f32["N"]):
        doubled = te.compute(x.shape, lambda i: x[i] * 2, name="doubled")
        total = running_sum(doubled)
        return te.compute(x.shape, lambda i: total[i] + 1, name="out")

    a = np.arange(5, dtype=np.float32)
    np.testing.assert_array_equal(twice_the_sum(a), np.cumsum(a * 2) + 1)


def test_each_block_knows_its_line():
    a = te.placeholder((6, 4), name="a")
    source = te.create_prim_func("f", [a], [gram(a)]).attrs["source"]
    first = gram.__wrapped__.__code__.co_firstlineno
    assert {name: int(place.rpartition(":")[2]) - first for name, place in source.items()} == {
        "out": 8, "total": 10, "total_1": 12, "out_1": 14, "out_2": 16, "out_3": 18,
    }  # fmt: skip


def test_two_calls_in_one_program():
    x = te.placeholder((4,), name="x")
    func = te.create_prim_func("f", [x], [running_sum(running_sum(x))])
    (y,) = everywhere(func, [np.ones(4, np.float32)], [(4,)])
    np.testing.assert_array_equal(y, [1, 3, 6, 10])


def outer_product() -> Schedule:
    @te.hybrid
    def outer(a, b):
        c = te.output_tensor((a.shape[0], b.shape[0]))
        for i in range(a.shape[0]):
            for j in range(b.shape[0]):
                c[i, j] = a[i] * b[j]
        return c

    a, b = te.placeholder((10,), name="a"), te.placeholder((12,), name="b")
    return Schedule(te.create_prim_func("f", [a, b], [outer(a, b)]))


def test_a_block_takes_primitives_like_any_other():
    s = outer_product()
    c = s["c"]
    io, jo, ii, ji = c.tile(*c.axis, 4, 8)
    c.vectorize(ji)
    c.parallel(io)
    copy = s.cache_write("c", "local")
    assert copy.name == "c_local"
    a, b = RNG.standard_normal(10).astype(np.float32), RNG.standard_normal(12).astype(np.float32)
    np.testing.assert_array_equal(build(s)(a, b), np.outer(a, b))


def test_a_reduction_takes_rfactor_and_a_recurrence_no_parallel_loop():
    @te.hybrid
    def row_sums(a):
        y = te.output_tensor((a.shape[0],))
        for i in range(a.shape[0]):
            y[i] = 0.0
        for i in range(a.shape[0]):
            for k in range(a.shape[1]):
                y[i] += a[i, k]
        return y

    a = te.placeholder((4, 9), name="a")
    func = te.create_prim_func("f", [a], [row_sums(a)])
    s = Schedule(func)
    (i,), (k,) = s["y_1"].axis, s["y_1"].reduce_axis
    s["y_1"].reorder(k, i)
    s["y_1"].vectorize(i)
    data = RNG.standard_normal((4, 9)).astype(np.float32)
    np.testing.assert_allclose(build(s)(data), data.sum(axis=1), rtol=1e-5)
    with pytest.raises(ScheduleError, match="reduction loop"):
        Schedule(func)["y_1"].parallel(k)
    x = te.placeholder((8,), name="x")
    t = Schedule(te.create_prim_func("f", [x], [running_sum(x)]))
    with pytest.raises(ScheduleError, match="not independent"):
        t["y_1"].parallel(t["y_1"].axis[0])


def test_resets_between_accumulations_keep_their_order():
    a = te.placeholder((6, 4), name="a")
    s = Schedule(te.create_prim_func("f", [a], [gram(a)]))
    with pytest.raises(ScheduleError):
        s["total_1"].parallel(s["total_1"].loops[1])


def test_classic_names():
    @te.hybrid.script
    def clipped(a):
        out = te.output_tensor(a.shape, "float32")
        for i in range(a.shape[0]):
            for c in const_range(2):  # noqa: F821
                if c == 0:
                    out[i] = exp(a[i])  # noqa: F821
                else:
                    out[i] = sqrt(out[i])  # noqa: F821
        return out

    a = te.placeholder((5,), name="a")
    data = RNG.standard_normal(5).astype(np.float32)
    (out,) = everywhere(te.create_prim_func("f", [a], [clipped(a)]), [data], [(5,)])
    np.testing.assert_allclose(out, np.sqrt(np.exp(data)), rtol=1e-5)


# -- refusals ------------------------------------------------------------------------------------------------------


def refusals():
    def while_(a):
        out = te.output_tensor((1,))
        while True:
            out[0] = 1.0
        return out

    def not_all(a):
        out = te.output_tensor((4,))
        for i in range(3):
            out[i] = a[i]
        return out

    def input_written(a):
        out = te.output_tensor((1,))
        a[0] = 1.0
        return out

    def no_return(a):
        out = te.output_tensor((1,))
        out[0] = a[0]

    def scratch_returned(a):
        out = te.output_tensor((1,))
        t = te.allocate((1,))
        out[0] = t[0] = a[0]
        return t

    def stale_name(a):
        out = te.output_tensor((4,))
        for i in range(4):
            t = out[i]
            out[i] = t + 1.0
        return out

    def counter(a):
        out = te.output_tensor((4,))
        n = a[0]
        for i in range(4):
            n += 1.0
            out[i] = n
        return out

    def data_range(a):
        out = te.output_tensor((4,))
        for i in range(te.cast("i64", a[0])):
            out[i] = 1.0
        return out

    def unknown_name(a):
        out = te.output_tensor((4,))
        for i in range(4):
            out[i] = missing[i]  # noqa: F821
        return out

    def wrong_rank(a):
        out = te.output_tensor((4, 4))
        for i in range(4):
            out[i] = 1.0
        return out

    def condition_changes(a):
        out = te.output_tensor((2,))
        for i in range(2):
            out[i] = 0.0
            if out[i] < 1.0:
                out[i] = 5.0
            else:
                out[i] = 6.0
        return out

    def stepped(a):
        out = te.output_tensor((4,))
        for i in range(0, 4, 2):
            out[i] = 1.0
        return out

    return [
        (while_, 3, "while has no meaning here"),
        (not_all, 0, r"out\[3\], an element of its output, is written by no statement"),
        (input_written, 3, "a is not made here"),
        (no_return, 0, "ends without returning out"),
        (scratch_returned, 4, "assign has no meaning"),
        (stale_name, 4, r"t would name out\[.*\], which may change"),
        (counter, 5, "n has a value already"),
        (data_range, 3, "are read from memory"),
        (unknown_name, 4, "name 'missing' is not defined"),
        (wrong_rank, 4, r"out has 2 dimension\(s\) but is indexed with 1"),
        (condition_changes, 5, "may change before else is reached"),
        (stepped, 3, "for a stride, multiply inside"),
    ]


@pytest.mark.parametrize(("function", "line", "reason"), refusals(), ids=lambda c: getattr(c, "__name__", ""))
def test_refuses(function, line, reason):
    a = te.placeholder((4,), name="a")
    with pytest.raises(TypeCheckError, match=reason) as caught:
        te.hybrid(function)(a)
    file, _, rest = str(caught.value).partition(":")
    assert file == __file__
    assert int(rest.partition(":")[0]) == function.__code__.co_firstlineno + max(line - 1, 0)


def test_refuses_calls_without_tensors():
    with pytest.raises(TypeCheckError, match="none of its arguments is a tensor"):
        running_sum(3)
