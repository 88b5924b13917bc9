"""Small models that hold what kernels are made of, for runs on other machines."""

from __future__ import annotations

import numpy as np

from tensorlang.graph import Graph, GraphBuilder, TensorType, constant, dim

RANDOM = np.random.default_rng(3)


def _graph(name, builder, inputs, outputs, dims=None):
    return Graph(inputs, builder.nodes, list(outputs.values()), name, dims or {}, list(outputs))


def contractions():
    """x: f32[33, 70], image: f32[1, 5, 15, 17], bytes: u8[9, 32] -> products, convolutions, sums of bytes."""
    b = GraphBuilder()
    x = b.input("x", TensorType.of("f32", (33, 70)))
    image = b.input("image", TensorType.of("f32", (1, 5, 15, 17)))
    small = b.input("bytes", TensorType.of("u8", (9, 32)))
    w = constant(RANDOM.standard_normal((70, 47), dtype=np.float32), "w")
    taps = constant(RANDOM.standard_normal((12, 5, 3, 3), dtype=np.float32), "taps")
    depth = constant(RANDOM.standard_normal((12, 1, 3, 3), dtype=np.float32), "depth")
    q = constant(RANDOM.integers(-128, 128, (32, 20)).astype(np.int8), "q")
    window = {"strides": (1, 1), "pads": (1, 1, 1, 1), "dilations": (1, 1)}
    conv = b.add("conv", [image, taps], {**window, "group": 1}, name="conv")
    rectified = b.add("relu", [conv], name="relu")
    outputs = {
        "product": b.add("matmul", [x, w], name="matmul"),
        "conv": rectified,
        "depthwise": b.add("conv", [rectified, depth], {**window, "strides": (2, 2), "group": 12}, name="depthwise"),
        "bytes_product": b.add("matmul", [small, q], name="bytes"),
    }
    feeds = {
        "x": RANDOM.standard_normal((33, 70), dtype=np.float32),
        "image": RANDOM.standard_normal((1, 5, 15, 17), dtype=np.float32),
        "bytes": RANDOM.integers(0, 256, (9, 32)).astype(np.uint8),
    }
    return _graph("contractions", b, [x, image, small], outputs), feeds


def functions():
    """x: f32[rows, 37] -> elementary functions, softmax, reductions, sums of 64-bit integers, 16-bit floats, f64."""
    b = GraphBuilder()
    rows = dim("rows")
    x = b.input("x", TensorType.of("f32", (rows, 37)))
    n = b.input("n", TensorType.of("i64", (rows, 6)))
    half = b.input("half", TensorType.of("f16", (rows, 21)))
    seven = constant(np.array(7, np.int64), "seven")
    outputs = {name: b.add(name, [x], name=name) for name in ("exp", "tanh", "erf", "sigmoid", "sin", "gelu", "log1p", "round")}
    wide = b.add("cast", [x], {"dtype": "f64"}, name="wide")
    single = b.add("cast", [half], {"dtype": "f32"}, name="single")
    outputs |= {
        "softmax": b.add("softmax", [x], {"axis": 1}, name="softmax"),
        "mean": b.add("reduce_mean", [x], {"axes": (1,), "keepdims": False}, name="mean"),
        "largest": b.add("reduce_max", [x], {"axes": (0,), "keepdims": True}, name="largest"),
        "mod": b.add("mod", [n, seven], name="mod"),
        "quotient": b.add("div", [n, seven], name="quotient"),
        "f64": b.add("exp", [wide], name="exp64"),
        "single": single,
        "halved": b.add("cast", [b.add("mul", [single, single], name="square")], {"dtype": "f16"}, name="halved"),
    }
    feeds = {
        "x": 3 * RANDOM.standard_normal((11, 37), dtype=np.float32),
        "n": RANDOM.integers(-(2**40), 2**40, (11, 6)),
        "half": (RANDOM.standard_normal((11, 21)) * 10.0 ** RANDOM.integers(-7, 3, (11, 21))).astype(np.float16),
    }
    feeds["half"][0, :4] = [0.0, np.inf, -np.inf, 6e-8]
    return _graph("functions", b, [x, n, half], outputs, {"rows": rows}), feeds


def truncation():
    """x: f32[5, 23] -> its whole part: i32[5, 23]."""
    b = GraphBuilder()
    x = b.input("x", TensorType.of("f32", (5, 23)))
    outputs = {"whole": b.add("cast", [x], {"dtype": "i32"}, name="whole")}
    return _graph("truncation", b, [x], outputs), {"x": 9 * RANDOM.standard_normal((5, 23), dtype=np.float32)}
