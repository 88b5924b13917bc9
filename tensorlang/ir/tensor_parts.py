"""The parts of a tensor intrinsic as programs of their own: what the interpreter runs for a call, and verification against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import load, var
from tensorlang.ir.reduction import init_nest
from tensorlang.ir.stmt import For, PrimFunc, Stmt, Store, seq
from tensorlang.ir.tensor_intrin import TensorIntrin
from tensorlang.ir.tree import block_path, loops_of, replace_stmt

OLD = "_old"  # the output as it was: an input of an update


@lru_cache(maxsize=256)
def part_program(intrin: TensorIntrin, part: str) -> PrimFunc:
    """What a part means. An update starts from a copy of the output, its input `OLD`."""
    meaning, block = intrin.meaning, intrin.block
    if part == "body":
        return meaning
    loops = loops_of(block_path(meaning.body, block.name))
    if part == "reset":
        return replace(meaning, params=(intrin.output, *meaning.size_vars), body=init_nest(block, loops, "reset"))
    out = intrin.output
    old = Buffer(OLD, out.shape, out.dtype)
    index = tuple(var(f"d{n}") for n in range(out.ndim))
    copy: Stmt = Store(out, index, load(old, index))
    for v, d in zip(reversed(index), reversed(out.shape), strict=True):
        copy = For(v, d, "serial", copy)
    update = replace_stmt(meaning.body, block, replace(block, init=None))
    return replace(meaning, params=(*meaning.inputs, old, out, *meaning.size_vars), body=seq(copy, update))


def strides_of(name: str, shape: Sequence[int], given: Mapping[str, Any]) -> tuple[int, ...]:
    """The strides of tensor `name`: those that are `given` (as `name_stride0`), the others those of a tile without gaps."""
    strides, step = [0] * len(shape), 1
    for d in reversed(range(len(shape))):
        strides[d] = int(given.get(f"{name}_stride{d}", step))
        step = strides[d] * shape[d]
    return tuple(strides)


def tile_view(flat: np.ndarray, start: int, shape: tuple[int, ...], strides: Sequence[int]) -> np.ndarray:
    """The elements of a tile in a one-dimensional array.

    Raises:
        IndexError: some lie outside of it.
    """
    last = start + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    if 0 not in shape and not (0 <= start <= last < len(flat)):
        raise IndexError(f"elements {start}..{last} lie outside of an array of {len(flat)}")
    return np.lib.stride_tricks.as_strided(flat[start:], shape, [s * flat.itemsize for s in strides])
