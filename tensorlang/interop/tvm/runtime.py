"""What classic TVM's `tvm.runtime` offers to users of built functions."""

from __future__ import annotations

from typing import Any

from tensorlang.interop.tvm.device import Device, cpu, cuda, device, opencl
from tensorlang.interop.tvm.module import Module, load_module
from tensorlang.interop.tvm.nd import NDArray
from tensorlang.interop.tvm.target import CPU_KINDS, DEVICE_KINDS
from tensorlang.interop.tvm.tir.expr import const

__all__ = ["Device", "Module", "NDArray", "const", "convert", "cpu", "cuda", "device", "enabled", "load_module", "opencl"]


def convert(value: Any) -> Any:
    """A Python value as the compiler holds it: numbers in lists and alone are themselves."""
    return list(value) if isinstance(value, tuple) else value


def enabled(target: str) -> bool:
    """Whether code for a kind of target can be made: all kinds that `Target` knows, by the CPU."""
    return target.split()[0] in (*CPU_KINDS, *DEVICE_KINDS)
