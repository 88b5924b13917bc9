"""A model that no single native program computes (layer 8): compiled segments, and between them steps of the host in Python.

`tl.compile` makes it where a model handles strings or images, or where `fallback` lets another engine compute what we lack.
It runs as every executable does; `host_nodes` names what is not native, and `save` and every export say no.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from tensorlang.errors import ArtifactError, BuildError, InputError, InternalError, UnsupportedOpError
from tensorlang.graph.segments import HostStep, NativeStep, Segments, Slot
from tensorlang.load_model import split_model
from tensorlang.runtime.artifact import Artifact
from tensorlang.runtime.binding import Binding
from tensorlang.runtime.executable import Executable, TensorInfo
from tensorlang.runtime.profile import Profile

MAX_ROUNDS = 8  # of finding out what cannot be compiled: each names all that it can see

Build = Callable[[Any], Executable]


def segmented(
    model: Any,
    shapes: Mapping[str, Any] | None,
    refusal: UnsupportedOpError,
    fallback: str | None,
    build: Build,
) -> SegmentedExecutable:
    """The model in segments.

    Args:
        refusal: why it is not one native program.
        build: compiles a segment.

    Raises:
        UnsupportedOpError: some node is neither for us nor for the host: `refusal`, or what is left of it.
    """
    refused: dict[str, None] = {}
    for _ in range(MAX_ROUNDS):
        refused.update((label, None) for _, label, _ in refusal.ops)
        segments = split_model(model, shapes, tuple(refused), fallback)
        if segments is None:
            raise refusal
        try:
            return SegmentedExecutable(segments, build)
        except UnsupportedOpError as error:
            if fallback is None or not {label for _, label, _ in error.ops} - set(refused):
                raise
            refusal = error
    raise refusal


class SegmentedExecutable(Executable):
    """Segments that run one after the other; called as any executable.

    Attributes:
        host_nodes: (operator, node, engine) of every step that is not native.
    """

    def __init__(self, segments: Segments, build: Build):
        self._segments = segments
        self._build = build
        self._lock = threading.Lock()
        self._built: dict[tuple[int, tuple[Slot, ...]], Executable] = {}
        self.name = segments.name
        self.host_nodes = tuple((s.operator, s.label, s.engine) for s in segments.steps if isinstance(s, HostStep))
        self.inputs = [_info(s) for s in segments.inputs]
        self.outputs = [_info(s) for s in segments.outputs]
        self.dims = list(dict.fromkeys(d for s in segments.inputs for d in s.shape or () if isinstance(d, str)))
        self.build_report = {}
        self.certificate = None
        for number, step in enumerate(segments.steps):
            if isinstance(step, NativeStep) and all(s.dtype is not None and s.shape is not None for s in step.inputs):
                self._native(number, step, step.inputs)

    def _native(self, number: int, step: NativeStep, slots: tuple[Slot, ...]) -> Executable:
        """The segment for inputs of these types, compiled when they are first known."""
        with self._lock:
            found = self._built.get((number, slots))
            if found is None:
                found = self._built[number, slots] = self._build(step.model(slots))
                for phase, seconds in found.build_report.items():
                    self.build_report[phase] = self.build_report.get(phase, 0.0) + seconds
            return found

    def __repr__(self) -> str:
        ins, outs = ", ".join(map(str, self.inputs)), ", ".join(map(str, self.outputs))
        count = sum(isinstance(s, NativeStep) for s in self._segments.steps)
        host = ", ".join(f"{op} ({engine})" for op, _, engine in self.host_nodes)
        return f"Executable {self.name}({ins}) -> {outs} in {count} native segment(s), on the host: {host}"

    # -- running ---------------------------------------------------------------------------------------------------
    def __call__(self, *arrays: Any) -> Any:
        """Run on the inputs in the model's order; returns the output, or a tuple of them.

        Raises:
            InputError: an array does not fit, or a step of the host refuses what it is given.
        """
        if len(arrays) != len(self.inputs):
            raise InputError(f"{self.name} takes {len(self.inputs)} input(s), got {len(arrays)}: {self._declared()}")
        results = tuple(self.run(dict(zip((i.name for i in self.inputs), arrays, strict=True))).values())
        return results[0] if len(results) == 1 else results

    def run(self, feeds: Mapping[str, Any], out: Mapping[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
        """Run on inputs by name; returns the outputs by name, copied into the arrays of `out`.

        Raises:
            InputError: a name, dtype, rank or size does not fit, or a step of the host refuses what it is given.
        """
        self._input_names = [i.name for i in self.inputs]
        if set(feeds) != set(self._input_names):
            self._refuse_names(feeds)
        sizes: dict[str, int] = {}
        values = {s.name: _checked(s, feeds[s.name], sizes) for s in self._segments.inputs}
        for number, step in enumerate(self._segments.steps):
            if isinstance(step, HostStep):
                made = step.run([values[n] for n in step.inputs])
                values.update(zip(step.outputs, made, strict=False))
                continue
            given = {s.name: values[s.name] for s in step.inputs}
            slots = step.inputs
            if any(s.dtype is None or s.shape is None for s in slots):
                slots = tuple(_observed(s, given[s.name]) for s in slots)
            values.update(self._native(number, step, slots).run(given))
        try:
            results = [values[s.name] for s in self._segments.outputs]
        except KeyError as error:
            raise InternalError(f"no segment makes the output {error}") from error
        names = [s.name for s in self._segments.outputs]
        if out:
            self._check_names(out, names)
            self._copy_out(names, results, out)
        return dict(zip(names, results, strict=True))

    def bind(self, feeds: Mapping[str, Any], out: Mapping[str, np.ndarray] | None = None) -> Binding:
        """As `run`, with these arrays, whenever the result is called; runs once to check them."""
        given, places = dict(feeds), dict(out or {})
        return Binding(lambda: self.run(given, places), self.run(given, places))

    # -- what needs one program ------------------------------------------------------------------------------------
    def _not_native(self, what: str) -> str:
        steps = "; ".join(f"{op} at node {label!r} ({engine})" for op, label, engine in self.host_nodes)
        return f"{self.name} cannot be {what}: only the host can compute {steps}"

    @property
    def _artifact(self) -> Artifact:  # type: ignore[override]
        raise ArtifactError(self._not_native("saved or exported"))

    @property
    def source(self) -> str:  # type: ignore[override]
        """The emitted Python of the compiled segments, in order of their compilation."""
        return "\n\n".join(exe.source for exe in self._built.values())

    @property
    def kernels(self) -> dict[str, str]:
        """The emitted text of every kernel, by segment and name."""
        return {f"{n}.{k}": text for (n, _), exe in self._built.items() for k, text in exe.kernels.items()}

    def profile(self, feeds: Mapping[str, Any], repeats: int = 10, *, roofline: bool = False) -> Profile:
        """
        Raises:
            BuildError: always: there is no one program to time.
        """
        raise BuildError(self._not_native("profiled by kernel"))

    def export_library(
        self, path: str | Path, target: str | None = None, form: str | None = None, *, weights: str = "inside"
    ) -> NoReturn:
        """
        Raises:
            ArtifactError: always.
        """
        raise ArtifactError(self._not_native("exported"))

    def save(self, path: str | Path) -> NoReturn:
        """
        Raises:
            ArtifactError: always.
        """
        raise ArtifactError(self._not_native("saved"))


def _info(slot: Slot) -> TensorInfo:
    return TensorInfo(slot.name, "object" if slot.dtype == "str" else slot.dtype or "unknown", slot.shape or ())


def _checked(slot: Slot, value: Any, sizes: dict[str, int]) -> np.ndarray:
    """An input as an array of the type and rank that the model declares; `sizes` are the open dimensions so far."""
    info = _info(slot)
    if not isinstance(value, np.ndarray):
        if slot.dtype == "str" and isinstance(value, str | list | tuple):
            value = np.asarray(value, object)
        elif hasattr(value, "__dlpack__") and slot.dtype != "str":
            value = np.from_dlpack(value)
        else:
            raise InputError(f"input {info} got {type(value).__name__}; give an array")
    array: np.ndarray = value
    if slot.dtype == "str":
        if array.dtype.kind not in "OUST" or not all(isinstance(t, str) for t in array.astype(object).flat):
            raise InputError(f"input {info} got an array of dtype {array.dtype}; strings are expected")
        array = array.astype(object)
    elif slot.dtype is not None and array.dtype.name != slot.dtype:
        raise InputError(f"input {info} got an array of dtype {array.dtype}")
    if slot.shape is not None:
        fits = array.ndim == len(slot.shape)
        for d, size in zip(slot.shape, array.shape, strict=False):
            fits = fits and (sizes.setdefault(d, size) if isinstance(d, str) else d) == size
        if not fits:
            raise InputError(f"input {info} got shape {array.shape}")
    return array


def _observed(slot: Slot, array: np.ndarray) -> Slot:
    """The slot with what a run tells about it: dtype and rank, never sizes."""
    shape = tuple(f"{slot.name}_dim_{k}" for k in range(array.ndim))
    return Slot(slot.name, slot.dtype or array.dtype.name, slot.shape if slot.shape is not None else shape)


__all__ = ["SegmentedExecutable", "segmented"]
