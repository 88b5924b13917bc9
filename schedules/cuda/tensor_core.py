"""Products on tensor cores: a tile of the result by a block of eight warps, pieces of 16 x 8 by one instruction each.

    for by, bx (blockIdx):                                        128 x 128 of y = x @ w by 2 x 4 warps of 64 x 32
        for k_o in K / 32:
            x_shared[128, 32] = x[...]; w_shared[32, 128] = w[...]        asynchronously, two tiles ahead
            for wz, wy (threadIdx): for k_s in 2:
                x_local[64, 16] = x_shared[...]; w_local[16, 32] = w_shared[...]         `ldmatrix`
                y[64, 32] += x_local * w_local                                           16 times `mma.sync`
        ...y[...] = f(y)            each lane those that it holds, by pairs

Halves are multiplied exactly and summed up in f32. f32 is rounded to tf32 first, and only where the target is told so.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from tensorlang.ir.expr import Expr
from tensorlang.ir.stmt import Block
from tensorlang.ir.visitor import loads
from tensorlang.schedule import Schedule, Stage
from tensorlang.schedule.rules import Machine

from ..c import epilogue_of
from ..cpu.analysis import extent, reduce_vars, source_of, spatial_vars
from ..opencl import is_product
from . import intrinsics

assert intrinsics.INTRINSICS  # importing them makes them known

ROWS, COLUMNS, LANES = 16, 8, 32  # of one instruction
VECTOR_BYTES = 16
MOST_BLOCKS = 65535
LEAST_BLOCKS = 64
MOST_WASTE = 1.25
SLOTS = 4  # tiles of the operands in shared memory at once


@dataclass(frozen=True)
class Tile:
    """What a block computes at once: rows, columns, and depth in steps of an instruction; by how many warps down and across."""

    rows: int
    columns: int
    steps: int
    down: int
    across: int


TILES = (Tile(128, 256, 2, 2, 4), Tile(128, 128, 2, 2, 4), Tile(64, 64, 2, 2, 2))


def schedule_tensor_cores(s: Schedule, stage: Stage, machine: Machine) -> set[str]:
    """The stages that are scheduled; empty where the device's instructions do not fit."""
    block = s.block(stage)
    kind = _kind(block, machine)
    if kind is None:
        return set()
    sizes = [extent(block, v) or 0 for v in (*spatial_vars(block)[-2:], reduce_vars(block)[0])]
    tile = _tile(sizes, [extent(block, v) or 0 for v in spatial_vars(block)[:-2]], intrinsics.DEPTHS[kind])
    if tile is None:
        return set()
    wide = source_of(block).op == "mul" and all(a.op == "cast" for a in source_of(block).args)
    step = intrinsics.DEPTHS[kind]
    depth = tile.steps * step
    output = epilogue_of(s, stage)
    name = stage.name
    pads: dict[str, Stage] = {}
    ragged = [n % m != 0 for n, m in zip(sizes, (tile.rows, tile.columns, depth), strict=True)]
    if any(ragged):
        made = list(stage.pad_einsum([*[1] * (len(spatial_vars(block)) - 2), tile.rows, tile.columns, depth]))
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
    row_var = spatial_vars(block)[-2]
    of_rows = {e.value.name: any(row_var is a for a in e.args) for e in loads(source_of(block))}
    # The result: a lane has pairs of columns in every eighth row, as the instruction leaves them.
    *batch, row, column = output.axis
    row_o, row_i = output.split(row, tile.rows)
    column_o, column_i = output.split(column, tile.columns)
    warp_z, piece_row, half, group = output.split(row_i, factors=[tile.down, None, 2, 8])
    warp_y, piece_column, member, pair = output.split(column_i, factors=[tile.across, None, 4, 2])
    output.reorder(*batch, row_o, column_o, warp_z, warp_y, group, member, piece_row, half, piece_column, pair)
    if batch:
        output.bind(output.fuse(*batch) if len(batch) > 1 else batch[0], "blockIdx.z")
    output.bind(row_o, "blockIdx.y")
    output.bind(column_o, "blockIdx.x")
    output.bind(warp_z, "threadIdx.z")
    output.bind(warp_y, "threadIdx.y")
    output.bind(output.fuse(group, member), "threadIdx.x")
    output.vectorize(pair)
    stage.compute_at(output, column_o)
    *_, y, x = stage.axis
    (k,) = stage.reduce_axis
    k_o, k_s, k_i = stage.split(k, factors=[None, tile.steps, step])
    down, y_o, y_i = stage.split(y, factors=[tile.down, None, ROWS])
    across, x_o, x_i = stage.split(x, factors=[tile.across, None, COLUMNS])
    stage.reorder(k_o, down, across, k_s, y_o, x_o, y_i, x_i, k_i)
    stage.bind(down, "threadIdx.z")
    stage.bind(across, "threadIdx.y")
    done = {stage.name, output.name, name, *pads}
    locals_: list[tuple[Stage, str, tuple[int, int]]] = []
    limit = machine.limits.get("shared_bytes", 0)
    slot = (tile.rows * (depth + VECTOR_BYTES) + (tile.columns + VECTOR_BYTES) * depth) * operands[0].dtype.nbytes
    for operand in operands:
        shared = pads.get(operand.name)
        if shared is None:
            shared = s.cache_read(operand, "shared", [stage])
        else:
            shared.set_scope("shared")
        lanes = VECTOR_BYTES // operand.dtype.nbytes
        factor, offset = (2 * lanes, lanes) if kind != "tf32" or _by_depth(block, operand.name) else (32, 8)
        shared.storage_align(len(shared.axis) - 2, factor, offset)  # eight rows of a piece lie in different banks
        local = s.cache_read(shared.name, "local", [stage])
        local.compute_at(stage, k_s)
        rows, by_depth = of_rows[operand.name], _by_depth(block, operand.name)
        turned = "_turned" if by_depth != rows else ""
        long = ROWS if rows else COLUMNS
        sides = (long, step) if by_depth else (step, long)
        locals_.append((local, f"cuda.load_{'a' if rows else 'b'}{turned}_{kind}", sides))
        shared.compute_at(stage, k_o)
        _fetch(shared, tile, lanes)
        done |= {shared.name, local.name}
    size: Expr = s.extent(k_o)
    if size.op == "const" and size.value > 1:
        stage.software_pipeline(k_o, [*[0] * len(operands), min(SLOTS, size.value, max(2, limit // slot)) - 1])
    for local, instruction, sides in locals_:
        *_, one, other = local.axis
        one_o, one_i = local.split(one, sides[0])
        other_o, other_i = local.split(other, sides[1])
        local.reorder(one_o, other_o, one_i, other_i)
        local.tensorize(one_i, instruction)
    stage.tensorize(y_i, f"cuda.mma_{kind}{'_f32' if wide else ''}")
    return done | {st.name for st in s.stages}


def _kind(block: Block, machine: Machine) -> str | None:
    """Which instruction multiplies such elements."""
    source = source_of(block)
    if not is_product(block):
        return None
    types = {e.dtype.name for e in loads(source)}
    if len(types) != 1:
        return None
    (found,) = types
    if found in ("bf16", "f16"):
        return found
    return "tf32" if found == "f32" and "tf32" in machine.features else None


def _tile(sizes: list[int], batch: list[int], step: int) -> Tile | None:
    """The largest tile that makes enough blocks and computes little beyond the edges."""
    rows, columns, depth = sizes
    if not all(sizes) or not all(batch) or rows < ROWS or columns < 2 * COLUMNS or depth < step:
        return None
    if prod(batch) > MOST_BLOCKS or rows // TILES[-1].rows >= MOST_BLOCKS:
        return None
    for t in TILES:
        blocks = -(-rows // t.rows) * -(-columns // t.columns)
        if blocks * prod(batch) >= LEAST_BLOCKS and blocks * t.rows * t.columns <= MOST_WASTE * rows * columns:
            return t
    return TILES[-1]


def _by_depth(block: Block, operand: str) -> bool:
    """Whether neighbouring elements of an operand are those that are added up."""
    (k,) = reduce_vars(block)
    return next(e.args[-1] for e in loads(source_of(block)) if e.value.name == operand) is k


def _fetch(tile: Stage, shape: Tile, lanes: int) -> None:
    """All threads copy a tile into shared memory together, a vector at a time, as it lies in global memory."""
    *outer, last = tile.axis
    vectors, inner = tile.split(last, lanes)
    each, warp_z, warp_y, lane = tile.split(tile.fuse(*outer, vectors), factors=[None, shape.down, shape.across, LANES])
    tile.reorder(warp_z, warp_y, lane, each, inner)
    tile.bind(warp_z, "threadIdx.z")
    tile.bind(warp_y, "threadIdx.y")
    tile.bind(lane, "threadIdx.x")
    tile.vectorize(inner)
    tile.pragma(inner, "async_copy")
