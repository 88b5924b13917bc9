"""Layer 4: a program or a schedule to a kernel. The only place where lowering, code generation and the runtime meet.

    PrimFunc -> (default schedule) -> Schedule -> preparation split off -> passes -> text -> code -> functions

All by the interface of `codegen.target`; `cpu` and `c` hold two targets that implement it.
"""

from tensorlang.build.cpu import Cpu, compile_and_load, compile_source, machine_of, pool_library, store_of
from tensorlang.build.kernel import Kernel, as_array, bind_sizes, build, evaluate
from tensorlang.build.lowering import LoweredKernel, identifier, lower_kernel, prepare, schedule_of

__all__ = [
    "Cpu", "Kernel", "LoweredKernel", "as_array", "bind_sizes", "build", "compile_and_load", "compile_source", "evaluate",
    "identifier", "lower_kernel", "machine_of", "pool_library", "prepare", "schedule_of", "store_of",
]  # fmt: skip
