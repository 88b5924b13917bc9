"""The ONNX importer: file -> Graph. `importer` is what the entry point `tensorlang.importers` names."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from tensorlang import te
from tensorlang.graph import Graph, Segments

from . import (
    attention,
    casts,
    classifiers,
    control,
    custom,
    einsum,
    elementwise,
    microsoft,
    ml,
    ngrams,
    nn,
    qlinear,
    quantize,
    random,
    recurrent,
    reductions,
    resize,
    sampling,
    selection,
    sequences,
    signal,
    tensors,
    training,
)
from .convert import Shapes, convert
from .reader import Source, read_model, sniff
from .segments import split

__all__ = [
    "OnnxImporter", "attention", "casts", "classifiers", "control", "einsum", "elementwise", "importer", "microsoft",
    "ml", "ngrams", "nn", "qlinear", "quantize", "random", "recurrent", "reductions", "resize", "sampling",
    "selection", "sequences", "signal", "tensors", "training",
]  # fmt: skip


class OnnxImporter:
    """Reads ONNX models.

    Attributes:
        name: how messages call the format.
    """

    name = "onnx"

    def sniff(self, source: Source) -> bool:
        """Whether `source` (a path, bytes or a ModelProto) is an ONNX model by its content."""
        return sniff(source)

    def load(self, source: Source, shapes: Shapes | None = None) -> Graph:
        """The graph of a model.

        Args:
            source: a path, the file's bytes, or an `onnx.ModelProto`.
            shapes: sizes by dimension name (`{"batch": 1}`) or whole shapes by input name (`{"x": (1, 3, 224, 224)}`).
                Dimensions left out stay symbolic.

        Raises:
            ModelError: not a sound model. UnsupportedOpError: operators that there are no rules for, all of them.
            InputError: `shapes` does not fit the model.
        """
        return convert(read_model(source), shapes)

    def split(
        self, source: Source, shapes: Shapes | None = None, refused: Collection[str] = (), fallback: str | None = None
    ) -> Segments | None:
        """The model in segments that are compiled and steps of the host: strings, images, and nodes called as `refused` says.

        Args:
            fallback: who computes the refused nodes: "onnxruntime", or None for nobody.

        Returns:
            None if no node is for the host.

        Raises:
            ModelError, InputError: as `load`. UnsupportedOpError: nobody has an operator.
        """
        return split(read_model(source), shapes, refused, fallback)

    def register(
        self, domain: str, name: str, operator: te.Operator, reference: Callable[..., Any] | None = None, since: int = 1
    ) -> None:
        """Import nodes `domain::name` as a user's operator (see `custom.register`)."""
        custom.register(domain, name, operator, reference, since)


importer = OnnxImporter()
