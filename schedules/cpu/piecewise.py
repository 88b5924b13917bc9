"""Small linear maps (the transforms of Winograd's convolutions): programs that choose between formulas by a short axis.

    v[a, i, c] = select(a == 0, 4 d[i, 0, c] - 5 d[i, 2, c] + d[i, 4, c], select(a == 1, ...))
    y[h, c]    = select(h % 4 == 0, t[h // 4, 0, c] + ..., select(h % 4 == 1, ...))

Every choice is between sums that share their operands. With the short axes innermost and unrolled nothing is left of the
choices, and operands stay in vector registers: a tile of the result at a time, what leads to it in loops of its own.
"""

from __future__ import annotations

from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr
from tensorlang.ir.stmt import Block
from tensorlang.ir.visitor import loads, walk
from tensorlang.schedule import Loop, Schedule, Stage
from tensorlang.schedule.rules import Machine

from .analysis import extent, is_plain, is_reduction, source_of, spatial_vars, store_of, work, worth_parallel

SHORT = 8  # the longest axis that is unrolled


def schedule_piecewise(s: Schedule, machine: Machine) -> bool:
    """Schedule a chain of injective stages whose last one chooses by short axes; says whether it did."""
    stages = s.stages
    if not stages or any(not is_plain(s, s.block(st)) or is_reduction(s.block(st)) for st in stages):
        return False
    if any(store_of(s.block(st)).buffer in s.func.params for st in stages[:-1]):
        return False
    sink = s.block(stages[-1])
    choices = _choices([s.block(st) for st in stages])
    axes = spatial_vars(sink)
    if not choices or len(axes) < 2 or axes[-1] in choices:
        return False
    lanes = machine.lanes(store_of(sink).buffer.dtype.nbytes)
    columns = extent(sink, axes[-1])
    if columns is not None and columns < lanes:
        return False
    amount = work(sink)
    out = stages[-1]
    *loops, column = out.axis
    column_o, lane = out.split(column, lanes)
    outer, short = _split_short(s, out, loops, [choices.get(v) for v in axes])
    out.reorder(*outer, column_o, *short, lane)
    for stage in reversed(stages[:-1]):
        stage.compute_at(out, column_o)
        *_, last = stage.axis
        stage.vectorize(last)
        _unroll(s, stage, list(stage.axis)[:-1])
    out.vectorize(lane)
    _unroll(s, out, short)
    rows = outer[:-1] if len(outer) > 1 else outer
    if rows and worth_parallel(amount):
        out.parallel(out.fuse(*rows) if len(rows) > 1 else rows[0])
    return True


def _choices(chain: list[Block]) -> dict[Expr, int]:
    """Axes of the last stage by which the chain chooses between values, with the number of their classes: the extent of a
    short axis, or m where it chooses by the axis modulo m. Empty if there are none, or one is long."""
    chosen: dict[Buffer, dict[Expr, int]] = {}
    for block in chain:
        own: dict[Expr, int] = {}
        indices = [e.args[0] for e in walk(source_of(block)) if e.op == "eq" and e.args[1].op == "const"]
        for e in loads(source_of(block)):
            earlier = next((b for b in chain if store_of(b).buffer is e.value), None)
            if earlier is not None:
                indices += [e.args[spatial_vars(earlier).index(v)] for v in chosen[e.value]]
        for index in indices:
            if index.op == "const":
                continue
            axis, size = (index.args[0], index.args[1]) if index.op == "floormod" else (index, None)
            if axis not in spatial_vars(block):
                return {}
            classes = extent(block, axis) if size is None else size.value if size.op == "const" else None
            if classes is None or not 1 < classes <= SHORT:
                return {}
            own[axis] = classes
        chosen[store_of(block).buffer] = own
    return chosen[store_of(chain[-1]).buffer]


def _split_short(s: Schedule, out: Stage, loops: list[Loop], classes: list[int | None]) -> tuple[list[Loop], list[Loop]]:
    """Long loops, and the short ones to be unrolled: whole axes, or the residues of axes."""
    outer: list[Loop] = []
    short: list[Loop] = []
    for loop, count in zip(loops, classes, strict=False):
        size = s.extent(loop)
        if count is None:
            outer.append(loop)
        elif size.op == "const" and size.value == count:
            short.append(loop)
        else:
            around, inner = out.split(loop, count)
            outer.append(around)
            short.append(inner)
    return outer, short


def _unroll(s: Schedule, stage: Stage, loops: list[Loop]) -> None:
    for loop in loops:
        size = s.extent(loop)
        if size.op == "const" and 1 < size.value <= SHORT:
            stage.unroll(loop)
