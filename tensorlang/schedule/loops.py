"""Primitives on loops: split, fuse, reorder, and the loop kinds. Each is `PrimFunc, ... -> PrimFunc, new loops`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import isfinite
from typing import Any

from tensorlang.errors import ScheduleError
from tensorlang.ir.expr import Expr, const, le, lt, minimum, var, wrap
from tensorlang.ir.intrinsics import PREFETCH, PREFETCH_WITHIN
from tensorlang.ir.reduction import COMBINE, CROSS_THREAD, REDUCER, reduce_loop_vars, reduction_of
from tensorlang.ir.stmt import Allocate, Block, For, PrimFunc, Stmt
from tensorlang.ir.tensor_intrin import BLOCKIZED, FALLBACK, TENSORIZED
from tensorlang.ir.tree import guard_blocks, loop_path, loops_of, read_buffers, replace_stmt, written_buffers
from tensorlang.ir.visitor import blocks, children, free_vars, map_own_exprs, substitute_stmt, walk_stmt, with_children
from tensorlang.symbolic.bounds import prove
from tensorlang.symbolic.simplify import simplify

TAILS = ("guard", "shift_inwards")
THREAD_AXES = ("blockIdx.x", "blockIdx.y", "blockIdx.z", "threadIdx.x", "threadIdx.y", "threadIdx.z", "vthread")
# annotations that primitives of their own make
MEANINGFUL = (REDUCER, CROSS_THREAD, BLOCKIZED, TENSORIZED, FALLBACK, PREFETCH, PREFETCH_WITHIN)


def split(
    func: PrimFunc, loop: For, sizes: Sequence[Expr], tail: str = "guard", count: Expr | None = None, checked: bool = True
) -> tuple[PrimFunc, list[Expr]]:
    """for v in n  ->  for v_o in ceil(n / factor): for v_i in factor: v = v_o * factor + v_i.

    `sizes` are the extents of the inner loops, outermost first (one: `v_o, v_i`; several: `v_0, v_1, ...`); `count` is
    that of the outermost, by default as many as it takes. Where they make more points than `n`, `tail` says what happens:
    `"guard"` runs only the points with v < n; `"shift_inwards"` moves the last tile back so that it ends at n, and so
    computes some points twice (Halide's ShiftInwards; needs n >= factor). What that does to reductions is asked only if
    `checked`: a program that adds points twice shows why the step is refused.
    """
    n = loop.extent
    name = loop.var.name
    suffixes = ["o", "i"] if len(sizes) == 1 else [str(k) for k in range(len(sizes) + 1)]
    loops = [var(f"{name}_{suffix}") for suffix in suffixes]
    outer, inner = loops[0], loops[1:]
    factor = const(1)
    value: Expr = const(0)
    for v, size in zip(reversed(inner), reversed(sizes), strict=True):
        value, factor = v * factor + value, simplify(factor * size)
    if count is None:
        count = simplify((n + factor - 1) // factor)
        exact = _is_zero(simplify(n % factor))
    else:
        exact = _is_zero(simplify(count * factor - n))
    start = outer * factor
    if tail == "shift_inwards" and not exact:
        if not prove(factor <= n, {}):
            raise ScheduleError(f"tail='shift_inwards' needs {factor} <= {n}, which is not known")
        if checked and (block := _accumulates_across(loop)):
            raise ScheduleError(
                f"split: tail='shift_inwards' would add points of {block.name} twice: {name} is a reduction loop of it or "
                f'inside one, or {block.name} was initialised before {name}; use tail="guard"'
            )
        if checked and loop.kind in ("parallel", "vectorized") and (block := _accumulates_into_shared(loop)):
            raise ScheduleError(
                f"split: tail='shift_inwards' would let iterations of the {loop.kind} loop {name} accumulate into "
                f'the same element of {next(iter(written_buffers(block))).name}; use tail="guard"'
            )
        start = minimum(start, n - factor)
    value = start + value
    body = substitute_stmt(loop.body, {loop.var: value})
    if tail == "guard" and not exact:
        body = guard_blocks(body, lt(value, n))
    extents = dict(zip(loops, [count, *sizes], strict=True))
    body = simplify_bindings(body, extents)
    for v in reversed(inner):
        body = For(v, extents[v], "serial", body)
    new = For(outer, count, loop.kind, body, loop.annotations)
    return func.with_body(replace_stmt(func.body, loop, new)), loops


def _is_reduction(block: Block) -> bool:
    return any(it.kind == "reduce" for it in block.iters)


def split_sizes(n: Expr, factors: Sequence[Any]) -> tuple[Expr, list[Expr]]:
    """The extents that `split(factors=...)` asks for of a loop over `n`: the outermost one and the others.

    One factor may be None: as many as it takes to cover `n`.
    """
    if len(factors) < 2:
        raise ScheduleError("split: give at least two factors")
    unknown = [k for k, f in enumerate(factors) if f is None]
    if len(unknown) > 1:
        raise ScheduleError(f"split: only one factor may be None, not {len(unknown)}: {list(factors)}")
    known = [as_factor(f, "split") if f is not None else const(1) for f in factors]
    product: Expr = const(1)
    for f in known:
        product = simplify(product * f)
    if unknown:
        known[unknown[0]] = simplify((n + product - 1) // product)
    elif not prove(le(n, product), {}):
        shown = " * ".join(map(str, factors))
        raise ScheduleError(f"split: {shown} = {product} does not cover the {n} iterations; let one factor be None")
    return known[0], known[1:]


def _is_zero(e: Expr) -> bool:
    return e.op == "const" and e.value == 0


def _accumulates_across(loop: For) -> Block | None:
    """A block in `loop` that goes on accumulating, in a later iteration of a loop outside or of `loop` itself, into what an
    iteration of `loop` computed, or into what was initialised before `loop`."""
    inside = {s.var for s in walk_stmt(loop.body) if isinstance(s, For)}
    inner = blocks(loop)
    own = {block: written_buffers(block).keys() & set(read_buffers(block)) for block in inner}
    begun = {b for block in inner for b in written_buffers(block) if block.init is not None or b not in own[block]}
    for block in inner:
        if own[block] and (reduce_loop_vars(block) - inside or (_is_reduction(block) and own[block] - begun)):
            return block
    return None


def _accumulates_into_shared(loop: For) -> Block | None:
    """A block in `loop` that accumulates into memory that the iterations of `loop` share."""
    private = {s.buffer for s in walk_stmt(loop) if isinstance(s, Allocate)}
    for block in blocks(loop):
        shared = [b for b in written_buffers(block) if b not in private]
        if not read_buffers(block).keys().isdisjoint(shared):
            return block
    return None


def fuse(func: PrimFunc, order: Sequence[Expr]) -> tuple[PrimFunc, Expr]:
    """for a in n: for b in m  ->  for ab in n * m: a = ab // m, b = ab % m. Each loop is the only child of the one before."""
    loops = [_loop_of(func, v) for v in order]
    for outer, inner in zip(loops, loops[1:], strict=False):
        if outer.body is not inner:
            raise ScheduleError(f"fuse: loop {inner.var.name} is not directly and solely inside {outer.var.name}")
        if outer.kind != inner.kind:
            raise ScheduleError(
                f"fuse: {outer.var.name} is {outer.kind} and {inner.var.name} is {inner.kind}; fuse before that"
            )
    own = {f.var for f in loops}
    for f in loops:
        if held := free_vars(f.extent) & own:
            raise ScheduleError(f"fuse: the extent of {f.var.name} depends on {next(iter(held)).name}")
    _check_initialised(loops)
    fused = loops[0].var
    for inner in loops[1:]:
        func, fused = _fuse_pair(func, _loop_of(func, fused), inner)
    return func, fused


def _check_initialised(loops: Sequence[For]) -> None:
    """A reduction of symbolic length may be empty. Then a loop fused of it and of output elements has no iterations either,
    and nothing would initialise them."""
    for block in blocks(loops[-1]):
        if reduction_of(block) is None:
            continue
        reduced = reduce_loop_vars(block)
        symbolic = [f for f in loops if f.var in reduced and f.extent.op != "const"]
        elements = [f for f in loops if f.var not in reduced]
        if symbolic and elements:
            raise ScheduleError(
                f"fuse: {symbolic[0].var.name}, a reduction loop of {block.name}, may be empty "
                f"({symbolic[0].extent} = 0), and {block.name} would not be initialised along {elements[0].var.name}; "
                "fuse reduction loops with each other"
            )


def _loop_of(func: PrimFunc, v: Expr) -> For:
    path = loop_path(func.body, v)
    if not path or not isinstance(path[-1], For):
        raise ScheduleError(f"no loop {v.name}")
    return path[-1]


def _fuse_pair(func: PrimFunc, outer: For, inner: For) -> tuple[PrimFunc, Expr]:
    inner = _loop_of(func, inner.var)
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


def check_bind(func: PrimFunc, loop: For, axis: str) -> None:
    """Whether `loop` can be run by the threads of `axis`, races aside (`legality.check_parallel` decides those).

    A thread has one position on each axis, so no loop around or inside may be bound to it too; virtual threads are
    loops in fact, and nest.
    """
    if axis not in THREAD_AXES:
        raise ScheduleError(f"bind: there is no axis {axis!r}; there are: {', '.join(THREAD_AXES)}")
    if loop.kind not in ("serial", axis):
        raise ScheduleError(f"bind: loop {loop.var.name} is {loop.kind} already")
    if axis == "vthread":
        return
    path = loop_path(func.body, loop.var)
    for other in [*loops_of(path[:-1]), *(s for s in walk_stmt(loop.body) if isinstance(s, For))]:
        if other.kind == axis:
            where = "inside" if any(s is other for s in path) else "around"
            raise ScheduleError(f"bind: loop {loop.var.name} is {where} {other.var.name}, which is bound to {axis} already")


def is_cross_thread(loop: For, axis: str) -> bool:
    """Whether threads of one block can combine what the iterations of `loop` add up: it is the only reduction loop of the one
    stage inside, directly around it, and the stage's operator is one of the language."""
    block = loop.body
    if not axis.startswith("threadIdx.") or not isinstance(block, Block) or block.init is None:
        return False
    reduction = reduction_of(block)
    if reduction is None or reduction.kind not in COMBINE or reduce_loop_vars(block) != {loop.var}:
        return False
    return not free_vars(block.predicate) & {loop.var}


def bind_cross_thread(func: PrimFunc, loop: For, axis: str) -> PrimFunc:
    """`loop` bound to `axis`, marked as one whose values its threads combine."""
    marked = replace(loop, kind=axis, annotations={**loop.annotations, CROSS_THREAD: True})
    return func.with_body(replace_stmt(func.body, loop, marked))


def annotate(func: PrimFunc, target: For | Block, key: str, value: Any) -> PrimFunc:
    """A hint to code generation; `value` is data (`check_annotation`), None removes it."""
    annotations = {k: v for k, v in {**target.annotations, key: value}.items() if v is not None}
    return func.with_body(replace_stmt(func.body, target, replace(target, annotations=annotations)))


def prefetch(
    func: PrimFunc, loop: For, source: str, ahead: int, among: int = 1, over: For | None = None
) -> PrimFunc:
    """Mark `loop`: an iteration asks the memory for what the one `ahead` later reads of the buffer `source`; where `over`, a
    loop within, is given, a part of it in each of its iterations and in each of `among` consecutive ones of `loop`."""
    for what, number in (("how far ahead", ahead), ("among how many", among)):
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise ScheduleError(f"prefetch: {what} is a number of iterations from 1 on, not {number!r}")
    if over is None and among != 1:
        raise ScheduleError("prefetch: iterations share their lines along a loop within: name it by over=")
    if over is not None and (over is loop or not any(s is over for s in walk_stmt(loop.body))):
        raise ScheduleError(f"prefetch: {over.var.name} is no loop within {loop.var.name}")
    if loop.kind == "vectorized":
        raise ScheduleError(f"prefetch: {loop.var.name} is vectorized: its iterations are lanes, which come at once")
    read = {b.name: b for block in blocks(loop) for b in read_buffers(block)}
    if source not in read:
        raise ScheduleError(f"prefetch: nothing in {loop.var.name} reads {source!r}; it reads: {', '.join(read) or 'nothing'}")
    inside = {s.buffer for s in walk_stmt(loop) if isinstance(s, Allocate)}
    if read[source] in inside or read[source].scope == "local":
        raise ScheduleError(f"prefetch: {source} is private to an iteration of {loop.var.name}; a later one has its own")
    hints = {name: rest for name, *rest in loop.annotations.get(PREFETCH, ())}
    hints[source] = [ahead] if over is None else [ahead, among]
    if over is not None:
        sources = dict.fromkeys((*over.annotations.get(PREFETCH_WITHIN, ()), source))
        func = annotate(func, over, PREFETCH_WITHIN, tuple(sources))
        loop = next(s for s in walk_stmt(func.body) if isinstance(s, For) and s.var is loop.var)
    return annotate(func, loop, PREFETCH, tuple((name, *rest) for name, rest in hints.items()))


def check_annotation(primitive: str, key: Any, value: Any) -> None:
    """Keys are strings and not those that mean something; values print and parse back."""
    if not isinstance(key, str) or not key:
        raise ScheduleError(f"{primitive}: the key of an annotation is a string, not {key!r}")
    if key in MEANINGFUL:
        raise ScheduleError(f"{primitive}: {key!r} is part of the program, and no hint")
    if not _is_data(value):
        raise ScheduleError(f"{primitive}: the value of {key!r} is data (numbers, strings, tuples of them), not {value!r}")


def _is_data(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_data, value))
    if isinstance(value, dict):
        return all(isinstance(k, str) and _is_data(v) for k, v in value.items())
    return isinstance(value, bool | int | str) or (isinstance(value, float) and isfinite(value))


def simplify_bindings(s: Stmt, extents: dict[Expr, Expr]) -> Stmt:
    """Expressions simplified with the given extents and those of the loops around them in `s`.

    Of those alone: that a loop of min(M, 1) iterations runs, and M is not 0, is known inside of it and not beside it.
    """
    new = map_own_exprs(s, lambda e: e if e.op in ("const", "var") else simplify(e, extents))
    inner = {**extents, new.var: new.extent} if isinstance(new, For) else extents
    return with_children(new, tuple(simplify_bindings(c, inner) for c in children(new)))


def as_factor(value: Any, what: str) -> Expr:
    """A positive split factor."""
    e = wrap(value)
    if not e.dtype.is_int or (e.op == "const" and e.value < 1):
        raise ScheduleError(f"{what}: the factor must be a positive integer, not {value}")
    return e
