"""Models to executables (layer 8): `tl.compile`, `tl.load`.

A build that the cache knows loads one file and runs. What only other builds need (graphs, passes, code generation, islpy and
numba: a second of imports) is reached through the lazy facade and by entry points.

Targets are found by entry points, built-in ones included (see `codegen.target`).
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from time import process_time, time
from typing import TYPE_CHECKING, Any

import numpy as np

import tensorlang
from tensorlang.config import FALLBACKS, PRECISIONS, Settings
from tensorlang.errors import ArtifactError, BuildError, InputError, ModelError, UnsupportedOpError
from tensorlang.runtime.artifact import Artifact, read_artifact, write_artifact
from tensorlang.runtime.buckets import BucketedExecutable, make_executable
from tensorlang.runtime.cache import ContentCache
from tensorlang.runtime.context import get_num_threads
from tensorlang.runtime.executable import Executable, ForeignRunner, NativeRunner, Runner
from tensorlang.runtime.load import read
from tensorlang.runtime.machine import host_features, host_triple, require_machine
from tensorlang.runtime.profile import Profile

if TYPE_CHECKING:
    from tensorlang.graph.ir import Graph

LARGE_BYTES = 4 << 20  # of a file whose hash is kept
SETTLED_SECONDS = 2.0  # one that was written within this time may change again and have the same times
_TARGETS = "tensorlang.targets"  # the entry points of `codegen.target`, which imports what loading must not


def compile(
    model: Any,
    target: str = "cpu",
    *,
    shapes: Mapping[str, Any] | None = None,
    precision: str = "float32",
    winograd: bool = True,
    tuning: str = "off",
    verify: bool | None = False,
    codegens: Sequence[Any] = (),
    fallback: str | None = None,
) -> Executable:
    """Compile a model.

    Strings and images are the host's: a model that handles them runs as compiled segments with steps of the host between
    them, and its `host_nodes` name those.

    Args:
        model: path of a model file, a model object that an importer knows, or a `Graph`.
        shapes: sizes by dimension name (`{"batch": 1}`) or shapes by input name; what is left out stays open, and one
            executable then serves every size. A set gives several sizes, in the place of one (`{"batch": {1, 8}}`,
            `{"image": ({1, 8}, 3, 224, 224)}`): each is compiled for beside the open dimension, with the weights shared, and a
            call takes the program that fits exactly or else the open one.
        precision: "float32": f32 arithmetic throughout. "bf16": where the target has an instruction for it (AVX512-BF16),
            products by weights are of operands rounded to bf16, added up in f32; elsewhere as "float32". Outputs keep their
            types; `verify` then states the errors against a bound of a tenth of the largest element.
        winograd: whether 3x3 convolutions may be computed with fewer multiplications, where that pays (Winograd's algorithm);
            its rounding errors are larger than a direct sum's, by up to eight times on average (see docs/architecture.md).
        verify: compare with onnxruntime (where the model is an ONNX file and it is installed), else with the operators'
            NumPy references, on seeded inputs; `certificate` of the result tells errors, bounds and seeds. None: where that can
            be done on this machine.
        codegens: code generators that take the parts of the graph that they can, the first one first, before `target` gets the
            rest: names such as "onnxruntime", other targets' names, or `tensorlang.graph.generator.Generator` objects.
        fallback: who computes the nodes that no rule knows: "onnxruntime" (which has to be installed), node by node and named
            in `host_nodes`; None (the default) refuses such a model.

    Raises:
        ModelError: the file is not a sound model.
        UnsupportedOpError: it uses operators that we lack; all are listed.
        InputError: `shapes` names no dimension or input.
        BuildError: there is no code for the target, or `verify` found a difference above its bound.
    """
    from importlib.metadata import entry_points  # here, for `load` has no use for it and it takes 10 ms

    if not isinstance(target, str) or target not in {e.name for e in entry_points(group=_TARGETS)}:
        tensorlang._targets.find_target(target)  # refuses what none accepts
    if precision not in PRECISIONS:
        raise BuildError(f"precision {precision!r} is not supported; there is: {', '.join(PRECISIONS)}")
    if tuning != "off":
        raise BuildError(f"tuning {tuning!r} is not supported; there is: off")
    if fallback is not None and fallback not in FALLBACKS:
        raise BuildError(f"fallback {fallback!r} is not supported; there is: {', '.join(FALLBACKS)}")
    settings = replace(Settings.from_env(), winograd=winograd, precision=precision)
    path = Path(model) if isinstance(model, str | Path) else None
    if path is not None and not path.is_file():
        raise ModelError(f"{path}: {'not a file' if path.exists() else 'no such file'}")
    build = _Build(model, path, target, shapes, settings, codegens)
    unknown = False  # whether there is nothing to compare with
    try:
        artifact = build.cached() or build.run()
    except UnsupportedOpError as refusal:

        def segment(part: Any) -> Executable:
            made = _Build(part, None, target, None, settings, codegens).run()
            return Executable(made, _runner(made, settings))

        exe: Executable = tensorlang._segmented(model, shapes, refusal, fallback, segment)
        unknown = path is None or any(i.dtype == "object" for i in exe.inputs)
        if verify and unknown:
            raise BuildError("verify=True: of models with steps of the host, only files whose inputs are numbers") from None
    else:
        exe = make_executable(artifact, lambda program: _runner(program, settings))
        exe.exporter = _exporter(build, target, settings)
        exe.explainer = lambda machine: tensorlang._explain(exe, build.graph(), target, settings, machine=machine)
        exe.limiter = _limits
    if verify is None:
        verify = exe.runs_here and not unknown
    if verify:
        exe.certificate = tensorlang._certify(exe, path or build.graph(), shapes)
        if isinstance(exe, BucketedExecutable):
            parts = [tensorlang._certify(part, path or build.graph()) for part in exe.buckets.values()]
            exe.certificate["buckets"] = parts
    return exe


def load(path: str | Path, *, verify: bool = False) -> Executable:
    """An executable from a file that `Executable.save` or `Executable.export_library` (a shared library) wrote.

    Nothing is compiled. Everything in the file is compared with its checksum, the weights with one that is fast.

    Args:
        verify: compare the weights with their CRC-32 too, for which each byte takes ten times as long.

    Raises:
        ArtifactError: there is no such file, it is damaged, or it is for another machine.
    """
    path = Path(path)
    artifact = read(path, verify)
    settings = Settings.from_env()
    try:
        exe = make_executable(artifact, lambda program: _runner(program, settings))
        exe.exporter = _exporter(None, None, settings)
        exe.explainer = lambda machine: tensorlang._explain(exe, None, "cpu", settings, machine=machine)
        exe.limiter = _limits
        return exe
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{path} is damaged: {error!r}") from error


def _limits(profile: Profile) -> Profile:
    """The profile with this machine's roofline, for as many threads as the pool has."""
    limits, threads = tensorlang._limits, get_num_threads()
    return profile.with_roofline(
        limits.flops_per_second(threads), lambda nbytes: limits.bytes_per_second(nbytes, threads), limits.MOST_COPY
    )


class _Build:
    """One call of `compile`: finding the model in the cache, or making it."""

    def __init__(
        self,
        model: Any,
        path: Path | None,
        target: str,
        shapes: Mapping[str, Any] | None,
        settings: Settings,
        codegens: Sequence[Any] = (),
    ):
        self.model, self.path, self.target, self.shapes, self.settings = model, path, target, shapes, settings
        self.codegens = [codegens] if isinstance(codegens, str) else list(codegens)
        self.store = ContentCache.of(settings, "models")
        self.file: Path | None = None
        self.key = ""
        self._graph: Graph | None = None
        known = isinstance(target, str) and all(isinstance(g, str) for g in self.codegens)  # an object may do anything
        if path is not None and self.store.directory is not None and known:
            self.key = _key(path, target, shapes, settings, self.codegens)
            self.file = self.store.path(self.key)

    def for_target(self, target: str) -> _Build:
        """The same for another target."""
        return _Build(self.model, self.path, target, self.shapes, self.settings, self.codegens)

    def graph(self) -> Graph:
        """The model as a graph, with `shapes` applied."""
        if self._graph is None:
            self._graph = self._load(_open_shapes(self.shapes))
        return self._graph

    def _load(self, shapes: Mapping[str, Any] | None) -> Graph:
        graph: Graph = tensorlang.load_model(self.model, shapes=shapes)
        return graph

    def cached(self) -> Artifact | None:
        """The finished build of an earlier call or process; a file that cannot be read counts as none."""
        if self.file is None:
            return None
        begun = process_time()
        try:
            artifact = read_artifact(self.file)
        except ArtifactError:  # not there, damaged, or not ours to read
            self.store.discard(self.key)
            return None
        self.store.touch(self.key)
        artifact.report = {"cache": process_time() - begun}
        return artifact

    def run(self) -> Artifact:
        begun = process_time()
        graph = self.graph()  # of several sizes, with those open
        imported = process_time() - begun
        targets = tensorlang._targets
        target = targets.find_target(self.target)
        artifact: Artifact
        if self.shapes is not None and _open_shapes(self.shapes) is not self.shapes:
            if self.codegens:
                raise BuildError("shapes with several sizes: not together with codegens, which take one program")
            artifact = tensorlang._compile_buckets(self._load, graph, self.shapes, target, self.settings)
        elif self.codegens:
            artifact = tensorlang._compile_hosted(graph, target, self.settings, self.codegens)
        else:
            artifact = targets.referenced(target.graph_compiler, "graph_compiler")(graph, target, self.settings)
        artifact.report = {"import model": imported, **artifact.report}
        if self.file is not None and tensorlang._is_reproducible(graph):
            try:
                write_artifact(artifact, self.file)
                self.store.evict()
            except ArtifactError as error:
                self.store.warn(error)  # a cache that cannot be written is a cache that is not used
        return artifact


def _runner(artifact: Artifact, settings: Settings) -> Runner:
    """Machine code for the CPU runs without the compiler; anything else by what its target says."""
    if settings.jit and artifact.is_native and "target" not in artifact.manifest:
        try:
            require_machine(artifact.manifest["triple"], artifact.manifest["cpu_features"], artifact.manifest["model"])
        except ArtifactError as refusal:
            return ForeignRunner(f"{refusal}. Save or export it, and run it there")
        return NativeRunner(artifact, settings.num_threads)
    runner: Runner = tensorlang._runner_of(artifact, settings)
    return runner


def _exporter(
    build: _Build | None, compiled_for: str | None, settings: Settings
) -> Callable[[Artifact, Path, str | None, str | None, str], list[Path]]:
    """How an executable exports itself; `build` makes it again for another target."""

    def export(artifact: Artifact, path: Path, target: str | None, form: str | None, weights: str) -> list[Path]:
        if target is not None and target != compiled_for:
            if build is None:
                raise ArtifactError(f"{path}: what was loaded is made for one machine; compile the model for {target!r}")
            artifact = build.for_target(target).run()
        if "target" not in artifact.manifest:
            return tensorlang._export_artifact(artifact, target or compiled_for, path, form, weights, settings)
        export_as = getattr(_runner(artifact, settings), "export", None)
        if export_as is None:
            if "hosted" in artifact.manifest:
                raise ArtifactError(f"{path}: a model in parts for several targets is called from Python alone; use save")
            raise ArtifactError(f"target {artifact.manifest['target']!r} has no form for other programs yet")
        written: list[Path] = export_as(path)
        return written

    return export


# -- the cache's key -----------------------------------------------------------------------------------------------


def _key(
    path: Path, target: str, shapes: Mapping[str, Any] | None, settings: Settings, codegens: Sequence[str] = ()
) -> str:
    """Hash of all that a build depends on: the model's bytes, shapes, settings, this CPU, and every source beneath."""
    import hashlib  # here, for `load` has no use for it and it takes 4 ms

    digest = hashlib.blake2b(digest_size=32)
    content, beside = _content(path, settings)
    digest.update(content.encode())
    for other in sorted(p for p in path.parent.iterdir() if p.is_file()) if beside else ():
        status = other.stat()
        digest.update(f"{other.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    options = {
        "name": path.name,
        "target": target,
        "codegens": list(codegens),
        "shapes": _plain_shapes(shapes or {}),
        "threads": settings.num_threads,
        "winograd": settings.winograd,
        "precision": settings.precision,
        "jit": settings.jit,
        "triple": host_triple(),
        "features": sorted(host_features()),
    }
    digest.update(json.dumps(options, sort_keys=True).encode())
    digest.update(_fingerprint().encode())
    return digest.hexdigest()


def _content(path: Path, settings: Settings) -> tuple[str, bool]:
    """Hash of a file's bytes, and whether it may name tensors in other files.

    Of a large file that is kept by all that the system says of it (the times of its data and of its entry, its place on the
    disk), so that it is read once, as build tools and git do.
    """
    import hashlib

    status = path.stat()
    if not status.st_size:
        return "", False
    known = ContentCache.of(settings, "files")
    place = f"{path.resolve()} {status.st_dev} {status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
    key = hashlib.sha256(place.encode()).hexdigest()
    found = known.get(key) if status.st_size >= LARGE_BYTES else None
    if found is not None:
        content, _, beside = found.decode().partition(" ")
        return content, beside == "beside"
    digest = hashlib.blake2b(digest_size=32)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        digest.update(data)
        names_others = data.find(b"location") >= 0  # ONNX names tensors in other files by this key
    if status.st_size >= LARGE_BYTES and time() - max(status.st_mtime, status.st_ctime) > SETTLED_SECONDS:
        known.put(key, f"{digest.hexdigest()} {'beside' if names_others else 'alone'}".encode())
    return digest.hexdigest(), names_others


def _open_shapes(shapes: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """`shapes` with every set of sizes left open; `shapes` itself where it has none."""
    found = False

    def opened(size: Any) -> Any:
        nonlocal found
        if isinstance(size, tuple | list):
            return [opened(d) for d in size]
        is_set = isinstance(size, set | frozenset)
        found = found or is_set
        return None if is_set else size

    result = {name: opened(size) for name, size in (shapes or {}).items()}
    return result if found else shapes


def _plain_shapes(shapes: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = {}

    def plain_size(size: Any) -> Any:
        if isinstance(size, set | frozenset):
            return {"any of": sorted(map(plain_size, size), key=repr)}
        return int(size) if isinstance(size, np.integer) else size

    for name, size in shapes.items():
        whole = isinstance(size, Sequence) and not isinstance(size, str)
        plain[name] = [plain_size(d) for d in size] if whole else plain_size(size)
    try:
        json.dumps(plain)
    except TypeError:
        raise InputError(f"shapes holds something that is not a size: {shapes!r}") from None
    return plain


@cache
def _fingerprint() -> str:
    """Hash of our sources, importers and schedules included, of the libraries beneath, and of registered plug-ins."""
    import hashlib
    import importlib.util
    from importlib.metadata import entry_points, version

    digest = hashlib.sha256()
    for package in ("numba", "llvmlite", "numpy", "sympy", "onnx"):
        digest.update(f"{package} {version(package)}\n".encode())
    groups = (_TARGETS, "tensorlang.codegens", "tensorlang.importers", "tensorlang.schedules")
    plugins = [e for group in groups for e in entry_points(group=group)]
    for plugin in sorted(plugins, key=lambda e: (e.group, e.name, e.value)):
        made_by = f"{plugin.dist.name} {plugin.dist.version}" if plugin.dist else ""
        digest.update(f"{plugin.group} {plugin.name} {plugin.value} {made_by}\n".encode())
    for name in ("tensorlang", "tensorlang.importers", "tensorlang.schedules"):
        spec = importlib.util.find_spec(name)
        for root in (spec.submodule_search_locations or ()) if spec else ():
            for source in sorted(Path(root).rglob("*.py")):
                digest.update(source.relative_to(root).as_posix().encode() + b"\0" + source.read_bytes())
    return digest.hexdigest()


__all__ = ["Executable", "compile", "load"]
