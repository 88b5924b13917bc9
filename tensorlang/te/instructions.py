"""The vocabulary in which the instructions of tensor intrinsics are written: loads, stores, vectors, machine operations.

`from tensorlang.te import instructions as hw`, then `hw.vstore(c, 0, hw.fma(hw.vload(a, 0, 16), ...))`. Each name is a Python
function that runs as it is on NumPy arrays; in a build numba compiles it. See `te.tensor_intrin`.
"""

from __future__ import annotations

from tensorlang.codegen.intrinsics import *  # noqa: F403
