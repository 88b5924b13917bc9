"""Products by a matrix unit: tiles of sums stay in its registers while the whole reduction runs over them.

    y[m, n] = sum_k f32(a[m, k]) * f32(b[k, n])          a, b: bf16
    y[m, n] = sum_k i32(a[m, k]) * i32(b[k, n])          a: u8 or i8, b: i8

One instruction multiplies up to 16 rows by 16 columns, and 64 bytes of the reduction. Two tiles of rows by two of columns are
made at a time, so that each operand that is loaded is used twice. The rows of a convolution are the points of an image's line,
and where lines are short, the two tiles are lines that follow each other. The second operand is packed as in `dot`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod

from tensorlang.ir.dtype import bf16, f32, i8, i32, u8
from tensorlang.ir.expr import Expr
from tensorlang.ir.stmt import Block
from tensorlang.ir.visitor import free_vars
from tensorlang.schedule import Loop, Schedule, Stage
from tensorlang.schedule.rules import Machine

from .analysis import extent, reduce_vars, spatial_vars, work, worth_parallel
from .blocked import PANEL_SHARE
from .dot import Dot, Instruction, dot_of, pack
from .elementwise import schedule_elementwise
from .intrinsics import amx_tile
from .tile import epilogue_of

TILE = 16  # rows, columns, and groups of four bytes that fill a tile
LANES = 16
LEAST_ROWS = 4  # of a tile: fewer are faster by vectors
FEWEST = 9  # rows that take no longer than fewer do
FIXED = 6  # tile products' worth of time that a block of sums costs, however short its reduction: its epilogue
STAYS = 1.0  # of the second-level cache as it is reckoned with, for an operand that stays there while all rows pass by

UNITS = (
    Instruction("bf16", "amx-bf16", 2, bf16, bf16, f32),
    Instruction("u8", "amx-int8", 4, u8, i8, i32),
    Instruction("i8", "amx-int8", 4, i8, i8, i32),
)


@dataclass(frozen=True)
class Shape:
    """How the sums are cut.

    Attributes:
        rows: of a tile, along axis number `row_axis`.
        tiles: of rows, one or two, along axis number `tile_axis`.
        panels: of 16 columns, one or two.
        groups: of four bytes, of the reduction's last axis at a time.
        steps: how many times that is.
    """

    rows: int
    row_axis: int
    tiles: int
    tile_axis: int
    panels: int
    groups: int
    steps: int


def schedule_matrix(s: Schedule, stage: Stage, machine: Machine) -> set[str]:
    """Schedule one such product with its epilogue; returns the names of the stages that are done: none if it is no such."""
    found = _product(s, s.block(stage), machine)
    if found is None:
        return set()
    output = epilogue_of(s, stage)
    if output is None:
        name = stage.name
        stage = s.cache_write(stage)
        output = s[name]
        found = _product(s, s.block(stage), machine)
        assert found is not None
    block, (dot, shape) = s.block(stage), found
    packed = s.cache_read(dot.b.value, "packed", [stage])
    pack(packed, block, dot, shape.panels * TILE)
    schedule_elementwise(s, packed, machine)
    panel = prod(extent(block, v) or 1 for v in reduce_vars(block)) * shape.panels * TILE * dot.by.b.nbytes
    panels = ceil((extent(block, spatial_vars(block)[-1]) or 1) / (shape.panels * TILE))
    stays = panel * panels <= machine.l2_bytes * STAYS
    at, blocks = _cut(s, output, shape, by_rows=stays)
    stage.compute_at(output, at)
    tile, along = _fill(stage, dot, shape)
    if not stays and 2 * panel <= machine.l2_bytes * PANEL_SHARE:
        stage.prefetch(packed, at, blocks, among=blocks, over=along)
    stage.tensorize(tile, amx_tile(dot.by.name, shape.tiles, shape.panels), fallback=True)
    if worth_parallel(work(block)):
        output.parallel(at)
    return {stage.name, output.name, packed.name}


def _product(s: Schedule, block: Block, machine: Machine) -> tuple[Dot, Shape] | None:
    dot = dot_of(block, UNITS)
    if dot is None or not {"amx-tile", dot.by.needs} <= machine.features or dot.b.value not in s.func.inputs:
        return None
    shape = _choose(block, dot)
    return None if shape is None else (dot, shape)


def _choose(block: Block, dot: Dot) -> Shape | None:
    """The tiles with the least estimated time; None where sizes are open, or so small that vectors are as fast."""
    axes, reduction = spatial_vars(block), [extent(block, v) for v in reduce_vars(block)]
    sizes = [extent(block, v) for v in axes]
    if None in sizes or None in reduction or len(reduction) > 3 or reduce_vars(block)[-1] is not dot.along:
        return None
    known = [n or 0 for n in sizes]
    own = [n for n in range(len(axes) - 1) if known[n] > 1 and _moves(dot, axes[n])]
    if not own:
        return None
    length = (reduction[-1] or 0) // dot.by.step
    groups = max((g for g in range(1, TILE + 1) if length % g == 0), default=1)
    steps = prod(n or 0 for n in reduction[:-1]) * length // groups
    panels, row = 1 if known[-1] <= TILE else 2, own[-1]

    def cost(shape: Shape) -> float:
        cuts = _cuts(shape)
        blocks = prod(ceil(n / cuts.get(axis, 1)) for axis, n in enumerate(known[:-1]))
        loads = (shape.rows * shape.tiles + groups * panels) / (2 * TILE)
        dots = shape.tiles * panels * max(shape.rows, FEWEST) / TILE
        return blocks * (steps * max(dots, loads) + FIXED)

    shapes = [
        Shape(rows, row, tiles, tile_axis, panels, groups, length // groups)
        for tile_axis in own[-2:]
        for tiles in (1, 2)
        for rows in range(LEAST_ROWS, min(TILE, known[row]) + 1)
    ]
    fitting = [shape for shape in shapes if all(n <= known[axis] for axis, n in _cuts(shape).items())]
    return min(fitting, key=cost, default=None)


def _cuts(shape: Shape) -> dict[int, int]:
    """How many points of which axis a block of sums has."""
    if shape.tile_axis == shape.row_axis:
        return {shape.row_axis: shape.rows * shape.tiles}
    return {shape.row_axis: shape.rows, shape.tile_axis: shape.tiles}


def _moves(dot: Dot, axis: Expr) -> bool:
    """Whether the first operand moves along `axis`, and the second stays."""
    return any(axis in free_vars(i) for i in dot.a.args) and not any(axis in free_vars(i) for i in dot.b.args)


def _cut(s: Schedule, output: Stage, shape: Shape, by_rows: bool) -> tuple[Loop, int]:
    """Cut the output into blocks, in the order of rows or of panels of columns. The loop in which a block's sums are made, and
    how many of them a panel meets."""
    *outer, column = output.axis
    column_o, column_i = output.split(column, shape.panels * TILE)
    inner = [column_i]
    for axis, size in _cuts(shape).items():
        outer[axis], within = output.split(outer[axis], size, tail="shift_inwards")
        inner.insert(0, within)
    blocks = prod(s.extent(loop).value for loop in outer)
    around = [*outer, column_o] if by_rows else [column_o, *outer]
    output.reorder(*around, *inner)
    _, lane = output.split(column_i, LANES)
    output.vectorize(lane)
    return output.fuse(*around), blocks


def _fill(stage: Stage, dot: Dot, shape: Shape) -> tuple[Loop, Loop]:
    """The loops of a block in the order of the instruction; the outermost one, and the last one of the reduction's steps."""
    axes, reduce = list(stage.axis), list(stage.reduce_axis)
    row, column = axes[shape.row_axis], axes[-1]
    rest = [a for n, a in enumerate(axes[:-1]) if n not in (shape.row_axis, shape.tile_axis)]
    tile = axes[shape.tile_axis]
    if shape.tile_axis == shape.row_axis:
        tile, row = stage.split(row, shape.rows)
    k, within = stage.split(reduce.pop(), dot.by.step)
    k, group = stage.split(k, shape.groups)
    while len(reduce) < 2:  # a window of one point
        one, k = stage.split(k, shape.steps)
        reduce.append(one)
    stage.reorder(*rest, tile, row, column, *reduce, k, group, within)
    return (tile if shape.tiles > 1 else row), k
