"""ONNX models of a few nodes, for tests of the importer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Info = tuple[str, int, Sequence[Any] | None]


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[tuple[str, Any, Sequence[Any]]],
    outputs: Sequence[str] | Sequence[tuple[str, Any, Any]],
    weights: Mapping[str, np.ndarray] | None = None,
    opset: int = 17,
    domains: Mapping[str, int] | None = None,
) -> onnx.ModelProto:
    """A model; inputs are (name, dtype, shape), outputs names (of f32 tensors) or such triples too."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info(n, _code(d), list(s)) for n, d, s in inputs],
        [
            helper.make_tensor_value_info(o, TensorProto.FLOAT, None)
            if isinstance(o, str)
            else helper.make_tensor_value_info(o[0], _code(o[1]), o[2])
            for o in outputs
        ],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in (weights or {}).items()],
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, v) for d, v in (domains or {}).items())]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def _code(dtype: Any) -> int:
    return dtype if isinstance(dtype, int) else helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


node = helper.make_node
