"""Weights that a model keeps in other files: checked when the model is read, mapped into memory when they are used."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
from onnx.external_data_helper import load_external_data_for_tensor, uses_external_data

from tensorlang.errors import ModelError

_MAPPED = "mapped"  # our own mark beside an absolute location: nothing else is ever opened


def resolve(tensors: Iterable[onnx.TensorProto], folder: Path | None, where: str) -> None:
    """Note in every tensor that is kept in another file where exactly that is.

    Args:
        folder: of the model's file; None if it did not come from one.

    Raises:
        ModelError: a file is missing, too short, or outside `folder`.
    """
    for tensor in tensors:
        if not uses_external_data(tensor):
            continue
        if folder is None:
            raise ModelError(f"{where} keeps {tensor.name!r} in another file; load it by its path")
        _resolve(tensor, folder, where)


def _resolve(tensor: onnx.TensorProto, folder: Path, where: str) -> None:
    info = {entry.key: entry.value for entry in tensor.external_data}
    location = info.get("location", "")
    what = f"{where}: weights in other files cannot be read: {tensor.name!r} in {location!r}"
    root = folder.resolve()
    path = (root / location).resolve()
    if not location or os.path.isabs(location) or not path.is_relative_to(root):
        raise ModelError(f"{what}: it is outside the model's folder")
    if not path.is_file():
        raise ModelError(f"{what}: there is no such file")
    size = _byte_count(tensor)
    try:
        offset, length = int(info.get("offset", 0)), int(info.get("length", -1))
    except ValueError:
        raise ModelError(f"{what}: its offset or length is no number") from None
    if size is None:  # a type that is packed: read now
        try:
            load_external_data_for_tensor(tensor, str(root))
        except Exception as error:  # onnx raises many kinds
            raise ModelError(f"{what}: {error}") from error
        tensor.data_location = onnx.TensorProto.DEFAULT
        return
    available = path.stat().st_size
    if offset < 0 or offset + size > available or length not in (-1, size):
        raise ModelError(f"{what}: {size} bytes from {offset} on (length {length}) of a file of {available}")
    del tensor.external_data[:]
    for key, value in (("location", str(path)), ("offset", str(offset)), (_MAPPED, "1")):
        tensor.external_data.add(key=key, value=value)


def _byte_count(tensor: onnx.TensorProto) -> int | None:
    """Bytes of the contents; None for element types that do not fill bytes."""
    try:
        kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except (KeyError, TypeError):
        return None
    if kind.kind not in "biuf" and kind.name != "bfloat16" or any(d < 0 for d in tensor.dims):
        return None
    return math.prod(tensor.dims) * kind.itemsize


def mapped(tensor: onnx.TensorProto) -> np.ndarray | None:
    """The contents of a tensor that `resolve` has seen, mapped and read-only; None if it holds them itself.

    Raises:
        ModelError: it is kept in another file, but nobody has checked which.
    """
    if not uses_external_data(tensor):
        return None
    info = {entry.key: entry.value for entry in tensor.external_data}
    if _MAPPED not in info:
        raise ModelError(f"{tensor.name!r} is kept in another file; load the model by its path")
    kind, shape = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type), tuple(tensor.dims)
    if not math.prod(shape):
        return np.zeros(shape, kind)
    return np.asarray(np.memmap(info["location"], kind, "r", int(info["offset"]), shape))
