"""Numba's typing rules and lowerings as a front end: one emitted function in, target-neutral LLVM IR out, nothing compiled.

We bring our own contexts with only the registries that emitted code needs (numbers, ranges, our intrinsics), and walk the
function's syntax tree ourselves (`translate`). Importing this module imports numba.
"""

from __future__ import annotations

import ast
import re
import threading
from collections.abc import Mapping
from typing import Any

import llvmlite.binding as llvm
from numba.core import compiler, types, typing
from numba.core.callconv import create_error_model
from numba.core.codegen import AOTCPUCodegen
from numba.core.compiler_lock import global_compiler_lock
from numba.core.cpu import CPUContext
from numba.core.errors import NumbaError
from numba.core.targetconfig import ConfigStack
from numba.core.typing import templates
from numba.cpython import builtins, numbers, rangeobj, tupleobj

from tensorlang.codegen.intrinsics.lowering import GLOBALS, IntrinsicType, lowering_registry
from tensorlang.codegen.intrinsics.lowering.calls import Callee, CalleeType, call_callee
from tensorlang.codegen.intrinsics.lowering.registry import DTypeName
from tensorlang.codegen.intrinsics.lowering.system import UNROLL_SYMBOL
from tensorlang.codegen.intrinsics.lowering.types import context_type, parameter_type
from tensorlang.codegen.native.source import SourceFunction
from tensorlang.codegen.native.target import CpuTarget, initialize_llvm, target_machine
from tensorlang.codegen.native.translate import translate
from tensorlang.errors import InternalError

_ = (builtins, numbers, rangeobj, tupleobj)  # imported for what they register


def _is_core_rule(template: Any) -> bool:
    """Whether a typing template was written in numba's own module of numbers, ranges and tuples."""
    return any(base.__module__ == "numba.core.typing.builtins" for base in template.__mro__)


class _Typing(typing.BaseContext):
    """Only the typing rules of numbers, ranges and our intrinsics."""

    def init(self) -> None:
        self._loaded = False

    def refresh(self) -> None:
        if self._loaded:
            return  # nothing is registered later on
        self._loaded = True
        source = templates.builtin_registry
        core = templates.Registry()
        core.functions = [f for f in source.functions if _is_core_rule(f)]
        for value, t in source.globals:
            if not any(map(_is_core_rule, getattr(t, "templates", ()))) or value is bool:
                continue
            ours = GLOBALS.get(value)
            if isinstance(ours, IntrinsicType):
                ours.fallback = t if ours.fallback is None else ours.fallback.augment(t)
            else:
                core.globals.append((value, t))
        self.install_registry(core)
        for value, t in GLOBALS.items():
            self.insert_global(value, t)


class _Codegen(AOTCPUCodegen):
    """Knows the data layout; unlike its parent it starts no execution engine."""

    def __init__(self, name: str):
        initialize_llvm()
        self._libraries: set[Any] = set()
        self._library_name = name
        machine = target_machine(CpuTarget.host())
        self._target_data = machine.target_data
        self._data_layout = str(self._target_data)


class _Context(CPUContext):
    def init(self) -> None:
        self.is32bit = False
        self._internal_codegen = _Codegen("tensorlang")

        self._ready = False

    def refresh(self) -> None:
        if not self._ready:
            self._ready = True
            super().refresh()

    def load_additional_registries(self) -> None:
        self.install_registry(lowering_registry)

    def add_linking_libs(self, libs: Any) -> None:
        if libs:
            raise InternalError(f"emitted code needs {libs}: it may use nothing but intrinsics")

    def get_constant_generic(self, builder: Any, ty: Any, val: Any) -> Any:
        if isinstance(ty, (IntrinsicType, DTypeName, CalleeType, types.StringLiteral)):
            return self.get_dummy_value()  # names, which are known by their types
        return super().get_constant_generic(builder, ty, val)

    def get_function(self, fn: Any, sig: Any, _firstcall: bool = True) -> Any:
        if isinstance(fn, IntrinsicType):
            found = fn.implementation(self, sig)
            if found is not None:
                return found
            if fn.fallback is None:
                raise NotImplementedError(fn, sig)
            fn = fn.fallback
        elif isinstance(fn, CalleeType):
            return call_callee(fn)
        return super().get_function(fn, sig, _firstcall)


_lock = threading.Lock()
_contexts: tuple[_Typing, _Context] | None = None


def _get_contexts() -> tuple[_Typing, _Context]:
    global _contexts
    with _lock:
        if _contexts is None:
            typing_context = _Typing()
            context = _Context(typing_context)
            typing_context.refresh()
            context.refresh()
            context = context.subtarget(error_model=create_error_model("numpy", context))
            _contexts = (typing_context, context)
        return _contexts


def prepare() -> None:
    """Load numba's registries now."""
    _get_contexts()


def _flags() -> compiler.Flags:
    flags = compiler.Flags()
    flags.error_model = "numpy"
    flags.boundscheck = False
    flags.nrt = False
    return flags


@global_compiler_lock
def lower_function(
    function: ast.FunctionDef, described: SourceFunction, callees: Mapping[str, SourceFunction], prelude: Mapping[str, Any]
) -> str:
    """LLVM IR text of one emitted function: `i32 tl.<digest>(ctx, ...)` and, for a chunk, its packed entry.

    Args:
        function: the syntax tree of its `def`.
        described: its signature and digest.
        callees: the emitted functions it mentions, by name.
        prelude: what else its names mean.

    Raises:
        InternalError: the emitter wrote what the intrinsics do not know.
    """
    typing_context, context = _get_contexts()
    names = [a.arg for a in function.args.args]
    expected = [*described.implicit, *(name for _, name in described.parameters)]
    if names != expected:
        written, wanted = ", ".join(names), ", ".join(expected)
        raise InternalError(f"@{described.kind} {described.name}({written}) does not match its signature: expected ({wanted})")
    stand_ins = {
        name: CalleeType(Callee(callee.symbol, callee.kind, tuple(t for t, _ in callee.parameters)))
        for name, callee in callees.items()
    }
    declared = [parameter_type(text) for text, _ in described.parameters]
    parameters = [(context_type, False), *((types.int64, False) for _ in described.implicit[1:])]
    parameters += [(t, described.kind != "program") for t in declared]
    try:
        with ConfigStack().enter(_flags()):
            module = translate(function, described.symbol, parameters, {**prelude, **stand_ins}, typing_context, context)
    except (NumbaError, NotImplementedError) as error:
        raise InternalError(f"emitted function {described.name} does not compile:\n{error}") from error
    text = _mark_loops(_HEADER.sub("", str(module)))
    return text + _packed_entry(described) if described.kind == "chunk" else text


_HEADER = re.compile(r"^target (?:triple|datalayout) = .*\n", re.M)


_UNROLL = re.compile(rf'^  call void @"{UNROLL_SYMBOL}"\(\)\n((?:  .*\n)*?)(  br i1 .*)$', re.M)
_FIRST_METADATA = 1_000_000  # beyond any number that llvmlite gives


def _mark_loops(text: str) -> str:
    """Replace each unroll mark by metadata on the branch that ends its block, which closes the loop."""
    count = 0

    def replace(match: re.Match[str]) -> str:
        nonlocal count
        count += 1
        return f"{match[1]}{match[2]}, !llvm.loop !{_FIRST_METADATA + count}"

    text = _UNROLL.sub(replace, text)
    if not count:
        return text
    nodes = [f'!{_FIRST_METADATA} = !{{!"llvm.loop.unroll.full"}}']
    for k in range(_FIRST_METADATA + 1, _FIRST_METADATA + count + 1):
        nodes.append(f"!{k} = distinct !{{!{k}, !{_FIRST_METADATA}}}")
    return text + "\n" + "\n".join(nodes) + "\n"


def _packed_entry(described: SourceFunction) -> str:
    """`i32 tl.<digest>.chunk(ctx, begin, end, packed)`: a chunk with its arguments in a record."""
    llvm_types = [_llvm_type(text) for text, _ in described.parameters]
    record = f"{{ {', '.join(llvm_types)} }}"
    body = [f'define i32 @"{described.symbol}.chunk"(ptr %ctx, i64 %begin, i64 %end, ptr %packed) {{']
    for k, t in enumerate(llvm_types):
        body.append(f"  %p{k} = getelementptr {record}, ptr %packed, i32 0, i32 {k}")
        body.append(f"  %v{k} = load {t}, ptr %p{k}")
    unpacked = "".join(f", {t} %v{k}" for k, t in enumerate(llvm_types))
    body.append(f'  %status = call i32 @"{described.symbol}"(ptr %ctx, i64 %begin, i64 %end{unpacked})')
    return "\n".join(["", *body, "  ret i32 %status", "}", ""])


def _llvm_type(type_text: str) -> str:
    if type_text.endswith("*"):
        return "ptr"
    scalar = {"bool": "i8", "f32": "float", "f64": "double", "f16": "i16", "bf16": "i16"}
    return scalar.get(type_text, f"i{type_text[1:]}")


def to_bitcode(text: str) -> bytes:
    """LLVM text, checked, as bitcode: smaller and quicker to read again."""
    module = llvm.parse_assembly(text)
    module.verify()
    return bytes(module.as_bitcode())
