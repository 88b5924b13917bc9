"""The road down, as one list. Every pass is `PrimFunc -> PrimFunc` and returns the same object when nothing changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import process_time

from tensorlang.ir.stmt import PrimFunc
from tensorlang.lower.blocks import lower_blocks
from tensorlang.lower.flatten import flatten_buffers
from tensorlang.lower.halves import widen_halves
from tensorlang.lower.init import lower_init
from tensorlang.lower.narrow import narrow_buffers
from tensorlang.lower.partition import partition_tiles
from tensorlang.lower.prefetch import prefetch_lines
from tensorlang.lower.simplify import hoist_guards, simplify_func
from tensorlang.lower.tensorize import tensorize_tiles
from tensorlang.lower.unswitch import unswitch_sums
from tensorlang.lower.vectorize import vectorize_loops

Pass = Callable[[PrimFunc], PrimFunc]

# Order constraints: init needs blocks; halves are widened before lanes are made of them; narrowing needs plain loop
# variables in indices; guards are hoisted out of inner loops before tiles are partitioned by them; sums are known to be in
# registers once buffers are narrow; vector lanes are found on flat indices.
PASSES: tuple[tuple[str, Pass], ...] = (
    ("init", lower_init),
    ("blocks", lower_blocks),
    ("halves", widen_halves),
    ("simplify", simplify_func),
    ("narrow", narrow_buffers),
    ("hoist", hoist_guards),
    ("partition", partition_tiles),
    ("unswitch", unswitch_sums),
    ("tensorize", tensorize_tiles),
    ("flatten", flatten_buffers),
    ("vectorize", vectorize_loops),
)


def with_prefetch(passes: Sequence[tuple[str, Pass]]) -> tuple[tuple[str, Pass], ...]:
    """`passes`, and what makes prefetches of the hints, for targets that have an instruction for it."""
    at = next((n for n, (name, _) in enumerate(passes) if name == "flatten"), len(passes))
    return (*passes[:at], ("prefetch", prefetch_lines), *passes[at:])


@dataclass(frozen=True)
class Stage:
    """The program after one pass."""

    name: str
    func: PrimFunc
    seconds: float


def lower(func: PrimFunc, passes: Sequence[tuple[str, Pass]] = PASSES) -> list[Stage]:
    """The program after every pass, the last one being kernel IR."""
    stages = []
    for name, run in passes:
        start = process_time()
        func = run(func)
        stages.append(Stage(name, func, process_time() - start))
    return stages
