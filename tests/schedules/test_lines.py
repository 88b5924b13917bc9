"""Lines computed, then read at computed places: interpolation made a line at a time, its result gathered from that line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from tensorlang import te
from tensorlang.build import build, lower_kernel
from tensorlang.build.cpu import machine_of
from tensorlang.codegen.native import CpuTarget
from tensorlang.graph import get
from tensorlang.ir.stmt import PrimFunc


def resized(op: str, shape: Sequence[int], out: Sequence[int]) -> PrimFunc:
    x = te.placeholder(shape, "f32", name="x")
    attrs = {"shape": tuple(out), "scales": (None,) * len(shape), "coordinates": "half_pixel"}
    return te.create_prim_func(op, [x], [get(op).te(x, **attrs)])


def text_of(func: PrimFunc) -> str:
    machine = replace(machine_of(CpuTarget.host(), 2), threads=2)
    return lower_kernel(func, machine=machine).emitted.text


@pytest.mark.parametrize("op", ["resize_linear", "resize_cubic"])
@pytest.mark.parametrize(
    ("shape", "out"),
    [
        ((1, 3, 20, 40), (1, 3, 40, 80)),  # channels second: lines along the width
        ((2, 5, 19, 37), (2, 5, 7, 23)),  # fewer, of ragged sizes
        ((1, 20, 40, 8), (1, 40, 80, 8)),  # channels last: neighbours are whole vectors
        ((1, 3, 20, 40), (1, 3, 20, 90)),  # along one dimension
        ((1, 2, 6, 7, 9), (1, 2, 12, 13, 40)),  # three
        ((1, 1, 3, 5), (1, 1, 1, 1)),
    ],
)
def test_interpolation(op, shape, out):
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    expected = get(op).numpy(x, shape=out, scales=(None,) * len(shape), coordinates="half_pixel")
    np.testing.assert_allclose(build(resized(op, shape, out))(x), expected, rtol=1e-4, atol=2e-5)


def test_a_line_is_made_by_the_iteration_that_reads_it():
    text = text_of(resized("resize_linear", (1, 64, 40, 40), (1, 64, 80, 80)))
    assert text.count("@chunk") == 1 and "resize_linear_lines = local_array(f32, 48)" in text
    assert text.count("vgather(") == 2 and "vgather(resize_linear_lines" in text


def test_channels_last_needs_no_lines():
    text = text_of(resized("resize_linear", (1, 40, 40, 64), (1, 80, 80, 64)))
    assert "lines = local_array" not in text and "vgather" not in text


def test_lines_too_long_for_the_cache_are_not_kept():
    text = text_of(resized("resize_linear", (8, 5000), (16, 10000)))
    assert "lines = local_array" not in text


def test_two_producers_of_lines_with_one_reader():
    """Codes by blocks, each with a zero and a scale, all gathered by rows: the reader's loops are arranged once."""
    table = te.placeholder((12, 48), "u8", name="table")
    zeros, scales = te.placeholder((12, 3), "u8", name="zeros"), te.placeholder((12, 3), "f32", name="scales")
    rows = te.placeholder((2, 3), "i64", name="rows")
    codes, zero, scale = (get("gather").te(t, rows, axis=0) for t in (table, zeros, scales))
    y = get("dequantize").te(codes, scale, zero, of="u8", dtype="f32", axis=2, block=16)
    random, which = np.random.default_rng(0), np.array([[3, 0, 11], [2, 5, 3]])
    given = (*(random.integers(0, 256, (12, n), np.uint8) for n in (48, 3)), random.random((12, 3), np.float32))
    found = build(te.create_prim_func("restored", [table, zeros, scales, rows], [y]))(*given, which)
    values, offsets, factors = (a[which].astype(np.float32) for a in given)
    np.testing.assert_allclose(found, (values - offsets.repeat(16, -1)) * factors.repeat(16, -1), rtol=1e-6)
