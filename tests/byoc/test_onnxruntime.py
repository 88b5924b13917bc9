"""onnxruntime as a code generator, and graphs written as ONNX."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

import tensorlang as tl
from tensorlang.errors import UnsupportedOpError
from tensorlang.graph import ops  # noqa: F401 - fills the registry
from tensorlang.graph.generator import find_generator
from tensorlang.graph.ir import Graph, TensorType
from tensorlang.graph.reference import evaluate
from tensorlang.graph.registry import GraphBuilder
from tensorlang.interop.to_onnx import to_onnx
from tensorlang.ir.expr import var

rng = np.random.default_rng(0)


def values(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def positive(*shape):
    return rng.uniform(0.2, 0.9, shape).astype(np.float32)


def graph_of(op, inputs, attrs=None, constants=()):
    b = GraphBuilder()
    given = [b.input(f"x{n}", TensorType.of(a.dtype, a.shape)) for n, a in enumerate(inputs)]
    out = b.add(op, [*given, *constants], attrs)
    return Graph(given, b.nodes, list(out) if isinstance(out, tuple) else [out], op)


WINDOW = {"strides": (2, 1), "pads": (1, 0, 0, 1), "dilations": (1, 1)}
CASES = {
    **{f"{op}": (op, [positive(2, 3)], {}) for op in (
        "abs neg exp log sqrt rsqrt reciprocal floor ceil round sign erf sin cos tan sinh cosh tanh sigmoid relu arcsin "
        "arccos arctan arcsinh arctanh softplus softsign mish hard_swish silu identity"
    ).split()},
    **{f"{op}": (op, [values(2, 3), positive(3)], {}) for op in (
        "add sub mul div pow minimum maximum less less_equal greater greater_equal equal not_equal"
    ).split()},
    "mod": ("mod", [np.array([7, -7], np.int32), np.array([3, 3], np.int32)], {}),
    "fmod": ("mod", [values(4), positive(4)], {"fmod": True}),
    "gelu": ("gelu", [values(5)], {"approximate": "tanh"}),
    "leaky_relu": ("leaky_relu", [values(5)], {"alpha": 0.2}),
    "elu": ("elu", [values(5)], {}),
    "hard_sigmoid": ("hard_sigmoid", [values(5)], {"alpha": 0.3, "beta": 0.4}),
    "selu": ("selu", [values(5)], {"alpha": 1.5, "gamma": 1.1}),
    "clip": ("clip", [values(9)], {"min": -0.5}),
    "cast": ("cast", [values(9) * 5], {"dtype": "i32"}),
    "where": ("where", [values(4) > 0, values(4), values(4)], {}),
    "matmul": ("matmul", [values(2, 3, 4), values(4, 5)], {}),
    "softmax": ("softmax", [values(2, 3, 4)], {"axis": 1}),
    "log_softmax": ("log_softmax", [values(2, 3)], {"axis": 1}),
    "concat": ("concat", [values(2, 3), values(2, 1)], {"axis": 1}),
    "gather": ("gather", [values(5, 2), np.array([3, 0], np.int64)], {"axis": 0}),
    "reshape": ("reshape", [values(2, 6)], {"shape": (3, 4)}),
    "expand": ("expand", [values(2, 1)], {"shape": (3, 2, 4)}),
    "tile": ("tile", [values(2, 1)], {"repeats": (1, 3)}),
    "transpose": ("transpose", [values(2, 3, 4)], {"perm": (2, 0, 1)}),
    "slice": ("slice", [values(5, 6)], {"starts": (4, 1), "shape": (3, 2), "steps": (-2, 2)}),
    "slice_to_the_first": ("slice", [values(5)], {"starts": (4,), "shape": (5,), "steps": (-1,)}),
    "pad": ("pad", [values(2, 3)], {"pads": (1, 0, 0, 2), "value": 0.5}),
    "pad_edge": ("pad", [values(2, 3)], {"pads": (1, 0, 0, 2), "mode": "edge"}),
    "trilu": ("trilu", [values(4, 4)], {"upper": False, "k": 1}),
    "cumsum": ("cumsum", [values(4, 3)], {"axis": 0, "reverse": True}),
    "argmax": ("argmax", [values(4, 3)], {"axis": 1, "keepdims": False}),
    **{f"{op}": (op, [positive(2, 3, 4)], {"axes": (0, 2), "keepdims": False}) for op in (
        "reduce_sum reduce_mean reduce_max reduce_min reduce_prod reduce_l1 reduce_l2 reduce_log_sum_exp reduce_sum_square"
    ).split()},
    "layer_norm": ("layer_norm", [values(2, 3, 4), values(4), values(4)], {"axis": 2, "epsilon": 1e-3}),
    "batch_norm": ("batch_norm", [values(2, 3, 4), values(3), values(3), values(3), positive(3)], {}),
    "instance_norm": ("instance_norm", [values(2, 3, 4), values(3), values(3)], {}),
    "conv": ("conv", [values(1, 4, 7, 6), values(6, 2, 3, 2), values(6)], {**WINDOW, "group": 2}),
    "conv_transpose": ("conv_transpose", [values(1, 4, 5, 4), values(4, 2, 3, 2)], {**WINDOW, "output_padding": (1, 0)}),
    "max_pool": ("max_pool", [values(1, 2, 7, 6)], {**WINDOW, "kernel": (3, 2)}),
    "avg_pool": ("avg_pool", [values(1, 2, 7, 6)], {**WINDOW, "kernel": (3, 2), "count_include_pad": True}),
    "quantize": ("quantize", [values(2, 3), np.array([0.1, 0.2, 0.3], np.float32), np.array([1, 2, 3], np.uint8)],
                 {"to": "u8", "axis": 1}),
    "dequantize": ("dequantize", [np.array([[1, -2, 3]], np.int8), np.float32(0.1).reshape(()), np.int8(4).reshape(())],
                   {"of": "i8", "dtype": "f32"}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_written_as_onnx_an_operator_means_the_same(name):
    op, inputs, attrs = CASES[name]
    inputs = [np.asarray(a) for a in inputs]
    graph = graph_of(op, inputs, attrs)
    assert find_generator("onnxruntime").supports(graph.nodes[0])
    session = onnxruntime.InferenceSession(to_onnx(graph).SerializeToString(), providers=["CPUExecutionProvider"])
    feeds = {f"x{n}": a for n, a in enumerate(inputs)}
    for got, want in zip(session.run(None, feeds), evaluate(graph, feeds).values(), strict=True):
        assert got.dtype == want.dtype and got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_what_onnx_has_no_word_for_is_listed():
    b = GraphBuilder()
    x = b.input("x", TensorType.of("f32", (2, 3)))
    graph = Graph([x], b.nodes, [b.add("relabel", [b.add("expm1", [x])], {"labels": (0, 1)})], "strange")
    with pytest.raises(UnsupportedOpError) as caught:
        to_onnx(graph)
    assert "expm1" in str(caught.value) and "relabel" in str(caught.value)
    assert not find_generator("onnxruntime").supports(graph.nodes[0])


def network(batch=2):
    b = GraphBuilder()
    x = b.input("x", TensorType.of("f32", (batch, 3, 8, 8)))
    y = b.add("conv", [x, values(4, 3, 3, 3), values(4)], {"strides": (1, 1), "pads": (1, 1, 1, 1), "dilations": (1, 1)})
    y = b.add("expm1", [b.add("clip", [y], {"min": -1.0, "max": 1.0})])  # onnxruntime has no expm1
    y = b.add("reduce_mean", [y], {"axes": (2, 3), "keepdims": False})
    return Graph([x], b.nodes, [b.add("softmax", [y], {"axis": 1})], "network")


def test_a_model_is_shared_between_onnxruntime_and_the_cpu(tmp_path):
    graph, x = network(), values(2, 3, 8, 8)
    exe = tl.compile(graph, codegens="onnxruntime")
    np.testing.assert_allclose(exe(x), evaluate(graph, {"x": x})["softmax"], rtol=1e-4, atol=1e-6)
    assert exe.placement["counts"]["regions for onnxruntime"] == 2
    assert exe.placement["counts"]["kernels on cpu"] == 1
    exe.save(tmp_path / "m.tl")
    np.testing.assert_array_equal(tl.load(tmp_path / "m.tl")(x), exe(x))
    assert {row["nodes"] for row in exe.profile({"x": x}, repeats=1).rows} == {"onnxruntime_0", "expm1", "onnxruntime_1"}


def test_open_dimensions_stay_open():
    graph = network(batch=var("batch"))
    exe = tl.compile(graph, codegens=["onnxruntime"])
    for batch in (1, 3):
        x = values(batch, 3, 8, 8)
        np.testing.assert_allclose(exe(x), evaluate(graph, {"x": x})["softmax"], rtol=1e-4, atol=1e-6)


def test_the_jit_may_be_off(monkeypatch):
    monkeypatch.setenv("TENSORLANG_JIT", "0")
    graph, x = network(), values(2, 3, 8, 8)
    exe = tl.compile(graph, codegens=["onnxruntime"])
    np.testing.assert_allclose(exe(x), evaluate(graph, {"x": x})["softmax"], rtol=1e-4, atol=1e-6)
