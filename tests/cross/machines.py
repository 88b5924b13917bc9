"""Other machines, as this one can play them: cross compilers, emulators, and running a compiled model there."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from tensorlang.codegen.target import find_target, referenced
from tensorlang.config import Settings
from tensorlang.graph import Graph
from tensorlang.runtime import sizes
from tensorlang.runtime.artifact import Artifact

HERE = Path(__file__).parent
_EMULATOR_FAULT = "decode_save_opc: Assertion `ctx->insn_start != NULL' failed"


@dataclass(frozen=True)
class Machine:
    """How to build and run C programs for a target; for WebAssembly, how to run JavaScript.

    Attributes:
        target: as users name it.
        gcc: the compiler, and what it has to be told; () where programs are not compiled.
        emulator: the command that runs a program; () runs it as it is.
    """

    target: str
    gcc: tuple[str, ...]
    emulator: tuple[str, ...] = ()

    @property
    def missing(self) -> str:
        """The tool that is not installed, or ""."""
        tools = [*self.gcc[:1], *self.emulator[:1]]
        return next((t for t in tools if shutil.which(t) is None), "")


def _gnu(target: str, triple: str, emulator: str, *options: str) -> Machine:
    return Machine(target, (f"{triple}-gcc",), (emulator, *options, "-L", f"/usr/{triple}"))


MACHINES = [
    Machine("x86-64-v2", ("gcc",)),
    Machine("x86-64-v3", ("gcc",)),
    _gnu("aarch64-linux-gnu", "aarch64-linux-gnu", "qemu-aarch64"),
    _gnu("arm-linux-gnueabihf", "arm-linux-gnueabihf", "qemu-arm"),
    _gnu("riscv64-linux-gnu", "riscv64-linux-gnu", "qemu-riscv64"),
    _gnu("riscv64-linux-gnu+v", "riscv64-linux-gnu", "qemu-riscv64", "-cpu", "rv64,v=true,vlen=128"),
    Machine("wasm32", (), ("node",)),
]


def compile_for(graph: Graph, target: str) -> Artifact:
    """The whole model, compiled for another machine."""
    found = find_target(target)
    artifact: Artifact = referenced(found.graph_compiler, "graph_compiler")(graph, found, Settings.from_env())
    return artifact


def run_on(
    machine: Machine,
    artifact: Artifact,
    feeds: Sequence[np.ndarray],
    folder: Path,
    *,
    threads: int = 0,
    dims: Mapping[str, int] | None = None,
) -> list[np.ndarray]:
    """The outputs of a compiled model on `machine`, run twice by a C program.

    Args:
        threads: of the pool; 0 runs without one.
        dims: sizes of the model's open dimensions.
    """
    manifest, dims = artifact.manifest, dict(dims or {})
    folder.mkdir(exist_ok=True)
    (folder / "model.so").write_bytes(artifact.libraries["model"])
    command = [*machine.emulator]
    if machine.gcc:
        (folder / "pool.so").write_bytes(artifact.libraries["pool"])
        driver = _driver(machine, folder.parent)
        command += [str(driver), str(folder / "model.so"), str(folder / "pool.so"), str(threads)]
    else:
        command += [str(HERE / "driver.mjs"), str(folder / "model.so")]
    (folder / "weights.bin").write_bytes(artifact.weights.tobytes())
    arena = sizes.evaluate(manifest["arena_bytes"], dims)
    command += [str(folder / "weights.bin"), str(arena)]
    for name in manifest["dims"]:
        command += ["-d", str(dims[name])]
    for n, array in enumerate(feeds):
        (folder / f"in{n}.bin").write_bytes(np.ascontiguousarray(array).tobytes())
        command += ["-i", str(folder / f"in{n}.bin")]
    made = []
    for n, entry in enumerate(manifest["outputs"]):
        out = np.empty([sizes.evaluate(d, dims) for d in entry["shape"]], entry["dtype"])
        made.append(out)
        command += ["-o", str(folder / f"out{n}.bin"), str(out.nbytes)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if _EMULATOR_FAULT in done.stderr:
        pytest.skip("QEMU 7 aborts where RISC-V's vectors are converted to integers toward zero")
    assert done.returncode == 0, f"{machine.target}: status {done.returncode}\n{done.stdout}{done.stderr}"
    for n, out in enumerate(made):
        out.reshape(-1)[:] = np.fromfile(folder / f"out{n}.bin", out.dtype)
    return made


@cache
def _driver(machine: Machine, folder: Path) -> Path:
    """The C program."""
    driver = folder / f"driver-{machine.target}"
    flags = ["-std=gnu99", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", "-o", str(driver), str(HERE / "driver.c")]
    subprocess.run([*machine.gcc, *flags, "-ldl", "-Wl,--no-as-needed", "-lm"], check=True, timeout=120)
    return driver
