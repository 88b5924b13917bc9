"""The README is true: its Python runs as one program, its commands exit with 0, its links lead somewhere."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.models import save_classifier

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def blocks(text: str, language: str) -> list[tuple[int, str]]:
    """(line number of its first line, content) of each fenced block in `language`."""
    found = re.finditer(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [(text.count("\n", 0, match.start(1)) + 1, match[1]) for match in found]


def program(text: str) -> str:
    """All Python blocks as one module whose line numbers are the README's, so that a traceback points into it."""
    lines = [""] * (text.count("\n") + 1)
    for start, block in blocks(text, "python"):
        content = block.splitlines()
        lines[start - 1 : start - 1 + len(content)] = content
    return "\n".join(lines)


def commands(text: str) -> list[str]:
    """The lines of console blocks that begin with `$ tensorlang`."""
    lines = [line for _, block in blocks(text, "console") for line in block.splitlines()]
    return [line.removeprefix("$ ").partition("#")[0].strip() for line in lines if line.startswith("$ tensorlang")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("readme")
    save_classifier(folder / "model.onnx")
    return folder


def test_python_blocks_run_in_order(folder):
    path = folder / "readme.py"
    path.write_text(program(README))
    done = subprocess.run([sys.executable, path.name], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", commands(README))
def test_command_works(command, folder):
    arguments = shlex.split(command)[1:]
    done = subprocess.run(
        [sys.executable, "-m", "tensorlang.cli", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "120"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^make ([\w-]+)", README, re.MULTILINE))
    assert {"demo", "test"} <= targets
    assert [t for t in targets if not re.search(rf"^{t}:", makefile, re.MULTILINE)] == []


@pytest.mark.parametrize("page", ["README.md", *(str(p.relative_to(ROOT)) for p in (ROOT / "docs").glob("*.md"))])
def test_links_lead_somewhere(page):
    path = ROOT / page
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", path.read_text()) if "://" not in link]
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_the_extraction_finds_what_there_is():
    console = "```console\n$ tensorlang doctor  # why\nmake it\n```\n"
    text = f"a\n```python\nx = 1\n```\nb\n{console}```python\nassert x == 1\n```\n"
    assert program(text).rstrip().splitlines() == ["", "", "x = 1", *[""] * 7, "assert x == 1"]
    assert commands(text) == ["tensorlang doctor"]
    assert len(blocks(README, "python")) >= 4 and len(commands(README)) >= 5
