"""Programs as text. The text is valid Python syntax, complete and deterministic, and `parser.parse_func` reads it back.

    @prim_func(source={"y": "model.py:7"})                                 only if there are attributes
    def dense(x: f32[M, K], w: f32[N, K], y: f32[M, N], M: i64, N: i64, K: i64) -> y:
        acc = alloc(f32[4], scope="local")                                 lives to the end of the suite
        for i in parallel(M, chunk=4):                                     range, parallel, vectorized, unrolled, bind
            for j in range(N):
                for k in range(K):
                    with block("y", vi=spatial(M, i), vj=spatial(N, j), vk=reduce(K, k), where=i < M):
                        with init():
                            y[vi, vj] = 0.0
                        y[vi, vj] = y[vi, vj] + x[vi, vk] * w[vj, vk]
        index[i], value[i] = select(c, index[i], j), select(c, value[i], x[j])        at once
        call_packed("sort", x, y, 1, outputs=[y])                          whole buffers to a function of the host

Names are unique: a loop variable or buffer in the whole function, a block's own variables among what the block sees.
"""

from __future__ import annotations

import keyword
import re
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from tensorlang.ir.buffer import Buffer
from tensorlang.ir.dtype import SCALARS, i64
from tensorlang.ir.expr import Expr, format_expr, is_const
from tensorlang.ir.stmt import (
    PRINTERS,
    Allocate,
    Block,
    CallPacked,
    Evaluate,
    For,
    If,
    Iter,
    MultiStore,
    PrimFunc,
    Seq,
    Stmt,
    Store,
)

WIDTH = 120
# Words that have a meaning of their own in the text, in places where a name could stand too.
RESERVED = frozenset([*keyword.kwlist, *SCALARS, "where", "annotations", "dtype", "scope"])
LOOP_WORDS = {"serial": "range", "parallel": "parallel", "vectorized": "vectorized", "unrolled": "unrolled"}

Highlight = Mapping[Stmt, str] | Iterable[Stmt]


def format_func(func: PrimFunc, highlight: Highlight = ()) -> str:
    """`func` as text.

    Args:
        highlight: statements to mark with a line of carets below, optionally with a remark each.
    """
    return _Printer(highlight).func(func)


def format_stmt(s: Stmt, highlight: Highlight = ()) -> str:
    """A statement as text; what it does not define itself keeps its name."""
    printer = _Printer(highlight)
    printer.suite([s], 0)
    return "\n".join(printer.lines)


def format_value(value: Any) -> str:
    """An attribute's value: literals as themselves, anything else as `opaque("type")`, which does not parse back."""
    if isinstance(value, tuple):
        inner = ", ".join(map(format_value, value))
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    if isinstance(value, list):
        return f"[{', '.join(map(format_value, value))}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{format_value(k)}: {format_value(v)}" for k, v in value.items()) + "}"
    if value is None or isinstance(value, bool | int | str):
        return quote(value) if isinstance(value, str) else repr(value)
    if isinstance(value, float):
        return repr(value) if value - value == 0 else f'float("{value}")'
    return f'opaque("{type(value).__name__}")'


def quote(text: str) -> str:
    """`text` in double quotes where Python allows it."""
    return f'"{text}"' if text.isprintable() and '"' not in text and "\\" not in text else repr(text)


class _Names:
    """Spells variables and buffers; the spelling of an object is fixed when it is first seen."""

    def __init__(self) -> None:
        self.of: dict[Expr | Buffer, str] = {}
        self.taken: set[str] = set(RESERVED)

    def __call__(self, thing: Expr | Buffer) -> str:
        return self.of[thing] if thing in self.of else self.define(thing)

    def define(self, thing: Expr | Buffer) -> str:
        base = re.sub(r"\W", "_", thing.name) or "v"
        base = f"v{base}" if base[0].isdigit() else base
        name, serial = base, 1
        while name in self.taken:
            name, serial = f"{base}_{serial}", serial + 1
        self.taken.add(name)
        self.of[thing] = name
        return name

    def forget(self, thing: Expr) -> None:
        self.taken.discard(self.of.pop(thing, ""))


class _Printer:
    def __init__(self, highlight: Highlight):
        marks = highlight if isinstance(highlight, Mapping) else dict.fromkeys(highlight, "")
        self.marks = {id(s): note for s, note in marks.items()}
        self.names = _Names()
        self.lines: list[str] = []

    def expr(self, e: Expr) -> str:
        return format_expr(e, self.names, self.names)

    def type(self, buffer: Buffer) -> str:
        return f"{buffer.dtype}[{', '.join(map(self.expr, buffer.shape)) or '()'}]"

    # -- layout ----------------------------------------------------------------------------------------------------
    def line(self, depth: int, text: str) -> None:
        self.lines.append("    " * depth + text)

    def call_line(self, depth: int, head: str, items: list[str], tail: str) -> None:
        """`head(items)tail`, broken inside the parentheses where one line is too short."""
        pad = "    " * depth
        one = f"{pad}{head}({', '.join(items)}){tail}"
        if len(one) <= WIDTH:
            self.lines.append(one)
            return
        self.lines.append(f"{pad}{head}(")
        row = ""
        for item in items:
            if row and len(pad) + 8 + len(row) + len(item) + 2 > WIDTH:
                self.lines.append(f"{pad}        {row}")
                row = ""
            row += f"{' ' if row else ''}{item},"
        self.lines.append(f"{pad}        {row}")
        self.lines.append(f"{pad}){tail}")

    def mark(self, s: Stmt, depth: int, first: int) -> None:
        if id(s) not in self.marks:
            return
        width = max(len(self.lines[first].strip()), 1)
        pad, note = "    " * depth, self.marks[id(s)]
        self.lines.append(f"{pad}#{'^' * max(width - 1, 1)}")
        self.lines.extend(textwrap.wrap(note, WIDTH, initial_indent=f"{pad}# ", subsequent_indent=f"{pad}# "))

    # -- functions -------------------------------------------------------------------------------------------------
    def func(self, func: PrimFunc) -> str:
        for p in func.params:
            self.names.define(p)
        name = re.sub(r"\W", "_", func.name)
        name = name if name and not name[0].isdigit() and not keyword.iskeyword(name) else f"k_{name}"
        attrs = dict(func.attrs)
        if attrs or name != func.name:
            plain = all(k.isidentifier() and k not in RESERVED and k != "name" for k in attrs)
            items = [f"name={quote(func.name)}"] if name != func.name else []
            items += [f"{k}={format_value(v)}" for k, v in attrs.items()] if plain else [f"attrs={format_value(attrs)}"]
            self.call_line(0, "@prim_func", items, "")
        outputs = [self.names(b) for b in func.outputs]
        result = "None" if not outputs else outputs[0] if len(outputs) == 1 else f"({', '.join(outputs)})"
        self.call_line(0, f"def {name}", [self.param(p) for p in func.params], f" -> {result}:")
        self.suite([func.body], 1)
        return "\n".join(self.lines)

    def param(self, p: Buffer | Expr) -> str:
        if isinstance(p, Expr):
            return f"{self.names(p)}: {p.dtype}"
        kind = self.type(p)
        return f"{self.names(p)}: {kind}" if p.scope == "global" else f"{self.names(p)}: alloc({kind}, scope={quote(p.scope)})"

    # -- statements ------------------------------------------------------------------------------------------------
    def suite(self, stmts: Iterable[Stmt], depth: int) -> None:
        flat = flatten(stmts)
        if not flat:
            self.line(depth, "pass")
        for n, s in enumerate(flat):
            first = len(self.lines)
            if isinstance(s, Allocate):
                self.allocate(s, depth, last=n == len(flat) - 1)
            elif isinstance(s, Store):
                self.line(depth, f"{self.target(s)} = {self.expr(s.value)}")
                self.mark(s, depth, first)
            elif isinstance(s, MultiStore):
                values = ", ".join(self.expr(t.value) for t in s.stores)
                comma = "," if len(s.stores) == 1 else ""
                self.line(depth, f"{', '.join(map(self.target, s.stores))}{comma} = {values}{comma}")
                self.mark(s, depth, first)
            elif isinstance(s, CallPacked):
                args = [self.names(a) if isinstance(a, Buffer) else self.expr(a) for a in s.args]
                outputs = f"outputs=[{', '.join(map(self.names, s.outputs))}]"
                shapes = ", ".join(f"[{', '.join(map(self.expr, shape))}]" for shape in s.shapes or ())
                items = [quote(s.name), *args, outputs, *([] if s.shapes is None else [f"shapes=[{shapes}]"])]
                self.call_line(depth, "call_packed", items, "")
                self.mark(s, depth, first)
            elif isinstance(s, Evaluate):
                self.line(depth, self.expr(s.expr))
                self.mark(s, depth, first)
            elif isinstance(s, For):
                self.loop(s, depth)
            elif isinstance(s, If):
                self.line(depth, f"if {self.expr(s.cond)}:")
                self.mark(s, depth, first)
                self.suite([s.then], depth + 1)
                if s.else_ is not None:
                    self.line(depth, "else:")
                    self.suite([s.else_], depth + 1)
            elif isinstance(s, Block):
                self.block(s, depth)

    def target(self, s: Store) -> str:
        return f"{self.names(s.buffer)}[{', '.join(map(self.expr, s.indices)) or '()'}]"

    def allocate(self, s: Allocate, depth: int, last: bool) -> None:
        first = len(self.lines)
        scope = "" if s.buffer.scope == "global" else f", scope={quote(s.buffer.scope)}"
        align = f", align={s.buffer.align!r}" if s.buffer.align else ""
        text = f"alloc({self.type(s.buffer)}{scope}{align})"  # before the name: a buffer's shape cannot mention itself
        name = self.names.define(s.buffer)
        self.line(depth, f"{name} = {text}" if last else f"with {text} as {name}:")
        self.mark(s, depth, first)
        self.suite([s.body], depth if last else depth + 1)

    def loop(self, s: For, depth: int) -> None:
        first = len(self.lines)
        extent = self.expr(s.extent)
        name = self.names.define(s.var)
        word = LOOP_WORDS.get(s.kind)
        items = [extent] if word else [quote(s.kind), extent]
        if s.var.dtype != i64:
            items.append(f"dtype={quote(str(s.var.dtype))}")
        items += _annotations(s.annotations, ())
        self.call_line(depth, f"for {name} in {word or 'bind'}", items, ":")
        self.mark(s, depth, first)
        self.suite([s.body], depth + 1)

    def block(self, s: Block, depth: int) -> None:
        first = len(self.lines)
        outer = [(self.expr(it.extent), self.expr(it.binding)) for it in s.iters]
        where = [] if is_const(s.predicate) and s.predicate.value else [f"where={self.expr(s.predicate)}"]
        # An iteration variable bound outside too (a block inside itself) would be forgotten below: keep the outer name.
        hidden: dict[Expr | Buffer, str] = {it.var: self.names.of[it.var] for it in s.iters if it.var in self.names.of}
        items = [quote(s.name)]
        for it, (extent, binding) in zip(s.iters, outer, strict=True):
            items.append(f"{self.names.define(it.var)}={self.iteration(it, extent, binding)}")
        own = [self.names(it.var) for it in s.iters]
        self.call_line(depth, "with block", items + where + _annotations(s.annotations, own), ":")
        self.mark(s, depth, first)
        if s.init is not None:
            self.line(depth + 1, "with init():")
            self.suite([s.init], depth + 2)
        self.suite([s.body], depth + 1)
        for it in s.iters:
            self.names.forget(it.var)
        self.names.of.update(hidden)

    def iteration(self, it: Iter, extent: str, binding: str) -> str:
        kind = "" if it.var.dtype == i64 else f", dtype={quote(str(it.var.dtype))}"
        if it.kind.isidentifier():
            return f"{it.kind}({extent}, {binding}{kind})"
        return f"bind({quote(it.kind)}, {extent}, {binding}{kind})"


def _annotations(annotations: Mapping[str, Any], own: Iterable[str]) -> list[str]:
    taken = RESERVED.union(own)
    if all(k.isidentifier() and k not in taken for k in annotations):
        return [f"{k}={format_value(v)}" for k, v in annotations.items()]
    return [f"annotations={format_value(annotations)}"]


def flatten(stmts: Iterable[Stmt]) -> list[Stmt]:
    """`stmts` with nested sequences opened."""
    flat: list[Stmt] = []
    stack = list(stmts)[::-1]
    while stack:
        s = stack.pop()
        if isinstance(s, Seq):
            stack.extend(reversed(s.stmts))
        else:
            flat.append(s)
    return flat


PRINTERS["func"] = format_func
PRINTERS["stmt"] = format_stmt
