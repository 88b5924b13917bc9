"""The simulated matrix accelerator: kernels driven by tensorize and scopes, and quantised convolutions of a model on it."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import tensorlang as tl
from examples.accelerator import generator, measure, target
from examples.accelerator.machine import CAPACITY, Simulator
from tensorlang import te
from tensorlang.errors import BuildError
from tensorlang.ir.interp import run as interpret

rng = np.random.default_rng(0)


@te.compute
def mm(x: te.u8["M", "K"], w: te.i8["K", "N"]):
    (M, K), N = x.shape, w.shape[1]
    k = te.reduce_axis(K, name="k")
    return te.compute((M, N), lambda i, j: te.sum(te.cast("i32", x[i, k]) * te.cast("i32", w[k, j]), axis=k), name="y")


def operands(m, k, n):
    return rng.integers(0, 256, (m, k), dtype=np.uint8), rng.integers(-128, 128, (k, n), dtype=np.int8)


@pytest.mark.parametrize("sizes", [(16, 16, 16), (64, 48, 32), (80, 16, 96)])
def test_a_product_on_the_array_is_exact(sizes):
    m, k, n = sizes
    kernel = tl.build(mm, target=target, shapes={"M": m, "K": k, "N": n})
    x, w = operands(m, k, n)
    with measure() as run:
        y = kernel(x, w)
    assert (y == x.astype(np.int32) @ w.astype(np.int32)).all()
    assert run.tiles == m * k * n // 16**3 and run.kernels == 1
    assert 0 < run.utilisation <= 1
    assert kernel.time(x, w) == pytest.approx(run.cycles / 1e9)


def test_the_scheduled_program_means_the_same_before_it_is_lowered():
    kernel = tl.build(mm, target=target, shapes={"M": 32, "K": 32, "N": 16})
    x, w = operands(32, 32, 16)
    out = np.empty((32, 16), np.int32)
    interpret(kernel.lowered.scheduled, [x, w, out])
    assert (out == x.astype(np.int32) @ w.astype(np.int32)).all()
    assert "accel.acc" in kernel.stages["scheduled"] and 'tensor_intrin="accel.mac"' in kernel.stages["scheduled"]
    assert '["mac"' in kernel.source and '["load", "b"' in kernel.source


def test_engines_run_side_by_side_and_wait_for_what_they_read():
    tile = [["load", "a", [0], "x", [0], 16, 16], ["load", "b", [0], "w", [0], 16, 16], ["zero", [0], 16]]
    mac = ["mac", [0], [0], [0], 16, 16, 16]
    x, w = operands(16, 16, 16)
    y = np.zeros((16, 16), np.int32)

    def cycles(stream):
        return Simulator(stream, ["x", "w", "y"])(x, w, y).cycles

    load = cycles(tile[:1])
    assert cycles(tile) == 2 * load  # one DMA engine; zeroing goes on beside it
    assert cycles([*tile, mac]) == 2 * load + 32  # it waits for both, and weights have to enter the array
    assert cycles([*tile, mac, mac]) == 2 * load + 32 + 16  # which they do once


def test_programs_that_are_no_products_of_tiles_are_refused():
    with pytest.raises(BuildError, match="in multiples of 16|all multiples of 16"):
        tl.build(mm, target=target, shapes={"M": 17, "K": 16, "N": 16})

    @te.compute
    def plus(x: te.u8[16, 16], w: te.i8[16, 16]):
        return te.compute((16, 16), lambda i, j: te.cast("i32", x[i, j]) + te.cast("i32", w[i, j]), name="y")

    with pytest.raises(BuildError, match="this is no product"):
        tl.build(plus, target=target)
    with pytest.raises(BuildError, match="no word for store statements"):
        tl.build(plus, target=target, schedule=lambda s: None)

    @te.compute
    def twice(x: te.u8[16, 16], w: te.i8[16, 16]):
        k = te.reduce_axis(16, name="k")
        wide = lambda e: te.cast("i32", e)  # noqa: E731
        return te.compute((16, 16), lambda i, j: te.sum(wide(x[i, k]) * wide(w[k, j]) * 2, axis=k), name="y")

    with pytest.raises(BuildError, match="twice does not fit the accelerator"):
        tl.build(twice, target=target)


def test_what_does_not_fit_a_scratchpad_is_refused():
    k = CAPACITY["accel.a"] // 16 + 16
    with pytest.raises(BuildError, match="do not fit the accelerator's scratchpad"):
        tl.build(mm, target=target, shapes={"M": 16, "K": k, "N": 16})


def test_a_schedule_that_leaves_operands_in_memory_is_refused():
    from examples.accelerator.tiles import MAC

    def rule(s):
        y = s["y"]
        (k,) = y.reduce_axis
        i, j = y.axis
        ko, ki = y.split(k, 16)
        y.reorder(ko, i, j, ki)
        y.tensorize(i, MAC)

    with pytest.raises(BuildError, match="lies in accel.acc; use cache_read or cache_write"):
        tl.build(mm, target=target, schedule=rule, shapes={"M": 16, "K": 32, "N": 16})


# -- a quantised network ----------------------------------------------------------------------------------------------


def network():
    """x -> conv 3x3 / 2 -> conv 1x1 -> conv 1x1, in bytes, of sizes that are no multiples of 16."""
    nodes, constants = [], []

    def const(name, array):
        constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    nodes.append(helper.make_node("QuantizeLinear", ["x", const("sx", np.float32(0.02)), const("zx", np.uint8(120))], ["q0"]))
    scale, zero = "sx", "zx"
    for n, (channels, filters, size) in enumerate(((3, 20, 3), (20, 40, 1), (40, 24, 1)), 1):
        w = const(f"w{n}", rng.integers(-127, 128, (filters, channels, size, size), dtype=np.int8))
        ws = const(f"ws{n}", rng.uniform(0.001, 0.01, filters).astype(np.float32))
        wz = const(f"wz{n}", np.zeros(filters, np.int8))
        bias = const(f"b{n}", rng.integers(-500, 500, filters, dtype=np.int32))
        ys, yz = const(f"ys{n}", np.float32(0.05)), const(f"yz{n}", np.uint8(100 + n))
        attrs = {"strides": [2, 2], "pads": [1, 1, 1, 1]} if size == 3 else {}
        inputs = [f"q{n - 1}", scale, zero, w, ws, wz, ys, yz, bias]
        nodes.append(helper.make_node("QLinearConv", inputs, [f"q{n}"], name=f"conv{n}", **attrs))
        scale, zero = ys, yz
    nodes.append(helper.make_node("DequantizeLinear", ["q3", scale, zero], ["y"]))
    graph = helper.make_graph(
        nodes,
        "quantised",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 13, 13])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 24, 7, 7])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_quantised_convolutions_are_bit_exact_on_it_and_survive_a_file(tmp_path):
    onnx.save(network(), tmp_path / "net.onnx")
    x = {"x": rng.standard_normal((1, 3, 13, 13)).astype(np.float32)}
    expected = tl.compile(str(tmp_path / "net.onnx")).run(x)["y"]
    exe = tl.compile(str(tmp_path / "net.onnx"), codegens=[generator])
    with measure() as run:
        got = exe.run(x)["y"]
    assert (got == expected).all()
    assert len(np.unique(got)) > 10
    counts = exe.placement["counts"]
    assert counts["regions for accelerator"] == run.kernels == 3
    assert counts["copies between memories"] == 6
    assert run.utilisation > 0.05 and "array used to" in str(run)
    exe.save(tmp_path / "net.tl")
    assert (tl.load(tmp_path / "net.tl").run(x)["y"] == expected).all()
