"""Compiles operators and models for a GPU that is elsewhere: artifacts with PTX, recipes of inputs, expected results.

    DIR/manifest.json     the cases, with what they do (flop, bytes) and which rival does the same
    DIR/NAME.tl           a compiled program; the weights that a seed draws are left out
    DIR/NAME.npz          inputs that are not drawn, expected results (large ones: samples), the rest of the weights
    DIR/NAME.graph.json   a model's operators, for rivals that run them in torch
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

import tensorlang as tl
from bench import machine, models
from bench.gpu.batch import with_batch
from bench.gpu.data import ALLOWED, Recipe, sample_positions, thinned
from bench.gpu.graph_json import graph_json
from tensorlang.codegen.cuda.ptx import CAPABILITY
from tensorlang.codegen.cuda.ptxas import assemble, find_ptxas
from tensorlang.errors import TensorlangError
from tensorlang.graph import Graph, GraphBuilder, TensorType, Value
from tensorlang.graph.device import OPTIONS
from tensorlang.graph.passes import optimize
from tensorlang.graph.passes.storage import without_narrow
from tensorlang.runtime.artifact import Artifact, write_artifact

FORMAT = 1
DRAWN_BYTES = 1 << 14  # arrays from this size on are drawn from a seed, where the content does not matter
BATCHES = (1, 32)


@dataclass(frozen=True)
class Case:
    """One program to measure.

    Attributes:
        rival: what does the same in torch: "add", "matmul", ..., "graph" for a model; "" for a mere check.
        flop, nbytes: what it has to compute and to move, at least.
        inputs: recipes, or the arrays themselves.
        target: what it is compiled for.
        allowed: how far results may be from the CPU's, relative to the largest.
    """

    name: str
    family: str
    graph: Graph
    inputs: Sequence[Recipe | np.ndarray]
    rival: str = ""
    flop: float = 0.0
    nbytes: float = 0.0
    batch: int = 1
    weights: Mapping[str, Recipe] = field(default_factory=dict)
    attrs: Mapping[str, Any] = field(default_factory=dict)
    target: str = "cuda"
    allowed: float = ALLOWED


def build(folder: Path, only: Sequence[str] = (), say: Callable[[str], None] = print) -> int:
    """Write all cases whose name contains one of `only` (all, if there is none). How many were refused by the compiler."""
    folder.mkdir(parents=True, exist_ok=True)
    entries: list[dict[str, Any]] = []
    for name, make in cases(only):
        try:
            entries.append(_write(folder, make()))
        except TensorlangError as error:
            entries.append({"name": name, "refused": f"{type(error).__name__}: {error}"})
        say(f"{name}: {entries[-1].get('refused') or 'compiled'}"[:160])
        manifest = {"format": FORMAT, "versions": machine.versions(), "built": machine.describe()["time"], "cases": entries}
        text = json.dumps(manifest, indent=1) + "\n"
        (folder / "manifest.json").write_text(text)
    return sum("refused" in e for e in entries)


def cases(only: Sequence[str] = ()) -> Iterator[tuple[str, Callable[[], Case]]]:
    """Names, and what makes each case."""

    def wanted(name: str) -> bool:
        return not only or any(text in name for text in only)

    for case in operator_cases():
        if wanted(case.name):
            yield case.name, lambda case=case: case  # type: ignore[misc]
    for name in models.NAMES:
        for batch in BATCHES:
            if wanted(f"{name}-b{batch}"):
                yield f"{name}-b{batch}", lambda n=name, b=batch: model_case(n, b)  # type: ignore[misc]
    for case in check_cases():
        if wanted(case.name):
            yield case.name, lambda case=case: case  # type: ignore[misc]


# -- operators whose speed is measured -----------------------------------------------------------------------------------
def operator_cases() -> list[Case]:
    """The kernels that issue their own figures: memory-bound ones at 256 MiB, products, attention."""
    rows, columns = 8192, 8192
    big = ((rows, columns),)
    one = 4.0 * rows * columns
    vector = ((columns,), (columns,))
    made = [
        _operator("elementwise", "gelu", big, nbytes=2 * one),
        _operator("add", "add", big * 2, nbytes=3 * one),
        _operator("softmax", "softmax", big, {"axis": 1}, nbytes=2 * one),
        _operator("layer_norm", "layer_norm", big + vector, {"axis": 1, "epsilon": 1e-5}, nbytes=2 * one),
        _operator("sum_rows", "reduce_sum", big, {"axes": (1,)}, nbytes=one),
        _operator("sum_columns", "reduce_sum", big, {"axes": (0,)}, nbytes=one),
        _operator("transpose", "transpose", big, {"perm": (1, 0)}, nbytes=2 * one),
    ]
    for n in (1024, 4096):
        made.append(_operator(f"matmul_{n}", "matmul", ((n, n), (n, n)), flop=2.0 * n**3, nbytes=12.0 * n * n))
    made.append(_operator("matmul_ragged", "matmul", ((1000, 1000), (1000, 1000)), flop=2e9, nbytes=12e6))
    # On tensor cores: sums of exact products, of which the largest result is some 5 times the standard deviation.
    for kind, n in (("f16", 4096), ("bf16", 4096), ("bf16", 8192)):
        case = _operator(f"matmul_{kind}_{n}", "matmul", ((n, n), (n, n)), flop=2.0 * n**3, nbytes=6.0 * n * n, kind=kind)
        made.append(replace(case, allowed=2**-8 if kind == "bf16" else 2**-10))
    tf32 = _operator("matmul_tf32_4096", "matmul", ((4096, 4096), (4096, 4096)), flop=2.0 * 4096**3, nbytes=12.0 * 4096**2)
    made.append(replace(tf32, target="cuda-tf32", allowed=2**-10))
    made.append(_attention(8, 12, 512, 64))
    return made


def _operator(
    name: str, op: str, shapes: tuple[tuple[int, ...], ...], attrs: Mapping[str, Any] | None = None, flop: float = 0.0,
    nbytes: float = 0.0, kind: str = "f32",
) -> Case:  # fmt: skip
    b = GraphBuilder()
    inputs = [b.input(f"x{k}", TensorType.of(kind, shape)) for k, shape in enumerate(shapes)]
    y = b.add(op, inputs, dict(attrs or {}))
    graph = Graph(inputs, b.nodes, [y], output_names=["y"])
    recipes = [Recipe(shape, inputs[0].dtype.numpy.name, 100 + k) for k, shape in enumerate(shapes)]
    return Case(name, "operator", graph, recipes, op, flop, nbytes, attrs=dict(attrs or {}))


def _attention(batch: int, heads: int, tokens: int, width: int) -> Case:
    b = GraphBuilder()
    shape = (batch, heads, tokens, width)
    q, k, v = (b.input(n, TensorType.of("f32", shape)) for n in "qkv")
    scores = b.add("matmul", [q, b.add("transpose", [k], {"perm": (0, 1, 3, 2)})], {})
    scale = Value("scale", TensorType.of("f32", ()), constant=np.array(width**-0.5, np.float32))
    y = b.add("matmul", [b.add("softmax", [b.add("mul", [scores, scale], {})], {"axis": 3}), v], {})
    graph = Graph([q, k, v], b.nodes, [y], output_names=["y"])
    flop = 4.0 * batch * heads * tokens * tokens * width
    size = 4.0 * batch * heads * tokens * width
    inputs = [Recipe(shape, "float32", 7 + n) for n in range(3)]
    return Case("attention", "operator", graph, inputs, "attention", flop, 4 * size)


# -- models ------------------------------------------------------------------------------------------------------------
def model_case(name: str, batch: int) -> Case:
    """A standard model at a batch size, optimised; its large weights are drawn anew, as large as they were."""
    graph = tl.from_onnx(with_batch(models.build(name), batch))
    optimised = optimize(without_narrow(graph), OPTIONS)
    recipes: dict[str, Recipe] = {}
    for value in dict.fromkeys(v for node in optimised.nodes for v in node.inputs if v.is_constant):
        array = value.constant
        if array is not None and array.dtype == np.float32 and array.nbytes >= DRAWN_BYTES:
            recipe = Recipe(array.shape, "float32", len(recipes), float(array.mean()), float(array.std()))
            value.constant = recipe.draw()
            recipes[value.name] = recipe
    feeds = [a if batch == 1 else np.concatenate([a] * batch) for a in models.inputs(name, 0).values()]
    inputs = [_input(a, k) for k, a in enumerate(feeds)]
    return Case(f"{name}-b{batch}", "model", optimised, inputs, "graph", models.gflop(name) * 1e9 * batch, 0.0, batch, recipes)


def _input(array: np.ndarray, number: int) -> Recipe | np.ndarray:
    """Large float inputs are drawn, so that the samples of a batch differ; others are kept."""
    if array.dtype == np.float32 and array.nbytes >= DRAWN_BYTES:
        return Recipe(array.shape, "float32", 900 + number, float(array.mean()), float(array.std()))
    return array


# -- operators whose results are checked -------------------------------------------------------------------------------
def check_cases() -> list[Case]:
    """One small case of every operator that has a tensor expression."""
    from tensorlang.graph import get
    from tensorlang.graph.ops.serial import SerialOp
    from tests.graph.ops.test_te import CASES

    found: dict[str, Case] = {}
    for case in CASES:
        if case.op not in found and not isinstance(get(case.op), SerialOp):
            b = GraphBuilder()
            inputs = [b.input(f"x{k}", TensorType.of(a.dtype, a.shape)) for k, a in enumerate(case.inputs)]
            try:
                made = b.add(case.op, inputs, case.attrs)
            except TensorlangError:
                continue  # a graph has it with a constant operand alone
            outputs = list(made) if isinstance(made, tuple) else [made]
            graph = Graph(inputs, b.nodes, outputs, output_names=[f"y{k}" for k in range(len(outputs))])
            found[case.op] = Case(f"op_{case.op}", "check", graph, list(case.inputs))
    return list(found.values())


# -- files -------------------------------------------------------------------------------------------------------------
def _write(folder: Path, case: Case) -> dict[str, Any]:
    artifact = tl.compile(case.graph, target=case.target)._artifact
    feeds = [_typed(i.draw(), i.dtype) if isinstance(i, Recipe) else np.asarray(i, order="C") for i in case.inputs]
    outputs = tl.compile(case.graph, target="cpu")(*feeds)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    rest, places, digest = thinned(artifact.weights, list(case.weights.values()))
    arrays: dict[str, np.ndarray] = {"weights": rest}
    for k, a in enumerate(outputs):
        arrays[f"expected{k}"] = _plain(a).reshape(-1)[sample_positions(a.size)]
    for k, i in enumerate(case.inputs):
        if not isinstance(i, Recipe):
            arrays[f"input{k}"] = _plain(i)
    if case.rival == "graph":
        described, constants = graph_json(case.graph, case.weights)
        (folder / f"{case.name}.graph.json").write_text(json.dumps(described))
        arrays |= {f"constant_{name}": a for name, a in constants.items()}
    np.savez(folder / f"{case.name}.npz", **arrays)  # type: ignore[arg-type]
    write_artifact(Artifact(artifact.manifest, artifact.source, {}, np.zeros(0, np.uint8)), folder / f"{case.name}.tl")
    return {
        "name": case.name, "family": case.family, "rival": case.rival, "attrs": dict(case.attrs), "batch": case.batch,
        "allowed": case.allowed, "flop": case.flop, "bytes": case.nbytes,
        "launches": len(artifact.manifest["device"]["launches"]),
        "inputs": [i.as_json() if isinstance(i, Recipe) else None for i in case.inputs], "outputs": len(outputs),
        "assembly": _assembly(artifact.manifest["device"]["code"]),
        "weights": {"places": places, "bytes": artifact.weights.nbytes, "digest": digest},
    }  # fmt: skip


def _typed(a: np.ndarray, dtype: str) -> np.ndarray:
    return a.view(ml_dtypes.bfloat16) if dtype == "bfloat16" else a


def _assembly(code: Mapping[str, str]) -> dict[str, int] | None:
    """The most that a function of a program takes, and how many spill; None where no assembler is found."""
    if find_ptxas() is None:
        return None
    found = assemble(dict(code), CAPABILITY)
    return {
        "functions": len(found), "registers": max((f.registers for f in found), default=0),
        "shared_bytes": max((f.shared_bytes for f in found), default=0),
        "stack_bytes": max((f.stack_bytes for f in found), default=0), "spilling": sum(f.spills for f in found),
    }  # fmt: skip


def _plain(a: np.ndarray) -> np.ndarray:
    """bfloat16 and its like as f32, which every NumPy can read from a file."""
    return a if a.dtype.kind in "fiub" and a.dtype.isbuiltin == 1 else a.astype(np.float32)
