"""Simultaneous stores and calls of packed functions: text, checks, meaning, and what analyses see of them."""

import numpy as np
import pytest

from tensorlang.errors import BuildError, InternalError, ScheduleError
from tensorlang.ir import packed
from tensorlang.ir.equality import structural_hash
from tensorlang.ir.interp import run
from tensorlang.ir.parser import ParseError, parse_func
from tensorlang.ir.stmt import CallPacked, MultiStore, Seq, Store
from tensorlang.ir.tree import find_block, read_buffers, written_buffer, written_buffers
from tensorlang.ir.vectorized import evaluate_block_nest
from tensorlang.ir.verify import find_problems, verify
from tensorlang.ir.visitor import replace_buffers, rewrite_stmt, walk_stmt
from tensorlang.lower import lower
from tensorlang.symbolic.access import accesses

SWAP = """\
def swap(x: f32[N], y: f32[N], a: f32[N], b: f32[N], N: i64) -> (a, b):
    for i in range(N):
        with block("copy", vi=spatial(N, i)):
            a[vi], b[vi] = x[vi], y[vi]
    for j in range(N):
        with block("swap", vj=spatial(N, j)):
            a[vj], b[vj] = b[vj], a[vj]"""

PACKED = """\
def f(x: f32[N, 4], y: f32[N, 4], z: f32[N], N: i64) -> (y, z):
    with block("y"):
        call_packed("scaled", x, y, 2.0, N + 1, outputs=[y])
    for i in range(N):
        with block("z", vi=spatial(N, i)):
            z[vi] = y[vi, 1]"""


@pytest.mark.parametrize("text", [SWAP, PACKED])
def test_round_trip(text):
    func = parse_func(text)
    verify(func)
    assert str(func) == text and structural_hash(parse_func(str(func))) == structural_hash(func)


def test_hash_tells_simultaneous_from_sequential():
    sequential = SWAP.replace("a[vj], b[vj] = b[vj], a[vj]", "a[vj] = b[vj]\n            b[vj] = a[vj]")
    other_order = SWAP.replace("a[vj], b[vj] = b[vj], a[vj]", "b[vj], a[vj] = a[vj], b[vj]")
    hashes = {structural_hash(parse_func(t)) for t in (SWAP, sequential, other_order)}
    assert len(hashes) == 3


def test_values_come_before_stores():
    func = parse_func(SWAP)
    x, y = np.arange(5, dtype=np.float32), np.arange(5, 10, dtype=np.float32)
    for f in (func, *(stage.func for stage in lower(func))):
        verify(f)
        a, b = np.empty_like(x), np.empty_like(x)
        run(f, [x, y, a, b, 5])
        assert np.array_equal(a, y) and np.array_equal(b, x)


LANES = """\
            with block("swap", vj=spatial(N, j * 4 + l), where=j * 4 + l < N):
                a"""


def test_swap_under_a_mask():
    """The last vector is ragged: lanes beyond N are neither read nor written."""
    text = SWAP.replace("for j in range(N):", "for j in range((N + 3) // 4):\n        for l in vectorized(4):")
    text = text.replace('        with block("swap", vj=spatial(N, j)):\n            a', LANES)
    func = parse_func(text)
    x, y = np.arange(6, dtype=np.float32), np.arange(6, 12, dtype=np.float32)
    kernel_ir = lower(func)[-1].func
    assert "ramp" in str(kernel_ir)
    a, b = np.empty_like(x), np.empty_like(x)
    run(kernel_ir, [x, y, a, b, 6])
    assert np.array_equal(a, y) and np.array_equal(b, x)


def test_accesses_of_all_stores_are_seen():
    func = parse_func(SWAP)
    block = find_block(func.body, "swap")
    seen = {(a.buffer.name, a.write) for a in accesses([block])}
    assert {("a", True), ("b", True)} <= seen
    assert [b.name for b in written_buffers(block)] == ["a", "b"]
    with pytest.raises(ScheduleError, match="stage swap computes a, b"):
        written_buffer(block)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("a[vj], b[vj] = b[vj], a[vj]", "a[vj], a[vj] = b[vj], b[vj]", "write different elements"),
        ("a[vj], b[vj] = b[vj], a[vj]", "a[vj], x[vj] = b[vj], a[vj]", "stores to the input x"),
        ("a[vj], b[vj] = b[vj], a[vj]", "a[vj], b[vj] = b[vj], 1", "stores i64 to b"),
    ],
)
def test_unsound_stores(old, new, problem):
    func = parse_func(SWAP.replace(old, new))
    assert problem in str(find_problems(func))


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("outputs=[y]", "outputs=[z]", "z is an output of scaled, but no argument"),
        ("outputs=[y]", "outputs=[x, y]", "scaled writes the input x"),
        ("N + 1, outputs", "x[9, 0], y[0, 0], outputs", None),
    ],
)
def test_unsound_calls(old, new, problem):
    func = parse_func(PACKED.replace(old, new))
    found = str(find_problems(func))
    assert found == "[]" if problem is None else problem in found


NONSENSE = ["a[vj], b[vj] = b[vj]", "a[vj], q = b[vj], a[vj]", 'call_packed("f", a)', "call_packed(a, outputs=[a])"]


@pytest.mark.parametrize("line", NONSENSE)
def test_no_such_statement(line):
    with pytest.raises(ParseError):
        parse_func(SWAP.replace("a[vj], b[vj] = b[vj], a[vj]", line))


def scaled(x, y, factor, offset):
    assert not x.flags.writeable
    y[...] = x * factor + offset


def test_packed_function_sees_its_arrays():
    packed.register("scaled", scaled)
    func = parse_func(PACKED)
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    for f in (func, *(stage.func for stage in lower(func))):
        verify(f)
        y, z = np.empty_like(x), np.empty(3, np.float32)
        run(f, [x, y, z, 3])
        assert np.array_equal(y, x * 2 + 4) and np.array_equal(z, y[:, 1])
    flat = lower(func)[-1].func
    assert structural_hash(parse_func(str(flat))) == structural_hash(flat)


def test_packed_function_that_is_missing():
    func = parse_func(PACKED.replace("scaled", "no such function"))
    with pytest.raises(BuildError, match="no packed function"):
        run(func, [np.empty((1, 4), np.float32), np.empty((1, 4), np.float32), np.empty(1, np.float32)])


def test_packed_calls_are_rewritten_and_seen():
    func = parse_func(PACKED)
    x, y = func.buffers[0], func.buffers[1]
    other = y.with_(name="other")
    block = replace_buffers(find_block(func.body, "y"), {y: other})
    (call,) = [s for s in walk_stmt(block) if isinstance(s, CallPacked)]
    assert call.args[:2] == (x, other) and call.outputs == (other,)
    assert set(read_buffers(block)) == {x, other} and set(written_buffers(block)) == {other}
    assert {(a.buffer, a.write, a.exact) for a in accesses([block])} == {(x, False, False), (other, True, False)}


def test_arrays_at_once_refuse_what_they_cannot_do():
    func = parse_func(SWAP)
    buffers = {b: np.ones(3, np.float32) for b in func.buffers}
    with pytest.raises(InternalError, match="not a single store"):
        evaluate_block_nest(func, buffers, {func.size_vars[0]: 3})


def test_stores_are_rewritten_to_stores_only():
    block = find_block(parse_func(SWAP).body, "swap")
    assert isinstance(block.body, MultiStore)
    with pytest.raises(InternalError, match="only be rewritten to stores"):
        rewrite_stmt(block.body, lambda s: Seq(()) if isinstance(s, Store) else None)
