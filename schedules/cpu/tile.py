"""Reductions that vectorise along an output axis: matmul, convolution, pooling, sums over leading axes.

A tile of the output is held in vector registers while the whole reduction runs over it: `rows` consecutive points of
one axis by `vectors` registers along the last one. Each row's operand is broadcast (or loaded, for depthwise) once per tile
row, each column operand loaded once per tile column. Constant operands are packed so that a tile reads them in order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from math import ceil, prod

from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr
from tensorlang.ir.stmt import Block
from tensorlang.ir.tree import written_buffers
from tensorlang.ir.visitor import free_vars, loads, walk
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
    step,
    store_of,
    stride,
    work,
    worth_parallel,
)
from .blocked import PANEL_SHARE, ask_ahead, schedule_by_blocks, tiles_of_panel
from .elementwise import schedule_elementwise

LINE = 64  # bytes of a cache line
LEAST_PANELS = 8  # of columns, from which a packed copy of the rows is repaid
OPEN_ROWS = 64  # how many rows are reckoned with where their number is not known
STAYS = 0.5  # of the second-level cache, for an operand that stays there while all rows pass by
SHARE = 16  # tiles that a thread takes at a time where their number is not known
DECODED = 3  # instructions that a core takes in per cycle, where it shares its front end with another thread of the machine
LONG_REDUCTION = 64  # iterations of a tile's reduction from which the cost of finding the tile does not matter


def schedule_tile(s: Schedule, stage: Stage, machine: Machine, before: Collection[str] = ()) -> set[str]:
    """Schedule one reduction with its epilogue; returns the names of the stages that are done, as those named `before` are."""
    output = epilogue_of(s, stage)
    if output is None:
        name = stage.name
        stage = s.cache_write(stage)
        output = s[name]
    packed_rows = _pack_rows(s, stage, machine)
    packed, panels = pack_operands(s, stage, machine)
    packed |= packed_rows
    block = s.block(stage)
    axes = spatial_vars(block)
    done = {stage.name, output.name, *packed}
    if not axes:
        return done
    tile = choose_tile(block, machine)
    amount = work(block)
    if is_contraction(block) and tile.row_axis is not None and tile.lanes > 1 and not (panels or batch_axes(block)):
        by_blocks = schedule_by_blocks(
            s, stage, output, tile.row_axis, tile.rows, tile.vectors * tile.lanes, machine, whole=bool(packed_rows)
        )
        if by_blocks is not None:
            output.parallel(by_blocks)
            return done
    loops = list(output.axis)
    column = loops[-1]
    width = tile.vectors * tile.lanes
    column_o, column_i = (column, None) if tile.lanes == 1 else output.split(column, width, tail=_column_tail(block, width))
    row_o: Loop | None = None
    inner: list[Loop] = []
    outer = loops[:-1]
    if tile.row_axis is not None and tile.rows > 1:
        row = outer.pop(tile.row_axis)
        size = s.extent(row)
        shift = size.op == "const" and size.value >= tile.rows and not packed_rows
        row_o, row_i = output.split(row, tile.rows, tail="shift_inwards" if shift else "guard")
        inner.append(row_i)
    reuse = is_contraction(block)
    band: list[Loop] = []
    inputs: list[Stage] = []
    inner += [column_i] if column_i is not None else []
    tail = [row_o] if row_o is not None else []
    if reuse:
        # A panel of columns stays in the second-level cache while all rows pass by; products of a batch share nothing.
        shared = batch_axes(block)
        batch = [loop for n, loop in enumerate(outer) if n in shared]
        rest = [loop for n, loop in enumerate(outer) if n not in shared]
        around = [*batch, column_o, *rest]
        if row_o is not None and rest and _filters_stay(block, tile, machine):
            around = [*batch, row_o, *rest, column_o]
            row_o, tail = None, []
        elif row_o is not None and not panels and _iterations(s, [column_o]) > 1 and _weights_stay(block, machine):
            around = [*batch, *rest, row_o, column_o]
            row_o, tail = None, []
        output.reorder(*around, *tail, *inner)
        long = reduction_size(block)
        if panels:  # each is copied just before all the rows that are multiplied with it
            pass
        elif row_o is not None and (long is None or long >= LONG_REDUCTION):
            around.append(row_o)
            row_o = None
        elif row_o is not None and _iterations(s, around) < 4 * machine.threads:
            tiles = s.extent(row_o)  # too few panels for all threads: each takes some tiles of rows at a time
            several = -(-tiles.value // (4 * machine.threads)) if tiles.op == "const" else SHARE
            share, row_o = output.split(row_o, several, tail="shift_inwards" if tiles.op == "const" else "guard")
            around.append(share)
    else:
        # Nothing is read twice but by neighbouring windows: go through memory once, a band of rows at a time.
        done |= _inline_padding(s, stage, before)
        inputs = _materialised_inputs(s, stage, before)
        band = _split_band(s, inputs, output, outer, machine)
        output.reorder(*outer, *band, column_o, *tail, *inner)
        around = outer if band or _iterations(s, outer) >= 4 * machine.threads else [*outer, column_o]
    sharing = tiles_of_panel(s, around, column_o) if reuse and row_o is None and not panels else None
    at = output.fuse(*around) if len(around) > 1 else around[0]
    inside = row_o or (column_o if column_o not in around and not reuse else None)
    stage.compute_at(output, inside or at)
    for panel in panels:
        panel.compute_at(output, at)
        _, lane = panel.split(panel.axis[-1], tile.lanes)
        panel.vectorize(lane)
    vectorize_stage(s, stage, tile)
    if sharing is not None:
        ask_ahead(s, stage, at, sharing, (reduction_size(block) or 0) * width * 4, machine)
    if column_i is not None:
        _, lane = output.split(column_i, tile.lanes)
        output.vectorize(lane)
    if not reuse and row_o is not None and not inputs:
        part_edges(s, stage, output, row_o)
    if not reuse and band:
        done |= _compute_inputs_at(s, inputs, output, at, machine)
    if worth_parallel(amount):
        output.parallel(at)
    return done


def _weights_stay(block: Block, machine: Machine) -> bool:
    """Whether the columns' operand, the same for all rows, fits into a part of the second-level cache: then each tile of rows
    meets all of it, and lines of the result are written one after the other."""
    steps, columns = reduction_size(block), extent(block, spatial_vars(block)[-1])
    shared = not batch_axes(block) and steps is not None and columns is not None
    return shared and (steps or 0) * (columns or 0) * 4 <= machine.l2_bytes * STAYS


def _filters_stay(block: Block, tile: Tile, machine: Machine) -> bool:
    """Whether columns are windows along the lines of an image, and a tile's filters fit into half of the first-level cache:
    they stay there while the image passes by, and the result is written line after line."""
    column = spatial_vars(block)[-1]
    windows = any(stride(e, column) in (1, 2) and e.args[-1] is not column for e in loads(source_of(block)))
    steps = reduction_size(block)
    return windows and steps is not None and tile.rows * steps * 4 <= machine.l1_bytes // 2


def _column_tail(block: Block, width: int) -> str:
    """Masked loads that skip elements are element by element: where there are any, the last vectors begin earlier instead."""
    column = spatial_vars(block)[-1]
    size = extent(block, column)
    skips = any(step(e, column) == "far" and (stride(e, column) or 0) > 1 for e in loads(source_of(block)))
    return "shift_inwards" if skips and size is not None and size >= width and not is_contraction(block) else "guard"


def _inline_padding(s: Schedule, stage: Stage, done: Collection[str]) -> set[str]:
    """Padding around an image of known size is not copied: windows ask whether they lie inside, where vectors run along
    another axis."""
    found = set()
    for p in _materialised_inputs(s, stage, done):
        block = s.block(p)
        source = source_of(block)
        if source.op != "select" or spatial_vars(block)[-1] in free_vars(source.args[0]):
            continue
        if _is_static(store_of(block).buffer) and all(e.op in ("load", "const") for e in source.args[1:]):
            p.compute_inline()
            found.add(p.name)
    return found


def part_edges(s: Schedule, stage: Stage, output: Stage, row: Loop) -> None:
    """The first and the last tile of a line are by themselves, so that those between lie inside the image for certain."""
    size = s.extent(row)
    asks = any(e.op == "select" for e in walk(source_of(s.block(stage))))
    if size.op == "const" and size.value > 1 and asks:
        output.loop_partition(row, [1, None, 1] if size.value > 2 else [1, 1])


def _split_band(s: Schedule, inputs: list[Stage], output: Stage, outer: list[Loop], machine: Machine) -> list[Loop]:
    """Split the innermost of `outer` into bands of rows whose padded `inputs` fit the second-level cache."""
    if not outer or not inputs:
        return []
    rows = s.extent(outer[-1])
    if rows.op != "const" or rows.value <= 1:
        return []
    width = sum(store_of(s.block(p)).buffer.dtype.nbytes * _row_elements(s.block(p)) for p in inputs)
    budget = max(1, machine.l2_bytes // (4 * max(width, 1)))
    sizes = [n for n in range(1, rows.value + 1) if rows.value % n == 0 and n <= budget]
    enough = [n for n in sizes if rows.value // n >= 4 * machine.threads] or sizes[:1]
    band_o, band_i = output.split(outer.pop(), enough[-1])
    outer.append(band_o)
    return [band_i]


def _iterations(s: Schedule, loops: list[Loop]) -> int:
    """How often the body of `loops` runs; a symbolic extent counts as many."""
    total = 1
    for loop in loops:
        size = s.extent(loop)
        total *= size.value if size.op == "const" else 1024
    return total


def _row_elements(block: Block) -> int:
    """Elements of one row of a stage: all dimensions but the leading two."""
    total = 1
    for v in spatial_vars(block)[2:]:
        total *= extent(block, v) or 1024
    return total


def _materialised_inputs(s: Schedule, stage: Stage, done: Collection[str]) -> list[Stage]:
    """Injective stages that only `stage` reads (padding, above all), and that are not scheduled yet."""
    read = {e.value for e in loads(source_of(s.block(stage)))}
    return [
        p
        for p in s.stages
        if p.name not in done
        and is_plain(s, s.block(p))
        and not is_reduction(s.block(p))
        and store_of(s.block(p)).buffer in read
        and [r.name for r in readers_of(s, store_of(s.block(p)).buffer)] == [stage.name]
    ]


def _compute_inputs_at(s: Schedule, inputs: list[Stage], output: Stage, at: Loop, machine: Machine) -> set[str]:
    """Make the stage's private inputs band by band, just before they are read."""
    done = set()
    for p in inputs:
        p.compute_at(output, at)
        schedule_elementwise(s, p, machine, parallel=False)
        done.add(p.name)
    return done


def vectorize_stage(s: Schedule, stage: Stage, tile: Tile) -> None:
    axes, reduce = list(stage.axis), list(stage.reduce_axis)
    if tile.lanes > 1:
        vectors, lane = stage.split(axes[-1], tile.lanes)
        stage.reorder(*reduce, *axes[:-1], vectors, lane)
        stage.vectorize(lane)
    elif reduce:
        stage.reorder(*reduce, *axes)


def epilogue_of(s: Schedule, stage: Stage) -> Stage | None:
    """The one injective stage that reads the reduction at exactly the element it writes, if it is so."""
    block = s.block(stage)
    buffer = store_of(block).buffer
    if buffer in s.func.params:
        return None  # an output must be whole
    readers = readers_of(s, buffer)
    if len(readers) != 1 or is_reduction(readers[0]) or not is_plain(s, readers[0]):
        return None
    reader = readers[0]
    store = store_of(reader)
    reads = [e for e in loads(source_of(reader)) if e.value is buffer]
    if any(e.args != store.indices for e in reads) or store.buffer.shape != buffer.shape:
        return None
    return s[reader.name]


def pack_operands(
    s: Schedule, stage: Stage, machine: Machine, *, by_panels: bool = True
) -> tuple[set[str], list[Stage]]:
    """Copies of operands in the order in which tiles read them: columns outermost in panels, then the reduction.

    Returns the names of the copies, and those of them that are left to be made panel by panel, in the loop over panels
    (where `by_panels` allows it).
    """
    block = s.block(stage)
    if not is_contraction(block):
        return set(), []
    column = spatial_vars(block)[-1]
    done: set[str] = set()
    panels: list[Stage] = []
    for e in loads(source_of(block)):
        position = next((n for n, i in enumerate(e.args) if i is column), None)
        plain = all(i.op in ("var", "const") for i in e.args) and len(set(e.args)) == len(e.args)
        if e.value is store_of(block).buffer or position is None or not plain:
            continue
        copy = _packed_stage(s, stage, block, e, machine)
        if copy is None:
            continue
        tile = choose_tile(block, machine)
        done.add(copy.name)
        if by_panels and _by_panels(s, block, e, tile, machine):
            panels.append(copy)
            continue
        _pack(copy, block, e, position, tile.vectors * tile.lanes)
        schedule_elementwise(s, copy, machine)
    return done, panels


def _by_panels(s: Schedule, block: Block, e: Expr, tile: Tile, machine: Machine) -> bool:
    """Whether an input's copy is made panel by panel, so that it stays in the cache: nothing else runs in parallel then."""
    if e.value not in s.func.inputs or e.value.name in s.func.attrs.get("constants", ()) or len(e.args) != 2:
        return False
    columns = extent(block, spatial_vars(block)[-1])
    if len(spatial_vars(block)) != 2 or columns is None or reduction_size(block) is None:
        return False
    return columns // (tile.vectors * tile.lanes) >= 4 * machine.threads


def _pack_rows(s: Schedule, stage: Stage, machine: Machine) -> set[str]:
    """A copy of the row operand in which the rows of a tile lie side by side, where in memory they push each other out of
    the first-level cache, and so many columns read them that the copy is repaid."""
    block = s.block(stage)
    if not is_contraction(block):
        return set()
    tile = choose_tile(block, machine)
    axes = spatial_vars(block)
    if tile.row_axis is None or tile.rows < 2 or axes[-1] is axes[tile.row_axis]:
        return set()
    row, columns = axes[tile.row_axis], extent(block, axes[-1])
    panels = columns // (tile.vectors * tile.lanes) if columns is not None else 0
    for e in loads(source_of(block)):
        position = next((n for n, i in enumerate(e.args) if i is row), None)
        plain = all(i.op in ("var", "const") for i in e.args) and len(set(e.args)) == len(e.args)
        if position is None or not plain or axes[-1] in e.args or e.value not in s.func.inputs:
            continue
        stride = prod(d.value for d in e.value.shape[position + 1 :]) * e.value.dtype.nbytes if _is_static(e.value) else 0
        prepared = e.value.name in s.func.attrs.get("constants", ())  # packed once, when the program is built
        if prepared or panels >= LEAST_PANELS and _collisions(tile.rows, stride, machine):
            copy = s.cache_read(e.value, "packed", [stage])
            _pack(copy, block, e, position, tile.rows)
            if e.args[-1] is row or e.args[-1] not in reduce_vars(block):
                schedule_elementwise(s, copy, machine)
            else:
                _turn(copy, machine.lanes(e.value.dtype.nbytes))
            return {copy.name}
    return set()


def _turn(copy: Stage, lanes: int) -> None:
    """Schedule a copy whose innermost axis is not that along which it reads neighbours, but the one before: whole vectors are
    read, and their elements written apart."""
    *outer, along, row = copy.axis
    along_o, lane = copy.split(along, lanes)
    copy.reorder(*outer, along_o, row, lane)
    copy.vectorize(lane)
    copy.parallel(copy.fuse(*outer, along_o))


def _packed_stage(s: Schedule, stage: Stage, block: Block, e: Expr, machine: Machine) -> Stage | None:
    """The stage that shall write the packed operand of load `e`: a new copy, its injective producer, or None."""
    column = spatial_vars(block)[-1]
    if e.value in s.func.inputs:
        prepared = e.value.name in s.func.attrs.get("constants", ())
        if not prepared and step(e, column) == "unit" and not _pays_to_pack(block, e, column, machine):
            return None
        return s.cache_read(e.value, "packed", [stage])
    producers = [st for st in s.stages if e.value in written_buffers(s.block(st))]
    if e.value in s.func.outputs or len(producers) != 1 or len(readers_of(s, e.value)) != 1:
        return None
    producer = s.block(producers[0])
    if is_reduction(producer) or not is_plain(s, producer):
        return None
    own = {loop.var for loop in producers[0].loops}
    if any(loop.var in own for st in s.stages if st.name != producers[0].name for loop in st.loops):
        return None  # it is tiled already, and something is computed in its loops
    return producers[0]


def _pack(copy: Stage, block: Block, e: Expr, position: int, width: int) -> None:
    """Batch dimensions first, then panels of `width` columns, each in the order in which the reduction runs over it."""
    if width <= 1:
        return
    batch = [n for n, i in enumerate(e.args) if n != position and i not in reduce_vars(block)]
    order = sorted(
        (n for n in range(len(e.args)) if n not in batch and n != position),
        key=lambda n: reduce_vars(block).index(e.args[n]),
    )
    copy.transform_layout(
        lambda *i: (*(i[n] for n in batch), i[position] // width, *(i[n] for n in order), i[position] % width)
    )


def _pays_to_pack(block: Block, e: Expr, column: Expr, machine: Machine) -> bool:
    """Whether copying an operand at run time is repaid: rows that are long (they collide in the cache) or that vectors do not
    divide (loads cross lines and need masks), read by many tiles."""
    columns = extent(block, column)
    others = [extent(block, v) for v in spatial_vars(block)[:-1] if v not in e.args]
    readers = 1
    for n in others:
        readers *= n if n is not None else 64
    awkward = columns is not None and (columns >= 256 or columns > machine.lanes(4) and columns % machine.lanes(4) != 0)
    return awkward and readers >= 64


@dataclass(frozen=True)
class Tile:
    """A register tile: `rows` points of output axis number `row_axis` by `vectors` registers of `lanes` elements."""

    rows: int
    vectors: int
    lanes: int
    row_axis: int | None


def choose_tile(
    block: Block, machine: Machine, steps: int | None = None, most_rows: int | None = None, panel: int | None = None
) -> Tile:
    """The tile with the least estimated time per point of the reduction.

    `steps` is the reduction's length where that is not its number of points, `most_rows` and `panel` how many rows and columns
    there are at a time.
    Per step of the reduction a core issues two multiply-adds and two loads a cycle but takes in only `DECODED` instructions,
    needs four cycles before an accumulator is ready again, and reads a packed panel from the second-level cache at about 24
    bytes a cycle. A vector of a line of an image counts as two loads, since it lies across two lines of the cache; one of
    every other element takes two such and a shuffle, which multiply-adds wait for.
    """
    axes = spatial_vars(block)
    column = axes[-1]
    lanes = machine.lanes(4)
    columns = panel or extent(block, column)
    source = loads(source_of(block))
    if all(step(e, column) != "unit" and stride(e, column) != 2 for e in source) and not is_contraction(block):
        lanes = 1
    if columns is not None and columns < lanes // 2:
        lanes = 1
    row_axis = _row_axis(block)
    row_extent = most_rows or extent(block, axes[row_axis]) if row_axis is not None else 1
    registers = machine.vector_registers
    reduction = reduction_size(block) if steps is None else steps
    reuse = is_contraction(block)
    windows = [e for e in source if stride(e, column) in (1, 2) and e.args[-1] is not column] if reuse else []
    single = len(reduce_vars(block)) == 1  # windows of images wait for their rows, not for instructions
    halves = any(stride(e, column) == 2 for e in windows)
    best: tuple[float, Tile] | None = None
    for vectors in range(1, 9):
        if columns is not None and vectors > 1 and (vectors - 1) * lanes >= columns:
            break
        for rows in range(1, registers - 3):
            if rows > 1 and (row_axis is None or (row_extent is not None and rows > row_extent)):
                break
            if rows * vectors + vectors + 1 >= registers:  # one to spare: for a product where it is not added at once
                break
            loaded = _loads(rows, vectors, reuse) + (vectors * (3 if halves else 1) if windows else 0)
            cycles = max((rows * vectors + (vectors if halves else 0)) / 2, loaded / 2, 4.0)
            if reuse and single:
                cycles = max(cycles, (rows * vectors + loaded + 1) / DECODED)
            if reduction is not None and reuse:
                bytes_ = reduction * vectors * lanes * 4
                if bytes_ > machine.l1_bytes // 2:
                    cycles = max(cycles, vectors * lanes * 4 / 24)
                if bytes_ > machine.l2_bytes * PANEL_SHARE:
                    cycles = max(cycles, vectors * lanes * 4 / 8)
            waste = 1.0
            if row_extent:
                waste *= ceil(row_extent / rows) * rows / row_extent
            elif row_extent is None:  # what is left over goes row by row, each of which waits for its own sums
                waste += (rows - 1) / 2 * max(4.0, vectors / 2) / (OPEN_ROWS * cycles / rows)
            if columns:
                waste *= ceil(columns / (vectors * lanes)) * vectors * lanes / columns
            # Finding a tile and writing it back costs some cycles too: prefer larger tiles where reductions are short.
            fixed = 20.0 / (64 if reduction is None else max(reduction, 1))
            score = (cycles + fixed) * waste / (rows * vectors)
            if best is None or score < best[0] - 1e-9:
                best = (score, Tile(rows, vectors, lanes, row_axis))
    assert best is not None  # rows = vectors = 1 always fits
    return best[1]


def _loads(rows: int, vectors: int, reuse: bool) -> int:
    """Loads per reduction step: every row's broadcast and every column vector; all of both without reuse."""
    return rows + vectors if reuse else rows * vectors


def _is_static(buffer: Buffer) -> bool:
    return all(d.op == "const" for d in buffer.shape)


def _collisions(rows: int, stride: int, machine: Machine) -> int:
    """How many of a tile's rows find no place in the first-level cache, because too many lie in the same set of it.

    A line stays there from one step of the reduction to the next only if fewer rows than ways fall into its set; rows whose
    distance is a multiple of a large power of two all fall into a few.
    """
    lines = Counter(n * stride // LINE % (machine.l1_bytes // LINE // machine.l1_ways) for n in range(rows))
    return sum(n for n in lines.values() if n > machine.l1_ways - 2) if stride else 0


def _row_axis(block: Block) -> int | None:
    """The output axis along which a tile has rows: the innermost but the last that is longer than one; of products, such that
    all rows read the same columns (in an image with channels second: the filters, not the lines)."""
    axes = spatial_vars(block)
    long = [n for n in reversed(range(len(axes) - 1)) if extent(block, axes[n]) != 1]
    if is_contraction(block):
        columns = [e for e in loads(source_of(block)) if stride(e, axes[-1]) in (1, 2)]
        moving = {v for e in columns for i in e.args for v in free_vars(i)}
        long = [n for n in long if axes[n] not in moving] or long
    return next(iter(long), None)


def batch_axes(block: Block) -> list[int]:
    """The leading output axes that every operand has: the products along them have nothing in common."""
    read = [{v for i in e.args for v in free_vars(i)} for e in loads(source_of(block))]
    axes = spatial_vars(block)
    return [n for n in range(len(axes) - 1) if all(axes[n] in r for r in read)]


def reduction_size(block: Block) -> int | None:
    total = 1
    for v in reduce_vars(block):
        size = extent(block, v)
        if size is None:
            return None
        total *= size
    return total


