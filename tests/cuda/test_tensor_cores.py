"""Products on tensor cores: `mma.sync` of bf16, f16 and tf32 in the simulator, as PTX, and what is proved of them."""

from __future__ import annotations

import re

import ml_dtypes
import numpy as np
import pytest

import tensorlang as tl
from tensorlang import te
from tensorlang.build import build
from tensorlang.codegen.barriers import is_barrier
from tensorlang.codegen.cuda.emit import cuda_program
from tensorlang.codegen.cuda.ptxas import find_ptxas
from tensorlang.codegen.race_proof import prove_no_races
from tensorlang.codegen.warps import INSTRUCTIONS
from tensorlang.errors import BuildError, ScheduleError
from tensorlang.graph import Graph, GraphBuilder, TensorType
from tensorlang.ir import interp
from tensorlang.ir.stmt import Seq, Stmt
from tensorlang.ir.visitor import rewrite_stmt
from tensorlang.runtime.cuda import Device
from tensorlang.schedule import Schedule
from tensorlang.schedules.cuda import intrinsics
from tests.cuda.simulated import simulate
from tests.cuda.test_cuda import RecordingDriver, f, graph_of

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed: pip install 'tensorlang[cuda]'")
needs_ptxas = pytest.mark.skipif(find_ptxas() is None, reason="ptxas is not installed: pip install 'nvidia-cuda-nvcc==13.0.*'")

TYPES = {"bf16": ml_dtypes.bfloat16, "f16": np.float16, "tf32": np.float32}
BOUNDS = {"bf16": 2**-7, "f16": 2**-9, "tf32": 2**-9}


def product(m: int, n: int, k: int, kind: str, turned: tuple[bool, bool] = (False, False), wide: bool = False):
    """relu(x @ w) of the elements that `kind` multiplies; each operand may lie the other way round."""
    dtype = "f32" if kind == "tf32" else kind
    x = te.placeholder((k, m) if turned[0] else (m, k), dtype, name="x")
    w = te.placeholder((n, k) if turned[1] else (k, n), dtype, name="w")
    r = te.reduce_axis(k, name="k")

    def term(i, j):
        sides = x[r, i] if turned[0] else x[i, r], w[j, r] if turned[1] else w[r, j]
        return te.cast("f32", sides[0]) * te.cast("f32", sides[1]) if wide else sides[0] * sides[1]

    y = te.compute((m, n), lambda i, j: te.sum(term(i, j), axis=r), name="y")
    return te.create_prim_func("product", [x, w], [te.compute((m, n), lambda i, j: te.maximum(y[i, j], 0), name="out")])


def target(kind: str) -> str:
    return "cuda-tf32" if kind == "tf32" else "cuda"


def graph(kind: str, turned: bool, arrays: list[np.ndarray]) -> Graph:
    if not turned:
        return graph_of("matmul", arrays)
    g = GraphBuilder()
    a, b = (g.input(n, TensorType.of(x.dtype, x.shape)) for n, x in zip("ab", arrays, strict=True))
    flipped = [g.add("transpose", [v], {"perm": (1, 0)}) for v in (a, b)]
    return Graph([a, b], g.nodes, [g.add("matmul", flipped, {})], output_names=["y"])


CASES = [
    ("bf16", False, (40, 24, 40)),
    ("f16", True, (32, 24, 32)),
    ("tf32", False, (24, 20, 16)),
    ("tf32", True, (16, 24, 24)),
]


def test_products_in_the_simulator(tmp_path):
    requests, expected = [], []
    for n, (kind, turned, (m, columns, k)) in enumerate(CASES):
        given = [f(k, m), f(columns, k)] if turned else [f(m, k), f(k, columns)]
        arrays = [a.astype(TYPES[kind]) for a in given]
        exe = tl.compile(graph(kind, turned, arrays), target=target(kind))
        assert f"mma_{kind}(" in exe.source
        exe.save(tmp_path / f"{n}.tl")
        requests.append((tmp_path / f"{n}.tl", arrays))
        a, b = (x.astype(np.float32) for x in arrays)
        expected.append((kind, a.T @ b.T if turned else a @ b))
    for ours, (kind, theirs) in zip(simulate(requests), expected, strict=True):
        np.testing.assert_allclose(ours[0].astype(np.float32), theirs, rtol=BOUNDS[kind], atol=BOUNDS[kind] * 8)


@needs_ptxas
@pytest.mark.parametrize(
    ("kind", "turned"), [("bf16", (0, 0)), ("f16", (0, 1)), ("bf16", (1, 0)), ("tf32", (0, 0)), ("tf32", (1, 1))], ids=str
)
def test_large_products_are_instructions_of_warps(kind, turned):
    kernel = build(product(1024, 1024, 256, kind, turned), target=target(kind))
    assert all(str(step.verdict).startswith("proved") for step in kernel.proof)
    assert kernel.inspect("ptxas").endswith("0 bytes of stack, no spills")
    ptx = kernel.inspect("ptx")
    assert ptx.count("mma.sync.aligned") == 32 and "cp.async.cg.shared.global" in ptx
    assert ("ldmatrix.sync" in ptx) == (kind != "tf32") and ("cvt.rna.tf32" in ptx) == (kind == "tf32")


@needs_ptxas
def test_large_tiles_have_more_shared_memory_than_a_function_declares():
    """Four slots of 128 x 32 and 32 x 256 halves: the launch gives the memory, and the driver is told before."""
    kernel = build(product(4096, 4096, 256, "bf16"), target="cuda")
    found = re.fullmatch(r"product: (\d+) registers, (\d+) bytes shared, 0 bytes of stack, no spills", kernel.inspect("ptxas"))
    assert found and int(found[2]) == 4 * 2 * (128 * 40 + 32 * 264)
    ptx = kernel.inspect("ptx")
    assert ".extern .shared .align 16 .b8 product_shared[];" in ptx and "_cudapy_smem" not in ptx
    driver = RecordingDriver()
    (function,) = Device(driver).functions({"product": ptx}).values()
    assert function.shared_bytes == int(found[2]) and "cuFuncSetAttribute" in driver.calls


@pytest.mark.parametrize("kind", ["bf16", "f16"])
def test_products_of_what_is_cast_before(kind):
    kernel = build(product(128, 128, 64, kind, wide=True), target="cuda")
    assert f"mma_{kind}(" in kernel.source and str(kernel.proof[-1].verdict) == "proved"


def test_f32_is_rounded_only_where_that_was_asked_for():
    assert "mma_" not in build(product(128, 128, 64, "tf32"), target="cuda").source
    assert "mma_tf32(" in build(product(128, 128, 64, "tf32"), target="cuda-tf32").source


def test_the_program_means_what_it_meant():
    """Tiles are loops for the interpreter, which computes the same from the scheduled program."""
    func = product(64, 64, 32, "f16")
    kernel = build(func, target="cuda")
    x, w = f(64, 32).astype(np.float16), f(32, 64).astype(np.float16)
    out = np.zeros((64, 64), np.float16)
    interp.run(kernel.lowered.scheduled, [x, w, out])
    np.testing.assert_allclose(out.astype(np.float32), np.maximum(x.astype("f4") @ w.astype("f4"), 0), rtol=0.02, atol=0.02)


def test_a_barrier_less_is_a_race():
    """What a warp's instruction reads of shared memory others may have written: without the barrier that is refuted."""
    func = cuda_program(build(product(64, 64, 32, "f16"), target="cuda").lowered.stages[-1].func)
    assert prove_no_races(func).status == "proved"

    def without(s: Stmt) -> Stmt | None:
        return Seq(tuple(c for c in s.stmts if not is_barrier(c))) if isinstance(s, Seq) else None

    found = prove_no_races(func.with_body(rewrite_stmt(func.body, without)))
    assert found.status == "refuted" and found.buffer is not None and "shared" in found.buffer.name


def warps_of(tile: int):
    """A product by one warp whose operands lie in shared memory."""
    s = Schedule(product(16, 8, 16, "f16"))
    y, out = s["y"], s["out"]
    i, j = out.axis
    half, group = out.split(i, 8)
    member, pair = out.split(j, tile)
    out.reorder(group, member, half, pair)
    lane = out.fuse(group, member)
    out.bind(lane, "threadIdx.x")
    for operand, load in (("x", "cuda.load_a_f16"), ("w", "cuda.load_b_f16")):
        shared = s.cache_read(operand, "shared", [y])
        place, lanes = shared.split(shared.fuse(*shared.axis), factors=[None, 32])
        shared.bind(lanes, "threadIdx.x")
        local = s.cache_read(shared.name, "local", [y])
        local.tensorize(local.axis[0], load)
    y.tensorize(y.axis[0], "cuda.mma_f16")
    return s


def test_one_warp():
    kernel = build(warps_of(2), target="cuda")
    assert "mma_f16(" in kernel.source and str(kernel.proof[-1].verdict) == "proved"


def test_who_reads_the_result_otherwise_is_refused():
    """Lanes that take other elements than theirs: the array would be shared memory, which instructions do not write."""
    with pytest.raises(BuildError, match=r"registers|race|threadIdx.x"):
        kernel = build(warps_of(4), target="cuda")
        assert kernel.proof


def test_a_nest_that_is_no_tile_is_refused():
    s = Schedule(product(16, 16, 16, "f16"))
    with pytest.raises(ScheduleError, match=r"not cuda.mma_f16"):
        s["y"].tensorize(s["y"].axis[0], "cuda.mma_f16")


def test_every_instruction_has_a_meaning():
    assert {i.name for i in intrinsics.INTRINSICS} == {n for n in INSTRUCTIONS if n != "cuda.mma_tf32_f32"}
