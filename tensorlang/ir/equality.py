"""Equality of programs up to the names of variables and buffers, and a hash that is the same in every process.

Each expression has a digest of its operation, type and operands; a variable's is its number in order of definition. Two
programs are equal when their digests are: 128 bits of BLAKE2b make an accidental match out of the question.
What only serves messages is ignored: the function's name, and attribute `source`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

from tensorlang.errors import InternalError
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr
from tensorlang.ir.printer import flatten
from tensorlang.ir.stmt import Allocate, Block, CallPacked, Evaluate, For, If, MultiStore, PrimFunc, Seq, Stmt, Store

IGNORED_ATTRS = frozenset({"source"})


def structural_equal(a: PrimFunc | Stmt | Expr, b: PrimFunc | Stmt | Expr) -> bool:
    """Whether `a` and `b` are the same but for names; their free variables and buffers may be renamed one to one."""
    return a is b or structural_hash(a) == structural_hash(b)


def structural_hash(program: PrimFunc | Stmt | Expr) -> str:
    """32 hexadecimal digits that identify `program` up to names, on any machine."""
    return _Hasher().digest(program).hex()


def _hash(tag: str, parts: list[bytes]) -> bytes:
    h = blake2b(tag.encode(), digest_size=16)
    for p in parts:
        h.update(struct.pack("<I", len(p)))
        h.update(p)
    return h.digest()


class _Hasher:
    def __init__(self) -> None:
        self.number: dict[Expr | Buffer, bytes] = {}
        self.count = 0
        self.memo: dict[Expr, bytes] = {}
        self.param_names: dict[str, int] = {}

    def digest(self, program: PrimFunc | Stmt | Expr) -> bytes:
        if isinstance(program, Expr):
            return self.expr(program)
        return self.func(program) if isinstance(program, PrimFunc) else self.stmt(program)

    def func(self, func: PrimFunc) -> bytes:
        for v in func.size_vars:
            self.define_var(v)
        for b in func.buffers:
            self.define_buffer(b)
        kinds = [self.buffer(p) if isinstance(p, Buffer) else self.expr(p) for p in func.params]
        # An attribute may name parameters ("constants" does): what counts is which, not how they are called.
        self.param_names = {p.name: n for n, p in enumerate(func.params)}
        attrs = self.value({k: v for k, v in func.attrs.items() if k not in IGNORED_ATTRS})
        self.param_names = {}
        return _hash("func", [str(func.num_outputs).encode(), _hash("params", kinds), attrs, self.stmt(func.body)])

    # -- definitions -----------------------------------------------------------------------------------------------
    def define_var(self, v: Expr) -> None:
        if v in self.number:
            self.memo.clear()  # bound again: what was computed with its old number is stale
        self.count += 1
        self.number[v] = _hash("var", [str(self.count).encode(), str(v.dtype).encode()])

    def define_buffer(self, b: Buffer) -> bytes:
        if b in self.number:
            self.memo.clear()
        shape = [self.expr(d) for d in b.shape]
        self.count += 1
        kind = [str(self.count).encode(), str(b.dtype).encode(), b.scope.encode()]
        self.number[b] = _hash("buffer", [*kind, *([str(b.align).encode()] if b.align else []), *shape])
        return self.number[b]

    def buffer(self, b: Buffer) -> bytes:
        return self.number[b] if b in self.number else self.define_buffer(b)

    # -- expressions -----------------------------------------------------------------------------------------------
    def expr(self, e: Expr) -> bytes:
        stack = [(e, False)]
        while stack:
            node, operands_done = stack.pop()
            if node in self.memo:
                continue
            if operands_done or not node.args:
                self.memo[node] = self.node(node)
                continue
            stack.append((node, True))
            stack.extend((a, False) for a in reversed(node.args))
        return self.memo[e]

    def node(self, e: Expr) -> bytes:
        if e.op == "var":
            if e not in self.number:
                self.define_var(e)
            return self.number[e]
        parts = [str(e.dtype).encode(), *(self.memo[a] for a in e.args)]
        if e.op == "const":
            parts.append(struct.pack("<d", e.value) if e.dtype.is_float else str(int(e.value)).encode())
        elif e.op == "load":
            parts.append(self.buffer(e.value))
        elif e.op == "call":
            parts.append(e.value.encode())
        elif e.op == "reduce":
            kind, axes = e.value
            parts += [str(kind).encode(), *(self.expr(a) for a in axes)]
        return _hash(e.op, parts)

    # -- statements ------------------------------------------------------------------------------------------------
    def stmt(self, s: Stmt) -> bytes:
        flat = flatten([s])
        if len(flat) != 1 or isinstance(s, Seq):
            return _hash("seq", [self.stmt(c) for c in flat]) if len(flat) != 1 else self.stmt(flat[0])
        if isinstance(s, Store):
            return _hash("store", [self.buffer(s.buffer), *map(self.expr, s.indices), self.expr(s.value)])
        if isinstance(s, MultiStore):
            return _hash("stores", [self.stmt(t) for t in s.stores])
        if isinstance(s, CallPacked):
            args = [self.buffer(a) if isinstance(a, Buffer) else self.expr(a) for a in s.args]
            shapes = [_hash("shape", [self.expr(d) for d in shape]) for shape in s.shapes or ()]
            return _hash("call_packed", [s.name.encode(), _hash("args", args), *map(self.buffer, s.outputs), *shapes])
        if isinstance(s, Evaluate):
            return _hash("evaluate", [self.expr(s.expr)])
        if isinstance(s, If):
            return _hash("if", [self.expr(s.cond), self.stmt(s.then), *([] if s.else_ is None else [self.stmt(s.else_)])])
        if isinstance(s, Allocate):
            return _hash("allocate", [self.define_buffer(s.buffer), self.stmt(s.body)])
        if isinstance(s, For):
            head = [self.expr(s.extent), s.kind.encode(), self.value(s.annotations)]
            self.define_var(s.var)
            return _hash("for", [*head, self.expr(s.var), self.stmt(s.body)])
        if isinstance(s, Block):
            return self.block(s)
        raise InternalError(f"{type(s).__name__} is no statement")

    def block(self, s: Block) -> bytes:
        head = [s.name.encode(), self.expr(s.predicate), self.value(s.annotations)]
        iters = [[it.kind.encode(), self.expr(it.extent), self.expr(it.binding)] for it in s.iters]
        for it, parts in zip(s.iters, iters, strict=True):
            self.define_var(it.var)
            parts.append(self.expr(it.var))
        head += [_hash("iter", parts) for parts in iters]
        init = _hash("init", [self.stmt(s.init)] if s.init is not None else [])
        return _hash("block", [*head, init, self.stmt(s.body)])

    # -- attributes ------------------------------------------------------------------------------------------------
    def value(self, value: Any) -> bytes:
        if isinstance(value, Mapping):
            items = sorted((self.value(k), self.value(v)) for k, v in value.items())
            return _hash("map", [part for item in items for part in item])
        if isinstance(value, tuple | list):
            return _hash("tuple", [self.value(v) for v in value])
        if isinstance(value, str) and value in self.param_names:
            return _hash("param", [str(self.param_names[value]).encode()])
        if isinstance(value, Expr):
            return self.expr(value)
        if value is None or isinstance(value, bool | int | float | str):
            return _hash(type(value).__name__, [repr(value).encode()])
        raise InternalError(f"an attribute of type {type(value).__name__} has no stable hash: {value!r}")
