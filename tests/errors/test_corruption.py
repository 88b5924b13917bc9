"""Damaged models give typed errors or correct runs. `make fuzz` tries FUZZ_EXAMPLES of them."""

from __future__ import annotations

import os
import subprocess
import sys

COUNT = int(os.environ.get("FUZZ_EXAMPLES", "40"))


def test_damaged_models():
    command = [sys.executable, "-m", "tests.errors.corruption", "1", str(COUNT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120 + 12 * COUNT, check=False)
    last = next((line for line in reversed(done.stderr.splitlines()) if line.startswith("at ")), done.stderr[-2000:])
    assert done.returncode == 0, f"ended with {done.returncode} {last}\n{done.stdout}\n{done.stderr[-1500:]}"
