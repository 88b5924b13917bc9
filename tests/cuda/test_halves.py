"""Tensors of 16 bits: elements, rows and products, in the simulator and as PTX."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import tensorlang as tl
from tensorlang.codegen.cuda.ptxas import assemble, find_ptxas
from tensorlang.graph import get
from tests.cuda.simulated import simulate
from tests.cuda.test_cuda import f, graph_of

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed: pip install 'tensorlang[cuda]'")

HALVES = {"bf16": (ml_dtypes.bfloat16, 1 / 64), "f16": (np.float16, 1 / 512)}
CASES = [
    ("add", [f(5, 7), f(7)], {}),
    ("gelu", [f(70)], {}),
    ("softmax", [f(4, 33)], {"axis": 1}),
    ("layer_norm", [f(4, 24), f(24), f(24)], {"axis": 1, "epsilon": 1e-5}),
    ("transpose", [f(20, 5, 18)], {"perm": (2, 1, 0)}),
    ("matmul", [f(20, 40), f(40, 36)], {}),
]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("halves")
    requests = []
    for kind, (dtype, _) in HALVES.items():
        for n, (op, arrays, attrs) in enumerate(CASES):
            given = [a.astype(dtype) for a in arrays]
            tl.compile(graph_of(op, given, **attrs), target="cuda").save(folder / f"{kind}{n}.tl")
            requests.append((folder / f"{kind}{n}.tl", given))
    return simulate(requests)


@pytest.mark.parametrize("kind", HALVES)
@pytest.mark.parametrize("n", range(len(CASES)), ids=[op for op, _, _ in CASES])
def test_halves_in_the_simulator(kind, n, found):
    dtype, bound = HALVES[kind]
    op, arrays, attrs = CASES[n]
    given = [a.astype(dtype) for a in arrays]
    wide = [a.astype(np.float32) for a in given]
    expected = np.asarray(get(op).numpy(*wide, **attrs))
    ours = found[list(HALVES).index(kind) * len(CASES) + n][0]
    assert ours.dtype == dtype
    ours = ours.astype(np.float32)
    np.testing.assert_allclose(ours, expected, rtol=bound, atol=bound)


@pytest.mark.skipif(find_ptxas() is None, reason="ptxas is not installed: pip install 'nvidia-cuda-nvcc==13.0.*'")
@pytest.mark.parametrize("kind", HALVES)
def test_large_tensors_of_halves_move_by_16_bytes(kind):
    x = np.zeros((1024, 1024), HALVES[kind][0])
    code = tl.compile(graph_of("tanh", [x]), target="cuda")._artifact.manifest["device"]["code"]
    (ptx,) = code.values()
    assert "ld.global.v4" in ptx and "st.global.v4" in ptx
    assert not any(a.spills for a in assemble(code, (9, 0)))
