"""Kernel IR to Python source: one readable function per kernel, and one per parallel loop.

    @chunk("f32* x, f32* y, i64 n")                   the body of a parallel loop, for iterations [begin, end)
    def scale_p0(ctx, begin, end, x, y, n):
        for i in range(begin, end): ...

    # schedule: scale.parallel(i)
    @kernel("f32* x, f32* y, i64 n")
    def scale(ctx, x, y, n):
        # stage y (model.py:7)
        parallel_for(scale_p0, ctx, n, x, y, n)
"""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Mapping
from dataclasses import dataclass

from tensorlang.codegen import intrinsics
from tensorlang.codegen.expr_printer import ExprPrinter, is_masked_load
from tensorlang.errors import BuildError
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.dtype import DType
from tensorlang.ir.expr import Expr
from tensorlang.ir.intrinsics import PREFETCH
from tensorlang.ir.stmt import Allocate, CallPacked, Evaluate, For, If, MultiStore, PrimFunc, Seq, Stmt, Store
from tensorlang.ir.tensor_intrin import TensorIntrin, find_part
from tensorlang.ir.visitor import children, free_vars, loads, own_exprs, walk, walk_stmt

HEADER = "from tensorlang.codegen.intrinsics import *\n"
RESERVED = frozenset(
    [
        *keyword.kwlist,
        *dir(builtins),
        *intrinsics.__all__,
        "ctx",
        "begin",
        "end",
    ]
)


@dataclass(frozen=True)
class PackedSite:
    """One call of a function of the host: how its arguments cross over as i64 words.

    Attributes:
        name: the registered function.
        args: of an array (dtype, rank, whether it is written): a pointer and its dimensions follow each other; of a scalar
            (dtype, None, False): one word.
    """

    name: str
    args: tuple[tuple[DType, int | None, bool], ...]


@dataclass(frozen=True)
class EmittedKernel:
    """One kernel as text.

    Attributes:
        name: the entry function.
        text: its chunk functions and itself, without the module header.
        params: (type, name) in calling order: buffers, size variables, then workspace.
        workspace: (name, bytes) of memory that the caller provides; bytes may mention the size variables.
        packed: for each i64 parameter after the workspace, the function of the host that it is the address of.
    """

    name: str
    text: str
    params: tuple[tuple[str, str], ...]
    workspace: tuple[tuple[str, Expr], ...]
    packed: tuple[PackedSite, ...] = ()


def emit_kernel(func: PrimFunc, name: str | None = None, trace: str = "") -> EmittedKernel:
    """The text of a lowered function; `trace`, the steps of its schedule, goes above it as a comment."""
    return Emitter(func, name or func.name).run(trace)


def _pointer(buffer: Buffer) -> str:
    return f"{buffer.dtype.name}*"


class Emitter:
    """One kernel being written. The emitters of other languages derive from it (`codegen.c`): names, comments and what is
    held in variables are the same in all of them."""

    reserved = RESERVED
    comment = "#"

    def __init__(self, func: PrimFunc, name: str):
        self.func, self.name = func, name
        self.names: dict[object, str] = {}
        self.taken: set[str] = set(self.reserved) | {name}
        self.chunks: list[str] = []
        self.instructions: dict[str, str] = {}  # the function of each part of a tensor intrinsic
        self.instruction_texts: list[str] = []
        self.ranges: dict[Expr, Expr | int] = {
            s.var: s.extent for s in walk_stmt(func.body) if isinstance(s, For)
        }
        self.expr = ExprPrinter(self.spell, self.spell, self.ranges)
        self.workspace: list[Buffer] = []
        self.packed: list[tuple[str, PackedSite]] = []
        self.lines: list[str] = []
        self.prologue: list[str] = []
        self.epilogue: list[str] = []
        self.in_chunk = False
        self.scope: list[Expr] = []  # variables of the loops that we are in
        self.stage: tuple[Buffer, ...] | None = None  # whose computation the last comment announced

    def spell(self, thing: Expr | Buffer) -> str:
        """A unique Python name for a variable or buffer."""
        if thing not in self.names:
            raw = thing.name
            base = "".join(c if c.isalnum() or c == "_" else "_" for c in raw) or "v"
            base = base if not base[0].isdigit() else f"v{base}"
            candidate, serial = base, 1
            while candidate in self.taken:
                candidate, serial = f"{base}_{serial}", serial + 1
            self.taken.add(candidate)
            self.names[thing] = candidate
        return self.names[thing]

    def run(self, trace: str) -> EmittedKernel:
        params: list[tuple[str, str]] = []
        for p in self.func.params:
            params.append((_pointer(p), self.spell(p)) if isinstance(p, Buffer) else (p.dtype.name, self.spell(p)))
        body = self.func.body
        body = self._root_allocations(body)
        self.stmt(body, 1)
        params += [(_pointer(b), self.spell(b)) for b in self.workspace]
        params += [("i64", name) for name, _ in self.packed]
        signature = ", ".join(f"{t} {n}" for t, n in params)
        names = ", ".join(["ctx", *(n for _, n in params)])
        lines = [*self.prologue, *self.lines, *self.epilogue] or ["    pass"]
        entry = "\n".join([f'@kernel("{signature}")', f"def {self.name}({names}):", *lines])
        steps = [f"# schedule: {step}" for step in trace.splitlines()]
        text = "\n\n\n".join([*self.instruction_texts, *self.chunks, entry]) + "\n"
        text = "\n".join([*steps, text])
        space = tuple((self.spell(b), b.shape[0] * b.dtype.nbytes) for b in self.workspace)
        return EmittedKernel(self.name, text, tuple(params), space, tuple(site for _, site in self.packed))

    def _announce(self, s: Stmt, depth: int) -> None:
        """Before a nest that computes one stage: a comment with its name, and the file:line of its definition."""
        if isinstance(s, Seq) or (stored := stage_of(s)) is None:
            return
        if stored != self.stage:
            names = ", ".join(b.name for b in stored)
            where = (self.func.attrs.get("source") or {}).get(stored[0].name)
            self.line(depth, f"{self.comment} stage {names}" + (f" ({where})" if where else ""))
        self.stage = stored

    def _root_allocations(self, s: Stmt) -> Stmt:
        """Allocations outside of all loops become workspace parameters."""
        while isinstance(s, Allocate):
            self.workspace.append(s.buffer)
            self.spell(s.buffer)
            s = s.body
        if isinstance(s, Seq):
            return Seq(tuple(self._root_allocations(c) for c in s.stmts))
        return s

    # -- statements ------------------------------------------------------------------------------------------------
    def line(self, depth: int, text: str) -> None:
        self.lines.append("    " * depth + text)

    def stmt(self, s: Stmt, depth: int) -> None:
        self._announce(s, depth)
        if isinstance(s, Seq):
            for c in s.stmts:
                self.stmt(c, depth)
        elif isinstance(s, For):
            self._for(s, depth)
        elif isinstance(s, If):
            self._if(s, depth)
        elif isinstance(s, Allocate):
            self._allocate(s, depth)
        elif isinstance(s, Store):
            self._emit_store(s, None, depth)
        elif isinstance(s, MultiStore):
            self._emit_stores(s, None, depth)
        elif isinstance(s, CallPacked):
            self._call_packed(s, depth)
        elif isinstance(s, Evaluate):
            self.line(depth, self._evaluate(s.expr))
        else:
            raise BuildError(f"{type(s).__name__} cannot be emitted; lower the function first")

    def _evaluate(self, e: Expr) -> str:
        """A call for its effect; that of a tensor intrinsic passes its operands by their first elements."""
        if e.op == "call" and e.value == PREFETCH:
            access = e.args[0]
            return f"prefetch({self.spell(access.value)}, {self.expr(access.args[0])})"
        found = find_part(e.value) if e.op == "call" else None
        if found is None:
            return self.expr(e)
        intrin, _, instruction = found
        if (function := self.instructions.get(e.value)) is None:
            stem = "".join(c if c.isalnum() else "_" for c in f"{self.name}_{e.value}")
            function = stem if stem not in self.taken else self.temporary(stem)
            self.taken.add(function)
            self.instructions[e.value] = function
            self.instruction_texts.append(instruction.text(function, intrin.requires, str(e.value)).rstrip())
        args = [
            f"offset({self.spell(a.value)}, {self.expr(a.args[0])})" if a.op == "load" else self.expr(a) for a in e.args
        ]
        self._around(intrin, dict(zip((name for _, name in instruction.params), args, strict=True)))
        return f"{function}({', '.join(['ctx', *args])})"

    def _around(self, intrin: TensorIntrin, values: Mapping[str, str]) -> None:
        """What a thread does once before its tiles, and once after them."""
        for n, instruction in enumerate(intrin.around):
            function = "_".join(c for c in (self.name, *re.split(r"\W+", intrin.name), ("before", "after")[n]))
            text = instruction.text(function, intrin.requires).rstrip()
            if text not in self.instruction_texts:
                self.instruction_texts.append(text)
            line = f"    {function}({', '.join(['ctx', *(values[name] for _, name in instruction.params)])})"
            lines = (self.prologue, self.epilogue)[n]
            if line in lines:
                continue
            if any(function in other for other in lines):
                raise BuildError(f"{self.name}: tiles of {intrin.name} of several sizes in one loop")
            lines.insert(n * len(lines), line)

    def _for(self, s: For, depth: int) -> None:
        if s.kind == "parallel" and not self.in_chunk:
            self._parallel(s, depth)
            return
        iterations = "unrolled" if s.kind == "unrolled" and s.extent.op == "const" else "range"
        self.line(depth, f"for {self.spell(s.var)} in {iterations}({self.expr(s.extent)}):")
        self._loop_body(s, depth + 1)

    def _loop_body(self, s: For, depth: int) -> None:
        """The body, after the divisions of loop variables that it repeats (the positions of a fused loop)."""
        self.scope.append(s.var)
        held = divisions(s, set(self.scope) | set(self.func.size_vars))
        held = [e for e in held if e not in self.expr.bound]
        for e in held:
            self._hold(e, "at", depth)
        self._block(s.body, depth)
        for e in held:
            del self.expr.bound[e]
        self.scope.pop()

    def _hold(self, e: Expr, hint: str, depth: int) -> None:
        """Give `e` a variable, which later expressions read in its place."""
        text, name = self.expr(e), self.temporary(hint)
        self.line(depth, f"{name} = {text}")
        self.expr.bound[e] = name

    def temporary(self, hint: str) -> str:
        serial = 0
        while f"{hint}{serial}" in self.taken:
            serial += 1
        self.taken.add(f"{hint}{serial}")
        return f"{hint}{serial}"

    def _emit_store(self, s: Store, mask: Expr | None, depth: int) -> None:
        """The store, after what its value uses more than once."""
        held = shared(s.value)
        for e in held:
            self._hold(e, "t", depth)
        self.line(depth, self._store(s, mask))
        for e in held:
            del self.expr.bound[e]

    def _emit_stores(self, s: MultiStore, mask: Expr | None, depth: int) -> None:
        """Everything that is read first, then the stores."""
        values = [t.value for t in s.stores]
        held = []
        for e in [*shared(*values), *values, *(i for t in s.stores for i in t.indices if loads(i))]:
            if e.op not in ("const", "var") and e not in self.expr.bound:
                self._hold(e, "t", depth)
                held.append(e)
        for t in s.stores:
            self.line(depth, self._store(t, mask))
        for e in held:
            del self.expr.bound[e]

    def _call_packed(self, s: CallPacked, depth: int) -> None:
        if self.in_chunk:
            raise BuildError(f"packed function {s.name} is called in a parallel loop, where it would hold up every thread")
        name = self.temporary("packed")
        kinds: list[tuple[DType, int | None, bool]] = []
        words: list[str] = []
        shapes = iter(s.shapes or tuple(b.shape for b in s.buffers))
        for a in s.args:
            if isinstance(a, Expr):
                kinds.append((a.dtype, None, False))
                words.append(self.expr(a))
                continue
            shape = next(shapes)
            kinds.append((a.dtype, len(shape), a in s.outputs))
            words += [self.spell(a), *map(self.expr, shape)]
        self.packed.append((name, PackedSite(s.name, tuple(kinds))))
        self.line(depth, f"call_packed({', '.join([name, *words])})  # {s.name}")

    def _block(self, s: Stmt, depth: int) -> None:
        before = len(self.lines)
        self.stmt(s, depth)
        if all(line.lstrip().startswith("#") for line in self.lines[before:]):
            self.line(depth, "pass")

    def _if(self, s: If, depth: int) -> None:
        if s.cond.dtype.lanes > 1:
            if isinstance(s.then, Store) and s.else_ is None:
                self._emit_store(s.then, s.cond, depth)
            elif isinstance(s.then, MultiStore) and s.else_ is None:
                self._emit_stores(s.then, s.cond, depth)
            else:
                raise BuildError("a vector condition can only guard a store")
            return
        self.line(depth, f"if {self.expr(s.cond)}:")
        self._block(s.then, depth + 1)
        if s.else_ is not None:
            self.line(depth, "else:")
            self._block(s.else_, depth + 1)

    def _allocate(self, s: Allocate, depth: int) -> None:
        buffer = s.buffer
        size = buffer.shape[0]
        name = self.spell(buffer)
        if buffer.scope == "local" and size.op == "const":
            self.line(depth, f"{name} = local_array({buffer.dtype.name}, {size.value})")
            self.stmt(s.body, depth)
            return
        nbytes = self.expr(size * buffer.dtype.nbytes)
        if self.in_chunk and not (free_vars(size) & set(self.ranges)):  # once per chunk, not per iteration
            taken = f"    {name}_at = scratch(ctx, {nbytes})"
            if taken not in self.prologue:  # else both branches of an `if` have it: a tile, and the same with guards
                self.prologue += [taken, f"    {name} = view({name}_at, {buffer.dtype.name})"]
                self.epilogue.insert(0, f"    release(ctx, {name}_at)")
            self.stmt(s.body, depth)
            return
        self.line(depth, f"{name}_at = scratch(ctx, {nbytes})")
        self.line(depth, f"{name} = view({name}_at, {buffer.dtype.name})")
        self.stmt(s.body, depth)
        self.line(depth, f"release(ctx, {name}_at)")

    def _store(self, s: Store, mask: Expr | None) -> str:
        name, index = self.spell(s.buffer), s.indices[0]
        value = self.expr(s.value)
        if index.dtype.lanes == 1:
            return f"{name}[{self.expr(index)}] = {value}"
        if index.op == "ramp":
            base, stride = self.expr(index.args[0]), index.args[1]
            unit = stride.op == "const" and stride.value == 1
            if mask is None:
                if unit:
                    return f"vstore({name}, {base}, {value})"
                return f"vstore_strided({name}, {base}, {self.expr(stride)}, {value})"
            if unit:
                return f"vstore_masked({name}, {base}, {value}, {self.expr(mask)})"
        scatter = f"vscatter({name}, {self.expr(index)}, {value}"
        return scatter + (")" if mask is None else f", {self.expr(mask)})")

    def _parallel(self, s: For, depth: int) -> None:
        outer, prologue, epilogue = self.lines, self.prologue, self.epilogue
        held, self.expr.bound = self.expr.bound, {}  # the chunk sees its parameters only
        self.lines, self.prologue, self.epilogue, self.in_chunk = [], [], [], True
        name, announced, self.stage = f"{self.name}_p{len(self.chunks)}", self.stage, None
        self.line(1, f"for {self.spell(s.var)} in range(begin, end):")
        self._loop_body(s, 2)
        self.stage, self.expr.bound = announced, held
        free = self._free(s)
        params = [(_pointer(f) if isinstance(f, Buffer) else f.dtype.name, self.spell(f)) for f in free]
        signature = ", ".join(f"{t} {n}" for t, n in params)
        header = [
            f'@chunk("{signature}")',
            f"def {name}({', '.join(['ctx', 'begin', 'end', *(n for _, n in params)])}):",
        ]
        self.chunks.append("\n".join([*header, *self.prologue, *self.lines, *self.epilogue]))
        self.lines, self.prologue, self.epilogue, self.in_chunk = outer, prologue, epilogue, False
        args = ", ".join([name, "ctx", self.expr(s.extent), *(n for _, n in params)])
        self.line(depth, f"parallel_for({args})")

    def _free(self, root: For) -> list[Expr | Buffer]:
        """Buffers and variables that the loop's body uses but does not define, in order of first use."""
        bound: set[object] = {root.var}
        for s in walk_stmt(root.body):
            if isinstance(s, For):
                bound.add(s.var)
            if isinstance(s, Allocate):
                bound.add(s.buffer)
        found: dict[Expr | Buffer, None] = {}
        for s in walk_stmt(root.body):
            if isinstance(s, Store) and s.buffer not in bound:
                found.setdefault(s.buffer)
            if isinstance(s, CallPacked):
                raise BuildError(f"packed function {s.name} is called in a parallel loop, where it would hold up every thread")
            for e in own_exprs(s):
                for access in loads(e):
                    if access.value not in bound:
                        found.setdefault(access.value)
                for v in sorted(free_vars(e), key=lambda v: v.value[1]):
                    if v not in bound:
                        found.setdefault(v)
        order = {p: n for n, p in enumerate([*self.func.params, *self.workspace])}
        return sorted(found, key=lambda f: order.get(f, len(order)))


def stage_of(s: Stmt) -> tuple[Buffer, ...] | None:
    """The buffers that `s` computes, if they are those of one stage: one, or several that are always stored at once."""
    single: set[tuple[Buffer, ...]] = set()
    stack = [s]
    while stack:
        node = stack.pop()
        if isinstance(node, Store):
            single.add((node.buffer,))
        elif isinstance(node, MultiStore):
            single.add(tuple(t.buffer for t in node.stores))
        else:
            stack.extend(children(node))
    return next(iter(single)) if len(single) == 1 else None


def divisions(loop: For, scope: set[Expr]) -> list[Expr]:
    """Integer quotients and remainders in `loop` that change with its variable but with no loop inside, inner ones first.

    Only where the divisor cannot be zero: it is a constant, or a factor of the loop's extent.
    """
    found: dict[Expr, None] = {}
    for s in walk_stmt(loop.body):
        for e in own_exprs(s):
            for node in walk(e):
                if node.op in ("floordiv", "floormod") and node.dtype.lanes == 1:
                    variables = free_vars(node)
                    if loop.var in variables and variables <= scope and not loads(node):
                        if all(_divisor_is_safe(n, loop.extent) for n in walk(node)):
                            found.setdefault(node)
    return list(found)


def _divisor_is_safe(e: Expr, extent: Expr) -> bool:
    if e.op not in ("floordiv", "floormod"):
        return True
    factors, stack = set(), [extent]
    while stack:
        factor = stack.pop()
        factors.add(factor)
        stack.extend(factor.args if factor.op == "mul" else ())
    return e.args[1].op == "const" or e.args[1] in factors


def shared(*values: Expr) -> list[Expr]:
    """Sub-expressions that `values` use more than once and always evaluate, operands first."""
    references: dict[Expr, int] = {}
    stack, always = list(dict.fromkeys(values)), set(values)
    while stack:
        node = stack.pop()
        lazy = node.op == "select" and node.args[0].dtype.lanes == 1
        # a masked load reads under its mask: it is no value by itself, only its index is
        parts = [*node.args[1].args, node.args[0], node.args[2]] if is_masked_load(node) else node.args
        for n, a in enumerate(parts):
            references[a] = references.get(a, 0) + 1
            if not (lazy and n > 0) and a not in always:
                always.add(a)
                stack.append(a)
    worth = ("const", "var", "ramp", "broadcast")
    return [
        n for n in dict.fromkeys(node for value in values for node in walk(value))
        if n in always and references.get(n, 0) > 1 and n.op not in worth and not (n.dtype.is_int and not loads(n))
    ]  # fmt: skip
