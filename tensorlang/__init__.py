"""A deep-learning compiler in readable Python: tensor expressions and model files to machine code.

    import tensorlang as tl
    from tensorlang import te

This module is a facade and holds no code of its own. Every public name is loaded when it is first used (PEP 562), so
that `import tensorlang` costs milliseconds: numba, sympy, islpy and onnx are imported only by the parts that need them.
A few private names serve our own modules in the same way: they are what a warm build never touches (tests/layering.py
says who may).

`tl.compile` and `tl.build` are functions, although the modules that define them are called `tensorlang/compile.py` and
`tensorlang/build.py`; the same goes for `tl.load_model` and `tl.benchmark`. Python's import system binds a submodule as
an attribute of its package once it is imported; `_Facade` ignores that for public names: each means one thing always.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what type checkers and editors see; keep in step with the tables (a test compares the two)
    from tensorlang import errors as errors, limits as _limits, te as te  # noqa: F401
    from tensorlang.benchmark import benchmark as benchmark
    from tensorlang.build.plain import runner_of as _runner_of  # noqa: F401
    from tensorlang.codegen import target as _targets  # noqa: F401
    from tensorlang.codegen.native import frontend as _native_frontend  # noqa: F401 (these are what is offered, not used)
    from tensorlang.codegen.native.target import CpuTarget as CpuTarget
    from tensorlang.compile import Executable as Executable, compile as compile, load as load
    from tensorlang.explain import explain as _explain  # noqa: F401
    from tensorlang.export import export_artifact as _export_artifact  # noqa: F401
    from tensorlang.graph.buckets import compile_buckets as _compile_buckets  # noqa: F401
    from tensorlang.graph.hosted import compile_hosted as _compile_hosted  # noqa: F401
    from tensorlang.graph.needs import needs_report as _needs_report  # noqa: F401
    from tensorlang.graph.ops.custom import is_reproducible as _is_reproducible  # noqa: F401
    from tensorlang.load_model import (
        from_onnx as from_onnx,
        load_model as load_model,
        register_onnx_op as register_onnx_op,
    )
    from tensorlang.runtime import artifact as _artifact  # noqa: F401
    from tensorlang.runtime.context import set_num_threads as set_num_threads
    from tensorlang.segmented import segmented as _segmented  # noqa: F401
    from tensorlang.session import InferenceSession as InferenceSession
    from tensorlang.te.frontend import build_operator as build  # noqa: F401
    from tensorlang.verify import certify as _certify  # noqa: F401

__version__ = "0.1.0"  # read by pyproject.toml too

# public name -> (module that defines it, attribute there; None: the module itself)
_PUBLIC: dict[str, tuple[str, str | None]] = {
    "errors": ("tensorlang.errors", None),
    "te": ("tensorlang.te", None),
    "benchmark": ("tensorlang.benchmark", "benchmark"),
    "build": ("tensorlang.te.frontend", "build_operator"),
    "CpuTarget": ("tensorlang.codegen.native.target", "CpuTarget"),
    "Executable": ("tensorlang.compile", "Executable"),
    "compile": ("tensorlang.compile", "compile"),
    "load": ("tensorlang.compile", "load"),
    "from_onnx": ("tensorlang.load_model", "from_onnx"),
    "load_model": ("tensorlang.load_model", "load_model"),
    "register_onnx_op": ("tensorlang.load_model", "register_onnx_op"),
    "set_num_threads": ("tensorlang.runtime.context", "set_num_threads"),
    "InferenceSession": ("tensorlang.session", "InferenceSession"),
}

# the same, for our own modules alone
_PRIVATE: dict[str, tuple[str, str | None]] = {
    "_artifact": ("tensorlang.runtime.artifact", None),
    "_certify": ("tensorlang.verify", "certify"),
    "_compile_buckets": ("tensorlang.graph.buckets", "compile_buckets"),
    "_compile_hosted": ("tensorlang.graph.hosted", "compile_hosted"),
    "_explain": ("tensorlang.explain", "explain"),
    "_export_artifact": ("tensorlang.export", "export_artifact"),
    "_limits": ("tensorlang.limits", None),
    "_is_reproducible": ("tensorlang.graph.ops.custom", "is_reproducible"),
    "_runner_of": ("tensorlang.build.plain", "runner_of"),
    "_segmented": ("tensorlang.segmented", "segmented"),
    "_needs_report": ("tensorlang.graph.needs", "needs_report"),
    "_targets": ("tensorlang.codegen.target", None),
    "_native_frontend": ("tensorlang.codegen.native.frontend", None),
}

__all__ = ["__version__", *sorted(_PUBLIC)]


def __getattr__(name: str) -> Any:
    """Load the name `name` on first use (PEP 562)."""
    found = _PUBLIC.get(name) or _PRIVATE.get(name)
    if found is None:
        raise AttributeError(f"module 'tensorlang' has no attribute {name!r}")
    module_name, attribute = found
    module = importlib.import_module(module_name)
    value = module if attribute is None else getattr(module, attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC} - {*_PRIVATE})


class _Facade(ModuleType):
    """The type of this module: public names are never overwritten by a submodule of the same name."""

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and _PUBLIC.get(name, (None, None))[1] is not None:
            return  # the import system binding tensorlang/compile.py after its import: `compile` stays the function
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Facade
