"""Run one emitted module natively and as plain Python on the same arguments."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tensorlang.build import compile_and_load
from tensorlang.codegen.native import run_plain
from tensorlang.config import Settings
from tensorlang.runtime.context import context_address

HEADER = "from tensorlang.codegen.intrinsics import *\n\n"


def _copy(argument: Any) -> Any:
    return argument.copy() if isinstance(argument, np.ndarray) else argument


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(cache_dir=tmp_path_factory.mktemp("cache"), num_threads=2)


@pytest.fixture(scope="session")
def run_both(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[list[Any], list[Any]]]:
    """run_both(source, name, *arguments) -> (arguments after the native run, and after the plain one)."""
    libraries: dict[str, Any] = {}
    folder: Path = tmp_path_factory.mktemp("plain")

    def run(source: str, name: str, *arguments: Any) -> tuple[list[Any], list[Any]]:
        if source not in libraries:
            text = HEADER + source
            path = folder / f"module_{len(libraries)}.py"
            libraries[source] = (compile_and_load(text, settings=settings), run_plain(text, path))
        library, namespace = libraries[source]
        native = [_copy(a) for a in arguments]
        status = library[name](context_address(), *(a.ctypes.data if isinstance(a, np.ndarray) else a for a in native))
        assert status == 0
        plain = [_copy(a) for a in arguments]
        namespace[name](None, *plain)
        return native, plain

    return run
