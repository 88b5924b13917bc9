"""The program as C: what calls the kernels, in a function that a C program calls with its inputs and outputs.

    int classifier_run(const float *restrict input, float *restrict probabilities) {
        conv_relu(input, conv_relu_w, conv_relu_b, arena_f32);
        softmax(arena_f32, probabilities);
        return 0;
    }

Intermediates lie in one static array for each element type: C forbids to use memory as two types. Nothing is allocated, so
every size has to be known; weights are constant arrays with names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tensorlang.codegen.c.emit import RESERVED, c_identifier
from tensorlang.codegen.c.printer import C_TYPES, CPrinter, comment
from tensorlang.graph.ir import Value
from tensorlang.graph.program.emit_static import StaticMain
from tensorlang.graph.program.tree import Argument, Block, Branch, Call, Check, Repeat, Require, Step
from tensorlang.ir.dtype import SCALARS, dtype
from tensorlang.ir.expr import Expr

if TYPE_CHECKING:
    from tensorlang.graph.program.builder import ProgramBuilder


class CMain(StaticMain):
    """The function `<model>_run` and the names of all that it mentions.

    Attributes:
        inputs, outputs: parameter names in the model's order.
        weights: of each constant array (name, element type, offset in the block of weights, elements).
    """

    target = "c"
    statements = (Call, Branch, Repeat, Check, Require)
    typed = True
    reserved = RESERVED | frozenset(["model"])

    def __init__(self, program: ProgramBuilder):
        super().__init__(program)
        graph = program.graph
        self.taken = {*self.reserved, *program.kernels, *(f"arena_{t}" for t in SCALARS)}
        self.model = self._unique(graph.name or "model")
        self.taken.add(f"{self.model}_run")
        self.inputs = [self._unique(v.name) for v in graph.inputs]
        given = graph.output_names or [v.name for v in graph.outputs]
        self.outputs = [self._unique(n) for n in given]
        self.weights: list[tuple[str, str, int, int]] = []
        self._weight_names: dict[int, str] = {}
        self.text = ""
        self.printer: CPrinter = CPrinter(self._name, lambda b: b.name, {})  # type: ignore[assignment]

    def _unique(self, hint: str) -> str:
        base = c_identifier(hint)
        name, serial = base, 1
        while name in self.taken:
            name, serial = f"{base}_{serial}", serial + 1
        self.taken.add(name)
        return name

    @staticmethod
    def module(kernels: list[str], main: str) -> str:  # type: ignore[override]
        return "\n".join([*kernels, main])

    def run(self, block: Block) -> tuple[str, list[Step], list[str]]:
        self._resolve(block)
        for step in self.steps:
            self._name_weights(step)
        self._block(block, 1, ())
        self.text = "\n".join([f"{self.prototype} {{", *self.lines, "    return 0;", "}"]) + "\n"
        return self.text, self.steps, self.checks

    @property
    def prototype(self) -> str:
        graph = self.program.graph
        params = [f"const {_type(v)} *restrict {n}" for v, n in zip(graph.inputs, self.inputs, strict=True)]
        params += [f"{_type(v)} *restrict {n}" for v, n in zip(graph.outputs, self.outputs, strict=True)]
        return f"int {self.model}_run({', '.join(params) or 'void'})"

    @property
    def arenas(self) -> dict[str, int]:
        """Elements of the static array of each element type."""
        return {t: n.value // SCALARS[t].nbytes for t, n in self.program.storage.arenas.items() if n.value}

    def _name_weights(self, step: Step) -> None:
        """A constant is named after the first kernel that reads it and its parameter there."""
        pieces = dict(self.program.weights.pieces)
        names = [n for _, n in self.program.kernels[step.kernel].emitted.params]
        for argument, param in zip(step.args, names, strict=True):
            if argument.place == "weights" and argument.value.value not in self._weight_names:
                name = self._unique(f"{step.kernel}_{param}")
                array = pieces[argument.value.value]
                self._weight_names[argument.value.value] = name
                self.weights.append((name, dtype(array.dtype).storage.name, argument.value.value, array.size))

    # -- statements ------------------------------------------------------------------------------------------------
    def _call(self, step: Step, depth: int) -> None:
        types = [t.rstrip("*") for t, _ in self.program.kernels[step.kernel].emitted.params]
        texts = [self._argument(a, t) for a, t in zip(step.args, types, strict=True)]
        self._line(depth, f"{step.kernel}({', '.join(texts)});  // {comment(step.label)}")

    def _argument(self, a: Argument, type: str) -> str:
        if a.place == "size":
            return self.printer(a.value)
        if a.place == "weights":
            return self._weight_names[a.value.value]
        if a.place in ("input", "output"):
            base = (self.inputs if a.place == "input" else self.outputs)[a.value.value]
            return base + self._offset(a.shift, type)
        return f"arena_{type}" + self._offset(a.value, type)

    def _offset(self, nbytes: Expr, type: str) -> str:
        """Bytes as elements."""
        size = SCALARS[type].nbytes
        if nbytes.op == "const":
            return f" + {nbytes.value // size}" if nbytes.value else ""
        return f" + {self.printer.show(nbytes, 11)} / {size}"

    def _branch(self, s: Branch, depth: int) -> None:
        self._line(depth, f"if ({self._read(s.condition, 'bool')}) {{")
        self._block(s.then, depth + 1, s.results)
        if s.otherwise:
            self._line(depth, "} else {")
            self._block(s.otherwise, depth + 1, s.results)
        self._line(depth, "}")

    def _repeat(self, s: Repeat, depth: int) -> None:
        trip = self.names[s.trip]
        limit, go = f"{trip}_limit", f"{trip}_go"
        self._line(depth, f"const int64_t {limit} = {self._read(s.trips, 'i64')};")
        self._line(depth, f"uint8_t {go} = {self._read(s.go, 'bool')};")
        self._line(depth, f"for (int64_t {trip} = 0; {trip} < {limit} && {go}; ++{trip}) {{")
        self._line(depth + 1, f"{self._read(s.index, 'i64')} = {trip};")
        self._block(s.body, depth + 1, s.results)
        self._line(depth + 1, f"{go} = {self._read(s.proceed, 'bool')};")
        self._line(depth, "}")

    def _check(self, condition: str, message: str, depth: int) -> None:
        if message not in self.checks:
            self.checks.append(message)
        self._line(depth, f"if (!({condition})) {{")
        self._line(depth + 1, f"return {self.checks.index(message) + 1};")
        self._line(depth, "}")

    def _read(self, value: Value, type: str) -> str:
        if value.constant is not None:
            return str(int(value.constant.reshape(())))
        return f"({self._argument(self._place(value), self._type_name(value))})[0]"

    def _type_name(self, value: Value) -> str:
        return self.program.root(value).dtype.storage.name


def _type(value: Value) -> str:
    return C_TYPES[value.dtype.storage.name]
