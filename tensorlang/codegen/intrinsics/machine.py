"""Instructions that only some machines have: the plain-Python twins. Who uses one says which CPU feature it needs.

Integer products are summed exactly and wrap to i32, as the machine's do.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from ml_dtypes import bfloat16

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


class _Tiles(threading.local):
    """The matrix unit of a thread: eight tiles, and the shape that they have since `amx_configure`.

    Tiles 0 to 3 are sums, `rows` by 16 of 32 bits; 4 and 5 left operands, `rows` by `groups` of four bytes; 6 and 7 right
    operands, `groups` by 16 of four bytes. A group is two bf16 numbers or four bytes, neighbours of the reduction.
    """

    rows, groups = 0, 0

    def __init__(self) -> None:
        self.held: list[np.ndarray] = []

    def shape(self, tile: int) -> tuple[int, int]:
        return (self.groups if tile >= 6 else self.rows), (4 * self.groups if tile in (4, 5) else 64)


_tiles = _Tiles()


def amx_configure(rows: int, groups: int) -> None:
    """Give the tiles their shapes (see `_Tiles`), 1 to 16 each; all become zero. The process is asked for the unit at first."""
    _tiles.rows, _tiles.groups = rows, groups
    _tiles.held = [np.zeros(_tiles.shape(n), np.uint8) for n in range(8)]


def amx_release() -> None:
    """The tiles are not needed any more."""
    _tiles.held = []


def _rows_of(tile: int, p: np.ndarray, stride: int) -> np.ndarray:
    rows, width = _tiles.shape(tile)
    columns = width // p.itemsize
    if rows and (len(p) < (rows - 1) * stride + columns or stride < 0):
        raise IndexError(f"a tile of {rows} rows of {columns} at stride {stride} lies outside an array of {len(p)}")
    return np.lib.stride_tricks.as_strided(p, (rows, columns), (stride * p.itemsize, p.itemsize))


def amx_zero(tile: int) -> None:
    """Tile number `tile` (a literal) becomes zero."""
    _tiles.held[tile][...] = 0


def amx_load(tile: int, p: np.ndarray, stride: int) -> None:
    """The rows of a tile from memory, `stride` elements apart."""
    _tiles.held[tile] = np.ascontiguousarray(_rows_of(tile, p, stride)).view(np.uint8)


def amx_store(tile: int, p: np.ndarray, stride: int) -> None:
    """The rows of a tile to memory, `stride` elements apart."""
    _rows_of(tile, p, stride)[...] = _tiles.held[tile].view(p.dtype)


def _operands(a: int, b: int, left: Any, right: Any, size: int) -> tuple[np.ndarray, np.ndarray]:
    groups, each = _tiles.groups, 4 // size
    x = _tiles.held[a].view(left)
    y = _tiles.held[b].view(right).reshape(groups, 16, each).transpose(0, 2, 1).reshape(groups * each, 16)
    return x, y


def _amx_bytes(tile: int, a: int, b: int, left: Any) -> None:
    x, y = _operands(a, b, left, np.int8, 1)
    sums = _tiles.held[tile].view(np.int32)
    sums[...] = (sums.astype(np.int64) + x.astype(np.int64) @ y.astype(np.int64)).astype(np.uint32).view(np.int32)


def amx_dot_i8(tile: int, a: int, b: int) -> None:
    """Tile += tile `a` by tile `b`: i32 sums of i8 by i8, which wrap (AMX-INT8)."""
    _amx_bytes(tile, a, b, np.int8)


def amx_dot_u8(tile: int, a: int, b: int) -> None:
    """Tile += tile `a` by tile `b`: i32 sums of u8 by i8, which wrap (AMX-INT8)."""
    _amx_bytes(tile, a, b, np.uint8)


def amx_dot_bf16(tile: int, a: int, b: int) -> None:
    """Tile += tile `a` by tile `b`: f32 sums of bf16 by bf16 (AMX-BF16); denormals count as 0 there."""
    x, y = _operands(a, b, bfloat16, bfloat16, 2)
    sums = _tiles.held[tile].view(np.float32)
    sums[...] = sums + x.astype(np.float32) @ y.astype(np.float32)
