"""A loop nest in colours: `s.show()` in a terminal, `Schedule._repr_html_` in a notebook.

Colours tell kinds of loops, names of stages and buffers; the loops that the last step made or changed carry a line of
carets with the step. The words are those of `print(s)`: nothing is shown that is not in the text.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import IO

from tensorlang.ir.dtype import SCALARS
from tensorlang.ir.printer import format_func
from tensorlang.ir.stmt import Allocate, Block, For, PrimFunc, Stmt
from tensorlang.ir.visitor import walk_stmt
from tensorlang.schedule.trace import Trace

# what a word is -> (rich style, colour in HTML)
STYLES = {
    "keyword": ("bright_black", "#6b7280"),
    "serial": ("default", "#1f2937"),
    "parallel": ("bold green", "#15803d"),
    "vectorized": ("bold magenta", "#a21caf"),
    "unrolled": ("bold yellow", "#b45309"),
    "bound": ("bold blue", "#1d4ed8"),
    "stage": ("bold cyan", "#0e7490"),
    "buffer": ("blue", "#1d4ed8"),
    "type": ("bright_black", "#6b7280"),
    "number": ("default", "#7c3aed"),
    "iter": ("green", "#4d7c0f"),
    "last": ("bold red", "#dc2626"),
    "": ("default", "#1f2937"),
}
_LOOPS = {"range": "serial", "parallel": "parallel", "vectorized": "vectorized", "unrolled": "unrolled", "bind": "bound"}
_KEYWORDS = {"for", "in", "with", "def", "if", "else", "block", "init", "alloc", "prim_func", "where", "scope"}
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[A-Za-z_]\w*|\d[\w.]*|\s+|.')

Piece = tuple[str, str]  # text and what it is


def pieces(func: PrimFunc, trace: Trace | None = None) -> Iterator[list[Piece]]:
    """The lines of `func`, each cut into pieces with what they are; the last step of `trace` is marked."""
    buffers = {b.name for b in func.buffers}
    buffers |= {s.buffer.name for s in walk_stmt(func.body) if isinstance(s, Allocate)}
    for line in format_func(func, last_step(func, trace)).splitlines():
        if line.lstrip().startswith("#"):
            yield [(line, "last")]
        else:
            yield list(_words(line, buffers))


def last_step(func: PrimFunc, trace: Trace | None) -> dict[Stmt, str]:
    """The loops that the last step made, else those it was given, else its stage: with the step as the remark of the first."""
    if trace is None or not len(trace):
        return {}
    step, made = trace.last
    found: list[Stmt] = []
    for handles in (made, [a for a in step.args if hasattr(a, "var")]):
        variables = {h.var for h in handles}
        found = found or [s for s in walk_stmt(func.body) if isinstance(s, For) and s.var in variables]
    found = found or [s for s in walk_stmt(func.body) if isinstance(s, Block) and s.name == step.stage]
    return {s: str(step) if n == 0 else "" for n, s in enumerate(found)}


def _words(line: str, buffers: set[str]) -> Iterator[Piece]:
    tokens = _TOKEN.findall(line)
    for n, token in enumerate(tokens):
        before, after = tokens[n - 1] if n else "", tokens[n + 1] if n + 1 < len(tokens) else ""
        if token.startswith('"'):
            yield token, "stage" if before == "(" and n > 1 and tokens[n - 2] == "block" else "number"
        elif token in _LOOPS and after == "(":
            yield token, _LOOPS[token]
        elif token in ("spatial", "reduce") and after == "(":
            yield token, "iter"
        elif token in _KEYWORDS:
            yield token, "keyword"
        elif re.sub(r"_\d+$", "", token) in buffers or token in buffers:
            yield token, "buffer"
        elif token in SCALARS:
            yield token, "type"
        else:
            yield token, "number" if token[0].isdigit() else ""


def show(func: PrimFunc, trace: Trace | None = None, file: IO[str] | None = None) -> None:
    """Write `func` to a terminal in colours; to anything else (a file, a pipe) as plain text."""
    from rich.console import Console  # 80 ms, which a program that shows nothing does not pay
    from rich.text import Text

    console = Console(file=file, soft_wrap=True)
    for line in pieces(func, trace):
        text = Text()
        for word, what in line:
            text.append(word, STYLES[what][0])
        console.print(text)


def as_html(func: PrimFunc, trace: Trace | None = None) -> str:
    """`func` as one HTML element that needs nothing else: the loop nest, and below it, folded, the steps so far."""
    body = "\n".join("".join(_span(word, what) for word, what in line) for line in pieces(func, trace))
    box = "background:#f9fafb;color:#1f2937;border:1px solid #e5e7eb;border-radius:4px;padding:8px;overflow-x:auto"
    parts = [f'<pre style="{box}">{body}</pre>']
    if trace is not None and len(trace):
        steps = "\n".join(html.escape(line) for line in str(trace).splitlines())
        parts.append(f'<details><summary>{len(trace)} step(s)</summary><pre style="{box}">{steps}</pre></details>')
    return f'<div class="tensorlang-schedule">{"".join(parts)}</div>'


def _span(word: str, what: str) -> str:
    text = html.escape(word)
    if not what or what == "serial":
        return text
    weight = ";font-weight:bold" if "bold" in STYLES[what][0] else ""
    return f'<span style="color:{STYLES[what][1]}{weight}">{text}</span>'
