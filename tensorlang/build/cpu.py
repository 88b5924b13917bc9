"""The CPU as a target: emitted Python, numba, LLVM, a shared library loaded into this process; or with the jit off, the
emitted Python itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tensorlang.codegen import native
from tensorlang.codegen.emit import HEADER, EmittedKernel, emit_kernel
from tensorlang.codegen.native import CpuTarget, run_plain
from tensorlang.codegen.packed import Callbacks
from tensorlang.codegen.target import Function, Need, Passes, Target
from tensorlang.config import Settings
from tensorlang.errors import BuildError
from tensorlang.ir.machine import Machine
from tensorlang.ir.stmt import PrimFunc
from tensorlang.lower import with_prefetch
from tensorlang.runtime import context
from tensorlang.runtime.cache import ContentCache
from tensorlang.runtime.loader import Library, check_status, load_library
from tensorlang.runtime.machine import first_level_cache


@dataclass(frozen=True, repr=False)
class Cpu(Target):
    """This machine's CPU, or another one for which code is made here and run elsewhere.

    Attributes:
        given: the CPU; None is this machine's.
    """

    given: CpuTarget | None = None
    name = "cpu"
    language = "python"
    schedules = "cpu"
    inspects = ("asm", "llvm")
    graph_compiler = "tensorlang.graph.compiler:compile_graph"

    @property
    def cpu(self) -> CpuTarget:
        return self.given or CpuTarget.host()

    def accepts(self, text: str) -> Target | None:
        """"cpu", a target triple ("aarch64-linux-gnu"), or a feature level ("x86-64-v3")."""
        if text == self.name:
            return self
        parsed = CpuTarget.parse(text)
        return Cpu(parsed) if parsed is not None else None

    def variants(self) -> tuple[str, ...]:
        return CpuTarget.names()

    def machine(self, threads: int) -> Machine:
        return machine_of(self.cpu, threads)

    def has(self, feature: str) -> bool:
        return self.cpu.has(feature)

    def needs(self) -> list[Need]:
        host = CpuTarget.host()
        return [Need("processor", f"{host.architecture}, {host.vector_bits}-bit vectors")]

    def passes(self, base: Passes) -> Passes:
        return with_prefetch(base)

    def emit(self, func: PrimFunc, name: str, trace: str) -> EmittedKernel:
        return emit_kernel(func, name, trace)

    def assemble(self, kernels: Sequence[EmittedKernel]) -> str:
        return "\n\n".join([f"{HEADER}", *(k.text for k in kernels)])

    def check(self, source: str) -> None:
        native.check_features(source, self.cpu)

    def build(self, source: str, settings: Settings) -> bytes:
        return compile_source(source, self.cpu, settings=settings) if settings.jit else source.encode()

    def load(self, code: bytes, kernels: Sequence[EmittedKernel], settings: Settings) -> Mapping[str, Function]:
        if not settings.jit:
            namespace = run_plain(code.decode())
            return {k.name: _plain_function(namespace[k.name], Callbacks(k.packed)) for k in kernels}
        if self.cpu.architecture != CpuTarget.host().architecture:
            raise BuildError(
                f"this machine is {CpuTarget.host().triple} and cannot run code for {self.cpu.triple}; "
                "export it and run it there, or build for target 'cpu'"
            )
        pooled = any(_OF_CONTEXT.search(k.text) for k in kernels)
        if pooled and not context.is_installed():
            context.install(pool_library(settings=settings), settings.num_threads)
        library = load_library(code, {k.name: tuple(t for t, _ in k.params) for k in kernels})
        address = context.context_address if pooled else _no_context
        return {k.name: _native_function(library, k.name, Callbacks(k.packed), address) for k in kernels}

    def inspect(self, source: str, what: str, settings: Settings) -> str:
        return compile_source(source, self.cpu, emit=what, settings=settings).decode()


target = Cpu()


def _plain_function(function: Callable[..., Any], callbacks: Callbacks) -> Function:
    def run(*args: Any) -> None:
        function(None, *args, *callbacks.plain)

    return run


_OF_CONTEXT = re.compile(r"\b(?:parallel_for|scratch|release)\(")  # what makes use of the context and of the pool behind it


def _no_context() -> int:
    """For code that does without: the pool is then not built for it (0.2 s of CPU, on a machine's first build)."""
    return 0


def _native_function(library: Library, name: str, callbacks: Callbacks, address: Callable[[], int]) -> Function:
    function = library[name]

    def run(*args: Any) -> None:
        words = [a.ctypes.data if isinstance(a, np.ndarray) else a for a in args]
        status = function(address(), *words, *callbacks.addresses)
        if status and callbacks.sites:
            callbacks.raise_error()
        check_status(status, name)

    return run


def machine_of(target: CpuTarget, threads: int) -> Machine:
    """What schedules may know of a CPU; of this one also its first-level cache."""
    features = frozenset(f[1:] for f in target.features.split(",") if f.startswith("+"))
    machine = Machine(
        vector_bytes=target.vector_bits // 8, vector_registers=target.vector_registers, threads=threads, features=features
    )
    found = first_level_cache() if target == CpuTarget.host() else None
    return machine if found is None else replace(machine, l1_bytes=found[0], l1_ways=found[1])


def compile_source(
    source: str, target: CpuTarget | None = None, emit: str = "library", settings: Settings | None = None
) -> bytes:
    """Compile an emitted module, or find it in the cache; arguments and errors as for `codegen.native.compile_source`.

    Args:
        settings: where and whether to cache; the environment's by default.
    """
    return native.compile_source(source, target, emit, store_of(settings))


def pool_library(target: CpuTarget | None = None, settings: Settings | None = None) -> bytes:
    """Shared library of the thread pool's native half, for `runtime.context.install`."""
    return native.pool_library(target, store_of(settings))


def compile_and_load(source: str, target: CpuTarget | None = None, settings: Settings | None = None) -> Library:
    """Compile an emitted module, or find it in the cache, and load it into this process, which gets its pool if it has none."""
    settings = settings or Settings.from_env()
    signatures = native.exported_signatures(source)
    if not context.is_installed():
        context.install(pool_library(settings=settings), settings.num_threads)
    return load_library(compile_source(source, target, settings=settings), signatures)


def store_of(settings: Settings | None) -> ContentCache:
    """Where compiled code is kept."""
    return ContentCache.of(settings or Settings.from_env(), "native")
