"""Whether everything that is needed of a tensor is still written."""

from __future__ import annotations

from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import var
from tensorlang.ir.reduction import reduce_loop_vars
from tensorlang.ir.stmt import Allocate, PrimFunc, Stmt
from tensorlang.ir.tree import block_path, find_block, loop_path, loops_of, path_to, read_buffers, written_buffers
from tensorlang.ir.visitor import blocks, free_vars
from tensorlang.schedule import legality
from tensorlang.schedule.verdict import PROVED, Verdict, both
from tensorlang.symbolic.access import Access, accesses
from tensorlang.symbolic.conflict import determined_variables, show_values, uncovered
from tensorlang.symbolic.integer_set import Unknown


def check_written(func: PrimFunc, stage: str) -> Verdict:
    """Whether all that is read of what `stage` computes is written, and every element of an output."""
    block = find_block(func.body, stage)
    verdict = PROVED
    for buffer in written_buffers(block):
        if buffer in func.outputs:
            verdict = both(verdict, _check_output(func, buffer, stage))
        else:
            verdict = both(verdict, legality.check_covered(func, _lifetime(func, stage, buffer), buffer))
    return verdict


def _lifetime(func: PrimFunc, stage: str, buffer: Buffer) -> list[Stmt]:
    """The path to the statement in one execution of which all that is read of `buffer` must be written.

    That is the loop that it is private to; or one inside, in each of whose iterations the stage writes the same elements
    again (a rolling buffer's slots do so): then what another iteration left there is not what is wanted.
    """
    home = path_to(func.body, lambda s: isinstance(s, Allocate) and s.buffer is buffer)
    inside = loops_of(home)
    path = block_path(func.body, stage)
    block = find_block(func.body, stage)
    own = [f for f in loops_of(path) if f.var not in reduce_loop_vars(block) and not any(f is h for h in inside)]
    writes = [a for a in accesses(path) if a.write and a.buffer is buffer]
    known = set.intersection(*(determined_variables(w.indices, {f.var: f.extent for f in own}) for w in writes))
    for f in own:
        if f.var not in known and any(buffer in read_buffers(b) and b.name != stage for b in blocks(f)):
            inside.append(f)
    return loop_path(func.body, inside[-1].var) if inside else [func.body]


def _check_output(func: PrimFunc, buffer: Buffer, stage: str) -> Verdict:
    index = tuple(var(f"d{n}") for n in range(buffer.ndim))
    everything = Access("the caller", buffer, index, False, tuple(zip(index, buffer.shape, strict=True)))
    writes = [a for a in accesses([func.body]) if a.write and a.buffer is buffer]
    missing = uncovered(everything, [legality.at_first_point(w) for w in writes], (), legality.symbolic_sizes(func))
    if isinstance(missing, Unknown):
        return Verdict("unknown", f"whether all of {buffer.name} is written: {missing.reason}")
    if missing is None:
        own = find_block(func.body, stage)
        last_wins = [w for w in writes if w.block is own and w.instance and not _tells_its_point(w)]
        return Verdict("unknown", f"several points of {stage} write one element of {buffer.name}") if last_wins else PROVED
    values, element = missing
    at = show_values({v: n for v, n in values.items() if v not in index})
    where = f"{buffer.name}[{', '.join(map(str, element))}]" + (f" at {at}" if at else "")
    reason = f"{stage} no longer writes {where}, an element of an output"
    return Verdict("refuted", reason, None, "", (find_block(func.body, stage),))


def _tells_its_point(write: Access) -> bool:
    """Whether different points of the stage, reductions aside, write different elements: which one runs last is no matter."""
    spatial = [it.binding for it in write.block.iters if it.kind == "spatial"] if write.block else []
    return all(e in write.indices or not free_vars(e) for e in spatial)
