"""Printer and parser: what is printed parses back, and bad text is refused with its line."""

from __future__ import annotations

import ast

import pytest

from tensorlang.errors import TensorlangError
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.equality import structural_equal
from tensorlang.ir.expr import Expr, and_, broadcast, cast, const, load, lt, neg, ramp, select, var
from tensorlang.ir.parser import ParseError, parse_func
from tensorlang.ir.printer import format_func
from tensorlang.ir.stmt import Allocate, Block, For, Iter, PrimFunc, Seq, Store, seq
from tests.ir.programs import ALL, DENSE, DENSE_SPLIT


@pytest.mark.parametrize("name", ALL)
def test_round_trip(name: str) -> None:
    func = parse_func(ALL[name])
    text = str(func)
    again = parse_func(text)
    assert str(again) == text
    assert structural_equal(func, again)


def test_text_is_what_was_written() -> None:
    assert str(parse_func(DENSE)) == DENSE


def test_long_headers_are_broken() -> None:
    text = str(parse_func(DENSE_SPLIT.replace("annotation_of_a_block", "a" * 60)))
    ast.parse(text)
    assert max(map(len, text.splitlines())) <= 120


def _copy(x: Buffer, y: Buffer, name: str) -> For:
    i, vi = var("i"), var("vi")
    return For(i, const(4), "serial", Block(name, (Iter(vi, const(4), "spatial", i),), Store(y, (vi,), load(x, (vi,)))))


def test_equal_names_are_told_apart() -> None:
    x, y, t, u = (Buffer(n, (const(4),), "f32") for n in ("x", "y", "t", "t"))
    func = PrimFunc("f", (x, y), Allocate(t, Allocate(u, seq(_copy(x, t, "t"), _copy(t, u, "u"), _copy(u, y, "y")))))
    text = str(func)
    assert "t_1 = alloc(f32[4])" in text
    assert "for i in " in text and "for i_1 in " in text and "for i_2 in " in text
    assert "t_1[vi] = t[vi]" in text and "vi_1" not in text  # a block's variables are its own
    assert structural_equal(parse_func(text), func)


def test_memory_that_ends_early_prints_as_a_suite() -> None:
    x, y, t = (Buffer(n, (const(4),), "f32") for n in ("x", "y", "t"))
    func = PrimFunc("f", (x, y), Seq((Allocate(t, _copy(x, t, "t")), _copy(x, y, "y"))))
    assert "with alloc(f32[4]) as t:" in str(func)
    assert structural_equal(parse_func(str(func)), func)


def test_names_that_are_no_identifiers() -> None:
    x, y = Buffer("input.1", (const(4),), "f32"), Buffer("for", (const(4),), "f32")
    func = PrimFunc("0/x", (x, y), _copy(x, y, 'a "b" \\ \n'))
    again = parse_func(str(func))
    assert again.name == "0/x"
    assert structural_equal(again, func)


V = ramp(var("i"), 1, 8)
X = Buffer("x", (const(64),), "f32")
EXPRESSIONS = [
    -(load(X, (0,)) + 1.0) * 2.0,
    load(X, (0,)) - (load(X, (1,)) - load(X, (2,))),
    load(X, (0,)) / (load(X, (1,)) * load(X, (2,))),
    neg(neg(load(X, (0,)))),
    neg(const(-1.5)),
    const(float("nan")),
    const(1e-45),
    const(0.1, "f16"),
    const(-(1 << 63)),
    const((1 << 64) - 1, "u64"),
    const(7, "i32x4"),
    cast("f16", const(0.1)),
    cast("i32", load(X, (V,))),
    select(lt(V, broadcast(5, 8)), load(X, (V,)), broadcast(const(0.0), 8)),
    and_(lt(V, broadcast(const(5), 8)), lt(var("i"), 3)),
    (var("i") - var("j")) // 3 % 5 - 7,
    (var("i") < 3) ^ (var("j") < 4),
    var("i", "i32") & 3,
    ~(var("i") < 3),
]


@pytest.mark.parametrize("e", EXPRESSIONS, ids=str)
def test_expressions_round_trip(e: Expr) -> None:
    free = sorted({n for n in _walk(e) if n.op == "var"}, key=str)
    out = Buffer("out", (const(64),), e.dtype.scalar)
    index = (const(0),) if e.dtype.lanes == 1 else (ramp(0, 1, e.dtype.lanes),)
    func = PrimFunc("f", (X, out, *free), Store(out, index, e))
    again = parse_func(str(func))
    assert structural_equal(again, func)
    assert str(again) == str(func)


def _walk(e: Expr) -> list[Expr]:
    return [e, *(n for a in e.args for n in _walk(a))]


def test_deep_expressions() -> None:
    e = load(X, (0,))
    for n in range(800):
        e = e + load(X, (n % 64,))
    func = PrimFunc("f", (X, Buffer("y", (const(1),), "f32")), Seq(()))
    func = func.with_body(Store(func.outputs[0], (const(0),), e))
    assert structural_equal(parse_func(str(func)), func)


def test_highlight_marks_statements() -> None:
    func = parse_func(DENSE)
    loop = func.body.body.stmts[1]
    lines = format_func(func, {loop: "this loop"}).splitlines()
    at = next(n for n, line in enumerate(lines) if "for i_1" in line)
    assert lines[at + 1].strip() == "#" + "^" * (len(lines[at].strip()) - 1)
    assert lines[at + 2].strip() == "# this loop"
    assert str(parse_func("\n".join(lines))) == DENSE


def test_values_that_cannot_be_read_back_are_marked() -> None:
    func = parse_func(DENSE)
    text = str(PrimFunc(func.name, func.params, func.body, 1, {"x": object()}))
    assert 'x=opaque("object")' in text
    with pytest.raises(ParseError, match="is no literal"):
        parse_func(text)


HEAD = "def f(x: f32[N], y: f32[N], N: i64) -> y:\n"
BAD = {
    "": "one function",
    "x = 1": "one function",
    "def f(:": "line 1",
    HEAD: "line 1",
    HEAD + "  for i in range(N):\n y[i] = 1": "line 3",
    "def f(x) -> x:\n    pass": "has no type",
    "def f(x: f32[N]) -> x:\n    pass": "line 1: N is not defined",
    "def f(x: q32[4]) -> x:\n    pass": "unknown dtype",
    "def f(x: f32[4], y: f32[4]) -> x:\n    pass": "names the outputs",
    "def f(x: f32[4]):\n    pass": "outputs are missing",
    "def f(x: f32[4] = 3) -> x:\n    pass": "nothing else",
    "@other\ndef f(x: f32[4]) -> x:\n    pass": "prim_func",
    HEAD + "    while True:\n        pass": "line 2: not a statement",
    HEAD + "    import os": "line 2: not a statement",
    HEAD + "    for i in range(N):\n        y[i] = x[j]": "line 3: j is not defined",
    HEAD + "    for i in range(N):\n        y[i] = x[i, i]": "line 3: x has 1 dimension",
    HEAD + "    for i in range(N):\n        y[i] = x[i] + True": "line 3",
    HEAD + "    for i in range(N):\n        y[i] = x[1.5]": "line 3",
    HEAD + "    for N in range(N):\n        pass": "N is defined already",
    HEAD + "    for i in range(N, 2):\n        pass": "range takes 1 argument",
    HEAD + "    for i in open('x'):\n        pass": "expected",
    HEAD + "    y[0] = (lambda: 1)()": "not an expression",
    HEAD + "    y[0] = x[0] if N < 3 else 1.0": "not an expression",
    HEAD + "    y[0] = x.shape": "not an expression",
    HEAD + "    y[0] = 'text'": "is no number",
    HEAD + "    y[0] = x[0] ** 2": "unknown operator",
    HEAD + "    y[0] = i8(300)": "does not fit",
    HEAD + "    y[0] = select(1, 2.0)": "takes 3 arguments",
    HEAD + "    with block('y', vi=spatial(N)):\n        pass": "spatial takes 2",
    HEAD + "    with block(y):\n        pass": "no literal",
    HEAD + "    with alloc(f32[4]):\n        pass": "needs `as name`",
    HEAD + "    y[x] = 1.0": "x is a buffer",
    HEAD + "    y[0] = " + "-" * 5000 + "x[0]": "line",
    "\0": "line 1",
}


@pytest.mark.parametrize("text", BAD, ids=lambda t: repr(t[-40:]))
def test_bad_text_is_one_error_with_its_line(text: str) -> None:
    with pytest.raises(ParseError, match=r"^line \d+: ") as caught:
        parse_func(text)
    assert BAD[text] in str(caught.value)
    assert isinstance(caught.value, TensorlangError) and isinstance(caught.value, ValueError)
