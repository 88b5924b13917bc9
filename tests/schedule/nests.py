"""Random small loop nests, and races found by running them: what legality's verdicts are compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from hypothesis import strategies as st

from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr, const, floordiv, floormod, load, lt, minimum, select, var
from tensorlang.ir.interp import run
from tensorlang.ir.reduction import reduce_loop_vars, reduction_of
from tensorlang.ir.stmt import TRUE, Allocate, Block, For, Iter, PrimFunc, Stmt, Store, seq
from tensorlang.ir.tree import loop_path, loops_of, read_buffers, written_buffer
from tensorlang.ir.visitor import blocks, walk_stmt
from tensorlang.symbolic.bounds import bounds
from tensorlang.symbolic.simplify import simplify
from tests.symbolic.strategies import evaluate


@dataclass(frozen=True)
class Event:
    write: bool
    buffer: Buffer
    index: tuple[int, ...]
    env: dict[Expr, int]
    block: Block


def arguments(func: PrimFunc, seed: int = 0, size: int = 3) -> list[np.ndarray | int]:
    """Random arrays, every symbolic size being `size`."""
    rng = np.random.default_rng(seed)
    sizes = dict.fromkeys(func.size_vars, size)
    shapes = [[evaluate(d, sizes) for d in b.shape] for b in func.buffers]
    arrays = [rng.integers(-9, 9, shape).astype(b.dtype.numpy) for b, shape in zip(func.buffers, shapes, strict=True)]
    return [*arrays, *sizes.values()]


def events(func: PrimFunc, size: int = 3) -> list[Event]:
    found: list[Event] = []
    all_blocks = blocks(func.body)

    def record(kind: str, buffer: Buffer, index: tuple[int, ...], env: dict[Expr, int]) -> None:
        inside = [b for b in all_blocks if b.iters[0].var in env]
        found.append(Event(kind == "write", buffer, tuple(map(int, index)), dict(env), inside[-1]))

    run(func, arguments(func, size=size), on_access=record)
    return found


def conflicts(func: PrimFunc, outer: list[Expr], inside: Stmt, wanted: Callable[[Event, Event], bool], size: int) -> bool:
    """Whether two accesses in `inside`, in iterations that agree on `outer`, touch one shared element, a write among them."""
    private = {s.buffer for s in walk_stmt(inside) if isinstance(s, Allocate)}
    members = {id(b) for b in blocks(inside)}
    by_place: dict[tuple, list[Event]] = {}
    for e in events(func, size):
        if id(e.block) in members and e.buffer not in private:
            by_place.setdefault((e.buffer, e.index, tuple(e.env[v] for v in outer)), []).append(e)
    for group in by_place.values():
        if any(e.write for e in group):
            for a, b in combinations(group, 2):
                if (a.write or b.write) and wanted(a, b):
                    return True
    return False


def same_point(a: Event, b: Event) -> bool:
    return a.block is b.block and all(a.env[it.var] == b.env[it.var] for it in a.block.iters)


def races(func: PrimFunc, loop: For, size: int = 3) -> bool:
    """Whether two iterations of `loop` race; a point computed twice that reads nothing of its own result does not."""

    def wanted(a: Event, b: Event) -> bool:
        if a.env[loop.var] == b.env[loop.var]:
            return False
        return not (same_point(a, b) and written_buffer(a.block) not in read_buffers(a.block))

    outer = [f.var for f in loops_of(loop_path(func.body, loop.var)[:-1])]
    return conflicts(func, outer, loop, wanted, size)


def turned_round(func: PrimFunc, chain: list[For], order: list[For], size: int = 3) -> bool:
    """Whether putting `chain` into `order` turns round two accesses that may not be."""
    old, new = [f.var for f in chain], [f.var for f in order]

    def wanted(a: Event, b: Event) -> bool:
        def time(e: Event, nest: list[Expr]) -> list[int]:
            return [e.env[v] for v in nest]

        if (time(a, old) < time(b, old)) == (time(a, new) < time(b, new)):
            return False
        if same_point(a, b) and written_buffer(a.block) not in read_buffers(a.block):
            return False
        if a.block is not b.block or reduction_of(a.block) is None:
            return True
        if a.buffer is not written_buffer(a.block):
            return True
        own = tuple(it.var for it in a.block.iters if it.kind == "spatial")
        if any(tuple(e.env[v] for v in own) != e.index for e in (a, b)):
            return True  # it reads its own result elsewhere
        reduced = reduce_loop_vars(a.block)
        loops = [f.var for f in loops_of(loop_path(func.body, chain[-1].var)) if f.var not in reduced]
        if any(a.env[v] != b.env[v] for v in loops):
            return True
        zero = [all(e.env[it.var] == 0 for it in e.block.iters if it.kind == "reduce") for e in (a, b)]
        return any(zero) and a.block.init is not None

    outer = [f.var for f in loops_of(loop_path(func.body, chain[0].var)[:-1])]
    return conflicts(func, outer, chain[0], wanted, size)


# -- random nests --------------------------------------------------------------------------------------------------


def index(draw: st.DrawFn, variables: list[Expr]) -> Expr:
    """An index expression with values >= 0."""
    v, w = draw(st.sampled_from(variables)), draw(st.sampled_from(variables))
    c = draw(st.integers(1, 4))
    return draw(
        st.sampled_from(
            [v, v, v, v * c + w, v * 2, floordiv(v, 2), floormod(v, 2), floormod(v + w, c), minimum(v, c) + w, const(c - 1)]
        )
    )


@st.composite
def nests(draw: st.DrawFn, symbolic: bool = False) -> PrimFunc:
    """`for ...: for ...: blocks`, with buffers of i64 (so that sums are exact in any order).

    If `symbolic`, extents may be the size `M`, a parameter of the function.
    """
    count = draw(st.integers(1, 3))
    loops = [var(name) for name in "abc"[:count]]
    size = var("M")
    extents = {v: size if symbolic and draw(st.booleans()) else const(draw(st.integers(1, 4))) for v in loops}
    x = Buffer("x", (const(4), const(4)), "i64")
    bodies: list[Stmt] = []
    outputs: list[Buffer] = []
    for name in ("s", "t")[: draw(st.integers(1, 2))]:
        iters = []
        ndim = draw(st.integers(1, 2))
        for d in range(ndim):
            binding = index(draw, loops)
            high = bounds(binding, extents)[1]
            iters.append(Iter(var(f"v{name}{d}"), simplify(high + 1), "spatial", binding))
        spatial = tuple(it.var for it in iters)
        reduced = None
        if draw(st.booleans()):
            v = draw(st.sampled_from(loops))
            reduced = Iter(var(f"r{name}"), extents[v], "reduce", v)
            iters.append(reduced)
        buffer = Buffer(name, tuple(it.extent for it in iters[:ndim]), "i64")
        point = [it.var for it in iters]
        value = load(x, (floormod(draw(st.sampled_from(point)), 4), floormod(draw(st.sampled_from(point)), 4)))
        if outputs and draw(st.booleans()):
            other = outputs[-1]
            at = tuple(floormod(draw(st.sampled_from(point)), d) for d in other.shape)
            value = value + load(other, at)
        if draw(st.integers(0, 3)) == 0:
            before = (spatial[0] - 1, *spatial[1:])
            value = value + select(lt(0, spatial[0]), load(buffer, before), 0)
        init = None
        if reduced is not None:
            value = load(buffer, spatial) + value
            init = Store(buffer, spatial, const(0))
        predicate: Expr = TRUE
        if reduced is None and draw(st.integers(0, 3)) == 0:
            predicate = lt(draw(st.sampled_from(loops)) + draw(st.sampled_from(loops)), draw(st.integers(1, 4)))
        bodies.append(Block(name, tuple(iters), Store(buffer, spatial, value), init, predicate))
        outputs.append(buffer)
    body: Stmt = seq(*bodies)
    private = outputs[0] if len(outputs) > 1 and draw(st.booleans()) else None
    depth = draw(st.integers(0, count)) if private else -1
    for n in range(count, -1, -1):
        if depth == n and private is not None:
            body = Allocate(private, body)
        if n:
            body = For(loops[n - 1], extents[loops[n - 1]], "serial", body)
    results = [b for b in outputs if b is not private]
    return PrimFunc("nest", (x, *results, *([size] if symbolic else [])), body, len(results))
