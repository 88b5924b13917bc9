"""Products in the tiles of a matrix unit: any sizes, natively where this machine has one, by the plain twins everywhere."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import tensorlang as tl
from tensorlang.codegen.native import CpuTarget
from tensorlang.graph import GraphBuilder, TensorType
from tensorlang.graph.ir import Graph, constant

TARGET = "x86-64-v4+avx512bf16+avx512vnni+amx-tile+amx-bf16+amx-int8"
NATIVE = CpuTarget.host().has("amx-bf16")
RNG = np.random.default_rng(0)

MATMULS = [(4, 2, 16), (16, 32, 16), (37, 64, 100), (5, 130, 33), (50, 66, 8), (197, 96, 48), (33, 1030, 40), (128, 2048, 64)]
# channels, filters, kernel, stride, pad, height, width
CONVOLUTIONS = [
    (6, 16, 3, 1, 1, 9, 7), (32, 40, 3, 1, 1, 14, 14), (16, 33, 3, 2, 1, 15, 57), (3, 24, 7, 2, 3, 31, 29),
    (3, 16, 3, 2, 1, 12, 12), (64, 64, 1, 2, 0, 14, 14), (5, 8, 5, 1, 2, 6, 40), (128, 256, 3, 1, 1, 7, 7),
]  # fmt: skip


def rounded(a: np.ndarray) -> np.ndarray:
    return a.astype(ml_dtypes.bfloat16).astype(np.float32)


def compiled(graph: Graph, monkeypatch: pytest.MonkeyPatch, native: bool) -> tl.Executable:
    if native:
        return tl.compile(graph, precision="bf16")
    monkeypatch.setenv("TENSORLANG_JIT", "0")
    return tl.compile(graph, target=TARGET, precision="bf16")


def how(native: bool) -> None:
    if native and not NATIVE:
        pytest.skip("this machine has no AMX")


def matmul(m: int, k: int, n: int) -> tuple[Graph, np.ndarray, np.ndarray]:
    weight, g = RNG.standard_normal((k, n)).astype(np.float32), GraphBuilder()
    x = g.input("x", TensorType.of("f32", (m, k)))
    y = g.add("relu", [g.add("matmul", [x, constant(weight, "w")])])
    data = RNG.standard_normal((m, k)).astype(np.float32)
    return Graph([x], g.nodes, [y], output_names=["y"]), data, np.maximum(rounded(data) @ rounded(weight), 0)


def convolution(c: int, f: int, kernel: int, stride: int, pad: int, h: int, w: int) -> tuple[Graph, np.ndarray, np.ndarray]:
    weight, g = RNG.standard_normal((f, c, kernel, kernel)).astype(np.float32), GraphBuilder()
    bias = RNG.standard_normal(f).astype(np.float32)
    x = g.input("x", TensorType.of("f32", (2, c, h, w)))
    attrs = {"strides": (stride,) * 2, "pads": (pad,) * 4, "dilations": (1, 1), "group": 1}
    y = g.add("conv", [x, constant(weight, "w"), constant(bias, "b")], attrs)
    data = RNG.standard_normal((2, c, h, w)).astype(np.float32)
    image = np.pad(rounded(data), ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    windows = np.lib.stride_tricks.sliding_window_view(image, (kernel, kernel), (2, 3))[:, :, ::stride, ::stride]
    expected = np.einsum("nchwrs,fcrs->nfhw", windows, rounded(weight)) + bias[:, None, None]
    return Graph([x], g.nodes, [y], output_names=["y"]), data, expected


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("sizes", MATMULS, ids=str)
def test_products(sizes, native, monkeypatch):
    how(native)
    graph, data, expected = matmul(*sizes)
    exe = compiled(graph, monkeypatch, native)
    assert "amx_dot_bf16(0" in exe.source
    np.testing.assert_allclose(exe.run({"x": data})["y"], expected, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("sizes", CONVOLUTIONS, ids=str)
def test_convolutions(sizes, native, monkeypatch):
    how(native)
    if not native and sizes[0] > 100:
        pytest.skip("slow as plain Python")
    graph, data, expected = convolution(*sizes)
    exe = compiled(graph, monkeypatch, native)
    assert "amx_dot_bf16(0" in exe.source
    np.testing.assert_allclose(exe.run({"x": data})["y"], expected, rtol=1e-4, atol=2e-4)


def test_few_rows_are_left_to_vectors(monkeypatch):
    graph, data, expected = matmul(1, 64, 100)
    exe = compiled(graph, monkeypatch, native=False)
    assert "amx" not in exe.source
    np.testing.assert_allclose(exe.run({"x": data})["y"], expected, rtol=1e-4, atol=2e-4)


def test_the_unit_is_configured_once_by_each_thread(monkeypatch):
    graph, *_ = matmul(128, 64, 256)
    source = compiled(graph, monkeypatch, native=False).source
    chunk = source[source.index("def matmul_relu_p0") :]
    before, loop, after = (chunk.index(word) for word in ("_before(ctx", "for ", "_after(ctx"))
    assert before < loop < after and chunk.count("_before(ctx") == chunk.count("_after(ctx") == 1


@pytest.mark.parametrize(("columns", "rows_first"), [(64, True), (1024, False)])
def test_weights_that_stay_in_the_cache_meet_each_row_others_are_asked_for_ahead(columns, rows_first, monkeypatch):
    graph, *_ = matmul(128, 1024, columns)
    source = compiled(graph, monkeypatch, native=False).source
    call = next(line for line in source.splitlines() if "_body(ctx, offset" in line)
    turns = call.split(", ")[-6]  # of tiles that share a panel; R, S, P, K, G follow
    assert turns == ("0" if rows_first else "4")


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("kind", [np.uint8, np.int8])
def test_bytes_are_added_up_exactly(kind, native, monkeypatch):
    how(native)
    weight, g = RNG.integers(-128, 128, (96, 40)).astype(np.int8), GraphBuilder()
    x = g.input("x", TensorType.of(np.dtype(kind).name.replace("uint", "u").replace("int", "i"), (37, 96)))
    y = g.add("matmul", [x, constant(weight, "w")], {"out": "i32"})
    data = RNG.integers(np.iinfo(kind).min, np.iinfo(kind).max + 1, (37, 96)).astype(kind)
    exe = compiled(Graph([x], g.nodes, [y], output_names=["y"]), monkeypatch, native)
    np.testing.assert_array_equal(exe.run({"x": data})["y"], data.astype(np.int32) @ weight.astype(np.int32))
    assert "amx_dot_" in exe.source
