"""Libraries for other processors, in C programs for those, under emulation: they compute what Python does."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import tensorlang as tl
from tensorlang.runtime.executable import Executable
from tests.deploy.libraries import build_driver, drive
from tests.e2e import models

pytestmark = pytest.mark.deploy

# target -> C compiler, emulator and its arguments, form of library
MACHINES = {
    "aarch64-linux-gnu": ("aarch64-linux-gnu", ("qemu-aarch64",), "so"),
    "riscv64-linux-gnu": ("riscv64-linux-gnu", ("qemu-riscv64",), "so"),
    "riscv64-linux-gnu+v": ("riscv64-linux-gnu", ("qemu-riscv64", "-cpu", "rv64,v=true,vext_spec=v1.0"), "so"),
    "arm-linux-gnueabihf": ("arm-linux-gnueabihf", ("qemu-arm",), "a"),
}


@pytest.fixture(scope="module")
def perceptron() -> Executable:
    return tl.compile(models.perceptron())


@pytest.mark.parametrize("target", MACHINES)
def test_another_machine_computes_the_same(perceptron: Executable, tmp_path: Path, target: str) -> None:
    system, (emulator, *options), form = MACHINES[target]
    for tool in (emulator, f"{system}-gcc"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is missing")
    perceptron.export_library(tmp_path / f"libmlp.{form}", target=target, weights="beside")
    perceptron.export_library(tmp_path / f"libmlp.{form}", target=target)
    build_driver(tmp_path, "libmlp", f"libmlp.{form}", f"{system}-gcc")
    x = np.random.default_rng(0).standard_normal((5, 16), dtype=np.float32)
    drive(tmp_path, perceptron, {"x": x}, (str(shutil.which(emulator)), *options, "-L", f"/usr/{system}"))
