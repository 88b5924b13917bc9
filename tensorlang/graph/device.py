"""A model's road to a device with grids: passes and fusion as for the CPU, then functions and a list of their launches.

Everything lies in one arena of the device, at offsets that are planned before; launches follow each other in one stream.
"""

from __future__ import annotations

import json
from collections.abc import Set
from typing import Any

from tensorlang.build import LoweredKernel, evaluate, lower_kernel, prepare
from tensorlang.codegen.cuda.emit import HEADER, RESERVED, VECTOR_BYTES
from tensorlang.codegen.grid import GridKernel, grid_of
from tensorlang.codegen.target import Target
from tensorlang.config import Settings
from tensorlang.errors import BuildError, InternalError
from tensorlang.graph.ir import Graph
from tensorlang.graph.passes import Options, fuse, optimize
from tensorlang.graph.passes.storage import without_narrow
from tensorlang.graph.program.builder import ProgramBuilder
from tensorlang.graph.program.emit_static import StaticMain
from tensorlang.graph.program.tree import Argument, Block, Step
from tensorlang.ir.stmt import PrimFunc
from tensorlang.runtime.artifact import FORMAT, Artifact

# Winograd's transforms are scheduled for vector registers, which threads do not have.
MOST_BLOCKS = (2**31 - 1, 65535, 65535)  # along x, y, z
OPTIONS = Options(winograd=False)


class DeviceMain(StaticMain):
    """The calls of a program, as comments below its functions: who launches them is the host."""

    target = "cuda"
    reserved = RESERVED

    @staticmethod
    def module(kernels: list[str], main: str) -> str:  # type: ignore[override]
        return "\n\n".join([HEADER, *kernels, main])

    def run(self, block: Block) -> tuple[str, list[Step], list[str]]:
        self._resolve(block)
        self._block(block, 1, ())
        lines = ["# The host launches, in this order:", *(f"#     {line.strip()}" for line in self.lines)]
        return "\n".join(lines) + "\n", self.steps, self.checks


def compile_device(graph: Graph, target: Target, settings: Settings) -> Artifact:
    """Compile `graph` for a device. None is needed to compile.

    Returns:
        The program as text, the weights, and in `manifest["device"]` the functions' code and their launches.

    Raises:
        ModelError: a dimension is open.
        BuildError: something has no code there, or what compiles is missing.
    """
    declared = graph
    graph = without_narrow(graph)
    optimised = optimize(graph, OPTIONS)
    program = _program(optimised, target, frozenset())
    if anywhere := _unaligned(program):  # parts of other tensors
        program = _program(optimised, target, anywhere)
    launches = [entry for step in program.steps for entry in _launches(step, program.kernels[step.kernel].emitted)]
    manifest = dict(program.manifest)
    code = json.loads(target.build(program.source, settings))
    plan = {"launches": launches, "arena_bytes": manifest["arena_bytes"], "code": code}
    for key, values in (("inputs", declared.inputs), ("outputs", declared.outputs)):
        manifest[key] = [{**e, "dtype": v.dtype.numpy.name} for e, v in zip(manifest[key], values, strict=True)]
    manifest.update({"format": FORMAT, "target": target.name, "arena_bytes": 0, "steps": [], "device": plan})
    return Artifact(manifest, program.source, {}, program.weights, {"launches": float(len(launches))})


def _program(graph: Graph, target: Target, anywhere: Set[str]) -> Any:
    """The program of an optimised graph. Kernels named in `anywhere` take arrays that begin anywhere."""
    scalar = target.without_vectors() if anywhere else target  # type: ignore[attr-defined]

    def lower(func: PrimFunc, name: str) -> LoweredKernel:
        return lower_kernel(func, target=scalar if name in anywhere else target, name=name)

    return ProgramBuilder(graph, lower, prepare, DeviceMain).run(fuse(graph))


def _unaligned(program: Any) -> frozenset[str]:
    """Kernels that read or write vectors of an array which some call lets begin elsewhere than at a multiple of a vector."""
    found = set()
    for step in program.steps:
        kernel = program.kernels[step.kernel].emitted
        names = [name for _, name in kernel.params]
        for name, argument in zip(names, step.args, strict=True):
            if name in kernel.aligned:
                place, at, shift = _number(argument)
                begin = shift if place in ("input", "output") else at + shift
                if begin % VECTOR_BYTES:
                    found.add(step.kernel)
    return frozenset(found)


def _launches(step: Step, kernel: object) -> list[dict[str, Any]]:
    """The launches of one call, with numbers for everything."""
    if not isinstance(kernel, GridKernel):
        raise InternalError(f"{step.kernel} was not emitted for a grid")
    args = dict(zip([name for _, name in kernel.params], step.args, strict=True))
    sizes = {v: _number(args[name])[1] for name, v in kernel.sizes}
    for launch in kernel.launches:
        if any(n > most for n, most in zip(grid_of(launch, sizes), MOST_BLOCKS, strict=False)):
            raise BuildError(f"{launch.function}: a grid of {grid_of(launch, sizes)} blocks; CUDA has at most {MOST_BLOCKS}")
    return [
        {
            "function": launch.function,
            "label": step.label,
            "args": [_number(args[name]) for name in launch.args],
            "blocks": list(grid_of(launch, sizes)),
            "threads": list(launch.threads),
        }
        for launch in kernel.launches
    ]


def _number(a: Argument) -> tuple[str, int, int]:
    """Where an argument is: a place, its number or byte offset there, and bytes from its beginning."""
    return a.place, evaluate(a.value, {}), evaluate(a.shift, {})
