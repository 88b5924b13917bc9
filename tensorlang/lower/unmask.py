"""Which private arrays need no masks: lanes beyond a ragged edge may compute there, because nobody reads what they store.

acc = alloc(16, local)
for k: for l in vectorized(16): if j*16 + l < n: acc[l] = acc[l] + x[k] * w[k*n + j*16 + l]
for l in vectorized(16): if j*16 + l < n: y[j*16 + l] = acc[l]

Masked, `acc` stays in memory; without masks it becomes a register. Only `w` and `y`, where other data lies beyond the edge,
are accessed under the mask.

An array qualifies if the condition on lanes is the same function of the element in every store to it. Then no store ever
writes an element for which the condition fails, and no sound program reads it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr, le, lt, var
from tensorlang.ir.stmt import Allocate, CallPacked, Evaluate, For, If, PrimFunc, Stmt, Store
from tensorlang.ir.visitor import children, free_vars, loads, own_exprs, substitute, walk_stmt
from tensorlang.symbolic.affine import linear_form
from tensorlang.symbolic.bounds import prove
from tensorlang.symbolic.conflict import determined_variables
from tensorlang.symbolic.simplify import simplify


def unmasked_arrays(func: PrimFunc) -> set[Buffer]:
    """Flat local arrays that may be stored to and loaded from in all lanes."""
    found: set[Buffer] = set()
    refused: set[Buffer] = set()
    for s in walk_stmt(func.body):
        if isinstance(s, Allocate) and s.buffer.scope == "local" and s.buffer.ndim == 1:
            (found if _qualifies(s) else refused).add(s.buffer)
    return found - refused


@dataclass(frozen=True)
class _Context:
    """The loops and guards between the allocation and a statement."""

    loops: tuple[For, ...] = ()
    guards: tuple[Expr, ...] = ()


def _statements(s: Stmt, context: _Context) -> Iterator[tuple[Stmt, _Context]]:
    yield s, context
    for child in children(s):
        inside = context
        if isinstance(s, For):
            inside = _Context((*context.loops, s), context.guards)
        elif isinstance(s, If) and child is s.then:
            inside = _Context(context.loops, (*context.guards, *_conjuncts(s.cond)))
        yield from _statements(child, inside)


def _conjuncts(cond: Expr) -> list[Expr]:
    return [c for a in cond.args for c in _conjuncts(a)] if cond.op == "and" else [cond]


def _qualifies(allocation: Allocate) -> bool:
    buffer = allocation.buffer
    shared: tuple[Expr, frozenset[Expr]] | None = None
    masked = False
    for s, context in _statements(allocation.body, _Context()):
        indices = [e.args[0] for e in _loads(s) if e.value is buffer]
        if isinstance(s, Evaluate | CallPacked) and (indices or (isinstance(s, CallPacked) and buffer in s.buffers)):
            return False
        if isinstance(s, Store) and s.buffer is buffer:
            known = _canonical(s.indices[0], context)
            if known is None or (shared is not None and known != shared):
                return False
            shared = known
            masked = masked or bool(known[1])
            indices.append(s.indices[0])
        ranges = {f.var: f.extent for f in context.loops}
        if any(not prove(le(0, i), ranges) or not prove(lt(i, buffer.shape[0]), ranges) for i in indices):
            return False
    return masked


def _loads(s: Stmt) -> list[Expr]:
    return [e for x in own_exprs(s) for e in loads(x)]


def _canonical(index: Expr, context: _Context) -> tuple[Expr, frozenset[Expr]] | None:
    """The element stored to and the conditions on its lane, in variables named after their strides; None if the element
    does not tell whether they hold."""
    ranges = {f.var: f.extent for f in context.loops}
    lanes = {f.var for f in context.loops if f.kind == "vectorized"}
    conditions = [c for c in context.guards if free_vars(c) & lanes]
    if any(loads(c) for c in conditions):
        return None
    form = linear_form(index, set(ranges))
    if form is None or free_vars(form[1]) & set(ranges):
        return None
    strides = {v: c for v, c in form[0].items() if isinstance(c, int) and c != 0}
    if any(not isinstance(c, int) for c in form[0].values()) or len(set(strides.values())) != len(strides):
        return None
    told = determined_variables([index], ranges) & strides.keys()
    if any(free_vars(c) & ranges.keys() - told for c in conditions):
        return None
    names = {v: _stride(c) for v, c in strides.items()}
    return simplify(substitute(index, names)), frozenset(simplify(substitute(c, names)) for c in conditions)


_strides: dict[int, Expr] = {}


def _stride(c: int) -> Expr:
    return _strides.setdefault(c, var(f"stride{c}"))
