"""How each operator commutes with a permutation of its dimensions: the table that the layout pass works by.

A rule is asked: the input that leads is at hand as `stored = transpose(x, perm)`; can the node work on that, and in which
layout is its result then?

    relu(transpose(x, p))                 = transpose(relu(x), p)
    concat(transpose(x, p), ..., axis)    = transpose(concat(x, ..., p[axis]), p)
    reduce_mean(transpose(x, p), axes)    = transpose(reduce_mean(x, p[axes]), p without axes)

An operator without a rule here, and every case where the rule answers None, works on the model's own layout.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tensorlang.graph.ir import Node
from tensorlang.graph.ops.common import plain
from tensorlang.graph.passes.shape_ops import Perm, factor
from tensorlang.graph.registry import ELEMENTWISE, get
from tensorlang.graph.rewrite import is_one


@dataclass(frozen=True)
class Commuted:
    """The node over permuted operands.

    Attributes:
        inputs: for each input the permutation it must come in; one longer than the input's rank means that the input is
            broadcast to that rank first; None means as it is.
        attrs: the node's attributes, renumbered.
        outputs: the permutation each result is in, relative to the model's layout.
    """

    inputs: Sequence[Perm | None]
    attrs: Mapping[str, Any]
    outputs: Sequence[Perm]


Rule = Callable[[Node, Perm], Commuted | None]
_RULES: dict[str, Rule] = {}


def commutes(*ops: str) -> Callable[[Rule], Rule]:
    def register(function: Rule) -> Rule:
        for op in ops:
            _RULES[op] = function
        return function

    return register


def commute(node: Node, perm: Perm) -> Commuted | None:
    """`node` over its leading input in layout `perm` (a permutation of the output's dimensions for elementwise ones)."""
    rule = _RULES.get(node.op)
    if rule is not None:
        return rule(node, perm)
    if get(node.op).kind is ELEMENTWISE and "axis" not in node.attrs:
        return elementwise(node, perm)
    return None


def channels_last(rank: int) -> Perm:
    """(N, C, spatial...) to (N, spatial..., C)."""
    return (0, *range(2, rank), 1)


def elementwise(node: Node, perm: Perm) -> Commuted | None:
    if len(perm) != node.output.type.ndim:
        return None
    inputs = [None if all(is_one(d) for d in v.shape) else perm for v in node.inputs]
    return Commuted(inputs, node.attrs, [perm] * len(node.outputs))


@commutes("max_pool", "avg_pool", "global_avg_pool", "global_max_pool", "lp_pool")
def _pool(node: Node, perm: Perm) -> Commuted | None:
    if perm != channels_last(len(perm)) or node.attrs.get("layout", "NCHW") != "NCHW" or len(node.outputs) != 1:
        return None
    return Commuted([perm], dict(node.attrs, layout="NHWC"), [perm])


@commutes("concat")
def _concat(node: Node, perm: Perm) -> Commuted | None:
    return Commuted([perm] * len(node.inputs), dict(node.attrs, axis=perm.index(node.attrs["axis"])), [perm])


@commutes("softmax", "log_softmax", "cumsum", "argmax", "argmin", "topk", "lp_norm")
def _along_axis(node: Node, perm: Perm) -> Commuted | None:
    axis = node.attrs.get("axis")
    if axis is None or any(v.type.ndim != len(perm) for v in node.outputs):
        return None
    inputs = [perm] + [None] * (len(node.inputs) - 1)
    return Commuted(inputs, dict(node.attrs, axis=perm.index(axis)), [perm] * len(node.outputs))


@commutes("layer_norm", "rms_norm")
def _normalise(node: Node, perm: Perm) -> Commuted | None:
    """Dimensions from `axis` on are normalised together, and scale and offset have their shape: they stay where they are."""
    axis = node.attrs["axis"] % len(perm)
    if perm[axis:] != tuple(range(axis, len(perm))) or len(node.outputs) != 1:
        return None
    return Commuted([perm] + [None] * (len(node.inputs) - 1), node.attrs, [perm])


@commutes("slice")
def _slice(node: Node, perm: Perm) -> Commuted | None:
    attrs = {k: _permuted(v, perm) if k in ("starts", "steps", "shape") else v for k, v in node.attrs.items()}
    return Commuted([perm], attrs, [perm]) if len(node.inputs) == 1 else None


@commutes("pad")
def _pad(node: Node, perm: Perm) -> Commuted | None:
    pads, rank = node.attrs["pads"], len(perm)
    if len(pads) != 2 * rank:
        return None
    moved = (*_permuted(pads[:rank], perm), *_permuted(pads[rank:], perm))
    return Commuted([perm] + [None] * (len(node.inputs) - 1), dict(node.attrs, pads=moved), [perm])


@commutes("resize_nearest", "resize_linear", "resize_cubic")
def _resize(node: Node, perm: Perm) -> Commuted | None:
    if len(node.inputs) != 1 or any(isinstance(v, list | tuple) for k, v in node.attrs.items() if k not in ("shape", "scales")):
        return None
    attrs = {k: _permuted(v, perm) if k in ("shape", "scales") else v for k, v in node.attrs.items()}
    return Commuted([perm], attrs, [perm])


@commutes("batch_norm")
def _batch_norm(node: Node, perm: Perm) -> Commuted | None:
    return Commuted([perm, None, None, None, None], dict(node.attrs, axis=perm.index(node.attrs.get("axis", 1))), [perm])


@commutes("expand", "tile")
def _expand(node: Node, perm: Perm) -> Commuted | None:
    if len(node.inputs) != 1 or node.inputs[0].type.ndim != len(perm) or node.output.type.ndim != len(perm):
        return None
    if any(isinstance(v, list | tuple) and len(v) != len(perm) for v in node.attrs.values()):
        return None  # a shape that is itself stretched at the front
    attrs = {k: _permuted(v, perm) if isinstance(v, list | tuple) else v for k, v in node.attrs.items()}
    return Commuted([perm], attrs, [perm])


@commutes("reduce_sum", "reduce_mean", "reduce_max", "reduce_min", "reduce_prod", "reduce_l1", "reduce_l2", "reduce_sum_square")
def _reduce(node: Node, perm: Perm) -> Commuted | None:
    axes, keep = node.attrs.get("axes"), node.attrs.get("keepdims", True)
    if axes is None or len(node.inputs) != 1:
        return None
    attrs = dict(node.attrs, axes=tuple(sorted(perm.index(a) for a in axes)))
    kept = [a for a in range(len(perm)) if a not in axes]
    out = perm if keep else tuple(kept.index(p) for p in perm if p not in axes)
    return Commuted([perm], attrs, [out])


@commutes("gather")
def _gather(node: Node, perm: Perm) -> Commuted | None:
    """The gathered dimension becomes those of the indices, in place."""
    axis, rank = node.attrs["axis"], node.inputs[1].type.ndim
    out: list[int] = []
    for p in perm:
        out += range(axis, axis + rank) if p == axis else [p if p < axis else p + rank - 1]
    return Commuted([perm, None], dict(node.attrs, axis=perm.index(axis)), [tuple(out)])


@commutes("matmul")
def _matmul(node: Node, perm: Perm) -> Commuted | None:
    """Batch dimensions may be in any order, rows and columns stay."""
    rank = node.output.type.ndim
    fixed = (rank - 2, rank - 1)
    if len(perm) != rank or perm[-2:] != fixed or any(v.type.ndim not in (2, rank) for v in node.inputs):
        return None
    return Commuted([perm if v.type.ndim == rank else None for v in node.inputs], node.attrs, [perm])


@commutes("reshape")
def _reshape(node: Node, perm: Perm) -> Commuted | None:
    """Dimensions that merge or split together must lie side by side, in order; asked for another layout, the rule answers
    with the nearest that fits: groups in the order of their innermost dimensions, so that these stay innermost."""
    groups = factor(node.inputs[0].shape, node.output.shape)
    if groups is None:
        return None
    place = {axis: position for position, axis in enumerate(perm)}
    order = sorted(range(len(groups)), key=lambda g: _rank_of_group(groups, g, place))
    wanted = tuple(a for g in order for a in groups[g][0])
    out = tuple(b for g in order for b in groups[g][1])
    shape = plain([node.output.shape[b] for b in out])
    return Commuted([wanted], dict(node.attrs, shape=shape), [out])


def _rank_of_group(groups: list[tuple[list[int], list[int]]], g: int, place: dict[int, int]) -> tuple[float, int]:
    """A group that reads nothing (a new dimension of size one) goes before the one that follows it in the result."""
    for later in range(g, len(groups)):
        if groups[later][0]:
            return place[groups[later][0][-1]], g
    return float("inf"), g


def _permuted(items: Sequence[Any], perm: Perm) -> tuple[Any, ...]:
    return tuple(items[p] for p in perm)
