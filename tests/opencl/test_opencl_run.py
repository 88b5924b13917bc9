"""Emitted OpenCL C on a device: every operator, schedules with shared memory, models; equal to NumPy or onnxruntime."""

from __future__ import annotations

import threading

import numpy as np
import onnxruntime
import pytest

import tensorlang as tl
from bench import models, zoo
from bench.agreement import check as check_agreement
from tensorlang import te
from tensorlang.build import evaluate, lower_kernel
from tensorlang.codegen.opencl.emit import opencl_module
from tensorlang.codegen.target import find_target
from tensorlang.config import Settings
from tensorlang.errors import BuildError, ModelError
from tensorlang.graph import get
from tensorlang.graph.ops.serial import SerialOp
from tensorlang.ir.expr import var
from tests import programs
from tests.codegen.c.test_c_helpers import NAMES
from tests.graph.ops.test_te import CASES, Case, check
from tests.models import save_classifier
from tests.opencl.test_opencl_emit import two_stages

pytestmark = pytest.mark.usefixtures("device")
RNG = np.random.default_rng(5)


def lowered(case: Case, number: int):
    inputs = [te.placeholder(a.shape, a.dtype, name=f"x{k}") for k, a in enumerate(case.inputs)]
    outputs = get(case.op).te(*inputs, **case.attrs)
    func = te.create_prim_func("case", inputs, list(outputs) if isinstance(outputs, tuple) else [outputs])
    arrays = dict(zip([b.name for b in func.inputs], case.inputs, strict=True))
    arrays |= {b.name: np.empty(tuple(d.value for d in b.shape), b.dtype.numpy) for b in func.outputs}
    return lower_kernel(func, target="opencl", name=f"op{number}_{case.op}"), arrays


SAMPLE = (
    "add exp gelu where cast concat slice transpose pad gather reduce_sum softmax layer_norm argmax matmul conv max_pool "
    "cumsum resize dequantize_linear"
).split()


@pytest.mark.parametrize("names", [SAMPLE, pytest.param(None, marks=pytest.mark.deploy)], ids=["sample", "all"])
def test_operators(names):
    """One case of each, all in one program."""
    seen: dict[str, Case] = {}
    for case in CASES:
        if not isinstance(get(case.op), SerialOp) and (names is None or case.op in names):
            seen.setdefault(case.op, case)
    kernels = [lowered(case, n) for n, case in enumerate(seen.values())]
    target, settings = find_target("opencl"), Settings.from_env()
    emitted = [k.emitted for k, _ in kernels]
    functions = target.load(target.build(target.assemble(emitted), settings), emitted, settings)
    assert len(seen) > (100 if names is None else 12)
    for case, (kernel, arrays) in zip(seen.values(), kernels, strict=True):
        space = [np.zeros(evaluate(n, {}), np.uint8) for _, n in kernel.emitted.workspace]
        functions[kernel.emitted.name](*(np.ascontiguousarray(arrays[b.name]) if b in kernel.func.inputs else arrays[b.name]
                                         for b in kernel.func.buffers), *space)  # fmt: skip
        check(case, [arrays[b.name] for b in kernel.func.outputs])


@pytest.mark.parametrize(("m", "n", "k"), [(32, 48, 64), (16, 16, 16), (33, 20, 7)], ids=str)
def test_products(m, n, k):
    """Whole tiles go through shared memory, others do not."""
    kernel = tl.build(programs.dense(m, n, k), target="opencl")
    assert ("__local" in kernel.source) == (m % 16 == n % 16 == k % 16 == 0)
    x, w, b = programs.arrays_of(programs.dense(m, n, k))
    np.testing.assert_allclose(kernel(x, w, b), programs.dense_reference(x, w, b), rtol=1e-5, atol=1e-5)


def test_batched_products_share_tiles_too():
    a, b = te.placeholder((3, 32, 16), name="a"), te.placeholder((3, 16, 48), name="b")
    k = te.reduce_axis(16, name="k")
    y = te.compute((3, 32, 48), lambda n, i, j: te.sum(a[n, i, k] * b[n, k, j], axis=k), name="y")
    kernel = tl.build(te.create_prim_func("batched", [a, b], [y]), target="opencl")
    assert "get_group_id(2)" in kernel.source and "__local" in kernel.source
    x, w = (RNG.standard_normal(s).astype(np.float32) for s in ((3, 32, 16), (3, 16, 48)))
    np.testing.assert_allclose(kernel(x, w), x @ w, rtol=1e-5, atol=1e-5)


def test_symbolic_sizes():
    kernel = tl.build(programs.dense(var("m"), var("n"), var("k")), target="opencl")
    for sizes in ({"m": 5, "n": 70, "k": 3}, {"m": 64, "n": 64, "k": 64}, {"m": 1, "n": 1, "k": 1}):
        x, w, b = programs.arrays_of(programs.dense(*map(var, "mnk")), **sizes)
        np.testing.assert_allclose(kernel(x, w, b), programs.dense_reference(x, w, b), rtol=1e-5, atol=1e-5)


def test_items_read_what_their_neighbours_wrote():
    kernel = tl.build(two_stages(shared=True), target="opencl")
    x = RNG.standard_normal(256).astype(np.float32)
    np.testing.assert_array_equal(kernel(x), np.roll((x * 2).reshape(4, 64), -1, axis=1).reshape(-1))


def test_nests_without_shared_memory_follow_each_other():
    kernel = tl.build(two_stages(shared=False), target="opencl")
    assert len(kernel.lowered.emitted.launches) == 2
    x = RNG.standard_normal(256).astype(np.float32)
    np.testing.assert_array_equal(kernel(x), np.roll((x * 2).reshape(4, 64), -1, axis=1).reshape(-1))


def test_two_dimensional_groups_with_fewer_items_in_some_nests():
    """A nest over one dimension is done by the items at 0 of the other; one that is bound to nothing, by one item."""
    x = te.placeholder((8, 16), name="x")
    k = te.reduce_axis(16, name="k")
    total = te.compute((8,), lambda i: te.sum(x[i, k], axis=k), name="total")
    out = te.compute((8, 16), lambda i, j: x[i, j] / total[i], name="out")
    s = tl.te.create_schedule(out.op)
    i, j = s["out"].axis
    block, i = s["out"].split(i, 4)
    s["out"].bind(block, "blockIdx.x")
    s["out"].bind(i, "threadIdx.y")
    s["out"].bind(j, "threadIdx.x")
    s["total"].compute_at(s["out"], block)
    kernel = tl.build(s, target="opencl")
    assert "get_local_id(0) == 0 && get_local_id(1) == 0" in kernel.source
    a = np.abs(RNG.standard_normal((8, 16))).astype(np.float32)
    np.testing.assert_allclose(kernel(a), a / a.sum(axis=1, keepdims=True), rtol=1e-6)


# -- models --------------------------------------------------------------------------------------------------------


def test_classifier(tmp_path):
    path = save_classifier(tmp_path / "classifier.onnx")
    exe = tl.compile(path, target="opencl", shapes={"batch": 2})
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    exe.save(tmp_path / "m.tl")
    loaded = tl.load(tmp_path / "m.tl")
    for _ in range(2):
        x = RNG.standard_normal((2, 3, 32, 32)).astype(np.float32)
        (expected,) = session.run(None, {"input": x})
        np.testing.assert_allclose(exe(x), expected, rtol=2e-4, atol=2e-6)
        np.testing.assert_array_equal(loaded(x), exe(x))


def test_threads_take_turns(tmp_path):
    exe = tl.compile(save_classifier(tmp_path / "classifier.onnx"), target="opencl", shapes={"batch": 1})
    feeds = [RNG.standard_normal((1, 3, 32, 32)).astype(np.float32) for _ in range(4)]
    alone = [exe(x) for x in feeds]
    found: dict[int, bool] = {}

    def work(n: int) -> None:
        found[n] = all(np.array_equal(exe(feeds[n]), alone[n]) for _ in range(10))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert found == dict.fromkeys(range(4), True)


def agree(path, feeds, shapes=None):
    exe = tl.compile(path, target="opencl", shapes=shapes)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    found = check_agreement(exe.run(feeds), dict(zip(names, session.run(names, feeds), strict=True)), str(path), feeds)
    assert found.ok, str(found)


def test_perceptron():
    agree(models.path("mlp"), models.inputs("mlp", seed=1))


@pytest.mark.deploy
def test_mobilenet():
    agree(models.path("mobilenet_v2"), models.inputs("mobilenet_v2", seed=1))


@pytest.mark.deploy
def test_minilm():
    if not zoo.is_cached("minilm"):
        pytest.skip("not fetched")
    feeds = zoo.inputs("minilm", seed=1)
    agree(zoo.path("minilm"), feeds, {k: v.shape for k, v in feeds.items()})


def test_open_dimensions_are_refused(tmp_path):
    with pytest.raises(ModelError, match=r"target 'opencl'.*\(batch\).*shapes=\{'batch': 1\}"):
        tl.compile(save_classifier(tmp_path / "classifier.onnx"), target="opencl")


def test_there_is_no_machine_code_to_show():
    with pytest.raises(BuildError, match="target 'opencl' ends with its opencl"):
        _ = tl.build(programs.chain(8), target="opencl").asm


def test_every_function_that_kernels_may_call_is_opencl_too(device):
    device.functions(opencl_module("// " + " ".join(NAMES)), [])
