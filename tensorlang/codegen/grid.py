"""Kernel IR on a grid of thread blocks: the structure that CUDA and its like share, whatever their syntax.

    for b in 8 (blockIdx.x):                one launch for each nest of the program, 8 blocks of 64 threads
        for t in 64 (threadIdx.x):   ->     b, t are the positions of block and thread
            y[b*64 + t] = x[b*64 + t]

Inside the loops bound to blocks, the nests bound to threads stand one behind the other, perhaps in loops that all threads of
a block go through together. What a block allocates there its threads share; what a thread allocates is its own. A barrier
stands between two nests if one writes what the other touches, and at the end of a loop around them.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass

from tensorlang.codegen.barriers import is_barrier, is_commit, place_barriers, read, waits_for, written
from tensorlang.codegen.emit import EmittedKernel, Emitter
from tensorlang.errors import BuildError
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr, const, eq, load
from tensorlang.ir.reduction import CROSS_THREAD
from tensorlang.ir.stmt import Allocate, For, If, PrimFunc, Seq, Stmt, Store
from tensorlang.ir.visitor import free_vars, loads, own_exprs, substitute, walk_stmt

AXES = ("x", "y", "z")


@dataclass(frozen=True)
class Launch:
    """One launch of a grid.

    Attributes:
        function: the emitted function.
        args: names of the kernel's parameters that it takes.
        blocks, threads: blocks of the grid, and threads in each, along each dimension.
    """

    function: str
    args: tuple[str, ...]
    blocks: tuple[Expr, ...]
    threads: tuple[int, ...]


@dataclass(frozen=True)
class GridKernel(EmittedKernel):
    """A kernel as text.

    Attributes:
        launches: what it consists of, in order.
        outputs: names of the parameters that it writes.
        sizes: the size variables, by the name of their parameter.
        aligned: names of the parameters that vectors are read from or written to: they have to begin at a multiple of 16 bytes.
    """

    launches: tuple[Launch, ...] = ()
    outputs: tuple[str, ...] = ()
    sizes: tuple[tuple[str, Expr], ...] = ()
    aligned: frozenset[str] = frozenset()


class GridEmitter(Emitter):
    """A program as functions that grids run. A language derives from it, and spells the statements below."""

    shared_bytes: int  # what a block may share without asking for more
    most_shared_bytes = 0  # what it may ask for, if that is more
    private_bytes: int  # what a thread may keep in an array of its own

    def __init__(self, func: PrimFunc, name: str):
        super().__init__(func, name)
        self.threads = [1, 1, 1]
        self.shared = 0
        self.written = written(func.body)
        self.private: set[Buffer] = set()  # arrays of a block of which every thread has its own
        self.aligned: set[Buffer] = set()  # what vectors are read from or written to

    # -- the language ----------------------------------------------------------------------------------------------
    def function(self, name: str, params: list[Buffer | Expr]) -> str:
        """The whole text of an emitted function, from `prologue` and `lines`."""
        raise NotImplementedError

    def position(self, v: Expr, axis: str, d: int, depth: int) -> None:
        """Define `v` as the position along dimension `d` of `axis`, "blockIdx" or "threadIdx"."""
        raise NotImplementedError

    def thread(self, d: int) -> str:
        """The thread's position along dimension `d`, as an operand."""
        raise NotImplementedError

    def open_if(self, cond: str, depth: int) -> None:
        raise NotImplementedError

    def open_else(self, depth: int) -> None:
        raise NotImplementedError

    def open_for(self, s: For, depth: int) -> None:
        raise NotImplementedError

    def close(self, depth: int) -> None:
        """The end of what was opened."""

    def barrier(self, depth: int) -> None:
        raise NotImplementedError

    def commit(self, depth: int) -> None:
        """The end of a group of asynchronous copies."""
        raise NotImplementedError

    def wait(self, pending: int, depth: int) -> None:
        """Wait for all groups of copies but the last `pending`."""
        raise NotImplementedError

    def declare_shared(self, buffer: Buffer, size: int) -> None:
        """An array of the block, at the top of the function."""
        raise NotImplementedError

    def declare_private(self, buffer: Buffer, size: int, depth: int) -> None:
        raise NotImplementedError

    def conjunction(self, conditions: list[str]) -> str:
        raise NotImplementedError

    def combine(self, loop: For, d: int, depth: int) -> None:
        """A loop bound to dimension `d` of the threads, who combine their values into one element (`cross_thread_sum`)."""
        raise BuildError(
            f"{self.func.name}: loop {loop.var.name} of a reduction is bound to {loop.kind}, and this target's threads cannot "
            "combine their values; rfactor it, and leave the loop that combines the parts serial"
        )

    # -- launches --------------------------------------------------------------------------------------------------
    def kernel(self, trace: str) -> GridKernel:
        """The emitted kernel; `trace`, the steps of its schedule, goes above it as a comment.

        Raises:
            BuildError: its thread axes are not such that a grid can run it; the message says how they have to be.
        """
        params = [(f"{p.dtype.name}*" if isinstance(p, Buffer) else p.dtype.name, self.spell(p)) for p in self.func.params]
        one_block = is_one_block(self.func.body, self.private, self.shared_bytes)
        nests = [self.func.body] if one_block else list(_flat(Emitter._root_allocations(self, self.func.body)))
        launches, texts = [], []
        for n, nest in enumerate(nests):
            launch, text = self._launch(nest, self.name if len(nests) == 1 else f"{self.name}_{n}")
            launches.append(launch)
            texts.append(text)
        params += [(f"{b.dtype.name}*", self.spell(b)) for b in self.workspace]
        space = tuple((self.spell(b), b.shape[0] * b.dtype.nbytes) for b in self.workspace)
        outputs = tuple(self.spell(b) for b in self.func.buffers if b in self.written)
        sizes = tuple((self.spell(v), v) for v in self.func.size_vars)
        steps = "".join(f"{self.comment} schedule: {step}\n" for step in trace.splitlines())
        text = steps + "\n".join(texts)
        aligned = frozenset(self.spell(b) for b in self.aligned) & {name for _, name in params}
        return GridKernel(self.name, text, tuple(params), space, (), tuple(launches), outputs, sizes, aligned)

    def _launch(self, nest: Stmt, function: str) -> tuple[Launch, str]:
        nest = self.with_barriers(nest)
        self.lines, self.prologue, self.shared = [], [], 0
        self.threads = self._most_threads(nest)
        blocks: list[Expr] = [const(1)] * 3
        self._block_axes(nest, 1, blocks)
        used_in_grid = {v for e in blocks for v in free_vars(e)}
        mentioned = _mentioned(nest) | used_in_grid
        used: list[Buffer | Expr] = [p for p in (*self.func.params, *self.workspace) if p in mentioned]
        rank = max((d + 1 for d in range(3) if blocks[d] is not const(1) or self.threads[d] > 1), default=1)
        launch = Launch(function, tuple(map(self.spell, used)), tuple(blocks[:rank]), tuple(self.threads[:rank]))
        return launch, self.function(function, used)

    def with_barriers(self, nest: Stmt) -> Stmt:
        """A nest of the program with the barriers that its threads need."""
        return place_barriers(nest, self.private)

    def together(self, s: Stmt) -> bool:
        """Whether the threads of dimension x go through a nest that is not bound to them together."""
        return False

    def _most_threads(self, nest: Stmt) -> list[int]:
        """Threads along each dimension: as many as the longest loop bound to it."""
        most = [1, 1, 1]
        for s in walk_stmt(nest):
            if isinstance(s, For) and (d := axis_of(s, "threadIdx")) is not None:
                if s.extent.op != "const":
                    raise BuildError(
                        f"{self.func.name}: loop {s.var.name} is bound to {s.kind}, but its extent {s.extent} is not constant; "
                        "split it by a constant and bind the inner loop"
                    )
                most[d] = max(most[d], s.extent.value)
        return most

    # -- statements of a block -------------------------------------------------------------------------------------
    def _block_axes(self, s: Stmt, depth: int, blocks: list[Expr]) -> None:
        """What is around the loops bound to blocks, and those."""
        d = axis_of(s, "blockIdx")
        if d is not None:
            assert isinstance(s, For)
            blocks[d] = s.extent
            self.position(s.var, "blockIdx", d, depth)
            self.scope.append(s.var)
            self._block_axes(s.body, depth, blocks)
            self.scope.pop()
        elif isinstance(s, If) and s.else_ is None and binds(s, "blockIdx"):
            self.open_if(self.expr(s.cond), depth)
            self._block_axes(s.then, depth + 1, blocks)
            self.close(depth)
        elif isinstance(s, Allocate) and binds(s, "blockIdx"):
            raise BuildError(f"{self.func.name}: {s.buffer.name} is allocated around a loop bound to blockIdx; move it inside")
        else:
            if inside := binds(s, "blockIdx"):
                raise BuildError(
                    f"{self.func.name}: loop {inside.var.name} is bound to {inside.kind} inside of other statements; the loops "
                    "bound to blockIdx have to be the outermost, one directly in the other"
                )
            self._together(s, depth)

    def _together(self, s: Stmt, depth: int) -> None:
        """A statement that all threads of a block reach."""
        self._announce(s, depth)
        if isinstance(s, Seq):
            for c in s.stmts:
                self._together(c, depth)
        elif is_barrier(s):
            self.barrier(depth)
        elif is_commit(s):
            self.commit(depth)
        elif (pending := waits_for(s)) is not None:
            self.wait(pending, depth)
        elif axis_of(s, "threadIdx") is not None:
            self._threads(s, depth)
        elif isinstance(s, Allocate):
            self._share(s.buffer)
            self._together(s.body, depth)
        elif not binds(s, "threadIdx"):
            self._one_thread(s, depth)
        elif isinstance(s, For):
            self.open_for(s, depth)
            self.scope.append(s.var)
            self._together(s.body, depth + 1)
            self.scope.pop()
            self.close(depth)
        elif isinstance(s, If):
            if changed := {a.value for a in loads(s.cond)} & written(s):
                raise BuildError(
                    f"{self.func.name}: what a block does depends on {min(b.name for b in changed)}, which it changes in "
                    "between: some threads would see the old value and some the new, and wait for each other forever"
                )
            self.open_if(self.expr(s.cond), depth)
            self._together(s.then, depth + 1)
            if s.else_ is not None:
                self.open_else(depth)
                self._together(s.else_, depth + 1)
            self.close(depth)
        else:
            raise BuildError(f"{self.func.name}: {type(s).__name__} cannot be emitted; lower the function first")

    def _share(self, buffer: Buffer) -> None:
        size = buffer.shape[0]
        if size.op != "const":
            raise BuildError(
                f"{self.func.name}: a block allocates {buffer.name}, whose size {size} is not constant; fix the shapes or "
                "compute it in a loop bound to threadIdx"
            )
        self.shared += size.value * buffer.dtype.nbytes
        most = max(self.shared_bytes, self.most_shared_bytes)
        if self.shared > most:
            raise BuildError(
                f"{self.func.name}: a block shares {self.shared} bytes for {buffer.name} and others, more than the "
                f"{most} that it may; use smaller tiles"
            )
        self.declare_shared(buffer, max(1, size.value))

    # -- statements of threads -------------------------------------------------------------------------------------
    def _threads(self, s: Stmt, depth: int) -> None:
        """A nest bound to threads, and what each of them does."""
        bound: list[tuple[int, For]] = []
        conditions: list[Expr] = []  # between the loops: ragged tiles' guards
        while (d := axis_of(s, "threadIdx")) is not None or (isinstance(s, If) and s.else_ is None and binds(s, "threadIdx")):
            if isinstance(s, If):
                conditions.append(s.cond)
                s = s.then
                continue
            assert isinstance(s, For) and d is not None
            bound.append((d, s))
            s = s.body
        if inside := binds(s, "threadIdx"):
            raise BuildError(
                f"{self.func.name}: loop {inside.var.name} is bound to {inside.kind} inside of other statements of a thread; "
                "loops bound to threadIdx have to stand directly in each other"
            )
        used = {d for d, _ in bound}
        guards = [f"{self.thread(d)} < {n.extent.value}" for d, n in bound if n.extent.value < self.threads[d]]
        alone = [d for d in range(3) if self.threads[d] > 1 and d not in used]
        guards += [f"{self.thread(d)} == 0" for d in alone if d > 0 or not self.together(s)]
        inner = depth + 1 if guards else depth
        if guards:
            self.open_if(self.conjunction(guards), depth)
        for d, loop in bound:
            self.position(loop.var, "threadIdx", d, inner)
        for cond in conditions:
            self.open_if(self.expr(cond), inner)
            inner += 1
        self.scope += [loop.var for _, loop in bound[:-1]]
        if combined := [loop for _, loop in bound if CROSS_THREAD in loop.annotations]:
            if combined != [bound[-1][1]]:
                name = combined[0].var.name
                raise BuildError(
                    f"{self.func.name}: threads combine what loop {name} adds up; it has to be the innermost bound loop"
                )
            self.combine(combined[0], bound[-1][0], inner)
        else:
            self._loop_body(bound[-1][1], inner)
        del self.scope[len(self.scope) - len(bound) + 1 :]
        for n in range(len(conditions)):
            self.close(inner - n - 1)
        if guards:
            self.close(depth)

    def _one_thread(self, s: Stmt, depth: int) -> None:
        """What is bound to no threads is done by one."""
        guards = [f"{self.thread(d)} == 0" for d in range(3) if self.threads[d] > 1 and (d > 0 or not self.together(s))]
        if guards:
            self.open_if(self.conjunction(guards), depth)
            self.stmt(s, depth + 1)
            self.close(depth)
        else:
            self.stmt(s, depth)

    def _for(self, s: For, depth: int) -> None:
        """A loop of one thread; that over virtual threads is one like any other."""
        self.open_for(s, depth)
        self._loop_body(s, depth + 1)
        self.close(depth)

    def _allocate(self, s: Allocate, depth: int) -> None:
        buffer, size = s.buffer, s.buffer.shape[0]
        if size.op != "const" or size.value * buffer.dtype.nbytes > self.private_bytes:
            raise BuildError(
                f"{self.func.name}: a thread allocates {buffer.name} of {size} elements, more than {self.private_bytes} bytes; "
                "compute less of it at a time"
            )
        self.declare_private(buffer, max(1, size.value), depth)
        self.stmt(s.body, depth)


@dataclass(frozen=True)
class CrossThread:
    """for t in threads: (if t == 0: y[i] = first); y[i] = y[i] op value(t)

    Attributes:
        store: the accumulation.
        first: what `y[i]` begins with; None where it was initialised before.
        value: what thread `t` contributes.
        op: the operator of the expression that combines.
        conditions: under which all of that happens, the same for all threads of the loop.
    """

    store: Store
    first: Expr | None
    value: Expr
    op: str
    conditions: tuple[Expr, ...]


def cross_thread(loop: For) -> CrossThread | None:
    """What the threads of a marked loop do together; None if it is not of that form."""
    found: list[tuple[tuple[Expr, ...], Store]] = []
    pending: list[tuple[tuple[Expr, ...], Stmt]] = [((), loop.body)]
    while pending:
        conditions, s = pending.pop(0)
        if isinstance(s, Seq):
            pending = [*((conditions, c) for c in s.stmts), *pending]
        elif isinstance(s, If) and s.else_ is None:
            parts = s.cond.args if s.cond.op == "and" else (s.cond,)
            pending.insert(0, ((*conditions, *parts), s.then))
        elif isinstance(s, Store):
            found.append((conditions, s))
        else:
            return None
    starts = eq(loop.var, 0)
    first = found[0] if len(found) == 2 and starts in found[0][0] else None
    if len(found) != (1 if first is None else 2):
        return None
    conditions, store = found[-1]
    own = load(store.buffer, store.indices)
    sides = [e for e in store.value.args if e is not own]
    if first is not None and (first[1].indices != store.indices or first[1].buffer is not store.buffer):
        return None
    if any(loop.var in free_vars(e) for e in (*store.indices, *conditions)) or len(sides) != 1 or own in loads(sides[0]):
        return None
    return CrossThread(store, None if first is None else first[1].value, sides[0], store.value.op, conditions)


def grid_of(launch: Launch, sizes: Mapping[Expr, int]) -> tuple[int, ...]:
    """The number of blocks along each dimension."""
    known = {v: const(n) for v, n in sizes.items()}
    return tuple(int(substitute(n, known).value) for n in launch.blocks)


def is_one_block(s: Stmt, private: Container[Buffer], shared_bytes: int) -> bool:
    """Whether a program is one block's work: bound to threads but not to blocks, with no more arrays than a block may share."""
    if binds(s, "blockIdx") or not binds(s, "threadIdx"):
        return False
    arrays = [c.buffer for c in walk_stmt(s) if isinstance(c, Allocate) and c.buffer not in private]
    sizes = [b.shape[0] * b.dtype.nbytes for b in arrays]
    return all(n.op == "const" for n in sizes) and sum(n.value for n in sizes) <= shared_bytes


def axis_of(s: Stmt, kind: str) -> int | None:
    """The dimension that a loop is bound to, if it is bound to an axis of `kind`."""
    if isinstance(s, For) and s.kind.startswith(f"{kind}."):
        return AXES.index(s.kind[-1])
    return None


def binds(s: Stmt, kind: str) -> For | None:
    """A loop in `s` that is bound to an axis of `kind`."""
    return next((c for c in walk_stmt(s) if isinstance(c, For) and axis_of(c, kind) is not None), None)


def _flat(s: Stmt) -> Iterator[Stmt]:
    if isinstance(s, Seq):
        for c in s.stmts:
            yield from _flat(c)
    else:
        yield s


def _mentioned(s: Stmt) -> set[object]:
    variables = {v for c in walk_stmt(s) for e in own_exprs(c) for v in free_vars(e)}
    return {*written(s), *read(s), *variables}
