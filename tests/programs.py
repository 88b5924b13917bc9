"""Small te programs that several test folders share, each with its NumPy meaning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tensorlang import te
from tensorlang.ir.stmt import PrimFunc


def dense(m: Any, n: Any, k: Any) -> PrimFunc:
    """out[i, j] = max(sum_k x[i, k] * w[k, j] + b[j], 0)"""
    x, w, b = te.placeholder((m, k), name="x"), te.placeholder((k, n), name="w"), te.placeholder((n,), name="b")
    r = te.reduce_axis(k, name="k")
    y = te.compute((m, n), lambda i, j: te.sum(x[i, r] * w[r, j], axis=r), name="y")
    out = te.compute((m, n), lambda i, j: te.maximum(y[i, j] + b[j], 0.0), name="out")
    return te.create_prim_func("dense", [x, w, b], [out])


def dense_reference(x: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.maximum(x @ w + b, 0)


def chain(n: Any) -> PrimFunc:
    """out[i] = exp(x[i]) * 2 + x[i]"""
    x = te.placeholder((n,), name="x")
    e = te.compute((n,), lambda i: te.exp(x[i]), name="e")
    out = te.compute((n,), lambda i: e[i] * 2.0 + x[i], name="out")
    return te.create_prim_func("chain", [x], [out])


def softmax(rows: Any, columns: Any) -> PrimFunc:
    x = te.placeholder((rows, columns), name="x")
    r = te.reduce_axis(columns, name="r")
    top = te.compute((rows,), lambda i: te.max(x[i, r], axis=r), name="top")
    e = te.compute((rows, columns), lambda i, j: te.exp(x[i, j] - top[i]), name="e")
    q = te.reduce_axis(columns, name="q")
    total = te.compute((rows,), lambda i: te.sum(e[i, q], axis=q), name="total")
    out = te.compute((rows, columns), lambda i, j: e[i, j] / total[i], name="out")
    return te.create_prim_func("softmax", [x], [out])


def softmax_reference(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def conv_nhwc(
    size: int, channels: int, filters: int, kernel: int = 3, stride: int = 1, *, depthwise: bool = False
) -> PrimFunc:
    """Padded NHWC convolution with bias and relu."""
    pad = kernel // 2
    out_size = (size + 2 * pad - kernel) // stride + 1
    x = te.placeholder((1, size, size, channels), name="x")
    w = te.placeholder((kernel, kernel, filters) if depthwise else (kernel, kernel, channels, filters), name="w")
    b = te.placeholder((filters,), name="b")
    padded = te.compute(
        (1, size + 2 * pad, size + 2 * pad, channels),
        lambda n, h, v, c: te.if_then_else(
            te.all_of(h >= pad, h < size + pad, v >= pad, v < size + pad), x[n, h - pad, v - pad, c], 0.0
        ),
        name="pad",
    )
    kh, kw, ic = te.reduce_axis(kernel, "kh"), te.reduce_axis(kernel, "kw"), te.reduce_axis(channels, "ic")
    shape = (1, out_size, out_size, filters)
    if depthwise:
        conv = te.compute(
            shape,
            lambda n, h, v, c: te.sum(padded[n, h * stride + kh, v * stride + kw, c] * w[kh, kw, c], axis=[kh, kw]),
            name="conv",
        )
    else:
        conv = te.compute(
            shape,
            lambda n, h, v, c: te.sum(
                padded[n, h * stride + kh, v * stride + kw, ic] * w[kh, kw, ic, c], axis=[kh, kw, ic]
            ),
            name="conv",
        )
    out = te.compute(shape, lambda n, h, v, c: te.maximum(conv[n, h, v, c] + b[c], 0.0), name="out")
    return te.create_prim_func("conv", [x, w, b], [out], constants=("w", "b"))


def conv_reference(
    x: np.ndarray, w: np.ndarray, b: np.ndarray, stride: int = 1, *, depthwise: bool = False
) -> np.ndarray:
    kernel = w.shape[0]
    pad = kernel // 2
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), (1, 2))[:, ::stride, ::stride]
    spec = "nhwcij,ijc->nhwc" if depthwise else "nhwcij,ijco->nhwo"
    return np.maximum(np.einsum(spec, windows, w, optimize=True) + b, 0).astype(np.float32)


Reference = Callable[..., np.ndarray]


def arrays_of(func: PrimFunc, seed: int = 0, **sizes: int) -> list[np.ndarray]:
    """Seeded inputs of `func`; symbolic dimensions by name."""
    rng = np.random.default_rng(seed)
    shapes = [
        tuple(d.value if d.op == "const" else sizes[d.name] for d in b.shape) for b in func.inputs
    ]
    return [rng.standard_normal(s).astype(b.dtype.numpy) for s, b in zip(shapes, func.inputs, strict=True)]
