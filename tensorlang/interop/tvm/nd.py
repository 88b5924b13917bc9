"""Arrays as classic TVM's `tvm.nd` has them: NumPy memory under another name, aligned for vector loads."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorlang.errors import InputError
from tensorlang.interop.tvm.device import Device, cpu, device, opencl
from tensorlang.ir.expr import user_location
from tensorlang.runtime.artifact import aligned_bytes

__all__ = ["NDArray", "array", "cpu", "device", "empty", "from_dlpack", "from_numpy", "numpyasarray", "opencl"]


class NDArray:
    """A C-contiguous array on a device.

    Attributes:
        device: the device that it was made for.
    """

    def __init__(self, data: np.ndarray, dev: Device):
        self._data = data
        self.device = dev

    @property
    def shape(self) -> tuple[int, ...]:
        return self._data.shape

    @property
    def ndim(self) -> int:
        return self._data.ndim

    @property
    def dtype(self) -> str:
        """NumPy's name of the element type."""
        return self._data.dtype.name

    @property
    def ctx(self) -> Device:
        return self.device

    def numpy(self) -> np.ndarray:
        """A NumPy copy."""
        return self._data.copy()

    asnumpy = numpy

    def copyto(self, target: NDArray | Device) -> NDArray:
        """Copy the elements into `target`, an array of the same shape, or into a new array on a device.

        Raises:
            InputError: the shapes or element types differ.
        """
        if isinstance(target, Device):
            return array(self._data, target)
        target.copyfrom(self._data)
        return target

    def copyfrom(self, source: Any) -> NDArray:
        """Copy the elements of `source`, an array of the same shape.

        Raises:
            InputError: the shape differs, or elements would change.
        """
        given = source._data if isinstance(source, NDArray) else np.asarray(source)
        if given.shape != self.shape:
            raise InputError(f"{user_location()}: cannot copy an array of shape {given.shape} into one of shape {self.shape}")
        if not np.can_cast(given.dtype, self._data.dtype, "same_kind"):
            raise InputError(f"{user_location()}: cannot copy elements of {given.dtype} into {self._data.dtype}")
        self._data[...] = given
        return self

    def __getitem__(self, index: Any) -> Any:
        return self._data[index]

    def __setitem__(self, index: Any, value: Any) -> None:
        self._data[index] = value._data if isinstance(value, NDArray) else value

    def __len__(self) -> int:
        return len(self._data)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self._data, dtype=dtype, copy=copy)

    def __dlpack__(self, **options: Any) -> Any:
        return self._data.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._data.__dlpack_device__()

    def __repr__(self) -> str:
        return f"<NDArray {self.shape}, {self.device}>\n{self._data!r}"


def empty(shape: tuple[int, ...] | int, dtype: Any = "float32", device: Device | None = None) -> NDArray:
    """An array of zeros: its contents are unspecified, but never another program's memory."""
    shape = (shape,) if isinstance(shape, int) else tuple(int(d) for d in shape)
    element = np.dtype(dtype)
    raw = aligned_bytes(int(np.prod(shape, dtype=np.int64)) * element.itemsize)
    raw[:] = 0
    return NDArray(raw.view(element).reshape(shape), device or cpu(0))


def array(arr: Any, device: Device | None = None) -> NDArray:
    """A copy of `arr`, anything that NumPy takes for an array."""
    given = arr._data if isinstance(arr, NDArray) else np.asarray(arr)
    if given.dtype == object:
        raise InputError(f"{user_location()}: tvm.nd.array needs numbers, not {type(arr).__name__}")
    made = empty(given.shape, given.dtype, device)
    made._data[...] = given
    return made


def from_dlpack(source: Any) -> NDArray:
    """The array behind a DLPack exporter, without a copy."""
    return NDArray(np.from_dlpack(source), cpu(0))


def from_numpy(data: np.ndarray, dev: Device | None = None) -> NDArray:
    """A view of NumPy's memory, which must be C-contiguous: what one writes the other sees."""
    if not data.flags.c_contiguous:
        raise InputError(f"{user_location()}: a view needs a C-contiguous array")
    return NDArray(data, dev or cpu(0))


def numpyasarray(data: np.ndarray) -> NDArray:
    """A view of NumPy's memory; see `from_numpy`."""
    return from_numpy(data)
