"""Counterexamples executed: an iteration does what is said of it, or nothing is said.

    for i in M: for j in N: y[i, j] = y[i - 1, j]      at i = 3, j = 0   ->   y[3, 0] = y[2, 0]

The loops around the access become constants, what stands beside it goes, and the interpreter runs the rest with its eyes
on memory. Values do not matter for that: all elements of an array share one place, so that the size of arrays costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from tensorlang.errors import TensorlangError
from tensorlang.ir import interp
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr, const, format_expr, not_
from tensorlang.ir.stmt import Allocate, Block, For, If, PrimFunc, Stmt
from tensorlang.ir.tree import loop_path, path_to, read_buffers, written_buffers
from tensorlang.ir.visitor import children, substitute_stmt, walk_stmt
from tensorlang.schedule.verdict import Missing
from tensorlang.symbolic.access import Access
from tensorlang.symbolic.conflict import Counterexample
from tensorlang.symbolic.integer_set import evaluate

_FILLS = (1, 0)  # indices from memory want small numbers, divisors want no zeros
_MOST_POINTS = 20_000


def confirmed(func: PrimFunc, example: Counterexample | Missing) -> bool:
    """Whether what `example` says happens when `func` runs."""
    if isinstance(example, Missing):
        return _read_too_early(func, example)
    sides = zip(example.accesses, (example.first, example.second), strict=True)
    return any(a.write for a in example.accesses) and all(
        _touches(func, access, {**example.sizes, **side}, example.address) for access, side in sides
    )


def _touches(func: PrimFunc, access: Access, values: Mapping[Expr, int], address: tuple[int, ...]) -> bool:
    """Whether the block of `access`, at these values of all loops and sizes, touches the element."""
    path = path_to(func.body, lambda s: s is access.block)
    if access.block is None or not path:
        return False
    body = path[-1]
    for node, inside in zip(reversed(path[:-1]), reversed(path[1:]), strict=True):
        if isinstance(node, If):
            body = replace(node, then=body, else_=None) if inside is node.then else If(not_(node.cond), body)
        elif isinstance(node, Block):
            body = replace(node, body=body, init=None)
    kind = "write" if access.write else "read"
    found = False

    def watch(what: str, buffer: Buffer, index: tuple[int, ...], env: Mapping[Expr, int]) -> None:
        nonlocal found
        found = found or (what == kind and buffer is access.buffer and tuple(index) == address)

    _execute(func, path, body, values, watch)
    return found


def _read_too_early(func: PrimFunc, example: Missing) -> bool:
    """Whether the innermost loop of `example.at` (or the whole program) reads the element before anything writes it."""
    pinned = [v for v in example.at if loop_path(func.body, v)]
    path = max((loop_path(func.body, v) for v in pinned), key=len, default=[func.body])
    top = path[-1]
    body = top.body if isinstance(top, For) else top
    values = {**example.at, **example.sizes}
    if points(body, values) > _MOST_POINTS:
        return False
    own = {it.var for it in example.access.block.iters} if example.access.block else set()
    early: bool | None = None

    def watch(what: str, buffer: Buffer, index: tuple[int, ...], env: Mapping[Expr, int]) -> None:
        nonlocal early
        if early is None and buffer is example.buffer and tuple(index) == example.address:
            if what == "write":
                early = False
            elif own <= env.keys():
                early = True

    inner = {s.buffer for s in walk_stmt(body) if isinstance(s, Allocate)}
    if example.buffer in inner:  # its elements are watched as those of a parameter
        body = _without_allocation(body, example.buffer)
    _execute(func, path, body, values, watch)
    return bool(early)


def _without_allocation(body: Stmt, buffer: Buffer) -> Stmt:
    path = path_to(body, lambda s: isinstance(s, Allocate) and s.buffer is buffer)
    return path[-1].body if len(path) == 1 and isinstance(path[-1], Allocate) else body


def _execute(
    func: PrimFunc,
    path: list[Stmt],
    body: Stmt,
    values: Mapping[Expr, int],
    watch: Callable[[str, Buffer, tuple[int, ...], Mapping[Expr, int]], None],
) -> None:
    """Run `body`, which stands at the end of `path`, with variables of `values` as constants."""
    outside = {node.var: const(values[node.var]) for node in path if isinstance(node, For) and node.var in values}
    body = substitute_stmt(body, outside)
    inside = {s.buffer for s in walk_stmt(body) if isinstance(s, Allocate)}
    used = dict.fromkeys([*read_buffers(body), *written_buffers(body)])
    for s in walk_stmt(body):
        if isinstance(s, Block):
            used.update(written_buffers(s))
            if s.init is not None:
                used.update(written_buffers(s.init))
    buffers = [b for b in used if b not in inside]
    sizes = func.size_vars
    program = PrimFunc("witness", (*buffers, *sizes), body, 0)
    try:
        given = [values.get(v, 1) for v in sizes]
        known = {**dict(zip(sizes, given, strict=True)), **values}
        for fill in _FILLS:
            try:
                arrays = [_array(b, known, fill) for b in buffers]
                interp.run(program, [*arrays, *given], on_access=watch)
                return
            except interp.ExecutionError:
                continue  # what was seen until then counts
    except (TensorlangError, KeyError, ZeroDivisionError):
        return  # a shape that nothing determines: nothing is confirmed


def _array(buffer: Buffer, values: Mapping[Expr, int], fill: int) -> np.ndarray:
    """All elements of `buffer` in one place."""
    shape = tuple(int(evaluate(d, values)) for d in buffer.shape)
    one = np.full(1, fill, buffer.dtype.numpy)
    return np.lib.stride_tricks.as_strided(one, shape, (0,) * len(shape))


def points(body: Stmt, values: Mapping[Expr, int]) -> float:
    """How many points the blocks of `body` have, at most; infinite where an extent is not known."""
    total = 0.0
    stack: list[tuple[Stmt, float, dict[Expr, int]]] = [(body, 1.0, dict(values))]
    while stack:
        node, times, known = stack.pop()
        if isinstance(node, For):
            try:
                extent = evaluate(node.extent, known)
            except (KeyError, ZeroDivisionError):
                return float("inf")
            stack.append((node.body, times * max(extent, 0), {**known, node.var: 0}))
        elif isinstance(node, Block):
            total += times
            stack.append((node.body, times, known))
        else:
            stack.extend((c, times, known) for c in children(node))
    return total


def describe(sizes: Mapping[Expr, int]) -> str:
    """`M=3, N=5`"""
    return ", ".join(f"{format_expr(v)}={n}" for v, n in sizes.items())
