"""The reference pages are true: their Python runs block by block, and what it prints is the text that follows it.

`pytest --update-golden` rewrites those texts, for review.
"""

from __future__ import annotations

import inspect
import io
import linecache
import re
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from tensorlang import te
from tensorlang.schedule.handles import Stage

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = ["language.md", "schedules.md", "c.md", "targets.md", "cuda.md", "deploy.md"]
BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```\n(?:\n?^```text\n(?P<text>.*?)^```\n)?", re.MULTILINE | re.DOTALL)


def executed(page: str, name: str) -> str:
    """`page` with every output as it came out, its Python blocks having run in order in one namespace."""
    names: dict[str, Any] = {"__name__": name}

    def run(found: re.Match[str]) -> str:
        line = page.count("\n", 0, found.start("code"))
        out = io.StringIO()
        with redirect_stdout(out):
            source = "\n" * line + found["code"]
            linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)  # te.hybrid reads sources
            exec(compile(source, name, "exec"), names)
        text = re.sub(rf"\b{re.escape(name)}:\d+", f"{name}:...", out.getvalue().rstrip())  # no line numbers of the page
        printed = "\n".join(line.rstrip() for line in text.splitlines())
        shown = f"\n```text\n{printed}\n```\n" if printed else ""
        return f"```python\n{found['code']}```\n{shown}"

    return BLOCK.sub(run, page)


@pytest.mark.parametrize("name", PAGES)
def test_programs_print_what_the_page_says(name, request):
    path = DOCS / name
    page = path.read_text()
    true = executed(page, name)
    if request.config.getoption("--update-golden"):
        path.write_text(true)
    else:
        assert true == page, f"docs/{name} shows an output that is not what its program prints: pytest --update-golden"


def test_a_wrong_output_would_be_noticed():
    page = "```python\nprint(1 + 1)\n```\n\n```text\n3\n```\n"
    assert executed(page, "page") == page.replace("3", "2")


def public(cls: type) -> list[str]:
    return [n for n, v in inspect.getmembers(cls) if not n.startswith("_") and inspect.isfunction(v)]


@pytest.mark.parametrize("owner", [te.Schedule, Stage], ids=["Schedule", "Stage"])
def test_every_primitive_is_described(owner):
    page = (DOCS / "schedules.md").read_text()
    assert [n for n in public(owner) if f"`{n}" not in page and f".{n}(" not in page] == []
    assert [n for n in public(owner) if not inspect.getdoc(getattr(owner, n))] == []


@pytest.mark.parametrize("primitive", [n for n in public(Stage) if n not in ("annotate", "unannotate")])
def test_the_docstring_of_a_primitive_says_when_it_is_legal_and_what_it_does(primitive):
    text = inspect.getdoc(getattr(Stage, primitive)) or ""
    assert "Legal" in text and "->" in text


def test_every_name_of_the_language_is_described():
    page = (DOCS / "language.md").read_text()
    assert [n for n in te.__all__ if not re.search(rf"\b{n}\b", page)] == []
