"""Blocks dissolve: iteration variables become their bindings, the predicate becomes a guard.

for i_o: for i_i: with y(vi = i_o*4 + i_i) where i_o*4 + i_i < n: y[vi] = x[vi]
->  for i_o: for i_i: if i_o*4 + i_i < n: y[i_o*4 + i_i] = x[i_o*4 + i_i]
"""

from __future__ import annotations

from tensorlang.ir.stmt import Block, If, PrimFunc, Stmt
from tensorlang.ir.visitor import rewrite_stmt, substitute_stmt


def lower_blocks(func: PrimFunc) -> PrimFunc:
    def rule(s: Stmt) -> Stmt | None:
        if not isinstance(s, Block):
            return None
        body = substitute_stmt(s.body, {it.var: it.binding for it in s.iters})
        if s.predicate.op == "const":
            return body if s.predicate.value else If(s.predicate, body)
        return If(s.predicate, body)

    return func.with_body(rewrite_stmt(func.body, rule))
