"""blockize and tensorize: a nest of loops as one unit, and a unit as one instruction.

Both only mark the outermost loop: the nest stays in the program, and with it all its accesses, so that the interpreter
runs it and later steps are proved as before. What is inside can no longer be transformed.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from importlib.metadata import entry_points

from tensorlang.errors import ScheduleError
from tensorlang.ir.expr import Expr
from tensorlang.ir.printer import format_func
from tensorlang.ir.reduction import init_stores, reduce_loop_vars
from tensorlang.ir.stmt import For, PrimFunc, Stmt
from tensorlang.ir.tensor_intrin import (
    BLOCKIZED,
    FALLBACK,
    TENSORIZED,
    TensorIntrin,
    names,
    registered,
    tile_annotation,
)
from tensorlang.ir.tree import loop_path, loops_of, replace_stmt
from tensorlang.ir.visitor import walk_stmt
from tensorlang.symbolic.tile import Tile, bind, tile_of
from tensorlang.symbolic.unify import Mismatch

# Primitives that may name the outermost loop of a unit: they leave the nest below it as it is.
_ON_UNITS = frozenset(["blockize", "tensorize", "decompose_reduction", "extent"])


def find_intrinsic(intrinsic: str | TensorIntrin) -> TensorIntrin:
    """A registered intrinsic by name; installed modules of them (entry points) load when first asked for."""
    if isinstance(intrinsic, TensorIntrin):
        return intrinsic
    found = registered(intrinsic)
    if found is None:
        _load_shipped()
        found = registered(intrinsic)
    if found is None:
        raise ScheduleError(
            f"tensorize: no tensor intrinsic {intrinsic!r} is registered; there are: {', '.join(names()) or 'none'}"
        )
    return found


@cache
def _load_shipped() -> None:
    for entry in entry_points(group="tensorlang.intrinsics"):
        entry.load()


def blockize(func: PrimFunc, loop: For) -> PrimFunc:
    """for ii in 16: for k in 4: y(...)   ->   for ii in range(16, blockized=True): (the same, one unit)"""
    tile = tile_of(loop)
    if isinstance(tile, str):
        raise ScheduleError(f"blockize: {tile}")
    return _annotated(func, loop, {BLOCKIZED: True})


def tensorize(func: PrimFunc, loop: For, intrin: TensorIntrin, fallback: bool) -> PrimFunc:
    """for ii in 16: for k in 4: y(...)   ->   for ii in range(16, tensor_intrin="dot4"): (the same)"""
    _check_tile(func, loop, intrin)
    intrin.verify(intrin)
    marks = {TENSORIZED: intrin.name, **({FALLBACK: True} if fallback else {})}
    return _annotated(func, loop, marks)


def _annotated(func: PrimFunc, loop: For, marks: dict[str, object]) -> PrimFunc:
    return func.with_body(replace_stmt(func.body, loop, replace(loop, annotations={**loop.annotations, **marks})))


def _check_tile(func: PrimFunc, loop: For, intrin: TensorIntrin, primitive: str = "tensorize") -> None:
    """That the nest at `loop` is what `intrin` means.

    Raises:
        ScheduleError: says which part did not match, with both texts and the program.
    """

    def refuse(reason: str, culprit: Stmt, remedy: str = "") -> ScheduleError:
        advice = f"\n  remedy: {remedy}" if remedy else ""
        return ScheduleError(
            f"{primitive}: loop {loop.var.name} is not {intrin.name}: {reason}{advice}\n\n{format_func(func, [culprit])}"
        )

    if loop.extent.op == "const" and loop.extent.value == 1:
        raise refuse("it has one iteration only", loop, "tensorize the first loop inside that has more")
    tile = tile_of(loop)
    if isinstance(tile, str):
        raise refuse(tile, loop)
    ranges: dict[Expr, Expr | int] = {f.var: f.extent for f in loops_of(loop_path(func.body, loop.var))}
    ranges |= {f.var: f.extent for f in tile.loops}
    for f in tile.loops:
        if f.kind not in ("serial", "unrolled"):
            raise refuse(f"{f.var.name} is {f.kind}; the instruction replaces all loops of the tile", f)
    if (condition := tile.partial(ranges)) is not None:
        remedy = "make all tiles whole: pad_einsum the stage, or loop_partition the loop outside and tensorize the whole tiles"
        raise refuse(f"only part of the tile is computed, where {condition}", tile.block or loop, remedy)
    problem = _missing_part(func, loop, tile, intrin)
    if problem is not None:
        raise refuse(*problem)
    found = bind(intrin, _part(intrin), tile, ranges)
    if isinstance(found, Mismatch):
        raise refuse(str(found), tile.block or loop)


def _part(intrin: TensorIntrin) -> str:
    return "update" if intrin.is_reduction and "update" in intrin.parts else "body"


def _missing_part(func: PrimFunc, loop: For, tile: Tile, intrin: TensorIntrin) -> tuple[str, Stmt, str] | None:
    """What the program asks of a reduction and the intrinsic does not have: (reason, culprit, remedy)."""
    block = tile.block
    if block is None:
        return "there is no block in it", loop, ""
    if not intrin.is_reduction:
        return (f"{block.name} is a reduction and {intrin.name} is none", block, "") if block.init is not None else None
    if "update" in intrin.parts:
        return None
    path = loops_of(loop_path(func.body, loop.var))[:-1]
    outside = reduce_loop_vars(block) & {f.var for f in path}
    remedy = f"give {intrin.name} an instruction for its update (and one for its reset)"
    if outside:
        return (
            f"{next(iter(outside)).name} reduces outside of the tile, and {intrin.name} has no update part",
            block,
            remedy,
        )
    if block.init is None or loop.var in reduce_loop_vars(block):
        return f"{block.name} is initialised elsewhere, and {intrin.name} has no update part", block, remedy
    if [s.value for s in init_stores(block)] != [intrin.pattern("reset").store.value]:
        return f"{block.name} starts from another value than {intrin.name}", block, remedy
    return None


# -- units under later steps ------------------------------------------------------------------------------------------


def check_outside_units(path: list[Stmt], primitive: str) -> None:
    """That the last loop of `path` is not part of a unit, unless `primitive` leaves units alone."""
    for s in path:
        if isinstance(s, For) and (BLOCKIZED in s.annotations or TENSORIZED in s.annotations):
            name = tile_annotation(s)
            what = f"was tensorized with {name}" if name else "was blockized"
            if s is path[-1] and primitive in _ON_UNITS:
                continue
            loop = path[-1].var.name if isinstance(path[-1], For) else "it"
            raise ScheduleError(
                f"{primitive}: {loop} belongs to the unit at loop {s.var.name}, which {what}; do this step before that"
            )


def check_units_intact(old: PrimFunc, new: PrimFunc, primitive: str) -> None:
    """That every unit of `old` is in `new`, and that those bound to an intrinsic still are what it means."""
    before = _units(old)
    if not before and primitive not in _ON_UNITS:
        return
    after = _units(new)
    if len(after) < len(before):
        lost = next(f for f in before if not any(g.var is f.var for g in after))
        raise ScheduleError(
            f"{primitive} would dissolve the unit at loop {lost.var.name}; do it before blockize and tensorize"
        )
    known = {id(f) for f in before}
    for f in after:
        name = tile_annotation(f)
        if id(f) in known:
            continue
        if isinstance(reason := tile_of(f), str):
            raise ScheduleError(f"{primitive} would change the unit at loop {f.var.name}: {reason}")
        if name is not None:
            _check_tile(new, f, find_intrinsic(name), primitive)


def _units(func: PrimFunc) -> list[For]:
    return [
        s
        for s in walk_stmt(func.body)
        if isinstance(s, For) and (BLOCKIZED in s.annotations or TENSORIZED in s.annotations)
    ]
