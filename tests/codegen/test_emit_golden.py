"""What kernels look like: four short ones, reviewed like code. Schedules are fixed here, so that only emission shows."""

from __future__ import annotations

import re

import pytest

from tensorlang import te
from tensorlang.build import lower_kernel
from tensorlang.schedule import Schedule
from tests import programs


@pytest.fixture
def check(golden):
    def compare(s):
        golden(re.sub(r"\(\S*/(\w+\.py):\d+\)", r"(\1)", lower_kernel(s).emitted.text))

    return compare


def test_a_dense_tile(check):
    s = Schedule(programs.dense(8, 32, 64))
    y, out = s["y"], s["out"]
    _, jo, _, ji = out.tile(*out.axis, 4, 16)
    y.compute_at(out, jo)
    (i, j), (k,) = y.axis, y.reduce_axis
    y.reorder(k, i, j)
    y.vectorize(j)
    out.vectorize(ji)
    out.parallel(out.loops[0])
    check(s)


def test_a_softmax_row(check):
    s = Schedule(programs.softmax(te.var("R"), 40))
    s["e"].compute_inline()
    out = s["out"]
    row, column = out.axis
    for name in ("total", "top"):
        stage = s[name]
        stage.compute_at(out, row)
        _, lane = stage.split(stage.reduce_axis[0], 8)
        part = stage.rfactor(lane, factor_axis=-1)
        part.reorder(*part.reduce_axis, part.axis[-1])
        part.vectorize(part.axis[-1])
        stage.pragma(stage.reduce_axis[-1], "vector_reduce")
    out.vectorize(out.split(column, 8)[1])
    out.parallel(row)
    check(s)


def test_an_elementwise_tail(check):
    s = Schedule(programs.chain(te.var("N")))
    s["e"].compute_inline()
    out = s["out"]
    out.vectorize(out.split(out.axis[0], 16)[1])
    out.parallel(out.loops[0])
    check(s)


def test_a_guarded_symbolic_tile(check):
    s = Schedule(programs.dense(te.var("M"), 16, 24))
    y, out = s["y"], s["out"]
    io, ii = out.split(out.axis[0], 4)
    y.compute_at(out, io)
    (i, j), (k,) = y.axis, y.reduce_axis
    y.reorder(k, i, j)
    y.vectorize(j)
    out.vectorize(out.axis[1])
    check(s)
