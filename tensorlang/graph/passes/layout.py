"""Channels-last convolutions, and as few transpositions as possible.

    %a = conv(%x, %w, layout=NCHW)              %x' = transpose(%x, perm=[0, 2, 3, 1])
    %b = relu(%a)                               %a' = conv(%x', %w', layout=NHWC)
    %c = conv(%b, %v, layout=NCHW)        ->    %b' = relu(%a')
    return %c                                   %c' = conv(%b', %v', layout=NHWC)
                                                %c = transpose(%c', perm=[0, 3, 1, 2])

Channels-last makes the innermost, vectorised dimension that of the channels: a pointwise convolution is a matrix product, a
depthwise one needs no reduction across lanes, and bias and scales are read along lanes.

How: in one walk from the inputs down, every value is *held* in one layout, some permutation of the model's own, and
other layouts of it are made when first asked for (and then kept). A convolution asks for channels-last and leaves its
result so. A transposition of the model moves nothing: its result is held as what it reads, under another permutation.
Everything else works in whichever of its operands' layouts moves the fewest bytes, if the table of `layout_rules` says
that it commutes with it; what does not asks for the model's layout. A pair of opposite transpositions thus never comes
to be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tensorlang.graph.ir import Graph, Node, Value
from tensorlang.graph.passes.context import Context, subject_of
from tensorlang.graph.passes.layout_regions import channels_second, is_convolution
from tensorlang.graph.passes.layout_rules import Commuted, channels_last, commute
from tensorlang.graph.passes.rules import simplify_node
from tensorlang.graph.passes.shape_ops import Perm, compose, inverse, moves_no_data, reshape, transpose
from tensorlang.graph.rewrite import Rewriter, array_of, bytes_of, is_one

PER_AXIS = {"strides": 1, "dilations": 1, "pads": 0, "output_padding": 0}  # with the value for an axis of size one


def layout(graph: Graph, context: Context | None = None) -> Graph:
    """Move convolutions (and what lies between them) to channels-last, and transpositions to where they cost least."""
    context = context or Context()
    if context.options.layout != "NHWC":
        return graph
    return _Layouts(graph, context).run()


class _Layouts:
    """The walk: `held[v]` is (permutation, new value) with `new value = transpose(v, permutation)`; `forms` are all known."""

    def __init__(self, graph: Graph, context: Context):
        self.graph = graph
        self.context = context
        self.rw = Rewriter(graph, lambda rw, node: simplify_node(rw, node, context.options.fold_limit))
        self.converted = False
        self.kept = channels_second(graph, context.options.lanes) if context.options.channels_second else set()
        self.held: dict[Value, tuple[Perm, Value]] = {}
        self.forms: dict[Value, dict[Perm, Value]] = {}

    def run(self) -> Graph:
        for node in self.graph.nodes:
            if not (self._transpose(node) or self._conv(node) or self._in_best_layout(node)):
                self._as_it_is(node)
        for value in self.graph.outputs:
            self.rw.replace(value, self.get(value, _identity(value)))
        after = self.rw.finish()
        return after if self.converted or _moved(after) < _moved(self.graph) else self.graph

    # -- layouts of values -----------------------------------------------------------------------------------------
    def hold(self, value: Value, perm: Perm, new: Value) -> None:
        """From now on `value` is at hand as `new = transpose(value, perm)`."""
        if new is not value:
            self.rw.name_after(new, value)
        if moves_no_data(value.shape, perm) and perm != _identity(value):
            own = _identity(value)  # free: so that readers of either layout find it
            self.forms[value] = {perm: new, own: reshape(self.rw, new, value.shape)}
            self.held[value] = perm, new
            return
        self.held[value] = perm, new
        self.forms[value] = {perm: new}

    def holding(self, value: Value) -> tuple[Perm, Value]:
        if value not in self.held:
            self.hold(value, _identity(value), self.rw[value])
        return self.held[value]

    def get(self, value: Value, perm: Perm) -> Value:
        """`transpose(value, perm)`; the value is broadcast to the permutation's rank first."""
        missing = len(perm) - value.type.ndim
        if missing:
            return self._get_broadcast(value, perm, missing)
        held, new = self.holding(value)
        known = self.forms[value]
        if perm not in known:
            known[perm] = transpose(self.rw, new, compose(inverse(held), perm), value.producer)
        return known[perm]

    def _get_broadcast(self, value: Value, perm: Perm, missing: int) -> Value:
        own = self.get(value, _identity(value))
        padded = reshape(self.rw, own, [1] * missing + list(own.shape))
        moved = transpose(self.rw, padded, perm)
        leading = 0
        while leading < moved.type.ndim - 1 and is_one(moved.shape[leading]):
            leading += 1
        # constants of fewer dimensions stay so: a bias per channel is a vector
        return reshape(self.rw, moved, moved.shape[leading:]) if moved.is_constant else moved

    def cost(self, value: Value, perm: Perm | None) -> int:
        """Bytes that `get(value, perm)` has to move."""
        if perm is None or value.is_constant:
            perm = _identity(value)
        if len(perm) != value.type.ndim:
            held, _ = self.holding(value)
            moved = held != _identity(value) and not moves_no_data(value.shape, held)
            many = sum(not is_one(d) for d in value.shape) > 1
            return bytes_of(value.type) if moved or many else 0
        held, new = self.holding(value)
        if perm in self.forms[value] or value.is_constant or moves_no_data(new.shape, compose(inverse(held), perm)):
            return 0
        return bytes_of(value.type)

    # -- nodes -----------------------------------------------------------------------------------------------------
    def emit(self, node: Node, inputs: Sequence[Value], attrs: Mapping[str, Any]) -> list[Value]:
        if attrs is node.attrs and all(a is b for a, b in zip(inputs, node.inputs, strict=True)):
            return self.rw.copy(node)
        return self.rw.add_all(node.op, inputs, attrs, node)

    def _as_it_is(self, node: Node) -> None:
        inputs = [self.get(v, _identity(v)) for v in node.inputs]
        for old, new in zip(node.outputs, self.emit(node, inputs, node.attrs), strict=True):
            self.hold(old, _identity(old), new)

    def _transpose(self, node: Node) -> bool:
        """t = transpose(x, q) is held as what x is held as: transpose(t, q^-1 p) = transpose(x, p)."""
        if node.op != "transpose" or node.inputs[0].is_constant:
            return False
        perm, new = self.holding(node.inputs[0])
        back = inverse(node.attrs["perm"])
        self.hold(node.output, compose(back, perm), new)
        for other, form in self.forms[node.inputs[0]].items():
            self.forms[node.output][compose(back, other)] = form
        return True

    def _conv(self, node: Node) -> bool:
        """Convolutions with constant weights go to channels-last; one along a line to one over an image of height one."""
        if not is_convolution(node):
            return False
        if node in self.kept:
            self.context.note(subject_of(node), "channels-second: too few convolutions here to repay transpositions")
            return False
        x, weight = node.inputs[:2]
        perm = channels_last(x.type.ndim)
        array = _channels_last_weights(node)
        attrs = dict(node.attrs, layout="NHWC")
        data = self.get(x, perm)
        if x.type.ndim == 3:
            n, w, c = data.shape
            data = reshape(self.rw, data, (n, 1, w, c), node)
            array = array[None]
            attrs.update({name: _over_image(name, attrs[name]) for name in PER_AXIS if name in attrs})
        new = self.rw.add(node.op, [data, self.rw.constant(array, weight.name), *node.inputs[2:]], attrs, node)
        if x.type.ndim == 3:
            n, _, w, c = new.shape
            new = reshape(self.rw, new, (n, w, c), node)
        self.context.note(subject_of(node), "channels-last")
        self.converted = True
        self.hold(node.output, perm, new)
        return True

    def _in_best_layout(self, node: Node) -> bool:
        """Work in the operand layout that moves the fewest bytes; among equals in that which most bytes are in already."""
        options: dict[Perm, int] = {}
        rank = max((v.type.ndim for v in node.inputs), default=0)
        for value in node.inputs:
            if not value.is_constant and value.type.ndim == rank:
                perm = self.holding(value)[0]
                options[perm] = options.get(perm, 0) + bytes_of(value.type)
        if not any(p != tuple(range(len(p))) for p in options):
            return False
        best: tuple[tuple[int, int], Commuted] | None = None
        for perm, present in options.items():
            found = commute(node, perm)
            if found is None:
                continue
            cost = sum(self.cost(v, p) for v, p in zip(node.inputs, found.inputs, strict=True))
            if best is None or (cost, -present) < best[0]:
                best = (cost, -present), found
        own = sum(self.cost(v, _identity(v)) for v in node.inputs)
        if best is None or own < best[0][0]:
            return False
        found = best[1]
        inputs = [self.get(v, p or _identity(v)) for v, p in zip(node.inputs, found.inputs, strict=True)]
        for old, perm, new in zip(node.outputs, found.outputs, self.emit(node, inputs, found.attrs), strict=True):
            self.hold(old, perm, new)
        return True


def _moved(graph: Graph) -> int:
    """Bytes that transpositions move."""
    return sum(bytes_of(n.output.type) for n in graph.nodes if n.op == "transpose")


def _identity(value: Value) -> Perm:
    return tuple(range(value.type.ndim))


def _channels_last_weights(node: Node) -> np.ndarray:
    """OI + kernel (transposed: IO + kernel) to kernel + IO; depthwise to kernel + C."""
    weight = array_of(node.inputs[1])
    spatial = tuple(range(2, weight.ndim))
    if node.op == "conv_transpose":
        return np.ascontiguousarray(weight.transpose(*spatial, 0, 1))
    out_channels, per_group = weight.shape[:2]
    if per_group == 1 and out_channels == node.attrs.get("group", 1) and out_channels > 1:
        return np.ascontiguousarray(np.moveaxis(weight[:, 0], 0, -1))
    return np.ascontiguousarray(weight.transpose(*spatial, 1, 0))


def _over_image(name: str, value: Sequence[Any]) -> tuple[Any, ...]:
    """An attribute per spatial axis, of a line, as that of an image of height one."""
    extra = PER_AXIS[name]
    return (extra, value[0], extra, value[1]) if name == "pads" else (extra, *value)
