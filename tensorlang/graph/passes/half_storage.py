"""What a product reads rounded to bf16 is kept rounded: it goes through memory once, in half the bytes.

    %r = relu(%c)                                       %r = relu(%c)
    %a = cast(%r, bf16)  for a product           ->     %h = cast(%r, bf16)          for the product
    %s = add(%r, %x)                                    %s = add(cast(%h, f32), %x)

Its other readers get the same rounded number, if they compute element by element or in rows, where the conversion back costs
nothing. So does a convolution by channel, whoever reads its image beside it; and the largest of a window of rounded numbers is
the largest of the window, rounded.
"""

from __future__ import annotations

from tensorlang.graph.ir import Graph, Node, Value
from tensorlang.graph.passes.context import Context, subject_of
from tensorlang.graph.passes.half_products import rounded
from tensorlang.graph.registry import COMPOUND, ELEMENTWISE, OPAQUE, REDUCTION, get
from tensorlang.graph.rewrite import Rewriter
from tensorlang.ir.dtype import f32


def half_storage(graph: Graph, context: Context | None = None) -> Graph:
    """Keep what products and windows by channel read as bf16 numbers in memory; after `half_products`."""
    context = context or Context()
    if not context.options.halves:
        return graph
    readers = graph.uses()
    outputs = set(graph.outputs)

    def kept(value: Value) -> bool:
        found = readers.get(value, ())
        node = value.producer
        computed = node is not None and get(node.op).kind is not OPAQUE and len(node.outputs) == 1 and value not in outputs
        wanted = any(_is_rounding(n) or _is_depthwise(n) for n in found)
        return value.dtype == f32 and computed and wanted and all(_is_rounding(n) or _takes_halves(n) for n in found)

    keep = {v for node in graph.nodes for v in node.outputs if kept(v)}
    halves: dict[Value, Value] = {}
    rw = Rewriter(graph)
    for node in graph.nodes:
        if _is_rounding(node) and node.inputs[0] in keep:
            rw.replace(node.output, halves[node.inputs[0]])
            continue
        first = node.inputs[0] if node.inputs else None
        if first is not None and node.op == "max_pool" and node.output in keep and len(readers[first]) == 1:
            # rounding keeps the order: the largest of rounded numbers is the largest, rounded
            image = halves.get(first) or rw.add("cast", [rw[first]], {"dtype": "bf16"}, first.producer)
            halves[node.output] = rw.add(node.op, [image], node.attrs, node)
            continue
        results = rw.copy(node)
        if any(v in keep for v in node.inputs):
            inputs = [
                rw.add("cast", [halves[v]], {"dtype": "f32"}, node) if v in keep else rw[v] for v in node.inputs
            ]
            results = rw.add_all(node.op, inputs, node.attrs, node)
        for old, new in zip(node.outputs, results, strict=True):
            rw.replace(old, new)
            if old in keep:
                context.note(subject_of(node), "its result is kept as bf16 numbers, as products read it")
                halves[old] = rounded(rw, new, node)
    return rw.finish()


def _is_rounding(node: Node) -> bool:
    return node.op == "cast" and node.attrs["dtype"] == "bf16" and node.inputs[0].dtype == f32


def _takes_halves(node: Node) -> bool:
    """Whether the conversion back to f32 is computed where the node reads it."""
    return get(node.op).kind in (ELEMENTWISE, REDUCTION, COMPOUND) or _is_depthwise(node)


def _is_depthwise(node: Node) -> bool:
    """A convolution of each channel by itself, channels last."""
    return node.op == "conv" and node.inputs[1].type.ndim == node.inputs[0].type.ndim - 1
