"""The functions of an emitted module: `@instruction`, `@chunk`, `@kernel`, `@program`, and how they run with the jit off.

A signature is C-like text, `"f32* x, i64 M"`; the context (and a chunk's `begin, end`) stand before its parameters.
With the jit off an address is a `Pointer` and a declared `f32*` parameter arrives in the body as a flat NumPy view.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from tensorlang.codegen.intrinsics.dtypes import SCALAR_TYPES, ScalarType, scalar_type
from tensorlang.errors import InternalError
from tensorlang.ir.interp import run_meaning

Parameter = tuple[str, str]  # (type text such as "f32*", name)
IMPLICIT = {"instruction": ("ctx",), "chunk": ("ctx", "begin", "end"), "kernel": ("ctx",), "program": ("ctx",)}


def parse_signature(text: str) -> tuple[Parameter, ...]:
    """`"f32* x, i64 M"` as `(("f32*", "x"), ("i64", "M"))`."""
    parameters = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        type_text, _, name = part.replace(" *", "*").rpartition(" ")
        type_text = type_text.strip()
        if type_text.rstrip("*") not in SCALAR_TYPES or type_text.count("*") > 1 or not name.isidentifier():
            raise InternalError(f"malformed parameter {part!r} in emitted signature {text!r}")
        parameters.append((type_text, name))
    return tuple(parameters)


class Pointer:
    """A byte address with the jit off: a buffer and a byte offset into it."""

    __slots__ = ("buffer", "offset")

    def __init__(self, buffer: np.ndarray, offset: int = 0):
        """Point `offset` bytes into `buffer`, a flat uint8 array."""
        self.buffer = buffer
        self.offset = int(offset)

    @classmethod
    def of(cls, array: Any) -> Pointer:
        """The address of a C-contiguous array's (or writable buffer's) first element; no copy is made."""
        if isinstance(array, (bytes, bytearray, memoryview)):
            return cls(np.frombuffer(array, np.uint8))
        if not array.flags.c_contiguous:
            raise InternalError("only C-contiguous arrays have an address in emitted code")
        return cls(array.reshape(-1).view(np.uint8))

    def view(self, dtype: ScalarType) -> np.ndarray:
        """Everything from here to the buffer's end as a flat array of `dtype`."""
        if not 0 <= self.offset <= self.buffer.size:
            raise IndexError(f"address {self.offset} lies outside its buffer of {self.buffer.size} bytes")
        tail = self.buffer[self.offset :]
        element = scalar_type(dtype).numpy
        return tail[: tail.size // element.itemsize * element.itemsize].view(element)

    def __add__(self, nbytes: int) -> Pointer:
        return Pointer(self.buffer, self.offset + int(nbytes))

    __radd__ = __add__

    def __sub__(self, nbytes: int) -> Pointer:
        return self + -int(nbytes)

    def __repr__(self) -> str:
        return f"Pointer({self.buffer.size} bytes, +{self.offset})"


def as_argument(type_text: str, value: Any) -> Any:
    """What a body sees for `value` where `type_text` is declared (jit off)."""
    if not type_text.endswith("*"):
        return value
    dtype = SCALAR_TYPES[type_text[:-1]]
    if isinstance(value, Pointer):
        return value.view(dtype)
    if isinstance(value, list) and all(isinstance(v, Pointer) for v in value):
        return value  # a table of addresses, into which the program may write
    if isinstance(value, (list, tuple)):
        return [Pointer.of(v) if isinstance(v, np.ndarray) else v for v in value]
    if isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype == dtype.numpy:
        return value
    return Pointer.of(value).view(dtype)


class CheckFailed(RuntimeError):
    """A `check` of an emitted program does not hold."""

    def __init__(self, status: int):
        super().__init__(f"emitted program stopped with status {status}")
        self.status = status


class EmittedFunction:
    """One decorated function of an emitted module; calling it runs the plain Python text.

    Attributes:
        kind: "instruction", "chunk", "kernel" or "program".
        signature: the declared parameters, without the implicit ones.
        function: the function as written.
    """

    def __init__(self, kind: str, signature: str, function: Callable[..., Any]):
        self.kind = kind
        self.signature = parse_signature(signature)
        self.function = function
        self.plain = function  # what a call with the jit off runs
        self.name = self.__name__ = function.__name__
        self.__doc__ = function.__doc__
        written = function.__code__.co_varnames[: function.__code__.co_argcount]
        expected = (*IMPLICIT[kind], *(name for _, name in self.signature))
        if written != expected:
            raise InternalError(f"@{kind} {self.name}{written} does not match its signature: expected {expected}")

    def __call__(self, *arguments: Any) -> Any:
        implicit = len(IMPLICIT[self.kind])
        declared = arguments[implicit:]
        if len(declared) != len(self.signature):
            raise InternalError(f"{self.name} takes {len(self.signature)} arguments, got {len(declared)}")
        bound = [as_argument(type_text, v) for (type_text, _), v in zip(self.signature, declared, strict=True)]
        with np.errstate(all="ignore"):
            return self.plain(*arguments[:implicit], *bound)

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name}>"


_F = TypeVar("_F", bound=Callable[..., Any])


def instruction(signature: str, requires: str = "", means: str = "") -> Callable[[_F], EmittedFunction]:
    """A tensor intrinsic's instruction: inlined where it is called.

    Args:
        requires: CPU features, apart by spaces.
        means: where the function has no plain twin, the part of a registered intrinsic that runs with the jit off.
    """

    def decorate(function: Any) -> EmittedFunction:
        emitted = EmittedFunction("instruction", signature, function)
        if means:
            names = [name for _, name in emitted.signature]
            emitted.plain = lambda ctx, *arguments: run_meaning(means, dict(zip(names, arguments, strict=True)))
        return emitted

    return decorate


def chunk(signature: str) -> Callable[[_F], EmittedFunction]:
    """The body of a parallel loop: runs iterations `[begin, end)`."""
    return lambda function: EmittedFunction("chunk", signature, function)


def kernel(signature: str) -> Callable[[_F], EmittedFunction]:
    """A compiled operator; its distinct pointer parameters must not overlap where one is written."""
    return lambda function: EmittedFunction("kernel", signature, function)


def program(signature: str) -> Callable[[_F], EmittedFunction]:
    """A whole model: calls kernels with byte addresses."""
    return lambda function: EmittedFunction("program", signature, function)


def parallel_for(body: EmittedFunction, ctx: Any, count: int, *arguments: Any) -> None:
    """Run `body` over iterations [0, count), each thread taking one contiguous part (here: one after the other)."""
    if count > 0:
        body(ctx, 0, count, *arguments)


def unrolled(count: int) -> range:
    """The iterations of a loop that machine code writes out."""
    return range(count)


def num_threads(ctx: Any) -> int:
    """Threads that a parallel loop is divided among."""
    return 1


def scratch(ctx: Any, nbytes: int) -> Pointer:
    """Fresh memory of `nbytes` bytes, 64-byte aligned, until `release`. Native: the call fails when there is none."""
    return Pointer(np.full(int(nbytes), 0xFF, np.uint8))  # all-ones is NaN in every float type: reads before writes show


def release(ctx: Any, address: Pointer) -> None:
    """Give `scratch` memory back."""


def view(address: Pointer, dtype: ScalarType) -> np.ndarray:
    """A byte address as a typed pointer."""
    return address.view(dtype)


def call_packed(function: Any, *words: Any) -> None:
    """Call a function of the host. Native: `function` is the address of an `i32 f(i64* words)`; the plain twin is called."""
    function(*words)


def check(condition: bool, status: int) -> None:
    """Leave the program with `status` (a positive literal) unless `condition` holds."""
    if not condition:
        raise CheckFailed(status)
