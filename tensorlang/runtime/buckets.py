"""Several programs for one model, chosen by the inputs' sizes: `shapes={"batch": {1, 8}}`.

The program for any size holds the others as its `Artifact.parts`; all read the same block of weights. Its manifest says
which is when to be taken:

    buckets         {"where": [[input, axis], ...], "sizes": [[size, ...], ...]}: part k is for the sizes `sizes[k]` at `where`
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from tensorlang.errors import ArtifactError
from tensorlang.runtime.artifact import Artifact
from tensorlang.runtime.binding import Binding
from tensorlang.runtime.executable import Executable, Runner
from tensorlang.runtime.profile import Profile


def make_executable(artifact: Artifact, runner: Callable[[Artifact], Runner]) -> Executable:
    """The executable of a build, one with buckets where it has parts.

    Raises:
        KeyError, TypeError, ValueError: the manifest is not what a build writes.
    """
    if not artifact.parts:
        return Executable(artifact, runner(artifact))
    described = artifact.manifest["buckets"]
    pairs = zip(described["sizes"], artifact.parts, strict=True)
    buckets = {tuple(sizes): Executable(part, runner(part)) for sizes, part in pairs}
    return BucketedExecutable(artifact, runner(artifact), [(int(k), int(axis)) for k, axis in described["where"]], buckets)


class BucketedExecutable(Executable):
    """A program for any size, and beside it faster ones for particular sizes; each call takes the one that fits exactly.

    Attributes:
        where: (input, axis) of the sizes that decide.
        buckets: the programs for particular sizes, by those sizes. `source`, `kernels`, `steps` and `explain()` are those of
            the program for any size.
    """

    def __init__(
        self,
        artifact: Artifact,
        runner: Runner,
        where: Sequence[tuple[int, int]],
        buckets: Mapping[tuple[int, ...], Executable],
    ):
        super().__init__(artifact, runner)
        self.where = tuple(where)
        self.buckets = dict(buckets)

    def bucket(self, arrays: Sequence[Any]) -> tuple[int, ...] | None:
        """The sizes whose program runs these inputs (in the model's order); None: the program for any size does."""
        try:
            sizes = tuple([arrays[k].shape[axis] for k, axis in self.where])
        except (AttributeError, IndexError, TypeError):
            return None  # no array, or of another rank: the program for any size says what is wrong
        return sizes if sizes in self.buckets else None

    def _run(self, given: Sequence[Any], out: Mapping[str, np.ndarray] | None = None) -> list[np.ndarray]:
        sizes = self.bucket(given)
        return super()._run(given, out) if sizes is None else self.buckets[sizes]._run(given, out)

    def _bound(self, given: list[Any], out: dict[str, np.ndarray]) -> Binding:
        sizes = self.bucket(given)
        return super()._bound(given, out) if sizes is None else self.buckets[sizes]._bound(given, out)

    def _profile(self, feeds: Mapping[str, Any], repeats: int) -> Profile:
        """As for any executable, of the program that these inputs take."""
        if set(feeds) != set(self._input_names):
            self._refuse_names(feeds)
        sizes = self.bucket([feeds[name] for name in self._input_names])
        return super()._profile(feeds, repeats) if sizes is None else self.buckets[sizes]._profile(feeds, repeats)

    def export_library(
        self, path: str | Path, target: str | None = None, form: str | None = None, *, weights: str = "inside"
    ) -> NoReturn:
        """
        Raises:
            ArtifactError: always: a library holds one program.
        """
        raise ArtifactError(
            f"{path}: a library holds one program, and {self.name} has {1 + len(self.buckets)}, for several sizes; compile it "
            "with one size or none to export it (`save` keeps them all)"
        )
