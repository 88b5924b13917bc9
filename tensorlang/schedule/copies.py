"""A part of a program once more, with loops, variables, private buffers and stage names of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr, var
from tensorlang.ir.stmt import Allocate, Block, For, PrimFunc, Stmt
from tensorlang.ir.visitor import replace_buffers, rewrite_stmt, substitute_stmt, walk_stmt
from tensorlang.schedule.cache import with_source


@dataclass(frozen=True, eq=False)
class Copy:
    """A copy of a statement.

    Attributes:
        func: the program, which knows where the new stages come from; its body is unchanged.
        body: the copy.
        stages: old name -> new name.
        loops: old variable -> new variable.
    """

    func: PrimFunc
    body: Stmt
    stages: Mapping[str, str]
    loops: Mapping[Expr, Expr]


def fresh_copy(func: PrimFunc, s: Stmt, suffix: str) -> Copy:
    """`s`, a part of `func`, with everything that it defines renamed: stages and buffers get `_suffix`."""
    nodes = list(walk_stmt(s))
    taken = {n.name for n in walk_stmt(func.body) if isinstance(n, Block)} | {b.name for b in func.buffers}
    taken |= {n.buffer.name for n in walk_stmt(func.body) if isinstance(n, Allocate)}
    taken |= set(func.attrs.get("source") or {})
    loops = {n.var: var(n.var.name, n.var.dtype) for n in nodes if isinstance(n, For)}
    own = {it.var: var(it.var.name, it.var.dtype) for n in nodes if isinstance(n, Block) for it in n.iters}
    buffers: dict[Buffer, Buffer] = {}
    stages: dict[str, str] = {}

    def unused(name: str) -> str:
        candidate, serial = f"{name}_{suffix}", 1
        while candidate in taken:
            candidate, serial = f"{name}_{suffix}_{serial}", serial + 1
        taken.add(candidate)
        return candidate

    for n in nodes:
        if isinstance(n, Allocate):
            buffers[n.buffer] = n.buffer.with_(name=unused(n.buffer.name))
        elif isinstance(n, Block):
            # A stage is named like the private buffer that it writes, if it was.
            same = next((new.name for old, new in buffers.items() if old.name == n.name), None)
            stages[n.name] = same if same is not None and same not in stages.values() else unused(n.name)
    variables = {**loops, **own}

    def rule(node: Stmt) -> Stmt | None:
        if isinstance(node, For):
            return replace(node, var=variables[node.var])
        if isinstance(node, Block):
            return replace(node, name=stages[node.name], iters=tuple(replace(it, var=own[it.var]) for it in node.iters))
        return None

    body = replace_buffers(rewrite_stmt(substitute_stmt(s, variables), rule), buffers)
    for old, new in stages.items():
        func = with_source(func, new, old)
    return Copy(func, body, stages, loops)
