"""Model files to graphs (layer 8), by importers that register under the entry point group `tensorlang.importers`.

An importer is an object with `name`, `sniff(source) -> bool` and `load(source, shapes) -> Graph`. Built-in ones come the
same way as third parties'; nothing here knows a format.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

from tensorlang.errors import ModelError
from tensorlang.graph.ir import Graph
from tensorlang.graph.segments import Segments
from tensorlang.graph.specialise import specialise
from tensorlang.te import Operator

GROUP = "tensorlang.importers"
Shapes = Mapping[str, Any]


class Importer(Protocol):
    """What an entry point of the group names."""

    name: str

    def sniff(self, source: Any) -> bool: ...

    def load(self, source: Any, shapes: Shapes | None = None) -> Graph: ...


@cache
def _importer(name: str) -> Any:
    for entry in entry_points(group=GROUP):
        if entry.name == name:
            return entry.load()
    known = ", ".join(sorted(e.name for e in entry_points(group=GROUP)))
    raise ModelError(f"no importer {name!r} is installed; there are: {known or 'none'}")


def _importers() -> list[Importer]:
    return [_importer(name) for name in sorted({e.name for e in entry_points(group=GROUP)})]


def load_model(source: Any, shapes: Shapes | None = None) -> Graph:
    """The graph of a model in any format that an installed importer knows, told by content.

    Args:
        source: a path, the file's bytes, a model object of some framework, or a `Graph`.
        shapes: sizes by dimension name, or whole shapes by input name; dimensions left out stay symbolic.

    Raises:
        ModelError: nobody knows the format, or the file is not a sound model.
        UnsupportedOpError: operators that there are no rules for, all of them.
        InputError: `shapes` does not fit the model.
    """
    if isinstance(source, Graph):
        return specialise(source, shapes)
    if isinstance(source, str | Path):
        path = Path(source)
        if not path.exists():
            raise ModelError(f"{path} does not exist")
        if path.is_file() and not path.stat().st_size:
            raise ModelError(f"{path} is empty")
    elif isinstance(source, bytes) and not source:
        raise ModelError("the model is empty: 0 bytes")
    importers = _importers()
    for candidate in importers:
        if candidate.sniff(source):
            return candidate.load(source, shapes)
    if isinstance(source, str | Path) and Path(source).suffix in (".tl", ".so"):
        raise ModelError(f"{source} is no model to compile: tl.load reads what was saved or exported")
    what = str(source) if isinstance(source, str | Path) else f"a {type(source).__name__}"
    raise ModelError(f"{what} is not a model of a known format ({', '.join(i.name for i in importers) or 'none installed'})")


def split_model(
    source: Any, shapes: Shapes | None = None, refused: Collection[str] = (), fallback: str | None = None
) -> Segments | None:
    """A model in segments, where its importer can cut it so (`Importer.split`, which importers may leave out).

    Args:
        refused: names of nodes that cannot be compiled.
        fallback: who on the host computes those ("onnxruntime"), or None for nobody.

    Returns:
        None if there is nothing that the host would do.
    """
    for candidate in () if isinstance(source, Graph) else _importers():
        if candidate.sniff(source):
            cut = getattr(candidate, "split", None)
            found: Segments | None = cut(source, shapes, refused, fallback) if cut is not None else None
            return found
    return None


def from_onnx(source: Any, shapes: Shapes | None = None) -> Graph:
    """The graph of an ONNX model: a path, bytes or an `onnx.ModelProto`. Arguments and errors as for `load_model`."""
    return _importer("onnx").load(source, shapes)


def register_onnx_op(
    domain: str,
    name: str,
    operator: Operator,
    *,
    reference: Callable[..., Any] | None = None,
    since: int = 1,
) -> None:
    """Import ONNX nodes `domain::name` as `operator`, a `@te.compute` function.

    The node's inputs are the operator's tensors in order, its attributes the compile-time constants of the same names.

    Args:
        reference: what it computes, in NumPy: `reference(*arrays, **constants)`. Verification without onnxruntime and
            constant folding use it; without one the interpreter runs the operator's naive loop nest.
        since: the version of the domain from which on this holds.

    Raises:
        InputError: `operator` is not a te operator, or the domain is ONNX's own.
    """
    _importer("onnx").register(domain, name, operator, reference, since)
