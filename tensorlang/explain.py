"""Why a compiled model runs as it does (layer 8): what was fused and why not, which schedule each kernel has, and what its
machine code's innermost loops do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from tensorlang.build import compile_source
from tensorlang.codegen.emit import HEADER
from tensorlang.codegen.native.machine_code import hot_loops
from tensorlang.codegen.target import find_target
from tensorlang.config import Settings
from tensorlang.graph.compiler import options_for
from tensorlang.graph.ir import Graph
from tensorlang.graph.passes import Context, fuse, graph_report, optimize
from tensorlang.graph.passes.storage import without_narrow
from tensorlang.runtime.executable import Executable

_STEP = "# schedule: "


@dataclass(frozen=True)
class ExplainedKernel:
    """One kernel of a model.

    Attributes:
        nodes: for each call, the model's nodes that it computes.
        fusion: why its neighbours were or were not computed with it.
        schedule: the steps that made its loops, in order.
        machine: `loops`, `vector_bits`, `spills` and `reloads` of the innermost loops of its machine code; empty if not read.
    """

    name: str
    nodes: tuple[str, ...]
    fusion: tuple[str, ...]
    schedule: tuple[str, ...]
    machine: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelExplanation:
    """A model's kernels, and what the graph passes did before; `print` it for a text.

    Attributes:
        passes: what each pass rewrote, and why.
    """

    model: str
    kernels: tuple[ExplainedKernel, ...]
    passes: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"{self.model}: {len(self.kernels)} kernels"]
        lines += [f"  {note}" for note in self.passes]
        for k in self.kernels:
            lines += ["", f"kernel {k.name}"]
            lines += [f"  computes {nodes}" for nodes in k.nodes]
            lines += [f"  fusion: {note}" for note in k.fusion]
            lines += [f"  schedule: {step}" for step in k.schedule]
            if k.machine:
                m = k.machine
                lines.append(
                    f"  machine code: {m['loops']} innermost loops, {m['vector_bits']}-bit vectors, {m['spills']} spills, "
                    f"{m['reloads']} reloads"
                )
        return "\n".join(lines)


def explain(exe: Executable, graph: Graph | None, target: str, settings: Settings, *, machine: bool = True) -> ModelExplanation:
    """Explain a compiled model.

    Args:
        graph: the model before optimisation, for what passes and fusion decided; None tells what the program alone knows.
        machine: read the machine code of every kernel, which compiles it once more.
    """
    fusion: dict[str, list[str]] = {}
    passes: list[str] = []
    if graph is not None:
        context = Context(options_for(find_target(target), settings))
        groups = fuse(optimize(without_narrow(graph), context=context))
        passes = graph_report(context)
        for group in groups:
            label = ", ".join(dict.fromkeys(n.name or n.op for n in group.nodes))
            fusion.setdefault(label, []).extend(group.notes)
    calls: dict[str, dict[str, None]] = {}
    for step in exe.steps:
        calls.setdefault(step["kernel"], {})[step["nodes"]] = None
    found = []
    for name, text in exe.kernels.items():
        nodes = tuple(calls.get(name, ()))
        notes = tuple(dict.fromkeys(note for label in nodes for note in fusion.get(label, ())))
        steps = tuple(line.removeprefix(_STEP) for line in text.splitlines() if line.startswith(_STEP))
        read: dict[str, int] = {}
        if machine:
            asm = compile_source(f"{HEADER}\n\n{text}", emit="asm", settings=settings).decode()
            read = asdict(hot_loops(asm))
        found.append(ExplainedKernel(name, nodes, notes, steps, read))
    return ModelExplanation(exe.name, tuple(found), tuple(passes))
