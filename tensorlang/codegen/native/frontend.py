"""Numba's typing and lowering as a front end: one emitted function in, target-neutral LLVM IR out, nothing compiled.

We bring our own contexts with only the registries that emitted code needs (numbers, ranges, our intrinsics) and a
pass list without what it never has (closures, `with` blocks, list comprehensions): a third of the usual cost.
Importing this module imports numba.
"""

from __future__ import annotations

import re
import threading
from types import FunctionType
from typing import Any

import llvmlite.binding as llvm
from numba.core import compiler, types, typing
from numba.core.codegen import AOTCPUCodegen, CodeLibrary
from numba.core.compiler_lock import global_compiler_lock
from numba.core.compiler_machinery import PassManager
from numba.core.cpu import CPUContext
from numba.core.cpu_options import FastMathOptions
from numba.core.errors import NumbaError
from numba.core.typed_passes import NativeLowering, NopythonTypeInference, PreLowerStripPhis
from numba.core.typing import templates
from numba.core.untyped_passes import FixupArgs, IRProcessing, ReconstructSSA, TranslateByteCode
from numba.cpython import builtins, numbers, rangeobj, tupleobj

from tensorlang.codegen.intrinsics.lowering import GLOBALS, IntrinsicType, lowering_registry
from tensorlang.codegen.intrinsics.lowering.calls import Callee, CalleeType, call_callee
from tensorlang.codegen.intrinsics.lowering.registry import FAST_MATH, DTypeName
from tensorlang.codegen.intrinsics.lowering.system import UNROLL_SYMBOL
from tensorlang.codegen.intrinsics.lowering.types import context_type, parameter_type
from tensorlang.codegen.intrinsics.system import unroll
from tensorlang.codegen.native.loops import UNROLL_MARK
from tensorlang.codegen.native.source import SourceFunction
from tensorlang.codegen.native.target import CpuTarget, initialize_llvm, target_machine
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


class _Library(CodeLibrary):
    """Keeps the IR text; optimises, links and compiles nothing."""

    text = ""

    def add_ir_module(self, ir_module: Any) -> None:
        self.text = str(ir_module)

    def add_linking_library(self, library: Any) -> None:
        raise InternalError(f"{self.name} needs {library.name}: emitted code may use nothing but intrinsics")

    def finalize(self) -> None:
        self._finalized = True

    def get_function(self, name: str) -> Any:
        raise NotImplementedError

    def get_llvm_str(self) -> str:
        return self.text

    def get_asm_str(self) -> str:
        raise NotImplementedError


class _Codegen(AOTCPUCodegen):
    """Makes empty modules and libraries; unlike its parent it starts no execution engine."""

    _library_class = _Library

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

    def post_lowering(self, mod: Any, library: Any) -> None:
        """Emitted code owns no objects: numba's reference counting runtime is not linked."""

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


class _Pipeline(compiler.CompilerBase):
    """Numba's passes, less those for closures, `with`, generators, arrays and reference counts."""

    steps: tuple[Any, ...] = (
        TranslateByteCode, FixupArgs, IRProcessing, NopythonTypeInference, NativeLowering,
    )  # fmt: skip

    def define_pipelines(self) -> list[PassManager]:
        passes = PassManager("tensorlang")
        for step in self.steps:
            passes.add_pass(step, step.__name__)
        passes.finalize()
        return [passes]


class _SsaPipeline(_Pipeline):
    """As well for functions that give one name values of different types."""

    steps = (
        TranslateByteCode, FixupArgs, IRProcessing, ReconstructSSA, NopythonTypeInference, PreLowerStripPhis,
        NativeLowering,
    )  # fmt: skip


_lock = threading.Lock()
_contexts: tuple[_Typing, _Context] | None = None


def _get_contexts() -> tuple[_Typing, _Context]:
    global _contexts
    with _lock:
        if _contexts is None:
            typing_context = _Typing()
            context = _Context(typing_context)
            context.refresh()
            _contexts = (typing_context, context)
        return _contexts


def prepare() -> None:
    """Load numba's registries now."""
    _get_contexts()


def _flags() -> compiler.Flags:
    flags = compiler.Flags()
    flags.no_compile = True
    flags.no_cpython_wrapper = True
    flags.no_cfunc_wrapper = True
    flags.no_rewrites = True
    flags.error_model = "numpy"
    flags.fastmath = FastMathOptions(set(FAST_MATH))
    flags.boundscheck = False
    flags.nrt = False
    return flags


@global_compiler_lock
def lower_function(function: FunctionType, described: SourceFunction, callees: dict[str, SourceFunction]) -> str:
    """LLVM IR text of one emitted function: `i32 tl.<digest>(ctx, ...)` and, for a chunk, its packed entry.

    Args:
        function: the plain function of the executed module.
        described: its signature and digest.
        callees: the emitted functions it mentions, by name.

    Raises:
        InternalError: numba cannot type it, with numba's message: the emitter wrote what the intrinsics do not know.
    """
    typing_context, context = _get_contexts()
    stand_ins = {
        name: Callee(callee.symbol, callee.kind, tuple(t for t, _ in callee.parameters)) for name, callee in callees.items()
    }
    isolated = FunctionType(function.__code__, {**function.__globals__, **stand_ins, UNROLL_MARK: unroll}, function.__name__)
    implicit = [context_type, *(types.int64 for _ in described.implicit[1:])]
    arguments = (*implicit, *(parameter_type(text) for text, _ in described.parameters))
    for attempt in (_Pipeline, _SsaPipeline):
        try:
            pipeline = attempt(typing_context, context, None, arguments, types.none, _flags(), {})
            pipeline.compile_extra(isolated)
            break
        except NumbaError as error:
            if attempt is _SsaPipeline:
                raise InternalError(f"emitted function {described.name} does not compile:\n{error}") from error
    library = pipeline.state.library
    lowered = pipeline.state["cr"]
    return _with_entries(library.text, lowered.fndesc, described)


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


def _with_entries(text: str, fndesc: Any, described: SourceFunction) -> str:
    """Numba's function under our symbol, wrapped to a plain C signature."""
    inner = f"{described.symbol}.inner"
    text = text.replace(fndesc.llvm_func_name, inner).replace(fndesc.env_name, f"{described.symbol}.env")
    text = _mark_loops(_HEADER.sub("", text))
    llvm_types = [*("ptr", "i64", "i64")[: len(described.implicit)]]
    llvm_types += [_llvm_type(type_text) for type_text, _ in described.parameters]
    names = [f"%a{k}" for k in range(len(llvm_types))]
    declared = ", ".join(
        f"{t} noalias {n}" if t == "ptr" and k and described.kind != "program" else f"{t} {n}"
        for k, (t, n) in enumerate(zip(llvm_types, names, strict=True))
    )
    passed = ", ".join(f"{t} {n}" for t, n in zip(llvm_types, names, strict=True))
    body = [
        f'define i32 @"{described.symbol}"({declared}) {{',
        "  %ret = alloca ptr",
        "  %exc = alloca ptr",
        f'  %status = call i32 @"{inner}"(ptr %ret, ptr %exc, {passed})',
        "  ret i32 %status",
        "}",
    ]
    if described.kind == "chunk":
        record = f"{{ {', '.join(llvm_types[3:])} }}"
        body.append(f'define i32 @"{described.symbol}.chunk"(ptr %ctx, i64 %begin, i64 %end, ptr %packed) {{')
        for k, t in enumerate(llvm_types[3:]):
            body.append(f"  %p{k} = getelementptr {record}, ptr %packed, i32 0, i32 {k}")
            body.append(f"  %v{k} = load {t}, ptr %p{k}")
        unpacked = "".join(f", {t} %v{k}" for k, t in enumerate(llvm_types[3:]))
        body.append(f'  %status = call i32 @"{described.symbol}"(ptr %ctx, i64 %begin, i64 %end{unpacked})')
        body += ["  ret i32 %status", "}"]
    return text + "\n" + "\n".join(body) + "\n"


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
