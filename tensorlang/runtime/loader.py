"""An object file in memory to callable addresses, through llvmlite's JIT linker (loaded lazily; never numba)."""

from __future__ import annotations

import ctypes
import itertools
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from tensorlang.errors import BuildError, InternalError

# statuses above this are raised by compiled code itself, smaller ones by an emitted program's checks
OUT_OF_MEMORY = 0x7FFF0001

_C_TYPES: dict[str, Any] = {
    "bool": ctypes.c_bool,
    "i8": ctypes.c_int8, "i16": ctypes.c_int16, "i32": ctypes.c_int32, "i64": ctypes.c_int64,
    "u8": ctypes.c_uint8, "u16": ctypes.c_uint16, "u32": ctypes.c_uint32, "u64": ctypes.c_uint64,
    "f16": ctypes.c_uint16, "bf16": ctypes.c_uint16, "f32": ctypes.c_float, "f64": ctypes.c_double,
}  # fmt: skip

_counter = itertools.count()
_lock = threading.Lock()
_linker: Any = None


def _get_linker() -> tuple[Any, Any]:
    """(llvmlite.binding, the process's JIT linker)."""
    global _linker
    import llvmlite.binding as llvm  # a third party, 20 ms: only where code is loaded

    with _lock:
        if _linker is None:
            llvm.initialize_native_target()
            llvm.initialize_native_asmprinter()
            machine = llvm.Target.from_default_triple().create_target_machine(jit=True)
            _linker = llvm.create_lljit_compiler(machine)
        return llvm, _linker


class Library(Mapping[str, Any]):
    """The functions of one loaded object file, by name.

    `library["dense"]` is a ctypes function `int (ctx, ...)` that releases the GIL; `library.address("dense")` its
    address. The code stays loaded as long as the library object, or any function taken from it, lives.
    """

    def __init__(self, addresses: dict[str, int], signatures: Mapping[str, tuple[str, ...]], owner: Any):
        self._addresses = addresses
        self._signatures = signatures
        self._owner = owner
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


def load_object(code: bytes, signatures: Mapping[str, tuple[str, ...]]) -> Library:
    """Load an object file.

    Args:
        code: its bytes, as `compile_source` gives them.
        signatures: the exported functions and the declared type of each parameter after the context, `"f32*"`...

    Raises:
        BuildError: the object cannot be linked here, for instance because it is for another machine.
    """
    llvm, linker = _get_linker()
    builder = llvm.JITLibraryBuilder().add_object_img(code).add_current_process()
    for name in signatures:
        builder.export_symbol(name)
    try:
        tracker = builder.link(linker, f"tensorlang.{next(_counter)}")
        addresses = {name: tracker[name] for name in signatures}
    except RuntimeError as error:
        raise BuildError(f"compiled code cannot be loaded: {error}") from error
    return Library(addresses, signatures, tracker)


def check_status(status: int, what: str) -> None:
    """Turn the status of a compiled function into an exception, if it is not 0."""
    if status == 0:
        return
    if status & 0xFFFFFFFF == OUT_OF_MEMORY:
        raise MemoryError(f"{what} ran out of memory")
    raise InternalError(f"{what} stopped with status {status}")
