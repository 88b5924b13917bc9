"""MLP, MobileNetV2, ResNet-18 and ResNet-50: torchvision's architectures, batch normalisation folded."""

from __future__ import annotations

import numpy as np
import onnx

from bench.models.writer import GraphWriter

IMAGE = (1, 3, 224, 224)
CLASSES = 1000


def mlp() -> onnx.ModelProto:
    """784-1024-1024-512-256-10 with Relu between."""
    w = GraphWriter("mlp", seed=1)
    widths = (784, 1024, 1024, 512, 256, 10)
    x = w.input("input", np.float32, (1, widths[0]))
    for index, (n_in, n_out) in enumerate(zip(widths, widths[1:], strict=False)):
        with w.enter(f"layers.{2 * index}"):
            x = w.gemm(x, n_in, n_out, gain=1.4142)
        if n_out != widths[-1]:
            with w.enter(f"layers.{2 * index + 1}"):
                x = w.node("Relu", x)
    w.output(x, "output", (1, widths[-1]))
    return w.finish()


def _head(w: GraphWriter, x: str, channels: int, classifier: str) -> str:
    with w.enter("avgpool"):
        x = w.node("GlobalAveragePool", x)
    x = w.node("Flatten", x, axis=1)
    with w.enter(classifier):
        # Averages over the image are small beside the activations: the gain brings logits to order one.
        return w.gemm(x, channels, CLASSES, gain=4.0)


def _relu6(w: GraphWriter, x: str) -> str:
    return w.node("Clip", x, w.constant(0.0, np.float32), w.constant(6.0, np.float32))


def mobilenet_v2() -> onnx.ModelProto:
    """MobileNetV2 at width 1.0 (Sandler et al. 2018, table 2)."""
    w = GraphWriter("mobilenet_v2", seed=2)
    x = w.input("input", np.float32, IMAGE)
    with w.enter("features.0"):
        x = _relu6(w, w.conv(x, 3, 32, 3, stride=2))
    channels, index = 32, 1
    for expansion, c_out, repeats, first_stride in (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ):
        for repeat in range(repeats):
            stride = first_stride if repeat == 0 else 1
            with w.enter(f"features.{index}"):
                x = _inverted_residual(w, x, channels, c_out, expansion, stride)
            channels, index = c_out, index + 1
    with w.enter(f"features.{index}"):
        x = _relu6(w, w.conv(x, channels, 1280, 1))
    x = _head(w, x, 1280, "classifier.1")
    w.output(x, "output", (1, CLASSES))
    return w.finish()


def _inverted_residual(w: GraphWriter, x: str, c_in: int, c_out: int, expansion: int, stride: int) -> str:
    shortcut, hidden = x, c_in * expansion
    if expansion != 1:
        with w.enter("conv.0"):
            x = _relu6(w, w.conv(x, c_in, hidden, 1))
    with w.enter("conv.1" if expansion != 1 else "conv.0"):
        x = _relu6(w, w.conv(x, hidden, hidden, 3, stride=stride, groups=hidden))
    residual = stride == 1 and c_in == c_out
    with w.enter("conv.2" if expansion != 1 else "conv.1"):
        x = w.conv(x, hidden, c_out, 1, gain=0.7 if residual else 1.4142)
    return w.node("Add", shortcut, x) if residual else x


def resnet18() -> onnx.ModelProto:
    return _resnet("resnet18", seed=3, depths=(2, 2, 2, 2), bottleneck=False)


def resnet50() -> onnx.ModelProto:
    return _resnet("resnet50", seed=4, depths=(3, 4, 6, 3), bottleneck=True)


def _resnet(name: str, seed: int, depths: tuple[int, ...], bottleneck: bool) -> onnx.ModelProto:
    """He et al. 2015; in the bottleneck the stride sits on the 3x3 convolution, as in torchvision (v1.5)."""
    w = GraphWriter(name, seed)
    x = w.input("input", np.float32, IMAGE)
    with w.enter("conv1"):
        x = w.conv(x, 3, 64, 7, stride=2)
    with w.enter("relu"):
        x = w.node("Relu", x)
    with w.enter("maxpool"):
        x = w.node("MaxPool", x, ceil_mode=0, dilations=[1, 1], kernel_shape=[3, 3], pads=[1] * 4, strides=[2, 2])
    channels, block = 64, _bottleneck if bottleneck else _basic_block
    for stage, depth in enumerate(depths):
        for position in range(depth):
            stride = 2 if stage and position == 0 else 1
            with w.enter(f"layer{stage + 1}"), w.enter(f"{position}"):
                x, channels = block(w, x, channels, 64 << stage, stride)
    x = _head(w, x, channels, "fc")
    w.output(x, "output", (1, CLASSES))
    return w.finish()


def _module_conv(
    w: GraphWriter, module: str, x: str, c_in: int, c_out: int, kernel: int, stride: int = 1, gain: float = 1.4142
) -> str:
    with w.enter(module):
        return w.conv(x, c_in, c_out, kernel, stride=stride, gain=gain)


def _shortcut(w: GraphWriter, x: str, c_in: int, c_out: int, stride: int) -> str:
    if stride == 1 and c_in == c_out:
        return x
    with w.enter("downsample"):
        return _module_conv(w, "0", x, c_in, c_out, 1, stride=stride, gain=1.0)


def _basic_block(w: GraphWriter, x: str, c_in: int, planes: int, stride: int) -> tuple[str, int]:
    y = w.node("Relu", _module_conv(w, "conv1", x, c_in, planes, 3, stride=stride))
    y = _module_conv(w, "conv2", y, planes, planes, 3, gain=0.7)
    return w.node("Relu", w.node("Add", y, _shortcut(w, x, c_in, planes, stride))), planes


def _bottleneck(w: GraphWriter, x: str, c_in: int, planes: int, stride: int) -> tuple[str, int]:
    c_out = 4 * planes
    y = w.node("Relu", _module_conv(w, "conv1", x, c_in, planes, 1))
    y = w.node("Relu", _module_conv(w, "conv2", y, planes, planes, 3, stride=stride))
    y = _module_conv(w, "conv3", y, planes, c_out, 1, gain=0.7)
    return w.node("Relu", w.node("Add", y, _shortcut(w, x, c_in, c_out, stride))), c_out
