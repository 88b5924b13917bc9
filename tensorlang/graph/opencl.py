"""A model's road to OpenCL: the same passes and fusion as for the CPU, then one OpenCL program and a list of its launches.

Values stay on the device from the inputs' upload to the outputs' download; launches follow each other in one queue.
"""

from __future__ import annotations

from time import process_time
from typing import Any

from tensorlang.build import evaluate, lower_kernel, prepare
from tensorlang.build.opencl import grid
from tensorlang.codegen.c.printer import comment
from tensorlang.codegen.grid import GridKernel
from tensorlang.codegen.opencl.emit import RESERVED, opencl_module
from tensorlang.codegen.target import Target
from tensorlang.config import Settings
from tensorlang.errors import InternalError
from tensorlang.graph.ir import Graph, Value
from tensorlang.graph.passes import Options, fuse, optimize
from tensorlang.graph.passes.storage import without_narrow
from tensorlang.graph.program.builder import ProgramBuilder
from tensorlang.graph.program.emit_static import StaticMain
from tensorlang.graph.program.storage import nbytes_of
from tensorlang.graph.program.tree import Argument, Block, Step
from tensorlang.ir.expr import Expr
from tensorlang.ir.visitor import substitute
from tensorlang.runtime.artifact import FORMAT, Artifact

# Winograd's transforms are scheduled for vector registers, which work items do not have.
OPTIONS = Options(winograd=False)


class OpenCLMain(StaticMain):
    """The calls of a program, as comments below its kernels: who runs it is the host."""

    target = "opencl"
    reserved = RESERVED

    @staticmethod
    def module(kernels: list[str], main: str) -> str:  # type: ignore[override]
        return opencl_module("\n".join(kernels)) + "\n" + main

    def run(self, block: Block) -> tuple[str, list[Step], list[str]]:
        self._resolve(block)
        self._block(block, 1, ())
        lines = ["// The host calls, in this order:", *(comment(f"//     {line.strip()}") for line in self.lines)]
        return "\n".join(lines) + "\n", self.steps, self.checks


def compile_opencl(graph: Graph, target: Target, settings: Settings) -> Artifact:
    """Compile `graph` to OpenCL C: the graph compiler of target "opencl". No device is needed.

    Returns:
        The program as text, the weights, and in `manifest["opencl"]` what `OpenCLRunner` does with them.

    Raises:
        ModelError: a dimension is open.
        BuildError: something has no code in OpenCL C.
    """
    begun = process_time()
    declared = graph
    graph = without_narrow(graph)
    optimised = optimize(graph, OPTIONS)
    builder = ProgramBuilder(
        optimised, lambda func, name: lower_kernel(func, target=target, name=name), prepare, OpenCLMain
    )
    program = builder.run(fuse(optimised))
    launches = [entry for step in program.steps for entry in _launches(step, program.kernels[step.kernel].emitted)]
    plan = {
        "launches": launches,
        "arena": sorted(_arena(builder).items()),
        "weights": [(offset, array.nbytes) for offset, array in builder.weights.pieces],
    }
    manifest = dict(program.manifest)
    for key, values in (("inputs", declared.inputs), ("outputs", declared.outputs)):
        manifest[key] = [{**e, "dtype": v.dtype.numpy.name} for e, v in zip(manifest[key], values, strict=True)]
    manifest.update({"format": FORMAT, "target": "opencl", "arena_bytes": 0, "steps": [], "opencl": plan})
    return Artifact(manifest, program.source, {}, program.weights, {"build": process_time() - begun})


def _launches(step: Step, kernel: object) -> list[dict[str, Any]]:
    """The launches of one call, with numbers for everything."""
    if not isinstance(kernel, GridKernel):
        raise InternalError(f"{step.kernel} was not emitted for OpenCL")
    args = dict(zip([name for _, name in kernel.params], step.args, strict=True))
    sizes = {v: int(args[name].value.value) for name, v in kernel.sizes}
    return [
        {
            "function": launch.function,
            "label": step.label,
            "args": [_number(args[name]) for name in launch.args],
            "groups": list(grid(launch, sizes)),
            "items": list(launch.threads),
        }
        for launch in kernel.launches
    ]


def _number(a: Argument) -> tuple[str, int]:
    if a.shift.op != "const" or a.shift.value or a.value.op != "const":
        raise InternalError(f"an argument in {a.place} has an address that is not known before the program runs")
    return a.place, int(a.value.value)


def _arena(builder: ProgramBuilder) -> dict[int, int]:
    """Bytes by offset in the planned arena. Each offset gets memory of its own: devices cannot cut theirs anywhere."""
    found: dict[int, int] = {}
    for key, offset in builder.storage.offsets.items():
        if isinstance(key, Value):
            nbytes: Expr = nbytes_of(key.type)
        else:
            call, name = key
            nbytes = substitute(dict(call.site.kernel.emitted.workspace)[name], call.site.sizes)
        at = evaluate(offset, {})
        found[at] = max(found.get(at, 0), evaluate(nbytes, {}))
    return found
