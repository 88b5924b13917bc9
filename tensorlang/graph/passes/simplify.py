"""Remove operators that do nothing, and write the rest in the simplest equal form.

    %a = identity(%x)
    %b = reshape(%a, shape=[2, 6])
    %c = reshape(%b, shape=[3, 4])      %c = reshape(%x, shape=[3, 4])
    %d = pow(%c, %two)             ->   %d = mul(%c, %c)
    %e = div(%d, %four)                 %e = mul(%d, %quarter)

A rule that would change results by more than the sign of a zero is not here: division by a constant becomes a product only
where the reciprocal is exact, a power of two.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from tensorlang.graph.ir import Graph, Node, TensorType, Value
from tensorlang.graph.ops.common import canonical, plain, product
from tensorlang.graph.passes.context import Context
from tensorlang.graph.passes.fold_constants import fold
from tensorlang.graph.passes.shape_ops import compose, factor, moves_no_data, reshape, transpose
from tensorlang.graph.rewrite import Rewriter, is_one, producer, rewrite, same_shape, scalar
from tensorlang.ir.expr import ExprLike, wrap

RuleFunction = Callable[[Rewriter, Node], Value | None]
_RULES: dict[str, list[RuleFunction]] = {}


def rule(*ops: str) -> Callable[[RuleFunction], RuleFunction]:
    """Register a rule for nodes of these operators."""

    def register(function: RuleFunction) -> RuleFunction:
        for op in ops:
            _RULES.setdefault(op, []).append(function)
        return function

    return register


def simplify(graph: Graph, context: Context | None = None) -> Graph:
    """Apply the rules of this file, and fold constants, until nothing changes."""
    limit = (context or Context()).options.fold_limit
    return rewrite(graph, lambda rw, node: simplify_node(rw, node, limit))


def simplify_node(rw: Rewriter, node: Node, limit: int = 1 << 22) -> Value | list[Value] | None:
    """A simpler equal of `node`, or None. Passes that create nodes give this to their rewriter."""
    folded = fold(rw, node, limit)
    if folded is not None:
        return folded
    if node.op == "split":
        return split_to_slices(rw, node)
    for function in _RULES.get(node.op, ()):
        result = function(rw, node)
        if result is not None and result is not node.output:
            return result
    return None


@rule("identity", "dropout")
def _identity(rw: Rewriter, node: Node) -> Value | None:
    return node.inputs[0] if len(node.outputs) == 1 else None


@rule("reshape")
def _reshape(rw: Rewriter, node: Node) -> Value | None:
    x = node.inputs[0]
    if same_shape(x.type, node.output.type):
        return x
    return reshape(rw, x, node.output.shape, node) if producer(x, "reshape") else None


@rule("reshape")
def _reshape_of_slice(rw: Rewriter, node: Node) -> Value | None:
    """reshape(slice(x)) -> slice(reshape(x)) where the cut falls between whole inner dimensions of the new shape.

    Packed query, key and value are so cut out of heads: the slice, pure index arithmetic, can join whoever reads it.
    """
    inner = producer(node.inputs[0], "slice")
    if inner is None or any(step != 1 for step in inner.attrs["steps"]):
        return None
    x, cut, target = inner.inputs[0], inner.output.shape, node.output.shape
    groups = factor(cut, target)
    if groups is None:
        return None
    starts: list[ExprLike] = [0] * len(target)
    whole = list(target)
    for left, right in groups:
        sliced = [a for a in left if cut[a] is not x.shape[a]]
        if not sliced:
            continue
        if len(left) != 1 or not right or x.shape[sliced[0]].op != "const":
            return None
        start, rest = wrap(inner.attrs["starts"][sliced[0]]), product(target[b] for b in right[1:])
        size = x.shape[sliced[0]].value
        if start.op != "const" or rest.op != "const" or start.value % rest.value or size % rest.value:
            return None
        starts[right[0]], whole[right[0]] = start.value // rest.value, wrap(size // rest.value)
    viewed = reshape(rw, x, whole, node)
    return rw.add("slice", [viewed], {"starts": tuple(starts), "shape": plain(target), "steps": (1,) * len(target)}, node)


@rule("transpose")
def _transpose(rw: Rewriter, node: Node) -> Value | None:
    x, perm = node.inputs[0], tuple(node.attrs["perm"])
    if perm == tuple(range(len(perm))):
        return x
    if moves_no_data(x.shape, perm):
        return reshape(rw, x, node.output.shape, node)
    inner = producer(x, "transpose")
    if inner is None:
        return None
    both = compose(inner.attrs["perm"], perm)
    return rw.add("transpose", [inner.inputs[0]], {"perm": both}, node)


@rule("expand", "cast", "concat", "tile", "slice", "pad")
def _no_op(rw: Rewriter, node: Node) -> Value | None:
    """These change nothing when the type stays: with steps of one a slice of full size starts at zero."""
    x = node.inputs[0]
    if x.type.dtype != node.output.dtype or not same_shape(x.type, node.output.type):
        return None
    if node.op == "slice" and any(step != 1 for step in node.attrs["steps"]):
        return None
    if node.op == "pad" and any(not _is_zero(p) for p in node.attrs["pads"]):
        return None
    return x


def _is_zero(p: object) -> bool:
    return getattr(p, "value", p) == 0


@rule("concat")
def _concat_of_concat(rw: Rewriter, node: Node) -> Value | None:
    axis, flat = node.attrs["axis"], []
    for x in node.inputs:
        inner = producer(x, "concat")
        nested = inner is not None and inner.attrs["axis"] == axis and rw.uses(x) == 0
        flat += inner.inputs if nested else [x]
    return rw.add("concat", flat, {"axis": axis}, node) if len(flat) > len(node.inputs) else None


@rule("add", "sub", "mul", "div", "maximum", "minimum", "pow", "where", "equal", "less", "greater")
def _expand_of_operand(rw: Rewriter, node: Node) -> Value | None:
    """Elementwise operators broadcast by themselves: op(expand(x), y) -> op(x, y) if the shape of the result stays."""
    inputs = [p.inputs[0] if (p := producer(v, "expand")) else v for v in node.inputs]
    for position, (old, new) in enumerate(zip(node.inputs, inputs, strict=True)):
        if old is new:
            continue
        candidate = [*node.inputs[:position], new, *node.inputs[position + 1 :]]
        if _broadcast_covers(candidate, node.output.type):
            return rw.add(node.op, candidate, node.attrs, node)
    return None


def _broadcast_covers(values: list[Value], out: TensorType) -> bool:
    for back in range(1, out.ndim + 1):
        wanted = out.shape[-back]
        if not any(v.type.ndim >= back and v.shape[-back] is wanted for v in values):
            return False
    return True


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
    return rw.add("mul", [x, np.full(node.inputs[1].constant.shape, 1 / c, x.dtype.numpy)], {}, node)


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
    return rw.add("clip", [inner.inputs[0]], dict(node.attrs, min=max(low or 0.0, 0.0)), node)


@rule("reduce_sum", "reduce_mean", "reduce_max", "reduce_min", "reduce_prod")
def _reduction_of_nothing(rw: Rewriter, node: Node) -> Value | None:
    """A reduction along dimensions of size one moves nothing: it is a reshape."""
    x = node.inputs[0]
    axes = node.attrs["axes"]
    if len(node.inputs) != 1 or x.dtype != node.output.dtype or axes is None:
        return None
    if not all(is_one(x.shape[a]) for a in axes):
        return None
    return reshape(rw, x, node.output.shape, node)


@rule("slice")
def _slice_of_slice(rw: Rewriter, node: Node) -> Value | None:
    """Both with steps of one and known starts: the starts add."""
    inner = producer(node.inputs[0], "slice")
    if inner is None or any(s != 1 for n in (inner, node) for s in n.attrs["steps"]):
        return None
    starts = tuple(a + b for a, b in zip(inner.attrs["starts"], node.attrs["starts"], strict=True))
    attrs = dict(node.attrs, starts=starts, shape=plain(node.output.shape))
    return rw.add("slice", [inner.inputs[0]], attrs, node)


@rule("depth_to_space")
def _depth_to_space(rw: Rewriter, node: Node) -> Value | None:
    """Blocks of channels to blocks of pixels: split the channels, move, merge."""
    x, b = node.inputs[0], node.attrs["blocksize"]
    n, c, h, w = x.shape
    deep = node.output.shape[1]
    if node.attrs.get("mode", "DCR") == "DCR":
        split, perm = (n, b, b, deep, h, w), (0, 3, 4, 1, 5, 2)
    else:
        split, perm = (n, deep, b, b, h, w), (0, 1, 4, 2, 5, 3)
    return reshape(rw, transpose(rw, reshape(rw, x, split, node), perm, node), node.output.shape, node)


@rule("space_to_depth")
def _space_to_depth(rw: Rewriter, node: Node) -> Value | None:
    """Blocks of pixels to blocks of channels: split height and width, move, merge."""
    x, b = node.inputs[0], node.attrs["blocksize"]
    n, c, h, w = x.shape
    split = (n, c, node.output.shape[2], b, node.output.shape[3], b)
    return reshape(rw, transpose(rw, reshape(rw, x, split, node), (0, 3, 5, 1, 2, 4), node), node.output.shape, node)


def split_to_slices(rw: Rewriter, node: Node) -> list[Value] | None:
    """split(x, sizes) -> one slice per part: each then fuses into its own readers."""
    x, axis, parts, start = node.inputs[0], node.attrs["axis"], [], wrap(0)
    for value in node.outputs:
        starts = [0] * x.type.ndim
        starts[axis] = start
        attrs = {"starts": plain(starts), "shape": plain(value.shape), "steps": (1,) * x.type.ndim}
        parts.append(rw.add("slice", [x], attrs, node))
        start = canonical(start + value.shape[axis])
    return parts
