"""What operations of the inventory mean, in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorlang.interop.tvm.topi.nn import padding_of


def softmax_python(a_np: np.ndarray, axis: int = -1) -> np.ndarray:
    """`nn.softmax`."""
    e = np.exp(a_np - a_np.max(axis=axis, keepdims=True))
    return np.asarray(e / e.sum(axis=axis, keepdims=True))


def log_softmax_python(a_np: np.ndarray, axis: int = -1) -> np.ndarray:
    """`nn.log_softmax`."""
    shifted = a_np - a_np.max(axis=axis, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True)))


def conv2d_nchw_python(a_np: np.ndarray, w_np: np.ndarray, stride: Any, padding: Any, groups: int = 1) -> np.ndarray:
    """`nn.conv2d_nchw` without dilation."""
    sh, sw = (stride, stride) if isinstance(stride, int) else stride
    kh, kw = w_np.shape[2:]
    top, left, bottom, right = padding_of(padding, (kh, kw))
    padded = np.pad(a_np, ((0, 0), (0, 0), (top, bottom), (left, right)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kh, kw), (2, 3))[:, :, ::sh, ::sw]
    per, filters = a_np.shape[1] // groups, w_np.shape[0] // groups
    parts = [
        np.einsum("nchwyx,fcyx->nfhw", windows[:, g * per : (g + 1) * per], w_np[g * filters : (g + 1) * filters])
        for g in range(groups)
    ]
    return np.concatenate(parts, axis=1).astype(a_np.dtype)


def batch_matmul(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """`nn.batch_matmul`."""
    return np.asarray(x @ y.swapaxes(1, 2))
