"""Primitives on loops: split, fuse, reorder, and the loop kinds. Each is `PrimFunc, ... -> PrimFunc, new loops`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tensorlang.errors import ScheduleError
from tensorlang.ir.expr import Expr, const, lt, minimum, var, wrap
from tensorlang.ir.reduction import reduce_loop_vars
from tensorlang.ir.stmt import Allocate, Block, For, PrimFunc, Stmt
from tensorlang.ir.tree import guard_blocks, loop_path, read_buffers, replace_stmt, written_buffer
from tensorlang.ir.visitor import blocks, free_vars, map_exprs, substitute_stmt, walk_stmt
from tensorlang.symbolic.bounds import prove
from tensorlang.symbolic.simplify import simplify

TAILS = ("guard", "shift_inwards")


def split(func: PrimFunc, loop: For, factor: Expr, tail: str) -> tuple[PrimFunc, tuple[Expr, Expr]]:
    """for v in n  ->  for v_o in ceil(n / factor): for v_i in factor: v = v_o * factor + v_i.

    Where `factor` does not divide `n`, `tail` says what the last tile does: `"guard"` runs only the points with v < n;
    `"shift_inwards"` moves the tile back so that it ends at n, and so computes some points twice (Halide's ShiftInwards;
    needs n >= factor).
    """
    n = loop.extent
    name = loop.var.name
    outer, inner = var(f"{name}_o"), var(f"{name}_i")
    count = simplify((n + factor - 1) // factor)
    start = outer * factor
    divides = _divides(n, factor)
    if tail == "shift_inwards" and not divides:
        if not prove(factor <= n, {}):
            raise ScheduleError(f"tail='shift_inwards' needs {factor} <= {n}, which is not known")
        if block := _accumulates_across(loop):
            raise ScheduleError(
                f"split: tail='shift_inwards' would add points of {block.name} twice: {name} is a reduction loop of it or "
                'inside one; use tail="guard"'
            )
        if loop.kind in ("parallel", "vectorized") and (block := _accumulates_into_shared(loop)):
            raise ScheduleError(
                f"split: tail='shift_inwards' would let iterations of the {loop.kind} loop {name} accumulate into "
                f'the same element of {written_buffer(block).name}; use tail="guard"'
            )
        start = minimum(start, n - factor)
    value = start + inner
    body = substitute_stmt(loop.body, {loop.var: value})
    if tail == "guard" and not divides:
        body = guard_blocks(body, lt(value, n))
    body = simplify_bindings(body, {outer: count, inner: factor})
    new = For(outer, count, loop.kind, For(inner, factor, "serial", body), loop.annotations)
    return func.with_body(replace_stmt(func.body, loop, new)), (outer, inner)


def _accumulates_across(loop: For) -> Block | None:
    """A block in `loop` that goes on accumulating, in a later iteration of a loop outside or of `loop` itself, into what an
    iteration of `loop` computed."""
    inside = {s.var for s in walk_stmt(loop.body) if isinstance(s, For)}
    for block in blocks(loop):
        if written_buffer(block) in read_buffers(block) and reduce_loop_vars(block) - inside:
            return block
    return None


def _accumulates_into_shared(loop: For) -> Block | None:
    """A block in `loop` that accumulates into memory that the iterations of `loop` share."""
    private = {s.buffer for s in walk_stmt(loop) if isinstance(s, Allocate)}
    shared = [b for b in blocks(loop) if written_buffer(b) not in private]
    return next((b for b in shared if written_buffer(b) in read_buffers(b)), None)


def _divides(n: Expr, factor: Expr) -> bool:
    remainder = simplify(n % factor)
    return remainder.op == "const" and remainder.value == 0


def fuse(func: PrimFunc, outer: For, inner: For) -> tuple[PrimFunc, Expr]:
    """for a in n: for b in m  ->  for ab in n * m: a = ab // m, b = ab % m. `inner` is the only child of `outer`."""
    if outer.body is not inner:
        raise ScheduleError(f"fuse: loop {inner.var.name} is not directly and solely inside {outer.var.name}")
    if outer.var in free_vars(inner.extent):
        raise ScheduleError(f"fuse: the extent of {inner.var.name} depends on {outer.var.name}")
    if outer.kind != inner.kind:
        raise ScheduleError(
            f"fuse: {outer.var.name} is {outer.kind} and {inner.var.name} is {inner.kind}; "
            f"fuse before that"
        )
    fused = var(f"{outer.var.name}_{inner.var.name}")
    n, m = outer.extent, inner.extent
    if m.op == "const" and m.value == 1:
        mapping = {outer.var: fused, inner.var: const(0)}
    elif n.op == "const" and n.value == 1:
        mapping = {outer.var: const(0), inner.var: fused}
    else:
        mapping = {outer.var: fused // m, inner.var: fused % m}
    extent = simplify(n * m)
    body = simplify_bindings(substitute_stmt(inner.body, mapping), {fused: extent})
    return func.with_body(replace_stmt(func.body, outer, For(fused, extent, outer.kind, body, outer.annotations))), fused


def perfect_nest(func: PrimFunc, order: list[For]) -> list[For]:
    """The loops from the outermost to the innermost of `order`, which must be nested with nothing beside them."""
    inside = [s for s in loop_path_deepest(func.body, order) if isinstance(s, For)]
    positions = [i for i, s in enumerate(inside) if any(s is o for o in order)]
    chain = inside[positions[0] : positions[-1] + 1]
    for a, b in zip(chain, chain[1:], strict=False):
        if a.body is not b:
            raise ScheduleError(f"reorder: {b.var.name} is not alone inside {a.var.name}; the loops must be perfectly nested")
    return chain


def reorder(func: PrimFunc, order: list[For]) -> PrimFunc:
    """The loops of one chain, put into `order` at the places that they occupy now; loops between them stay."""
    chain = perfect_nest(func, order)
    wanted = iter(order)
    headers = [next(wanted) if any(s is o for o in order) else s for s in chain]
    seen: set[Expr] = set()
    all_vars = {h.var for h in headers}
    for h in headers:
        if late := (free_vars(h.extent) & all_vars) - seen:
            inner = next(iter(late)).name
            raise ScheduleError(f"reorder: the extent of {h.var.name} depends on {inner}, which would be inside")
        seen.add(h.var)
    body: Stmt = chain[-1].body
    for h in reversed(headers):
        body = replace(h, body=body)
    return func.with_body(replace_stmt(func.body, chain[0], body))


def loop_path_deepest(root: Stmt, loops: list[For]) -> list[Stmt]:
    """The path to the innermost of `loops`, on which all of them must lie."""
    paths = [loop_path(root, loop.var) for loop in loops]
    deepest = max(paths, key=len)
    for loop in loops:
        if not any(s is loop for s in deepest):
            raise ScheduleError(f"reorder: {loop.var.name} is not in the same nest as {deepest[-1].var.name}")  # type: ignore[attr-defined]
    return deepest


def set_kind(func: PrimFunc, loop: For, kind: str) -> PrimFunc:
    """The loop's kind: serial, parallel, vectorized, unrolled or a GPU axis."""
    return func.with_body(replace_stmt(func.body, loop, replace(loop, kind=kind)))


def annotate(func: PrimFunc, target: For | Block, key: str, value: Any) -> PrimFunc:
    """A hint to code generation; `value` is a number, string or tuple of them."""
    annotations = {k: v for k, v in {**target.annotations, key: value}.items() if v is not None}
    return func.with_body(replace_stmt(func.body, target, replace(target, annotations=annotations)))


def simplify_bindings(body: Stmt, extents: dict[Expr, Expr]) -> Stmt:
    """Index expressions simplified with the given extents and those of the loops inside."""
    ranges: dict[Expr, Expr | int] = dict(extents)
    for s in walk_stmt(body):
        if isinstance(s, For):
            ranges[s.var] = s.extent
    return map_exprs(body, lambda e: simplify(e, ranges) if e.op not in ("const", "var") else e)


def as_factor(value: Any, what: str) -> Expr:
    """A positive split factor."""
    e = wrap(value)
    if not e.dtype.is_int or (e.op == "const" and e.value < 1):
        raise ScheduleError(f"{what}: the factor must be a positive integer, not {value}")
    return e
