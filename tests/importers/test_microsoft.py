"""com.microsoft's operators on floats beside onnxruntime's: by the references of what they are made of, some natively."""

# ruff: noqa: E501  a case is a line
from __future__ import annotations

import numpy as np
import pytest

import tensorlang as tl
from tensorlang.errors import UnsupportedOpError
from tensorlang.graph import evaluate

from .node_models import agree, both, node_model

RNG = np.random.default_rng(11)
MS = "com.microsoft"
B, S, N, D, P = 2, 5, 4, 16, 3  # rows, queries, heads, their size, keys of the past
H, G = N * D, 2  # width; groups of heads that share keys


def f(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def i32(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def ones_and_zeros(*shape: int) -> np.ndarray:
    return (RNG.random(shape) > 0.3).astype(np.int32)


IDS = RNG.integers(1, 20, (2, 5)).astype(np.int32)
ANGLES = np.arange(32)[:, None] * np.arange(1, D // 2 + 1) * 0.1
TABLES = [np.cos(ANGLES).astype(np.float32), np.sin(ANGLES).astype(np.float32)]
ROTARY = {"num_heads": N, "kv_num_heads": G, "do_rotary": 1}

CASES = {
    "FusedMatMul": ([f(2, 3, 4), f(2, 5, 4)], {"transB": 1, "alpha": 0.5}),
    "FusedMatMul transA": ([f(2, 4, 3), f(2, 4, 5)], {"transA": 1}),
    "FusedMatMul transBatchA": ([f(4, 2, 3), f(2, 3, 5)], {"transBatchA": 1}),
    "FusedConv": ([f(1, 3, 8, 8), f(4, 3, 3, 3), f(4), f(1, 4, 8, 8)], {"activation": "Relu", "pads": [1, 1, 1, 1]}),
    "FusedConv clip": ([f(1, 3, 6, 6), f(4, 3, 3, 3), f(4)], {"activation": "Clip", "activation_params": [0.0, 0.5]}),
    "FusedGemm": ([f(3, 4), f(5, 4), f(5)], {"transB": 1, "alpha": 0.5, "activation": "LeakyRelu", "activation_alpha": 0.1}),
    "FusedGemm relu": ([f(3, 4), f(4, 5)], {"activation": "Relu"}),
    "Trilu": ([f(2, 4, 5)], {"upper": 0}),
    "Gelu": ([f(3, 40)], {}),
    "FastGelu": ([f(3, 40), f(40)], {}),
    "BiasGelu": ([f(3, 40), f(40)], {}),
    "QuickGelu": ([f(3, 40)], {"alpha": 1.7}),
    "SkipLayerNormalization": ([f(2, 3, 16), f(2, 3, 16), f(16), f(16), f(16)], {"epsilon": 1e-5}),
    "SkipSimplifiedLayerNormalization": ([f(2, 3, 16), f(2, 3, 16), f(16), f(16)], {"epsilon": 1e-5}),
    "RotaryEmbedding": ([f(2, 5, H), np.array([2]), *TABLES], {}),
    "RotaryEmbedding interleaved": ([f(2, 5, H), RNG.integers(0, 20, (2, 5)), *TABLES], {"interleaved": 1}),
    "RotaryEmbedding heads": ([f(2, N, 5, D), RNG.integers(0, 20, (2, 5)), *TABLES], {}),
    "Attention": ([f(B, S, 16), f(16, 3 * H), f(3 * H), i32(3, 5)], {"num_heads": N}),
    "Attention ends": ([f(B, S, 16), f(16, 3 * H), f(3 * H), i32(3, 5, 1, 0)], {"num_heads": N}),
    "Attention mask": ([f(B, S, 16), f(16, 3 * H), f(3 * H), ones_and_zeros(B, S)], {"num_heads": N}),
    "Attention bias": ([f(B, S, 16), f(16, 3 * H), f(3 * H), None, None, f(B, N, S, S)], {"num_heads": N, "scale": 0.3}),
    "MultiHeadAttention": ([f(B, S, H), f(B, 7, H), f(B, 7, H), f(3 * H), i32(3, 7)], {"num_heads": N}),
    "MultiHeadAttention bias": ([f(B, S, H), f(B, S, H), f(B, S, H), f(3 * H), ones_and_zeros(B, S), f(1, N, S, S)], {"num_heads": N}),
    "MultiHeadAttention cross": ([f(B, S, H), f(B, N, 7, D), f(B, N, 7, D), f(3 * H)], {"num_heads": N}),
}  # fmt: skip


NATIVE = {"FusedConv", "RotaryEmbedding interleaved", "MultiHeadAttention"}


@pytest.mark.parametrize("name", CASES)
def test_one_output(name):
    inputs, attrs = CASES[name]
    agree(both(name.split()[0], inputs, domain=MS, attrs=attrs, native=name in NATIVE))


def test_sum_that_was_normalised():
    inputs = [f(2, 3, 16), f(2, 3, 16), f(16), f(16), f(16)]
    agree(both("SkipLayerNormalization", inputs, ["y", "", "", "sum"], domain=MS, attrs={"epsilon": 1e-5}, native=False))


def test_embeddings():
    tables = [f(20, 16), f(9, 16), f(2, 16), f(16), f(16)]
    agree(both("EmbedLayerNormalization", [IDS, IDS % 2, *tables, ones_and_zeros(2, 5)], ["y", "count"], domain=MS, native=False))
    tables[2] = None
    agree(both("EmbedLayerNormalization", [IDS, None, *tables], ["y", "count", "sum"], domain=MS, attrs={"mask_index_type": 0},
               native=False))  # fmt: skip


def test_attention_with_a_past():
    attrs = {"num_heads": N, "unidirectional": 1}
    inputs = [f(B, S, 16), f(16, 3 * H), f(3 * H), None, f(2, B, N, P, D)]
    agree(both("Attention", inputs, ["y", "present"], domain=MS, attrs=attrs, native=False))
    inputs = [f(B, S, H), f(B, S, H), f(B, S, H), f(3 * H), None, None, f(B, N, P, D), f(B, N, P, D)]
    agree(both("MultiHeadAttention", inputs, ["y", "k", "v"], domain=MS, attrs=attrs, native=False))


GROUPED = {
    "prompt": ([f(B, S, H), f(B, S, G * D), f(B, S, G * D), None, None, i32(S - 1, S - 1), np.array(S, np.int32), *TABLES], ROTARY),
    "window": ([f(B, S, H), f(B, S, G * D), f(B, S, G * D), None, None, i32(S - 1, S - 1), np.array(S, np.int32)],
               {"num_heads": N, "kv_num_heads": G, "softcap": 2.0, "local_window_size": 2}),
    "one more": ([f(B, 1, H), f(B, 1, G * D), f(B, 1, G * D), f(B, G, P, D), f(B, G, P, D), i32(P, P), np.array(P + 1, np.int32),
                  *TABLES], ROTARY),
    "unequal": ([f(B, 1, H + 2 * G * D), None, None, f(B, G, P, D), f(B, G, P, D), i32(P, P - 1), np.array(P + 1, np.int32)],
                {"num_heads": N, "kv_num_heads": G}),
}  # fmt: skip


@pytest.mark.parametrize("name", GROUPED)
def test_grouped_queries(name):
    inputs, attrs = GROUPED[name]
    agree(both("GroupQueryAttention", inputs, ["y", "k", "v"], domain=MS, attrs=attrs, native=name == "unequal"))


def test_packed_operands_equal_separate_ones():
    """Forms that onnxruntime has on GPUs alone."""
    q, k, v = f(B, S, N, D), f(B, S, N, D), f(B, S, N, D)
    results = []
    for inputs in ([np.stack([q, k, v], 3)], [q.reshape(B, S, H), np.stack([k, v], 3)], [a.reshape(B, S, H) for a in (q, k, v)]):
        model, feeds = node_model("MultiHeadAttention", inputs, domain=MS, attrs={"num_heads": N})
        results.append(evaluate(tl.from_onnx(model), feeds)["y"])
    np.testing.assert_allclose(results[0], results[2], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(results[1], results[2], rtol=1e-5, atol=1e-6)


def test_channels_last_equal_channels_first():
    x, w, b = f(1, 8, 8, 3), f(4, 3, 3, 3), f(4)
    model, feeds = node_model("NhwcConv", [x, w, b], domain=MS, attrs={"pads": [1, 1, 1, 1]})
    plain, others = node_model("Conv", [np.ascontiguousarray(x.transpose(0, 3, 1, 2)), w, b], attrs={"pads": [1, 1, 1, 1]})
    expected = evaluate(tl.from_onnx(plain), others)["y"].transpose(0, 2, 3, 1)
    np.testing.assert_allclose(evaluate(tl.from_onnx(model), feeds)["y"], expected, rtol=1e-5, atol=1e-5)


def test_what_is_not_supported_is_named():
    model, _ = node_model("Attention", [f(B, S, 16), f(16, 3 * H), f(3 * H)], domain=MS, attrs={"num_heads": N, "do_rotary": 1})
    with pytest.raises(UnsupportedOpError, match="do_rotary=1"):
        tl.from_onnx(model)
