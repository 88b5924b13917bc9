"""Reductions lose their init: it becomes a nest of its own before the outermost reduction loop.

for i: for k: with y(i, k): init y[i] = 0; y[i] += x[i, k]   ->   for i: y[i] = 0; for k: y[i] += x[i, k]

Where threads combine their values, the first of them initialises:

for t in threads: with y(t): init y[0] = 0; y[0] += x[t]     ->   for t in threads: if t == 0: y[0] = 0
                                                                                    y[0] += x[t]
"""

from __future__ import annotations

from dataclasses import replace

from tensorlang.ir.expr import eq
from tensorlang.ir.reduction import CROSS_THREAD, init_nest, reduce_loop_vars
from tensorlang.ir.stmt import Block, If, PrimFunc, Stmt, seq
from tensorlang.ir.tensor_intrin import TENSORIZED
from tensorlang.ir.tree import loops_of, path_to
from tensorlang.ir.visitor import blocks, children, with_children


def lower_init(func: PrimFunc) -> PrimFunc:
    before: dict[int, list[Stmt]] = {}  # nests to put in front of a statement, by the statement's id
    for block in blocks(func.body):
        if block.init is None:
            continue
        loops = loops_of(path_to(func.body, lambda s, b=block: s is b))  # type: ignore[misc]
        reduce_vars = reduce_loop_vars(block)
        # A tile of an instruction is initialised as a whole, before it.
        at = next((n for n, f in enumerate(loops) if f.var in reduce_vars or TENSORIZED in f.annotations), len(loops))
        anchor: Stmt = loops[at] if at < len(loops) else block
        if at < len(loops) and CROSS_THREAD in loops[at].annotations:
            first = init_nest(block, loops[at:], f"{block.name}_init")
            before.setdefault(id(block), []).append(If(eq(loops[at].var, 0), first))
            continue
        before.setdefault(id(anchor), []).append(init_nest(block, loops[at:], f"{block.name}_init"))
    if not before:
        return func
    return func.with_body(_insert(func.body, before))


def _insert(s: Stmt, before: dict[int, list[Stmt]]) -> Stmt:
    new: Stmt
    if isinstance(s, Block):
        new = replace(s, init=None) if s.init is not None else s
    else:
        new = with_children(s, tuple(_insert(c, before) for c in children(s)))
    nests = before.get(id(s))
    return seq(*nests, new) if nests else new
