"""Convolutions: a small tile of the result in the registers of each thread."""

from __future__ import annotations

import numpy as np
import pytest

import tensorlang as tl
from tensorlang import te
from tensorlang.build import build
from tensorlang.graph import get
from tensorlang.ir import interp
from tensorlang.ir.races import check_races
from tests.cuda.simulated import simulate
from tests.cuda.test_cuda import CONV, f, graph_of

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed: pip install 'tensorlang[cuda]'")


@pytest.fixture
def few(monkeypatch):
    """Small results are scheduled as large ones are."""
    monkeypatch.setattr("tensorlang.schedules.cuda.registers.ENOUGH", 1)


def channels_last(side: int, channels: int, filters: int):
    x = te.placeholder((1, side + 2, side + 2, channels), name="x")
    w = te.placeholder((3, 3, channels, filters), name="w")
    kh, kw, ic = te.reduce_axis(3, name="kh"), te.reduce_axis(3, name="kw"), te.reduce_axis(channels, name="ic")
    y = te.compute(
        (1, side, side, filters),
        lambda n, i, j, k: te.sum(x[n, i + kh, j + kw, ic] * w[kh, kw, ic, k], axis=[kh, kw, ic]),
        name="y",
    )
    relu = te.compute((1, side, side, filters), lambda n, i, j, k: te.maximum(y[n, i, j, k], 0), name="out")
    return te.create_prim_func("conv", [x, w], [relu])


@pytest.mark.parametrize("side", [4, 7, 6])
def test_filters_come_as_vectors(side, few):
    func = channels_last(side, 5, 8)
    kernel = build(func, target="cuda")
    assert "load4(w, " in kernel.source and "store4(out, " in kernel.source
    assert all(str(step.verdict) == "proved" for step in kernel.proof)
    x, w = f(1, side + 2, side + 2, 5), f(3, 3, 5, 8)
    expected, found = np.empty((1, side, side, 8), np.float32), np.empty(side * side * 8, np.float32)
    interp.run(func, [x, w, expected])
    check_races(kernel.target.grid(kernel.lowered.stages[-1].func), [x.reshape(-1), w.reshape(-1), found])
    np.testing.assert_allclose(found, expected.reshape(-1), rtol=1e-5, atol=1e-6)


def test_convolutions_in_the_simulator(few, tmp_path):
    cases = [
        ([f(1, 3, 8, 8), f(4, 3, 3, 3), f(4)], CONV),
        ([f(2, 4, 6, 8), f(6, 4, 1, 1), f(6)], {**CONV, "pads": (0, 0, 0, 0)}),
        ([f(1, 4, 8, 8), f(8, 4, 3, 3), f(8)], {**CONV, "strides": (2, 2)}),
    ]
    requests = []
    for n, (arrays, attrs) in enumerate(cases):
        tl.compile(graph_of("conv", arrays, **attrs), target="cuda").save(tmp_path / f"{n}.tl")
        requests.append((tmp_path / f"{n}.tl", arrays))
    for (arrays, attrs), found in zip(cases, simulate(requests), strict=True):
        np.testing.assert_allclose(found[0], get("conv").numpy(*arrays, **attrs), rtol=2e-5, atol=2e-5)


def test_a_large_convolution_stays_in_registers():
    kernel = build(channels_last(56, 64, 128), target="cuda")
    ptx = kernel.inspect("ptx")
    assert "__local_depot" not in ptx and ptx.count("fma.rn.f32") >= 16 and "ld.global.v4.f32" in ptx
