"""Operators on shapes and positions: reshape, slice, concat, gather, pad, and shape arithmetic."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tensorlang import te
from tensorlang.graph import Expr, Value, as_dtype, as_ints, canonical, free_vars, lowest, product, size_quotient

from .node import OnnxNode
from .registry import onnx_op

_FAR = 1 << 31  # from here on a slice's end means "to the end"


@onnx_op("Shape")
def shape(node: OnnxNode) -> Value:
    return node.add("shape", node.input(0), start=node.attr("start", 0), end=node.attr("end", None))


@onnx_op("Size")
def size(node: OnnxNode) -> Value:
    return node.add("size", node.input(0))


@onnx_op("Reshape")
def reshape_attribute(node: OnnxNode) -> Value:
    """Opset 1: the shape as an attribute."""
    return _reshape(node, [canonical(d) for d in node.attr("shape")], allow_zero=False)


@onnx_op("Reshape", since=5)
def reshape(node: OnnxNode) -> Value:
    return _reshape(node, node.dims(1, "the shape", low=-1), allow_zero=bool(node.attr("allowzero", 0)))


def _reshape(node: OnnxNode, wanted: Sequence[Expr], allow_zero: bool) -> Value:
    """-1 is what is left over; 0 copies the input's dimension unless `allow_zero`."""
    x = node.input(0)
    dims: list[Expr] = []
    free: int | None = None
    for position, d in enumerate(wanted):
        if d.op == "const" and d.value == -1:
            if free is not None:
                raise node.fail("two dimensions of the shape are -1")
            free = position
            d = canonical(1)
        elif d.op == "const" and d.value == 0 and not allow_zero:
            if position >= x.type.ndim:
                raise node.fail(f"dimension {position} of the shape copies one that {x.type} does not have")
            d = x.shape[position]
        elif d.op == "const" and d.value < 0:
            raise node.fail(f"dimension {position} of the shape is {d.value}")
        dims.append(d)
    if any(lowest(v) == -1 for d in dims for v in free_vars(d)):
        dims = _resolved(x, dims, allow_zero)
    if free is not None:
        try:
            dims[free] = size_quotient(x.shape, [d for i, d in enumerate(dims) if i != free])
        except ValueError as error:
            raise node.fail(f"{x.type} cannot take the shape [{', '.join(map(str, wanted))}]: {error}") from None
    return node.add("reshape", x, shape=tuple(dims))


def _resolved(x: Value, wanted: Sequence[Expr], allow_zero: bool) -> list[Expr]:
    """The shape where only a run tells which of its dimensions are 0 or -1."""
    dims = [
        te.select(te.equal(d, 0), x.shape[k], d) if k < x.type.ndim and not allow_zero else d for k, d in enumerate(wanted)
    ]
    others = product([te.select(te.equal(d, -1), canonical(1), d) for d in dims])
    left = te.floordiv(product(x.shape), te.maximum(others, 1))
    return [canonical(te.select(te.equal(d, -1), left, d)) for d in dims]


@onnx_op("Flatten")
def flatten(node: OnnxNode) -> Value:
    x = node.input(0)
    axis = node.attr("axis", 1)
    axis = axis + x.type.ndim if axis < 0 else axis
    if not 0 <= axis <= x.type.ndim:
        raise node.fail(f"axis {axis} of {x.type}")
    return node.add("reshape", x, shape=(product(x.shape[:axis]), product(x.shape[axis:])))


def _axes(node: OnnxNode, since: int) -> np.ndarray | None:
    """Axes: an attribute, from opset `since` on an input."""
    if node.version < since:
        axes = node.attr("axes", None)
        return None if axes is None else np.asarray(axes)
    return None if node.optional(1) is None else node.known(1, "the axes")


@onnx_op("Squeeze")
def squeeze(node: OnnxNode) -> Value:
    x = node.input(0)
    given = _axes(node, 13)
    if given is None:
        if any(d.op != "const" for d in x.shape):
            raise node.unsupported(f"squeezing every dimension of size 1 of {x.type}", *node.sources_of(x.shape))
        axes = tuple(a for a, d in enumerate(x.shape) if d.value == 1)
    else:
        axes = node.normal_axes(given, x.type.ndim)
    for a in axes:
        if x.shape[a].op == "const" and x.shape[a].value != 1:
            raise node.fail(f"dimension {a} of {x.type} is not 1")
    return node.add("reshape", x, shape=tuple(d for a, d in enumerate(x.shape) if a not in axes))


@onnx_op("Unsqueeze")
def unsqueeze(node: OnnxNode) -> Value:
    x = node.input(0)
    given = _axes(node, 13)
    if given is None:
        raise node.fail("axes are missing")
    ndim = x.type.ndim + np.size(given)
    axes = node.normal_axes(given, ndim)
    rest = iter(x.shape)
    return node.add("reshape", x, shape=tuple(1 if a in axes else next(rest) for a in range(ndim)))


@onnx_op("Transpose")
def transpose(node: OnnxNode) -> Value:
    x = node.input(0)
    perm = node.attr("perm", None)
    return node.add("transpose", x, perm=tuple(perm if perm is not None else range(x.type.ndim)[::-1]))


@onnx_op("Expand")
def expand(node: OnnxNode) -> Value:
    return node.add("expand", node.input(0), shape=tuple(node.dims(1, "the shape")))


@onnx_op("Tile")
def tile(node: OnnxNode) -> Value:
    return node.add("tile", node.input(0), repeats=tuple(node.dims(1, "the repeats")))


@onnx_op("Concat")
def concat(node: OnnxNode) -> Value:
    values = node.all_inputs()
    axis = node.axis("axis", values[0].type.ndim, 1 if node.version < 4 else ...)
    filled = [v for v in values if as_ints(v.shape[axis : axis + 1]) != (0,)] or values[:1]
    return filled[0] if len(filled) == 1 else node.add("concat", *filled, axis=axis)


@onnx_op("Split")
def split(node: OnnxNode) -> Value | tuple[Value, ...]:
    x = node.input(0)
    axis, count = node.axis("axis", x.type.ndim, 0), node.output_count
    sizes: list[Expr]
    if node.version < 13 and node.has("split"):
        sizes = [canonical(n) for n in node.attr("split")]
    elif node.version >= 13 and node.optional(1) is not None:
        sizes = node.dims(1, "the sizes")
    else:
        total = x.shape[axis]
        if node.version >= 18:
            chunk = canonical(te.floordiv(total + (count - 1), count))
            sizes = [chunk] * (count - 1) + [canonical(total - chunk * (count - 1))]
        else:
            if total.op == "const" and total.value % count:
                raise node.fail(f"dimension {axis} of {x.type} does not split into {count} equal parts")
            sizes = [canonical(te.floordiv(total, count))] * count
    if len(sizes) != count:
        raise node.fail(f"{len(sizes)} sizes for {count} outputs")
    parts, start = [], canonical(0)
    for n in sizes:
        parts.append(_slice(node, x, {axis: (start, n, 1)}))
        start = canonical(start + n)
    return parts[0] if count == 1 else tuple(parts)


def _slice(node: OnnxNode, x: Value, along: dict[int, tuple[Expr, Expr, int]]) -> Value:
    """x with dimension a cut to (start, size, step) for a in `along`."""
    starts, sizes, steps = [], [], []
    for a, d in enumerate(x.shape):
        start, count, step = along.get(a, (canonical(0), d, 1))
        starts.append(start)
        sizes.append(count)
        steps.append(step)
    if all(s == 1 for s in steps) and all(n is d for n, d in zip(sizes, x.shape, strict=True)):
        return x
    return node.add("slice", x, starts=_plain(starts), shape=tuple(sizes), steps=tuple(steps))


def _plain(dims: Sequence[Expr]) -> tuple[int | Expr, ...]:
    return tuple(d.value if d.op == "const" else d for d in dims)


@onnx_op("Slice")
def slice_attributes(node: OnnxNode) -> Value:
    """Opset 1: everything as attributes."""
    starts, ends = node.attr("starts"), node.attr("ends")
    axes = node.attr("axes", tuple(range(len(starts))))
    return _slice_between(node, [canonical(s) for s in starts], [canonical(e) for e in ends], axes, (1,) * len(starts))


@onnx_op("Slice", since=10)
def slice_(node: OnnxNode) -> Value:
    starts, ends = node.dims(1, "the starts", low=None), node.dims(2, "the ends", low=None)
    axes = node.known(3, "the axes") if node.optional(3) is not None else range(len(starts))
    steps = node.known(4, "the steps") if node.optional(4) is not None else (1,) * len(starts)
    return _slice_between(node, starts, ends, [int(a) for a in np.ravel(axes)], [int(s) for s in np.ravel(steps)])


def _slice_between(
    node: OnnxNode, starts: Sequence[Expr], ends: Sequence[Expr], axes: Sequence[int], steps: Sequence[int]
) -> Value:
    x = node.input(0)
    if not len(starts) == len(ends) == len(axes) == len(steps):
        raise node.fail(f"{len(starts)} starts, {len(ends)} ends, {len(axes)} axes and {len(steps)} steps")
    along: dict[int, tuple[Expr, Expr, int]] = {}
    for start, end, axis, step in zip(starts, ends, node.normal_axes(axes, x.type.ndim), steps, strict=True):
        d = x.shape[axis]
        if step == 0:
            raise node.fail("a step is 0")
        if step > 0:
            begin, stop = _position(start, d, 0, d), _position(end, d, 0, d)
            count = te.floordiv(stop - begin + (step - 1), step)
        else:
            last = canonical(d - 1)
            begin, stop = _position(start, d, 0, last), _position(end, d, -1, last)
            count = te.floordiv(begin - stop + (-step - 1), -step)
        along[axis] = (begin, canonical(te.maximum(count, 0)), step)
    return _slice(node, x, along)


def _position(p: Expr, d: Expr, low: int, high: Expr) -> Expr:
    """A bound of a slice: negative counts from the end; held within [low, high]."""
    if p.op == "const":
        if p.value >= _FAR:
            return high
        if p.value <= -_FAR:
            return canonical(low)
        p = canonical(p + d) if p.value < 0 else p
    else:
        sign = canonical(p < 0)
        if sign.op == "const":
            p = canonical(p + d) if sign.value else p
        else:
            p = canonical(te.select(sign, p + d, p))
    return canonical(te.maximum(te.minimum(p, high), low))


@onnx_op("Gather")
def gather(node: OnnxNode) -> Value:
    x = node.input(0)
    return node.add("gather", x, node.input(1), axis=node.axis("axis", x.type.ndim, 0))


@onnx_op("GatherElements")
def gather_elements(node: OnnxNode) -> Value:
    x = node.input(0)
    return node.add("gather_elements", x, node.input(1), axis=node.axis("axis", x.type.ndim, 0))


@onnx_op("GatherND")
def gather_nd(node: OnnxNode) -> Value:
    return node.add("gather_nd", node.input(0), node.input(1), batch_dims=node.attr("batch_dims", 0))


@onnx_op("Scatter")
@onnx_op("ScatterElements")
def scatter_elements(node: OnnxNode) -> Value:
    x = node.input(0)
    axis, reduction = node.axis("axis", x.type.ndim, 0), node.attr("reduction", "none")
    return node.add("scatter_elements", x, node.input(1), node.input(2), axis=axis, reduction=reduction)


@onnx_op("ScatterND")
def scatter_nd(node: OnnxNode) -> Value:
    reduction = node.attr("reduction", "none")
    return node.add("scatter_nd", node.input(0), node.input(1), node.input(2), reduction=reduction)


@onnx_op("OneHot")
def one_hot(node: OnnxNode) -> Value:
    indices = node.input(0)
    depth = node.known_or_none(1)
    size = canonical(int(depth.reshape(()))) if depth is not None else node.dims(1, "the depth")[0]
    axis = node.axis("axis", indices.type.ndim + 1, -1)
    return node.add("one_hot", indices, node.input(2), depth=size, axis=axis)


@onnx_op("Pad")
def pad_attributes(node: OnnxNode) -> Value:
    """Opset 1 and 2: everything as attributes."""
    pads = node.attr("paddings", None) if node.version < 2 else node.attr("pads")
    return _pad(node, [canonical(p) for p in pads], node.attr("value", 0.0), None)


@onnx_op("Pad", since=11)
def pad(node: OnnxNode) -> Value:
    value = node.known(2, "the value").reshape(()).item() if node.optional(2) is not None else 0
    axes = node.known(3, "the axes") if node.optional(3) is not None else None
    return _pad(node, node.dims(1, "the pads"), value, axes)


def _pad(node: OnnxNode, pads: Sequence[Expr], value: float, axes: np.ndarray | None) -> Value:
    x = node.input(0)
    if axes is not None:
        where = node.normal_axes(axes, x.type.ndim)
        spread = [canonical(0)] * (2 * x.type.ndim)
        for position, a in enumerate(where):
            spread[a], spread[a + x.type.ndim] = pads[position], pads[position + len(where)]
        pads = spread
    mode = node.choice("mode", "constant", "edge", "reflect", "wrap")
    return node.add("pad", x, pads=_plain(pads), mode=mode, value=value)


@onnx_op("ConstantOfShape")
def constant_of_shape(node: OnnxNode) -> Value:
    value = node.attr("value", np.zeros(1, np.float32))
    if value.size != 1:
        raise node.fail(f"the value has {value.size} elements")
    return node.add(
        "full", shape=tuple(node.dims(0, "the shape")), value=value.reshape(()).item(), dtype=as_dtype(value.dtype)
    )


@onnx_op("Range")
def range_(node: OnnxNode) -> Value:
    kind = node.input(0).dtype
    known = [node.known_or_none(i) for i in range(3)]
    if kind.is_float:
        if any(a is None for a in known):
            return _float_range(node)
        start, limit, step = (a.reshape(()).item() for a in known if a is not None)
        count = canonical(max(0, int(np.ceil((limit - start) / step))))
        return node.add("range", start=start, step=step, size=count, dtype=kind)
    if known[0] is not None and known[2] is not None and known[2].item() == 1 and _only_a_run_tells(node, 1):
        # one dimension that is no less than zero, instead of an expression of one that may be: kernels are the simpler for it
        start = int(known[0].item())
        length = node.add("sub", node.add("cast", _scalar(node, 1), dtype="i64"), node.constant(np.array(start, np.int64)))
        count = node.bound(node.add("maximum", length, node.constant(np.array(0, np.int64))))
        return node.add("range", start=start, step=1, size=count, dtype=kind)
    begin, end, delta = (node.dims(i, "a bound", low=None)[0] for i in range(3))
    if delta.op == "const":
        n = delta.value
        if n == 0:
            raise node.fail("the step is 0")
        distance = end - begin if n > 0 else begin - end
        count = canonical(te.maximum(te.floordiv(distance + (abs(n) - 1), abs(n)), 0))
        return node.add("range", start=_plain([begin])[0], step=n, size=count, dtype=kind)
    up = te.floordiv(end - begin + (delta - 1), te.maximum(delta, 1))
    down = te.floordiv(begin - end + (-delta - 1), te.maximum(-delta, 1))
    count = canonical(te.maximum(te.select(delta > 0, up, down), 0))
    steps = node.add("range", start=0, step=1, size=count, dtype=kind)
    return node.add("add", node.add("mul", steps, _scalar(node, 2)), _scalar(node, 0))


def _only_a_run_tells(node: OnnxNode, position: int) -> bool:
    value = node.input(position)
    return value.data is None and value.constant is None and as_ints(value.shape) in ((), (1,))


def _scalar(node: OnnxNode, position: int) -> Value:
    return node.add("reshape", node.input(position), shape=())


def _float_range(node: OnnxNode) -> Value:
    """Bounds that only a run tells."""
    start, limit, delta = (_scalar(node, i) for i in range(3))
    count = node.add("ceil", node.add("div", node.add("sub", limit, start), delta))
    whole = node.add("maximum", node.add("cast", count, dtype=as_dtype("i64")), node.constant(np.array(0, np.int64)))
    steps = node.add("range", start=0, step=1, size=node.bound(whole), dtype=as_dtype("i64"))
    return node.add("add", node.add("mul", node.add("cast", steps, dtype=start.dtype), delta), start)


@onnx_op("EyeLike")
def eye_like(node: OnnxNode) -> Value:
    x = node.input(0)
    kind = node.dtype_attr("dtype", str(x.dtype))
    return node.add("eye_like", x, k=node.attr("k", 0), dtype=kind)


@onnx_op("Trilu")
@onnx_op("Trilu", domain="com.microsoft")
def trilu(node: OnnxNode) -> Value:
    k = int(node.known(1, "the diagonal").reshape(())) if node.optional(1) is not None else 0
    return node.add("trilu", node.input(0), upper=bool(node.attr("upper", 1)), k=k)


@onnx_op("DepthToSpace")
def depth_to_space(node: OnnxNode) -> Value:
    mode = node.choice("mode", "DCR", "CRD")
    return node.add("depth_to_space", node.input(0), blocksize=node.attr("blocksize"), mode=mode)


@onnx_op("SpaceToDepth")
def space_to_depth(node: OnnxNode) -> Value:
    mode = node.choice("mode", "DCR", "CRD")
    return node.add("space_to_depth", node.input(0), blocksize=node.attr("blocksize"), mode=mode)


@onnx_op("ReverseSequence")
def reverse_sequence(node: OnnxNode) -> Value:
    batch, time = node.attr("batch_axis", 1), node.attr("time_axis", 0)
    return node.add("reverse_sequence", node.input(0), node.input(1), batch=batch, time=time)


@onnx_op("TensorScatter")
def tensor_scatter(node: OnnxNode) -> Value:
    cache, update, starts = node.input(0), node.input(1), node.optional(2)
    if starts is None:
        starts = node.add("full", shape=cache.shape[:1], value=0, dtype=as_dtype("i64"))
    circular = node.choice("mode", "linear", "circular") == "circular"
    return node.add("write_cache", cache, update, starts, axis=node.axis("axis", cache.type.ndim, -2), circular=circular)


@onnx_op("Det")
def det(node: OnnxNode) -> Value:
    return node.add("det", node.input(0))
