"""Emitted CUDA Python to PTX, by numba-cuda and NVVM: no GPU is needed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tensorlang.errors import BuildError

INSTALL = "pip install 'tensorlang[cuda]'"
CAPABILITY = (9, 0)
STATIC_SHARED_BYTES = 48 * 1024  # of arrays that a function declares itself
DYNAMIC_SHARED = "// bytes of dynamic shared memory: "


@cache
def fingerprint() -> str:
    """Of everything here that makes PTX of a text: the functions that it calls, and what is done to what comes back."""
    digest = hashlib.sha256()
    for name in ("functions.py", "ptx.py"):
        digest.update(Path(__file__).with_name(name).read_bytes())
    return digest.hexdigest()


def compile_ptx(source: str, names: list[str], capability: tuple[int, int] = CAPABILITY) -> dict[str, str]:
    """PTX of each launch function of an emitted module, with the function's name as its entry.

    Args:
        capability: compute capability of the device, (9, 0) for H100 and H200.

    Raises:
        BuildError: numba-cuda is missing, or refuses the source.
    """
    try:
        from numba import cuda, types
        from numba.core.errors import NumbaError
    except ImportError as error:
        raise BuildError(f"target 'cuda' needs numba-cuda to compile ({error}): {INSTALL}") from error
    namespace = load_module(source)
    found = {}
    for name in names:
        function = namespace[name]
        signature = types.void(*(_numba_type(types, p.split()[0]) for p in function.params.split(", ") if p))
        try:
            with _device_of(capability):
                ptx, _ = cuda.compile_ptx(function, signature, cc=capability, device=False)
        except NumbaError as error:
            raise BuildError(f"{name} does not compile for CUDA:\n{error}") from error
        entry = re.search(r"\.entry\s+(\w+)\(", ptx)
        if entry is None:
            raise BuildError(f"the PTX of {name} has no entry")
        found[name] = _with_dynamic(_bounded(ptx.replace(entry.group(1), name), name, function.threads), name)
    return found


def _bounded(ptx: str, name: str, threads: tuple[int, ...]) -> str:
    """`ptx` with the size of a block told to the assembler: it gives no thread more registers than that many can have (1024
    threads have 64 each; a kernel that takes more does not launch)."""
    end = ptx.index(")", ptx.index(f".entry {name}("))
    sizes = ", ".join(str(n) for n in (*threads, 1, 1)[:3])
    return f"{ptx[: end + 1]}\n.maxntid {sizes}\n.minnctapersm 1{ptx[end + 1 :]}"


def _with_dynamic(ptx: str, name: str) -> str:
    """`ptx` with its arrays in shared memory as parts of one whose size the launch says, if they are more than a function can
    have of its own. A comment tells the size to whoever launches it."""
    arrays = re.findall(r"^[ \t]*(?:\.visible )?\.shared \.align (\d+) \.b8 (\w+)\[(\d+)\];\n", ptx, flags=re.MULTILINE)
    if sum(int(size) for _, _, size in arrays) <= STATIC_SHARED_BYTES:
        return ptx
    at, total = {}, 0
    for align, array, size in arrays:
        total = -(-total // int(align)) * int(align)
        at[array] = total
        total += int(size)
    ptx = re.sub(r"^[ \t]*(?:\.visible )?\.shared \.align \d+ \.b8 \w+\[\d+\];\n", "", ptx, flags=re.MULTILINE)
    whole = f"{name}_shared"

    def place(found: re.Match[str]) -> str:
        return f"{whole}+{at[found.group(1)] + int(found.group(2) or 0)}"

    ptx = re.sub(rf"\b({'|'.join(at)})\b(?:\+(\d+))?", place, ptx)
    head = ptx.index(".visible .entry")
    declared = f"{DYNAMIC_SHARED}{total}\n.extern .shared .align 16 .b8 {whole}[];\n\n"
    return ptx[:head] + declared + ptx[head:]


@contextmanager
def _device_of(capability: tuple[int, int]) -> Iterator[None]:
    """Let numba-cuda find a device where there is none: it asks the current one what to compile called functions for."""
    from numba.cuda import dispatcher

    asked = dispatcher.get_current_device
    dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=capability)
    try:
        yield
    finally:
        dispatcher.get_current_device = asked


def launch_names(source: str) -> list[str]:
    """The launch functions of an emitted module."""
    return re.findall(r"^@launch\([^\n]*\)\ndef (\w+)\(", source, flags=re.MULTILINE)


def load_module(source: str) -> dict[str, Any]:
    """The emitted module's functions by name: Python functions, to be compiled or simulated.

    Raises:
        BuildError: numba-cuda is missing.
    """
    namespace: dict[str, Any] = {"__name__": "tensorlang_cuda"}
    try:
        exec(compile(source, "<emitted CUDA>", "exec"), namespace)  # our own text, never a user's
    except ImportError as error:
        raise BuildError(f"target 'cuda' needs numba-cuda to compile ({error}): {INSTALL}") from error
    return namespace


def _numba_type(types: Any, text: str) -> Any:
    name = text.rstrip("*")
    words = {"i": "int", "u": "uint", "f": "float"}
    scalar = getattr(types, words[name[0]] + name[1:])
    return types.CPointer(scalar) if text.endswith("*") else scalar
