"""Tiles bound to a tensor intrinsic become calls of its instruction.

for ii in range(16, tensor_intrin="dot4"): for kk in 4: y[m, io*16 + ii] = y[...] + x[m, ko*4 + kk] * w[io*16 + ii, ko*4 + kk]
->  call("dot4.update", y[m, io*16], x[m, ko*4], w[io*16, ko*4], K)        a tensor is passed by its first element

Where a loop around asks for a buffer ahead, in shares, and the loop of the shares is inside the tile, the instruction is told
how far on that lies, if it takes `w_ahead`.

Runs when buffers have their final shapes and still all their dimensions. The initialisation of a tile, if it stands alone,
becomes the intrinsic's `reset` (plain loops where it has none); directly before its tile, both become `body`, if there is one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tensorlang.errors import BuildError
from tensorlang.ir.expr import Expr, call, const, load, minimum
from tensorlang.ir.intrinsics import PREFETCH, PREFETCH_WITHIN
from tensorlang.ir.stmt import Evaluate, For, If, PrimFunc, Seq, Stmt, seq
from tensorlang.ir.tensor_intrin import FALLBACK, RESET, TENSORIZED, TensorIntrin, registered, tile_annotation
from tensorlang.ir.visitor import children, substitute, with_children
from tensorlang.symbolic.simplify import simplify
from tensorlang.symbolic.tile import Tile, bind, tile_of
from tensorlang.symbolic.unify import Match, Mismatch, Operand, contiguous_strides

Ranges = Mapping[Expr, Expr | int]


@dataclass(frozen=True)
class _Around:
    """The loops around a statement, and those of them that ask for something ahead."""

    ranges: Ranges
    asking: tuple[For, ...] = ()

    def inside(self, s: For) -> _Around:
        asking = (*self.asking, s) if PREFETCH in s.annotations else self.asking
        return _Around({**self.ranges, s.var: s.extent}, asking)

    def of(self, tile: Tile) -> Ranges:
        """The extents of these loops and of the tile's own."""
        return {**self.ranges, **{f.var: f.extent for f in tile.loops}}


def tensorize_tiles(func: PrimFunc) -> PrimFunc:
    return func.with_body(_lower(func.body, _Around({})))


def _lower(s: Stmt, outer: _Around) -> Stmt:
    if isinstance(s, For):
        if TENSORIZED in s.annotations:
            return _tile(s, outer)
        if RESET in s.annotations:
            return _initialisation(s, outer)
        body = _lower(s.body, outer.inside(s))
        return s if body is s.body else replace(s, body=body)
    if isinstance(s, Seq):
        return _sequence(s, outer)
    return with_children(s, tuple(_lower(c, outer) for c in children(s)))


def _sequence(s: Seq, outer: _Around) -> Stmt:
    done: list[Stmt] = []
    rest = list(s.stmts)
    while rest:
        first = rest.pop(0)
        if rest and (whole := _body(first, rest[0], outer)) is not None:
            rest.pop(0)
            done.append(whole)
        else:
            done.append(_lower(first, outer))
    return s if len(done) == len(s.stmts) and all(a is b for a, b in zip(done, s.stmts, strict=True)) else seq(*done)


def _body(first: Stmt, second: Stmt, outer: _Around) -> Stmt | None:
    """An initialisation and its tile as one call of the intrinsic's `body`."""
    if (
        isinstance(first, If)
        and isinstance(second, If)
        and first.cond is second.cond
        and not (first.else_ or second.else_)
    ):
        inside = _body(first.then, second.then, outer)
        return None if inside is None else If(first.cond, inside)
    if not isinstance(first, For) or not isinstance(second, For) or RESET not in first.annotations:
        return None
    name = tile_annotation(second)
    if name is None or first.annotations[RESET] != name:
        return None
    intrin = _intrinsic(name)
    if not intrin.is_reduction or intrin.parts.get("body") is None:
        return None
    tiles = [tile_of(first), tile_of(second)]
    if not all(isinstance(t, Tile) for t in tiles):
        return None
    initial, update = (
        bind(intrin, part, t, outer.of(t))
        for part, t in zip(("reset", "body"), tiles, strict=True)
        if isinstance(t, Tile)
    )
    if (
        not isinstance(initial, Match)
        or not isinstance(update, Match)
        or any(isinstance(t, Tile) and t.conditions for t in tiles)
    ):
        return None
    a, b = initial.operands[intrin.output], update.operands[intrin.output]
    assert isinstance(tiles[1], Tile)
    return _call(intrin, "body", update, tiles[1], outer) if _same(a, b) else None


def _same(a: Operand, b: Operand) -> bool:
    pairs = zip((a.flat, *a.strides), (b.flat, *b.strides), strict=True)
    return a.buffer is b.buffer and all(
        x is y or (x is not None and y is not None and simplify(x - y) is const(0)) for x, y in pairs
    )


def _tile(s: For, outer: _Around) -> Stmt:
    name = tile_annotation(s)
    intrin = _intrinsic(name or "")
    part = "update" if intrin.is_reduction else "body"
    plain = _plain(s)
    if part not in intrin.parts:
        raise BuildError(
            f"loop {s.var.name}: {name} has no {part} part, but the program initialises apart from this tile; give the "
            f"intrinsic an {part} instruction, or tensorize outside of all reduction loops"
        )
    if intrin.parts[part] is None:
        return plain
    tile = tile_of(s)
    if isinstance(tile, str):
        raise BuildError(f"loop {s.var.name} is bound to {name}, but what became of it is no tile: {tile}")
    ranges = outer.of(tile)
    if (condition := tile.partial(ranges)) is not None:
        raise BuildError(
            f"loop {s.var.name} is bound to {name}, but only part of the tile is computed: where {condition}"
        )
    found = bind(intrin, part, tile, ranges)
    if isinstance(found, Mismatch):
        raise BuildError(f"loop {s.var.name} is bound to {name}, but does not match it any more: {found}")
    return _guarded(tile, _call(intrin, part, found, tile, outer))


def _initialisation(s: For, outer: _Around) -> Stmt:
    intrin = registered(str(s.annotations[RESET]))
    if intrin is None or intrin.parts.get("reset") is None:
        return _plain(s)
    tile = tile_of(s)
    if isinstance(tile, str) or tile.partial(outer.of(tile)) is not None:
        return _plain(s)
    found = bind(intrin, "reset", tile, outer.of(tile))
    return _plain(s) if isinstance(found, Mismatch) else _guarded(tile, _call(intrin, "reset", found, tile, outer))


def _intrinsic(name: str) -> TensorIntrin:
    found = registered(name)
    if found is None:
        raise BuildError(
            f"the program calls tensor intrinsic {name!r}, which is not registered in this process; import its module"
        )
    return found


def _plain(s: For) -> For:
    return replace(s, annotations={k: v for k, v in s.annotations.items() if k not in (TENSORIZED, RESET, FALLBACK)})


def _guarded(tile: Tile, s: Stmt) -> Stmt:
    for condition in reversed(tile.around()):
        s = If(condition, s)
    return s


def _call(intrin: TensorIntrin, part: str, match: Match, tile: Tile, outer: _Around) -> Stmt:
    instruction = intrin.parts[part]
    assert instruction is not None
    values: dict[str, Expr] = {v.name: e for v, e in match.sizes.items()}
    for buffer, o in match.operands.items():
        name = buffer.name
        values[name] = load(o.buffer, o.base)
        shape = [substitute(d, match.sizes) for d in buffer.shape]
        contiguous = contiguous_strides(shape, o.strides)
        for d, (stride, usual) in enumerate(zip(o.strides, contiguous, strict=True)):
            values[f"{name}_stride{d}"] = usual if stride is None else stride
        hints = _ahead(o, tile, outer)
        values.update(zip((f"{name}_ahead", f"{name}_turn", f"{name}_turns"), hints, strict=True))
    return Evaluate(call(f"{intrin.name}.{part}", *(values[name] for _, name in instruction.params)))


def _ahead(o: Operand, tile: Tile, outer: _Around) -> tuple[Expr, Expr, Expr]:
    """How far on lies what a loop around asks for ahead of its use, whose turn it is, and of how many tiles in a row."""
    within = any(o.buffer.name in f.annotations.get(PREFETCH_WITHIN, ()) for f in tile.loops)
    for loop in outer.asking if within else ():
        for name, ahead, *shared in loop.annotations[PREFETCH]:
            if name == o.buffer.name and shared:
                later = substitute(o.flat, {loop.var: minimum(loop.var + ahead, loop.extent - 1)})
                return simplify(later - o.flat, outer.ranges), simplify(loop.var % shared[0], outer.ranges), const(shared[0])
    return const(0), const(0), const(0)


def without_missing(func: PrimFunc, available: Mapping[str, bool]) -> PrimFunc:
    """`func` whose tiles that may fall back, and whose intrinsic is not `available`, are plain loops."""

    def plain(s: Stmt) -> Stmt:
        new = with_children(s, tuple(plain(c) for c in children(s)))
        if isinstance(new, For) and FALLBACK in new.annotations and not available.get(tile_annotation(new) or "", True):
            return _plain(new)
        return new

    return func.with_body(plain(func.body))
