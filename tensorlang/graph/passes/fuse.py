"""Partition a graph into kernels: what is computed together never travels through memory.

    %m = matmul(%x, %w)          group matmul_add_relu(%x, %w, %b, %r):  m, a, s, y
    %a = add(%m, %b)       ->    alias reshape(%y): v
    %s = add(%a, %r)             group softmax(%v): p
    %y = relu(%s)
    %v = reshape(%y)
    %p = softmax(%v)

The rules, tried for every node in topological order:

1. A reshape only renames memory: it is an alias, a group of its own for which nothing runs.
2. *Epilogue.* An elementwise node joins the group that makes one of its operands, if nobody else reads that operand and
   its shape is the result's. Among several, the group of the heaviest kind, then the latest, so that its other operands
   exist before.
3. *Diamond.* A value with several readers stays inside if all their paths meet again within a few elementwise nodes.
4. *Prologue.* A group of elementwise and index operators joins the only reader of its result, unless the reader would
   evaluate it many times over (a broadcast, a window, a second pass) and it is not cheap. Products take index operators
   only.
5. At most one reduction, product or compound operator per group; concat ends a group; an upper limit on size.
6. *Chain.* But softmax along the rows of a product that only another product reads, as its left operand, takes both along
   (attention), where the target has a schedule for it.
7. *Window.* A depthwise convolution takes along the product that only it reads (an inverted residual), where the target has a
   schedule for it: a band of lines at a time, of which few are computed twice.

No cycle can arise: a group has one result, and whoever joins a group is either the only reader of that result or, in a
diamond, on a path that ends inside.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from math import prod

from tensorlang.errors import InternalError
from tensorlang.graph.ir import Graph, Node, Value
from tensorlang.graph.passes.context import Options, subject_of
from tensorlang.graph.passes.cse import attrs_key, same_bytes
from tensorlang.graph.passes.group import Group, name_of
from tensorlang.graph.registry import COMPOUND, CONTRACTION, ELEMENTWISE, INJECTIVE, OPAQUE, REDUCTION, Kind, as_ints, get
from tensorlang.graph.rewrite import array_of, bytes_of, same_shape

ALIASES = {"reshape", "identity"}
CHEAP = {
    "add", "sub", "mul", "neg", "abs", "relu", "clip", "cast", "where", "minimum", "maximum", "not", "and", "or", "xor",
    "equal", "not_equal", "less", "less_equal", "greater", "greater_equal", "hard_sigmoid", "hard_swish", "leaky_relu", "prelu",
}  # fmt: skip
WINDOWS = {"max_pool", "avg_pool", "lp_pool", "resize_linear", "resize_cubic", "lrn"}  # an element is read by several windows
ENDS = {"concat"}  # a branch per input: nothing is computed on its result
PANEL = 3  # vectors of channels, of which a band of lines is computed at a time
LONG_PRODUCT = 256  # steps of a reduction, from which a product is better off with a kernel of its own
TWICE = 16  # multiply-adds per element, computed twice, that cost less than a write to memory and a read
DIAMOND = 12  # nodes between a value and where its readers' paths meet


def fuse(graph: Graph, options: Options | None = None) -> list[Group]:
    """The groups of `graph` in topological order. Every node is in at least one; aliases and kernels alike are listed."""
    groups = _Fusion(graph, options or Options()).run()
    share_kernels(groups)
    return groups


class _Cluster:
    """A group while it grows: its nodes and the one value that leaves it (several for a lone node with several)."""

    def __init__(self, node: Node):
        self.nodes = [node]
        self.kind: Kind = get(node.op).kind
        self.result: Node = node
        self.notes: list[str] = []

    @property
    def is_pointwise(self) -> bool:
        return self.kind <= INJECTIVE

    @property
    def is_cheap(self) -> bool:
        return all(n.op in CHEAP or get(n.op).kind is INJECTIVE for n in self.nodes)

    @property
    def is_index(self) -> bool:
        return all(get(n.op).kind is INJECTIVE for n in self.nodes)


class _Fusion:
    def __init__(self, graph: Graph, options: Options):
        self.graph = graph
        self.options = options
        self.order = {node: i for i, node in enumerate(graph.nodes)}
        self.uses = graph.uses()
        self.outputs = set(graph.outputs)
        self.cluster: dict[Node, _Cluster] = {}

    def run(self) -> list[Group]:
        for node in self.graph.nodes:
            if node not in self.cluster:
                self._place(node)
            if _is_alias(node):
                continue
            self._prologues(node)
            self._diamond(node)
        for node in self.graph.nodes:
            if self.options.chain:
                self._chain(node)
            if self.options.band_bytes:
                self._window(node)
        return self._groups()

    # -- rule 2 ----------------------------------------------------------------------------------------------------
    def _place(self, node: Node) -> None:
        own = _Cluster(node)
        self.cluster[node] = own
        if get(node.op).kind is not ELEMENTWISE or len(node.outputs) != 1:
            return
        best: _Cluster | None = None
        for value in dict.fromkeys(node.inputs):
            candidate = self._epilogue_of(value, node, own)
            if candidate is not None and (best is None or self._weight(candidate) > self._weight(best)):
                best = candidate
        if best is not None:
            self._join(best, node)

    def _epilogue_of(self, value: Value, node: Node, own: _Cluster) -> _Cluster | None:
        if value.producer is None:
            return None
        cluster = self.cluster[value.producer]
        reason = self._refuses_epilogue(cluster, value, node)
        if reason:
            own.notes.append(f"{node.op} does not join {subject_of(value.producer)}: {reason}")
            return None
        return cluster

    def _refuses_epilogue(self, cluster: _Cluster, value: Value, node: Node) -> str:
        if _is_alias(cluster.result) or cluster.kind is OPAQUE or cluster.result.op in ENDS:
            return f"{cluster.result.op} stands alone"
        if cluster.result is not value.producer or len(cluster.result.outputs) != 1:
            return "it is inside another group"
        if self.readers(value) != 1:
            return f"{self.readers(value)} readers"
        if not same_shape(value.type, node.output.type):
            return "another shape"
        if self._widens(node):
            return "in memory it is half as long: its reader converts it"
        return self._too_large(cluster, [node])

    def _widens(self, node: Node) -> bool:
        """A conversion to a longer type whose only reader takes it along as it reads."""
        if node.op != "cast" or node.output.dtype.nbytes <= node.inputs[0].dtype.nbytes or self.readers(node.output) != 1:
            return False
        return any(get(n.op).kind in (ELEMENTWISE, COMPOUND) or _is_depthwise(n) for n in self.uses.get(node.output, ()))

    def _weight(self, cluster: _Cluster) -> tuple[int, int]:
        return (int(cluster.kind) if cluster.kind is not COMPOUND else int(REDUCTION), self.order[cluster.result])

    def _join(self, cluster: _Cluster, node: Node) -> None:
        cluster.notes.append(f"{node.op} ({subject_of(node)}) is computed where {cluster.result.op} ends")
        cluster.nodes.append(node)
        cluster.kind = max(cluster.kind, get(node.op).kind)
        cluster.result = node
        self.cluster[node] = cluster

    # -- rule 3 ----------------------------------------------------------------------------------------------------
    def _diamond(self, node: Node) -> None:
        cluster = self.cluster[node]
        if cluster.result is not node or len(node.outputs) != 1 or cluster.kind is OPAQUE or node.op in ENDS:
            return
        value = node.output
        if self.readers(value) < 2 or value in self.outputs:
            return
        region: list[Node] = []
        pending = set(self.uses[value])
        while pending and len(region) < DIAMOND:
            nearest = min(pending, key=self.order.__getitem__)
            pending.remove(nearest)
            if nearest in self.cluster or get(nearest.op).kind is not ELEMENTWISE or len(nearest.outputs) != 1:
                return
            if not same_shape(nearest.output.type, value.type):
                return
            region.append(nearest)
            if not pending and len(region) > 1:
                break
            if nearest.output in self.outputs:
                return
            pending |= set(self.uses.get(nearest.output, ()))
        if pending or len(region) < 2 or self._too_large(cluster, region):
            return
        for inner in region:
            self._join(cluster, inner)
        cluster.notes.append(f"{len(region)} readers of {node.op} meet again in {region[-1].op}: the value stays inside")

    # -- rule 4 ----------------------------------------------------------------------------------------------------
    def _prologues(self, node: Node) -> None:
        """Pointwise groups whose result only `node` reads join its group."""
        for value in dict.fromkeys(node.inputs):
            if value.producer is None:
                continue
            producer, cluster = self.cluster[value.producer], self.cluster[node]
            if producer is cluster or _is_alias(value.producer):
                continue
            reason = self._refuses_prologue(producer, value, node, cluster)
            if reason:
                cluster.notes.append(f"{producer.result.op} ({subject_of(producer.result)}) is not computed here: {reason}")
                continue
            cluster.notes.append(f"{producer.result.op} ({subject_of(producer.result)}) is computed where it is read")
            cluster.notes += producer.notes
            cluster.nodes = producer.nodes + cluster.nodes
            cluster.kind = max(cluster.kind, producer.kind)
            for moved in producer.nodes:
                self.cluster[moved] = cluster

    def _refuses_prologue(self, producer: _Cluster, value: Value, node: Node, cluster: _Cluster) -> str:
        kind = get(node.op).kind
        if not producer.is_pointwise:
            return f"a {producer.kind.name.lower()} has its own kernel"
        if producer.result is not value.producer or len(value.producer.outputs) != 1:
            return "it is inside another group"
        if producer.result.op in ENDS:
            return f"{producer.result.op} ends a group"
        if self.readers(value) != 1:
            return f"{self.readers(value)} readers"
        if kind is OPAQUE or node.op in WINDOWS:
            return f"{node.op} reads its input through a window"
        taken = {"transpose", "slice"} if node.op == "matmul" else {"cast"} if _is_depthwise(node) else set()
        if kind is CONTRACTION and not _only(producer, taken):
            return "a product reads its operands many times"
        if kind in (REDUCTION, COMPOUND):
            if not all(_keeps_last(n) for n in producer.nodes):
                return "it would be read across its rows"
            if kind is COMPOUND and not producer.is_cheap:
                return "it would be computed once per pass"
        if cluster.kind > INJECTIVE and cluster.result is not None and kind is ELEMENTWISE:
            if not _only_elementwise(producer):
                return "an epilogue reads its operands in order"
        grows = bytes_of(node.output.type) // node.output.dtype.nbytes > bytes_of(value.type) // value.dtype.nbytes
        if kind <= INJECTIVE and grows and not producer.is_cheap:
            return "it would be computed many times"
        return self._too_large(cluster, producer.nodes)

    # -- rule 6 ----------------------------------------------------------------------------------------------------
    def _chain(self, node: Node) -> None:
        """The clusters of `node`'s left operand, a softmax, and of what that is of join its own, if all three are one chain."""
        rows = self._only_reader(node.inputs[0]) if node.op == "matmul" and len(node.inputs) == 2 else None
        if rows is None or rows.kind is not COMPOUND or rows.result.op != "softmax":
            return
        softmax = rows.result
        if softmax.attrs["axis"] != softmax.output.type.ndim - 1:
            return
        inside = {n.output for n in rows.nodes}
        read = [v for n in rows.nodes for v in n.inputs if v not in inside]
        products = [c for v in read if (c := self._only_reader(v)) is not None and c.kind is CONTRACTION]
        own = self.cluster[node]
        if len(products) != 1 or own.kind is not CONTRACTION or products[0] is own:
            return
        first = products[0]
        if not any(n.op == "matmul" for n in first.nodes) or not same_shape(first.result.output.type, softmax.output.type):
            return
        if self._too_large(own, [*first.nodes, *rows.nodes]):
            return
        own.notes.append(f"softmax ({subject_of(softmax)}) and the product before it are computed a block of rows at a time")
        for cluster in (rows, first):
            own.notes += cluster.notes
            own.nodes += cluster.nodes
            for moved in cluster.nodes:
                self.cluster[moved] = own

    # -- rule 7 ----------------------------------------------------------------------------------------------------
    def _window(self, node: Node) -> None:
        """The cluster of the product that a depthwise convolution reads joins it, if what is computed twice where two bands of
        lines meet costs less than memory."""
        if not _is_depthwise(node):
            return
        value, aliases = node.inputs[0], []
        while value.producer is not None and _is_alias(value.producer) and self.readers(value) == 1:
            aliases.append(value.producer)
            value = value.producer.inputs[0]
        first, own = self._only_reader(value), self.cluster[node]
        if first is None or first is own or first.kind is not CONTRACTION:
            return
        product = next((n for n in first.nodes if n.op in ("matmul", "conv")), None)
        if product is None or not self._band_pays(node, product) or self._too_large(own, [*first.nodes, *aliases]):
            return
        own.notes.append(f"{first.result.op} ({subject_of(first.result)}) is computed a band of lines at a time, as it is read")
        own.notes += first.notes
        own.nodes += [*first.nodes, *aliases]
        for moved in [*first.nodes, *aliases]:
            self.cluster[moved] = own

    def _band_pays(self, windows: Node, product: Node) -> bool:
        x, weights, steps = windows.inputs[0].type, windows.inputs[1].type, as_ints(product.inputs[1].type.shape[:-1])
        sizes, kernel = as_ints(x.shape), as_ints(weights.shape)
        if not all(v.dtype.is_float for v in product.inputs):
            return False
        if sizes is None or steps is None or kernel is None or len(sizes) < 4 or prod(steps) > LONG_PRODUCT:
            return False
        lines, width = sizes[1], prod(sizes[2:-1])
        stride, reach = windows.attrs["strides"][0], (kernel[0] - 1) * windows.attrs["dilations"][0] + 1
        fit = self.options.band_bytes // (width * PANEL * self.options.lanes * 4)
        if fit >= lines:
            return True
        band = (fit - (reach - stride)) // stride
        return band > 0 and (reach - stride) / (band * stride) * prod(steps) <= TWICE

    def _only_reader(self, value: Value) -> _Cluster | None:
        """The cluster whose result is `value`, if that is read once and has one result."""
        if value.producer is None or self.readers(value) != 1 or len(value.producer.outputs) != 1:
            return None
        cluster = self.cluster[value.producer]
        return cluster if cluster.result is value.producer and not _is_alias(cluster.result) else None

    # -- rule 5 ----------------------------------------------------------------------------------------------------
    def _too_large(self, cluster: _Cluster, more: Iterable[Node]) -> str:
        nodes = [*cluster.nodes, *more]
        if len(nodes) > self.options.max_group_nodes:
            return f"more than {self.options.max_group_nodes} nodes"
        inside = {v for n in nodes for v in n.outputs}
        outside = {v for n in nodes for v in n.inputs if v not in inside}
        return f"more than {self.options.max_group_inputs} inputs" if len(outside) > self.options.max_group_inputs else ""

    def readers(self, value: Value) -> int:
        """Nodes that read `value`; being a result of the graph counts as one more."""
        return len(set(self.uses.get(value, ()))) + (value in self.outputs)

    # -- result ----------------------------------------------------------------------------------------------------
    def _groups(self) -> list[Group]:
        clusters = list(dict.fromkeys(self.cluster.values()))
        groups = {c: self._group(c) for c in clusters}
        made_by = {v: g for g in groups.values() for v in g.outputs}
        definers = {d: self.cluster[n] for n in self.graph.nodes for d in n.defines}
        ordered: list[Group] = []
        state: dict[Group, int] = {}
        for root in sorted(groups.values(), key=lambda g: self.order[g.nodes[-1]]):
            stack = [root]
            while stack:
                group = stack[-1]
                if state.get(group) == 2:
                    stack.pop()
                elif state.get(group) == 1:
                    stack.pop()
                    state[group] = 2
                    ordered.append(group)
                else:
                    state[group] = 1
                    sizes = {d for n in group.nodes for d in n.needed_dims()} if definers else set()
                    for before in (
                        *map(made_by.get, group.inputs),
                        *(groups[definers[d]] for d in sizes if d in definers),
                    ):
                        if before is not None and state.get(before) == 1:
                            raise InternalError(f"fusion made a cycle through {before.name}")
                        if before is not None and before not in state:
                            stack.append(before)
        return ordered

    def _group(self, cluster: _Cluster) -> Group:
        nodes = sorted(cluster.nodes, key=self.order.__getitem__)
        inside = {v for n in nodes for v in n.outputs}
        inputs = dict.fromkeys(
            v for n in nodes for v in n.inputs if v not in inside and not (v.constant is not None and v.constant.size == 1)
        )
        members = set(nodes)
        outputs = [
            v
            for n in nodes
            for v in n.outputs
            if v in self.outputs or any(reader not in members for reader in self.uses.get(v, ()))
        ]
        alias = len(nodes) == 1 and _is_alias(nodes[0])
        return Group(
            nodes, list(inputs), outputs or list(nodes[-1].outputs), name_of(nodes),
            "alias" if alias else "structure" if get(nodes[-1].op).structure else "kernel", list(dict.fromkeys(cluster.notes)),
        )  # fmt: skip


def _is_depthwise(node: Node) -> bool:
    """A convolution of each channel by itself, channels last."""
    return node.op == "conv" and node.inputs[1].type.ndim == node.inputs[0].type.ndim - 1


def _is_alias(node: Node) -> bool:
    return node.op in ALIASES and not node.inputs[0].is_constant


def _only(cluster: _Cluster, ops: set[str]) -> bool:
    return all(n.op in ops for n in cluster.nodes)


def _only_elementwise(cluster: _Cluster) -> bool:
    return all(get(n.op).kind is ELEMENTWISE or n.op == "expand" for n in cluster.nodes)


def _keeps_last(node: Node) -> bool:
    """Whether neighbours along the last dimension of the result are neighbours in what is read."""
    if node.op == "transpose":
        return node.attrs["perm"][-1] == len(node.attrs["perm"]) - 1
    return get(node.op).kind is ELEMENTWISE or node.op in ("slice", "expand", "pad", "full", "range")


def share_kernels(groups: list[Group]) -> None:
    """Let groups that differ only in numbers be one kernel: numbers that differ are passed, not written into the code."""
    alike: dict[Hashable, list[tuple[Group, list[Value]]]] = {}
    for group in groups:
        if group.kind == "kernel":
            shape, numbers = _shape_of(group)
            if numbers:
                alike.setdefault(shape, []).append((group, numbers))
    for members in alike.values():
        for position in range(len(members[0][1])):
            column = [numbers[position] for _, numbers in members]
            if all(same_bytes(array_of(v), array_of(column[0])) for v in column):
                continue
            for (group, _), value in zip(members, column, strict=True):
                if value not in group.inputs:
                    group.inputs.append(value)


def _shape_of(group: Group) -> tuple[Hashable, list[Value]]:
    """What two groups of one kernel have in common; and the constants of one element, one per read."""
    numbered: dict[Value, int] = {}
    numbers: list[Value] = []

    def reference(v: Value) -> Hashable:
        if v.constant is not None and v.constant.size == 1 and v not in group.inputs:
            numbers.append(v)
            return ("number", v.type)
        return (numbered.setdefault(v, len(numbered)), v.type, v.is_constant)

    shape = tuple(
        (n.op, attrs_key(n.attrs), tuple(reference(v) for v in n.inputs), tuple(reference(v) for v in n.outputs))
        for n in group.nodes
    )
    return (shape, tuple(numbered[v] for v in group.outputs)), numbers
