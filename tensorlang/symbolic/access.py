"""Every access of a loop nest to memory, with the loops and conditions under which it happens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr, const, not_
from tensorlang.ir.stmt import Allocate, Block, CallPacked, Evaluate, For, If, MultiStore, Seq, Stmt, Store
from tensorlang.ir.visitor import children, loads, substitute, walk_stmt


@dataclass(frozen=True, eq=False)
class Access:
    """One access to a buffer inside a loop nest, everything in terms of loop variables.

    Attributes:
        stage: name of the block it stands in, "" outside of blocks.
        loops: (variable, extent) of all loops around it, outermost first.
        conditions: what holds where it is executed.
        instance: values of the block's iteration variables: the same values are the same point of the computation.
        exact: False where only the buffer is known (passed to an intrinsic), not the elements.
        block: the block itself.
        private: buffers that every execution of the statement asked about has of its own.
    """

    stage: str
    buffer: Buffer
    indices: tuple[Expr, ...]
    write: bool
    loops: tuple[tuple[Expr, Expr], ...]
    conditions: tuple[Expr, ...] = ()
    instance: tuple[Expr, ...] = ()
    exact: bool = True
    block: Block | None = None
    private: frozenset[Buffer] = frozenset()

    @property
    def verb(self) -> str:
        return "writes" if self.write else "reads"


def every_access(path: Sequence[Stmt]) -> Iterator[Access]:
    """As `accesses`, with nothing left out, in the order of the text."""
    context = _Context()
    for s, inside in zip(path, path[1:], strict=False):
        context = context.enter(s, inside)
    yield from _statement(path[-1], context)


def accesses(path: Sequence[Stmt]) -> list[Access]:
    """All accesses inside the last statement of `path`, which leads to it from the root of the program.

    A block's initialisation counts only where it touches other elements than the block's own update does; a read counts only
    where the same block does not write the element.
    """
    found: dict[tuple, Access] = {}
    for access in every_access(path):
        key = (access.stage, access.buffer, access.indices, access.conditions, access.exact)
        known = found.get(key)
        if known is None or (access.write and not known.write):
            found[key] = access
    written = {(a.block, a.buffer, a.indices) for a in found.values() if a.write}
    kept = [a for a in found.values() if a.write or (a.block, a.buffer, a.indices) not in written]
    private = frozenset(s.buffer for s in walk_stmt(path[-1]) if isinstance(s, Allocate))
    if not private:
        return kept
    return [replace(a, private=private) if any(loads(e) for e in (*a.indices, *a.conditions)) else a for a in kept]


@dataclass(frozen=True)
class _Context:
    """What surrounds a statement. `bindings` replaces iteration variables of blocks by expressions of loops."""

    loops: tuple[tuple[Expr, Expr], ...] = ()
    conditions: tuple[Expr, ...] = ()
    bindings: Mapping[Expr, Expr] | None = None
    block: Block | None = None
    instance: tuple[Expr, ...] = ()

    def of(self, e: Expr) -> Expr:
        return substitute(e, self.bindings) if self.bindings else e

    def enter(self, s: Stmt, inside: Stmt | None) -> _Context:
        """The context of the child `inside` of `s`."""
        if isinstance(s, For):
            return replace(self, loops=(*self.loops, (s.var, self.of(s.extent))))
        if isinstance(s, If):
            cond = self.of(s.cond)
            return self.where(cond if inside is s.then else not_(cond))
        if isinstance(s, Block):
            values = {it.var: self.of(it.binding) for it in s.iters}
            entered = self.where(self.of(s.predicate))
            return replace(entered, bindings={**(self.bindings or {}), **values}, block=s, instance=tuple(values.values()))
        return self

    def where(self, cond: Expr) -> _Context:
        return self if cond.op == "const" and cond.value else replace(self, conditions=(*self.conditions, cond))

    def access(self, buffer: Buffer, indices: tuple[Expr, ...], write: bool, exact: bool = True) -> Access:
        return Access(
            self.block.name if self.block else "",
            buffer,
            tuple(self.of(i) for i in indices),
            write,
            self.loops,
            self.conditions,
            self.instance,
            exact,
            self.block,
        )


def _statement(s: Stmt, context: _Context) -> Iterator[Access]:
    if isinstance(s, Store):
        yield context.access(s.buffer, s.indices, True)
        for e in (*s.indices, s.value):
            yield from _reads(e, context)
    elif isinstance(s, Evaluate):
        for access in _reads(s.expr, context):
            yield replace(access, exact=False, write=True)
    elif isinstance(s, Block):
        inside = context.enter(s, s.body)
        body = list(_statement(s.body, inside))
        yield from body
        if s.init is not None:
            own = {(a.buffer, a.indices) for a in body if a.write}
            yield from (a for a in _statement(s.init, inside) if not (a.write and (a.buffer, a.indices) in own))
    elif isinstance(s, CallPacked):
        for buffer in s.buffers:
            anywhere = tuple(const(0) for _ in buffer.shape)  # which elements is not known
            yield context.access(buffer, anywhere, buffer in s.outputs, exact=False)
        for e in (a for a in s.args if isinstance(a, Expr)):
            yield from _reads(e, context)
    elif isinstance(s, For | If | Seq | Allocate | MultiStore):
        for child in children(s):
            yield from _statement(child, context.enter(s, child))


def _reads(e: Expr, context: _Context) -> Iterator[Access]:
    """Loads in `e`; those in the arm of a `select` happen only under its condition."""
    seen: set[tuple[Expr, tuple[Expr, ...]]] = set()
    stack = [(e, context)]
    while stack:
        node, here = stack.pop()
        if (node, here.conditions) in seen:
            continue
        seen.add((node, here.conditions))
        if node.op == "load":
            yield here.access(node.value, node.args, False)
        if node.op == "select":
            cond = here.of(node.args[0])
            stack += [(node.args[0], here), (node.args[1], here.where(cond)), (node.args[2], here.where(not_(cond)))]
        else:
            stack.extend((a, here) for a in node.args)
