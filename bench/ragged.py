"""A product of 1009 x 1009 matrices beside one of 1024 x 1024, on one thread: what ragged sizes cost.

    python -m bench.ragged [rule ...]

1009 is prime: no tile divides it. Both sizes run by turns in one process, and times are the thread's own, so that a busy
machine disturbs their ratio little. Each rule gives both sizes the same schedule:

* `default`: the default schedule of the target.
* `masked`: tiles of 10 x 32; `loop_partition` leaves whole tiles without guards, the last rows are a shorter tile, and
  only the store of the last columns is masked.
* `padded`: `pad_einsum` rounds the sizes up to whole tiles, over padded copies; the result is copied out.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

import tensorlang as tl
from tensorlang import te
from tensorlang.ir.stmt import PrimFunc

ROWS, COLUMNS, LANES = 10, 32, 16
RAGGED, WHOLE = 1009, 1024


def product(n: int) -> PrimFunc:
    """y[i, j] = sum_k x[i, k] * w[k, j], all `n` by `n`."""
    x, w = te.placeholder((n, n), name="x"), te.placeholder((n, n), name="w")
    k = te.reduce_axis(n, name="k")
    y = te.compute((n, n), lambda i, j: te.sum(x[i, k] * w[k, j], axis=k), name="y")
    return te.create_prim_func("product", [x, w], [y])


def _tiles(s: te.Schedule, w: Any) -> Any:
    """Panels of `w`, and a tile of `y` that is accumulated in registers; returns the loop over tiles of rows."""
    w.transform_layout(lambda k, j: (j // COLUMNS, k, j % COLUMNS))
    w.vectorize(w.split(w.axis[2], LANES)[1])
    acc = s.cache_write("y", "local")
    y = s["y"]
    row, column = y.axis
    io, jo, ii, ji = y.tile(row, column, ROWS, COLUMNS)
    y.reorder(jo, io, ii, ji)
    acc.compute_at(y, io)
    i, j = acc.axis
    vectors, lane = acc.split(j, LANES)
    acc.reorder(*acc.reduce_axis, i, vectors, lane)
    acc.vectorize(lane)
    y.vectorize(y.split(ji, LANES)[1])
    return io


def masked(s: te.Schedule) -> None:
    """Whole tiles first, then what is left."""
    io = _tiles(s, s.cache_read("w", "packed", ["y"]))
    s["y"].loop_partition(io)


def padded(s: te.Schedule) -> None:
    """Whole tiles only."""
    made = {stage.name: stage for stage in s["y"].pad_einsum([ROWS, COLUMNS, 1])}
    _tiles(s, made.get("w_pad") or s.cache_read("w", "packed", ["y"]))
    for stage in (made["x_pad"], made["y_crop"]):
        stage.vectorize(stage.split(stage.axis[1], LANES)[1])


RULES: dict[str, Callable[[te.Schedule], None] | None] = {"default": None, "masked": masked, "padded": padded}


def run(n: int, rule: Callable[[te.Schedule], None] | None) -> Callable[[], float]:
    """A function that runs the product once and returns its GFLOP/s; the result was compared with NumPy's."""
    kernel: Any = tl.build(product(n), target="cpu", schedule=rule)
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((n, n), dtype=np.float32), rng.standard_normal((n, n), dtype=np.float32)
    out = np.empty((n, n), np.float32)
    kernel(x, w, out=out)
    np.testing.assert_allclose(out, x @ w, rtol=1e-3, atol=1e-3)

    def once() -> float:
        start = time.thread_time()
        kernel(x, w, out=out)
        return 2e-9 * n**3 / (time.thread_time() - start)

    return once


def main() -> None:
    """Print a line per rule: GFLOP/s of both sizes (best and median), and their ratio."""
    tl.set_num_threads(1)
    for name in sys.argv[1:] or RULES:
        ragged, whole = run(RAGGED, RULES[name]), run(WHOLE, RULES[name])
        pairs = [(ragged(), whole()) for _ in range(16)]
        a, b = ([p[n] for p in pairs] for n in (0, 1))
        print(
            f"{name:8s} {RAGGED}: {max(a):6.1f} ({median(a):6.1f})   {WHOLE}: {max(b):6.1f} ({median(b):6.1f}) GFLOP/s"
            f"   ratio {max(a) / max(b):.2f} ({median(a) / median(b):.2f})",
            flush=True,
        )


if __name__ == "__main__":
    main()
