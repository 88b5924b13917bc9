"""Accumulators of ragged tiles lose their masks where nobody reads beyond the edge, and only there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tensorlang import te
from tensorlang.build import build
from tensorlang.ir import interp
from tensorlang.ir.parser import parse_func
from tensorlang.ir.verify import verify
from tensorlang.lower.pipeline import lower
from tensorlang.lower.unmask import unmasked_arrays
from tensorlang.schedule import Schedule
from tests import programs
from tests.schedule.checks import check


def tile(
    update: str, init: str = "if j < N: acc[j] = 0.0", result: str = "if j < N: y[j] = acc[j]", size: int = 16
) -> set[str]:
    """The arrays without masks in a tile of 16 lanes, of which N hold something."""
    init, update, result = (_suite(text) for text in (init, update, result))
    func = parse_func(
        f"""
@prim_func()
def f(x: f32[N], y: f32[N], N: i64) -> y:
    acc = alloc(f32[{size}], scope="local")
    for j in vectorized(16):
{init}
    for k in range(3):
        for j in vectorized(16):
{update}
    for j in vectorized(16):
{result}
"""
    )
    verify(func)
    return {b.name for b in unmasked_arrays(func)}


def _suite(text: str) -> str:
    """`if condition: statement` on two lines, deep enough for either place."""
    head, _, body = text.partition(": ")
    return f"            {head}:\n                {body}" if body else f"            {head}"


def test_an_accumulator_that_only_the_edge_knows():
    assert tile("if j < N: acc[j] = acc[j] + x[j]") == {"acc"}


@pytest.mark.parametrize(
    "options",
    [
        {"init": "acc[j] = 0.0"},  # elements beyond the edge hold zeros that somebody may read
        {"update": "if j < N - 1: acc[j] = acc[j] + x[j]"},  # another edge
        {"update": "if j + k < N: acc[j] = acc[j] + x[j]"},  # the edge moves
        {"update": "if j < N: acc[j // 2] = acc[j] + x[j]"},  # an element is of two lanes
        {"size": 12},  # lanes beyond the edge have no element
        {"init": "acc[j] = 0.0", "update": "acc[j] = acc[j] + 1.0", "result": "if j < N: y[j] = acc[j]"},  # nothing masked
    ],
)
def test_masks_stay(options):
    assert tile(**{"update": "if j < N: acc[j] = acc[j] + x[j]", **options}) == set()


def ragged(m=7, n=21, k=5) -> Schedule:
    s = Schedule(programs.dense(m, n, k))
    y, out = s["y"], s["out"]
    s["y"].set_scope("local")
    io, jo, ii, ji = out.tile(*out.axis, 4, 16)
    out.reorder(io, jo, ii, ji)
    y.compute_at(out, jo)
    _, j = y.axis
    y.reorder(*y.reduce_axis, *y.axis)
    y.vectorize(j)
    out.vectorize(ji)
    return s


@pytest.mark.parametrize("n", [3, 16, 21])
def test_a_ragged_product_means_the_same(n):
    s = ragged(n=n)
    check(s)
    arrays = programs.arrays_of(s.original)
    for stage in lower(s.func):
        out = np.empty((7, n), np.float32)
        interp.run(stage.func, [*arrays, out])
        np.testing.assert_allclose(out, programs.dense_reference(*arrays), rtol=2e-5, atol=2e-5)


def test_the_text_has_masks_on_shared_memory_only(golden):
    source = build(ragged()).source
    assert "vstore_masked(y" not in source and "vload_masked(y" not in source
    assert "vload_masked(w" in source and "vstore_masked(out" in source
    func = lower(ragged().func)[-1].func
    golden(str(replace(func, attrs={})))  # without the files' names


def test_what_lies_beyond_the_edge_is_neither_read_nor_written():
    s = ragged(n=21)
    arrays = programs.arrays_of(s.original)
    memory = np.full((7 * 21 + 64,), 5.0, np.float32)
    out = memory[32 : 32 + 7 * 21].reshape(7, 21)
    build(s)(*arrays, out=out)
    np.testing.assert_allclose(out, programs.dense_reference(*arrays), rtol=2e-5, atol=2e-5)
    assert (memory[:32] == 5.0).all() and (memory[-32:] == 5.0).all()


def test_symbolic_columns():
    n = te.var("N")
    s = Schedule(programs.dense(7, n, 5))
    y, out = s["y"], s["out"]
    y.set_scope("local")
    io, jo, ii, ji = out.tile(*out.axis, 4, 16)
    y.compute_at(out, jo)
    y.reorder(*y.reduce_axis, *y.axis)
    y.vectorize(y.axis[1])
    out.vectorize(ji)
    assert "vstore_masked(y" not in build(s).source
    for size in (1, 16, 21):
        check(s, N=size)
