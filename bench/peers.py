"""The runtimes that are compared. Everything that the benchmark does with tensorlang itself is in this file (but for
``build_child``, which must import nothing else).

A peer prepares a model file for given feeds and a number of threads; what comes back runs it on those very feeds, again
and again, the way a user who cares about speed would.
"""

from __future__ import annotations

import ctypes
import importlib.util
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

import tensorlang as tl
from bench import cache
from bench.feeds import Feeds
from bench.torch_eager import TorchRunner

Outputs = dict[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Prepared:
    """A model ready to run: ``call`` runs it once and keeps nothing, ``outputs`` runs it and returns named arrays."""

    call: Callable[[], object]
    outputs: Callable[[], Outputs]
    prepare_seconds: float
    details: Mapping[str, object] = field(default_factory=dict)


class Peer(Protocol):
    """A runtime of ONNX models."""

    @property
    def name(self) -> str: ...

    def version(self) -> str | None:
        """The installed version, or None where the runtime is not installed."""

    def prepare(self, model: Path, feeds: Feeds, threads: int) -> Prepared:
        """Load or compile ``model``. A feed is read at prepare time and must not change afterwards."""


def _installed(module: str) -> str | None:
    if importlib.util.find_spec(module) is None:
        return None
    loaded = importlib.import_module(module)
    return str(getattr(loaded, "__version__", "unknown"))


class OnnxRuntime:
    """onnxruntime on the CPU, all optimisations, inputs and outputs bound once, so that a call is the run alone."""

    name = "onnxruntime"

    def version(self) -> str | None:
        return onnxruntime.__version__

    def prepare(self, model: Path, feeds: Feeds, threads: int) -> Prepared:
        begun = time.perf_counter()
        session = _session(model, threads)
        seconds = time.perf_counter() - begun
        names = [output.name for output in session.get_outputs()]
        binding = session.io_binding()
        # Bound inputs and outputs are onnxruntime's fastest way (run_with_ort_values costs 150 us more per call, run 15
        # us). A binding holds bare pointers: `held` keeps their owners alive.
        held = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in feeds.values()]
        for name, value in zip(feeds, held, strict=True):
            binding.bind_ortvalue_input(name, value)
        for name, array in zip(names, session.run(names, feeds), strict=True):
            held.append(onnxruntime.OrtValue.ortvalue_from_numpy(array))
            binding.bind_ortvalue_output(name, held[-1])

        try:
            session.run_with_iobinding(binding)
        except RuntimeError:  # an output has not the rank that the model declares: the arrays are made anew in each call
            bound = False
        else:
            bound = True

        def call(keep: object = held) -> object:
            return session.run_with_iobinding(binding) if bound else session.run(names, feeds)

        def outputs() -> Outputs:
            return dict(zip(names, session.run(names, feeds), strict=True))

        return Prepared(call, outputs, seconds)


class OpenVino:
    """OpenVINO on the CPU, pinned to f32 arithmetic; ``precision`` None is its default, bf16 where the machine has it."""

    name = "openvino"

    def __init__(self, precision: str | None = "f32") -> None:
        self.hints = {} if precision is None else {"INFERENCE_PRECISION_HINT": precision}

    def version(self) -> str | None:
        return _installed("openvino")

    def prepare(self, model: Path, feeds: Feeds, threads: int) -> Prepared:
        openvino = importlib.import_module("openvino")
        begun = time.perf_counter()
        core = openvino.Core()
        compiled = core.compile_model(
            str(model),
            "CPU",
            {**self.hints, "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"},
        )
        request = compiled.create_infer_request()
        seconds = time.perf_counter() - begun
        for name, array in feeds.items():
            request.set_tensor(name, openvino.Tensor(array, shared_memory=True))

        def outputs() -> Outputs:
            request.infer()
            declared = [value.name for value in onnx.load(model, load_external_data=False).graph.output]
            return {name: np.array(request.get_tensor(name).data) for name in declared}

        return Prepared(request.infer, outputs, seconds)


class TorchEager:
    """PyTorch eager on the operators of the standard models: what users have without any compiler."""

    name = "torch"

    def version(self) -> str | None:
        return _installed("torch")

    def prepare(self, model: Path, feeds: Feeds, threads: int) -> Prepared:
        importlib.import_module("torch").set_num_threads(threads)
        _keep_memory()
        begun = time.perf_counter()
        runner = TorchRunner(model)
        seconds = time.perf_counter() - begun
        tensors = runner.tensors(feeds)

        def outputs() -> Outputs:
            return {name: value.contiguous().numpy() for name, value in runner(tensors).items()}

        return Prepared(lambda: runner(tensors), outputs, seconds)


class TensorLang:
    """tensorlang. ``static``: compiled for the feeds' shapes; otherwise dynamic dimensions stay symbolic."""

    def __init__(self, static: bool = True, target: str = "cpu", precision: str = "float32") -> None:
        marks = [m for m, usual in ((target, "cpu"), (precision, "float32")) if m != usual] + ([] if static else ["symbolic"])
        self.name = f"tensorlang ({', '.join(marks)})" if marks else "tensorlang"
        self.static, self.target, self.precision = static, target, precision

    def version(self) -> str | None:
        return tl.__version__

    def prepare(self, model: Path, feeds: Feeds, threads: int) -> Prepared:
        begun = time.perf_counter()
        tl.set_num_threads(threads)
        shapes = {name: tuple(array.shape) for name, array in feeds.items()} if self.static else None
        executable = tl.compile(str(model), target=self.target, shapes=shapes, precision=self.precision)
        seconds = time.perf_counter() - begun
        report = getattr(executable, "build_report", None) or {}

        bound = executable.bind(feeds)  # as the rivals: arrays bound once, a call is the run alone

        def outputs() -> Outputs:
            return {name: np.array(value) for name, value in executable.run(feeds).items()}

        return Prepared(bound, outputs, seconds, {"build_report": dict(report), "precision": executable.precision})


Runner = Callable[[Feeds], Outputs]


def tensorlang_runner(model: Path, shapes_of: Feeds | None, threads: int) -> Runner:
    """A function of feeds, compiled for the shapes of ``shapes_of``; None leaves dynamic dimensions symbolic."""
    tl.set_num_threads(threads)
    shapes = None if shapes_of is None else {name: tuple(array.shape) for name, array in shapes_of.items()}
    executable = tl.compile(str(model), target="cpu", shapes=shapes)
    return lambda feeds: {name: np.array(value) for name, value in executable.run(feeds).items()}


def onnxruntime_runner(model: Path, threads: int) -> Runner:
    """The judge as a function of feeds."""
    session = _session(model, threads)
    names = [output.name for output in session.get_outputs()]
    return lambda feeds: dict(zip(names, session.run(names, feeds), strict=True))


def _keep_memory() -> None:
    """Let the C library keep what is freed: torch makes each result anew, and would pay a page fault every 4 KiB of it."""
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
        library.mallopt(-4, 0)  # M_MMAP_MAX


def _session(model: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def profile(model: Path, feeds: Feeds, threads: int) -> str:
    """tensorlang's own per-kernel table for one model, as text. BenchError where it does not compile or run."""
    tl.set_num_threads(threads)
    shapes = {name: tuple(array.shape) for name, array in feeds.items()}
    try:
        return str(tl.compile(str(model), target="cpu", shapes=shapes).profile(feeds))
    except tl.errors.TensorlangError as error:
        raise cache.BenchError(f"{type(error).__name__}: {error}") from error


JUDGE = OnnxRuntime()
_RIVALS: dict[str, Peer] = {"onnxruntime": JUDGE, "openvino": OpenVino(), "torch": TorchEager()}


def rivals(names: list[str] | None = None) -> list[Peer]:
    """The rivals asked for; without ``names``, all that are installed. Asking for one that is not is an error."""
    if names is None:
        return [peer for peer in _RIVALS.values() if peer.version() is not None]
    chosen = []
    for name in names:
        if name not in _RIVALS:
            raise cache.BenchError(f"no peer {name!r}; there are: {', '.join(_RIVALS)}")
        if _RIVALS[name].version() is None:
            raise cache.BenchError(f"peer {name!r} is not installed: pip install 'tensorlang[peers]'")
        chosen.append(_RIVALS[name])
    return chosen
