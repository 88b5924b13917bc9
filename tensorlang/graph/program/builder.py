"""Groups to statements: every distinct kernel once, calls in order, control flow with its bodies, memory handed over."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from textwrap import indent
from typing import Any

import numpy as np

from tensorlang.build import LoweredKernel, prepare as prepare_constants
from tensorlang.codegen.emit import EmittedKernel
from tensorlang.errors import BuildError, ModelError
from tensorlang.graph.dims import shape_constraints
from tensorlang.graph.ir import Graph, Node, TensorType, Value
from tensorlang.graph.ops.external import CopyTo, External
from tensorlang.graph.ops.serial import SerialOp
from tensorlang.graph.passes.fuse import fuse
from tensorlang.graph.passes.group import Group
from tensorlang.graph.program import emit
from tensorlang.graph.program.manifest import describe_program
from tensorlang.graph.program.storage import Roots, Storage, Weights, nbytes_of, product
from tensorlang.graph.program.tree import (
    ZERO,
    Block,
    Branch,
    Call,
    Check,
    Define,
    Deliver,
    Grow,
    Lower,
    Move,
    Own,
    Prepare,
    Program,
    ReadSize,
    Repeat,
    Require,
    Site,
)
from tensorlang.graph.registry import Op, get
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.equality import structural_hash
from tensorlang.ir.expr import Expr, const, eq, mul, select, var
from tensorlang.ir.stmt import PrimFunc, Seq
from tensorlang.ir.visitor import free_vars
from tensorlang.te import compute, create_prim_func, placeholder

STEPS = 16 * 1024  # of a kernel that is written by hand: fewer are not worth another thread


def emit_program(
    graph: Graph,
    groups: Sequence[Group],
    lower: Lower,
    prepare: Prepare = prepare_constants,
    language: type[emit.Main] = emit.Main,
    weights: Weights | None = None,
) -> Program:
    """The program of `graph`, whose nodes are `groups` in an order in which they can run.

    Args:
        lower: schedules, lowers and emits one kernel under the name given.
        prepare: makes what a kernel reads instead of its constants (packed weights).
        language: how the program itself is written.
        weights: the block that it shares with programs made before, to which it adds its own.

    Raises:
        ModelError: a size depends on something that no input's shape tells.
        BuildError: the language has no word for something in the program.
    """
    return ProgramBuilder(graph, lower, prepare, language, weights).run(groups)


class ProgramBuilder:
    """The program while it is made; `emit` reads off it where everything is."""

    def __init__(
        self,
        graph: Graph,
        lower: Lower,
        prepare: Prepare,
        language: type[emit.Main] = emit.Main,
        weights: Weights | None = None,
    ):
        self.language = language
        self.graph = graph
        self.lower = lower
        self.prepare = prepare
        self.dims = _input_dims(graph)
        self.kernels: dict[str, LoweredKernel] = {}
        self.external: dict[str, Node] = {}  # kernels without a text: regions of other code generators, and copies
        self.shared: dict[str, tuple[str, PrimFunc]] = {}  # kernel key -> name, the function it was made from
        self.root = Roots()
        self.storage = Storage(self.root, self.dims.values())
        self.input_number = {v: k for k, v in enumerate(graph.inputs)}
        self.output_number: dict[Value, int] = {}
        self.weights = weights if weights is not None else Weights()
        self.weights.begin()
        self.prepared: dict[tuple[Any, ...], dict[str, np.ndarray]] = {}
        self.constraints: list[tuple[Expr, Expr, Node]] = []
        self.defined: list[Expr] = []  # dimensions that the program itself gives a value to, in the order of the text

    def run(self, groups: Sequence[Group]) -> Program:
        block = self._block(self.graph, groups)
        block += self._outputs()
        placed = {self.root(v) for v in (*self.input_number, *self.output_number)}
        self.storage.plan(block, placed, typed=self.language.typed)
        self.told = self._told()
        self.main = self.language(self)
        main, steps, checks = self.main.run(block)
        source = self.language.module([k.emitted.text for k in self.kernels.values()], main)
        weights = self.weights.block()
        names = {v: name for name, v in self.dims.items()}
        names.update(self.told)
        manifest = describe_program(
            self.graph, names, list(self.told.values()), self.kernels, steps, self.storage.arena, weights.nbytes,
            self.constraints, checks, self.main.names,
        )  # fmt: skip
        return Program(source, self.kernels, weights, steps, manifest)

    def _told(self) -> dict[Expr, str]:
        """The dimensions of the outputs that the program tells its caller, with names that no other dimension has."""
        wanted = {d for o in self.graph.outputs for e in o.shape for d in free_vars(e)}
        found: dict[Expr, str] = {}
        for d in self.defined:
            if d in wanted and d not in found:
                name, serial = d.name, 1
                while name in self.dims or name in found.values():
                    name, serial = f"{d.name}_{serial}", serial + 1
                found[d] = name
        return found

    # -- kernels ---------------------------------------------------------------------------------------------------
    def _site(self, group: Group) -> Site:
        definition = get(group.nodes[0].op)
        if isinstance(definition, SerialOp) and (self.language.serial or type(definition).te is Op.te):
            return self._serial_site(group.nodes[0], definition)
        if isinstance(definition, External | CopyTo):
            return self._external_site(group.nodes[0])
        func = group.prim_func()
        label = ", ".join(dict.fromkeys(n.name or n.op for n in group.nodes))
        return self._shared_site(func, group.name, group.inputs, group.outputs, label)

    def _shared_site(
        self, func: PrimFunc, name: str, inputs: Sequence[Value], outputs: Sequence[Value], label: str
    ) -> Site:
        key = structural_hash(func)
        if key not in self.shared:
            unique = self._unique(name)
            kernel = self.kernels[unique] = self.lower(func, unique)
            if kernel.emitted.packed:
                called = ", ".join(dict.fromkeys(site.name for site in kernel.emitted.packed))
                raise BuildError(
                    f"{label}: calls a Python function ({called}), which a compiled model cannot hold; write it in te, "
                    "or run that part of the model outside"
                )
            self.shared[key] = (unique, func)
        kernel_name, first = self.shared[key]
        return Site(
            self.kernels[kernel_name],
            {b.name: v for b, v in zip(first.inputs, inputs, strict=True)},
            {b.name: v for b, v in zip(first.outputs, outputs, strict=True)},
            dict(zip(first.size_vars, func.size_vars, strict=True)),
            label,
            func,
        )

    def _serial_site(self, node: Node, definition: SerialOp) -> Site:
        """A kernel that is written by hand: its text is its key."""
        if not self.language.serial:
            raise BuildError(
                f"{_label(node)}: operator {node.op} is a sequence of decisions written in Python, for which this target has "
                "no code; run that part of the model outside"
            )
        types = [v.type for v in node.inputs]
        sizes = definition.sizes(*types, **node.attrs)
        variables = {name: var(name) for name in sizes}
        pointers = dict(zip(definition.parameters, (*node.inputs, *node.outputs), strict=True))
        params = [(f"{v.dtype.name}*", name) for name, v in pointers.items()] + [("i64", name) for name in sizes]
        signature = ", ".join(f"{t} {n}" for t, n in params)
        body = indent(definition.text(types, **node.attrs), "    ")
        key = f"{signature}\n{body}"
        if key not in self.shared:
            name = self._unique(node.op)
            listed = ", ".join(n for _, n in params)
            head = f'@kernel("{signature}")\ndef {name}(ctx, {listed}):\n'
            if definition.lines:
                chunk, lines = f"{name}_p0", f"({definition.lines})"
                body = (
                    f'@chunk("{signature}, i64 parts")\ndef {chunk}(ctx, begin, end, {listed}, parts):\n'
                    f"    line_begin = floordiv_pos({lines} * begin, parts)\n"
                    f"    line_end = floordiv_pos({lines} * end, parts)\n{body}\n\n\n{head}"
                    f"    parts = minimum({lines}, floordiv_pos({lines} * {definition.each}, {STEPS}) + 1)\n"
                    f"    parallel_for({chunk}, ctx, parts, {listed}, parts)"
                )
                head = ""
            buffers = [Buffer(n, (var("n"),) * bool(v.type.ndim), v.dtype) for n, v in pointers.items()]
            func = PrimFunc(name, (*buffers, *variables.values()), Seq(()), len(node.outputs))
            emitted = EmittedKernel(name, head + body + "\n", tuple(params), ())
            self.kernels[name] = LoweredKernel(emitted, func, (), (), "")
            self.shared[key] = (name, func)
        name, func = self.shared[key]
        given = dict(zip(func.size_vars, sizes.values(), strict=True))
        names = list(pointers)
        inputs = {n: pointers[n] for n in names[: len(node.inputs)]}
        outputs = {n: pointers[n] for n in names[len(node.inputs) :]}
        return Site(self.kernels[name], inputs, outputs, given, node.name or node.op, func)

    def _external_site(self, node: Node) -> Site:
        """What somebody else computes: called like a kernel, and without a text. Whoever runs the program provides it."""
        if not self.language.external:
            raise BuildError(f"{_label(node)}: a region for another code generator cannot be part of this kind of program")
        values = (*node.inputs, *node.outputs)
        sizes = sorted({v for value in values for d in value.shape for v in free_vars(d)}, key=lambda v: v.value[1])
        name = self._unique(node.name or node.op)
        buffers = [Buffer(f"a{k}", v.shape, v.dtype) for k, v in enumerate(values)]
        params = [(f"{b.dtype.name}*", b.name) for b in buffers] + [("i64", f"n{k}") for k in range(len(sizes))]
        func = PrimFunc(name, (*buffers, *sizes), Seq(()), len(node.outputs))
        self.kernels[name] = LoweredKernel(EmittedKernel(name, "", tuple(params), ()), func, (), (), "")
        self.external[name] = node
        pointers = dict(zip((b.name for b in buffers), values, strict=True))
        inputs = {b.name: pointers[b.name] for b in func.inputs}
        outputs = {b.name: pointers[b.name] for b in func.outputs}
        return Site(self.kernels[name], inputs, outputs, {v: v for v in sizes}, _label(node), func)

    def _unique(self, hint: str) -> str:
        base = re.sub(r"\W", "_", hint, flags=re.ASCII)
        if not base[:1].isalpha():
            base = f"k_{base}"
        if re.search(r"_p\d+$", base):  # what a kernel's chunks are called
            base += "_"
        name, serial = base, 1
        while name in self.kernels or name in self.language.reserved:
            name, serial = f"{base}_{serial}", serial + 1
        return name

    def _copy(self, source: Value, target: Value, label: str, shift: Expr = ZERO) -> Call:
        """Copy `source` to `target`, `shift` bytes from its beginning."""
        count = product(source.type)
        x = placeholder((count,), source.dtype, name="x")
        y = compute((count,), lambda i, x=x: x[i], name="out")
        site = self._shared_site(create_prim_func("copy", [x], [y]), "copy", [source], [target], label)
        if shift is not ZERO:
            site.shift[next(iter(site.outputs))] = shift
        return Call(site)

    def prepare_site(self, site: Site) -> dict[str, np.ndarray]:
        """What the kernel reads instead of its constants: packed weights and the like."""
        if not site.kernel.preparations:
            return {}
        constants = {n: v.constant for n, v in site.inputs.items() if v.constant is not None}
        key = (site.kernel.emitted.name, *((n, id(a)) for n, a in constants.items()))
        if key not in self.prepared:
            self.prepared[key] = self.prepare(site.kernel, constants)
        return self.prepared[key]

    # -- blocks ----------------------------------------------------------------------------------------------------
    def _block(self, graph: Graph, groups: Sequence[Group]) -> Block:
        for group in groups:
            if group.kind == "alias":
                for value in group.outputs:
                    self.root.join(value, group.inputs[0])
        pending: dict[Node, list[tuple[Expr, Expr, Node]]] = {}
        for a, b, node in shape_constraints(graph):
            if graph is self.graph and self.storage.is_known(a) and self.storage.is_known(b):
                self.constraints.append((a, b, node))
            else:
                pending.setdefault(node, []).append((a, b, node))
        block: Block = []
        for group in groups:
            for node in group.nodes:
                block += [Check(a, b, _label(n)) for a, b, n in pending.pop(node, ())]
            if group.kind == "structure":
                block += self._structure(group.nodes[0])
            elif group.kind == "kernel":
                site = self._site(group)
                block += [Own(v) for v in site.outputs.values() if self.storage.on_heap(v)]  # unread ones are written too
                block.append(Call(site))
        return block

    def _structure(self, node: Node) -> Block:
        self.defined += node.defines
        if node.op == "bind_size":
            self.root.join(node.output, node.inputs[0])
            return [ReadSize(node.inputs[0], node.defines[0], node.attrs["low"], _label(node))]
        if node.op == "require":
            self.root.join(node.output, node.inputs[1])
            return [Require(node.inputs[0], node.attrs["holds"], node.attrs["message"])]
        return self._branch(node) if node.op == "if" else self._loop(node)

    def _body(self, graph: Graph, given: Mapping[Value, Value]) -> tuple[Block, set[Value]]:
        """The statements of a body, and the values whose memory it has made itself."""
        for formal, actual in given.items():
            self.root.join(formal, actual)
        block = self._block(graph, fuse(graph))
        made: set[Value] = set()
        for s in block:
            if isinstance(s, Call):
                made.update(map(self.root, s.site.outputs.values()))
            elif isinstance(s, Branch | Repeat):
                made.update(map(self.root, s.results))
        return block, made

    def _define(self, node: Node, values: Sequence[Value], types: Sequence[TensorType]) -> list[Define]:
        """Give the dimensions that `node` defines and `values` mention the sizes that `types` have there."""
        found: dict[Expr, Expr] = {}
        for value, type in zip(values, types, strict=True):
            for d, size in zip(value.shape, type.shape, strict=True):
                if d in node.defines and d is not size:
                    found.setdefault(d, size)
        return [Define(d, size) for d, size in found.items()]

    def _copied(self, source: Value, target: Value, label: str) -> Block:
        """`target` as a copy of `source`."""
        own: Block = [Own(target)] if self.storage.on_heap(target) else []
        return [*own, self._copy(source, target, label)]

    # -- if --------------------------------------------------------------------------------------------------------
    def _branch(self, node: Node) -> Block:
        blocks: list[Block] = []
        for name in ("then", "otherwise"):
            body: Graph = node.attrs[name]
            block, made = self._body(body, dict(zip(body.inputs, node.inputs[1:], strict=True)))
            block += self._define(node, node.outputs, [v.type for v in body.outputs])
            for result, target in zip(body.outputs, node.outputs, strict=True):
                block += self._hand_over(result, target, made, _label(node))
            blocks.append(block)
        return [Branch(node.inputs[0], blocks[0], blocks[1], list(node.outputs))]

    def _hand_over(self, result: Value, target: Value, made: set[Value], label: str) -> Block:
        """Let `target` hold `result`: in the same memory if that is the body's own and nobody else's, else as a copy."""
        root = self.root(result)
        if root not in made or self.storage.on_heap(root) != self.storage.on_heap(target):
            return self._copied(result, target, label)
        made.discard(root)
        if self.storage.on_heap(target):
            return [Move(root, target)]
        self.root.join(root, target)
        return []

    # -- loop ------------------------------------------------------------------------------------------------------
    def _loop(self, node: Node) -> Block:
        body: Graph = node.attrs["body"]
        count: int = node.attrs["carried"]
        trips, go, *rest = node.inputs
        states, stacks = node.outputs[:count], node.outputs[count:]
        label = _label(node)
        trip = var("trip")
        before: Block = [*self._define(node, states, [v.type for v in rest[:count]])]
        for value, state in zip(rest, states, strict=False):
            before += self._copied(value, state, label)
        index, *formal = body.inputs
        block, made = self._body(body, dict(zip(formal, [*states, *rest[count:]], strict=True)))
        proceed, *results = body.outputs
        for stack, result in zip(stacks, results[count:], strict=True):
            if self.storage.on_heap(stack):
                before += [Define(d, const(0)) for d in stack.shape if d in node.defines]
                before.append(Own(stack, stack=True))
            block += self._push(node, stack, result, trip, label)
        if self.root(proceed) in map(self.root, states):  # it is about to change
            kept = Value("proceed", proceed.type)
            block.append(self._copy(proceed, kept, label))
            proceed = kept
        block += self._renew(node, states, results[:count], made, label)
        loop = Repeat(trip, trips, go, proceed, index, block, list(node.outputs))
        counted = dict.fromkeys(v.shape[0] for v in stacks if v.shape[0] in node.defines)
        return [*before, loop, *(Define(d, trip) for d in counted)]

    def _push(self, node: Node, stack: Value, result: Value, trip: Expr, label: str) -> Block:
        """Put what this trip gives behind what the others gave."""
        block: Block = []
        nbytes = nbytes_of(result.type)
        if self.storage.on_heap(stack):
            for d, size in zip(stack.shape[1:], result.shape, strict=True):
                if d in node.defines and d is not size:
                    block += [Check(select(eq(trip, 0), size, d), size, label), Define(d, size)]
            block.append(Grow(stack, trip, nbytes, self._bytes_kernel()))
        block.append(self._copy(result, stack, label, shift=mul(trip, nbytes)))
        return block

    def _bytes_kernel(self) -> str:
        count = var("count")
        x = placeholder((count,), "u8", name="x")
        y = compute((count,), lambda i: x[i], name="out")
        nothing = Value("bytes", TensorType.of("u8", (count,)))
        return self._shared_site(create_prim_func("copy", [x], [y]), "copy", [nothing], [nothing], "").kernel.emitted.name

    def _renew(
        self, node: Node, states: Sequence[Value], results: Sequence[Value], made: set[Value], label: str
    ) -> Block:
        """The end of a trip: every state takes its new value, all at once; then their sizes change."""
        roots = {self.root(s) for s in states}
        early: Block = []
        late: Block = []
        for state, result in zip(states, results, strict=True):
            source = self.root(result)
            if source is self.root(state):
                continue
            heap = self.storage.on_heap(state)
            if source in roots or heap and (source not in made or not self.storage.on_heap(source)):
                spare = Value(f"{state.name}_next", result.type)  # out of the way, or memory to hand over
                if heap:
                    self.storage.forced.add(spare)
                early += self._copied(result, spare, label)
                result = source = spare
            if heap:
                made.discard(source)
                late.append(Move(source, state, replace=True))
            else:
                late.append(self._copy(result, state, label))
        defines = self._define(node, states, [v.type for v in results])
        changing = {d.dim for d in defines}
        ahead = {d.dim: var(f"{d.dim.name}_next") for d in defines if free_vars(d.value) & changing}
        first = [Define(ahead[d.dim], d.value) for d in defines if d.dim in ahead]
        return [*early, *late, *first, *(Define(d.dim, ahead.get(d.dim, d.value)) for d in defines)]

    # -- outputs ---------------------------------------------------------------------------------------------------
    def _outputs(self) -> Block:
        """Give each result its place in the caller's memory; those that are an input, a constant or given twice are copied."""
        block: Block = []
        for k, value in enumerate(self.graph.outputs):
            root = self.root(value)
            label = f"output {value.name}"
            heap = self.storage.on_heap(root)
            open_ = not all(self.storage.is_known(d) for d in value.shape)
            if open_:
                if not heap or root in self.output_number:
                    root = Value(f"{value.name}_out", value.type)
                    block += [Own(root), self._copy(value, root, label)]
                self.output_number[root] = k
                block.append(Deliver(root, k))
            elif heap or root.is_constant or root in self.input_number or root in self.output_number:
                made = Value(f"{value.name}_out", value.type)
                self.output_number[made] = k
                block.append(self._copy(value, made, label))
            else:
                self.output_number[root] = k
        return block



def _label(node: Node) -> str:
    return node.name or node.op


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
