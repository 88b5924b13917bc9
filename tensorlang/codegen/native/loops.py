"""What the front end asks of a function's syntax tree before it translates it: loops over ranges, which of them to unroll, and
which names have one value wherever they are read.

Loops over `unrolled(n)`, and constant-trip loops over a local array, are to be unrolled in full: only then are an array's
elements at constant places, and become registers. LLVM's own limit would stop at about eight accumulators. An array larger than
all vector registers stays in memory, and so do the loops over it: unrolled, every element would be spilled and reloaded by
itself, where a loop keeps what one iteration needs in registers and what all iterations share too. Loops around the tile
(the steps of a sum) are unrolled only where they are few: LLVM keeps what neighbouring steps read in common, and of many steps
that is more than there are registers.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tensorlang.codegen.intrinsics.functions import unrolled

UNROLLED = unrolled.__name__  # a range whose loop the schedule wants unrolled
_RANGES = ("range", UNROLLED)
MAX_UNROLLED = 1024  # statements that one nest may become
MAX_STEPS = 96  # statements that the steps of a sum may become together
REGISTER_BYTES = 32 * 64  # the largest vector register file there is


@dataclass(frozen=True)
class LoopShape:
    """A loop over `range(start, stop, step)`; `counted` where its variable can be counted up to the stop itself: with another
    step than 1 it might pass over the largest integer, unless the bounds are known."""

    start: ast.expr
    stop: ast.expr
    step: int
    counted: bool

    @classmethod
    def of(cls, node: ast.For, called: Callable[[str], Any]) -> LoopShape | None:
        """None where the loop is over something else, or by a step that is no literal.

        Args:
            called: the function that a name means.
        """
        call = node.iter
        if node.orelse or not isinstance(node.target, ast.Name) or not isinstance(call, ast.Call) or call.keywords:
            return None
        if not isinstance(call.func, ast.Name) or called(call.func.id) not in (range, unrolled) or not 1 <= len(call.args) <= 3:
            return None
        if len(call.args) == 1:
            return cls(ast.Constant(0), call.args[0], 1, True)
        start, stop = call.args[:2]
        step = _literal(call.args[2]) if len(call.args) == 3 else 1
        if not step:
            return None
        constant = all(isinstance(a, ast.Constant) for a in call.args)
        return cls(start, stop, step, step == 1 or (step > 0 and constant))


def unrolled_loops(function: ast.FunctionDef) -> set[ast.For]:
    """The loops to be unrolled in full."""
    arrays = _local_arrays(function)
    chosen: set[ast.For] = set()
    for statement in function.body:
        _look(statement, arrays, chosen)
    return chosen


@dataclass
class _Seen:
    """What stands in a part of a function: local arrays by the names in their indices, whether there are tests, and how many
    statements it is after unrolling (more than the limit where a loop's trip count is not a literal)."""

    mentions: bool = False
    tested: bool = False
    size: int = 1
    accesses: list[tuple[str, set[str]]] = field(default_factory=list)

    def add(self, other: _Seen) -> None:
        self.mentions |= other.mentions
        self.tested |= other.tested
        self.accesses += other.accesses


def _look(statement: ast.stmt, arrays: dict[str, int], chosen: set[ast.For]) -> _Seen:
    seen = _Seen()
    if not isinstance(statement, (ast.For, ast.If, ast.While)):
        _look_at(statement, arrays, seen)
        return seen
    parts = [_look(s, arrays, chosen) for s in (*statement.body, *statement.orelse)]
    for part in parts:
        seen.add(part)
    size = sum(part.size for part in parts)
    if isinstance(statement, ast.For):
        _look_at(statement.iter, arrays, seen)
        trips = _trip_count(statement)
        seen.size = MAX_UNROLLED + 1 if trips is None else trips * size
        if _unrolls(statement, arrays, seen):
            chosen.add(statement)
    else:
        _look_at(statement.test, arrays, seen)
        seen.tested |= isinstance(statement, ast.If)
        seen.size = 1 + size if isinstance(statement, ast.If) else MAX_UNROLLED + 1
    return seen


def _look_at(part: ast.AST, arrays: dict[str, int], seen: _Seen) -> None:
    if not arrays:
        return
    for node in ast.walk(part):
        if isinstance(node, ast.Name) and node.id in arrays:
            seen.mentions = True
        elif isinstance(node, (ast.Subscript, ast.Call)):
            for name, index in _accesses(node):
                if name in arrays:
                    seen.accesses.append((name, {n.id for n in ast.walk(index) if isinstance(n, ast.Name)}))


def _unrolls(node: ast.For, arrays: dict[str, int], seen: _Seen) -> bool:
    if isinstance(node.iter, ast.Call) and isinstance(node.iter.func, ast.Name) and node.iter.func.id == UNROLLED:
        return seen.size <= MAX_UNROLLED
    # A tile with tests inside is the rare one at the edge: it stays loops in memory, small and quick to compile.
    if not seen.mentions or seen.tested:
        return False
    variable = node.target.id if isinstance(node.target, ast.Name) else ""
    indexed = {name for name, names in seen.accesses if variable in names}
    if not indexed:  # steps of a sum: a few are worth it, for what they read in common; many would spill that
        return seen.size <= MAX_STEPS
    in_memory = all(arrays[name] > REGISTER_BYTES for name in indexed)
    return seen.size <= MAX_UNROLLED and not in_memory


def _local_arrays(function: ast.FunctionDef) -> dict[str, int]:
    """The bytes of each local array, 0 where they are no literal."""
    return {
        target.id: _array_bytes(node.value)
        for node in _statements(function.body)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)
        if isinstance(node.value.func, ast.Name) and node.value.func.id == "local_array"
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def _statements(body: list[ast.stmt]) -> list[ast.stmt]:
    """All statements in `body`, inner ones too."""
    found = []
    for statement in body:
        found.append(statement)
        if isinstance(statement, (ast.For, ast.If, ast.While)):
            found += _statements(statement.body) + _statements(statement.orelse)
    return found


def _array_bytes(call: ast.Call) -> int:
    """Of `local_array(f32, 16)`: 64."""
    element, count = call.args
    bits = re.search(r"\d+$", element.id) if isinstance(element, ast.Name) else None
    return (_literal(count) or 0) * (int(bits[0]) if bits else 8) // 8


def _accesses(node: ast.Subscript | ast.Call) -> list[tuple[str, ast.expr]]:
    """The array and index of `a[i]`, `vload(a, i, ...)` and `vstore(a, i, ...)`."""
    if isinstance(node, ast.Subscript):
        return [(node.value.id, node.slice)] if isinstance(node.value, ast.Name) else []
    if isinstance(node.func, ast.Name) and len(node.args) >= 2:
        array, index = node.args[:2]
        return [(array.id, index)] if isinstance(array, ast.Name) else []
    return []


def _trip_count(node: ast.For) -> int | None:
    """Iterations of a loop over a range of literals."""
    call = node.iter
    if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in _RANGES:
        values = [_literal(argument) for argument in call.args]
        if values and all(value is not None for value in values):
            return len(range(*(v for v in values if v is not None)))
    return None


def _literal(node: ast.expr) -> int | None:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = _literal(node.operand)
        return None if inner is None else -inner
    return node.value if isinstance(node, ast.Constant) and type(node.value) is int else None


Path = tuple[tuple[int, int], ...]  # the branches (number, part) and loops (number, -1) around a place, outermost first


def fixed_names(function: ast.FunctionDef) -> set[str]:
    """The names that have, wherever they are read, the value of the last assignment above: it is on every way there, and no
    other is. They need no memory; of loop variables that is the rule."""
    uses = _Uses()
    for argument in function.args.args:
        uses.store(argument.arg, ())
    uses.block(function.body, ())
    return {name for name, stores in uses.stores.items() if all(_reaches(stores, load) for load in uses.loads.get(name, ()))}


def _reaches(stores: list[tuple[int, Path]], load: tuple[int, Path]) -> bool:
    """Whether the last assignment before a read is the only one that it may see."""
    time, place = load
    last = None
    for when, path in stores:
        if when > time:
            break
        last = path
    if last is None or place[: len(last)] != last:
        return False
    loops = [around for around in place[len(last) :] if around[1] < 0]  # an assignment below may reach it by way of these
    return not any(around in path for around in loops for _, path in stores)


class _Uses:
    """Where names are assigned and read: the how-manieth use, and the path."""

    def __init__(self) -> None:
        self.stores: dict[str, list[tuple[int, Path]]] = {}
        self.loads: dict[str, list[tuple[int, Path]]] = {}
        self.time = self.number = 0

    def store(self, name: str, path: Path) -> None:
        self.time += 1
        self.stores.setdefault(name, []).append((self.time, path))

    def read(self, expression: ast.AST, path: Path) -> None:
        self.time += 1
        for node in ast.walk(expression):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                self.loads.setdefault(node.id, []).append((self.time, path))

    def block(self, body: list[ast.stmt], path: Path) -> None:
        for statement in body:
            self.statement(statement, path)

    def statement(self, node: ast.stmt, path: Path) -> None:
        if isinstance(node, ast.For):
            self.read(node.iter, path)
            self.number += 1
            inside = (*path, (self.number, -1))
            if isinstance(node.target, ast.Name):
                self.store(node.target.id, inside)
            self.block(node.body, inside)
        elif isinstance(node, ast.While):
            self.number += 1
            inside = (*path, (self.number, -1))
            self.read(node.test, inside)
            self.block(node.body, inside)
        elif isinstance(node, ast.If):
            self.read(node.test, path)
            self.number += 1
            number = self.number
            self.block(node.body, (*path, (number, 0)))
            self.block(node.orelse, (*path, (number, 1)))
        elif isinstance(node, (ast.Assign, ast.AugAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            self.read(node.value, path)
            for target in targets:
                if not isinstance(target, ast.Name):
                    self.read(target, path)
                    continue
                if isinstance(node, ast.AugAssign):
                    self.loads.setdefault(target.id, []).append((self.time, path))
                self.store(target.id, path)
        else:
            self.read(node, path)
