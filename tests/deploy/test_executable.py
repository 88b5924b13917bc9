"""Programs: `model in.npy ... out.npy ...`, in an empty environment."""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import tensorlang as tl
from tensorlang.errors import ArtifactError, BuildError
from tensorlang.runtime.executable import Executable
from tests.deploy.libraries import MODELS, parsed
from tests.e2e import models

X = np.random.default_rng(0).standard_normal((5, 16), dtype=np.float32)


def call(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, env={}, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def perceptron() -> Executable:
    return tl.compile(models.perceptron())


@pytest.fixture(scope="module")
def program(perceptron: Executable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("program")
    written = perceptron.export_library(folder / "mlp", form="exe")
    assert written == [folder / "mlp"]
    return written[0]


def test_it_computes_what_python_computes(perceptron: Executable, program: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    done = call(tmp_path, str(program), "x.npy", "p.npy", "h.npy")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    wanted = perceptron.run({"x": X})
    np.testing.assert_array_equal(np.load(tmp_path / "p.npy"), wanted["probs"])
    np.testing.assert_array_equal(np.load(tmp_path / "h.npy"), wanted["hidden"])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["h.npy", "p.npy", "x.npy"]


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_of_the_format(program: Path, tmp_path: Path, version: tuple[int, int]) -> None:
    with (tmp_path / "x.npy").open("wb") as file:
        np.lib.format.write_array(file, X, version=version)
    assert call(tmp_path, str(program), "x.npy", "p.npy", "h.npy").returncode == 0
    assert np.load(tmp_path / "p.npy").shape == (5, 16)


@pytest.mark.parametrize("name", MODELS)
def test_control_flow_and_results_of_unknown_size(name: str, tmp_path: Path) -> None:
    text, feeds = MODELS[name]
    exe = tl.compile(parsed(text))
    exe.export_library(tmp_path / "m")
    for feed in feeds:
        files = []
        for tensor in (*exe.inputs, *exe.outputs):
            files.append(f"{tensor.name}.npy")
            if tensor.name in feed:
                np.save(tmp_path / files[-1], feed[tensor.name])
        done = call(tmp_path, "./m", *files)
        assert done.returncode == 0, done.stderr
        for output, value in exe.run(feed).items():
            got = np.load(tmp_path / f"{output}.npy")
            assert got.dtype == value.dtype
            np.testing.assert_array_equal(got, value)


def saved(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


BAD = {
    "is no .npy file": b"x" * 100,
    "is no .npy": b"",
    "is cut short": saved(X)[:-1],
    "cut short": saved(X)[:40],
    "another dtype": saved(X.astype(np.float64)),
    "another number of dimensions": saved(X[0]),
    "number of dimensions": saved(X[None]),
    "row-major": saved(np.asfortranarray(X)),
    "dimension 1 must be 16": saved(X[:, :8]),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_inputs_are_refused(program: Path, tmp_path: Path, message: str) -> None:
    (tmp_path / "x.npy").write_bytes(BAD[message])
    done = call(tmp_path, str(program), "x.npy", "p.npy", "h.npy")
    assert done.returncode == 1 and (message in done.stderr or "cannot be opened" in done.stderr), done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["x.npy"]


def test_bad_usage(program: Path, tmp_path: Path) -> None:
    done = call(tmp_path, str(program), "x.npy")
    assert done.returncode == 2 and done.stderr.startswith("usage: mlp x.npy probs.npy hidden.npy\n  x: float32[batch, 16]\n")
    done = call(tmp_path, str(program), "x.npy", "p.npy", "h.npy")
    assert done.returncode == 1 and done.stderr == "x.npy: cannot be opened\n"
    np.save(tmp_path / "x.npy", X)
    done = call(tmp_path, str(program), "x.npy", "nowhere/p.npy", "h.npy")
    assert done.returncode == 1 and done.stderr == "nowhere/p.npy: cannot be written\n"


def test_what_has_no_executable(perceptron: Executable, tmp_path: Path) -> None:
    exe = perceptron
    with pytest.raises(BuildError, match="x86_64, aarch64"):
        exe.export_library(tmp_path / "m", target="riscv64-linux-gnu")
    with pytest.raises(ArtifactError, match="inside"):
        exe.export_library(tmp_path / "m", weights="beside")
    assert not list(tmp_path.iterdir())


@pytest.mark.deploy
@pytest.mark.skipif(shutil.which("qemu-aarch64") is None, reason="qemu-aarch64 is missing")
@pytest.mark.skipif(not Path("/usr/aarch64-linux-gnu/lib").exists(), reason="libc for aarch64 is missing")
def test_a_program_for_aarch64(perceptron: Executable, tmp_path: Path) -> None:
    exe = perceptron
    exe.export_library(tmp_path / "m", target="aarch64-linux-gnu")
    np.save(tmp_path / "x.npy", X)
    done = call(tmp_path, str(shutil.which("qemu-aarch64")), "-L", "/usr/aarch64-linux-gnu", "./m", "x.npy", "p.npy", "h.npy")
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(tmp_path / "p.npy"), exe.run({"x": X})["probs"], rtol=2e-4, atol=2e-6)
