"""The accelerator as a target: kernel IR becomes an instruction stream, which the simulator runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tensorlang.codegen.emit import EmittedKernel
from tensorlang.codegen.target import Function, Need, Passes, Target
from tensorlang.config import Settings
from tensorlang.errors import BuildError, ScheduleError
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr
from tensorlang.ir.machine import Machine
from tensorlang.ir.stmt import Allocate, Evaluate, For, PrimFunc, Seq, Stmt
from tensorlang.symbolic.affine import linear_form

from .machine import CAPACITY, CLOCK, ELEMENT, SIDE, Simulator
from .tiles import FEATURE, schedule

PADS = {"accel.a": "a", "accel.b": "b", "accel.acc": "acc"}


class Accelerator(Target):
    name = "accelerator"
    language = "instruction stream"
    memory = "accelerator"

    def machine(self, threads: int) -> Machine:
        return Machine(vector_bytes=SIDE, threads=1, scopes=tuple(PADS), features=frozenset((FEATURE,)), limits=dict(CAPACITY))

    def schedule(self, s: Any, machine: Machine) -> bool:
        try:
            schedule(s, machine)
        except ScheduleError as error:  # a program of the right types and sizes, and yet no product
            raise BuildError(f"{s.func.name} does not fit the accelerator: {error}") from error
        return True

    def needs(self) -> list[Need]:
        return [Need("the accelerator", "simulated")]

    def passes(self, base: Passes) -> Passes:
        return [(name, run) for name, run in base if name != "vectorize"]  # its tiles are its vectors

    def emit(self, func: PrimFunc, name: str, trace: str) -> EmittedKernel:
        params = tuple((f"{b.dtype.name}*", b.name) for b in func.buffers)
        if func.size_vars:
            raise BuildError(f"{name}: the accelerator's loops have constant bounds; give the model's dimensions sizes")
        stream = _Writer(func, name).stmt(func.body, {})
        text = json.dumps({"kernel": name, "params": [n for _, n in params], "stream": stream})
        return EmittedKernel(name, text + "\n", params, ())

    def build(self, source: str, settings: Settings) -> bytes:
        return source.encode()

    def load(self, code: bytes, kernels: Sequence[EmittedKernel], settings: Settings) -> Mapping[str, Function]:
        programs = {p["kernel"]: p for p in map(json.loads, filter(str.strip, code.decode().splitlines()))}
        return {k.name: Simulator(programs[k.name]["stream"], programs[k.name]["params"]) for k in kernels}

    def time(self, function: Function, args: Sequence[np.ndarray | int], repeats: int = 10) -> float:
        assert isinstance(function, Simulator)
        return function(*args).cycles / CLOCK  # the same each time


class _Writer:
    """One kernel; scratchpads are handed out as allocations nest."""

    def __init__(self, func: PrimFunc, name: str):
        self.func, self.name = func, name
        self.base: dict[Buffer, int] = {}
        self.used = dict.fromkeys(PADS, 0)

    def refuse(self, what: str) -> BuildError:
        return BuildError(f"{self.name}: the accelerator moves and multiplies tiles of 16x16; it has no word for {what}")

    def stmt(self, s: Stmt, loops: Mapping[Expr, str]) -> list[Any]:
        if isinstance(s, Seq):
            return [i for inner in s.stmts for i in self.stmt(inner, loops)]
        if isinstance(s, For):
            if s.extent.op != "const":
                raise self.refuse(f"a loop of {s.extent} trips")
            label = f"v{len(loops)}"
            return [["loop", label, int(s.extent.value), self.stmt(s.body, {**loops, s.var: label})]]
        if isinstance(s, Allocate):
            return self.allocate(s, loops)
        if isinstance(s, Evaluate):
            return [self.call(s.expr, loops)]
        raise self.refuse(f"{type(s).__name__.lower()} statements")

    def allocate(self, s: Allocate, loops: Mapping[Expr, str]) -> list[Any]:
        scope, size = s.buffer.scope, s.buffer.shape[0]
        if scope not in PADS or size.op != "const":
            raise self.refuse(f"an array of {size} elements in {scope!r}")
        before = self.used[scope]
        self.base[s.buffer] = before
        self.used[scope] += int(size.value)
        if self.used[scope] * ELEMENT[scope] > CAPACITY[scope]:
            needed = self.used[scope] * ELEMENT[scope]
            raise BuildError(f"{self.name}: {needed} bytes in {scope}, which has {CAPACITY[scope]}; use smaller tiles")
        stream = self.stmt(s.body, loops)
        self.used[scope] = before
        return stream

    def call(self, e: Expr, loops: Mapping[Expr, str]) -> list[Any]:
        word = str(e.value)
        if word == "accel.mac.reset":
            return ["zero", *self.pads(e.args[:1], ["accel.acc"], loops), self.number(e.args[1])]
        if word == "accel.mac.update":
            return ["mac", *self.pads(e.args[:3], ["accel.acc", "accel.a", "accel.b"], loops), *map(self.number, e.args[3:])]
        if word in ("accel.load_a.body", "accel.load_b.body"):
            pad = "a" if "load_a" in word else "b"
            to, source, *strides = e.args
            places = self.pads([to], [f"accel.{pad}"], loops), self.memory(source, loops)
            return ["load", pad, *places[0], *places[1], *map(self.number, strides)]
        if word == "accel.store.body":
            to, source, *strides = e.args
            return ["store", *self.memory(to, loops), *self.pads([source], ["accel.acc"], loops), *map(self.number, strides)]
        raise self.refuse(word)

    def number(self, e: Expr) -> int:
        if e.op != "const":
            raise self.refuse(f"a stride of {e}")
        return int(e.value)

    def pads(self, operands: Sequence[Expr], scopes: Sequence[str], loops: Mapping[Expr, str]) -> list[list[Any]]:
        """Addresses in the scratchpads that the operands have to lie in."""
        found = []
        for e, scope in zip(operands, scopes, strict=True):
            if e.op != "load" or e.value.scope != scope:
                raise BuildError(f"{self.name}: an operand of the array lies in {scope}; use cache_read or cache_write for it")
            constant, *rest = self.address(e.args[0], loops)
            found.append([constant + self.base[e.value], *rest])
        return found

    def memory(self, e: Expr, loops: Mapping[Expr, str]) -> tuple[str, list[Any]]:
        if e.op != "load" or e.value not in self.func.buffers:
            raise self.refuse(f"DMA of {e}")
        return e.value.name, self.address(e.args[0], loops)

    def address(self, e: Expr, loops: Mapping[Expr, str]) -> list[Any]:
        form = linear_form(e, loops)
        if form is None or form[1].op != "const" or not all(isinstance(c, int) for c in form[0].values()):
            raise self.refuse(f"the address {e}")
        return [int(form[1].value), *([loops[v], c] for v, c in form[0].items())]


target = Accelerator()
