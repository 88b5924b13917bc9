"""`import tensorlang` is cheap, and so is starting the command line: heavy libraries load when first needed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {"numba", "llvmlite", "sympy", "islpy", "onnx", "numpy", "onnxruntime", "typer", "rich"}
PROBE = """
import json, sys, time
start = time.process_time()
import tensorlang
seconds = time.process_time() - start
print(json.dumps({"seconds": seconds, "loaded": sorted({name.partition(".")[0] for name in sys.modules})}))
"""


def _fresh(code: str, *extra: str) -> dict:
    done = subprocess.run([sys.executable, "-c", code, *extra], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_import_costs_under_300_ms_of_cpu_time():
    assert min(_fresh(PROBE)["seconds"] for _ in range(3)) < 0.3


def test_import_loads_no_heavy_library():
    assert HEAVY.isdisjoint(_fresh(PROBE)["loaded"])


def test_the_probe_sees_heavy_libraries_when_they_are_loaded():
    assert "numpy" in _fresh(PROBE.replace("import tensorlang", "import tensorlang, numpy"))["loaded"]


@pytest.mark.parametrize("args", [["--version"], ["--help"]])
def test_command_line_starts_under_half_a_second_of_cpu_time(args):
    code = f"""
import contextlib, io, json, sys, time
start = time.process_time()
sys.argv = ["tensorlang", *{args!r}]
from tensorlang.cli import main
with contextlib.redirect_stdout(io.StringIO()) as out:
    try:
        main()
    except SystemExit as stop:
        code = stop.code
seconds = time.process_time() - start
print(json.dumps({{"seconds": seconds, "code": code or 0, "out": out.getvalue(), "loaded": sorted(sys.modules)}}))
"""
    runs = [_fresh(code) for _ in range(3)]
    assert runs[0]["code"] == 0 and runs[0]["out"]
    assert {"numba", "llvmlite", "sympy", "onnx", "numpy"}.isdisjoint(runs[0]["loaded"])
    assert min(run["seconds"] for run in runs) < 0.5
