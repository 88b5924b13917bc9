"""Kernel IR as numba-cuda Python: one function per launch, in the idiom of CUDA programmers; PTX needs no GPU to make."""
