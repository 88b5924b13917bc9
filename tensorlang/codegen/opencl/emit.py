"""Kernel IR to OpenCL C: one `__kernel` for each nest of the program, launched one after the other.

    for b in 8 (blockIdx.x):                __kernel void scale(__global const float *restrict x, ...) {
        for t in 64 (threadIdx.x):   ->         const int32_t b = (int32_t)get_group_id(0);
            y[b*64 + t] = x[b*64 + t]           const int32_t t = (int32_t)get_local_id(0);
                                                y[b * 64 + t] = x[b * 64 + t];

Inside the loops bound to work groups, the nests bound to work items stand one behind the other, perhaps in loops that all
items of a group go through together. What a group allocates there is `__local`; what an item allocates is its own. A
barrier stands between two nests if one writes what the other touches, and at the end of a loop around them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tensorlang.codegen.c.emit import RESERVED as C_RESERVED, CEmitter, c_identifier
from tensorlang.codegen.c.helpers import prelude
from tensorlang.codegen.c.printer import c_type
from tensorlang.codegen.emit import EmittedKernel, Emitter
from tensorlang.errors import BuildError
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr, const
from tensorlang.ir.stmt import Allocate, For, If, PrimFunc, Seq, Stmt, Store
from tensorlang.ir.visitor import free_vars, loads, own_exprs, walk_stmt

LOCAL_BYTES = 32 * 1024  # what every device gives a work group
PRIVATE_BYTES = 16 * 1024  # what an item may keep in an array of its own
AXES = ("x", "y", "z")
BARRIER = "barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);"
_BUILTINS = (
    "rotate clz ctz popcount bitselect maxmag minmag fract distance hadd rhadd upsample mul24 mad24 prefetch smoothstep "
    "select shuffle2 dot cross fast_length read_mem_fence write_mem_fence mem_fence sincos"
)
RESERVED = C_RESERVED | frozenset(_BUILTINS.split())
_TYPES = """typedef char int8_t;
typedef short int16_t;
typedef int int32_t;
typedef long int64_t;
typedef uchar uint8_t;
typedef ushort uint16_t;
typedef uint uint32_t;
typedef ulong uint64_t;
#define INT32_MIN INT_MIN
#define INT64_MIN LONG_MIN
#define INT64_C(x) x##L
#define UINT64_C(x) x##UL
"""
_OVERLOADED = "sqrt floor ceil trunc rint fmod fabs".split()


@dataclass(frozen=True)
class Launch:
    """One `__kernel` and how many items run it.

    Attributes:
        args: names of the kernel's parameters that it takes.
        groups, items: work groups, and items in each, along each dimension.
    """

    function: str
    args: tuple[str, ...]
    groups: tuple[Expr, ...]
    items: tuple[int, ...]


@dataclass(frozen=True)
class OpenCLKernel(EmittedKernel):
    """A kernel as text.

    Attributes:
        launches: what it consists of, in order.
        outputs: names of the parameters that it writes.
        sizes: the size variables, by the name of their parameter.
    """

    launches: tuple[Launch, ...] = ()
    outputs: tuple[str, ...] = ()
    sizes: tuple[tuple[str, Expr], ...] = ()


def emit_opencl_kernel(func: PrimFunc, name: str | None = None, trace: str = "") -> OpenCLKernel:
    """The OpenCL C of a lowered program; `trace`, the steps of its schedule, goes above it as a comment.

    Raises:
        BuildError: its thread axes are not such that work groups can run it; the message says how they have to be.
    """
    name = c_identifier(name or func.name)
    return OpenCLEmitter(func, f"k_{name}" if name in RESERVED else name).emit(trace)


def opencl_module(texts: str) -> str:
    """A program of emitted kernels with everything above them that they need."""
    helpers = prelude(texts)
    whole = helpers + texts
    overloaded = "".join(f"#define {f}f {f}\n" for f in _OVERLOADED if f"{f}f(" in whole)
    doubles = "#pragma OPENCL EXTENSION cl_khr_fp64 : enable\n" if "double" in whole else ""
    return "\n".join(filter(None, [doubles + _TYPES + overloaded, helpers, texts]))


class OpenCLEmitter(CEmitter):
    """One program as `__kernel` functions."""

    reserved = RESERVED

    def __init__(self, func: PrimFunc, name: str):
        super().__init__(func, name)
        self.items: list[int] = []
        self.local_bytes = 0

    def emit(self, trace: str) -> OpenCLKernel:
        params = [
            (f"{p.dtype.name}*" if isinstance(p, Buffer) else p.dtype.name, self.spell(p)) for p in self.func.params
        ]
        body = Emitter._root_allocations(self, self.func.body)
        nests = list(_flat(body))
        launches, texts = [], []
        for n, nest in enumerate(nests):
            function = self.name if len(nests) == 1 else f"{self.name}_{n}"
            launch, text = self._nest(nest, function)
            launches.append(launch)
            texts.append(text)
        params += [(f"{b.dtype.name}*", self.spell(b)) for b in self.workspace]
        space = tuple((self.spell(b), b.shape[0] * b.dtype.nbytes) for b in self.workspace)
        steps = "".join(f"// schedule: {step}\n" for step in trace.splitlines())
        outputs = tuple(self.spell(b) for b in self.func.buffers if b in self.written)
        sizes = tuple((self.spell(v), v) for v in self.func.size_vars)
        text = steps + "\n".join(texts)
        return OpenCLKernel(self.name, text, tuple(params), space, (), tuple(launches), outputs, sizes)

    def _nest(self, nest: Stmt, function: str) -> tuple[Launch, str]:
        """One nest as a `__kernel`."""
        self.lines, self.prologue, self.local_bytes = [], [], 0
        self.items = self._items(nest)
        groups: list[Expr] = [const(1)] * 3
        self._group(nest, 1, groups)
        used = [p for p in (*self.func.params, *self.workspace) if p in _mentioned(nest) or p in free_of(groups)]
        texts = [self.pointer(p) if isinstance(p, Buffer) else f"{c_type(p.dtype)} {self.spell(p)}" for p in used]
        text = "\n".join([f"__kernel void {function}({', '.join(texts)}) {{", *self.prologue, *self.lines, "}"]) + "\n"
        rank = max((d + 1 for d in range(3) if groups[d] is not const(1) or self.items[d] > 1), default=1)
        return Launch(function, tuple(map(self.spell, used)), tuple(groups[:rank]), tuple(self.items[:rank])), text

    def pointer(self, b: Buffer) -> str:
        return f"__global {super().pointer(b)}"

    def _items(self, nest: Stmt) -> list[int]:
        """Work items along each dimension: as many as the longest loop bound to it."""
        most = [1, 1, 1]
        for s in walk_stmt(nest):
            if isinstance(s, For) and (d := _axis(s, "threadIdx")) is not None:
                if s.extent.op != "const":
                    raise BuildError(
                        f"{self.func.name}: loop {s.var.name} is bound to {s.kind}, but its extent {s.extent} is not constant; "
                        "split it by a constant and bind the inner loop"
                    )
                most[d] = max(most[d], s.extent.value)
        return most

    # -- statements of a work group --------------------------------------------------------------------------------
    def _group(self, s: Stmt, depth: int, groups: list[Expr]) -> None:
        """What is around the loops bound to work groups, and those."""
        d = _axis(s, "blockIdx")
        if d is not None:
            assert isinstance(s, For)
            groups[d] = s.extent
            self.line(depth, self._position(s, f"get_group_id({d})"))
            self.scope.append(s.var)
            self._group(s.body, depth, groups)
            self.scope.pop()
        elif isinstance(s, If) and s.else_ is None and _binds(s, "blockIdx"):
            self.line(depth, f"if ({self.expr(s.cond)}) {{")
            self._group(s.then, depth + 1, groups)
            self.line(depth, "}")
        elif isinstance(s, Allocate) and _binds(s, "blockIdx"):
            raise BuildError(f"{self.func.name}: {s.buffer.name} is allocated around a loop bound to blockIdx; move it inside")
        else:
            if inside := _binds(s, "blockIdx"):
                raise BuildError(
                    f"{self.func.name}: loop {inside.var.name} is bound to {inside.kind} inside of other statements; the loops "
                    "bound to blockIdx have to be the outermost, one directly in the other"
                )
            self._together(s, depth)

    def _position(self, s: For, call: str) -> str:
        return f"const {self.expr.index_type} {self.spell(s.var)} = ({self.expr.index_type}){call};"

    def _together(self, s: Stmt, depth: int) -> None:
        """A statement that all items of a group reach."""
        self._announce(s, depth)
        if isinstance(s, Seq):
            self._sequence(s, depth)
        elif _axis(s, "threadIdx") is not None:
            self._work_items(s, depth)
        elif isinstance(s, Allocate):
            self._shared(s.buffer)
            self._together(s.body, depth)
        elif not _binds(s, "threadIdx"):
            self._one_item(s, depth)
        elif isinstance(s, For):
            v = self.spell(s.var)
            self.line(depth, f"for ({self.expr.index_type} {v} = 0; {v} < {self.expr.show(s.extent, 8)}; ++{v}) {{")
            self.scope.append(s.var)
            self._together(s.body, depth + 1)
            self.scope.pop()
            self.line(depth + 1, BARRIER)
            self.line(depth, "}")
        elif isinstance(s, If):
            self.line(depth, f"if ({self.expr(s.cond)}) {{")
            self._together(s.then, depth + 1)
            if s.else_ is not None:
                self.line(depth, "} else {")
                self._together(s.else_, depth + 1)
            self.line(depth, "}")
        else:
            raise BuildError(f"{self.func.name}: {type(s).__name__} cannot be emitted; lower the function first")

    def _sequence(self, s: Seq, depth: int) -> None:
        open_writes: set[Buffer] = set()
        open_reads: set[Buffer] = set()
        for c in s.stmts:
            writes, reads = _written(c), _read(c)
            if writes & (open_reads | open_writes) or reads & open_writes:
                if self._many():
                    self.line(depth, BARRIER)
                open_writes, open_reads = set(), set()
            open_writes |= writes
            open_reads |= reads
            self._together(c, depth)

    def _many(self) -> bool:
        return any(n > 1 for n in self.items)

    def _shared(self, buffer: Buffer) -> None:
        """Memory of a work group, which OpenCL wants declared at the top of the kernel."""
        size = buffer.shape[0]
        if size.op != "const":
            raise BuildError(
                f"{self.func.name}: a work group allocates {buffer.name}, whose size {size} is not constant; fix the shapes or "
                "compute it in a loop bound to threadIdx"
            )
        self.local_bytes += size.value * buffer.dtype.nbytes
        if self.local_bytes > LOCAL_BYTES:
            raise BuildError(
                f"{self.func.name}: a work group needs {self.local_bytes} bytes of its own for {buffer.name} and others, more "
                f"than the {LOCAL_BYTES} that every device has; use smaller tiles"
            )
        self.prologue.append(f"    __local {c_type(buffer.dtype)} {self.spell(buffer)}[{max(1, size.value)}];")

    # -- statements of work items ----------------------------------------------------------------------------------
    def _work_items(self, s: Stmt, depth: int) -> None:
        """A nest bound to work items, and what each of them does."""
        guards: list[str] = []
        positions: list[str] = []
        bound: list[tuple[int, For]] = []
        while (d := _axis(s, "threadIdx")) is not None:
            assert isinstance(s, For)
            positions.append(self._position(s, f"get_local_id({d})"))
            if s.extent.value < self.items[d]:
                guards.append(f"get_local_id({d}) < {s.extent.value}")
            bound.append((d, s))
            s = s.body
        if inside := _binds(s, "threadIdx"):
            raise BuildError(
                f"{self.func.name}: loop {inside.var.name} is bound to {inside.kind} inside of other statements of a work "
                "item; loops bound to threadIdx have to stand directly in each other"
            )
        used = {d for d, _ in bound}
        guards += [f"get_local_id({d}) == 0" for d in range(3) if self.items[d] > 1 and d not in used]
        self.line(depth, f"if ({' && '.join(guards)}) {{" if guards else "{")
        for text in positions:
            self.line(depth + 1, text)
        self.scope += [loop.var for _, loop in bound[:-1]]
        self._loop_body(bound[-1][1], depth + 1)
        del self.scope[len(self.scope) - len(bound) + 1 :]
        self.line(depth, "}")

    def _one_item(self, s: Stmt, depth: int) -> None:
        """What is bound to no work items is done by one."""
        guards = [f"get_local_id({d}) == 0" for d in range(3) if self.items[d] > 1]
        if not guards:
            self.stmt(s, depth)
        else:
            self.line(depth, f"if ({' && '.join(guards)}) {{")
            self.stmt(s, depth + 1)
            self.line(depth, "}")

    def _for(self, s: For, depth: int) -> None:
        if s.kind == "vthread":  # one item does the work of several
            v = self.spell(s.var)
            self.line(depth, f"for ({self.expr.index_type} {v} = 0; {v} < {self.expr.show(s.extent, 8)}; ++{v}) {{")
            self._loop_body(s, depth + 1)
            self.line(depth, "}")
            return
        super()._for(s, depth)

    def _allocate(self, s: Allocate, depth: int) -> None:
        buffer, size = s.buffer, s.buffer.shape[0]
        if size.op != "const" or size.value * buffer.dtype.nbytes > PRIVATE_BYTES:
            raise BuildError(
                f"{self.func.name}: a work item allocates {buffer.name} of {size} elements, more than {PRIVATE_BYTES} bytes; "
                "compute less of it at a time"
            )
        self.line(depth, f"{c_type(buffer.dtype)} {self.spell(buffer)}[{max(1, size.value)}];")
        self.stmt(s.body, depth)


def _axis(s: Stmt, kind: str) -> int | None:
    """The dimension that a loop is bound to, if it is bound to an axis of `kind`."""
    if isinstance(s, For) and s.kind.startswith(f"{kind}."):
        return AXES.index(s.kind[-1])
    return None


def _binds(s: Stmt, kind: str) -> For | None:
    return next((c for c in walk_stmt(s) if isinstance(c, For) and _axis(c, kind) is not None), None)


def _flat(s: Stmt) -> Iterator[Stmt]:
    if isinstance(s, Seq):
        for c in s.stmts:
            yield from _flat(c)
    else:
        yield s


def _written(s: Stmt) -> set[Buffer]:
    return {c.buffer for c in walk_stmt(s) if isinstance(c, Store)}


def _read(s: Stmt) -> set[Buffer]:
    return {a.value for c in walk_stmt(s) for e in own_exprs(c) for a in loads(e)}


def _mentioned(s: Stmt) -> set[object]:
    variables = {v for c in walk_stmt(s) for e in own_exprs(c) for v in free_vars(e)}
    return {*_written(s), *_read(s), *variables}


def free_of(exprs: list[Expr]) -> set[Expr]:
    """The variables in `exprs`."""
    return {v for e in exprs for v in free_vars(e)}
