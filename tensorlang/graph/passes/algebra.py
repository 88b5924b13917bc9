"""Rules that keep values, up to the sign of a zero.

Division by a constant becomes a product only where the reciprocal is exact, a power of two: all else would round twice.
"""

from __future__ import annotations

import math

import numpy as np

from tensorlang.graph.ir import Node, Value
from tensorlang.graph.passes.rules import rule
from tensorlang.graph.rewrite import Rewriter, array_of, producer, same_shape, scalar


@rule("identity", "dropout")
def _identity(rw: Rewriter, node: Node) -> Value | None:
    return node.inputs[0] if len(node.outputs) == 1 else None


_NEUTRAL = {"add": 0, "sub": 0, "mul": 1, "div": 1, "pow": 1}


@rule("add", "sub", "mul", "div", "pow")
def _neutral_operand(rw: Rewriter, node: Node) -> Value | None:
    """x + 0, x - 0, x * 1, x / 1, x ** 1 -> x"""
    a, b = node.inputs
    pairs = [(a, b), (b, a)] if node.op in ("add", "mul") else [(a, b)]
    for x, c in pairs:
        if c.is_constant and x.type == node.output.type and bool(np.all(c.constant == _NEUTRAL[node.op])):
            return x
    return None


@rule("pow")
def _small_power(rw: Rewriter, node: Node) -> Value | None:
    """x ** 2 -> x * x;  x ** 0.5 -> sqrt(x);  x ** -1 -> 1 / x"""
    x, exponent = node.inputs[0], scalar(node.inputs[1])
    if exponent is None or not same_shape(x.type, node.output.type):
        return None
    if exponent == 2:
        return rw.add("mul", [x, x], {}, node)
    if x.dtype.is_float and exponent == 0.5:
        return rw.add("sqrt", [x], {}, node)
    if x.dtype.is_float and exponent == -1:
        return rw.add("div", [np.ones((), x.dtype.numpy), x], {}, node)
    return None


@rule("div")
def _exact_reciprocal(rw: Rewriter, node: Node) -> Value | None:
    """x / c -> x * (1 / c)   (c a power of two, so 1/c is exact and normal)"""
    x, c = node.inputs[0], scalar(node.inputs[1])
    if c is None or not x.dtype.is_float or not math.isfinite(c) or c == 0:
        return None
    mantissa, exponent = math.frexp(c)
    if abs(mantissa) != 0.5 or not -10 <= exponent <= 10:
        return None
    return rw.add("mul", [x, np.full(array_of(node.inputs[1]).shape, 1 / c, x.dtype.numpy)], {}, node)


@rule("relu", "abs")
def _idempotent(rw: Rewriter, node: Node) -> Value | None:
    """f(f(x)) -> f(x)"""
    return node.inputs[0] if producer(node.inputs[0], node.op) else None


@rule("clip")
def _clip_of_relu(rw: Rewriter, node: Node) -> Value | None:
    """clip(relu(x), lo, hi) -> clip(x, max(lo, 0), hi)"""
    inner = producer(node.inputs[0], "relu")
    low, high = node.attrs.get("min"), node.attrs.get("max")
    if inner is None or len(node.inputs) != 1 or (high is not None and high < 0):
        return None
    return rw.add("clip", [inner.inputs[0]], dict(node.attrs, min=max(low or 0, 0)), node)
