"""A compiled model in this process: `Executable`. It knows the manifest and machine code, and nothing of the compiler.

The manifest (JSON-able):

    dims            names of the model's open dimensions, in the order in which `main` takes them
    told            names of dimensions that `main` finds out, which follow them in its table
    checks          what the statuses 1, 2, ... of `main` mean
    inputs outputs  name, dtype (NumPy's name), shape (see `runtime.sizes`); outputs whose shape mentions what `main`
                    finds out come in memory that it allocates
    constraints     [size, size, node]: pairs that must be equal for the node to mean anything
    arena_bytes     memory that a run needs, a size
    signatures      declared parameter types of `main` and of every kernel
    steps           the calls that `main` makes: kernel, label, args, flops, bytes; an argument is (place, size), where
                    place is "arena" or "weights" (byte offset), "input" or "output" (its number), "size" (an integer);
                    empty where control flow decides what is called
    calls           then, the calls in the text of `main`: kernel, label, flops, bytes, by the names of its variables
"""

from __future__ import annotations

import ctypes
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol

import numpy as np

from tensorlang.errors import ArtifactError, InputError, OutOfMemoryError
from tensorlang.runtime import sizes
from tensorlang.runtime.address import address_of
from tensorlang.runtime.artifact import Artifact, aligned_bytes, write_artifact
from tensorlang.runtime.binding import Binding
from tensorlang.runtime.context import context_address, install, release
from tensorlang.runtime.loader import check_status, load_library
from tensorlang.runtime.profile import Profile
from tensorlang.runtime.profile_calls import profile_calls

MAIN = "main"
_NOTHING: tuple[np.ndarray, ...] = ()
_NO_ARRAYS: dict[int, np.ndarray] = {}
_BYTES = np.dtype(np.uint8)
_EMPTY, _NDARRAY = np.empty, np.ndarray
_WHOLE = {"kernel": "main", "label": "the whole program"}
_MOST_BYTES = 1 << 47  # a process has no more addresses than that
_REMEMBERED_SHAPES = 64  # how many combinations of open dimensions keep their plan


@dataclass(frozen=True)
class TensorInfo:
    """A model's input or output.

    Attributes:
        dtype: NumPy's name, such as "float32".
        shape: a size or, for an open dimension, its name or formula.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}[{', '.join(map(str, self.shape))}]"


class Runner(Protocol):
    """How a program's functions are called."""

    def main(self, frame: Frame) -> int:
        """Run the whole program; its status."""

    def take(self, frame: Frame, output: int, nbytes: int) -> np.ndarray:
        """The bytes of an output that the program allocated, which is freed."""

    def step(self, kernel: str, frame: Frame, arguments: Sequence[tuple[str, int]]) -> Callable[[], None]: ...


class Frame:
    """The memory of one run: arena and tables of addresses. Frames are reused, never shared by two runs at a time."""

    def __init__(self, num_inputs: int, num_outputs: int, num_dims: int, weights: np.ndarray):
        self.weights = weights
        self.arena = aligned_bytes(0)
        self.arena_bytes = 0
        self.input_arrays: Sequence[np.ndarray] = _NOTHING
        self.output_arrays: Sequence[np.ndarray] = _NOTHING
        self.inputs = (ctypes.c_int64 * max(1, num_inputs))()
        self.outputs = (ctypes.c_int64 * max(1, num_outputs))()
        self.dims = (ctypes.c_int64 * max(1, num_dims))()
        self.arguments = self._arguments()

    def grow(self, nbytes: int) -> None:
        """A larger arena."""
        self.arena = aligned_bytes(nbytes)
        self.arena_bytes = nbytes
        self.arguments = self._arguments()

    def _arguments(self) -> tuple[Any, ...]:
        """What `main` takes after the context; the addresses stay valid as long as the frame lives."""
        tables = (ctypes.c_void_p(ctypes.addressof(t)) for t in (self.inputs, self.outputs, self.dims))
        return (ctypes.c_int64(self.arena.ctypes.data), ctypes.c_int64(self.weights.ctypes.data), *tables)


class NativeRunner:
    """Machine code."""

    def __init__(self, artifact: Artifact, num_threads: int | None = None):
        prefix = artifact.manifest.get("prefix", "")  # of an exported library's functions
        install(artifact.file or artifact.libraries["pool"], num_threads, prefix)
        signatures = {name: tuple(types) for name, types in artifact.manifest["signatures"].items()}
        self.library = load_library(artifact.file or artifact.libraries["model"], signatures, prefix)
        self._main = self.library[MAIN]

    def main(self, frame: Frame) -> int:
        status: int = self._main(context_address(), *frame.arguments)
        return status

    def take(self, frame: Frame, output: int, nbytes: int) -> np.ndarray:
        """The bytes of an output that the program allocated, which is freed."""
        taken = aligned_bytes(nbytes)
        ctypes.memmove(taken.ctypes.data, frame.outputs[output], nbytes)
        release(frame.outputs[output])
        return taken

    def step(self, kernel: str, frame: Frame, arguments: Sequence[tuple[str, int]]) -> Callable[[], None]:
        """One kernel call, ready to be repeated."""
        base = {"arena": frame.arena.ctypes.data, "weights": frame.weights.ctypes.data, "size": 0}
        tables = {"input": frame.inputs, "output": frame.outputs}
        values = [tables[place][n] if place in tables else base[place] + n for place, n in arguments]
        function = self.library[kernel]

        def call() -> None:
            check_status(function(context_address(), *values), kernel)

        return call


class ForeignRunner:
    """Machine code for another machine: it can be saved and exported, and refuses to run here."""

    def __init__(self, refusal: str):
        self.refusal = refusal

    def main(self, frame: Frame) -> int:
        raise ArtifactError(self.refusal)

    def take(self, frame: Frame, output: int, nbytes: int) -> np.ndarray:
        raise ArtifactError(self.refusal)

    def step(self, kernel: str, frame: Frame, arguments: Sequence[tuple[str, int]]) -> Callable[[], None]:
        raise ArtifactError(self.refusal)


class Executable:
    """A compiled model, ready to run; any number of threads may call it at once.

    Attributes:
        inputs, outputs: `TensorInfo` in the model's order.
        dims: names of the open dimensions.
        source: the emitted Python.
        build_report: CPU seconds per phase of the build; empty when it came from a cache or file.
        memory: bytes of memory that the program takes, by kind, where its target knows them beforehand ("c" does).
        certificate: what `verify=True` found, JSON-able, or None.
        host_nodes: (operator, node, engine) of what is not native code; see `tensorlang.segmented`.
    """

    host_nodes: tuple[tuple[str, str, str], ...] = ()
    explainer: Callable[[bool], Any] | None = None  # the compiler's part
    limiter: Callable[[Profile], Profile] | None = None  # the compiler's part
    exporter: Callable[[Artifact, Path, str | None, str | None, str], list[Path]] | None = None  # the compiler's part

    def __init__(self, artifact: Artifact, runner: Runner):
        manifest = artifact.manifest
        self._artifact = artifact
        self._runner = runner
        # Of a runner with a device: runs on arrays in its memory; None if all that is given lies on the host.
        self._on_device: Callable[..., list[Any] | None] | None = getattr(runner, "on_device", None)
        self._dims: list[str] = manifest["dims"]
        self._told: list[str] = manifest["told"]
        self._checks: list[str] = manifest["checks"]
        self._in = [_Tensor(entry) for entry in manifest["inputs"]]
        self._out = [_Tensor(entry) for entry in manifest["outputs"]]
        self._constraints = manifest["constraints"]
        self._arena_bytes = manifest["arena_bytes"]
        self._static: _Plan | None = None if self._dims else self._plan_for({})
        self._plans: dict[tuple[int, ...], _Plan] = {}
        self._frames: list[Frame] = []
        # Every call walks this: number, dtype, low address bits that are 0 and, where all sizes are known, shape of each
        # input.
        self._expected = [
            (k, t.dtype, t.dtype.alignment - 1, t.dims if self._static else None) for k, t in enumerate(self._in)
        ]
        self._input_names = [t.name for t in self._in]
        self._output_names = [t.name for t in self._out]
        self.name: str = manifest["model"]
        self.dims = list(self._dims)
        self.inputs = [t.info for t in self._in]
        self.outputs = [t.info for t in self._out]
        self.source = artifact.source
        self.build_report = artifact.report
        self.memory: dict[str, int] = manifest.get("memory", {})
        self.certificate: dict[str, Any] | None = manifest.get("certificate")
        self.precision: str = manifest.get("precision", "float32")  # that its products have: "bf16" only where the CPU has it

    @property
    def runs_here(self) -> bool:
        """Whether it is for this machine: what is not can be saved and exported."""
        return not isinstance(self._runner, ForeignRunner)

    def __repr__(self) -> str:
        ins, outs = ", ".join(map(str, self.inputs)), ", ".join(map(str, self.outputs))
        return f"Executable {self.name}({ins}) -> {outs}"

    # -- running ---------------------------------------------------------------------------------------------------
    def __call__(self, *arrays: Any) -> Any:
        """Run on the inputs in the model's order; returns the output, or a tuple of them.

        Raises:
            InputError: an array does not fit.
            OutOfMemoryError: the system does not give the memory that these sizes take.
        """
        if len(arrays) != len(self._in):
            raise InputError(f"{self.name} takes {len(self._in)} input(s), got {len(arrays)}: {self._declared()}")
        results = self._run(arrays)
        return results[0] if len(results) == 1 else tuple(results)

    def run(self, feeds: Mapping[str, Any], out: Mapping[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
        """Run on inputs by name; returns the outputs by name.

        Args:
            out: arrays for outputs, by name: they are written to and returned. A new large array costs the system a page
                fault every 4 KiB, often more than the run itself; an array given again costs nothing. One that is not
                C-contiguous, or shares memory with an input or another output, gets a copy of the result.

        Raises:
            InputError: a name, dtype, rank or size does not fit; every wrong name is listed.
            OutOfMemoryError: the system does not give the memory that these sizes take.
        """
        try:
            arrays = [feeds[name] for name in self._input_names]
        except KeyError:
            self._refuse_names(feeds)
        if len(feeds) != len(arrays):
            self._refuse_names(feeds)
        return dict(zip(self._output_names, self._run(arrays, out), strict=True))

    def bind(self, feeds: Mapping[str, Any], out: Mapping[str, np.ndarray] | None = None) -> Binding:
        """Check and bind the arrays of a run once; the result is called without arguments, as often as wanted, and costs a
        microsecond or two beside the run itself.

        Args:
            feeds: inputs by name; each call reads what they hold then.
            out: arrays for outputs, by name, as for `run`; the others are made here, once.

        Raises:
            InputError, OutOfMemoryError: as for `run`.
        """
        if set(feeds) != set(self._input_names):
            self._refuse_names(feeds)
        return self._bound([feeds[name] for name in self._input_names], dict(out or {}))

    def _bound(self, given: list[Any], out: dict[str, np.ndarray]) -> Binding:
        frame = self._new_frame()
        results = self._enter(frame, given, out)
        outputs = dict(zip(self._output_names, results, strict=True))
        seen = all(array is mine for array, mine in zip(given, frame.input_arrays, strict=True))
        if self._told or not seen or any(outputs[name] is not array for name, array in out.items()):
            return Binding(lambda: dict(zip(self._output_names, self._run(given, out), strict=True)), outputs)
        main, refuse = self._runner.main, self._refuse_status

        def run() -> dict[str, np.ndarray]:
            if status := main(frame):
                refuse(status)
            return outputs

        return Binding(run, outputs)

    def _run(self, given: Sequence[Any], out: Mapping[str, np.ndarray] | None = None) -> list[np.ndarray]:
        if self._on_device is not None:
            taken = {self._output_names.index(name): array for name, array in (out or {}).items()}
            if (found := self._on_device(given, taken)) is not None:
                return found
        try:
            frame = self._frames.pop()
        except IndexError:
            frame = self._new_frame()
        try:
            results = self._enter(frame, given, out)
            status = self._runner.main(frame)
            if status:
                self._refuse_status(status)
            if self._told:
                self._collect(frame, results)
            if out:
                self._copy_out(self._output_names, results, out)
        except OutOfMemoryError:
            raise
        except MemoryError as error:
            raise OutOfMemoryError(f"{self.name}: no memory for inputs of these sizes: {error}") from None
        frame.input_arrays = frame.output_arrays = _NOTHING  # do not keep the caller's memory alive
        self._frames.append(frame)
        return results

    def _new_frame(self) -> Frame:
        return Frame(len(self._in), len(self._out), len(self._dims) + len(self._told), self._artifact.weights)

    def _collect(self, frame: Frame, results: list[np.ndarray]) -> None:
        """Put the outputs whose shapes `main` found out in the place of their stand-ins."""
        values = dict(zip([*self._dims, *self._told], frame.dims, strict=False))
        for k, tensor in enumerate(self._out):
            if tensor.is_open(self._told):
                shape = tuple(sizes.evaluate(d, values) for d in tensor.dims)
                raw = self._runner.take(frame, k, math.prod(shape) * tensor.dtype.itemsize)
                results[k] = raw.view(tensor.dtype).reshape(shape)

    def _refuse_status(self, status: int) -> None:
        if 0 < status <= len(self._checks):
            raise InputError(f"{self.name} does not work for these inputs: {self._checks[status - 1]}")
        check_status(status, MAIN)

    def _enter(self, frame: Frame, given: Sequence[Any], out: Mapping[str, np.ndarray] | None = None) -> list[np.ndarray]:
        """Check the inputs, make the outputs, and put all addresses into the frame."""
        plan = self._static
        arrays, table = given, frame.inputs
        for k, dtype, misaligned, dims in self._expected:
            array = given[k]
            if array.__class__ is not _NDARRAY or array.dtype is not dtype or not array.flags.c_contiguous:
                if arrays is given:
                    arrays = list(given)
                arrays[k] = array = self._as_array(self._in[k], array)  # type: ignore[index]
            if dims is not None and array.shape != dims:
                self._refuse_shape(self._in[k], array.shape, {})
            address = address_of(array)
            if address & misaligned:
                if arrays is given:
                    arrays = list(given)
                arrays[k] = array = array.copy()  # type: ignore[index]
                address = address_of(array)
            table[k] = address
        if plan is None:
            plan = self._bind(arrays)
            frame.dims[: len(plan.dims)] = list(plan.dims)
        if frame.arena_bytes < plan.arena_bytes:
            frame.grow(plan.arena_bytes)
        results, table = [], frame.outputs
        direct = self._direct(plan, arrays, out) if out else _NO_ARRAYS
        for k, shape, dtype, nbytes in plan.outputs:
            if k in direct:
                table[k] = address_of(direct[k])
                results.append(direct[k])
                continue
            raw = _EMPTY(nbytes, _BYTES)
            address = address_of(raw)
            start = -address % 64
            table[k] = address + start
            results.append(_NDARRAY(shape, dtype, raw, start))
        frame.input_arrays, frame.output_arrays = arrays, results
        return results

    def _direct(self, plan: _Plan, arrays: Sequence[np.ndarray], out: Mapping[str, np.ndarray]) -> dict[int, np.ndarray]:
        """The arrays of `out` that the program can write to itself, by number of output; all of them are checked."""
        direct: dict[int, np.ndarray] = {}
        taken = [(start := address_of(a), start + a.nbytes) for a in arrays]
        known = 0
        for k, shape, dtype, _ in plan.outputs:
            name = self._output_names[k]
            if name not in out:
                continue
            known += 1
            array, told = out[name], bool(self._told) and self._out[k].is_open(self._told)
            if not isinstance(array, _NDARRAY) or array.dtype != dtype or (array.shape != shape and not told):
                got = f"{array.dtype} {array.shape}" if isinstance(array, _NDARRAY) else type(array).__name__
                raise InputError(f"output {self._out[k].info} is {dtype} {shape} here, and `out` has {got} for it")
            flags = array.flags
            if not flags.writeable:
                raise InputError(f"output {self._out[k].info}: the array in `out` is read-only")
            if told or array.__class__ is not _NDARRAY or not flags.c_contiguous:
                continue  # gets a copy, after the run
            start = address_of(array)
            end = start + array.nbytes
            if start & (dtype.alignment - 1) == 0 and not any(start < b and a < end for a, b in taken):
                direct[k] = array
                taken.append((start, end))
        if known != len(out):
            self._check_names(out, self._output_names)
        return direct

    def _check_names(self, out: Mapping[str, np.ndarray], names: Sequence[str]) -> None:
        if unknown := sorted(set(out) - set(names)):
            raise InputError(f"{self.name}: no output is called {', '.join(map(repr, unknown))}; there are {names}")

    def _copy_out(self, names: Sequence[str], results: list[np.ndarray], out: Mapping[str, np.ndarray]) -> None:
        """Results that were not written to the arrays of `out`, copied there."""
        for k, name in enumerate(names):
            array, result = out.get(name), results[k]
            if array is None or array is result:
                continue
            if (array.dtype, array.shape) != (result.dtype, result.shape):
                got, has = (f"{a.dtype} {a.shape}" for a in (result, array))
                raise InputError(f"{self.name}: output {name} is {got}, and `out` has {has} for it")
            array[...] = result
            results[k] = array

    def _as_array(self, tensor: _Tensor, value: Any) -> np.ndarray:
        if not isinstance(value, np.ndarray):
            if hasattr(value, "__dlpack__"):
                try:
                    value = np.from_dlpack(value)
                except (BufferError, RuntimeError, TypeError) as error:  # on a GPU, or of a type that NumPy lacks
                    raise InputError(f"input {tensor.info} got a tensor that NumPy cannot see: {error}") from None
            elif isinstance(value, np.generic | bool | int | float) and not tensor.dims:
                value = np.asarray(value, tensor.dtype)
            else:
                raise InputError(f"input {tensor.info} got {type(value).__name__}; give an array (NumPy or DLPack)")
        if value.dtype != tensor.dtype:
            raise InputError(f"input {tensor.info} got an array of dtype {value.dtype}")
        return np.asarray(value, tensor.dtype, order="C")

    def _bind(self, arrays: Sequence[np.ndarray]) -> _Plan:
        """The plan for the open dimensions' values that the inputs' shapes give."""
        values: dict[str, int] = {}
        formulas = []
        for tensor, array in zip(self._in, arrays, strict=True):
            if array.ndim != len(tensor.dims):
                self._refuse_shape(tensor, array.shape, values)
            for dim, size in zip(tensor.dims, array.shape, strict=True):
                if isinstance(dim, str):
                    if values.setdefault(dim, size) != size:
                        self._refuse_shape(tensor, array.shape, values)
                elif not isinstance(dim, int):
                    formulas.append((tensor, array, dim, size))
                elif dim != size:
                    self._refuse_shape(tensor, array.shape, values)
        for tensor, array, dim, size in formulas:
            if sizes.evaluate(dim, values) != size:
                self._refuse_shape(tensor, array.shape, values)
        key = tuple(values[name] for name in self._dims)
        plan = self._plans.get(key)
        if plan is None:
            if len(self._plans) >= _REMEMBERED_SHAPES:
                self._plans.clear()
            plan = self._plans[key] = self._plan_for(values)
        return plan

    def _plan_for(self, values: Mapping[str, int]) -> _Plan:
        for a, b, node in self._constraints:
            if (left := sizes.evaluate(a, values)) != (right := sizes.evaluate(b, values)):
                raise InputError(
                    f"{self.name} does not work for {_assignments(values)}: at node {node!r} "
                    f"{sizes.describe(a)} = {left} and {sizes.describe(b)} = {right} must be equal"
                )
        outputs: list[tuple[int, tuple[int, ...], np.dtype, int]] = []
        for tensor in self._out:
            if tensor.is_open(self._told):
                outputs.append((len(outputs), (0,), tensor.dtype, 64))  # a stand-in
                continue
            shape = tuple(sizes.evaluate(d, values) for d in tensor.dims)
            if any(d < 0 for d in shape):
                given = _assignments(values)
                raise InputError(f"{self.name}: with {given}, output {tensor.info} would have shape {shape}")
            nbytes = math.prod(shape) * tensor.dtype.itemsize
            outputs.append((len(outputs), shape, tensor.dtype, nbytes + 64))
        arena = sizes.evaluate(self._arena_bytes, values)
        if (needed := arena + sum(nbytes for *_, nbytes in outputs)) > _MOST_BYTES:
            raise OutOfMemoryError(f"{self.name}: with {_assignments(values)}, a run takes {needed:.1e} bytes of memory")
        return _Plan(tuple(values[name] for name in self._dims), tuple(outputs), arena)

    # -- refusals --------------------------------------------------------------------------------------------------
    def _declared(self) -> str:
        return ", ".join(map(str, self.inputs)) or "none"

    def _refuse_names(self, feeds: Mapping[str, Any]) -> NoReturn:
        known = set(self._input_names)
        missing, unknown = [n for n in known if n not in feeds], [n for n in feeds if n not in known]
        problems = [f"input {n!r} is missing" for n in sorted(missing)] + [f"no input is called {n!r}" for n in unknown]
        raise InputError(f"{self.name}: {'; '.join(problems)}. The model's inputs: {self._declared()}")

    def _refuse_shape(self, tensor: _Tensor, shape: tuple[int, ...], values: Mapping[str, int]) -> NoReturn:
        known = f", where {_assignments(values)}" if values else ""
        raise InputError(f"input {tensor.info} got shape {shape}{known}")

    # -- inspection ------------------------------------------------------------------------------------------------
    @property
    def kernels(self) -> dict[str, str]:
        """The emitted text of every kernel, by name."""
        return _split_kernels(self.source, self._artifact.manifest["signatures"])

    @property
    def steps(self) -> list[dict[str, str]]:
        """The kernel calls of a run in order: `kernel`, and `nodes`, the model's, that it computes. Empty where control flow
        decides what is called."""
        return [{"kernel": step["kernel"], "nodes": step["label"]} for step in self._artifact.manifest["steps"]]

    @property
    def memory_map(self) -> dict[str, sizes.Size]:
        """Bytes of memory by kind: `weights`, and `arena`, what a run's intermediate results take together, a formula where
        dimensions are open (see `runtime.sizes`)."""
        return {"weights": int(self._artifact.weights.nbytes), "arena": self._arena_bytes}

    @property
    def placement(self) -> dict[str, Any]:
        """Of a model that runs on several targets: `counts` of kernels, regions and copies, and `fallback`, why the CPU got
        what it got, by kernel. Empty where all is one program."""
        hosted = self._artifact.manifest.get("hosted", {})
        return {name: dict(hosted[name]) for name in ("counts", "fallback") if name in hosted}

    def explain(self, *, machine: bool = True) -> Any:
        """Why it runs as it does: what was fused and why not, every kernel's schedule, and vector width and spills of its
        machine code. `print` it for a text (`tensorlang.explain.ModelExplanation`).

        Args:
            machine: read the machine code, which takes some tenths of a second for each kernel.

        Raises:
            InputError: it was loaded by the runtime alone, which has no compiler to ask.
        """
        if self.explainer is None:
            raise InputError(f"{self.name} was loaded without the compiler; load it with tensorlang.load to explain it")
        return self.explainer(machine)

    def profile(self, feeds: Mapping[str, Any], repeats: int = 10, *, roofline: bool = False) -> Profile:
        """Time every kernel call of a run: the median of `repeats` runs in which kernels are called one by one.
        A call inside of a loop or branch has one row, for as often as it is done; one that is not done has none.

        Args:
            roofline: measure what the machine can do at most, some seconds the first time, and say of each call by what it is
                bound and which share of that it reaches. `plot` of the result draws it.

        Raises:
            InputError: as for `run`; or the runtime alone, without the compiler, is to measure the roofline.
        """
        if roofline and self.limiter is None:
            raise InputError(f"{self.name} was loaded without the compiler, which measures the roofline")
        found = self._profile(feeds, repeats)
        return self.limiter(found) if roofline and self.limiter is not None else found

    def _profile(self, feeds: Mapping[str, Any], repeats: int) -> Profile:
        import statistics  # here, for it takes 3 ms

        self.run(feeds)
        frame = self._new_frame()
        self._enter(frame, [feeds[t.name] for t in self._in])
        dims = dict(zip(self._dims, frame.dims, strict=False))
        steps = self._artifact.manifest["steps"]
        if not steps and self._artifact.manifest.get("calls") and self._artifact.is_native:
            return profile_calls(self._artifact, self._runner, frame, repeats)
        if not steps:  # another target's, or an exported library: its kernels are not reached one by one
            begun = time.perf_counter()
            for _ in range(repeats):
                self.run(feeds)
            seconds = (time.perf_counter() - begun) / repeats
            return Profile.of([(_WHOLE, 1, seconds, 0, 0)])
        calls = []
        for step in steps:
            arguments = [(place, sizes.evaluate(size, dims)) for place, size in step["args"]]
            calls.append(self._runner.step(step["kernel"], frame, arguments))
        times: list[list[float]] = [[] for _ in steps]
        for _ in range(repeats + 1):
            for call, measured in zip(calls, times, strict=True):
                begun = time.perf_counter()
                call()
                measured.append(time.perf_counter() - begun)
        medians = [statistics.median(measured[1:]) for measured in times]  # the first run warms caches
        counts = [(sizes.evaluate(step["flops"], dims), sizes.evaluate(step["bytes"], dims)) for step in steps]
        return Profile.of([(s, 1, t, *c) for s, t, c in zip(steps, medians, counts, strict=True)])

    def save(self, path: str | Path) -> None:
        """Write one file that `tl.load` reads without the compiler.

        Raises:
            ArtifactError: it cannot be written.
        """
        self._artifact.manifest["certificate"] = self.certificate
        write_artifact(self._artifact, Path(path))

    def export_library(
        self, path: str | Path, target: str | None = None, form: str | None = None, *, weights: str = "inside"
    ) -> list[Path]:
        """Write the model for programs without Python: a library with a C interface, a header, a description and an example.

        Args:
            path: `libm.so`, or `libm.a` to be linked into a program; of target "c", a folder. The other files' names follow it.
            target: the machine, such as "x86-64-v3" or "aarch64-linux-gnu"; by default the one that the model was compiled for.
            form: "so", "a", or "exe": a program that reads .npy files and writes such; by the path's suffix where it is None.
            weights: "inside" the library, or "beside" it: in a file `libm.weights`, which the C program maps or brings itself.

        Returns:
            The files.

        Raises:
            ArtifactError: the target has no such form, the files cannot be written, or the model was loaded from a file and
                would have to be compiled again for another target.
            BuildError: something has no code for the target.
        """
        export = getattr(self._runner, "export", None)
        if export is not None and target is None:
            written: list[Path] = export(Path(path))
            return written
        if self.exporter is None:
            raise ArtifactError(f"{self.name}: exporting a library needs the compiler, which the runtime alone does not have")
        return self.exporter(self._artifact, Path(path), target, form, weights)


class _Tensor:
    """An input or output as the runtime needs it."""

    def __init__(self, entry: Mapping[str, Any]):
        self.name: str = entry["name"]
        self.dims: tuple[sizes.Size, ...] = tuple(entry["shape"])
        self.dtype = numpy_dtype(entry["dtype"])
        shape = tuple(d if isinstance(d, int) else sizes.describe(d) for d in self.dims)
        self.info = TensorInfo(self.name, entry["dtype"], shape)

    def is_open(self, told: Sequence[str]) -> bool:
        """Whether its shape mentions one of these dimensions."""
        return bool(told) and any(name in told for d in self.dims for name in sizes.names(d))


@dataclass(frozen=True)
class _Plan:
    """What one combination of the open dimensions' values means."""

    dims: tuple[int, ...]
    outputs: tuple[tuple[int, tuple[int, ...], np.dtype, int], ...]  # number, shape, dtype, bytes with room to align
    arena_bytes: int


def _assignments(values: Mapping[str, int]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in values.items())


def numpy_dtype(name: str) -> np.dtype:
    """A dtype by NumPy's name; bfloat16 and other small floats by ml_dtypes."""
    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes  # a third party, only for models that use such types

        return np.dtype(getattr(ml_dtypes, name))


def _split_kernels(source: str, signatures: Mapping[str, Any]) -> dict[str, str]:
    """Kernel name -> its text: comments on its schedule, its chunks, itself (they directly follow each other)."""
    found: dict[str, str] = {}
    head, *parts = source.split("\n@")
    pending = _comments(head)[1]
    for part in parts:
        text, comments = _comments(part)
        pending += f"@{text}\n"
        name = text.split("def ", 1)[1].split("(", 1)[0]
        if name in signatures:
            found[name] = pending
            pending = comments
        else:
            pending += f"\n\n{comments}"
    found.pop(MAIN, None)
    return found


def _comments(text: str) -> tuple[str, str]:
    """`text` without the comments at its end, and those: they belong to what follows."""
    lines = text.rstrip().split("\n")
    end = len(lines)
    while end and (not lines[end - 1] or lines[end - 1].startswith("#")):
        end -= 1
    return "\n".join(lines[:end]), "".join(f"{line}\n" for line in lines[end:] if line)
