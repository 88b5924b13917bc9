"""Emitted source to machine code: split, front-end each distinct function once, optimise and emit on all cores, link.

Two caches, both by content: an object per kernel of a model (independent of its name, so that models share them), and the
finished library per module. On a hit of that neither numba nor LLVM's optimiser is loaded.
"""

from __future__ import annotations

import ast
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import tensorlang
from tensorlang.codegen.elf import link_shared
from tensorlang.codegen.native import backend
from tensorlang.codegen.native.arm_support import support_objects
from tensorlang.codegen.native.forked import forked_map
from tensorlang.codegen.native.pool_code import pool_source, with_serial_pool
from tensorlang.codegen.native.source import SourceFunction, prelude_of, split_functions
from tensorlang.codegen.native.target import CpuTarget
from tensorlang.codegen.wasm import link_module
from tensorlang.errors import BuildError

FUNCTIONS_PER_WORKER = 2  # fewer are not worth a process
_EXPORTED = ("kernel", "program")


class Store(Protocol):
    """Where finished code is kept between builds: bytes by key, a key being a hash of all that they were made from."""

    def get(self, key: str) -> bytes | None:
        """The value of `key`, or None."""

    def put(self, key: str, value: bytes) -> None:
        """Keep `value` under `key`."""


class NoStore:
    """The store that keeps nothing."""

    def get(self, key: str) -> bytes | None:
        return None

    def put(self, key: str, value: bytes) -> None:
        pass


@cache
def compiler_fingerprint() -> str:
    """Hash of what turns source into code: our intrinsics, native and elf folders, and the versions beneath them."""
    digest = hashlib.sha256()
    for package in ("numba", "llvmlite", "numpy"):
        digest.update(f"{package} {version(package)}\n".encode())
    root = Path(__file__).parents[1]
    folders = ("intrinsics", "native", "elf", "wasm")
    for path in sorted(path for folder in folders for path in root.glob(f"{folder}/**/*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _module_key(functions: Sequence[SourceFunction], target: CpuTarget, kind: str) -> str:
    names = " ".join(f"{f.kind}:{f.digest}" if kind == "unit" else f"{f.name}:{f.kind}:{f.digest}" for f in functions)
    return hashlib.sha256(f"{kind}\0{target!r}\0{compiler_fingerprint()}\0{names}".encode()).hexdigest()


def compile_source(
    source: str, target: CpuTarget | None = None, emit: str = "library", store: Store | None = None
) -> bytes:
    """Compile an emitted module.

    Args:
        source: text of the module, in the format of `codegen.intrinsics`.
        target: machine to compile for; this one by default.
        emit: "library", "object", "asm" or "llvm". A library exports the kernels and programs. It is an ELF shared library; for
            WebAssembly a module, with a serial `pool_parallel_for`.
        store: asked first, and given what was made; nothing is kept by default.

    Returns:
        The file's bytes, or UTF-8 text.

    Raises:
        BuildError: the target lacks a feature that an instruction needs.
        InternalError: the source is not sound.
    """
    target = target or CpuTarget.host()
    store = NoStore() if store is None else store
    if emit == "library" and not target.has_threads:
        source = with_serial_pool(source)
    functions = split_functions(source)
    key = _module_key(functions, target, emit)
    if (found := store.get(key)) is not None:
        return found
    _check_features(functions, target)
    result: bytes
    if emit != "library":
        result = _machine_code(source, functions, target, emit)
    else:
        exports = [f.name for f in functions if f.kind in _EXPORTED]
        if target.architecture == "wasm32":
            result = link_module(_machine_code(source, functions, target, "object"), exports)
        else:
            result = link_shared([*_objects(source, functions, target, store), *support_objects(target)], exports)
    store.put(key, result)
    return result


def _machine_code(source: str, functions: Sequence[SourceFunction], target: CpuTarget, emit: str) -> bytes:
    """All of them as one module."""
    return _finish(backend.link(functions, bitcode(source, functions).values(), target), target, emit)


def _finish(module: Any, target: CpuTarget, emit: str) -> bytes:
    backend.optimise(module, target)
    return backend.emit(module, target, emit)


def _objects(source: str, functions: Sequence[SourceFunction], target: CpuTarget, store: Store) -> list[bytes]:
    """The objects of a library.

    With a program, one for each distinct kernel and what only it calls, under its symbol alone, kept for every library that has
    this kernel; and one of the programs, which offers the kernels by their names too. Without: one, all of it.
    """
    units = kernel_units(functions)
    if len(units) == len(functions) or not any(f.kind == "program" for f in functions):
        return [_machine_code(source, functions, target, "object")]
    kernels = {f.symbol for f in functions if f.kind == "kernel"}
    keys = [_module_key(unit[-1:], target, "unit") for unit in units]
    found = [store.get(key) for key in keys]
    missing = [k for k, code in enumerate(found) if code is None]
    lower = _front_end(source, functions)
    by_name = {f.name: f for f in functions}
    private: dict[str, None] = {}
    for f in functions:
        if f.kind == "program":
            private |= dict.fromkeys(g.name for g in _with_private(f, by_name))

    def build(k: int) -> bytes:
        if k < 0:
            codes = [lower(by_name[name]) for name in private]
            exported = [f for f in functions if f.kind in _EXPORTED or f.name in private]
            return _finish(backend.link(exported, codes, target, kernels), target, "object")
        unit = units[k]
        codes = [lower(f) for f in {f.digest: f for f in unit}.values()]
        return _finish(backend.link(unit, codes, target, kernels - {unit[-1].symbol}, named=False), target, "object")

    jobs = [-1, *missing]
    sizes = [sum(by_name[name].size for name in private), *(sum(f.size for f in units[k]) for k in missing)]
    made = forked_map(build, jobs, sizes, min(_cores(), len(jobs) // FUNCTIONS_PER_WORKER))
    for k, code in zip(missing, made[1:], strict=True):
        store.put(keys[k], code)
        found[k] = code
    return [made[0], *(code for code in found if code is not None)]


def kernel_units(functions: Sequence[SourceFunction]) -> list[tuple[SourceFunction, ...]]:
    """Each distinct kernel, last, after the chunks and instructions that it calls."""
    by_name = {f.name: f for f in functions}
    distinct = {f.digest: f for f in functions if f.kind == "kernel"}
    return [tuple(_with_private(f, by_name)) for f in distinct.values()]


def _with_private(function: SourceFunction, by_name: Mapping[str, SourceFunction]) -> list[SourceFunction]:
    """A kernel or program, last, after the functions that it reaches without another kernel between."""
    reached: dict[str, None] = {}
    waiting = [function.name]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached[name] = None
            waiting += [c for c in by_name[name].callees if by_name[c].kind not in _EXPORTED]
    return [f for name, f in by_name.items() if name in reached and f is not function] + [function]


def check_features(source: str, target: CpuTarget) -> None:
    """That `target` has what the instructions in `source` need.

    Raises:
        BuildError: it lacks a feature; the message names it.
    """
    _check_features(split_functions(source), target)


def _check_features(functions: Sequence[SourceFunction], target: CpuTarget) -> None:
    """Without them LLVM would end the process."""
    for f in functions:
        if missing := [r for r in f.requires if not target.has(r)]:
            raise BuildError(
                f"{f.name} needs CPU features that {target.triple} {target.cpu or 'generic'} lacks: {', '.join(missing)}; "
                "tensorize(..., fallback=True) runs plain loops there"
            )


def bitcode(source: str, functions: Sequence[SourceFunction]) -> dict[str, bytes]:
    """Front-end bitcode by digest, each distinct function once."""
    distinct = {f.digest: f for f in reversed(functions)}
    lower = _front_end(source, functions)
    workers = min(_cores(), len(distinct) // FUNCTIONS_PER_WORKER)
    codes = forked_map(lower, list(distinct.values()), [f.size for f in distinct.values()], workers)
    return dict(zip(distinct, codes, strict=True))


def _front_end(source: str, functions: Sequence[SourceFunction]) -> Callable[[SourceFunction], bytes]:
    """What makes bitcode of one function of `source`."""
    frontend = tensorlang._native_frontend  # imports numba, 0.4 s of CPU: where there is something to compile, never on a hit
    trees = {tree.name: tree for tree in ast.parse(source).body if isinstance(tree, ast.FunctionDef)}
    prelude: dict[str, object] = {"__name__": "tensorlang_emitted"}
    exec(prelude_of(source), prelude)
    by_name = {f.name: f for f in functions}
    made: dict[str, bytes] = {}

    def lower(described: SourceFunction) -> bytes:
        if described.digest not in made:
            callees = {name: by_name[name] for name in described.callees}
            made[described.digest] = frontend.to_bitcode(
                frontend.lower_function(trees[described.name], described, callees, prelude)
            )
        return made[described.digest]

    frontend.prepare()  # before forking, so that no child does it again
    return lower


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


def pool_library(target: CpuTarget | None = None, store: Store | None = None) -> bytes:
    """Shared library of the thread pool's native half, for `runtime.context.install`."""
    target = target or CpuTarget.host()
    return compile_source(pool_source(target), target, store=store)


def exported_signatures(source: str) -> dict[str, tuple[str, ...]]:
    """The functions that an emitted module's library exports: the type of each parameter, by name."""
    exported = [f for f in split_functions(source) if f.kind not in ("chunk", "instruction")]
    return {f.name: tuple(t for t, _ in f.parameters) for f in exported}
