"""Sizes that depend on the model's dimensions, as data: an int, a dimension's name, or `[operation, operand...]`.

    7 | "batch" | ["mul", "batch", 64] | ["floordiv", ["add", "height", -1], 2]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tensorlang.errors import ArtifactError

Size = Any  # int | str | list[Size]; JSON knows no recursive types either

_OPERATIONS: dict[str, Callable[..., int]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "floordiv": lambda a, b: a // b,
    "floormod": lambda a, b: a % b,
    "min": min,
    "max": max,
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "and": lambda a, b: a and b,
    "or": lambda a, b: a or b,
    "not": lambda a: not a,
    "select": lambda condition, a, b: a if condition else b,
}
OPERATIONS = frozenset(_OPERATIONS)
_SYMBOLS = {"add": "+", "sub": "-", "mul": "*", "floordiv": "//", "floormod": "%"}


def evaluate(size: Size, dims: Mapping[str, int]) -> int:
    """The value of `size` where the dimensions have the values `dims`.

    Raises:
        ArtifactError: it is not a size expression, or divides by zero.
    """
    if isinstance(size, int):
        return size
    if isinstance(size, str):
        return dims[size]
    operation = _OPERATIONS.get(size[0]) if size else None
    if operation is None:
        raise ArtifactError(f"{size!r} is not a size expression")
    if size[0] == "select":  # only the chosen arm means anything
        return evaluate(size[2] if evaluate(size[1], dims) else size[3], dims)
    try:
        return operation(*(evaluate(a, dims) for a in size[1:]))
    except ZeroDivisionError:
        raise ArtifactError(f"the size {describe(size)} divides by zero") from None


def names(size: Size) -> Iterator[str]:
    """The dimensions that `size` mentions."""
    if isinstance(size, str):
        yield size
    elif not isinstance(size, int):
        for a in size[1:]:
            yield from names(a)


def describe(size: Size) -> str:
    """`size` as text for people."""
    if isinstance(size, int | str):
        return str(size)
    operands = [describe(a) for a in size[1:]]
    if size[0] in _SYMBOLS:
        return "(" + f" {_SYMBOLS[size[0]]} ".join(operands) + ")"
    return f"{size[0]}({', '.join(operands)})"
