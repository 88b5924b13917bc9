"""Random chains of windows, transformed and placed in random order, mean what they meant."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import given, note, strategies as st

from tensorlang import te
from tensorlang.errors import ScheduleError
from tensorlang.ir import interp
from tensorlang.ir.stmt import PrimFunc
from tensorlang.lower import lower
from tensorlang.schedule import Schedule
from tests.symbolic.strategies import examples


@st.composite
def chains(draw: st.DrawFn) -> PrimFunc:
    """x -> a -> b -> c: each reads a window of the one before, possibly strided, padded, turned round or reduced."""
    rows = draw(st.integers(10, 24))
    t = te.placeholder((rows, 6), name="x", dtype="i64")
    inputs = [t]
    size: object = rows
    for name in "abc"[: draw(st.integers(2, 3))]:
        taps, stride, pad = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(0, 1))
        count = (size + 2 * pad - taps) // stride + 1
        if count < 1:
            break
        kind = draw(st.sampled_from(("window", "window", "sum", "turn")))

        def element(i, j, t=t, pad=pad, size=size):
            return te.if_then_else(te.all_of(i >= pad, i < size + pad), t[i - pad, j], 7) if pad else t[i, j]

        if kind == "sum":
            k = te.reduce_axis(taps, "k")
            t = te.compute((count, 6), lambda i, j, k=k, e=element, s=stride: te.sum(e(i * s + k, j), axis=k), name=name)
        elif kind == "turn":
            t = te.compute((size, 6), lambda i, j, t=t, n=size: t[n - 1 - i, 5 - j] * 3, name=name)
            count = size
        else:

            def window(i, j, e=element, s=stride, taps=taps):
                total = e(i * s, j)
                for d in range(1, taps):
                    total = total * 3 + e(i * s + d, j)
                return total

            t = te.compute((count, 6), window, name=name)
        size = count
    return te.create_prim_func("chain", inputs, [t])


def steps(draw: st.DrawFn, s: Schedule) -> None:
    """Random steps, most of them about where stages are computed."""
    names = [stage.name for stage in s.stages]

    def stage():
        return s[draw(st.sampled_from([n for n in names if any(x.name == n for x in s.stages)] or [s.stages[0].name]))]

    def loop(of):
        return draw(st.sampled_from(of.loops))

    def at() -> None:
        producer = names[draw(st.integers(0, max(0, len(names) - 2)))]
        consumer = s[names[min(names.index(producer) + 1, len(names) - 1)]]
        s[producer].compute_at(consumer, loop(consumer))

    def reverse_at() -> None:
        consumer = names[draw(st.integers(1, len(names) - 1))]
        producer = s[names[names.index(consumer) - 1]]
        s[consumer].reverse_compute_at(producer, loop(producer))

    def reorder() -> None:
        x = stage()
        x.reorder(*draw(st.permutations(x.loops)))

    def fuse() -> None:
        x = stage()
        first = draw(st.integers(0, max(0, len(x.loops) - 2)))
        x.fuse(*x.loops[first : first + 2])

    def split() -> None:
        x = stage()
        size = draw(st.integers(2, 5))
        by = {"nparts": size} if draw(st.booleans()) else {"factor": size}
        x.split(loop(x), tail=draw(st.sampled_from(("guard", "guard", "shift_inwards"))), **by)

    def cache() -> None:
        x = stage()
        if draw(st.booleans()):
            s.cache_write(x)
        else:
            s.cache_read(x.name, "local")

    def kind() -> None:
        x = stage()
        getattr(x, draw(st.sampled_from(("parallel", "vectorize"))))(loop(x))

    choices: list[Callable[[], object]] = [
        at, at, at, at, reverse_at, split, split, split, fuse, reorder, cache, kind,
        lambda: stage().compute_root(), lambda: stage().rolling_buffer(), lambda: stage().rolling_buffer(),
        lambda: stage().storage_align(0, draw(st.sampled_from((4, 8))), draw(st.integers(0, 3))),
        lambda: stage().reverse_compute_inline(),
    ]  # fmt: skip
    for _ in range(draw(st.integers(2, 10))):
        try:
            draw(st.sampled_from(choices))()
        except ScheduleError:
            pass


def result(func: PrimFunc, x: np.ndarray, shape: tuple[int, ...], order: str = "ascending") -> np.ndarray:
    out = np.empty(shape, np.int64)
    interp.run(func, [x, out], order=order)
    return out


@examples(60)
@given(chains(), st.data())
def test_chains_of_windows_keep_their_meaning(func, data):
    s = Schedule(func)
    steps(data.draw, s)
    note(f"{func}\n{s.trace}\n{s}")
    x = np.random.default_rng(0).integers(-9, 9, [d.value for d in func.inputs[0].shape])
    shape = tuple(d.value for d in func.outputs[0].shape)
    expected = result(func, x, shape)
    for order in interp.ORDERS:
        np.testing.assert_array_equal(result(s.func, x, shape, order), expected)
    for stage in lower(s.func):
        np.testing.assert_array_equal(result(stage.func, x, shape, "shuffled"), expected, err_msg=stage.name)
