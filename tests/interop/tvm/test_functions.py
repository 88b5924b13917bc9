"""Built functions: arguments, sources, timing, files."""

from __future__ import annotations

import numpy as np
import pytest

import tensorlang.interop.tvm as tvm
from tensorlang.errors import ArtifactError, InputError
from tensorlang.interop.tvm import te
from tensorlang.interop.tvm.contrib import cc, utils


def sum_of_two(n=None):
    n = te.var("n") if n is None else n
    a, b = te.placeholder((n,), name="a"), te.placeholder((n,), name="b")
    c = te.compute(a.shape, lambda i: a[i] + b[i], name="c")
    return a, b, c, te.create_schedule(c.op)


def arrays(*sizes):
    random = np.random.default_rng(0)
    return [tvm.nd.array(random.uniform(size=n).astype("float32")) for n in sizes]


def test_arguments_come_in_the_order_of_build():
    a, b, c, s = sum_of_two()
    function = tvm.build(s, [c, b, a], name="add")
    x, y, z = arrays(5, 5, 5)
    assert function(z, y, x) is None
    np.testing.assert_array_equal(z.numpy(), x.numpy() + y.numpy())
    assert function.entry_name == "add" and function["add"] is function
    assert "def add(ctx, " in function.get_source()


def test_symbolic_sizes_are_checked_at_the_call():
    a, b, c, s = sum_of_two()
    function = tvm.build(s, [a, b, c])
    for n in (3, 100):
        x, y, z = arrays(n, n, n)
        function(x, y, z)
        np.testing.assert_array_equal(z.numpy(), x.numpy() + y.numpy())
    with pytest.raises(InputError, match="must be n = 3, got 4"):
        function(*arrays(3, 4, 3))
    with pytest.raises(InputError, match=r"shape \(3,\)"):
        function(*arrays(3, 3, 4))


def test_misuse_of_the_arguments_of_build():
    a, b, c, s = sum_of_two()
    for given, reason in [
        ([a, c], "reads b, which is not among the arguments"),
        ([a, b], "no output is among the arguments: add c"),
        ([a, b, c, c], "c is given twice"),
        ([a, b, c, te.compute((3,), lambda i: 1.0, name="d")], "d has no part in the schedule"),
        ([a, b, "c"], "arguments are tensors and variables, not str"),
    ]:
        with pytest.raises(InputError, match=reason):
            tvm.build(s, given)
    cached = s.cache_write(c, "local")
    with pytest.raises(InputError, match="c_local was made by the schedule"):
        tvm.build(s, [a, b, c, cached])
    with pytest.raises(InputError, match="args= is missing"):
        tvm.build(s)
    with pytest.raises(InputError, match="no kind of target 'avr'"):
        tvm.build(s, [a, b, c], "avr")


def test_a_tensor_that_exists_only_inside_a_loop_is_no_argument():
    a = te.placeholder((8,), name="a")
    b = te.compute((8,), lambda i: a[i] + 1, name="b")
    c = te.compute((8,), lambda i: b[i] * 2, name="c")
    s = te.create_schedule(c.op)
    both = tvm.build(s, [a, b, c])  # at the root it is an output like any other
    x, y, z = arrays(8, 8, 8)
    both(x, y, z)
    np.testing.assert_array_equal(y.numpy(), x.numpy() + 1)
    s[b].compute_at(s[c], c.op.axis[0])
    assert "b: f32[8], c" not in str(tvm.lower(s, [a, b, c]))
    with pytest.raises(InputError, match="b exists only inside a loop"):
        tvm.build(s, [a, b, c])
    s[b].compute_inline()
    with pytest.raises(InputError, match="b is computed inline"):
        tvm.build(s, [a, b, c])


def test_scalars_and_sizes_as_arguments():
    n, bias = te.var("n"), te.var("bias", dtype="float32")
    a = te.placeholder((n,), name="a")
    b = te.compute((n,), lambda i: a[i] + bias, name="b")
    function = tvm.build(te.create_schedule(b.op), [n, a, b, bias])
    x, y = arrays(6, 6)
    function(6, x, y, 2.5)
    np.testing.assert_array_equal(y.numpy(), x.numpy() + np.float32(2.5))
    with pytest.raises(InputError, match="n is 7, but a has it as 6"):
        function(7, x, y, 2.5)
    with pytest.raises(InputError, match=r"argument 3 \(bias\) is a number"):
        function(6, x, y, x)
    with pytest.raises(InputError, match="uses the variable bias, which is not among the arguments"):
        tvm.build(te.create_schedule(b.op), [a, b])


def test_an_input_that_nothing_reads():
    a, b, c, s = sum_of_two(4)
    x, y, z = arrays(4, 4, 4)
    tvm.build(s, [te.placeholder((2,), name="unused"), a, b, c])(tvm.nd.empty((2,)), x, y, z)
    np.testing.assert_array_equal(z.numpy(), x.numpy() + y.numpy())


def test_misuse_of_a_call():
    a, b, c, s = sum_of_two(4)
    function = tvm.build(s, [a, b, c], name="add")
    x, y, z = arrays(4, 4, 4)
    with pytest.raises(InputError, match=r"add takes 3 argument\(s\) \(a, b, c\), got 2"):
        function(x, y)
    with pytest.raises(InputError, match=r"argument 1 \(b\) is an array"):
        function(x, 3, z)
    with pytest.raises(InputError, match=r"argument 1 \(b\) has elements of float32, got float64"):
        function(x, tvm.nd.array(np.zeros(4)), z)
    with pytest.raises(InputError, match="no function 'other'"):
        function["other"]
    with pytest.raises(InputError, match="no format"):
        function.get_source("cu")


def test_lower_then_build_is_the_same_function():
    a, b, c, s = sum_of_two(4)
    lowered = tvm.lower(s, [a, b, c], name="add")
    assert str(lowered).count("for i in range(4)") == 1 and lowered["add"].name == "add"
    x, y, z = arrays(4, 4, 4)
    tvm.build(lowered, target="llvm")(x, y, z)
    np.testing.assert_array_equal(z.numpy(), x.numpy() + y.numpy())


def test_time_evaluator_counts_and_repeats():
    a, b, c, s = sum_of_two(4)
    function = tvm.build(s, [a, b, c])
    x, y, z = arrays(4, 4, 4)
    result = function.time_evaluator(function.entry_name, tvm.cpu(0), number=3, repeat=4)(x, y, z)
    assert len(result.results) == 4 and 0 < result.min <= result.median <= result.max and result.mean > 0
    np.testing.assert_array_equal(z.numpy(), x.numpy() + y.numpy())


def test_sources_of_host_and_device():
    a, b, c, s = sum_of_two(64)
    assert tvm.build(s, [a, b, c]).imported_modules == []
    (device,) = tvm.build(s, [a, b, c], tvm.target.Target("opencl", host="llvm")).imported_modules
    assert device.type_key == "opencl" and "for i in range(64)" in device.get_source()
    assert "define" in device.get_source("ll")


def test_save_bundle_load(tmp_path):
    a, b, c, s = sum_of_two()
    outer, inner = s[c].split(c.op.axis[0], factor=8)
    s[c].vectorize(inner)
    function = tvm.build(s, [a, b, c], name="add")
    temp = utils.tempdir(str(tmp_path / "made"))
    function.save(temp.relpath("add.o"))
    cc.create_shared(temp.relpath("add.so"), [temp.relpath("add.o")])
    function.export_library(temp.relpath("packed.so"))
    assert temp.listdir() == ["add.o", "add.so", "packed.so"]
    for name in temp.listdir():
        loaded = tvm.runtime.load_module(temp.relpath(name))
        x, y, z = arrays(13, 13, 13)
        loaded(x, y, z)
        np.testing.assert_array_equal(z.numpy(), x.numpy() + y.numpy())
        assert loaded.get_source() == function.get_source()
    with pytest.raises(ArtifactError, match="one function here"):
        cc.create_shared(temp.relpath("both.so"), [temp.relpath("add.o"), temp.relpath("packed.so")])
    (tmp_path / "broken.so").write_bytes(b"\x7fELF")
    with pytest.raises(ArtifactError):
        tvm.runtime.load_module(tmp_path / "broken.so")
    with pytest.raises(ArtifactError, match="no such file"):
        tvm.runtime.load_module(tmp_path / "missing.so")


def test_a_temporary_folder_goes_with_its_object():
    temp = utils.tempdir()
    path = tvm.contrib.utils.Path(temp.relpath("x"))
    path.write_text("x")
    assert temp.listdir() == ["x"]
    temp.remove()
    assert not path.parent.exists()
