"""Give compositions that exporters spell out their own operators, which have better kernels (and one pass over memory).

    %a = mul(%x, 0.7071)
    %b = erf(%a)
    %c = add(%b, 1)           ->    %e = gelu(%x)
    %d = mul(%x, %c)
    %e = mul(%d, 0.5)

Also sigmoid-weighted units, hard sigmoid and hard swish, gelu by tanh, and layer normalisation from its means. Each is the same
function, evaluated in one place: rounding may differ in the last bits, nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tensorlang.graph.ir import Graph, Node, Value
from tensorlang.graph.passes.context import Context, subject_of
from tensorlang.graph.passes.match import Bind, Bindings, Const, match
from tensorlang.graph.passes.rules import simplify_node
from tensorlang.graph.rewrite import Rewriter, rewrite, same_shape, scalar

ROOT_HALF, ROOT_TWO, TANH_SCALE = math.sqrt(0.5), math.sqrt(2), math.sqrt(2 / math.pi)


_ERF = [("add", ("erf", ("mul", "x", ROOT_HALF)), 1.0), ("add", ("erf", ("div", "x", ROOT_TWO)), 1.0)]
_CUBES = [("mul", ("mul", "x", "x"), "x"), ("pow", "x", 3.0)]
_INNER: list[Any] = [("mul", ("add", "x", ("mul", cube, 0.044715)), TANH_SCALE) for cube in _CUBES]
_INNER.append(("mul", ("add", "x", ("mul", ("mul", ("mul", "x", 0.044715), "x"), "x")), TANH_SCALE))
_TANH = [("add", ("tanh", inner), 1.0) for inner in _INNER]


def _half_of_product(gate: Any) -> list[Any]:
    """0.5 * x * gate in the three orders of its two products."""
    return [("mul", ("mul", "x", gate), 0.5), ("mul", ("mul", "x", 0.5), gate), ("mul", "x", ("mul", gate, 0.5))]


_RELU6_OF_SHIFTED = ("clip", ("add", "x", 3.0))
_CENTRED = Bind("d", ("sub", "x", Bind("mean", ("reduce_mean", "x"))))
_VARIANCES = [("reduce_mean", ("mul", "d", "d")), ("reduce_mean", ("pow", "d", 2.0))]


def recognise(graph: Graph, context: Context | None = None) -> Graph:
    """Replace the compositions above by `gelu`, `silu`, `hard_sigmoid`, `hard_swish` and `layer_norm`."""
    context = context or Context()

    def rule(rw: Rewriter, node: Node) -> Value | list[Value] | None:
        for name, patterns, build in _TABLE.get(node.op, ()):
            for pattern in patterns:
                found = match(pattern, node.output)
                result = None if found is None else build(rw, node, found)
                if result is not None:
                    context.note(subject_of(node), f"is the last step of {name}")
                    return result
        return simplify_node(rw, node, context.options.fold_limit)

    return rewrite(graph, rule)


def _unary(op: str, **attrs: Any) -> Callable[[Rewriter, Node, Bindings], Value | None]:
    def build(rw: Rewriter, node: Node, found: Bindings) -> Value | None:
        x = found["x"]
        fits = same_shape(x.type, node.output.type) and x.dtype.is_float
        return rw.add(op, [x], attrs, node) if fits else None

    return build


def _hard_sigmoid(rw: Rewriter, node: Node, found: Bindings) -> Value | None:
    """clip(x + 3, 0, 6) / 6"""
    clip = found["clip"].producer
    if clip is None or clip.attrs.get("min") != 0 or clip.attrs.get("max") != 6:
        return None
    return _unary("hard_sigmoid", alpha=1 / 6, beta=0.5)(rw, node, found)


def _hard_swish(rw: Rewriter, node: Node, found: Bindings) -> Value | None:
    """x * clip(x + 3, 0, 6) / 6"""
    clip = found["clip"].producer
    if clip is None or clip.attrs.get("min") != 0 or clip.attrs.get("max") != 6:
        return None
    return _unary("hard_swish")(rw, node, found)


def _hard_swish_of_sigmoid(rw: Rewriter, node: Node, found: Bindings) -> Value | None:
    """x * hard_sigmoid(x) with slope 1/6 and offset 1/2"""
    gate = found["gate"].producer
    if gate is None or abs(gate.attrs.get("alpha", 0.2) * 6 - 1) > 1e-5 or gate.attrs.get("beta", 0.5) != 0.5:
        return None
    return _unary("hard_swish")(rw, node, found)


def _layer_norm(rw: Rewriter, node: Node, found: Bindings) -> Value | None:
    """(x - mean) / sqrt(mean((x - mean)^2) + eps) along the last dimension   (Ba et al. 2016)"""
    x, eps = found["x"], scalar(found["eps"])
    last = x.type.ndim - 1
    for name in ("mean", "variance"):
        reduction = found[name].producer
        if reduction is None or tuple(reduction.attrs["axes"]) != (last,) or not reduction.attrs.get("keepdims", True):
            return None
    if eps is None or not same_shape(x.type, node.output.type) or x.shape[last].op != "const":
        return None
    one = np.ones(1, x.dtype.numpy)
    return rw.add("layer_norm", [x, one], {"axis": last, "epsilon": float(eps)}, node)


def _layer_norm_scale(rw: Rewriter, node: Node, found: Bindings) -> Value | None:
    """layer_norm(x, 1) * g -> layer_norm(x, g)"""
    norm = found["norm"].producer
    scale = _along_last(rw, found["g"], node.output)
    if norm is None or scale is None or scalar(norm.inputs[1]) != 1 or len(norm.inputs) != 2 or rw.uses(norm.output) != 0:
        return None
    return rw.add("layer_norm", [norm.inputs[0], scale], norm.attrs, node)


def _layer_norm_bias(rw: Rewriter, node: Node, found: Bindings) -> Value | None:
    """layer_norm(x, g) + b -> layer_norm(x, g, b)"""
    norm = found["norm"].producer
    bias = _along_last(rw, found["b"], node.output)
    if norm is None or bias is None or len(norm.inputs) != 2 or rw.uses(norm.output) != 0:
        return None
    return rw.add("layer_norm", [*norm.inputs, bias], norm.attrs, node)


def _along_last(rw: Rewriter, parameter: Value, out: Value) -> Value | None:
    """A constant that varies along the last dimension of `out` alone, as a vector; None for any other value."""
    array = parameter.constant
    if array is None or array.dtype != out.dtype.numpy or out.shape[-1].op != "const":
        return None
    if array.ndim == 0 or array.size != array.shape[-1] or array.size != out.shape[-1].value:
        return None
    return parameter if array.ndim == 1 else rw.constant(array.reshape(-1), parameter.name)


_GATE = Bind("gate", ("hard_sigmoid", "x"))
_CLIP = Bind("clip", _RELU6_OF_SHIFTED)
_TABLE: dict[str, list[tuple[str, list[Any], Callable[[Rewriter, Node, Bindings], Value | None]]]] = {
    "mul": [
        ("silu", [("mul", "x", ("sigmoid", "x"))], _unary("silu")),
        ("gelu", [p for gate in _ERF for p in _half_of_product(gate)], _unary("gelu")),
        ("gelu by tanh", [p for gate in _TANH for p in _half_of_product(gate)], _unary("gelu", approximate="tanh")),
        ("hard_swish", [("mul", "x", _GATE)], _hard_swish_of_sigmoid),
        ("hard_swish", [("mul", ("mul", "x", _CLIP), 1 / 6)], _hard_swish),
        ("hard_sigmoid", [("mul", _CLIP, 1 / 6)], _hard_sigmoid),
        ("layer_norm with a scale", [("mul", Bind("norm", ("layer_norm", "x", "s")), Const("g"))], _layer_norm_scale),
    ],
    "add": [
        ("layer_norm with a bias", [("add", Bind("norm", ("layer_norm", "x", "s")), Const("b"))], _layer_norm_bias),
    ],
    "div": [
        ("hard_swish", [("div", ("mul", "x", _CLIP), 6.0)], _hard_swish),
        ("hard_sigmoid", [("div", _CLIP, 6.0)], _hard_sigmoid),
        (
            "layer_norm",
            [("div", _CENTRED, ("sqrt", ("add", Bind("variance", v), Const("eps")))) for v in _VARIANCES],
            _layer_norm,
        ),
    ],
}
