"""Fourier transforms, as products with their matrix (a known length), and what goes with them.

A complex number is a last dimension of two. The matrices are computed in double precision.
"""

from __future__ import annotations

import numpy as np

from tensorlang import te
from tensorlang.graph import Expr, Value, canonical

from .node import OnnxNode, element_type
from .registry import onnx_op


def forward_matrix(length: int, taken: int, parts: int, bins: int) -> np.ndarray:
    """[taken * parts, bins * 2]: rows are samples (real; imaginary), columns frequencies: exp(-2 pi i n k / length)."""
    angle = 2 * np.pi * (np.outer(np.arange(taken), np.arange(bins)) % length) / length
    cos, sin = np.cos(angle), np.sin(angle)
    real = np.stack([cos, -sin], axis=-1)  # what a real sample adds to (real, imaginary)
    imaginary = np.stack([sin, cos], axis=-1)
    return np.stack([real, imaginary][:parts], axis=1).reshape(taken * parts, bins * 2)


def inverse_matrix(length: int, taken: int, parts: int, one_sided: bool) -> np.ndarray:
    """[taken * parts, length * (1 or 2)]: from frequencies to samples; from half of them (`one_sided`) to real samples."""
    angle = 2 * np.pi * (np.outer(np.arange(taken), np.arange(length)) % length) / length
    cos, sin = np.cos(angle), np.sin(angle)
    if not one_sided:
        real, imaginary = np.stack([cos, sin], axis=-1), np.stack([-sin, cos], axis=-1)
        return np.stack([real, imaginary][:parts], axis=1).reshape(taken * parts, length * 2) / length
    k = np.arange(taken)
    alone = (k == 0) | (2 * k == length)  # every other frequency stands for its mirror image too
    factor = np.where(alone, 1.0, 2.0)[:, None] * (k <= length // 2)[:, None]
    rows = np.stack([cos * factor, np.where(alone[:, None], 0.0, -sin * factor)][:parts], axis=1)
    return rows.reshape(taken * parts, length) / length


def _known_size(node: OnnxNode, d: Expr, what: str) -> int:
    if d.op != "const":
        raise node.unsupported(f"{what} of unknown size")
    return int(d.value)


@onnx_op("DFT")
def dft_attribute(node: OnnxNode) -> Value:
    """Opset 17: the axis as an attribute."""
    return _dft(node, node.axis("axis", node.input(0).type.ndim, 1))


@onnx_op("DFT", since=20)
def dft(node: OnnxNode) -> Value:
    axis = node.known(2, "the axis") if node.optional(2) is not None else np.array(-2)
    return _dft(node, node.normal_axis(int(axis.reshape(())), node.input(0).type.ndim))


def _dft(node: OnnxNode, axis: int) -> Value:
    x = node.input(0)
    ndim, inverse, one_sided = x.type.ndim, bool(node.attr("inverse", 0)), bool(node.attr("onesided", 0))
    parts = _known_size(node, x.shape[-1], "the last dimension")
    if parts not in (1, 2) or axis == ndim - 1:
        raise node.fail(f"a signal {x.type} along axis {axis}: its last dimension is 1 (real) or 2 (complex)")
    size = _known_size(node, x.shape[axis], "a signal")
    length = 2 * (size - 1) if inverse and one_sided else size
    if node.optional(1) is not None:
        length = int(node.known(1, "the length").reshape(()))
    if length < 1:
        raise node.fail(f"a transform of length {length}")
    if inverse:
        taken = min(size, length // 2 + 1 if one_sided else length)
        matrix, bins, results = inverse_matrix(length, taken, parts, one_sided), length, 1 if one_sided else 2
    else:
        taken, bins, results = min(size, length), length // 2 + 1 if one_sided else length, 2
        matrix = forward_matrix(length, taken, parts, bins)
    order = (*(a for a in range(ndim) if a not in (axis, ndim - 1)), axis, ndim - 1)
    moved = _transposed(node, x, order)
    if taken < size:
        sizes = (*moved.shape[:-2], canonical(taken), moved.shape[-1])
        moved = node.add("slice", moved, starts=(0,) * ndim, shape=sizes, steps=(1,) * ndim)
    lead = moved.shape[:-2]
    flat = node.add("reshape", moved, shape=(*lead, taken * parts))
    y = node.add("matmul", flat, node.constant(matrix, x)) if lead else _row_times(node, flat, matrix)
    y = node.add("reshape", y, shape=(*lead, bins, results))
    back = tuple(int(p) for p in np.argsort(order))
    return _transposed(node, y, back)


def _row_times(node: OnnxNode, row: Value, matrix: np.ndarray) -> Value:
    product = node.add("matmul", node.add("reshape", row, shape=(1, matrix.shape[0])), node.constant(matrix, row))
    return node.add("reshape", product, shape=(matrix.shape[1],))


def _transposed(node: OnnxNode, x: Value, perm: tuple[int, ...]) -> Value:
    return x if perm == tuple(range(len(perm))) else node.add("transpose", x, perm=perm)


@onnx_op("STFT")
def stft(node: OnnxNode) -> Value:
    """Frames, gathered; then a product with the transform's matrix, into which a known window goes."""
    x, window = node.input(0), node.optional(2)
    step = int(node.known(1, "the step between frames").reshape(()))
    size = x.shape[1]
    parts = _known_size(node, x.shape[2], "the last dimension") if x.type.ndim == 3 else 1
    if node.optional(3) is not None:
        length = int(node.known(3, "the frames' length").reshape(()))
    elif window is not None:
        length = _known_size(node, window.shape[0], "a window")
    else:
        raise node.fail("neither a window nor the frames' length is given")
    if step < 1 or length < 1 or size.op == "const" and length > size.value:
        raise node.fail(f"frames of {length} every {step} of a signal of {size}")
    frames = canonical(te.floordiv(size - length, step) + 1)
    bins = length // 2 + 1 if node.attr("onesided", 1) else length
    matrix = forward_matrix(length, length, parts, bins)
    begins = node.add("range", start=0, step=step, size=frames, dtype="i64")
    where = node.add("add", node.add("reshape", begins, shape=(frames, 1)), node.constant(np.arange(length)))
    x = x if x.type.ndim == 3 else node.add("reshape", x, shape=(*x.shape, 1))
    pieces = node.add("gather", x, where, axis=1)  # [batch, frames, length, parts]
    known = node.known_or_none(2)
    if known is not None:
        matrix = matrix * np.repeat(known.astype(np.float64), parts)[:, None]
    elif window is not None:
        pieces = node.add("mul", pieces, node.add("reshape", window, shape=(length, 1)))
    flat = node.add("reshape", pieces, shape=(x.shape[0], frames, length * parts))
    y = node.add("matmul", flat, node.constant(matrix, x))
    return node.add("reshape", y, shape=(x.shape[0], frames, bins, 2))


@onnx_op("MelWeightMatrix")
def mel_weight_matrix(node: OnnxNode) -> Value:
    """[dft_length / 2 + 1, num_mel_bins]: triangles that are equally wide on the mel scale 2595 log10(1 + f / 700)."""
    given = [node.known(i, "a parameter").reshape(()).item() for i in range(5)]
    bins, length, rate, low, high = int(given[0]), int(given[1]), int(given[2]), float(given[3]), float(given[4])
    if bins < 0 or length < 1 or rate < 1 or bins * length > 1 << 28:
        raise node.fail(f"{bins} bins of a transform of length {length} at {rate} Hz")
    lowest, highest = (2595 * np.log10(1 + edge / 700) for edge in (low, high))
    mel = np.arange(bins + 2) * ((highest - lowest) / (bins + 2)) + lowest
    edges = ((length + 1) * 700 * (10 ** (mel / 2595) - 1) // rate).astype(np.int64)
    matrix = np.zeros((length // 2 + 1, bins))
    spectrum = np.arange(length // 2 + 1)
    for i, (left, centre, right) in enumerate(zip(edges, edges[1:], edges[2:], strict=False)):
        rising = (spectrum >= left) & (spectrum <= centre)
        matrix[rising, i] = (spectrum[rising] - left) / (centre - left) if centre > left else 1.0
        falling = (spectrum >= centre) & (spectrum < right)
        if right > centre:
            matrix[falling, i] = (right - spectrum[falling]) / (right - centre)
    return node.constant(matrix, element_type(node.attr("output_datatype", 1)))
