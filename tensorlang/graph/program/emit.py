"""`main` as Python: one line for a call, `if` and `while` for control flow, and memory given back after its last use.

numba charges about 5 ms for each statement of `main`, so they are few: one a call, and one for each symbolic size or
offset that is needed more than once.
"""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tensorlang.codegen import intrinsics
from tensorlang.codegen.emit import HEADER as HEADER
from tensorlang.codegen.expr_printer import ExprPrinter
from tensorlang.errors import InternalError, ModelError
from tensorlang.graph.ir import Value
from tensorlang.graph.program.storage import nbytes_of, touched
from tensorlang.graph.program.tree import (
    Argument,
    Block,
    Branch,
    Call,
    Check,
    Define,
    Deliver,
    Grow,
    Move,
    Own,
    ReadSize,
    Repeat,
    Require,
    Statement,
    Step,
)
from tensorlang.ir.expr import Expr, add, const, mul
from tensorlang.ir.reduction import stores_of
from tensorlang.ir.stmt import Block as IrBlock, PrimFunc
from tensorlang.ir.visitor import substitute, walk, walk_stmt

if TYPE_CHECKING:
    from tensorlang.graph.program.builder import ProgramBuilder

MAIN_SIGNATURE = "i64 arena, i64 weights, i64* inputs, i64* outputs, i64* dims"
_ARITHMETIC = frozenset(("add", "sub", "mul", "div", "min", "max", "neg", "call", "floordiv", "floormod", "select"))
_INDENT = "    "


class Main:
    """The text of `main`, its kernel calls, and the messages of its checks (check k leaves with status k + 1).

    What is specific to Python is the spelling of each statement: another language derives from this class (`emit_c`).

    Attributes:
        serial: whether kernels that are written by hand, in Python, can be part of the program.
        external: whether regions of other code generators can be.
        typed: whether values of each element type lie in an arena of their own.
        reserved: names that kernels must not have.
    """

    serial = True
    external = False
    typed = False
    reserved = frozenset((*intrinsics.__all__, *dir(builtins), *keyword.kwlist, "main"))

    def __init__(self, program: ProgramBuilder):
        self.program = program
        self.storage = program.storage
        self.names: dict[Expr, str] = {}
        self.heap: dict[Value, str] = {}
        self.steps: list[Step] = []
        self.checks: list[str] = []
        self.live: dict[str, None] = {}  # variables with memory that is to be given back, where the text stands now
        self.calls: dict[Call, Step] = {}
        self.lines: list[str] = []
        self.printer = ExprPrinter(self._name, lambda b: b.name, {})

    @staticmethod
    def module(kernels: Sequence[str], main: str) -> str:
        """The whole text."""
        return f"{HEADER}\n\n" + "\n\n".join([*kernels, main])

    def run(self, block: Block) -> tuple[str, list[Step], list[str]]:
        self._resolve(block)
        for k, (name, v) in enumerate(self.program.dims.items()):
            self.names[v] = f"d{k}_{_word(name)}"
            self.lines.append(f"{_INDENT}{self.names[v]} = dims[{k}]")
        values = [a.value for s in self.steps for a in s.args if self.storage.is_known(a.value)]
        for n, e in enumerate(_shared(values)):
            self.lines.append(f"{_INDENT}t{n} = {self.printer(e)}")
            self.printer.bound[e] = f"t{n}"
        self._block(block, 1, ())
        for k, v in enumerate(self.program.told, len(self.program.dims)):
            self.lines.append(f"{_INDENT}dims[{k}] = {self._name(v)}")
        header = [f'@program("{MAIN_SIGNATURE}")', "def main(ctx, arena, weights, inputs, outputs, dims):"]
        return "\n".join(header + (self.lines or [f"{_INDENT}pass"])) + "\n", self.steps, self.checks

    def _name(self, v: Expr) -> str:
        if v not in self.names:
            if v not in self.program.defined and not v.name.endswith("_next"):
                raise ModelError(f"size {v} is not determined by the shapes of the model's inputs")
            self.names[v] = f"s{len(self.names)}_{_word(v.name)}"
        return self.names[v]

    # -- places ----------------------------------------------------------------------------------------------------
    def _resolve(self, block: Block) -> None:
        """The steps of all calls, in the order of the text, and names for what loops count."""
        for s in block:
            if isinstance(s, Repeat):
                self.names[s.trip] = f"trip{len(self.names)}"
            if isinstance(s, Call):
                self.calls[s] = self._step(s)
                self.steps.append(self.calls[s])
            elif isinstance(s, Branch):
                self._resolve(s.then)
                self._resolve(s.otherwise)
            elif isinstance(s, Repeat):
                self._resolve(s.body)

    def _step(self, call: Call) -> Step:
        site, kernel = call.site, call.site.kernel
        ready = self.program.prepare_site(site)
        args: list[Argument] = []
        for b in kernel.func.buffers:
            if b.name in ready:
                array = ready[b.name]
                args.append(Argument("weights", const(self.program.weights.add(id(array), array))))
            else:
                place = self._place(site.outputs.get(b.name) or site.inputs[b.name])
                args.append(_shifted(place, site.shift[b.name]) if b.name in site.shift else place)
        args += [Argument("size", substitute(v, site.sizes)) for v in kernel.func.size_vars]
        for name, nbytes in kernel.emitted.workspace:
            size = substitute(nbytes, site.sizes)
            offset = self.storage.offsets.get((call, name))
            args.append(Argument("arena", offset) if offset is not None else Argument("space", size))
        total: Expr = const(0)
        for value in dict.fromkeys([*site.inputs.values(), *site.outputs.values()]):
            total = add(total, nbytes_of(value.type))
        return Step(kernel.emitted.name, tuple(args), site.label, _flops(site.func), total)

    def _place(self, value: Value) -> Argument:
        root = self.program.root(value)
        if self.storage.on_heap(root):
            return Argument("heap", const(0), self._heap_name(root))
        if root in self.program.output_number:
            return Argument("output", const(self.program.output_number[root]))
        if root in self.program.input_number:
            return Argument("input", const(self.program.input_number[root]))
        if root.constant is not None:
            return Argument("weights", const(self.program.weights.add(id(root.constant), root.constant)))
        if root not in self.storage.offsets:
            raise InternalError(f"{value!r} is read but nothing computes it")
        return Argument("arena", self.storage.offsets[root])

    def _heap_name(self, root: Value) -> str:
        if root not in self.heap:
            self.heap[root] = f"p{len(self.heap)}"
        return self.heap[root]

    # -- statements ------------------------------------------------------------------------------------------------
    def _block(self, block: Block, depth: int, foreign: Sequence[Value]) -> None:
        """The statements, and after the last that touches memory allocated here, that it is given back.

        Args:
            foreign: values that this block fills for the one around it.
        """
        last, kept = self._lifetimes(block, foreign)
        for n, s in enumerate(block):
            self._statement(s, depth)
            for root in [r for r, end in last.items() if end == n and r not in kept]:
                self._release(depth, self.heap[root])

    def _lifetimes(self, block: Block, foreign: Sequence[Value]) -> tuple[dict[Value, int], set[Value]]:
        """The last statement that touches each piece of memory allocated here, and the pieces that are handed over."""
        root = self.program.root
        outside = {root(v) for v in foreign}
        owned: set[Value] = set()
        last: dict[Value, int] = {}
        kept: set[Value] = set()
        for n, s in enumerate(block):
            made: list[Value] = []
            if isinstance(s, Own):
                made = [s.value]
            elif isinstance(s, Branch | Repeat):
                made = s.results
            elif isinstance(s, Move):
                kept.add(root(s.source))
                made = [] if s.replace else [s.target]
            elif isinstance(s, Deliver):
                kept.add(root(s.value))
            owned |= {root(v) for v in made if self.storage.on_heap(v)} - outside
            for value in _all_touched(s):
                if root(value) in owned:
                    last[root(value)] = n
        return last, kept

    def _line(self, depth: int, text: str) -> None:
        self.lines.append(_INDENT * depth + text)

    def _statement(self, s: Statement, depth: int) -> None:
        if isinstance(s, Call):
            self._call(self.calls[s], depth)
        elif isinstance(s, ReadSize):
            self._line(depth, f"{self._name(s.dim)} = {self._read(s.value, 'i64')}")
            if s.low is not None:
                self._check(f"{self._name(s.dim)} >= {s.low}", f"at node {s.label!r} a size is below {s.low}", depth)
        elif isinstance(s, Check):
            text = f"{self.printer.show(s.a, 4)} == {self.printer.show(s.b, 4)}"
            self._check(text, f"at node {s.label!r} two sizes differ that must be equal: {s.a} and {s.b}", depth)
        elif isinstance(s, Require):
            self._check(f"{self._read(s.value, 'u8')} {'!=' if s.holds else '=='} 0", s.message, depth)
        elif isinstance(s, Define):
            self._line(depth, f"{self._name(s.dim)} = {self.printer(s.value)}")
        elif isinstance(s, Own):
            name = self._heap_name(self.program.root(s.value))
            self._allocate(depth, name, self.printer(nbytes_of(s.value.type)))
            if s.stack:
                self._line(depth, f"{name}_room = 0")
        elif isinstance(s, Move):
            source, target = (self._heap_name(self.program.root(v)) for v in (s.source, s.target))
            if s.replace:
                self._line(depth, f"release(ctx, {target})")
            self._line(depth, f"{target} = {source}")
            del self.live[source]
            self.live[target] = None
        elif isinstance(s, Grow):
            self._grow(s, depth)
        elif isinstance(s, Deliver):
            self._line(depth, f"outputs[{s.number}] = {self._heap_name(self.program.root(s.value))}")
        elif isinstance(s, Branch):
            self._branch(s, depth)
        else:
            self._repeat(s, depth)

    def _branch(self, s: Branch, depth: int) -> None:
        self._line(depth, f"if {self._read(s.condition, 'u8')} != 0:")
        before = dict(self.live)
        self._nested(s.then, depth, s.results)
        if s.otherwise:
            self.live = before
            self._line(depth, "else:")
            self._nested(s.otherwise, depth, s.results)

    def _nested(self, block: Block, depth: int, results: Sequence[Value]) -> None:
        before = len(self.lines)
        self._block(block, depth + 1, results)
        if len(self.lines) == before:
            self._line(depth + 1, "pass")

    def _repeat(self, s: Repeat, depth: int) -> None:
        trip = self.names[s.trip]
        limit, go = f"{trip}_limit", f"{trip}_go"
        self._line(depth, f"{limit} = {self._read(s.trips, 'i64')}")
        self._line(depth, f"{go} = {self._read(s.go, 'u8')}")
        self._line(depth, f"{trip} = 0")
        self._line(depth, f"while {trip} < {limit} and {go} != 0:")
        self._line(depth + 1, f"view({_spell(self._place(s.index), self.printer)}, i64)[0] = {trip}")
        self._block(s.body, depth + 1, s.results)
        self._line(depth + 1, f"{go} = {self._read(s.proceed, 'u8')}")
        self._line(depth + 1, f"{trip} += 1")

    def _grow(self, s: Grow, depth: int) -> None:
        name = self._heap_name(self.program.root(s.stack))
        trip, nbytes = self.names[s.trip], self.printer.show(s.nbytes, 10)
        self._line(depth, f"if {trip} >= {name}_room:")
        self._line(depth + 1, f"{name}_room = 2 * {name}_room + 4")
        self._line(depth + 1, f"{name}_more = scratch(ctx, {name}_room * {nbytes})")
        self._line(depth + 1, f"{s.kernel}(ctx, {name}, {name}_more, {trip} * {nbytes})")
        self._line(depth + 1, f"release(ctx, {name})")
        self._line(depth + 1, f"{name} = {name}_more")

    def _allocate(self, depth: int, name: str, nbytes: str) -> None:
        self._line(depth, f"{name} = scratch(ctx, {nbytes})")
        self.live[name] = None

    def _release(self, depth: int, name: str) -> None:
        self._line(depth, f"release(ctx, {name})")
        del self.live[name]

    def _check(self, condition: str, message: str, depth: int) -> None:
        """Leave unless the condition holds, with nothing still allocated."""
        if message not in self.checks:
            self.checks.append(message)
        if self.live:
            self._line(depth, f"if not ({condition}):")
            for name in self.live:
                self._line(depth + 1, f"release(ctx, {name})")
            depth += 1
        self._line(depth, f"check({condition}, {self.checks.index(message) + 1})")

    def _call(self, step: Step, depth: int) -> None:
        spaces = []
        texts = ["ctx"]
        for n, a in enumerate(step.args):
            if a.place == "space":
                name = f"space{len(self.lines)}_{n}"
                self._line(depth, f"{name} = scratch(ctx, {self.printer(a.value)})")
                spaces.append(name)
                texts.append(name)
            else:
                texts.append(_spell(a, self.printer))
        self._line(depth, f"{step.kernel}({', '.join(texts)})")
        for name in spaces:
            self._line(depth, f"release(ctx, {name})")

    def _read(self, value: Value, dtype: str) -> str:
        """The one element of a value."""
        if value.constant is not None:
            return str(int(value.constant.reshape(())))
        return f"view({_spell(self._place(value), self.printer)}, {dtype})[0]"


def _all_touched(s: Statement) -> list[Value]:
    found = list(touched(s))
    if isinstance(s, Branch):
        blocks = [s.then, s.otherwise]
        found += s.results
    elif isinstance(s, Repeat):
        blocks = [s.body]
        found.append(s.proceed)
    else:
        blocks = []
    for block in blocks:
        for inner in block:
            found += _all_touched(inner)
    return found


def _shifted(a: Argument, nbytes: Expr) -> Argument:
    if a.place in ("input", "output"):
        return replace(a, shift=nbytes)
    return replace(a, value=add(a.value, nbytes))


def _spell(a: Argument, printer: ExprPrinter) -> str:
    if a.place == "size":
        return printer(a.value)
    if a.place in ("input", "output"):
        base, offset = f"{a.place}s[{a.value.value}]", a.shift
    else:
        base, offset = a.name or a.place, a.value
    if offset.op == "const" and offset.value == 0:
        return base
    return f"{base} + {printer.show(offset, 10)}"


def _flops(func: PrimFunc) -> Expr:
    """Arithmetic operations on floating-point elements, each counted once per point of its block."""
    total: Expr = const(0)
    for s in walk_stmt(func.body):
        stores = stores_of(s.body) if isinstance(s, IrBlock) else None
        if not isinstance(s, IrBlock) or stores is None:
            continue
        nodes = {e for store in stores for e in walk(store.value) if e.dtype.is_float and e.op in _ARITHMETIC}
        points: Expr = const(len(nodes))
        for it in s.iters:
            points = mul(points, it.extent)
        total = add(total, points)
    return total


def _shared(values: Sequence[Expr]) -> list[Expr]:
    """The sub-expressions that `values` use more than once, operands before users."""
    uses: dict[Expr, int] = {}
    order: dict[Expr, None] = {}
    for e in values:
        uses[e] = uses.get(e, 0) + 1
        for node in walk(e):
            if node not in order:
                order[node] = None
                for a in node.args:
                    uses[a] = uses.get(a, 0) + 1
    return [e for e in order if e.args and uses[e] > 1]


def _word(name: str) -> str:
    return re.sub(r"\W", "_", name, flags=re.ASCII)
