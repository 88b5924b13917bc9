"""Sound programs pass the verifier; each unsound one has a single mistake, and is refused for it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tensorlang.errors import InternalError
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr, _make, broadcast, const, eq, load, lt, ramp, reduce, var
from tensorlang.ir.parser import parse_func
from tensorlang.ir.stmt import Allocate, Block, Evaluate, For, If, Iter, PrimFunc, Seq, Stmt, Store
from tensorlang.ir.verify import find_problems, verify
from tests.ir.programs import ALL

SOUND = [name for name in ALL if name != "odd"]


@pytest.mark.parametrize("name", SOUND)
def test_sound_programs_pass(name: str) -> None:
    verify(parse_func(ALL[name]))


N = var("N")
X, Y, T = Buffer("x", (N,), "f32"), Buffer("y", (N,), "f32"), Buffer("t", (N,), "f32")
VAR_I, VAR_J, VI, VK = var("i"), var("j"), var("vi"), var("vk")
ONE = const(1.0)


def _loop(body: Stmt, v: Expr = VAR_I, kind: str = "serial", extent: Expr = N) -> For:
    return For(v, extent, kind, body)


def _block(body: Stmt, name: str = "y", **changes: object) -> Block:
    return replace(Block(name, (Iter(VI, N, "spatial", VAR_I),), body), **changes)  # type: ignore[arg-type]


def _store(value: Expr = ONE, buffer: Buffer = Y, index: Expr = VI) -> Store:
    return Store(buffer, (index,), value)


V = ramp(VAR_I, 1, 8)
BAD: dict[str, tuple[Stmt, str]] = {
    "undefined variable": (_loop(_store(index=VAR_J)), "uses j, which is not defined here"),
    "undefined buffer, stored": (_loop(_store(buffer=T, index=VAR_I)), "stores to t, which is not defined here"),
    "undefined buffer, read": (_loop(_store(load(T, (VAR_I,)), index=VAR_I)), "reads t, which is not defined here"),
    "buffer after its end": (Seq((Allocate(T, Seq(())), _loop(_store(buffer=T, index=VAR_I)))), "stores to t, which is not"),
    "variable after its loop": (Seq((_loop(Seq(())), _store(index=VAR_I))), "uses i, which is not defined here"),
    "variable hidden": (_loop(_loop(Seq(()))), "i is defined where it is defined already"),
    "buffer hidden": (Allocate(T, Allocate(T, Seq(()))), "t is defined where it is defined already"),
    "rank": (Store(Y, (const(0), const(0)), ONE), "y has 1 dimension(s) but is indexed with 2"),
    "index type": (Store(Y, (ONE,), ONE), "no integer"),
    "store type": (Store(Y, (const(0),), const(1)), "stores i64 to y, which is f32"),
    "store to an input": (Store(X, (const(0),), ONE), "stores to the input x"),
    "block sees a loop": (_loop(_block(_store(index=VAR_I))), "uses i, which block 'y' does not see"),
    "block init sees a loop": (_loop(_block(_store(), init=_store(index=VAR_I))), "uses i, which block 'y' does not see"),
    "init sees a reduction": (
        _loop(_block(_store(), iters=(Iter(VK, N, "reduce", VAR_I),), init=_store(index=VK))),
        "uses vk, which block 'y' does not see",
    ),
    "init of another buffer": (
        Allocate(T, _loop(_block(_store(), init=_store(buffer=T)))),
        "init of block 'y' writes t, which the body does not write",
    ),
    "duplicate block": (Seq((_loop(_block(_store())), _loop(_block(_store()), VAR_J))), "two blocks are named 'y'"),
    "nameless block": (_loop(_block(_store(), name="")), "a block has no name"),
    "binding": (_loop(_block(_store(), iters=(Iter(VI, N, "spatial", VAR_J),))), "the binding of vi uses j"),
    "binding type": (
        _loop(_block(_store(), iters=(Iter(VI, N, "spatial", VAR_I.astype("i32")),))),
        "vi is i64, its binding cast(i32, i) is i32",
    ),
    "predicate": (_loop(_block(_store(), predicate=lt(VAR_J, 3))), "the predicate of block 'y' uses j"),
    "predicate type": (_loop(_block(_store(), predicate=VAR_I)), "of type i64, not bool"),
    "iteration kind": (_loop(_block(_store(), iters=(Iter(VI, N, "scan", VAR_I),))), "unknown kind 'scan'"),
    "iteration twice": (_loop(_block(_store(), iters=(Iter(VI, N, "spatial", VAR_I),) * 2)), "occurs twice"),
    "loop kind": (_loop(Seq(()), kind="paralel"), "loop i is of unknown kind 'paralel'"),
    "loop extent": (_loop(Seq(()), extent=VAR_J), "the extent of loop i uses j"),
    "loop extent type": (_loop(Seq(()), extent=ONE), "the extent of loop i is 1.0, of type f32"),
    "extent of its own loop": (_loop(Seq(()), extent=VAR_I), "the extent of loop i uses i"),
    "allocated shape": (Allocate(Buffer("t", (VAR_J,), "f32"), Seq(())), "a dimension of t uses j"),
    "scope": (Allocate(Buffer("t", (N,), "f32", "register"), Seq(())), "scope 'register'"),
    "if": (If(N, Seq(())), "the condition of an if is N, of type i64, not bool"),
    "operand types": (
        Store(Y, (const(0),), _make("add", ONE.dtype, (ONE, const(1)))),
        "1.0 + 1 has operands of types f32 and i64",
    ),
    "select condition": (
        Store(Y, (const(0),), _make("select", ONE.dtype, (const(1), ONE, const(2.0)))),
        "takes i64 for a condition",
    ),
    "unknown call": (Store(Y, (const(0),), _make("call", ONE.dtype, (ONE,), "expp")), "no intrinsic"),
    "arity": (Store(Y, (const(0),), _make("call", ONE.dtype, (ONE, ONE), "exp")), "with 2 argument(s); it takes 1"),
    "result of a call": (_store(_make("call", ONE.dtype, (ONE,), "isnan"), index=const(0)), "but isnan gives bool"),
    "evaluate": (Evaluate(N + 1), "which is no call"),
    "reduction": (_store(reduce("sum", load(X, (VAR_I,)), (VAR_I,)), index=const(0)), "is a reduction inside a loop nest"),
    "vector among blocks": (
        Seq((_loop(_block(_store())), _loop(Store(Y, (V,), broadcast(ONE, 8)), VAR_J))),
        "vectors are made after blocks are lowered",
    ),
    "lanes of a store": (_loop(Store(Y, (V,), ONE)), "stores 1 lane(s) of y at an index of 8 lane(s)"),
    "lanes of an operator": (
        _loop(Store(Y, (V,), _make("add", ONE.dtype.with_lanes(8), (broadcast(ONE, 8), broadcast(ONE, 4))))),
        "mixes vectors of 8 and 4 lanes",
    ),
    "one element under a mask": (
        _loop(If(lt(V, broadcast(const(4), 8)), Store(Y, (VAR_I,), ONE))),
        "one element of y is stored under a vector condition",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_unsound_programs_are_refused(what: str) -> None:
    body, message = BAD[what]
    func = PrimFunc("f", (X, Y, N), body)
    with pytest.raises(InternalError) as caught:
        verify(func)
    assert message in str(caught.value), str(caught.value)
    assert caught.value.__class__ is InternalError


@pytest.mark.parametrize(
    ("params", "outputs", "message"),
    [
        ((X, X, N), 1, "a parameter occurs twice"),
        ((X, Y, N), 3, "num_outputs is 3, but there are 2 buffers"),
        ((X, Y), 1, "a dimension of x uses N"),
        ((X, Y, N, const(3)), 1, "neither a buffer nor an integer variable"),
        ((X, Y, N, var("f", "f32")), 1, "neither a buffer nor an integer variable"),
        ((X, Buffer("y", (N,), "f32x4"), N), 1, "vector elements"),
    ],
)
def test_unsound_parameters_are_refused(params: tuple[Buffer | Expr, ...], outputs: int, message: str) -> None:
    problems = find_problems(PrimFunc("f", params, Seq(()), outputs))
    assert any(message in text for _, text in problems), problems


def test_all_problems_are_listed_and_marked() -> None:
    func = PrimFunc("f", (X, Y, N), Seq((_loop(_store(index=VAR_J)), Store(X, (const(0),), const(1)))))
    with pytest.raises(InternalError) as caught:
        verify(func)
    text = str(caught.value)
    assert text.count("  - ") == 3
    assert text.count("#^") == 2


def test_copies_of_a_statement_may_share_variables() -> None:
    tile = Allocate(Buffer("t", (const(1),), "f32", "local"), _loop(_store(index=VAR_I), VAR_J, extent=const(2)))
    verify(PrimFunc("f", (X, Y, N), _loop(If(eq(VAR_I, 0), tile, tile))))
