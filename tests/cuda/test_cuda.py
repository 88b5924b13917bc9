"""CUDA without a GPU: emitted source in numba's simulator, PTX from NVVM, the launcher against a driver that takes notes."""

from __future__ import annotations

import ctypes
import json

import numpy as np
import pytest

import tensorlang as tl
from tensorlang import te
from tensorlang.build import build
from tensorlang.graph import Graph, GraphBuilder, TensorType, get
from tensorlang.schedule import Schedule
from tests.cuda.simulated import simulate

pytest.importorskip("numba.cuda.cudadrv.nvvm", reason="numba-cuda is not installed")
pytest.importorskip("numba_cuda", reason="numba-cuda is not installed: pip install 'tensorlang[cuda]'")

RNG = np.random.default_rng(0)


def f(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def graph_of(op: str, arrays: list[np.ndarray], **attrs: object) -> Graph:
    b = GraphBuilder()
    inputs = [b.input(f"x{n}", TensorType.of(a.dtype, a.shape)) for n, a in enumerate(arrays)]
    made = b.add(op, inputs, attrs)
    outputs = list(made) if isinstance(made, tuple) else [made]
    return Graph(inputs, b.nodes, outputs, output_names=[f"y{n}" for n in range(len(outputs))])


CONV = {"strides": (1, 1), "pads": (1, 1, 1, 1), "dilations": (1, 1)}
SPECIAL = np.array([np.inf, -np.inf, np.nan, 0.5, 1.5, 2.5, -0.5, -2.5, 1e30, 0.0], np.float32)
CASES = [
    ("add", [f(5, 7), f(7)], {}),
    ("matmul", [f(16, 32), f(32, 16)], {}),
    ("matmul", [f(64, 16), f(16, 64)], {}),
    ("matmul", [f(5, 7), f(7, 3)], {}),
    ("softmax", [f(4, 33)], {"axis": 1}),
    ("layer_norm", [f(4, 24), f(24), f(24)], {"axis": 1, "epsilon": 1e-5}),
    ("reduce_mean", [f(3, 4, 5)], {"axes": (1,)}),
    ("transpose", [f(3, 4, 5)], {"perm": (2, 0, 1)}),
    ("gelu", [f(70)], {}),
    ("tanh", [f(9)], {}),
    ("max_pool", [f(1, 2, 6, 6)], {"kernel": (3, 3), "strides": (2, 2), "pads": (1, 1, 1, 1), "dilations": (1, 1)}),
    ("conv", [f(1, 3, 6, 6), f(4, 3, 3, 3), f(4)], CONV),
    ("gather", [f(5, 3), np.array([4, 0, -1])], {"axis": 0}),
    ("cast", [f(6) * 3], {"dtype": "i32"}),
    ("where", [f(4, 5) > 0, f(4, 5), f(5)], {}),
    ("less", [f(4, 5), f(5)], {}),
    *((op, [SPECIAL], {}) for op in ("sigmoid", "sign", "floor", "round")),
]


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """What the simulator computes for every case; one process for all."""
    folder = tmp_path_factory.mktemp("cuda")
    requests = []
    for n, (op, arrays, attrs) in enumerate(CASES):
        tl.compile(graph_of(op, arrays, **attrs), target="cuda").save(folder / f"{n}.tl")
        requests.append((folder / f"{n}.tl", arrays))
    return simulate(requests)


@pytest.mark.parametrize("n", range(len(CASES)), ids=[f"{op}-{n}" for n, (op, _, _) in enumerate(CASES)])
def test_operators_in_the_simulator(n, simulated):
    op, arrays, attrs = CASES[n]
    with np.errstate(all="ignore"):
        expected = get(op).numpy(*arrays, **attrs)
    for a, b in zip(simulated[n], expected if isinstance(expected, tuple) else [expected], strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)


def ptx_of(op: str, arrays: list[np.ndarray], **attrs: object) -> str:
    return "".join(tl.compile(graph_of(op, arrays, **attrs), target="cuda")._artifact.manifest["device"]["code"].values())


@pytest.mark.parametrize(("op", "mode"), [("floor", "rmi"), ("ceil", "rpi"), ("trunc", "rzi"), ("round", "rmi")])
@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_whole_numbers_stay_floats(op, mode, dtype):
    """1e30 has no i64: rounding goes from float to float, in the argument's own type."""
    code = ptx_of(op, [np.zeros(3, dtype.replace("f", "float"))])
    assert f"cvt.{mode}.{dtype}.{dtype}" in code and f".s64.{dtype}" not in code


def test_bits_are_reinterpreted():
    from tests.graph.ops.test_te import CASES as ALL

    case = next(c for c in ALL if c.op == "bits")
    code = ptx_of("bits", case.inputs, **case.attrs)
    assert "cvt.rzi.s32" not in code and "cvt.rn.f32.s32" not in code


def dense(m: int, n: int, k: int):
    x, w = te.placeholder((m, k), name="x"), te.placeholder((k, n), name="w")
    r = te.reduce_axis(k, name="k")
    y = te.compute((m, n), lambda i, j: te.sum(x[i, r] * w[r, j], axis=r), name="y")
    return te.create_prim_func("dense", [x, w], [te.compute((m, n), lambda i, j: te.maximum(y[i, j], 0), name="out")])


def test_products_keep_their_sums_in_registers():
    """A block's 64 x 64 sums are 16 of each thread; operands are shared, in two slots, with one barrier for each tile."""
    kernel = build(dense(128, 128, 64), target="cuda")
    assert "cuda.local.array(16, f32)" in kernel.source and "cuda.shared.array(2048, f32, alignment=16)" in kernel.source
    assert kernel.source.count("cuda.syncthreads()") == 2
    ptx = kernel.target.inspect(kernel.source, "ptx", kernel.settings)
    assert "__local_depot" not in ptx and ptx.count("fma.rn.f32") >= 16 and ptx.count("bar.sync") == 2
    assert all(str(step.verdict) == "proved" for step in kernel.proof)


def test_what_threads_share_is_not_taken_for_their_own():
    """Neighbours read each other's element: the array is shared memory, and a barrier stands between."""
    x = te.placeholder((256,), name="x")
    t = te.compute((256,), lambda i: x[i] * 2, name="t")
    y = te.compute((256,), lambda i: t[i // 128 * 128 + 127 - i % 128] + 1, name="y")
    s = Schedule(te.create_prim_func("f", [x], [y]))
    block, thread = s["y"].split(s["y"].axis[0], 128)
    s["t"].compute_at(s["y"], block)
    s["t"].bind(s["t"].axis[0], "threadIdx.x")
    s["y"].bind(thread, "threadIdx.x")
    s["y"].bind(block, "blockIdx.x")
    source = build(s, target="cuda").source
    assert "cuda.shared.array(128, f32)" in source and source.count("cuda.syncthreads()") == 1


def test_without_a_driver_running_is_one_clear_error():
    from tensorlang.runtime.cuda import default_device

    try:
        default_device()
    except tl.errors.BuildError as error:
        assert "driver" in str(error)
    else:
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(tl.errors.BuildError, match="driver"):
        build(dense(16, 16, 16), target="cuda")(f(16, 16), f(16, 16))


class RecordingDriver:
    """libcuda as far as `runtime.cuda` sees it: notes calls, gives handles, fails where told to."""

    def __init__(self, failing: str = ""):
        self.calls: list[str] = []
        self.failing = failing
        self._functions: dict[str, object] = {}

    def __getattr__(self, name: str):
        def call(*args):
            self.calls.append(name)
            if name == "cuGetErrorString":
                ctypes.cast(args[1], ctypes.POINTER(ctypes.c_char_p))[0] = b"because"
            return 700 if name == self.failing else 0

        if name not in self._functions:
            self._functions[name] = call
        return self._functions[name]


def test_the_launcher_captures_once_and_replays(tmp_path):
    from tensorlang.runtime.cuda import CudaRunner, Device
    from tensorlang.runtime.executable import Executable

    graph = graph_of("matmul", [f(16, 16), f(16, 16)])
    artifact = tl.compile(graph, target="cuda")._artifact
    driver = RecordingDriver()
    exe = Executable(artifact, CudaRunner(artifact, None, Device(driver)))
    exe(f(16, 16), f(16, 16))
    begin, end = driver.calls.index("cuStreamBeginCapture_v2"), driver.calls.index("cuStreamEndCapture")
    assert driver.calls[begin + 1 : end] == ["cuLaunchKernel"] * len(artifact.manifest["device"]["launches"])
    before = len(driver.calls)
    exe(f(16, 16), f(16, 16))
    again = driver.calls[before:]
    assert "cuLaunchKernel" not in again and again.count("cuGraphLaunch") == 1
    assert again[-1] == "cuStreamSynchronize" and again.count("cuStreamSynchronize") == 1  # none between kernels


def test_a_failing_driver_is_named():
    from tensorlang.runtime.cuda import Device

    with pytest.raises(tl.errors.BuildError, match=r"cuInit fails with 700 \(because\)"):
        Device(RecordingDriver("cuInit"))


def test_artifacts_hold_ptx(tmp_path):
    exe = tl.compile(graph_of("add", [f(4), f(4)]), target="cuda")
    exe.save(tmp_path / "m.tl")
    code = exe._artifact.manifest["device"]["code"]
    assert all(".entry" in text for text in code.values()) and json.dumps(code)
    assert tl.load(tmp_path / "m.tl").source == exe.source
