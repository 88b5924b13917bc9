"""Split a graph between code generators: what each takes becomes regions, the rest stays as it is.

    %a = conv(%x, %w)                %r = external(%x; generator=acme, region={conv, relu})
    %b = relu(%a)              ->    %c = softmax(%r)
    %c = softmax(%b)

Generators are asked in order, patterns before single nodes; a node belongs to the first that takes it. Neighbours of one
generator merge into one region unless a path leaves it and comes back: regions never wait for each other. Where a generator
works in a memory of its own, values are copied at the border, each once: `copy_to` nodes, which the report counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from tensorlang.graph.generator import Generator, extract
from tensorlang.graph.ir import Graph, Node, Value
from tensorlang.graph.ops.external import Region
from tensorlang.graph.registry import get


@dataclass(eq=False)
class Unit:
    """Nodes that run as one: a region, or (without a generator) a node that stays."""

    nodes: list[Node]
    generator: Generator | None = None
    before: dict[Unit, None] = field(default_factory=dict)
    after: dict[Unit, None] = field(default_factory=dict)


@dataclass
class Partition:
    """A split graph.

    Attributes:
        graph: with `external` and `copy_to` nodes.
        regions: those nodes of the former kind, by the name of their kernel.
        copies: the latter.
        kept: how many nodes stayed.
    """

    graph: Graph
    regions: list[Node]
    copies: list[Node]
    kept: int

    def __str__(self) -> str:
        lines = [f"{n.name}: {len(n.attrs['region'].graph.nodes)} nodes for {n.attrs['generator']}" for n in self.regions]
        lines += [f"copy of %{n.inputs[0].name} into {n.attrs['memory'] or 'the host'}" for n in self.copies]
        return "\n".join([*lines, f"{self.kept} nodes stay"])


def partition(graph: Graph, generators: Sequence[Generator]) -> Partition:
    """`graph` with regions for `generators`; equal to it in meaning."""
    units = _units(graph, _assign(graph, generators))
    _merge(units)
    units = _dissolve(units, graph)
    return _rebuild(graph, _ordered(units, graph))


# -- who takes what ---------------------------------------------------------------------------------------------------


def _assign(graph: Graph, generators: Sequence[Generator]) -> list[tuple[list[Node], Generator]]:
    """Groups of nodes that belong together, with their generator."""
    readers: dict[Value, int] = {}
    for value in [*graph.outputs, *(v for n in graph.nodes for v in n.inputs)]:
        readers[value] = readers.get(value, 0) + 1
    taken: set[Node] = set()
    found: list[tuple[list[Node], Generator]] = []
    for generator in generators:
        for wanted in generator.patterns:
            for node in reversed(graph.nodes):  # the longest chain first
                match = None if node in taken else wanted.match(node, readers)
                if match and taken.isdisjoint(match) and generator.accepts(match):
                    found.append((match, generator))
                    taken.update(match)
        for node in graph.nodes:
            fits = node not in taken and not get(node.op).structure and not all(v.is_constant for v in node.inputs)
            if fits and generator.supports(node):
                found.append(([node], generator))
                taken.add(node)
    return found


def _units(graph: Graph, taken: Sequence[tuple[list[Node], Generator]]) -> list[Unit]:
    units = [Unit(nodes, generator) for nodes, generator in taken]
    home = {node: unit for unit in units for node in unit.nodes}
    for node in graph.nodes:
        if node not in home:
            home[node] = Unit([node])
            units.append(home[node])
    defined = {d: node for node in graph.nodes for d in node.defines}
    for node in graph.nodes:
        for value in node.inputs:
            if value.producer is not None and value.producer in home:
                _edge(home[value.producer], home[node])
        for d in node.needed_dims() & defined.keys() if defined else ():
            _edge(home[defined[d]], home[node])
    return units


def _edge(a: Unit, b: Unit) -> None:
    if a is not b:
        a.after.setdefault(b)
        b.before.setdefault(a)


# -- merging ----------------------------------------------------------------------------------------------------------


def _merge(units: list[Unit]) -> None:
    """Join neighbours of one generator, as long as no other unit would come both before and after the result."""
    dead: set[Unit] = set()
    for unit in list(units):
        changed = unit.generator is not None and unit not in dead
        while changed:
            changed = False
            for other in [*unit.before, *unit.after]:
                if other.generator is unit.generator:
                    first, second = (other, unit) if other in unit.before else (unit, other)
                    if not _detour(first, second):
                        _absorb(unit, other)
                        dead.add(other)
                        changed = True
                        break
    units[:] = [u for u in units if u not in dead]


def _detour(a: Unit, b: Unit) -> bool:
    """Whether some path from `a` to `b` goes through another unit."""
    pending = [u for u in a.after if u is not b]
    seen = set(pending)
    while pending:
        unit = pending.pop()
        for following in unit.after:
            if following is b:
                return True
            if following not in seen:
                seen.add(following)
                pending.append(following)
    return False


def _absorb(unit: Unit, other: Unit) -> None:
    unit.nodes += other.nodes
    for before in other.before:
        del before.after[other]
        _edge(before, unit)
    for after in other.after:
        del after.before[other]
        _edge(unit, after)


def _dissolve(units: list[Unit], graph: Graph) -> list[Unit]:
    """Units without the regions that are too small for their generator."""
    if all(u.generator is None or len(u.nodes) >= u.generator.min_nodes for u in units):
        return units
    kept = [(u.nodes, u.generator) for u in units if u.generator is not None and len(u.nodes) >= u.generator.min_nodes]
    return _units(graph, kept)


def _ordered(units: Sequence[Unit], graph: Graph) -> list[Unit]:
    """In an order in which they can run, as near to the graph's as that allows."""
    place = {node: k for k, node in enumerate(graph.nodes)}
    for unit in units:
        unit.nodes.sort(key=place.__getitem__)
    waiting = {u: len(u.before) for u in units}
    ready = sorted((u for u, n in waiting.items() if n == 0), key=lambda u: place[u.nodes[0]], reverse=True)
    order: list[Unit] = []
    while ready:
        unit = ready.pop()
        order.append(unit)
        for following in unit.after:
            waiting[following] -= 1
            if waiting[following] == 0:
                ready.append(following)
        ready.sort(key=lambda u: place[u.nodes[0]], reverse=True)
    return order


# -- the new graph ----------------------------------------------------------------------------------------------------


def _rebuild(graph: Graph, units: Sequence[Unit]) -> Partition:
    made = Partition(graph, [], [], 0)
    new: dict[Value, Value] = {}
    nodes: list[Node] = []
    at: dict[tuple[Value, str], Value] = {}  # copies that there are, by value and memory
    memory: dict[Value, tuple[str, Generator]] = {}  # where values of the new graph lie, if not with the host

    def placed(value: Value, wanted: str, generator: Generator | None) -> Value:
        """The new graph's `value`, in the memory `wanted`."""
        value = new.get(value, value)
        here, owner = memory.get(value, ("", None))
        if here == wanted or value.is_constant:
            return value
        if here and wanted:  # from one device to another, by way of the host
            value, here = copied(value, "", owner), ""
        return copied(value, wanted, generator if wanted else owner)

    def copied(value: Value, wanted: str, generator: Generator | None) -> Value:
        assert generator is not None  # whoever has a memory of its own is a generator
        if (value, wanted) not in at:
            node = Node("copy_to", [value], {"memory": wanted, "generator": generator.name}, name=f"copy_{len(made.copies)}")
            node.outputs = [Value(f"{value.name}_{wanted or 'host'}", value.type, node)]
            at[value, wanted] = node.output
            if wanted:
                memory[node.output] = (wanted, generator)
            nodes.append(node)
            made.copies.append(node)
        return at[value, wanted]

    inner = {node: unit for unit in units for node in unit.nodes}
    outside: dict[Value, None] = dict.fromkeys(graph.outputs)
    for node in graph.nodes:
        for value in node.inputs:
            if value.producer is not None and inner.get(value.producer) is not inner[node]:
                outside.setdefault(value)
    for unit in units:
        generator = unit.generator
        if generator is None:
            node = unit.nodes[0]
            inputs = [placed(v, "", None) for v in node.inputs]
            made.kept += 1
            if inputs == node.inputs:
                nodes.append(node)
            else:
                copy = Node(node.op, inputs, node.attrs, name=node.name)
                copy.outputs = [Value(v.name, v.type, copy, data=v.data) for v in node.outputs]
                new.update(zip(node.outputs, copy.outputs, strict=True))
                nodes.append(copy)
            continue
        name = f"{generator.name}_{len(made.regions)}"
        results = [v for node in unit.nodes for v in node.outputs if v in outside]
        region = extract(unit.nodes, name, results)
        given = [v for n in unit.nodes for v in n.inputs if not v.is_constant]
        reads = dict.fromkeys(v for v in given if v.producer is None or inner.get(v.producer) is not unit)
        inputs = [placed(v, generator.memory, generator) for v in reads]
        node = Node("external", inputs, {"generator": generator.name, "region": Region(region)}, name=name)
        node.outputs = [Value(v.name, v.type, node, data=v.data) for v in results]
        for old, value in zip(results, node.outputs, strict=True):
            new[old] = value
            if generator.memory:
                memory[value] = (generator.memory, generator)
        nodes.append(node)
        made.regions.append(node)
    outputs = [placed(v, "", None) for v in graph.outputs]
    names = graph.output_names or [v.name for v in graph.outputs]
    made.graph = replace(graph, nodes=nodes, outputs=outputs, output_names=names)
    return made
