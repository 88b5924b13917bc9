"""Loop rewriting for the front end: same meaning, golden text."""

from __future__ import annotations

import ast

import pytest

from tensorlang.codegen.native.loops import UNROLL_MARK, rewrite_loops


def rewritten(source: str) -> str:
    return ast.unparse(rewrite_loops(ast.parse(source)))


def test_a_loop_becomes_a_count():
    assert rewritten("def f(n):\n    for i in range(n):\n        g(i)\n") == (
        "def f(n):\n    i = 0\n    while i < n:\n        g(i)\n        i = i + 1"
    )


def test_updates_become_assignments():
    assert rewritten("def f(p, i, v):\n    v += 1\n    p[i] *= v\n") == ("def f(p, i, v):\n    v = v + 1\n    p[i] = p[i] * v")


def test_a_bound_is_evaluated_once():
    text = rewritten("def f(n):\n    for i in range(n, n * 2):\n        n = g(i)\n")
    assert text.splitlines()[1:4] == ["    _stop_1_ = n * 2", "    i = n", "    while i < _stop_1_:"]


def test_a_tile_loop_is_marked_for_unrolling():
    text = rewritten("def f(n):\n    t = local_array(f32, 4)\n    for i in range(4):\n        t[i] = n\n")
    assert "_unroll()" in text
    assert "_unroll()" not in rewritten("def f(t, n):\n    for i in range(4):\n        t[i] = n\n")
    assert "_unroll()" not in rewritten("def f(n):\n    t = local_array(f32, 4)\n    for i in range(n):\n        t[i] = n\n")


def test_a_huge_nest_is_left_to_llvm():
    inner = "        for j in range(100):\n            t[j] = i\n"
    text = rewritten(f"def f():\n    t = local_array(f32, 99)\n    for i in range(100):\n{inner}")
    assert text.count("_unroll()") == 1  # the inner loop alone


def test_loops_over_an_array_beyond_the_registers_stay():
    rows = "    for i in range(32):\n        for k in range(4):\n"
    update = "            vstore(t, i * 32, vload(t, i * 32, 32) + vload(b, k * 32, 32))\n"
    for size, marked in [(1024, ["k"]), (256, ["k", "i"])]:
        text = rewritten(f"def f(b):\n    t = local_array(f32, {size})\n{rows}{update}")
        assert [line.strip()[0] for line in text.split("_unroll()")[1:] for line in line.splitlines()[1:2]] == marked
    both = "    for i in range(32):\n        t[i] = s[i]\n"
    assert "_unroll()" in rewritten(f"def f():\n    t = local_array(f64, 1024)\n    s = local_array(f32, 32)\n{both}")


CASES = {
    "plain": "for i in range(3):\n    out.append(i)",
    "start": "for i in range(2, n):\n    out.append(i)",
    "empty": "for i in range(5, 2):\n    out.append(i)",
    "step": "for i in range(0, 10, 3):\n    out.append(i)",
    "symbolic_step": "for i in range(0, n, 3):\n    out.append(i)",
    "backwards": "for i in range(5, 0, -1):\n    out.append(i)",
    "nested": "for i in range(3):\n    for j in range(i, n):\n        out.append((i, j))",
    "break": "for i in range(9):\n    if i == 4:\n        break\n    out.append(i)",
    "continue": "for i in range(9):\n    if i == 4:\n        continue\n    out.append(i)",
    "reassigned": "for i in range(4):\n    i = i * 2\n    out.append(i)",
    "own_bound": "i = 3\nfor i in range(i, i + 3):\n    out.append(i)",
    "changing_bound": "for i in range(n):\n    n = 2\n    out.append(i)",
}


@pytest.mark.parametrize("name", CASES)
def test_the_meaning_stays(name):
    body = "\n".join("    " + line for line in CASES[name].splitlines())
    source = f"def f(n, out):\n{body}\n"
    results = []
    for tree in (ast.parse(source), rewrite_loops(ast.parse(source))):
        namespace: dict = {}
        exec(compile(tree, "<loops>", "exec"), namespace)
        out: list = []
        namespace["f"](6, out)
        results.append(out)
    assert results[0] == results[1]


def test_local_names_do_not_end_in_a_digit():
    # numba would call the values of `i` and `i1`, at offsets 124 and 24 of the bytecode, both `$i124`
    assert rewritten("def f(x0, x0_):\n    t1 = f32(x0)\n    g1(t1, x0_)\n") == (
        "def f(x0__, x0_):\n    t1_ = f32(x0__)\n    g1(t1_, x0_)"
    )


def test_loops_that_the_schedule_unrolls_are_marked() -> None:
    source = "def f(x, n):\n    for i in range(n):\n        for j in unrolled(4):\n            x[i * 4 + j] = 1.0\n"
    text = ast.unparse(rewrite_loops(ast.parse(source)))
    inner = text.split("while j", 1)[1]
    assert UNROLL_MARK in inner and text.count(UNROLL_MARK) == 1
    large = ast.unparse(rewrite_loops(ast.parse(source.replace("unrolled(4)", "unrolled(100000)"))))
    assert UNROLL_MARK not in large, "no more code than the compiler can bear"


def test_steps_of_a_sum_are_unrolled_only_where_they_are_few():
    """A 7x7 window of three channels over a tile of 28 vectors: the channels are unrolled, the window's columns stay a loop."""
    source = """
def f(x, w, y):
    a = local_array(f32, 448)
    for i in range(14):
        for j in range(2):
            vstore(a, i * 32 + j * 16, vsplat(f32(0.0), 16))
    for kw in range(7):
        for ic in range(3):
            for i in range(14):
                for j in range(2):
                    vstore(a, i * 32 + j * 16, vload(a, i * 32 + j * 16, 16) + vsplat(x[i + kw + ic], 16))
"""
    text = ast.unparse(rewrite_loops(ast.parse(source)))
    loops = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.While)]
    marked = [n for n in loops if ast.unparse(n.body[-2]) == f"{UNROLL_MARK}()"]
    assert sorted({ast.unparse(n.test).split()[0] for n in marked}) == ["i", "ic", "j"]
