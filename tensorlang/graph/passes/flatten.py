"""Pointwise convolutions and products with shared weights become two-dimensional, and what follows them stays so.

    %a = conv(%x, %w: f32[1, 1, C, O], %b, layout=NHWC)      %x2 = reshape(%x, shape=[N*H*W, C])
    %c = add(%a, %r)                                         %m = matmul(%x2, %w2)
    %d = relu(%c)                                      ->    %a2 = add(%m, %b)
    return %d                                                %c2 = add(%a2, reshape(%r, shape=[N*H*W, O]))
                                                             %d2 = relu(%c2)
                                                             return reshape(%d2, shape=[N, H, W, O])

Reshapes move no data, so every value has its *rows* for free: `[prod(leading dimensions), last]`. Elementwise operators that
follow a product work on rows, so that bias, residual and activation sit directly on the product's result and fuse into its
epilogue; the view in the model's shape is taken where something needs it.

A pointwise convolution that stayed channels-second is the product of its filters with the *planes* of the image,
`[N, C, H*W]`, or `[C, H*W]` of one image; elementwise operators after it work on those.

    %a = conv(%x, %w: f32[O, C, 1, 1], %b)                   %m = matmul(%w2: f32[O, C], reshape(%x, shape=[C, H*W]))
    %c = relu(%a)                                      ->    %c2 = relu(add(%m, reshape(%b, shape=[O, 1])))
    return %c                                                return reshape(%c2, shape=[1, O, H, W])
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tensorlang.graph.ir import Graph, Node, Value
from tensorlang.graph.ops.common import plain, product
from tensorlang.graph.ops.quantize import Scaled
from tensorlang.graph.passes.context import Context, subject_of
from tensorlang.graph.passes.layout_regions import is_convolution, is_pointwise
from tensorlang.graph.passes.rules import simplify_node
from tensorlang.graph.passes.shape_ops import reshape
from tensorlang.graph.registry import ELEMENTWISE, INJECTIVE, as_ints, get
from tensorlang.graph.rewrite import Rewriter, array_of, is_one
from tensorlang.ir.expr import Expr

REDUCTIONS = {f"reduce_{kind}" for kind in ("sum", "mean", "max", "min", "prod", "l1", "l2", "sum_square")}
ROW_WISE = {"softmax", "log_softmax", "layer_norm", "rms_norm"}


def flatten(graph: Graph, context: Context | None = None) -> Graph:
    """Bring products with constant weights to two dimensions, with the elementwise operators around them."""
    context = context or Context()
    return _Rows(graph, context).run() if context.options.flatten else graph


class _Rows:
    """The walk: `rows[v]` is the new two-dimensional value that holds `v`, `planes[v]` the one of its planes; a value in
    neither is held in its own shape."""

    def __init__(self, graph: Graph, context: Context):
        self.graph = graph
        self.context = context
        self.rw = Rewriter(graph, lambda rw, node: simplify_node(rw, node, context.options.fold_limit))
        self.rows: dict[Value, Value] = {}
        self.planes: dict[Value, Value] = {}
        self.moved = False  # whether any operator works on other shapes than before; views alone are no gain

    def run(self) -> Graph:
        for node in self.graph.nodes:
            changed = self._product(node) or self._view(node) or self._elementwise(node) or self._row_wise(node)
            if not (changed or self._plane_product(node) or self._plane_wise(node) or self._reduction(node)):
                for value in node.inputs:
                    self.own(value)
                for old, new in zip(node.outputs, self.rw.copy(node), strict=True):
                    self.rw.replace(old, new)
        for value in self.graph.outputs:
            self.own(value)
        return self.rw.finish() if self.moved else self.graph

    def hold(self, value: Value, rows: Value) -> bool:
        self.rows[value] = rows
        self.rw.name_after(rows, value)
        self.moved = True
        return True

    def own(self, value: Value) -> Value:
        """`value` in its own shape."""
        held = self.rows.get(value) or self.planes.get(value)
        if held is not None and self.rw[value] is value:
            self.rw.replace(value, reshape(self.rw, held, value.shape, value.producer))
        return self.rw[value]

    def rows_of(self, value: Value) -> Value:
        if value not in self.rows:
            new = self.own(value)
            return reshape(self.rw, new, [product(new.shape[:-1]), new.shape[-1]], value.producer)
        return self.rows[value]

    def _product(self, node: Node) -> bool:
        x, weight = _pointwise(node)
        if x is None or weight is None:
            return False
        if weight.type.ndim > 2:
            weight = self.rw.constant(array_of(weight).reshape(array_of(weight).shape[-2:]), weight.name)
        new = self.rw.add("matmul", [self.rows_of(x), weight], {}, node)
        if len(node.inputs) > 2:
            new = self.rw.add("add", [new, node.inputs[2]], {}, node)
        self.context.note(subject_of(node), "is a product of two matrices")
        return self.hold(node.output, new)

    def _view(self, node: Node) -> bool:
        """A reshape that splits the rows of a matrix, or of what is held as rows: the result is held as the same rows."""
        if node.op != "reshape" or node.output.type.ndim < 3:
            return False
        x = node.inputs[0]
        rows = self.rows.get(x, self.rw[x] if x.type.ndim == 2 and not x.is_constant else None)
        if rows is None or rows.producer is None or rows.shape[1] is not node.output.shape[-1]:
            return False
        if product(node.output.shape[:-1]) is not rows.shape[0]:
            return False
        self.rows[node.output] = rows
        return True

    def _elementwise(self, node: Node) -> bool:
        """An operator one of whose operands is held as rows, and whose others fit beside it."""
        if isinstance(get(node.op), Scaled):
            return self._quantised(node)
        if get(node.op).kind is not ELEMENTWISE or "axis" in node.attrs or node.op == "batch_norm":
            return False
        if len(node.outputs) != 1 or node.output.type.ndim < 3:
            return False
        shape = node.output.shape
        if not any(v in self.rows and _same(v.shape, shape) for v in node.inputs):
            return False
        inputs = []
        for value in node.inputs:
            beside = self._beside_rows(value, shape)
            if beside is None:
                return False
            inputs.append(beside)
        return self.hold(node.output, self.rw.add(node.op, inputs, node.attrs, node))

    def _quantised(self, node: Node) -> bool:
        """A scale and a zero point that are numbers, or vary along the last dimension: rows have that, too."""
        x, *parameters = node.inputs
        rank = node.output.type.ndim
        if rank < 3 or x not in self.rows or node.attrs.get("block"):
            return False
        vectors = any(p.type.ndim for p in parameters)
        if vectors and node.attrs["axis"] % rank != rank - 1:
            return False
        inputs = [self.rows[x], *(self.own(p) for p in parameters)]
        return self.hold(node.output, self.rw.add(node.op, inputs, {**node.attrs, "axis": 1 if vectors else 0}, node))

    def _beside_rows(self, value: Value, shape: Sequence[Expr]) -> Value | None:
        """`value` such that it broadcasts against rows of `shape` as it did against `shape`."""
        if _same(value.shape, shape):
            return self.rows_of(value)
        if all(is_one(d) for d in value.shape[:-1]):
            new = self.own(value)
            return reshape(self.rw, new, new.shape[-1:]) if new.type.ndim > 1 else new
        if _same(value.shape[:-1], shape[:-1]):
            return self.rows_of(value)
        return None

    def _row_wise(self, node: Node) -> bool:
        """Operators along the last dimension, and joining or cutting along it."""
        rank = node.output.type.ndim
        if rank < 3 or not any(v in self.rows for v in node.inputs):
            return False
        x, attrs = node.inputs[0], dict(node.attrs)
        if node.op in ROW_WISE and x in self.rows and attrs["axis"] % rank == rank - 1 and len(node.outputs) == 1:
            others = [self.own(v) for v in node.inputs[1:]]
            attrs["axis"] = 1
            return self.hold(node.output, self.rw.add(node.op, [self.rows[x], *others], attrs, node))
        if node.op == "concat" and attrs["axis"] == rank - 1:
            parts = [self.rows_of(v) for v in node.inputs]
            return self.hold(node.output, self.rw.add("concat", parts, {"axis": 1}, node))
        return False

    # -- channels second -------------------------------------------------------------------------------------------
    def hold_planes(self, value: Value, planes: Value) -> bool:
        self.planes[value] = planes
        self.rw.name_after(planes, value)
        self.moved = True
        return True

    def planes_of(self, value: Value) -> Value:
        if value in self.planes:
            return self.planes[value]
        return self._as_planes(self.own(value), value.producer)

    def _as_planes(self, new: Value, like: Node | None) -> Value:
        batch = [] if is_one(new.shape[0]) else [new.shape[0]]
        return reshape(self.rw, new, [*batch, new.shape[1], product(new.shape[2:])], like)

    def _plane_product(self, node: Node) -> bool:
        if not is_convolution(node) or not is_pointwise(node) or not self.context.options.channels_second:
            return False
        x, weight = node.inputs[:2]
        if x.dtype != weight.dtype or not x.dtype.is_float:
            return False
        filters = array_of(weight).reshape(array_of(weight).shape[:2])
        if all(is_one(d) for d in x.shape[2:]):
            return self._point_product(node, filters)
        matrix = self.rw.constant(filters, weight.name)
        planes = self.planes_of(x)
        if any(s != 1 for s in node.attrs["strides"]):
            begin, steps = (0,) * x.type.ndim, (1, 1, *node.attrs["strides"])
            shape = (*x.shape[:2], *node.output.shape[2:])
            part = self.rw.add("slice", [self.own(x)], {"starts": begin, "steps": steps, "shape": plain(shape)}, node)
            planes = self._as_planes(part, node)
        new = self.rw.add("matmul", [matrix, planes], {}, node)
        if len(node.inputs) > 2:
            new = self.rw.add("add", [new, reshape(self.rw, self.own(node.inputs[2]), [matrix.shape[0], 1])], {}, node)
        self.context.note(subject_of(node), "is a product of filters and planes")
        return self.hold_planes(node.output, new)

    def _point_product(self, node: Node, filters: np.ndarray) -> bool:
        """Images of one point are rows of channels."""
        x, weight = node.inputs[:2]
        rows = reshape(self.rw, self.own(x), x.shape[:2], node)
        new = self.rw.add("matmul", [rows, self.rw.constant(np.ascontiguousarray(filters.T), weight.name)], {}, node)
        if len(node.inputs) > 2:
            new = self.rw.add("add", [new, self.own(node.inputs[2])], {}, node)
        self.rw.replace(node.output, reshape(self.rw, new, node.output.shape, node))
        self.moved = True
        return True

    def _plane_wise(self, node: Node) -> bool:
        """An elementwise operator one of whose operands is held as planes, and whose others fit beside it."""
        if get(node.op).kind is not ELEMENTWISE or "axis" in node.attrs or isinstance(get(node.op), Scaled):
            return False
        if len(node.outputs) != 1 or not any(v in self.planes and _same(v.shape, node.output.shape) for v in node.inputs):
            return False
        inputs = []
        for value in node.inputs:
            beside = self._beside_planes(value, node.output.shape)
            if beside is None:
                return False
            inputs.append(beside)
        return self.hold_planes(node.output, self.rw.add(node.op, inputs, node.attrs, node))

    def _beside_planes(self, value: Value, shape: Sequence[Expr]) -> Value | None:
        """`value` such that it broadcasts against planes of `shape` as it did against `shape`."""
        if _same(value.shape, shape):
            return self.planes_of(value)
        if all(is_one(d) for d in value.shape):
            return reshape(self.rw, self.own(value), [])
        channel = value.type.ndim - len(shape) + 1
        if channel >= 0 and all(is_one(d) for n, d in enumerate(value.shape) if n != channel):
            return reshape(self.rw, self.own(value), [value.shape[channel], 1])
        return None

    # -- reductions ------------------------------------------------------------------------------------------------
    def _reduction(self, node: Node) -> bool:
        """A reduction over several last dimensions is one over the line that they are, if nothing would fuse into it."""
        if node.op not in REDUCTIONS or len(node.inputs) != 1 or not node.attrs.get("axes"):
            return False
        x, rank = node.inputs[0], node.inputs[0].type.ndim
        axes = sorted(a % rank for a in node.attrs["axes"])
        if len(axes) < 2 or axes != list(range(axes[0], rank)) or as_ints(x.shape[axes[0] :]) is None:
            return False
        if x.producer is not None and get(x.producer.op).kind <= INJECTIVE and x.producer.op != "reshape":
            return False
        line = reshape(self.rw, self.own(x), [*x.shape[: axes[0]], product(x.shape[axes[0] :])], node)
        attrs = dict(node.attrs, axes=(axes[0],), keepdims=False)
        self.rw.replace(node.output, reshape(self.rw, self.rw.add(node.op, [line], attrs, node), node.output.shape, node))
        self.moved = True
        return True


def _pointwise(node: Node) -> tuple[Value | None, Value | None]:
    """(x, constant weights) of a node that is a product of the rows of x with a matrix; (None, None) otherwise."""
    nothing = (None, None)
    if node.op == "matmul":
        x, weight = node.inputs[:2]
        fits = weight.is_constant and weight.type.ndim == 2 and x.type.ndim >= 3 and len(node.inputs) == 2
        return (x, weight) if fits else nothing
    if node.op != "conv" or node.attrs.get("layout") != "NHWC" or node.attrs.get("group", 1) != 1:
        return nothing
    x, weight = node.inputs[:2]
    if not weight.is_constant or any(not is_one(d) for d in weight.shape[:-2]):
        return nothing
    if any(s != 1 for s in node.attrs.get("strides", ())) or any(p != 0 for p in node.attrs.get("pads", ())):
        return nothing
    return x, weight


def _same(a: Sequence[Expr], b: Sequence[Expr]) -> bool:
    return len(a) == len(b) and all(x is y for x, y in zip(a, b, strict=True))
