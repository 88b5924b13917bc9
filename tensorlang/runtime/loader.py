"""A shared library in memory to callable addresses. Needs nothing but the system's loader."""

from __future__ import annotations

import _ctypes
import contextlib
import ctypes
import itertools
import os
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tensorlang.errors import BuildError, InternalError, OutOfMemoryError

# statuses above this are raised by compiled code itself, smaller ones by an emitted program's checks
OUT_OF_MEMORY = 0x7FFF0001

_C_TYPES: dict[str, Any] = {
    "bool": ctypes.c_bool,
    "i8": ctypes.c_int8, "i16": ctypes.c_int16, "i32": ctypes.c_int32, "i64": ctypes.c_int64,
    "u8": ctypes.c_uint8, "u16": ctypes.c_uint16, "u32": ctypes.c_uint32, "u64": ctypes.c_uint64,
    "f16": ctypes.c_uint16, "bf16": ctypes.c_uint16, "f32": ctypes.c_float, "f64": ctypes.c_double,
}  # fmt: skip

_loaded = itertools.count()


class Library(Mapping[str, Any]):
    """The functions of one loaded shared library, by name.

    `library["dense"]` is a ctypes function `int (ctx, ...)` that releases the GIL; `library.address("dense")` its
    address. The code stays loaded as long as the library object, or any function taken from it, lives.
    """

    def __init__(self, addresses: dict[str, int], signatures: Mapping[str, tuple[str, ...]]):
        self._addresses = addresses
        self._signatures = signatures
        self._functions: dict[str, Any] = {}

    def address(self, name: str) -> int:
        """The address of a function's machine code."""
        return self._addresses[name]

    def __getitem__(self, name: str) -> Any:
        function = self._functions.get(name)
        if function is None:
            declared = self._signatures[name]
            arguments = [ctypes.c_void_p, *(_c_type(text) for text in declared)]
            function = ctypes.CFUNCTYPE(ctypes.c_int32, *arguments)(self._addresses[name])
            vars(function)["library"] = self  # keeps the code alive
            self._functions[name] = function
        return function

    def __iter__(self) -> Iterator[str]:
        return iter(self._addresses)

    def __len__(self) -> int:
        return len(self._addresses)


def _c_type(type_text: str) -> Any:
    return ctypes.c_void_p if type_text.endswith("*") else _C_TYPES[type_text]


def load_library(code: bytes | Path, signatures: Mapping[str, tuple[str, ...]], prefix: str = "") -> Library:
    """Load a shared library from memory or from its file, by the system's own loader.

    Args:
        code: its bytes, as `compile_source` gives them, or where they lie.
        signatures: the exported functions and the declared type of each parameter after the context, `"f32*"`...
        prefix: what the library writes before their names.

    Raises:
        BuildError: it cannot be loaded here, for instance because it is for another machine.
    """
    try:
        if isinstance(code, Path):
            loaded = ctypes.CDLL(str(code.resolve()))
        else:
            with _file_of(code) as path:
                loaded = ctypes.CDLL(path)
        addresses = {name: ctypes.cast(loaded[prefix + name], ctypes.c_void_p).value or 0 for name in signatures}
    except (OSError, AttributeError) as error:
        raise BuildError(f"compiled code cannot be loaded: {error}") from error
    library = Library(addresses, signatures)
    # not at exit: another thread may still be in its code
    weakref.finalize(library, _ctypes.dlclose, loaded._handle).atexit = False
    return library


@contextlib.contextmanager
def _file_of(code: bytes) -> Iterator[str]:
    """A path to a file of these bytes, different for each call: the loader takes equal paths for one library."""
    number = next(_loaded)
    if not hasattr(os, "memfd_create"):
        import tempfile  # here, for it takes 4 ms

        with tempfile.NamedTemporaryFile(prefix=f"tensorlang-{number}-", suffix=".so") as file:
            file.write(code)
            file.flush()
            yield file.name
        return
    descriptor = os.memfd_create(f"tensorlang-{number}")
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(code)
        # descriptors are used again and again, so the number is written into the path, in dots and slashes
        yield f"/proc/self/fd{''.join('/.' if number >> bit & 1 else '/' for bit in range(32))}/{descriptor}"
    finally:
        os.close(descriptor)


def check_status(status: int, what: str) -> None:
    """Turn the status of a compiled function into an exception, if it is not 0."""
    if status == 0:
        return
    if status & 0xFFFFFFFF == OUT_OF_MEMORY:
        raise OutOfMemoryError(f"{what} ran out of memory")
    raise InternalError(f"{what} stopped with status {status}")
