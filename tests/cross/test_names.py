"""Names of machines, what follows from them, and that code for one machine does not run on another."""

import json
import re

import numpy as np
import pytest

import tensorlang as tl
from tensorlang import te
from tensorlang.build import machine_of
from tensorlang.codegen.native import CpuTarget
from tensorlang.codegen.native.machine_code import hot_loops
from tensorlang.codegen.native.target import target_names
from tensorlang.errors import ArtifactError, BuildError
from tests.e2e.models import perceptron


@te.compute
def product(x: te.f32[64, 96], w: te.f32[96, 64]):  # noqa: UP037
    k = te.reduce_axis(96, name="k")
    return te.compute((64, 64), lambda i, j: te.sum(x[i, k] * w[k, j], axis=k), name="y")


@pytest.mark.parametrize(
    ("name", "architecture", "vector_bytes", "registers", "pointer_bits"),
    [
        ("x86-64", "x86_64", 16, 16, 64),
        ("x86-64-v2", "x86_64", 16, 16, 64),
        ("x86-64-v3", "x86_64", 32, 16, 64),
        ("x86-64-v4", "x86_64", 64, 32, 64),
        ("aarch64-linux-gnu", "aarch64", 16, 32, 64),
        ("arm-linux-gnueabihf", "armv7", 16, 16, 32),
        ("riscv64-linux-gnu", "riscv64", 16, 8, 64),
        ("riscv64-linux-gnu+v", "riscv64", 16, 32, 64),
        ("riscv64-linux-gnu+v+zvl256b", "riscv64", 32, 32, 64),
        ("wasm32", "wasm32", 16, 16, 32),
    ],
)
def test_what_schedules_may_know(name, architecture, vector_bytes, registers, pointer_bits):
    target = CpuTarget.parse(name)
    machine = machine_of(target, 2)
    assert (target.architecture, target.pointer_bits) == (architecture, pointer_bits)
    assert (machine.vector_bytes, machine.vector_registers) == (vector_bytes, registers)


def test_no_machine_has_the_hosts_features():
    for name in target_names():
        assert CpuTarget.parse(name).cpu == ""
    assert not CpuTarget.parse("aarch64-linux-gnu").has("avx")
    assert not CpuTarget.parse("x86-64-v3").has("avx512f")


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("aarch64", "aarch64-linux-gnu"), ("arm64", "aarch64-linux-gnu"), ("aarch64-unknown-linux-gnu", "aarch64-linux-gnu"),
        ("armv7", "arm-linux-gnueabihf"), ("armv7-unknown-linux-gnueabihf", "arm-linux-gnueabihf"),
        ("riscv64+v", "riscv64-linux-gnu+v"), ("wasm32-unknown-unknown", "wasm32"), ("x86_64-pc-linux-gnu", "x86-64"),
    ],
)  # fmt: skip
def test_other_spellings(spelling, name):
    assert CpuTarget.parse(spelling) == CpuTarget.parse(name) is not None


@pytest.mark.parametrize("name", ["sparc", "aarch64-apple-darwin", "x86-64-v9", ""])
def test_no_machine(name):
    assert CpuTarget.parse(name) is None


def test_an_unknown_feature_is_refused():
    with pytest.raises(BuildError, match=r"aarch64-linux-gnu has no feature avx2; there is: .*dotprod"):
        tl.build(product, target="aarch64-linux-gnu+avx2")


@pytest.mark.parametrize(
    ("target", "instruction", "foreign"),
    [
        ("aarch64-linux-gnu", r"fmla\s+v\d+\.4s", r"%[xyz]mm"),
        ("arm-linux-gnueabihf", r"v(fma|mla)\.f32\s+q\d+", r"%[xyz]mm"),
        ("riscv64-linux-gnu+v", r"vfmacc\.v[vf]", r"%[xyz]mm"),
        ("riscv64-linux-gnu", r"fmadd\.s", r"\bvset[i]?vli"),
        ("wasm32", r"f32x4\.mul", r"%[xyz]mm"),
        ("x86-64-v3", r"vfmadd\d+ps.*%ymm", r"%zmm|vpternlog"),
        ("x86-64-v2", r"mulps.*%xmm", r"%[yz]mm|vfmadd"),
    ],
)
def test_a_product_uses_the_machines_own_instructions(target, instruction, foreign):
    asm = tl.build(product, target=target).asm
    assert re.search(instruction, asm)
    assert not re.search(foreign, asm)
    assert "llvm.x86" not in asm


@pytest.mark.parametrize("target", ["aarch64-linux-gnu", "riscv64-linux-gnu+v", "x86-64-v2"])
def test_the_innermost_loop_keeps_its_sums_in_vector_registers(target):
    found = hot_loops(tl.build(product, target=target).asm)
    assert found.loops >= 1
    assert (found.spills, found.vector_bits) == (0, 128)


def test_a_kernel_for_another_machine_does_not_run_here():
    kernel = tl.build(product, target="riscv64-linux-gnu")
    with pytest.raises(BuildError, match="cannot run code for riscv64"):
        kernel(np.ones((64, 96), np.float32), np.ones((96, 64), np.float32))


@pytest.mark.parametrize(("target", "named"), [("aarch64-linux-gnu", "aarch64-unknown-linux-gnu"), ("wasm32", "wasm32")])
def test_a_model_for_another_machine_is_made_and_saved_and_does_not_run_here(target, named, tmp_path):
    exe = tl.compile(perceptron(batch=2), target=target)
    exe.save(tmp_path / "m.tl")
    with pytest.raises(ArtifactError, match=f"perceptron is for {named}.*; this machine is .* Save or export it"):
        exe(np.ones((2, 16), np.float32))
    with pytest.raises(ArtifactError, match=f"is for {named}"):
        tl.load(tmp_path / "m.tl")


def test_a_model_leaves_as_a_webassembly_module(tmp_path):
    exe = tl.compile(perceptron(batch=2))
    files = exe.export_library(tmp_path / "m.wasm", target="wasm32")
    assert [f.name for f in files] == ["m.wasm", "m.weights", "m.h", "m.json", "m.mjs"]
    code = files[0].read_bytes()
    assert code[:4] == b"\0asm" and b"tl_m_create_from_memory" in code and b"pthread" not in code
    described = json.loads(files[3].read_text())
    assert described["prefix"] == "tl_m" and [v["name"] for v in described["outputs"]] == ["probs", "hidden"]
    with pytest.raises(ArtifactError, match=r"exported as a module; name it m\.wasm"):
        exe.export_library(tmp_path / "m.so", target="wasm32")
