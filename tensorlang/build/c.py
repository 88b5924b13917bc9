"""Plain C as a target: source for any C compiler; where there is one here, it is compiled and called."""

from __future__ import annotations

import ctypes
import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tensorlang.build.cpu import store_of
from tensorlang.codegen.c.emit import emit_c_kernel
from tensorlang.codegen.c.files import kernel_file, model_files, resident_files, write_files
from tensorlang.codegen.c.toolchain import FLAGS, build_shared, find_compiler
from tensorlang.codegen.emit import EmittedKernel
from tensorlang.codegen.target import Function, Need, Target
from tensorlang.config import Settings
from tensorlang.errors import BuildError, InternalError
from tensorlang.ir.machine import Machine
from tensorlang.ir.stmt import PrimFunc
from tensorlang.runtime.artifact import Artifact
from tensorlang.runtime.executable import Frame
from tensorlang.runtime.loader import load_library


class CSource(Target):
    """C99: scalar loops, static memory, no threads."""

    name = "c"
    language = "c"
    schedules = "c"
    graph_compiler = "tensorlang.graph.c_source:compile_c"
    graph_runner = "tensorlang.build.c:CRunner"

    def machine(self, threads: int) -> Machine:
        return Machine(vector_bytes=4, threads=1)

    def needs(self) -> list[Need]:
        try:
            found = " ".join(find_compiler())
        except BuildError:
            found = ""
        return [Need("a C compiler (to run what was written)", found, "apt-get install gcc")]

    def emit(self, func: PrimFunc, name: str, trace: str) -> EmittedKernel:
        return emit_c_kernel(func, name, trace)

    def assemble(self, kernels: Sequence[EmittedKernel]) -> str:
        """The C file: the kernels, and what they call."""
        return "\n".join(kernel_file(k.text, k.name) for k in kernels)

    def build(self, source: str, settings: Settings) -> bytes:
        return c_library({"kernel.c": source}, settings)

    def load(self, code: bytes, kernels: Sequence[EmittedKernel], settings: Settings) -> Mapping[str, Function]:
        library = load_library(code, {k.name: () for k in kernels})
        return {k.name: _function(library, k) for k in kernels}


target = CSource()


def _function(library: Any, kernel: EmittedKernel) -> Function:
    types = [ctypes.c_void_p if t.endswith("*") else ctypes.c_int64 for t, _ in kernel.params]
    entry = ctypes.CFUNCTYPE(None, *types)(library.address(kernel.name))
    vars(entry)["library"] = library  # keeps the code alive

    def run(*args: Any) -> None:
        entry(*(a.ctypes.data if isinstance(a, np.ndarray) else a for a in args))

    return run


class CRunner:
    """Runs a model that was compiled to C, in this process, one call at a time: its workspace is static."""

    def __init__(self, artifact: Artifact, settings: Settings):
        self.artifact, self.settings = artifact, settings
        self._lock = threading.Lock()

    @cached_property
    def _entry(self) -> Any:
        description = self.artifact.manifest["c"]
        files = resident_files(description, self.artifact.weights)
        name = f"{description['model']}_run"
        self._library = load_library(c_library(files, self.settings), {name: ()})
        count = len(description["inputs"]) + len(description["outputs"])
        return ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_void_p] * count)(self._library.address(name))

    def main(self, frame: Frame) -> int:
        """Run the whole program; its status."""
        inputs, outputs = self.artifact.manifest["inputs"], self.artifact.manifest["outputs"]
        with self._lock:
            status: int = self._entry(*frame.inputs[: len(inputs)], *frame.outputs[: len(outputs)])
        return status

    def export(self, folder: Path) -> list[Path]:
        """Write the C files into a folder (see `codegen.c.files`).

        Raises:
            ArtifactError: they cannot be written.
        """
        return write_files(model_files(self.artifact.manifest["c"], self.artifact.weights), folder)

    def take(self, frame: Frame, output: int, nbytes: int) -> np.ndarray:
        raise InternalError("a program in C allocates no outputs")

    def step(self, kernel: str, frame: Frame, arguments: Sequence[tuple[str, int]]) -> Callable[[], None]:
        raise InternalError("the kernels of a program in C are not called one by one")


def c_library(files: Mapping[str, str | bytes], settings: Settings | None = None) -> bytes:
    """A shared library of C files, compiled once by this machine's C compiler.

    Raises:
        BuildError: there is no C compiler, or it refuses.
    """
    store = store_of(settings)
    key = hashlib.sha256(repr((find_compiler(), FLAGS, sorted(files.items()))).encode()).hexdigest()
    made = store.get(key)
    if made is None:
        made = build_shared(files)
        store.put(key, made)
    return made
