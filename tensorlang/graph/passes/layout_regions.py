"""Which convolutions stay channels-second: those among so few that going to channels-last and back costs more than it gains.

    return relu(conv(%x, %w, layout=NCHW))                       stays: two transpositions, for one convolution
    return conv(relu(conv(... conv(%x))))                        goes to channels-last: two transpositions, for many

Convolutions, and the operators between them that work in either layout, form regions, within which nothing is transposed.
A region that goes to channels-last pays for the values that cross its border; one that stays pays for what the convolutions
lose by running their vectors along the lines of the image: lanes that stick out of the lines. Depthwise convolutions lose
nothing; pointwise ones are products of matrices over whole planes; those that Winograd's method may take, groups and symbolic
sizes are at home in channels-last only.
"""

from __future__ import annotations

from math import ceil, inf, prod

from tensorlang.graph.ir import Graph, Node, Value
from tensorlang.graph.ops.winograd import TAPS
from tensorlang.graph.passes.layout_rules import channels_last, commute
from tensorlang.graph.passes.shape_ops import moves_no_data
from tensorlang.graph.registry import as_ints
from tensorlang.graph.rewrite import bytes_of
from tensorlang.ir.expr import Expr

# Multiply-adds done while a byte is transposed: about 70 G a second beside 7 GB read and written, measured on two cores.
PER_BYTE = 10.0
LINES = 0.05  # by how much a window over lines is slower than one over channels-last images, apart from the lanes


def channels_second(graph: Graph, lanes: int) -> set[Node]:
    """The convolutions of `graph` to leave in the model's layout, on a machine with `lanes` elements in a vector."""
    regions = _Regions(graph)
    kept: set[Node] = set()
    for members in regions.members():
        convolutions = [n for n in members if is_convolution(n)]
        loss = sum(_loss(n, lanes) for n in convolutions)
        if loss < inf and loss < PER_BYTE * regions.border(members):
            kept.update(convolutions)
    return kept


def is_convolution(node: Node) -> bool:
    """A convolution of the model's layout with constant filters."""
    plain = node.op in ("conv", "conv_transpose") and node.attrs.get("layout", "NCHW") == "NCHW"
    return plain and node.inputs[1].is_constant


def is_pointwise(node: Node) -> bool:
    """Whether a convolution is a product of its filters, as a matrix, with the planes of (a part of) the image."""
    if node.op != "conv" or node.attrs.get("group", 1) != 1 or any(d != 1 for d in node.inputs[1].type.static_shape[2:]):
        return False
    return all(not isinstance(p, Expr) and p == 0 for p in node.attrs["pads"])


class _Regions:
    """Nodes joined by the values that pass between them: a forest, in which each tree is a region."""

    def __init__(self, graph: Graph):
        self.uses = graph.uses()
        self.outputs = set(graph.outputs)
        self.above: dict[Node, Node] = {n: n for n in graph.nodes if is_convolution(n) or _either(n)}
        for node in self.above:
            for value in _images(node):
                if value.producer in self.above:
                    self.above[self.root(value.producer)] = self.root(node)

    def root(self, node: Node) -> Node:
        while self.above[node] is not node:
            self.above[node] = node = self.above[self.above[node]]
        return node

    def members(self) -> list[list[Node]]:
        found: dict[Node, list[Node]] = {}
        for node in self.above:
            found.setdefault(self.root(node), []).append(node)
        return list(found.values())

    def border(self, members: list[Node]) -> int:
        """Bytes that would be transposed if all of the region were channels-last, but for those that the model itself
        transposes; images of one point count nothing."""
        inside = set(members)
        crossing: set[Value] = set()
        for node in members:
            crossing.update(v for v in _images(node) if v.producer not in inside)
            for value in node.outputs:
                readers = self.uses.get(value, ())
                if value in self.outputs or any(reader not in inside for reader in readers):
                    crossing.add(value)
        return sum(self._moved(v, inside) for v in crossing)

    def _moved(self, value: Value, inside: set[Node]) -> int:
        if value.type.ndim < 3 or moves_no_data(value.shape, channels_last(value.type.ndim)):
            return 0
        if value.producer is not None and value.producer.op == "transpose":
            return 0
        for reader in self.uses.get(value, ()):
            seen = self.uses.get(reader.output, ()) if reader.op == "reshape" else [reader]
            if reader not in inside and any(n.op == "transpose" for n in seen):
                return 0
        return bytes_of(value.type)


def _images(node: Node) -> list[Value]:
    """The operands that are in a layout."""
    if is_convolution(node):
        return [node.inputs[0]]
    return [v for v in node.inputs if not v.is_constant and v.type.ndim == node.output.type.ndim]


def _either(node: Node) -> bool:
    """Whether the operator works on channels-last images as well."""
    rank = node.output.type.ndim
    return rank >= 3 and len(node.outputs) == 1 and bool(_images(node)) and commute(node, channels_last(rank)) is not None


def _loss(node: Node, lanes: int) -> float:
    """Multiply-adds' worth of time that a convolution loses by staying channels-second; infinite if it must not."""
    shape, weight = as_ints(node.output.shape), node.inputs[1].type
    group = node.attrs.get("group", 1)
    if node.op != "conv" or shape is None or as_ints(node.inputs[0].shape) is None or weight.dtype.name != "f32":
        return inf
    filters, per_group, *kernel = weight.static_shape
    if per_group == 1 and filters == group:
        return 0.0
    if group != 1:
        return inf
    work = prod(shape) * per_group * prod(kernel)
    if is_pointwise(node) and prod(shape[2:]) == 1:
        return 0.0
    if is_pointwise(node):
        return work * (_round_up(prod(shape[2:]), lanes) - 1)
    winograd = all(k == TAPS for k in kernel) and all(s == 1 for s in (*node.attrs["strides"], *node.attrs["dilations"]))
    return inf if winograd and len(kernel) == 2 else work * (_round_up(shape[-1], lanes) - 1 + LINES)


def _round_up(size: int, lanes: int) -> float:
    """How many lanes are busy, or idle, per element of a line."""
    return ceil(size / lanes) * lanes / size
