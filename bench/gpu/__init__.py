"""Measurements on a GPU, in two halves: `build` compiles here, where the compiler is; `run` measures there, where the GPU is.

    python -m bench gpu-build DIR      artifacts (PTX), inputs and expected results; no GPU, a few minutes
    python -m bench.gpu.run DIR        runs, compares, times; needs numpy and the driver (torch and cupy are rivals if there)

The folder is small enough to be carried: big inputs and weights are written as recipes of how to draw them.
"""
