"""Products of bf16 numbers: which are made, what they cost in accuracy, and the instruction that they become."""

from __future__ import annotations

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest

import tensorlang as tl
from tensorlang.codegen.native import CpuTarget
from tensorlang.graph import GraphBuilder, TensorType, compiler, evaluate
from tensorlang.graph.ir import Graph, constant
from tensorlang.graph.passes import Options, optimize

RNG = np.random.default_rng(0)
TARGET = "x86-64-v4+avx512bf16"


def rounded(a: np.ndarray) -> np.ndarray:
    return a.astype(ml_dtypes.bfloat16).astype(np.float32)


def matmul(m: int, k: int, n: int) -> tuple[Graph, dict[str, np.ndarray], np.ndarray]:
    weight = RNG.standard_normal((k, n)).astype(np.float32)
    g = GraphBuilder()
    x = g.input("x", TensorType.of("f32", (m, k)))
    y = g.add("relu", [g.add("matmul", [x, constant(weight, "w")])])
    feeds = {"x": RNG.standard_normal((m, k)).astype(np.float32)}
    return Graph([x], g.nodes, [y], output_names=["y"]), feeds, np.maximum(rounded(feeds["x"]) @ rounded(weight), 0)


def convolution(channels: int, group: int = 1) -> tuple[Graph, dict[str, np.ndarray]]:
    weight = RNG.standard_normal((16, channels // group, 3, 3)).astype(np.float32)
    g = GraphBuilder()
    x = g.input("x", TensorType.of("f32", (1, channels, 9, 7)))
    attrs = {"strides": (1, 1), "pads": (1, 1, 1, 1), "dilations": (1, 1), "group": group}
    y = g.add("conv", [x, constant(weight, "w"), constant(np.ones(16, np.float32), "b")], attrs)
    return Graph([x], g.nodes, [y], output_names=["y"]), {"x": RNG.standard_normal((1, channels, 9, 7)).astype(np.float32)}


def products(graph: Graph) -> list[str]:
    return [n.inputs[1].dtype.name for n in graph.nodes if n.op in ("matmul", "conv")]


@pytest.fixture
def everywhere(monkeypatch):
    """As if this machine had the instruction: what it would compute is made of loops."""
    of = compiler.options_for
    monkeypatch.setattr(compiler, "options_for", lambda cpu, s: replace(of(cpu, s), halves=s.precision == "bf16"))


@pytest.mark.parametrize(("m", "k", "n"), [(1, 2, 8), (37, 64, 100), (5, 130, 33)])
def test_operands_are_rounded_once_and_sums_are_f32(everywhere, m, k, n):
    graph, feeds, expected = matmul(m, k, n)
    after = optimize(graph, Options(halves=True))
    assert products(after) == ["bf16"] and after.outputs[0].dtype.name == "f32"
    np.testing.assert_allclose(evaluate(after, feeds)["y"], expected, rtol=1e-5, atol=1e-4)
    exe = tl.compile(graph, precision="bf16")
    np.testing.assert_allclose(exe.run(feeds)["y"], expected, rtol=1e-5, atol=1e-4)
    assert exe.precision == "bf16" and exe.run(feeds)["y"].dtype == np.float32


def test_convolutions_with_a_bias(everywhere):
    graph, feeds = convolution(6)
    assert products(optimize(graph, Options(halves=True, winograd=False))) == ["bf16"]
    expected = evaluate(graph, feeds)["y"]
    got = tl.compile(graph, precision="bf16").run(feeds)["y"]
    error = np.abs(got - expected).max() / np.abs(expected).max()
    assert 1e-5 < error < 1e-2  # of bf16, and no worse


@pytest.mark.parametrize("graph", [matmul(4, 7, 20)[0], matmul(4, 8, 4)[0], convolution(16, 16)[0]], ids=str)
def test_what_does_not_fit_the_instruction_stays_f32(graph):
    assert products(optimize(graph, Options(halves=True))) == ["f32"]


def test_the_certificate_tells_the_accuracy(everywhere):
    certificate = tl.compile(matmul(8, 64, 32)[0], precision="bf16", verify=True).certificate
    assert certificate["precision"] == "bf16" and 1e-4 < certificate["max_error"]


@pytest.mark.skipif(CpuTarget.host().has("avx512bf16"), reason="this machine has the instruction")
def test_without_the_instruction_all_is_f32():
    graph, feeds, _ = matmul(8, 64, 32)
    exe = tl.compile(graph, precision="bf16")
    assert exe.precision == "float32"
    np.testing.assert_array_equal(exe.run(feeds)["y"], tl.compile(graph).run(feeds)["y"])


def test_the_instruction_is_used_where_there_is_one(monkeypatch):
    """Its meaning is run by Python, since few machines have it."""
    monkeypatch.setenv("TENSORLANG_JIT", "0")
    graph, feeds, expected = matmul(9, 16, 40)
    exe = tl.compile(graph, target=TARGET, precision="bf16")
    assert "vdpbf16(" in exe.source and exe.precision == "bf16"
    np.testing.assert_allclose(exe.run(feeds)["y"], expected, rtol=1e-5, atol=1e-4)
