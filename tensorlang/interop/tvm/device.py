"""Devices. Programs of every kind run on this machine's CPU, so a device is a name that arrays carry."""

from __future__ import annotations

from dataclasses import dataclass

from tensorlang.errors import InputError
from tensorlang.ir.expr import user_location

KINDS = ("cpu", "cuda", "opencl", "vulkan", "metal", "rocm", "vpi", "ext_dev", "hexagon", "webgpu")
_SYNONYMS = {"llvm": "cpu", "c": "cpu", "stackvm": "cpu", "gpu": "cuda", "nvptx": "cuda", "cl": "opencl"}


@dataclass(frozen=True)
class Device:
    """A device by kind and number.

    Attributes:
        kind: classic TVM's name of the kind.
        device_id: which of that kind.
    """

    kind: str
    device_id: int = 0

    @property
    def device_type(self) -> str:
        return self.kind

    @property
    def exist(self) -> bool:
        """True: a CPU stands in for every kind of device."""
        return True

    def sync(self) -> None:
        """Nothing: calls return when they are done."""

    def __str__(self) -> str:
        return f"{self.kind}({self.device_id})"

    __repr__ = __str__


def device(dev_type: str, dev_id: int = 0) -> Device:
    """The device of a target's kind: `device("llvm", 0)`, `device("cuda", 0)`.

    Raises:
        InputError: there is no such kind.
    """
    words = str(dev_type).split()
    name = words[0] if words else ""
    kind = _SYNONYMS.get(name, name)
    if kind not in KINDS:
        known = ", ".join([*KINDS, *_SYNONYMS])
        raise InputError(f"{user_location()}: no kind of device {dev_type!r}; there are: {known}")
    return Device(kind, dev_id)


def cpu(dev_id: int = 0) -> Device:
    """A CPU."""
    return Device("cpu", dev_id)


def cuda(dev_id: int = 0) -> Device:
    """A CUDA device, for which the CPU stands in."""
    return Device("cuda", dev_id)


gpu = cuda


def opencl(dev_id: int = 0) -> Device:
    """An OpenCL device, for which the CPU stands in."""
    return Device("opencl", dev_id)


cl = opencl


def vulkan(dev_id: int = 0) -> Device:
    """A Vulkan device, for which the CPU stands in."""
    return Device("vulkan", dev_id)


def metal(dev_id: int = 0) -> Device:
    """A Metal device, for which the CPU stands in."""
    return Device("metal", dev_id)


def rocm(dev_id: int = 0) -> Device:
    """A ROCm device, for which the CPU stands in."""
    return Device("rocm", dev_id)


def ext_dev(dev_id: int = 0) -> Device:
    """An extension device, for which the CPU stands in."""
    return Device("ext_dev", dev_id)
