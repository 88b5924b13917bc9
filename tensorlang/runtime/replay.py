"""An emitted `main`, walked statement by statement, with every kernel call handed to a function: how programs with control
flow are profiled. Nothing is executed but kernels: `main` is read as data, and may hold what `graph/program/emit.py` writes
alone.

    statement    name = e | name += e | table[n] = e | view(address, dtype)[0] = e | if | while | pass
                 kernel(ctx, e...) | check(e, status) | release(ctx, address)
    expression   name | number | table[n] | view(address, dtype)[0] | arithmetic, comparison, and | scratch(ctx, bytes)
                 | minimum(a, b)...
"""

from __future__ import annotations

import ast
import ctypes
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tensorlang.errors import ArtifactError
from tensorlang.runtime.artifact import aligned_bytes

# number of the call in the text, kernel's name, arguments, variables
Kernel = Callable[[int, str, Sequence[int], Mapping[str, int]], None]

_TYPES: dict[str, Any] = {
    f"{letter}{bits}": getattr(ctypes, f"c_{prefix}int{bits}")
    for letter, prefix in (("i", ""), ("u", "u"))
    for bits in (8, 16, 32, 64)
}
_OPERATORS: dict[type[ast.AST], Callable[..., int]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod, ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le,
    ast.Gt: operator.gt, ast.GtE: operator.ge, ast.USub: operator.neg, ast.Not: operator.not_, ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
}  # fmt: skip
_FUNCTIONS: dict[str, Callable[..., int]] = {
    "minimum": min, "maximum": max, "floordiv": operator.floordiv, "floormod": operator.mod,
    "floordiv_pos": operator.floordiv, "floormod_pos": operator.mod, "select": lambda c, a, b: a if c else b,
    "logical_and": lambda a, b: bool(a and b), "logical_or": lambda a, b: bool(a or b), "logical_not": operator.not_,
    "i64": int,
}  # fmt: skip
_RESERVED = frozenset(("check", "release", "scratch", "view", *_FUNCTIONS))


class Leaves(Exception):
    """`main` returned at once, with this status."""

    def __init__(self, status: int):
        super().__init__(status)
        self.status = status


class Replay:
    """One `main`.

    Args:
        source: the emitted module.

    Attributes:
        calls: the kernel of each call, in the order of the text.

    Raises:
        ArtifactError: there is no `main` in it.
    """

    def __init__(self, source: str):
        start = source.find("\ndef main(")
        if start < 0:
            raise ArtifactError("the emitted program has no main")
        self._body = ast.parse(source[start:]).body[0].body  # type: ignore[attr-defined]
        found = [node for statement in self._body for node in _in_order(statement)]
        self._numbers = {id(node): k for k, node in enumerate(found)}
        self.calls = [node.func.id for node in found]

    def run(self, variables: Mapping[str, Any], kernel: Kernel) -> None:
        """Walk it once.

        Args:
            variables: `main`'s parameters after the context: addresses, and tables of 64-bit words (ctypes arrays).
            kernel: does the calls.

        Raises:
            Leaves: a check failed.
            ArtifactError: it holds something that is not of the language above.
        """
        _Walk(self._numbers, dict(variables), kernel).block(self._body)


def _in_order(node: ast.AST) -> list[Any]:
    """The kernel calls in a statement, in the order of the text."""
    own = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id not in _RESERVED
    found = [node] if own else []
    for child in ast.iter_child_nodes(node):
        found += _in_order(child)
    return found


class _Walk:
    def __init__(self, numbers: Mapping[int, int], variables: dict[str, Any], kernel: Kernel):
        self.numbers, self.variables, self.kernel = numbers, variables, kernel
        self.memory: dict[int, np.ndarray] = {}

    def block(self, body: Sequence[ast.stmt]) -> None:
        for s in body:
            if isinstance(s, ast.Assign) and len(s.targets) == 1:
                self.store(s.targets[0], self.value(s.value))
            elif isinstance(s, ast.AugAssign) and isinstance(s.target, ast.Name):
                change = _OPERATORS[type(s.op)](self.variables[s.target.id], self.value(s.value))
                self.variables[s.target.id] = change
            elif isinstance(s, ast.If):
                self.block(s.body if self.value(s.test) else s.orelse)
            elif isinstance(s, ast.While):
                while self.value(s.test):
                    self.block(s.body)
            elif isinstance(s, ast.Expr) and isinstance(s.value, ast.Call):
                self.value(s.value)
            elif not isinstance(s, ast.Pass):
                raise ArtifactError(f"line {s.lineno} of the program's main: {ast.unparse(s)} is not known here")

    def store(self, target: ast.expr, value: int) -> None:
        if isinstance(target, ast.Name):
            self.variables[target.id] = value
        elif isinstance(target, ast.Subscript):
            self.table(target.value)[self.value(target.slice)] = value
        else:
            raise ArtifactError(f"the program's main assigns to {ast.unparse(target)}")

    def table(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Name):
            return self.variables[node.id]
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "view":
            address, dtype = node.args
            if isinstance(dtype, ast.Name) and dtype.id in _TYPES:
                return ctypes.cast(self.value(address), ctypes.POINTER(_TYPES[dtype.id]))
        raise ArtifactError(f"the program's main reads {ast.unparse(node)}")

    def value(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name):
            return self.variables[node.id]
        if isinstance(node, ast.Subscript):
            return self.table(node.value)[self.value(node.slice)]
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            return _OPERATORS[type(node.op)](self.value(node.left), self.value(node.right))
        if isinstance(node, ast.UnaryOp) and type(node.op) in _OPERATORS:
            return _OPERATORS[type(node.op)](self.value(node.operand))
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            return _OPERATORS[type(node.ops[0])](self.value(node.left), self.value(node.comparators[0]))
        if isinstance(node, ast.BoolOp):
            values = map(self.value, node.values)
            return all(values) if isinstance(node.op, ast.And) else any(values)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            return self.call(node, node.func.id)
        raise ArtifactError(f"the program's main computes {ast.unparse(node)}, which is not known here")

    def call(self, node: ast.Call, name: str) -> Any:
        if name in _FUNCTIONS:
            return _FUNCTIONS[name](*map(self.value, node.args))
        if name == "check":
            if not self.value(node.args[0]):
                raise Leaves(self.value(node.args[1]))
            return None
        arguments = [self.value(a) for a in node.args[1:]]  # after the context
        if name == "scratch":
            memory = aligned_bytes(max(64, arguments[0]))
            self.memory[memory.ctypes.data] = memory
            return memory.ctypes.data
        if name == "release":
            self.memory.pop(arguments[0], None)
            return None
        self.kernel(self.numbers[id(node)], name, arguments, self.variables)
        return None
