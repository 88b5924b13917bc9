"""The smallest whole trip through the compiler, for `tensorlang doctor`: trace, lower, emit, compile, run, compare."""

# No `from __future__ import annotations` here: `te` loads lazily, inside the function, and the operator's annotations
# must be evaluated where that local name exists.
import time
from typing import Any

import tensorlang as tl

ELEMENTS = 1000  # no multiple of any vector width, so the ragged end is tested too


def run() -> dict[str, Any]:
    """Build `max(2 x + y, 0)`, run it and compare it with NumPy.

    Returns:
        ok, the largest absolute error, and the seconds that the first call (with compiling) and a second one took.

    Raises:
        BuildError: the kernel could not be compiled.
    """
    import numpy as np

    te = tl.te

    @te.compute
    def scaled_relu(x: te.f32["N"], y: te.f32["N"]) -> te.Tensor:
        (n,) = x.shape
        return te.compute((n,), lambda i: te.maximum(x[i] * 2 + y[i], 0), name="out")

    random = np.random.default_rng(0)
    x, y = (random.standard_normal(ELEMENTS, dtype=np.float32) for _ in range(2))
    start = time.perf_counter()
    out = scaled_relu(x, y)
    first = time.perf_counter()
    scaled_relu(x, y)
    second = time.perf_counter()
    error = float(np.max(np.abs(out - np.maximum(x * 2 + y, 0))))
    # one rounding more or less, by fused multiply-add, of values below 16
    return {"ok": error <= 2e-6, "max_error": error, "first_call_s": first - start, "second_call_s": second - first}
