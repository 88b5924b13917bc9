"""Runs an ONNX graph node by node with torch's own functions: what a user of eager PyTorch has, for scale.

Covers the operators of the standard models. (onnx2torch would do as much, but needs torchvision, which brings a
torch of its own choosing.) torch is imported when a runner is made.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx import helper, numpy_helper

from bench.feeds import Feeds

Tensor = Any  # torch.Tensor; torch is an optional dependency
Operator = Callable[[Sequence[Tensor], Mapping[str, Any]], Any]


class TorchRunner:
    """``runner(tensors)`` gives the graph's outputs by name. NotImplementedError names the operators that it lacks."""

    def __init__(self, path: Path) -> None:
        self.torch = importlib.import_module("torch")
        table = _operators(self.torch)
        graph = onnx.load(path).graph
        lacking = sorted({node.op_type for node in graph.node if node.op_type not in table and node.op_type != "Constant"})
        if lacking:
            raise NotImplementedError(f"the torch peer has no {', '.join(lacking)}")
        self.outputs = [value.name for value in graph.output]
        self.constants = {tensor.name: self._tensor(numpy_helper.to_array(tensor)) for tensor in graph.initializer}
        self.steps: list[tuple[Operator, list[str], list[str], dict[str, Any]]] = []
        for node in graph.node:
            attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            if node.op_type == "Constant":
                self.constants[node.output[0]] = self._tensor(numpy_helper.to_array(attributes["value"]))
            else:
                self.steps.append((table[node.op_type], list(node.input), list(node.output), attributes))

    def _tensor(self, array: Any) -> Tensor:
        return self.torch.from_numpy(array.copy())

    def tensors(self, feeds: Feeds) -> dict[str, Tensor]:
        return {name: self._tensor(array) for name, array in feeds.items()}

    def __call__(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        values = {"": None, **self.constants, **tensors}
        with self.torch.inference_mode():
            for operator, inputs, outputs, attributes in self.steps:
                result = operator([values[name] for name in inputs], attributes)
                values.update(zip(outputs, result if len(outputs) > 1 else (result,), strict=True))
        return {name: values[name] for name in self.outputs}


def _operators(torch: Any) -> dict[str, Operator]:
    functional = torch.nn.functional
    dtypes = {
        onnx.TensorProto.FLOAT: torch.float32,
        onnx.TensorProto.INT64: torch.int64,
        onnx.TensorProto.BOOL: torch.bool,
    }

    def conv(x: Sequence[Tensor], a: Mapping[str, Any]) -> Tensor:
        top, left, bottom, right = a.get("pads", [0, 0, 0, 0])
        data = x[0] if (top, left) == (bottom, right) else functional.pad(x[0], (left, right, top, bottom))
        padding = (top, left) if data is x[0] else 0
        bias = x[2] if len(x) > 2 else None
        return functional.conv2d(data, x[1], bias, a.get("strides", 1), padding, a.get("dilations", 1), a.get("group", 1))

    def gemm(x: Sequence[Tensor], a: Mapping[str, Any]) -> Tensor:
        weight = x[1] if a.get("transB") else x[1].T
        return functional.linear(x[0].T if a.get("transA") else x[0], weight, x[2] if len(x) > 2 else None)

    def max_pool(x: Sequence[Tensor], a: Mapping[str, Any]) -> Tensor:
        pads = a.get("pads", [0, 0, 0, 0])
        return functional.max_pool2d(x[0], a["kernel_shape"], a.get("strides", 1), pads[:2], a.get("dilations", 1))

    def gather(x: Sequence[Tensor], a: Mapping[str, Any]) -> Tensor:
        axis = a.get("axis", 0)
        if axis == 0:
            return functional.embedding(x[1], x[0])
        return x[0].index_select(axis, x[1].reshape(-1)).reshape(*x[0].shape[:axis], *x[1].shape, *x[0].shape[axis + 1 :])

    def layer_norm(x: Sequence[Tensor], a: Mapping[str, Any]) -> Tensor:
        axes = x[0].shape[a.get("axis", -1) :]
        return functional.layer_norm(x[0], axes, x[1], x[2], a.get("epsilon", 1e-5))

    return {
        "Add": lambda x, a: x[0] + x[1],
        "Sub": lambda x, a: x[0] - x[1],
        "Mul": lambda x, a: x[0] * x[1],
        "Div": lambda x, a: x[0] / x[1],
        "Pow": lambda x, a: torch.pow(x[0], x[1]),
        "Relu": lambda x, a: torch.relu(x[0]),
        "Clip": lambda x, a: torch.clamp(x[0], x[1], x[2]),
        "Erf": lambda x, a: torch.erf(x[0]),
        "Tanh": lambda x, a: torch.tanh(x[0]),
        "Where": lambda x, a: torch.where(x[0], x[1], x[2]),
        "Cast": lambda x, a: x[0].to(dtypes[a["to"]]),
        "Conv": conv,
        "Gemm": gemm,
        "MatMul": lambda x, a: torch.matmul(x[0], x[1]),
        "MaxPool": max_pool,
        "GlobalAveragePool": lambda x, a: x[0].mean((2, 3), keepdim=True),
        "Softmax": lambda x, a: torch.softmax(x[0], a.get("axis", -1)),
        "LayerNormalization": layer_norm,
        "Gather": gather,
        "Reshape": lambda x, a: x[0].reshape(x[1].tolist()),
        "Transpose": lambda x, a: x[0].permute(a["perm"]),
        "Flatten": lambda x, a: x[0].flatten(a.get("axis", 1)),
        "Unsqueeze": lambda x, a: x[0].unsqueeze(int(x[1])),
        "Concat": lambda x, a: torch.cat(list(x), a["axis"]),
        "Split": lambda x, a: torch.split(x[0], x[1].tolist(), a.get("axis", 0)),
    }
