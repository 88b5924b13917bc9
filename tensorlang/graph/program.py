"""From fused groups to one program: every distinct kernel once, and a `main` that calls them on a planned arena.

    group dense_relu(%x, %w)  ->  @kernel("f32* x, f32* w_packed, f32* out")        weights are prepared now, once
    alias reshape(%out): %r       def dense_relu(ctx, x, w_packed, out): ...        an alias is the same memory
    group softmax(%r)
                                  @program("i64 arena, i64 weights, i64* inputs, i64* outputs, i64* dims")
                                  def main(ctx, arena, weights, inputs, outputs, dims):
                                      dense_relu(ctx, inputs[0], weights, arena)
                                      softmax(ctx, arena, outputs[0])

numba charges about 5 ms for each statement of `main`, so they are few: one a call, and one for each symbolic size or
offset that is needed more than once.
"""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tensorlang.build import LoweredKernel, prepare as prepare_constants
from tensorlang.codegen import intrinsics
from tensorlang.codegen.emit import HEADER
from tensorlang.codegen.expr_printer import ExprPrinter
from tensorlang.errors import InternalError, ModelError
from tensorlang.graph.dims import shape_constraints
from tensorlang.graph.ir import Graph, TensorType, Value
from tensorlang.graph.memory import ALIGNMENT, Request, plan_memory
from tensorlang.graph.passes.group import Group
from tensorlang.ir.equality import structural_hash
from tensorlang.ir.expr import Expr, add, const, mul, wrap
from tensorlang.ir.stmt import Block, PrimFunc, Store
from tensorlang.ir.visitor import free_vars, substitute, walk, walk_stmt
from tensorlang.runtime.sizes import OPERATIONS, Size
from tensorlang.te import compute, create_prim_func, placeholder

Lower = Callable[[PrimFunc, str], LoweredKernel]
Prepare = Callable[[LoweredKernel, Mapping[str, np.ndarray]], dict[str, np.ndarray]]

# Names that mean something in emitted code: a kernel called `sigmoid` would hide the function that others call.
_TAKEN = frozenset((*intrinsics.__all__, *dir(builtins), *keyword.kwlist, "main"))
MAIN_SIGNATURE = "i64 arena, i64 weights, i64* inputs, i64* outputs, i64* dims"
_ARITHMETIC = frozenset(("add", "sub", "mul", "div", "min", "max", "neg", "call", "floordiv", "floormod", "select"))


@dataclass(frozen=True)
class Argument:
    """What a kernel is called with. `place`: "arena" or "weights" (value: byte offset), "input" or "output" (its number),
    "size" (an integer)."""

    place: str
    value: Expr


@dataclass(frozen=True)
class Step:
    """One kernel call of `main`.

    Attributes:
        label: the model's nodes that it computes.
        flops, nbytes: arithmetic done and bytes of inputs and outputs, for the profile.
    """

    kernel: str
    args: tuple[Argument, ...]
    label: str
    flops: Expr
    nbytes: Expr


@dataclass
class Program:
    """A model as one emitted module.

    Attributes:
        source: all kernels and `main`.
        kernels: by name, each once.
        weights: constants and what was prepared from them, in one block of bytes.
        manifest: the description that the runtime reads (see `runtime.executable`).
    """

    source: str
    kernels: dict[str, LoweredKernel]
    weights: np.ndarray
    steps: list[Step]
    manifest: dict[str, Any]


def emit_program(
    graph: Graph, groups: Sequence[Group], lower: Lower, prepare: Prepare = prepare_constants
) -> Program:
    """The program of `graph`, whose nodes are `groups` in an order in which they can run.

    Args:
        lower: schedules, lowers and emits one kernel under the name given.
        prepare: makes what a kernel reads instead of its constants (packed weights).

    Raises:
        ModelError: a size depends on something that no input's shape tells.
    """
    return _Builder(graph, lower, prepare).run(groups)


@dataclass
class _Site:
    """A kernel at one place of the program; symbols of the shared kernel are those of `sizes` here."""

    kernel: LoweredKernel
    inputs: dict[str, Value]
    outputs: dict[str, Value]
    sizes: dict[Expr, Expr]
    label: str
    func: PrimFunc


@dataclass
class _Weights:
    """Constants that kernels read, laid out one behind the other."""

    pieces: list[tuple[int, np.ndarray]] = field(default_factory=list)
    nbytes: int = 0
    offsets: dict[Any, int] = field(default_factory=dict)

    def add(self, key: Any, array: np.ndarray) -> int:
        if key not in self.offsets:
            self.offsets[key] = self.nbytes
            self.pieces.append((self.nbytes, array))
            self.nbytes += -(-array.nbytes // ALIGNMENT) * ALIGNMENT
        return self.offsets[key]

    def block(self) -> np.ndarray:
        raw = np.empty(self.nbytes + ALIGNMENT, np.uint8)
        start = -raw.ctypes.data % ALIGNMENT
        block = raw[start : start + self.nbytes]
        end = 0
        for offset, array in self.pieces:
            block[end:offset] = 0  # same input, same bytes
            end = offset + array.nbytes
            block[offset:end] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        block[end:] = 0
        return block


class _Builder:
    def __init__(self, graph: Graph, lower: Lower, prepare: Prepare):
        self.graph = graph
        self.lower = lower
        self.prepare = prepare
        self.dims = _input_dims(graph)
        self.kernels: dict[str, LoweredKernel] = {}
        self.shared: dict[str, tuple[str, PrimFunc]] = {}  # kernel key -> name, the function it was made from
        self.root: dict[Value, Value] = {}
        self.input_number = {v: k for k, v in enumerate(graph.inputs)}
        self.output_number: dict[Value, int] = {}
        self.weights = _Weights()
        self.prepared: dict[tuple[Any, ...], dict[str, np.ndarray]] = {}

    def run(self, groups: Sequence[Group]) -> Program:
        for group in groups:
            if group.kind == "alias":
                for value in group.outputs:
                    self.root[value] = self._root(group.inputs[0])
        sites = [self._site(g) for g in groups if g.kind != "alias"]
        sites += self._output_copies()
        offsets, arena = self._plan(sites)
        steps = [self._step(k, site, offsets) for k, site in enumerate(sites)]
        main = self._main(steps)
        texts = [k.emitted.text for k in self.kernels.values()]
        source = f"{HEADER}\n\n" + "\n\n".join([*texts, main])
        weights = self.weights.block()
        return Program(source, self.kernels, weights, steps, self._manifest(steps, arena, weights.nbytes))

    def _root(self, value: Value) -> Value:
        return self.root.get(value, value)

    # -- kernels ---------------------------------------------------------------------------------------------------
    def _site(self, group: Group) -> _Site:
        func = group.prim_func()
        label = ", ".join(dict.fromkeys(n.name or n.op for n in group.nodes))
        return self._shared_site(func, group.name, group.inputs, group.outputs, label)

    def _shared_site(
        self, func: PrimFunc, name: str, inputs: Sequence[Value], outputs: Sequence[Value], label: str
    ) -> _Site:
        key = structural_hash(func)
        if key not in self.shared:
            unique = self._unique(name)
            self.kernels[unique] = self.lower(func, unique)
            self.shared[key] = (unique, func)
        kernel_name, first = self.shared[key]
        return _Site(
            self.kernels[kernel_name],
            {b.name: v for b, v in zip(first.inputs, inputs, strict=True)},
            {b.name: v for b, v in zip(first.outputs, outputs, strict=True)},
            dict(zip(first.size_vars, func.size_vars, strict=True)),
            label,
            func,
        )

    def _unique(self, hint: str) -> str:
        base = re.sub(r"\W", "_", hint, flags=re.ASCII)
        if not base[:1].isalpha():
            base = f"k_{base}"
        if re.search(r"_p\d+$", base):  # what a kernel's chunks are called
            base += "_"
        name, serial = base, 1
        while name in self.kernels or name in _TAKEN:
            name, serial = f"{base}_{serial}", serial + 1
        return name

    def _output_copies(self) -> list[_Site]:
        """Give each result its place in the caller's memory; those that are an input, a constant or given twice are copied."""
        copies = []
        for k, value in enumerate(self.graph.outputs):
            root = self._root(value)
            if root.is_constant or root in self.input_number or root in self.output_number:
                count = _product(value.type)
                x = placeholder((count,), value.dtype, name="x")
                y = compute((count,), lambda i, x=x: x[i], name="out")
                made = Value(f"{value.name}_out", value.type)
                self.output_number[made] = k
                func = create_prim_func("copy", [x], [y])
                copies.append(self._shared_site(func, "copy", [value], [made], f"output {value.name}"))
            else:
                self.output_number[root] = k
        return copies

    # -- memory ----------------------------------------------------------------------------------------------------
    def _plan(self, sites: Sequence[_Site]) -> tuple[dict[Any, Expr], Expr]:
        first: dict[Value, int] = {}
        last: dict[Value, int] = {}
        requests: list[Request] = []
        for k, site in enumerate(sites):
            for value in site.outputs.values():
                first.setdefault(self._root(value), k)
                last[self._root(value)] = k
            for value in site.inputs.values():
                last[self._root(value)] = k
            for name, nbytes in site.kernel.emitted.workspace:
                requests.append(Request((k, name), substitute(nbytes, site.sizes), k, k))
        for value, begin in first.items():
            if value not in self.output_number:
                nbytes = mul(_product(value.type), value.dtype.nbytes)
                requests.append(Request(value, nbytes, begin, last[value]))
        plan = plan_memory(requests)
        return dict(plan.offsets), plan.nbytes

    def _place(self, value: Value, offsets: dict[Any, Expr]) -> Argument:
        root = self._root(value)
        if root in self.output_number:
            return Argument("output", const(self.output_number[root]))
        if root in self.input_number:
            return Argument("input", const(self.input_number[root]))
        if root.constant is not None:
            return Argument("weights", const(self.weights.add(id(root.constant), root.constant)))
        if root not in offsets:
            raise InternalError(f"{value!r} is read but nothing computes it")
        return Argument("arena", offsets[root])

    # -- calls -----------------------------------------------------------------------------------------------------
    def _step(self, k: int, site: _Site, offsets: dict[Any, Expr]) -> Step:
        kernel = site.kernel
        ready = self._prepare(site)
        args: list[Argument] = []
        for b in kernel.func.buffers:
            if b.name in ready:
                array = ready[b.name]
                args.append(Argument("weights", const(self.weights.add(id(array), array))))
            else:
                args.append(self._place(site.outputs.get(b.name) or site.inputs[b.name], offsets))
        args += [Argument("size", substitute(v, site.sizes)) for v in kernel.func.size_vars]
        args += [Argument("arena", offsets[k, name]) for name, _ in kernel.emitted.workspace]
        values = [*site.inputs.values(), *site.outputs.values()]
        nbytes: Expr = const(0)
        for value in dict.fromkeys(values):
            nbytes = add(nbytes, mul(_product(value.type), value.dtype.nbytes))
        return Step(kernel.emitted.name, tuple(args), site.label, _flops(site.func), nbytes)

    def _prepare(self, site: _Site) -> dict[str, np.ndarray]:
        """What the kernel reads instead of its constants: packed weights and the like."""
        if not site.kernel.preparations:
            return {}
        constants = {n: v.constant for n, v in site.inputs.items() if v.constant is not None}
        key = (site.kernel.emitted.name, *((n, id(a)) for n, a in constants.items()))
        if key not in self.prepared:
            self.prepared[key] = self.prepare(site.kernel, constants)
        return self.prepared[key]

    def _main(self, steps: Sequence[Step]) -> str:
        names = {v: f"d{k}_{_word(name)}" for k, (name, v) in enumerate(self.dims.items())}
        for v in {v for s in steps for a in s.args for v in free_vars(a.value)} - set(names):
            raise ModelError(f"size {v} is not determined by the shapes of the model's inputs")
        lines = [f"    {text} = dims[{k}]" for k, text in enumerate(names.values())]
        printer = ExprPrinter(names.__getitem__, lambda b: b.name, {})
        for n, e in enumerate(_shared([a.value for s in steps for a in s.args])):
            lines.append(f"    t{n} = {printer(e)}")
            printer.bound[e] = f"t{n}"
        for s in steps:
            lines.append(f"    {s.kernel}({', '.join(['ctx', *(_spell(a, printer) for a in s.args)])})")
        header = [f'@program("{MAIN_SIGNATURE}")', "def main(ctx, arena, weights, inputs, outputs, dims):"]
        return "\n".join(header + (lines or ["    pass"])) + "\n"

    # -- description -----------------------------------------------------------------------------------------------
    def _manifest(self, steps: Sequence[Step], arena: Expr, weights_bytes: int) -> dict[str, Any]:
        names = {v: name for name, v in self.dims.items()}
        graph = self.graph
        signatures = {n: [t for t, _ in k.emitted.params] for n, k in self.kernels.items()}
        signatures["main"] = [part.split()[0] for part in MAIN_SIGNATURE.split(", ")]
        output_names = graph.output_names or [v.name for v in graph.outputs]
        return {
            "model": graph.name,
            "dims": list(self.dims),
            "inputs": [_describe(v.name, v.type, names) for v in graph.inputs],
            "outputs": [_describe(n, v.type, names) for n, v in zip(output_names, graph.outputs, strict=True)],
            "constraints": [
                [to_size(a, names), to_size(b, names), node.name or node.op] for a, b, node in shape_constraints(graph)
            ],
            "arena_bytes": to_size(arena, names),
            "weights_bytes": weights_bytes,
            "signatures": signatures,
            "steps": [
                {
                    "kernel": s.kernel,
                    "label": s.label,
                    "args": [[a.place, to_size(a.value, names)] for a in s.args],
                    "flops": to_size(s.flops, names),
                    "bytes": to_size(s.nbytes, names),
                }
                for s in steps
            ],
        }


def _input_dims(graph: Graph) -> dict[str, Expr]:
    """The open dimensions that the inputs' shapes determine, by name, in order of first occurrence."""
    named = {v: name for name, v in graph.dims.items()}
    found: dict[str, Expr] = {}
    for value in graph.inputs:
        for d in value.shape:
            for v in sorted(free_vars(d), key=lambda v: v.value[1]):
                if v not in found.values():
                    name, serial = named.get(v, v.name), 1
                    while name in found:
                        name, serial = f"{named.get(v, v.name)}_{serial}", serial + 1
                    found[name] = v
    bare = {d for value in graph.inputs for d in value.shape}
    for name, v in found.items():
        if v not in bare:
            raise ModelError(f"dimension {name} cannot be read off any input's shape; fix it with shapes=")
    return found


def _product(type: TensorType) -> Expr:
    count: Expr = const(1)
    for d in type.shape:
        count = mul(count, d)
    return count


def _flops(func: PrimFunc) -> Expr:
    """Arithmetic operations on floating-point elements, each counted once per point of its block."""
    total: Expr = const(0)
    for s in walk_stmt(func.body):
        if not isinstance(s, Block) or not isinstance(s.body, Store):
            continue
        nodes = [e for e in walk(s.body.value) if e.dtype.is_float and e.op in _ARITHMETIC]
        points: Expr = const(len(nodes))
        for it in s.iters:
            points = mul(points, it.extent)
        total = add(total, points)
    return total


def _shared(values: Sequence[Expr]) -> list[Expr]:
    """The sub-expressions that `values` use more than once, operands before users."""
    uses: dict[Expr, int] = {}
    order: dict[Expr, None] = {}
    for e in values:
        uses[e] = uses.get(e, 0) + 1
        for node in walk(e):
            if node not in order:
                order[node] = None
                for a in node.args:
                    uses[a] = uses.get(a, 0) + 1
    return [e for e in order if e.args and uses[e] > 1]


def _word(name: str) -> str:
    return re.sub(r"\W", "_", name, flags=re.ASCII)


def _spell(a: Argument, printer: ExprPrinter) -> str:
    value = a.value
    if a.place == "size":
        return printer(value)
    if a.place in ("input", "output"):
        return f"{a.place}s[{value.value}]"
    if value.op == "const" and value.value == 0:
        return a.place
    return f"{a.place} + {printer.show(value, 10)}"


def _describe(name: str, type: TensorType, names: dict[Expr, str]) -> dict[str, Any]:
    return {"name": name, "dtype": type.dtype.numpy.name, "shape": [to_size(d, names) for d in type.shape]}


def to_size(e: Expr, names: dict[Expr, str]) -> Size:
    """An integer expression as the data that the runtime evaluates.

    Raises:
        ModelError: it mentions something that the inputs' shapes do not determine.
    """
    e = wrap(e)
    if e.op == "const":
        return int(e.value)
    if e.op == "var":
        if e not in names:
            raise ModelError(f"size {e} is not determined by the shapes of the model's inputs")
        return names[e]
    if e.op == "cast" and e.dtype.is_int:
        return to_size(e.args[0], names)
    if e.op not in OPERATIONS:
        raise ModelError(f"the size {e} cannot be computed before the model runs")
    return [e.op, *(to_size(a, names) for a in e.args)]


__all__ = ["Argument", "Program", "Step", "emit_program", "to_size"]
