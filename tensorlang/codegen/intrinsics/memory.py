"""Loads, stores and local arrays of emitted code: the plain-Python twins.

A typed pointer is a flat NumPy array and a vector is a small one. Unlike NumPy slices, accesses outside the array
raise IndexError: with the jit off, a wrong index shows where it happens.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorlang.codegen.intrinsics.dtypes import ScalarType, cast_array, scalar_type


def _check(p: np.ndarray, first: int, last: int) -> None:
    if first < 0 or last >= len(p):
        raise IndexError(f"elements {first}..{last} lie outside an array of {len(p)}")


def local_array(dtype: ScalarType, size: int) -> np.ndarray:
    """A small uninitialised array on the stack, 64-byte aligned: register tiles. `size` must be a literal."""
    element = scalar_type(dtype).numpy
    return np.full(size * element.itemsize, 0xFF, np.uint8).view(element)


def offset(p: np.ndarray, i: int) -> np.ndarray:
    """The pointer to element `i`."""
    if not 0 <= i <= len(p):
        raise IndexError(f"element {i} lies outside an array of {len(p)}")
    return p[i:]


def prefetch(p: np.ndarray, i: int) -> None:
    """A hint that `p[i]` and its neighbours in a cache line will be read soon."""
    _check(p, i, i)


def prefetch_far(p: np.ndarray, i: int) -> None:
    """A hint that `p[i]` and its neighbours in a cache line will be read, but not before much else: the second-level cache
    holds them until then."""
    _check(p, i, i)


def vload_repeated(p: np.ndarray, i: int, count: int, times: int) -> np.ndarray:
    """`p[i : i + count]`, `times` times over, as one vector of `count * times` lanes (both literals)."""
    return np.tile(vload(p, i, count), times)


def vload(p: np.ndarray, i: int, lanes: int) -> np.ndarray:
    """`p[i : i + lanes]` as a vector; no alignment is assumed beyond the element's."""
    _check(p, i, i + lanes - 1)
    return p[i : i + lanes].copy()


def vstore(p: np.ndarray, i: int, value: np.ndarray) -> None:
    """Write a vector to `p[i : i + lanes]`."""
    _check(p, i, i + len(value) - 1)
    p[i : i + len(value)] = value


def vload_masked(p: np.ndarray, i: int, mask: np.ndarray, other: Any) -> np.ndarray:
    """The lanes of `p[i : i + lanes]` where `mask`, `other` (a scalar) elsewhere; masked-off memory is not touched."""
    out = np.full(len(mask), other, p.dtype)
    for lane in np.flatnonzero(mask).tolist():
        _check(p, i + lane, i + lane)
        out[lane] = p[i + lane]
    return out


def vstore_masked(p: np.ndarray, i: int, value: np.ndarray, mask: np.ndarray) -> None:
    """Write the lanes of `value` where `mask`; masked-off memory is not touched."""
    for lane in np.flatnonzero(mask).tolist():
        _check(p, i + lane, i + lane)
        p[i + lane] = value[lane]


def vload_strided(p: np.ndarray, i: int, stride: int, lanes: int) -> np.ndarray:
    """The vector of `p[i + lane * stride]`."""
    index = i + np.arange(lanes) * stride
    _check(p, int(index.min()), int(index.max()))
    return p[index]


def vload_strided_masked(p: np.ndarray, i: int, stride: int, mask: np.ndarray, other: Any) -> np.ndarray:
    """The lanes of the vector of `p[i + lane * stride]` where `mask`, `other` elsewhere; masked-off memory is not touched."""
    out = np.full(len(mask), other, p.dtype)
    for lane in np.flatnonzero(mask).tolist():
        _check(p, i + lane * stride, i + lane * stride)
        out[lane] = p[i + lane * stride]
    return out


def vstore_strided(p: np.ndarray, i: int, stride: int, value: np.ndarray) -> None:
    """Write lane after lane to `p[i + lane * stride]`, in order."""
    index = i + np.arange(len(value)) * stride
    _check(p, int(index.min()), int(index.max()))
    for lane, at in enumerate(index):
        p[at] = value[lane]


def transpose_tile(to: np.ndarray, to_stride: int, source: np.ndarray, stride: int, size: int) -> None:
    """`to[i * to_stride + j] = source[j * stride + i]` for i and j below `size`, a power of two."""
    for j in range(size):
        vstore_strided(to, j, to_stride, vload(source, j * stride, size))


def transpose_tile_past(to: np.ndarray, to_stride: int, source: np.ndarray, stride: int, size: int) -> None:
    """`transpose_tile` whose lines go past the caches where they are whole: for results too large to be found there again."""
    transpose_tile(to, to_stride, source, stride, size)


def vgather(p: np.ndarray, index: np.ndarray) -> np.ndarray:
    """The vector of `p[index[lane]]`."""
    _check(p, int(index.min()), int(index.max()))
    return p[index]


def vscatter(p: np.ndarray, index: np.ndarray, value: np.ndarray) -> None:
    """Write lane after lane to `p[index[lane]]`, in order: of equal indices the last lane wins."""
    _check(p, int(index.min()), int(index.max()))
    for lane, at in enumerate(index):
        p[at] = value[lane]


def vsplat(x: Any, lanes: int) -> np.ndarray:
    """A vector with `x` in every lane."""
    return np.full(lanes, x)


def viota(base: int, stride: int, lanes: int) -> np.ndarray:
    """The i64 vector of `base + lane * stride`."""
    return np.int64(base) + np.arange(lanes, dtype=np.int64) * stride


def lane_mask(count: int, lanes: int) -> np.ndarray:
    """The mask of lanes `< count` (none for a negative count)."""
    return np.arange(lanes) < count


def vcast(value: np.ndarray, dtype: ScalarType) -> np.ndarray:
    """A vector converted lane by lane: floats to integers truncate toward zero, floats narrow to nearest even."""
    return cast_array(value, dtype)


def vextract(value: np.ndarray, lane: int) -> Any:
    """One lane, a literal, as a scalar."""
    return value[lane]
