"""Legality of schedule steps, decided with integer sets: proved, refuted with a counterexample, or unknown.

A step that changes the order of iterations is legal if no two of them that change places touch the same element, one of
them writing it (Allen & Kennedy, "Optimizing Compilers for Modern Architectures", chapter 2: every reordering that
preserves all dependences preserves the meaning). Accumulations of one reduction commute, up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from tensorlang.errors import ScheduleError
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr, and_, const, eq, lt, ne, or_
from tensorlang.ir.reduction import reduce_loop_vars, reduction_of
from tensorlang.ir.stmt import Allocate, Block, For, PrimFunc, Stmt
from tensorlang.ir.tree import block_path, loop_path, loops_of, read_buffers, written_buffer
from tensorlang.ir.visitor import free_vars, substitute, walk_stmt
from tensorlang.schedule import witness
from tensorlang.schedule.verdict import PROVED, UNKNOWN, Missing, Verdict, report, unconfirmed
from tensorlang.symbolic.access import Access, accesses
from tensorlang.symbolic.affine import polynomial
from tensorlang.symbolic.conflict import (
    Counterexample,
    Sides,
    conflict,
    determined_variables,
    lexicographically_before,
    uncovered,
)
from tensorlang.symbolic.integer_set import Unknown
from tensorlang.symbolic.interval import Interval, RangesLike

__all__ = [
    "PROVED", "UNKNOWN", "Verdict", "check_compute_at", "check_covered", "check_decompose_reduction", "check_parallel",
    "check_reorder", "check_shift_inwards", "check_vectorize", "report",
]  # fmt: skip


def confirmed(func: PrimFunc, verdict: Verdict) -> Verdict:
    """A refutation by two iterations and an address is one only if executing them shows it; else nothing is known."""
    if verdict.counterexample is None or witness.confirmed(func, verdict.counterexample):
        return verdict
    return unconfirmed(verdict)


def check_parallel(func: PrimFunc, loop: For) -> Verdict:
    """Whether the iterations of `loop` may run at the same time.

    Two iterations that compute the same point twice (tiles shifted inwards) agree, unless the point accumulates: then one
    may initialise what the other is adding to.
    """
    return _check_independent(func, loop, "parallel")


def check_vectorize(func: PrimFunc, loop: For) -> Verdict:
    """Whether the iterations of `loop` may run as lanes of one vector. The same question as for `parallel`."""
    return _check_independent(func, loop, "vectorize")


def _check_independent(func: PrimFunc, loop: For, primitive: str) -> Verdict:
    if loop.extent.op == "const" and loop.extent.value <= 1:
        return PROVED
    path = loop_path(func.body, loop.var)
    shared = [f.var for f in loops_of(path[:-1])]

    def different(sides: Sides) -> Expr:
        return ne(sides[0][loop.var], sides[1][loop.var])

    def ordered(sides: Sides) -> Expr:
        return lt(sides[0][loop.var], sides[1][loop.var])

    doubt: Verdict | None = None
    for a, b in _pairs(path):
        found = conflict(
            a,
            b,
            shared,
            ordered if a is b else different,
            apart=loop.var,
            ignore_same_instance=_same_point_agrees(a, b),
            sizes=symbolic_sizes(func),
        )
        if isinstance(found, Counterexample):
            return confirmed(func, _refuted_independent(func, loop, primitive, found))
        if isinstance(found, Unknown):
            doubt = doubt or Verdict("unknown", f"{_both(a, b)}: {found.reason}")
    return doubt or PROVED


def _refuted_independent(func: PrimFunc, loop: For, primitive: str, found: Counterexample) -> Verdict:
    a, b = found.accesses
    name, buffer = loop.var.name, found.buffer.name
    culprits = (loop, *(dict.fromkeys(x.block for x in (a, b) if x.block)))
    if a.block is not None and a.block is b.block and reduction_of(a.block) is not None:
        if loop.var in reduce_loop_vars(a.block):
            reason = f"{name} is a reduction loop of {a.stage}: its iterations accumulate into the same element of {buffer}"
            return Verdict("refuted", reason, found, f"rfactor {a.stage} along {name} first", culprits)
        reason = f"iterations of {name} recompute and accumulate into the same element of {buffer}"
        remedy = f'split with tail="guard", or cache_write {a.stage} into private memory inside {name}'
        return Verdict("refuted", reason, found, remedy, culprits)
    reason = f"iterations of {name} are not independent: {_both(a, b)}"
    if found.buffer in func.params:
        remedy = f"{primitive} a loop whose iterations touch different elements of {buffer}"
    else:
        stage = (a if a.write else b).stage
        remedy = f"compute {stage} at {name} (or inside it), which makes {buffer} private to the iteration"
    return Verdict("refuted", reason, found, remedy, culprits)


def check_reorder(func: PrimFunc, order: Sequence[For]) -> Verdict:
    """Whether the loops of one perfect nest may be put into `order` (at the places that they occupy now)."""
    path = max((loop_path(func.body, f.var) for f in order), key=len)
    nest = [s for s in path if isinstance(s, For)]
    wanted = {f.var for f in order}
    places = [n for n, f in enumerate(nest) if f.var in wanted]
    if len(places) != len(order):
        return Verdict("unknown", "the loops are not in one nest")
    chain = [f.var for f in nest[places[0] : places[-1] + 1]]
    turn = iter(order)
    new = [next(turn).var if v in wanted else v for v in chain]
    if new == chain:
        return PROVED
    shared = [f.var for f in nest[: places[0]]]
    start = next(n for n, s in enumerate(path) if s is nest[places[0]])

    doubt: Verdict | None = None
    for a, b in _pairs(path[: start + 1]):

        def turned_round(sides: Sides, a: Access = a, b: Access = b) -> Expr:
            flipped = and_(
                lexicographically_before(chain, sides[0], sides[1]), lexicographically_before(new, sides[1], sides[0])
            )
            return and_(flipped, _may_not_swap(a, b, sides))

        for first, second in ((a, b),) if a is b else ((a, b), (b, a)):
            if _cannot_turn(first, second, shared, chain):
                continue
            found = conflict(
                first,
                second,
                shared,
                turned_round,
                ignore_same_instance=_same_point_agrees(a, b),
                sizes=symbolic_sizes(func),
            )
            if isinstance(found, Counterexample):
                names = ", ".join(v.name for v in new)
                reason = f"the order {names} turns round two iterations that depend on each other: {_both(first, second)}"
                culprits = tuple(dict.fromkeys(x.block for x in (a, b) if x.block))
                remedy = "keep the iteration that comes first now outside or before the other one"
                return confirmed(func, Verdict("refuted", reason, found, remedy, culprits))
            if isinstance(found, Unknown):
                doubt = doubt or Verdict("unknown", f"{_both(a, b)}: {found.reason}")
    return doubt or PROVED


def _cannot_turn(a: Access, b: Access, shared: Sequence[Expr], chain: Sequence[Expr]) -> bool:
    """The usual case, without integer sets: an element determines all loops but those of its reduction.

    Then all its points are of one pass, which commute; and where the reduction's variables grow with their loops, the
    point that initialises stays first in any order.
    """
    if a.block is not b.block or a.block is None or a.indices != b.indices:
        return False
    ranges = dict(a.loops)
    reduce_bindings = [it.binding for it in a.block.iters if it.kind == "reduce"]
    if reduce_bindings and (reduction_of(a.block) is None or not all(_grows(e, ranges) for e in reduce_bindings)):
        return False
    reduced = reduce_loop_vars(a.block)
    free = [v for v in chain if v not in reduced]
    own = {v: extent for v, extent in a.loops if v not in shared}
    return not (set(free) - determined_variables(a.indices, own))


def _grows(e: Expr, ranges: RangesLike) -> bool:
    """Whether `e` is 0 only where all its loop variables are."""
    return all(len(m) == 1 and m[0] in ranges and c > 0 for m, c in polynomial(e).items())


def _may_not_swap(a: Access, b: Access, sides: Sides) -> Expr:
    """The pairs of points whose order matters. All, but for a reduction's own element: points of one pass over it commute,
    except with the one that initialises it (where all reduction variables are 0)."""
    if a.block is not b.block or a.block is None or a.indices != b.indices or reduction_of(a.block) is None:
        return const(True)
    reduced = reduce_loop_vars(a.block)
    result: Expr = const(False)
    for v, _ in a.loops:
        if v not in reduced:
            result = or_(result, ne(sides[0][v], sides[1][v]))
    if a.block.init is not None:
        for side in sides:
            first: Expr = const(True)
            for it in a.block.iters:
                if it.kind == "reduce":
                    first = and_(first, eq(substitute(it.binding, side), 0))
            result = or_(result, first)
    return result


def check_shift_inwards(
    func: PrimFunc, loop: For, factor: int | None = None, shifted: Callable[[], tuple[PrimFunc, list[Expr]]] | None = None
) -> Verdict:
    """Whether some points of `loop` may be executed twice (`split(tail="shift_inwards")`): not those of a reduction.

    Tiles of `factor` that fit exactly execute none twice. `shifted` makes the program that the step asks for, and its loops:
    there the two iterations happen that add the same point.
    """
    length = loop.extent.value if loop.extent.op == "const" else None
    if factor is not None and length is not None and factor > 0 and length % factor == 0:
        return PROVED
    for s in walk_stmt(loop):
        if isinstance(s, Block) and loop.var in reduce_loop_vars(s):
            reason = f"{loop.var.name} is a reduction loop of {s.name}: points executed twice would count twice"
            refuted = Verdict("refuted", reason, None, 'split it with tail="guard"', (loop, s))
            return refuted if shifted is None else _twice(refuted, s.name, shifted)
        if isinstance(s, Block) and "rolling_buffer" in s.annotations:
            along = s.annotations["rolling_buffer"]
            reason = f"{s.name} keeps what earlier iterations of {along} computed, each once and in order"
            return Verdict("refuted", reason, None, 'split it with tail="guard"', (loop, s))
    return PROVED


def _twice(refuted: Verdict, stage: str, shifted: Callable[[], tuple[PrimFunc, list[Expr]]]) -> Verdict:
    """`refuted` with two iterations of the program that `shifted` makes, which compute the same point of `stage`."""
    try:
        program, loops = shifted()
    except ScheduleError:
        return refuted  # there is no such program: the tile is longer than the loop
    path = block_path(program.body, stage)
    block = _last_block(path)
    shared = [f.var for f in loops_of(path) if f.var not in loops]

    def same_point(sides: Sides) -> Expr:
        first, second = sides
        differ: Expr = const(False)
        for v in loops:
            differ = or_(differ, ne(first[v], second[v]))
        for it in block.iters:
            differ = and_(differ, eq(substitute(it.binding, first), substitute(it.binding, second)))
        return differ

    for access in accesses(path):
        if access.write:
            found = conflict(access, access, shared, same_point, sizes=symbolic_sizes(program))
            if isinstance(found, Counterexample) and witness.confirmed(program, found):
                return replace(refuted, counterexample=found, culprits=(block,), program=program)
    return refuted


def check_decompose_reduction(func: PrimFunc, stage: str, loop: For) -> Verdict:
    """Whether `stage` may be initialised before `loop`, all at once.

    Not if an element is computed in several passes inside `loop` (tiles shifted inwards), each from its initial value.
    """
    path = block_path(func.body, stage)
    block = _last_block(path)
    reduced = reduce_loop_vars(block)
    around = loops_of(path)
    start = next((n for n, f in enumerate(around) if f is loop), len(around))
    passes = [f.var for f in around[start:] if f.var not in reduced]

    def in_different_passes(sides: Sides) -> Expr:
        result: Expr = const(False)
        for v in passes:
            result = or_(result, ne(sides[0][v], sides[1][v]))
        return result

    for access in accesses(path):
        if not access.write:
            continue
        own = {f.var: f.extent for f in around[start:]}
        if not set(passes) - determined_variables(access.indices, own):
            continue
        found = conflict(access, access, [f.var for f in around[:start]], in_different_passes, sizes=symbolic_sizes(func))
        if isinstance(found, Counterexample):
            reason = f"inside {loop.var.name}, {stage} computes an element twice, each time from its initial value"
            return confirmed(func, Verdict("refuted", reason, found, "decompose it further inside", (loop, block)))
        if isinstance(found, Unknown):
            return Verdict("unknown", found.reason)
    return PROVED


def check_compute_at(func: PrimFunc, stage: str, loop: For) -> Verdict:
    """Whether each iteration of `loop` computes all that it reads of `stage`. Asked of the program after the step."""
    path = loop_path(func.body, loop.var)
    buffer = written_buffer(_last_block(block_path(func.body, stage)))
    if buffer not in _private(loop):
        return Verdict("unknown", f"{buffer.name} is not private to an iteration of {loop.var.name}")
    stray = [s for s in walk_stmt(func.body) if isinstance(s, Block) and buffer in read_buffers(s)]
    inside = {id(s) for s in walk_stmt(loop)}
    if outside := [s.name for s in stray if id(s) not in inside]:
        return Verdict("refuted", f"{outside[0]} reads {stage} outside of {loop.var.name}", None, "", (loop,))
    return check_covered(func, path, buffer)


def check_covered(func: PrimFunc, path: Sequence[Stmt], buffer: Buffer) -> Verdict:
    """Whether every element of `buffer` that one execution of the statement at the end of `path` reads, it also writes."""
    found = [a for a in accesses(path) if a.buffer is buffer]
    writes = [at_first_point(a) for a in found if a.write]
    shared = [f.var for f in loops_of(path)]
    doubt: Verdict | None = None
    for read in found:
        if read.write or (read.block is not None and any(w.block is read.block for w in writes)):
            continue
        missing = uncovered(read, writes, shared, symbolic_sizes(func))
        if isinstance(missing, Unknown):
            doubt = doubt or Verdict("unknown", f"{read.stage} reads {buffer.name}: {missing.reason}")
        elif missing is not None:
            values, element = missing
            at = {v: n for v, n in values.items() if v in shared}
            example = Missing(buffer, element, read, at, {v: n for v, n in values.items() if v not in at})
            reason = f"{example}, which is not computed there"
            culprits = (read.block,) if read.block else ()
            return confirmed(func, Verdict("refuted", reason, example, "", culprits))
    return doubt or PROVED


def at_first_point(write: Access) -> Access:
    """`write` as the initialisation of its reduction, which happens (once lowered) even where nothing is accumulated."""
    if write.block is None or write.block.init is None:
        return write
    driven = reduce_loop_vars(write.block)
    return replace(write, loops=tuple((v, const(1) if v in driven else e) for v, e in write.loops))


# -- details -------------------------------------------------------------------------------------------------------


def _pairs(path: Sequence[Stmt]) -> Iterator[tuple[Access, Access]]:
    """Pairs of accesses in the last statement of `path` to the same shared buffer, at least one a write."""
    private = _private(path[-1])
    by_buffer: dict[Buffer, list[Access]] = {}
    for access in accesses(path):
        if access.buffer not in private:
            by_buffer.setdefault(access.buffer, []).append(access)
    for group in by_buffer.values():
        for n, a in enumerate(group):
            for b in group[n:]:
                if a.write or b.write:
                    yield a, b


def _private(s: Stmt) -> set[Buffer]:
    """Buffers that live inside `s`: every execution of it has its own."""
    return {n.buffer for n in walk_stmt(s) if isinstance(n, Allocate)}


def _same_point_agrees(a: Access, b: Access) -> bool:
    """Whether both are accesses of one block that stores the same value each time a point of it is computed."""
    return a.block is not None and a.block is b.block and not _reads_own_result(a.block)


def _reads_own_result(block: Block) -> bool:
    written = {a.buffer for a in accesses([block]) if a.write}
    return bool(written & set(read_buffers(block)))


def symbolic_sizes(func: PrimFunc) -> RangesLike:
    """What is known of the sizes of `func`: none is negative. One may be 0, and then what does not depend on it still runs."""
    found = set(func.size_vars)
    for buffer in func.buffers:
        for extent in buffer.shape:
            found |= free_vars(extent)
    return dict.fromkeys(found, Interval(0, None))


def _both(a: Access, b: Access) -> str:
    if a.block is b.block and a.write and b.write:
        return f"{a.stage} writes the same element of {a.buffer.name} in both"
    return f"{a.stage} {a.verb} an element of {a.buffer.name} that {b.stage} {b.verb}"


def _last_block(path: Sequence[Stmt]) -> Block:
    if not path or not isinstance(path[-1], Block):
        raise ValueError("no such stage")
    return path[-1]
