"""ONNX's backend interface on top of `tl.compile` (layer 8).

    from tensorlang.interop import onnx_backend
    outputs = onnx_backend.run_model(model, [x])

What is prepared is one executable for every content of the inputs, if the model allows it. Where the meaning of a node
hangs on the contents of an input (axes, sizes, a number of repetitions), one executable is made per content at the first
run with it and kept: native code all the same, specialised.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.base import Backend, BackendRep

from tensorlang.compile import Executable, compile as compile_model
from tensorlang.errors import InputError, UnsupportedOpError
from tensorlang.interop.onnx_structures import grouped, is_structured, with_tensors_only
from tensorlang.load_model import from_onnx

REMEMBERED = 32  # executables that one prepared model keeps


class TensorlangRep(BackendRep):
    """A prepared model.

    Attributes:
        executable: what runs whatever the inputs hold; None if the model needs some of their contents (`needs`) beforehand.
        needs: names of the inputs that executables are specialised on.
    """

    def __init__(self, model: onnx.ModelProto, **options: Any):
        self.model = model
        self.options = options
        initialised = {t.name for t in model.graph.initializer}
        self.input_names = [v.name for v in model.graph.input if v.name not in initialised]
        self.needs: tuple[str, ...] = ()
        self.executable: Executable | None = None
        self._specialised: dict[tuple[Any, ...], Executable] = {}
        self._structures: dict[bytes, TensorlangRep] = {}  # one for each number of elements of sequences
        self.structured = any(map(is_structured, model.graph.input))
        if self.structured:
            return
        try:
            self.executable = compile_model(model, **options)
        except UnsupportedOpError as error:
            if not error.needs:
                raise
            self.needs = tuple(n for n in self.input_names if n in error.needs)

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """The outputs in the model's order.

        Args:
            inputs: arrays (lists of them for sequences, None for an empty optional) in the order of the model's inputs (one
                array, if it has one), or by name.

        Raises:
            InputError: they do not fit the model.
            UnsupportedOpError: the model needs operators that we lack.
        """
        del kwargs
        return grouped(self.model, self._results(self._named(inputs)))

    def _results(self, feeds: dict[str, Any]) -> Mapping[str, Any]:
        """Outputs by name."""
        if self.structured:
            model, tensors = with_tensors_only(self.model, feeds)
            key = model.SerializeToString()
            if key not in self._structures:
                if len(self._structures) >= REMEMBERED:
                    self._structures.clear()
                self._structures[key] = TensorlangRep(model, **self.options)
            return self._structures[key]._results(tensors)
        if self.executable is not None:
            return self.executable.run(feeds)
        while True:
            key = tuple(_content(feeds, name) for name in self.needs)
            executable = self._specialised.get(key)
            if executable is None:
                known = {name: np.asarray(feeds[name]) for name in self.needs}
                try:
                    executable = compile_model(with_known_inputs(self.model, known), **self.options)
                except UnsupportedOpError as error:  # with these known, others may turn out to be needed
                    more = [n for n in self.input_names if n in error.needs and n not in self.needs]
                    if not more:
                        raise
                    self.needs = (*self.needs, *more)
                    continue
                if len(self._specialised) >= REMEMBERED:
                    self._specialised.clear()
                self._specialised[key] = executable
            return executable.run({n: a for n, a in feeds.items() if n not in self.needs})

    def _named(self, inputs: Any) -> dict[str, Any]:
        if isinstance(inputs, Mapping):
            return dict(inputs)
        if isinstance(inputs, np.ndarray):
            inputs = [inputs]
        if not isinstance(inputs, Sequence) or len(inputs) != len(self.input_names):
            count = len(inputs) if isinstance(inputs, Sequence) else type(inputs).__name__
            raise InputError(f"the model takes {len(self.input_names)} input(s) ({', '.join(self.input_names)}), got {count}")
        return dict(zip(self.input_names, inputs, strict=True))


def _content(feeds: Mapping[str, Any], name: str) -> tuple[Any, ...]:
    if name not in feeds:
        raise InputError(f"input {name!r} is missing")
    array = np.asarray(feeds[name])
    return (array.dtype.str, array.shape, array.tobytes())


def with_known_inputs(model: onnx.ModelProto, known: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """A copy of `model` in which the inputs `known` are constants.

    Raises:
        InputError: an array does not have the type or rank that the model declares.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    kept = []
    for info in model.graph.input:
        if info.name not in known:
            kept.append(info)
            continue
        array, declared = known[info.name], info.type.tensor_type
        tensor = numpy_helper.from_array(array, info.name)
        dims = [d.dim_value if d.HasField("dim_value") else None for d in declared.shape.dim]
        fits = len(dims) == array.ndim and all(d in (None, n) for d, n in zip(dims, array.shape, strict=True))
        if tensor.data_type != declared.elem_type or (declared.HasField("shape") and not fits):
            expected = onnx.TensorProto.DataType.Name(declared.elem_type)
            raise InputError(f"input {info.name!r} got {array.dtype}{list(array.shape)}, expected {expected}{dims}")
        copy.graph.initializer.append(tensor)
    del copy.graph.input[:]
    copy.graph.input.extend(kept)
    return copy


class TensorlangBackend(Backend):
    """`onnx.backend.base.Backend` for the CPU of this machine."""

    @classmethod
    def is_compatible(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        """Whether every operator of `model` has a rule (contents of inputs may be needed; see `prepare`)."""
        if not cls.supports_device(device):
            return False
        try:
            from_onnx(model)
        except UnsupportedOpError as error:
            return bool(error.needs)
        return True

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> TensorlangRep:
        """A model ready to run.

        Args:
            kwargs: passed on to `tl.compile` (`shapes`, `precision`, ...).

        Raises:
            ModelError, UnsupportedOpError: see `tl.compile`.
            InputError: the device is not supported.
        """
        if not cls.supports_device(device):
            raise InputError(f"device {device!r} is not supported; there is: CPU")
        return TensorlangRep(model, **kwargs)

    @classmethod
    def run_model(cls, model: onnx.ModelProto, inputs: Any, device: str = "CPU", **kwargs: Any) -> tuple[Any, ...]:
        """Prepare and run once."""
        return cls.prepare(model, device, **kwargs).run(inputs)

    @classmethod
    def run_node(
        cls, node: onnx.NodeProto, inputs: Any, device: str = "CPU", outputs_info: Any = None, **kwargs: Any
    ) -> tuple[Any, ...]:
        """Run one node.

        Args:
            inputs: arrays for the node's inputs that are not left out, in order.
            outputs_info: (dtype, shape) per output; not needed, they follow from the node.
            kwargs: `opset_version`: of the node's domain, by default the newest.
        """
        version = kwargs.pop("opset_version", None) or _newest(node.domain)
        names = [name for name in node.input if name]
        arrays = dict(zip(dict.fromkeys(names), inputs, strict=True))
        formal = [
            onnx.helper.make_tensor_value_info(name, numpy_helper.from_array(np.asarray(a)).data_type, np.shape(a))
            for name, a in arrays.items()
        ]
        results = [onnx.ValueInfoProto(name=name) for name in node.output if name]
        graph = onnx.helper.make_graph([node], "node", formal, results)
        opsets = [onnx.helper.make_opsetid(node.domain, version)]
        return cls.run_model(onnx.helper.make_model(graph, opset_imports=opsets), arrays, device, **kwargs)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Whether models run on `device`, named as ONNX does: "CPU", "CUDA:1"."""
        return device.partition(":")[0].upper() == "CPU"


def _newest(domain: str) -> int:
    versions = [s.since_version for s in onnx.defs.get_all_schemas_with_history() if s.domain == domain]
    return onnx.defs.onnx_opset_version() if domain in ("", "ai.onnx") else max(versions, default=1)


is_compatible = TensorlangBackend.is_compatible
prepare = TensorlangBackend.prepare
run_model = TensorlangBackend.run_model
run_node = TensorlangBackend.run_node
supports_device = TensorlangBackend.supports_device

__all__ = [
    "TensorlangBackend",
    "TensorlangRep",
    "is_compatible",
    "prepare",
    "run_model",
    "run_node",
    "supports_device",
    "with_known_inputs",
]
