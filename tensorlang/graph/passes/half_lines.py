"""Convolutions of images of few channels, for instructions that take neighbours of the reduction at a time.

    conv(x [N, H, W, 3], w [7, 7, 3, F])  ->  conv(x [N, H, W*3, 1], w [7, 24, 1, F], strides along a line 3 times as long)

Channels lie side by side, and so do the pixels of a line: what a window reads of a line is one run of numbers.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np

from tensorlang.graph.ir import Node, Value
from tensorlang.graph.passes.shape_ops import reshape
from tensorlang.graph.registry import as_ints
from tensorlang.graph.rewrite import Rewriter, array_of
from tensorlang.ir.dtype import f32

STEP = 2  # numbers that one instruction multiplies and adds
FEW_CHANNELS = 7
LEAST_COLUMNS = 8  # fewer columns leave most of a vector unused


def has_few_channels(node: Node) -> bool:
    """A convolution of channels-last images of so few channels that they would leave most of an instruction unused."""
    shape, image = as_ints(node.inputs[1].shape), as_ints(node.inputs[0].shape)
    if shape is None or image is None or len(shape) != 4 or len(image) != 4 or 0 in (*shape, *image):
        return False
    plain = node.attrs.get("layout", "NCHW") == "NHWC" and node.attrs.get("group", 1) == 1
    known = node.inputs[1].is_constant and all(isinstance(p, int) for p in node.attrs["pads"])
    if not plain or not known or any(v.dtype != f32 for v in node.inputs[:2]):
        return False
    return 1 < shape[2] <= FEW_CHANNELS and shape[3] >= LEAST_COLUMNS and set(node.attrs["dilations"]) == {1}


def by_lines(rw: Rewriter, node: Node, image: Value) -> Value:
    """The convolution `node` of `image`, its first operand as bf16 numbers [N, H, W, C], by lines [N, H, W*C, 1]. The runs that
    windows read are made longer by zeros where that gives whole groups of numbers."""
    weight = array_of(node.inputs[1])
    _, height, width, channels = as_ints(node.inputs[0].shape) or ()
    rows, columns, _, filters = weight.shape
    _, out_rows, out_columns, _ = as_ints(node.output.shape) or ()
    top, left, *_ = node.attrs["pads"]
    down, along = node.attrs["strides"]
    wide = next(n for n in range(columns, 2 * columns + STEP) if n * channels % STEP == 0)
    bottom = max((out_rows - 1) * down + rows - height - top, 0)
    right = max((out_columns - 1) * along + wide - width - left, 0)
    pads = (0, top, left, 0, 0, bottom, right, 0)
    padded = rw.add("pad", [image], {"pads": pads}, node)
    lines = reshape(rw, padded, [padded.shape[0], padded.shape[1], (width + left + right) * channels, 1], node)
    run = np.zeros((rows, wide, channels, filters), np.float32)
    run[:, :columns] = weight
    folded = run.reshape(rows, wide * channels, 1, filters).astype(ml_dtypes.bfloat16)
    attrs = {**node.attrs, "strides": (down, along * channels), "pads": (0,) * 4, "out": "f32"}
    return rw.add("conv", [lines, rw.constant(folded, node.inputs[1].name), *node.inputs[2:]], attrs, node)
