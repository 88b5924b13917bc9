"""A target in one file, as a third party would write it: it emits code for a stack machine, and interprets that.

    push 2 | load x | mul | ...        one instruction a word or two; loops and branches are jumps

Nothing here imports anything of tensorlang but what docs/targets.md names.
"""

from __future__ import annotations

import json

import numpy as np

from tensorlang.codegen.emit import EmittedKernel
from tensorlang.codegen.target import Need, Target
from tensorlang.errors import BuildError
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.dtype import dtype as as_dtype
from tensorlang.ir.machine import Machine
from tensorlang.ir.semantics import BINARY_NUMPY, call_numpy, cast_numpy
from tensorlang.ir.stmt import Allocate, For, If, MultiStore, PrimFunc, Seq, Store


class ToyTarget(Target):
    name = "toy"
    language = "stack code"
    memory = "toy"  # it has its own: values are copied there and back

    def machine(self, threads: int) -> Machine:
        return Machine(vector_bytes=4, threads=1, limits={"stack": 64})

    def needs(self) -> list[Need]:
        return [Need("the toy machine", "simulated")]

    def emit(self, func: PrimFunc, name: str, trace: str) -> EmittedKernel:
        writer = Writer(func, name)
        writer.stmt(func.body)
        params = tuple(
            (f"{p.dtype.name}*", writer.name(p)) if isinstance(p, Buffer) else ("i64", writer.name(p)) for p in func.params
        )
        return EmittedKernel(name, f"kernel {name}\n" + "\n".join(writer.code) + "\nend\n", params, ())

    def build(self, source: str, settings) -> bytes:
        kernels: dict[str, list[list]] = {}
        for line in filter(str.strip, source.splitlines()):
            word, *rest = line.split()
            if word == "kernel":
                code = kernels[rest[0]] = []
            elif word != "end":
                code.append([word, *rest])
        return json.dumps(kernels).encode()

    def load(self, code: bytes, kernels, settings):
        programs = json.loads(code)
        return {k.name: StackMachine(programs[k.name], [n for _, n in k.params]) for k in kernels}


class Writer:
    """One kernel: statements become instructions, expressions postfix."""

    def __init__(self, func: PrimFunc, name: str):
        self.kernel, self.code, self.names = name, [], {}

    def name(self, thing) -> str:
        return self.names.setdefault(thing, f"{thing.name}_{len(self.names)}".replace(" ", "_"))

    def put(self, *words) -> int:
        self.code.append(" ".join(map(str, words)))
        return len(self.code) - 1

    def stmt(self, s) -> None:
        if isinstance(s, Seq):
            for inner in s.stmts:
                self.stmt(inner)
        elif isinstance(s, Store | MultiStore):
            stores = s.stores if isinstance(s, MultiStore) else (s,)
            for store in stores:
                self.expr(store.indices[0])
                self.expr(store.value)
            for store in reversed(stores):
                self.put("store", self.name(store.buffer))
        elif isinstance(s, For):
            self.put("push", "i64", 0)
            self.put("set", self.name(s.var))
            top = self.put("get", self.name(s.var))
            self.expr(s.extent)
            self.put("lt")
            leave = self.put("else")
            self.stmt(s.body)
            self.put("get", self.name(s.var))
            self.put("push", "i64", 1)
            self.put("add")
            self.put("set", self.name(s.var))
            self.put("jump", top)
            self.code[leave] = f"else {len(self.code)}"
        elif isinstance(s, If):
            self.expr(s.cond)
            leave = self.put("else")
            self.stmt(s.then)
            if s.else_ is not None:
                over = self.put("jump")
                self.code[leave] = f"else {len(self.code)}"
                self.stmt(s.else_)
                self.code[over] = f"jump {len(self.code)}"
            else:
                self.code[leave] = f"else {len(self.code)}"
        elif isinstance(s, Allocate):
            self.expr(s.buffer.shape[0])
            self.put("allocate", s.buffer.dtype.name, self.name(s.buffer))
            self.stmt(s.body)
        else:
            raise BuildError(f"{self.kernel}: the toy machine has no word for {type(s).__name__}")

    def expr(self, e) -> None:
        if e.op == "const":
            self.put("push", e.dtype.name, repr(e.value).replace(" ", ""))
        elif e.op == "var":
            self.put("get", self.name(e))
        elif e.op == "load":
            self.expr(e.args[0])
            self.put("load", self.name(e.value))
        elif e.op == "select":
            self.expr(e.args[0])
            leave = self.put("else")
            self.expr(e.args[1])
            over = self.put("jump")
            self.code[leave] = f"else {len(self.code)}"
            self.expr(e.args[2])
            self.code[over] = f"jump {len(self.code)}"
        elif e.op in (*BINARY_NUMPY, "neg", "not", "cast", "call"):
            for a in e.args:
                self.expr(a)
            if e.op in ("cast", "call"):
                self.put(e.op, e.dtype.name, *([e.value, len(e.args)] if e.op == "call" else []))
            else:
                self.put(e.op)
        else:
            raise BuildError(f"{self.kernel}: the toy machine has no word for {e.op}")


class StackMachine:
    """One loaded kernel."""

    def __init__(self, code, params):
        self.code, self.params = code, params

    def __call__(self, *args) -> None:
        memory = {n: a.reshape(-1) for n, a in zip(self.params, args, strict=True) if isinstance(a, np.ndarray)}
        values = {n: np.int64(a) for n, a in zip(self.params, args, strict=True) if not isinstance(a, np.ndarray)}
        stack, at = [], 0
        with np.errstate(all="ignore"):
            while at < len(self.code):
                word, *rest = self.code[at]
                at += 1
                if word == "push":
                    kind = as_dtype(rest[0]).numpy.type
                    stack.append(kind(rest[1] == "True") if rest[0] == "bool" else kind(number(rest[1])))
                elif word == "get":
                    stack.append(values[rest[0]])
                elif word == "set":
                    values[rest[0]] = stack.pop()
                elif word == "load":
                    stack.append(memory[rest[0]][stack.pop()])
                elif word == "store":
                    value, index = stack.pop(), stack.pop()
                    memory[rest[0]][index] = value
                elif word == "allocate":
                    memory[rest[1]] = np.zeros(int(stack.pop()), as_dtype(rest[0]).numpy)
                elif word == "jump":
                    at = int(rest[0])
                elif word == "else":
                    at = at if stack.pop() else int(rest[0])
                elif word == "neg":
                    stack.append(-stack.pop())
                elif word == "not":
                    stack.append(np.logical_not(stack.pop()))
                elif word == "cast":
                    stack.append(cast_numpy(stack.pop(), as_dtype(rest[0])))
                elif word == "call":
                    count = int(rest[2])
                    operands = tuple(stack[len(stack) - count :])
                    del stack[len(stack) - count :]
                    stack.append(call_numpy(rest[1], as_dtype(rest[0]), operands))
                else:
                    right, left = stack.pop(), stack.pop()
                    stack.append(BINARY_NUMPY[word](left, right))


def number(text: str) -> float | int:
    return float(text) if any(c in text for c in ".einf") else int(text)


target = ToyTarget()
