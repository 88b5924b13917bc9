"""Tiny ONNX models for tests of the outside: command line, README, packaging."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

CHANNELS, CLASSES = 3, 10


def classifier_weights() -> dict[str, NDArray[np.float32]]:
    random = np.random.default_rng(0)
    return {
        "w": random.standard_normal((8, CHANNELS, 3, 3), dtype=np.float32),
        "b": random.standard_normal(8, dtype=np.float32),
        "fc": random.standard_normal((8, CLASSES), dtype=np.float32),
    }


def save_classifier(path: Path) -> Path:
    """A small image classifier with an open batch dimension: Conv, Relu, GlobalAveragePool, Flatten, MatMul, Softmax.

    input: f32[batch, 3, 32, 32] -> probabilities: f32[batch, 10]
    """
    nodes = [
        helper.make_node("Conv", ["input", "w", "b"], ["conv"], "conv", pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["conv"], ["relu"], "relu"),
        helper.make_node("GlobalAveragePool", ["relu"], ["pooled"], "pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], "flatten"),
        helper.make_node("MatMul", ["flat", "fc"], ["scores"], "fc"),
        helper.make_node("Softmax", ["scores"], ["probabilities"], "softmax", axis=-1),
    ]
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", CHANNELS, 32, 32])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(array, name) for name, array in classifier_weights().items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path
