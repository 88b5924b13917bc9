"""The nest below a loop as a tile, and a tile bound to a part of a tensor intrinsic."""

from __future__ import annotations

from dataclasses import dataclass

from tensorlang.ir.expr import Expr, const, is_const
from tensorlang.ir.stmt import Block, For, If, Stmt, Store
from tensorlang.ir.tensor_intrin import TensorIntrin
from tensorlang.ir.visitor import free_vars, substitute
from tensorlang.symbolic.bounds import prove
from tensorlang.symbolic.interval import RangesLike
from tensorlang.symbolic.simplify import simplify
from tensorlang.symbolic.unify import Match, Mismatch, contiguous_strides, unify


@dataclass(frozen=True)
class Tile:
    """The perfect nest below a loop.

    Attributes:
        loops: outermost first.
        conditions: under which the store happens.
        store: in terms of the loops.
        block: the block that the store is the body of; None in lowered programs.
    """

    loops: tuple[For, ...]
    conditions: tuple[Expr, ...]
    store: Store
    block: Block | None = None

    @property
    def variables(self) -> set[Expr]:
        return {f.var for f in self.loops}

    def partial(self, ranges: RangesLike) -> Expr | None:
        """A condition under which only part of the tile is computed."""
        for c in self.conditions:
            for conjunct in _conjuncts(c):
                if free_vars(conjunct) & self.variables and not prove(conjunct, ranges):
                    return conjunct
        return None

    def around(self) -> list[Expr]:
        """The conditions under which the whole tile is computed, or nothing of it."""
        found = [e for c in self.conditions for e in _conjuncts(c)]
        return [e for e in found if not free_vars(e) & self.variables]


def tile_of(loop: For) -> Tile | str:
    """The nest at `loop` as a tile, or why it is none."""
    loops: list[For] = []
    conditions: list[Expr] = []
    s: Stmt = loop
    while True:
        if isinstance(s, For):
            loops.append(s)
            s = s.body
        elif isinstance(s, If) and s.else_ is None:
            conditions.append(s.cond)
            s = s.then
        else:
            break
    if isinstance(s, Store):
        return Tile(tuple(loops), tuple(conditions), s)
    if isinstance(s, Block) and isinstance(s.body, Store):
        bindings = {it.var: it.binding for it in s.iters}
        store = Store(
            s.body.buffer, tuple(substitute(i, bindings) for i in s.body.indices), substitute(s.body.value, bindings)
        )
        conditions += [] if is_const(s.predicate, True) else [s.predicate]
        return Tile(tuple(loops), tuple(conditions), store, s)
    what = f"block {s.name}, which stores to several places" if isinstance(s, Block) else f"a {type(s).__name__}"
    return f"inside loop {loops[-1].var.name} there is {what}; a tile is loops around one block with one store"


def bind(intrin: TensorIntrin, part: str, tile: Tile, ranges: RangesLike) -> Match | Mismatch:
    """`tile` bound to a part of `intrin`, with strides that the part's instruction can follow."""
    pattern = intrin.pattern("reset" if part == "reset" else "update")
    instruction = intrin.parts.get(part)
    taken = {name for _, name in instruction.params} if instruction is not None else set()

    def gap(found: Match) -> Mismatch | None:
        """A dimension that the instruction takes for contiguous, and that is not."""
        for buffer, operand in found.operands.items():
            shape = [substitute(d, found.sizes) for d in buffer.shape]
            wanted = contiguous_strides(shape, operand.strides)
            for d, (stride, want) in enumerate(zip(operand.strides, wanted, strict=True)):
                if stride is None or f"{buffer.name}_stride{d}" in taken:
                    continue
                if simplify(stride - want, ranges) is not const(0):
                    return Mismatch(
                        f"{buffer.name}: stride {want} along dimension {d}",
                        f"{operand.buffer.name}: stride {stride}",
                        f"the instruction takes no {buffer.name}_stride{d}, so that dimension has to be contiguous",
                    )
        return None

    if instruction is None:
        return unify(pattern, tile.loops, tile.store, ranges)
    return unify(pattern, tile.loops, tile.store, ranges, gap)


def _conjuncts(e: Expr) -> list[Expr]:
    return [c for a in e.args for c in _conjuncts(a)] if e.op == "and" else [e]
