"""What gets installed: the mapped folders, the entry points and the console script; from the tree and from a wheel."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import tensorlang
from tests.layering import project_modules

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MODULES = project_modules(ROOT)
PACKAGES = {name for name, path in MODULES.items() if path.name == "__init__.py"}


def test_every_package_is_listed():
    assert set(PYPROJECT["tool"]["setuptools"]["packages"]) == PACKAGES


def test_every_folder_with_modules_is_a_package():
    folders = {path.parent for path in MODULES.values()}
    assert [str(f) for f in folders if not (f / "__init__.py").exists()] == []


def test_editable_install_maps_the_folders(tmp_path):
    code = (
        "import tensorlang.importers.onnx as o, tensorlang.schedules.cpu as c\n"
        "print(o.__file__, c.__file__, sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    importer, schedule = done.stdout.splitlines()
    assert Path(importer) == ROOT / "importers/onnx/__init__.py"
    assert Path(schedule) == ROOT / "schedules/cpu/__init__.py"


@pytest.mark.parametrize(
    ("group", "name"),
    [
        ("tensorlang.importers", "onnx"),
        ("tensorlang.intrinsics", "cpu"),
        ("tensorlang.schedules", "cpu"),
        ("tensorlang.targets", "cpu"),
    ],
)
def test_built_in_parts_are_registered_like_third_parties(group, name):
    (entry,) = [e for e in entry_points(group=group) if e.name == name]
    assert entry.load() is not None  # the object is there to be imported; what it does, its own tests say


def test_console_script_is_installed():
    (entry,) = [e for e in entry_points(group="console_scripts") if e.name == "tensorlang"]
    assert callable(entry.load())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> tuple[Path, set[str]]:
    """A wheel and the modules of its sources, built from a copy by setuptools itself: no network, no isolation."""
    work = tmp_path_factory.mktemp("wheel")
    source = work / "source"
    source.mkdir()
    for name in ("tensorlang", "importers", "schedules"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    code = f"import sys; from setuptools import build_meta as b; print(b.build_wheel({str(work)!r}))"
    subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, check=True)
    (built,) = work.glob("*.whl")
    return built, set(project_modules(source))


def test_wheel_holds_every_module_and_nothing_beside_tensorlang(wheel):
    path, modules = wheel
    files = zipfile.ZipFile(path).namelist()
    found = {f.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for f in files if f.endswith(".py")}
    assert found == modules
    assert {f.partition("/")[0] for f in files} == {"tensorlang", f"tensorlang-{tensorlang.__version__}.dist-info"}
    assert "tensorlang/py.typed" in files
    assert any(f.endswith("licenses/LICENSE") for f in files)


def test_installed_wheel_runs_without_the_source_tree(wheel, tmp_path):
    site = tmp_path / "site"
    zipfile.ZipFile(wheel[0]).extractall(site)
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r})\n"
        "sys.meta_path = [f for f in sys.meta_path if 'editable' not in repr(f).lower()]\n"
        "import tensorlang, tensorlang.importers, tensorlang.schedules\n"
        "print(tensorlang.__file__, tensorlang.importers.__file__, tensorlang.schedules.__file__, sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert all(Path(line).is_relative_to(site) for line in done.stdout.splitlines())


def test_dependencies_say_why():
    """Each core dependency has a comment beside it in pyproject.toml."""
    text = (ROOT / "pyproject.toml").read_text()
    for dependency in PYPROJECT["project"]["dependencies"]:
        (line,) = [line for line in text.splitlines() if line.strip().startswith(f'"{dependency}"')]
        assert len(line.partition("#")[2].strip()) > 10, dependency
