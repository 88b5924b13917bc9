"""What the user writes on the command line about shapes and inputs, parsed, and the arrays it stands for."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from tensorlang.errors import InputError

if TYPE_CHECKING:
    import numpy as np

RANDOM = "random"
Shapes = dict[str, "int | frozenset[int] | tuple[int | frozenset[int], ...]"]


@dataclass(frozen=True)
class InputInfo:
    """An input as the model declares it. A dim is a size, or the name of a dimension that is still open."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class FeedSpec:
    """`--input NAME=SOURCE`: an .npy file, or "random" with an optional shape (`random:1x3x224x224`).

    `--input FILE.npz` gives every array of that file to the input of its name; `member` is such a name.
    """

    name: str | None
    source: str
    shape: tuple[int, ...] | None = None
    member: str | None = None


def parse_shapes(texts: Iterable[str]) -> Shapes:
    """`["batch=1,seq=128", "image=1x3x224x224"]` -> `{"batch": 1, "seq": 128, "image": (1, 3, 224, 224)}`, and several
    sizes `["batch=1+8"]` -> `{"batch": {1, 8}}`.

    Raises:
        typer.BadParameter: not NAME=SIZE, a size below 0, or a name twice.
    """
    shapes: Shapes = {}
    for item in (item for text in texts for item in text.split(",") if item):
        name, equals, sizes = item.rpartition("=")
        if not (name and equals):
            raise typer.BadParameter(f"{item!r}: write NAME=SIZE, such as batch=1 or image=1x3x224x224")
        if name in shapes:
            raise typer.BadParameter(f"{name!r} is given twice")
        shape = tuple(_several(size, item) for size in sizes.split("x"))
        shapes[name] = shape[0] if len(shape) == 1 else shape
    return shapes


def parse_feed(text: str) -> FeedSpec:
    """`"x=a.npy"`, `"x=random"`, `"x=random:1x3x8x8"`, or without a name where the model has one input.

    Raises:
        typer.BadParameter: the source is neither an existing .npy file nor `random`.
    """
    name, equals, source = text.partition("=")
    if not equals:
        name, source = "", text
    kind, colon, sizes = source.partition(":")
    if kind == RANDOM:
        return FeedSpec(name or None, RANDOM, _sizes(sizes, text) if colon else None)
    if source.endswith(".npz") and name:
        raise typer.BadParameter(f"{text!r}: an .npz file holds names: write --input {source}")
    if not source.endswith((".npy", ".npz")):
        raise typer.BadParameter(f"{text!r}: write NAME=FILE.npy, FILE.npz, NAME=random or NAME=random:1x3x224x224")
    if not Path(source).is_file():
        raise typer.BadParameter(f"{text!r}: no file {source}")
    return FeedSpec(name or None, source)


def _several(text: str, item: str) -> int | frozenset[int]:
    """`"8"` is a size, `"1+8"` are several."""
    found = [_sizes(size, item)[0] for size in text.split("+")]
    return found[0] if len(found) == 1 else frozenset(found)


def _sizes(text: str, item: str) -> tuple[int, ...]:
    try:
        sizes = tuple(int(size) for size in text.split("x"))
    except ValueError:
        raise typer.BadParameter(f"{item!r}: {text!r} is not a size such as 8 or 1x3x224x224") from None
    if min(sizes) < 0:
        raise typer.BadParameter(f"{item!r}: sizes are not negative")
    return sizes


def make_feeds(inputs: Sequence[InputInfo], specs: Sequence[FeedSpec], seed: int) -> dict[str, np.ndarray]:
    """One array per input, in the model's order; inputs that no spec names are random.

    Raises:
        InputError: a spec names no input (all of those at once), a file is no array, or an open dimension has no size.
    """
    import numpy as np  # here, for `tensorlang --version` and `--help` do without it

    by_name = _match(inputs, [part for spec in specs for part in _parts(spec)])
    random = np.random.default_rng(seed)
    feeds = {}
    for info in inputs:
        spec = by_name.get(info.name, FeedSpec(info.name, RANDOM))
        feeds[info.name] = _random(info, spec.shape, random) if spec.source == RANDOM else _read(spec)
    return feeds


def _match(inputs: Sequence[InputInfo], specs: Sequence[FeedSpec]) -> Mapping[str, FeedSpec]:
    names = [info.name for info in inputs]
    declared = "\n".join(f"  {info}" for info in inputs)
    found: dict[str, FeedSpec] = {}
    wrong = []
    for spec in specs:
        if spec.name is None and len(names) > 1:
            raise InputError(f"the model has {len(names)} inputs: say --input NAME={spec.source}\n{declared}")
        name = spec.name or names[0]
        if name not in names:
            wrong.append(f"no input is called {name!r}")
        elif name in found:
            wrong.append(f"input {name!r} is given twice")
        found[name] = spec
    if wrong:
        raise InputError("; ".join(wrong) + f". The model's inputs:\n{declared}")
    return found


def _parts(spec: FeedSpec) -> list[FeedSpec]:
    """One spec per array: an .npz file holds several."""
    import numpy as np

    if not spec.source.endswith(".npz"):
        return [spec]
    try:
        with np.load(spec.source, allow_pickle=False) as archive:
            return [FeedSpec(name, spec.source, member=name) for name in archive.files]
    except (ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise InputError(f"{spec.source} is not a file of arrays (.npz): {error}") from None


def _read(spec: FeedSpec) -> np.ndarray:
    import numpy as np

    try:
        with open(spec.source, "rb") as file:
            if not file.read(6).startswith((b"\x93NUMPY", b"PK")):
                raise InputError(f"{spec.source} is not an array file (.npy, .npz): it does not begin as one")
        content = np.load(spec.source, allow_pickle=False)  # nothing that a user gives is unpickled
        return content if spec.member is None else content[spec.member]
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{spec.source} is not an array file (.npy, .npz): {error}") from None


def _random(info: InputInfo, shape: tuple[int, ...] | None, random: Any) -> np.ndarray:
    """Standard normal floats; integers 0 and 1, since an integer input is usually an index or a mask; fair booleans."""
    import numpy as np

    if shape is None:
        open_dims = [str(dim) for dim in info.shape if not isinstance(dim, int)]
        if open_dims:
            sizes = ",".join(f"{dim}=1" for dim in dict.fromkeys(open_dims))
            raise InputError(
                f"input {info} has open dimensions: give --shapes {sizes}, or --input {info.name}=random:"
                + "x".join(str(dim) if isinstance(dim, int) else "1" for dim in info.shape)
            )
        shape = tuple(dim for dim in info.shape if isinstance(dim, int))
    if info.dtype in ("string", "str"):
        raise InputError(f"input {info} holds strings: give it as a file")
    if info.dtype == "bool":
        return random.integers(0, 2, shape).astype(np.bool_)
    if info.dtype.startswith(("int", "uint")):
        return random.integers(0, 2, shape).astype(info.dtype)
    values = random.standard_normal(shape, dtype=np.float32)
    if info.dtype == "bfloat16":
        import ml_dtypes

        return values.astype(ml_dtypes.bfloat16)
    return values.astype(info.dtype)
