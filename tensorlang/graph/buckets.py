"""`shapes=` with several sizes for a dimension: a program for each, the one for any size, and one block of weights for all.

    shapes={"batch": {1, 8}, "seq": 128}    ->    seq = 128 with batch open, and with batch = 1, and with batch = 8
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tensorlang.build import Cpu
from tensorlang.codegen.target import Target
from tensorlang.config import Settings
from tensorlang.errors import BuildError, InputError
from tensorlang.graph.compiler import compile_graph
from tensorlang.graph.ir import Graph
from tensorlang.graph.program.storage import Weights
from tensorlang.ir.expr import Expr
from tensorlang.runtime.artifact import Artifact

MOST_PROGRAMS = 16  # each costs a build


@dataclass(frozen=True)
class _Choice:
    """Several sizes given for one dimension: `axis` of the shape of `name`, or (None) the dimension of that name."""

    name: str
    axis: int | None
    sizes: tuple[int, ...]


def compile_buckets(
    load: Callable[[Mapping[str, Any]], Graph], graph: Graph, shapes: Mapping[str, Any], target: Target, settings: Settings
) -> Artifact:
    """Compile a model for several sizes.

    Args:
        load: the model as a graph with these dimensions fixed.
        graph: the model with all of which several sizes are given left open.
        shapes: as `specialise` takes them, where a set of sizes may stand for one size.

    Returns:
        The program in which those dimensions are open, with the others as its parts.

    Raises:
        BuildError: the target is no CPU, or there are more than `MOST_PROGRAMS` combinations.
        InputError: `shapes` does not fit the model, or a dimension is no input's size by itself.
    """
    if not isinstance(target, Cpu):
        raise BuildError(f"target {target.name!r} takes one size for each dimension; `shapes` gives several")
    choices = list(_choices(shapes))
    combinations = math.prod(len(c.sizes) for c in choices)
    if combinations > MOST_PROGRAMS:
        raise BuildError(f"shapes asks for {combinations} programs, one for each combination of sizes; at most {MOST_PROGRAMS}")
    places = [_place(graph, choice) for choice in choices]
    weights = Weights(by_content={})
    report: dict[str, float] = {}

    def build(graph: Graph) -> Artifact:
        made = compile_graph(graph, target, settings, weights)
        for phase, seconds in made.report.items():
            report[phase] = report.get(phase, 0.0) + seconds
        return replace(made, weights=np.zeros(0, np.uint8))

    whole = build(graph)
    parts: dict[tuple[int, ...], Artifact] = {}
    for sizes in itertools.product(*(c.sizes for c in choices)):
        chosen: dict[Expr, int] = {}
        if all(chosen.setdefault(dim, size) == size for (_, dim), size in zip(places, sizes, strict=True)):
            parts[sizes] = build(load(_fixed(shapes, dict(zip(choices, sizes, strict=True)))))
    if not parts:
        raise InputError(f"shapes: no combination of these sizes is possible: {_text(choices)}")
    block = weights.block()
    whole.manifest["buckets"] = {"where": [list(place) for place, _ in places], "sizes": [list(s) for s in parts]}
    for artifact in (whole, *parts.values()):
        artifact.manifest["weights_bytes"] = block.nbytes
    return replace(whole, weights=block, report=report, parts=tuple(replace(p, weights=block) for p in parts.values()))


def _choices(shapes: Mapping[str, Any]) -> Iterator[_Choice]:
    for name, given in shapes.items():
        if isinstance(given, set | frozenset):
            yield _Choice(name, None, _sizes(name, given))
        elif isinstance(given, tuple | list):
            for axis, size in enumerate(given):
                if isinstance(size, set | frozenset):
                    yield _Choice(name, axis, _sizes(f"dimension {axis} of {name}", size))


def _sizes(what: str, given: set[Any] | frozenset[Any]) -> tuple[int, ...]:
    wrong = [s for s in given if not isinstance(s, int | np.integer) or isinstance(s, bool) or s < 0]
    if wrong or not given:
        raise InputError(f"shapes: {what} is {set(given) or 'an empty set'}; several sizes are integers >= 0")
    return tuple(sorted(int(s) for s in given))


def _fixed(shapes: Mapping[str, Any], sizes: Mapping[_Choice, int]) -> dict[str, Any]:
    """`shapes` with one size for every choice."""
    result = {name: list(given) if isinstance(given, tuple | list) else given for name, given in shapes.items()}
    for choice, size in sizes.items():
        if choice.axis is None:
            result[choice.name] = size
        else:
            result[choice.name][choice.axis] = size
    return result


def _place(graph: Graph, choice: _Choice) -> tuple[tuple[int, int], Expr]:
    """The (input, axis) whose size decides, and that dimension."""
    if choice.axis is not None:
        k = [v.name for v in graph.inputs].index(choice.name)
        return (k, choice.axis), graph.inputs[k].shape[choice.axis]
    wanted = graph.dims.get(choice.name)
    if wanted is None:
        raise InputError(f"shapes: {choice.name} is an input; a set of sizes stands for one dimension of its shape")
    for k, value in enumerate(graph.inputs):
        for axis, dim in enumerate(value.shape):
            if dim is wanted:
                return (k, axis), dim
    raise InputError(f"shapes: no input has {choice.name} itself as its size, so a run cannot be told by it")


def _text(choices: list[_Choice]) -> str:
    return ", ".join(f"{c.name}{'' if c.axis is None else f'[{c.axis}]'} in {set(c.sizes)}" for c in choices)
