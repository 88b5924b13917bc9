"""Sequences and optionals: lists of graph values while importing; nothing of them is left in the graph.

    SequenceConstruct(a, b)            TensorList(a, b)
    SequenceInsert, in a run-time loop Grown(...): what this trip appends; after the loop it is a `Stack` of all trips
    Optional(x)                        Maybe(x)

What only a run can tell (an index into a list of tensors of different shape) is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tensorlang.graph import Value, canonical, product

from .node import Item, OnnxNode, Structured, size_value
from .registry import onnx_op


@dataclass(frozen=True)
class TensorList(Structured):
    """A sequence of so many tensors."""

    items: tuple[Value, ...] = ()

    def map(self, change: Callable[[Value], Value]) -> TensorList:
        return TensorList(tuple(map(change, self.items)))


@dataclass(frozen=True)
class Grown(Structured):
    """In the body of a loop: a sequence whose earlier elements are other trips', and what this trip appends."""

    items: tuple[Value, ...] = ()
    kind = "a sequence that a loop appends to"

    def map(self, change: Callable[[Value], Value]) -> Grown:
        return Grown(tuple(map(change, self.items)))


@dataclass(frozen=True)
class Stack(Structured):
    """A sequence of tensors of one shape, as many as a run tells: `value` holds them along its first dimension."""

    value: Value
    kind = "a sequence whose length a run tells"

    def map(self, change: Callable[[Value], Value]) -> Stack:
        return Stack(change(self.value))


@dataclass(frozen=True)
class Maybe(Structured):
    """An optional with its element, or None."""

    item: Item | None = None
    kind = "an optional"

    def map(self, change: Callable[[Value], Value]) -> Maybe:
        item = self.item
        if item is None:
            return self
        return Maybe(item.map(change) if isinstance(item, Structured) else change(item))


def _sequence(node: OnnxNode, position: int = 0) -> TensorList | Grown | Stack:
    found = node.item(position)
    if isinstance(found, Maybe):
        found = found.item
    if not isinstance(found, TensorList | Grown | Stack):
        raise node.fail(f"input {position} is no sequence")
    return found


def _list(node: OnnxNode, position: int = 0) -> TensorList:
    found = _sequence(node, position)
    if not isinstance(found, TensorList):
        raise node.unsupported(f"input {position} is {found.kind}")
    return found


def _place(node: OnnxNode, position: int, count: int, last: int) -> int:
    """A position in a sequence of `count`, counted from the front; negative ones count from the back."""
    index = int(node.known(position, "a position in a sequence").reshape(()))
    if not -count <= index <= last:
        raise node.fail(f"position {index} in a sequence of {count}")
    return index + count if index < 0 else index


@onnx_op("SequenceConstruct", since=11)
def sequence_construct(node: OnnxNode) -> Item:
    return TensorList(tuple(node.all_inputs()))


@onnx_op("SequenceEmpty", since=11)
def sequence_empty(node: OnnxNode) -> Item:
    return TensorList()


@onnx_op("SequenceInsert", since=11)
def sequence_insert(node: OnnxNode) -> Item:
    into, value = _sequence(node), node.input(1)
    if isinstance(into, Grown) and node.item(2) is None:
        return Grown((*into.items, value))
    items = _list(node).items
    at = len(items) if node.item(2) is None else _place(node, 2, len(items), len(items))
    return TensorList((*items[:at], value, *items[at:]))


@onnx_op("SequenceErase", since=11)
def sequence_erase(node: OnnxNode) -> Item:
    items = _list(node).items
    if not items:
        raise node.fail("the sequence is empty")
    at = len(items) - 1 if node.item(1) is None else _place(node, 1, len(items), len(items) - 1)
    return TensorList(items[:at] + items[at + 1 :])


@onnx_op("SequenceAt", since=11)
def sequence_at(node: OnnxNode) -> Value:
    sequence = _sequence(node)
    if isinstance(sequence, Stack):
        return node.add("gather", sequence.value, node.add("reshape", node.input(1), shape=()), axis=0)
    items = _list(node).items
    if node.known_or_none(1) is None and items and all(v.type == items[0].type for v in items):
        stack = node.add("concat", *(_with_axis(node, v, 0) for v in items), axis=0)
        return node.add("gather", stack, node.add("reshape", node.input(1), shape=()), axis=0)
    return items[_place(node, 1, len(items), len(items) - 1)]


@onnx_op("SequenceLength", since=11)
def sequence_length(node: OnnxNode) -> Value:
    sequence = _sequence(node)
    if isinstance(sequence, Stack):
        return size_value(node, sequence.value, 0)
    return node.constant(np.array(len(_list(node).items), np.int64))


@onnx_op("ConcatFromSequence", since=11)
def concat_from_sequence(node: OnnxNode) -> Value:
    sequence, new = _sequence(node), bool(node.attr("new_axis", 0))
    if isinstance(sequence, Stack):
        return _concat_stack(node, sequence.value, new)
    items = list(_list(node).items)
    if not items:
        raise node.fail("the sequence is empty")
    rank = items[0].type.ndim
    if new:
        axis = node.normal_axis(node.attr("axis"), rank + 1)
        items = [_with_axis(node, v, axis) for v in items]
    else:
        axis = node.normal_axis(node.attr("axis"), rank)
    return items[0] if len(items) == 1 else node.add("concat", *items, axis=axis)


def _concat_stack(node: OnnxNode, stack: Value, new: bool) -> Value:
    rank = stack.type.ndim - 1
    axis = node.normal_axis(node.attr("axis"), rank + new)
    order = [*range(1, axis + 1), 0, *range(axis + 1, rank + 1)]
    moved = node.add("transpose", stack, perm=tuple(order)) if axis else stack
    if new:
        return moved
    shape = moved.shape
    merged = canonical(product(shape[axis : axis + 2]))
    return node.add("reshape", moved, shape=(*shape[:axis], merged, *shape[axis + 2 :]))


def _with_axis(node: OnnxNode, value: Value, axis: int) -> Value:
    return node.add("reshape", value, shape=(*value.shape[:axis], 1, *value.shape[axis:]))


@onnx_op("SplitToSequence", since=11)
def split_to_sequence(node: OnnxNode) -> Item:
    x = node.input(0)
    axis = node.axis("axis", x.type.ndim, 0)
    total = x.shape[axis]
    keep = True
    if node.item(1) is None:
        keep = bool(node.attr("keepdims", 1))
        if total.op != "const":
            raise node.unsupported(f"dimension {axis} of {x.type} is not known, so neither is the number of parts")
        sizes = [canonical(1)] * total.value
    elif node.input(1).type.ndim:
        sizes = node.dims(1, "the sizes")
    else:
        part = int(node.known(1, "the size of a part").reshape(()))
        if total.op != "const":
            raise node.unsupported(f"dimension {axis} of {x.type} is not known, so neither is the number of parts")
        if part <= 0:
            raise node.fail(f"parts of size {part}")
        sizes = [canonical(min(part, total.value - k)) for k in range(0, total.value, part)]
    items, begin = [], canonical(0)
    for size in sizes:
        starts = tuple(begin if a == axis else 0 for a in range(x.type.ndim))
        shape = tuple(size if a == axis else d for a, d in enumerate(x.shape))
        value = node.add("slice", x, starts=starts, shape=shape, steps=(1,) * x.type.ndim)
        if not keep:
            value = node.add("reshape", value, shape=(*x.shape[:axis], *x.shape[axis + 1 :]))
        items.append(value)
        begin = canonical(begin + size)
    return TensorList(tuple(items))


@onnx_op("SequenceMap", since=17)
def sequence_map(node: OnnxNode) -> tuple[Item, ...]:
    """The body, once for each element."""
    count = len(_list(node).items)
    given = [node.item(i) for i in range(len(node.inputs))]
    results: list[list[Value]] = [[] for _ in range(node.output_count)]
    for k in range(count):
        now: list[Item] = []
        for position, item in enumerate(given):
            if isinstance(item, Structured):
                items = _list(node, position).items
                if len(items) != count:
                    raise node.fail(f"sequences of {count} and {len(items)} elements")
                now.append(items[k])
            else:
                now.append(node.input(position))
        for column, value in zip(results, node.subgraph_values(node.graph("body"), now), strict=True):
            column.append(value)
    return tuple(TensorList(tuple(column)) for column in results)


@onnx_op("Optional", since=15)
def optional(node: OnnxNode) -> Item:
    return Maybe(node.item(0))


@onnx_op("OptionalHasElement", since=15)
def optional_has_element(node: OnnxNode) -> Value:
    item = node.item(0)
    return node.constant(np.array(item is not None and not (isinstance(item, Maybe) and item.item is None)))


@onnx_op("OptionalGetElement", since=15)
def optional_get_element(node: OnnxNode) -> Item:
    item = node.item(0)
    if isinstance(item, Maybe):
        item = item.item
    if item is None:
        raise node.fail("the optional is empty")
    return item
