"""A device that runs emitted CUDA Python in numba's simulator: memory is host memory, each thread a Python thread.

Run as a program (numba decides at import whether it simulates): reads a request from standard input, writes a reply.

    NUMBA_ENABLE_CUDASIM=1 python -m tests.cuda.simulated model.tl ... <inputs.npz >outputs.npz
    NUMBA_ENABLE_CUDASIM=1 python -m tests.cuda.simulated --check FOLDER             what `bench.gpu.run --check` does
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from tensorlang.runtime.artifact import Artifact, read_artifact

ALIGNMENT = 64


class SimulatedDevice:
    """What `runtime.cuda.Device` offers, over the functions of an emitted module."""

    name = "simulator"

    def __init__(self, source: str):
        from tensorlang.codegen.cuda.ptx import load_module

        self.module = load_module(source.replace(", alignment=16)", ")"))  # the simulator knows of none
        self.memory = np.zeros(0, np.uint8)
        self.lock = threading.Lock()
        self.recording: list[Callable[[], None]] | None = None

    def enter(self) -> None: ...

    def wait(self) -> None: ...

    def free(self, address: int) -> None: ...

    def functions(self, code: Mapping[str, str]) -> dict[str, Any]:
        from numba import cuda

        return {name: (cuda.jit(self.module[name]), self.module[name].params) for name in code}

    def allocate(self, nbytes: int) -> int:
        address = len(self.memory) + ALIGNMENT
        filled = np.full(ALIGNMENT + -(-nbytes // ALIGNMENT) * ALIGNMENT, 0xFF, np.uint8)  # NaN: nobody may count on zeros
        self.memory = np.concatenate([self.memory, filled])
        return address

    def upload(self, array: np.ndarray, address: int) -> None:
        self.memory[address : address + array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)

    def download(self, address: int, array: np.ndarray) -> None:
        array.reshape(-1).view(np.uint8)[:] = self.memory[address : address + array.nbytes]

    def launch(self, function: Any, words: Sequence[int], blocks: Sequence[int], threads: Sequence[int]) -> None:
        kernel, params = function

        def run() -> None:
            args = [
                self._view(word, text.split()[0]) if "*" in text else word
                for word, text in zip(words, filter(None, params.split(", ")), strict=True)
            ]
            kernel[tuple(blocks), tuple(threads)](*args)

        if self.recording is not None:
            self.recording.append(run)
        else:
            run()

    def _view(self, address: int, text: str) -> Any:
        """Memory from an address on, as an array of the device: the simulator copies arrays of the host, there and back."""
        from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray

        name = text.rstrip("*")
        kind = {"i": "int", "u": "uint", "f": "float"}
        dtype = np.dtype(kind[name[0]] + name[1:])
        rest = self.memory[address:]
        return FakeCUDAArray(rest[: len(rest) // dtype.itemsize * dtype.itemsize].view(dtype))

    def capture(self, work: Callable[[], None]) -> list[Callable[[], None]]:
        self.recording, recorded = [], []
        try:
            work()
        finally:
            recorded, self.recording = self.recording, None
        return recorded

    def describe(self) -> dict[str, Any]:
        return {"name": self.name}

    def replay(self, graph: list[Callable[[], None]]) -> None:
        for run in graph:
            run()


def simulate(requests: Sequence[tuple[Path, Sequence[np.ndarray]]]) -> list[list[np.ndarray]]:
    """The outputs of models compiled for CUDA on their inputs, computed by the simulator in a process of its own."""
    request = io.BytesIO()
    np.savez(request, **{f"{n}_{k}": a for n, (_, arrays) in enumerate(requests) for k, a in enumerate(arrays)})
    done = subprocess.run(
        [sys.executable, "-m", "tests.cuda.simulated", *(str(path) for path, _ in requests)],
        input=request.getvalue(), capture_output=True, env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}, timeout=600,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    return _grouped(np.load(io.BytesIO(done.stdout)), len(requests))


def check_folder(folder: Path) -> dict[str, Any]:
    """The results of `bench.gpu.run` on a folder of `bench.gpu.build`, in the simulator, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.cuda.simulated", "--check", str(folder)],
        capture_output=True, text=True, env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}, timeout=600,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def _grouped(arrays: Any, count: int) -> list[list[np.ndarray]]:
    groups: list[list[np.ndarray]] = [[] for _ in range(count)]
    for name in arrays.files:
        a = arrays[name]  # files of NumPy know no bfloat16
        groups[int(name.split("_")[0])].append(a.view(ml_dtypes.bfloat16) if a.dtype.kind == "V" else a)
    return groups


def _main(paths: Sequence[str]) -> None:
    from tensorlang.runtime.cuda import CudaRunner
    from tensorlang.runtime.executable import Executable

    found: dict[str, np.ndarray] = {}
    given = _grouped(np.load(io.BytesIO(sys.stdin.buffer.read())), len(paths))
    for n, (path, inputs) in enumerate(zip(paths, given, strict=True)):
        artifact: Artifact = read_artifact(Path(path))
        exe = Executable(artifact, CudaRunner(artifact, None, SimulatedDevice(artifact.source)))  # type: ignore[arg-type]
        outputs = exe(*inputs)
        found |= {f"{n}_{k}": a for k, a in enumerate(outputs if isinstance(outputs, tuple) else (outputs,))}
    reply = io.BytesIO()
    np.savez(reply, **found)
    sys.stdout.buffer.write(reply.getvalue())


def _check(folder: Path) -> None:
    from bench.gpu.run import Options, run_all

    def device_of(artifact: Artifact | None) -> SimulatedDevice:
        return SimulatedDevice("" if artifact is None else artifact.source)

    print(json.dumps(run_all(folder, Options(check=True), device_of, say=lambda text: None)))


if __name__ == "__main__":
    if sys.argv[1] == "--check":
        _check(Path(sys.argv[2]))
    else:
        _main(sys.argv[1:])
