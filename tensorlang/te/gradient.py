"""`gradient`: reverse-mode differentiation of te programs; the adjoints are te stages, to be scheduled like any other.

    y[i, j] = sum(x[i, k] * w[j, k], axis=k)
->  x_grad[i, k] = sum(y_grad[i, j] * w[j, k], axis=j)
    w_grad[j, k] = sum(y_grad[i, j] * x[i, k], axis=i)

Each load `x[g(i, k)]` of a stage y contributes to the adjoint of x

    x_grad[e] += sum over (i, k) with g(i, k) == e of   y_grad[i] * d(term)/d(load)   at (i, k)

where the access map g is inverted as far as it can be (`inversion`), so that what was scattered is gathered. After Li,
Gharbi, Adams, Durand, Ragan-Kelley, "Differentiable programming for image processing and deep learning in Halide" (SIGGRAPH
2018), and TVM's te autodiff (`tvm.te.gradient`), whose signature this is; scalar derivatives are in `derivative`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce as fold
from inspect import Parameter, Signature

from tensorlang.ir.expr import Expr, add, and_, cast, const, div, eq, fail, is_const, reduce, select, var, wrap
from tensorlang.ir.visitor import loads, substitute, walk
from tensorlang.symbolic.simplify import simplify
from tensorlang.te.derivative import derivative, is_reproducible, is_zero, times
from tensorlang.te.inversion import Extent, invert, under
from tensorlang.te.primfunc import stages_of
from tensorlang.te.tensor import ComputeOp, PlaceholderOp, Shape, Tensor, compute_stage, extent_of, reduce_axis

KINDS = ("sum", "prod", "max", "min")


def gradient(output: Tensor, inputs: Tensor | Sequence[Tensor], head: Tensor | None = None) -> list[Tensor]:
    """The adjoints of `inputs` with respect to `output`.

    Args:
        output: a floating-point tensor of any shape.
        inputs: floating-point tensors that it may depend on: placeholders, or stages on the way.
        head: the adjoint of `output`, of shape `(*prefix, *output.shape)`: what is differentiated is its product with
            the output, once for each index of the prefix. Without it, the identity: the result is the Jacobian.

    Returns:
        For each input a stage of shape `(*prefix, *input.shape)`, or `(*output.shape, *input.shape)` without `head`: just
        `input.shape` for a scalar output. An input that the output does not depend on has a gradient of zeros.

    Where a maximum or minimum is attained several times, its terms share the adjoint equally; for the conventions of scalar
    functions, see `derivative`. A product's adjoint is right where terms are 0. Adjoints are summed in the type of the stage
    that they come from.

    Raises:
        TypeCheckError: the output or an input is not floating point, shapes do not fit, or the program has a stage (a tuple
            reduction, an external function) or a function whose derivative is unknown.
    """
    wanted = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    for t in (output, *wanted, *([] if head is None else [head])):
        if not isinstance(t, Tensor):
            fail(f"te.gradient takes tensors, not {type(t).__name__}")
    for t in (output, *wanted):
        if not t.dtype.is_float:
            fail(f"te.gradient: {t.name} is {t.dtype}; only floating-point tensors have derivatives")
    return _Backward(output, wanted, _head(output, head)).run()


@dataclass(frozen=True)
class _Head:
    """The adjoint of the output: a tensor with `prefix` in front, or without a tensor the identity."""

    prefix: Shape
    tensor: Tensor | None


def _head(output: Tensor, head: Tensor | None) -> _Head:
    if head is None:
        return _Head(output.shape, None)
    rank = head.ndim - output.ndim
    if head.dtype != output.dtype:
        fail(f"te.gradient: the head {head.name} is {head.dtype}, the output {output.name} is {output.dtype}")
    pairs = zip(head.shape[max(rank, 0) :], output.shape, strict=False)
    if rank < 0 or any(simplify(wrap(a) - b) is not const(0) for a, b in pairs):
        shapes = f"{_text(head.shape)} of {head.name} does not end in {_text(output.shape)} of {output.name}"
        fail(f"te.gradient: the head's shape is (*any, *output.shape), but {shapes}")
    return _Head(head.shape[:rank], head)


def _text(shape: Shape) -> str:
    return f"({', '.join(map(str, shape))})"


@dataclass(frozen=True)
class _Part:
    """What one load contributes to an adjoint: at (*prefix, *element), the sum over `free` of `value` where `guard` holds."""

    stage: Tensor
    prefix: tuple[Expr, ...]
    element: tuple[Expr, ...]
    free: dict[Expr, Extent]
    guard: tuple[Expr, ...]
    value: Expr

    def at(self, index: Sequence[Expr]) -> Expr:
        """The element at `index`: a reduction if there are free variables."""
        axes = {v: reduce_axis(extent, v.name) for v, extent in self.free.items()}
        value = self.value
        if self.guard:
            value = select(fold(and_, self.guard), value, const(0, value.dtype))
        value = substitute(value, {**dict(zip((*self.prefix, *self.element), index, strict=True)), **axes})
        return reduce("sum", value, tuple(axes.values())) if axes else value

    @property
    def names(self) -> list[str]:
        return [v.name for v in (*self.prefix, *self.element)]


class _Backward:
    """One sweep from the output to the inputs; every stage's adjoint is complete before it is passed on."""

    def __init__(self, output: Tensor, inputs: list[Tensor], head: _Head):
        self.output, self.inputs, self.head = output, inputs, head
        self.parts: dict[Tensor, list[_Part]] = {}

    def run(self) -> list[Tensor]:
        order = stages_of([self.output])
        relevant = set(self.inputs)  # depends on an input, or is one
        for t in order:
            if any(i in relevant for i in t.op.inputs):
                relevant.add(t)
        found: dict[Tensor, Tensor] = {}
        for t in reversed(order):
            if t not in relevant or not t.dtype.is_float:
                continue
            if t is not self.output and t not in self.parts:
                continue  # the derivative vanishes on the way
            adjoint = self.head.tensor if t is self.output else self._sum(t, self.parts[t])
            if t in self.inputs:
                found[t] = self._identity() if adjoint is None else adjoint
            if not isinstance(t.op, PlaceholderOp) and any(i in relevant for i in t.op.inputs):
                self._spread(t, adjoint, relevant)
        return [found[t] if t in found else self._zeros(t) for t in self.inputs]

    def _spread(self, stage: Tensor, adjoint: Tensor | None, relevant: set[Tensor]) -> None:
        """Give every tensor that `stage` reads its part."""
        op = stage.op
        if not isinstance(op, ComputeOp) or len(op._outputs) != 1:
            fail(f"te.gradient: {stage.name} is not a plain stage; its derivative is not known")
        if op.body.op == "reduce" and (op.body.value[0] not in KINDS or len(op.body.args) != 1):
            fail(f"te.gradient: {stage.name} is not a plain sum, prod, max or min (without init=); its derivative is not known")
        terms = _Terms(stage)
        for e in walk(op.body):
            if e.op == "load" and e.dtype.is_float and e.value.tensor in relevant:
                part = self._part(stage, adjoint, terms, e)
                if part is not None:
                    self.parts.setdefault(e.value.tensor, []).append(part)

    def _part(self, stage: Tensor, adjoint: Tensor | None, terms: _Terms, element: Expr) -> _Part | None:
        op, read = stage.op, element.value.tensor
        assert isinstance(op, ComputeOp)
        variables: dict[Expr, Extent] = dict(zip(op.axis, stage.shape, strict=True))
        variables.update((k, extent_of(k)) for k in op.reduce_axis)
        names = self._names(op, read, element)
        prefix = tuple(var(n) for n in names[: len(self.head.prefix)])
        at = tuple(var(n) for n in names[len(prefix) :])
        index, target, shape = list(element.args), list(at), list(read.shape)
        if adjoint is None:  # the identity: only i == prefix contributes
            index, target, shape = [*op.axis, *index], [*prefix, *target], [*stage.shape, *shape]
            weight = const(1, stage.dtype)
        else:
            weight = adjoint[(*prefix, *op.axis)]
        inverse = invert(index, target, shape, variables)
        d = derivative(terms.term, element, inverse.match)
        if d is None:
            return None
        ranges = {**dict(zip((*prefix, *at), (*self.head.prefix, *read.shape), strict=True)), **inverse.free}
        value = under(inverse.guard, substitute(terms.weigh(weight, d), inverse.solution), ranges)
        guard = list(inverse.guard)
        while value.op == "select" and value.args[2] is const(0, value.dtype) and not loads(value.args[0]):
            guard += [value.args[0]]
            value = value.args[1]
        if is_const(value, 0):
            return None
        used = {n for e in (value, *guard) for n in walk(e)}
        for v in [v for v in inverse.free if v not in used]:  # as often as it has values
            value = times(cast(value.dtype, wrap(inverse.free.pop(v))), value)
        return _Part(stage, prefix, at, inverse.free, tuple(guard), value)

    def _names(self, op: ComputeOp, read: Tensor, element: Expr) -> list[str]:
        """Names for the axes of an adjoint: as the stage calls them where it indexes by a plain variable."""
        if self.head.tensor is None and isinstance(self.output.op, ComputeOp):
            names = [a.name for a in self.output.op.axis]
        else:
            names = [f"p{n}" for n in range(len(self.head.prefix))]
        own = read.op.axis if isinstance(read.op, ComputeOp) else ()
        for n, e in enumerate(element.args):
            names.append(own[n].name if own else e.name if e.op == "var" else f"x{n}")
        taken: set[str] = set()
        for n, name in enumerate(names):
            while name in taken:
                name += "_"
            taken.add(name)
            names[n] = name
        return names

    # -- stages ----------------------------------------------------------------------------------------------------
    def _sum(self, t: Tensor, parts: list[_Part]) -> Tensor:
        """The adjoint of `t`: one part as it is, several summed; reductions among several have stages of their own."""
        name = f"{t.name}_grad"
        if len(parts) == 1 and parts[0].value.dtype == t.dtype:
            return self._stage(t, name, parts[0].names, parts[0].at)
        made = [self._stage(t, f"{name}_{p.stage.name}", p.names, p.at) if p.free else p for p in parts]

        def total(index: Sequence[Expr]) -> Expr:
            terms = (p.at(index) if isinstance(p, _Part) else p[tuple(index)] for p in made)
            return fold(add, (cast(t.dtype, e) for e in terms))

        return self._stage(t, name, parts[0].names, total)

    def _stage(self, like: Tensor, name: str, names: list[str], element: Callable[[Sequence[Expr]], Expr]) -> Tensor:
        return _compute((*self.head.prefix, *like.shape), names, element, name, like)

    def _identity(self) -> Tensor:
        t, rank = self.output, self.output.ndim

        def element(index: Sequence[Expr]) -> Expr:
            same = [eq(a, b) for a, b in zip(index[:rank], index[rank:], strict=True)]
            return select(fold(and_, same, const(True)), const(1, t.dtype), const(0, t.dtype))

        return self._stage(t, f"{t.name}_grad", [f"i{n}" for n in range(2 * rank)], element)

    def _zeros(self, t: Tensor) -> Tensor:
        names = [f"i{n}" for n in range(len(self.head.prefix) + t.ndim)]
        return self._stage(t, f"{t.name}_grad", names, lambda index: const(0, t.dtype))


class _Terms:
    """The terms of a stage's reduction (of a stage without one, its only term), and how the adjoint weighs them."""

    def __init__(self, stage: Tensor):
        op = stage.op
        assert isinstance(op, ComputeOp)
        self.stage, self.op = stage, op
        self.kind = op.body.value[0] if op.body.op == "reduce" else "sum"
        self.term = op.body.args[0] if op.body.op == "reduce" else op.body
        self._known: tuple[Expr, ...] | None = None

    def weigh(self, adjoint: Expr, d: Expr) -> Expr:
        """adjoint * d(reduction)/d(term) * d"""
        if self.kind == "sum":
            return times(adjoint, d)
        zero = const(0, d.dtype)
        if self.kind == "prod":
            term, zeros, others = self._product()
            alone = select(eq(zeros, 1) & is_zero(term), times(times(adjoint, others), d), zero)
            return select(eq(zeros, 0), times(div(times(adjoint, others), term), d), alone)
        term, best, ties = self._extremum()
        return select(eq(term, best), times(div(adjoint, ties), d), zero)

    def _extremum(self) -> tuple[Expr, ...]:
        """(term, best, how many terms are the best)"""
        if self._known is None:
            term, best = self._reproducible(), self.stage[self.op.axis]
            if term is not self.term:  # what the stage itself computed may differ in the last bit
                best = self._reduced("best", self.kind, term)
            one = const(1, term.dtype)
            ties = self._reduced("ties", "sum", select(eq(term, best), one, const(0, term.dtype)))
            self._known = term, best, ties
        return self._known

    def _product(self) -> tuple[Expr, ...]:
        """(term, how many terms are 0, the product of the others)"""
        if self._known is None:
            term = self._reproducible()
            zeros = self._reduced("zeros", "sum", select(is_zero(term), const(1), const(0)))
            others = self._reduced("nonzero", "prod", select(is_zero(term), const(1, term.dtype), term))
            self._known = term, zeros, others
        return self._known

    def _reproducible(self) -> Expr:
        """The term; from a stage of its own if computing it again might not give the same bits."""
        if is_reproducible(self.term):
            return self.term
        axes = (*self.op.axis, *self.op.reduce_axis)
        shape = (*self.stage.shape, *(extent_of(k) for k in self.op.reduce_axis))
        made = _compute(
            shape,
            [a.name for a in axes],
            lambda index: substitute(self.term, dict(zip(axes, index, strict=True))),
            f"{self.stage.name}_terms",
            self.stage,
        )
        return made[axes]

    def _reduced(self, what: str, kind: str, term: Expr) -> Expr:
        """An element of a new stage: `term` reduced by `kind` over the stage's reduction axes."""

        def element(index: Sequence[Expr]) -> Expr:
            fresh = {k: reduce_axis(extent_of(k), k.name) for k in self.op.reduce_axis}
            replaced = substitute(term, {**dict(zip(self.op.axis, index, strict=True)), **fresh})
            return reduce(kind, replaced, tuple(fresh.values()))

        names = [a.name for a in self.op.axis]
        return _compute(self.stage.shape, names, element, f"{self.stage.name}_{what}", self.stage)[self.op.axis]


def _compute(shape: Shape, names: list[str], element: Callable[[Sequence[Expr]], Expr], name: str, of: Tensor) -> Tensor:
    """A stage with named axes that points to the source of the tensor it was derived from."""

    def fcompute(*index: Expr) -> Expr:
        return element(index)

    parameters = [Parameter(n, Parameter.POSITIONAL_ONLY) for n in names]
    fcompute.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    made = compute_stage(shape, fcompute, name)
    made.op.source = of.op.source
    return made
