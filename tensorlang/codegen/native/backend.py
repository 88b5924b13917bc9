"""Bitcode of single functions to one optimised module, and that to an object file, assembly or LLVM text."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import llvmlite.binding as llvm

from tensorlang.codegen.native.source import SourceFunction
from tensorlang.codegen.native.support import support
from tensorlang.codegen.native.target import CpuTarget, target_machine
from tensorlang.errors import InternalError

_C_TYPES = {"bool": "i8", "f32": "float", "f64": "double", "f16": "i16", "bf16": "i16"}


def c_type(type_text: str) -> str:
    """The LLVM type in which a declared parameter crosses a C boundary."""
    return "ptr" if type_text.endswith("*") else _C_TYPES.get(type_text, f"i{type_text[1:]}")


def _exports(functions: Sequence[SourceFunction]) -> str:
    """C-ABI functions named as in the source, for kernels and programs; the others are reached through kernels only."""
    declarations: dict[str, None] = {}
    lines = []
    for f in functions:
        if f.kind in ("chunk", "instruction"):
            continue
        types = ["ptr", *(c_type(type_text) for type_text, _ in f.parameters)]
        declarations[f'declare i32 @"{f.symbol}"({", ".join(types)})'] = None  # equal kernels share one
        passed = ", ".join(f"{t} %a{k}" for k, t in enumerate(types))
        lines.append(f'define i32 @"{f.name}"({passed}) {{\n  %status = tail call i32 @"{f.symbol}"({passed})')
        lines.append("  ret i32 %status\n}")
    return "\n".join([*declarations, *lines]) + "\n"


def link(
    functions: Sequence[SourceFunction],
    bitcode: Iterable[bytes],
    target: CpuTarget,
    elsewhere: Collection[str] | None = None,
    named: bool = True,
) -> llvm.ModuleRef:
    """One unoptimised module for `target`, exporting the kernels and programs by name, everything else internal.

    Args:
        elsewhere: symbols of functions that other modules of the same library have; those in turn may call our kernels by
            their symbols. None: there are no other modules.
        named: whether kernels and programs are exported by their names.
    """
    machine = target_machine(target)
    header = f'target triple = "{target.triple}"\ntarget datalayout = "{machine.target_data}"\n'
    exports = _exports(functions) if named else ""
    module = llvm.parse_assembly(header + exports)
    for code in bitcode:
        part = llvm.parse_bitcode(code)
        part.triple, part.data_layout = target.triple, str(machine.target_data)
        module.link_in(part)
    others = frozenset(elsewhere or ())
    called = [f.name for f in module.functions if f.is_declaration and f.name.startswith("tl.") and f.name not in others]
    module.link_in(llvm.parse_assembly(header + support(called, target)))
    keep = {f.name for f in functions if f.kind not in ("chunk", "instruction")}
    if elsewhere is not None:
        keep |= {f.symbol for f in functions if f.kind == "kernel"}
    inlined = {f.symbol for f in functions if f.kind == "instruction"}
    for function in module.functions:
        if function.is_declaration:
            if function.name.startswith("tl.") and function.name not in others:
                raise InternalError(f"{function.name} is called but was not compiled")
            continue
        if function.name not in keep:
            function.linkage = "internal"
        if function.name in inlined:
            function.add_function_attribute("alwaysinline")
        if function.name.startswith("tl."):
            function.add_function_attribute("nounwind")  # LLVM's defaults do not say so
    for variable in module.global_variables:
        if not variable.is_declaration:
            variable.linkage = "internal"
    return module


def optimise(module: llvm.ModuleRef, target: CpuTarget) -> None:
    """One O2 run over the whole module."""
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_vectorization = True
    options.slp_vectorization = True
    options.loop_unrolling = True
    builder = llvm.create_pass_builder(target_machine(target), options)
    builder.getModulePassManager().run(module, builder)


def emit(module: llvm.ModuleRef, target: CpuTarget, kind: str) -> bytes:
    """`module` as an object file ("object"), assembly ("asm") or LLVM text ("llvm")."""
    if kind == "llvm":
        return str(module).encode()
    machine = target_machine(target)
    if kind == "asm":
        return machine.emit_assembly(module).encode()
    return bytes(machine.emit_object(module))
