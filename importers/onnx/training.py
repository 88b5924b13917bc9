"""Steps of optimisers (ai.onnx.preview.training): new parameters, and the state they carry along."""

from __future__ import annotations

from collections.abc import Callable

from tensorlang.graph import Value

from .node import OnnxNode
from .registry import onnx_op

DOMAIN = "ai.onnx.preview.training"
Step = Callable[[OnnxNode, Value, Value, list[Value]], list[Value]]


def _optimiser(name: str, groups: int) -> Callable[[Step], Step]:
    """Register a step on (rate, count, [parameter, gradient, state...]); a node has several of each, kind by kind."""

    def register(step: Step) -> Step:
        @onnx_op(name, domain=DOMAIN)
        def rule(node: OnnxNode) -> tuple[Value, ...]:
            rate, count, *tensors = node.all_inputs()
            if not tensors or len(tensors) % groups:
                raise node.fail(f"{len(tensors)} tensors are no groups of {groups}")
            n = len(tensors) // groups
            results = [step(node, rate, count, tensors[k::n]) for k in range(n)]
            return tuple(result[part] for part in range(len(results[0])) for result in results)

        return step

    return register


def _scaled(node: OnnxNode, x: Value, factor: float) -> Value:
    return node.add("mul", x, node.constant(factor, x))


def _regularised(node: OnnxNode, x: Value, gradient: Value) -> Value:
    return node.add("add", _scaled(node, x, node.attr("norm_coefficient", 0.0)), gradient)


@_optimiser("Adagrad", 3)
def adagrad(node: OnnxNode, rate: Value, count: Value, tensors: list[Value]) -> list[Value]:
    x, gradient, squares = tensors
    steps = _scaled(node, node.add("cast", count, dtype=x.dtype), node.attr("decay_factor", 0.0))
    decayed = node.add("div", node.add("cast", rate, dtype=x.dtype), node.add("add", steps, node.constant(1, x)))
    g = _regularised(node, x, gradient)
    new = node.add("add", squares, node.add("mul", g, g))
    root = node.add("add", node.add("sqrt", new), node.constant(node.attr("epsilon", 0.0), x))
    return [node.add("sub", x, node.add("div", node.add("mul", decayed, g), root)), new]


@_optimiser("Adam", 4)
def adam(node: OnnxNode, rate: Value, count: Value, tensors: list[Value]) -> list[Value]:
    """Kingma and Ba (arXiv 1412.6980); no bias correction at count 0."""
    x, gradient, first, second = tensors
    alpha, beta = node.attr("alpha", 0.9), node.attr("beta", 0.999)
    g = _regularised(node, x, gradient)
    momentum = node.add("add", _scaled(node, first, alpha), _scaled(node, g, 1 - alpha))
    squares = node.add("add", _scaled(node, second, beta), _scaled(node, node.add("mul", g, g), 1 - beta))
    root = node.add("add", node.add("sqrt", squares), node.constant(node.attr("epsilon", 0.0), x))
    t, one = node.add("cast", count, dtype=x.dtype), node.constant(1, x)
    shrunk = [node.add("sub", one, node.add("pow", node.constant(b, x), t)) for b in (beta, alpha)]
    plain = node.add("cast", rate, dtype=x.dtype)
    corrected = node.add("div", node.add("mul", plain, node.add("sqrt", shrunk[0])), shrunk[1])
    step = node.add("where", node.add("greater", t, node.constant(0, x)), corrected, plain)
    new = node.add("sub", x, node.add("mul", step, node.add("div", momentum, root)))
    return [_scaled(node, new, 1 - node.attr("norm_coefficient_post", 0.0)), momentum, squares]


@_optimiser("Momentum", 3)
def momentum(node: OnnxNode, rate: Value, count: Value, tensors: list[Value]) -> list[Value]:
    """`mode` "standard", or "nesterov"; the gradient counts whole at count 0."""
    x, gradient, velocity = tensors
    alpha, beta = node.attr("alpha"), node.attr("beta")
    g = _regularised(node, x, gradient)
    first = node.add("greater", count, node.constant(0, count))
    share = node.add("where", first, node.constant(beta, x), node.constant(1, x))
    new = node.add("add", _scaled(node, velocity, alpha), node.add("mul", share, g))
    direction = new
    if node.choice("mode", "standard", "nesterov") == "nesterov":
        direction = node.add("add", g, _scaled(node, new, alpha))
    step = node.add("mul", node.add("cast", rate, dtype=x.dtype), direction)
    return [node.add("sub", x, step), new]
