"""Windows wider than the image: as onnxruntime has them where sizes are known, refused where they turn out so at run time."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

import tensorlang as tl
from tensorlang.errors import InputError, TensorlangError
from tests.importers.models import model, node

WIDE = [(1, 2, 2), (1, 3, 2), (2, 3, 3), (2, 5, 2), (1, 4, 2), (2, 3, 1)]


def _pool(op: str, size: int, kernel: int, stride: int, open_size: bool, **attrs: int) -> tuple[bytes, np.ndarray]:
    x = np.arange(2 * size * size, dtype=np.float32).reshape(1, 2, size, size) - 3
    shape = [1, 2, "h", "w"] if open_size else list(x.shape)
    pool = node(op, ["x"], ["y"], kernel_shape=[kernel, kernel], strides=[stride, stride], **attrs)
    return model([pool], [("x", np.float32, shape)], ["y"]).SerializeToString(), x


@pytest.mark.parametrize("size, kernel, stride", WIDE)
@pytest.mark.parametrize(
    "op, attrs",
    [
        ("MaxPool", {}),
        ("MaxPool", {"ceil_mode": 1}),
        ("AveragePool", {}),
        ("AveragePool", {"count_include_pad": 1}),
        ("LpPool", {}),
    ],
)  # fmt: skip
def test_windows_wider_than_the_image_are_counted_as_onnxruntime_counts_them(
    op: str, attrs: dict[str, int], size: int, kernel: int, stride: int
) -> None:
    content, x = _pool(op, size, kernel, stride, False, **attrs)
    theirs = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    ours = tl.compile(tl.from_onnx(content))(x)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
def test_an_open_image_that_no_window_fits_is_refused_and_a_larger_one_runs(op: str) -> None:
    content, small = _pool(op, 1, 2, 2, True)
    exe = tl.compile(tl.from_onnx(content))
    with pytest.raises(InputError, match="does not work for h = 1"):
        exe(small)
    large = _pool(op, 5, 2, 2, True)[1]
    theirs = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]).run(None, {"x": large})[0]
    np.testing.assert_allclose(exe(large), theirs, rtol=1e-6)


@pytest.mark.parametrize("open_size", [False, True])
def test_a_convolution_wider_than_its_image_is_refused(open_size: bool) -> None:
    x, w = np.ones((1, 2, 2, 2), np.float32), np.ones((3, 2, 3, 3), np.float32)
    shape = [1, 2, "h", "w"] if open_size else [1, 2, 2, 2]
    content = model([node("Conv", ["x", "k"], ["y"], strides=[3, 3])], [("x", np.float32, shape)], ["y"], {"k": w})
    with pytest.raises(TensorlangError):
        tl.compile(tl.from_onnx(content))(x)


def test_padding_before_a_mean_that_sticks_out_stays_padding() -> None:
    nodes = [node("Pad", ["x", "p"], ["h"]), node("AveragePool", ["h"], ["y"], kernel_shape=[4, 4], strides=[2, 2])]
    pads = np.array([0, 0, 1, 1, 0, 0, 1, 1])
    content = model(nodes, [("x", np.float32, [1, 1, 1, 1])], ["y"], {"p": pads}).SerializeToString()
    x = np.full((1, 1, 1, 1), 9, np.float32)
    np.testing.assert_allclose(tl.compile(tl.from_onnx(content))(x), [[[[1.0]]]])  # onnxruntime's fusion of the two says 9/16
