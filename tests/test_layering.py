"""The house keeps its layers: every import of every module is parsed and ranked (rules: tests/layering.py)."""

from __future__ import annotations

from pathlib import Path

import pytest

import tensorlang
from tests.layering import LAZY_USERS, MAX_LINES, facade_uses, imports_of, project_modules, violations

ROOT = Path(__file__).resolve().parents[1]
MODULES = project_modules(ROOT)
NAMES = frozenset(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_module_keeps_the_rules(module):
    path = MODULES[module]
    assert violations(module, path.read_text(), is_package=path.name == "__init__.py", modules=NAMES) == []


@pytest.mark.parametrize("folder", ["tests", "bench", "examples"])
def test_no_long_files_elsewhere(folder):
    long = [str(p) for p in (ROOT / folder).rglob("*.py") if len(p.read_text().splitlines()) > MAX_LINES]
    assert long == []


def test_the_whole_project_was_found():
    assert {"tensorlang", "tensorlang.ir", "tensorlang.importers.onnx", "tensorlang.schedules.cpu"} <= NAMES


GOOD = [
    ("tensorlang.ir.expr", "from tensorlang.errors import TypeCheckError"),
    ("tensorlang.ir.expr", "from tensorlang.ir.dtype import DType"),
    ("tensorlang.ir.expr", "from tensorlang import errors"),
    ("tensorlang.codegen.emit", "from tensorlang import __version__"),
    ("tensorlang.lower.flatten", "from tensorlang.symbolic.simplify import simplify"),
    ("tensorlang.runtime.pool", "import tensorlang.config"),
    ("tensorlang.runtime.pool", "def start():\n    import numba"),
    ("tensorlang.symbolic.affine", "import sympy"),
    ("tensorlang.build", "from tensorlang.codegen import emit\nfrom tensorlang.runtime import pool"),
    ("tensorlang.verify", "from tensorlang.session import InferenceSession"),
    ("tensorlang.cli.commands", "import tensorlang as tl"),
    ("tensorlang.compile", "import tensorlang\ndef f(x):\n    return tensorlang.load_model(x)"),
    ("tensorlang.codegen.native.compile", "import tensorlang\ndef f():\n    tensorlang._native_frontend.prepare()"),
    ("tensorlang.verify", "def f():\n    return importlib.import_module('onnxruntime')"),
    ("tensorlang.importers.onnx.reader", "from tensorlang.graph import Graph\nfrom . import nodes"),
    ("tensorlang.importers.onnx.reader", "from ..common import x"),
    ("tensorlang.schedules.cpu.matmul", "from tensorlang.ir.stmt import Block"),
    ("tensorlang.schedules.cpu.matmul", "import tensorlang as tl\nfrom tensorlang import te"),
    ("tensorlang.graph.ops.nn", "import numpy as np\nfrom tensorlang import te"),
]
BAD = [
    ("tensorlang.ir.expr", "from tensorlang.te import compute", "ir (rank 1) imports a higher layer te (rank 5)"),
    ("tensorlang.te.operator", "from tensorlang import graph", "te (rank 5) imports a higher layer graph (rank 6)"),
    ("tensorlang.te.operator", "import tensorlang.graph.ops", "higher layer graph"),
    ("tensorlang.lower.flatten", "from tensorlang.schedule import Schedule", "imports its sibling schedule"),
    ("tensorlang.codegen.emit", "import tensorlang.lower", "imports its sibling lower"),
    ("tensorlang.schedule.state", "import tensorlang.codegen", "imports its sibling codegen"),
    ("tensorlang.codegen.emit", "import tensorlang.runtime.pool", "imports its sibling runtime"),
    ("tensorlang.runtime.pool", "from tensorlang.ir import Expr", "runtime imports layer 0 alone"),
    ("tensorlang.config", "from tensorlang.errors import InputError", "imports its sibling errors"),
    ("tensorlang.te.operator", "def call():\n    from tensorlang.build import build", "inside a function"),
    ("tensorlang.te.operator", "f = lambda: __import__('tensorlang.build')", "inside a function"),
    ("tensorlang.te.x", "import importlib\nimportlib.import_module('tensorlang.build')", "inside a function"),
    ("tensorlang.te.operator", "class C:\n    def m(self):\n        import tensorlang.build", "inside a function"),
    ("tensorlang.te.x", "def f():\n    importlib.import_module('.build', 'tensorlang')", "inside a function"),
    ("tensorlang.te.x", "NAME = 'tensorlang.build'\ndef f():\n    import_module(NAME)", "whose name is computed"),
    ("tensorlang.te.operator", "import tensorlang as tl", "imports the facade"),
    ("tensorlang.te.operator", "import tensorlang\ntensorlang._native_frontend", "imports the facade"),
    ("tensorlang.compile", "from tensorlang import load_model", "imports the facade"),
    ("tensorlang.te.frontend", "from tensorlang import build", "imports the facade"),  # the function, not the module
    ("tensorlang.compile", "import tensorlang\ntensorlang.frontend", "takes frontend from the facade, which has none"),
    ("tensorlang.codegen.native.compile", "import tensorlang\ntensorlang.load_model", "imports a higher layer load_model"),
    ("tensorlang.codegen.native.compile", "import tensorlang\ntensorlang.set_num_threads", "imports its sibling runtime"),
    ("tensorlang.te.operator", "from tensorlang import set_num_threads", "imports the facade"),
    ("tensorlang.ir.expr", "from .dtype import DType", "imports tensorlang.ir.dtype relatively"),
    ("tensorlang.graph.fuse", "import tensorlang.importers.onnx", "reach the core by registration"),
    ("tensorlang.graph.fuse", "from schedules.cpu import register", "reach the core by registration"),
    ("tensorlang.verify", "from tensorlang.frontend import x", "tensorlang.frontend has no rank"),
    ("tensorlang.frontend", "from tensorlang.ir import Expr", "tensorlang.frontend has no rank"),
    ("tensorlang.lower.flatten", "import sympy", "sympy lives in tensorlang.symbolic"),
    ("tensorlang.lower.flatten", "def f():\n    from sympy import Mod", "sympy lives in tensorlang.symbolic"),
    ("tensorlang.ir.interp", "import numba", "ir must not load numba"),
    ("tensorlang.runtime.pool", "from llvmlite import binding", "runtime must not load llvmlite"),
    ("tensorlang.importers.onnx", "from tensorlang.lower import flatten", "which is not public API"),
    ("tensorlang.importers.onnx", "import tensorlang.graph.passes.fuse", "which is not public API"),
    ("tensorlang.importers.onnx", "import tensorlang.importers.onnx.nn", "own modules are imported relatively"),
    ("tensorlang.importers.onnx.reader", "from ...graph import Graph", "leaves tensorlang.importers"),
    ("tensorlang.schedules.cpu", "def f():\n    import tensorlang", "inside a function"),
    ("tensorlang.ir.expr", "if TYPE_CHECKING:\n    from tensorlang.te import Tensor", "higher layer te"),
]


@pytest.mark.parametrize(("module", "source"), GOOD)
def test_checker_accepts(module, source):
    assert violations(module, source, modules=NAMES) == []


@pytest.mark.parametrize(("module", "source", "reason"), BAD)
def test_checker_refuses(module, source, reason):
    found = violations(module, source, modules=NAMES)
    assert len(found) == 1 and reason in found[0], found


def test_lazy_users_exist_and_use_the_facade():
    for module in LAZY_USERS:
        assert facade_uses(MODULES[module].read_text()) != []


def test_private_names_of_the_facade_are_used():
    users = [*LAZY_USERS, *(m for m in MODULES if m.split(".")[1:2] == ["cli"])]
    used = {name for module in users for name, _ in facade_uses(MODULES[module].read_text())}
    assert set(tensorlang._PRIVATE) <= used


def test_checker_refuses_long_files():
    assert violations("tensorlang.ir.expr", "x = 1\n" * MAX_LINES) != []
    assert violations("tensorlang.ir.expr", "x = 1\n" * (MAX_LINES - 1)) == []


def test_relative_imports_are_resolved_from_packages_and_modules():
    source = "from . import a\nfrom .b import c\nfrom ..d import e"
    targets = {i.target for i in imports_of("p.q.r", source, is_package=False)}
    assert targets == {"p.q", "p.q.b", "p.d"}
    targets = {i.target for i in imports_of("p.q.r", source, is_package=True)}
    assert targets == {"p.q.r", "p.q.r.b", "p.q.d"}
