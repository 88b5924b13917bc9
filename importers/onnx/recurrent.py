"""LSTM, GRU and RNN as loops: the input's products for all steps at once, then one small product per step.

Equations and names as in the ONNX operator reference (LSTM-22, GRU-22, RNN-22); one loop per direction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tensorlang.graph import Expr, Value

from .body import build_loop
from .node import OnnxNode, reversed_rows, size_value
from .registry import onnx_op

Activation = Callable[[Value], Value]
_DEFAULTS = {
    "affine": (1.0, 0.0), "leakyrelu": (0.01, 0.0), "thresholdedrelu": (1.0, 0.0), "scaledtanh": (1.0, 1.0),
    "hardsigmoid": (0.2, 0.5), "elu": (1.0, 0.0),
}  # fmt: skip
_PLAIN = {"relu": "relu", "tanh": "tanh", "sigmoid": "sigmoid", "softsign": "softsign", "softplus": "softplus"}


def _as_it_is(value: Value) -> Value:
    return value


@dataclass
class Cell:
    """One direction of a recurrent operator.

    Attributes:
        weights, recurrence: [gates * H, I] and [gates * H, H].
        bias: of the input's and the state's products, [gates * H] each, or None.
        peepholes: [3 * H] or None (LSTM).
        activations: in the operator's order.
    """

    hidden: int
    weights: Value
    recurrence: Value
    bias: tuple[Value, Value] | None
    peepholes: Value | None
    activations: list[Activation]


class _Recurrent:
    """What the three operators share: reading inputs and attributes, the loop over time, the outputs' layout."""

    gates = 1
    default_activations: tuple[str, ...] = ("Tanh",)
    clipped_activations = 2  # onnxruntime clips what the gates' activations are given, not the cell that an LSTM's third is

    def __init__(self, node: OnnxNode):
        self.node = node
        self.layout = int(node.attr("layout", 0))
        self.hidden = self._hidden_size()
        direction = node.choice("direction", "forward", "reverse", "bidirectional")
        self.directions = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}[direction]
        x = node.input(0)
        self.x = node.add("transpose", x, perm=(1, 0, 2)) if self.layout else x
        self.lengths = node.optional(4)
        self.clip = node.attr("clip", None)

    def _hidden_size(self) -> int:
        size = self.node.input(2).shape[2]
        if size.op != "const":
            raise self.node.unsupported("a hidden size that is not known")
        return int(size.value)

    # -- small steps -----------------------------------------------------------------------------------------------
    def add(self, op: str, *inputs: Value, **attrs: object) -> Value:
        return self.node.add(op, *inputs, **attrs)

    def number(self, value: float) -> Value:
        return self.node.constant(np.array(value), self.x)

    def part(self, value: Value, axis: int, k: int, size: int | Expr, count: int = 1) -> Value:
        """Elements [k * size, (k + count) * size) along `axis`."""
        starts = tuple(k * size if a == axis else 0 for a in range(value.type.ndim))
        shape = tuple(count * size if a == axis else d for a, d in enumerate(value.shape))
        return self.add("slice", value, starts=starts, shape=shape, steps=(1,) * value.type.ndim)

    def of_direction(self, position: int, d: int) -> Value | None:
        """Input `position` for direction `d`, without the dimension of directions."""
        value = self.node.optional(position)
        if value is None:
            return None
        axis = 1 if self.layout and position in (5, 6) else 0
        taken = self.part(value, axis, d, 1)
        return self.add("reshape", taken, shape=tuple(s for a, s in enumerate(value.shape) if a != axis))

    def clipped(self, value: Value) -> Value:
        if self.clip is None:
            return value
        return self.add("minimum", self.add("maximum", value, self.number(-self.clip)), self.number(self.clip))

    def activations(self, d: int) -> list[Activation]:
        count = len(self.default_activations)
        names = list(self.node.attr("activations", self.default_activations * len(self.directions)))
        if len(names) != count * len(self.directions):
            raise self.node.fail(f"{len(names)} activations for {count * len(self.directions)}")
        alphas, betas = list(self.node.attr("activation_alpha", ())), list(self.node.attr("activation_beta", ()))
        found = []
        for n, name in enumerate(names):
            kind = name.lower()
            alpha, beta = _DEFAULTS.get(kind, (0.0, 0.0))
            if kind in _DEFAULTS:  # only those that take parameters use them up
                alpha = alphas.pop(0) if alphas else alpha
                if kind in ("affine", "scaledtanh", "hardsigmoid"):
                    beta = betas.pop(0) if betas else beta
            if n // count == d:
                found.append(self._activation(kind, alpha, beta, n % count < self.clipped_activations))
        return found

    def _activation(self, kind: str, alpha: float, beta: float, clips: bool) -> Activation:
        held = self.clipped if clips else _as_it_is
        if kind in _PLAIN:
            return lambda v: self.add(_PLAIN[kind], held(v))
        if kind == "affine":
            return lambda v: self.add("add", self.add("mul", held(v), self.number(alpha)), self.number(beta))
        if kind == "leakyrelu":
            return lambda v: self.add("leaky_relu", held(v), alpha=alpha)
        if kind == "elu":
            return lambda v: self.add("elu", held(v), alpha=alpha)
        if kind == "thresholdedrelu":
            return lambda v: self.add("thresholded_relu", held(v), alpha=alpha)
        if kind == "hardsigmoid":
            return lambda v: self.add("hard_sigmoid", held(v), alpha=alpha, beta=beta)
        if kind == "scaledtanh":
            return lambda v: self.add(
                "mul", self.add("tanh", self.add("mul", held(v), self.number(beta))), self.number(alpha)
            )
        raise self.node.unsupported(f"activation {kind!r}")

    def product(self, a: Value, weights: Value) -> Value:
        """a [..., k] times weights [n, k], transposed."""
        return self.add("matmul", a, self.add("transpose", weights, perm=(1, 0)))

    # -- the loop --------------------------------------------------------------------------------------------------
    def cell(self, d: int) -> Cell:
        weights, recurrence = self.of_direction(1, d), self.of_direction(2, d)
        if weights is None or recurrence is None:
            raise self.node.fail("its weights are missing")
        both = self.of_direction(3, d)
        n = self.gates * self.hidden
        bias = None if both is None else (self.part(both, 0, 0, n), self.part(both, 0, 1, n))
        return Cell(self.hidden, weights, recurrence, bias, self.of_direction(7, d), self.activations(d))

    def initial(self, position: int, d: int) -> Value:
        given = self.of_direction(position, d)
        if given is not None:
            return given
        return self.add("full", shape=(self.x.shape[1], self.hidden), value=0.0, dtype=self.x.dtype)

    def inputs_product(self, cell: Cell) -> Value:
        raise NotImplementedError

    def step(self, cell: Cell, x: Value, states: list[Value]) -> list[Value]:
        """The new states, the output first."""
        raise NotImplementedError

    def states(self, d: int) -> list[Value]:
        return [self.initial(5, d)]

    def run(self) -> tuple[Value, ...]:
        sequences: list[Value] = []
        finals: list[list[Value]] = []
        for d, backwards in enumerate(self.directions):
            y, *last = self._direction(d, backwards)
            sequences.append(y)
            finals.append(last)
        y = self._joined(sequences, 1)
        lasts = [self._joined(column, 0) for column in zip(*finals, strict=True)]
        if self.layout:
            y = self.add("transpose", y, perm=(2, 0, 1, 3))
            lasts = [self.add("transpose", v, perm=(1, 0, 2)) for v in lasts]
        return (y, *lasts)

    def _joined(self, parts: Sequence[Value], axis: int) -> Value:
        wide = [self.add("reshape", v, shape=(*v.shape[:axis], 1, *v.shape[axis:])) for v in parts]
        return wide[0] if len(wide) == 1 else self.add("concat", *wide, axis=axis)

    def _direction(self, d: int, backwards: bool) -> tuple[Value, ...]:
        node, cell = self.node, self.cell(d)
        products = self.inputs_product(cell)
        steps = size_value(node, self.x, 0)
        one, always = node.constant(np.array(1, np.int64)), node.constant(np.array(True))
        lengths = self.lengths and self.add("reshape", self.lengths, shape=(self.x.shape[1], 1))

        def trip(index: Value, states: list[Value]) -> tuple[Value, list[Value], list[Value]]:
            at = self.add("sub", self.add("sub", steps, index), one) if backwards else index
            new = self.step(cell, self.add("gather", products, at, axis=0), states)
            out = new[0]
            if lengths is not None:
                runs = self.add("less", self.add("cast", at, dtype=lengths.dtype), lengths)
                new = [self.add("where", runs, v, old) for v, old in zip(new, states, strict=True)]
                out = self.add("where", runs, out, self.number(0.0))
            return always, new, [out]

        *last, y = build_loop(node, steps, always, self.states(d), trip)
        if backwards:
            y = reversed_rows(node, y)
        return (y, *last)


class _Rnn(_Recurrent):
    """Ht = f(Xt W^T + Ht-1 R^T + Wb + Rb)."""

    def inputs_product(self, cell: Cell) -> Value:
        made = self.product(self.x, cell.weights)
        return made if cell.bias is None else self.add("add", made, self.add("add", *cell.bias))

    def step(self, cell: Cell, x: Value, states: list[Value]) -> list[Value]:
        return [cell.activations[0](self.add("add", x, self.product(states[0], cell.recurrence)))]


class _Gru(_Recurrent):
    """Gates z, r, h; the reset gate works before or after the state's product."""

    gates = 3
    default_activations = ("Sigmoid", "Tanh")

    def __init__(self, node: OnnxNode):
        super().__init__(node)
        self.linear_before_reset = bool(node.attr("linear_before_reset", 0))

    def inputs_product(self, cell: Cell) -> Value:
        made = self.product(self.x, cell.weights)
        return made if cell.bias is None else self.add("add", made, cell.bias[0])

    def step(self, cell: Cell, x: Value, states: list[Value]) -> list[Value]:
        (state,), size = states, self.hidden
        f, g = cell.activations
        bias = None if cell.bias is None else cell.bias[1]

        def biased(value: Value, k: int, count: int) -> Value:
            return value if bias is None else self.add("add", value, self.part(bias, 0, k, size, count))

        def recurrent(value: Value, k: int, count: int) -> Value:
            return biased(self.product(value, self.part(cell.recurrence, 0, k, size, count)), k, count)

        if self.linear_before_reset:
            all_ = recurrent(state, 0, 3)
            z = f(self.add("add", self.part(x, 1, 0, size), self.part(all_, 1, 0, size)))
            r = f(self.add("add", self.part(x, 1, 1, size), self.part(all_, 1, 1, size)))
            h = g(self.add("add", self.part(x, 1, 2, size), self.add("mul", r, self.part(all_, 1, 2, size))))
        else:
            both = recurrent(state, 0, 2)
            z = f(self.add("add", self.part(x, 1, 0, size), self.part(both, 1, 0, size)))
            r = f(self.add("add", self.part(x, 1, 1, size), self.part(both, 1, 1, size)))
            h = g(self.add("add", self.part(x, 1, 2, size), biased(self._reset(cell, r, state), 2, 1)))
        return [self.add("add", self.add("mul", self.add("sub", self.number(1.0), z), h), self.add("mul", z, state))]

    def _reset(self, cell: Cell, r: Value, state: Value) -> Value:
        return self.product(self.add("mul", r, state), self.part(cell.recurrence, 0, 2, self.hidden))


class Lstm(_Recurrent):
    """Gates i, o, f, c, with peepholes; `input_forget` couples i and f."""

    gates = 4
    default_activations = ("Sigmoid", "Tanh", "Tanh")

    def states(self, d: int) -> list[Value]:
        return [self.initial(5, d), self.initial(6, d)]

    def inputs_product(self, cell: Cell) -> Value:
        made = self.product(self.x, cell.weights)
        return made if cell.bias is None else self.add("add", made, self.add("add", *cell.bias))

    def step(self, cell: Cell, x: Value, states: list[Value]) -> list[Value]:
        state, memory = states
        f, g, h = cell.activations
        gates = self.add("add", x, self.product(state, cell.recurrence))

        def gate(k: int, peephole: int | None, seen: Value) -> Value:
            value = self.part(gates, 1, k, self.hidden)
            if peephole is None or cell.peepholes is None:
                return value
            return self.add("add", value, self.add("mul", self.part(cell.peepholes, 0, peephole, self.hidden), seen))

        i = f(gate(0, 0, memory))
        if self.node.attr("input_forget", 0):
            forget = self.add("sub", self.number(1.0), i)
        else:
            forget = f(gate(2, 2, memory))
        c = g(gate(3, None, memory))
        new = self.add("add", self.add("mul", forget, memory), self.add("mul", i, c))
        o = f(gate(1, 1, new))
        return [self.add("mul", o, h(new)), new]


@onnx_op("RNN")
def rnn(node: OnnxNode) -> tuple[Value, ...]:
    return _Rnn(node).run()


@onnx_op("GRU")
def gru(node: OnnxNode) -> tuple[Value, ...]:
    return _Gru(node).run()


@onnx_op("LSTM")
def lstm(node: OnnxNode) -> tuple[Value, ...]:
    return Lstm(node).run()
