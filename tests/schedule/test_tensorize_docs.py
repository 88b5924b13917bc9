"""docs/tensorize.md is true: its Python runs as one program."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.test_readme import program

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tensorize.md"


def test_the_page_runs(tmp_path):
    path = tmp_path / "tensorize.py"
    path.write_text(program(PAGE.read_text()))
    done = subprocess.run(
        [sys.executable, path.name], cwd=tmp_path, capture_output=True, text=True, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stderr
    assert 'for j_i in range(16, tensor_intrin="my_dot4", tensor_fallback=True):' in done.stdout
    assert "its update" in done.stdout and "run as plain Python" in done.stdout
