"""What the front end asks of a syntax tree: which loops are unrolled, and which names are values."""

from __future__ import annotations

import ast

import pytest

from tensorlang.codegen.native.loops import fixed_names, unrolled_loops


def function(source: str) -> ast.FunctionDef:
    tree = ast.parse(source).body[0]
    assert isinstance(tree, ast.FunctionDef)
    return tree


def unrolled(source: str) -> list[str]:
    """The variables of the loops to be unrolled."""
    return sorted(ast.unparse(loop.target) for loop in unrolled_loops(function(source)))


def test_a_tile_loop_is_marked_for_unrolling():
    assert unrolled("def f(n):\n    t = local_array(f32, 4)\n    for i in range(4):\n        t[i] = n\n") == ["i"]
    assert unrolled("def f(t, n):\n    for i in range(4):\n        t[i] = n\n") == []
    assert unrolled("def f(n):\n    t = local_array(f32, 4)\n    for i in range(n):\n        t[i] = n\n") == []


def test_a_huge_nest_is_left_to_llvm():
    inner = "        for j in range(100):\n            t[j] = i\n"
    assert unrolled(f"def f():\n    t = local_array(f32, 99)\n    for i in range(100):\n{inner}") == ["j"]


def test_loops_over_an_array_beyond_the_registers_stay():
    rows = "    for i in range(32):\n        for k in range(4):\n"
    update = "            vstore(t, i * 32, vload(t, i * 32, 32) + vload(b, k * 32, 32))\n"
    for size, marked in [(1024, ["k"]), (256, ["i", "k"])]:
        assert unrolled(f"def f(b):\n    t = local_array(f32, {size})\n{rows}{update}") == marked
    both = "    for i in range(32):\n        t[i] = s[i]\n"
    assert unrolled(f"def f():\n    t = local_array(f64, 1024)\n    s = local_array(f32, 32)\n{both}") == ["i"]


def test_a_tile_with_tests_stays_loops():
    source = "def f(n):\n    t = local_array(f32, 4)\n    for i in range(4):\n        if i < n:\n            t[i] = n\n"
    assert unrolled(source) == []


def test_loops_that_the_schedule_unrolls_are_marked() -> None:
    source = "def f(x, n):\n    for i in range(n):\n        for j in unrolled(4):\n            x[i * 4 + j] = 1.0\n"
    assert unrolled(source) == ["j"]
    assert unrolled(source.replace("unrolled(4)", "unrolled(100000)")) == [], "no more code than the compiler can bear"


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
    assert unrolled(source) == ["i", "i", "ic", "j", "j"]


FIXED = {
    "a parameter": ("return x", "x", True),
    "assigned once": ("t = x\nreturn t", "t", True),
    "again, in between": ("t = x\ng(t)\nt = 2\ng(t)", "t", True),
    "on one way only": ("t = 1\nif x:\n    t = 2\ng(t)", "t", False),
    "on both ways": ("if x:\n    t = 1\nelse:\n    t = 2\ng(t)", "t", False),
    "within one way": ("if x:\n    t = 1\n    g(t)\nelse:\n    t = 2\n    g(t)", "t", True),
    "a loop's variable": ("for i in range(x):\n    g(i)", "i", True),
    "of two loops": ("for i in range(x):\n    g(i)\nfor i in range(3):\n    g(i)", "i", True),
    "after its loop": ("for i in range(x):\n    g(i)\ng(i)", "i", False),
    "changed in its loop": ("for i in range(x):\n    i = i * 2\n    g(i)", "i", True),
    "before the loop": ("t = 1\nfor i in range(x):\n    g(t)", "t", True),
    "by the iteration before": ("t = 1\nfor i in range(x):\n    g(t)\n    t = i", "t", False),
    "by the iteration before, in a test": ("t = 1\nwhile t < x:\n    t = t + 1", "t", False),
    "updated": ("t = 1\nt += 1\ng(t)", "t", True),
    "updated in a loop": ("t = 1\nfor i in range(x):\n    t += i", "t", False),
    "by the outer loop": ("t = 1\nfor i in range(x):\n    for j in range(x):\n        g(t)\n    t = 2", "t", False),
    "before its assignment": ("g(t)\nt = 1", "t", False),
}


@pytest.mark.parametrize("case", FIXED)
def test_names_with_one_value_wherever_they_are_read(case: str) -> None:
    body, name, expected = FIXED[case]
    lines = "\n".join("    " + line for line in body.splitlines())
    assert (name in fixed_names(function(f"def f(x):\n{lines}\n"))) is expected
