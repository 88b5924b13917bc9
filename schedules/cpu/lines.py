"""Lines that are computed, then read at computed places: interpolation in images with channels second.

A line of the producer is made when its reader comes to it, a vector at a time; the reader gathers its elements from the first-
level cache.

    for h, w: lines[h, w] = x[f(h), w]*a(h) + x[g(h), w]*b(h)
    for h, v: y[h, v] = lines[h, p(v)]*c(v) + lines[h, q(v)]*d(v)
->  parallel for h: (for w_o: vector lines[w]); (for v_o: vector y[h, v])
"""

from __future__ import annotations

from tensorlang.schedule import Schedule, Stage
from tensorlang.schedule.rules import Machine

from .analysis import has_own_axes, is_plain, is_pointwise, readers_of, spatial_vars, store_of, work, worth_parallel
from .elementwise import schedule_elementwise, vector_lanes
from .inline import gathers_from


def schedule_lines(s: Schedule, stage: Stage, machine: Machine) -> bool:
    """Schedule `stage`, a producer of lines, together with the stage that reads them; says whether it did."""
    lines = s.block(stage)
    if not is_plain(s, lines) or not is_pointwise(lines) or store_of(lines).buffer in s.func.params:
        return False
    readers = readers_of(s, store_of(lines).buffer)
    if len(readers) != 1 or not is_plain(s, readers[0]) or not is_pointwise(readers[0]):
        return False
    if not gathers_from(readers[0], lines) or len(spatial_vars(readers[0])) < 2:
        return False
    reader = s[readers[0].name]
    if not has_own_axes(s, reader):
        return False  # it has taken in the lines of another producer
    amount = work(readers[0])
    *outer, column = reader.axis
    rows = reader.fuse(*outer) if len(outer) > 1 else outer[0]
    _, lane = reader.split(column, vector_lanes(s, reader, machine))
    stage.compute_at(reader, rows)
    schedule_elementwise(s, stage, machine, parallel=False)
    reader.vectorize(lane)
    if worth_parallel(amount):
        reader.parallel(rows)
    return True
