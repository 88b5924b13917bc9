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
        given = {t.untyped_storage().data_ptr() for t in tensors.values()}
        return {name: _own(values[name], given) for name in self.outputs}


def _own(result: Tensor, given: set[int]) -> Tensor:
    """The result in memory of its own, as every other peer gives it: a view costs torch nothing, and its reader later."""
    return result.clone() if result.untyped_storage().data_ptr() in given else result.contiguous()


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

    def conv_transpose(x: Sequence[Tensor], a: Mapping[str, Any]) -> Tensor:
        bias, pads = x[2] if len(x) > 2 else None, a.get("pads", [0, 0, 0, 0])
        return functional.conv_transpose2d(x[0], x[1], bias, a.get("strides", 1), pads[:2], 0, a.get("group", 1))

    def any_conv(x: Sequence[Tensor], a: Mapping[str, Any]) -> Tensor:
        if x[0].ndim == 4:
            return conv(x, a)
        bias, pads = x[2] if len(x) > 2 else None, a.get("pads", [0, 0])
        dilations, groups = a.get("dilations", 1), a.get("group", 1)
        return functional.conv1d(x[0], x[1], bias, a.get("strides", 1), pads[0], dilations, groups)

    def average_pool(x: Sequence[Tensor], a: Mapping[str, Any]) -> Tensor:
        pads = a.get("pads", [0, 0, 0, 0])
        return functional.avg_pool2d(x[0], a["kernel_shape"], a.get("strides"), pads[:2], count_include_pad=False)

    def resize(x: Sequence[Tensor], a: Mapping[str, Any]) -> Tensor:
        scales = x[2][2:].tolist()
        if a.get("mode") == b"linear":
            return functional.interpolate(x[0], scale_factor=scales, mode="bilinear", align_corners=False)
        return functional.interpolate(x[0], scale_factor=scales, mode="nearest")

    def reduce(function: Callable[..., Tensor]) -> Operator:
        def run(x: Sequence[Tensor], a: Mapping[str, Any]) -> Tensor:
            axes = x[1].tolist() if len(x) > 1 else list(a.get("axes", range(x[0].ndim)))
            return function(x[0], dim=axes, keepdim=bool(a.get("keepdims", 1)))

        return run

    def strided(x: Sequence[Tensor], a: Mapping[str, Any]) -> Tensor:
        cut = [slice(None)] * x[0].ndim
        for start, end, axis, step in zip(*(v.tolist() for v in x[1:5]), strict=True):
            cut[axis] = slice(start, end, step)
        return x[0][tuple(cut)]

    def pad(x: Sequence[Tensor], a: Mapping[str, Any]) -> Tensor:
        rank = x[0].ndim
        pads = x[1].tolist()
        return functional.pad(x[0], [n for axis in reversed(range(rank)) for n in (pads[axis], pads[axis + rank])])

    def recurrent(gates: Sequence[int], function: Callable[..., Any], states: int) -> Operator:
        """`gates`: where torch's gates stand among ONNX's. Reordered weights are kept."""
        kept: dict[int, list[Tensor]] = {}

        def run(x: Sequence[Tensor], a: Mapping[str, Any]) -> Tensor:
            data, size = x[0], a["hidden_size"]
            if id(x[1]) not in kept:
                flat = [x[1][0], x[2][0], *x[3][0].chunk(2)]
                kept[id(x[1])] = [torch.cat([t.split(size)[g] for g in gates]) for t in flat]
            state = data.new_zeros(1, data.shape[1], size)
            first = (state, state) if states == 2 else state
            return function(data, first, kept[id(x[1])], True, 1, 0.0, False, False, False)[0].unsqueeze(1)

        return run

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
        "Sigmoid": lambda x, a: torch.sigmoid(x[0]),
        "HardSwish": lambda x, a: functional.hardswish(x[0]),
        "Exp": lambda x, a: torch.exp(x[0]),
        "ReduceSum": reduce(torch.sum),
        "ReduceMean": reduce(torch.mean),
        "ReduceMax": reduce(torch.amax),
        "ArgMax": lambda x, a: torch.argmax(x[0], a.get("axis", 0), bool(a.get("keepdims", 1))),
        "CumSum": lambda x, a: torch.cumsum(x[0], int(x[1])),
        "TopK": lambda x, a: torch.topk(x[0], int(x[1]), a.get("axis", -1)),
        "LSTM": recurrent((0, 2, 3, 1), torch.lstm, 2),
        "GRU": recurrent((1, 0, 2), torch.gru, 1),
        "Slice": strided,
        "Pad": pad,
        "Expand": lambda x, a: x[0].expand(x[1].tolist()),
        "Resize": resize,
        "Conv": any_conv,
        "ConvTranspose": conv_transpose,
        "AveragePool": average_pool,
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
