"""Classic TVM's te interface (v0.8) over tensorlang: programs written for it run with only their imports changed.

    import tensorlang.interop.tvm as tvm
    from tensorlang.interop.tvm import te

A thin face: tensors are those of `tensorlang.te`, a schedule is carried out on a `tensorlang.te.Schedule` when it is
lowered, and kernels are compiled for this machine's CPU whatever the target. GPU targets are accepted: axes bound to threads
run as loops, and the device module shows the emitted code. What classic TVM gives to another compiler or library runs by its
meaning in Python or NumPy.
"""

from __future__ import annotations

from tensorlang.interop.tvm import contrib, ir, nd, runtime, target, te, testing, tir, topi
from tensorlang.interop.tvm.device import (
    Device,
    cl,
    cpu,
    cuda,
    device,
    ext_dev,
    gpu,
    metal,
    opencl,
    rocm,
    vulkan,
)
from tensorlang.interop.tvm.lowering import lower
from tensorlang.interop.tvm.module import build
from tensorlang.interop.tvm.registry import get_global_func, list_global_func_names, register_func
from tensorlang.interop.tvm.runtime import convert

__version__ = "0.8.0"

__all__ = [
    "Device", "build", "cl", "contrib", "convert", "cpu", "cuda", "device", "ext_dev", "get_global_func", "gpu", "ir",
    "list_global_func_names", "lower", "metal", "nd", "opencl", "register_func", "rocm", "runtime", "target", "te", "testing",
    "tir", "topi", "vulkan",
]  # fmt: skip
