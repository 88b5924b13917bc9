"""Counts the operations of a model: 2 per multiply-add of Conv, ConvTranspose, Gemm, MatMul, MatMulInteger, LSTM and GRU.

Elementwise work is left out, as is usual when GFLOP of a network are quoted.
"""

from __future__ import annotations

import math

import onnx
from onnx import shape_inference

Shape = tuple[int, ...]

COUNTED = ("Conv", "ConvTranspose", "Gemm", "MatMul", "MatMulInteger", "LSTM", "GRU")


def count(model: onnx.ModelProto) -> int:
    """Floating-point operations of one run; every shape involved must be static (ValueError says which is not)."""
    # Weights do not matter to shape inference, and copying them is slow: only their shapes go in.
    skeleton = _without_large_weights(model)
    inferred = shape_inference.infer_shapes(skeleton, data_prop=True)
    shapes: dict[str, Shape | None] = {t.name: tuple(t.dims) for t in model.graph.initializer}
    for value in (*inferred.graph.input, *inferred.graph.output, *inferred.graph.value_info):
        if value.name not in shapes:
            shapes[value.name] = _static(value)
    return sum(_node_flops(node, shapes) for node in inferred.graph.node)


def _without_large_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    skeleton = onnx.ModelProto()
    skeleton.ir_version = model.ir_version
    skeleton.opset_import.extend(model.opset_import)
    graph = skeleton.graph
    graph.name = model.graph.name
    graph.node.extend(model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    known = {value.name for value in graph.input}
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) <= 64:
            graph.initializer.append(tensor)
        elif tensor.name not in known:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    return skeleton


def _static(value: onnx.ValueInfoProto) -> Shape | None:
    dims = value.type.tensor_type.shape.dim
    if not all(d.HasField("dim_value") for d in dims):
        return None
    return tuple(d.dim_value for d in dims)


def _node_flops(node: onnx.NodeProto, shapes: dict[str, Shape | None]) -> int:
    if node.op_type not in COUNTED:
        return 0

    def shape(name: str) -> Shape:
        found = shapes.get(name)
        if found is None:
            raise ValueError(f"cannot count {node.op_type} {node.name!r}: shape of {name!r} is not static")
        return found

    if node.op_type in ("LSTM", "GRU"):
        steps, batch, _ = shape(node.input[0])
        return 2 * steps * batch * (math.prod(shape(node.input[1])) + math.prod(shape(node.input[2])))
    first, second, result = shape(node.input[0]), shape(node.input[1]), shape(node.output[0])
    if node.op_type == "Conv":
        return 2 * math.prod(result) * math.prod(second[1:])
    if node.op_type == "ConvTranspose":
        return 2 * math.prod(first) * math.prod(second[1:])
    if node.op_type == "Gemm":
        transposed = any(a.name == "transA" and a.i for a in node.attribute)
        return 2 * math.prod(result) * first[0 if transposed else 1]
    return 2 * math.prod(result) * first[-1]
