"""Which injective stages disappear into their readers."""

from __future__ import annotations

from tensorlang.ir.reduction import reduction_of
from tensorlang.ir.stmt import Block
from tensorlang.ir.visitor import free_vars, loads, walk
from tensorlang.schedule import Schedule
from tensorlang.symbolic.affine import linear_form

from .analysis import (
    extent,
    is_contraction,
    is_costly,
    is_index_math,
    is_plain,
    is_reduction,
    readers_of,
    source_of,
    spatial_vars,
    step,
    store_of,
)
from .recurrence import time_axes


def inline_injective(s: Schedule, keep_shared: bool = False, keep_lines: bool = False) -> None:
    """Inline every injective stage but outputs, and what a windowed or contracting reader would recompute.

    With `keep_shared`, also not what is costly (powers) and read by several stages: along rows it stays in the nearest cache.
    With `keep_lines`, also not lines that are computed and then read at computed places.
    """
    for stage in list(s.stages):
        block = s.block(stage)
        if not is_plain(s, block):
            continue
        buffer = store_of(block).buffer
        if is_reduction(block) or buffer in s.func.params:
            continue
        readers = readers_of(s, buffer)
        plain = all(is_plain(s, reader) for reader in readers)
        if keep_shared and len(readers) > 1 and is_costly(block):
            continue
        if keep_lines and any(gathers_from(reader, block) for reader in readers if plain):
            continue
        if readers and plain and all(_may_inline(block, reader) for reader in readers):
            stage.compute_inline()


MANY_READS = 4  # of a guarded element by one reader: from here on every copy of the guard costs more than memory does


def _may_inline(block: Block, reader: Block) -> bool:
    if time_axes(reader) and _turns(block):
        return False
    if not is_reduction(reader):
        guarded = any(e.op == "select" for e in walk(source_of(block)))
        buffer = store_of(block).buffer
        return not guarded or len({e for e in loads(source_of(reader)) if e.value is buffer}) < MANY_READS
    if is_index_math(source_of(block)):
        return not _scatters_columns(block, reader)
    # A reduction along rows reads every element once; a window or a contraction reads it many times.
    reduction = reduction_of(reader)
    return reduction is not None and not _reads_repeatedly(reader)


TURNED_LINES = 16  # as many lines as vectors have elements: fewer are not worth a copy


def _turns(block: Block) -> bool:
    """Whether the block lays elements that are far apart side by side. The steps of a recurrence that read its result read
    vectors; inlined, they would read one element of a cache line each, and all lines again at the next step."""
    last = spatial_vars(block)[-1:]
    lines = extent(block, last[0]) if last else None
    if lines is None or lines < TURNED_LINES:
        return False
    return any(step(e, last[0]) == "far" for e in loads(source_of(block)))


LONGEST_LINE = 4096  # elements, that stay in the first-level cache


def gathers_from(reader: Block, block: Block) -> bool:
    """Whether `reader` is injective and its vectors are elements at computed places of a line that `block` computes from
    several: one element at a time, while the line itself can be made a vector at a time."""
    axes, last = spatial_vars(reader), spatial_vars(block)[-1:]
    length = extent(block, last[0]) if last else None
    if is_reduction(reader) or not axes or length is None or length > LONGEST_LINE or len(loads(source_of(block))) < 2:
        return False
    reads = [e.args[-1] for e in loads(source_of(reader)) if e.value is store_of(block).buffer]
    return any(axes[-1] in free_vars(i) and linear_form(i, {axes[-1]}) is None for i in reads)


def _scatters_columns(block: Block, reader: Block) -> bool:
    """Whether a contraction that reads columns side by side would, after inlining, find them far apart."""
    if not is_contraction(reader):
        return False
    column = spatial_vars(reader)[-1]
    buffer = store_of(block).buffer
    last = spatial_vars(block)[-1]
    reads = [e for e in loads(source_of(reader)) if e.value is buffer]
    beside = any(step(e, column) == "unit" for e in reads)
    return beside and any(step(e, last) == "far" for e in loads(source_of(block)))


def _reads_repeatedly(reader: Block) -> bool:
    """Whether an element that `reader` reads may be needed at several of its output points."""
    for access in loads(source_of(reader)):
        used = set().union(*(free_vars(i) for i in access.args))
        if set(spatial_vars(reader)) - used:
            return True
        if any(len(free_vars(i)) > 1 for i in access.args):
            return True  # oh + kh: windows overlap
    return False
