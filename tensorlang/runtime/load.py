"""A compiled model from its file, with the runtime alone."""

from __future__ import annotations

from pathlib import Path

from tensorlang.config import Settings
from tensorlang.errors import ArtifactError
from tensorlang.runtime.artifact import Artifact, read_artifact
from tensorlang.runtime.buckets import make_executable
from tensorlang.runtime.executable import Executable, NativeRunner
from tensorlang.runtime.library import is_library, read_library
from tensorlang.runtime.machine import require_machine


def load(path: str | Path, *, verify: bool = False) -> Executable:
    """An executable from a file that `Executable.save` or `Executable.export_library` (a shared library) wrote.

    Args:
        verify: compare the weights with their CRC-32 beside their sums, for which each byte takes ten times as long.

    Raises:
        ArtifactError: there is no such file, it is damaged, it is for another machine, or it is not machine code for CPUs.
    """
    path = Path(path)
    artifact = read(path, verify)
    if not artifact.is_native or "target" in artifact.manifest:
        made_for = artifact.manifest.get("target", "plain Python")
        raise ArtifactError(f"{path} was compiled for {made_for}: that takes the whole of tensorlang, not its runtime alone")
    try:
        threads = Settings.from_env().num_threads
        return make_executable(artifact, lambda program: NativeRunner(program, threads))
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{path} is damaged: {error!r}") from error


def read(path: Path, verify: bool = False) -> Artifact:
    """The build that a file holds, if this machine can run it.

    Raises:
        ArtifactError: as for `load`.
    """
    artifact = read_library(path, verify) if is_library(path) else read_artifact(path, verify)
    if artifact.is_native:
        manifest = artifact.manifest
        require_machine(manifest.get("triple", ""), manifest.get("cpu_features", ()), str(path))
    return artifact
