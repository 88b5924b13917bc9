"""Arrays, devices, targets, and functions known by name."""

from __future__ import annotations

import numpy as np
import pytest

import tensorlang.interop.tvm as tvm
from tensorlang.errors import InputError


def test_arrays_are_copies_and_aligned():
    x = np.arange(6, dtype="float32").reshape(2, 3)
    a = tvm.nd.array(x, tvm.cpu(0))
    x[0, 0] = 9
    assert a.numpy()[0, 0] == 0 and a.shape == (2, 3) and a.dtype == "float32" and a.device == tvm.cpu(0)
    assert a._data.ctypes.data % 64 == 0
    a.numpy()[0, 1] = 9
    np.testing.assert_array_equal(a.asnumpy(), np.arange(6, dtype="float32").reshape(2, 3))
    np.testing.assert_array_equal(np.from_dlpack(a), a.numpy())
    np.testing.assert_array_equal(np.asarray(a), a.numpy())


def test_copies_between_arrays():
    a, b = tvm.nd.array([1.0, 2.0]), tvm.nd.empty((2,), "float64")
    a.copyto(b)
    np.testing.assert_array_equal(b.numpy(), [1, 2])
    c = a.copyto(tvm.cuda(0))
    assert c.device == tvm.cuda(0) and c is not a
    b[0] = 7
    assert b[0] == 7 and len(b) == 2
    with pytest.raises(InputError, match=r"shape \(2,\) into one of shape \(3,\)"):
        a.copyto(tvm.nd.empty((3,)))
    with pytest.raises(InputError, match="float64 into int32"):
        tvm.nd.empty((2,), "int32").copyfrom(np.zeros(2))
    with pytest.raises(InputError, match="needs numbers"):
        tvm.nd.array([None])


def test_devices_by_the_names_of_targets():
    assert tvm.device("llvm", 0) == tvm.cpu() and tvm.device("llvm -mcpu=x", 0) == tvm.cpu()
    assert tvm.device("cuda", 1) == tvm.gpu(1) and str(tvm.cl(0)) == "opencl(0)"
    assert tvm.cuda(0).exist
    with pytest.raises(InputError, match="no kind of device 'tpu'"):
        tvm.device("tpu")


def test_targets():
    target = tvm.target.Target("llvm -mcpu=core-avx2", host="llvm")
    assert target.kind.name == "llvm" and target.mcpu == "core-avx2" and target.host.kind.name == "llvm"
    assert tvm.target.Target.current() is None
    with tvm.target.cuda():
        assert tvm.target.Target.current().kind.name == "cuda"
    assert tvm.target.Target.current() is None
    assert tvm.target.Target({"kind": "cuda", "arch": "sm_90"}).attrs == {"arch": "sm_90"}
    with pytest.raises(InputError, match="no target is current"):
        tvm.target.Target.current(allow_none=False)
    with pytest.raises(InputError, match="no kind of target ''"):
        tvm.target.Target("")


def test_functions_by_name():
    @tvm.register_func("test.double")
    def double(x):
        return 2 * x

    try:
        assert tvm.get_global_func("test.double")(4) == 8
        assert "test.double" in tvm.list_global_func_names()
        with pytest.raises(InputError, match="registered already"):
            tvm.register_func("test.double", double)
        tvm.register_func("test.double", lambda x: 3 * x, override=True)
        assert tvm.get_global_func("test.double")(4) == 12
    finally:
        tvm.registry.remove_global_func("test.double")
    assert tvm.get_global_func("test.double", allow_missing=True) is None
    with pytest.raises(InputError, match="no function is registered"):
        tvm.get_global_func("test.double")


def test_assert_allclose_compares_shapes():
    tvm.testing.assert_allclose(np.ones(3), np.ones(3))
    with pytest.raises(AssertionError):
        tvm.testing.assert_allclose(np.ones(3), 1.0)
    with pytest.raises(AssertionError):
        tvm.testing.assert_allclose(np.ones(3), np.full(3, 1.1), rtol=1e-3)
