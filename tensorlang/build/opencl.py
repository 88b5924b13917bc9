"""OpenCL as a target: kernels as OpenCL C, run through pyopencl on whatever device there is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from tensorlang.codegen.barriers import grid_program
from tensorlang.codegen.emit import EmittedKernel
from tensorlang.codegen.grid import GridKernel, Launch, is_one_block
from tensorlang.codegen.opencl.device import INSTALL, Device, default_device, status
from tensorlang.codegen.opencl.emit import LOCAL_BYTES, emit_opencl_kernel, opencl_module
from tensorlang.codegen.target import Function, Need, Passes, Target
from tensorlang.config import Settings
from tensorlang.errors import InternalError
from tensorlang.ir.dtype import dtype as as_dtype
from tensorlang.ir.expr import Expr, const
from tensorlang.ir.machine import Machine
from tensorlang.ir.stmt import PrimFunc
from tensorlang.ir.visitor import substitute
from tensorlang.runtime.artifact import Artifact
from tensorlang.runtime.executable import Frame

GROUP_ITEMS = 256  # work items in a group that every device allows


class OpenCL(Target):
    """OpenCL C 1.2."""

    name = "opencl"
    memory = "opencl"
    language = "opencl"
    schedules = "opencl"
    graph_compiler = "tensorlang.graph.opencl:compile_opencl"
    graph_runner = "tensorlang.build.opencl:OpenCLRunner"

    def machine(self, threads: int) -> Machine:
        return Machine(
            vector_bytes=4,
            threads=1,
            scopes=("shared",),
            thread_axes=tuple(f"{kind}.{d}" for kind in ("blockIdx", "threadIdx") for d in "xyz"),
            limits={"threads_per_block": GROUP_ITEMS, "shared_bytes": LOCAL_BYTES},
        )

    def needs(self) -> list[Need]:
        return [Need("an OpenCL device", status().get("device", ""), INSTALL)]

    def passes(self, base: Passes) -> Passes:
        """Without a second version of each tile that has no guards: for items side by side a guard costs nothing."""
        return [(name, run) for name, run in super().passes(base) if name != "partition"]

    def grid(self, func: PrimFunc) -> PrimFunc:
        return grid_program(func, one_block=is_one_block(func.body, (), LOCAL_BYTES))

    def emit(self, func: PrimFunc, name: str, trace: str) -> GridKernel:
        return emit_opencl_kernel(func, name, trace)

    def assemble(self, kernels: Sequence[EmittedKernel]) -> str:
        return opencl_module("\n".join(k.text for k in kernels))

    def build(self, source: str, settings: Settings) -> bytes:
        """The text itself: drivers compile it, and keep what they made."""
        return source.encode()

    def load(self, code: bytes, kernels: Sequence[EmittedKernel], settings: Settings) -> Mapping[str, Function]:
        device = default_device()
        return {k.name: _function(device, code.decode(), k) for k in kernels}


target = OpenCL()


def grid(launch: Launch, sizes: Mapping[Expr, int]) -> tuple[int, ...]:
    """The number of work groups along each dimension."""
    known = {v: const(n) for v, n in sizes.items()}
    return tuple(int(substitute(g, known).value) for g in launch.blocks)


def _function(device: Device, source: str, kernel: EmittedKernel) -> Function:
    """A kernel on NumPy arrays, which are copied to the device and back."""
    if not isinstance(kernel, GridKernel):
        raise InternalError(f"{kernel.name} was not emitted for OpenCL")
    names = [name for _, name in kernel.params]
    workspace = {name for name, _ in kernel.workspace}

    def run(*args: Any) -> None:
        functions = device.functions(source, [launch.function for launch in kernel.launches])
        given = dict(zip(names, args, strict=True))
        memory = {
            n: device.memory(a.nbytes) if n in workspace else device.upload(a)
            for n, a in given.items()
            if isinstance(a, np.ndarray)
        }
        sizes = {v: int(given[name]) for name, v in kernel.sizes}
        with device.lock:
            for launch in kernel.launches:
                values = [memory[n] if n in memory else np.int64(given[n]) for n in launch.args]
                device.launch(functions[launch.function], values, grid(launch, sizes), launch.threads)
        for n, a in given.items():
            if n in kernel.outputs and isinstance(a, np.ndarray):
                device.download(memory[n], a)

    return run


class OpenCLRunner:
    """Runs a model that was compiled to OpenCL on the default device, one call at a time: its memory is kept between calls."""

    def __init__(self, artifact: Artifact, settings: Settings):
        self.artifact = artifact
        self._lock = threading.Lock()

    @cached_property
    def _program(self) -> _DeviceProgram:
        return _DeviceProgram(default_device(), self.artifact)

    def main(self, frame: Frame) -> int:
        """Run the whole program; its status."""
        with self._lock:
            self._program.run(frame.input_arrays, frame.output_arrays)
        return 0

    def take(self, frame: Frame, output: int, nbytes: int) -> np.ndarray:
        raise InternalError("an OpenCL program allocates no outputs")

    def step(self, kernel: str, frame: Frame, arguments: Sequence[tuple[str, int]]) -> Callable[[], None]:
        raise InternalError("the launches of an OpenCL program are not made one by one")


class _DeviceProgram:
    """A program on a device: memory for every value, the weights in place, and launches whose arguments are set."""

    def __init__(self, device: Device, artifact: Artifact):
        manifest = artifact.manifest
        plan = manifest["opencl"]
        self.device = device
        self.memory = {("arena", offset): device.memory(nbytes) for offset, nbytes in plan["arena"]}
        for offset, nbytes in plan["weights"]:
            self.memory["weights", offset] = device.upload(np.asarray(artifact.weights[offset : offset + nbytes]))
        for place, key in (("input", "inputs"), ("output", "outputs")):
            for n, entry in enumerate(manifest[key]):
                nbytes = prod(entry["shape"]) * as_dtype(entry["dtype"]).nbytes
                self.memory[place, n] = device.memory(nbytes)
        self.launches = []
        for launch in plan["launches"]:
            values = [self.memory[p, n] if p != "size" else np.int64(n) for p, n in map(tuple, launch["args"])]
            self.launches.append((device.bound(artifact.source, launch["function"], values), launch["groups"], launch["items"]))

    def run(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> None:
        for n, array in enumerate(inputs):
            self.device.upload(_bytes(np.ascontiguousarray(array)), self.memory["input", n])
        for function, groups, items in self.launches:
            self.device.enqueue(function, groups, items)
        for n, array in enumerate(outputs):
            self.device.download(self.memory["output", n], _bytes(array))


def _bytes(array: np.ndarray) -> np.ndarray:
    """A C-contiguous array's memory."""
    return array.reshape(-1).view(np.uint8)
