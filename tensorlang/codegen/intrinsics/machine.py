"""Instructions that only some machines have: the plain-Python twins. Who uses one says which CPU feature it needs.

Integer products are summed exactly and wrap to i32, as the machine's do.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorlang.errors import InternalError


def llvm_call(name: str, *args: Any) -> Any:
    """LLVM's intrinsic `name` (a literal) of vectors and scalars; the result has the type of the first. No plain twin: with the
    jit off, an instruction that calls it does what its intrinsic means."""
    raise InternalError(f"{name} has no plain-Python twin")


def _dot4(acc: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    products = a.astype(np.int64) * b.astype(np.int64)
    return (
        (acc.astype(np.int64) + products.reshape(-1, 4).sum(axis=1)).astype(np.uint32).view(np.int32).astype(acc.dtype)
    )


def vpdpbusd(acc: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`acc[l] + sum over 4 bytes of a[4l + b] * b[4l + b]`: i32 lanes, u8 by i8, no saturation (AVX512-VNNI, or AVX-VNNI)."""
    return _dot4(acc, a, b)


def vdpbf16(acc: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`acc[l] + a[2l + 1] * b[2l + 1] + a[2l] * b[2l]`: f32 lanes, bf16 by bf16 (AVX512-BF16). Products and sums round to f32;
    denormals count as 0 there."""
    x, y = a.astype(np.float32).reshape(-1, 2), b.astype(np.float32).reshape(-1, 2)
    return acc + x[:, 1] * y[:, 1] + x[:, 0] * y[:, 0]


def sdot(acc: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """As `vpdpbusd` for i8 by i8, 4 or 2 lanes (Arm's dot product)."""
    return _dot4(acc, a, b)


def udot(acc: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """As `vpdpbusd` for u8 by u8 into u32, 4 or 2 lanes (Arm's dot product)."""
    return (acc.astype(np.uint64) + (a.astype(np.uint64) * b.astype(np.uint64)).reshape(-1, 4).sum(axis=1)).astype(
        np.uint32
    )


def _tile(p: np.ndarray, stride: int, rows: int, columns: int) -> np.ndarray:
    if rows and (len(p) < (rows - 1) * stride + columns or stride < 0):
        raise IndexError(f"a tile of {rows} rows of {columns} at stride {stride} lies outside an array of {len(p)}")
    return np.lib.stride_tricks.as_strided(p, (rows, columns), (stride * p.itemsize, p.itemsize))


def amx_dot_i8(c: np.ndarray, c_stride: int, a: np.ndarray, a_stride: int, b: np.ndarray, b_stride: int) -> None:
    """16x16 i32 `c` += 16x64 i8 `a` by 64x16 i8 `b`, which is 16 rows of 16 columns of 4 (AMX-INT8). Strides: elements."""
    rows, product = _tile(c, c_stride, 16, 16), _tile(a, a_stride, 16, 64).astype(np.int64)
    right = _tile(b, b_stride, 16, 64).reshape(16, 16, 4).transpose(0, 2, 1).reshape(64, 16).astype(np.int64)
    rows[...] = (rows.astype(np.int64) + product @ right).astype(np.uint32).view(np.int32)


def amx_dot_bf16(c: np.ndarray, c_stride: int, a: np.ndarray, a_stride: int, b: np.ndarray, b_stride: int) -> None:
    """16x16 f32 `c` += 16x32 bf16 `a` by 32x16 bf16 `b`, which is 16 rows of 16 columns of 2 (AMX-BF16). Strides: elements."""
    rows, product = _tile(c, c_stride, 16, 16), _tile(a, a_stride, 16, 32).astype(np.float32)
    right = _tile(b, b_stride, 16, 32).reshape(16, 16, 2).transpose(0, 2, 1).reshape(32, 16).astype(np.float32)
    rows[...] = rows + product @ right
