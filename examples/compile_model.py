"""A whole model: compile an ONNX file, run it, look at its kernels, save it, load it again.

``python -m examples.compile_model [MODEL.onnx]``; without a file, the MLP of the benchmark.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx

import tensorlang as tl
from bench import feeds, models


def main(arguments: list[str]) -> None:
    path = Path(arguments[0]) if arguments else models.path("mlp")
    inputs = feeds.generate(onnx.load(path), seed=0)

    executable = tl.compile(str(path), target="cpu")
    outputs = executable.run(inputs)
    for name, value in outputs.items():
        print(f"{name}: {value.dtype}{list(value.shape)}, mean {value.mean():.4g}")
    print(executable.profile(inputs))

    with tempfile.TemporaryDirectory() as folder:
        artifact = Path(folder) / "model.tl"
        executable.save(str(artifact))
        again = tl.load(str(artifact)).run(inputs)
        for name, value in outputs.items():
            np.testing.assert_array_equal(again[name], value)
        print(f"saved ({artifact.stat().st_size / 1e6:.1f} MB), loaded, and run again: the same bits")


if __name__ == "__main__":
    main(sys.argv[1:])
