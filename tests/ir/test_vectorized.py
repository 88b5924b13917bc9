"""Whole-array evaluation against the interpreter."""

from __future__ import annotations

import time

import numpy as np
import pytest

from tensorlang.errors import InternalError
from tensorlang.ir import vectorized
from tensorlang.ir.interp import ExecutionError, bind_arguments, run
from tensorlang.ir.parser import parse_func
from tensorlang.ir.vectorized import evaluate_block_nest
from tests.ir.programs import CONV, DENSE, DENSE_SPLIT, GATHER, LOWERED, MIXED, SOFTMAX

RNG = np.random.default_rng(1)


def both(text: str, *shapes: tuple[int, ...]) -> None:
    """Runs `text` both ways on random arrays and compares all outputs."""
    func = parse_func(text)
    arrays = []
    for b, shape in zip(func.buffers, shapes, strict=True):
        values = RNG.standard_normal(shape) * (1 if b.dtype.is_float else 3)
        arrays.append(np.asarray(values).astype(b.dtype.numpy).reshape(shape))
    copies = [a.copy() for a in arrays]
    run(func, arrays)
    _, sizes = bind_arguments(func, copies)
    evaluate_block_nest(func, dict(zip(func.buffers, copies, strict=True)), sizes)
    for a, b in zip(arrays, copies, strict=True):
        np.testing.assert_allclose(a.astype(np.float64), b.astype(np.float64), rtol=1e-5, atol=1e-5)


def test_matmul() -> None:
    both(DENSE, (5, 7), (6, 7), (5, 6))


@pytest.mark.parametrize("n", [1, 4, 6])
def test_guarded_tail(n: int) -> None:
    both(DENSE_SPLIT, (5, 7), (n, 7), (5, n))


def test_convolution() -> None:
    both(CONV, (2, 3, 7, 8), (4, 3, 3, 3), (2, 4, 4, 4))


def test_loops_around_several_nests() -> None:
    both(SOFTMAX, (4, 9), (4, 9))


def test_gather() -> None:
    both(GATHER, (40, 3), (4,), (4, 3))


def test_mixed_types() -> None:
    n = (50,)
    both(MIXED, n, n, n, n, n, n, n, n, n, ())


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_chunks(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectorized, "CHUNK", chunk)
    both(DENSE, (5, 7), (6, 7), (5, 6))
    both(DENSE_SPLIT, (5, 7), (6, 7), (5, 6))


PACK = """\
def pack(w: f32[{n}, {k}], p: f32[{t}, {k}, 64]) -> p:
    for o in parallel({t}):
        for k in range({k}):
            for i in vectorized(64):
                with block("p", vo=spatial({t}, o), vk=spatial({k}, k), vi=spatial(64, i)):
                    p[vo, vk, vi] = {value}"""


@pytest.mark.parametrize("n", [128, 100])
def test_packing_and_its_time(n: int) -> None:
    value = "select(vo * 64 + vi < {n}, w[vo * 64 + vi, vk], 0.0)" if n % 64 else "w[vo * 64 + vi, vk]"
    for k, rows in ((3, n), (768, n * 30 if n % 64 == 0 else 3000)):
        tiles = -(-rows // 64)
        func = parse_func(PACK.format(n=rows, k=k, t=tiles, value=value.format(n=rows)))
        w, p = RNG.standard_normal((rows, k)).astype(np.float32), np.empty((tiles, k, 64), np.float32)
        start = time.process_time()
        evaluate_block_nest(func, dict(zip(func.buffers, (w, p), strict=True)))
        spent = time.process_time() - start
        padded = np.zeros((tiles * 64, k), np.float32)
        padded[:rows] = w
        np.testing.assert_array_equal(p, padded.reshape(tiles, 64, k).transpose(0, 2, 1))
    assert spent < 1.0  # about 0.07 s when the machine is idle; index grids of full size take several times that


CASES = {
    "overlapping tiles": """\
def f(x: f32[10], y: f32[10]) -> y:
    for o in range(3):
        for i in range(4):
            with block("y", vi=spatial(10, min(o * 4, 6) + i)):
                y[vi] = x[vi] * 2.0""",
    "fused loops": """\
def f(x: f32[3, 4], y: f32[4, 3]) -> y:
    for f in range(12):
        with block("y", vi=spatial(4, f % 4), vj=spatial(3, f // 4)):
            y[vi, vj] = x[vj, vi]""",
    "loop without effect": """\
def f(x: f32[4], y: f32[4]) -> y:
    for r in range(3):
        for i in range(4):
            with block("y", vi=spatial(4, i)):
                y[vi] = x[vi] + 1.0""",
    "reversed and strided": """\
def f(x: f32[10], y: f32[4]) -> y:
    for i in range(4):
        with block("y", vi=spatial(4, i)):
            y[3 - vi] = x[9 - vi * 3]""",
    "sum of what does not vary": """\
def f(x: f32[4], y: f32[4]) -> y:
    for i in range(4):
        for k in range(5):
            with block("y", vi=spatial(4, i), vk=reduce(5, k)):
                with init():
                    y[vi] = 0.0
                y[vi] = y[vi] + x[vi]""",
    "guarded reduction": """\
def f(x: f32[7], y: f32[1]) -> y:
    for o in range(2):
        for i in range(4):
            with block("y", vi=spatial(1, 0), vk=reduce(7, o * 4 + i), where=o * 4 + i < 7):
                with init():
                    y[vi] = float("inf")
                y[vi] = min(x[vk], y[vi])""",
    "triangle": """\
def f(x: f32[5], y: f32[5]) -> y:
    for i in range(5):
        for k in range(i + 1):
            with block("y", vi=spatial(5, i), vk=reduce(5, k)):
                with init():
                    y[vi] = 0.0
                y[vi] = y[vi] + x[vk]""",
    "in place": """\
def f(x: f32[5], y: f32[5]) -> y:
    for i in range(5):
        with block("a", vi=spatial(5, i)):
            y[vi] = x[vi]
    for j in range(5):
        with block("b", vi=spatial(5, j)):
            y[vi] = y[vi] * 2.0 + y[vi]""",
    "guard of sizes": """\
def f(x: f32[5], y: f32[5]) -> y:
    for i in range(5):
        with block("a", vi=spatial(5, i)):
            y[vi] = x[vi]
    for o in range(2):
        for j in range(5):
            with block("b", vi=spatial(5, j), where=o < 0):
                y[vi] = 0.0""",
}


@pytest.mark.parametrize("name", CASES)
def test_case(name: str) -> None:
    text = CASES[name]
    shapes = [tuple(d.value for d in b.shape) for b in parse_func(text).buffers]
    both(text, *shapes)


def test_out_of_bounds() -> None:
    func = parse_func("""\
def f(x: f32[4], y: f32[4]) -> y:
    for i in range(4):
        with block("y", vi=spatial(4, i)):
            y[vi] = select(vi < 4, x[vi + 1], 0.0)""")
    with pytest.raises(ExecutionError, match=r"read of x, dimension 0: index vi \+ 1 reaches 4, but the size is 4"):
        evaluate_block_nest(func, {b: np.zeros(4, np.float32) for b in func.buffers})


SCAN = """\
def f(x: f32[5], y: f32[5]) -> y:
    for i in range(5):
        with block("y", vi=spatial(5, i)):
            y[vi] = select(0 < vi, y[vi - 1], 0.0) + x[vi]"""


@pytest.mark.parametrize(("text", "message"), [(SCAN, "reads what it writes"), (LOWERED, "a Store outside of blocks")])
def test_what_it_cannot_do(text: str, message: str) -> None:
    func = parse_func(text)
    with pytest.raises(InternalError, match=message):
        evaluate_block_nest(func, {b: np.zeros(5, np.float32) for b in func.buffers}, dict.fromkeys(func.size_vars, 5))
