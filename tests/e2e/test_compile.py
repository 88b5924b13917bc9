"""Graphs compiled and run: natively, and with the jit off, against the operators' NumPy references."""

import threading

import numpy as np
import pytest

from tensorlang.compile import compile as tl_compile, load
from tensorlang.errors import ArtifactError, BuildError, InputError, ModelError
from tensorlang.graph import evaluate
from tests.e2e.models import pass_through, perceptron, two_dimensions

RANDOM = np.random.default_rng(1)


def floats(*shape):
    return RANDOM.standard_normal(shape, dtype=np.float32)


def agree(ours, theirs):
    assert list(ours) == list(theirs)
    for name, expected in theirs.items():
        assert ours[name].dtype == expected.dtype and ours[name].shape == expected.shape
        np.testing.assert_allclose(ours[name], expected, rtol=1e-5, atol=1e-5)


@pytest.fixture(params=[True, False], ids=["native", "plain"])
def jit(request, monkeypatch):
    monkeypatch.setenv("TENSORLANG_JIT", "1" if request.param else "0")
    return request.param


@pytest.fixture(scope="module")
def static():
    return tl_compile(perceptron(batch=4))


@pytest.fixture(scope="module")
def dynamic():
    return tl_compile(perceptron())


def test_static_model(jit):
    graph = perceptron(batch=4)
    exe = tl_compile(graph)
    feeds = {"x": floats(4, 16)}
    agree(exe.run(feeds), evaluate(graph, feeds))


def test_one_executable_serves_every_size(jit):
    graph = two_dimensions()
    exe = tl_compile(graph)
    for n, m in ((1, 1), (3, 5), (2, 0), (3, 5)):
        feeds = {"x": floats(n, m, 8), "y": floats(m, 8)}
        agree(exe.run(feeds), evaluate(graph, feeds))


def test_results_that_nothing_computes(jit):
    graph = pass_through()
    feeds = {"x": floats(2, 3)}
    got = tl_compile(graph).run(feeds)
    agree(got, evaluate(graph, feeds))
    assert not np.shares_memory(got["same"], feeds["x"]) and not np.shares_memory(got["twice"], got["again"])


def test_shapes_fix_dimensions():
    exe = tl_compile(two_dimensions(), shapes={"batch": 2, "y": (3, 8)})
    assert [str(i) for i in exe.inputs] == ["x: float32[2, 3, 8]", "y: float32[3, 8]"]
    assert "dims[" not in exe.source


def test_called_with_arrays_in_order(static):
    x = floats(4, 16)
    probs, hidden = static(x)
    assert np.array_equal(probs, static.run({"x": x})["probs"]) and hidden.shape == (4, 16)
    assert probs.ctypes.data % 64 == 0 and probs.flags.writeable


def test_inputs_need_not_be_contiguous(static):
    x = floats(16, 8)
    np.testing.assert_array_equal(static(x.T[::2])[1], static(np.ascontiguousarray(x.T[::2]))[1])


def test_calls_do_not_share_results(static):
    a, b = floats(4, 16), floats(4, 16)
    first, _ = static(a)
    kept = first.copy()
    static(b)
    np.testing.assert_array_equal(first, kept)


def test_calls_from_many_threads(dynamic):
    feeds = [floats(n, 16) for n in (1, 2, 3, 4, 5, 6)]
    expected = [dynamic(x)[0] for x in feeds]
    wrong = []

    def work(k):
        for _ in range(50):
            if not np.array_equal(dynamic(feeds[k])[0], expected[k]):
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(len(feeds))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({}, "input 'x' is missing"),
        ({"x": np.zeros((4, 16), np.float32), "z": 1}, "no input is called 'z'"),
        ({"y": np.zeros((4, 16), np.float32)}, "input 'x' is missing; no input is called 'y'"),
        ({"x": np.zeros((4, 16))}, "input x: float32[4, 16] got an array of dtype float64"),
        ({"x": np.zeros((4, 15), np.float32)}, "input x: float32[4, 16] got shape (4, 15)"),
        ({"x": np.zeros((4, 16, 1), np.float32)}, "got shape (4, 16, 1)"),
        ({"x": [[1.0]]}, "got list; give an array"),
    ],
)
def test_feeds_that_do_not_fit(static, feeds, message):
    with pytest.raises(InputError) as error:
        static.run(feeds)
    assert message in str(error.value)


def test_too_many_arrays(static):
    with pytest.raises(InputError, match=r"takes 1 input\(s\), got 2"):
        static(floats(4, 16), floats(4, 16))


def test_open_dimensions_must_agree():
    exe = tl_compile(two_dimensions())
    with pytest.raises(InputError, match=r"input y: float32\[rows, 8\] got shape \(4, 8\), where batch = 2, rows = 3"):
        exe.run({"x": floats(2, 3, 8), "y": floats(4, 8)})
    with pytest.raises(InputError, match=r"got shape \(3,\)"):
        exe.run({"x": floats(2, 3, 8), "y": floats(3)})


def test_profile(static):
    profile = static.profile({"x": floats(4, 16)}, repeats=2)
    assert len(profile.rows) == 4 and sum(r["share"] for r in profile.rows) == pytest.approx(1)
    assert {r["nodes"] for r in profile.rows} >= {"fc0, bias0, relu0", "softmax"}
    assert profile.by_kernel()[0]["calls"] in (1, 3) and "GFLOP/s" in str(profile)


def test_profile_with_the_jit_off(monkeypatch):
    monkeypatch.setenv("TENSORLANG_JIT", "0")
    assert len(tl_compile(perceptron(batch=1, layers=1)).profile({"x": floats(1, 16)}, repeats=1).rows) == 2


def test_what_was_built_can_be_read(static):
    assert list(static.kernels)
    for name, text in static.kernels.items():  # its schedule, then its functions, and nothing of the next kernel
        assert text.startswith(("# schedule: ", "@")) and f"def {name}(" in text and text.count("@kernel(") == 1
        assert not text.rstrip().splitlines()[-1].startswith("#")
    assert "def main(" in static.source and static.build_report["native"] >= 0
    assert "perceptron(x: float32[4, 16])" in repr(static)


def test_saved_and_loaded(static, tmp_path):
    path = tmp_path / "model.tl"
    static.save(path)
    again = load(path)
    x = floats(4, 16)
    np.testing.assert_array_equal(again(x)[0], static(x)[0])
    assert again.inputs == static.inputs and again.source == static.source
    assert [p.name for p in tmp_path.iterdir()] == ["model.tl"]


def test_saving_twice_gives_the_same_bytes(static, tmp_path):
    static.save(tmp_path / "a.tl")
    static.save(tmp_path / "b.tl")
    assert (tmp_path / "a.tl").read_bytes() == (tmp_path / "b.tl").read_bytes()


@pytest.mark.parametrize("at", [10, 5000, -1000, -30])
def test_a_damaged_file_is_refused(static, tmp_path, at):
    path = tmp_path / "model.tl"
    static.save(path)
    data = bytearray(path.read_bytes())
    data[at : at + 40 if at > 0 else len(data) + at + 40] = b"\xa5" * 40
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match="damaged|another format"):
        load(path)


def test_a_truncated_file_is_refused(static, tmp_path):
    path = tmp_path / "model.tl"
    static.save(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ArtifactError, match="is not a compiled model, or is damaged"):
        load(path)


def test_no_file():
    with pytest.raises(ArtifactError, match="no such file"):
        load("nothing.tl")


def test_code_for_another_machine_is_refused(static, tmp_path):
    path = tmp_path / "model.tl"
    features = static._artifact.manifest["cpu_features"]
    features.append("a-feature-of-tomorrow")
    try:
        static.save(path)
    finally:
        features.pop()
    with pytest.raises(ArtifactError, match="needs CPU features that this machine lacks: a-feature-of-tomorrow"):
        load(path)


def test_options_that_are_not_known():
    with pytest.raises(BuildError, match="unknown target 'tpu'"):
        tl_compile(perceptron(1), target="tpu")
    with pytest.raises(BuildError, match="precision 'int3'"):
        tl_compile(perceptron(1), precision="int3")
    with pytest.raises(InputError, match="no dimension or input of the model: height"):
        tl_compile(perceptron(), shapes={"height": 3})
    with pytest.raises(ModelError, match="no such file"):
        tl_compile("nothing.onnx")


def test_verified_against_references():
    certificate = tl_compile(two_dimensions(), verify=True).certificate
    assert certificate["ok"] and certificate["oracle"] == "NumPy references" and certificate["seeds"] == [0, 1]
    assert len(certificate["sizes"]) == 2 and set(certificate["outputs"]) == {"sum", "total"}
    assert all(o["error"] <= o["bound"] for o in certificate["outputs"].values())


def test_every_stage_is_dumped(monkeypatch, tmp_path):
    monkeypatch.setenv("TENSORLANG_DUMP", str(tmp_path))
    tl_compile(perceptron(batch=4))
    names = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert {f"perceptron/{n}" for n in ("1_graph.txt", "2_optimised.txt", "3_groups.txt", "4_program.py")} <= names
    assert any(n.startswith("perceptron/kernels/softmax/") for n in names)
