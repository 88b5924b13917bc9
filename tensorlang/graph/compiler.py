"""A model's road down, read aloud: graph -> optimised graph -> fused groups -> kernels and `main` -> machine code.

This module and what it imports (passes, schedules, code generation, numba) load on the first build that no cache answers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import process_time

from tensorlang.build import LoweredKernel, lower_kernel, machine_of
from tensorlang.codegen.native import CpuTarget, compile_source
from tensorlang.codegen.native.compile import pool_object
from tensorlang.config import Settings
from tensorlang.graph.ir import Graph
from tensorlang.graph.ops.custom import CustomOp
from tensorlang.graph.passes import Group, fuse, optimize
from tensorlang.graph.program import Program, emit_program
from tensorlang.graph.registry import get
from tensorlang.ir.stmt import PrimFunc
from tensorlang.runtime.artifact import FORMAT, Artifact


class Clock:
    """CPU seconds per phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the CPU time of the block to `name`; an inner phase's time is not counted twice."""
        begun, inner = process_time(), sum(self.seconds.values())
        try:
            yield
        finally:
            elapsed = process_time() - begun - (sum(self.seconds.values()) - inner)
            self.seconds[name] = self.seconds.get(name, 0.0) + elapsed


def is_reproducible(graph: Graph) -> bool:
    """Whether the model's file alone says what the graph computes; a custom operator is code of this process."""
    return not any(isinstance(get(node.op), CustomOp) for node in graph.nodes)


def compile_graph(graph: Graph, target: str, settings: Settings, clock: Clock | None = None) -> Artifact:
    """Compile `graph` for this machine.

    Args:
        clock: takes the CPU seconds of each phase; they end up in the artifact's report.

    Raises:
        BuildError: the target is unknown, or something has no code for it.
        ModelError: a size is not determined by the inputs' shapes.
    """
    clock = clock or Clock()
    with clock.phase("passes"):
        optimised = optimize(graph)
    with clock.phase("fuse"):
        groups = fuse(optimised)
    with clock.phase("plan and emit"):
        program = emit_program(optimised, groups, _lower(target, settings, clock))
    host = CpuTarget.host()
    objects: dict[str, bytes] = {}
    if settings.jit:
        with clock.phase("native"):
            objects["model"] = compile_source(program.source, host, settings=settings)
        with clock.phase("pool"):
            objects["pool"] = pool_object(host, settings)
    manifest = {
        "format": FORMAT,
        "triple": host.triple,
        "cpu_features": sorted(f[1:] for f in host.features.split(",") if f.startswith("+")),
        **program.manifest,
    }
    if settings.dump_dir is not None:
        _dump(settings.dump_dir / _file_name(graph.name), graph, optimised, groups, program)
    return Artifact(manifest, program.source, objects, program.weights, dict(clock.seconds))


def _lower(target: str, settings: Settings, clock: Clock) -> Callable[[PrimFunc, str], LoweredKernel]:
    machine = machine_of(CpuTarget.host(), settings.num_threads)

    def lower(func: PrimFunc, name: str) -> LoweredKernel:
        with clock.phase("schedule and lower"):
            return lower_kernel(func, target=target, name=name, machine=machine)

    return lower


def _dump(folder: Path, graph: Graph, optimised: Graph, groups: list[Group], program: Program) -> None:
    """Every stage as text: `TENSORLANG_DUMP=dir`."""
    texts = {
        "1_graph.txt": str(graph),
        "2_optimised.txt": str(optimised),
        "3_groups.txt": "\n\n".join(f"{g}\n{g.explain()}" for g in groups),
        "4_program.py": program.source,
    }
    for name, kernel in program.kernels.items():
        texts[f"kernels/{name}/0_schedule.txt"] = kernel.trace
        if kernel.scheduled is not None:
            texts[f"kernels/{name}/1_scheduled.txt"] = str(kernel.scheduled)
        for n, stage in enumerate(kernel.stages):
            texts[f"kernels/{name}/{n + 2}_{stage.name}.txt"] = str(stage.func)
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]", "_", name).lstrip(".") or "model"
