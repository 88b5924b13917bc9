"""A depthwise convolution of a product (the first half of an inverted residual): the lines between stay in the near caches.

    e = clip(x w);  y = depthwise(pad(e))

A band of lines of `y`, for a panel of channels, is computed at a time: first the lines of `e` that its windows read, by
register tiles, then the windows. The lines where two bands meet are computed twice; `e` is never in memory as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod

from tensorlang.ir.expr import Expr
from tensorlang.ir.stmt import Block
from tensorlang.ir.visitor import loads
from tensorlang.schedule import Schedule, Stage
from tensorlang.schedule.rules import Machine
from tensorlang.symbolic.affine import linear_form

from .analysis import (
    extent,
    is_contraction,
    is_plain,
    is_reduction,
    reduce_vars,
    source_of,
    spatial_vars,
    store_of,
    worth_parallel,
)
from .chained import tile_block
from .elementwise import schedule_elementwise
from .tile import choose_tile, epilogue_of, pack_operands, part_edges, reduction_size, vectorize_stage

BAND_SHARE = 0.35  # of the second-level cache, for the lines of a band that windows read


@dataclass(frozen=True)
class Windowed:
    """The stages of it: the product, what its elements go through one by one, how windows find them, the windows, what is
    done with the sums; `rest` makes operands."""

    first: Stage
    points: list[Stage]
    moves: list[Stage]
    second: Stage
    after: list[Stage]
    rest: list[Stage]


def schedule_windowed(s: Schedule, machine: Machine) -> bool:
    """Schedule the program as windows over a product, if it is that; says whether it was."""
    found = _windowed(s)
    if found is None:
        return False
    second = found.second
    first, lines = _inline_between(s, found)
    for stage in found.after[:-1]:
        stage.compute_inline()
    output = epilogue_of(s, second)
    for stage in found.after[-1:]:
        if output is None or stage.name != output.name:
            schedule_elementwise(s, stage, machine)
    if output is None:
        name = second.name
        second = s.cache_write(second)
        output = s[name]
    packed, _ = pack_operands(s, first, machine, by_panels=False)
    for stage in found.rest:
        if stage.name not in packed:
            schedule_elementwise(s, stage, machine)
    tile = choose_tile(s.block(first), machine)
    windows = choose_tile(s.block(second), machine, panel=tile.vectors * tile.lanes)
    batch, line, *inside, channel = list(output.axis)
    panel, channel = output.split(channel, tile.vectors * tile.lanes)
    rows = _lines_of_band(s, first, second, tile.vectors * tile.lanes, machine)
    band, line = output.split(line, rows)
    vectors, lane = output.split(channel, windows.vectors * windows.lanes)
    size = s.extent(inside[-1])
    shift = size.op == "const" and size.value >= windows.rows
    point_o, point_i = output.split(inside.pop(), windows.rows, tail="shift_inwards" if shift else "guard")
    output.reorder(batch, panel, band, line, *inside, vectors, point_o, point_i, lane)
    at = output.fuse(batch, panel, band)
    second.compute_at(output, point_o)
    vectorize_stage(s, second, windows)
    _, lane = output.split(lane, windows.lanes)
    output.vectorize(lane)
    part_edges(s, second, output, point_o)
    lines.compute_at(output, at)
    computed = s.extent(lines.axis[-2])
    tile_block(s, first, lines, lines.axis[-2], tile, computed.value if computed.op == "const" else 1)
    if worth_parallel(None):
        output.parallel(at)
    return True


def _windowed(s: Schedule) -> Windowed | None:
    stages = list(s.stages)
    if any(not is_plain(s, s.block(st)) for st in stages):
        return None
    sums = [n for n, st in enumerate(stages) if is_reduction(s.block(st))]
    if len(sums) != 2 or not is_contraction(s.block(stages[sums[0]])) or is_contraction(s.block(stages[sums[1]])):
        return None
    first, second = (stages[n] for n in sums)
    product = end = store_of(s.block(first)).buffer
    inside = {product}
    points: list[Stage] = []
    moves: list[Stage] = []
    rest: list[Stage] = []
    for stage in stages[: sums[1]]:
        block = s.block(stage)
        store, reads = store_of(block), [e for e in loads(source_of(block)) if e.value in inside]
        if stage is first:
            continue
        if not reads:
            rest.append(stage)
            continue
        if not moves and store.buffer.shape == product.shape and all(e.args == store.indices for e in reads):
            points.append(stage)
        elif all(e.value is end for e in reads):
            moves.append(stage)
        else:
            return None
        end = store.buffer
        inside.add(end)
    after = stages[sums[1] + 1 :]
    axes, found = spatial_vars(s.block(second)), [e for e in loads(source_of(s.block(second))) if e.value in inside]
    if len(axes) < 4 or not found or any(e.value is not end or e.args[-1] is not axes[-1] for e in found):
        return None
    if inside & {*s.func.params, *(e.value for st in after for e in loads(source_of(s.block(st))))}:
        return None
    return Windowed(first, points, moves, second, after, rest)


def _inline_between(s: Schedule, found: Windowed) -> tuple[Stage, Stage]:
    """The product, and the one stage that is left between it and the windows: its epilogue, or a copy of the sums."""
    for stage in (*found.points[:-1], *found.moves):
        stage.compute_inline()
    lines = epilogue_of(s, found.first)
    if lines is not None:
        return found.first, lines
    name = found.first.name
    return s.cache_write(found.first), s[name]


def _lines_of_band(s: Schedule, first: Stage, second: Stage, width: int, machine: Machine) -> int:
    """How many lines of the result at once: they fit with what they read, few of those are computed twice, and all threads
    have as many bands."""
    block, product = s.block(second), s.block(first)
    batch, lines, *_, channels = (extent(block, v) or 1 for v in spatial_vars(block))
    points = prod(extent(product, v) or 1 for v in spatial_vars(product)[:-1]) / batch  # of the product, for all lines
    steps, windows = reduction_size(product) or 1, reduction_size(block) or 1
    moves, reach = _window(block, spatial_vars(block)[1])

    def cost(band: int) -> float:
        twice = (reach - moves) / (band * moves) if band < lines else 0.0
        pieces = batch * ceil(channels / width) * (lines // band)
        return (steps * (1 + max(twice, 0.0)) + windows) * ceil(pieces / machine.threads) * machine.threads / pieces

    most = machine.l2_bytes * BAND_SHARE / (points / lines * width * 4) - (reach - moves) / moves
    fit = [n for n in range(1, lines + 1) if lines % n == 0 and n <= most]
    return min(fit, key=lambda n: (cost(n), n), default=1)


def _window(block: Block, line: Expr) -> tuple[int, int]:
    """By how many elements of what it reads a window moves from line to line, and over how many it reaches."""
    own = {line, *reduce_vars(block)}
    for form in (linear_form(i, own) for e in loads(source_of(block)) for i in e.args):
        moves = form[0].get(line) if form is not None else None
        if form is None or not isinstance(moves, int):
            continue
        sizes = {v: extent(block, v) for v in form[0] if v is not line}
        return moves, 1 + sum(n * (sizes[v] or 1) - n for v, n in form[0].items() if v is not line and isinstance(n, int))
    return 1, 1
