"""How whole programs run, by their artifacts: as machine code, by their target's runner, or as the Python that they are."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tensorlang.codegen.intrinsics import Pointer
from tensorlang.codegen.intrinsics.functions import CheckFailed
from tensorlang.codegen.plain import run_plain
from tensorlang.codegen.target import find_target, referenced
from tensorlang.config import Settings
from tensorlang.runtime.artifact import Artifact, read_artifact, write_artifact
from tensorlang.runtime.executable import MAIN, Frame, NativeRunner, Runner


def runner_of(artifact: Artifact, settings: Settings) -> Runner:
    """What runs a program: its target's runner where it names one, else machine code or plain Python.

    Raises:
        BuildError: there is no such target, or this machine cannot run its code.
    """
    if name := artifact.manifest.get("target"):
        runner: Runner = referenced(find_target(name).graph_runner, "graph_runner")(artifact, settings)
        return runner
    return NativeRunner(artifact, settings.num_threads) if settings.jit and artifact.libraries else PlainRunner(artifact)


def artifact_bytes(artifact: Artifact) -> bytes:
    """An artifact as the bytes of its file."""
    with tempfile.TemporaryDirectory(prefix="tensorlang-") as folder:
        write_artifact(artifact, Path(folder) / "part.tl")
        return (Path(folder) / "part.tl").read_bytes()


def artifact_of(code: bytes) -> Artifact:
    """What `artifact_bytes` made bytes of.

    Raises:
        ArtifactError: they are damaged.
    """
    with tempfile.TemporaryDirectory(prefix="tensorlang-") as folder:
        (Path(folder) / "part.tl").write_bytes(code)
        return read_artifact(Path(folder) / "part.tl")


class PlainRunner:
    """The emitted module, under pdb where one likes; any number of threads may run it at once."""

    def __init__(self, artifact: Artifact):
        self.namespace = run_plain(artifact.source)
        self._taken: dict[int, list[Any]] = {}  # the outputs' addresses, by frame

    def main(self, frame: Frame) -> int:
        """Run the whole program; its status."""
        arena, weights = Pointer.of(frame.arena), Pointer.of(frame.weights)
        dims = np.array(frame.dims, np.int64)
        outputs: list[Any] = list(map(Pointer.of, frame.output_arrays))
        self._taken[id(frame)] = outputs
        try:
            self.namespace[MAIN](None, arena, weights, list(frame.input_arrays), outputs, dims)
        except CheckFailed as failure:
            return failure.status
        frame.dims[:] = dims.tolist()
        return 0

    def take(self, frame: Frame, output: int, nbytes: int) -> np.ndarray:
        """The bytes of an output that the program allocated."""
        taken: Pointer = self._taken[id(frame)][output]
        return taken.buffer[taken.offset :][:nbytes].copy()

    def step(self, kernel: str, frame: Frame, arguments: Sequence[tuple[str, int]]) -> Callable[[], None]:
        """One kernel call, ready to be repeated."""
        bases = {"arena": frame.arena, "weights": frame.weights}
        tables = {"input": frame.input_arrays, "output": frame.output_arrays}
        values: list[Any] = []
        for place, n in arguments:
            if place in tables:
                values.append(Pointer.of(tables[place][n]))
            else:
                values.append(n if place == "size" else Pointer.of(bases[place]) + n)
        function = self.namespace[kernel]
        return lambda: function(None, *values)
