"""A digest of what a program means to the compiler: equal for programs that differ in names only.

The 32 convolutions of a network that have one shape are one kernel, called with different memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr
from tensorlang.ir.stmt import Allocate, Block, For, PrimFunc, Stmt, Store
from tensorlang.ir.visitor import children, own_exprs, walk


def kernel_key(func: PrimFunc) -> str:
    """The digest of `func`; names of the function, its parameters, loops and stages do not count."""
    return _Serialiser().run(func)


class _Serialiser:
    """Writes a program as a list of records, in which variables, buffers and expressions are numbered on first sight."""

    def __init__(self) -> None:
        self.numbers: dict[Any, int] = {}
        self.records: list[str] = []

    def run(self, func: PrimFunc) -> str:
        constants = set(func.attrs.get("constants", ()))
        for p in func.params:
            if isinstance(p, Buffer):
                self._buffer(p)
                self.records.append("constant" if p.name in constants else "parameter")
            else:
                self._expr(p)
        self.records.append(str(func.num_outputs))
        self._stmt(func.body)
        return hashlib.sha256("\n".join(self.records).encode()).hexdigest()

    def _number(self, thing: Any, record: str) -> int:
        self.numbers[thing] = number = len(self.numbers)
        self.records.append(f"{number}={record}")
        return number

    def _buffer(self, b: Buffer) -> int:
        if b not in self.numbers:
            shape = [self._expr(d) for d in b.shape]
            self._number(b, f"buffer {b.dtype} {b.scope} {shape}")
        return self.numbers[b]

    def _expr(self, e: Expr) -> int:
        for node in walk(e):
            if node in self.numbers:
                continue
            if node.op == "var":
                value = ""
            elif node.op == "load":
                value = str(self._buffer(node.value))
            else:
                value = repr(node.value)
            self._number(node, f"{node.op} {node.dtype} {value} {[self.numbers[a] for a in node.args]}")
        return self.numbers[e]

    def _stmt(self, root: Stmt) -> None:
        stack = [root]
        while stack:
            s = stack.pop()
            parts = [type(s).__name__]
            if isinstance(s, For):
                parts += [str(self._expr(s.var)), s.kind, _annotations(s.annotations)]
            elif isinstance(s, Allocate):
                parts.append(str(self._buffer(s.buffer)))
            elif isinstance(s, Store):
                parts.append(str(self._buffer(s.buffer)))
            elif isinstance(s, Block):
                parts += [f"{self._expr(i.var)} {i.kind}" for i in s.iters]
                parts += [_annotations(s.annotations), "" if s.init is None else "init"]
            parts += [str(self._expr(e)) for e in own_exprs(s)]
            below = children(s)
            self.records.append(f"{' '.join(parts)} / {len(below)}")
            stack.extend(reversed(below))


def _annotations(annotations: Mapping[str, Any]) -> str:
    return repr(sorted(annotations.items(), key=lambda item: item[0])) if annotations else ""
