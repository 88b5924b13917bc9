"""Where every value lives: the caller's memory, the weights, the planned arena, or memory allocated while the program runs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tensorlang.graph.ir import TensorType, Value
from tensorlang.graph.memory import ALIGNMENT, Request, plan_memory
from tensorlang.graph.program.tree import Block, Branch, Call, Deliver, Grow, Move, Own, ReadSize, Repeat, Require
from tensorlang.ir.expr import Expr, add, const, mul
from tensorlang.ir.visitor import free_vars, substitute


def product(type: TensorType) -> Expr:
    """The number of elements."""
    count: Expr = const(1)
    for d in type.shape:
        count = mul(count, d)
    return count


def nbytes_of(type: TensorType) -> Expr:
    """The size in bytes."""
    return mul(product(type), type.dtype.nbytes)


class Roots:
    """Which value's memory a value shares."""

    def __init__(self) -> None:
        self._root: dict[Value, Value] = {}

    def __call__(self, value: Value) -> Value:
        while value in self._root:
            value = self._root[value]
        return value

    def join(self, value: Value, owner: Value) -> None:
        """Let `value` be the memory of `owner`."""
        owner = self(owner)
        if self(value) is not owner:
            self._root[self(value)] = owner


@dataclass
class Weights:
    """Constants that kernels read, laid out one behind the other.

    Attributes:
        by_content: offsets by size and hash of the bytes, where several programs share one block; None for one program.
    """

    pieces: list[tuple[int, np.ndarray]] = field(default_factory=list)
    nbytes: int = 0
    offsets: dict[Any, int] = field(default_factory=dict)
    by_content: dict[tuple[int, bytes], int] | None = None

    def begin(self) -> None:
        """Another program begins, with keys of its own."""
        self.offsets = {}

    def add(self, key: Any, array: np.ndarray) -> int:
        """The offset of `array`, which is laid down once for each key."""
        if key not in self.offsets:
            if self.by_content is None:
                self.offsets[key] = self._lay(array)
            else:
                content = array.nbytes, hashlib.blake2b(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data).digest()
                if content not in self.by_content:
                    self.by_content[content] = self._lay(array)
                self.offsets[key] = self.by_content[content]
        return self.offsets[key]

    def _lay(self, array: np.ndarray) -> int:
        offset = self.nbytes
        self.pieces.append((offset, array))
        self.nbytes += -(-array.nbytes // ALIGNMENT) * ALIGNMENT
        return offset

    def block(self) -> np.ndarray:
        """All of them as bytes, 64-byte aligned."""
        raw = np.empty(self.nbytes + ALIGNMENT, np.uint8)
        start = -raw.ctypes.data % ALIGNMENT
        block = raw[start : start + self.nbytes]
        end = 0
        for offset, array in self.pieces:
            block[end:offset] = 0  # same input, same bytes
            end = offset + array.nbytes
            block[offset:end] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        block[end:] = 0
        return block


class Storage:
    """Decides about intermediates: those whose size the inputs' shapes tell lie in the arena.

    Args:
        known: the dimensions that the inputs' shapes tell.
    """

    def __init__(self, roots: Roots, known: Iterable[Expr]):
        self.roots = roots
        self.known = set(known)
        self.forced: set[Value] = set()  # values whose memory will be handed over to one that is allocated
        self.offsets: dict[Any, Expr] = {}
        self.arena: Expr = const(0)
        self.arenas: dict[str, Expr] = {}  # bytes by element type, where each has an arena of its own

    def is_known(self, e: Expr) -> bool:
        """Whether an integer is known before the program runs."""
        return free_vars(e) <= self.known

    def on_heap(self, value: Value) -> bool:
        """Whether the memory of `value` is allocated while the program runs."""
        root = self.roots(value)
        return root in self.forced or not root.is_constant and not all(self.is_known(d) for d in root.shape)

    def plan(self, block: Block, elsewhere: Iterable[Value], *, typed: bool = False) -> None:
        """Lay out the arena for a program whose statements are `block`.

        Args:
            elsewhere: values that have a place already.
            typed: one arena for each element type, in which offsets count from its own beginning; `arena` is their sum.
        """
        lives = _Lives(self.roots)
        lives.walk(block)
        placed = set(elsewhere)
        requests: dict[str, list[Request]] = {}
        for call, k in lives.calls.items():
            types = {name: text.rstrip("*") for text, name in call.site.kernel.emitted.params}
            for name, nbytes in call.site.kernel.emitted.workspace:
                size = substitute(nbytes, call.site.sizes)
                if self.is_known(size):
                    requests.setdefault(types[name] if typed else "", []).append(Request((call, name), size, k, k))
        for value, begin in lives.first.items():
            if value not in placed and not value.is_constant and not self.on_heap(value):
                request = Request(value, nbytes_of(value.type), begin, lives.last[value])
                requests.setdefault(value.dtype.name if typed else "", []).append(request)
        for name, wanted in requests.items():
            plan = plan_memory(wanted)
            self.offsets.update(plan.offsets)
            self.arenas[name] = plan.nbytes
            self.arena = add(self.arena, plan.nbytes)


class _Lives:
    """First and last statement of every value, statements counted in the order of the text."""

    def __init__(self, roots: Roots):
        self.roots = roots
        self.first: dict[Value, int] = {}
        self.last: dict[Value, int] = {}
        self.calls: dict[Call, int] = {}
        self.now = 0

    def walk(self, block: Block) -> None:
        for s in block:
            if isinstance(s, Call):
                self.calls[s] = self.now
            for value in touched(s):
                self._touch(value)
            if isinstance(s, Branch):
                self.now += 1
                self.walk(s.then)
                self.walk(s.otherwise)
            elif isinstance(s, Repeat):
                begun = self.now
                self.now += 1
                self.walk(s.body)
                for value in (s.proceed, s.index, *s.results):
                    self._touch(value)
                for value, first in self.first.items():  # what was there before is read again in every trip
                    if first <= begun <= self.last[value]:
                        self.last[value] = self.now
            self.now += 1

    def _touch(self, value: Value) -> None:
        root = self.roots(value)
        self.first.setdefault(root, self.now)
        self.last[root] = self.now


def touched(s: Any) -> Iterator[Value]:
    """The values that a statement itself reads or writes, those of its blocks apart."""
    if isinstance(s, Call):
        yield from s.site.outputs.values()
        yield from s.site.inputs.values()
    elif isinstance(s, ReadSize | Require | Own | Deliver):
        yield s.value
    elif isinstance(s, Branch):
        yield s.condition
    elif isinstance(s, Repeat):
        yield from (s.trips, s.go, s.index, *s.results)
    elif isinstance(s, Move):
        yield from (s.source, s.target)
    elif isinstance(s, Grow):
        yield s.stack
