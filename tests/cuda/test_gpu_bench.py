"""The benchmark of a GPU that is elsewhere: what is built here, and the runner, in the simulator and on a fake driver."""

from __future__ import annotations

import ctypes
import json

import ml_dtypes
import numpy as np
import onnxruntime
import pytest

from bench import models
from bench.gpu import report
from bench.gpu.batch import with_batch
from bench.gpu.data import Recipe, disagreement, sample_positions, storage, thinned, values, whole
from bench.gpu.run import Options, main, run_all

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed: pip install 'tensorlang[cuda]'")


def test_recipes_draw_the_same_again():
    r = Recipe((300, 7), "float32", 5, mean=2.0, std=0.5)
    a = r.draw()
    assert np.array_equal(a, Recipe.of_json(json.loads(json.dumps(r.as_json()))).draw())
    assert abs(a.mean() - 2) < 0.05 and abs(a.std() - 0.5) < 0.05
    assert set(np.unique(Recipe((100,), "int64", 1, high=3).draw())) == {0, 1, 2}


def test_weights_without_what_is_drawn():
    recipe = Recipe((32, 16), "float32", 3)
    rest = np.arange(200, dtype=np.uint8)
    weights = np.zeros(64 * 50, np.uint8)
    weights[:200] = rest
    weights[640 : 640 + 2048] = recipe.draw().view(np.uint8).reshape(-1)
    thin, places, digest = thinned(weights, [recipe])
    assert thin.nbytes == weights.nbytes - 2048 and [p["start"] for p in places] == [640]
    assert np.array_equal(whole(thin, places, weights.nbytes, digest), weights)
    with pytest.raises(ValueError, match="drawn here"):
        whole(thin, [{**places[0], "seed": 4}], weights.nbytes, digest)


@pytest.mark.parametrize(
    ("found", "agrees"),
    [([1.0, 2.0], True), ([1.0, 2.00039], True), ([1.0, 2.00042], False), ([np.nan, 2.0], False), ([1.0, np.inf], False)],
)
def test_what_agrees(found, agrees):
    assert (disagreement(np.float32(found), np.float32([1.0, 2.0])) <= 1) is agrees


def test_what_is_not_finite_agrees_with_its_like():
    wanted = np.float32([np.nan, np.inf, 1.0])
    assert disagreement(wanted.copy(), wanted) == 0
    assert disagreement(np.float32([np.nan, -np.inf, 1.0]), wanted) == np.inf
    assert disagreement(np.array([1, 2]), np.array([1, 3])) == np.inf


def test_halves_are_drawn_and_compared_without_anything_but_numpy():
    recipe = Recipe((64,), "bfloat16", 3)
    bits = recipe.draw()
    assert bits.dtype == storage("bfloat16") == "uint16"
    drawn = Recipe((64,), "float32", 3).draw()
    np.testing.assert_array_equal(values(bits, "bfloat16"), bits.view(ml_dtypes.bfloat16).astype(np.float32))
    np.testing.assert_allclose(values(bits, "bfloat16"), drawn, rtol=2**-7)
    assert disagreement(values(bits, "bfloat16"), drawn, 2**-7) < 1 < disagreement(values(bits, "bfloat16"), drawn)
    assert storage("float16") == "float16" and values(drawn.astype(np.float16), "float16").dtype == np.float32


def test_samples_are_all_of_a_small_result_and_the_ends_of_a_large_one():
    assert list(sample_positions(5)) == [0, 1, 2, 3, 4]
    large = sample_positions(10**7)
    assert len(large) < 10**5 and {0, 10**7 - 1} <= set(large.tolist())


@pytest.mark.parametrize("name", ["mlp", "gpt2"])
def test_a_batch_is_its_samples_side_by_side(name):
    model = models.build(name)
    feeds = [models.inputs(name, seed) for seed in (0, 1)]

    def run(m, f):
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        return onnxruntime.InferenceSession(m.SerializeToString(), options).run(None, f)

    both = run(with_batch(model, 2), {k: np.concatenate([f[k] for f in feeds]) for k in feeds[0]})
    for k, y in enumerate(both):
        one = np.concatenate([run(model, f)[k] for f in feeds])
        np.testing.assert_allclose(y, one, atol=2e-5 * np.abs(one).max())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A few small cases and the smallest model."""
    from bench.gpu.build import build

    made = tmp_path_factory.mktemp("gpu")
    assert build(made, ["op_add", "op_softmax", "op_layer_norm", "mlp-b1"], say=lambda text: None) == 0
    return made


def test_the_runner_agrees_in_the_simulator(folder):
    from tests.cuda.simulated import check_folder

    results = check_folder(folder)
    assert {c["name"]: c["status"] for c in results["cases"]} == dict.fromkeys(
        ["op_add", "op_softmax", "op_layer_norm", "mlp-b1"], "agrees"
    )


class MemoryDriver:
    """libcuda with memory and a clock, but without arithmetic: kernels do nothing, each event is a millisecond on."""

    def __init__(self):
        self.memory: dict[int, ctypes.Array] = {}
        self.calls: list[str] = []
        self._functions: dict[str, object] = {}

    def __getattr__(self, name: str):
        def call(*args):
            self.calls.append(name)
            own = getattr(MemoryDriver, f"on_{name}", None)
            return 0 if own is None else own(self, *args) or 0

        return self._functions.setdefault(name, call)

    def on_cuMemAlloc_v2(self, place, nbytes):  # noqa: N802
        held = ctypes.create_string_buffer(min(nbytes, 1 << 24))
        self.memory[ctypes.addressof(held)] = held
        ctypes.cast(place, ctypes.POINTER(ctypes.c_uint64))[0] = ctypes.addressof(held)

    def on_cuMemFree_v2(self, address):  # noqa: N802
        del self.memory[address]

    def on_cuMemcpyHtoDAsync_v2(self, address, source, nbytes, stream):  # noqa: N802
        ctypes.memmove(address, source, nbytes)

    def on_cuMemcpyDtoHAsync_v2(self, target, address, nbytes, stream):  # noqa: N802
        ctypes.memmove(target, address, nbytes)

    def on_cuEventElapsedTime(self, place, begin, end):  # noqa: N802
        ctypes.cast(place, ctypes.POINTER(ctypes.c_float))[0] = 1.0


def test_the_runner_times_records_and_reports(folder, tmp_path):
    """Kernels that compute nothing disagree, are timed all the same, and leave no memory behind."""
    from tensorlang.runtime.cuda import Device

    driver = MemoryDriver()
    device = Device(driver)
    options = Options(seconds=0.01, json=tmp_path / "gpu.json", markdown=tmp_path / "gpu.md", rivals=False)
    results = run_all(folder, options, lambda artifact: device, say=lambda text: None)
    assert not driver.memory
    model = next(c for c in results["cases"] if c["name"] == "mlp-b1")
    assert model["ms"] == 1.0 and model["runs"] == 10 and model["launches"] == 5 and model["status"] == "disagrees"
    assert results["copy_gbs"] == pytest.approx(2 * (1 << 30) / 1e6)
    assert json.loads((tmp_path / "gpu.json").read_text())["cases"][-1]["name"] == results["cases"][-1]["name"]
    text = (tmp_path / "gpu.md").read_text()
    assert "| mlp-b1 | 5 | 1 | not measured |" in text and "bf16 products on tensor cores: not measured" in text
    assert "| softmax | not measured | not measured |" in text


def test_a_damaged_case_is_one_failure_and_the_rest_goes_on(folder, tmp_path):
    import shutil

    from tensorlang.runtime.cuda import Device

    damaged = tmp_path / "damaged"
    shutil.copytree(folder, damaged)
    (damaged / "op_add.tl").write_bytes(b"nothing")
    device = Device(MemoryDriver())
    results = run_all(damaged, Options(check=True), lambda artifact: device, say=lambda text: None)
    found = {c["name"]: c["status"] for c in results["cases"]}
    assert found["op_add"] == "failed" and len(found) == 4
    assert "- op_add: failed: ArtifactError" in report.markdown({**results, "copy_gbs": None})


def test_without_a_device_the_runner_says_so(folder, capsys):
    from tensorlang.errors import BuildError
    from tensorlang.runtime.cuda import default_device

    try:
        default_device()
    except BuildError:
        assert main([str(folder)]) == 2 and "nothing to run on" in capsys.readouterr().err
    else:
        pytest.skip("this machine has a CUDA device")


def test_models_as_torch_functions(folder):
    torch = pytest.importorskip("torch")
    from bench.gpu.torch_models import torch_function

    (case,) = [c for c in json.loads((folder / "manifest.json").read_text())["cases"] if c["name"] == "mlp-b1"]
    arrays = dict(np.load(folder / "mlp-b1.npz"))
    constants = {n.removeprefix("constant_"): a for n, a in arrays.items() if n.startswith("constant_")}
    function = torch_function(json.loads((folder / "mlp-b1.graph.json").read_text()), constants, "cpu")
    inputs = [Recipe.of_json(r).draw() if r else arrays[f"input{k}"] for k, r in enumerate(case["inputs"])]
    found = function(*map(torch.from_numpy, inputs)).numpy()
    assert disagreement(found.reshape(-1), arrays["expected0"]) < 1


def test_the_runner_needs_neither_compiler_nor_onnx():
    """The machine with the GPU has numpy; anything else that an import would pull in fails there."""
    import subprocess
    import sys

    heavy = ("numba", "llvmlite", "onnx", "sympy", "islpy", "typer", "rich", "ml_dtypes", "torch")
    code = f"import sys; import bench.gpu.run; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
