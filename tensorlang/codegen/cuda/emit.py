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
from itertools import product
from math import prod

from tensorlang.codegen.barriers import async_copies, grid_program, with_barriers
from tensorlang.codegen.cuda import vocabulary
from tensorlang.codegen.cuda.fragments import RESET, all_calls, first_loop, is_call, with_calls
from tensorlang.codegen.expr_printer import ExprPrinter
from tensorlang.codegen.grid import AXES, GridEmitter, GridKernel, Launch, axis_of, binds, cross_thread, is_one_block
from tensorlang.codegen.warps import INSTRUCTIONS, REGISTERS, Call, calls_in
from tensorlang.errors import BuildError
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.dtype import DType
from tensorlang.ir.expr import Expr, const, floormod, load, ne, not_, or_, rebuild, var
from tensorlang.ir.intrinsics import ASYNC_COPY
from tensorlang.ir.stmt import Allocate, Evaluate, For, If, MultiStore, PrimFunc, Stmt, Store
from tensorlang.ir.tree import path_to
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
from tensorlang.symbolic.access import every_access
from tensorlang.symbolic.affine import linear_form
from tensorlang.symbolic.conflict import Sides, conflict
from tensorlang.symbolic.interval import Interval
from tensorlang.symbolic.simplify import simplify

HEADER = "from tensorlang.codegen.cuda.functions import *\n"
RESERVED = frozenset([*keyword.kwlist, *dir(builtins), *vocabulary.NAMES])
SHARED_BYTES = 48 * 1024  # what a block has without asking for more
MOST_SHARED_BYTES = 227 * 1024  # what it may ask for (compute capability 9.0)
PRIVATE_BYTES = 16 * 1024
WARP = 32
MOST_THREADS = 1024  # of a block
COMBINED = {"add": "sum", "mul": "prod", "max": "max", "min": "min"}  # by operator: what threads combine together
EXCHANGED = ("f32", "f64", "i32", "i64")  # types of registers that they exchange
VECTOR_BYTES = 16  # of the widest access to memory
ASYNC_BYTES = (4, 8, 16)  # that one asynchronous copy moves
VECTOR_LANES = (2, 4, 8)
VECTOR_TYPES = ("f32", "f64", "i32", "i64", "f16", "bf16")
_ATOM = 12  # how tightly brackets bind (see `expr_printer`)


def emit_cuda_kernel(func: PrimFunc, name: str, trace: str = "", vectors: bool = True) -> GridKernel:
    """The functions of a lowered program; `trace`, the steps of its schedule, goes above them as a comment.

    Args:
        vectors: whether vectors may be read from and written to the parameters (see `GridKernel.aligned`).

    Raises:
        BuildError: its thread axes are not such that a grid can run it; the message says how they have to be.
    """
    return CudaEmitter(func, f"k_{name}" if name in RESERVED else name, vectors).kernel(trace)


def private_arrays(func: PrimFunc) -> set[Buffer]:
    """Arrays of a block of which no two threads touch one element; each thread gets its part of them to itself."""
    copies = [s.body for s in walk_stmt(func.body) if isinstance(s, For) and s.annotations.get(ASYNC_COPY)]
    copied = {s.buffer for s in copies if isinstance(s, Store)}
    warps = calls_in(func.body)
    private = {b for b in _block_arrays(func.body) if b not in copied and _is_private(func.body, b, warps)}
    if not is_one_block(func.body, private, SHARED_BYTES):
        private &= {b for s in walk_stmt(func.body) if axis_of(s, "blockIdx") is not None for b in _block_arrays(s)}
    return private


def cuda_program(func: PrimFunc) -> PrimFunc:
    """A lowered program with the barriers and launches that are emitted for it: what `ir.races` judges."""
    private = private_arrays(func)
    return grid_program(func, private, is_one_block(func.body, private, SHARED_BYTES), asynchronous=True)


class CudaPrinter(ExprPrinter):
    """Truth values are bytes in memory, and halves their bits: numba-cuda does not convert what it reads."""

    def _scalar(self, e: Expr) -> tuple[str, int]:
        if e.op == "cast" and is_half(e.dtype):
            (inner,) = e.args
            wide = inner.dtype.name == "f32" or (inner.dtype.name, e.dtype.name) == ("f64", "f16")
            return f"to_{e.dtype}({self(inner) if wide else f'f32({self(inner)})'})", _ATOM
        if e.op == "cast" and is_half(e.args[0].dtype):
            text = f"from_{e.args[0].dtype}({self(e.args[0])})"
            return (text if e.dtype.name == "f32" else f"{e.dtype}({text})"), _ATOM
        text, level = super()._scalar(e)
        return (f"({text} != 0)", _ATOM) if e.op == "load" and e.dtype.is_bool else (text, level)


class CudaEmitter(GridEmitter):
    """One program as numba-cuda functions."""

    reserved = RESERVED
    shared_bytes = SHARED_BYTES
    most_shared_bytes = MOST_SHARED_BYTES
    private_bytes = PRIVATE_BYTES
    def __init__(self, func: PrimFunc, name: str, vectors: bool = True):
        private = private_arrays(func)
        placed = with_barriers(func, private, is_one_block(func.body, private, SHARED_BYTES), asynchronous=True)
        folded, held = with_calls(placed)
        if foreign := sorted({b.name for b in _block_arrays(func.body)} & held - {b.name for b in private}):
            raise BuildError(
                f"{func.name}: {foreign[0]} lies in the registers of warps, whose instructions say which lane has what, and "
                "some thread touches elements of another; let lane 4*g + t take rows g and g + 8, columns 2*t and 2*t + 1"
            )
        names = {b.name for b in private} | held
        buffers = {s.buffer for s in walk_stmt(folded.body) if isinstance(s, Allocate) and s.buffer.name in names}
        super().__init__(_privatise(folded, buffers) if buffers else folded, name)
        self.private = {b for b in _block_arrays(self.func.body) if b.name in names}
        self.of_thread = self.private | _thread_arrays(self.func.body)
        self.vectors = vectors
        self.copies: dict[For, Buffer] = {}
        self.expr = CudaPrinter(self.spell, self.spell, self.ranges)

    def _launch(self, nest: Stmt, function: str) -> tuple[Launch, str]:
        self.copies = async_copies(nest)
        return super()._launch(nest, function)

    def with_barriers(self, nest: Stmt) -> Stmt:
        return nest  # they were placed before arrays became registers

    def together(self, s: Stmt) -> bool:
        found = all_calls(s)
        if found is None:
            raise BuildError(
                f"{self.func.name}: loop {first_loop(s)} holds instructions of a warp beside statements of one thread; bind a "
                "loop of 32 around these to threadIdx.x"
            )
        if found and self.threads[0] != WARP:
            raise BuildError(f"{self.func.name}: instructions of a warp need 32 threads on threadIdx.x, not {self.threads[0]}")
        return found

    def stmt(self, s: Stmt, depth: int) -> None:
        if is_call(s) and isinstance(s, Evaluate):
            self._warp(s.expr, depth)
        else:
            super().stmt(s, depth)

    def _warp(self, e: Expr, depth: int) -> None:
        """An instruction of a warp, on registers."""
        name = str(e.value).removesuffix(RESET)
        word = name.removeprefix("cuda.").removesuffix("_f32")
        target = self._registers(e.args[0])
        if e.value != name:
            for place in target:
                self.line(depth, f"{place} = f32(0.0)")
            return
        result = self.temporary("d")
        if INSTRUCTIONS[name].action == "mma":
            operands = ", ".join(f"({', '.join(self._registers(a))})" for a in e.args)
        else:
            source, step = e.args[1:]
            buffer, base = source.value, source.args[0]
            whole = VECTOR_BYTES // buffer.dtype.nbytes
            rows = simplify(floormod(base, const(whole)), self.ranges) is const(0) and step.value % whole == 0
            if buffer.dtype.nbytes == 2 and not rows:
                raise BuildError(f"{self.func.name}: {name} reads rows of 16 bytes of {buffer.name}, which have to begin at "
                                 "multiples of 16 bytes; storage_align it")  # fmt: skip
            self.aligned.add(buffer)
            operands = f"{self.spell(buffer)}, {self.expr(base)}, {self.expr(step)}"
        self.line(depth, f"{result} = {word}({operands})")
        for n, place in enumerate(target):
            self.line(depth, f"{place} = {result}[{n}]")

    def _registers(self, tile: Expr) -> list[str]:
        """The registers of a tile, as elements of the lane's array."""
        used = [v for v in REGISTERS if v in free_vars(tile)]
        found = []
        for values in product((0, 1), repeat=len(used)):
            index = substitute(tile.args[0], {v: const(n) for v, n in zip(used, values, strict=True)})
            found.append(f"{self.spell(tile.value)}[{self.expr(simplify(index, self.ranges))}]")
        return found

    def function(self, name: str, params: list[Buffer | Expr]) -> str:
        typed = ", ".join(
            f"{_type(p)}* {self.spell(p)}" if isinstance(p, Buffer) else f"{p.dtype.name} {self.spell(p)}" for p in params
        )
        if prod(self.threads) > MOST_THREADS:
            raise BuildError(f"{name}: a block has {prod(self.threads)} threads, more than {MOST_THREADS}; bind shorter loops")
        names = ", ".join(map(self.spell, params))
        shared = {f"    {self.spell(b)} = cuda.shared.array(" for b in self.aligned}
        prologue = [f"{p[:-1]}, alignment={VECTOR_BYTES})" if p.startswith(tuple(shared)) else p for p in self.prologue]
        lines = [*prologue, *self.lines] or ["    pass"]
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

    def commit(self, depth: int) -> None:
        self.line(depth, "copy_commit()")

    def wait(self, pending: int, depth: int) -> None:
        self.line(depth, f"copy_wait{pending}()")

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

    # -- vectors ---------------------------------------------------------------------------------------------------
    def _for(self, s: For, depth: int) -> None:
        """A loop of one thread. A vectorized one that copies or computes neighbouring elements, at places that are proved to be
        multiples of its length, reads and writes them by one instruction; any other is a loop."""
        if s in self.copies and self._async_copy(s, depth):
            return
        if s.kind != "vectorized" or not self._wide(s, depth):
            super()._for(s, depth)

    def _async_copy(self, loop: For, depth: int) -> bool:
        """Copies from global to shared memory that the thread does not wait for: of a whole vector if both lie where one may,
        else of elements. What a condition excludes comes as zeros. False where elements are too small for that."""
        s, lanes = loop.body, loop.extent.value if loop.extent.op == "const" else 0
        assert isinstance(s, Store)
        (source,) = loads(s.value)
        nbytes = source.value.dtype.nbytes
        guards = list(next(iter(_conditions(s.value)[source])))
        same = self._guards({tuple(guards)}, loop)
        if same is not None and lanes * nbytes in ASYNC_BYTES:
            places = [self._vector_place(b, i, loop) for b, i in ((s.buffer, s.indices[0]), (source.value, source.args[0]))]
            if None not in places:
                to, at = (self.expr(e) for e in places if e is not None)
                self._copy(lanes, s.buffer, to, source.value, at, same, depth)
                return True
        if nbytes not in ASYNC_BYTES:
            return False
        for n in range(lanes):
            lane = {loop.var: const(n)}
            to, at = (self.expr(simplify(substitute(e, lane), self.ranges)) for e in (s.indices[0], source.args[0]))
            self._copy(1, s.buffer, to, source.value, at, [substitute(c, lane) for c in guards], depth)
        return lanes > 0

    def _copy(self, count: int, to: Buffer, index: str, source: Buffer, at: str, guards: list[Expr], depth: int) -> None:
        """`count` elements. Where a condition does not hold nothing is read, whatever the place would be."""
        arguments = [self.spell(to), index, self.spell(source), at]
        if guards:
            arguments.append(self.conjunction([f"({self.expr(c)})" for c in guards]))
        self.line(depth, f"copy_async{count}{'_if' if guards else ''}({', '.join(arguments)})")

    def _wide(self, loop: For, depth: int) -> bool:
        s, lanes = loop.body, loop.extent.value if loop.extent.op == "const" else 0
        if isinstance(s, If) and s.else_ is None and lanes in VECTOR_LANES:
            guard = self._uniform(s.cond, loop)
            if guard is None or not isinstance(s.then, Store):
                return False
            before = len(self.lines)
            self.open_if(self.expr(guard), depth)
            if not self._wide(replace(loop, body=s.then), depth + 1):
                del self.lines[before:]
                return False
            self.close(depth)
            return True
        if not isinstance(s, Store) or lanes not in VECTOR_LANES:
            return False
        places = {e: self._vector_place(e.value, e.args[0], loop) for e in dict.fromkeys(loads(s.value))}
        target = self._vector_place(s.buffer, s.indices[0], loop)
        under = {e: found for e, at in _conditions(s.value).items() if (found := self._guards(at, loop)) is not None}
        wide = {e: at for e, at in places.items() if at is not None and e in under}
        if target is None and not wide:
            return False
        taken = {e: self.temporary("w") for e in wide}
        for e, at in wide.items():
            assert at is not None
            text = f"load{lanes}({self.spell(e.value)}, {self.expr(at)})"
            if guards := [f"({self.expr(c)})" for c in under[e]]:  # elsewhere the element may not exist
                zeros = ", ".join([f"{_type(e.value)}(0)"] * lanes)
                text = f"{text} if {self.conjunction(guards)} else ({zeros})"
            self.line(depth, f"{taken[e]} = {text}")
        values = []
        for n in range(lanes):
            held = {e: var(f"{name}[{n}]", e.dtype) for e, name in taken.items()}
            self.names.update({v: v.name for v in held.values()})
            value = rewrite(s.value, lambda e, held=held: held.get(e))  # type: ignore[misc]
            lane = {loop.var: const(n)}
            values.append(Store(s.buffer, tuple(substitute(i, lane) for i in s.indices), substitute(value, lane)))
        if target is None:
            for store in values:
                self._emit_store(store, None, depth)
            return True
        texts = [f"{_type(s.buffer)}({self.expr(store.value)})" for store in values]
        self.line(depth, f"store{lanes}({self.spell(s.buffer)}, {self.expr(target)}, ({', '.join(texts)}))")
        return True

    def _guards(self, conditions: set[tuple[Expr, ...]], loop: For) -> list[Expr] | None:
        """The conditions under which a load happens, if they are the same in all iterations of `loop`."""
        if len(conditions) != 1:
            return None
        found = [self._uniform(c, loop) for c in next(iter(conditions))]
        return None if None in found else [c for c in found if c is not None]

    def _uniform(self, cond: Expr, loop: For) -> Expr | None:
        """`cond` without the loop's variable, if it is the same in all iterations: 4*i + v < 1000 for v in 4 -> 4*i < 1000."""
        if loop.var not in free_vars(cond):
            return cond
        if cond.op == "and":
            parts = [self._uniform(c, loop) for c in cond.args]
            return None if None in parts else rebuild(cond, tuple(c for c in parts if c is not None))
        if cond.op != "lt":
            return None
        left, right = cond.args
        form = linear_form(left - right, {loop.var})
        ranges = {v: n for v, n in self.ranges.items() if v is not loop.var}
        whole = form is not None and form[0].get(loop.var) == 1
        if form is None or not whole or simplify(floormod(form[1], loop.extent), ranges) is not const(0):
            return None
        return substitute(cond, {loop.var: const(0)})

    def _vector_place(self, buffer: Buffer, index: Expr, loop: For) -> Expr | None:
        """The first of the neighbouring elements at `index` in the iterations of `loop`, if a vector may lie there."""
        lanes = loop.extent.value
        form = linear_form(index, {loop.var})
        if not self.vectors and (buffer in self.func.params or buffer in self.workspace):
            return None
        if buffer.dtype.name not in VECTOR_TYPES or lanes * buffer.dtype.nbytes > VECTOR_BYTES or buffer in self.of_thread:
            return None
        if form is None or form[0].get(loop.var) != 1 or loads(index):
            return None
        ranges = {v: n for v, n in self.ranges.items() if v is not loop.var}
        if simplify(floormod(form[1], const(lanes)), ranges) is not const(0):
            return None
        self.aligned.add(buffer)
        return form[1]

    def combine(self, loop: For, d: int, depth: int) -> None:
        """Threads of a warp exchange registers; warps meet in shared memory. Then the first thread stores."""
        where = f"{self.func.name}: loop {loop.var.name} of a reduction is bound to {loop.kind}"
        made = cross_thread(loop)
        if made is None or made.op not in COMBINED or made.store.buffer.dtype.name not in EXCHANGED:
            raise BuildError(f"{where}: threads combine {', '.join(COMBINED)} of {', '.join(EXCHANGED)}, and this is another")
        count, others = loop.extent.value, self.threads[1] * self.threads[2]
        if d != 0 or count % WARP or count != self.threads[0] or (count > WARP and others > 1):
            raise BuildError(
                f"{where}, {count} threads of a block of {tuple(self.threads)}: it has to be all of threadIdx.x, a multiple of "
                f"{WARP}, and no other axis may have threads if it is more than {WARP}"
            )
        if made.conditions:
            self.open_if(self.conjunction([f"({self.expr(c)})" for c in made.conditions]), depth)
            depth += 1
        kind = "warp" if count == WARP else "block"
        total, scratch = self.temporary("total"), ""
        if kind == "block":
            scratch = self.temporary("parts")
            self.prologue.append(f"    {scratch} = cuda.shared.array({count // WARP}, {_type(made.store.buffer)})")
            self.shared += count // WARP * made.store.buffer.dtype.nbytes
            scratch = f", {scratch}"
        self.line(depth, f"{total} = {kind}_{COMBINED[made.op]}({self.expr(made.value)}{scratch})")
        self.open_if(f"{self.thread(0)} == 0", depth)
        begin = made.first if made.first is not None else load(made.store.buffer, made.store.indices)
        held = var(total, made.store.buffer.dtype)
        self.names[held] = total
        self.line(depth + 1, self._store(replace(made.store, value=rebuild(made.store.value, (begin, held))), None))

    def _share(self, buffer: Buffer) -> None:
        if buffer in self.private:
            self.declare_shared(buffer, max(1, buffer.shape[0].value))
        else:
            super()._share(buffer)


def _conditions(e: Expr) -> dict[Expr, set[tuple[Expr, ...]]]:
    """Loads in `e`, and under which conditions of `select` each happens."""
    found: dict[Expr, set[tuple[Expr, ...]]] = {}
    stack: list[tuple[Expr, tuple[Expr, ...]]] = [(e, ())]
    while stack:
        node, around = stack.pop()
        if node.op == "load":
            found.setdefault(node, set()).add(around)
        if node.op == "select":
            cond, then, other = node.args
            stack += [(cond, around), (then, (*around, cond)), (other, (*around, not_(cond)))]
        else:
            stack += [(a, around) for a in node.args]
    return found


def _thread_arrays(s: Stmt, inside: bool = False) -> set[Buffer]:
    """Arrays that a thread allocates for itself."""
    found = {s.buffer} if isinstance(s, Allocate) and inside else set()
    inside = inside or axis_of(s, "threadIdx") is not None
    return found.union(*(_thread_arrays(c, inside) for c in children(s)))


def _type(buffer: Buffer) -> str:
    if is_half(buffer.dtype):
        return "u16"
    return "u8" if buffer.dtype.is_bool else buffer.dtype.name


def is_half(dtype: DType) -> bool:
    """Whether values of a type lie in memory in 16 bits, and are f32 in registers."""
    return dtype.name in ("bf16", "f16")


# -- arrays of a block whose elements belong to one thread each ------------------------------------------------------------
def _block_arrays(s: Stmt) -> list[Buffer]:
    """Buffers that are allocated around loops bound to threads."""
    return [c.buffer for c in walk_stmt(s) if isinstance(c, Allocate) and binds(c.body, "threadIdx")]


def _is_private(body: Stmt, buffer: Buffer, warps: Mapping[Expr, Call]) -> bool:
    """Whether no two threads of a block touch one element: integer sets know that of each write and any other access."""
    path = path_to(body, lambda s: isinstance(s, Allocate) and s.buffer is buffer)
    found = [a for a in every_access(path) if a.buffer is buffer] if path else []
    axes = {s.var: s.kind for s in walk_stmt(body) if isinstance(s, For) and axis_of(s, "threadIdx") is not None}
    shared = [s.var for s in path if isinstance(s, For)]
    shared += [s.var for s in walk_stmt(body) if isinstance(s, For) and axis_of(s, "blockIdx") is not None]
    bound = [{axes[v]: v for v, _ in a.loops if v in axes} for a in found]
    for a, at in zip(found, bound, strict=True):  # a lane of a warp has what its instructions give it
        call = next((warps[v] for v, _ in a.loops if v in warps), None)
        if call is not None:
            lane = call.lane(buffer)
            if lane is None:
                return False
            at["threadIdx.x"] = lane
    if not all(bound) or any(loads(i) for a in found for i in a.indices):
        return False
    sizes = {v: Interval(0, None) for a in found for e in a.indices for v in free_vars(e) - {v for v, _ in a.loops}}
    for n, (a, at) in enumerate(zip(found, bound, strict=True)):
        for b, other in zip(found[n:], bound[n:], strict=True):
            if not (a.write or b.write):
                continue

            def apart(sides: Sides, at: dict[str, Expr] = at, other: dict[str, Expr] = other) -> Expr:
                differ: Expr = const(False)
                for axis in {*at, *other}:
                    x, y = (substitute(v[axis], sides[k]) if axis in v else const(0) for k, v in enumerate((at, other)))
                    differ = or_(differ, ne(x, y))
                return differ

            if conflict(a, b, shared, apart, sizes=sizes) is not None:
                return False
    return any(a.write for a in found)


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
    extents |= dict.fromkeys(REGISTERS, 2)
    strides = {b: _dense_strides([substitute(i, positions) for i, _ in _accesses(func.body, b)], extents) for b in buffers}
    smaller = {b: b.with_(shape=(const(made[1]),)) for b, made in strides.items() if made is not None}

    def own(b: Buffer, index: Expr) -> tuple[Expr, ...]:
        index, made = substitute(index, positions), strides[b]
        form = linear_form(index, free_vars(index)) if made is not None else None
        if made is None or form is None:
            return (index,)
        terms = [v * _dense(made[0], c) for v, c in form[0].items() if isinstance(c, int)]
        return (sum(terms[1:], terms[0]) if terms else const(0),)

    def loaded(e: Expr) -> Expr | None:
        return load(e.value, own(e.value, e.args[0])) if e.op == "load" and e.value in buffers else None

    def stored(s: Stmt) -> Stmt | None:
        return replace(s, indices=own(s.buffer, s.indices[0])) if isinstance(s, Store) and s.buffer in buffers else None

    body = rewrite_stmt(map_exprs(func.body, lambda e: rewrite(e, loaded)), stored)
    return replace(func, body=replace_buffers(body, smaller))


def _dense_strides(indices: list[Expr], extents: Mapping[Expr, int]) -> tuple[list[tuple[int, int, int]], int] | None:
    """Runs of a thread's elements, (stride, count, new stride) of each, with new strides that leave no gaps, and the number of
    elements; None where indices are not of one pattern."""
    pattern: list[tuple[int, int]] | None = None
    for index in indices:
        variables = free_vars(index)
        form = linear_form(index, variables)
        if form is None or form[1].op != "const" or not variables <= extents.keys():
            return None
        if not all(isinstance(c, int) and c > 0 for c in form[0].values()):
            return None
        runs: list[tuple[int, int]] = []
        for stride, count in sorted((c, extents[v]) for v, c in form[0].items() if isinstance(c, int)):
            if runs and runs[-1][0] * runs[-1][1] == stride:  # a loop over groups of what the one before counts
                runs[-1] = (runs[-1][0], runs[-1][1] * count)
            else:
                runs.append((stride, count))
        if any(s * n > t for (s, n), (t, _) in zip(runs, runs[1:], strict=False)):
            return None
        if form[1].value or (pattern is not None and pattern != runs):
            return None
        pattern = runs
    made: list[tuple[int, int, int]] = []
    total = 1
    for stride, count in pattern or []:
        made.append((stride, count, total))
        total *= count
    return made, total


def _dense(runs: list[tuple[int, int, int]], stride: int) -> int:
    """A stride within one of the runs, in the new numbering."""
    old, _, new = next(run for run in reversed(runs) if run[0] <= stride)
    return stride // old * new
