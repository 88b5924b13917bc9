"""The emitted Python of a library: sizes checked and computed, addresses put into tables, results told.

A run keeps one table of 8-byte words, the frame:

    inputs | outputs | dims, told ones last | arena bytes | sizes of all outputs, -1 where a run finds them out

Emitted functions:

    library_enter(ctx, inputs, shapes, outputs, frame)   fills the frame; statuses as the model's checks, continued
    library_leave(ctx, outputs, frame)                   after `main`: what the library allocated, and its sizes
    library_report(ctx, frame, shapes)                   sizes of the outputs to the caller
    library_sum(ctx, words, count, result)               checksum of the weights
"""

from __future__ import annotations

from dataclasses import dataclass

from tensorlang.codegen.emit import HEADER
from tensorlang.codegen.library.interface import MAX_SIZE, Interface, Size, show
from tensorlang.errors import BuildError

_I = "    "
_LIMIT = "4.0e18"
_INFIX = {"add": "+", "sub": "-", "mul": "*", "eq": "==", "ne": "!=", "lt": "<", "le": "<="}
_CALLS = {
    "min": "minimum", "max": "maximum", "and": "logical_and", "or": "logical_or", "not": "logical_not", "select": "select",
    "floordiv": "floordiv_pos", "floormod": "floormod_pos",
}  # fmt: skip


@dataclass(frozen=True)
class Frame:
    """Where the parts of the frame begin, in words."""

    inputs: int
    outputs: int
    dims: int
    arena: int
    shapes: int
    words: int

    @classmethod
    def of(cls, interface: Interface) -> Frame:
        outputs = len(interface.inputs)
        dims = outputs + len(interface.outputs)
        arena = dims + len(interface.dims) + len(interface.told)
        return cls(0, outputs, dims, arena, arena + 1, arena + 1 + interface.output_dims)


def planning_source(interface: Interface, pointer_bytes: int) -> tuple[str, list[str]]:
    """The module, and the texts of the statuses that follow the model's own.

    Args:
        pointer_bytes: size of the addresses in the caller's tables.
    """
    writer = _Writer(interface, pointer_bytes)
    parts = [HEADER, writer.enter(), writer.leave(), writer.report(), _SUM]
    return "\n\n\n".join(parts) + "\n", writer.messages


_SUM = """@kernel("i64* words, i64 count, i64* result")
def library_sum(ctx, words, count, result):
    total = 0
    for k in range(count):
        total += words[k] * (2 * k + 1)
    result[0] = total"""


class _Writer:
    def __init__(self, interface: Interface, pointer_bytes: int):
        self.interface, self.width = interface, pointer_bytes
        self.frame = Frame.of(interface)
        self.messages: list[str] = []
        self.lines: list[str] = []
        self.names: dict[str, str] = {}

    def _check(self, condition: str, message: str) -> None:
        if message not in self.messages:
            self.messages.append(message)
        number = len(self.interface.checks) + self.messages.index(message) + 1
        self.lines.append(f"{_I}check({condition}, {number})")

    def enter(self) -> str:
        self.lines = ['@kernel("i64 inputs, i64* shapes, i64 outputs, i64* frame")',
                      "def library_enter(ctx, inputs, shapes, outputs, frame):"]  # fmt: skip
        self._bind_dims()
        for a, b, node in self.interface.constraints:
            message = f"at node {node!r} {show(a)} and {show(b)} must be equal"
            self._check(f"{self.text(a)} == {self.text(b)}", message)
        at = self.frame.dims
        for k, name in enumerate(self.interface.dims):
            self.lines.append(f"{_I}frame[{at + k}] = {self.names[name]}")
        self.lines.append(f"{_I}frame[{self.frame.arena}] = {self.text(self.interface.arena)}")
        self._check(f"frame[{self.frame.arena}] >= 0", "the inputs are too large")
        if self.interface.dims:  # in floating point, where nothing wraps around
            self._check(f"{self.magnitude(self.interface.arena)} < {_LIMIT}", "the inputs are too large")
            for tensor in self.interface.outputs:
                if not tensor.told:
                    elements = ["mul", tensor.itemsize, *tensor.shape]
                    self._check(f"{self.magnitude(elements)} < {_LIMIT}", "the inputs are too large")
        position = self.frame.shapes
        for tensor in self.interface.outputs:
            for d in tensor.shape:
                if tensor.told:
                    self.lines.append(f"{_I}frame[{position}] = -1")
                else:
                    self.lines.append(f"{_I}frame[{position}] = {self.text(d)}")
                    if not isinstance(d, int | str):
                        self._check(f"frame[{position}] >= 0", f"output {tensor.name!r} would have a negative size: {show(d)}")
                position += 1
        self._copy_tables()
        return "\n".join(self.lines)

    def _bind_dims(self) -> None:
        """Open dimensions are bound where they stand alone; formulas are checked once all are bound."""
        formulas = []
        position = 0
        for tensor in self.interface.inputs:
            for axis, d in enumerate(tensor.shape):
                place = f"shapes[{position}]"
                where = f"input {tensor.name!r}, dimension {axis}"
                if isinstance(d, int):
                    self._check(f"{place} == {d}", f"{where} must be {d}")
                elif isinstance(d, str) and d not in self.names:
                    self.names[d] = f"d{len(self.names)}"
                    self.lines.append(f"{_I}{self.names[d]} = {place}")
                    self._check(f"{self.names[d]} >= 0", f"{where} ({d}) must not be negative")
                    self._check(f"{self.names[d]} <= {MAX_SIZE}", f"{where} ({d}) is too large")
                else:
                    formulas.append((place, d, where))
                position += 1
        if missing := [d for d in self.interface.dims if d not in self.names]:
            raise BuildError(f"the sizes {', '.join(missing)} stand alone in no input's shape, so a C caller cannot give them")
        for place, d, where in formulas:
            self._check(f"{place} == {self.text(d)}", f"{where} must equal {show(d)}")

    def _copy_tables(self) -> None:
        unit = "i64" if self.width == 8 else "u32"
        tables = (
            ("input", "inputs", self.interface.inputs, self.frame.inputs),
            ("output", "outputs", self.interface.outputs, self.frame.outputs),
        )
        self.lines.append(f"{_I}if inputs != 0:")
        for word, table, tensors, at in tables:
            for k, tensor in enumerate(tensors):
                address = f"view({table} + {k * self.width}, {unit})[0]"
                self.lines.append(f"{_I}{_I}frame[{at + k}] = {'0' if tensor.told else address}")
                if not tensor.told:
                    self._check(f"frame[{at + k}] != 0", f"{word} {tensor.name!r} is a null pointer")
                    self.lines[-1] = _I + self.lines[-1]
        self.lines.append(f"{_I}{_I}pass")

    def leave(self) -> str:
        at = self.frame.dims
        self.names = {n: f"frame[{at + k}]" for k, n in enumerate((*self.interface.dims, *self.interface.told))}
        self.lines = ['@kernel("i64 outputs, i64* frame")', "def library_leave(ctx, outputs, frame):"]
        unit = "i64" if self.width == 8 else "u32"
        position = self.frame.shapes
        for k, tensor in enumerate(self.interface.outputs):
            if tensor.told:
                place = f"view(outputs + {k * self.width}, {unit})"
                self.lines.append(f"{_I}{place}[0] = {unit}(frame[{self.frame.outputs + k}])")
                for axis, d in enumerate(tensor.shape):
                    self.lines.append(f"{_I}frame[{position + axis}] = {self.text(d)}")
            position += len(tensor.shape)
        self.lines.append(f"{_I}pass")
        return "\n".join(self.lines)

    def report(self) -> str:
        at, count = self.frame.shapes, self.interface.output_dims
        return (
            '@kernel("i64* frame, i64* shapes")\ndef library_report(ctx, frame, shapes):\n'
            f"{_I}for k in range({count}):\n{_I}{_I}shapes[k] = frame[{at} + k]"
        )

    def magnitude(self, size: Size) -> str:
        """A size, or a bound of it, in floating point: what is beyond 2^62 in there may have wrapped around."""
        if isinstance(size, int):
            return f"{float(size)!r}"
        if isinstance(size, str):
            return f"f64({self.names[size]})"
        operation, *operands = size
        texts = [self.magnitude(a) for a in operands]
        if operation in ("add", "mul"):
            return "(" + f" {_INFIX[operation]} ".join(texts) + ")"
        if operation in ("max", "min", "select"):
            return f"maximum({texts[-2]}, {texts[-1]})"
        return texts[0] if operation in ("sub", "floordiv") else "0.0"

    def text(self, size: Size) -> str:
        """A size as an expression of the emitted Python."""
        if isinstance(size, int):
            return str(int(size))
        if isinstance(size, str):
            return self.names[size]
        operation, *operands = size
        texts = [self.text(a) for a in operands]
        if operation in ("floordiv", "floormod") and not (isinstance(operands[1], int) and operands[1] > 0):
            self._check(f"{texts[1]} > 0", f"the size {show(size)} divides by what is not positive")
        if operation in _INFIX:
            return "(" + f" {_INFIX[operation]} ".join(texts) + ")"
        if operation in _CALLS:
            return f"{_CALLS[operation]}({', '.join(texts)})"
        raise BuildError(f"the size {size!r} has no code")


