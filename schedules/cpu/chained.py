"""A product of rows that come out of another product: attention. The rows between stay in the nearest caches.

    s = q k^T;  p = softmax(s);  o = p v

A block of rows of `o` is computed at a time: its rows of `s` by tiles of registers, each row's softmax as soon as it is
whole, then the block's rows of `o` by tiles again. Neither `s` nor `p` is ever in memory as a whole. (Rows are whole, so there
is no rescaling as in Dao et al., "FlashAttention" (2022): a CPU's second-level cache holds blocks of some thousand columns.)
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from tensorlang.ir.buffer import Buffer
from tensorlang.ir.stmt import Block
from tensorlang.ir.visitor import loads
from tensorlang.schedule import Loop, Schedule, Stage
from tensorlang.schedule.rules import Machine

from .analysis import (
    extent,
    is_contraction,
    is_plain,
    is_reduction,
    readers_of,
    reduce_vars,
    source_of,
    spatial_vars,
    store_of,
    worth_parallel,
)
from .elementwise import schedule_elementwise
from .rows import partial_reduction, vectorize_row
from .tile import Tile, choose_tile, epilogue_of, pack_operands, vectorize_stage

MOST_TILES = 4  # of rows in a block: enough to find the columns in the nearest cache
LEAST_COLUMNS = 32  # shorter rows leave too little between two tiles


@dataclass(frozen=True)
class Chain:
    """The stages of it: the products, and those between, which work row by row; `rest` makes the operands."""

    first: Stage
    between: list[Stage]
    second: Stage
    rest: list[Stage]


def schedule_chained(s: Schedule, machine: Machine) -> bool:
    """Schedule the program as a chain of two products with rows between them, if it is one; says whether it was."""
    chain = _chain(s)
    if chain is None:
        return False
    for stage in chain.between:  # scale and mask join what reads them
        readers = readers_of(s, store_of(s.block(stage)).buffer)
        if not is_reduction(s.block(stage)) and len(readers) == 1 and not is_reduction(readers[0]):
            stage.compute_inline()
    between = [stage for stage in chain.between if stage.name in {st.name for st in s.stages}]
    output = epilogue_of(s, chain.second)
    second = chain.second
    if output is None:
        name = second.name
        second = s.cache_write(second)
        output = s[name]
    scores = epilogue_of(s, chain.first)
    packed = {name for st in (chain.first, second) for name in pack_operands(s, st, machine, by_panels=False)[0]}
    for stage in chain.rest:
        if stage.name not in packed:
            schedule_elementwise(s, stage, machine)
    *batch, row, _ = list(output.axis)
    rows = _rows_of_block(s, chain.first, second, machine)
    size = s.extent(row)
    whole = size.op == "const" and size.value >= rows
    row_o, row_i = output.split(row, rows, tail="shift_inwards" if whole else "guard")
    output.reorder(*batch, row_o, row_i)
    at = output.fuse(*batch, row_o) if batch else row_o
    tile_block(s, second, output, row_i, choose_tile(s.block(second), machine, most_rows=rows), rows)
    rows_of_scores = between[-1]
    rows_of_scores.compute_at(output, at)
    along = rows_of_scores.axis[-2]
    own = [stage for stage in between[:-1] if scores is None or stage.name != scores.name]
    for stage in reversed(own):
        stage.compute_at(rows_of_scores, along)
    first = chain.first
    if scores is None:
        first.compute_at(output, at)
        name = first.name
        first = s.cache_write(first)
        scores = s[name]
    else:
        scores.compute_at(output, at)
    for stage in own:
        if is_reduction(s.block(stage)):
            partial_reduction(s, stage, stage.reduce_axis[-1], machine)
        elif len(stage.axis) > len(batch) + 1:
            vectorize_row(s, stage, stage.axis[-1], machine)
    vectorize_row(s, rows_of_scores, rows_of_scores.axis[-1], machine)
    tile_block(s, first, scores, scores.axis[-2], choose_tile(s.block(first), machine, most_rows=rows), rows)
    if worth_parallel(None):
        output.parallel(at)
    return True


def _chain(s: Schedule) -> Chain | None:
    stages = s.stages
    if any(not is_plain(s, s.block(st)) for st in stages):
        return None
    products = [n for n, st in enumerate(stages) if is_contraction(s.block(st))]
    if len(products) != 2:
        return None
    first, second = (stages[n] for n in products)
    lead = len(spatial_vars(s.block(first))) - 1
    columns = extent(s.block(first), spatial_vars(s.block(first))[-1])
    if lead < 1 or (columns is not None and columns < LEAST_COLUMNS):
        return None
    inside: dict[Buffer, None] = {store_of(s.block(first)).buffer: None}
    between: list[Stage] = []
    rest: list[Stage] = []
    for stage in stages[: products[1]]:
        block = s.block(stage)
        if stage is first:
            continue
        if not any(e.value in inside for e in loads(source_of(block))):
            if is_reduction(block):
                return None
            rest.append(stage)
            continue
        if not _row_by_row(block, inside, lead) or store_of(block).buffer in s.func.params:
            return None
        inside[store_of(block).buffer] = None
        between.append(stage)
    if not between or len(spatial_vars(s.block(between[-1]))) != lead + 1:
        return None
    last = store_of(s.block(between[-1])).buffer
    if not _multiplies_rows(s.block(second), last, inside, lead):
        return None
    after = list(stages[products[1] + 1 :])
    if len(after) > 1 or any(is_reduction(s.block(st)) for st in after):
        return None
    if after and ((own := epilogue_of(s, second)) is None or own.name != after[0].name):
        return None
    if any(e.value in inside for st in after for e in loads(source_of(s.block(st)))):
        return None
    return Chain(first, between, second, rest)


def _row_by_row(block: Block, inside: dict[Buffer, None], lead: int) -> bool:
    """Whether what it reads of the chain lies in the row that it writes, element by element or all along."""
    own = spatial_vars(block)
    if len(own) < lead:
        return False
    columns = (*own[lead:], *reduce_vars(block))
    if len(columns) > 1 or len(own) - lead + len(reduce_vars(block)) > 1:
        return False
    for e in loads(source_of(block)):
        if e.value in inside and (e.args[:lead] != tuple(own[:lead]) or e.args[lead:] not in ((), columns)):
            return False
    return True


def _multiplies_rows(block: Block, rows: Buffer, inside: dict[Buffer, None], lead: int) -> bool:
    """Whether the product's left operand is the chain's last stage, its rows those of the product, along the reduction."""
    own, k = spatial_vars(block), reduce_vars(block)
    if len(own) != lead + 1 or len(k) != 1:
        return False
    reads = [e for e in loads(source_of(block)) if e.value in inside]
    return bool(reads) and all(e.value is rows and e.args == (*own[:lead], k[0]) for e in reads)


def _rows_of_block(s: Schedule, first: Stage, second: Stage, machine: Machine) -> int:
    """How many rows at once: whole tiles of both products, as many as fit half of the second-level cache, and little more than
    the rows there are."""
    block = s.block(first)
    axes = spatial_vars(block)
    tile = max(choose_tile(s.block(st), machine).rows for st in (first, second))
    columns, size = extent(block, axes[-1]) or 512, extent(block, axes[-2])
    most = machine.l2_bytes // 2 // (2 * 4 * columns)
    rows = tile * max(1, min(most // tile, MOST_TILES))
    if size is None:
        return rows
    blocks = ceil(size / rows)
    return min(size, ceil(size / blocks / tile) * tile)


def tile_block(s: Schedule, stage: Stage, output: Stage, row: Loop, tile: Tile, rows: int) -> None:
    """Tiles of registers over a block of `rows` rows: `stage` is the product, `output` what writes it."""
    column = output.axis[-1]
    column_o, column_i = output.split(column, tile.vectors * tile.lanes)
    row_o, row_i = output.split(row, tile.rows, tail="shift_inwards" if rows >= tile.rows else "guard")
    output.reorder(column_o, row_o, row_i, column_i)
    stage.compute_at(output, row_o)
    vectorize_stage(s, stage, tile)
    _, lane = output.split(column_i, tile.lanes)
    output.vectorize(lane)
