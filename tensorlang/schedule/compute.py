"""Which part of a buffer is read, and by which stages: what the primitives of placement ask."""

from __future__ import annotations

from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr, const
from tensorlang.ir.stmt import Block, CallPacked, For, PrimFunc, Stmt, Store
from tensorlang.ir.tree import written_buffers
from tensorlang.ir.visitor import blocks, free_vars, loads, own_exprs, substitute, walk, walk_stmt
from tensorlang.symbolic.bounds import const_bounds
from tensorlang.symbolic.interval import Interval, RangesLike
from tensorlang.symbolic.region import access_region, union_region
from tensorlang.symbolic.simplify import simplify

Region = list[tuple[Expr, Expr]]


def block_reads(block: Block, buffer: Buffer) -> list[tuple[Expr, ...]]:
    """The index tuples at which `block` reads `buffer`, in terms of the loops around it (its own update excepted)."""
    mapping = {it.var: it.binding for it in block.iters}
    own = {s.indices for s in walk_stmt(block.body) if isinstance(s, Store) and s.buffer is buffer}
    found: dict[tuple[Expr, ...], None] = {}
    for s in (*walk_stmt(block.body), *(walk_stmt(block.init) if block.init is not None else ())):
        if isinstance(s, CallPacked) and buffer in s.buffers and buffer not in s.outputs:  # all of it: both corners
            found.setdefault(tuple(const(0) for _ in buffer.shape))
            found.setdefault(tuple(d - 1 for d in buffer.shape))
        for e in own_exprs(s):
            for access in loads(e):
                if access.value is buffer and access.args not in own:
                    found.setdefault(tuple(substitute(a, mapping) for a in access.args))
    return list(found)


def required_region(body: Stmt, buffer: Buffer, outer: RangesLike) -> Region | None:
    """Per dimension (minimum, extent) of what `body` reads of `buffer`; variables bound outside, by `outer`, stay symbols."""
    inner: dict[Expr, Expr | int] = {s.var: s.extent for s in walk_stmt(body) if isinstance(s, For)}
    region: Region | None = None
    for block in blocks(body):
        for index in block_reads(block, buffer):
            touched = access_region(tuple(simplify(i, inner) for i in index), inner, buffer.shape, outer)
            region = touched if region is None else union_region(region, touched, outer)
    return region and [_inside(part, size) for part, size in zip(region, buffer.shape, strict=True)]


def _inside(part: tuple[Expr, Expr], size: Expr) -> tuple[Expr, Expr]:
    """What lies in the buffer of (minimum, extent), where all three are numbers and the first is negative: what reads out of it
    is not evaluated (the other branch of a padding's `select`). A part that only ends beyond it is left: rounded up."""
    low, extent = part
    if low.op != "const" or low.value >= 0 or extent.op != "const" or size.op != "const":
        return part
    end = min(low.value + extent.value, size.value)
    return (const(0), const(end)) if end > 0 else part


def has_value(part: tuple[Expr, Expr], outer: RangesLike) -> bool:
    """Whether (minimum, extent) has a value in every iteration of the loops `outer`: no size that may be 0 divides.

    for i in N: if 0 < M: y[i] = x[i % M]          what y[i] reads, from i % M on, says nothing where there is nothing to read
    """
    divisors = [n.args[1] for e in part for n in walk(e) if n.op in ("floordiv", "floormod")]
    if all(d.op == "const" and d.value > 0 for d in divisors):
        return True
    extents = [e for e in outer.values() if isinstance(e, Expr)]
    known: dict[Expr, Interval] = dict.fromkeys({v for e in (*divisors, *extents) for v in free_vars(e)}, Interval(0, None))

    def is_positive(factor: Expr) -> bool:
        """In a loop of M*N iterations, neither M nor N is 0: no product of what is never negative is positive otherwise."""
        if (const_bounds(factor, known)[0] or 0) > 0:
            return True
        return any(_is_empty(substitute(e, {factor: const(0)}), known) for e in extents)

    known |= {v: Interval(1, None) for v in tuple(known) if is_positive(v)}
    return all(is_positive(f) for d in divisors for f in _factors(d))


def _factors(e: Expr) -> list[Expr]:
    return [f for a in e.args for f in _factors(a)] if e.op == "mul" else [e]


def _is_empty(extent: Expr, known: RangesLike) -> bool:
    most = const_bounds(extent, known)[1]
    return most is not None and most <= 0


def readers(func: PrimFunc, buffer: Buffer) -> list[Block]:
    return [b for b in blocks(func.body) if block_reads(b, buffer)]


def producer(func: PrimFunc, buffer: Buffer) -> Block | None:
    """The block that writes `buffer`, initialisations excepted."""
    return next((b for b in reversed(blocks(func.body)) if buffer in written_buffers(b)), None)
