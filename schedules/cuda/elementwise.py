"""One element each: a vector of neighbours for every thread where there are many, and tiles where a tensor is turned.

    y[i, j] = f(x[i, j])    ->  for b in blocks: for t in 256 (threadIdx.x): for v in 4 (vectorized): ...neighbours...
    y[i, j] = x[j, i]       ->  for b in blocks: x_shared[32, 32] = x[...] along its rows; y[...] = x_shared[...] along y's
"""

from __future__ import annotations

from math import prod

from tensorlang.ir.stmt import Block
from tensorlang.ir.visitor import loads
from tensorlang.schedule import Schedule, Stage

from ..cpu.analysis import extent, is_plain, is_reduction, source_of, spatial_vars, step, store_of
from ..opencl import distribute

VECTOR_BYTES = 16
MANY = 1 << 18  # elements from which there are enough threads with a vector for each
THREADS = 256
TILE = 32  # rows and columns of a tile that is turned; a warp for each of its rows
WARPS = 8
LEAST_SIDE = 16


def schedule_elements(s: Schedule, stage: Stage) -> set[str]:
    """The elements of a stage that is no reduction; the stages that are scheduled."""
    block = s.block(stage)
    if is_plain(s, block) and not is_reduction(block):
        sizes = [extent(block, v) for v in spatial_vars(block)]
        if sizes and None not in sizes:
            done = _turned(s, stage, block) or _vectors(stage, block, [n or 0 for n in sizes])
            if done:
                return done
    distribute(s, stage)
    return {stage.name}


def _vectors(stage: Stage, block: Block, sizes: list[int]) -> set[str]:
    """A vector of neighbours for each thread."""
    lanes = VECTOR_BYTES // store_of(block).buffer.dtype.nbytes
    axis = spatial_vars(block)[-1]
    if lanes not in (2, 4, 8) or prod(sizes) < MANY or not any(step(e, axis) == "unit" for e in loads(source_of(block))):
        return set()
    axes = list(stage.axis)
    if sizes[-1] % lanes == 0:
        column, vector = stage.split(axes[-1], lanes)
        points = stage.fuse(*axes[:-1], column) if len(axes) > 1 else column
    elif prod(sizes) % lanes == 0 and all(e.args == tuple(spatial_vars(block)) for e in loads(source_of(block))):
        points, vector = stage.split(stage.fuse(*axes) if len(axes) > 1 else axes[0], lanes)
    else:
        return set()
    group, thread = stage.split(points, THREADS)
    stage.bind(group, "blockIdx.x")
    stage.bind(thread, "threadIdx.x")
    stage.vectorize(vector)
    return {stage.name}


def _turned(s: Schedule, stage: Stage, block: Block) -> set[str]:
    """Tiles of a tensor that is read along another axis than it is written."""
    axes = spatial_vars(block)
    far = [e for e in loads(source_of(block)) if axes[-1] in e.args[:-1] and e.args[-1] in axes[:-1]]
    if len(far) != 1 or any(a.op not in ("var", "const") for a in far[0].args) or len(set(far[0].args)) != len(far[0].args):
        return set()
    (access,) = far
    row = axes.index(access.args[-1])
    if min(extent(block, axes[row]) or 0, extent(block, axes[-1]) or 0) < LEAST_SIDE:
        return set()
    loops = list(stage.axis)
    row_o, row_i = stage.split(loops[row], TILE)
    column_o, column_i = stage.split(loops[-1], TILE)
    each, warp = stage.split(row_i, WARPS)
    others = [loop for n, loop in enumerate(loops[:-1]) if n != row]
    stage.reorder(*others, row_o, column_o, warp, column_i, each)
    place = stage.fuse(*others, row_o, column_o)
    stage.bind(place, "blockIdx.x")
    stage.bind(warp, "threadIdx.y")
    stage.bind(column_i, "threadIdx.x")
    tile = s.cache_read(access.value, "shared", [stage])
    tile.compute_at(stage, place)
    at = access.args.index(axes[-1])
    along, across = tile.axis[-1], tile.axis[at]
    tile.storage_align(at, TILE, 1)  # rows begin on other banks, so that a warp finds a column in all of them
    each, warp = tile.split(across, WARPS)
    tile.reorder(warp, along, each)
    tile.bind(warp, "threadIdx.y")
    tile.bind(along, "threadIdx.x")
    return {stage.name, tile.name}

