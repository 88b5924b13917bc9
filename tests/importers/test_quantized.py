"""Quantised operators, natively: equal to onnxruntime's where it has them, to the standard's definition elsewhere."""

# ruff: noqa: E501  a case is a line
from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, helper

import tensorlang as tl
from tensorlang.errors import UnsupportedOpError

from .node_models import agree, both, node_model

RNG = np.random.default_rng(3)
MS = "com.microsoft"


def q(*shape: int, dtype: str = "uint8") -> np.ndarray:
    info = np.iinfo(dtype)
    return RNG.integers(info.min, info.max + 1, shape).astype(dtype)


def f(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def positive(*shape: int) -> np.ndarray:
    return (RNG.random(shape) + 0.01).astype(np.float32)


def number(value: float, dtype: str = "float32") -> np.ndarray:
    return np.array(value, dtype)


# -- to and from integers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [(), (1, 2)], ids=["runtime scale", "constant scale"])
def test_quantize_rounds_ties_to_even(known):
    """x / 0.123 lands on halves, where a multiplication by 1 / 0.123 would not."""
    x = (np.arange(-600, 600, dtype=np.float32) * np.float32(0.5)) * np.float32(0.123)
    agree(both("QuantizeLinear", [x, number(0.123), number(3, "uint8")], constants=known))


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16"])
def test_quantize_saturates(dtype):
    x = np.concatenate([f(500) * 3e4, np.array([np.inf, -np.inf, 3e38, -3e38], np.float32)])
    ((ours, theirs),) = both("QuantizeLinear", [x, number(0.37), number(5, dtype)])
    np.testing.assert_array_equal(ours[:-4], theirs[:-4])
    assert ours[-4:].tolist() == [np.iinfo(dtype).max, np.iinfo(dtype).min] * 2


def test_quantize_along_an_axis_and_in_blocks():
    agree(both("QuantizeLinear", [f(3, 5, 4) * 30, positive(5), q(5, dtype="int8")], attrs={"axis": 1}))
    agree(both("QuantizeLinear", [f(3, 64) * 30, positive(3, 4), q(3, 4)], attrs={"axis": 1, "block_size": 16}))
    agree(both("DequantizeLinear", [q(3, 64), positive(3, 4), q(3, 4)], attrs={"axis": 1, "block_size": 16}))
    agree(both("DequantizeLinear", [q(3, 5, 4, dtype="int8"), positive(5), q(5, dtype="int8")], attrs={"axis": 1}))


def test_dynamic_quantize():
    agree(both("DynamicQuantizeLinear", [f(30, 40) * 9], ["y", "scale", "zero"]))
    agree(both("DynamicQuantizeLinear", [np.abs(f(30))], ["y", "scale", "zero"]))
    agree(both("DynamicQuantizeLinear", [np.zeros(7, np.float32)], ["y", "scale", "zero"]))


@pytest.mark.parametrize("name", ["int4", "uint4", "int2", "uint2"])
def test_few_bits(name):
    kind = np.dtype(getattr(ml_dtypes, name))
    low, high = int(ml_dtypes.iinfo(kind).min), int(ml_dtypes.iinfo(kind).max)
    x, scale, zero = f(4, 9) * 6, number(0.75), np.array(1, kind)
    model, feeds = node_model("QuantizeLinear", [x, scale, zero], opset=25)
    codes = tl.compile(model).run(feeds)["y"]
    expected = np.clip(np.rint(x / scale) + 1, low, high)
    assert codes.dtype == kind
    np.testing.assert_array_equal(codes.astype(np.float32), expected)
    model, feeds = node_model("DequantizeLinear", [codes, scale, zero], opset=25, constants=(0,))
    np.testing.assert_array_equal(tl.compile(model).run(feeds)["y"], (expected - 1) * scale)


def test_a_narrow_format_moves_and_does_not_compute():
    kind = np.dtype(ml_dtypes.float8_e4m3fn)
    x = f(2, 6).astype(kind)
    model, feeds = node_model("Transpose", [x], opset=25)
    exe = tl.compile(model)
    assert (exe.inputs[0].dtype, exe.outputs[0].dtype) == ("float8_e4m3fn", "float8_e4m3fn")
    np.testing.assert_array_equal(exe.run(feeds)["y"].view(np.uint8), x.T.view(np.uint8))
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    formal = [helper.make_tensor_value_info(n, TensorProto.FLOAT8E4M3FN, [2]) for n in ("x", "y")]
    wrong = helper.make_model(helper.make_graph(nodes, "g", formal[:1], formal[1:]))
    with pytest.raises(UnsupportedOpError, match="relu of f8e4m3fn"):
        tl.compile(wrong)


# -- products of integers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_integer_products(dtype):
    zero = number(7, dtype)
    agree(both("MatMulInteger", [q(2, 5, 33, dtype=dtype), q(33, 18, dtype="int8"), zero, q(18, dtype="int8")], constants=(1, 2, 3)))
    agree(both("QLinearMatMul", [q(9, 40, dtype=dtype), number(0.03), zero, q(40, 17, dtype="int8"), number(0.02), number(0, "int8"),
                                 number(1.7), zero], constants=(1, 2, 3, 4, 5, 6, 7)))  # fmt: skip
    agree(both("QLinearConv", [q(1, 4, 9, 9, dtype=dtype), number(0.03), zero, q(6, 4, 3, 3, dtype="int8"), positive(6) / 100,
                               np.zeros(6, np.int8), number(0.5), zero, q(6, dtype="int32") % 999], constants=range(1, 9),
               attrs={"pads": [1, 1, 1, 1], "strides": [2, 1]}))  # fmt: skip


@pytest.mark.parametrize("shape", [((4, 32), (32, 8)), ((1, 7), (7, 3))], ids=str)
def test_floats_by_quantised_weights(shape):
    (m, k), (_, n) = shape
    x, w = f(m, k), q(k, n, dtype="int8")
    agree(both("DynamicQuantizeMatMul", [x, w, positive(n), np.zeros(n, np.int8), f(n)], domain=MS, constants=(1, 2, 3, 4)))
    codes = [q(m, k), w, number(0.03), positive(n), number(9, "uint8"), np.zeros(n, np.int8), f(n)]
    agree(both("MatMulIntegerToFloat", codes, domain=MS, constants=(1, 2, 3, 4, 5, 6)))


@pytest.mark.parametrize("zero", [None, "packed", "float"])
def test_weights_of_four_bits(zero):
    k, n, block = 64, 24, 32
    zeros = {None: None, "packed": q(n, 1), "float": (positive(n, k // block) * 15).astype(np.float32)}[zero]
    inputs = [f(3, k), q(n, k // block, block // 2), positive(n, k // block), zeros]
    attrs = {"K": k, "N": n, "bits": 4, "block_size": block}
    constants = (1, 2) if zeros is None else (1, 2, 3)
    agree(both("MatMulNBits", inputs, domain=MS, constants=constants, attrs=attrs))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("zeros", [False, True])
def test_gather_of_a_quantised_table(bits, zeros):
    rows, width, block = 12, 48, 16
    table = q(rows, width * bits // 8)
    inputs = [table, np.array([[3, 0, 11], [-1, 5, 3]]), positive(rows, width // block)]
    if zeros:
        inputs.append(q(rows, -(-(width // block) * bits // 8)))
    attrs = {"bits": bits, "block_size": block, "gather_axis": 0, "quantize_axis": 1}
    agree(both("GatherBlockQuantized", inputs, domain=MS, constants=range(len(inputs))[:1], attrs=attrs))


# -- com.microsoft's operators on quantised tensors ----------------------------------------------------------------


def test_qlinear_elementwise():
    zero = number(120, "uint8")
    pair = [q(4, 40), number(0.03), zero, q(4, 40), number(0.05), number(9, "uint8"), number(0.07), number(8, "uint8")]
    agree(both("QLinearAdd", pair, domain=MS, constants=(1, 2, 4, 5, 6, 7)))
    agree(both("QLinearMul", pair, domain=MS, constants=(1, 2, 4, 5, 6, 7)))
    single = [q(4, 40), number(0.03), zero, number(1 / 256), number(0, "uint8")]
    agree(both("QLinearSigmoid", single, domain=MS, constants=(1, 2, 3, 4)))
    agree(both("QLinearLeakyRelu", [*single[:3], number(0.04), number(5, "uint8")], domain=MS, constants=(1, 2, 3, 4)))


def test_qlinear_of_windows_and_parts():
    zero = number(20, "uint8")
    one = [q(2, 6, 7, 7), number(0.03), zero, number(0.01), zero]
    agree(both("QLinearGlobalAveragePool", one, domain=MS, constants=(1, 2, 3, 4), attrs={"channels_last": 0}))
    parts = [number(0.03), zero, q(4, 5), number(0.02), zero, q(4, 3), number(0.05), number(1, "uint8")]
    agree(both("QLinearConcat", parts, domain=MS, constants=(0, 1, 3, 4, 6, 7), attrs={"axis": 1}))
    gemm = [q(4, 32), number(0.03), zero, q(8, 32, dtype="int8"), number(0.02), number(0, "int8"), q(8, dtype="int16").astype(np.int32),
            number(0.1), zero]  # fmt: skip
    agree(both("QGemm", gemm, domain=MS, constants=range(1, 9), attrs={"transB": 1}))


def test_quantised_windows_with_channels_last():
    scales = [number(0.03), number(20, "uint8"), q(4, 3, 3, 3, dtype="int8"), positive(4), np.zeros(4, np.int8), number(0.4), number(9, "uint8")]
    attrs = {"channels_last": 1, "pads": [1, 1, 1, 1], "strides": [2, 2]}
    agree(both("QLinearConv", [q(1, 7, 6, 3), *scales], domain=MS, constants=range(1, 8), attrs=attrs))
    agree(both("NhwcMaxPool", [q(1, 7, 6, 3)], domain=MS, attrs={"kernel_shape": [3, 3], "strides": [2, 2]}))


def test_attention():
    heads, width, size = 2, 16, 8
    weight, bias = q(width, 3 * heads * size, dtype="int8"), f(3 * heads * size)
    inputs = [q(2, 5, width), weight, bias, number(0.02), number(0.01), np.array([3, 5], np.int32), number(120, "uint8"), number(0, "int8")]
    agree(both("QAttention", inputs, domain=MS, constants=(1, 2, 3, 4, 6, 7), attrs={"num_heads": heads}, native=False))


@pytest.mark.parametrize("directions", ["forward", "bidirectional"])
def test_dynamic_quantize_lstm(directions):
    count, hidden, width, steps, batch = 1 + (directions == "bidirectional"), 16, 12, 5, 2
    weights = [RNG.integers(-127, 127, (count, n, 4 * hidden)).astype(np.int8) for n in (width, hidden)]
    scale, zero = np.full(count, 0.003, np.float32), np.zeros(count, np.int8)
    start = [f(count, batch, hidden), f(count, batch, hidden)]
    inputs = [f(steps, batch, width), *weights, f(count, 8 * hidden) * np.float32(0.1), None, *start, None, scale, zero, scale, zero]
    attrs = {"hidden_size": hidden, "direction": directions}
    agree(both("DynamicQuantizeLSTM", inputs, ["y", "h", "c"], domain=MS, constants=(1, 2, 3, 8, 9, 10, 11), attrs=attrs))
