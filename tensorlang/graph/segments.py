"""A model in segments: parts that are compiled, and between them steps that only Python on the host can do.

Importers make it of models that no single native program computes (`Importer.split`), `tensorlang.segmented` runs it:

    x: string[n] -> [StringNormalizer] -> y -> [LabelEncoder] -> ids: i64[n] -> (native: gather, matmul, softmax) -> out
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Slot:
    """A tensor at a border.

    Attributes:
        dtype: NumPy's name; "str" for strings (arrays of Python objects); None: only a run tells.
        shape: sizes, or names of open dimensions; None: not even their number is known beforehand.
    """

    name: str
    dtype: str | None
    shape: tuple[int | str, ...] | None


@dataclass(frozen=True, eq=False)
class HostStep:
    """One node that the host computes.

    Attributes:
        operator, label: what messages call it.
        engine: whose implementation it is: "onnx.reference", "onnxruntime".
        inputs, outputs: names of tensors; "" for what is left out.
        run: arrays in the order of `inputs` (without those left out) -> arrays in the order of `outputs`.
    """

    operator: str
    label: str
    engine: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    run: Callable[[Sequence[np.ndarray]], Sequence[Any]]


@dataclass(frozen=True, eq=False)
class NativeStep:
    """A part that is compiled.

    Attributes:
        inputs: its tensors; where a type or rank is not known, the first run tells.
        outputs: names.
        model: what the importer that made it loads, given the inputs with their types.
    """

    inputs: tuple[Slot, ...]
    outputs: tuple[str, ...]
    model: Callable[[Sequence[Slot]], Any]


@dataclass(frozen=True, eq=False)
class Segments:
    """Steps in order, and the tensors that go in and come out."""

    name: str
    inputs: tuple[Slot, ...]
    outputs: tuple[Slot, ...]
    steps: tuple[HostStep | NativeStep, ...]
