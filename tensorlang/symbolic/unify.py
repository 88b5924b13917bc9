"""A tile of a program against the meaning of an intrinsic: the same computation up to names, loop order and layout.

    meaning    c[i] = c[i] + a[k] * b[i, k]                       i in 16, k in 4
    program    for jj in 16: for kk in 4: y[m, jo*16 + jj] = y[m, jo*16 + jj] + x[m, ko*4 + kk] * w[ko, jo, jj, kk]
->  c at y[m, jo*16] stride 1; a at x[m, ko*4] stride 1; b at w[ko, jo, 0, 0] strides 4, 1

Loops are assigned to the meaning's variables by extent, in any order: a meaning's points are independent but for its reduction,
which is commutative. A variable of a named extent may have no loop, and one point. Operands of commutative operations match
in either order. A tensor of the meaning is a place in a buffer of the program with a stride for each of its dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, permutations, product

from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr, const, format_expr, load
from tensorlang.ir.stmt import For, Store
from tensorlang.ir.tensor_intrin import Pattern
from tensorlang.ir.visitor import substitute, walk
from tensorlang.symbolic.affine import linear_form
from tensorlang.symbolic.conflict import determined_variables
from tensorlang.symbolic.interval import RangesLike
from tensorlang.symbolic.simplify import simplify
from tensorlang.symbolic.strides import strides as buffer_strides

_Axis = tuple[Expr, Expr]  # a variable of the meaning, and its extent
_COMMUTATIVE = frozenset(["add", "mul", "min", "max", "eq", "ne", "and", "or"])


@dataclass(frozen=True)
class Operand:
    """Where a tensor of the meaning lies: its first element, and the distance of neighbours along each dimension.

    Attributes:
        base: indices of the first element.
        strides: in elements; None where the dimension has one element.
        flat: the first element's row-major position.
    """

    buffer: Buffer
    base: tuple[Expr, ...]
    strides: tuple[Expr | None, ...]
    flat: Expr


@dataclass(frozen=True)
class Match:
    """A tile bound to a meaning: an operand for each of its buffers, a value for each of its size variables."""

    operands: Mapping[Buffer, Operand]
    sizes: Mapping[Expr, Expr]


@dataclass(frozen=True)
class Mismatch:
    """What did not match: a part of the meaning, the part of the program that was compared with it, and why."""

    meaning: str
    program: str
    why: str

    def __str__(self) -> str:
        return f"{self.why}\n  the intrinsic means: {self.meaning}\n  the program has:     {self.program}"


def unify(
    pattern: Pattern,
    loops: Sequence[For],
    store: Store,
    ranges: RangesLike,
    refuse: Callable[[Match], Mismatch | None] = lambda match: None,
) -> Match | Mismatch:
    """Bind `pattern` to the perfect nest of `loops` around `store`.

    Args:
        loops: the tile, outermost first.
        store: with everything in terms of the tile's loops and what is outside.
        ranges: extents of all loops around the store.
        refuse: what is wrong with a match; then others are looked for.
    """
    return _Unifier(pattern, loops, store, ranges).run(refuse)


def contiguous_strides(shape: Sequence[Expr], strides: Sequence[Expr | None]) -> list[Expr]:
    """The stride that each dimension has if the dimension after it is followed without a gap."""
    found: list[Expr] = []
    step: Expr = const(1)
    for extent, stride in zip(reversed(shape), reversed(strides), strict=True):
        found.append(step)
        step = simplify((step if stride is None else stride) * extent)
    return found[::-1]


@dataclass(frozen=True)
class _State:
    operands: Mapping[Buffer, Operand]


class _Unifier:
    def __init__(self, pattern: Pattern, loops: Sequence[For], store: Store, ranges: RangesLike):
        self.pattern, self.ranges = pattern, ranges
        self.loops = [f for f in loops if not _is_one(f.extent)]
        units = {f.var: const(0, f.var.dtype) for f in loops if _is_one(f.extent)}
        self.store = Store(
            store.buffer, tuple(substitute(i, units) for i in store.indices), substitute(store.value, units)
        )
        self.tile = {f.var for f in self.loops}
        self.failure: tuple[int, Mismatch] | None = None
        self.depth = 0
        self.names: dict[Expr, str] = {}  # of the pattern's variables, by the loops that they are assigned to
        self.spatial: set[Expr] = set()  # loops whose iterations write different elements

    def run(self, refuse: Callable[[Match], Mismatch | None]) -> Match | Mismatch:
        axes = [(v, extent) for v, extent, _ in self.pattern.axes if not _is_one(extent)]
        fits, refused = False, None
        for left_out, order in self.assignments(axes):
            kept = [axis for axis in axes if axis not in left_out]
            ones = {extent: const(1, extent.dtype) for _, extent in left_out}
            sizes = _sizes([e for _, e in kept], [f.extent for f in order], self.ranges, ones)
            if sizes is None:
                continue
            fits = True
            mapping = {v: f.var for (v, _), f in zip(kept, order, strict=True)}
            units = {v: const(0, v.dtype) for v, e, _ in self.pattern.axes if v not in mapping}
            self.names = {f.var: v.name for (v, _), f in zip(kept, order, strict=True)}
            self.depth = 0
            self.spatial = {mapping[v] for v, e, kind in self.pattern.axes if kind == "spatial" and v in mapping}
            if (found := self.under({**mapping, **units, **sizes}, sizes)) is not None:
                if (mismatch := refuse(found)) is None:
                    return found
                refused = refused or mismatch
        if refused is not None:
            return refused
        if not fits:
            why = "the extents of the loops differ"
            if len(axes) != len(self.loops):
                why = f"the tile has {len(self.loops)} loop(s), the intrinsic {len(axes)}"
            return Mismatch(self.show_axes(self.pattern.axes), self.show_loops(), why)
        assert self.failure is not None
        return self.failure[1]

    def assignments(self, axes: Sequence[_Axis]) -> Iterator[tuple[tuple[_Axis, ...], Sequence[For]]]:
        """The meaning's axes that have one point here, and the loops in the order of the others; as they are written first."""
        named = [axis for axis in axes if axis[1].op == "var"]
        missing = len(axes) - len(self.loops)
        if not 0 <= missing <= len(named):
            return
        yield from ((left_out, self.loops) for left_out in combinations(named, missing))
        yield from product(combinations(named, missing), permutations(self.loops))

    def under(self, mapping: Mapping[Expr, Expr], sizes: Mapping[Expr, Expr]) -> Match | None:
        """The match with the pattern's variables replaced by the program's, if there is one."""
        ours = self.pattern.store
        target = load(ours.buffer, tuple(substitute(i, mapping) for i in ours.indices))
        theirs = load(self.store.buffer, self.store.indices)
        value = substitute(ours.value, mapping)
        for state in self.match(target, theirs, _State({})):
            for final in self.match(value, self.store.value, state):
                if (problem := self.unsound(final)) is None:
                    return Match(final.operands, sizes)
                self.fail(target, theirs, problem, bonus=1000)
        return None

    def unsound(self, state: _State) -> str | None:
        """Why the points of the tile may not be computed at once."""
        output = self.pattern.store.buffer
        written = state.operands[output].buffer
        if any(o.buffer is written for b, o in state.operands.items() if b is not output):
            return f"{written.name} is written and is also another operand"
        if self.spatial - determined_variables(self.store.indices, {f.var: f.extent for f in self.loops}):
            return f"two points of the tile may write the same element of {written.name}"
        return None

    # -- expressions -----------------------------------------------------------------------------------------------
    def fail(self, ours: Expr, theirs: Expr, why: str, bonus: int = 0) -> None:
        if self.failure is None or self.depth + bonus > self.failure[0]:
            self.failure = (self.depth + bonus, Mismatch(self.show(ours), str(theirs), why))

    def match(self, ours: Expr, theirs: Expr, state: _State) -> Iterator[_State]:
        """All ways in which `theirs` is an instance of `ours`."""
        if ours.dtype != theirs.dtype:
            self.fail(ours, theirs, f"one is {ours.dtype}, the other {theirs.dtype}")
            return
        if ours.op == "load":
            if theirs.op != "load":
                self.fail(ours, theirs, "a tensor's element is wanted")
                return
            found = self.operand(ours, theirs, state)
            if isinstance(found, str):
                self.fail(ours, theirs, found)
                return
            self.depth += 1
            yield replace(state, operands={**state.operands, ours.value: found})
            self.depth -= 1
            return
        if ours.dtype.is_int and not _has_load(ours) and not _has_load(theirs):
            if simplify(ours - theirs, self.ranges) is const(0, ours.dtype):
                yield state
            else:
                self.fail(ours, theirs, "the values differ")
            return
        alike = (ours.op, ours.value, len(ours.args)) == (theirs.op, theirs.value, len(theirs.args))
        if not alike or (not ours.args and ours is not theirs):
            self.fail(ours, theirs, "the operations differ")
            return
        self.depth += 1
        orders = [theirs.args]
        if ours.op in _COMMUTATIVE and theirs.args[0] is not theirs.args[1]:
            orders.append(theirs.args[::-1])
        for args in orders:
            yield from self.all_of(ours.args, args, state)
        self.depth -= 1

    def all_of(self, ours: Sequence[Expr], theirs: Sequence[Expr], state: _State) -> Iterator[_State]:
        if not ours:
            yield state
            return
        for first in self.match(ours[0], theirs[0], state):
            yield from self.all_of(ours[1:], theirs[1:], first)

    # -- memory ----------------------------------------------------------------------------------------------------
    def operand(self, ours: Expr, theirs: Expr, state: _State) -> Operand | str:
        """Where the tensor that `ours` reads lies if `theirs` is that element; or why it cannot be."""
        buffer: Buffer = theirs.value
        base: list[Expr] = []
        steps: dict[Expr, Expr] = {}
        distances = buffer_strides(buffer)
        for index, distance in zip(theirs.args, distances, strict=True):
            form = linear_form(simplify(index, self.ranges), self.tile)
            if form is None:
                return f"index {index} of {buffer.name} is not linear in the tile's loops"
            base.append(form[1])
            for v, c in form[0].items():
                steps[v] = simplify(steps.get(v, const(0)) + c * distance)
        strides, shift = self.strides(ours, steps)
        if isinstance(strides, str):
            return strides
        flat: Expr = const(0)
        for index, distance in zip(base, distances, strict=True):
            flat = flat + index * distance
        if shift is not const(0) and base:  # the meaning's element is not its tensor's first one
            base[-1] = simplify(base[-1] - shift, self.ranges)
        flat = simplify(flat - shift, self.ranges)
        known = state.operands.get(ours.value)
        if known is None:
            return Operand(buffer, tuple(base), strides, flat)
        same = known.buffer is buffer and simplify(known.flat - flat, self.ranges) is const(0)
        joined = tuple(b if a is None else a for a, b in zip(known.strides, strides, strict=True))
        for a, b in zip(joined, strides, strict=True):
            same = same and (b is None or a is b or (a is not None and simplify(a - b, self.ranges) is const(0)))
        if not same:
            return f"{ours.value.name} lies at {_place(known)} already"
        return replace(known, strides=joined)

    def strides(self, ours: Expr, steps: Mapping[Expr, Expr]) -> tuple[tuple[Expr | None, ...] | str, Expr]:
        """The stride of each dimension, from how the program's address grows along each loop; and the constant indices'
        share of the address."""
        forms = []
        for index in ours.args:
            form = linear_form(simplify(index, self.ranges), self.tile)
            if form is None or any(isinstance(c, Expr) for c in form[0].values()):
                return f"the meaning's index {self.show(index)} is not linear", const(0)
            forms.append(form)
        found: list[Expr | None] = [None] * len(forms)
        equations = {v: [(d, int(f[0][v])) for d, f in enumerate(forms) if v in f[0]] for v in self.tile}  # type: ignore[arg-type]
        progress = True
        while progress:
            progress = False
            for v, terms in list(equations.items()):
                rest = steps.get(v, const(0))
                open_terms = []
                for d, a in terms:
                    if (solved := found[d]) is None:
                        open_terms.append((d, a))
                    else:
                        rest = simplify(rest - a * solved, self.ranges)
                if not open_terms:
                    if rest is not const(0):
                        return f"along {self.names.get(v, v.name)} the addresses differ by {rest}", const(0)
                elif len(open_terms) == 1:
                    ((d, a),) = open_terms
                    if simplify(rest % a, self.ranges) is not const(0):
                        return f"a stride of {rest} is no multiple of {a}", const(0)
                    found[d] = simplify(rest // a, self.ranges)
                else:
                    continue
                del equations[v]
                progress = True
        if equations:
            return "the strides are not determined: two dimensions run along the same loops", const(0)
        shift: Expr = const(0)
        for (_, start), stride in zip(forms, found, strict=True):
            if start is const(0):
                continue
            if stride is None:
                return "a constant index along a dimension without a loop", const(0)
            shift = shift + start * stride
        return tuple(found), simplify(shift, self.ranges)

    # -- texts -----------------------------------------------------------------------------------------------------
    def show(self, e: Expr) -> str:
        """An expression of the pattern, in its own names."""
        return format_expr(e, lambda v: self.names.get(v, v.name))

    def show_axes(self, axes: Sequence[tuple[Expr, Expr, str]]) -> str:
        return ", ".join(f"{v.name} in {extent} ({kind})" for v, extent, kind in axes) or "no loops"

    def show_loops(self) -> str:
        return ", ".join(f"{f.var.name} in {f.extent}" for f in self.loops) or "no loops"


def _is_one(e: Expr) -> bool:
    return e.op == "const" and e.value == 1


def _has_load(e: Expr) -> bool:
    return any(n.op == "load" for n in walk(e))


def _place(o: Operand) -> str:
    return f"{o.buffer.name}[{', '.join(map(str, o.base))}]"


def _sizes(
    ours: Sequence[Expr], theirs: Sequence[Expr], ranges: RangesLike, known: Mapping[Expr, Expr]
) -> dict[Expr, Expr] | None:
    """The values of the pattern's size variables, beside the `known` ones, with which its extents are the program's; None
    where they differ."""
    found = dict(known)
    for a, b in zip(ours, theirs, strict=True):
        if a.op == "var":
            a = found.setdefault(a, b)
        if a is not b and simplify(a - b, ranges) is not const(0):
            return None
    return found
