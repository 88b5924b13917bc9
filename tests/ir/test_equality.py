"""Structural equality and hash: names do not matter, everything else does."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tensorlang.ir.equality import structural_equal, structural_hash
from tensorlang.ir.expr import const, var
from tensorlang.ir.parser import parse_func
from tensorlang.ir.stmt import Seq
from tensorlang.ir.visitor import replace_buffers, substitute_stmt
from tests.ir.programs import ALL, DENSE

SCALE = """\
@prim_func(constants=("s",))
def scale(x: f32[N], s: f32[1], y: f32[N], N: i64) -> y:
    for i in range(N):
        with block("y", vi=spatial(N, i)):
            y[vi] = x[vi] * s[0]"""

SAME = {
    "function name": ("def scale", "def other"),
    "variable": ("vi", "position"),
    "loop": (*(f'{v} in range(N):\n        with block("y", vi=spatial(N, {v}' for v in "ip"),),
    "source": ("constants", 'source={"y": "a.py:1"}, constants'),
}
DIFFERENT = {
    "constant": ("s[0]", "s[1]"),
    "operator": ("*", "+"),
    "dtype": ("x: f32", "x: f16"),
    "loop kind": ("range", "parallel"),
    "annotation": ("range(N)", "range(N, unroll=4)"),
    "iteration kind": ("spatial(", "reduce("),
    "extent": ("range(N)", "range(N + 1)"),
    "predicate": ("i)):", "i), where=i < 3):"),
    "block name": ('block("y"', 'block("z"'),
    "outputs": ("-> y", "-> (s, y)"),
    "which constant": ('("s",)', '("x",)'),
    "order of parameters": ("x: f32[N], s: f32[1]", "s: f32[1], x: f32[N]"),
    "another variable": ("x[vi]", "x[0]"),
}


def _changed(change: tuple[str, str]) -> str:
    text = SCALE.replace(*change)
    assert text != SCALE
    return text


@pytest.mark.parametrize("what", SAME)
def test_what_does_not_count(what: str) -> None:
    assert structural_equal(parse_func(SCALE), parse_func(_changed(SAME[what])))


@pytest.mark.parametrize("what", DIFFERENT)
def test_what_counts(what: str) -> None:
    assert not structural_equal(parse_func(SCALE), parse_func(_changed(DIFFERENT[what])))


def test_buffers_may_be_renamed_with_attributes_that_name_them() -> None:
    renamed = SCALE.replace("s: f32", "t: f32").replace("s[0]", "t[0]").replace('"s"', '"t"')
    assert structural_equal(parse_func(SCALE), parse_func(renamed))


def test_all_programs_differ() -> None:
    hashes = {structural_hash(parse_func(text)) for text in ALL.values()}
    assert len(hashes) == len(ALL)


def test_swapped_variables_are_told_apart() -> None:
    i, j = var("i"), var("j")
    assert structural_equal(i - j, j - i)  # free variables may be renamed
    assert not structural_equal(i - j, i - i * 1 + j)
    assert not structural_equal(const(0.0), const(-0.0))
    assert not structural_equal(const(1), const(1, "i32"))
    assert not structural_equal(const(1), const(True))


def test_nesting_of_sequences_does_not_count() -> None:
    func = parse_func(DENSE)
    nests = func.body.body.stmts
    nested = Seq((Seq((nests[0],)), Seq(()), Seq((nests[1],))))
    assert structural_equal(nested, func.body.body)


def test_a_variable_bound_twice_equals_two_variables() -> None:
    func, other = parse_func(SCALE), parse_func(SCALE)
    body = replace_buffers(other.body, dict(zip(other.buffers, func.buffers, strict=True)))
    body = substitute_stmt(body, dict(zip(other.size_vars, func.size_vars, strict=True)))
    assert structural_equal(Seq((func.body, func.body)), Seq((func.body, body)))


def test_the_hash_is_the_same_in_another_process() -> None:
    code = (
        "from tensorlang.ir.equality import structural_hash as h; from tensorlang.ir.parser import parse_func as p;"
        "from tests.ir.programs import ALL; print([h(p(t)) for t in ALL.values()])"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert there.strip() == str([structural_hash(parse_func(t)) for t in ALL.values()])
