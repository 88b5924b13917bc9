"""Operations and schedules under the names that they have for CUDA; the CPU stands in."""

from tensorlang.interop.tvm.topi.x86 import *  # noqa: F403  (one set of names, whatever they are called for)
from tensorlang.interop.tvm.topi.x86 import __all__ as __all__
