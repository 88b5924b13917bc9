"""The text of emitted OpenCL C, and what work groups cannot run."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest

import tensorlang as tl
from tensorlang import te
from tensorlang.build import lower_kernel
from tensorlang.codegen.opencl import device as devices
from tensorlang.codegen.opencl.emit import emit_opencl_kernel
from tensorlang.errors import BuildError
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import const, eq, load, var
from tensorlang.ir.stmt import For, If, PrimFunc, Store
from tensorlang.schedule import Schedule
from tests import programs


def bare(text: str) -> str:
    """Without the places in this repository."""
    return re.sub(r" \(\S*\.py:\d+\)", "", text)


@pytest.mark.parametrize("name", ["dense", "softmax", "chain"])
def test_text(name, golden):
    func = {"dense": programs.dense(32, 48, 64), "softmax": programs.softmax(4, 30), "chain": programs.chain(100)}[name]
    golden(bare(lower_kernel(func, target="opencl").emitted.text))


def test_symbolic_sizes_make_the_grid():
    emitted = lower_kernel(programs.chain(var("n")), target="opencl").emitted
    (launch,) = emitted.launches
    assert "floordiv" in launch.blocks[0].op or "n" in str(launch.blocks[0])
    assert launch.threads == (64,)


def two_stages(shared: bool) -> Schedule:
    """b[i] = a[(i + 1) % 64] of a stage a = x * 2 that a group computes in memory of its own."""
    x = te.placeholder((256,), name="x")
    a = te.compute((256,), lambda i: x[i] * 2.0, name="a")
    b = te.compute((256,), lambda i: a[i - i % 64 + (i + 1) % 64], name="b")
    s = Schedule(te.create_prim_func("turned", [x], [b]))
    group, item = s["b"].split(s["b"].axis[0], 64)
    s["b"].bind(group, "blockIdx.x")
    s["b"].bind(item, "threadIdx.x")
    if shared:
        s["a"].compute_at(s["b"], group)
        s["a"].bind(s["a"].axis[0], "threadIdx.x")
    return s


def test_a_barrier_stands_between_writer_and_reader(golden):
    text = bare(lower_kernel(two_stages(shared=True), target="opencl").emitted.text)
    assert re.search(r"a\[.*\] = .*\n.*\n    barrier\(.*\);\n(.*\n)*?.*b\[", text)
    golden(text)


def test_a_group_s_memory_has_a_bound():
    x = te.placeholder((4, 16384), name="x")
    a = te.compute((4, 16384), lambda i, j: x[i, j] * 2.0, name="a")
    b = te.compute((4, 16384), lambda i, j: a[i, 16383 - j], name="b")
    s = Schedule(te.create_prim_func("reversed", [x], [b]))
    i, j = s["b"].axis
    s["b"].bind(i, "blockIdx.x")
    j_o, j_i = s["b"].split(j, 64)
    s["b"].bind(j_i, "threadIdx.x")
    s["a"].compute_at(s["b"], i)
    with pytest.raises(BuildError, match="65536 bytes.*more.*smaller tiles"):
        tl.build(s, target="opencl")


def test_groups_inside_a_loop_are_refused():
    """There is no way to wait for other groups."""
    s = Schedule(programs.chain(256))
    s["e"].compute_inline()
    outer, inner = s["out"].split(s["out"].axis[0], 64)
    s["out"].bind(inner, "blockIdx.x")
    with pytest.raises(BuildError, match=r"bound to blockIdx\.x inside of other statements.*have to be the outermost"):
        tl.build(s, target="opencl")


def test_items_of_open_extent_are_refused():
    s = Schedule(programs.chain(var("n")))
    s["e"].compute_inline()
    s["out"].bind(s["out"].axis[0], "threadIdx.x")
    with pytest.raises(BuildError, match=r"extent n is not constant; split it"):
        tl.build(s, target="opencl")


def test_without_pyopencl_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyopencl", None)
    devices.default_device.cache_clear()
    kernel = tl.build(programs.chain(8), target="opencl")
    assert "__kernel void chain" in kernel.source
    try:
        with pytest.raises(BuildError, match=r"needs pyopencl.*pip install 'tensorlang\[opencl\]'"):
            kernel(np.zeros(8, np.float32))
    finally:
        devices.default_device.cache_clear()


def test_an_unknown_device_is_an_error_that_lists_those_there_are(monkeypatch, device):
    monkeypatch.setenv("TENSORLANG_OPENCL", "no such device")
    devices.default_device.cache_clear()
    try:
        with pytest.raises(BuildError, match="no OpenCL device matches 'no such device'; there are: "):
            devices.default_device()
    finally:
        devices.default_device.cache_clear()


def test_a_group_does_not_change_what_it_branches_on():
    """Items that read the condition late would take the other way, and never reach the barrier."""
    flag, t = Buffer("flag", (const(1),), "i32"), var("t")
    inside = For(t, const(8), "threadIdx.x", Store(flag, (const(0),), const(0, "i32")))
    func = PrimFunc("f", (flag,), If(eq(load(flag, [0]), const(1, "i32")), inside))
    with pytest.raises(BuildError, match="depends on flag, which it changes"):
        emit_opencl_kernel(func)
