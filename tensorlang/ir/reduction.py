"""Blocks seen as reductions, and their initialisation as a nest of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tensorlang.errors import InternalError
from tensorlang.ir.expr import Expr, add, const, load, maximum, minimum, mul, var
from tensorlang.ir.stmt import Block, For, Stmt, Store
from tensorlang.ir.visitor import free_vars, substitute

COMBINE = {"sum": add, "prod": mul, "max": maximum, "min": minimum}
_KIND_OF_OP = {"add": "sum", "mul": "prod", "max": "max", "min": "min"}


@dataclass(frozen=True)
class Reduction:
    """A block seen as `buffer[index] = combine(buffer[index], source)`."""

    kind: str
    source: Expr
    store: Store


def reduction_of(block: Block) -> Reduction | None:
    """`block` as a reduction, or None if it is not one."""
    if not isinstance(block.body, Store) or not any(it.kind == "reduce" for it in block.iters):
        return None
    store = block.body
    value = store.value
    kind = _KIND_OF_OP.get(value.op)
    if kind is None:
        return None
    own = load(store.buffer, store.indices)
    if value.args[0] is own:
        return Reduction(kind, value.args[1], store)
    return Reduction(kind, value.args[0], store) if value.args[1] is own else None


def reduce_loop_vars(block: Block) -> set[Expr]:
    """The loop variables that drive the block's reduction."""
    return {v for it in block.iters if it.kind == "reduce" for v in free_vars(it.binding)}


def init_store(block: Block) -> Store:
    if not isinstance(block.init, Store):
        raise InternalError(f"the initialisation of {block.name!r} is not a single store")
    return block.init


def init_nest(block: Block, loops: list[For], name: str) -> Stmt:
    """The initialisation of `block` over the spatial loops among `loops` (fresh copies of them), as a stage `name`.

    A loop that runs over elements and the reduction at once (two fused loops) is copied too, and initialises repeatedly.
    """
    spatial = [it for it in block.iters if it.kind == "spatial"]
    spatial_vars = {v for it in spatial for v in free_vars(it.binding)}
    copied = [f for f in loops if f.var in spatial_vars]
    renamed = {f.var: var(f.var.name) for f in copied}
    fresh = {it.var: var(it.var.name) for it in spatial}
    init = init_store(block)
    dropped = {f.var for f in loops} - set(renamed)
    nest: Stmt = Block(
        name,
        tuple(replace(it, var=fresh[it.var], binding=substitute(it.binding, renamed)) for it in spatial),
        Store(init.buffer, tuple(substitute(i, fresh) for i in init.indices), substitute(init.value, fresh)),
        None,
        substitute(conjuncts_free_of(block.predicate, dropped), renamed),
    )
    return wrap_loops(copied, renamed, nest)


def wrap_loops(loops: list[For], renamed: dict[Expr, Expr], body: Stmt) -> Stmt:
    """`body` inside copies of `loops` with renamed variables."""
    for f in reversed(loops):
        body = For(renamed[f.var], f.extent, f.kind, body, f.annotations)
    return body


def conjuncts_free_of(predicate: Expr, variables: set[Expr]) -> Expr:
    """The conjuncts of `predicate` that do not mention `variables`."""
    if predicate.op == "and":
        a, b = (conjuncts_free_of(p, variables) for p in predicate.args)
        return a & b
    return const(True) if free_vars(predicate) & variables else predicate


def conjuncts_on(predicate: Expr, variables: set[Expr]) -> Expr:
    """The conjuncts of `predicate` that mention `variables`: the other ones."""
    if predicate.op == "and":
        a, b = (conjuncts_on(p, variables) for p in predicate.args)
        return a & b
    return predicate if free_vars(predicate) & variables else const(True)
