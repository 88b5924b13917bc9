"""Emitted text: sound names, nothing computed twice, lazy selects, memory and chunks as parameters, same numbers as native."""

from __future__ import annotations

import ast
import builtins
import keyword
import re
from dataclasses import replace

import numpy as np
import pytest

from tensorlang import te
from tensorlang.build import Kernel, build, lower_kernel
from tensorlang.codegen import intrinsics
from tensorlang.codegen.emit import emit_kernel
from tensorlang.codegen.native.source import split_functions
from tensorlang.config import Settings
from tensorlang.ir.expr import lt
from tensorlang.ir.parser import parse_func
from tensorlang.ir.stmt import For, If
from tensorlang.ir.visitor import rewrite_stmt
from tensorlang.lower import lower
from tensorlang.schedule import Schedule
from tests import programs

HEADER = "from tensorlang.codegen.intrinsics import *\n"


def emitted(func):
    return emit_kernel(lower(func)[-1].func)


def plain(kernel):
    """The same kernel with the jit off."""
    return Kernel(kernel.lowered, kernel.original, Settings(jit=False))


def check(program, reference, tolerance=2e-5, **sizes):
    kernel = build(program)
    arrays = programs.arrays_of(kernel.original, **sizes)
    expected = reference(*arrays)
    for run in (plain(kernel), kernel):
        np.testing.assert_allclose(run(*arrays), expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())


# -- names ---------------------------------------------------------------------------------------------------------


AWKWARD = ["lambda", "range", "vload", "ctx", "begin", "f32", "exp", "print", "i", "i_1"]


def test_names_are_unique_and_shadow_nothing():
    tensors = [te.placeholder((4,), name=n) for n in AWKWARD]
    total = te.compute((4,), lambda i: sum((t[i] for t in tensors[1:]), tensors[0][i]), name="i")
    text = emitted(te.create_prim_func("min", tensors, [total])).text
    names = [a.arg for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef) for a in node.args.args]
    names += [n.id for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
    assert len(names) == len(set(names)) == len(AWKWARD) + 3  # the inputs, ctx, the output and the loop variable
    assert not set(names[1:]) & {*keyword.kwlist, *dir(builtins), *intrinsics.__all__}


def test_awkward_names_run():
    x, y = te.placeholder((4,), name="len"), te.placeholder((4,), name="class")
    func = te.create_prim_func("sum", [x, y], [te.compute((4,), lambda i: x[i] - y[i], name="return")])
    check(func, lambda x, y: x - y)


def test_names_that_numba_would_confuse():
    """`i1` read at bytecode offset 24 and `i` at offset 124: a kernel that did not compile."""
    x = te.placeholder((13,), name="x")
    a = te.compute((13, 5), lambda i0, i1: x[i0] + 0.0, name="a")
    r = te.reduce_axis(11, "r0")
    b = te.compute((7,), lambda i: te.sum(a[r, 0], axis=r), name="b")
    for first in range(1, 4):  # other text moves the offsets
        s = Schedule(te.create_prim_func("f", [x], [b]))
        s["b"].split(s["b"].reduce_axis[0], first)
        s["b"].rfactor(s["b"].loops[-1], 0)
        check(s, lambda x: np.full(7, x[:11].sum()))


# -- expressions ---------------------------------------------------------------------------------------------------


def test_what_a_value_uses_twice_is_computed_once():
    x = te.placeholder((8,), name="x")
    out = te.compute((8,), lambda i: te.exp(x[i]) * te.exp(x[i]) + te.exp(x[i]), name="out")
    assert emitted(te.create_prim_func("f", [x], [out])).text.count("exp(") == 1


def test_the_arms_of_a_select_stay_lazy():
    x = te.placeholder((4,), name="x")
    out = te.compute((8,), lambda i: te.if_then_else(i < 4, te.sqrt(x[i]) + te.sqrt(x[i]), 1.0), name="out")
    s = Schedule(te.create_prim_func("f", [x], [out]))
    body = build(s).source.split("def f(")[1]
    assert not re.search(r"^ *t\d+ = ", body, re.M)  # neither arm is evaluated before its condition
    result = plain(build(s))(np.full(4, 4, np.float32))  # out of bounds if x[4] were read
    np.testing.assert_array_equal(result, [4, 4, 4, 4, 1, 1, 1, 1])


def test_masked_lanes_do_not_divide_by_zero():
    x, y = te.placeholder((8,), "i32", name="x"), te.placeholder((8,), "i32", name="y")
    out = te.compute((8,), lambda i: te.if_then_else(te.not_equal(y[i], 0), x[i] // y[i], -1), name="out")
    s = Schedule(te.create_prim_func("f", [x, y], [out]))
    s["out"].vectorize(s["out"].axis[0])
    a, b = np.arange(8, dtype=np.int32), np.array([0, 1, 2, 0, 3, 0, -1, 2], np.int32)
    expected = [-1, 1, 1, -1, 1, -1, -6, 3]
    for run in (plain(build(s)), build(s)):
        np.testing.assert_array_equal(run(a, b), expected)


def test_divisions_of_a_fused_loop_are_held_in_variables():
    s = Schedule(programs.dense(6, 10, 8))
    s["y"].fuse(*s["y"].axis)
    text = emitted(s.func).text
    assert text.count("floordiv_pos(i_j, 10)") == text.count("floormod_pos(i_j, 10)") == 1
    check(s, programs.dense_reference)


def test_a_division_by_a_size_that_may_be_zero_stays_where_it_is_guarded():
    func = parse_func("""\
def f(x: f32[M], y: f32[M, N], M: i64, N: i64) -> y:
    for i in range(M):
        for j in range(N):
            with block("y", vi=spatial(M, i), vj=spatial(N, j)):
                y[vi, vj] = x[vi] * cast(f32, vi // N)""")
    assert "at0" not in emitted(func).text


# -- memory and chunks ---------------------------------------------------------------------------------------------


def test_root_buffers_are_workspace_parameters():
    kernel = emitted(programs.chain(20))
    assert kernel.params == (("f32*", "x"), ("f32*", "out"), ("f32*", "e"))
    assert [(name, nbytes.value) for name, nbytes in kernel.workspace] == [("e", 80)]


def test_workspace_of_symbolic_size():
    kernel = emitted(programs.chain(te.var("N")))
    ((_, nbytes),) = kernel.workspace
    assert str(nbytes) == "N * 4"
    check(programs.chain(te.var("N")), lambda x: np.exp(x) * 2 + x, N=13)


def test_a_chunk_takes_what_it_uses_and_no_more():
    s = Schedule(programs.dense(6, 10, 8))
    s["y"].parallel(s["y"].axis[0])
    s["out"].parallel(s["out"].axis[0])
    text = emitted(s.func).text
    assert "def dense_p0(ctx, begin, end, x, w, y):" in text
    assert "def dense_p1(ctx, begin, end, b, out, y):" in text
    assert "parallel_for(dense_p1, ctx, 6, b, out, y)" in text
    check(s, programs.dense_reference)


def test_a_parallel_loop_inside_a_serial_one():
    x = te.placeholder((6, 10), name="x")
    out = te.compute((6, 10), lambda i, j: x[(i + 5) % 6, j] + x[(i + 5) % 6, (i + j) % 10], name="out")
    s = Schedule(te.create_prim_func("f", [x], [out]))
    s["out"].parallel(s["out"].axis[1])
    assert "def f_p0(ctx, begin, end, x, out, i):" in emitted(s.func).text
    rows, columns = np.indices((6, 10))
    check(s, lambda x: x[(rows + 5) % 6, columns] + x[(rows + 5) % 6, (rows + columns) % 10])


def test_private_memory_too_large_for_the_stack_is_scratch_of_the_chunk():
    s = Schedule(programs.dense(4, 20000, 2))
    s["y"].compute_at(s["out"], s["out"].axis[0])
    s["out"].parallel(s["out"].axis[0])
    text = emitted(s.func).text
    assert text.index("scratch(ctx, 80000)") < text.index("for i in range(begin, end)") < text.index("release(ctx,")
    check(s, programs.dense_reference)


def test_scratch_of_the_chunk_that_two_branches_use_is_taken_and_released_once():
    s = Schedule(programs.dense(4, 20000, 2))
    s["y"].compute_at(s["out"], s["out"].axis[0])
    s["out"].parallel(s["out"].axis[0])
    func = lower(s.func)[-1].func

    def both(node):
        if isinstance(node, For) and node.kind == "parallel":
            return replace(node, body=If(lt(node.var, 2), node.body, node.body))
        return None

    text = emit_kernel(func.with_body(rewrite_stmt(func.body, both))).text
    assert text.count(" = scratch(ctx, 80000)") == text.count("release(ctx,") == 1


def test_a_masked_store_with_a_stride_stays_a_scalar_loop():
    x = te.placeholder((10, 3), name="x")
    out = te.compute((10, 3), lambda i, j: x[i, j] * 2.0, name="out")
    s = Schedule(te.create_prim_func("f", [x], [out]))
    _, lane = s["out"].split(s["out"].axis[0], 4)
    s["out"].reorder(s["out"].loops[2], lane)
    s["out"].vectorize(lane)
    check(s, lambda x: x * 2)


# -- comments ------------------------------------------------------------------------------------------------------


def test_each_nest_names_its_stage_and_its_line():
    text = lower_kernel(Schedule(programs.dense(6, 10, 8))).emitted.text
    stages = re.findall(r"# stage (\w+) \((.*)\)", text)
    assert [name for name, _ in stages] == ["y", "out"]
    source = programs.__file__
    lines = open(source).read().splitlines()
    for name, where in stages:
        path, line = where.rsplit(":", 1)
        assert path == source and f'name="{name}"' in lines[int(line) - 1]


def test_stages_made_by_the_schedule_keep_the_line():
    s = Schedule(programs.dense(6, 10, 8))
    s.cache_write("out")
    s["y"].split(s["y"].reduce_axis[0], 4)
    s["y"].rfactor(s["y"].loops[-1])
    stages = dict(re.findall(r"# stage (\w+) \((.*)\)", lower_kernel(s).emitted.text))
    assert stages["out_local"] == stages["out"] and stages["y_rf"] == stages["y"]


def test_the_steps_stand_above_the_kernel_and_do_not_count_in_its_digest():
    s = Schedule(programs.dense(6, 10, 8))
    s.cache_write("out", "local")
    s["y"].split(s["y"].axis[1], 4, tail="shift_inwards")
    text = lower_kernel(s).emitted.text
    steps = [line.removeprefix("# schedule: ") for line in text.splitlines() if line.startswith("# schedule")]
    assert steps == str(s.trace).splitlines()
    bare = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    assert [f.digest for f in split_functions(HEADER + bare)] == [f.digest for f in split_functions(HEADER + text)]


# -- the text is the program ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("m", "n", "k"), [(5, 20, 7), (16, 48, 16)])
def test_dense_plain_and_native(m, n, k):
    check(programs.dense(m, n, k), programs.dense_reference)


def test_dense_of_symbolic_sizes_plain_and_native():
    check(programs.dense(te.var("M"), te.var("N"), te.var("K")), programs.dense_reference, M=5, N=20, K=7)


def test_softmax_plain_and_native():
    check(programs.softmax(5, 37), programs.softmax_reference)


def test_conv_plain_and_native():
    check(programs.conv_nhwc(7, 4, 20), programs.conv_reference)
