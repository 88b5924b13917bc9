"""ONNX's own backend tests (`onnx.backend.test`), one at a time: their models, data and tolerances, our backend, a verdict.

The verdict of a case is one of

    pass          every output is as the suite wants it, by the suite's own comparison
    unsupported   refused with UnsupportedOpError before anything ran
    mismatch      an output differs
    error         anything else was raised
    crash         the process died, or `timeout`: it took too long (see `run.py`)
"""

from __future__ import annotations

import glob
import os
import warnings
from dataclasses import dataclass
from functools import cache
from typing import Any

import onnx
from onnx import numpy_helper

from tensorlang.errors import UnsupportedOpError
from tensorlang.interop import onnx_backend

KINDS = ("node", "real", "simple", "pytorch-converted", "pytorch-operator")


@dataclass(frozen=True)
class Case:
    """One test of the suite.

    Attributes:
        id: "kind/name".
        test: what the suite's loader returned.
    """

    id: str
    test: Any

    @property
    def name(self) -> str:
        return str(self.test.name)

    def model(self) -> onnx.ModelProto:
        if self.test.model is not None:
            return self.test.model
        if self.test.model_dir is not None:
            return onnx.load(os.path.join(self.test.model_dir, "model.onnx"))
        return onnx.load(os.path.join(_data(), "light", os.path.basename(self.test.url)))

    def data(self, model: onnx.ModelProto) -> list[tuple[list[Any], list[Any]]]:
        """(inputs, expected outputs) per data set."""
        if self.test.data_sets is not None:
            return [([_array(x) for x in i], [_array(x) for x in o]) for i, o in self.test.data_sets]
        if self.test.model_dir is not None:
            return [
                (_load(folder, "input", model.graph.input), _load(folder, "output", model.graph.output))
                for folder in sorted(glob.glob(os.path.join(self.test.model_dir, "test_data_set*")))
            ]
        return [self._light(model)]

    def _light(self, model: onnx.ModelProto) -> tuple[list[Any], list[Any]]:
        """Models without weights: made-up inputs, and outputs that are stored beside the model."""
        initialised = {t.name for t in model.graph.initializer}
        inputs = [
            _runner().generate_dummy_data(v, seed=0, name=self.test.model_name, random=False)
            for v in model.graph.input
            if v.name not in initialised
        ]
        stem = os.path.join(_data(), "light", os.path.splitext(os.path.basename(self.test.url))[0])
        outputs = []
        for position in range(len(model.graph.output)):
            tensor = onnx.TensorProto()
            with open(f"{stem}_output_{position}.pb", "rb") as file:
                tensor.ParseFromString(file.read())
            outputs.append(numpy_helper.to_array(tensor))
        return inputs, outputs


def _data() -> str:
    return os.path.join(os.path.dirname(onnx.__file__), "backend", "test", "data")


def _array(value: Any) -> Any:
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def _runner() -> Any:
    from onnx.backend.test.runner import Runner  # its module imports test frameworks

    return Runner


def _load(folder: str, what: str, infos: Any) -> list[Any]:
    values: list[Any] = []
    runner = _runner()
    reader = runner.__new__(runner)
    for position in range(len(glob.glob(os.path.join(folder, f"{what}_*.pb")))):
        reader._load_proto(os.path.join(folder, f"{what}_{position}.pb"), values, infos[position].type)
    return values


@cache
def cases() -> dict[str, Case]:
    """Every test of the suite by id, in order."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.loader import load_model_tests

        found = [(kind, t) for kind in KINDS for t in sorted(load_model_tests(kind=kind), key=lambda t: t.name)]
    return {f"{kind}/{test.name}": Case(f"{kind}/{test.name}", test) for kind, test in found}


@cache
def operators() -> dict[str, str]:
    """What each test is of: its operator with its domain, or the kind of model."""
    plain: dict[str, str] = {}
    for case in cases().values():
        if case.id.startswith("node/") and "_expanded" not in case.name:
            node = case.model().graph.node[0]
            plain[case.name] = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
    found = {}
    for case in cases().values():
        kind = case.id.partition("/")[0]
        found[case.id] = f"({kind})" if kind != "node" else plain.get(case.name.partition("_expanded")[0], "(expanded)")
    return found


def _boxed(values: Any) -> list[Any]:
    """Elements of sequences as lists of one: the suite's comparison takes the length of an element, which scalars have not."""
    return [[[v] for v in value] if isinstance(value, list | tuple) else value for value in values]


def check(case: Case) -> tuple[str, str]:
    """The verdict, and a message."""
    stage = "run"
    try:
        model = case.model()
        prepared = onnx_backend.prepare(model)
        for inputs, expected in case.data(model):
            stage = "run"
            outputs = prepared.run(inputs)
            stage = "compare"
            expected, outputs = _boxed(expected), _boxed(outputs)
            _runner().assert_similar_outputs(expected, outputs, case.test.rtol, case.test.atol, model_dir=case.test.model_dir)
    except UnsupportedOpError as error:
        return "unsupported", str(error)
    except Exception as error:
        return "mismatch" if stage == "compare" else "error", f"{type(error).__name__}: {error}"
    return "pass", ""
