"""If, Loop and Scan, and results whose sizes a run tells: reference, machine code and plain Python against onnxruntime."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import numpy as np
import onnx.parser
import onnxruntime
import pytest

import tensorlang as tl
from tensorlang.build.plain import PlainRunner
from tensorlang.codegen.target import find_target
from tensorlang.config import Settings
from tensorlang.errors import InputError, UnsupportedOpError
from tensorlang.graph import Graph, evaluate
from tensorlang.graph.compiler import compile_graph
from tensorlang.runtime.executable import Executable, NativeRunner

HEAD = '<ir_version: 8, opset_import: ["" : 18]>\n'


def parsed(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(text if text.startswith("<") else HEAD + text)


def f32(*values: Any) -> np.ndarray:
    return np.array(values, np.float32)


TRUE, FALSE = np.array(True), np.array(False)

CASES: dict[str, tuple[str, list[dict[str, np.ndarray]]]] = {
    "if": (
        """test (float[N] x, bool c) => (float[N] y) {
             y = If (c) <then_branch = t () => (float[N] a) { a = Add(x, x) },
                         else_branch = e () => (float[N] b) { b = Neg(x) }>
           }""",
        [{"x": f32(1, 2, 3), "c": TRUE}, {"x": f32(1, 2), "c": FALSE}],
    ),
    "branches of different size": (
        """test (float[N] x, bool c) => (float[M] y) {
             y = If (c) <then_branch = t () => (float[A] a) { a = Concat <axis = 0> (x, x) },
                         else_branch = e () => (float[B] b) { b = Neg(x) }>
           }""",
        [{"x": f32(1, 2, 3), "c": TRUE}, {"x": f32(1, 2, 3), "c": FALSE}],
    ),
    "a branch returns what it captured": (
        """test (float[N] x, bool c) => (float[N] y, float[N] z) {
             y, z = If (c) <then_branch = t () => (float[N] a, float[N] a2) { a = Identity(x) a2 = Identity(x) },
                            else_branch = e () => (float[N] b, float[N] b2) { b = Neg(x) b2 = Identity(b) }>
           }""",
        [{"x": f32(1, 2, 3), "c": TRUE}, {"x": f32(1, 2, 3), "c": FALSE}],
    ),
    "ranks differ, and what follows is built for each": (
        """test (float[1, N] x, bool c) => (float[K] y) {
             one = Constant <value = int64[1] {0}> ()
             flat = Constant <value = int64[1] {-1}> ()
             s = If (c) <then_branch = t () => (float[N] a) { a = Squeeze(x, one) },
                         else_branch = e () => (float[1, N] b) { b = Neg(x) }>
             r = Relu(s)
             y = Reshape(r, flat)
           }""",
        [{"x": f32([1, -2, 3]), "c": TRUE}, {"x": f32([1, -2, 3]), "c": FALSE}],
    ),
    "loop that carries a sum and stacks it": (
        """test (int64 n, float[K] x) => (float[K] s, float[T, K] ys) {
             t = Constant <value = bool {1}> ()
             s, ys = Loop (n, t, x) <body = b (int64 i, bool go, float[K] a) => (bool go2, float[K] c, float[K] d) {
               go2 = Identity(go)
               f = Cast <to = 1> (i)
               c = Add(a, f)
               d = Mul(c, x)
             }>
           }""",
        [{"n": np.array(k), "x": f32(1, 2)} for k in (5, 1, 0, 40)],
    ),
    "loop that swaps": (
        """test (int64 n, float[2] x, float[2] y) => (float[2] p, float[2] q) {
             t = Constant <value = bool {1}> ()
             p, q = Loop (n, t, x, y) <body = b (int64 i, bool go, float[2] a, float[2] b)
                 => (bool go2, float[2] c, float[2] d) {
               go2 = Identity(go)
               c = Identity(b)
               d = Identity(a)
             }>
           }""",
        [{"n": np.array(k), "x": f32(1, 2), "y": f32(3, 4)} for k in (0, 1, 2, 7)],
    ),
    "early exit": (
        """test (float[2] x, float limit) => (float[2] s, int64[T] seen) {
             t = Constant <value = bool {1}> ()
             n = Constant <value = int64 {1000}> ()
             s, seen = Loop (n, t, x) <body = b (int64 i, bool go, float[2] a) => (bool go2, float[2] c, int64 i2) {
               c = Add(a, a)
               m = ReduceMax <keepdims = 0> (c)
               go2 = Less(m, limit)
               i2 = Identity(i)
             }>
           }""",
        [{"x": f32(1, 2), "limit": np.array(v, np.float32)} for v in (1, 100, 3e5)],
    ),
    "no first trip": (
        """test (float[2] x, bool start) => (float[2] s, float[T, 2] ys) {
             n = Constant <value = int64 {100}> ()
             s, ys = Loop (n, start, x) <body = b (int64 i, bool go, float[2] a) => (bool go2, float[2] c, float[2] d) {
               c = Add(a, a)
               d = Identity(a)
               m = ReduceMax <keepdims = 0> (c)
               l = Constant <value = float {50.0}> ()
               go2 = Less(m, l)
             }>
           }""",
        [{"x": f32(1, 2), "start": FALSE}, {"x": f32(1, 2), "start": TRUE}],
    ),
    "state that grows": (
        """test (int64 n, float[1] x) => (float[M] s) {
             t = Constant <value = bool {1}> ()
             s = Loop (n, t, x) <body = b (int64 i, bool go, float[A] a) => (bool go2, float[B] c) {
               go2 = Identity(go)
               f = Cast <to = 1> (i)
               g = Add(x, f)
               c = Concat <axis = 0> (a, g)
             }>
           }""",
        [{"n": np.array(k), "x": f32(3)} for k in (0, 1, 9)],
    ),
    "Fibonacci words: two states whose sizes depend on each other": (
        """test (int64 n, float[1] x, float[2] y) => (float[P] p, float[Q] q) {
             t = Constant <value = bool {1}> ()
             p, q = Loop (n, t, x, y) <body = b (int64 i, bool go, float[A] a, float[B] b)
                 => (bool go2, float[C] c, float[D] d) {
               go2 = Identity(go)
               c = Identity(b)
               d = Concat <axis = 0> (b, a)
             }>
           }""",
        [{"n": np.array(k), "x": f32(1), "y": f32(2, 3)} for k in (0, 1, 6)],
    ),
    "if in a loop, capturing from both": (
        """test (int64 n, float[K] x, float[K] w) => (float[K] s) {
             t = Constant <value = bool {1}> ()
             two = Constant <value = int64 {2}> ()
             zero = Constant <value = int64 {0}> ()
             s = Loop (n, t, x) <body = b (int64 i, bool go, float[K] a) => (bool go2, float[K] c) {
               go2 = Identity(go)
               m = Mod(i, two)
               even = Equal(m, zero)
               c = If (even) <then_branch = t2 () => (float[K] u) { u = Add(a, w) },
                              else_branch = e2 () => (float[K] v) { v = Mul(a, x) }>
             }>
           }""",
        [{"n": np.array(k), "x": f32(1, 2), "w": f32(.5, 3)} for k in (0, 1, 4)],
    ),
    "loop in a loop": (
        """test (int64 n, int64 m, float[K] x) => (float[K] s, float[T, K] ys) {
             t = Constant <value = bool {1}> ()
             s, ys = Loop (n, t, x) <body = b (int64 i, bool go, float[K] a) => (bool go2, float[K] c, float[K] d) {
               go2 = Identity(go)
               c = Loop (m, t, a) <body = b2 (int64 j, bool g, float[K] p) => (bool g2, float[K] q) {
                 g2 = Identity(g)
                 ij = Add(i, j)
                 f = Cast <to = 1> (ij)
                 q = Add(p, f)
               }>
               d = Sub(c, a)
             }>
           }""",
        [{"n": np.array(a), "m": np.array(b), "x": f32(1, 2)} for a, b in ((3, 2), (0, 5), (5, 0))],
    ),
    "trips of data-dependent size, carried": (
        """test (int64 n, float[K] x) => (float[M] s) {
             t = Constant <value = bool {1}> ()
             zero = Constant <value = float {0.0}> ()
             one = Constant <value = float {1.0}> ()
             s = Loop (n, t, x) <body = b (int64 i, bool go, float[A] a) => (bool go2, float[B] c) {
               go2 = Identity(go)
               keep = Greater(a, zero)
               less = Compress <axis = 0> (a, keep)
               c = Sub(less, one)
             }>
           }""",
        [{"n": np.array(k), "x": f32(1, 5, 2, 3, 0)} for k in (0, 1, 3, 10)],
    ),
    "nonzero, twice": (
        """test (float[A, B] x, float[C] y) => (int64[2, N] p, int64[1, M] q) { p = NonZero(x) q = NonZero(y) }""",
        [{"x": f32([1, 0], [0, 2]), "y": f32(0, 0, 0)}, {"x": f32([0, 0]), "y": f32(0, 4)}, {"x": f32([1]), "y": f32(1, 2)}],
    ),
    "work on what was found": (
        """test (float[N] x) => (float[M] y, float total) {
             zero = Constant <value = float {0.0}> ()
             keep = Greater(x, zero)
             y0 = Compress <axis = 0> (x, keep)
             y = Exp(y0)
             total = ReduceSum <keepdims = 0> (y)
           }""",
        [{"x": f32(1, -1, 2)}, {"x": f32(-1, -2)}],
    ),
    "range of a computed length": (
        """test (float[N] x) => (int64[M] y, float[M] z) {
             zero = Constant <value = int64 {0}> ()
             one = Constant <value = int64 {1}> ()
             m = ReduceMax <keepdims = 0> (x)
             n = Cast <to = 7> (m)
             y = Range(zero, n, one)
             z = Cast <to = 1> (y)
           }""",
        [{"x": f32(3, 5)}, {"x": f32(0, -2)}],
    ),
    "scan": (
        """test (float[T, K] xs, float[K] s0) => (float[K] s, float[T, K] ys) {
             s, ys = Scan <num_scan_inputs = 1, body = b (float[K] s_in, float[K] x) => (float[K] s_out, float[K] y) {
               s_out = Add(s_in, x)
               y = Mul(s_out, s0)
             }> (s0, xs)
           }""",
        [{"xs": np.arange(8, dtype=np.float32).reshape(4, 2), "s0": f32(1, 2)}, {"xs": f32([3, 4]), "s0": f32(1, 2)}],
    ),
    "a loop's output is computed only from a captured input": (
        """test (int64 n, float[K] x) => (float[K] s, float[T, K] ys) {
             t = Constant <value = bool {1}> ()
             s, ys = Loop (n, t, x) <body = b (int64 i, bool go, float[K] a) => (bool go2, float[K] c, float[K] d) {
               go2 = Identity(go)
               c = Identity(a)
               d = Identity(x)
             }>
           }""",
        [{"n": np.array(k), "x": f32(1, 2)} for k in (0, 3)],
    ),
    "a loop gives a constant each trip": (
        """test (int64 n) => (float[2] s, float[T, 2] ys) {
             t = Constant <value = bool {1}> ()
             x = Constant <value = float[2] {1.0, 2.0}> ()
             s, ys = Loop (n, t, x) <body = b (int64 i, bool go, float[2] a) => (bool go2, float[2] c, float[2] d) {
               go2 = Identity(go)
               c = Constant <value = float[2] {7.0, 8.0}> ()
               d = Constant <value = float[2] {5.0, 6.0}> ()
             }>
           }""",
        [{"n": np.array(k)} for k in (0, 3)],
    ),
    "states without readers may change rank": (
        """test (int64 n, float x, float[2] y) => (float[2] s) {
             t = Constant <value = bool {1}> ()
             unread, s = Loop (n, t, x, y) <body = b (int64 i, bool go, float u, float[2] a)
                 => (bool go2, float[2] v, float[2] c) {
               go2 = Identity(go)
               v = Neg(a)
               c = Add(a, a)
             }>
           }""",
        [{"n": np.array(k), "x": np.array(1, np.float32), "y": f32(1, 2)} for k in (0, 3)],
    ),
    "scan of batches": (
        """<ir_version: 3, opset_import: ["" : 8]> test (float[B, T, K] xs, float[B, K] s0)
                 => (float[B, K] s, float[B, T, K] ys) {
             s, ys = Scan <num_scan_inputs = 1, body = b (float[K] s_in, float[K] x) => (float[K] s_out, float[K] y) {
               s_out = Add(s_in, x)
               y = Mul(s_out, x)
             }> (, s0, xs)
           }""",
        [{"xs": np.arange(12, dtype=np.float32).reshape(2, 3, 2), "s0": f32([1, 2], [3, 4])}],
    ),
    "sequences of known structure": (
        """test (float[6] x, float[3] y) => (float[M] all, int64 n, float[3] at, float[2, 3] both) {
             three = Constant <value = int64 {3}> ()
             last = Constant <value = int64 {-1}> ()
             s = SplitToSequence <axis = 0> (x, three)
             two = Constant <value = int64 {0}> ()
             s1 = SequenceInsert(s, y, two)
             s2 = SequenceErase(s1, last)
             all = ConcatFromSequence <axis = 0> (s1)
             n = SequenceLength(s1)
             at = SequenceAt(s1, last)
             both = ConcatFromSequence <axis = 0, new_axis = 1> (s2)
           }""",
        [{"x": f32(1, 2, 3, 4, 5, 6), "y": f32(7, 8, 9)}],
    ),
    "a loop over a sequence": (
        """test (float[2] x, float[3] y) => (float[M] all) {
             s = SequenceConstruct(x, y)
             e = SequenceEmpty()
             n = SequenceLength(s)
             t = Constant <value = bool {1}> ()
             r = Loop (n, t, e) <body = b (int64 i, bool go, seq(float[K]) a) => (bool go2, seq(float[K]) c) {
               go2 = Identity(go)
               v = SequenceAt(s, i)
               w = Mul(v, v)
               c = SequenceInsert(a, w)
             }>
             all = ConcatFromSequence <axis = 0> (r)
           }""",
        [{"x": f32(1, 2), "y": f32(7, 8, 9)}],
    ),
    "a sequence that a loop grows": (
        """test (int64 n, float[2] x) => (float[M] all, float[T, 2] rows, float[2, T] columns, int64 count, float[2] s) {
             e = SequenceEmpty()
             t = Constant <value = bool {1}> ()
             r, s = Loop (n, t, e, x) <body = b (int64 i, bool go, seq(float[2]) a, float[2] z)
                 => (bool go2, seq(float[2]) c, float[2] w) {
               go2 = Identity(go)
               w = Add(z, x)
               c = SequenceInsert(a, w)
             }>
             all = ConcatFromSequence <axis = 0> (r)
             rows = ConcatFromSequence <axis = 0, new_axis = 1> (r)
             columns = ConcatFromSequence <axis = 1, new_axis = 1> (r)
             count = SequenceLength(r)
           }""",
        [{"n": np.array(k), "x": f32(1, 2)} for k in (1, 4)],
    ),
    "optionals": (
        """test (float[2] x, bool c) => (float[2] y, bool has) {
             o = Optional(x)
             has = OptionalHasElement(o)
             y = OptionalGetElement(o)
             d = Identity(c)
           }""",
        [{"x": f32(1, 2), "c": TRUE}],
    ),
    "branches that give sequences": (
        """test (float[2] x, bool c) => (float[4] y) {
             s = If (c) <then_branch = t () => (seq(float[2]) a) { a = SequenceConstruct(x, x) },
                         else_branch = e () => (seq(float[2]) b) { n = Neg(x) b = SequenceConstruct(n, x) }>
             y = ConcatFromSequence <axis = 0> (s)
           }""",
        [{"x": f32(1, 2), "c": TRUE}, {"x": f32(1, 2), "c": FALSE}],
    ),
}  # fmt: skip


def executables(graph: Graph) -> dict[str, Executable]:
    artifact = compile_graph(graph, find_target("cpu"), replace(Settings.from_env(), jit=True))
    return {"machine code": Executable(artifact, NativeRunner(artifact)), "plain": Executable(artifact, PlainRunner(artifact))}


@pytest.mark.parametrize("name", CASES)
def test_all_agree_with_onnxruntime(name: str) -> None:
    text, all_feeds = CASES[name]
    model = parsed(text)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    graph = tl.from_onnx(model)
    runs = executables(graph)
    for feeds in all_feeds:
        wanted = dict(zip(names, session.run(names, feeds), strict=True))
        for way, found in {"reference": evaluate(graph, feeds), **{k: e.run(feeds) for k, e in runs.items()}}.items():
            for n, w in wanted.items():
                if w.size:  # of empty stacks onnxruntime does not tell the open dimensions: it gives 0
                    assert found[n].shape == w.shape, (way, n)
                assert found[n].ndim == w.ndim and found[n].size == w.size, (way, n)
                assert found[n].dtype == w.dtype, (way, n)
                np.testing.assert_allclose(found[n].reshape(w.shape), w, rtol=1e-5, err_msg=f"{way} {n}")


def test_a_branch_that_shapes_do_not_fit_is_refused_when_taken() -> None:
    model = parsed(
        """test (float[2, 3] x, float[4, 2] w, bool c) => (float[A, B] y) {
             y = If (c) <then_branch = t () => (float[A, B] a) { a = MatMul(x, w) },
                         else_branch = e () => (float[A, B] b) { b = MatMul(w, x) }>
           }"""
    )
    graph = tl.from_onnx(model)
    feeds = {"x": np.ones((2, 3), np.float32), "w": np.ones((4, 2), np.float32)}
    for run in (lambda f: evaluate(graph, f), *(e.run for e in executables(graph).values())):
        np.testing.assert_array_equal(run({**feeds, "c": FALSE})["y"], np.full((4, 3), 2))
        with pytest.raises(InputError, match="MatMul"):
            run({**feeds, "c": TRUE})


def test_both_branches_wrong_is_an_error_at_once() -> None:
    branch = "() => (float[A, B] {0}) {{ {0} = MatMul(x, x) }}"
    text = f"then_branch = t {branch.format('a')}, else_branch = e {branch.format('b')}"
    with pytest.raises(tl.errors.ModelError, match="MatMul"):
        tl.from_onnx(parsed(f"test (float[2, 3] x, bool c) => (float[A, B] y) {{ y = If (c) <{text}> }}"))


def test_sizes_that_must_be_equal_in_the_branch_not_taken_do_not_matter() -> None:
    model = parsed(
        """test (float[N] x, float[M] w, bool c) => (float[K] y) {
             y = If (c) <then_branch = t () => (float[A] a) { a = Add(x, w) },
                         else_branch = e () => (float[B] b) { b = Neg(x) }>
           }"""
    )
    graph = tl.from_onnx(model)
    feeds = {"x": f32(1, 2, 3), "w": f32(1, 2)}
    for exe in executables(graph).values():
        np.testing.assert_array_equal(exe.run({**feeds, "c": FALSE})["y"], -feeds["x"])
        with pytest.raises(InputError):
            exe.run({**feeds, "c": TRUE})


def test_outputs_whose_rank_the_run_decides_are_unsupported() -> None:
    model = parsed(
        """test (float[3, 1] x, bool c) => (float[K] y) {
             y = If (c) <then_branch = t () => (float[A] a) { a = Squeeze(x) },
                         else_branch = e () => (float[A, B] b) { b = Neg(x) }>
           }"""
    )
    with pytest.raises(UnsupportedOpError, match="different rank"):
        tl.from_onnx(model)


GROWING = CASES["state that grows"][0]


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


@pytest.mark.parametrize("name", ["state that grows", "early exit", "branches of different size", "nonzero, twice"])
def test_memory_is_given_back(name: str) -> None:
    text, all_feeds = CASES[name]
    exe = tl.compile(tl.from_onnx(parsed(text)))
    for feeds in all_feeds * 50:
        exe.run(feeds)
    before = _resident()
    for _ in range(10_000 // len(all_feeds)):
        for feeds in all_feeds:
            exe.run(feeds)
    assert _resident() - before < 2 << 20  # one leaked block of 64 bytes a call would be 0.6 MB, of a page 40 MB


def test_memory_is_given_back_where_a_check_fails() -> None:
    """A run of 1 MB blocks that is refused halfway, 300 times."""
    text = """test (float[N] x, float[M] w) => (float[K] y) {
             zero = Constant <value = float {0.0}> ()
             keep = Greater(x, zero)
             some = Compress <axis = 0> (x, keep)
             more = Exp(some)
             y = Add(more, w)
           }"""
    exe = tl.compile(tl.from_onnx(parsed(text)))
    x, w = np.ones(1 << 18, np.float32), np.ones(3, np.float32)
    before = 0
    for n in range(320):
        if n == 20:
            before = _resident()
        with pytest.raises(InputError):
            exe.run({"x": x, "w": w})
    assert _resident() - before < 40 << 20
    x = np.zeros(1 << 10, np.float32)
    x[:3] = 1
    np.testing.assert_allclose(exe.run({"x": x, "w": w})["y"], np.exp(w) + 1, rtol=1e-6)


def test_saved_and_loaded(tmp_path) -> None:
    exe = tl.compile(tl.from_onnx(parsed(GROWING)))
    exe.save(tmp_path / "model.tl")
    loaded = tl.load(tmp_path / "model.tl")
    np.testing.assert_array_equal(loaded.run({"n": np.array(3), "x": f32(2)})["s"], f32(2, 2, 3, 4))


def test_threads_call_at_once() -> None:
    exe = tl.compile(tl.from_onnx(parsed(GROWING)))
    wrong: list[int] = []

    def work(seed: int) -> None:
        for k in range(200):
            n = (seed + k) % 13
            found = exe.run({"n": np.array(n), "x": f32(seed)})["s"]
            if not np.array_equal(found, f32(seed, *(seed + i for i in range(n)))):
                wrong.append(n)

    threads = [threading.Thread(target=work, args=(s,)) for s in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong
