"""Seeded inputs for any ONNX model, in ranges that make sense: ids below the vocabulary, masks of ones, images."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray

Feeds = dict[str, NDArray[np.generic]]


def image(random: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """``[N, C, H, W]`` of about unit variance: soft blobs plus fine noise.

    Pure noise averages out in a network with pooling, so that two inputs would give nearly one output.
    """
    *outer, height, width = shape
    coarse = random.standard_normal((*outer, 7, 7), dtype=np.float32)
    rows = np.arange(height) * 7 // height
    columns = np.arange(width) * 7 // width
    fine = random.standard_normal(shape, dtype=np.float32)
    return coarse[..., rows[:, None], columns[None, :]] + np.float32(0.3) * fine


def generate(model: onnx.ModelProto, seed: int, sizes: Mapping[str, int] | None = None) -> Feeds:
    """One array for each input of ``model`` that is no initialiser; a dynamic dimension takes ``sizes[its name]``, else
    1.

    Integer inputs that index a table (Gather on an initialiser) stay below its length; those with "mask" in their name,
    or used no such way, are ones; booleans and bytes are random.
    """
    random = np.random.default_rng(seed)
    chosen = dict(sizes or {})
    initialisers = {t.name: tuple(t.dims) for t in model.graph.initializer}
    feeds: Feeds = {}
    for value in model.graph.input:
        if value.name in initialisers:
            continue
        tensor = value.type.tensor_type
        shape = tuple(d.dim_value if d.HasField("dim_value") else chosen.get(d.dim_param, 1) for d in tensor.shape.dim)
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        feeds[value.name] = _array(random, value.name, dtype, shape, _index_limit(model.graph, value.name, initialisers))
    return feeds


def _array(
    random: np.random.Generator, name: str, dtype: np.dtype[np.generic], shape: tuple[int, ...], limit: int | None
) -> NDArray[np.generic]:
    if dtype == np.bool_:
        return random.integers(0, 2, shape).astype(np.bool_)
    if dtype.itemsize == 1:
        limits = np.iinfo(dtype)
        return random.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    if np.issubdtype(dtype, np.integer):
        if limit is None or "mask" in name.lower():
            return np.ones(shape, dtype)
        return random.integers(0, limit, shape).astype(dtype)
    if len(shape) == 4 and min(shape[2:]) >= 16:
        return image(random, shape).astype(dtype)
    return random.standard_normal(shape).astype(dtype)


def _index_limit(graph: onnx.GraphProto, name: str, initialisers: Mapping[str, tuple[int, ...]]) -> int | None:
    for node in graph.node:
        if node.op_type == "Gather" and node.input[1] == name and node.input[0] in initialisers:
            axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
            return initialisers[node.input[0]][axis]
    return None
