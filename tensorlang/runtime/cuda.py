"""Running CUDA programs with nothing but the driver: PTX loaded by libcuda through ctypes, one arena, one stream, one graph.

A program's launches are captured once as a CUDA graph; a run uploads its inputs, launches the graph and downloads its outputs.
"""

from __future__ import annotations

import ctypes
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Any

import numpy as np

from tensorlang.errors import BuildError, InputError
from tensorlang.runtime.device_array import DeviceArray, Given, given, is_on_device

_LIBRARIES = ("libcuda.so.1", "libcuda.so", "nvcuda.dll")
_Handle = ctypes.c_void_p
_Size = ctypes.c_size_t
_Word = ctypes.c_uint
# Names and argument types of the driver's functions that are used (CUDA driver API 11.4 and later).
_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "cuInit": (_Word,),
    "cuDeviceGet": (ctypes.c_void_p, ctypes.c_int),
    "cuDeviceGetName": (ctypes.c_char_p, ctypes.c_int, ctypes.c_int),
    "cuDevicePrimaryCtxRetain": (ctypes.c_void_p, ctypes.c_int),
    "cuCtxSetCurrent": (_Handle,),
    "cuGetErrorString": (ctypes.c_int, ctypes.c_void_p),
    "cuModuleLoadDataEx": (ctypes.c_void_p, ctypes.c_char_p, _Word, ctypes.c_void_p, ctypes.c_void_p),
    "cuModuleGetFunction": (ctypes.c_void_p, _Handle, ctypes.c_char_p),
    "cuFuncSetAttribute": (_Handle, ctypes.c_int, ctypes.c_int),
    "cuMemAlloc_v2": (ctypes.c_void_p, _Size),
    "cuMemFree_v2": (ctypes.c_uint64,),
    "cuMemcpyHtoDAsync_v2": (ctypes.c_uint64, ctypes.c_void_p, _Size, _Handle),
    "cuMemcpyDtoHAsync_v2": (ctypes.c_void_p, ctypes.c_uint64, _Size, _Handle),
    "cuMemcpyDtoDAsync_v2": (ctypes.c_uint64, ctypes.c_uint64, _Size, _Handle),
    "cuDeviceGetAttribute": (ctypes.c_void_p, ctypes.c_int, ctypes.c_int),
    "cuDriverGetVersion": (ctypes.c_void_p,),
    "cuEventCreate": (ctypes.c_void_p, _Word),
    "cuEventRecord": (_Handle, _Handle),
    "cuEventSynchronize": (_Handle,),
    "cuEventElapsedTime": (ctypes.c_void_p, _Handle, _Handle),
    "cuEventDestroy_v2": (_Handle,),
    "cuStreamCreate": (ctypes.c_void_p, _Word),
    "cuStreamSynchronize": (_Handle,),
    "cuStreamBeginCapture_v2": (_Handle, ctypes.c_int),
    "cuStreamEndCapture": (_Handle, ctypes.c_void_p),
    "cuGraphInstantiateWithFlags": (ctypes.c_void_p, _Handle, ctypes.c_ulonglong),
    "cuGraphLaunch": (_Handle, _Handle),
    "cuGraphDestroy": (_Handle,),
    "cuGraphExecDestroy": (_Handle,),
    "cuLaunchKernel": (_Handle, *([_Word] * 7), _Handle, ctypes.c_void_p, ctypes.c_void_p),
}
_LOG_BUFFER, _LOG_SIZE = 5, 6  # CU_JIT_ERROR_LOG_BUFFER and its size
_LOG_BYTES = 8192
# CUdevice_attribute
_ATTRIBUTES = {
    "multiprocessors": 16, "clock_khz": 13, "memory_clock_khz": 36, "memory_bus_bits": 37, "l2_bytes": 38,
    "capability_major": 75, "capability_minor": 76, "shared_bytes_optin": 97,
}  # fmt: skip
_CAPTURE_THREAD_LOCAL = 1
_MOST_DYNAMIC_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
_DYNAMIC_SHARED = re.compile(r"^// bytes of dynamic shared memory: (\d+)$", re.MULTILINE)  # what `codegen.cuda.ptx` writes
ALIGNMENT = 16  # of arrays of which vectors are read
MOST_GRAPHS = 16  # that are kept, of programs over memory that others give


@dataclass(frozen=True)
class Function:
    """A loaded function, and the bytes of shared memory that a launch has to give it."""

    handle: Any
    shared_bytes: int = 0


class Device:
    """The first device, its primary context, and one stream on which everything runs.

    Args:
        library: libcuda, or what behaves like it.

    Raises:
        BuildError: the driver has no device.
    """

    def __init__(self, library: Any):
        self._library = library
        for name, types in _FUNCTIONS.items():
            function = getattr(library, name)
            function.argtypes, function.restype = types, ctypes.c_int
        self.lock = threading.Lock()
        self._call("cuInit", 0)
        number = ctypes.c_int()
        self._call("cuDeviceGet", ctypes.byref(number), 0)
        self._number = number
        self._context = _Handle()
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), number)
        self.enter()
        self.stream = _Handle()
        self._call("cuStreamCreate", ctypes.byref(self.stream), 1)
        text = ctypes.create_string_buffer(256)
        self._call("cuDeviceGetName", text, 256, number)
        self.name = text.value.decode(errors="replace")

    def _call(self, name: str, *args: Any) -> None:
        status = getattr(self._library, name)(*args)
        if status:
            said = ctypes.c_char_p()
            self._library.cuGetErrorString(status, ctypes.byref(said))
            raise BuildError(f"CUDA: {name} fails with {status} ({(said.value or b'unknown').decode()})")

    def enter(self) -> None:
        """Make the context this thread's."""
        self._call("cuCtxSetCurrent", self._context)

    def functions(self, ptx: Mapping[str, str]) -> dict[str, Function]:
        """The functions of PTX modules, one per module, by name.

        Raises:
            BuildError: the driver refuses one; the message holds its log.
        """
        found = {}
        for name, text in ptx.items():
            log = ctypes.create_string_buffer(_LOG_BYTES)
            options = (ctypes.c_int * 2)(_LOG_BUFFER, _LOG_SIZE)
            values = (ctypes.c_void_p * 2)(ctypes.addressof(log), _LOG_BYTES)
            module, function = _Handle(), _Handle()
            try:
                self._call("cuModuleLoadDataEx", ctypes.byref(module), text.encode() + b"\0", 2, options, values)
            except BuildError as error:
                raise BuildError(f"{name}: {error}\n{log.value.decode(errors='replace')}") from error
            self._call("cuModuleGetFunction", ctypes.byref(function), module, name.encode())
            asked = _DYNAMIC_SHARED.search(text)
            shared = int(asked[1]) if asked else 0
            if shared:
                self._call("cuFuncSetAttribute", function, _MOST_DYNAMIC_SHARED, shared)
            found[name] = Function(function, shared)
        return found

    def allocate(self, nbytes: int) -> int:
        """Address of new memory of the device; never empty."""
        address = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(address), max(nbytes, 64))
        return address.value

    def free(self, address: int) -> None:
        self._call("cuMemFree_v2", address)

    def upload(self, array: np.ndarray, address: int) -> None:
        """Put a copy of a C-contiguous array into the stream."""
        if array.nbytes:
            self._call("cuMemcpyHtoDAsync_v2", address, array.ctypes.data, array.nbytes, self.stream)

    def download(self, address: int, array: np.ndarray) -> None:
        if array.nbytes:
            self._call("cuMemcpyDtoHAsync_v2", array.ctypes.data, address, array.nbytes, self.stream)

    def launch(self, function: Function, words: Sequence[int], blocks: Sequence[int], threads: Sequence[int]) -> None:
        """Put one launch into the stream; every argument is a 64-bit word. Nothing where there is no block."""
        if any(n < 1 for n in blocks):
            return
        values = (ctypes.c_int64 * max(1, len(words)))(*words)
        places = (ctypes.c_void_p * max(1, len(words)))(*(ctypes.addressof(values) + 8 * n for n in range(len(words))))
        grid, block = (list(n) + [1] * (3 - len(n)) for n in (blocks, threads))
        self._call("cuLaunchKernel", function.handle, *grid, *block, function.shared_bytes, self.stream, places, None)

    def capture(self, work: Callable[[], None]) -> Any:
        """What `work` puts into the stream, as a graph that is launched at once."""
        self._call("cuStreamBeginCapture_v2", self.stream, _CAPTURE_THREAD_LOCAL)
        graph, instance = _Handle(), _Handle()
        try:
            work()
        finally:
            self._call("cuStreamEndCapture", self.stream, ctypes.byref(graph))
        self._call("cuGraphInstantiateWithFlags", ctypes.byref(instance), graph, 0)
        self._call("cuGraphDestroy", graph)
        return instance

    def forget(self, instance: Any) -> None:
        """Give back what a captured graph takes."""
        self._call("cuGraphExecDestroy", instance)

    def replay(self, instance: Any) -> None:
        self._call("cuGraphLaunch", instance, self.stream)

    def wait(self, stream: int | None = None) -> None:
        """Until everything in the stream (or in another one, by its handle) is done."""
        self._call("cuStreamSynchronize", self.stream if stream is None else _Handle(stream))

    def copy(self, source: int, target: int, nbytes: int) -> None:
        """Put a copy within the device's memory into the stream."""
        self._call("cuMemcpyDtoDAsync_v2", target, source, nbytes, self.stream)

    def times(self, work: Callable[[], None], runs: int) -> list[float]:
        """Milliseconds, between events of the device, that each of `runs` times of what `work` puts into the stream takes."""
        events = [_Handle() for _ in range(runs + 1)]
        try:
            for event in events:
                self._call("cuEventCreate", ctypes.byref(event), 0)
            self._call("cuEventRecord", events[0], self.stream)
            for event in events[1:]:
                work()
                self._call("cuEventRecord", event, self.stream)
            self._call("cuEventSynchronize", events[-1])
            found = []
            for begin, end in zip(events, events[1:], strict=False):
                took = ctypes.c_float()
                self._call("cuEventElapsedTime", ctypes.byref(took), begin, end)
                found.append(float(took.value))
            return found
        finally:
            for event in events:
                if event:
                    self._call("cuEventDestroy_v2", event)

    def describe(self) -> dict[str, Any]:
        """The device's name, the driver's CUDA version (13000 is 13.0) and what the driver says of clocks, memory and units."""
        found: dict[str, Any] = {"name": self.name}
        number = ctypes.c_int()
        self._call("cuDriverGetVersion", ctypes.byref(number))
        found["cuda_version"] = number.value
        for name, code in _ATTRIBUTES.items():
            value = ctypes.c_int()
            self._call("cuDeviceGetAttribute", ctypes.byref(value), code, self._number)
            found[name] = value.value
        return found


@cache
def default_device() -> Device:
    """The first CUDA device.

    Raises:
        BuildError: there is no driver, or it has no device.
    """
    for name in _LIBRARIES:
        try:
            return Device(ctypes.CDLL(name))
        except OSError:
            continue
    raise BuildError("target 'cuda' needs NVIDIA's driver to run (libcuda is not found); what is compiled can be saved")


class CudaRunner:
    """Runs a model that was compiled to CUDA, one call at a time: its memory is kept between calls."""

    def __init__(self, artifact: Any, settings: Any, device: Device | None = None):
        self.artifact = artifact
        self._device = device
        self._lock = threading.Lock()
        self._program: DeviceProgram | None = None

    def main(self, frame: Any) -> int:
        """Run the whole program; its status."""
        with self._lock:
            if self._program is None:
                self._program = DeviceProgram(self._device or default_device(), self.artifact)
            self._program.run(frame.input_arrays, frame.output_arrays)
        return 0

    def on_device(self, arrays: Sequence[Any], out: Mapping[int, Any]) -> list[DeviceArray | Any] | None:
        """Run on arrays of which some lie in the device's memory (others are copied there): results that lie there too, or
        those of `out`, by number. None if all are on the host.

        Raises:
            InputError: one has another type or shape, or is not contiguous.
        """
        if not any(map(is_on_device, (*arrays, *out.values()))):
            return None
        with self._lock:
            if self._program is None:
                self._program = DeviceProgram(self._device or default_device(), self.artifact)
            return self._program.run_there(arrays, out)

    def take(self, frame: Any, output: int, nbytes: int) -> np.ndarray:
        raise BuildError("a CUDA program allocates no outputs")

    def step(self, kernel: str, frame: Any, arguments: Sequence[tuple[str, int]]) -> Callable[[], None]:
        raise BuildError("the launches of a CUDA program are one graph; they are not made one by one")


class DeviceProgram:
    """A program on a device: arena, weights, places for inputs and outputs, and the graph of its launches."""

    def __init__(self, device: Device, artifact: Any):
        manifest, plan = artifact.manifest, artifact.manifest["device"]
        self.device = device
        with device.lock:
            device.enter()
            functions = device.functions(plan["code"])
            arena = device.allocate(plan["arena_bytes"])
            weights = device.allocate(artifact.weights.nbytes)
            device.upload(np.ascontiguousarray(artifact.weights), weights)
            self.functions = functions
            self.launches = plan["launches"]
            self.entries = manifest["inputs"], manifest["outputs"]
            self.inputs = [device.allocate(_nbytes(entry)) for entry in manifest["inputs"]]
            self.outputs = [device.allocate(_nbytes(entry)) for entry in manifest["outputs"]]
            self.memory = [arena, weights, *self.inputs, *self.outputs]
            self.places = {"arena": arena, "weight": weights}
            device.wait()  # the weights are there
            self.graph = self._captured(self.inputs, self.outputs)
        # Graphs over memory that others gave, by addresses; the one that was used last comes last.
        self.graphs: dict[tuple[int, ...], Any] = {}

    def _captured(self, inputs: Sequence[int], outputs: Sequence[int]) -> Any:
        """The graph of all launches, with inputs and outputs at these addresses."""
        given = {"input": inputs, "output": outputs}

        def word(place: str, n: int, shift: int) -> int:
            if place in given:
                return given[place][n] + shift
            return n if place == "size" else n + shift + self.places["arena" if place == "arena" else "weight"]

        def everything() -> None:
            for launch in self.launches:
                words = [word(*a) for a in launch["args"]]
                self.device.launch(self.functions[launch["function"]], words, launch["blocks"], launch["threads"])

        return self.device.capture(everything)

    def run(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> None:
        device = self.device
        with device.lock:
            device.enter()
            self.upload(inputs)
            device.replay(self.graph)
            for address, array in zip(self.outputs, outputs, strict=True):
                device.download(address, array)
            device.wait()

    def run_there(self, arrays: Sequence[Any], out: Mapping[int, Any]) -> list[Any]:
        """As `CudaRunner.on_device`. Memory that is given is read and written where it is; the run is over when this returns,
        so that its owner may free it. For each set of addresses a graph is captured once."""
        device = self.device
        with device.lock:
            device.enter()
            addresses: list[int] = []
            kept: list[Any] = []  # until the run is over
            for array, entry, own in zip(arrays, self.entries[0], self.inputs, strict=True):
                if not is_on_device(array):
                    array = np.ascontiguousarray(array)
                    _check(entry, array.shape, array.dtype.name)
                    device.upload(array, own)
                    kept.append(array)
                    addresses.append(own)
                    continue
                found = self._given(array, entry)
                kept.append(found)
                if found.address % ALIGNMENT:  # kernels count on it
                    device.copy(found.address, own, _nbytes(entry))
                addresses.append(own if found.address % ALIGNMENT else found.address)
            results: list[Any] = []
            targets = []
            for k, entry in enumerate(self.entries[1]):
                if k in out:
                    found = self._given(out[k], entry)
                    if found.address % ALIGNMENT:
                        raise InputError(f"output {entry['name']} has to begin at a multiple of {ALIGNMENT} bytes")
                    results.append(out[k])
                    targets.append(found.address)
                    kept.append(found)
                else:
                    results.append(DeviceArray(device, tuple(entry["shape"]), entry["dtype"]))
                    targets.append(results[-1].address)
            if {*targets} & {*addresses}:
                raise InputError("an output shares memory with an input")
            key = (*addresses, *targets)
            graph = self.graphs.pop(key) if key in self.graphs else self._captured(addresses, targets)
            self.graphs[key] = graph
            if len(self.graphs) > MOST_GRAPHS:
                device.forget(self.graphs.pop(next(iter(self.graphs))))
            device.replay(graph)
            device.wait()
            return results

    def _given(self, array: Any, entry: Mapping[str, Any]) -> Given:
        found = given(array, entry["name"], self.device.stream.value or 0, self.device.wait)
        _check(entry, found.shape, found.dtype)
        return found

    def upload(self, inputs: Sequence[np.ndarray]) -> None:
        """Put copies of the inputs into the stream; the arrays have to live until it is through."""
        for address, array in zip(self.inputs, map(np.ascontiguousarray, inputs), strict=True):
            self.device.upload(array, address)

    def free(self) -> None:
        """Give the device's memory back; the program runs no more."""
        graphs, self.graphs = getattr(self, "graphs", {}), {}
        for graph in graphs.values():
            self.device.forget(graph)
        memory, self.memory = getattr(self, "memory", []), []
        for address in memory:
            self.device.free(address)

    def __del__(self) -> None:
        try:
            self.free()
        except BuildError:  # the process is ending, and the context is gone
            pass


def _check(entry: Mapping[str, Any], shape: tuple[int, ...], dtype: str) -> None:
    if tuple(entry["shape"]) != shape or entry["dtype"] != dtype:
        wanted = f"{entry['dtype']}{list(entry['shape'])}"
        raise InputError(f"{entry['name']} is {wanted}, and an array of {dtype}{list(shape)} is given")


def _nbytes(entry: Mapping[str, Any]) -> int:
    try:
        size = np.dtype(entry["dtype"]).itemsize
    except TypeError:  # bfloat16, which NumPy does not know by itself
        size = 2
    return int(prod(entry["shape"])) * size
