"""Elements one by one: vectors of neighbours, and tensors that are turned through shared memory."""

from __future__ import annotations

import numpy as np
import pytest

import tensorlang as tl
from tensorlang.codegen.cuda.ptxas import assemble, find_ptxas
from tensorlang.graph import get
from tests.cuda.simulated import simulate
from tests.cuda.test_cuda import f, graph_of

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed: pip install 'tensorlang[cuda]'")

CASES = [
    ("add", [f(6, 40), f(40)], {}),  # a row for all
    ("add", [f(6, 40), f(6, 1)], {}),  # one element for a row
    ("mul", [f(7, 9, 4), f(7, 9, 4)], {}),
    ("sqrt", [abs(f(5, 3, 12))], {}),
    ("transpose", [f(40, 70)], {"perm": (1, 0)}),
    ("transpose", [f(2, 3, 20, 36)], {"perm": (0, 2, 3, 1)}),
    ("transpose", [f(2, 20, 3, 36)], {"perm": (0, 3, 2, 1)}),
    ("concat", [f(8, 12), f(8, 4)], {"axis": 1}),
    ("where", [f(4, 8) > 0, f(4, 8), f(8)], {}),
]


@pytest.fixture
def many(monkeypatch):
    """Small tensors are scheduled as large ones are."""
    monkeypatch.setattr("tensorlang.schedules.cuda.elementwise.MANY", 1)


def test_elements_in_the_simulator(many, tmp_path):
    requests = []
    for n, (op, arrays, attrs) in enumerate(CASES):
        tl.compile(graph_of(op, arrays, **attrs), target="cuda").save(tmp_path / f"{n}.tl")
        requests.append((tmp_path / f"{n}.tl", arrays))
    for (op, arrays, attrs), found in zip(CASES, simulate(requests), strict=True):
        np.testing.assert_allclose(found[0], get(op).numpy(*arrays, **attrs), rtol=2e-6, err_msg=op)


@pytest.mark.parametrize(
    ("op", "arrays", "attrs"),
    [
        ("add", [f(512, 512), f(512, 512)], {}),
        ("add", [f(512, 512), f(512)], {}),
        ("gelu", [f(513, 512)], {}),
        ("relu", [f(4, 1031, 127)], {}),
    ],
    ids=str,
)
def test_large_tensors_are_moved_by_vectors(op, arrays, attrs):
    artifact = tl.compile(graph_of(op, arrays, **attrs), target="cuda")._artifact
    code = "".join(artifact.manifest["device"]["code"].values())
    assert "st.global.v4.f32" in code and code.count("ld.global.v4.f32") == len(arrays), artifact.source
    assert "ld.global.f32" not in code and "st.global.f32" not in code


def test_a_tensor_is_turned_without_bank_conflicts():
    """Both global accesses run along rows; in shared memory a column's elements are 33 apart."""
    device = tl.compile(graph_of("transpose", [f(96, 64)], perm=(1, 0)), target="cuda")._artifact
    assert "x_shared = cuda.shared.array(1056, f32)" in device.source and "* 33 +" in device.source
    assert device.manifest["device"]["launches"][0]["threads"] == [32, 8]
    if find_ptxas() is not None:
        assert not any(a.spills or a.stack_bytes for a in assemble(device.manifest["device"]["code"], (9, 0)))
