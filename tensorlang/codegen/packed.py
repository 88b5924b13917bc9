"""Functions of the host as native code calls them: `i32 f(i64* words)`, a C callback made with ctypes.

A word is a scalar (a float as the bits of an f64), or a pointer followed by the array's dimensions. The callback makes NumPy
views of that memory, calls the registered function, and answers 0; if that raises, the exception waits in `Callbacks`
and the answer is `PACKED_FAILED`, with which native code returns at once.
"""

from __future__ import annotations

import ctypes
import struct
import threading
from typing import Any

import numpy as np

from tensorlang.codegen.emit import PackedSite
from tensorlang.ir.dtype import DType
from tensorlang.ir.packed import call

PACKED_FAILED = 0x7FFF0002
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.POINTER(ctypes.c_int64))


class Callbacks:
    """The callbacks of one kernel, alive as long as this object. `addresses` go to its last parameters, in order."""

    def __init__(self, sites: tuple[PackedSite, ...]):
        self.sites = sites
        self._failed = threading.local()  # a callback runs in the thread that called the kernel
        self._alive = [_CALLBACK(self._trampoline(site)) for site in sites]
        self.addresses = [ctypes.cast(f, ctypes.c_void_p).value or 0 for f in self._alive]
        self.plain = [_plain(site) for site in sites]

    def _trampoline(self, site: PackedSite) -> Any:
        def entered(words: Any) -> int:
            try:
                args: list[Any] = []
                at = 0
                for dtype, rank, _ in site.args:
                    if rank is None:
                        args.append(_scalar(words[at], dtype))
                        at += 1
                    else:
                        args.append(_array(words[at], dtype, tuple(words[at + 1 : at + 1 + rank])))
                        at += 1 + rank
                call(site.name, tuple(args), _outputs(site))
            except Exception as error:
                self._failed.error = error
                return PACKED_FAILED
            return 0

        return entered

    def raise_error(self) -> None:
        """Raise what the last failed callback raised, if one failed."""
        error = getattr(self._failed, "error", None)
        self._failed.error = None
        if error is not None:
            raise error


def _outputs(site: PackedSite) -> tuple[int, ...]:
    return tuple(n for n, (_, _, written) in enumerate(site.args) if written)


def _plain(site: PackedSite) -> Any:
    """The twin with the jit off: pointers are flat arrays."""

    def entered(*words: Any) -> None:
        args: list[Any] = []
        at = 0
        for _, rank, _ in site.args:
            if rank is None:
                args.append(words[at])
                at += 1
            else:
                shape = tuple(int(d) for d in words[at + 1 : at + 1 + rank])
                args.append(words[at][: int(np.prod(shape, dtype=np.int64))].reshape(shape))
                at += 1 + rank
        call(site.name, tuple(args), _outputs(site))

    return entered


def _scalar(word: int, dtype: DType) -> int | float | bool:
    if dtype.is_float:
        return float(struct.unpack("<d", struct.pack("<q", word))[0])
    return bool(word) if dtype.is_bool else word & (2**dtype.bits - 1) if dtype.kind == "u" else word


def _array(address: int, dtype: DType, shape: tuple[int, ...]) -> np.ndarray:
    nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.nbytes
    if nbytes == 0:
        return np.empty(shape, dtype.numpy)
    raw: Any = (ctypes.c_uint8 * nbytes).from_address(address)
    return np.frombuffer(raw, dtype.numpy).reshape(shape)
