"""Running emitted C needs a C compiler: found here, asked for with a typed error where there is none."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tensorlang.errors import BuildError

FLAGS = ("-std=c99", "-O2")
_TIMEOUT = 600  # seconds


def find_compiler() -> list[str]:
    """The C compiler's command: `$CC`, else gcc, cc or clang.

    Raises:
        BuildError: there is none.
    """
    given = shlex.split(os.environ.get("CC", ""))
    for command in ([given] if given else [["gcc"], ["cc"], ["clang"]]):
        if shutil.which(command[0]):
            return command
    looked = given[0] if given else "gcc, cc, clang"
    raise BuildError(
        f"running what target 'c' emits needs a C compiler, and there is none ({looked}): install gcc, or set CC; "
        "`.source` and export work without one"
    )


def build_shared(files: Mapping[str, str | bytes], flags: Sequence[str] = FLAGS) -> bytes:
    """A shared library of C and assembler files by name (others among them are there to be included).

    Raises:
        BuildError: there is no compiler, or it refuses; the message holds what it says.
    """
    compiler = find_compiler()
    with tempfile.TemporaryDirectory(prefix="tensorlang-c-") as folder:
        for name, text in files.items():
            (Path(folder) / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        sources = [n for n in files if n.endswith((".c", ".s"))]
        command = [*compiler, *flags, "-shared", "-fPIC", "-o", "model.so", *sources, "-lm"]
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BuildError(f"{compiler[0]} failed: {error}") from error
        if done.returncode:
            raise BuildError(f"{compiler[0]} refuses the emitted C:\n{done.stderr[-4000:]}")
        return (Path(folder) / "model.so").read_bytes()
