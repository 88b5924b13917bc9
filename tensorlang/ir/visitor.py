"""Walks and rewrites, each written once. Expression walks memoise on identity, so shared subtrees cost once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from tensorlang.errors import InternalError
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr, load, rebuild
from tensorlang.ir.stmt import Allocate, Block, CallPacked, Evaluate, For, If, MultiStore, Seq, Stmt, Store, seq


def walk(e: Expr) -> Iterator[Expr]:
    """Every distinct node of `e`, operands before users."""
    seen: set[Expr] = set()
    stack: list[Expr | None] = [e]
    while stack:
        node = stack.pop()
        if node is None:  # the operands of the node below are done
            yield stack.pop()  # type: ignore[misc]
        elif node not in seen:
            seen.add(node)
            if node.args:
                stack += (node, None)
                stack += node.args
            else:
                yield node


def rewrite(e: Expr, rule: Callable[[Expr], Expr | None], memo: dict[Expr, Expr] | None = None) -> Expr:
    """`e` bottom-up: operands first, then `rule` on the rebuilt node (None keeps it)."""
    memo = {} if memo is None else memo
    for node in walk(e):
        if node in memo:
            continue
        new = rebuild(node, tuple(memo[a] for a in node.args)) if node.args else node
        replaced = rule(new)
        memo[node] = new if replaced is None else replaced
    return memo[e]


def substitute(e: Expr, mapping: Mapping[Expr, Expr]) -> Expr:
    """`e` with whole sub-expressions (usually variables) replaced, all at once."""
    if not mapping:
        return e
    memo: dict[Expr, Expr] = {}
    for node in walk(e):
        if (new := mapping.get(node)) is not None:
            memo[node] = new
        else:
            memo[node] = rebuild(node, tuple(memo[a] for a in node.args)) if node.args else node
    return memo[e]


def free_vars(e: Expr) -> set[Expr]:
    return {n for n in walk(e) if n.op == "var"}


def uses(e: Expr, variables: set[Expr]) -> bool:
    return any(n in variables for n in walk(e))


def loads(e: Expr) -> list[Expr]:
    return [n for n in walk(e) if n.op == "load"]


_CHILDREN: dict[type[Stmt], Callable[[Any], tuple[Stmt, ...]]] = {
    Seq: lambda s: s.stmts,
    MultiStore: lambda s: s.stores,
    For: lambda s: (s.body,),
    Allocate: lambda s: (s.body,),
    If: lambda s: (s.then,) if s.else_ is None else (s.then, s.else_),
    Block: lambda s: (s.body,) if s.init is None else (s.init, s.body),
}


def children(s: Stmt) -> tuple[Stmt, ...]:
    """The statements directly inside `s`, in program order."""
    found = _CHILDREN.get(type(s))
    return () if found is None else found(s)


def with_children(s: Stmt, new: tuple[Stmt, ...]) -> Stmt:
    """`s` with other children; the same object when nothing changed."""
    if all(a is b for a, b in zip(children(s), new, strict=True)):
        return s
    if isinstance(s, Seq):
        return seq(*new)
    if isinstance(s, MultiStore):
        stores = tuple(n for n in new if isinstance(n, Store))
        if len(stores) != len(new):
            raise InternalError(f"simultaneous stores can only be rewritten to stores: {s}")
        return MultiStore(stores)
    if isinstance(s, For | Allocate):
        return replace(s, body=new[0])
    if isinstance(s, If):
        return replace(s, then=new[0], else_=new[1] if s.else_ is not None else None)
    if isinstance(s, Block):
        return replace(s, init=new[0], body=new[1]) if s.init is not None else replace(s, body=new[0])
    return s


def walk_stmt(s: Stmt) -> Iterator[Stmt]:
    """Every statement of `s`, outer before inner, in program order."""
    stack = [s]
    while stack:
        node = stack.pop()
        yield node
        stack.extend(reversed(children(node)))


def rewrite_stmt(s: Stmt, rule: Callable[[Stmt], Stmt | None]) -> Stmt:
    """`s` bottom-up: children first, then `rule` (None keeps the node)."""
    new = with_children(s, tuple(rewrite_stmt(c, rule) for c in children(s)))
    return rule(new) or new


def own_exprs(s: Stmt) -> tuple[Expr, ...]:
    """The expressions that stand in `s` itself, not in its children."""
    if isinstance(s, Store):
        return (*s.indices, s.value)
    if isinstance(s, Evaluate):
        return (s.expr,)
    if isinstance(s, CallPacked):
        return (*(a for a in s.args if isinstance(a, Expr)), *(d for shape in s.shapes or () for d in shape))
    if isinstance(s, If):
        return (s.cond,)
    if isinstance(s, For):
        return (s.extent,)
    if isinstance(s, Allocate):
        return s.buffer.shape
    if isinstance(s, Block):
        return (s.predicate, *(i.binding for i in s.iters), *(i.extent for i in s.iters))
    return ()


def map_own_exprs(node: Stmt, fn: Callable[[Expr], Expr]) -> Stmt:
    """`node` with `fn` applied to the expressions that stand in it, not in its children."""
    exprs = own_exprs(node)
    new = tuple(fn(e) for e in exprs)
    if new == exprs:
        return node
    if isinstance(node, Store):
        return Store(node.buffer, new[:-1], new[-1])
    if isinstance(node, Evaluate):
        return Evaluate(new[0])
    if isinstance(node, CallPacked):
        scalars = iter(new)
        args = tuple(a if isinstance(a, Buffer) else next(scalars) for a in node.args)
        shapes = node.shapes and tuple(tuple(next(scalars) for _ in shape) for shape in node.shapes)
        return replace(node, args=args, shapes=shapes)
    if isinstance(node, If):
        return replace(node, cond=new[0])
    if isinstance(node, For):
        return replace(node, extent=new[0])
    if isinstance(node, Block):
        n = len(node.iters)
        iters = tuple(replace(i, binding=b, extent=x) for i, b, x in zip(node.iters, new[1 : n + 1], new[n + 1 :], strict=True))
        return replace(node, predicate=new[0], iters=iters)
    return node  # an Allocate's shape is fixed when its buffer is made


def map_exprs(s: Stmt, fn: Callable[[Expr], Expr]) -> Stmt:
    """`s` with `fn` applied to every expression in it (loop and iteration variables themselves excepted)."""
    return rewrite_stmt(s, lambda node: map_own_exprs(node, fn))


def substitute_stmt(s: Stmt, mapping: Mapping[Expr, Expr]) -> Stmt:
    """Variables replaced throughout; variables that `s` itself binds must not be in `mapping`."""
    return map_exprs(s, lambda e: substitute(e, mapping)) if mapping else s


def replace_buffers(s: Stmt, mapping: Mapping[Buffer, Buffer]) -> Stmt:
    """Every access to a buffer of `mapping` goes to its new buffer, with the same indices."""
    if not mapping:
        return s

    def rule(e: Expr) -> Expr | None:
        return load(mapping[e.value], e.args) if e.op == "load" and e.value in mapping else None

    def one(node: Stmt) -> Stmt | None:
        if isinstance(node, Store) and node.buffer in mapping:
            return replace(node, buffer=mapping[node.buffer])
        if isinstance(node, Allocate) and node.buffer in mapping:
            return replace(node, buffer=mapping[node.buffer])
        if isinstance(node, CallPacked) and not mapping.keys().isdisjoint(node.buffers):
            args = tuple(mapping.get(a, a) if isinstance(a, Buffer) else a for a in node.args)
            return replace(node, args=args, outputs=tuple(mapping.get(b, b) for b in node.outputs))
        return None

    return rewrite_stmt(map_exprs(s, lambda e: rewrite(e, rule)), one)


def blocks(s: Stmt) -> list[Block]:
    return [n for n in walk_stmt(s) if isinstance(n, Block)]
