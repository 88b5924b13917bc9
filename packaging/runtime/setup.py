"""Builds `tensorlang_runtime` from the sources of `tensorlang.runtime`, `tensorlang.errors` and `tensorlang.config`.

Only the names of our own modules change: `tensorlang.runtime.pool` becomes `tensorlang_runtime.pool`.
"""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent
SOURCES = HERE.parents[1] / "tensorlang"
NAME = "tensorlang_runtime"
LEFT_OUT = {"cuda.py"}  # models for GPUs need the compiler's launcher
FACADE = '''"""Runs models that tensorlang compiled.

    exe = tensorlang_runtime.load("model.tl")      # or a library that `export_library` wrote
    exe(x); exe.run({"input": x})
"""

from tensorlang_runtime import errors
from tensorlang_runtime.context import get_num_threads, set_num_threads
from tensorlang_runtime.executable import Executable
from tensorlang_runtime.load import load

__version__ = "VERSION"
__all__ = ["Executable", "errors", "get_num_threads", "load", "set_num_threads"]
'''


def version() -> str:
    """The version of tensorlang, without importing it."""
    found = re.search(r'^__version__ = "(.+)"', (SOURCES / "__init__.py").read_text(), re.M)
    if found is None:
        raise RuntimeError("tensorlang/__init__.py states no version")
    return found[1]


def translated(text: str) -> str:
    """A module's text with the package's name."""
    return re.sub(r"\btensorlang(?:\.runtime)?(?=(?:\.\w+)* import )", NAME, text)


class BuildRuntime(build_py):
    """Writes the package instead of copying one."""

    def run(self) -> None:
        """Into the build folder; an editable install has nowhere to point."""
        target = Path(self.build_lib) / NAME
        target.mkdir(parents=True, exist_ok=True)
        modules = [*(SOURCES / "runtime").glob("*.py"), SOURCES / "errors.py", SOURCES / "config.py"]
        for module in sorted(modules):
            if module.name not in LEFT_OUT and module.name != "__init__.py":
                (target / module.name).write_text(translated(module.read_text()))
        (target / "__init__.py").write_text(FACADE.replace("VERSION", version()))
        (target / "py.typed").touch()


setup(version=version(), packages=[NAME], package_dir={NAME: "."}, cmdclass={"build_py": BuildRuntime})
