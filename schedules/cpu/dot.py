"""Products of bytes, or of bf16 numbers: four or two neighbours of the reduction at a time, by one instruction.

    y[m, n] = sum_k i32(a[m, k]) * i32(b[k, n])          a: u8, b: i8, K a multiple of four
    y[m, n] = sum_k f32(a[m, k]) * f32(b[k, n])          a, b: bf16, K a multiple of two

Whatever else is summed over (the window of a convolution) runs around that. The second operand is packed once into panels
in which those neighbours of the reduction lie side by side for each column; a tile of sums stays in vector registers while the
whole reduction runs over it, as in `tile`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from tensorlang.errors import ScheduleError
from tensorlang.ir.dtype import DType, bf16, f32, i8, i32, u8
from tensorlang.ir.expr import Expr
from tensorlang.ir.stmt import Block
from tensorlang.ir.visitor import free_vars
from tensorlang.schedule import Loop, Schedule, Stage
from tensorlang.schedule.rules import Machine

from .analysis import extent, is_contraction, reduce_vars, source_of, spatial_vars, step, work, worth_parallel
from .elementwise import schedule_elementwise
from .tile import Tile, batch_axes, choose_tile, epilogue_of, reduction_size

LANES = 16


@dataclass(frozen=True)
class Instruction:
    """What multiplies and adds `step` neighbours of `a` by those of `b`, for each lane."""

    name: str
    needs: str
    step: int
    a: DType
    b: DType
    sums: DType


INSTRUCTIONS = (
    Instruction("x86.vnni_dot4", "avx512vnni", 4, u8, i8, i32),
    Instruction("x86.bf16_dot2", "avx512bf16", 2, bf16, bf16, f32),
)


@dataclass(frozen=True)
class Dot:
    """A reduction as the rule sees it: the loads of the two operands, and the variable along which steps are taken."""

    a: Expr
    b: Expr
    along: Expr
    by: Instruction


def dot_of(block: Block, instructions: tuple[Instruction, ...] = INSTRUCTIONS) -> Dot | None:
    """The products that `block` adds up, if one of `instructions` does; or None."""
    if not is_contraction(block) or not reduce_vars(block):
        return None
    sides = []
    for arg in source_of(block).args:
        if arg.op != "cast" or arg.args[0].op != "load":
            return None
        sides.append(arg.args[0])
    sums = source_of(block).dtype
    pairs = [(a, b, i) for a, b in (sides, sides[::-1]) for i in instructions]
    found = [(a, b, i) for a, b, i in pairs if (a.value.dtype, b.value.dtype, sums) == (i.a, i.b, i.sums)]
    return next((dot for a, b, i in found if (dot := _dot_by(block, a, b, i)) is not None), None)


def _dot_by(block: Block, a: Expr, b: Expr, by: Instruction) -> Dot | None:
    along = next((v for v in reversed(reduce_vars(block)) if extent(block, v) != 1), reduce_vars(block)[-1])
    column = spatial_vars(block)[-1]
    plain = all(i.op in ("var", "const") for i in b.args) and len({i for i in b.args if i.op == "var"}) == sum(
        i.op == "var" for i in b.args
    )
    if not plain or column not in b.args or along not in b.args or any(v in i.args for i in a.args for v in (column,)):
        return None
    if any(column in free_vars(i) for i in a.args) or step(a, along) != "unit" or (extent(block, along) or 1) % by.step:
        return None
    return Dot(a, b, along, by)


def schedule_dot(s: Schedule, stage: Stage, machine: Machine, before: Collection[str] = ()) -> set[str]:
    """Schedule one such product with its epilogue; returns the names of the stages that are done: none if it is no such."""
    dot = dot_of(s.block(stage))
    if dot is None or dot.by.needs not in machine.features or dot.b.value not in s.func.inputs:
        return set()
    output = epilogue_of(s, stage)
    if output is None:
        name = stage.name
        stage = s.cache_write(stage)
        output = s[name]
    block = s.block(stage)
    dot = dot_of(block)
    assert dot is not None
    reduction = reduction_size(block)
    tile = choose_tile(block, machine, None if reduction is None else reduction // dot.by.step)
    packed = s.cache_read(dot.b.value, "packed", [stage])
    pack(packed, block, dot, tile.vectors * LANES)
    schedule_elementwise(s, packed, machine)
    at = _tile_output(s, output, block, tile)
    stage.compute_at(output, at)
    _fill_tile(stage, block, dot)
    if worth_parallel(work(block)):
        output.parallel(at)
    return {stage.name, output.name, packed.name}


def pack(copy: Stage, block: Block, dot: Dot, width: int) -> None:
    """Panels of `width` columns; within, the reduction in its order, a step of its innermost variable beside each other."""
    args = dot.b.args
    column, along = args.index(spatial_vars(block)[-1]), args.index(dot.along)
    reduced = [n for n, i in enumerate(args) if i in reduce_vars(block) and n != along]
    order = sorted(reduced, key=lambda n: reduce_vars(block).index(args[n]))
    rest = [n for n in range(len(args)) if n not in (column, along, *reduced)]

    def panels(*i: Expr) -> tuple[Expr, ...]:
        outer = (*(i[n] for n in rest), i[column] // width, *(i[n] for n in order), i[along] // dot.by.step)
        return (*outer, i[column] % width, i[along] % dot.by.step)

    copy.transform_layout(panels)


def _tile_output(s: Schedule, output: Stage, block: Block, tile: Tile) -> Loop:
    """Cut the output into tiles, a panel of columns outermost; the loop in which a tile's sums are made."""
    loops = list(output.axis)
    column_o, column_i = output.split(loops[-1], tile.vectors * LANES)
    outer, inner, tail = loops[:-1], [column_i], []
    if tile.row_axis is not None and tile.rows > 1:
        size = s.extent(outer[tile.row_axis])
        shift = size.op == "const" and size.value >= tile.rows
        row_o, row_i = output.split(outer.pop(tile.row_axis), tile.rows, tail="shift_inwards" if shift else "guard")
        inner.insert(0, row_i)
        tail = [row_o]
    shared = batch_axes(block)
    batch = [loop for n, loop in enumerate(outer) if n in shared]
    rest = [loop for n, loop in enumerate(outer) if n not in shared]
    around = [*batch, column_o, *rest, *tail]
    output.reorder(*around, *inner)
    _, lane = output.split(column_i, LANES)
    output.vectorize(lane)
    return output.fuse(*around) if len(around) > 1 else around[0]


def _fill_tile(stage: Stage, block: Block, dot: Dot) -> None:
    axes, reduce = list(stage.axis), list(stage.reduce_axis)
    vectors, lane = stage.split(axes[-1], LANES)
    steps, within = stage.split(reduce.pop(reduce_vars(block).index(dot.along)), dot.by.step)
    stage.reorder(*reduce, steps, *axes[:-1], vectors, lane, within)
    try:
        stage.tensorize(lane, dot.by.name, fallback=True)
    except ScheduleError:  # columns that integer sets could not show to be whole: the loops are right all the same
        stage.reorder(within, lane)
        stage.vectorize(lane)
