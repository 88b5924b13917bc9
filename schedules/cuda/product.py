"""Products of matrices: a tile of the result by a block, a smaller one in the registers of each thread.

    for by, bx (blockIdx):                                        128 x 128 of y = x @ w by 16 x 16 threads
        for k_o in K / 16:
            x_shared[16, 128] = x[...]; w_shared[16, 128] = w[...]        by all threads, 16 bytes at a time
            for ty, tx (threadIdx): for k_i in 16:
                x_local[8] = x_shared[...]; w_local[8] = w_shared[...]; y[8, 8] += x_local * w_local
        ...y[...] = f(y)

The blocking of Volkov & Demmel, "Benchmarking GPUs to tune dense linear algebra", SC 2008, and of CUTLASS.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from tensorlang.ir.buffer import Buffer
from tensorlang.ir.stmt import Block
from tensorlang.ir.visitor import loads
from tensorlang.schedule import Loop, Schedule, Stage

from ..c import epilogue_of
from ..cpu.analysis import extent, reduce_vars, source_of, spatial_vars
from ..opencl import is_product

MOST_BLOCKS = 65535  # along y and z
LEAST_ROWS, LEAST_COLUMNS, LEAST_DEPTH = 8, 32, 16  # of a product that is worth a tile
MOST_WASTE = 1.25  # elements that a larger tile may compute, for each that is wanted
SIDE = 16  # threads along each side of a block
BANKS = 32  # of shared memory
LANES = 4  # elements that one instruction moves
LEAST_BLOCKS = 64  # below which smaller tiles keep more of the device busy


@dataclass(frozen=True)
class Tile:
    """Rows and columns of the result that one block computes, and the depth of what it fetches at once."""

    rows: int
    columns: int
    depth: int


TILES = (Tile(128, 128, 16), Tile(64, 64, 16))


def schedule_tiled_product(s: Schedule, stage: Stage) -> set[str]:
    """The stages that are scheduled by tiles; empty where none fits."""
    block = s.block(stage)
    if not is_product(block):
        return set()
    tile = _tile(block)
    if tile is None:
        return set()
    output = epilogue_of(s, stage)
    name = stage.name
    pads: dict[str, Stage] = {}
    whole = (tile.rows, tile.columns, tile.depth)
    ragged = [n % m != 0 for n, m in zip(_sizes(block), whole, strict=True)]
    if any(ragged):
        made = list(stage.pad_einsum([*[1] * (len(spatial_vars(block)) - 2), *whole]))
        if any(ragged[:2]):
            *made, crop = made
            if output is None:
                output = crop
            else:
                crop.compute_inline()
        pads = {st.name: st for st in made}
        block = s.block(stage)
    if output is None:
        stage = s.cache_write(stage)
        output = s[name]
    operands = list(dict.fromkeys(e.value for e in loads(source_of(s.block(stage)))))
    *batch, row, column = output.axis
    row_o, row_i = output.split(row, tile.rows)
    column_o, column_i = output.split(column, tile.columns)
    columns = _spread(output, tile, row_i, column_i, [*batch, row_o, column_o])
    _vectorize(output, columns)
    if batch:
        output.bind(output.fuse(*batch) if len(batch) > 1 else batch[0], "blockIdx.z")
    output.bind(row_o, "blockIdx.y")
    output.bind(column_o, "blockIdx.x")
    stage.compute_at(output, column_o)
    *_, y, x = stage.axis
    (k,) = stage.reduce_axis
    k_o, k_i = stage.split(k, tile.depth)
    _spread(stage, tile, y, x, [k_o], [k_i])
    done = {stage.name, output.name, name, *pads}
    for operand in operands:
        shared = pads.get(operand.name)
        if shared is None:
            shared = s.cache_read(operand, "shared", [stage])
        else:
            shared.set_scope("shared")
        turned = _by_depth(block, operand)
        if turned:
            shared.transform_layout(lambda *at: (*at[:-2], at[-1], at[-2]))
            shared.storage_align(len(shared.axis) - 2, BANKS, LANES)
        local = s.cache_read(shared.name, "local", [stage])
        local.compute_at(stage, k_i)
        _vectorize(local, local.axis[-1])
        shared.compute_at(stage, k_o)
        _fetch(shared, turned)
        done |= {shared.name, local.name}
    size = s.extent(k_o)
    if size.op == "const" and size.value > 1:  # the next tiles come while this one's product is computed
        stage.software_pipeline(k_o, [*[0] * len(operands), 1])
        done |= {st.name for st in s.stages}
    return done


def _sizes(block: Block) -> list[int]:
    """Rows, columns and depth; 0 where one is not constant."""
    return [extent(block, v) or 0 for v in (*spatial_vars(block)[-2:], reduce_vars(block)[0])]


def _tile(block: Block) -> Tile | None:
    """The largest tile that makes enough blocks and computes little beyond the edges; the smallest, if none does."""
    batch = [extent(block, v) or 0 for v in spatial_vars(block)[:-2]]
    rows, columns, depth = _sizes(block)
    if rows < LEAST_ROWS or columns < LEAST_COLUMNS or depth < LEAST_DEPTH:
        return None
    if prod(batch) > MOST_BLOCKS or rows // TILES[-1].rows >= MOST_BLOCKS:
        return None
    for t in TILES:
        blocks = -(-rows // t.rows) * -(-columns // t.columns)
        waste = blocks * t.rows * t.columns / (rows * columns)
        if blocks * prod(batch) >= LEAST_BLOCKS and waste <= MOST_WASTE:
            return t
    return TILES[-1]


def _by_depth(block: Block, operand: Buffer) -> bool:
    """Whether neighbouring elements of an operand are those that are added up."""
    (k,) = reduce_vars(block)
    return next(e.args[-1] for e in loads(source_of(block)) if e.value is operand) is k


def _spread(stage: Stage, tile: Tile, row: Loop, column: Loop, outside: list[Loop], inside: list[Loop] = []) -> Loop:  # noqa: B006
    """Give a tile of rows and columns to the threads: each has neighbouring ones. The loop over its columns."""
    thread_y, rows = stage.split(row, tile.rows // SIDE)
    thread_x, columns = stage.split(column, tile.columns // SIDE)
    stage.reorder(*outside, thread_y, thread_x, *inside, rows, columns)
    stage.bind(thread_y, "threadIdx.y")
    stage.bind(thread_x, "threadIdx.x")
    return columns


def _fetch(tile: Stage, turned: bool) -> None:
    """All threads copy a tile into shared memory together, what is neighbours in global memory by neighbours and a vector at a
    time; `turned`: it lies in shared memory the other way round."""
    *outer, last = tile.axis
    if turned:
        outer[-1], last = last, outer[-1]
        tile.reorder(outer[-1], last)
    vectors, lanes = tile.split(last, LANES)
    each, thread_y, thread_x = tile.split(tile.fuse(*outer, vectors), factors=[None, SIDE, SIDE])
    tile.reorder(thread_y, thread_x, each, lanes)
    tile.bind(thread_y, "threadIdx.y")
    tile.bind(thread_x, "threadIdx.x")
    tile.vectorize(lanes)
    tile.pragma(lanes, "async_copy")


def _vectorize(stage: Stage, loop: Loop) -> None:
    _, lanes = stage.split(loop, LANES)
    stage.vectorize(lanes)
