"""The default CPU schedules: right on every shape class, and with the structure that makes them fast."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from tensorlang import te
from tensorlang.build import build, lower_kernel
from tensorlang.build.cpu import machine_of
from tensorlang.codegen.native import CpuTarget
from tensorlang.graph import get
from tensorlang.schedules.cpu import recurrence
from tests import programs


def check(func, reference, tolerance=2e-5, **sizes):
    arrays = programs.arrays_of(func, **sizes)
    expected = reference(*arrays)
    result = build(func)(*arrays)
    assert result.shape == expected.shape and result.dtype == expected.dtype
    np.testing.assert_allclose(result, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize(
    ("m", "n", "k"), [(1, 10, 7), (8, 48, 16), (13, 49, 33), (128, 100, 64), (5, 3, 2), (70, 300, 90)]
)
def test_dense(m, n, k):
    check(programs.dense(m, n, k), programs.dense_reference)


@pytest.mark.parametrize(("m", "n", "k"), [(1, 10, 7), (16, 48, 16), (37, 49, 33)])
def test_dense_symbolic_rows(m, n, k):
    check(programs.dense(te.var("M"), n, k), programs.dense_reference, M=m)


@pytest.mark.parametrize(("m", "n", "k"), [(3, 10, 7), (37, 49, 33)])
def test_dense_all_symbolic(m, n, k):
    check(programs.dense(te.var("M"), te.var("N"), te.var("K")), programs.dense_reference, M=m, N=n, K=k)


@pytest.mark.parametrize(("rows", "columns"), [(1, 5), (7, 16), (33, 130), (12, 256), (3, 1000)])
def test_softmax(rows, columns):
    check(programs.softmax(rows, columns), programs.softmax_reference)


def test_softmax_symbolic():
    check(programs.softmax(te.var("R"), te.var("C")), programs.softmax_reference, R=9, C=77)


@pytest.mark.parametrize(("size", "times"), [(40, 2), (17, 3), (33, 2), (5, 8)])
def test_every_element_several_times(size, times):
    """Nearest-neighbour resizing: the repetitions are written out, and no index is divided."""
    x = te.placeholder((3, 5, size), "f32", name="x")
    y = te.compute((3, 5, size * times), lambda i, j, k: x[i, j, k // times], name="y")
    func = te.create_prim_func("repeat", [x], [y])
    check(func, lambda a: np.repeat(a, times, axis=2))
    assert f"in unrolled({times})" in lower_kernel(func).emitted.text


@pytest.mark.parametrize(("size", "parts"), [(40, 2), (37, 3), (16, 4)])
def test_lines_are_zipped(size, parts):
    """The last dimension, short, comes from lines far apart: each is run along (the phases of a transposed convolution)."""
    x = te.placeholder((parts, 6, size), "f32", name="x")
    y = te.compute((6, size, parts), lambda i, j, k: x[k, i, j], name="y")
    func = te.create_prim_func("zip", [x], [y])
    check(func, lambda a: a.transpose(1, 2, 0))
    assert f"in unrolled({parts})" in lower_kernel(func).emitted.text


def test_few_panels_are_shared_by_rows():
    """One panel of columns and a short reduction: threads take some tiles of rows each, and all rows are computed."""
    func = programs.dense(1000, 16, 8)
    machine = replace(machine_of(CpuTarget.host(), 2), threads=2)
    assert "parallel_for(dense_p0, ctx, 8," in lower_kernel(func, machine=machine).emitted.text
    for rows in (1000, 17, te.var("M")):
        check(programs.dense(rows, 16, 8), programs.dense_reference, **({} if isinstance(rows, int) else {"M": 333}))


def filters_by_planes(filters, channels, points):
    w, x = te.placeholder((filters, channels), "f32", name="w"), te.placeholder((channels, points), "f32", name="x")
    k = te.reduce_axis(channels, name="k")
    y = te.compute((filters, points), lambda i, j: te.sum(w[i, k] * x[k, j], axis=k), name="y")
    out = te.compute(y.shape, lambda i, j: te.maximum(y[i, j], 0), name="out")
    return te.create_prim_func("planes", [w, x], [out], constants=["w"])


@pytest.mark.parametrize(("filters", "channels", "points"), [(64, 40, 3136), (70, 33, 1000), (65, 20, 49), (64, 1, 300)])
def test_constant_rows_by_wide_planes(filters, channels, points):
    check(filters_by_planes(filters, channels, points), lambda w, x: np.maximum(w @ x, 0))


def test_wide_planes_are_packed_panel_by_panel():
    machine = replace(machine_of(CpuTarget.host(), 2), threads=2)
    text = lower_kernel(filters_by_planes(64, 40, 3136), machine=machine).emitted.text
    assert text.count("@chunk") == 1 and "x_packed = local_array" in text and "w_packed[" in text


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("size", "channels", "filters", "kernel"), [(9, 3, 5, 3), (23, 4, 33, 5), (40, 3, 16, 7)])
def test_conv_channels_second(size, channels, filters, kernel, stride):
    """The rows of a tile are filters: they share the vectors of the image."""
    attrs = {"strides": (stride, stride), "pads": (0, 0, 0, 0), "dilations": (1, 1)}
    x = te.placeholder((1, channels, size, size), "f32", name="x")
    w = te.placeholder((filters, channels, kernel, kernel), "f32", name="w")
    func = te.create_prim_func("conv", [x, w], [get("conv").te(x, w, **attrs)])
    check(func, lambda a, b: get("conv").numpy(a, b, **attrs), tolerance=2e-4)


@pytest.mark.parametrize(
    ("size", "channels", "filters", "kernel", "stride"),
    [(8, 3, 16, 3, 1), (9, 16, 24, 3, 2), (7, 32, 50, 1, 1), (14, 8, 70, 5, 1)],
)
def test_conv(size, channels, filters, kernel, stride):
    func = programs.conv_nhwc(size, channels, filters, kernel, stride)
    check(func, lambda x, w, b: programs.conv_reference(x, w, b, stride))


@pytest.mark.parametrize(("size", "channels", "stride"), [(8, 16, 1), (9, 24, 2), (7, 20, 1)])
def test_depthwise(size, channels, stride):
    func = programs.conv_nhwc(size, channels, channels, 3, stride, depthwise=True)
    check(func, lambda x, w, b: programs.conv_reference(x, w, b, stride, depthwise=True))


@pytest.mark.parametrize("n", [1, 15, 16, 1000])
def test_elementwise(n):
    check(programs.chain(n), lambda x: np.exp(x) * 2 + x)


def test_transpose():
    x = te.placeholder((37, 50), name="x")
    out = te.compute((50, 37), lambda i, j: x[j, i] * 2.0, name="out")
    check(te.create_prim_func("t", [x], [out]), lambda a: a.T * 2)


@pytest.mark.parametrize("kind", ["f32", "i32", "f64", "u8"])
@pytest.mark.parametrize("shape", [(16, 16), (37, 50), (16, 100), (48, 15), (8, 64), (64, 8), (3, 40, 33)])
def test_transpositions_go_tile_by_tile(shape, kind):
    x = te.placeholder(shape, kind, name="x")
    out = te.compute(shape[:-2] + (shape[-1], shape[-2]), lambda *i: x[(*i[:-2], i[-1], i[-2])], name="out")
    func = te.create_prim_func("t", [x], [out])
    array = np.random.default_rng(0).integers(0, 200, shape).astype(out.dtype.numpy)
    np.testing.assert_array_equal(build(func)(array), array.swapaxes(-1, -2))
    text = lower_kernel(func).emitted.text
    lanes = machine_of(CpuTarget.host(), 1).lanes(4)
    fills = min(shape[-2:]) >= lanes or min(shape[-2:]) >= lanes // 2 and shape[-2] % (lanes // 2) == 0
    assert ("transpose_tile" in text) == (kind in ("f32", "i32") and fills), text


def test_transposition_of_symbolic_sizes():
    m, n = te.var("M"), te.var("N")
    x = te.placeholder((m, n), name="x")
    out = te.compute((n, m), lambda i, j: x[j, i], name="out")
    check(te.create_prim_func("t", [x], [out]), lambda a: a.T.copy(), M=37, N=50)


def test_sum_over_leading_axis():
    x = te.placeholder((37, 50), name="x")
    r = te.reduce_axis(37, "r")
    out = te.compute((50,), lambda j: te.sum(x[r, j], axis=r), name="out")
    check(te.create_prim_func("t", [x], [out]), lambda a: a.sum(0))


def test_sum_of_everything():
    x = te.placeholder((37, 50), name="x")
    r, q = te.reduce_axis(37, "r"), te.reduce_axis(50, "q")
    out = te.compute((), lambda: te.sum(x[r, q], axis=[r, q]), name="out")
    check(te.create_prim_func("t", [x], [out]), lambda a: a.sum(dtype=np.float32), 1e-4)


def test_matmul_of_transposed_operand_is_packed():
    x, w = te.placeholder((64, 32), name="x"), te.placeholder((48, 32), name="w")
    r = te.reduce_axis(32, "k")
    out = te.compute((64, 48), lambda i, j: te.sum(x[i, r] * w[j, r], axis=r), name="out")
    func = te.create_prim_func("nt", [x, w], [out])
    check(func, lambda a, b: a @ b.T)
    assert "w_packed" in lower_kernel(func).emitted.text


def test_constant_operand_is_packed_at_build_time():
    lowered = lower_kernel(programs.conv_nhwc(14, 16, 32))
    assert [p.outputs[0].name for p in lowered.preparations] == ["w_packed"]
    assert "w" not in [name for _, name in lowered.emitted.params]


def test_register_tile_has_no_guard_inside():
    text = lower_kernel(programs.dense(128, 768, 64)).emitted.text
    assert "vstore(y" in text and "if " not in text and "masked" not in text


def test_products_of_a_batch_pack_their_constant_operand():
    a, b = te.placeholder((3, 20, 40), name="a"), te.placeholder((3, 40, 70), name="b")
    k = te.reduce_axis(40, "k")
    out = te.compute((3, 20, 70), lambda n, i, j: te.sum(a[n, i, k] * b[n, k, j], axis=k), name="out")
    func = te.create_prim_func("bmm", [a, b], [out])
    check(func, np.matmul)
    constant = replace(func, attrs={**func.attrs, "constants": ("b",)})
    kernel = lower_kernel(constant)
    assert "b_packed" in kernel.emitted.text and kernel.preparations  # once, when the program is built


def test_rows_that_collide_in_the_cache_are_packed():
    """Rows 4096 bytes apart fall into one set of the first-level cache; 4160 bytes apart they do not."""
    machine = replace(AVX512, l1_bytes=32 * 1024, l1_ways=8)
    kernels = {k: lower_kernel(programs.dense(64, 512, k), machine=machine).emitted.text for k in (1024, 1040)}
    assert "x_packed" in kernels[1024] and "x_packed" not in kernels[1040]
    check(programs.dense(37, 512, 1024), programs.dense_reference, 1e-4)


def prepared(func):
    """With constant weights, as a model has them."""
    return replace(func, attrs={**func.attrs, "constants": ("w",)})


AVX512 = replace(machine_of(CpuTarget.host(), 2), threads=2, vector_bytes=64, vector_registers=32)


@pytest.mark.parametrize("rows", [49, 128, 197])
def test_long_reductions_go_through_the_cache_block_by_block(rows):
    """The panel of columns is cut, the sums of all rows wait on the stack, and the next block is asked for meanwhile."""
    func = programs.dense(rows, 192, 3072)
    text = lower_kernel(prepared(func), machine=AVX512).emitted.text
    assert re.search(r"for k_o in range\(\d+\):\n +for \w+ in range\(\d+\):\n +for k_i_o", text), text
    assert "prefetch(w_packed" in text
    kernel = build(programs.dense(rows, 192, 3072))
    arrays = programs.arrays_of(func)
    np.testing.assert_allclose(kernel(*arrays), programs.dense_reference(*arrays), rtol=1e-4, atol=1e-3)


def test_the_next_panel_is_asked_for_while_few_rows_pass_by():
    texts = [lower_kernel(prepared(programs.dense(rows, 768, 512)), machine=AVX512).emitted.text for rows in (64, 2000)]
    assert "prefetch(w_packed" in texts[0] and "prefetch" not in texts[1]
    check(programs.dense(64, 768, 512), programs.dense_reference, 1e-4)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("lines", [1, 5, 37])
def test_recurrences_run_their_lines_side_by_side(axis, lines):
    shape = (30, lines) if axis == 0 else (lines, 30)
    x = te.placeholder(shape, name="x")
    func = te.create_prim_func("c", [x], [get("cumsum").te(x, axis=axis)])
    check(func, lambda a: a.cumsum(axis))
    if lines == 37:
        loops = re.findall(r"for (\w+) in", str(build(func).stages["scheduled"]))
        step = next(n for n, name in enumerate(loops) if name.endswith("_t"))
        assert loops[step - 1].startswith("r0_o")  # vectors of lines around the steps


@pytest.mark.parametrize("lines, threads, panel", [(1024, 2, 32), (1024, 1, 64), (96, 2, 3), (48, 2, 1)])
def test_a_step_of_a_recurrence_goes_along_memory(lines, threads, panel):
    """Cumulative sums down columns: each thread's share of a row in one piece, and none has more panels than another."""
    x = te.placeholder((40, lines), name="x")
    func = te.create_prim_func("c", [x], [get("cumsum").te(x, axis=0)])
    assert recurrence._panel(lines // 16, threads, recurrence.PANEL) == panel
    check(func, lambda a: a.cumsum(0))


@pytest.mark.parametrize("options", [{}, {"exclusive": True}, {"reverse": True}, {"exclusive": True, "reverse": True}])
@pytest.mark.parametrize("shape", [(32, 48), (2, 3, 64, 32), (3, 128, 80), (17, 32), (48, 33), (20, 1)])
def test_cumulative_sums_along_memory_are_of_any_shape(shape, options):
    x = te.placeholder(shape, name="x")
    op, last = get("cumsum"), len(shape) - 1
    func = te.create_prim_func("c", [x], [op.te(x, axis=last, **options)])
    check(func, lambda a: op.numpy(a, axis=last, **options))


@pytest.mark.parametrize("kind", ["i32", "f64", "i64"])
def test_lines_along_memory_are_turned_a_tile_at_a_time_before_steps_go_over_them(kind):
    """No copy of the whole input: the steps of sixteen lines read a tile in the first cache, also in other types."""
    x = te.placeholder((64, 96), kind, name="x")
    func = te.create_prim_func("c", [x], [get("cumsum").te(x, axis=1)])
    text = lower_kernel(func, machine=AVX512).emitted.text
    steps = text[text.index("rows_t_o in") :]
    assert re.search(r"turned = local_array.*for rows_t_i", steps, re.S), text
    assert ("transposed_16" in steps[: steps.index("rows_t_i")]) == (kind == "i32")
    a = np.arange(64 * 96).reshape(64, 96).astype({"i": "int", "f": "float"}[kind[0]] + kind[1:])
    np.testing.assert_array_equal(build(func)(a), a.cumsum(1, dtype=a.dtype))


@pytest.mark.parametrize("size", [16, 19, 33, 40])
def test_pooling_at_stride_two_is_vectors_also_where_columns_are_no_multiple(size):
    x = te.placeholder((3, size, size), name="x")
    out = (size - 3) // 2 + 1
    a, b = te.reduce_axis(3, name="a"), te.reduce_axis(3, name="b")
    y = te.compute((3, out, out), lambda c, i, j: te.max(x[c, i * 2 + a, j * 2 + b], axis=[a, b]), name="y")
    func = te.create_prim_func("pool", [x], [y])

    def reference(x):
        return np.max([x[:, a : a + 2 * out - 1 : 2, b : b + 2 * out - 1 : 2] for a in range(3) for b in range(3)], axis=0)

    check(func, reference)
    text = lower_kernel(func).emitted.text
    assert out < machine_of(CpuTarget.host(), 1).lanes(4) or ("vload_strided" in text and "lane_mask" not in text), text


@pytest.mark.parametrize("shape", [(9, 4, 6), (64, 5, 7), (3, 2, 40, 8)])
def test_neighbouring_axes_are_one_line_under_a_scale_of_channels(shape):
    x, scale = te.placeholder(shape, name="x"), te.placeholder(shape[: len(shape) - 2], name="scale")
    y = te.compute(shape, lambda *i: x[i] * scale[i[:-2]] + 1.0, name="y")
    func = te.create_prim_func("scaled", [x, scale], [y])
    check(func, lambda a, b: a * b[..., None, None] + 1)


def test_softmax_computes_its_powers_once():
    x = te.placeholder((33, 130), name="x")
    k, n = te.reduce_axis(130, name="k"), te.reduce_axis(130, name="n")
    largest = te.compute((33,), lambda i: te.max(x[i, k], axis=k), name="largest")
    powers = te.compute((33, 130), lambda i, j: te.exp(x[i, j] - largest[i]), name="powers")
    total = te.compute((33,), lambda i: te.sum(powers[i, n], axis=n), name="total")
    func = te.create_prim_func("s", [x], [te.compute((33, 130), lambda i, j: powers[i, j] / total[i], name="y")])
    check(func, programs.softmax_reference)
    assert lower_kernel(func).emitted.text.count("exp(") == 1


@pytest.mark.parametrize("size", [9, 30, 61, 100])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_windows_ask_for_the_edge_and_copy_no_padding(size, kernel, stride):
    """Padded images of known size are read where they lie; the tiles at both ends of a line are by themselves."""
    func = programs.conv_nhwc(size, 24, 24, kernel, stride, depthwise=True)
    check(func, lambda x, w, b: programs.conv_reference(x, w, b, stride, depthwise=True))
    text = lower_kernel(func, machine=AVX512).emitted.text
    assert "stage pad" not in text and "stage x_pad" not in text and "parallel_for" in text
    assert ("_part1" in text) == (size // stride > 28)


@pytest.mark.parametrize("op", ["softmax", "layer_norm"])
def test_rows_from_memory_are_asked_for_one_ahead_in_one_pass(op):
    x = te.placeholder((2048, 1024), name="x")
    more = [te.placeholder((1024,), name=n) for n in "wb"] if op == "layer_norm" else []
    made = get("softmax").te(x, axis=1) if op == "softmax" else get("layer_norm").te(x, *more, axis=1, epsilon=1e-5)
    text = lower_kernel(te.create_prim_func(op, [x, *more], [made])).emitted.text
    asked = [line for line in text.splitlines() if line.strip().startswith("prefetch(")]
    assert len(asked) == 1 and "minimum(" in asked[0] and "2047" in asked[0]
    small = te.placeholder((128, 1024), name="x")
    made = get("softmax").te(small, axis=1)
    assert "prefetch(" not in lower_kernel(te.create_prim_func("small", [small], [made])).emitted.text


def test_a_transposition_too_large_for_the_caches_goes_past_them():
    x = te.placeholder((2912, 2900), name="x")
    func = te.create_prim_func("turn", [x], [te.compute((2900, 2912), lambda i, j: x[j, i], name="y")])
    assert "transpose_tile_past" in lower_kernel(func).emitted.text
    value = np.arange(2900 * 2912, dtype=np.float32).reshape(2912, 2900)
    kernel = build(func)
    np.testing.assert_array_equal(kernel(value), value.T)
    memory = np.zeros(value.size + 16, np.float32)
    for first in (0, 1):  # at one of the two, no line begins where a vector does
        out = memory[first : first + value.size].reshape(2900, 2912)
        kernel(value, out=out)
        np.testing.assert_array_equal(out, value.T)
