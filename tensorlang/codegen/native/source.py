"""An emitted module as text: its functions, and a content hash of each that ignores comments, layout and names.

A function's digest covers its code, the module's prelude and, through their digests, the functions it calls, but not
its own name: equal kernels have equal digests wherever they stand, and share machine code.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from tensorlang.codegen.intrinsics.functions import IMPLICIT, Parameter, parse_signature
from tensorlang.errors import InternalError

_DECORATOR = re.compile(
    r'@(instruction|chunk|kernel|program)\(\s*"([^"]*)"\s*'
    r'(?:,\s*requires="([^"]*)")?(?:,\s*means="[^"]*")?\s*\)\s*(?:#.*)?$'
)
_DEFINITION = re.compile(r"def\s+(\w+)\s*\(")
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*")
_COMMENT = re.compile(r"\s*#.*$")


@dataclass(frozen=True)
class SourceFunction:
    """One decorated function of an emitted module.

    Attributes:
        name: as written; the C symbol of kernels and programs.
        kind: "instruction", "chunk", "kernel" or "program".
        parameters: declared (type text, name) pairs, without the implicit ones.
        digest: content hash, 32 hex digits.
        callees: names of the emitted functions it mentions, in order of definition.
        line: 1-based line of its `def`.
        size: characters of its code, a measure of the time to compile it.
        requires: CPU features that the target has to have.
    """

    name: str
    kind: str
    parameters: tuple[Parameter, ...]
    digest: str
    callees: tuple[str, ...]
    line: int
    size: int
    requires: tuple[str, ...] = ()

    @property
    def symbol(self) -> str:
        """The internal symbol of its code."""
        return f"tl.{self.digest}"

    @property
    def implicit(self) -> tuple[str, ...]:
        """The parameters before the declared ones."""
        return IMPLICIT[self.kind]


def _without_comments(line: str) -> str:
    if line.lstrip().startswith("#"):
        return ""
    # a line with quotes may hold '#' inside a string: keep it whole, at worst two digests differ needlessly
    return line.rstrip() if '"' in line or "'" in line else _COMMENT.sub("", line)


_STARTS = ("@instruction", "@chunk", "@kernel", "@program")


def prelude_of(source: str) -> str:
    """The lines before the first function: imports."""
    lines = source.split("\n")
    return "\n".join(lines[: next((k for k, line in enumerate(lines) if line.startswith(_STARTS)), len(lines))])


def split_functions(source: str) -> tuple[SourceFunction, ...]:
    """The decorated functions of `source`, in order; each may mention only those before it."""
    lines = source.split("\n")
    starts = [k for k, line in enumerate(lines) if line.startswith(_STARTS)]
    prelude = "\n".join(filter(None, map(_without_comments, lines[: starts[0] if starts else len(lines)])))
    found: dict[str, SourceFunction] = {}
    replaced: dict[str, str] = {}
    for start, stop in zip(starts, [*starts[1:], len(lines)], strict=True):
        decorator = _DECORATOR.match(lines[start])
        definition = _DEFINITION.match(lines[start + 1]) if start + 1 < len(lines) else None
        if decorator is None or definition is None:
            raise InternalError(f"emitted source, line {start + 1}: a decorator with one string, then a def, expected")
        kind, signature, requires = decorator.groups(default="")
        name = definition.group(1)
        if name in found:
            raise InternalError(f"emitted source, line {start + 2}: function {name!r} is defined twice")
        callees: dict[str, None] = {}

        def stand_in(match: re.Match[str], own: str = name, mentioned: dict[str, None] = callees) -> str:
            word = match[0]
            if word in replaced:
                mentioned[word] = None
                return replaced[word]
            return "self" if word == own else word

        text = "\n".join(filter(None, map(_without_comments, lines[start + 1 : stop])))
        normal = _IDENTIFIER.sub(stand_in, text)
        digest = hashlib.sha256(f"{prelude}\0{kind}\0{signature}\0{normal}".encode()).hexdigest()[:32]
        parameters = parse_signature(signature)
        found[name] = SourceFunction(
            name, kind, parameters, digest, tuple(callees), start + 2, len(normal), tuple(requires.split())
        )
        replaced[name] = f"_{digest}"
    return tuple(found.values())
