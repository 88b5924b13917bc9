"""Rules about operators that move elements: views of views, cuts of cuts, movements that go nowhere."""

from __future__ import annotations

from tensorlang.graph.ir import Node, TensorType, Value
from tensorlang.graph.ops.common import canonical, plain, product
from tensorlang.graph.passes.rules import rule
from tensorlang.graph.passes.shape_ops import compose, factor, moves_no_data, reshape, transpose
from tensorlang.graph.rewrite import Rewriter, is_one, producer, same_shape
from tensorlang.ir.expr import ExprLike, wrap


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
        if start.op != "const" or rest.op != "const" or not rest.value:
            return None
        if start.value % rest.value or size % rest.value:
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
    axis = node.attrs["axis"]
    flat: list[Value] = []
    for x in node.inputs:
        inner = producer(x, "concat")
        flat += inner.inputs if inner is not None and inner.attrs["axis"] == axis and rw.uses(x) == 0 else [x]
    return rw.add("concat", flat, {"axis": axis}, node) if len(flat) > len(node.inputs) else None


@rule("concat")
def _concat_of_slices(rw: Rewriter, node: Node) -> Value | None:
    """concat(x[a:b], x[b:c], y) -> concat(x[a:c], y): a split whose parts come together again, in order."""
    axis, merged = node.attrs["axis"], list(node.inputs[:1])
    for x in node.inputs[1:]:
        joined = _join_slices(rw, merged[-1], x, axis, node)
        if joined is None:
            merged.append(x)
        else:
            merged[-1] = joined
    return rw.add("concat", merged, {"axis": axis}, node) if len(merged) < len(node.inputs) else None


def _join_slices(rw: Rewriter, a: Value, b: Value, axis: int, node: Node) -> Value | None:
    first, second = producer(a, "slice"), producer(b, "slice")
    if first is None or second is None or first.inputs[0] is not second.inputs[0]:
        return None
    if any(step != 1 for n in (first, second) for step in n.attrs["steps"]):
        return None
    starts = [[canonical(s) for s in n.attrs["starts"]] for n in (first, second)]
    if any(starts[0][d] is not starts[1][d] for d in range(len(starts[0])) if d != axis):
        return None
    if canonical(starts[0][axis] + a.shape[axis]) is not starts[1][axis]:
        return None
    shape = list(a.shape)
    shape[axis] = canonical(a.shape[axis] + b.shape[axis])
    attrs = {"starts": plain(starts[0]), "shape": plain(shape), "steps": (1,) * len(shape)}
    return rw.add("slice", [first.inputs[0]], attrs, node)


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
    perm = (0, 3, 5, 1, 2, 4) if node.attrs.get("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    return reshape(rw, transpose(rw, reshape(rw, x, split, node), perm, node), node.output.shape, node)


@rule("split")
def _split(rw: Rewriter, node: Node) -> list[Value] | None:
    """split(x, sizes) -> one slice per part: each then fuses into its own readers."""
    x, axis = node.inputs[0], node.attrs["axis"]
    parts: list[Value] = []
    start = wrap(0)
    for value in node.outputs:
        starts: list[ExprLike] = [0] * x.type.ndim
        starts[axis] = start
        attrs = {"starts": plain(starts), "shape": plain(value.shape), "steps": (1,) * x.type.ndim}
        parts.append(rw.add("slice", [x], attrs, node))
        start = canonical(start + value.shape[axis])
    return parts
