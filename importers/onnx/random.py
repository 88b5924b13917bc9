"""Random numbers, by counters: element i is a hash of i and the seed, so every run of a build draws the same ones.

ONNX fixes distributions, not streams. A node without a seed gets one from its name, so that nodes differ.
"""

from __future__ import annotations

import hashlib
import struct

import numpy as np

from tensorlang.graph import DType, Expr, Value, as_ints, canonical

from .node import FOLD_LIMIT, OnnxNode, element_type
from .registry import onnx_op


def _seed(node: OnnxNode) -> int:
    given = node.attr("seed", None)
    content = node.label.encode() if given is None else struct.pack("<d", float(given))
    return int.from_bytes(hashlib.blake2b(content, digest_size=7).digest(), "little")


def _uniform(node: OnnxNode, shape: tuple[Expr, ...], stream: int = 0) -> Value:
    """f32 numbers in [0, 1)."""
    return node.add("random_uniform", shape=shape, seed=_seed(node) + stream)


def _between(node: OnnxNode, shape: tuple[Expr, ...], kind: DType) -> Value:
    low, high = node.attr("low", 0.0), node.attr("high", 1.0)
    y = _uniform(node, shape)
    y = node.add("add", node.add("mul", y, node.constant(high - low, y)), node.constant(low, y))
    return y if y.dtype == kind else node.add("cast", y, dtype=kind)


def _normal(node: OnnxNode, shape: tuple[Expr, ...], kind: DType) -> Value:
    """Box and Muller's transform of two uniform numbers."""
    mean, scale = node.attr("mean", 0.0), node.attr("scale", 1.0)
    first, second = _uniform(node, shape), _uniform(node, shape, 1)
    inside = node.add("sub", node.constant(1, first), first)  # (0, 1]: its logarithm is finite
    radius = node.add("sqrt", node.add("mul", node.add("log", inside), node.constant(-2, first)))
    y = node.add("mul", radius, node.add("cos", node.add("mul", second, node.constant(6.283185307179586, first))))
    y = node.add("add", node.add("mul", y, node.constant(scale, y)), node.constant(mean, y))
    return y if y.dtype == kind else node.add("cast", y, dtype=kind)


def _given_shape(node: OnnxNode) -> tuple[tuple[Expr, ...], DType]:
    return tuple(canonical(n) for n in node.attr("shape")), element_type(node.attr("dtype", 1))


def _like(node: OnnxNode) -> tuple[tuple[Expr, ...], DType]:
    x = node.input(0)
    return x.shape, node.dtype_attr("dtype", str(x.dtype))


@onnx_op("RandomUniform")
def random_uniform(node: OnnxNode) -> Value:
    return _between(node, *_given_shape(node))


@onnx_op("RandomUniformLike")
def random_uniform_like(node: OnnxNode) -> Value:
    return _between(node, *_like(node))


@onnx_op("RandomNormal")
def random_normal(node: OnnxNode) -> Value:
    return _normal(node, *_given_shape(node))


@onnx_op("RandomNormalLike")
def random_normal_like(node: OnnxNode) -> Value:
    return _normal(node, *_like(node))


@onnx_op("Bernoulli")
def bernoulli(node: OnnxNode) -> Value:
    """1 with the probability that x gives."""
    x = node.input(0)
    shape, kind = _like(node)
    below = node.add("less", node.add("cast", _uniform(node, shape), dtype=x.dtype), x)
    return below if kind.is_bool else node.add("cast", below, dtype=kind)


def dropped(node: OnnxNode, x: Value, ratio: float) -> tuple[Value, Value]:
    """x with elements zeroed with the probability `ratio` and the others scaled up, and the mask of those kept.

    With a seed and a known size the mask is NumPy's: what ONNX's reference draws, now and once for all runs.
    """
    sizes, seed = as_ints(x.shape), node.attr("seed", None)
    if seed is not None and sizes is not None and 0 <= seed < 1 << 32 and np.prod(sizes) <= FOLD_LIMIT:
        mask = node.constant(np.random.RandomState(seed).uniform(0, 1, sizes) >= ratio)
    else:
        draw = _uniform(node, x.shape)
        mask = node.add("greater_equal", draw, node.constant(ratio, draw))
    scaled = node.add("mul", x, node.constant(1 / (1 - ratio) if ratio < 1 else 0, x))
    return node.add("where", mask, scaled, node.constant(0, x)), mask
