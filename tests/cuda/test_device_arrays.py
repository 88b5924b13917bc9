"""Arrays in a device's memory go in and out without copies: DLPack and the CUDA array interface, against a stand-in."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

import pytest

import tensorlang as tl
from tensorlang.errors import InputError
from tensorlang.runtime.cuda import CudaRunner, Device
from tensorlang.runtime.device_array import DeviceArray, given, is_on_device
from tensorlang.runtime.executable import Executable
from tests.cuda.test_cuda import RecordingDriver, f, graph_of

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed: pip install 'tensorlang[cuda]'")


class Driver(RecordingDriver):
    """Gives memory at addresses of its own, and notes what kernels are launched on."""

    def __init__(self) -> None:
        super().__init__()
        self.next, self.launched, self.freed = 1 << 20, [], []

    def __getattr__(self, name: str) -> Any:
        noted = super().__getattr__(name)
        if name == "cuMemAlloc_v2" and not hasattr(noted, "real"):

            def allocate(address: Any, size: int) -> int:
                noted()
                address._obj.value = self.next
                self.next += -(-size // 256) * 256
                return 0

            allocate.real = True
            self._functions[name] = allocate
        if name == "cuLaunchKernel" and not hasattr(noted, "real"):

            def launch(*args: Any) -> int:
                noted()
                places = args[9]
                self.launched.append([ctypes.c_int64.from_address(p).value for p in places])
                return 0

            launch.real = True
            self._functions[name] = launch
        return self._functions[name]


@pytest.fixture
def ready():
    driver = Driver()
    device = Device(driver)
    device.stream.value = 77
    artifact = tl.compile(graph_of("add", [f(8, 8), f(8, 8)]), target="cuda")._artifact
    return driver, device, Executable(artifact, CudaRunner(artifact, None, device))


def test_memory_is_used_where_it_is(ready):
    driver, device, exe = ready
    a, b = DeviceArray(device, (8, 8), "float32"), DeviceArray(device, (8, 8), "float32")
    driver.calls.clear()
    y = exe(a, b)
    assert isinstance(y, DeviceArray) and y.shape == (8, 8)
    assert not [c for c in driver.calls if c.startswith(("cuMemcpyDtoH", "cuMemcpyDtoD"))]
    assert driver.launched[-1] == [a.address, b.address, y.address]
    captured = driver.calls.count("cuStreamBeginCapture_v2")
    out = exe.run({"x0": a, "x1": b}, out={"y0": y})["y0"]
    assert out is y and driver.calls.count("cuStreamBeginCapture_v2") == captured  # the same addresses: the same graph
    assert driver.calls[-1] == "cuStreamSynchronize"


def test_arrays_of_the_host_beside_them_are_copied(ready):
    driver, device, exe = ready
    a = DeviceArray(device, (8, 8), "float32")
    exe(a, f(8, 8))
    driver.calls.clear()
    exe(a, f(8, 8))
    assert driver.calls.count("cuMemcpyHtoDAsync_v2") == 1 and "cuMemcpyDtoHAsync_v2" not in driver.calls


def test_who_gives_it_orders_its_writes_before_ours(ready):
    _, device, exe = ready
    asked = []
    mine = DeviceArray(device, (8, 8), "float32")

    class Tensor:  # torch's and cupy's are like this
        def __dlpack_device__(self) -> tuple[int, int]:
            return 2, 0

        def __dlpack__(self, stream: int) -> Any:
            asked.append(stream)
            return mine.__dlpack__()

    exe(Tensor(), mine)
    assert asked == [77]


def test_the_cuda_array_interface(ready):
    driver, device, exe = ready
    a = DeviceArray(device, (8, 8), "float32")
    other = SimpleNamespace(__cuda_array_interface__={**a.__cuda_array_interface__, "stream": 5})
    assert is_on_device(other) and not is_on_device(f(2)) and not is_on_device(3.0)
    y = exe(other, a)
    assert driver.launched[-1][0] == a.address and y.__cuda_array_interface__["typestr"] == "<f4"
    turned = SimpleNamespace(__cuda_array_interface__={**a.__cuda_array_interface__, "strides": (4, 32)})
    with pytest.raises(InputError, match="not contiguous"):
        exe(turned, a)


def test_what_does_not_begin_at_a_vector_is_copied_within_the_device(ready):
    driver, device, exe = ready
    a = DeviceArray(device, (8, 8), "float32")
    entry = {**a.__cuda_array_interface__, "data": (a.address + 4, False)}
    driver.calls.clear()
    exe(SimpleNamespace(__cuda_array_interface__=entry), a)
    assert driver.calls.count("cuMemcpyDtoDAsync_v2") == 1 and driver.launched[-1][0] % 16 == 0


@pytest.mark.parametrize(("shape", "dtype"), [((8, 4), "float32"), ((8, 8), "float16")], ids=str)
def test_other_shapes_and_types_are_refused(ready, shape, dtype):
    _, device, exe = ready
    with pytest.raises(InputError, match=r"x1 is float32\[8, 8\]"):
        exe(DeviceArray(device, (8, 8), "float32"), DeviceArray(device, shape, dtype))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int64", "uint8", "bool"])
def test_capsules_say_what_they_hold(ready, dtype):
    driver, device, _ = ready
    array = DeviceArray(device, (2, 3), dtype)
    found = given(array, "x", 0, lambda stream: None)
    assert (found.address, found.shape, found.dtype) == (array.address, (2, 3), dtype)
    del array
    assert "cuMemFree_v2" not in driver.calls  # the capsule keeps it
    del found
    assert driver.calls.count("cuMemFree_v2") == 1
