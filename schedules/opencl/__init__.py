"""The default schedule of OpenCL: every stage is a grid of work groups.

    injective producers          inlined, unless a contraction would compute them again and again
    products of matrices         a tile of the result by one group, whose items fetch its operands into shared memory together
    other reductions             one item sums one element, in an accumulator of its own, its epilogue fused
    one element each             one item each
"""

from __future__ import annotations

from tensorlang.ir.stmt import Block, Store
from tensorlang.ir.visitor import loads
from tensorlang.schedule import Loop, Schedule, Stage
from tensorlang.schedule.rules import Machine

from ..c import epilogue_of
from ..cpu.analysis import extent, is_contraction, is_plain, is_reduction, reduce_vars, source_of, spatial_vars
from ..cpu.inline import inline_injective

ITEMS = 64  # in a group, where nothing is shared
TILE = 16  # rows and columns of the tile of a matrix that one group computes, and depth of what it fetches at once


def schedule(s: Schedule, machine: Machine) -> None:
    """Apply the default rules to `s`."""
    inline_injective(s)
    done: set[str] = set()
    for stage in list(s.stages):
        block = s.block(stage)
        if stage.name not in done and is_reduction(block) and is_plain(s, block):
            done |= schedule_product(s, stage) or schedule_reduction(s, stage)
    for stage in list(s.stages):
        if stage.name not in done:
            distribute(s, stage)


def distribute(s: Schedule, stage: Stage) -> Loop | None:
    """One work item for each point of a stage; the loop over items."""
    axes = list(stage.axis)
    if not axes:
        return None
    points = stage.fuse(*axes) if len(axes) > 1 else axes[0]
    group, item = stage.split(points, ITEMS)
    stage.bind(group, "blockIdx.x")
    stage.bind(item, "threadIdx.x")
    return item


def schedule_reduction(s: Schedule, stage: Stage) -> set[str]:
    """One element of the result by each item."""
    output = epilogue_of(s, stage)
    name = stage.name
    if output is None:
        stage = s.cache_write(stage)
        output = s[name]
    item = distribute(s, output)
    if item is not None:
        stage.compute_at(output, item)
    return {stage.name, output.name, name}


def schedule_product(s: Schedule, stage: Stage) -> set[str]:
    """A tile of 16 x 16 elements by one group: its operands' tiles go through shared memory. Empty where it does not fit."""
    block = s.block(stage)
    if not is_matrix_product(block):
        return set()
    output = epilogue_of(s, stage)
    name = stage.name
    if output is None:
        stage = s.cache_write(stage)
        output = s[name]
    operands = list(dict.fromkeys(e.value for e in loads(source_of(s.block(stage)))))
    *batch, row, column = output.axis
    row_o, row_i = output.split(row, TILE)
    column_o, column_i = output.split(column, TILE)
    output.reorder(*batch, row_o, column_o, row_i, column_i)
    if batch:
        output.bind(output.fuse(*batch) if len(batch) > 1 else batch[0], "blockIdx.z")
    output.bind(row_o, "blockIdx.y")
    output.bind(column_o, "blockIdx.x")
    output.bind(row_i, "threadIdx.y")
    output.bind(column_i, "threadIdx.x")
    stage.compute_at(output, column_o)
    *_, y, x = stage.axis
    (k,) = stage.reduce_axis
    k_o, k_i = stage.split(k, TILE)
    stage.reorder(k_o, y, x, k_i)
    stage.bind(y, "threadIdx.y")
    stage.bind(x, "threadIdx.x")
    done = {stage.name, output.name, name}
    for operand in operands:
        tile = s.cache_read(operand, "shared", [stage])
        tile.compute_at(stage, k_o)
        *_, y, x = tile.axis
        tile.bind(y, "threadIdx.y")
        tile.bind(x, "threadIdx.x")
        done.add(tile.name)
    return done


def is_matrix_product(block: Block) -> bool:
    """Whether a stage is a product of matrices, all of it in whole tiles."""
    if not is_product(block):
        return False
    sizes = [extent(block, v) for v in (*spatial_vars(block)[-2:], reduce_vars(block)[0])]
    return all(n is not None and n % TILE == 0 for n in sizes)


def is_product(block: Block) -> bool:
    """A sum over one axis of products of two elements, each read at plain positions."""
    if not is_contraction(block) or not isinstance(block.body, Store) or len(reduce_vars(block)) != 1:
        return False
    axes = spatial_vars(block)
    found = loads(source_of(block))
    if len(axes) < 2 or len(found) != 2 or found[0].value is found[1].value:
        return False
    if any(i.op not in ("var", "const") for e in found for i in e.args):
        return False
    row, column = axes[-2:]
    sides = ((row, column), (column, row))
    return all(any(a in e.args and b not in e.args for e in found) for a, b in sides)
