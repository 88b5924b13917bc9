"""Primitives on padding: pad_einsum gives a contraction whole tiles, decompose_padding splits a padded copy in two."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tensorlang.errors import ScheduleError
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr, and_, const, is_const, le, load, lt, select, var
from tensorlang.ir.reduction import init_stores, reduction_of
from tensorlang.ir.stmt import TRUE, Allocate, Block, For, Iter, PrimFunc, Stmt, Store, seq
from tensorlang.ir.tree import block_path, loops_of, own_loops, replace_stmt, sole_ancestor, written_buffers
from tensorlang.ir.visitor import blocks, free_vars, loads, rewrite, substitute
from tensorlang.schedule.cache import unique_name, with_source
from tensorlang.schedule.partition import conjuncts, size_ranges
from tensorlang.symbolic.bounds import prove
from tensorlang.symbolic.conflict import determined_variables
from tensorlang.symbolic.simplify import simplify


@dataclass(frozen=True, eq=False)
class PaddedEinsum:
    """What pad_einsum made.

    Attributes:
        operands: the stages that make the padded operands.
        output: the stage that copies the result out of the padding; None where the output is not padded.
    """

    func: PrimFunc
    operands: tuple[str, ...]
    output: str | None


def pad_einsum(func: PrimFunc, stage: str, padding: Sequence[Any]) -> PaddedEinsum:
    """The iterations of a contraction rounded up to multiples, over padded copies of its operands.

        for i in 10: for k in 7: y[i] += x[i, k] * w[k]                 y.pad_einsum([4, 8])
    ->  for i in 12: for k in 8: x_pad[i, k] = x[i, k] if i < 10 and k < 7 else 0
        for k in 8: w_pad[k] = w[k] if k < 7 else 0
        for i in 12: for k in 8: y_pad[i] += x_pad[i, k] * w_pad[k]
        for i in 10: y[i] = y_pad[i]                                    (stage y_crop)

    Legality: the stage is a reduction that no loop transformation has touched; every index of what it reads is an
    iteration variable or free of the padded ones; and where a padded reduction variable is beyond the end, what is read as
    padding makes the reduction's neutral element (0 * 0 does for a sum of products; 0 * b[i] does not: b may be infinite).
    """
    path = block_path(func.body, stage)
    block = path[-1]
    if not isinstance(block, Block):
        raise ScheduleError(f"pad_einsum: no stage {stage}")
    reduction = reduction_of(block)
    if reduction is None or block.init is None or len(reduction.stores) != 1:
        raise ScheduleError(f"pad_einsum: {stage} is not a reduction to one tensor (with its initialisation)")
    multiples = _multiples(block, padding)
    nest = own_loops(path)
    loops = {f.var: f for f in nest}
    for it in block.iters:
        f = loops.get(it.binding)
        if f is None or f.extent is not it.extent or f.kind != "serial":
            raise ScheduleError(
                f"pad_einsum: {stage} was already transformed ({it.var.name} = {it.binding}); call pad_einsum first"
            )
    if len(nest) != len(block.iters) or block.predicate is not TRUE:
        raise ScheduleError(f"pad_einsum: {stage} was already transformed; call pad_einsum first")
    if len(loops_of(path)) != len(nest):
        raise ScheduleError(f"pad_einsum: {stage} is computed inside a loop of another stage; call pad_einsum first")
    sizes = size_ranges(func)
    padded = {
        it.var: extent
        for it, m in zip(block.iters, multiples, strict=True)
        if (extent := simplify((it.extent + m - 1) // m * m, sizes)) is not it.extent
    }
    if not padded:
        raise ScheduleError(f"pad_einsum: the iterations of {stage} are multiples of {list(padding)} already")
    store = reduction.store
    spatial = [it.var for it in block.iters if it.kind == "spatial"]
    if list(store.indices) != spatial:
        raise ScheduleError(f"pad_einsum: {stage} does not write its elements in the order of its axes")
    if others := [b.name for b in blocks(func.body) if b is not block and store.buffer in written_buffers(b)]:
        raise ScheduleError(f"pad_einsum: {store.buffer.name} is written by {others[0]} too")

    neutral = init_stores(block)[0].value
    extents = {it.var: it.extent for it in block.iters}
    reads = [e for e in reversed(loads(reduction.source)) if any(free_vars(i) & padded.keys() for i in e.args)]
    beyond = [it.var for it in block.iters if it.kind == "reduce" and it.var in padded]
    values = _padding_values(stage, reduction.source, reads, neutral, beyond)
    whole, pads, replacements, names, made = func, [], {}, [], []
    for e in reads:
        name = unique_name(whole, f"{e.value.name}_pad")
        nest_of, target = _padded_copy(name, stage, e, padded, extents, values[e])
        whole = with_source(whole.with_body(Allocate(target, whole.body)), name, stage)
        replacements[e] = load(target, e.args)
        pads.append(nest_of)
        names.append(name)
        made.append(target)
    output: str | None = None
    target = store.buffer
    if any(v in padded for v in spatial):
        inner = unique_name(whole, f"{store.buffer.name}_pad")
        shape = tuple(padded.get(v, d) for v, d in zip(spatial, store.buffer.shape, strict=True))
        target = Buffer(inner, shape, store.buffer.dtype)
        whole = whole.with_body(Allocate(target, whole.body))
        made.append(target)
        output = unique_name(whole, f"{stage}_crop")
        whole = with_source(whole, output, stage)
    replacements[load(store.buffer, store.indices)] = load(target, store.indices)
    new = replace(
        block,
        iters=tuple(replace(it, extent=padded.get(it.var, it.extent)) for it in block.iters),
        body=Store(target, store.indices, substitute(store.value, replacements)),
        init=Store(target, store.indices, neutral),
    )
    moved: Stmt = new
    for f in reversed(nest):
        it = next(it for it in block.iters if it.binding is f.var)
        moved = replace(f, extent=padded.get(it.var, it.extent), body=moved)
    crop = _crop(output, store.buffer, target) if output is not None else None
    body = replace_stmt(func.body, sole_ancestor(path), seq(*pads, moved, crop))
    for b in reversed(made):
        body = Allocate(b, body)
    return PaddedEinsum(whole.with_body(body), tuple(names), output)


def _multiples(block: Block, padding: Sequence[Any]) -> list[int]:
    if len(padding) != len(block.iters):
        names = ", ".join(it.var.name.removeprefix("v") for it in block.iters)
        raise ScheduleError(f"pad_einsum: {block.name} has {len(block.iters)} iteration variables: {names}; not {len(padding)}")
    for m in padding:
        if isinstance(m, bool) or not isinstance(m, int) or m < 1:
            raise ScheduleError(f"pad_einsum: padding is to multiples of positive integers, not {m!r}")
    return list(padding)


def _padding_values(
    stage: str, source: Expr, reads: Sequence[Expr], neutral: Expr, beyond: Sequence[Expr]
) -> dict[Expr, Expr]:
    """What each padded operand holds beyond its end, so that the points there (of reduction axes `beyond`) do not count."""
    bare = source.op == "load"
    values = {e: neutral if bare else const(0, e.dtype) for e in reads}
    for v in beyond:
        outside = {e: values[e] for e in reads if any(v in free_vars(i) for i in e.args)}
        found = _folded(substitute(source, outside))
        if not (found.op == "const" and found.value == neutral.value):
            raise ScheduleError(
                f"pad_einsum: beyond the end of {v.name.removeprefix('v')}, {stage} would add {found}, which is not known to "
                f"be {neutral}; pad by hand, or leave {v.name.removeprefix('v')} at 1"
            )
    return values


def _folded(e: Expr) -> Expr:
    """`e` with arithmetic on constants done; zero times an integer is zero, times a float it may be NaN."""

    def rule(n: Expr) -> Expr | None:
        if n.op == "mul" and n.dtype.is_int and any(is_const(a, 0) for a in n.args):
            return const(0, n.dtype)
        if n.op not in _ARITHMETIC or any(a.op != "const" for a in n.args):
            return None
        return const(_ARITHMETIC[n.op](*(a.value for a in n.args)), n.dtype)

    return rewrite(e, rule)


_ARITHMETIC: dict[str, Callable[..., Any]] = {
    "mul": operator.mul, "add": operator.add, "sub": operator.sub, "max": max, "min": min, "cast": lambda x: x,
    "and": lambda a, b: a and b, "or": lambda a, b: a or b,
}  # fmt: skip


def _padded_copy(
    name: str, stage: str, e: Expr, padded: Mapping[Expr, Expr], extents: Mapping[Expr, Expr], value: Expr
) -> tuple[Stmt, Buffer]:
    """The nest that copies what `e` loads, with `value` beyond the ends; and the buffer it fills."""
    source: Buffer = e.value
    shape: list[Expr] = []
    inside: Expr = TRUE
    own = tuple(var(f"v{n}") for n in range(source.ndim))
    for v, index, d in zip(own, e.args, source.shape, strict=True):
        if index in padded:
            shape.append(padded[index])
            inside = _and(inside, lt(v, extents[index]))
            if not (d is extents[index] or (d.op == extents[index].op == "const" and d.value >= extents[index].value)):
                inside = _and(inside, lt(v, d))  # the stage reads less than its extent, under a guard of its own
        elif free_vars(index) & padded.keys():
            raise ScheduleError(
                f"pad_einsum: {stage} reads {source.name} at {index}; only an iteration variable by itself can be padded"
            )
        else:
            shape.append(d)
    target = Buffer(name, tuple(shape), source.dtype)
    loops = [var(f"i{n}") for n in range(source.ndim)]
    iters = tuple(Iter(v, d, "spatial", i) for v, d, i in zip(own, shape, loops, strict=True))
    nest: Stmt = Block(name, iters, Store(target, own, select(inside, load(source, own), value)))
    for i, d in zip(reversed(loops), reversed(shape), strict=True):
        nest = For(i, d, "serial", nest)
    return nest, target


def _crop(name: str, to: Buffer, source: Buffer) -> Stmt:
    loops = [var(f"i{n}") for n in range(to.ndim)]
    own = tuple(var(f"v{n}") for n in range(to.ndim))
    iters = tuple(Iter(v, d, "spatial", i) for v, d, i in zip(own, to.shape, loops, strict=True))
    nest: Stmt = Block(name, iters, Store(to, own, load(source, own)))
    for i, d in zip(reversed(loops), reversed(to.shape), strict=True):
        nest = For(i, d, "serial", nest)
    return nest


def _and(a: Expr, b: Expr) -> Expr:
    return b if a is TRUE else and_(a, b)


def decompose_padding(func: PrimFunc, stage: str, loop: For) -> tuple[PrimFunc, str, dict[Expr, Expr]]:
    """A padded copy as a fill, just before `loop`, and a copy of what is not padding.

        for i in 12: p[i] = x[i - 1] if 1 <= i and i < 11 else 0        p.decompose_padding(i)
    ->  for i in 12: p[i] = 0                                           (stage p_fill)
        for i in 10: p[i + 1] = x[i]

    Legality: the stage stores `a if condition else constant`, where the condition is known without reading memory; each
    of its elements is written once. A condition that bounds an axis whose own loop is inside `loop` becomes that loop's
    range; any other stays a guard.
    Returns the stage that fills, and what the variables of the stage's own loops from `loop` inwards became.
    """
    path = block_path(func.body, stage)
    block = path[-1]
    if not isinstance(block, Block):
        raise ScheduleError(f"decompose_padding: no stage {stage}")
    if block.init is not None or not isinstance(block.body, Store) or block.body.value.op != "select":
        raise ScheduleError(f"decompose_padding: {stage} is not a padding stage, which stores: a if condition else constant")
    store = block.body
    condition, value, pad = store.value.args
    if pad.op != "const":
        raise ScheduleError(f"decompose_padding: the padding of {stage} is {pad}, not a constant")
    if loads(condition):
        raise ScheduleError(f"decompose_padding: whether an element of {stage} is padding depends on memory: {condition}")
    if any(e.value is store.buffer for e in loads(store.value)):
        raise ScheduleError(f"decompose_padding: {stage} reads itself")
    nest = own_loops(path)
    at = next((n for n, f in enumerate(nest) if f is loop), None)
    if at is None:
        raise ScheduleError(f"decompose_padding: {loop.var.name} is not a loop of {stage} alone")
    around = {f.var: f.extent for f in loops_of(path) if not is_const(f.extent, 1)}
    written = tuple(substitute(i, {it.var: it.binding for it in block.iters}) for i in store.indices)
    if set(around) - determined_variables(written, around):
        raise ScheduleError(f"decompose_padding: {stage} may write an element of {store.buffer.name} more than once")
    if others := [b.name for b in blocks(func.body) if b is not block and store.buffer in written_buffers(b)]:
        raise ScheduleError(f"decompose_padding: {store.buffer.name} is written by {others[0]} too")

    inner = nest[at:]
    name = unique_name(func, f"{stage}_fill")
    renamed = {f.var: var(f.var.name) for f in inner}
    fresh = {it.var: var(it.var.name) for it in block.iters}
    fill: Stmt = Block(
        name,
        tuple(replace(it, var=fresh[it.var], binding=substitute(it.binding, renamed)) for it in block.iters),
        Store(store.buffer, tuple(substitute(i, fresh) for i in store.indices), pad),
        None,
        substitute(block.predicate, renamed),
    )
    for f in reversed(inner):
        fill = For(renamed[f.var], f.extent, f.kind, fill, f.annotations)
    copy, variables = _copied(func, block, store, condition, value, inner)
    body = replace_stmt(func.body, loop, seq(fill, copy))
    mapping = dict(zip((f.var for f in inner), variables, strict=True))
    return with_source(func, name, stage).with_body(body), name, mapping


def _copied(
    func: PrimFunc, block: Block, store: Store, condition: Expr, value: Expr, nest: Sequence[For]
) -> tuple[Stmt, list[Expr]]:
    """The points of `block` where `condition` holds, in `nest` made shorter where that says the same."""
    sizes = size_ranges(func)
    own = {it.var for it in block.iters}
    driven = {it.var: f for f in nest for it in block.iters if it.binding is f.var}
    left: list[Expr] = []
    starts: dict[Expr, Expr] = {}  # by loop variable
    ends: dict[Expr, Expr] = {}
    for c in conjuncts(condition):
        a, b = c.args if c.op in ("lt", "le") else (c, c)
        if a in driven and not free_vars(b) & own and driven[a].var not in ends:  # v < b, v <= b
            f, end = driven[a], simplify(b if c.op == "lt" else b + 1, sizes)
            if prove(le(0, end), sizes) and prove(le(end, f.extent), sizes):
                ends[f.var] = end
                continue
        if b in driven and not free_vars(a) & own and driven[b].var not in starts:  # a < v, a <= v
            f, start = driven[b], simplify(a + 1 if c.op == "lt" else a, sizes)
            if prove(le(0, start), sizes):
                starts[f.var] = start
                continue
        left.append(c)
    for v, f in driven.items():  # an empty range must not become a negative one
        if f.var in starts and not prove(le(starts[f.var], ends.get(f.var, f.extent)), sizes):
            left.append(le(starts.pop(f.var), v))
    bindings: dict[Expr, Expr] = {}
    extents: dict[Expr, Expr] = {}
    variables: list[Expr] = []
    for f in nest:
        start, end = starts.get(f.var, const(0)), ends.get(f.var, f.extent)
        new = var(f.var.name)
        variables.append(new)
        bindings[f.var] = simplify(start + new)
        extents[f.var] = simplify(end - start, sizes)
    predicate = substitute(block.predicate, bindings)
    at = {it.var: substitute(it.binding, bindings) for it in block.iters}
    for c in left:
        predicate = _and(predicate, substitute(c, at))
    s: Stmt = replace(
        block,
        iters=tuple(replace(it, binding=at[it.var]) for it in block.iters),
        body=Store(store.buffer, store.indices, value),
        predicate=predicate,
    )
    for f, v in zip(reversed(nest), reversed(variables), strict=True):
        s = replace(f, var=v, extent=extents[f.var], body=s)
    return s, variables
