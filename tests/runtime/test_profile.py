"""Profiles: rows of kernels inside of control flow, the roofline, and its picture; `main` walked as data."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import tensorlang as tl
from tensorlang.errors import ArtifactError, InputError
from tensorlang.runtime.load import load as load_by_the_runtime
from tensorlang.runtime.profile import Profile
from tensorlang.runtime.replay import Leaves, Replay
from tests.deploy.libraries import MODELS, parsed
from tests.e2e.models import perceptron

SOURCE = """
def main(ctx, inputs, outputs, dims):
    n = dims[0]
    check(n >= 0, 3)
    k = 0
    while k < n and k != 5:
        p0 = scratch(ctx, minimum(k, 4) * 8 + 8)
        view(p0, i64)[0] = k
        if view(p0, i64)[0] % 2 == 0:
            even(ctx, inputs[0] + 4, k)
        else:
            odd(ctx, k)
        release(ctx, p0)
        k += 1
    outputs[0] = select(n > 2, n // 2, -n)
"""


def model(name: str) -> tuple[tl.Executable, list[dict[str, np.ndarray]]]:
    text, feeds = MODELS[name]
    return tl.compile(parsed(text)), feeds


def test_main_is_walked_as_python_would() -> None:
    seen: list[tuple[int, str, list[int]]] = []
    outputs = [0]
    replay = Replay(SOURCE)
    assert replay.calls == ["even", "odd"]
    variables = {"inputs": [100], "outputs": outputs, "dims": [9]}
    replay.run(variables, lambda number, name, arguments, _: seen.append((number, name, list(arguments))))
    assert seen == [(k % 2, ("even", "odd")[k % 2], [k] if k % 2 else [104, k]) for k in range(5)]
    assert outputs == [4] and "k" not in variables
    with pytest.raises(Leaves) as left:
        replay.run({"inputs": [100], "outputs": outputs, "dims": [-1]}, lambda *_: None)
    assert left.value.status == 3


@pytest.mark.parametrize("line", ["x = open('file').read()", "import os", "x = [1]", "x = dims.y", "for k in dims: pass"])
def test_what_main_never_holds_is_refused(line: str) -> None:
    with pytest.raises(ArtifactError, match="main"):
        Replay(f"\ndef main(ctx, dims):\n    {line}\n").run({"dims": [1]}, lambda *_: None)


def test_a_loop_has_a_row_for_each_call_in_it() -> None:
    exe, feeds = model("loop")
    rows = exe.profile(feeds[0], repeats=2).rows  # five turns
    calls = {row["nodes"]: row["calls"] for row in rows}
    assert calls["f, c"] == calls["d"] == 5
    assert all(row["ms"] > 0 for row in rows) and sum(row["share"] for row in rows) == pytest.approx(1)
    added = next(row for row in rows if row["nodes"] == "f, c")
    assert added["gflops"] * added["ms"] * 1e6 == pytest.approx(2 * 5), "two additions a turn, five turns"
    assert {row["nodes"] for row in exe.profile(feeds[1], repeats=1).rows}.isdisjoint({"f, c", "d"}), "no turn, no row"


def test_of_branches_only_the_one_that_runs() -> None:
    exe, feeds = model("branches")
    for feed, wanted in zip(feeds, ("concat", "neg"), strict=True):
        kernels = {row["kernel"] for row in exe.profile(feed, repeats=1).rows}
        assert wanted in kernels and len(kernels & {"concat", "neg"}) == 1


def test_results_of_unknown_size(tmp_path: Path) -> None:
    """Also of a file: the runtime needs no compiler to profile."""
    exe, feeds = model("nonzero")
    exe.save(tmp_path / "m.tl")
    for loaded in (exe, load_by_the_runtime(tmp_path / "m.tl")):
        for feed in feeds:
            assert {row["kernel"] for row in loaded.profile(feed, repeats=1).rows} >= {"nonzero", "transpose"}
            for name, array in exe.run(feed).items():
                np.testing.assert_array_equal(loaded.run(feed)[name], array)


def test_a_library_is_timed_as_a_whole(tmp_path: Path) -> None:
    exe, feeds = model("loop")
    exe.export_library(tmp_path / "libm.so")
    assert [row["kernel"] for row in tl.load(tmp_path / "libm.so").profile(feeds[0], repeats=1).rows] == ["main"]


def test_the_roofline() -> None:
    step = {"kernel": "k", "label": "n"}
    rows = [({**step, "kernel": "dense"}, 1, 1.0, 40, 4), ({**step, "kernel": "copy"}, 2, 1.0, 1, 10)]
    profile = Profile.of(rows).with_roofline(peak=80.0, bandwidth=lambda nbytes: {4: 10.0, 5: 20.0, 99: 5.0}[nbytes], most=99)
    found = {row["kernel"]: (row["bound"], row["of_limit"]) for row in profile.rows}
    assert found == {"dense": ("compute", pytest.approx(0.5)), "copy": ("memory", pytest.approx(0.5))}
    assert (profile.peak_gflops, profile.peak_gbps) == (pytest.approx(80e-9), pytest.approx(5e-9))
    assert "of limit" in str(profile) and "3 kernel calls" in str(profile)


def test_the_roofline_is_measured_by_the_compiler_alone(tmp_path: Path) -> None:
    exe = tl.compile(perceptron(batch=4, layers=1))
    x = {"x": np.ones((4, 16), np.float32)}
    profile = exe.profile(x, repeats=1, roofline=True)
    assert profile.peak_gflops > 1 and profile.peak_gbps > 0.1
    assert all(row["bound"] in ("compute", "memory") and row["of_limit"] > 0 for row in profile.rows)
    exe.save(tmp_path / "m.tl")
    with pytest.raises(InputError, match="without the compiler"):
        load_by_the_runtime(tmp_path / "m.tl").profile(x, roofline=True)
    with pytest.raises(InputError, match="no roofline"):
        exe.profile(x, repeats=1).plot(tmp_path / "r.png")
    if importlib.util.find_spec("matplotlib") is None:
        with pytest.raises(InputError, match=r"tensorlang\[plot\]"):
            profile.plot(tmp_path / "r.png")
    else:
        profile.plot(tmp_path / "r.png")
        assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")
