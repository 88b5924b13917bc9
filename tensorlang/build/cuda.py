"""CUDA as a target: kernels as numba-cuda Python, compiled to PTX without a GPU, run through the driver alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from tensorlang.codegen.cuda.emit import HEADER, MOST_SHARED_BYTES, cuda_program, emit_cuda_kernel
from tensorlang.codegen.cuda.ptx import CAPABILITY, INSTALL, compile_ptx, fingerprint, launch_names
from tensorlang.codegen.cuda.ptxas import assemble
from tensorlang.codegen.emit import EmittedKernel
from tensorlang.codegen.grid import GridKernel, grid_of
from tensorlang.codegen.target import Function, Need, Passes, Target
from tensorlang.config import Settings
from tensorlang.errors import BuildError, InternalError
from tensorlang.ir.machine import Machine
from tensorlang.ir.stmt import PrimFunc
from tensorlang.runtime.cache import ContentCache
from tensorlang.runtime.cuda import Device, default_device

BLOCK_THREADS = 1024


class Cuda(Target):
    """NVIDIA GPUs of compute capability 9.0 and later.

    Args:
        vectors: whether kernels may count on parameters that begin at multiples of 16 bytes.
        tf32: whether products of f32 may round their operands to 11 bits of mantissa for tensor cores: `target="cuda-tf32"`.
    """

    name = "cuda"
    memory = "cuda"
    language = "python"
    schedules = "cuda"
    inspects = ("ptx", "ptxas")
    graph_compiler = "tensorlang.graph.device:compile_device"
    graph_runner = "tensorlang.runtime.cuda:CudaRunner"

    def __init__(self, vectors: bool = True, tf32: bool = False):
        self.vectors, self.tf32 = vectors, tf32

    def accepts(self, text: str) -> Cuda | None:
        return Cuda(self.vectors, tf32=True) if text == "cuda-tf32" else super().accepts(text)  # type: ignore[return-value]

    def without_vectors(self) -> Cuda:
        """For arrays that begin anywhere."""
        return Cuda(vectors=False, tf32=self.tf32)

    def machine(self, threads: int) -> Machine:
        return Machine(
            vector_bytes=4,
            threads=1,
            scopes=("shared",),
            features=frozenset(("sm_80", *(("tf32",) if self.tf32 else ()))),
            thread_axes=tuple(f"{kind}.{d}" for kind in ("blockIdx", "threadIdx") for d in "xyz"),
            limits={"threads_per_block": BLOCK_THREADS, "shared_bytes": MOST_SHARED_BYTES},
        )

    def needs(self) -> list[Need]:
        try:
            device = default_device().name
        except BuildError:
            device = ""
        return [Need("numba-cuda, to compile", _version(), INSTALL), Need("a CUDA device, to run", device)]

    def passes(self, base: Passes) -> Passes:
        """Without a second version of each tile that has no guards: for threads side by side a guard costs nothing."""
        return [(name, run) for name, run in super().passes(base) if name != "partition"]

    def grid(self, func: PrimFunc) -> PrimFunc:
        return cuda_program(func)

    def emit(self, func: PrimFunc, name: str, trace: str) -> GridKernel:
        return emit_cuda_kernel(func, name, trace, self.vectors)

    def assemble(self, kernels: Sequence[EmittedKernel]) -> str:
        return "\n\n".join([HEADER, *(k.text for k in kernels)])

    def build(self, source: str, settings: Settings) -> bytes:
        """PTX of every function, as JSON: name to text."""
        store = ContentCache.of(settings, "ptx")
        key = hashlib.sha256(f"{_version()}\n{fingerprint()}\n{source}".encode()).hexdigest()
        code = store.get(key)
        if code is None:
            code = json.dumps(compile_ptx(source, launch_names(source))).encode()
            store.put(key, code)
        return code

    def load(self, code: bytes, kernels: Sequence[EmittedKernel], settings: Settings) -> Mapping[str, Function]:
        device = default_device()
        functions = device.functions(json.loads(code))
        return {k.name: _function(device, functions, k) for k in kernels}

    def inspect(self, source: str, what: str, settings: Settings) -> str:
        """ "ptx": the text of all functions. "ptxas": a line for each function: registers, shared memory, stack, spills (needs
        NVIDIA's assembler; no GPU)."""
        if what not in self.inspects:
            return super().inspect(source, what, settings)
        code = json.loads(self.build(source, settings))
        return "\n".join(code.values() if what == "ptx" else map(str, assemble(code, CAPABILITY)))


target = Cuda()


def _version() -> str:
    try:
        return version("numba-cuda")
    except PackageNotFoundError:
        return ""


def _function(device: Device, functions: Mapping[str, Any], kernel: EmittedKernel) -> Function:
    """A kernel on NumPy arrays, which are copied to the device and back."""
    if not isinstance(kernel, GridKernel):
        raise InternalError(f"{kernel.name} was not emitted for a grid")
    names = [name for _, name in kernel.params]
    workspace = {name for name, _ in kernel.workspace}

    def run(*args: Any) -> None:
        given = dict(zip(names, args, strict=True))
        arrays = {n: a for n, a in given.items() if isinstance(a, np.ndarray)}
        with device.lock:
            device.enter()
            memory = {n: device.allocate(a.nbytes) for n, a in arrays.items()}
            try:
                for n, a in arrays.items():
                    if n not in workspace:
                        device.upload(a, memory[n])
                sizes = {v: int(given[name]) for name, v in kernel.sizes}
                for launch in kernel.launches:
                    words = [memory[n] if n in memory else int(given[n]) for n in launch.args]
                    device.launch(functions[launch.function], words, grid_of(launch, sizes), launch.threads)
                for n in kernel.outputs:
                    device.download(memory[n], arrays[n])
                device.wait()
            finally:
                for address in memory.values():
                    device.free(address)

    return run
