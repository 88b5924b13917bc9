"""Which injective stages disappear into their readers."""

from __future__ import annotations

from tensorlang.ir.reduction import reduction_of
from tensorlang.ir.stmt import Block
from tensorlang.ir.visitor import free_vars, loads
from tensorlang.schedule import Schedule

from .analysis import is_index_math, is_reduction, readers_of, source_of, spatial_vars, store_of


def inline_injective(s: Schedule) -> None:
    """Inline every injective stage but outputs, and what a windowed or contracting reader would recompute."""
    for stage in list(s.stages):
        block = s.block(stage)
        buffer = store_of(block).buffer
        if is_reduction(block) or buffer in s.func.params:
            continue
        readers = readers_of(s, buffer)
        if readers and all(_may_inline(block, reader) for reader in readers):
            stage.compute_inline()


def _may_inline(block: Block, reader: Block) -> bool:
    if not is_reduction(reader) or is_index_math(source_of(block)):
        return True
    # A reduction along rows reads every element once; a window or a contraction reads it many times.
    reduction = reduction_of(reader)
    return reduction is not None and not _reads_repeatedly(reader)


def _reads_repeatedly(reader: Block) -> bool:
    """Whether an element that `reader` reads may be needed at several of its output points."""
    for access in loads(source_of(reader)):
        used = set().union(*(free_vars(i) for i in access.args))
        if set(spatial_vars(reader)) - used:
            return True
        if any(len(free_vars(i)) > 1 for i in access.args):
            return True  # oh + kh: windows overlap
    return False
