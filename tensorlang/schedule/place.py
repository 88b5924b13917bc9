"""Where a stage is computed: taken out of the program with all that is computed in its loops, and put into another loop.

`compute_at`, `compute_root` and `reverse_compute_at` are all three: take out, find the part that is needed at the new
place, build the loops over that part (`relations.replay`), insert.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from tensorlang.errors import ScheduleError
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr, and_, le, lt, not_, var
from tensorlang.ir.reduction import reduce_loop_vars, stores_of
from tensorlang.ir.stmt import TRUE, Allocate, Block, For, If, Iter, PrimFunc, Seq, Stmt, seq
from tensorlang.ir.tree import (
    block_path,
    drop_allocation,
    loop_path,
    loops_of,
    own_loops,
    path_to,
    read_buffers,
    replace_stmt,
    sole_ancestor,
    written_buffers,
)
from tensorlang.ir.visitor import blocks, free_vars, loads, replace_buffers, substitute, walk_stmt
from tensorlang.schedule.compute import Region, has_value, readers, required_region
from tensorlang.schedule.relations import Axes, History, Split, replay, tail_conditions
from tensorlang.symbolic.bounds import bounds, prove
from tensorlang.symbolic.interval import RangesLike
from tensorlang.symbolic.region import access_region, union_region
from tensorlang.symbolic.simplify import simplify

STORE_PREDICATE = "store_predicate"  # a block with this annotation stores only where its guard says so
ROLLING = "rolling_buffer"  # a block with this annotation relies on earlier iterations of a loop outside


@dataclass(frozen=True)
class Taken:
    """A stage out of the program.

    Attributes:
        buffers: what it computes.
        loops: its own loops, outermost first, with their kinds.
        at: the variable of the loop that it was computed in, if any.
    """

    block: Block
    buffers: tuple[Buffer, ...]
    loops: tuple[For, ...]
    at: Expr | None


@dataclass(frozen=True)
class Placed:
    """A program in which stages were put into place.

    Attributes:
        axes: of each stage that moved, what its loops are made from now.
        complete: (loop, buffer): what one iteration of the loop (None: the program) must compute before it reads it.
    """

    func: PrimFunc
    axes: dict[str, Axes]
    complete: tuple[tuple[Expr | None, Buffer], ...] = ()


# -- the primitives ------------------------------------------------------------------------------------------------


def compute_at(func: PrimFunc, stage: str, loop: For, history: History) -> Placed:
    """Each iteration of `loop` computes just the part of `stage` that it reads, into memory of its own.

        for i: y[i] = f(x[i])                                 y.compute_at(out, i)
        for i: for j: out[i, j] = y[i] + z[j]
    ->  for i:
            y = alloc(...)
            y[i] = f(x[i])
            for j: out[i, j] = y[i] + z[j]

    Legal if every reader of `stage` is inside `loop`, `stage` is not an output, and what it reads is there.
    """
    path = _path(func, stage, "compute_at")
    block = _block(path)
    _check_not_an_output(func, block, "compute_at")
    top = top_of(path)
    inside_own = {b.name for b in blocks(top)}
    target_path = loop_path(func.body, loop.var)
    if any(s is top for s in target_path):
        raise ScheduleError(f"compute_at: {stage} is already inside {loop.var.name}, or it is a loop of its own")
    reading = list(dict.fromkeys(b.name for buffer in written_buffers(block) for b in readers(func, buffer)))
    outside = [b for b in reading if b not in inside_own]
    inside = {b.name for b in blocks(loop)}
    if stray := [b for b in outside if b not in inside]:
        raise ScheduleError(f"compute_at: {stray[0]} reads {stage} but is not inside loop {loop.var.name}")
    if not outside:
        raise ScheduleError(f"compute_at: nothing inside loop {loop.var.name} reads {stage}")
    check_same_conditions(path, target_path, "compute_at")
    body, taken = take_out(func.body, stage, "compute_at")
    return _put_back(func.with_body(body), taken, loop.var, history, "compute_at")


def compute_root(func: PrimFunc, stage: str, history: History) -> Placed:
    """The whole of `stage` is computed before everything that reads it, in memory that all iterations share.

        for i:                                                y.compute_root()
            y = alloc(...)
            y[i] = f(x[i])
            for j: out[i, j] = y[i] + z[j]
    ->  for i: y[i] = f(x[i])
        for i: for j: out[i, j] = y[i] + z[j]

    A stage of one version of the program (`specialize`) stays in that version. One that `reverse_compute_at` put into the
    loops of another is computed after those.

    Legal if what `stage` reads is there: nothing that is private to a loop.
    """
    what = "compute_root"
    path = _path(func, stage, what)
    top = top_of(path)
    if not loops_of(path[: path.index(top)]):
        mine = _own_part(path, top, history)
        return Placed(func, {}) if mine is top else _put_behind(func, path, top, mine, history)
    _check_not_an_output(func, _block(path), what)
    check_same_conditions(path, _version(path), what)
    body, taken = take_out(func.body, stage, what)
    return _put_back(func.with_body(body), taken, None, history, what)


def _own_part(path: list[Stmt], top: Stmt, history: History) -> Stmt:
    """The outermost statement of `path`, from `top` on, that is the stage's at its end: a loop made of its own axes.

    Raises:
        ScheduleError: nobody knows, since the stage's loops were made by other means than split and fuse.
    """
    if not isinstance(top, For) or sole_ancestor(path) is top:
        return top
    block = _block(path)
    axes = history.axes.get(block.name)
    roots = axes.roots if axes is not None and len(axes.roots) == len(block.iters) else (None,) * len(block.iters)
    if unknown := [it for it, root in zip(block.iters, roots, strict=True) if root is None and free_vars(it.binding)]:
        private = _private(top)
        if all(b is block or written_buffers(b).keys() <= private for b in blocks(top)):
            return top  # all others in there are computed for it
        raise ScheduleError(
            f"compute_root: whose loop {top.var.name} is, is not known: how {unknown[0].var.name} of {block.name} was "
            "made of loops was lost; call compute_root earlier"
        )
    own = set(_known(roots))
    for r in history.relations:
        if isinstance(r, Split):
            own |= set(r.loops) if r.parent in own else set()
        elif r.outer in own or r.inner in own:
            own.add(r.fused)
    return next(s for s in path[path.index(top) :] if isinstance(s, Block) or (isinstance(s, For) and s.var in own))


def _private(s: Stmt) -> set[Buffer]:
    return {n.buffer for n in walk_stmt(s) if isinstance(n, Allocate)}


def _put_behind(func: PrimFunc, path: list[Stmt], nest: Stmt, mine: Stmt, history: History) -> Placed:
    """The stage at the end of `path`, of which `mine` is all, after `nest`, in which it is now."""
    what = "compute_root"
    block = _block(path)
    shared = {f.var for f in loops_of(path[: path.index(mine)])}
    for b in blocks(nest):
        if b is block:
            continue
        if used := [x.name for x in read_buffers(b) if x in written_buffers(block)]:
            raise ScheduleError(f"{what}: {b.name} reads {used[0]} in the loops that {block.name} is computed in")
        if made := [x for x in written_buffers(b) if x in read_buffers(block)]:
            if reduce_loop_vars(b) & shared or (made[0] in read_buffers(b) and not reduce_loop_vars(b)):
                raise ScheduleError(f"{what}: {block.name} reads {made[0].name} while {b.name} is still computing it")
    check_visible(func, block, None, what)
    check_same_conditions(path, _version(path), what)
    body, taken = take_out(func.body, block.name, what, mine)
    again, axes, _ = _nest(taken[0], [None] * len(block.iters), {}, history, what)
    place = next(s for s in walk_stmt(body) if isinstance(s, For) and isinstance(nest, For) and s.var is nest.var)
    body = replace_stmt(body, place, seq(place, again))
    for buffer in reversed(taken[0].buffers):
        if buffer not in func.params:
            body = Allocate(buffer, body)
    inner = tuple((None, b) for b in taken[0].buffers if b not in func.params)
    result = Placed(func.with_body(body), {block.name: axes}, inner)
    for other in taken[1:]:
        result = _put(result, other, other.at, history, what)
    return result


def reverse_compute_at(func: PrimFunc, stage: str, loop: For, history: History) -> Placed:
    """Each iteration of `loop`, which computes a part of what `stage` reads, goes on to compute the elements of `stage` that
    this part is enough for.

        for io: for ii: y[io*8 + ii] = f(x[io*8 + ii])        out.reverse_compute_at(y, io)
        for i: out[i] = y[i] * 2
    ->  for io:
            for ii: y[io*8 + ii] = f(x[io*8 + ii])
            for i: out[io*8 + i] = y[io*8 + i] * 2

    Legal if each element of `stage` reads one element of what `loop` computes, at its own index (shifted at most), if that
    element is complete after one iteration, and if what else it reads is there. If nothing else reads it, what `loop`
    computes becomes private to the iteration.
    """
    what = "reverse_compute_at"
    path = _path(func, stage, what)
    block = _block(path)
    if any(s is loop for s in path):
        raise ScheduleError(f"{what}: {stage} is already inside {loop.var.name}")
    if reduce_loop_vars(block) or not written_buffers(block).keys().isdisjoint(read_buffers(block)):
        raise ScheduleError(f"{what}: {stage} is a reduction, or reads itself: computing a point of it twice is not the same")
    made = {b: None for s in blocks(loop) for b in written_buffers(s)}
    sources = [b for b in read_buffers(block) if b in made and b not in written_buffers(block)]
    if not sources:
        raise ScheduleError(f"{what}: {stage} reads nothing that is computed in {loop.var.name}")
    inside = {b.name for b in blocks(loop)}
    for b in blocks(func.body):
        if b.name not in inside and (shared := [x.name for x in sources if x in written_buffers(b)]):
            raise ScheduleError(f"{what}: {shared[0]} is computed by {b.name} too, outside of {loop.var.name}")
    _check_order(func, block, path, loop, sources)
    check_same_conditions(path, loop_path(func.body, loop.var), what)
    outer = _outer(func, loop.var)
    # Loops that go on accumulating into what is read must be inside: else it is not complete.
    for writer in blocks(loop):
        if set(written_buffers(writer)) & set(sources) and (early := reduce_loop_vars(writer) & outer.keys()):
            raise ScheduleError(
                f"{what}: {writer.name} is not complete after an iteration of {loop.var.name}: "
                f"{next(iter(early)).name} is a reduction loop of it"
            )
    region: list[tuple[Expr, Expr] | None] = [None] * len(block.iters)
    for buffer in sources:
        written = _written_region(loop, buffer, outer)
        for index in dict.fromkeys(e.args for s in stores_of(block.body) or () for e in loads(s.value) if e.value is buffer):
            for e, (low, extent) in zip(index, written, strict=True):
                position = next((n for n, it in enumerate(block.iters) if it.var in free_vars(e)), None)
                if position is None:
                    continue
                shift = simplify(e - block.iters[position].var)
                if free_vars(shift) & {it.var for it in block.iters}:
                    raise ScheduleError(f"{what}: {stage} reads {buffer.name} at {e}, which is not an index of its own")
                part = (simplify(low - shift, outer), extent)
                if region[position] not in (None, part):
                    raise ScheduleError(
                        f"{what}: {stage} reads several elements of {buffer.name} along {block.iters[position].var.name}"
                    )
                region[position] = part
    if all(part is None for part in region):
        raise ScheduleError(f"{what}: no index of {stage} says which part of {sources[0].name} it reads")
    body, taken = take_out(func.body, stage, what)
    moved = taken[0]
    nest, axes, widened = _nest(moved, region, outer, history, what, clip=True)
    if widened:
        raise ScheduleError(f"{what}: the part of {stage} that {loop.var.name} computes is not inside it")
    target = _loop_at(body, loop.var, what)
    inner = _insert_after_writers(target.body, nest, sources)
    body = replace_stmt(body, target, replace(target, body=inner))
    for buffer in reversed(moved.buffers):
        if buffer not in func.params:
            body = Allocate(buffer, body)
    new = func.with_body(body)
    for buffer in sources:
        new = _made_private(new, buffer, loop.var)
    result = Placed(new, {stage: axes}, tuple((loop.var, buffer) for buffer in sources))
    for other in taken[1:]:
        result = _put(result, other, other.at, history, what)
    return result


# -- taking out ----------------------------------------------------------------------------------------------------


def take_out(body: Stmt, stage: str, what: str, mine: Stmt | None = None) -> tuple[Stmt, list[Taken]]:
    """`body` without `stage` and without the stages computed in its loops (`mine`: what of it is); those, consumers first."""
    path = block_path(body, stage)
    top = top_of(path) if mine is None else mine
    private = {s.buffer for s in walk_stmt(top) if isinstance(s, Allocate)}
    inner = [b for b in blocks(top) if b.name != stage]
    for b in inner:
        if shared := [buffer.name for buffer in written_buffers(b) if buffer not in private]:
            raise ScheduleError(f"{what}: {b.name} computes {shared[0]} in the loops of {stage}, which cannot be moved alone")
    taken = []
    for b in inner:  # in program order: what is computed in the loops of b comes before it
        body, one = _take(body, b.name, what)
        taken.append(one)
    body, own = _take(body, stage, what)
    return body, [own, *reversed(taken)]


def _take(body: Stmt, stage: str, what: str) -> tuple[Stmt, Taken]:
    path = block_path(body, stage)
    block = _block(path)
    if len(blocks(body)) == 1:
        raise ScheduleError(f"{what}: without what is computed in its loops, {stage} is all there is; it has nowhere to go")
    nest = sole_ancestor(path)
    around = loops_of(path[: path.index(nest)])
    buffers = tuple(written_buffers(block))
    _check_movable(body, block, buffers, what)
    rest = replace_stmt(body, nest, None)
    for buffer in buffers:
        rest = drop_allocation(rest, buffer)
    return rest, Taken(block, buffers, tuple(own_loops(path)), around[-1].var if around else None)


def _check_movable(body: Stmt, block: Block, buffers: Sequence[Buffer], what: str) -> None:
    stores = stores_of(block.body)
    spatial = tuple(it.var for it in block.iters if it.kind == "spatial")
    if stores is None or any(s.indices != spatial for s in stores):
        raise ScheduleError(f"{what}: {block.name} does not write its elements in the order of its axes")
    for key in (STORE_PREDICATE, ROLLING):
        if key in block.annotations:
            raise ScheduleError(f"{what}: {block.name} cannot move after {key}; call {what} first")
    for b in blocks(body):
        if b is not block and any(buffer in written_buffers(b) for buffer in buffers):
            raise ScheduleError(f"{what}: {block.name} is written by {b.name} too")


def _check_not_an_output(func: PrimFunc, block: Block, what: str) -> None:
    if any(b in func.params for b in written_buffers(block)):
        raise ScheduleError(f"{what}: {block.name} is an output; every element of it must be computed")


def top_of(path: list[Stmt]) -> Stmt:
    """The outermost of the own loops of the stage at the end of `path`: those inside the allocation of what it computes."""
    written = written_buffers(_block(path))
    start = 0
    for n, s in enumerate(path):
        if isinstance(s, Allocate) and s.buffer in written:
            start = n
    return next(s for s in path[start:] if isinstance(s, For | Block))


# -- putting in ----------------------------------------------------------------------------------------------------


def _put_back(func: PrimFunc, taken: Sequence[Taken], at: Expr | None, history: History, what: str) -> Placed:
    """The first of `taken` at the loop `at`, the others where they were in its loops."""
    result = _put(Placed(func, {}), taken[0], at, history, what)
    for other in taken[1:]:
        result = _put(result, other, other.at, history, what)
    return result


def _put(placed: Placed, taken: Taken, at: Expr | None, history: History, what: str) -> Placed:
    func, block = placed.func, taken.block
    target = None if at is None else _loop_at(func.body, at, what, block.name)
    check_visible(func, block, target, what)
    outer = _outer(func, at)
    region: list[tuple[Expr, Expr] | None] = [None] * len(block.iters)
    if target is not None:
        found: Region | None = None
        for buffer in taken.buffers:
            part = required_region(target.body, buffer, outer)
            if part is not None:
                found = part if found is None else union_region(found, part, outer)
        if found is None:
            raise ScheduleError(f"{what}: nothing inside loop {target.var.name} reads {block.name}")
        spatial = [n for n, it in enumerate(block.iters) if it.kind == "spatial"]
        for n, one in zip(spatial, found, strict=True):
            region[n] = one if has_value(one, outer) else None
    nest, axes, widened = _nest(taken, region, outer, history, what)
    if target is not None:
        # A loop that a stage was split into may have become that of others too: it cannot be made again inside itself.
        around = {target.var, *outer}
        again = [f.var.name for f in walk_stmt(nest) if isinstance(f, For) and f.var in around]
        if again:
            raise ScheduleError(f"{what}: {again[0]} is a loop of {block.name} itself, which others share")
    shape = [widened.get(n, axes.domain[n]) for n, it in enumerate(block.iters) if it.kind == "spatial"]
    scope = _whole_version(func, taken.buffers) if target is None else target.body
    inner: Stmt = _insert_before_first_reader(scope, nest, taken.buffers)
    for buffer in reversed(taken.buffers):
        inner = Allocate(buffer, inner)
    resized = {b: b.with_(shape=tuple(shape)) for b in taken.buffers if tuple(shape) != b.shape}
    inner = replace_buffers(inner, resized)
    body = replace_stmt(func.body, scope, inner)
    made = tuple((at, resized.get(b, b)) for b in taken.buffers)
    return Placed(func.with_body(body), {**placed.axes, block.name: axes}, (*placed.complete, *made))


def _nest(
    taken: Taken,
    region: Sequence[tuple[Expr, Expr] | None],
    outer: Mapping[Expr, Expr | int],
    history: History,
    what: str,
    clip: bool = False,
) -> tuple[Stmt, Axes, dict[int, Expr]]:
    """The loops of a stage over a part of it: per iteration variable (lowest, extent), or None for all.

    Points outside of the stage's domain are guarded; where they may be computed all the same (unless `clip`), the room
    that they need is told: extents by the position of the variable.
    """
    block = taken.block
    before = _axes_of(taken, history, outer, what)
    lows: dict[int, Expr] = {n: part[0] for n, part in enumerate(region) if part is not None}
    extents = {v: part[1] if part else d for v, part, d in zip(_known(before.roots), region, before.domain, strict=True)}
    ranges: dict[Expr, Expr | int] = {**outer, **extents}
    bindings: dict[Expr, Expr] = {}
    doubtful: list[tuple[int, Expr]] = []
    for n, (it, root) in enumerate(zip(block.iters, _known(before.roots), strict=True)):
        binding = simplify(lows[n] + root, ranges) if n in lows else root
        bindings[it.var] = binding
        if n in lows:
            conditions = (le(0, binding), lt(binding, before.domain[n]))
            doubtful += [(n, c) for c in conditions if not prove(c, ranges)]
    guarded = {
        n for n, c in doubtful if clip or c.op == "le" or not _reads_in_bounds(block, block.iters[n].var, bindings, ranges)
    }
    widened = {
        n: simplify(bounds(bindings[block.iters[n].var], ranges)[1] + 1)
        for n, c in doubtful
        if n not in guarded and c.op == "lt"
    }
    again = replay(history.relations, extents, outer)
    leaves = {**outer, **again.loops}

    def made(e: Expr) -> Expr:
        return simplify(substitute(e, again.values), leaves)

    guards = [*(made(c) for n, c in doubtful if n in guarded), *again.guards]
    predicate: Expr = TRUE
    for c in guards:
        predicate = and_(predicate, c)
    iters = tuple(
        Iter(it.var, widened.get(n, before.domain[n]), it.kind, made(bindings[it.var])) for n, it in enumerate(block.iters)
    )
    nest: Stmt = replace(block, iters=iters, predicate=predicate)
    nest = _loops(taken, again.loops, nest, what)
    return nest, replace(before, guards=tuple(guards)), widened


def fresh_nest(
    block: Block, region: Sequence[tuple[Expr, Expr]] | None, outer: Mapping[Expr, Expr | int], what: str
) -> tuple[Stmt, Axes, dict[int, Expr]]:
    """Plain loops around a new `block` (its iteration variables bound to constants), over a part of it (None: all)."""
    history = History((), {block.name: Axes((None,) * len(block.iters), tuple(it.extent for it in block.iters))})
    part: Sequence[tuple[Expr, Expr] | None] = [None] * len(block.iters) if region is None else region
    return _nest(Taken(block, tuple(written_buffers(block)), (), None), part, outer, history, what)


def _loops(taken: Taken, loops: Mapping[Expr, Expr], nest: Stmt, what: str) -> Stmt:
    """`nest` inside `loops`, in the order and of the kinds that they had."""
    name = taken.block.name
    order = [f for f in taken.loops if f.var in loops]
    if strange := [f.var.name for f in taken.loops if f.var not in loops]:
        raise ScheduleError(f"{what}: loop {strange[0]} of {name} was not made by split and fuse alone; call {what} first")
    known = {f.var for f in order}
    headers = [*(For(v, e, "serial", nest) for v, e in loops.items() if v not in known), *order]
    for f in reversed(headers):
        extent = loops[f.var]
        if f.kind == "vectorized" and extent.op != "const":
            raise ScheduleError(
                f"{what}: loop {f.var.name} of {name} is vectorized, but would have {extent} iterations, which is not a "
                f"constant; split it first"
            )
        nest = For(f.var, extent, f.kind, nest, f.annotations)
    return nest


def _axes_of(taken: Taken, history: History, outer: Mapping[Expr, Expr | int], what: str) -> Axes:
    """What the stage's loops are made of.

    Raises:
        ScheduleError: that is not known, or the stage has a guard that is more than the tails of splits.
    """
    block = taken.block
    axes = history.axes.get(block.name)
    if axes is None or len(axes.roots) != len(block.iters):
        raise ScheduleError(f"{what}: how the loops of {block.name} were made is not known; call {what} before")
    roots = []
    for it, root in zip(block.iters, axes.roots, strict=True):
        # What the loops around the new place bind, a scan's time for one, stays as it is: the part needed tells it.
        if root is None and not free_vars(it.binding) <= outer.keys():
            raise ScheduleError(
                f"{what}: {block.name} was already transformed ({it.var.name} = {it.binding}); call {what} first, then split it"
            )
        roots.append(root if root is not None else var(_loop_name(it.var.name)))
    leaves: dict[Expr, Expr | int] = {f.var: f.extent for f in taken.loops}
    facts: list[Expr] | None = None
    for c in conjuncts(block.predicate):
        if facts is None:
            facts = tail_conditions(history, block.name, leaves)
            facts += [c for it, d in zip(block.iters, axes.domain, strict=True) for c in (le(0, it.binding), lt(it.binding, d))]
        if c not in facts and not prove(c, {**outer, **leaves}, facts):
            raise ScheduleError(f"{what}: {block.name} is computed only where {c}; call {what} before that guard is made")
    return replace(axes, roots=tuple(roots))


def _loop_name(name: str) -> str:
    """The loop of an iteration variable `vi` is `i`, that of `v0` is `i0`."""
    bare = name.removeprefix("v") or name
    return f"i{bare}" if bare.isdecimal() else bare


def _known(roots: Iterable[Expr | None]) -> list[Expr]:
    return [r for r in roots if r is not None]


def conjuncts(e: Expr) -> list[Expr]:
    """The conditions that `e` is the conjunction of."""
    if e.op == "and":
        return [c for a in e.args for c in conjuncts(a)]
    return [] if e.op == "const" and e.value else [e]


def _reads_in_bounds(block: Block, axis: Expr, bindings: Mapping[Expr, Expr], ranges: RangesLike) -> bool:
    """Whether everything that `block` reads at a position given by `axis` exists although `axis` overshoots.

    Then the overshooting points may be computed: they go to private memory, and nobody reads them.
    """
    stores = stores_of(block.body)
    if stores is None:
        return False
    own = {s.buffer for s in stores}
    for access in [e for s in stores for e in loads(s.value)]:
        if access.value in own:
            continue
        for index, size in zip(access.args, access.value.shape, strict=True):
            if axis in free_vars(index):
                at = simplify(substitute(index, bindings), ranges)
                if not (prove(le(0, at), ranges) and prove(lt(at, size), ranges)):
                    return False
    return True


def check_visible(func: PrimFunc, block: Block, target: Stmt | None, what: str) -> None:
    """Everything that `block` reads exists at `target` (None: outside of all loops) too."""
    for read in read_buffers(block):
        path = path_to(func.body, lambda s, b=read: isinstance(s, Allocate) and s.buffer is b)  # type: ignore[misc]
        loops = [f.var.name for f in loops_of(path)]
        seen = not loops if target is None else any(s is target for s in walk_stmt(path[-1])) if path else True
        if path and not seen:
            where = f"inside loop {loops[-1]}" if loops else "beside it"
            first = read.name if what == "compute_root" else block.name
            raise ScheduleError(
                f"{what}: {block.name} reads {read.name}, which exists only {where}; call {what} for {first} first"
            )


def _insert_before_first_reader(body: Stmt, nest: Stmt, buffers: Sequence[Buffer]) -> Stmt:
    if isinstance(body, Allocate):
        return replace(body, body=_insert_before_first_reader(body.body, nest, buffers))
    if not isinstance(body, Seq):
        return seq(nest, body)
    at = next(n for n, s in enumerate(body.stmts) if any(b in read_buffers(s) for b in buffers))
    return seq(*body.stmts[:at], nest, *body.stmts[at:])


def _insert_after_writers(body: Stmt, nest: Stmt, buffers: Sequence[Buffer]) -> Stmt:
    if isinstance(body, Allocate):
        return replace(body, body=_insert_after_writers(body.body, nest, buffers))
    if not isinstance(body, Seq):
        return seq(body, nest)
    at = max(n for n, s in enumerate(body.stmts) if any(b in written_in(s) for b in buffers))
    return seq(*body.stmts[: at + 1], nest, *body.stmts[at + 1 :])


def written_in(s: Stmt) -> set[Buffer]:
    """The buffers that the blocks in `s` write."""
    return {buffer for b in blocks(s) for buffer in written_buffers(b)}


# -- the other way round -------------------------------------------------------------------------------------------


def _check_order(func: PrimFunc, block: Block, path: list[Stmt], loop: For, sources: Sequence[Buffer]) -> None:
    """`block` may run in the iterations of `loop`: nothing that it reads is computed after them."""
    what = "reverse_compute_at"
    order = [b.name for b in blocks(func.body)]
    inside = {b.name for b in blocks(loop)}
    last = max(order.index(name) for name in inside)
    if order.index(block.name) < last:
        raise ScheduleError(f"{what}: {block.name} is computed before {order[last]}, not after it")
    late = [b for b in blocks(func.body) if b.name not in inside and order.index(b.name) > last and b.name != block.name]
    start = loops_of(loop_path(func.body, loop.var))[0]
    late += [b for b in blocks(start) if b.name not in inside]
    for b in late:
        if needed := [buffer.name for buffer in read_buffers(block) if buffer in written_buffers(b)]:
            where = f"which {b.name} computes later, or outside of {loop.var.name}"
            raise ScheduleError(f"{what}: {block.name} reads {needed[0]}, {where}")
        if again := [x.name for x in written_buffers(block) if x in written_buffers(b) or x in read_buffers(b)]:
            if order.index(b.name) < order.index(block.name):
                raise ScheduleError(f"{what}: {b.name} uses {again[0]} before {block.name}")
    check_visible(func, block, loop, what)


def _written_region(loop: For, buffer: Buffer, outer: RangesLike) -> Region:
    """What one iteration of `loop` writes of `buffer`."""
    inner: dict[Expr, Expr | int] = {s.var: s.extent for s in walk_stmt(loop.body) if isinstance(s, For)}
    region: Region | None = None
    for block in blocks(loop.body):
        mapping = {it.var: it.binding for it in block.iters}
        for s in stores_of(block.body) or ():
            if s.buffer is buffer:
                index = tuple(simplify(substitute(i, mapping), inner) for i in s.indices)
                part = access_region(index, inner, buffer.shape, outer)
                region = part if region is None else union_region(region, part, outer)
    if region is None:
        raise ScheduleError(f"reverse_compute_at: {loop.var.name} does not compute {buffer.name} point by point")
    return region


def _made_private(func: PrimFunc, buffer: Buffer, at: Expr) -> PrimFunc:
    """`buffer` as memory of one iteration of the loop `at`, if nothing outside uses it."""
    target = _loop_at(func.body, at, "reverse_compute_at")
    inside = {b.name for b in blocks(target)}
    users = [b for b in blocks(func.body) if buffer in written_buffers(b) or buffer in read_buffers(b)]
    if buffer in func.params or any(b.name not in inside for b in users):
        return func
    body = drop_allocation(func.body, buffer)
    target = _loop_at(body, at, "reverse_compute_at")
    return func.with_body(replace_stmt(body, target, replace(target, body=Allocate(buffer, target.body))))


# -- versions of the program -----------------------------------------------------------------------------------------


def _version(path: Sequence[Stmt]) -> list[Stmt]:
    """The start of `path`, up to the version of the program that it leads into: a branch outside of all loops."""
    outside = next((n for n, s in enumerate(path) if isinstance(s, For | Block)), len(path))
    last = max((n for n, s in enumerate(path[:outside]) if isinstance(s, If)), default=-1)
    return list(path[: last + 2])


def _whole_version(func: PrimFunc, buffers: Sequence[Buffer]) -> Stmt:
    """The version of the program that reads `buffers`: the whole of it, where it has only one."""
    read = path_to(func.body, lambda s: isinstance(s, Block) and not read_buffers(s).keys().isdisjoint(buffers))
    return _version(read)[-1] if read else func.body


def check_same_conditions(path: Sequence[Stmt], target: Sequence[Stmt], what: str) -> None:
    """A stage moves from the end of `path` to the end of `target`: not out of a branch, where what it reads may not exist.

    The extents of a version of the program (`specialize`) hold under its condition alone.
    """
    for s, inside in zip(path, path[1:], strict=False):
        if isinstance(s, If) and not any(a is s and b is inside for a, b in zip(target, target[1:], strict=False)):
            where = s.cond if inside is s.then else not_(s.cond)
            raise ScheduleError(f"{what}: {_block(path).name} is computed only where {where}; the new place is outside of that")


# -- details -------------------------------------------------------------------------------------------------------


def _path(func: PrimFunc, stage: str, what: str) -> list[Stmt]:
    path = block_path(func.body, stage)
    if not path:
        raise ScheduleError(f"{what}: no stage {stage}")
    for key in (STORE_PREDICATE, ROLLING):
        if key in _block(path).annotations:
            raise ScheduleError(f"{what}: {stage} cannot move after {key}; call {what} first")
    return path


def _block(path: Sequence[Stmt]) -> Block:
    block = path[-1]
    if not isinstance(block, Block):
        raise ScheduleError("no such stage")
    return block


def _loop_at(body: Stmt, v: Expr, what: str, stage: str | None = None) -> For:
    path = loop_path(body, v)
    if not path or not isinstance(path[-1], For):
        lost = f"{stage} is computed in loop {v.name}, which is lost" if stage else f"no loop {v.name}"
        raise ScheduleError(f"{what}: {lost}")
    return path[-1]


def _outer(func: PrimFunc, at: Expr | None) -> dict[Expr, Expr | int]:
    """The loops around the body of the loop `at`, that one included."""
    return {} if at is None else {f.var: f.extent for f in loops_of(loop_path(func.body, at))}

