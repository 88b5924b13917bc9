"""Races of a grid's programs, proved absent or found with both threads, without running anything."""

from __future__ import annotations

import time

import pytest

import tensorlang as tl
from tensorlang.build import build, lower_kernel
from tensorlang.codegen.barriers import grid_program
from tensorlang.codegen.cuda.emit import cuda_program
from tensorlang.codegen.race_proof import prove_no_races
from tensorlang.errors import BuildError
from tensorlang.ir.parser import parse_func
from tests import programs
from tests.cuda.test_cuda import CASES, graph_of
from tests.cuda.test_rows import CASES as ROWS, total
from tests.ir.test_races import REVERSED


def test_threads_that_read_what_others_wrote_are_named():
    found = prove_no_races(parse_func(REVERSED))
    assert found.status == "refuted" and found.buffer is not None and found.buffer.name == "s"
    assert found.first is not None and found.second is not None
    (one, block, writer), (two, same, reader) = found.first, found.second
    assert (one, two) == ("writes", "reads") and block == same and found.index == (writer[0],) == (3 - reader[0],)
    assert f"thread {writer} writes and thread {reader} reads s[{writer[0]}]" in found.reason
    assert prove_no_races(grid_program(parse_func(REVERSED))).status == "proved"


def test_any_number_of_blocks():
    """Nothing is run: the sizes may be open."""
    text = """
def f(n: i64, x: f32[n], y: f32[n]) -> y:
    for b in bind("blockIdx.x", (n + 3) // 4):
        for t in bind("threadIdx.x", 4):
            if b*4 + t < n:
                y[b*4 + t{}] = x[b*4 + t]
"""
    assert prove_no_races(parse_func(text.format(""))).status == "proved"
    found = prove_no_races(parse_func(text.format(" // 2")))
    assert found.status == "refuted" and found.first is not None and found.second is not None


def test_blocks_of_one_launch():
    text = """
def f(x: f32[8], y: f32[9]) -> y:
    for b in bind("blockIdx.x", 2):
        for t in bind("threadIdx.x", 5):
            y[b*4 + t] = x[0]
"""
    found = prove_no_races(parse_func(text))
    assert found.status == "refuted" and "blocks of one launch run in any order" in found.reason and found.index == (4,)


def test_the_next_iteration_of_a_loop_needs_a_barrier():
    """Between the nests there is one; at the end of an iteration too, or else the next one overwrites what is being read."""
    text = """
def f(x: f32[8], y: f32[8]) -> y:
    for b in bind("blockIdx.x", 2):
        s = alloc(f32[4])
        for k in range(3):
            for t in bind("threadIdx.x", 4):
                s[t] = x[b*4 + t]
            call(i32, 'barrier')
            for u in bind("threadIdx.x", 4):
                y[b*4 + u] = s[3 - u]
            {}
"""
    assert prove_no_races(parse_func(text.format("call(i32, 'barrier')"))).status == "proved"
    found = prove_no_races(parse_func(text.format("pass").replace("            pass\n", "")))
    assert found.status == "refuted" and found.buffer is not None and found.buffer.name == "s"


def test_a_condition_does_not_hide_who_reads():
    """The first thread writes what all read at the same index."""
    text = """
def f(x: f32[4], y: f32[4]) -> y:
    for b in bind("blockIdx.x", 1):
        s = alloc(f32[1])
        for t in bind("threadIdx.x", 4):
            if t == 0:
                s[0] = x[0]
            y[t] = s[0]
"""
    assert prove_no_races(parse_func(text)).status == "refuted"


def test_what_depends_on_data_is_not_known():
    text = """
def f(i: i32[4], x: f32[4], y: f32[4]) -> y:
    for t in bind("threadIdx.x", 4):
        y[i[t]] = x[t]
"""
    found = prove_no_races(parse_func(text))
    assert found.status == "unknown" and "data" in found.reason


@pytest.mark.parametrize("target", ["cuda", "opencl"])
@pytest.mark.parametrize("size", [(64, 64, 16), (128, 64, 48), (5, 7, 3)], ids=str)
def test_products_are_proved_and_race_without_their_barriers(target, size):
    lowered = lower_kernel(programs.dense(*size), target=target, name="dense").stages[-1].func
    made = cuda_program(lowered) if target == "cuda" else grid_program(lowered)
    begin = time.process_time()
    assert prove_no_races(made).status == "proved"
    assert time.process_time() - begin < 2
    if size != (5, 7, 3):
        assert prove_no_races(lowered).status == "refuted"


def test_the_verdict_is_the_last_of_a_kernels_proof():
    kernel = build(total(), target="cuda")
    last = kernel.proof[-1]
    assert last.step == "barriers" and str(last.verdict) == "proved"
    assert all(step.step != "barriers" for step in build(programs.dense(5, 7, 3)).proof)


@pytest.mark.parametrize("n", range(len(CASES) + len(ROWS)))
def test_default_schedules_are_proved(n, monkeypatch):
    """What is read by an index from memory (gather) writes by plain ones all the same."""
    op, arrays, attrs = [*CASES, *ROWS][n]
    programs_seen = []

    def lowered(func, **rest):
        made = lower_kernel(func, **rest)
        programs_seen.append(made.stages[-1].func)
        return made

    monkeypatch.setattr("tensorlang.graph.device.lower_kernel", lowered)
    tl.compile(graph_of(op, arrays, **attrs), target="cuda")
    assert programs_seen
    for func in programs_seen:
        found = prove_no_races(cuda_program(func))
        assert found.status == "proved", f"{op}: {found.reason}"


def test_a_race_is_not_built(monkeypatch):
    """Barriers are placed where they are needed; were one forgotten, building says so."""
    monkeypatch.setattr("tensorlang.codegen.barriers._Placer._meet", lambda *args: False)
    with pytest.raises(BuildError, match=r"has a race: thread \(.*\) writes and thread \(.*\) reads w_shared"):
        build(programs.dense(64, 64, 16), target="cuda")
