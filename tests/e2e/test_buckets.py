"""`shapes=` with several sizes: a program for each beside the open one, the weights shared, the fitting one taken."""

import numpy as np
import pytest

import tensorlang as tl
from tensorlang.errors import ArtifactError, BuildError, InputError
from tensorlang.graph import Graph, GraphBuilder, TensorType, dim
from tensorlang.runtime.load import load as load_with_runtime

WEIGHTS = np.random.default_rng(0).random((48, 32), np.float32) - 0.5


def model():
    """y = relu(x @ w) summed over rows, and mask * y, with two open dimensions."""
    builder = GraphBuilder()
    dims = {"batch": dim("batch"), "rows": dim("rows")}
    x = builder.input("x", TensorType.of("f32", (*dims.values(), 48)))
    mask = builder.input("mask", TensorType.of("f32", (*dims.values(), 1)))
    product = builder.add("mul", [builder.add("relu", [builder.add("matmul", [x, WEIGHTS])]), mask])
    return Graph([x, mask], builder.nodes, [product], "several", dims, ["y"])


def feeds(batch, rows):
    random = np.random.default_rng([batch, rows])
    return {
        "x": random.random((batch, rows, 48), np.float32) - 0.5,
        "mask": random.random((batch, rows, 1), np.float32),
    }


def check(exe, batch, rows):
    given = feeds(batch, rows)
    expected = np.maximum(given["x"] @ WEIGHTS, 0) * given["mask"]
    np.testing.assert_allclose(exe.run(given)["y"], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(exe(*given.values()), expected, rtol=1e-4, atol=1e-5)


def ran(exe, batch, rows, monkeypatch):
    """Which programs ran for inputs of these sizes; None is the open one."""
    taken = []
    with monkeypatch.context() as patch:
        for sizes, part in [(None, exe), *exe.buckets.items()]:
            main = part._runner.main
            patch.setattr(part._runner, "main", lambda frame, main=main, sizes=sizes: taken.append(sizes) or main(frame))
        exe.run(feeds(batch, rows))
    return taken


@pytest.fixture(scope="module")
def exe():
    return tl.compile(model(), shapes={"batch": {1, 4}, "rows": 5})


def test_the_fitting_program_runs_and_else_the_open_one(exe, monkeypatch):
    assert list(exe.buckets) == [(1,), (4,)] and exe.dims == ["batch"]
    assert [exe.buckets[k].dims for k in exe.buckets] == [[], []]
    assert [ran(exe, batch, 5, monkeypatch) for batch in (1, 4, 3)] == [[(1,)], [(4,)], [None]]
    for batch in (1, 4, 3, 0):
        check(exe, batch, 5)


def test_weights_are_shared(exe):
    blocks = [part._artifact.weights for part in (exe, *exe.buckets.values())]
    assert all(block is blocks[0] for block in blocks)
    single = tl.compile(model(), shapes={"batch": 4, "rows": 5})._artifact.weights.nbytes
    assert blocks[0].nbytes < 2 * single + 4096, "equal constants are laid down once"


def test_what_does_not_fit_is_refused_as_ever(exe):
    wrong = feeds(4, 6)
    with pytest.raises(InputError, match=r"got shape \(4, 6, 48\)"):
        exe.run(wrong)
    uneven = {**feeds(4, 5), "mask": feeds(3, 5)["mask"]}
    with pytest.raises(InputError, match="mask"):
        exe.run(uneven)
    with pytest.raises(InputError, match="got float"):
        exe(1.0, 2.0)
    with pytest.raises(InputError, match="is missing"):
        exe.profile({"x": wrong["x"]})


def test_saved_and_loaded(exe, tmp_path, monkeypatch):
    exe.save(tmp_path / "m.tl")
    for load in (tl.load, load_with_runtime):
        again = load(tmp_path / "m.tl")
        assert list(again.buckets) == [(1,), (4,)]
        assert [ran(again, batch, 5, monkeypatch) for batch in (1, 4, 2)] == [[(1,)], [(4,)], [None]]
        check(again, 4, 5)
        check(again, 2, 5)
    with pytest.raises(ArtifactError, match="compile it with one size"):
        exe.export_library(tmp_path / "libm.so")


def test_profile_is_of_the_program_that_runs(exe):
    assert exe.profile(feeds(4, 5), repeats=1).rows
    assert exe.profile(feeds(7, 5), repeats=1).rows


def test_shapes_of_inputs_and_combinations(monkeypatch):
    by_dimension = tl.compile(model(), shapes={"batch": {1, 2}, "rows": {3, 8}})
    assert sorted(by_dimension.buckets) == [(1, 3), (1, 8), (2, 3), (2, 8)]
    assert ran(by_dimension, 2, 8, monkeypatch) == [(2, 8)] and ran(by_dimension, 2, 7, monkeypatch) == [None]
    by_input = tl.compile(model(), shapes={"x": ({1, 2}, None, 48), "mask": ({1, 2}, 3, 1)})
    assert sorted(by_input.buckets) == [(1, 1), (2, 2)], "one dimension has one size"
    check(by_input, 2, 3)
    check(by_input, 5, 3)


def test_output_arrays_are_written(exe):
    given, y = feeds(4, 5), np.full((4, 5, 32), np.nan, np.float32)
    assert exe.run(given, out={"y": y})["y"] is y
    np.testing.assert_array_equal(y, exe.run(given)["y"])


@pytest.mark.parametrize(
    ("shapes", "error", "says"),
    [
        ({"batch": set()}, InputError, "empty set"),
        ({"batch": {1, "n"}}, InputError, "several sizes are integers"),
        ({"batch": [1, 4]}, InputError, "several sizes are a set"),
        ({"bach": {1, 4}}, InputError, "names no dimension or input"),
        ({"x": {1, 4}}, InputError, "dimension"),
        ({"x": ({1}, 5, {48, 49})}, InputError, "must be 48"),
        ({"x": ({1, 2}, 5, 48), "mask": ({3, 4}, 5, 1)}, InputError, "no combination"),
        ({"batch": set(range(17))}, BuildError, "at most 16"),
    ],
)
def test_refusals(shapes, error, says):
    with pytest.raises(error, match=says):
        tl.compile(model(), shapes=shapes)


def test_other_targets_take_one_size():
    with pytest.raises(BuildError, match="one size"):
        tl.compile(model(), target="c", shapes={"batch": {1, 4}, "rows": 5})


def test_every_program_is_verified():
    exe = tl.compile(model(), shapes={"batch": {2, 3}, "rows": 5}, verify=True)
    assert exe.certificate["ok"] and [c["ok"] for c in exe.certificate["buckets"]] == [True, True]
