"""The layer rules as code: what each module may import. Used by tests/test_layering.py.

A *violation* is one line of text, "module:line: reason". The rules:

1. A module of `tensorlang/` imports only modules of a lower rank, or of its own package. Rank 3 has four siblings that
   never import each other; `runtime/` imports rank 0 alone. Modules of rank 8 may import each other (the command line
   sits on `compile`, say), for they are one layer without order.
2. Nobody imports the facade's functions from inside: `from tensorlang import compile` would hide a dependency. The
   command line is written as any user's program would be, and uses it. So do the modules of `LAZY_USERS`, each for a
   reason: `import tensorlang` at the top, and `tensorlang.name` where it is needed; the name's own module counts as
   imported there, and has to be of a lower rank.
3. `importers/` and `schedules/` use public API only and import their own modules relatively. Public are the packages
   themselves in `PUBLIC` (what their `__init__` offers), the few modules named there, and all of `ir/`: it is the
   vocabulary that every part speaks.
4. No function-level import of our own modules, nor `importlib.import_module` of them, nor of a computed name that could
   be one: only the facade is lazy.
5. sympy lives in `symbolic/`. Layer 0, `ir/` and `runtime/` load no heavy library at import time.
6. No file is longer than 1000 lines.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import tensorlang

RANKS = {
    "errors": 0, "config": 0,
    "ir": 1,
    "symbolic": 2,
    "schedule": 3, "lower": 3, "codegen": 3, "runtime": 3,
    "build": 4,
    "te": 5,
    "graph": 6,
    "tune": 7,
    "compile": 8, "load_model": 8, "benchmark": 8, "explain": 8, "export": 8, "limits": 8, "segmented": 8, "session": 8,
    "verify": 8, "cli": 8, "interop": 8,
}  # fmt: skip
TOP_RANK = 8
PUBLIC = {  # what an importer or a schedule, ours or a third party's, may build on
    "tensorlang",
    "tensorlang.errors",
    "tensorlang.config",
    "tensorlang.ir",
    "tensorlang.symbolic.affine",  # default schedules match the structure of index expressions
    "tensorlang.schedule",
    "tensorlang.schedule.rules",  # how a default schedule is registered, and the machine it is written for
    "tensorlang.te",
    "tensorlang.graph",
}
PUBLIC_TREES = ("tensorlang.ir.",)
HEAVY = {"numba", "llvmlite", "sympy", "islpy", "onnx", "onnxruntime", "typer", "rich", "torch", "tensorflow"}
LIGHT_PACKAGES = {"errors", "config", "ir", "runtime"}
FACADE = "tensorlang"
FACADE_USERS = {"cli"}
LAZY_USERS = {
    "tensorlang.cli.doctor": "the command line starts fast; what targets need is asked when doctor runs",
    "tensorlang.codegen.native.compile": "numba's front end costs 0.4 s, and a build that the cache knows needs none",
    "tensorlang.compile": "a model that the cache knows needs no importer, no graph and no oracle",
}
FACADE_NAMES = tensorlang._PUBLIC | tensorlang._PRIVATE
FACADE_CONSTANTS = {"__version__"}
COMPUTED = "<computed>"
MAX_LINES = 1000
OUTSIDE = {"importers": "tensorlang.importers", "schedules": "tensorlang.schedules"}  # folder -> installed name


@dataclass(frozen=True)
class Import:
    """One imported module: its absolute name, the names taken from it, and where the statement stands."""

    target: str
    names: tuple[str, ...]
    line: int
    relative: bool
    in_function: bool


def imports_of(module: str, source: str, *, is_package: bool) -> list[Import]:
    """Every import in `source`, at any depth, with relative names made absolute; `module` is its dotted name."""
    found: list[Import] = []

    def visit(node: ast.AST, in_function: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend(Import(alias.name, (), node.lineno, False, in_function) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            target = node.module or ""
            if node.level:
                parents = module.split(".")
                base = parents[: len(parents) - node.level + is_package]
                target = ".".join([*base, target] if target else base)
            names = tuple(alias.name for alias in node.names)
            found.append(Import(target, names, node.lineno, bool(node.level), in_function))
        elif isinstance(node, ast.Call) and (name := _dynamic_import(node)) is not None:
            found.append(Import(_absolute(module, name, is_package), (), node.lineno, False, True))
        nested = in_function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, nested)

    visit(ast.parse(source), False)
    return found


def _dynamic_import(call: ast.Call) -> str | None:
    """The name that a call like `importlib.import_module(name)` imports; COMPUTED where it is no literal."""
    if ast.unparse(call.func) not in {"importlib.import_module", "import_module", "__import__"}:
        return None
    name = call.args[0] if call.args else None
    return name.value if isinstance(name, ast.Constant) and isinstance(name.value, str) else COMPUTED


def _absolute(module: str, name: str, is_package: bool) -> str:
    """`name`, perhaps relative as `import_module(".frontend", __package__)` has it, as a name from the top."""
    level = len(name) - len(name.lstrip("."))
    parents = module.split(".")
    return ".".join([*parents[: len(parents) - level + is_package], name[level:]]) if level else name


def facade_uses(source: str) -> list[tuple[str, int]]:
    """Names and lines of what `source` takes from the facade by attribute: `tensorlang.load_model`."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == FACADE:
            found.append((node.attr, node.lineno))
    return found


def violations(
    module: str, source: str, *, is_package: bool = False, modules: frozenset[str] = frozenset()
) -> list[str]:
    """What `source`, the text of `module`, breaks.

    Args:
        module: dotted name as installed ("tensorlang.lower.flatten", "tensorlang.importers.onnx").
        modules: all module names of the project: they tell `from tensorlang import te` from a facade's function.
    """
    if module == FACADE:
        return []
    reasons: list[tuple[int, str]] = []
    lines = source.count("\n") + 1
    if lines > MAX_LINES:
        reasons.append((lines, f"file has more than {MAX_LINES} lines"))
    for imported in imports_of(module, source, is_package=is_package):
        reasons += [(imported.line, reason) for reason in _import_reasons(module, imported, modules)]
    if module in LAZY_USERS:
        reasons += [(line, reason) for name, line in facade_uses(source) if (reason := _lazy_reason(module, name))]
    return [f"{module}:{line}: {reason}" for line, reason in reasons]


def _import_reasons(module: str, imported: Import, modules: frozenset[str]) -> Iterator[str]:
    top = imported.target.partition(".")[0]
    home = _home(module)
    if imported.target == COMPUTED:
        yield "imports a module whose name is computed; name a third party's literally, reach our own by the facade"
        return
    if top != FACADE and top not in OUTSIDE:
        if top == "sympy" and home != "symbolic":
            yield "sympy lives in tensorlang.symbolic and nowhere else"
        elif top in HEAVY and home in LIGHT_PACKAGES and not imported.in_function:
            yield f"{home} must not load {top} when it is imported"
        return
    if imported.in_function:
        yield f"imports {imported.target} inside a function"
    for target in _targets(imported, modules):
        outside = _is_outside(module)
        reason = _outside_reason(module, imported, target) if outside else _core_reason(module, imported, target)
        if reason:
            yield reason


def _targets(imported: Import, modules: frozenset[str]) -> list[str]:
    """The modules that a statement reaches; a facade's function counts as the facade."""
    if imported.target != FACADE:
        return [imported.target]
    functions = {name for name, (_, attribute) in FACADE_NAMES.items() if attribute is not None}
    submodules = {n for n in imported.names if f"{FACADE}.{n}" in modules and n not in functions}
    others = set(imported.names) - submodules - FACADE_CONSTANTS
    return [f"{FACADE}.{n}" for n in sorted(submodules)] + ([FACADE] if others or not imported.names else [])


def _lazy_reason(module: str, name: str) -> str | None:
    """What is wrong with `tensorlang.name` in a module that may use the facade."""
    if name not in FACADE_NAMES:
        return f"takes {name} from the facade, which has none"
    target, _ = FACADE_NAMES[name]
    return _core_reason(module, Import(target, (), 0, relative=False, in_function=False), target)


def _core_reason(module: str, imported: Import, target: str) -> str | None:
    home = _home(module)
    if imported.relative:
        return f"imports {target} relatively; tensorlang's own modules are imported absolutely"
    if target == FACADE:
        lazy = module in LAZY_USERS and not imported.names
        return None if home in FACADE_USERS or lazy else "imports the facade; import from the module that defines the name"
    if any(target == name or target.startswith(name + ".") for name in (*OUTSIDE, *OUTSIDE.values())):
        return f"imports {target}; importers and schedules reach the core by registration"
    other = target.split(".")[1]
    for name in (home, other):
        if name not in RANKS:
            return f"tensorlang.{name} has no rank: give it one in tests/layering.py and in the design"
    if home == other or RANKS[home] == RANKS[other] == TOP_RANK:
        return None
    if home == "runtime" and RANKS[other] > 0:
        return f"runtime imports layer 0 alone, not tensorlang.{other}"
    if RANKS[other] >= RANKS[home]:
        kind = "its sibling" if RANKS[other] == RANKS[home] else "a higher layer"
        return f"{home} (rank {RANKS[home]}) imports {kind} {other} (rank {RANKS[other]})"
    return None


def _outside_reason(module: str, imported: Import, target: str) -> str | None:
    own = next(name for name in OUTSIDE.values() if module == name or module.startswith(name + "."))
    if imported.relative:
        stays = target == own or target.startswith(own + ".")
        return None if stays else f"leaves {own} by a relative import of {target}"
    if target in PUBLIC or target.startswith(PUBLIC_TREES):
        return None
    return (
        f"imports {target}, which is not public API ({', '.join(sorted(PUBLIC))}); own modules are imported relatively"
    )


def _is_outside(module: str) -> bool:
    return any(module == name or module.startswith(name + ".") for name in OUTSIDE.values())


def _home(module: str) -> str:
    """The part of the house that `module` belongs to: "ir" for tensorlang.ir.expr, "importers" for the importers."""
    return module.split(".")[1]


def project_modules(root: Path) -> dict[str, Path]:
    """Installed module name -> file, for tensorlang/, importers/ and schedules/ under `root`."""
    found = {}
    for folder, package in {FACADE: FACADE, **OUTSIDE}.items():
        for path in sorted((root / folder).rglob("*.py")):
            parts = path.relative_to(root / folder).with_suffix("").parts
            name = ".".join([package, *parts])
            found[name.removesuffix(".__init__")] = path
    return found
