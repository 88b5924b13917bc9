"""Models whose `main` runs on the host, in Python, and calls every kernel where it belongs: a target's own, machine code for
the CPU, or a region of another code generator. It is how targets compile models that say nothing else, and how graphs are
split (`tl.compile(model, codegens=[...])`).

Artifact: `libraries` holds "target" (the target's code), "model" and "pool" (the CPU's), and each region's code by its name;
`manifest["hosted"]` says of every kernel where it runs and what its parameters are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tensorlang.build import Cpu, LoweredKernel, compile_source, lower_kernel, pool_library, prepare
from tensorlang.build.plain import PlainRunner
from tensorlang.codegen.emit import HEADER, EmittedKernel
from tensorlang.codegen.intrinsics import Pointer
from tensorlang.codegen.native import CpuTarget
from tensorlang.codegen.target import Function, Target, find_target
from tensorlang.config import Settings
from tensorlang.errors import ArtifactError, BuildError
from tensorlang.graph.compiler import Clock, as_declared, options_for
from tensorlang.graph.generator import Generator, find_generator
from tensorlang.graph.ir import Graph
from tensorlang.graph.partition import partition
from tensorlang.graph.passes import Options, fold_constants, fuse, optimize, run_pass, simplify
from tensorlang.graph.passes.context import Context
from tensorlang.graph.passes.storage import without_narrow
from tensorlang.graph.program.builder import ProgramBuilder
from tensorlang.graph.program.emit import Main
from tensorlang.graph.program.manifest import to_size
from tensorlang.graph.program.tree import Block, Step
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.dtype import dtype as as_dtype
from tensorlang.ir.stmt import PrimFunc
from tensorlang.runtime import sizes
from tensorlang.runtime.address import address_of
from tensorlang.runtime.artifact import FORMAT, Artifact
from tensorlang.runtime.context import context_address, install
from tensorlang.runtime.loader import check_status, load_library


class HostedMain(Main):
    """`main` in Python, which keeps its own text: kernels stand elsewhere."""

    external = True
    text = ""

    def run(self, block: Block) -> tuple[str, list[Step], list[str]]:
        self.text, steps, checks = super().run(block)
        return self.text, steps, checks


def compile_hosted(
    graph: Graph, target: Target, settings: Settings, generators: Sequence[str | Generator | Target] = ()
) -> Artifact:
    """Compile `graph` for `target`, but for the regions that `generators` take; what it has no code for runs on the CPU.

    Returns:
        The build. Its report tells, beside seconds, the numbers of kernels, regions and copies; `manifest["hosted"]` tells
        which kernels the CPU got, and why.

    Raises:
        BuildError: something has no code anywhere, or a generator is unknown.
        ModelError: a size is not determined by the inputs' shapes.
    """
    clock = Clock()
    declared = graph
    graph = without_narrow(graph)
    found = [find_generator(g) for g in generators]
    early = [g for g in found if g.form == "model"]
    late = [g for g in found if g.form != "model"]
    with clock.phase("partition"):
        split = partition(_folded(graph), early).graph if early else graph
    with clock.phase("passes"):
        options = options_for(target, settings) if isinstance(target, Cpu) else Options(winograd=False, integers=False)
        if late:  # byte products are theirs to refuse, whatever this machine's CPU can do
            options = replace(options, integers=True)
        optimised = optimize(split, options)
    if late:
        with clock.phase("partition"):
            optimised = partition(optimised, late).graph
    with clock.phase("fuse"):
        groups = fuse(optimised, options)
    lowering = _Lowering(target, settings, clock)
    with clock.phase("plan and emit"):
        builder = ProgramBuilder(optimised, lowering, clock.timed("prepare weights", prepare), HostedMain)
        program = builder.run(groups)
    main = builder.main
    assert isinstance(main, HostedMain)  # it is what we asked for
    own = {n: k for n, k in program.kernels.items() if n in lowering.taken}
    host = {n: k for n, k in program.kernels.items() if n not in own and n not in builder.external}
    places = {name: _describe(k, target.name) for name, k in own.items()}
    places.update({n: {"on": "cpu", "types": [t for t, _ in k.emitted.params]} for n, k in host.items()})
    libraries: dict[str, bytes] = {}
    by_name = {g.name: g for g in found}
    for name, node in builder.external.items():
        entry = places[name] = _describe(program.kernels[name], node.attrs["generator"])
        if node.op == "copy_to":
            entry["copy_to"] = node.attrs["memory"]
        else:
            entry["inputs"] = len(node.inputs)
            with clock.phase(f"code generator {node.attrs['generator']}"):
                libraries[name] = by_name[node.attrs["generator"]].compile(node.attrs["region"].graph, settings)
    source = f"{HEADER}\n\n" + "\n\n".join([*(k.emitted.text for k in host.values()), main.text])
    device = target.assemble([k.emitted for k in own.values()]) if own else ""
    with clock.phase("target"):
        if own:
            target.check(device)
            libraries["target"] = target.build(device, settings)
    if host and settings.jit:
        with clock.phase("native"):
            text = f"{HEADER}\n\n" + "\n\n".join(k.emitted.text for k in host.values())
            libraries["model"] = compile_source(text, settings=settings)
            libraries["pool"] = pool_library(settings=settings)
    machine = CpuTarget.host()
    manifest = {
        "format": FORMAT,
        "triple": machine.triple,
        "cpu_features": sorted(f[1:] for f in machine.features.split(",") if f.startswith("+")) if host else [],
        **as_declared(program.manifest, declared),
        "target": target.name,
        "hosted": {"kernels": places, "fallback": lowering.refused, "source": device},
    }
    others = list(builder.external.values())
    copied = [n for n in others if n.op == "copy_to"]
    counts = {
        f"kernels on {target.name}": len(own),
        "kernels on cpu": len(host),
        **{f"regions for {g.name}": sum(n.op == "external" and n.attrs["generator"] == g.name for n in others) for g in found},
        "copies between memories": len(copied),
        "bytes copied": sum(math.prod(d.value for d in n.output.shape) * n.output.dtype.nbytes for n in copied)
        if all(n.output.type.is_static for n in copied)
        else math.nan,
    }
    if target.name == "cpu":
        del counts["kernels on cpu"]
        counts = {"kernels on cpu": len(own) + len(host), **{k: v for k, v in counts.items() if k != "kernels on cpu"}}
    manifest["hosted"]["counts"] = {k: v for k, v in counts.items() if not math.isnan(v)}
    return Artifact(manifest, source, libraries, program.weights, dict(clock.seconds))


def _folded(graph: Graph) -> Graph:
    """`graph` with constants folded and identities gone, still in the model's own operators."""
    context = Context(Options(winograd=False, layout="keep", flatten=False, integers=False))
    for step in (simplify, fold_constants):
        graph = run_pass(step, graph, context)
    return graph


class _Lowering:
    """Kernels for the target where it has code for them, else for the CPU; knows afterwards which, and why not."""

    def __init__(self, target: Target, settings: Settings, clock: Clock):
        self.target, self.clock = target, clock
        self.machine = target.machine(settings.num_threads)
        self.taken: set[str] = set()
        self.refused: dict[str, str] = {}

    def __call__(self, func: PrimFunc, name: str) -> LoweredKernel:
        with self.clock.phase("schedule and lower"):
            if not isinstance(self.target, Cpu):
                try:
                    lowered = lower_kernel(func, target=self.target, name=name, machine=self.machine)
                    self.taken.add(name)
                    return lowered
                except BuildError as error:
                    self.refused[name] = str(error)
            return lower_kernel(func, name=name)


def _describe(kernel: LoweredKernel, place: str) -> dict[str, Any]:
    """Where a kernel runs, what it is called there, and its parameters: of a pointer [type, shape], of a size [type, name];
    of workspace ["bytes", size]."""
    params = kernel.emitted.params
    func, known = kernel.func, len(kernel.func.buffers)
    names = {v: params[known + n][1] for n, v in enumerate(func.size_vars)}
    described: list[list[Any]] = [[params[n][0], _shape(b, names)] for n, b in enumerate(func.buffers)]
    described += [["i64", name] for name in names.values()]
    space = dict(kernel.emitted.workspace)
    described += [[t, [to_size(space[n], names)]] for t, n in params[known + len(names) :]]
    marked = [[t, s, k >= known + len(names)] for k, (t, s) in enumerate(described)]
    return {"on": place, "name": kernel.emitted.name, "params": marked, "names": [n for _, n in params]}


def _shape(b: Buffer, names: Mapping[Any, str]) -> list[Any]:
    return [to_size(d, dict(names)) for d in b.shape]


class HostedRunner(PlainRunner):
    """Runs such a program: the emitted `main`, with functions of the right kind in place of the kernels."""

    def __init__(self, artifact: Artifact, settings: Settings):
        super().__init__(artifact)
        hosted = artifact.manifest["hosted"]
        kernels: dict[str, dict[str, Any]] = hosted["kernels"]
        target = find_target(artifact.manifest["target"])
        if "target" in artifact.libraries:
            emitted = [
                EmittedKernel(k["name"], "", tuple(zip((p[0] for p in k["params"]), k["names"], strict=True)), ())
                for k in kernels.values()
                if k["on"] == target.name and not k.keys() & {"types", "inputs", "copy_to"}
            ]
            functions = target.load(artifact.libraries["target"], emitted, settings)
            for kernel in emitted:
                entry = next(d for d in kernels.values() if d.get("name") == kernel.name)
                self.namespace[kernel.name] = _on_target(target, functions[kernel.name], entry["params"])
        if "model" in artifact.libraries:
            self._install_native(artifact, kernels, settings)
        for name, k in kernels.items():
            if "copy_to" in k:
                self.namespace[name] = _copy(find_generator(k["on"]), k)
            elif "inputs" in k:
                if name not in artifact.libraries:
                    raise ArtifactError(f"the code of region {name} for {k['on']} is missing")
                self.namespace[name] = _region(find_generator(k["on"]).load(artifact.libraries[name], settings), name, k)

    def _install_native(self, artifact: Artifact, kernels: Mapping[str, Any], settings: Settings) -> None:
        install(artifact.libraries["pool"], settings.num_threads)
        native = {name: tuple(k["types"]) for name, k in kernels.items() if "types" in k}
        library = load_library(artifact.libraries["model"], native)
        for name in native:
            self.namespace[name] = _native(library[name], name)


def _native(function: Any, name: str) -> Function:
    def run(ctx: Any, *args: Any) -> None:
        words = [address_of(a.buffer) + a.offset if isinstance(a, Pointer) else a for a in args]
        check_status(function(context_address(), *words), name)

    return run


def _arrays(entry: Sequence[Any], names: Sequence[str], args: Sequence[Any]) -> list[Any]:
    """What the program passes, as arrays of the parameters' types and shapes, and integers."""
    known = {name: int(a) for name, a in zip(names, args, strict=True) if not isinstance(a, Pointer)}
    found: list[Any] = []
    for (kind, shape, is_space), a in zip(entry, args, strict=True):
        if not isinstance(a, Pointer):
            found.append(int(a))
            continue
        dims = [sizes.evaluate(d, known) for d in shape]
        if is_space:
            found.append(a.buffer[a.offset :][: dims[0]])
            continue
        dtype = as_dtype(kind[:-1]).numpy
        nbytes = math.prod(dims) * dtype.itemsize
        found.append(a.buffer[a.offset :][:nbytes].view(dtype).reshape(dims))
    return found


def _on_target(target: Target, function: Function, entry: Any) -> Function:
    names = [str(shape) for _, shape, _ in entry]

    def run(ctx: Any, *args: Any) -> None:
        target.launch(function, _arrays(entry, names, args))

    return run


def _region(function: Callable[..., Any], name: str, k: Mapping[str, Any]) -> Function:
    count = k["inputs"]

    def run(ctx: Any, *args: Any) -> None:
        arrays = [a for a in _arrays(k["params"], k["names"], args) if isinstance(a, np.ndarray)]
        results = function(arrays[:count])
        for given, wanted in zip(results, arrays[count:], strict=True):
            if given.shape != wanted.shape or given.dtype != wanted.dtype:
                raise BuildError(
                    f"code generator {k['on']} gave {given.dtype}{list(given.shape)} for an output of region {name} that is "
                    f"{wanted.dtype}{list(wanted.shape)}"
                )
            np.copyto(wanted, given)

    return run


def _copy(generator: Generator, k: Mapping[str, Any]) -> Function:
    def run(ctx: Any, *args: Any) -> None:
        source, destination = (a for a in _arrays(k["params"], k["names"], args) if isinstance(a, np.ndarray))
        generator.copy(source, destination, k["copy_to"])

    return run
