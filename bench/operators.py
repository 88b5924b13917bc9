"""The operator suite: one- and few-operator ONNX models at sizes that networks use, and ragged ones that no tile
divides.

Weights are initialisers, as in a network; everything else is an input. Each case is a file in the cache, like any other
model.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bench import cache, feeds
from bench.models import flops

OPSET = 17


@dataclass(frozen=True)
class Case:
    """One entry of the suite; ``family`` groups the table."""

    name: str
    family: str
    make: Callable[[], onnx.ModelProto]

    @functools.cached_property
    def model(self) -> onnx.ModelProto:
        return self.make()

    def path(self) -> Path:
        content = self.model.SerializeToString(deterministic=True)
        digest = hashlib.sha256(content).hexdigest()[:12]
        file = cache.directory("operators") / f"{self.name}-{digest}.onnx"
        if not file.exists():
            cache.write_atomically(file, lambda temporary: temporary.write_bytes(content))
        return file

    def inputs(self, seed: int) -> feeds.Feeds:
        return feeds.generate(self.model, seed)

    @property
    def flop(self) -> int:
        """Floating-point operations of the matrix products and convolutions in it."""
        return flops.count(self.model)

    @property
    def least_bytes(self) -> int:
        """Every input, weight and output once (of a table that is looked up, only what comes out)."""
        graph = self.model.graph
        values = [v.type.tensor_type for v in (*graph.input, *graph.output)]
        moved = sum(_bytes(t.elem_type, [d.dim_value for d in t.shape.dim]) for t in values)
        tables = {node.input[0] for node in graph.node if node.op_type == "Gather"}
        return moved + sum(_bytes(t.data_type, t.dims) for t in graph.initializer if t.name not in tables)


def _bytes(element: int, dims: Sequence[int]) -> int:
    return math.prod(dims) * int(helper.tensor_dtype_to_np_dtype(element).itemsize)


class _Builder:
    """Nodes in a row; ``weight`` draws from a generator seeded by the case's name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.random = np.random.default_rng([*name.encode()])
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.initialisers: list[onnx.TensorProto] = []

    def input(self, name: str, *shape: int, dtype: int = TensorProto.FLOAT) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, dtype, shape))
        return name

    def array(self, array: NDArray[np.generic]) -> str:
        name = f"weight_{len(self.initialisers)}"
        self.initialisers.append(numpy_helper.from_array(array, name))
        return name

    def weight(self, *shape: int, fan_in: int = 1) -> str:
        return self.array(self.random.standard_normal(shape, dtype=np.float32) / np.float32(np.sqrt(fan_in)))

    def node(self, op: str, *inputs: str, **attributes: object) -> str:
        output = f"value_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [output], name=f"{op}_{len(self.nodes)}", **attributes))
        return output

    def several(self, count: int, op: str, *inputs: str, **attributes: object) -> tuple[str, ...]:
        """A node with `count` outputs."""
        first = len(self.nodes)
        outputs = [f"value_{first}_{n}" for n in range(count)]
        self.nodes.append(helper.make_node(op, list(inputs), outputs, name=f"{op}_{first + 1}", **attributes))
        return tuple(outputs)

    def finish(self, *results: str) -> onnx.ModelProto:
        outputs = [onnx.ValueInfoProto(name=result) for result in results]
        graph = helper.make_graph(self.nodes, self.name, self.inputs, outputs, self.initialisers)
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8, producer_name="tensorlang-bench"
        )
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
        del inferred.graph.value_info[:]
        onnx.checker.check_model(inferred, full_check=True)
        return inferred


_CASES: dict[str, Case] = {}


def _case(name: str, family: str, build: Callable[[_Builder], str | tuple[str, ...]]) -> None:
    def make() -> onnx.ModelProto:
        builder = _Builder(name)
        results = build(builder)
        return builder.finish(*([results] if isinstance(results, str) else results))

    _CASES[name] = Case(name, family, make)


def _dense(m: int, k: int, n: int, epilogue: str = "") -> Callable[[_Builder], str]:
    """A weight on the right, as in ``nn.Linear``; ``epilogue`` "relu" adds a bias and Relu."""

    def build(b: _Builder) -> str:
        y = b.node("MatMul", b.input("x", m, k), b.weight(k, n, fan_in=k))
        if epilogue == "relu":
            y = b.node("Relu", b.node("Add", y, b.weight(n)))
        return y

    return build


def _product(*left: int, columns: int) -> Callable[[_Builder], str]:
    """Two inputs: nothing can be packed beforehand."""
    *batch, _, depth = left
    return lambda b: b.node("MatMul", b.input("a", *left), b.input("b", *batch, depth, columns))


def _conv(
    channels: tuple[int, int],
    size: int,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    relu: bool = True,
    op: str = "Conv",
    padding: int | None = None,
    dilation: int = 1,
    rank: int = 2,
) -> Callable[[_Builder], str]:
    c_in, c_out = channels
    pad = dilation * (kernel // 2) if padding is None else padding

    def build(b: _Builder) -> str:
        shape = (c_out, c_in // groups) if op == "Conv" else (c_in, c_out // groups)
        weight = b.weight(*shape, *[kernel] * rank, fan_in=c_in // groups * kernel**rank)
        y = b.node(
            op,
            b.input("x", 1, c_in, *[size] * rank),
            weight,
            b.weight(c_out),
            kernel_shape=[kernel] * rank,
            pads=[pad] * 2 * rank,
            strides=[stride] * rank,
            dilations=[dilation] * rank,
            group=groups,
        )
        return b.node("Relu", y) if relu else y

    return build


def _unary(op: str, *shape: int, **attributes: object) -> Callable[[_Builder], str]:
    return lambda b: b.node(op, b.input("x", *shape), **attributes)


def _binary(op: str, left: tuple[int, ...], right: tuple[int, ...]) -> Callable[[_Builder], str]:
    return lambda b: b.node(op, b.input("x", *left), b.input("y", *right))


def _layer_norm(*shape: int) -> Callable[[_Builder], str]:
    return lambda b: b.node("LayerNormalization", b.input("x", *shape), b.weight(shape[-1]), b.weight(shape[-1]), axis=-1)


def _gelu(*shape: int) -> Callable[[_Builder], str]:
    def build(b: _Builder) -> str:
        x = b.input("x", *shape)
        erf = b.node("Erf", b.node("Div", x, b.array(np.array(np.sqrt(2.0), np.float32))))
        y = b.node("Mul", x, b.node("Add", erf, b.array(np.ones((), np.float32))))
        return b.node("Mul", y, b.array(np.full((), 0.5, np.float32)))

    return build


def _silu(*shape: int) -> Callable[[_Builder], str]:
    def build(b: _Builder) -> str:
        x = b.input("x", *shape)
        return b.node("Mul", x, b.node("Sigmoid", x))

    return build


def _attention(heads: int, tokens: int, width: int) -> Callable[[_Builder], str]:
    def build(b: _Builder) -> str:
        query = b.input("query", 1, heads, tokens, width)
        key = b.node("Transpose", b.input("key", 1, heads, tokens, width), perm=[0, 1, 3, 2])
        value = b.input("value", 1, heads, tokens, width)
        scores = b.node("Div", b.node("MatMul", query, key), b.array(np.array(np.sqrt(width), np.float32)))
        return b.node("MatMul", b.node("Softmax", scores, axis=-1), value)

    return build


def _gather(rows: int, width: int, count: int) -> Callable[[_Builder], str]:
    return lambda b: b.node("Gather", b.weight(rows, width), b.input("ids", 1, count, dtype=TensorProto.INT64))


def _resize(*shape: int, scale: float, mode: str) -> Callable[[_Builder], str]:
    def build(b: _Builder) -> str:
        scales = b.array(np.array([1, 1, scale, scale], np.float32))
        transform = "asymmetric" if mode == "nearest" else "half_pixel"
        return b.node(
            "Resize",
            b.input("x", *shape),
            "",
            scales,
            mode=mode,
            coordinate_transformation_mode=transform,
            nearest_mode="floor",
        )

    return build


def _with_array(op: str, array: NDArray[np.generic], *shape: int, **attributes: object) -> Callable[[_Builder], str]:
    """An operator whose second input is a constant array: ReduceSum's axes, Expand's shape, Pad's pads."""
    return lambda b: b.node(op, b.input("x", *shape), b.array(array), **attributes)


def _integer_product(left: int, size: int) -> Callable[[_Builder], str]:
    """Bytes times a constant matrix of signed bytes; `left` is the input's type."""

    def build(b: _Builder) -> str:
        weight = b.array(b.random.integers(-128, 128, (size, size)).astype(np.int8))
        return b.node("MatMulInteger", b.input("a", size, size, dtype=left), weight)

    return build


def _recurrent(op: str, steps: int, batch: int, width: int) -> Callable[[_Builder], str]:
    """LSTM or GRU (as torch's: the reset gate after the product) of one direction; the whole sequence comes out."""
    gates, attributes = (4, {}) if op == "LSTM" else (3, {"linear_before_reset": 1})

    def build(b: _Builder) -> str:
        x = b.input("x", steps, batch, width)
        w, r = (b.weight(1, gates * width, width, fan_in=width) for _ in range(2))
        y, *_ = b.several(1, op, x, w, r, b.weight(1, 2 * gates * width, fan_in=width), hidden_size=width, **attributes)
        return y

    return build


def _topk(count: int, *shape: int) -> Callable[[_Builder], tuple[str, ...]]:
    return lambda b: b.several(2, "TopK", b.input("x", *shape), b.array(np.array([count], np.int64)), axis=-1)


def _slice(*shape: int, starts: list[int], ends: list[int], steps: list[int]) -> Callable[[_Builder], str]:
    axes = list(range(len(shape)))
    return lambda b: b.node(
        "Slice", b.input("x", *shape), *(b.array(np.array(v, np.int64)) for v in (starts, ends, axes, steps))
    )


for _m, _k, _n in (
    (1, 768, 3072),
    (1, 1024, 1000),
    (64, 768, 768),
    (128, 768, 768),
    (128, 768, 3072),
    (128, 3072, 768),
    (197, 768, 768),
    (512, 512, 512),
    (1024, 1024, 1024),
    (2048, 2048, 2048),
    (8, 768, 3072),
    (8, 1024, 1024),
    (127, 127, 127),
    (1000, 1001, 999),
    (33, 65, 129),
    (127, 255, 511),
    (64, 768, 16384),
):
    _case(f"matmul_{_m}x{_k}x{_n}", "matmul", _dense(_m, _k, _n))
_case("matmul_bias_relu_128x768x3072", "matmul", _dense(128, 768, 3072, epilogue="relu"))
_case("matmul_two_inputs_256x256x256", "matmul", _product(256, 256, columns=256))
_case("matmul_batched_12x128x64x128", "matmul", _product(1, 12, 128, 64, columns=128))
_case("matmul_batched_12x197x197x64", "matmul", _product(1, 12, 197, 197, columns=64))
_case("attention_12x128x64", "attention", _attention(12, 128, 64))
_case("attention_12x197x64", "attention", _attention(12, 197, 64))
_case("attention_12x512x64", "attention", _attention(12, 512, 64))
_case("matmul_integer_u8_1024", "int8", _integer_product(TensorProto.UINT8, 1024))
_case("matmul_integer_s8_1024", "int8", _integer_product(TensorProto.INT8, 1024))

_case("conv3x3_64_56", "conv", _conv((64, 64), 56, 3))
_case("conv3x3_128_28", "conv", _conv((128, 128), 28, 3))
_case("conv3x3_256_14", "conv", _conv((256, 256), 14, 3))
_case("conv3x3_512_7", "conv", _conv((512, 512), 7, 3))
_case("conv3x3_s2_128_256_28", "conv", _conv((128, 256), 28, 3, stride=2))
_case("conv7x7_s2_3_64_224", "conv", _conv((3, 64), 224, 7, stride=2))
_case("conv3x3_s2_3_32_224", "conv", _conv((3, 32), 224, 3, stride=2))
_case("conv1x1_256_64_56", "conv", _conv((256, 64), 56, 1))
_case("conv1x1_64_256_56", "conv", _conv((64, 256), 56, 1, relu=False))
_case("conv1x1_960_320_7", "conv", _conv((960, 320), 7, 1, relu=False))
_case("conv1x1_s2_256_512_56", "conv", _conv((256, 512), 56, 1, stride=2, relu=False))
_case("conv16x16_patch_3_768_224", "conv", _conv((3, 768), 224, 16, stride=16, relu=False, padding=0))
_case("conv3x3_ragged_17_23_37", "conv", _conv((17, 23), 37, 3))
_case("conv3x3_groups4_64_28", "conv", _conv((64, 64), 28, 3, groups=4))
_case("conv_transpose2x2_s2_24_24_80", "conv", _conv((24, 24), 80, 2, stride=2, relu=False, op="ConvTranspose", padding=0))
_case("conv_transpose4x4_s2_128_64_28", "conv", _conv((128, 64), 28, 4, stride=2, op="ConvTranspose", padding=1))
_case("conv3x3_groups32_128_56", "conv", _conv((128, 128), 56, 3, groups=32))
_case("conv3x3_dilated2_256_28", "conv", _conv((256, 256), 28, 3, dilation=2))
_case("conv1d_5_128_256_1000", "conv", _conv((128, 256), 1000, 5, rank=1))
_case("conv1x1_s2_64_128_56", "conv", _conv((64, 128), 56, 1, stride=2))
_case("depthwise3x3_96_112_s2", "depthwise", _conv((96, 96), 112, 3, stride=2, groups=96))
_case("depthwise3x3_144_56", "depthwise", _conv((144, 144), 56, 3, groups=144))
_case("depthwise5x5_144_56", "depthwise", _conv((144, 144), 56, 5, groups=144))
_case("depthwise5x5_256_14", "depthwise", _conv((256, 256), 14, 5, groups=256))
_case("depthwise3x3_960_7", "depthwise", _conv((960, 960), 7, 3, groups=960))

_case(
    "maxpool3x3_s2_64_112",
    "pooling",
    _unary("MaxPool", 1, 64, 112, 112, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4),
)
_case("avgpool2x2_s2_128_28", "pooling", _unary("AveragePool", 1, 128, 28, 28, kernel_shape=[2, 2], strides=[2, 2]))
_case("global_avgpool_2048_7", "pooling", _unary("GlobalAveragePool", 1, 2048, 7, 7))
_case("resize_nearest_x2_128_40", "pooling", _resize(1, 128, 40, 40, scale=2.0, mode="nearest"))
_case("resize_linear_x2_64_40", "pooling", _resize(1, 64, 40, 40, scale=2.0, mode="linear"))

_case("softmax_12x128x128", "normalise", _unary("Softmax", 1, 12, 128, 128, axis=-1))
_case("softmax_4096x1024", "normalise", _unary("Softmax", 4096, 1024, axis=-1))
_case("layernorm_4096x768", "normalise", _layer_norm(4096, 768))
_case("softmax_1x1000", "normalise", _unary("Softmax", 1, 1000, axis=-1))
_case("softmax_axis1_16x4x2100", "normalise", _unary("Softmax", 1, 16, 4, 2100, axis=1))
_case("layernorm_128x768", "normalise", _layer_norm(1, 128, 768))
_case("layernorm_197x768", "normalise", _layer_norm(1, 197, 768))
_case("layernorm_ragged_37x513", "normalise", _layer_norm(1, 37, 513))

_case("gelu_1m", "elementwise", _gelu(1024, 1024))
_case("gelu_16m", "elementwise", _gelu(4096, 4096))
_case("gelu_128x3072", "elementwise", _gelu(1, 128, 3072))
_case("silu_64x80x80", "elementwise", _silu(1, 64, 80, 80))
_case("hardswish_64x56x56", "elementwise", _unary("HardSwish", 1, 64, 56, 56))
_case("sigmoid_256x56x56", "elementwise", _unary("Sigmoid", 1, 256, 56, 56))
_case("tanh_128x3072", "elementwise", _unary("Tanh", 1, 128, 3072))
_case("exp_1m", "elementwise", _unary("Exp", 1024, 1024))
_case("add_256x56x56", "elementwise", _binary("Add", (1, 256, 56, 56), (1, 256, 56, 56)))
_case("add_channel_256x56x56", "elementwise", _binary("Add", (1, 256, 56, 56), (256, 1, 1)))
_case("add_small_1x64", "elementwise", _binary("Add", (1, 64), (1, 64)))

_case("reduce_sum_last_1024x1024", "reduction", _with_array("ReduceSum", np.array([1]), 1024, 1024, keepdims=0))
_case("reduce_sum_first_1024x1024", "reduction", _with_array("ReduceSum", np.array([0]), 1024, 1024, keepdims=0))
_case("reduce_sum_last_4096x4096", "reduction", _with_array("ReduceSum", np.array([1]), 4096, 4096, keepdims=0))
_case("reduce_sum_first_4096x4096", "reduction", _with_array("ReduceSum", np.array([0]), 4096, 4096, keepdims=0))
_case("reduce_mean_hw_256x56x56", "reduction", _unary("ReduceMean", 1, 256, 56, 56, axes=[2, 3], keepdims=1))
_case("reduce_max_all_1m", "reduction", _unary("ReduceMax", 1024, 1024, keepdims=0))
_case("argmax_40x6625", "reduction", _unary("ArgMax", 1, 40, 6625, axis=2, keepdims=0))

_case("cumsum_last_1024x1024", "reduction", _with_array("CumSum", np.array(1), 1024, 1024))
_case("cumsum_first_1024x1024", "reduction", _with_array("CumSum", np.array(0), 1024, 1024))
_case("topk_5_40x6625", "reduction", _topk(5, 40, 6625))
_case("topk_100_1x100000", "reduction", _topk(100, 1, 100_000))

_case("lstm_64x1x256", "recurrent", _recurrent("LSTM", 64, 1, 256))
_case("lstm_cell_16x512", "recurrent", _recurrent("LSTM", 1, 16, 512))
_case("gru_64x1x256", "recurrent", _recurrent("GRU", 64, 1, 256))
_case("gru_cell_16x512", "recurrent", _recurrent("GRU", 1, 16, 512))

_case("transpose_4096x4096", "movement", _unary("Transpose", 4096, 4096, perm=[1, 0]))
_case("transpose_1024x1024", "movement", _unary("Transpose", 1024, 1024, perm=[1, 0]))
_case("transpose_heads_128x12x64", "movement", _unary("Transpose", 1, 128, 12, 64, perm=[0, 2, 1, 3]))
_case("transpose_nchw_nhwc_64x56x56", "movement", _unary("Transpose", 1, 64, 56, 56, perm=[0, 2, 3, 1]))
_case(
    "concat_channels_2x64x80x80",
    "movement",
    lambda b: b.node("Concat", b.input("x", 1, 64, 80, 80), b.input("y", 1, 64, 80, 80), axis=1),
)
_case(
    "split_channels_2x64x80x80",
    "movement",
    lambda b: b.several(2, "Split", b.input("x", 1, 128, 80, 80), b.array(np.array([64, 64])), axis=1),
)
_case("gather_30522x768_128", "movement", _gather(30522, 768, 128))
_case("gather_30522x768_4096", "movement", _gather(30522, 768, 4096))
_case(
    "slice_stride2_64x80x80",
    "movement",
    _slice(1, 64, 80, 80, starts=[0, 0, 0, 0], ends=[1, 64, 80, 80], steps=[1, 1, 2, 2]),
)
_case("pad_64x56x56", "movement", _with_array("Pad", np.array([0, 0, 1, 1, 0, 0, 1, 1]), 1, 64, 56, 56))
_case("expand_1x64x1_64x64x512", "movement", _with_array("Expand", np.array([64, 64, 512]), 1, 64, 1))

CASES: dict[str, Case] = dict(_CASES)
NAMES: tuple[str, ...] = tuple(CASES)
FAMILIES: tuple[str, ...] = tuple(dict.fromkeys(case.family for case in CASES.values()))


def get(name: str) -> Case:
    if name not in CASES:
        raise cache.BenchError(f"no operator case {name!r}; `python -m bench list ops` shows all {len(CASES)}")
    return CASES[name]
