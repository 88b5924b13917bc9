"""onnxruntime's Python interface, so that a script runs with one import changed (layer 8).

    import tensorlang.interop.onnxruntime as ort
    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    session = ort.InferenceSession("model.onnx", options, providers=["CPUExecutionProvider"])
    outputs = session.run(None, {session.get_inputs()[0].name: x})

Kept: models, feeds, outputs, `io_binding`, thread count, fixed dimensions. Settings of onnxruntime's own machinery are
taken and have no effect; execution providers are ignored, with a warning where one asks for more than the CPU.
"""

from __future__ import annotations

import ctypes
import enum
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

from tensorlang.errors import InputError
from tensorlang.runtime.context import set_num_threads
from tensorlang.session import InferenceSession as Session, NodeArg as NodeArg

__all__ = [
    "ExecutionMode", "GraphOptimizationLevel", "IOBinding", "InferenceSession", "ModelMetadata", "NodeArg", "OrtValue",
    "RunOptions", "SessionOptions", "get_all_providers", "get_available_providers", "get_device",
    "set_default_logger_severity", "set_default_logger_verbosity", "set_seed",
]  # fmt: skip

CPU = "CPUExecutionProvider"


class GraphOptimizationLevel(enum.IntEnum):
    """Taken, without effect: a compiled model has one level."""

    ORT_DISABLE_ALL = 0
    ORT_ENABLE_BASIC = 1
    ORT_ENABLE_EXTENDED = 2
    ORT_ENABLE_LAYOUT = 3
    ORT_ENABLE_ALL = 99


class ExecutionMode(enum.IntEnum):
    """Taken, without effect: kernels run in order, each on all threads."""

    ORT_SEQUENTIAL = 0
    ORT_PARALLEL = 1


@dataclass
class SessionOptions:
    """What has an effect: `intra_op_num_threads` (0: as it is), and dimensions fixed by name."""

    intra_op_num_threads: int = 0
    inter_op_num_threads: int = 0
    graph_optimization_level: int = GraphOptimizationLevel.ORT_ENABLE_ALL
    execution_mode: int = ExecutionMode.ORT_SEQUENTIAL
    log_severity_level: int = -1
    log_verbosity_level: int = 0
    logid: str = ""
    enable_profiling: bool = False
    profile_file_prefix: str = "onnxruntime_profile_"
    enable_mem_pattern: bool = True
    enable_mem_reuse: bool = True
    enable_cpu_mem_arena: bool = True
    optimized_model_filepath: str = ""
    use_deterministic_compute: bool = True
    _entries: dict[str, str] = field(default_factory=dict, repr=False)
    _sizes: dict[str, int] = field(default_factory=dict, repr=False)

    def add_free_dimension_override_by_name(self, name: str, size: int) -> None:
        """Fix an open dimension."""
        self._sizes[name] = int(size)

    def add_session_config_entry(self, key: str, value: str) -> None:
        """Kept to be read back, without effect."""
        self._entries[key] = value

    def get_session_config_entry(self, key: str) -> str:
        """What `add_session_config_entry` was given.

        Raises:
            InputError: nothing.
        """
        if key not in self._entries:
            raise InputError(f"no session config entry {key!r}")
        return self._entries[key]


@dataclass
class RunOptions:
    """Taken, without effect."""

    log_severity_level: int = -1
    log_verbosity_level: int = 0
    logid: str = ""
    terminate: bool = False
    only_execute_path_to_fetches: bool = False

    def add_run_config_entry(self, key: str, value: str) -> None:
        """Without effect."""


@dataclass(frozen=True)
class ModelMetadata:
    """What the model's file says about itself."""

    graph_name: str = ""
    producer_name: str = ""
    domain: str = ""
    description: str = ""
    graph_description: str = ""
    version: int = 0
    custom_metadata_map: Mapping[str, str] = field(default_factory=dict)


class OrtValue:
    """An array, as onnxruntime hands it around."""

    def __init__(self, array: np.ndarray):
        self._array = array

    @staticmethod
    def ortvalue_from_numpy(array: np.ndarray, device_type: str = "cpu", device_id: int = 0) -> OrtValue:
        """A value that holds a copy of `array`."""
        _need_cpu(device_type)
        return OrtValue(np.array(array, order="C"))

    @staticmethod
    def ortvalue_from_shape_and_type(
        shape: Sequence[int], element_type: Any = np.float32, device_type: str = "cpu", device_id: int = 0
    ) -> OrtValue:
        """A value to be filled, of a NumPy or ONNX element type."""
        _need_cpu(device_type)
        return OrtValue(np.zeros(tuple(shape), _dtype(element_type)))

    def numpy(self) -> np.ndarray:
        """Its array."""
        return self._array

    def shape(self) -> list[int]:
        return list(self._array.shape)

    def element_type(self) -> int:
        """ONNX's number for its element type."""
        return int(onnx.helper.np_dtype_to_tensor_dtype(self._array.dtype))

    def data_type(self) -> str:
        names = {"float32": "float", "float64": "double"}
        return f"tensor({names.get(self._array.dtype.name, self._array.dtype.name)})"

    def data_ptr(self) -> int:
        """The address of the first element."""
        return int(self._array.ctypes.data)

    def device_name(self) -> str:
        return "cpu"

    def is_tensor(self) -> bool:
        return True

    def has_value(self) -> bool:
        return True

    def update_inplace(self, array: np.ndarray) -> None:
        """Overwrite the contents."""
        np.copyto(self._array, array)


class IOBinding:
    """Inputs and places for outputs, bound by name, for `InferenceSession.run_with_iobinding`."""

    def __init__(self, session: InferenceSession):
        self._session = session
        self._inputs: dict[str, np.ndarray] = {}
        self._outputs: dict[str, np.ndarray | None] = {}
        self._results: list[OrtValue] = []

    def bind_cpu_input(self, name: str, array: np.ndarray) -> None:
        self._inputs[name] = array

    def bind_ortvalue_input(self, name: str, value: OrtValue) -> None:
        self._inputs[name] = value.numpy()

    def bind_input(
        self, name: str, device_type: str, device_id: int, element_type: Any, shape: Sequence[int], buffer_ptr: int
    ) -> None:
        """Bind memory at an address."""
        _need_cpu(device_type)
        self._inputs[name] = _array_at(buffer_ptr, shape, element_type)

    def bind_output(
        self,
        name: str,
        device_type: str = "cpu",
        device_id: int = 0,
        element_type: Any = None,
        shape: Sequence[int] | None = None,
        buffer_ptr: int | None = None,
    ) -> None:
        """Ask for an output; given an address, type and shape, it is written there."""
        _need_cpu(device_type)
        if buffer_ptr and (shape is None or element_type is None):
            raise InputError(f"output {name!r}: memory is bound without its shape and element type")
        self._outputs[name] = _array_at(buffer_ptr, shape or (), element_type) if buffer_ptr else None

    def bind_ortvalue_output(self, name: str, value: OrtValue) -> None:
        self._outputs[name] = value.numpy()

    def clear_binding_inputs(self) -> None:
        self._inputs.clear()

    def clear_binding_outputs(self) -> None:
        self._outputs.clear()
        self._results.clear()

    def synchronize_inputs(self) -> None:
        """Nothing to wait for on the CPU."""

    def synchronize_outputs(self) -> None:
        """Nothing to wait for on the CPU."""

    def get_outputs(self) -> list[OrtValue]:
        """The bound outputs of the last run, in the order of binding."""
        return list(self._results)

    def copy_outputs_to_cpu(self) -> list[np.ndarray]:
        return [value.numpy() for value in self._results]

    def run(self) -> None:
        """Run on what is bound; results are written to bound memory as they are made, without a copy where it allows that.

        Raises:
            InputError: an input is missing, or memory bound for an output has another shape or type than the result.
        """
        self._results = [OrtValue(r) for r in self._session.run_to(self._inputs, self._outputs)]


class InferenceSession(Session):
    """A model, compiled on construction.

    Args:
        path_or_bytes: a path, or the bytes of an ONNX file.
        sess_options: thread count (for the whole process) and fixed dimensions are taken from it.
        providers, provider_options: ignored.
        compile_options: what else `tl.compile` takes (`shapes`, `verify`, ...).
    """

    def __init__(
        self,
        path_or_bytes: str | os.PathLike[str] | bytes,
        sess_options: SessionOptions | None = None,
        providers: Sequence[Any] | None = None,
        provider_options: Sequence[Mapping[str, Any]] | None = None,
        **compile_options: Any,
    ):
        self._options = sess_options or SessionOptions()
        _note_providers(providers)
        if self._options.intra_op_num_threads > 0:
            set_num_threads(self._options.intra_op_num_threads)
        model: Any = path_or_bytes
        if isinstance(path_or_bytes, bytes | bytearray | memoryview):
            model = _parsed(bytes(path_or_bytes))
        elif isinstance(path_or_bytes, str):
            model = os.fspath(path_or_bytes)
        if self._options._sizes:
            compile_options["shapes"] = {**self._options._sizes, **(compile_options.get("shapes") or {})}
        self._source = model
        super().__init__(model, **compile_options)

    def get_session_options(self) -> SessionOptions:
        return self._options

    def get_providers(self) -> list[str]:
        """Always the CPU's, under the name that scripts look for."""
        return [CPU]

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        return {CPU: {}}

    def set_providers(self, providers: Sequence[Any] | None = None, provider_options: Any = None) -> None:
        """Ignored, with a warning where it asks for more than the CPU."""
        _note_providers(providers)

    def disable_fallback(self) -> None:
        """Nothing to disable: there is one provider."""

    def enable_fallback(self) -> None:
        """Nothing to enable: there is one provider."""

    def get_overridable_initializers(self) -> list[NodeArg]:
        return []

    def get_modelmeta(self) -> ModelMetadata:
        """What the file says about itself."""
        source = self._source
        model = source if isinstance(source, onnx.ModelProto) else onnx.load_model(source, load_external_data=False)
        return ModelMetadata(
            model.graph.name, model.producer_name, model.domain, model.doc_string, model.graph.doc_string,
            model.model_version, {p.key: p.value for p in model.metadata_props},
        )  # fmt: skip

    def run_to(self, inputs: Mapping[str, Any], outputs: Mapping[str, np.ndarray | None]) -> list[np.ndarray]:
        """The named outputs, those with an array written there."""
        if not outputs:
            return []
        places = {name: array for name, array in outputs.items() if array is not None}
        return self._chosen(self.executable.run(inputs, places), list(outputs))

    def io_binding(self) -> IOBinding:
        return IOBinding(self)

    def run_with_iobinding(self, iobinding: IOBinding, run_options: RunOptions | None = None) -> None:
        """Run on what is bound; see `IOBinding.run`."""
        iobinding.run()

    def run_with_ort_values(
        self, output_names: Sequence[str] | None, input_feed: Mapping[str, OrtValue], run_options: Any = None
    ) -> list[OrtValue]:
        """`run` on and to `OrtValue`s."""
        return [OrtValue(a) for a in self.run(output_names, {n: v.numpy() for n, v in input_feed.items()})]


def get_available_providers() -> list[str]:
    """The CPU's."""
    return [CPU]


def get_all_providers() -> list[str]:
    """The CPU's."""
    return [CPU]


def get_device() -> str:
    return "CPU"


def set_default_logger_severity(severity: int) -> None:
    """Without effect: nothing is logged."""


def set_default_logger_verbosity(level: int) -> None:
    """Without effect: nothing is logged."""


def set_seed(seed: int) -> None:
    """Without effect: random operators take their seed from the model."""


def _note_providers(providers: Sequence[Any] | None) -> None:
    names = [p if isinstance(p, str) else p[0] for p in providers or ()]
    if others := [n for n in names if n != CPU]:
        warnings.warn(f"execution providers are ignored: {', '.join(others)}; the model runs on the CPU", stacklevel=3)


def _parsed(content: bytes) -> onnx.ModelProto:
    try:
        return onnx.load_model_from_string(content)
    except Exception as error:
        raise InputError(f"these {len(content)} bytes are not an ONNX model: {error}") from error


def _need_cpu(device_type: str) -> None:
    if device_type.lower() != "cpu":
        raise InputError(f"device {device_type!r}: there is only the CPU")


def _dtype(element_type: Any) -> np.dtype:
    if isinstance(element_type, int):
        return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(element_type))
    return np.dtype(element_type)


def _array_at(address: int, shape: Sequence[int], element_type: Any) -> np.ndarray:
    """The memory at `address` as an array; whoever bound it keeps it alive."""
    dtype = _dtype(element_type)
    nbytes = int(np.prod(tuple(shape), dtype=np.int64)) * dtype.itemsize
    raw = (ctypes.c_uint8 * nbytes).from_address(address)
    return np.ctypeslib.as_array(raw).view(dtype).reshape(tuple(shape))
