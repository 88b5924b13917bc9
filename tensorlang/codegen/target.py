"""A target: how kernel IR becomes something that runs. The CPU is one of them, without privileges (see docs/targets.md).

    scheduled program --passes--> kernel IR --emit, assemble--> text --build--> bytes --load--> functions --launch--> results

A target is an object that an entry point of the group `tensorlang.targets` names:

    [project.entry-points."tensorlang.targets"]
    toy = "toy_package:target"                # target = ToyTarget()

What is required is `name`, `emit`, `build` and `load`; the rest has defaults. `tensorlang.build` joins the steps.
"""

from __future__ import annotations

import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import numpy as np

from tensorlang.codegen.emit import EmittedKernel
from tensorlang.config import Settings
from tensorlang.errors import BuildError, InternalError
from tensorlang.ir.machine import Machine
from tensorlang.ir.stmt import PrimFunc

GROUP = "tensorlang.targets"
Pass = Callable[[PrimFunc], PrimFunc]
Passes = Sequence[tuple[str, Pass]]
Function = Callable[..., None]  # a loaded kernel: takes what `EmittedKernel.params` lists


@dataclass(frozen=True)
class Need:
    """Something that a target needs on this machine.

    Attributes:
        what: a driver, a compiler, a package.
        found: what is there, such as a version or device; "" when it is missing.
        install: the command that adds it.
    """

    what: str
    found: str
    install: str = ""


class Target(ABC):
    """One target; immutable, and shared by all who ask for it.

    Attributes:
        name: what users write: `tl.build(op, target="toy")`.
        language: what `emit` writes, the name of the last of `Kernel.stages`.
        schedules: whose default schedule (entry point group `tensorlang.schedules`) is used; "" leaves loops as they are.
        inspects: what `inspect` can show: "asm", "llvm".
        memory: "" if it works on the host's arrays; else the memory that tensors are copied into and out of (`copy`).
        graph_compiler: how whole models are compiled, "module:function" of `(graph, target, settings) -> Artifact`. The default
            runs the program on the host, and calls each kernel through the target.
        graph_runner: how such an artifact runs, "module:function" of `(artifact, target, settings) -> Runner`.
    """

    name: str
    language: str = "text"
    schedules: str = ""
    inspects: tuple[str, ...] = ()
    memory: str = ""
    graph_compiler: str = "tensorlang.graph.hosted:compile_hosted"
    graph_runner: str = "tensorlang.graph.hosted:HostedRunner"

    # -- which one -------------------------------------------------------------------------------------------------
    def accepts(self, text: str) -> Target | None:
        """The target that a user means by `text`, if it is this one or a variant of it ("x86-64-v3" for the CPU)."""
        return self if text == self.name else None

    def variants(self) -> tuple[str, ...]:
        """More texts that it accepts, for messages."""
        return ()

    # -- what it can ----------------------------------------------------------------------------------------------
    def machine(self, threads: int) -> Machine:
        """What schedules may know, for `threads` workers of the host."""
        return Machine(vector_bytes=4, threads=1)

    def schedule(self, s: Any, machine: Machine) -> bool:
        """Schedule a program (a `tensorlang.schedule.Schedule`) by rules of its own; False leaves it to those of `schedules`.

        Raises:
            BuildError: the target has no way to compute such a program.
        """
        return False

    def has(self, feature: str) -> bool:
        """Whether instructions that require `feature` exist."""
        return feature in self.machine(1).features

    def needs(self) -> list[Need]:
        """What running its code on this machine takes, for `tensorlang doctor`."""
        return []

    # -- the road down ---------------------------------------------------------------------------------------------
    def passes(self, base: Passes) -> Passes:
        """The lowering passes, made from the list in `lower.pipeline`: some left out, some added.

        By default without those that make vectors and call instructions of a CPU: kernel IR is scalar, and a tensorized
        nest stays the loops that the instruction means.
        """
        return [(name, run) for name, run in base if name not in ("tensorize", "vectorize")]

    @abstractmethod
    def emit(self, func: PrimFunc, name: str, trace: str) -> EmittedKernel:
        """The text of lowered `func`, as a function `name`; `trace`, its schedule, may go above it as a comment.

        Raises:
            BuildError: the target has no word for something in it.
        """

    def grid(self, func: PrimFunc) -> PrimFunc | None:
        """Lowered `func` with the barriers and launches that are emitted for it, of which `Kernel.proof` says whether it has
        data races; None where no threads share memory."""
        return None

    def assemble(self, kernels: Sequence[EmittedKernel]) -> str:
        """One text of all kernels, with whatever goes around them."""
        return "\n".join(k.text for k in kernels)

    def check(self, source: str) -> None:
        """Refuse, before anything is built, what this machine's target cannot run.

        Raises:
            BuildError: it lacks something that the text needs.
        """
        return

    @abstractmethod
    def build(self, source: str, settings: Settings) -> bytes:
        """Code of an assembled text, in whatever form `load` takes.

        Raises:
            BuildError: it cannot be built; the message says what to install.
        """

    # -- running ---------------------------------------------------------------------------------------------------
    @abstractmethod
    def load(self, code: bytes, kernels: Sequence[EmittedKernel], settings: Settings) -> Mapping[str, Function]:
        """The kernels as functions by name. Each takes what its `params` lists, in order: for a pointer a C-contiguous
        NumPy array, for a size an int. It returns when the arrays hold the results.

        Raises:
            BuildError: this machine cannot run the code.
        """

    def launch(self, function: Function, args: Sequence[np.ndarray | int]) -> None:
        """Run a loaded kernel once."""
        function(*args)

    def time(self, function: Function, args: Sequence[np.ndarray | int], repeats: int = 10) -> float:
        """Seconds of one launch, the median of several after one to warm up."""
        self.launch(function, args)
        taken = []
        for _ in range(max(1, repeats)):
            begun = time.perf_counter()
            self.launch(function, args)
            taken.append(time.perf_counter() - begun)
        return statistics.median(taken)

    def copy(self, source: np.ndarray, destination: np.ndarray, memory: str) -> None:
        """Copy one tensor into `memory`: the target's own, or "" for the host's."""
        np.copyto(destination, source)

    def inspect(self, source: str, what: str, settings: Settings) -> str:
        """A later form of the text: "asm", "llvm".

        Raises:
            BuildError: the target has none.
        """
        raise BuildError(f"target {self.name!r} ends with its {self.language}; there is no {what} to show")

    def __repr__(self) -> str:
        return f"<target {self.name}>"


# -- finding them -----------------------------------------------------------------------------------------------------


@cache
def registered() -> dict[str, EntryPoint]:
    """The entry points of all targets by name; `registered.cache_clear()` looks again."""
    return {entry.name: entry for entry in entry_points(group=GROUP)}


_GIVEN: dict[str, Target] = {}  # handed over as objects, so that what they compiled can be loaded again


def target_names() -> list[str]:
    """The names of all registered targets."""
    return sorted(registered())


def find_target(target: str | Target) -> Target:
    """The target that `target` names: a registered name, or a text that one of them accepts.

    Raises:
        BuildError: there is none; those that there are are listed.
    """
    if isinstance(target, Target):
        if target.name not in registered():
            _GIVEN[target.name] = target
        return target
    if not isinstance(target, str):
        raise BuildError(f"a target is a name or a Target, not {type(target).__name__}")
    if target in registered():
        return _named(target)
    if target in _GIVEN:
        return _GIVEN[target]
    for name in target_names():
        if (found := _named(name).accepts(target)) is not None:
            return found
    known = [text for name in target_names() for text in (name, *_named(name).variants())]
    raise BuildError(f"unknown target {target!r}; there are: {', '.join(known) or 'none'}")


def _named(name: str) -> Target:
    found = load_target(registered()[name])
    return found.accepts(name) or found


@cache
def load_target(entry: EntryPoint) -> Target:
    """The object behind an entry point.

    Raises:
        BuildError: it cannot be imported, or is no target.
    """
    try:
        found = entry.load()
    except (ImportError, AttributeError) as error:
        raise BuildError(f"target {entry.name!r} ({entry.value}) cannot be loaded: {error}") from error
    if not isinstance(found, Target):
        raise BuildError(f"target {entry.name!r} ({entry.value}) is {type(found).__name__}, not a tensorlang Target")
    return found


def referenced(reference: str, what: str) -> Any:
    """What a target's "module:function" names.

    Raises:
        InternalError: there is no such thing.
    """
    try:
        return EntryPoint(name=what, value=reference, group=GROUP).load()
    except (ImportError, AttributeError) as error:
        raise InternalError(f"{what} {reference!r} of a target cannot be loaded: {error}") from error
