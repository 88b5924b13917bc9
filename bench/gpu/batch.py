"""A standard model at another batch size: the same nodes, with the 1 that leads shapes replaced."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper


def with_batch(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """`model`, whose inputs have one sample, with inputs of `batch` samples.

    What a Reshape makes with a leading 1 gets `batch` there, and a constant that is joined to activations along a later axis
    is repeated. That is enough for the standard models; each sample's result is that of the model as it was.
    """
    if batch == 1:
        return model
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    for value in graph.input:
        value.type.tensor_type.shape.dim[0].dim_value = batch
    for value in graph.output:
        value.type.tensor_type.shape.dim[0].dim_value = batch
    del graph.value_info[:]
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    for node in graph.node:
        for a in node.attribute if node.op_type == "Constant" else ():
            if a.name == "value":
                constants[node.output[0]] = numpy_helper.to_array(a.t)
    added: dict[str, np.ndarray] = {}
    for node in graph.node:
        for k, name in enumerate(node.input):
            if (new := _rebatched(node, k, constants.get(name), batch)) is not None:
                node.input[k] = f"{name}_of_{batch}"
                added[node.input[k]] = new
    graph.initializer.extend(numpy_helper.from_array(a, name) for name, a in added.items())
    return made


def _rebatched(node: onnx.NodeProto, k: int, constant: np.ndarray | None, batch: int) -> np.ndarray | None:
    """A constant operand for `batch` samples; None where it serves as it is."""
    if constant is None:
        return None
    if node.op_type == "Reshape" and k == 1 and constant.size > 1 and constant[0] == 1:
        return np.concatenate([[batch], constant[1:]]).astype(np.int64)
    if node.op_type == "Reshape" and k == 1 and constant.size > 1 and constant[0] > 1:  # samples and tokens as rows
        return np.concatenate([[-1], constant[1:]]).astype(np.int64) if -1 not in constant[1:] else None
    if node.op_type == "Concat" and constant.ndim > 1 and constant.shape[0] == 1:
        axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
        return np.repeat(constant, batch, axis=0) if axis != 0 else None
    return None
