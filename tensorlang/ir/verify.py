"""What must hold of every program, before and after every pass. All faults found are reported at once.

* Scopes: every variable and buffer is defined where it is used, and not hidden by another definition of it. A block's
  body sees sizes, its own iteration variables and what it defines itself; `init` does not see reduce variables.
* Types: operands agree; indices are integers, one per dimension; a stored value has the buffer's type; conditions are bool.
* Blocks: distinct names; known kinds; `init` writes what the body writes.
* Vectors exist only after blocks are gone, and a vector condition guards vector stores only.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from tensorlang.errors import InternalError
from tensorlang.ir.buffer import SCOPES, Buffer, is_scope
from tensorlang.ir.dtype import DType
from tensorlang.ir.expr import BINARY, COMPARE, Expr, call_dtype
from tensorlang.ir.intrinsics import INTRINSICS
from tensorlang.ir.printer import LOOP_WORDS, format_func
from tensorlang.ir.stmt import Allocate, Block, CallPacked, Evaluate, For, If, MultiStore, PrimFunc, Seq, Stmt, Store
from tensorlang.ir.visitor import walk, walk_stmt

GPU_AXES = ("blockIdx.", "threadIdx.", "vthread")
ITER_KINDS = ("spatial", "reduce")


def verify(func: PrimFunc) -> None:
    """Check `func`.

    Raises:
        InternalError: lists everything that is wrong, with the program, the culprits marked.
    """
    problems = find_problems(func)
    if not problems:
        return
    notes: dict[Stmt, str] = {}
    for s, text in problems:
        if s is not None:
            notes[s] = f"{notes[s]}; {text}" if s in notes else text
    listed = "\n".join(f"  - {text}" for _, text in problems)
    raise InternalError(f"{func.name} is not a sound program:\n{listed}\n\n{format_func(func, notes)}")


def find_problems(func: PrimFunc) -> list[tuple[Stmt | None, str]]:
    """Every fault of `func`, with the statement that it is in (None: the parameters)."""
    return _Verifier(func).run()


class _Verifier:
    def __init__(self, func: PrimFunc):
        self.func = func
        self.problems: list[tuple[Stmt | None, str]] = []
        self.at: Stmt | None = None
        self.sizes = set(func.size_vars)
        self.vars: set[Expr] = set(self.sizes)  # what is visible here
        self.buffers: set[Buffer] = set(func.buffers)
        self.defined: set[Expr | Buffer] = {*self.sizes, *self.buffers}  # what has been visible anywhere so far
        self.block_names: set[str] = set()
        self.block: Block | None = None
        self.typed: set[Expr] = set()  # whose types were checked, which do not depend on scopes
        self.vectors_allowed = not any(isinstance(s, Block) for s in walk_stmt(func.body))

    def run(self) -> list[tuple[Stmt | None, str]]:
        func = self.func
        if len(set(func.params)) != len(func.params):
            self.report("a parameter occurs twice")
        if not 0 <= func.num_outputs <= len(func.buffers):
            self.report(f"num_outputs is {func.num_outputs}, but there are {len(func.buffers)} buffers")
        for v in func.size_vars:
            if v.op != "var" or not v.dtype.is_int:
                self.report(f"parameter {v} is neither a buffer nor an integer variable")
        for b in func.buffers:
            self.buffer(b)
        self.stmt(func.body, masked=False)
        return self.problems

    def report(self, text: str) -> None:
        if (self.at, text) not in self.problems:
            self.problems.append((self.at, text))

    # -- statements ------------------------------------------------------------------------------------------------
    def stmt(self, s: Stmt, masked: bool) -> None:
        outer, self.at = self.at, s
        if isinstance(s, Seq):
            for c in s.stmts:
                self.stmt(c, masked)
        elif isinstance(s, Allocate):
            self.buffer(s.buffer)
            self.define(s.buffer, self.buffers)
            outer_buffers, self.buffers = self.buffers, self.buffers | {s.buffer}
            self.stmt(s.body, masked)
            self.buffers = outer_buffers
        elif isinstance(s, For):
            self.loop(s, masked)
        elif isinstance(s, If):
            self.condition(s.cond, "the condition of an if")
            masked = masked or s.cond.dtype.lanes > 1
            self.stmt(s.then, masked)
            if s.else_ is not None:
                self.stmt(s.else_, masked)
        elif isinstance(s, Store):
            self.store(s, masked)
        elif isinstance(s, MultiStore):
            for store in s.stores:
                self.store(store, masked)
            if not s.stores or len({(t.buffer, t.indices) for t in s.stores}) != len(s.stores):
                self.report("simultaneous stores write different elements, at least one")
        elif isinstance(s, CallPacked):
            self.call_packed(s)
        elif isinstance(s, Evaluate):
            self.expr(s.expr, "an evaluated expression", effects=True)
            if s.expr.op != "call":
                self.report(f"evaluates {s.expr}, which is no call")
        elif isinstance(s, Block):
            self.check_block(s)
        else:
            self.report(f"{type(s).__name__} is no statement")
        self.at = outer

    def call_packed(self, s: CallPacked) -> None:
        for e in (a for a in s.args if isinstance(a, Expr)):
            self.expr(e, f"an argument of {s.name}")
            if e.dtype.lanes != 1:
                self.report(f"passes a vector to {s.name}")
        for b in s.buffers:
            if b not in self.buffers:
                self.report(f"passes {b.name} to {s.name}, which is not defined here")
        if s.shapes is not None and len(s.shapes) != len(s.buffers):
            self.report(f"{s.name} gets {len(s.buffers)} buffer(s) in {len(s.shapes)} shape(s)")
        for shape in s.shapes or ():
            for d in shape:
                self.integer(d, f"a dimension passed to {s.name}")
        for b in s.outputs:
            if b not in s.buffers:
                self.report(f"{b.name} is an output of {s.name}, but no argument")
            if b in self.func.inputs:
                self.report(f"{s.name} writes the input {b.name}")

    def define(self, thing: Expr | Buffer, visible: Collection[Expr | Buffer]) -> None:
        # The same variable may be bound again beside its scope: passes that copy a statement need not rename.
        if thing in visible:
            self.report(f"{thing.name} is defined where it is defined already")
        self.defined.add(thing)

    def buffer(self, b: Buffer) -> None:
        for d in b.shape:
            self.integer(d, f"a dimension of {b.name}")
        if not is_scope(b.scope):
            self.report(f"buffer {b.name} has scope {b.scope!r}; there are {', '.join(SCOPES)}, and a target's own, with a dot")
        if b.dtype.lanes != 1:
            self.report(f"buffer {b.name} has vector elements ({b.dtype})")

    def loop(self, s: For, masked: bool) -> None:
        self.integer(s.extent, f"the extent of loop {s.var}")
        if s.var.op != "var" or not s.var.dtype.is_int or s.var.dtype.lanes != 1:
            self.report(f"{s.var} is no integer variable, but a loop's")
        if s.kind not in LOOP_WORDS and not s.kind.startswith(GPU_AXES):
            self.report(f"loop {s.var} is of unknown kind {s.kind!r}")
        self.define(s.var, self.vars)
        outer, self.vars = self.vars, self.vars | {s.var}
        self.stmt(s.body, masked)
        self.vars = outer

    def check_block(self, s: Block) -> None:
        if not s.name:
            self.report("a block has no name")
        if s.name in self.block_names:
            self.report(f"two blocks are named {s.name!r}")
        self.block_names.add(s.name)
        self.condition(s.predicate, f"the predicate of block {s.name!r}")
        if s.predicate.dtype.lanes > 1:
            self.report(f"the predicate of block {s.name!r} is a vector")
        if len({it.var for it in s.iters}) != len(s.iters):
            self.report(f"an iteration variable of block {s.name!r} occurs twice")
        for it in s.iters:
            if it.kind not in ITER_KINDS:
                self.report(f"iteration variable {it.var} is of unknown kind {it.kind!r}")
            if it.var.op != "var":
                self.report(f"{it.var} is no variable, but an iteration variable of {s.name!r}")
            self.integer(it.extent, f"the extent of {it.var}")
            self.integer(it.binding, f"the binding of {it.var}")
            if it.binding.dtype != it.var.dtype:
                self.report(f"{it.var} is {it.var.dtype}, its binding {it.binding} is {it.binding.dtype}")
            self.define(it.var, self.vars)
        outer_vars, outer_block, self.block = self.vars, self.block, s
        if s.init is not None:
            self.vars = self.sizes | {it.var for it in s.iters if it.kind != "reduce"}
            self.stmt(s.init, masked=False)
            written = _stored(s.body)
            for b in _stored(s.init) - written:
                self.report(f"init of block {s.name!r} writes {b.name}, which the body does not write")
        self.vars = self.sizes | {it.var for it in s.iters}
        self.stmt(s.body, masked=False)
        self.vars, self.block = outer_vars, outer_block

    def store(self, s: Store, masked: bool) -> None:
        b = s.buffer
        if b not in self.buffers:
            self.report(f"stores to {b.name}, which is not defined here")
        if b in self.func.inputs:
            self.report(f"stores to the input {b.name}")
        self.indices(b, s.indices)
        for i in s.indices:
            self.expr(i, f"an index of {b.name}")
        self.expr(s.value, f"what is stored to {b.name}")
        if s.value.dtype.scalar != b.dtype.scalar:
            self.report(f"stores {s.value.dtype} to {b.name}, which is {b.dtype}")
        lanes = max((i.dtype.lanes for i in s.indices), default=1)
        if s.value.dtype.lanes != lanes:
            self.report(f"stores {s.value.dtype.lanes} lane(s) of {b.name} at an index of {lanes} lane(s)")
        if masked and lanes == 1:
            self.report(f"one element of {b.name} is stored under a vector condition")

    # -- expressions -----------------------------------------------------------------------------------------------
    def integer(self, e: Expr, what: str) -> None:
        self.expr(e, what)
        if not e.dtype.is_int or e.dtype.lanes != 1:
            self.report(f"{what} is {e}, of type {e.dtype}, no integer")

    def condition(self, e: Expr, what: str) -> None:
        self.expr(e, what)
        if not e.dtype.is_bool:
            self.report(f"{what} is {e}, of type {e.dtype}, not bool")

    def expr(self, e: Expr, what: str, effects: bool = False) -> None:
        for node in walk(e):
            if node.op == "var" and node not in self.vars:
                self.undefined(node, what)
            elif node.op == "load" and node.value not in self.buffers:
                self.report(f"{what} reads {node.value.name}, which is not defined here")
            if node not in self.typed:
                self.typed.add(node)
                self.types(node, known_calls=not (effects and node is e))

    def undefined(self, v: Expr, what: str) -> None:
        if self.block is not None and v in self.defined:
            self.report(f"{what} uses {v.name}, which block {self.block.name!r} does not see: only its own variables and sizes")
        else:
            self.report(f"{what} uses {v.name}, which is not defined here")

    def indices(self, b: Buffer, indices: Iterable[Expr]) -> None:
        index = tuple(indices)
        if len(index) != b.ndim:
            self.report(f"{b.name} has {b.ndim} dimension(s) but is indexed with {len(index)}")
        for i in index:
            if not i.dtype.is_int:
                self.report(f"index {i} of {b.name} is {i.dtype}, no integer")

    def types(self, e: Expr, known_calls: bool) -> None:
        if e.dtype.lanes > 1 and not self.vectors_allowed:
            self.report(f"{e} is a vector; vectors are made after blocks are lowered")
        lanes = max((a.dtype.lanes for a in e.args), default=1)
        mixed = {a.dtype.lanes for a in e.args} - {1, lanes}
        if mixed:
            self.report(f"{e} mixes vectors of {lanes} and {mixed.pop()} lanes")
        scalars = [a.dtype.scalar for a in e.args]
        if e.op in BINARY or e.op in COMPARE or e.op in ("min", "max"):
            self.same(e, scalars)
        elif e.op == "select":
            self.same(e, scalars[1:])
            self.bools(e, scalars[:1])
        elif e.op in ("and", "or", "not"):
            self.bools(e, scalars)
        elif e.op == "load":
            self.indices(e.value, e.args)
        elif e.op == "reduce":
            self.report(f"{e} is a reduction inside a loop nest; it should be a block with reduce variables")
        elif e.op == "call" and known_calls:
            known = INTRINSICS.get(e.value)
            if known is None:
                self.report(f"{e} calls {e.value}, which is no intrinsic")
            elif len(e.args) != known.arity:
                self.report(f"{e} calls {e.value} with {len(e.args)} argument(s); it takes {known.arity}")
            elif e.dtype != call_dtype(e.value, e.args):
                self.report(f"{e} is {e.dtype}, but {e.value} gives {call_dtype(e.value, e.args)}")

    def same(self, e: Expr, scalars: list[DType]) -> None:
        if len(set(scalars)) > 1:
            self.report(f"{e} has operands of types {' and '.join(map(str, scalars))}")

    def bools(self, e: Expr, scalars: list[DType]) -> None:
        if any(not d.is_bool for d in scalars):
            self.report(f"{e} takes {' and '.join(map(str, scalars))} for a condition")


def _stored(s: Stmt) -> set[Buffer]:
    found = {n.buffer for n in walk_stmt(s) if isinstance(n, Store)}
    return found | {b for n in walk_stmt(s) if isinstance(n, CallPacked) for b in n.outputs}
