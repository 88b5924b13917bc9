"""Reductions that threads share: rows by warps and blocks, columns by warps; their exchange, races and registers."""

from __future__ import annotations

import numpy as np
import pytest

import tensorlang as tl
from tensorlang import te
from tensorlang.build import build, lower_kernel
from tensorlang.codegen.cuda.emit import cuda_program
from tensorlang.codegen.cuda.ptxas import assemble, find_ptxas
from tensorlang.errors import BuildError, ScheduleError
from tensorlang.graph import get
from tensorlang.ir import interp
from tensorlang.ir.races import check_races
from tensorlang.schedule import Schedule
from tests.cuda.simulated import simulate
from tests.cuda.test_cuda import f, graph_of

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed: pip install 'tensorlang[cuda]'")

LONG = {"axis": 1, "epsilon": 1e-5}
CASES = [
    ("softmax", [f(9, 100)], {"axis": 1}),  # ragged: 9 rows in blocks of 8, 100 elements by 32 threads
    ("softmax", [f(2, 1500)], {"axis": 1}),  # a block for a row
    ("softmax", [f(2, 3, 5, 40)], {"axis": 3}),
    ("layer_norm", [f(10, 70), f(70), f(70)], LONG),
    ("layer_norm", [f(2, 1100), f(1100), f(1100)], LONG),
    ("reduce_sum", [f(3, 200)], {"axes": (1,)}),
    ("reduce_sum", [f(30, 50)], {"axes": (0, 1)}),
    ("reduce_max", [f(2, 5, 7, 9)], {"axes": (2, 3)}),
    ("reduce_mean", [f(3, 4, 33)], {"axes": (2,), "keepdims": True}),
    ("reduce_sum", [f(130, 40)], {"axes": (0,)}),
    ("reduce_prod", [(f(2, 64, 17) * 0.1 + 1).astype(np.float32)], {"axes": (1,)}),
    ("matmul", [f(1, 96), f(96, 50)], {}),
]
IDS = [f"{op}-{n}" for n, (op, _, _) in enumerate(CASES)]


@pytest.fixture(scope="module")
def compiled():
    return [tl.compile(graph_of(op, arrays, **attrs), target="cuda")._artifact for op, arrays, attrs in CASES]


@pytest.fixture(scope="module")
def simulated(compiled, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    requests = []
    for n, (op, arrays, attrs) in enumerate(CASES):
        tl.compile(graph_of(op, arrays, **attrs), target="cuda").save(folder / f"{n}.tl")
        requests.append((folder / f"{n}.tl", arrays))
    return simulate(requests)


@pytest.mark.parametrize("n", range(len(CASES)), ids=IDS)
def test_reductions_in_the_simulator(n, simulated):
    op, arrays, attrs = CASES[n]
    expected = get(op).numpy(*arrays, **attrs)
    np.testing.assert_allclose(simulated[n][0], expected, rtol=3e-5, atol=3e-5)


@pytest.mark.parametrize("n", range(len(CASES)), ids=IDS)
def test_a_program_is_one_launch_without_spills(n, compiled):
    device = compiled[n].manifest["device"]
    assert len(device["launches"]) == 1, compiled[n].source
    threads = np.prod(device["launches"][0]["threads"])
    assert threads % 32 == 0 and threads <= 1024
    code = "".join(device["code"].values())
    assert "__local_depot" not in code
    if find_ptxas() is not None:
        assert not any(a.spills or a.stack_bytes for a in assemble(device["code"], (9, 0)))


def test_warps_exchange_registers(compiled):
    """A row of one warp: five exchanges for each reduction, and no reduction through shared memory."""
    code = "".join(compiled[0].manifest["device"]["code"].values())
    assert code.count("shfl.sync.bfly") == 10 and "x_local = cuda.local.array(4, f32)" in compiled[0].source
    block = "".join(compiled[1].manifest["device"]["code"].values())
    assert block.count("shfl.sync.bfly") == 10 and "block_max" in compiled[1].source


def total(threads: int = 32, bind: bool = True):
    """Sums of rows of 64: `threads` partial sums, combined by as many threads."""
    x = te.placeholder((4, 64), name="x")
    k = te.reduce_axis(64, name="k")
    y = te.compute((4,), lambda i: te.sum(x[i, k], axis=k), name="y")
    s = Schedule(te.create_prim_func("total", [x], [y]))
    local = s.cache_write("y")
    row = s["y"].axis[0]
    s["y"].bind(row, "blockIdx.x")
    local.compute_at(s["y"], row)
    _, t = local.split(local.reduce_axis[0], threads)
    part = local.rfactor(t, factor_axis=-1)
    part.reorder(part.axis[-1], *part.reduce_axis)
    part.bind(part.axis[-1], "threadIdx.x")
    if bind:
        local.bind(local.reduce_axis[0], "threadIdx.x")
    return s


def test_a_bound_reduction_means_what_it_meant():
    s = total()
    x, y = f(4, 64), np.empty(4, np.float32)
    interp.run(s.func, [x, y])
    np.testing.assert_allclose(y, x.sum(1), rtol=1e-5)
    assert all(str(step.verdict) == "proved" for step in s.proof)
    program = cuda_program(lower_kernel(s, target="cuda", name="total").stages[-1].func)
    check_races(program, [x.reshape(-1), y])


def test_only_a_whole_reduction_is_combined():
    """The outer of two loops of a reduction is no loop that threads can combine: some of the sum is theirs, some is not."""
    x = te.placeholder((4, 64), name="x")
    k = te.reduce_axis(64, name="k")
    y = te.compute((4,), lambda i: te.sum(x[i, k], axis=k), name="y")
    s = Schedule(te.create_prim_func("total", [x], [y]))
    with pytest.raises(ScheduleError, match="rfactor"):
        s["y"].bind(s["y"].reduce_axis[0], "blockIdx.x")
    _, inner = s["y"].split(s["y"].reduce_axis[0], 32)
    with pytest.raises(ScheduleError, match="rfactor"):
        s["y"].bind(inner, "threadIdx.x")


def test_part_of_a_warp_cannot_combine():
    with pytest.raises(BuildError, match="multiple of 32"):
        build(total(16), target="cuda")


def test_other_grids_refuse():
    with pytest.raises(BuildError, match="leave the loop that combines the parts serial"):
        build(total(), target="opencl")
    assert build(total(bind=False), target="opencl").source
