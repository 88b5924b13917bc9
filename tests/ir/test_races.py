"""Races among threads, found by running: each program here has one mistake, or none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tensorlang.build import lower_kernel
from tensorlang.codegen.barriers import grid_program, is_barrier
from tensorlang.codegen.cuda.emit import cuda_program
from tensorlang.errors import InputError
from tensorlang.ir.interp import run
from tensorlang.ir.parser import parse_func
from tensorlang.ir.races import RaceError, check_races
from tensorlang.ir.stmt import Seq
from tensorlang.ir.visitor import rewrite_stmt, walk_stmt
from tests import programs

REVERSED = """
def f(x: f32[8], y: f32[8]) -> y:
    for b in bind("blockIdx.x", 2):
        s = alloc(f32[4])
        for t in bind("threadIdx.x", 4):
            s[t] = x[b*4 + t]
        for u in bind("threadIdx.x", 4):
            y[b*4 + u] = s[3 - u]
"""


def arrays(func):
    rng = np.random.default_rng(0)
    shapes = [tuple(d.value for d in b.shape) for b in func.buffers]
    return [rng.standard_normal(shape).astype(b.dtype.numpy) for shape, b in zip(shapes, func.buffers, strict=True)]


def test_threads_that_read_what_others_wrote_need_a_barrier():
    func = parse_func(REVERSED)
    with pytest.raises(RaceError) as caught:
        check_races(func, arrays(func))
    error = caught.value
    assert error.buffer.name == "s" and error.index == (3,)
    assert error.first == ("write", (0, 0, 0), (3, 0, 0)) and error.second == ("read", (0, 0, 0), (0, 0, 0))
    assert "thread (3, 0, 0) writes and thread (0, 0, 0) reads s[3], both in block (0, 0, 0)" in str(error)
    assert "no barrier stands between" in str(error)


def test_the_barrier_that_is_placed_suffices():
    func = grid_program(parse_func(REVERSED))
    assert sum(map(is_barrier, walk_stmt(func.body))) == 1
    given = arrays(func)
    check_races(func, given)
    np.testing.assert_array_equal(given[1], given[0].reshape(2, 4)[:, ::-1].reshape(-1))


def test_a_loop_around_nests_ends_with_a_barrier():
    """The next iteration overwrites what other threads may still be reading."""
    text = REVERSED.replace("        for t in", "        for k in range(3):\n        for t in")
    lines = text.splitlines()
    at = next(n for n, line in enumerate(lines) if "for k in" in line) + 1
    func = parse_func("\n".join([*lines[:at], *("    " + line for line in lines[at:])]) + "\n")
    made = grid_program(func)
    assert sum(map(is_barrier, walk_stmt(made.body))) == 2
    check_races(made, arrays(made))
    only_first = _without_last_barrier(made)
    with pytest.raises(RaceError, match=r"s\[\d\]"):
        check_races(only_first, arrays(only_first))


def _without_last_barrier(func):
    last = [s for s in walk_stmt(func.body) if is_barrier(s)][-1]

    def drop(s):
        return Seq(tuple(c for c in s.stmts if c is not last)) if isinstance(s, Seq) else None

    return replace(func, body=rewrite_stmt(func.body, drop))


def test_blocks_of_one_launch_must_not_meet():
    func = parse_func("""
def f(x: f32[8], y: f32[4]) -> y:
    for b in bind("blockIdx.x", 2):
        for t in bind("threadIdx.x", 4):
            y[t] = x[b*4 + t]
""")
    with pytest.raises(RaceError, match=r"block \(0, 0, 0\) writes and block \(1, 0, 0\) writes y\[0\]; blocks of one launch"):
        check_races(func, arrays(func))


def test_a_launch_orders_blocks():
    text = """
def f(x: f32[8], y: f32[8], z: f32[8]) -> (y, z):
    for b in bind("blockIdx.x", 8):
        y[b] = x[b]
    for c in bind("blockIdx.x", 8):
        z[c] = y[7 - c]
"""
    check_races(grid_program(parse_func(text)), arrays(parse_func(text)))
    with pytest.raises(RaceError, match=r"y\[7\]"):
        check_races(parse_func(text), arrays(parse_func(text)))


def test_what_is_bound_to_no_thread_is_done_by_the_first():
    func = parse_func("""
def f(x: f32[4], y: f32[4]) -> y:
    for b in bind("blockIdx.x", 1):
        s = alloc(f32[1])
        s[0] = x[0]
        for t in bind("threadIdx.x", 4):
            y[t] = s[0]
""")
    with pytest.raises(RaceError, match=r"thread \(0, 0, 0\) writes and thread \(1, 0, 0\) reads s\[0\]"):
        check_races(func, arrays(func))
    check_races(grid_program(func), arrays(func))


def test_arrays_of_a_thread_are_its_own():
    func = parse_func("""
def f(x: f32[4], y: f32[4]) -> y:
    for t in bind("threadIdx.x", 4):
        s = alloc(f32[1])
        s[0] = x[t]
        y[t] = s[0]
""")
    check_races(func, arrays(func))


def test_one_variable_of_two_kinds_is_refused():
    func = parse_func("""
def f(x: f32[4], y: f32[4]) -> y:
    for t in bind("threadIdx.x", 4):
        y[t] = x[t]
""")
    func = replace(func, body=Seq((func.body, replace(func.body, kind="serial"))))
    with pytest.raises(InputError, match="rename"):
        check_races(func, arrays(func))


@pytest.mark.parametrize(
    ("target", "m", "n", "k"), [("cuda", 64, 64, 16), ("opencl", 16, 32, 32), ("cuda", 5, 7, 3), ("opencl", 5, 7, 3)]
)
def test_default_schedules_have_no_races(target, m, n, k):
    """And without the barriers that are placed, products in shared memory have."""
    lowered = lower_kernel(programs.dense(m, n, k), target=target, name="dense").stages[-1].func
    made = cuda_program(lowered) if target == "cuda" else grid_program(lowered)
    given = arrays(made)
    check_races(made, given)
    again = [a.copy() for a in given]
    run(lowered, again)
    np.testing.assert_array_equal(given[-1], again[-1])
    if any(is_barrier(s) for s in walk_stmt(made.body)):
        with pytest.raises(RaceError):
            check_races(lowered, arrays(lowered))
