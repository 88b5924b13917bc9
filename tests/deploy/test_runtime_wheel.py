"""`tensorlang-runtime`: built without the network from the sources of `tensorlang.runtime`, and run with numpy alone."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import tensorlang as tl
from tests.e2e import models

ROOT = Path(__file__).resolve().parents[2]
FEEDS = {"x": np.random.default_rng(0).standard_normal((5, 16), dtype=np.float32)}
PROGRAM = """
import sys
sys.path[:0] = [{packages!r}, {numpy!r}]
import numpy as np
import tensorlang_runtime as tr
for path in sys.argv[1:]:
    exe = tr.load(path)
    probs = exe.run({{"x": np.load("x.npy")}})["probs"]
    np.testing.assert_array_equal(probs, np.load("probs.npy"))
try:
    tr.load("damaged.tl")
except tr.errors.ArtifactError as error:
    print(error)
ours = [name for name in sys.modules if name.split(".")[0] in ("tensorlang", "numba", "llvmlite", "sympy", "onnx", "islpy")]
assert not ours, ours
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("setuptools")
    pytest.importorskip("pip")
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT / "packaging", folder / "packaging")
    (folder / "tensorlang").symlink_to(ROOT / "tensorlang")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps", "--no-index"]
    done = subprocess.run(
        [*command, "--wheel-dir", str(folder), str(folder / "packaging" / "runtime")],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.whl"))


def test_it_holds_the_same_sources_under_its_own_name(wheel: Path) -> None:
    assert wheel.name.startswith(f"tensorlang_runtime-{tl.__version__}-py3-none-any")
    with zipfile.ZipFile(wheel) as archive:
        names = {n.split("/")[1] for n in archive.namelist() if n.startswith("tensorlang_runtime/")}
        assert {"__init__.py", "executable.py", "pool.py", "errors.py", "config.py", "load.py"} <= names
        for name in names:
            text = archive.read(f"tensorlang_runtime/{name}").decode()
            assert "from tensorlang." not in text and "import tensorlang\n" not in text, name


def test_it_runs_an_artifact_and_a_library_with_numpy_alone(wheel: Path, tmp_path: Path) -> None:
    packages, numpy = tmp_path / "packages", tmp_path / "numpy_alone"
    with zipfile.ZipFile(wheel) as archive:  # what installing a pure wheel is
        archive.extractall(packages)
    numpy.mkdir()
    home = Path(np.__file__).parent
    for part in (home, home.with_name("numpy.libs")):
        if part.exists():
            (numpy / part.name).symlink_to(part)
    exe = tl.compile(models.perceptron())
    exe.save(tmp_path / "m.tl")
    exe.export_library(tmp_path / "libm.so")
    (tmp_path / "damaged.tl").write_bytes((tmp_path / "m.tl").read_bytes()[:-100])
    np.save(tmp_path / "x.npy", FEEDS["x"])
    np.save(tmp_path / "probs.npy", exe.run(FEEDS)["probs"])
    program = PROGRAM.format(packages=str(packages), numpy=str(numpy))
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, "m.tl", "libm.so"], cwd=tmp_path, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "damaged.tl" in done.stdout
