"""Emitted source to machine code: split, front-end each distinct function once, link, optimise once, emit once.

Two caches, both by content: the front end's bitcode per function (independent of names and of the CPU's features), and
the finished library per module. On a hit of that neither numba nor LLVM's optimiser is loaded.
"""

from __future__ import annotations

import ast
import hashlib
import os
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import tensorlang
from tensorlang.codegen.elf import link_shared
from tensorlang.codegen.intrinsics.functions import EmittedFunction
from tensorlang.codegen.native import backend
from tensorlang.codegen.native.forked import balanced, forked_map
from tensorlang.codegen.native.loops import rewrite_loops
from tensorlang.codegen.native.pool_code import pool_source, with_serial_pool
from tensorlang.codegen.native.source import SourceFunction, split_functions
from tensorlang.codegen.native.target import CpuTarget
from tensorlang.codegen.wasm import link_module
from tensorlang.errors import BuildError, InternalError

FUNCTIONS_PER_WORKER = 4  # fewer are not worth a process
OBJECT_CHARACTERS = 16_000  # of code, without comments: about a second of LLVM's time
MOST_OBJECTS = 1  # more would use all cores, but what that gains is not measured yet
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


def _module_key(functions: tuple[SourceFunction, ...], target: CpuTarget, kind: str) -> str:
    names = " ".join(f"{f.name}:{f.kind}:{f.digest}" for f in functions)
    return hashlib.sha256(f"{kind}\0{target!r}\0{compiler_fingerprint()}\0{names}".encode()).hexdigest()


def compile_source(
    source: str, target: CpuTarget | None = None, emit: str = "library", store: Store | None = None
) -> bytes:
    """Compile an emitted module.

    Args:
        source: text of the module, in the format of `codegen.intrinsics`.
        target: machine to compile for; this one by default.
        emit: "library", "object", "asm" or "llvm". A library exports the kernels and programs. It is an ELF shared library; for
            32-bit Arm, which our linker does not know, the object; for WebAssembly a module, with a serial `pool_parallel_for`.
        store: asked first, and given what was made; nothing is kept by default.

    Returns:
        The file's bytes, or UTF-8 text.

    Raises:
        BuildError: the target lacks a feature that an instruction needs.
        InternalError: the source is not sound.
    """
    target = target or CpuTarget.host()
    store = store or NoStore()
    if emit == "library" and not target.has_threads:
        source = with_serial_pool(source)
    functions = split_functions(source)
    key = _module_key(functions, target, emit)
    if (found := store.get(key)) is not None:
        return found
    _check_features(functions, target)
    codes = bitcode(source, functions, store)
    result: bytes
    if emit != "library":
        result = _machine_code(functions, codes, target, emit)
    else:
        exports = [f.name for f in functions if f.kind in _EXPORTED]
        if target.architecture == "wasm32":
            result = link_module(_machine_code(functions, codes, target, "object"), exports)
        elif target.pointer_bits != 64:  # our linker does not know it
            result = _machine_code(functions, codes, target, "object")
        else:
            result = link_shared(_objects(functions, codes, target), exports)
    store.put(key, result)
    return result


def _machine_code(
    functions: Sequence[SourceFunction],
    codes: Mapping[str, bytes],
    target: CpuTarget,
    emit: str,
    elsewhere: Collection[str] | None = None,
) -> bytes:
    """`functions`, with those that they call unless those are `elsewhere`, as one module."""
    module = backend.link(functions, [codes[d] for d in dict.fromkeys(f.digest for f in functions)], target, elsewhere)
    backend.optimise(module, target)
    result: bytes = backend.emit(module, target, emit)
    return result


def _objects(functions: tuple[SourceFunction, ...], codes: Mapping[str, bytes], target: CpuTarget) -> list[bytes]:
    """The objects of a library. A large one has several, made by all cores; how many depends on the source alone."""
    groups = partition(functions)
    if len(groups) == 1:
        return [_machine_code(functions, codes, target, "object")]
    kernels = {f.symbol for f in functions if f.kind == "kernel"}

    def build(group: tuple[SourceFunction, ...]) -> bytes:
        return _machine_code(group, codes, target, "object", kernels - {f.symbol for f in group})

    return forked_map(build, groups, [sum(f.size for f in group) for group in groups], _cores())


def partition(functions: tuple[SourceFunction, ...]) -> list[tuple[SourceFunction, ...]]:
    """Functions in groups of about equal size, each in the order of the source: kernels with what only they call (chunks and
    instructions), and programs, which call the kernels of every group. Equal kernels stay together."""
    by_name = {f.name: f for f in functions}
    units: dict[str, dict[str, None]] = {}
    for f in functions:
        if f.kind not in _EXPORTED:
            continue
        unit, waiting = units.setdefault(f.digest, {}), [f.name]
        while waiting:
            name = waiting.pop()
            if name not in unit:
                unit[name] = None
                waiting += [c for c in by_name[name].callees if by_name[c].kind not in _EXPORTED]
    members = list(units.values())
    sizes = [sum(by_name[name].size for name in unit) for unit in members]
    count = max(1, min(MOST_OBJECTS, sum(sizes) // OBJECT_CHARACTERS))
    groups = []
    for share in balanced(sizes, min(count, max(1, len(members)))):
        chosen = {name for k in share for name in members[k]}
        groups.append(tuple(f for f in functions if f.name in chosen))
    return groups


def check_features(source: str, target: CpuTarget) -> None:
    """That `target` has what the instructions in `source` need.

    Raises:
        BuildError: it lacks a feature; the message names it.
    """
    _check_features(split_functions(source), target)


def _check_features(functions: tuple[SourceFunction, ...], target: CpuTarget) -> None:
    """Without them LLVM would end the process."""
    for f in functions:
        if missing := [r for r in f.requires if not target.has(r)]:
            raise BuildError(
                f"{f.name} needs CPU features that {target.triple} {target.cpu or 'generic'} lacks: {', '.join(missing)}; "
                "tensorize(..., fallback=True) runs plain loops there"
            )


def bitcode(source: str, functions: tuple[SourceFunction, ...], store: Store) -> dict[str, bytes]:
    """Front-end bitcode by digest, each distinct function once."""
    keys = {f.digest: hashlib.sha256(f"{f.digest}\0{compiler_fingerprint()}".encode()).hexdigest() for f in functions}
    found = {digest: store.get(key) for digest, key in keys.items()}
    missing: dict[str, SourceFunction] = {}
    for f in functions:
        if found[f.digest] is None:
            missing.setdefault(f.digest, f)
    if missing:
        for digest, code in _front_end(source, functions, list(missing.values())).items():
            store.put(keys[digest], code)
            found[digest] = code
    return {digest: code for digest, code in found.items() if code is not None}


def _front_end(source: str, functions: tuple[SourceFunction, ...], missing: list[SourceFunction]) -> dict[str, bytes]:
    frontend = tensorlang._native_frontend  # imports numba, 0.4 s of CPU: on the first cache miss, never on a hit
    namespace: dict[str, object] = {"__name__": "tensorlang_emitted"}
    exec(compile(rewrite_loops(ast.parse(source)), "<emitted>", "exec"), namespace)
    by_name = {f.name: f for f in functions}

    def lower(described: SourceFunction) -> bytes:
        emitted = namespace[described.name]
        if not isinstance(emitted, EmittedFunction):
            raise InternalError(f"{described.name} is not a decorated function of the emitted module")
        callees = {name: by_name[name] for name in described.callees}
        return frontend.to_bitcode(frontend.lower_function(emitted.function, described, callees))

    frontend.prepare()  # before forking, so that no child does it again
    workers = min(_cores(), len(missing) // FUNCTIONS_PER_WORKER)
    codes = forked_map(lower, missing, [f.size for f in missing], workers)
    return {described.digest: code for described, code in zip(missing, codes, strict=True)}


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
