"""Kernel IR to numba-cuda Python: one function for each nest of the program, launched one after the other.

    for b in 8 (blockIdx.x):                @launch("f32* x, f32* y", threads=(64,))
        for t in 64 (threadIdx.x):   ->     def scale(x, y):
            y[b*64 + t] = x[b*64 + t]           b = cuda.blockIdx.x
                                                t = cuda.threadIdx.x
                                                y[b * 64 + t] = x[b * 64 + t]

An array that a block allocates is shared memory, unless every thread only ever touches elements of its own: then it is an
array of the thread, which lives in registers.
"""

from __future__ import annotations

import builtins
import keyword
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from tensorlang.codegen.barriers import grid_program
from tensorlang.codegen.cuda import vocabulary
from tensorlang.codegen.expr_printer import ExprPrinter
from tensorlang.codegen.grid import AXES, GridEmitter, GridKernel, axis_of, binds, is_one_block
from tensorlang.errors import BuildError
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr, const, load
from tensorlang.ir.stmt import Allocate, For, MultiStore, PrimFunc, Stmt, Store
from tensorlang.ir.visitor import (
    children,
    free_vars,
    loads,
    map_exprs,
    own_exprs,
    replace_buffers,
    rewrite,
    rewrite_stmt,
    substitute,
    walk_stmt,
)
from tensorlang.symbolic.affine import linear_form

HEADER = "from tensorlang.codegen.cuda.functions import *\n"
RESERVED = frozenset([*keyword.kwlist, *dir(builtins), *vocabulary.NAMES])
SHARED_BYTES = 48 * 1024  # what a block has without asking for more
PRIVATE_BYTES = 16 * 1024
_ATOM = 12  # how tightly brackets bind (see `expr_printer`)
MOST_ADDRESSES = 1 << 16  # of an array's accesses, up to which threads' elements are compared


def emit_cuda_kernel(func: PrimFunc, name: str, trace: str = "") -> GridKernel:
    """The functions of a lowered program; `trace`, the steps of its schedule, goes above them as a comment.

    Raises:
        BuildError: its thread axes are not such that a grid can run it; the message says how they have to be.
    """
    return CudaEmitter(func, f"k_{name}" if name in RESERVED else name).kernel(trace)


def private_arrays(func: PrimFunc) -> set[Buffer]:
    """Arrays of a block of which no two threads touch one element; each thread gets its part of them to itself."""
    private = {b for b in _block_arrays(func.body) if _is_private(func.body, b)}
    if not is_one_block(func.body, private, SHARED_BYTES):
        private &= {b for s in walk_stmt(func.body) if axis_of(s, "blockIdx") is not None for b in _block_arrays(s)}
    return private


def cuda_program(func: PrimFunc) -> PrimFunc:
    """A lowered program with the barriers and launches that are emitted for it: what `ir.races` judges."""
    private = private_arrays(func)
    return grid_program(func, private, is_one_block(func.body, private, SHARED_BYTES))


class CudaPrinter(ExprPrinter):
    """Truth values are bytes in memory: numba-cuda does not convert what it reads."""

    def _scalar(self, e: Expr) -> tuple[str, int]:
        text, level = super()._scalar(e)
        return (f"({text} != 0)", _ATOM) if e.op == "load" and e.dtype.is_bool else (text, level)


class CudaEmitter(GridEmitter):
    """One program as numba-cuda functions."""

    reserved = RESERVED
    shared_bytes = SHARED_BYTES
    private_bytes = PRIVATE_BYTES

    def __init__(self, func: PrimFunc, name: str):
        private = private_arrays(func)
        names = {b.name for b in private}
        super().__init__(_privatise(func, private) if private else func, name)
        self.private = {b for b in _block_arrays(self.func.body) if b.name in names}

        self.expr = CudaPrinter(self.spell, self.spell, self.ranges)

    def function(self, name: str, params: list[Buffer | Expr]) -> str:
        typed = ", ".join(
            f"{_type(p)}* {self.spell(p)}" if isinstance(p, Buffer) else f"{p.dtype.name} {self.spell(p)}" for p in params
        )
        names = ", ".join(map(self.spell, params))
        lines = [*self.prologue, *self.lines] or ["    pass"]
        return "\n".join([f'@launch("{typed}", threads={tuple(self.threads)})', f"def {name}({names}):", *lines]) + "\n"

    def position(self, v: Expr, axis: str, d: int, depth: int) -> None:
        self.line(depth, f"{self.spell(v)} = i64(cuda.{axis}.{AXES[d]})")

    def thread(self, d: int) -> str:
        return f"cuda.threadIdx.{AXES[d]}"

    def open_if(self, cond: str, depth: int) -> None:
        self.line(depth, f"if {cond}:")

    def open_else(self, depth: int) -> None:
        self.line(depth, "else:")

    def open_for(self, s: For, depth: int) -> None:
        self.line(depth, f"for {self.spell(s.var)} in range({self.expr(s.extent)}):")

    def barrier(self, depth: int) -> None:
        self.line(depth, "cuda.syncthreads()")

    def declare_shared(self, buffer: Buffer, size: int) -> None:
        kind = "local" if buffer in self.private else "shared"
        self.prologue.append(f"    {self.spell(buffer)} = cuda.{kind}.array({size}, {_type(buffer)})")

    def declare_private(self, buffer: Buffer, size: int, depth: int) -> None:
        self.line(depth, f"{self.spell(buffer)} = cuda.local.array({size}, {_type(buffer)})")

    def _store(self, s: Store, mask: Expr | None) -> str:
        text = super()._store(s, mask)
        if not s.buffer.dtype.is_bool:
            return text
        place, value = text.split(" = ", 1)
        return f"{place} = u8({value})"

    def conjunction(self, conditions: list[str]) -> str:
        return " and ".join(conditions)

    def _share(self, buffer: Buffer) -> None:
        if buffer in self.private:
            self.declare_shared(buffer, max(1, buffer.shape[0].value))
        else:
            super()._share(buffer)


def _type(buffer: Buffer) -> str:
    if buffer.dtype.name in ("bf16", "f16"):
        raise BuildError(f"target 'cuda' has no arrays of {buffer.dtype} yet: {buffer.name}; cast to f32 before")
    return "u8" if buffer.dtype.is_bool else buffer.dtype.name


# -- arrays of a block whose elements belong to one thread each ------------------------------------------------------------
def _block_arrays(s: Stmt) -> list[Buffer]:
    """Buffers that are allocated around loops bound to threads."""
    return [c.buffer for c in walk_stmt(s) if isinstance(c, Allocate) and binds(c.body, "threadIdx")]


def _is_private(body: Stmt, buffer: Buffer) -> bool:
    """Whether no two threads of a block touch one element: the addresses of each are listed, and compared."""
    owner: dict[int, tuple[int, ...]] = {}
    for index, loops in _accesses(body, buffer):
        bound = {axis_of(loop, "threadIdx"): loop for loop in loops if axis_of(loop, "threadIdx") is not None}
        if any(s.extent.op != "const" for s in loops if s.var in free_vars(index)):
            return False
        inner = [s for s in loops if s.var in free_vars(index) and axis_of(s, "threadIdx") is None]
        if any(axis_of(s, "blockIdx") is not None for s in inner):
            return False
        if free_vars(index) - {s.var for s in loops} or loads(index) or not bound:
            return False
        axes = [*bound.values(), *inner]
        if np.prod([s.extent.value for s in axes], dtype=float) > MOST_ADDRESSES:
            return False
        for point in np.ndindex(*(s.extent.value for s in axes)):
            at = substitute(index, {s.var: const(n) for s, n in zip(axes, point, strict=True)})
            thread = tuple(dict(zip(bound, point, strict=False)).get(d, -1) for d in range(3))
            if at.op != "const" or owner.setdefault(int(at.value), thread) != thread:
                return False
    return bool(owner)


def _accesses(s: Stmt, buffer: Buffer, around: tuple[For, ...] = ()) -> list[tuple[Expr, tuple[For, ...]]]:
    """Flat indices at which `buffer` is read or written, with the loops around each."""
    found: list[tuple[Expr, tuple[For, ...]]] = []
    for t in s.stores if isinstance(s, MultiStore) else (s,):
        if isinstance(t, Store) and t.buffer is buffer:
            found.append((t.indices[0], around))
    found += [(e.args[0], around) for own in own_exprs(s) for e in loads(own) if e.value is buffer]
    inner = (*around, s) if isinstance(s, For) else around
    for c in children(s):
        found += _accesses(c, buffer, inner)
    return found


def _privatise(func: PrimFunc, buffers: set[Buffer]) -> PrimFunc:
    """Each thread with an array of its own for each of `buffers`, indexed without the thread's position and without gaps."""
    bound = [s for s in walk_stmt(func.body) if isinstance(s, For) and axis_of(s, "threadIdx") is not None]
    positions = {s.var: const(0) for s in bound}
    extents = {s.var: s.extent.value for s in walk_stmt(func.body) if isinstance(s, For) and s.extent.op == "const"}
    strides = {b: _dense_strides([substitute(i, positions) for i, _ in _accesses(func.body, b)], extents) for b in buffers}
    smaller = {b: b.with_(shape=(const(made[1]),)) for b, made in strides.items() if made is not None}

    def own(b: Buffer, index: Expr) -> tuple[Expr, ...]:
        index, made = substitute(index, positions), strides[b]
        form = linear_form(index, free_vars(index)) if made is not None else None
        if made is None or form is None:
            return (index,)
        terms = [v * made[0][c] for v, c in form[0].items() if isinstance(c, int)]
        return (sum(terms[1:], terms[0]) if terms else const(0),)

    def loaded(e: Expr) -> Expr | None:
        return load(e.value, own(e.value, e.args[0])) if e.op == "load" and e.value in buffers else None

    def stored(s: Stmt) -> Stmt | None:
        return replace(s, indices=own(s.buffer, s.indices[0])) if isinstance(s, Store) and s.buffer in buffers else None

    body = rewrite_stmt(map_exprs(func.body, lambda e: rewrite(e, loaded)), stored)
    return replace(func, body=replace_buffers(body, smaller))


def _dense_strides(indices: list[Expr], extents: Mapping[Expr, int]) -> tuple[dict[int, int], int] | None:
    """New strides by old ones that leave no gaps, and the number of elements; None where indices are not of one pattern."""
    counts: dict[int, int] = {}
    for index in indices:
        variables = free_vars(index)
        form = linear_form(index, variables)
        if form is None or form[1] is not const(0) or not variables <= extents.keys():
            return None
        for v, c in form[0].items():
            if not isinstance(c, int) or counts.setdefault(c, extents[v]) != extents[v]:
                return None
    made: dict[int, int] = {}
    total = 1
    for stride in sorted(counts):
        made[stride] = total
        total *= counts[stride]
    return made, total
