"""Kernels assembled for sm_90 with no GPU: registers and spills."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

import tensorlang as tl
from tensorlang import te
from tensorlang.build import build
from tensorlang.codegen.cuda.ptxas import Assembly, assemble, find_ptxas, parse_report
from tensorlang.errors import BuildError
from tensorlang.schedule import Schedule
from tests.cuda.test_cuda import CASES, dense, f, graph_of

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed: pip install 'tensorlang[cuda]'")
needs_ptxas = pytest.mark.skipif(find_ptxas() is None, reason="ptxas is not installed: pip install 'nvidia-cuda-nvcc==13.0.*'")

SAID = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'f' for 'sm_90'
ptxas info    : Function properties for f
    16 bytes stack frame, 8 bytes spill stores, 4 bytes spill loads
ptxas info    : Used 255 registers, used 2 barriers, 8192 bytes smem
"""


def test_what_the_assembler_says_is_read():
    found = parse_report("f", SAID)
    assert found == Assembly("f", 255, 8192, 16, 8, 4, 2) and found.spills
    assert str(found) == "f: 255 registers, 8192 bytes shared, 16 bytes of stack, spills 8 bytes out and 4 in"
    with pytest.raises(BuildError, match="not understood"):
        parse_report("f", "hello")


def test_where_there_is_no_assembler_the_remedy_is_named(monkeypatch):
    monkeypatch.setattr("tensorlang.codegen.cuda.ptxas.find_ptxas", lambda: None)
    with pytest.raises(BuildError, match="nvidia-cuda-nvcc"):
        assemble({}, (9, 0))


@needs_ptxas
def test_what_the_assembler_refuses_is_one_error():
    with pytest.raises(BuildError, match="ptxas refuses f"):
        assemble({"f": ".version 9.0\n.target sm_90\nnonsense\n"}, (9, 0))


@needs_ptxas
def test_a_product_fits_the_registers():
    """16 sums, 8 operands and addresses: a thread has 255 registers, and two blocks of 256 threads share 65536."""
    text = build(dense(128, 128, 64), target="cuda").inspect("ptxas")
    found = re.fullmatch(r"dense: (\d+) registers, 16896 bytes shared, 0 bytes of stack, no spills", text)
    assert found and int(found[1]) <= 128


@needs_ptxas
def test_a_large_product_moves_vectors_and_two_blocks_fit():
    """64 sums of a thread, 16 operands at a time: 65536 registers are enough for two blocks of 256 threads."""
    kernel = build(dense(1024, 1024, 64), target="cuda")
    found = re.fullmatch(r"dense: (\d+) registers, 33280 bytes shared, 0 bytes of stack, no spills", kernel.inspect("ptxas"))
    assert found and int(found[1]) <= 128
    ptx = kernel.inspect("ptx")
    assert ptx.count("fma.rn.f32") % 64 == 0 and ptx.count("ld.shared.v4.f32") % 4 == 0
    assert "cp.async.cg" in ptx and "st.global.v4" in ptx and "ld.global.f32" not in ptx and "ld.shared.f32" not in ptx
    assert all(str(step.verdict) == "proved" for step in kernel.proof)


def test_the_assembler_knows_how_large_a_block_is():
    """Else it may give a thread of 1024 more than the 64 registers that each can have."""
    ptx = build(dense(128, 128, 64), target="cuda").inspect("ptx")
    assert re.search(r"\.entry dense\([^)]*\)\s+\.maxntid 16, 16, 1\s+\.minnctapersm 1\s+\{", ptx)


def test_a_block_has_at_most_1024_threads():
    x = te.placeholder((4, 2048), name="x")
    y = te.compute((4, 2048), lambda i, j: x[i, j] + 1, name="y")
    s = Schedule(te.create_prim_func("f", [x], [y]))
    s["y"].bind(s["y"].axis[1], "threadIdx.x")
    with pytest.raises(BuildError, match="2048 threads"):
        build(s, target="cuda")


@needs_ptxas
def test_no_operator_spills():
    for op, arrays, attrs in CASES:
        artifact = tl.compile(graph_of(op, arrays, **attrs), target="cuda")._artifact
        for kernel in assemble(artifact.manifest["device"]["code"], (9, 0)):
            assert not kernel.spills, f"{op}: {kernel}"
            assert json.dumps(kernel.__dict__)


@needs_ptxas
@pytest.mark.parametrize("shape", [(64, 64, 64), (256, 128, 32)], ids=str)
def test_no_default_schedule_of_a_product_spills(shape):
    m, n, k = shape
    artifact = tl.compile(graph_of("matmul", [f(m, k), np.zeros((k, n), np.float32)]), target="cuda")._artifact
    assert not any(a.spills or a.stack_bytes for a in assemble(artifact.manifest["device"]["code"], (9, 0)))
