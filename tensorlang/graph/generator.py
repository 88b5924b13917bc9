"""Bring your own code generator: what computes regions of graphs in its own way, beside the targets (docs/targets.md).

    [project.entry-points."tensorlang.codegens"]
    acme = "acme_package:generator"           # generator = AcmeGenerator(); then tl.compile(model, codegens=["acme"])
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import EntryPoint, entry_points

import numpy as np

from tensorlang.build import lower_kernel
from tensorlang.build.plain import artifact_bytes, artifact_of, runner_of
from tensorlang.codegen.target import Need, Target, find_target, referenced
from tensorlang.config import Settings
from tensorlang.errors import BuildError
from tensorlang.graph.ir import Graph, Node, Value
from tensorlang.graph.ops.external import CopyTo, External
from tensorlang.graph.ops.serial import SerialOp
from tensorlang.graph.passes import fuse
from tensorlang.graph.patterns import Pattern
from tensorlang.graph.registry import get
from tensorlang.ir.visitor import free_vars
from tensorlang.runtime.executable import Executable

GROUP = "tensorlang.codegens"
Run = Callable[[Sequence[np.ndarray]], Sequence[np.ndarray]]


class Generator(ABC):
    """A code generator for regions.

    Attributes:
        name: what users write in `codegens=[...]`, and what artifacts name.
        patterns: small graphs (`patterns.pattern`) whose every occurrence it takes as a whole, tried in this order.
        memory: "" if it works on the host's arrays; else the memory into which inputs are copied, and outputs out of.
        min_nodes: smaller regions are left to the target.
        form: which graph it is shown: "model", in the model's own operators, or "optimised", after all passes.
    """

    form: str = "model"
    name: str
    patterns: Sequence[Pattern] = ()
    memory: str = ""
    min_nodes: int = 1

    def supports(self, node: Node) -> bool:
        """Whether it takes this node alone, apart from its patterns."""
        return False

    def accepts(self, match: Sequence[Node]) -> bool:
        """Whether it takes these nodes, which one of its patterns matched: where types or attributes decide."""
        return True

    @abstractmethod
    def compile(self, graph: Graph, settings: Settings) -> bytes:
        """Code of a region, in whatever form `load` takes; equal regions give equal bytes.

        Raises:
            BuildError: it cannot, although it said that it would.
        """

    @abstractmethod
    def load(self, code: bytes, settings: Settings) -> Run:
        """A function from the region's inputs to its outputs (C-contiguous arrays, in the region's order).

        Raises:
            BuildError: this machine cannot run the code.
        """

    def copy(self, source: np.ndarray, destination: np.ndarray, memory: str) -> None:
        """Copy one tensor into `memory` (the generator's, or "" for the host's)."""
        np.copyto(destination, source)

    def needs(self) -> list[Need]:
        """What it takes on this machine, for `tensorlang doctor`."""
        return []

    def only(self, where: Callable[[Node], bool]) -> Generator:
        """This generator, for the nodes alone for which `where` holds (of a pattern: for all of its nodes)."""
        return Restricted(self, where)

    def __repr__(self) -> str:
        return f"<code generator {self.name}>"


class Restricted(Generator):
    """A generator that a user keeps away from some nodes. Artifacts name the generator itself."""

    def __init__(self, whole: Generator, where: Callable[[Node], bool]):
        self.whole, self.where = whole, where
        self.name, self.patterns, self.memory = whole.name, whole.patterns, whole.memory
        self.min_nodes, self.form = whole.min_nodes, whole.form

    def supports(self, node: Node) -> bool:
        return self.where(node) and self.whole.supports(node)

    def accepts(self, match: Sequence[Node]) -> bool:
        return all(map(self.where, match)) and self.whole.accepts(match)

    def compile(self, graph: Graph, settings: Settings) -> bytes:
        return self.whole.compile(graph, settings)

    def load(self, code: bytes, settings: Settings) -> Run:
        return self.whole.load(code, settings)

    def copy(self, source: np.ndarray, destination: np.ndarray, memory: str) -> None:
        self.whole.copy(source, destination, memory)


class TargetGenerator(Generator):
    """A target as a code generator: regions are compiled to its kernels, as whole models are."""

    def __init__(self, target: Target):
        self.target = find_target(target)
        self.name, self.memory = target.name, target.memory
        self._supported: dict[str, bool] = {}

    def supports(self, node: Node) -> bool:
        """Whether the target has code for the node's own loop nest."""
        definition = get(node.op)
        if definition.structure or node.bodies or isinstance(definition, SerialOp | External | CopyTo):
            return False
        single = extract([node], "probe")
        key = str(single)
        if key not in self._supported:
            try:
                for group in fuse(single):
                    if group.kind == "kernel":
                        lower_kernel(group.prim_func(), target=self.target)
                self._supported[key] = True
            except BuildError:
                self._supported[key] = False
        return self._supported[key]

    def compile(self, graph: Graph, settings: Settings) -> bytes:
        artifact = referenced(self.target.graph_compiler, "graph_compiler")(graph, self.target, settings)
        return artifact_bytes(artifact)

    def load(self, code: bytes, settings: Settings) -> Run:
        artifact = artifact_of(code)
        executable = Executable(artifact, runner_of(artifact, settings))

        def run(inputs: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
            results = executable(*inputs)
            return results if isinstance(results, tuple) else (results,)

        return run

    def copy(self, source: np.ndarray, destination: np.ndarray, memory: str) -> None:
        self.target.copy(source, destination, memory)

    def needs(self) -> list[Need]:
        return self.target.needs()


_GIVEN: dict[str, Generator] = {}  # handed over as objects, so that what they compiled can be loaded again


def remember(generator: Generator) -> Generator:
    """Find `generator` by its name from now on; a later one of that name takes its place."""
    _GIVEN[generator.name] = generator.whole if isinstance(generator, Restricted) else generator
    return generator


@cache
def registered_generators() -> dict[str, EntryPoint]:
    """The entry points of all generators by name; `registered_generators.cache_clear()` looks again."""
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def find_generator(generator: str | Generator | Target) -> Generator:
    """The generator of a name: a registered one, or a target, which computes regions by its own kernels.

    Raises:
        BuildError: there is none.
    """
    if isinstance(generator, Generator):
        return remember(generator)
    if isinstance(generator, Target):
        return remember(TargetGenerator(generator))
    if generator in _GIVEN:
        return _GIVEN[generator]
    if generator not in registered_generators():
        try:
            return TargetGenerator(find_target(generator))
        except BuildError as error:
            known = ", ".join(sorted(registered_generators())) or "none"
            raise BuildError(f"no code generator {generator!r}; there are: {known}; nor is it a target: {error}") from None
    entry = registered_generators()[generator]
    try:
        found = entry.load()
    except (ImportError, AttributeError) as error:
        raise BuildError(f"code generator {generator!r} ({entry.value}) cannot be loaded: {error}") from error
    if not isinstance(found, Generator):
        raise BuildError(f"code generator {generator!r} ({entry.value}) is {type(found).__name__}, not a Generator")
    return found


def extract(nodes: Sequence[Node], name: str, outputs: Sequence[Value] | None = None) -> Graph:
    """A graph of copies of `nodes` (in topological order), whose inputs are what they read from elsewhere.

    Args:
        outputs: those of their values that it returns, all that they do not use themselves by default.
    """
    new: dict[Value, Value] = {}
    inputs: list[Value] = []
    copies: list[Node] = []
    for node in nodes:
        for value in node.inputs:
            if value not in new:
                new[value] = value
                if not value.is_constant:
                    new[value] = Value(value.name, value.type, data=value.data)
                    inputs.append(new[value])
        copy = Node(node.op, [new[v] for v in node.inputs], node.attrs, name=node.name)
        copy.outputs = [Value(v.name, v.type, copy, data=v.data) for v in node.outputs]
        new.update(zip(node.outputs, copy.outputs, strict=True))
        copies.append(copy)
    if outputs is None:
        used = {v for node in nodes for v in node.inputs}
        outputs = [v for node in nodes for v in node.outputs if v not in used]
    dims = {v.name: v for value in inputs for d in value.shape for v in free_vars(d)}
    return Graph(inputs, copies, [new[v] for v in outputs], name, dims)
