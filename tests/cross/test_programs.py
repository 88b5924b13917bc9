"""Compiled programs on the machines that they are for: our shared libraries and modules, in C and JavaScript, under emulators.

What is computed is compared with the operators' NumPy references; whole models also with this machine's own build.
"""

import numpy as np
import pytest

import tensorlang as tl
from tensorlang.graph.reference import evaluate
from tests.cross.graphs import contractions, functions, truncation
from tests.cross.machines import MACHINES, compile_for, run_on
from tests.e2e.models import perceptron

pytestmark = pytest.mark.deploy


@pytest.fixture(params=MACHINES, ids=lambda m: m.target)
def machine(request):
    if tool := request.param.missing:
        pytest.skip(f"{tool} is not installed")
    return request.param


def check(name, got, want):
    assert got.dtype == want.dtype and got.shape == want.shape
    if got.dtype.kind in "iub":
        np.testing.assert_array_equal(got, want, err_msg=name)
        return
    finite = np.isfinite(want)
    np.testing.assert_array_equal(got[~finite], want[~finite], err_msg=name)
    step = 2e-3 if want.dtype == np.float16 else 2e-4
    bound = step * np.abs(want[finite].astype(np.float64)).max(initial=0) + 2e-6
    assert np.abs(got[finite].astype(np.float64) - want[finite]).max(initial=0) <= bound, name


@pytest.mark.parametrize("make", [contractions, functions, truncation])
def test_kernels(machine, make, tmp_path):
    graph, feeds = make()
    with np.errstate(all="ignore"):
        want = evaluate(graph, feeds)
    dims = {"rows": 11} if make is functions else None
    got = run_on(machine, compile_for(graph, machine.target), list(feeds.values()), tmp_path / "m", dims=dims)
    for (name, expected), found in zip(want.items(), got, strict=True):
        check(name, found, expected)


def test_a_perceptron_on_two_threads(machine, tmp_path):
    """Wide enough that its loops are parallel. WebAssembly has no pool."""
    graph = perceptron(batch=32, width=256)
    x = np.random.default_rng(5).standard_normal((32, 256), dtype=np.float32)
    artifact = compile_for(graph, machine.target)
    assert "parallel_for(" in artifact.source or not machine.gcc
    want = tl.compile(graph)(x)
    for threads in (0, 2):
        for found, expected in zip(run_on(machine, artifact, [x], tmp_path / "m", threads=threads), want, strict=True):
            check(f"{threads} threads", found, expected)

