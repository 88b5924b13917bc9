"""A model's road to C: graph -> optimised graph -> fused groups -> kernels and `<model>_run` -> a description of C files.

The same passes, fusion and program as for the CPU; only the schedules, the last lowering passes and the spelling differ.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from math import prod
from time import process_time
from typing import Any

from tensorlang.build import LoweredKernel, lower_kernel, prepare
from tensorlang.codegen.c.files import weights_bytes, workspace_bytes
from tensorlang.codegen.c.helpers import needs_math_h, prelude
from tensorlang.codegen.target import Target
from tensorlang.config import Settings
from tensorlang.graph.ir import Graph
from tensorlang.graph.passes import Options, fuse, optimize
from tensorlang.graph.passes.storage import without_narrow
from tensorlang.graph.program.builder import ProgramBuilder
from tensorlang.graph.program.emit_c import CMain
from tensorlang.ir.stmt import PrimFunc
from tensorlang.runtime.artifact import FORMAT, Artifact

# Winograd's transforms and tiles are memory, which small machines have less of than time.
OPTIONS = Options(winograd=False)
_LOCAL = re.compile(r"^ +(?:float|double|u?int\d+_t) \w+\[(\d+)\];$", flags=re.MULTILINE)


def compile_c(graph: Graph, target: Target, settings: Settings) -> Artifact:
    """Compile `graph` to C: the graph compiler of target "c". No C compiler is needed.

    Returns:
        The description (`manifest["c"]`, see `codegen.c.files`) and the weights. `manifest["memory"]` tells the bytes of
        static workspace, of weights, and of the largest kernel's arrays on the stack.

    Raises:
        ModelError: a dimension is open: there is nobody to give memory while the model runs.
        BuildError: something has no code in C.
    """
    begun = process_time()
    declared = graph
    graph = without_narrow(graph)
    optimised = optimize(graph, OPTIONS)
    builder = ProgramBuilder(optimised, _lower(target), prepare, CMain)
    program = builder.run(fuse(optimised))
    main = builder.main
    assert isinstance(main, CMain)  # it is what we asked for
    kernels = [k.emitted.text for k in program.kernels.values()]
    text = "\n".join([*kernels, main.prototype, *main.lines])
    manifest = dict(program.manifest)
    description: dict[str, Any] = {
        "model": main.model,
        "prototype": main.prototype,
        "kernels": kernels,
        "main": main.text,
        "arenas": main.arenas,
        "weights": main.weights,
        "checks": manifest["checks"],
        "math": needs_math_h(prelude(text) + text),
        "stack_bytes": max(map(_stack_bytes, kernels), default=0),
    }
    for key, names, values in (("inputs", main.inputs, declared.inputs), ("outputs", main.outputs, declared.outputs)):
        manifest[key] = [{**e, "dtype": v.dtype.numpy.name} for e, v in zip(manifest[key], values, strict=True)]
        description[key] = [
            (c, v.dtype.name, prod(d.value for d in v.shape), e["name"], str(e["shape"]).replace("'", ""))
            for c, v, e in zip(names, values, manifest[key], strict=True)
        ]
    manifest.update({"format": FORMAT, "target": "c", "arena_bytes": 0, "steps": [], "c": description})
    memory = {
        "workspace": workspace_bytes(description),
        "weights": weights_bytes(description),
        "stack": description["stack_bytes"],
    }
    manifest["memory"] = memory
    return Artifact(manifest, program.source, {}, program.weights, {"build": process_time() - begun})


def _lower(target: Target) -> Callable[[PrimFunc, str], LoweredKernel]:
    return lambda func, name: lower_kernel(func, target=target, name=name)


def _stack_bytes(kernel: str) -> int:
    """What the arrays of a kernel take, at most: all at once."""
    types = {"float": 4, "double": 8}
    total = 0
    for line in _LOCAL.finditer(kernel):
        element = line.group(0).split()[0]
        total += int(line.group(1)) * types.get(element, int(re.sub(r"\D", "", element) or 0) // 8)
    return total
