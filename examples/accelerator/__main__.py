"""Put a quantised model on the simulated accelerator, and compare with the CPU:

    python -m examples.accelerator mobilenet_v2_int8.onnx
"""

from __future__ import annotations

import sys

import numpy as np

import tensorlang as tl

from . import generator, measure


def main(path: str, seed: int = 0) -> int:
    """0 if the accelerator's results are the CPU's, to the bit."""
    exe = tl.compile(path, codegens=[generator])
    rng = np.random.default_rng(seed)
    feeds = {}
    for i in exe.inputs:
        shape = [d if isinstance(d, int) else 1 for d in i.shape]
        feeds[i.name] = rng.standard_normal(shape).astype(i.dtype)
    with measure() as run:
        got = exe.run(feeds)
    expected = tl.compile(path).run(feeds)
    equal = all(np.array_equal(got[name], expected[name]) for name in expected)
    print(f"{path}: {exe.placement['counts']}")
    print(run)
    print("bit by bit what the CPU computes" if equal else "NOT what the CPU computes")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
