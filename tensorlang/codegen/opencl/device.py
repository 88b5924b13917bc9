"""Running OpenCL C through pyopencl (the extra `[opencl]`): one device and one queue for the process."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from tensorlang.errors import BuildError

INSTALL = "pip install 'tensorlang[opencl]'"


class Device:
    """A device that runs programs; memory that kernels read and write lies on it."""

    def __init__(self, cl: Any, device: Any):
        self.cl, self.device = cl, device
        self.context = cl.Context([device])
        self.queue = cl.CommandQueue(self.context)
        self.lock = threading.Lock()  # arguments belong to the kernel object, not to the call
        self._programs: dict[str, Any] = {}

    @property
    def name(self) -> str:
        return f"{self.device.platform.name.strip()}: {self.device.name.strip()}"

    def functions(self, source: str, names: Sequence[str]) -> dict[str, Any]:
        """The `__kernel`s of a program by name; a source is built once.

        Raises:
            BuildError: the driver refuses it; the message holds what it says.
        """
        if source not in self._programs:
            try:
                program = self.cl.Program(self.context, source).build(options=["-cl-std=CL1.2"])
            except self.cl.Error as error:
                raise BuildError(f"{self.name} refuses the emitted OpenCL C:\n{str(error)[-4000:]}") from error
            self._programs[source] = program
        return {n: self.cl.Kernel(self._programs[source], n) for n in names}

    def memory(self, nbytes: int) -> Any:
        """Memory of the device; never empty."""
        return self.cl.Buffer(self.context, self.cl.mem_flags.READ_WRITE, max(1, nbytes))

    def upload(self, array: np.ndarray, memory: Any = None) -> Any:
        """Copy an array there; the memory, which is made if none is given."""
        memory = memory or self.memory(array.nbytes)
        if array.nbytes:
            self.cl.enqueue_copy(self.queue, memory, np.ascontiguousarray(array))
        return memory

    def download(self, memory: Any, array: np.ndarray) -> None:
        """Copy memory into a C-contiguous array, after everything before is done."""
        if array.nbytes:
            self.cl.enqueue_copy(self.queue, array, memory)

    def launch(self, function: Any, args: Sequence[Any], groups: Sequence[int], items: Sequence[int]) -> None:
        """Put one launch into the queue; nothing where there is no work group."""
        function.set_args(*args)
        self.enqueue(function, groups, items)

    def bound(self, source: str, name: str, args: Sequence[Any]) -> Any:
        """A `__kernel` of a program, apart from all others, with its arguments set: `enqueue` it any number of times."""
        self.functions(source, [])
        function = self.cl.Kernel(self._programs[source], name)
        function.set_args(*args)
        return function

    def enqueue(self, function: Any, groups: Sequence[int], items: Sequence[int]) -> None:
        """Put a launch of a function whose arguments are set into the queue."""
        if all(n > 0 for n in groups):
            size = [g * n for g, n in zip(groups, items, strict=True)]
            self.cl.enqueue_nd_range_kernel(self.queue, function, size, list(items))


@cache
def default_device() -> Device:
    """The device that `TENSORLANG_OPENCL` names (a part of its name, or of its platform's), else a GPU, else any.

    Raises:
        BuildError: pyopencl is missing, or finds no device.
    """
    try:
        import pyopencl as cl
    except ImportError as error:
        raise BuildError(f"target 'opencl' needs pyopencl to run what it emits ({error}): {INSTALL}") from error
    found = list(devices(cl))
    wanted = os.environ.get("TENSORLANG_OPENCL", "")
    chosen = [d for d in found if wanted.lower() in f"{d.platform.name} {d.name}".lower()]
    if not chosen:
        have = ", ".join(d.name.strip() for d in found) or "none"
        raise BuildError(
            f"no OpenCL device{f' matches {wanted!r}' if wanted else ''}; there are: {have}. Install a driver, or PoCL, which "
            f"runs on any CPU: {INSTALL}"
        )
    gpus = [d for d in chosen if d.type & cl.device_type.GPU]
    return Device(cl, (gpus or chosen)[0])


def devices(cl: Any) -> list[Any]:
    """All devices of all platforms."""
    try:
        return [d for p in cl.get_platforms() for d in p.get_devices()]
    except cl.Error:
        return []


def status() -> Mapping[str, str]:
    """What there is, for `tensorlang doctor`: names of devices, or what is missing."""
    try:
        return {"device": default_device().name}
    except BuildError as error:
        return {"missing": str(error)}
