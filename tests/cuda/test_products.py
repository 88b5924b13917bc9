"""Products by tiles: whole and ragged ones, vectors, and arrays that begin anywhere."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

import tensorlang as tl
from tensorlang.build import build
from tensorlang.codegen.cuda.ptxas import find_ptxas
from tensorlang.codegen.target import find_target
from tensorlang.graph import Graph, GraphBuilder, TensorType, get
from tensorlang.graph.device import _unaligned
from tensorlang.graph.program.tree import Argument
from tensorlang.ir.expr import const
from tests.cuda.simulated import simulate
from tests.cuda.test_cuda import dense, f, graph_of

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed: pip install 'tensorlang[cuda]'")

CASES = [
    [f(20, 40), f(40, 36)],  # a tile that sticks out on both sides
    [f(9, 18), f(18, 33)],  # nothing is a multiple of a vector
    [f(2, 8, 32), f(2, 32, 64)],
]


def transposed(a: np.ndarray, b: np.ndarray) -> Graph:
    """a @ b.T: both operands are contiguous along what is added up."""
    g = GraphBuilder()
    inputs = [g.input(n, TensorType.of("f32", x.shape)) for n, x in (("a", a), ("b", b))]
    y = g.add("matmul", [inputs[0], g.add("transpose", [inputs[1]], {"perm": (1, 0)})], {})
    return Graph(inputs, g.nodes, [y], output_names=["y"])


def test_products_in_the_simulator(tmp_path, monkeypatch):
    graphs = [(graph_of("matmul", arrays), arrays) for arrays in CASES]
    a, b = f(10, 32), f(40, 32)
    graphs.append((transposed(a, b), [a, b]))
    requests = []
    for n, (graph, arrays) in enumerate(graphs):
        tl.compile(graph, target="cuda").save(tmp_path / f"{n}.tl")
        requests.append((tmp_path / f"{n}.tl", arrays))
    monkeypatch.setattr("tensorlang.schedules.cuda.product.LEAST_BLOCKS", 1)
    large = [f(128, 16), f(16, 128)]
    tl.compile(graph_of("matmul", large), target="cuda").save(tmp_path / "large.tl")
    requests.append((tmp_path / "large.tl", large))
    found = simulate(requests)
    expected = [get("matmul").numpy(*arrays) for arrays in CASES] + [a @ b.T, large[0] @ large[1]]
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours[0], theirs, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("size", [(197, 768, 768), (1000, 1000, 1000), (512, 500, 30)], ids=str)
def test_ragged_products_are_tiles_without_spills(size):
    kernel = build(dense(*size), target="cuda")
    assert len(kernel.lowered.emitted.launches) == 1 and "cuda.shared.array" in kernel.source
    assert all(str(step.verdict) == "proved" for step in kernel.proof)
    if find_ptxas() is not None:
        assert kernel.inspect("ptxas").endswith("0 bytes of stack, no spills")


def test_a_vector_is_not_read_where_nothing_is():
    """Rows beyond the end are zeros: the guard stands around the whole vector, and around vectors of which all or nothing
    exists; where it changes within one, elements are copied one by one."""
    depth = build(dense(64, 64, 72), target="cuda").source
    assert "copy_async4_if(w_pad, " in depth and "copy_async1_if(x_pad, " in depth
    columns = build(dense(64, 72, 64), target="cuda").source
    assert "copy_async4_if(w_pad, " in columns and "store4(out, " in columns
    uneven = build(dense(64, 70, 64), target="cuda").source
    assert "copy_async4" not in uneven and "store4(out, " not in uneven


def test_arrays_that_begin_anywhere_are_read_by_elements():
    """A kernel that some call gives a tensor which begins at no multiple of 16 bytes is emitted without vectors."""
    emitted = build(dense(64, 64, 64), target="cuda").lowered.emitted
    assert emitted.aligned == {"x", "w", "out"}

    def program(shift: int) -> SimpleNamespace:
        args = [Argument("input", const(0), shift=const(shift)), Argument("arena", const(64)), Argument("output", const(0))]
        steps = [SimpleNamespace(kernel="dense", args=args)]
        return SimpleNamespace(steps=steps, kernels={"dense": SimpleNamespace(emitted=emitted)})

    assert _unaligned(program(16)) == frozenset() and _unaligned(program(20)) == {"dense"}
    scalar = build(dense(64, 64, 64), target=find_target("cuda").without_vectors()).lowered.emitted
    assert not scalar.aligned and "copy_async4" not in scalar.text and "load4(x_shared, " in scalar.text
