"""A fused group: nodes that become one kernel, and the kernel's definition as one tensor expression.

group dense_relu(%x, %w):            def dense_relu(x, w, relu):
  %y = matmul(%x, %w)         ->       for i, j, k: matmul[i, j] += x[i, k] * w[k, j]
  %z = relu(%y)                        for i, j: relu[i, j] = max(matmul[i, j], 0)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tensorlang import te
from tensorlang.graph.ir import Node, Value
from tensorlang.graph.ops.common import canonical
from tensorlang.graph.registry import CONTRACTION, get
from tensorlang.graph.rewrite import array_of
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.equality import structural_hash
from tensorlang.ir.expr import Expr, const
from tensorlang.ir.stmt import PrimFunc, Stmt, Store
from tensorlang.ir.visitor import map_exprs, rewrite, rewrite_stmt

MAX_NAME = 60


@dataclass(eq=False)
class Group:
    """Nodes that run as one kernel.

    Attributes:
        nodes: in topological order. A node that only computes indices may be part of several groups.
        inputs: values read from outside, constants of more than one element included, in order of first use.
        outputs: values that others read.
        name: a readable identifier, the same for groups of the same operators; not unique.
        kind: "kernel"; "alias": the output is the input's memory under another shape, and nothing runs; "structure": an
            operator that is part of the program's control.
        notes: for each neighbour, why it is part of the group or not.
    """

    nodes: list[Node]
    inputs: list[Value]
    outputs: list[Value]
    name: str
    kind: str = "kernel"
    notes: list[str] = field(default_factory=list)

    @property
    def reason(self) -> str:
        return "; ".join(self.notes)

    @property
    def anchor(self) -> Node | None:
        """The node of the highest fusion kind, if it is more than index arithmetic."""
        node = max(self.nodes, key=lambda n: get(n.op).kind)
        return node if get(node.op).kind > 1 else None

    @property
    def constants(self) -> list[Value]:
        return [v for v in self.inputs if v.is_constant]

    def key(self) -> str:
        """Equal for groups that are one kernel: the structural hash of `prim_func`, in which names do not count."""
        return structural_hash(self.prim_func())

    def explain(self) -> str:
        """What is in the group, and why each neighbour was or was not fused."""
        lines = [f"{self.kind} {self.name}: {' -> '.join(n.op for n in self.nodes)}"]
        return "\n".join(lines + [f"  {note}" for note in self.notes])

    def prim_func(self, name: str | None = None) -> PrimFunc:
        """The group as a naive loop nest: parameters are `inputs`, `outputs`, then the symbolic dimensions.

        Constants of one element become numbers in the code; names of other constant inputs are in `attrs["constants"]`.
        """
        tensors: dict[Value, te.Tensor] = {}
        placeholders: list[te.Tensor] = []
        numbers: dict[str, Expr] = {}
        taken: set[str] = set()
        for value in self.inputs:
            tensors[value] = _placeholder(value, taken)
            placeholders.append(tensors[value])
        embedded: list[te.Tensor] = []
        for node in self.nodes:
            for value in node.inputs:
                if value not in tensors:
                    tensors[value] = _placeholder(value, taken)
                    embedded.append(tensors[value])
                    numbers[tensors[value].name] = const(array_of(value).reshape(()).item(), value.dtype)
            results = get(node.op).te(*(tensors[v] for v in node.inputs), **node.attrs)
            results = results if isinstance(results, tuple | list) else (results,)
            tensors.update(zip(node.outputs, results, strict=True))
        results = [tensors[v] for v in self.outputs]
        parts = self._parts(tensors)
        function = te.create_prim_func(
            name or self.name,
            [*placeholders, *embedded],
            parts or results,
            constants=[tensors[v].name for v in self.inputs if v.is_constant],
        )
        if parts:
            function = place_side_by_side(function, results[0].buffer, self.nodes[-1].attrs["axis"])
        return embed_numbers(function, numbers)

    def _parts(self, tensors: Mapping[Value, te.Tensor]) -> list[te.Tensor]:
        """A group that ends in a concat writes each part by its own loops: a copy per input, in place of one `concat` stage.

        The stage would choose the part anew for every element.
        """
        last = self.nodes[-1]
        if last.op != "concat" or self.outputs != [last.output]:
            return []
        sources = [tensors[v] for v in last.inputs]
        return [te.compute(t.shape, lambda *i, t=t: t[i], name=f"concat_{k}") for k, t in enumerate(sources)]

    def __str__(self) -> str:
        lines = [f"{self.kind} {self.name}({', '.join('%' + v.name for v in self.inputs)}):"]
        lines += [f"  {n!r}" for n in self.nodes]
        lines.append(f"  return {', '.join('%' + v.name for v in self.outputs)}")
        return "\n".join(lines)


def _placeholder(value: Value, taken: set[str]) -> te.Tensor:
    """Named by role, `x`, `x1`, ... and `w`, `w1`, ... for constants: groups that differ only in names give equal kernels."""
    base = "w" if value.is_constant else "x"
    name, serial = base, 0
    while name in taken:
        serial += 1
        name = f"{base}{serial}"
    taken.add(name)
    dims = tuple(d.value if d.op == "const" else d for d in value.shape)
    return te.placeholder(dims, value.dtype, name=name)


def place_side_by_side(function: PrimFunc, out: Buffer, axis: int) -> PrimFunc:
    """`function` with its outputs written into one buffer `out`, one after another along `axis`."""
    offset: Expr = const(0)
    offsets: dict[Buffer, Expr] = {}
    for part in function.outputs:
        offsets[part] = offset
        offset = canonical(offset + part.shape[axis])

    def rule(s: Stmt) -> Stmt | None:
        if not isinstance(s, Store) or s.buffer not in offsets:
            return None
        indices = (*s.indices[:axis], s.indices[axis] + offsets[s.buffer], *s.indices[axis + 1 :])
        return Store(out, indices, s.value)

    params: tuple[Buffer | Expr, ...] = (*function.inputs, out, *function.size_vars)
    return replace(function, params=params, body=rewrite_stmt(function.body, rule), num_outputs=1)


def embed_numbers(function: PrimFunc, numbers: Mapping[str, Expr]) -> PrimFunc:
    """`function` with reads of the one-element parameters named in `numbers` replaced by those, and without the parameters."""
    if not numbers:
        return function

    def rule(e: Expr) -> Expr | None:
        return numbers.get(e.value.name) if e.op == "load" else None

    body = map_exprs(function.body, lambda e: rewrite(e, rule))
    params = tuple(p for p in function.params if not (isinstance(p, Buffer) and p.name in numbers))
    return replace(function, params=params, body=body)


def name_of(nodes: list[Node]) -> str:
    """The operators in order, shortened to what a listing can show."""
    ops = [n.op for n in nodes]
    if len(ops) > 5:
        anchors = [n.op for n in nodes if get(n.op).kind >= CONTRACTION]
        ops = [*(anchors[:1] or ops[:1]), *ops[-3:], f"x{len(nodes)}"]
    return "_".join(ops)[:MAX_NAME]
