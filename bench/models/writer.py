"""A small builder of ONNX graphs in the dialect of torch's TorchScript exporter (opset 17).

What marks that dialect: weights are initialisers named after module parameters, scalars and shapes are ``Constant``
nodes, nodes are named by module path (``/layer1/layer1.0/conv1/Conv``), ``nn.Linear`` is ``Gemm(transB=1)`` on matrices
and ``MatMul`` with a transposed initialiser followed by ``Add(bias, product)`` on higher ranks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 8  # what torch writes beside opset 17

_ELEMENT = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.int64): TensorProto.INT64}


class GraphWriter:
    """Collects nodes, initialisers, inputs and outputs; ``finish()`` returns the checked model."""

    def __init__(self, name: str, seed: int) -> None:
        self.name = name
        self.random = np.random.default_rng(seed)
        self._scope: list[str] = []
        self._nodes: list[onnx.NodeProto] = []
        self._initialisers: list[onnx.TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._used: dict[str, int] = {}

    # -- scopes and names -------------------------------------------------------------------------------------------

    def enter(self, module: str) -> GraphWriter:
        """``with writer.enter("layer1.0"):`` nodes inside are named below that module."""
        self._scope.append(module)
        return self

    def __enter__(self) -> GraphWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self._scope.pop()

    def _unique(self, name: str) -> str:
        count = self._used.get(name, 0)
        self._used[name] = count + 1
        return f"{name}_{count}" if count else name

    def parameter_name(self, leaf: str) -> str:
        return self._unique(".".join([*self._scope, leaf]))

    # -- graph parts ------------------------------------------------------------------------------------------------

    def input(self, name: str, dtype: type[np.generic], shape: Sequence[int]) -> str:
        self._inputs.append(helper.make_tensor_value_info(name, _ELEMENT[np.dtype(dtype)], list(shape)))
        return name

    def output(self, value: str, name: str, shape: Sequence[int]) -> None:
        """Give ``value`` its public name, as the exporter does, by renaming the tensor that holds it."""
        for node in self._nodes:
            for names in (node.input, node.output):
                for position, old in enumerate(names):
                    if old == value:
                        names[position] = name
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)))

    def parameter(self, leaf: str, array: ArrayLike) -> str:
        name = self.parameter_name(leaf)
        self._initialisers.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def constant(self, value: ArrayLike, dtype: type[np.generic]) -> str:
        tensor = numpy_helper.from_array(np.asarray(value, dtype=dtype))
        return self.node("Constant", value=tensor)

    def node(self, op: str, *inputs: str, outputs: int = 1, **attributes: object) -> str:
        return self.nodes(op, *inputs, outputs=outputs, **attributes)[0]

    def nodes(self, op: str, *inputs: str, outputs: int, **attributes: object) -> list[str]:
        name = self._unique("/" + "/".join([*self._scope, op]))
        results = [f"{name}_output_{i}" for i in range(outputs)]
        self._nodes.append(helper.make_node(op, list(inputs), results, name=name, **attributes))
        return results

    def finish(self) -> onnx.ModelProto:
        graph = helper.make_graph(self._nodes, "main_graph", self._inputs, self._outputs, self._initialisers)
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="tensorlang-bench",
            doc_string=f"{self.name}: random weights, operators as torch's TorchScript exporter writes them",
        )
        onnx.checker.check_model(model, full_check=True)
        return model

    # -- weights ----------------------------------------------------------------------------------------------------

    def normal(self, *shape: int, scale: float) -> NDArray[np.float32]:
        return self.random.standard_normal(shape, dtype=np.float32) * np.float32(scale)

    def filters(self, outputs: int, fan_in: tuple[int, ...], gain: float) -> NDArray[np.float32]:
        """``[outputs, *fan_in]`` weights, each output's summing to zero, variance ``gain ** 2 / prod(fan_in)``.

        The zero sum matters: activations after Relu are positive, and without it a deep random network answers every
        input with the same vector (its response to the mean), which would make a comparison of outputs blind.
        """
        count = int(np.prod(fan_in))
        weights = self.random.standard_normal((outputs, count), dtype=np.float32)
        if count > 1:
            weights -= weights.mean(axis=1, keepdims=True)
        return (weights * np.float32(gain / np.sqrt(count))).reshape(outputs, *fan_in)

    # -- layers -----------------------------------------------------------------------------------------------------

    def conv(
        self,
        x: str,
        c_in: int,
        c_out: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        gain: float = 1.4142,
        padding: int | None = None,
    ) -> str:
        """Convolution with batch normalisation folded in (so with a bias), 'same' padding unless told otherwise."""
        pad = kernel // 2 if padding is None else padding
        weight = self.parameter("weight", self.filters(c_out, (c_in // groups, kernel, kernel), gain))
        bias = self.parameter("bias", self.normal(c_out, scale=0.1))
        return self.node(
            "Conv",
            x,
            weight,
            bias,
            dilations=[1, 1],
            group=groups,
            kernel_shape=[kernel, kernel],
            pads=[pad] * 4,
            strides=[stride, stride],
        )

    def gemm(self, x: str, n_in: int, n_out: int, gain: float = 1.0) -> str:
        """``nn.Linear`` on a matrix."""
        weight = self.parameter("weight", self.filters(n_out, (n_in,), gain))
        bias = self.parameter("bias", self.normal(n_out, scale=0.1))
        return self.node("Gemm", x, weight, bias, alpha=1.0, beta=1.0, transB=1)

    def linear(self, x: str, n_in: int, n_out: int, gain: float = 1.0, bias: bool = True) -> str:
        """``nn.Linear`` on rank 3: MatMul by the transposed weight, then ``Add(bias, product)``."""
        shift = self.parameter("bias", self.normal(n_out, scale=0.02)) if bias else ""
        weight = self.parameter("weight_transposed", self.filters(n_out, (n_in,), gain).T)
        product = self.node("MatMul", x, weight)
        return self.node("Add", shift, product) if bias else product

    def layer_norm(self, x: str, width: int, epsilon: float) -> str:
        scale = self.parameter("weight", 1.0 + self.normal(width, scale=0.1))
        shift = self.parameter("bias", self.normal(width, scale=0.1))
        return self.node("LayerNormalization", x, scale, shift, axis=-1, epsilon=epsilon)

    def scalar(self, op: str, x: str, value: float, reverse: bool = False) -> str:
        """A binary operator with a scalar Constant."""
        constant = self.constant(value, np.float32)
        return self.node(op, constant, x) if reverse else self.node(op, x, constant)

    def reshape(self, x: str, *shape: int) -> str:
        return self.node("Reshape", x, self.constant(shape, np.int64), allowzero=0)
