"""The lazy facade `tensorlang/__init__`: public names load on first use and are never shadowed by submodules."""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

import tensorlang as tl
from tests.layering import project_modules

MODULES = project_modules(Path(__file__).resolve().parents[1])


def test_type_checkers_see_the_same_names_as_users():
    tree = ast.parse(Path(tl.__file__).read_text())
    block = next(n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")
    seen = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            submodule = f"{node.module}.{alias.name}"
            seen[alias.asname] = (submodule, None) if submodule in MODULES else (node.module, alias.name)
    assert seen == tl._PUBLIC | tl._PRIVATE


@pytest.mark.parametrize("name", sorted(tl._PUBLIC))
def test_every_public_name_exists(name):
    value = getattr(tl, name)
    assert isinstance(value, ModuleType) == (tl._PUBLIC[name][1] is None)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'from_basic'"):
        tl.from_basic


@pytest.mark.parametrize("name", sorted(tl._PRIVATE))
def test_private_names_exist_but_are_not_offered(name):
    value = getattr(tl, name)
    assert isinstance(value, ModuleType) == (tl._PRIVATE[name][1] is None)
    assert name not in dir(tl) and name not in tl.__all__


def test_dir_lists_the_public_names():
    assert set(tl.__all__) <= set(dir(tl))


@pytest.mark.parametrize("name", ["compile", "build", "load_model", "benchmark"])
def test_function_wins_over_the_submodule_of_the_same_name(name):
    module = importlib.import_module(f"tensorlang.{name}")  # binds the submodule on the package, or tries to
    assert isinstance(module, ModuleType) and sys.modules[f"tensorlang.{name}"] is module
    assert callable(getattr(tl, name)) and not isinstance(getattr(tl, name), ModuleType)


def test_binding_a_submodule_by_the_import_system_is_ignored_but_a_user_may_patch(monkeypatch):
    facade = ModuleType("tensorlang_twin")
    facade.__class__ = type(tl)
    facade.compile = ModuleType("tensorlang.compile")
    assert not hasattr(facade, "compile")

    def replacement():
        """A monkeypatch of the public function is an ordinary assignment."""

    facade.compile = replacement
    assert facade.compile is replacement
    facade.compile = ModuleType("tensorlang.compile")
    assert facade.compile is replacement
