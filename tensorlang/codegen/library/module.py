"""Kernels, `main`, planning, pool and C functions as one object file: linked and optimised as one module."""

from __future__ import annotations

import hashlib

import llvmlite.binding as llvm

from tensorlang.codegen.library.api import api_names, api_text
from tensorlang.codegen.library.interface import Interface
from tensorlang.codegen.library.planning import planning_source
from tensorlang.codegen.library.program import NPY_SOURCE, program_text
from tensorlang.codegen.native import backend
from tensorlang.codegen.native.compile import NoStore, Store, bitcode, check_features, compiler_fingerprint
from tensorlang.codegen.native.pool_code import pool_source, with_serial_pool
from tensorlang.codegen.native.source import split_functions
from tensorlang.codegen.native.target import CpuTarget, initialize_llvm, target_machine
from tensorlang.codegen.wasm import NO_SYSTEM

PROGRAM = "tl.program"
# what the runtime calls when it loads the library: `main` and the pool, after the prefix and two underscores
RUNTIME = (
    "main", "pool_worker", "pool_wake", "pool_parallel_for", "pool_acquire", "pool_release", "pool_spin", "pool_allocate",
    "pool_free",
)  # fmt: skip


def library_object(
    source: str,
    interface: Interface,
    target: CpuTarget,
    *,
    weights: bool = True,
    program: bool = False,
    store: Store | None = None,
) -> tuple[bytes, list[str]]:
    """A compiled model as one relocatable object.

    Args:
        source: the model's emitted module.
        weights: whether the object refers to the weights by the symbol <prefix>_weights.
        program: whether it has a `main` that reads and writes .npy files, and offers that alone.

    Returns:
        The object, and the global symbols that it offers.

    Raises:
        BuildError: the target lacks a feature that an instruction needs, or the pool is not written for it.
    """
    store = store or NoStore()
    exports = [*api_names(interface), *(runtime_names(interface) if target.has_threads else ())]
    planning, messages = planning_source(interface, target.pointer_bits // 8)
    # a module's imports are those before its first function
    around = pool_source(target) + "\n\n" + planning if target.has_threads else with_serial_pool(planning)
    text = api_text(interface, target, messages, weights=weights)
    if program:
        exports = ["main"]
        around += "\n\n" + NPY_SOURCE
        text += program_text(interface, target.pointer_bits)
    parts = (source, around, text, repr(target), compiler_fingerprint())
    key = hashlib.sha256("\0".join(("library", *parts)).encode()).hexdigest()
    if (found := store.get(key)) is not None:
        return found, exports
    check_features(source, target)
    initialize_llvm()
    llvm.initialize_native_asmparser()
    module = _part(source, target, {"main": PROGRAM})
    module.link_in(_part(around, target, None))
    machine = target_machine(target)
    header = f'target triple = "{target.triple}"\ntarget datalayout = "{machine.target_data}"\n'
    aliases = "" if program or not target.has_threads else "\n".join(_runtime_entry(interface, name) for name in RUNTIME)
    module.link_in(llvm.parse_assembly(header + text + aliases))
    if not target.has_threads:
        module.link_in(llvm.parse_assembly(header + NO_SYSTEM))
    _keep_only(module, frozenset(exports))
    module.verify()
    backend.optimise(module, target)
    result = backend.emit(module, target, "object")
    store.put(key, result)
    return result, exports


def data_object(symbol: str, data: bytes, target: CpuTarget) -> bytes:
    """An object file that defines `symbol` as read-only data that begins on a page: by LLVM, for any machine, slowly."""
    machine = target_machine(target)
    content = "".join(f"\\{b:02X}" for b in data)
    text = f'target triple = "{target.triple}"\ntarget datalayout = "{machine.target_data}"\n'
    text += f'@{symbol} = hidden constant [{len(data)} x i8] c"{content}", align 4096\n'
    return backend.emit(llvm.parse_assembly(text), target, "object")


def runtime_names(interface: Interface) -> list[str]:
    """Symbols of the functions that the runtime calls."""
    return [f"{interface.prefix}__{name}" for name in RUNTIME]


_ARGUMENTS = {
    "main": "i64, i64, ptr, ptr, ptr", "pool_worker": "", "pool_parallel_for": "i64, i64, i64", "pool_allocate": "i64, ptr",
}  # fmt: skip


def _runtime_entry(interface: Interface, name: str) -> str:
    types = ["ptr", *filter(None, _ARGUMENTS.get(name, "i64").split(", "))]
    passed = ", ".join(f"{t} %a{k}" for k, t in enumerate(types))
    callee = PROGRAM if name == "main" else name
    return (
        f'define i32 @{interface.prefix}__{name}({passed}) {{\n  %s = tail call i32 @"{callee}"({passed})\n  ret i32 %s\n}}'
    )


def _part(source: str, target: CpuTarget, renamed: dict[str, str] | None) -> llvm.ModuleRef:
    """An emitted module as LLVM's; of its functions, only those in `renamed` (None: all) stay visible, by their new names."""
    functions = split_functions(source)
    module = backend.link(functions, bitcode(source, functions).values(), target)
    if renamed is not None:
        for function in module.functions:
            if function.is_declaration:
                continue
            if function.name in renamed:
                function.name = renamed[function.name]
            else:
                function.linkage = "internal"
    return module


def _keep_only(module: llvm.ModuleRef, exports: frozenset[str]) -> None:
    for function in module.functions:
        if not function.is_declaration and function.name not in exports:
            function.linkage = "internal"

