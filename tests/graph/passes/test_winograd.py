"""Winograd's convolutions: the rewrite, its matrices, its error, and the kernels that it becomes."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import tensorlang as tl
from tensorlang.graph import GraphBuilder, TensorType, evaluate, get
from tensorlang.graph.ir import Graph, constant
from tensorlang.graph.ops.winograd import POINTS, filters, matrices
from tensorlang.graph.passes import Context, Options, optimize
from tensorlang.graph.passes.winograd import best_tile, winograd

RNG = np.random.default_rng(0)


def model(height=14, width=14, channels=64, out=64, pads=(1, 1, 1, 1), bias=True, batch=1, **attrs) -> Graph:
    b = GraphBuilder()
    x = b.input("x", TensorType.of("f32", (batch, height, width, channels)))
    weight = RNG.standard_normal((3, 3, channels, out)).astype(np.float32) / np.float32(np.sqrt(9 * channels))
    inputs = [x, constant(weight, "w")]
    if bias:
        inputs.append(constant(RNG.standard_normal(out).astype(np.float32), "b"))
    conv = {"strides": (1, 1), "dilations": (1, 1), "group": 1, "pads": pads, "layout": "NHWC", **attrs}
    y = b.add("relu", [b.add("conv", inputs, conv)])
    return Graph([x], b.nodes, [y], output_names=["y"])


def ops(graph: Graph) -> list[str]:
    return [n.op for n in graph.nodes]


@pytest.mark.parametrize("m", POINTS)
def test_the_matrices_compute_a_correlation_exactly(m):
    output, weights, data = ([[*row] for row in matrix] for matrix in matrices(m))
    d, g = [3, -5, 7, 2, 11, -13][: m + 2], [2, -3, 5]
    transformed = [sum(c * v for c, v in zip(row, d, strict=True)) for row in data]
    scaled = [sum(c * v for c, v in zip(row, g, strict=True)) for row in weights]
    products = [a * b for a, b in zip(transformed, scaled, strict=True)]
    result = [sum(c * p for c, p in zip(row, products, strict=True)) for row in output]
    assert result == [sum(d[i + k] * g[k] for k in range(3)) for i in range(m)]


@pytest.mark.parametrize("m", POINTS)
@pytest.mark.parametrize(
    "case",
    [
        {"height": 8, "width": 8, "channels": 16, "out": 16},
        {"height": 7, "width": 10, "channels": 20, "out": 33, "batch": 2},
        {"height": 9, "width": 6, "channels": 16, "out": 48, "pads": (0, 2, 1, 0), "bias": False},
        {"height": 5, "width": 5, "channels": 3, "out": 5},
    ],
)
def test_the_compiled_rewrite_equals_the_convolution(monkeypatch, m, case):
    monkeypatch.setattr(sys.modules[best_tile.__module__], "best_tile", lambda _: m)
    graph = model(**case)
    rewritten = winograd(graph)
    assert "conv" not in ops(rewritten) and "winograd_output" in ops(rewritten)
    x = RNG.standard_normal(graph.inputs[0].type.static_shape).astype(np.float32)
    expected = evaluate(graph, {"x": x})["y"]
    scale = np.abs(expected).max()
    np.testing.assert_allclose(evaluate(rewritten, {"x": x})["y"], expected, rtol=0, atol=4e-6 * scale)
    np.testing.assert_allclose(tl.compile(graph)(x), expected, rtol=0, atol=4e-6 * scale)


@pytest.mark.parametrize("m", POINTS)
@pytest.mark.parametrize("channels", [16, 256])
def test_the_error_stays_below_its_bound(m, channels):
    """|error| <= (channels + 4 (m + 2)) u |A^T| [(|G| |g| |G^T|) * (|B^T| |d| |B|)] |A|: every rounding of a sum of products
    counted once (Higham 2002, section 3.1), u = 2^-24; and the
    mean error is not above three times (m = 2) and eight times (m = 4) that of direct sums."""
    size, out, rng = 3 * m, 8, np.random.default_rng(m)
    x = rng.standard_normal((1, size + 2, size + 2, channels)).astype(np.float32)
    w = (rng.standard_normal((3, 3, channels, out)) / np.sqrt(9 * channels)).astype(np.float32)
    attrs = {"strides": (1, 1), "dilations": (1, 1), "pads": (0, 0, 0, 0), "layout": "NHWC"}
    exact = get("conv").numpy(x.astype(np.float64), w.astype(np.float64), **attrs)
    direct = get("conv").numpy(x, w, **attrs)
    made = get("winograd_output").numpy(
        np.einsum("pqnijc,pqco->pqnijo", get("winograd_input").numpy(x, m=m, pads=(0,) * 4),
                  filters(w, m).reshape(m + 2, m + 2, channels, out)), m=m, height=size, width=size,
    )  # fmt: skip
    a, g, b = (np.abs(np.array(matrix, np.float64)) for matrix in matrices(m))
    windows = np.lib.stride_tricks.sliding_window_view(np.abs(x), (m + 2, m + 2), (1, 2))[:, ::m, ::m]
    data = np.einsum("pr,qs,nijcrs->pqnijc", b, b, windows)
    weights = np.einsum("pr,qs,rsco->pqco", g, g, np.abs(w))
    bound = np.einsum("ip,jq,pqnabo->naibjo", a, a, np.einsum("pqnijc,pqco->pqnijo", data, weights)).reshape(exact.shape)
    error = np.abs(made - exact)
    assert (error <= (channels + 4 * (m + 2)) * 2.0**-24 * bound).all()
    assert error.mean() <= {2: 3, 4: 8}[m] * np.abs(direct - exact).mean()


def test_what_is_rewritten_and_what_not():
    assert "winograd_input" in ops(winograd(model()))
    assert "conv" in ops(winograd(model(), Context(Options(winograd=False))))
    for other in ({"strides": (2, 2)}, {"dilations": (2, 2)}):
        assert "conv" in ops(winograd(model(**other)))
    assert "conv" in ops(winograd(model(height=7, width=7, channels=4, out=4)))  # too little to gain


def test_the_estimate_prefers_small_tiles_where_filters_are_large():
    conv = {size: model(height=size, width=size, channels=c, out=c).nodes[0] for size, c in ((56, 64), (14, 256))}
    assert best_tile(conv[56]) == 4
    assert best_tile(conv[14]) == 2


def test_the_transforms_run_in_registers():
    """No choice is left in the emitted loops: the short axes are unrolled, the rest are vectors."""
    kernels = tl.compile(model()).kernels
    transforms = [text for name, text in kernels.items() if name.startswith("winograd")]
    assert len(transforms) == 2
    for text in transforms:
        assert "in unrolled(" in text and "local_array(" in text and "parallel_for(" in text


def test_the_report_says_why():
    context = Context()
    optimize(model(), context=context)
    assert any("Winograd" in str(note) for note in context.notes)


def test_the_flag_forbids_it():
    assert any(name.startswith("winograd") for name in tl.compile(model()).kernels)
    assert not any(name.startswith("winograd") for name in tl.compile(model(), winograd=False).kernels)
