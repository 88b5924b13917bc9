"""Arrays in a device's memory, given and taken without copies: DLPack, and `__cuda_array_interface__`.

    y = exe(torch_tensor_on_cuda)        nothing goes through the host: y lies on the device, torch.from_dlpack(y) views it

Struct layouts: DLPack 0.8 (`DLManagedTensor`); CUDA array interface, version 3.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from tensorlang.errors import InputError

CUDA = 2  # DLDeviceType kDLCUDA
_KINDS = {"i": 0, "u": 1, "f": 2, "b": 6, "V": 4}  # DLDataTypeCode; NumPy's void is bfloat16
_CODES = {0: "int", 1: "uint", 2: "float", 6: "bool", 4: "bfloat"}


class _DLTensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32), ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.POINTER(ctypes.c_int64)), ("offset", ctypes.c_uint64),
    ]  # fmt: skip


class _DLManagedTensor(ctypes.Structure):
    pass


_Deleter = ctypes.CFUNCTYPE(None, ctypes.POINTER(_DLManagedTensor))
_DLManagedTensor._fields_ = [("tensor", _DLTensor), ("context", ctypes.c_void_p), ("deleter", _Deleter)]

_api = ctypes.pythonapi
_api.PyCapsule_New.restype, _api.PyCapsule_New.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
_api.PyCapsule_GetPointer.restype = ctypes.c_void_p
_api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
_IsValid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", _api))
_Pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_GetPointer", _api))
_NAME = b"dltensor"
_exported: dict[int, tuple[Any, ...]] = {}  # by address of the struct: what lives as long as somebody has it


@_Deleter
def _release(pointer: Any) -> None:
    _exported.pop(ctypes.addressof(pointer.contents), None)


@ctypes.PYFUNCTYPE(None, ctypes.c_void_p)
def _capsule_dies(capsule: int) -> None:
    if _IsValid(capsule, _NAME):  # nobody took what is in it
        _exported.pop(int(_Pointer(capsule, _NAME)), None)


@dataclass(frozen=True)
class Given:
    """Memory of the device that somebody gives: contiguous, and ready to be read on the stream that was named."""

    address: int
    shape: tuple[int, ...]
    dtype: str
    owner: Any


def is_on_device(value: Any) -> bool:
    """Whether a value says that it lies in a CUDA device's memory."""
    if isinstance(value, np.ndarray):
        return False
    where = getattr(value, "__dlpack_device__", None)
    if where is not None:
        return int(where()[0]) == CUDA
    return hasattr(value, "__cuda_array_interface__")


def given(value: Any, name: str, stream: int, wait: Any) -> Given:
    """The memory of an array on the device.

    Args:
        stream: the stream on which it will be read; its producer makes that wait for what writes it.
        wait: called with a stream of the producer's that has to be waited for.

    Raises:
        InputError: it is not contiguous, lies on another device, or has a type that is not known.
    """
    if hasattr(value, "__dlpack__"):
        capsule = value.__dlpack__(stream=stream)
        tensor = ctypes.cast(_api.PyCapsule_GetPointer(capsule, _NAME), ctypes.POINTER(_DLManagedTensor)).contents.tensor
        shape = tuple(tensor.shape[n] for n in range(tensor.ndim))
        strides = tuple(tensor.strides[n] for n in range(tensor.ndim)) if tensor.strides else None
        if tensor.device_id != 0:
            raise InputError(f"input {name} lies on CUDA device {tensor.device_id}; programs run on device 0")
        if tensor.code not in _CODES or tensor.lanes != 1:
            raise InputError(f"input {name} has a DLPack type that is not known: code {tensor.code}, {tensor.bits} bits")
        dtype = "bool" if tensor.code == 6 else f"{_CODES[tensor.code]}{tensor.bits}"
        found = Given((tensor.data or 0) + tensor.offset, shape, dtype, (value, capsule))
    else:
        entry = value.__cuda_array_interface__
        if entry.get("stream"):
            wait(int(entry["stream"]))
        dtype = np.dtype(entry["typestr"])
        shape = tuple(entry["shape"])
        steps = entry.get("strides")
        strides = None if steps is None else tuple(n // dtype.itemsize for n in steps)
        found = Given(int(entry["data"][0]), shape, dtype.name, value)
    if strides is not None and not _contiguous(shape, strides):
        raise InputError(f"input {name} is not contiguous in the device's memory; make it so before")
    return found


def _contiguous(shape: Sequence[int], strides: Sequence[int]) -> bool:
    step = 1
    for n, s in zip(reversed(shape), reversed(strides), strict=True):
        if n > 1 and s != step:
            return False
        step *= n
    return True


class DeviceArray:
    """An array in the device's memory, which is freed with it.

    Attributes:
        address: of the first element.
    """

    def __init__(self, device: Any, shape: tuple[int, ...], dtype: str):
        self._device = device
        self.shape, self.dtype = shape, dtype
        self.nbytes = prod(shape) * _itemsize(dtype)
        self.address: int = device.allocate(self.nbytes)

    def __repr__(self) -> str:
        return f"DeviceArray({'x'.join(map(str, self.shape))} {self.dtype} at {self.address:#x})"

    def __del__(self) -> None:
        try:
            self._device.free(self.address)
        except Exception:  # the process is ending, or there never was memory
            pass

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        if self.dtype == "bfloat16":
            raise AttributeError("the CUDA array interface knows no bfloat16; use DLPack")
        typestr = np.dtype(self.dtype).str
        return {"shape": self.shape, "typestr": typestr, "data": (self.address, False), "version": 3, "strides": None}

    def __dlpack_device__(self) -> tuple[int, int]:
        return CUDA, 0

    def __dlpack__(self, stream: Any = None, **options: Any) -> Any:
        """A capsule of this memory. What is in it is complete: no stream has to wait."""
        held = _DLManagedTensor()
        shape = (ctypes.c_int64 * max(1, len(self.shape)))(*self.shape)
        steps = [prod(self.shape[n + 1 :]) for n in range(len(self.shape))]
        strides = (ctypes.c_int64 * max(1, len(self.shape)))(*steps)
        kind = "V" if self.dtype == "bfloat16" else np.dtype(self.dtype).kind
        held.tensor = _DLTensor(
            self.address, CUDA, 0, len(self.shape), _KINDS[kind], _itemsize(self.dtype) * 8, 1, shape, strides, 0
        )
        held.deleter = _release
        place = ctypes.addressof(held)
        _exported[place] = (self, held, shape, strides)
        return _api.PyCapsule_New(place, _NAME, ctypes.cast(_capsule_dies, ctypes.c_void_p))

    def numpy(self) -> np.ndarray:
        """A copy on the host; of bfloat16, its bits."""
        array = np.empty(self.shape, np.uint16 if self.dtype == "bfloat16" else self.dtype)
        with self._device.lock:
            self._device.enter()
            self._device.download(self.address, array)
            self._device.wait()
        return array

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.asarray(self.numpy(), dtype)


def _itemsize(dtype: str) -> int:
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize
