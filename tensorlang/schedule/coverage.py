"""Whether everything that is needed of a tensor is still written."""

from __future__ import annotations

from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr, var
from tensorlang.ir.stmt import Allocate, PrimFunc
from tensorlang.ir.tree import find_block, loop_path, loops_of, path_to, written_buffers
from tensorlang.ir.visitor import free_vars
from tensorlang.schedule import legality
from tensorlang.schedule.verdict import PROVED, Verdict, both
from tensorlang.symbolic.access import Access, accesses
from tensorlang.symbolic.conflict import show_values, uncovered
from tensorlang.symbolic.integer_set import Unknown
from tensorlang.symbolic.interval import Interval, RangesLike


def check_written(func: PrimFunc, stage: str) -> Verdict:
    """Whether all that is read of what `stage` computes is written, and every element of an output."""
    block = find_block(func.body, stage)
    verdict = PROVED
    for buffer in written_buffers(block):
        if buffer in func.outputs:
            verdict = both(verdict, _check_output(func, buffer, stage))
        else:
            home = path_to(func.body, lambda s, b=buffer: isinstance(s, Allocate) and s.buffer is b)  # type: ignore[misc]
            around = loops_of(home)
            path = loop_path(func.body, around[-1].var) if around else [func.body]
            verdict = both(verdict, legality.check_covered(func, path, buffer))
    return verdict


def _check_output(func: PrimFunc, buffer: Buffer, stage: str) -> Verdict:
    index = tuple(var(f"d{n}") for n in range(buffer.ndim))
    everything = Access("the caller", buffer, index, False, tuple(zip(index, buffer.shape, strict=True)))
    writes = [a for a in accesses([func.body]) if a.write and a.buffer is buffer]
    missing = uncovered(everything, [legality.at_first_point(w) for w in writes], (), _sizes(func))
    if isinstance(missing, Unknown):
        return Verdict("unknown", f"whether all of {buffer.name} is written: {missing.reason}")
    if missing is None:
        return PROVED
    values, element = missing
    at = show_values({v: n for v, n in values.items() if v not in index})
    where = f"{buffer.name}[{', '.join(map(str, element))}]" + (f" at {at}" if at else "")
    reason = f"{stage} no longer writes {where}, an element of an output"
    return Verdict("refuted", reason, None, "", (find_block(func.body, stage),))


def _sizes(func: PrimFunc) -> RangesLike:
    found: set[Expr] = set(func.size_vars)
    for buffer in func.buffers:
        for extent in buffer.shape:
            found |= free_vars(extent)
    return dict.fromkeys(found, Interval(0, None))
