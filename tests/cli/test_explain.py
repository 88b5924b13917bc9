"""`exe.explain` and `tensorlang explain`: fusion, schedules and machine code of every kernel."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

import tensorlang as tl
from tensorlang.cli.app import app
from tests.models import save_classifier


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("explain") / "model.onnx"
    save_classifier(path)
    return path


def test_every_kernel_is_explained(model):
    exe = tl.compile(model, shapes={"batch": 1})
    found = exe.explain()
    assert [k.name for k in found.kernels] == list(exe.kernels)
    assert all(k.nodes and k.schedule and k.machine["loops"] >= 0 for k in found.kernels)
    fused = [note for k in found.kernels for note in k.fusion]
    assert any("is computed where" in note for note in fused)
    text = str(found)
    assert "schedule: " in text and "innermost loops" in text and text.count("\nkernel ") == len(exe.kernels)


def test_a_saved_model_tells_what_its_program_knows(model, tmp_path):
    tl.compile(model, shapes={"batch": 1}).save(tmp_path / "m.tl")
    found = tl.load(tmp_path / "m.tl").explain(machine=False)
    assert found.kernels and not found.passes
    assert all(k.schedule and not k.fusion and not k.machine for k in found.kernels)


def test_the_command(model):
    done = CliRunner().invoke(app, ["explain", str(model), "--shapes", "batch=1", "--no-machine", "--json"])
    assert done.exit_code == 0, done.output
    kernels = json.loads(done.stdout)["kernels"]
    assert kernels and all(k["schedule"] for k in kernels)
    name = kernels[0]["name"]
    done = CliRunner().invoke(app, ["explain", str(model), "--shapes", "batch=1", "--no-machine", "--kernel", name])
    assert done.exit_code == 0 and f"kernel {name}" in done.stdout
