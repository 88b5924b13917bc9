"""Libraries for other processors, in C programs for those, under emulation: they compute what Python does."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import tensorlang as tl
from tensorlang.codegen.elf import link_shared, read_object
from tensorlang.codegen.native.arm_support import support_objects
from tensorlang.codegen.native.target import CpuTarget
from tensorlang.runtime.executable import Executable
from tests.deploy.libraries import build_driver, drive, gcc, parsed, run
from tests.e2e import models

pytestmark = pytest.mark.deploy

# target -> C compiler, emulator and its arguments, form of library
MACHINES = {
    "aarch64-linux-gnu": ("aarch64-linux-gnu", ("qemu-aarch64",), "so"),
    "riscv64-linux-gnu": ("riscv64-linux-gnu", ("qemu-riscv64",), "so"),
    "riscv64-linux-gnu+v": ("riscv64-linux-gnu", ("qemu-riscv64", "-cpu", "rv64,v=true,vext_spec=v1.0"), "so"),
    "arm-linux-gnueabihf": ("arm-linux-gnueabihf", ("qemu-arm",), "so"),
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


ARM_GCC, ARM_QEMU = "arm-linux-gnueabihf-gcc", "qemu-arm"
ARM_ROOT = "/usr/arm-linux-gnueabihf"
needs_arm = pytest.mark.skipif(not (shutil.which(ARM_GCC) and shutil.which(ARM_QEMU)), reason="Arm compiler or qemu is missing")

CONVOLUTIONS = """convolutions (float[N, 3, 16, 16] x, int64[N] k) => (float[N, 4] y, float[N] z, int64[N] q) {
     w = RandomNormal <dtype = 1, seed = 3.0, shape = [8, 3, 3, 3]> ()
     v = RandomNormal <dtype = 1, seed = 4.0, shape = [4, 8, 1, 1]> ()
     five = Constant <value = int64 {5}> ()
     a = Conv <pads = [1, 1, 1, 1]> (x, w)
     b = Relu(a)
     c = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (b)
     d = Conv(c, v)
     e = GlobalAveragePool(d)
     y = Flatten(e)
     q = Div(k, five)
     z = Cast <to = 1> (q)
   }"""


@needs_arm
def test_a_static_library_for_32_bit_arm(perceptron: Executable, tmp_path: Path) -> None:
    perceptron.export_library(tmp_path / "libmlp.a", target="armv7", weights="beside")
    perceptron.export_library(tmp_path / "libmlp.a", target="armv7")
    build_driver(tmp_path, "libmlp", "libmlp.a", ARM_GCC)
    x = np.random.default_rng(0).standard_normal((5, 16), dtype=np.float32)
    drive(tmp_path, perceptron, {"x": x}, (ARM_QEMU, "-L", ARM_ROOT))


@needs_arm
def test_convolutions_and_64_bit_integers_on_32_bit_arm(tmp_path: Path) -> None:
    """Its library brings what Arm has no instructions for: it needs libc alone, when it is loaded at run time too."""
    exe = tl.compile(parsed(CONVOLUTIONS))
    exe.export_library(tmp_path / "libnet.so", target="armv7", weights="beside")
    exe.export_library(tmp_path / "libnet.so", target="armv7")
    build_driver(tmp_path, "libnet", "libnet.so", ARM_GCC)
    random = np.random.default_rng(0)
    feeds = {
        "x": random.standard_normal((2, 3, 16, 16), dtype=np.float32),
        "k": np.array([(1 << 40) + 3, -(1 << 35) - 7]),
    }
    drive(tmp_path, exe, feeds, (ARM_QEMU, "-L", ARM_ROOT))
    (tmp_path / "open.c").write_text(
        "#include <dlfcn.h>\n#include <stdio.h>\nint main(void) {\n"
        '  void *library = dlopen("./libnet.so", RTLD_NOW | RTLD_LOCAL);\n'
        "  if (library == NULL) { puts(dlerror()); return 1; }\n"
        '  return dlsym(library, "tl_net_create") == NULL || dlclose(library) != 0;\n}\n'
    )
    gcc(tmp_path, "-o", "open", "open.c", "-ldl", compiler=ARM_GCC)
    run(tmp_path, str(shutil.which(ARM_QEMU)), "-L", ARM_ROOT, "./open")


@needs_arm
def test_the_functions_that_arm_has_no_instructions_for(tmp_path: Path) -> None:
    """Divisions and conversions against the compiler's own, on 20,000 operands of all magnitudes."""
    (code,) = support_objects(CpuTarget.parse("armv7") or CpuTarget.host())
    names = [s.name for s in read_object(code).symbols if s.name.startswith("__aeabi_")]
    assert len(names) == 14
    (tmp_path / "libsupport.so").write_bytes(link_shared([code], names))
    source = Path(__file__).with_name("arm_support.c")
    build = [ARM_GCC, "-std=gnu99", "-O1", "-Wall", "-Werror", "-o", str(tmp_path / "check"), str(source), "-ldl"]
    subprocess.run(build, check=True, timeout=120)
    assert run(tmp_path, str(shutil.which(ARM_QEMU)), "-L", ARM_ROOT, "./check", "./libsupport.so") == "0 differences\n"
