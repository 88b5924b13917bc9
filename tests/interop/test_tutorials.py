"""The tutorial pages are true: the Python of each runs as one program, and their links lead somewhere."""

from __future__ import annotations

import re
import runpy

import pytest

from tests.test_readme import ROOT, blocks, program

FOLDER = ROOT / "docs" / "tutorials"
PAGES = sorted(p.name for p in FOLDER.glob("*.md"))


@pytest.mark.parametrize("page", PAGES)
def test_python_blocks_run_in_order(page, tmp_path):
    path = tmp_path / "page.py"
    path.write_text(program((FOLDER / page).read_text()))
    runpy.run_path(str(path))


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", (FOLDER / page).read_text()) if "://" not in link]
    assert [link for link in links if not (FOLDER / link).exists()] == []


def test_each_page_is_listed_and_shows_both_styles():
    listed = re.findall(r"\]\(([\w-]+\.md)\)", (FOLDER / "README.md").read_text())
    assert sorted([*listed, "README.md"]) == PAGES
    for page in listed:
        text = (FOLDER / page).read_text()
        assert len(blocks(text, "python")) >= 2 and "tensorlang.interop.tvm" in text
