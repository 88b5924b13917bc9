"""A product and the depthwise convolution that reads it are one kernel, a band of lines at a time: against onnxruntime."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

import tensorlang as tl

RNG = np.random.default_rng(5)


@dataclass(frozen=True)
class Residual:
    """The first half of an inverted residual: a pointwise (or `first` wide) convolution and a depthwise one, channels last."""

    height: int
    width: int
    inputs: int
    channels: int
    stride: int = 1
    kernel: int = 3
    activation: str = "Relu"
    batch: int = 1
    first: int = 1
    bias: bool = True
    also: bool = False  # what is between them is an output too

    @property
    def shape(self) -> list[int]:
        return [self.batch, self.height, self.width, self.inputs]

    def model(self) -> ModelProto:
        k, c = self.kernel, self.channels
        shapes = {"w0": (c, self.inputs, self.first, self.first), "b0": (c,), "w1": (c, 1, k, k), "b1": (c,)}
        weights = [numpy_helper.from_array((RNG.standard_normal(s) / 4).astype(np.float32), n) for n, s in shapes.items()]
        around, first = [self.first // 2] * 4, ["x", "w0", *(["b0"] if self.bias else [])]
        nodes = [
            helper.make_node("Transpose", ["pixels"], ["x"], perm=[0, 3, 1, 2]),
            helper.make_node("Conv", first, ["s0"], kernel_shape=[self.first] * 2, pads=around),
            *self._activation("s0", "e"),
            helper.make_node(
                "Conv", ["e", "w1", "b1"], ["s1"], group=c, kernel_shape=[k, k], strides=[self.stride] * 2, pads=[k // 2] * 4
            ),
            *self._activation("s1", "z"),
            helper.make_node("Transpose", ["z"], ["y"], perm=[0, 2, 3, 1]),
        ]
        outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("y", *(["e"] if self.also else []))]
        pixels = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, self.shape)
        graph = helper.make_graph(nodes, "r", [pixels], outputs, weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    def _activation(self, x: str, y: str) -> list:
        if self.activation == "Silu":
            return [helper.make_node("Sigmoid", [x], [x + "_g"]), helper.make_node("Mul", [x, x + "_g"], [y])]
        return [helper.make_node(self.activation or "Identity", [x], [y])]


def check(case: Residual) -> tl.Executable:
    model = case.model()
    exe = tl.compile(model)
    pixels = RNG.standard_normal(case.shape).astype(np.float32)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for name, found in exe.run({"pixels": pixels}).items():
        (expected,) = session.run([name], {"pixels": pixels})
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5 * np.abs(expected).max())
    return exe


def is_one_kernel(exe: tl.Executable) -> bool:
    return any("matmul" in step and "conv" in step for step in map(str, exe.steps))


@pytest.mark.parametrize(
    "case",
    [
        Residual(28, 28, 8, 48),
        Residual(28, 28, 8, 48, stride=2),
        Residual(30, 17, 5, 40, kernel=5),
        Residual(7, 7, 24, 96),
        Residual(12, 9, 16, 20, stride=2, activation="Silu", batch=2),
        Residual(9, 33, 3, 16, activation="HardSwish"),
        Residual(5, 4, 3, 8, activation="", kernel=3),
        Residual(64, 80, 16, 96, stride=2),
        Residual(13, 11, 6, 24, activation="", bias=False),
    ],
    ids=str,
)
def test_one_kernel_computes_it(case: Residual) -> None:
    assert is_one_kernel(check(case))


def test_lines_that_are_wanted_are_made_in_memory() -> None:
    assert not is_one_kernel(check(Residual(14, 14, 8, 32, also=True)))


def test_long_products_have_a_kernel_of_their_own() -> None:
    assert not is_one_kernel(check(Residual(14, 14, 288, 32)))


def test_a_convolution_with_windows_of_its_own_may_come_first() -> None:
    exe = check(Residual(20, 20, 3, 32, first=3))
    assert len([step for step in map(str, exe.steps) if "conv" in step]) == 1


def test_what_is_between_is_never_whole_in_memory() -> None:
    exe = tl.compile(Residual(112, 112, 16, 96, stride=2).model())
    arena = exe.memory_map["arena"]
    assert isinstance(arena, int) and arena < 96 * 112 * 112 * 4
