"""Emitted source to machine code: split, front-end each distinct function once, link, optimise once, emit once.

Two caches, both by content: the front end's bitcode per function (independent of names and of the CPU's features), and
the finished object per module. On an object hit neither numba nor LLVM's optimiser is loaded.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import os
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

from tensorlang.codegen.intrinsics.functions import EmittedFunction
from tensorlang.codegen.native import backend
from tensorlang.codegen.native.forked import forked_map
from tensorlang.codegen.native.loops import rewrite_loops
from tensorlang.codegen.native.pool_code import pool_source
from tensorlang.codegen.native.source import SourceFunction, split_functions
from tensorlang.codegen.native.target import CpuTarget
from tensorlang.config import Settings
from tensorlang.errors import InternalError
from tensorlang.runtime import context
from tensorlang.runtime.cache import ContentCache
from tensorlang.runtime.loader import Library, load_object

FUNCTIONS_PER_WORKER = 4  # fewer are not worth a process


@cache
def compiler_fingerprint() -> str:
    """Hash of what turns source into code: our intrinsics and native folders, and the versions beneath them."""
    digest = hashlib.sha256()
    for package in ("numba", "llvmlite", "numpy"):
        digest.update(f"{package} {version(package)}\n".encode())
    root = Path(__file__).parents[1]
    for path in sorted([*root.glob("intrinsics/**/*.py"), *root.glob("native/**/*.py")]):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _module_key(functions: tuple[SourceFunction, ...], target: CpuTarget, kind: str) -> str:
    names = " ".join(f"{f.name}:{f.kind}:{f.digest}" for f in functions)
    return hashlib.sha256(f"{kind}\0{target!r}\0{compiler_fingerprint()}\0{names}".encode()).hexdigest()


def compile_source(
    source: str, target: CpuTarget | None = None, emit: str = "object", settings: Settings | None = None
) -> bytes:
    """Compile an emitted module.

    Args:
        source: text of the module, in the format of `codegen.intrinsics`.
        target: machine to compile for; this one by default.
        emit: "object" (an ELF object file), "asm" or "llvm".
        settings: where and whether to cache; the environment's by default.

    Returns:
        The object file's bytes, or UTF-8 text.

    Raises:
        InternalError: the source is not sound.
    """
    settings = settings or Settings.from_env()
    target = target or CpuTarget.host()
    functions = split_functions(source)
    store = ContentCache.of(settings, "native")
    key = _module_key(functions, target, emit)
    if (found := store.get(key)) is not None:
        return found
    module = backend.link(functions, _bitcode(source, functions, store).values(), target)
    backend.optimise(module, target)
    result: bytes = backend.emit(module, target, emit)
    store.put(key, result)
    return result


def _bitcode(source: str, functions: tuple[SourceFunction, ...], store: ContentCache) -> dict[str, bytes]:
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
    frontend = _load_frontend()
    namespace: dict[str, object] = {"__name__": "tensorlang_emitted"}
    exec(compile(rewrite_loops(ast.parse(source)), "<emitted>", "exec"), namespace)
    by_name = {f.name: f for f in functions}

    def lower(described: SourceFunction) -> bytes:
        emitted = namespace[described.name]
        if not isinstance(emitted, EmittedFunction):
            raise InternalError(f"{described.name} is not a decorated function of the emitted module")
        callees = {name: by_name[name] for name in described.callees}
        code: bytes = frontend.to_bitcode(frontend.lower_function(emitted.function, described, callees))
        return code

    frontend.prepare()  # before forking, so that no child does it again
    workers = min(_cores(), len(missing) // FUNCTIONS_PER_WORKER)
    codes = forked_map(lower, missing, [f.size for f in missing], workers)
    return {described.digest: code for described, code in zip(missing, codes, strict=True)}


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


def _load_frontend() -> ModuleType:
    """The one module that imports numba, 0.4 s of CPU: loaded on the first cache miss, never on a hit."""
    return importlib.import_module(".frontend", __package__)


def pool_object(target: CpuTarget | None = None, settings: Settings | None = None) -> bytes:
    """Object file of the thread pool's native half, for `runtime.context.install`."""
    target = target or CpuTarget.host()
    return compile_source(pool_source(target), target, settings=settings)


def compile_and_load(source: str, target: CpuTarget | None = None, settings: Settings | None = None) -> Library:
    """Compile an emitted module (or find it in the cache) and load it into this process."""
    functions = split_functions(source)
    settings = settings or Settings.from_env()
    if not context.is_installed():
        context.install(pool_object(settings=settings), settings.num_threads)
    code = compile_source(source, target, settings=settings)
    return load_object(code, {f.name: tuple(t for t, _ in f.parameters) for f in functions if f.kind != "chunk"})
