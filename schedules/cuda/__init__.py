"""The default schedule of CUDA: every stage is a grid of thread blocks.

    injective producers          inlined, unless a contraction would compute them again and again
    products of halves           on tensor cores (`tensor_core`); of f32 too where the target is told to round to tf32
    products of matrices         a tile of the result by one block, a smaller one in the registers of each thread; operands
                                 come through shared memory, fetched by all threads together
    reductions along rows        softmax, layer norm: a row by a warp or by a block (`rows`)
    convolutions                 a small tile in the registers of each thread, an outer product at a time (`registers`)
    long ones along columns      a strip of columns by a block, the rows shared out among its warps (`columns`)
    other reductions             one thread sums one element, in a register, its epilogue fused
    one element each             one thread each, or a vector of neighbours; transposes by tiles (`elementwise`)
"""

from __future__ import annotations

from tensorlang.schedule import Schedule, Stage
from tensorlang.schedule.rules import Machine

from ..cpu.analysis import is_plain, is_reduction
from ..cpu.inline import inline_injective
from ..opencl import schedule_reduction
from .columns import schedule_columns
from .elementwise import schedule_elements
from .product import schedule_tiled_product
from .registers import schedule_registers
from .rows import schedule_rows
from .tensor_core import schedule_tensor_cores


def schedule(s: Schedule, machine: Machine) -> None:
    """Apply the default rules to `s`."""
    inline_injective(s)
    if schedule_rows(s):
        return
    done: set[str] = set()
    for stage in list(s.stages):
        block = s.block(stage)
        if stage.name not in done and is_reduction(block) and is_plain(s, block):
            done |= schedule_tensor_cores(s, stage, machine) or _reduction(s, stage)
    for stage in list(s.stages):
        if stage.name not in done:
            done |= schedule_elements(s, stage)


def _reduction(s: Schedule, stage: Stage) -> set[str]:
    """The first rule that fits; the stages that it took."""
    rules = (schedule_tiled_product, schedule_registers, schedule_columns, schedule_reduction)
    return next((done for rule in rules if (done := rule(s, stage))), set())
