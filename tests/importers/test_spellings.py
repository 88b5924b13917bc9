"""Corners of operators where onnxruntime's reading of the standard, or its rounding, decides."""

from __future__ import annotations

import numpy as np
import pytest

import tensorlang as tl
from tests.importers.models import model, node

ort = pytest.importorskip("onnxruntime")


def agree(proto, feeds, **options):
    settings = ort.SessionOptions()
    settings.log_severity_level = 3
    session = ort.InferenceSession(proto.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    found = tl.compile(proto, **options).run(feeds)
    for output, theirs in zip(session.get_outputs(), session.run(None, feeds), strict=True):
        np.testing.assert_allclose(found[output.name], theirs, rtol=1e-5, atol=1e-6, err_msg=output.name)


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_lstm_clip_leaves_the_cell_alone(direction):
    """The clip holds what the gates' activations are given; the cell outgrows it, and its tanh is of all of it."""
    random = np.random.default_rng(0)
    d, hidden = 2 if direction == "bidirectional" else 1, 5
    shapes = {"w": (d, 4 * hidden, 6), "r": (d, 4 * hidden, hidden), "b": (d, 8 * hidden), "p": (d, 3 * hidden)}
    weights = {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    lstm = node(
        "LSTM", ["x", "w", "r", "b", "", "", "", "p"], ["y", "yh", "yc"],
        hidden_size=hidden, direction=direction, clip=0.5,
    )  # fmt: skip
    proto = model([lstm], [("x", np.float32, ["t", "n", 6])], ["y", "yh", "yc"], weights, opset=14)
    x = random.standard_normal((9, 2, 6)).astype(np.float32)
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    assert np.abs(session.run(["yc"], {"x": x})[0]).max() > 0.5
    agree(proto, {"x": x})


@pytest.mark.parametrize("rounding", ["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"])
@pytest.mark.parametrize("width", [14, "w"])
def test_tf_half_pixel_for_nn(rounding, width):
    """8.5 / 1.7 is 5 in f32 by division, 4.9999997 by the reciprocal: sizes may be open."""
    resize = node(
        "Resize", ["x", "", "scales"], ["y"],
        mode="nearest", coordinate_transformation_mode="tf_half_pixel_for_nn", nearest_mode=rounding,
    )  # fmt: skip
    scales = {"scales": np.array([1, 1, 0.6, 1.7], np.float32)}
    proto = model([resize], [("x", np.float32, [1, 1, 5, width])], ["y"], scales, opset=13)
    agree(proto, {"x": np.arange(70, dtype=np.float32).reshape(1, 1, 5, 14)})


@pytest.mark.parametrize("samples", [64, 200])
def test_frames_of_a_signal_of_open_length(samples):
    """As many frames as the signal at hand holds; the window is known, or an input."""
    nodes = [
        node("STFT", ["x", "step", "hann"], ["y"], onesided=1),
        node("STFT", ["x", "step", "w"], ["z"], onesided=0),
    ]  # fmt: skip
    weights = {"step": np.array(16), "hann": np.hanning(64).astype(np.float32)}
    proto = model(nodes, [("x", np.float32, ["n", "t", 1]), ("w", np.float32, [64])], ["y", "z"], weights)
    random = np.random.default_rng(0)
    x, w = random.standard_normal((2, samples, 1)).astype(np.float32), random.random(64).astype(np.float32)
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    theirs = session.run(None, {"x": x, "w": w})
    found = tl.compile(proto)(x, w)
    for ours, expected in zip(found, theirs, strict=True):
        np.testing.assert_allclose(ours, expected, atol=2e-5 * np.abs(expected).max())
