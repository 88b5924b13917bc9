"""Einsum, two operands at a time, by products of matrices wherever its labels allow."""

from __future__ import annotations

from collections.abc import Sequence

from tensorlang.graph import Expr, Value, canonical

from .node import OnnxNode
from .registry import onnx_op

_ELLIPSIS = "."  # in parsed terms: dimensions of "..." are labelled ".0", ".1", ... from the right


@onnx_op("Einsum")
def einsum(node: OnnxNode) -> Value:
    terms, result = _parse(node)
    values = node.all_inputs()
    value, labels = values[0], terms[0]
    value, labels = _once(node, value, labels)
    for position in range(1, len(values)):
        other, theirs = _once(node, values[position], terms[position])
        later = {label for term in terms[position + 1 :] for label in term}
        kept = [k for k in dict.fromkeys((*labels, *theirs)) if k in later or k in result]
        value, labels = _product(node, value, labels, other, theirs, kept)
    value, labels = _summed(node, value, labels, result)
    return _ordered(node, value, labels, result)


def _parse(node: OnnxNode) -> tuple[list[list[str]], list[str]]:
    """Labels of every operand's dimensions, and of the result's."""
    equation = node.attr("equation").replace(" ", "")
    left, arrow, right = equation.partition("->")
    parts = left.split(",")
    if len(parts) != len(node.inputs):
        raise node.fail(f"the equation {equation!r} has {len(parts)} operand(s), the node {len(node.inputs)}")
    terms = [_labels(node, part, value.type.ndim) for part, value in zip(parts, node.all_inputs(), strict=True)]
    spread = max((sum(k.startswith(_ELLIPSIS) for k in term) for term in terms), default=0)
    dots = [f"{_ELLIPSIS}{n}" for n in reversed(range(spread))]
    if arrow:
        head, found, tail = right.partition("...")
        result = [*head, *(dots if found else ()), *tail]
    else:
        letters = "".join(parts).replace(".", "")
        result = [*dots, *sorted(k for k in set(letters) if letters.count(k) == 1)]
    known = {k for term in terms for k in term}
    if unknown := [k for k in result if k not in known]:
        raise node.fail(f"the equation {equation!r} names {unknown[0]!r} in its result only")
    if len(set(result)) != len(result):
        raise node.fail(f"the equation {equation!r} names a dimension of the result twice")
    return terms, result


def _labels(node: OnnxNode, part: str, ndim: int) -> list[str]:
    head, found, tail = part.partition("...")
    spread = ndim - len(head) - len(tail)
    if spread < 0 or (not found and spread):
        raise node.fail(f"the operand {part!r} of the equation has {ndim} dimension(s)")
    return [*head, *(f"{_ELLIPSIS}{n}" for n in reversed(range(spread))), *tail]


def _once(node: OnnxNode, x: Value, labels: Sequence[str]) -> tuple[Value, list[str]]:
    """x with the diagonal taken of every label that comes twice."""
    unique = list(dict.fromkeys(labels))
    if len(unique) == len(labels):
        return x, unique
    return node.add("relabel", x, labels=tuple(unique.index(k) for k in labels)), unique


def _summed(node: OnnxNode, x: Value, labels: Sequence[str], kept: Sequence[str]) -> tuple[Value, list[str]]:
    """x summed over all labels that are not kept."""
    axes = tuple(a for a, k in enumerate(labels) if k not in kept)
    if not axes:
        return x, list(labels)
    return node.add("reduce_sum", x, axes=axes, keepdims=False), [k for k in labels if k in kept]


def _ordered(node: OnnxNode, x: Value, labels: Sequence[str], wanted: Sequence[str]) -> Value:
    perm = tuple(list(labels).index(k) for k in wanted)
    return x if perm == tuple(range(len(perm))) else node.add("transpose", x, perm=perm)


def _is_one(d: Expr) -> bool:
    return d.op == "const" and d.value == 1


def _product(
    node: OnnxNode, a: Value, mine: list[str], b: Value, theirs: list[str], kept: Sequence[str]
) -> tuple[Value, list[str]]:
    """The product of two operands, summed over all labels that are not kept: a batch of matrix products.

    Labels of "..." of size 1 on one side broadcast.
    """
    a, mine = _summed(node, a, mine, [*kept, *theirs])
    b, theirs = _summed(node, b, theirs, [*kept, *mine])
    sizes_a, sizes_b = dict(zip(mine, a.shape, strict=True)), dict(zip(theirs, b.shape, strict=True))
    shared = [k for k in mine if k in theirs]
    inner = [k for k in shared if k not in kept and not (_is_one(sizes_a[k]) ^ _is_one(sizes_b[k]))]
    batch = [k for k in shared if k not in inner]
    rows, columns = [k for k in mine if k not in shared], [k for k in theirs if k not in shared]
    left = _matrix(node, _ordered(node, a, mine, [*batch, *rows, *inner]), len(batch), len(rows))
    right = _matrix(node, _ordered(node, b, theirs, [*batch, *inner, *columns]), len(batch), len(inner))
    sizes = [sizes_b[k] if _is_one(sizes_a[k]) else sizes_a[k] for k in batch]
    if inner:
        y = node.add("matmul", left, right)
    else:  # an outer product: nothing is summed
        y = node.add("mul", left, right)
    y = node.add("reshape", y, shape=(*sizes, *(sizes_a[k] for k in rows), *(sizes_b[k] for k in columns)))
    return _summed(node, y, [*batch, *rows, *columns], kept)


def _matrix(node: OnnxNode, x: Value, batch: int, rows: int) -> Value:
    """x with its dimensions after the first `batch` merged into two: `rows` of them, and the rest."""
    first, second = x.shape[batch : batch + rows], x.shape[batch + rows :]
    return node.add("reshape", x, shape=(*x.shape[:batch], _size(first), _size(second)))


def _size(dims: Sequence[Expr]) -> Expr:
    total = canonical(1)
    for d in dims:
        total = canonical(total * d)
    return total
