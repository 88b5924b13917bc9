"""Attention is one kernel: the schedule of two products with softmax between, against NumPy in double precision."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

import tensorlang as tl

HEADS = 3


def attention(
    tokens: int | str, others: int | str, width: int, *, scale: bool, mask: bool, also: bool = False
) -> tl.Executable:
    """softmax(q kT [/ 8] [+ mask]) v; with `also`, the probabilities are an output too."""
    shapes = {"q": [HEADS, tokens, width], "k": [HEADS, others, width], "v": [HEADS, others, width], "mask": [tokens, others]}
    nodes = [helper.make_node("Transpose", ["k"], ["kt"], perm=[0, 2, 1]), helper.make_node("MatMul", ["q", "kt"], ["s"])]
    last = "s"
    if scale:
        nodes.append(helper.make_node("Div", [last, "eight"], ["scaled"]))
        last = "scaled"
    if mask:
        nodes.append(helper.make_node("Add", [last, "mask"], ["masked"]))
        last = "masked"
    nodes += [helper.make_node("Softmax", [last], ["p"], axis=-1), helper.make_node("MatMul", ["p", "v"], ["o"])]
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items() if mask or n != "mask"]
    outputs = [helper.make_tensor_value_info("o", TensorProto.FLOAT, None)]
    outputs += [helper.make_tensor_value_info("p", TensorProto.FLOAT, None)] if also else []
    eight = helper.make_tensor("eight", TensorProto.FLOAT, [], [8.0])
    graph = helper.make_graph(nodes, "attention", inputs, outputs, [eight])
    return tl.compile(tl.from_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)))


def reference(feeds: dict[str, np.ndarray], scale: bool) -> np.ndarray:
    q, k, v = (feeds[n].astype(np.float64) for n in "qkv")
    s = q @ k.transpose(0, 2, 1) / (8.0 if scale else 1.0) + feeds.get("mask", 0.0)
    p = np.exp(s - s.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True) @ v


def feeds_of(tokens: int, others: int, width: int, mask: bool) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(tokens * 1000 + others)
    shapes = {"q": (HEADS, tokens, width), "k": (HEADS, others, width), "v": (HEADS, others, width)}
    feeds = {n: rng.standard_normal(s, np.float32) for n, s in shapes.items()}
    if mask:
        feeds["mask"] = np.where(np.tri(tokens, others, dtype=bool), 0.0, -1e9).astype(np.float32)
    return feeds


@pytest.mark.parametrize(
    ("tokens", "others", "width", "mask", "scale"),
    [(1, 64, 16, False, True), (5, 33, 7, True, False), (37, 128, 64, True, True), (64, 197, 32, False, False)],
)
def test_one_kernel_computes_it(tokens: int, others: int, width: int, mask: bool, scale: bool) -> None:
    exe = attention(tokens, others, width, scale=scale, mask=mask)
    assert len(exe.steps) == 1, exe.steps
    feeds = feeds_of(tokens, others, width, mask)
    np.testing.assert_allclose(exe.run(feeds)["o"], reference(feeds, scale), rtol=2e-5, atol=2e-5)


def test_any_number_of_tokens() -> None:
    exe = attention("m", "n", 32, scale=True, mask=True)
    assert len(exe.steps) == 1
    for tokens, others in ((1, 1), (7, 7), (22, 64), (90, 131)):
        feeds = feeds_of(tokens, others, 32, mask=True)
        np.testing.assert_allclose(exe.run(feeds)["o"], reference(feeds, True), rtol=2e-5, atol=2e-5)


def test_probabilities_that_are_wanted_are_made_in_memory() -> None:
    exe = attention(16, 64, 16, scale=True, mask=False, also=True)
    feeds = feeds_of(16, 64, 16, mask=False)
    found = exe.run(feeds)
    np.testing.assert_allclose(found["o"], reference(feeds, True), rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(found["p"].sum(-1), 1.0, rtol=1e-5)


def test_the_scores_are_never_whole_in_memory() -> None:
    exe = attention(512, 512, 64, scale=True, mask=False)
    arena = exe.memory_map["arena"]
    assert isinstance(arena, int) and arena < HEADS * 512 * 512 * 4 / 2
