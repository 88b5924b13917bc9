"""`tensorlang doctor`: the report, and the exit code that a script reads. (The real self-test: test_end_to_end.py.)"""

from __future__ import annotations

import os
from importlib import metadata

import numpy as np
import pytest

import tensorlang as tl
from tensorlang.cli import doctor, selftest
from tensorlang.runtime.artifact import FORMAT, Artifact, write_artifact
from tensorlang.runtime.cache import ContentCache
from tests.cli.conftest import invoke, invoke_json

PASSED = {"ok": True, "max_error": 0.0, "first_call_s": 0.1, "second_call_s": 1e-5}


@pytest.fixture(autouse=True)
def self_test(monkeypatch):
    monkeypatch.setattr(selftest, "run", lambda: dict(PASSED))


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    folder = tmp_path / "cache"
    monkeypatch.setenv("TENSORLANG_CACHE_DIR", str(folder))
    return folder


def test_reports_the_machine(monkeypatch):
    monkeypatch.setenv("TENSORLANG_NUM_THREADS", "3")
    found = invoke_json("doctor")
    assert found["ok"] and found["tensorlang"] == tl.__version__
    cpu = found["cpu"]
    assert cpu["threads"] == 3 and 1 <= cpu["usable_cores"] <= cpu["logical_cores"]
    assert cpu["vector_bits"] in (128, 256, 512)
    assert cpu["vector_bits"] != 512 or "avx512f" in cpu["features"]


def test_core_packages_are_pyprojects():
    core = invoke_json("doctor")["packages"]
    assert {"numba", "llvmlite", "numpy", "sympy", "islpy", "onnx", "ml_dtypes", "typer", "rich"} == set(core)
    assert core["numba"] == metadata.version("numba")


def test_names_the_oracle(monkeypatch):
    assert invoke_json("doctor")["oracle"] == {"onnxruntime": metadata.version("onnxruntime")}
    installed = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "onnxruntime" else installed(name))
    assert invoke_json("doctor")["oracle"] == {"onnxruntime": None}  # an extra: doctor still passes
    assert "none; to check models: pip install 'tensorlang[test]'" in invoke("doctor").stdout


def test_missing_extra_comes_with_the_line_that_adds_it(monkeypatch):
    monkeypatch.setattr(metadata, "requires", lambda name: ["numpy>=2", "no_such_package>=1; extra == 'plot'"])
    found = invoke_json("doctor")
    assert found["extras"] == {
        "plot": {"installed": {}, "missing": ["no_such_package"], "install": "pip install 'tensorlang[plot]'"}
    }
    assert found["ok"]  # an extra is optional
    assert "pip install 'tensorlang[plot]'" in invoke("doctor").stdout


def test_missing_core_package_fails(monkeypatch):
    monkeypatch.setattr(metadata, "requires", lambda name: ["no_such_package>=1"])
    assert invoke_json("doctor", code=1)["packages"] == {"no_such_package": None}
    assert "MISSING" in invoke("doctor", code=1).stdout


def test_failed_self_test_fails_and_says_why(monkeypatch):
    def broken():
        raise tl.errors.BuildError("no target called 'cpu'")

    monkeypatch.setattr(selftest, "run", broken)
    assert invoke_json("doctor", code=1)["self_test"] == {"ok": False, "error": "BuildError: no target called 'cpu'"}
    assert "FAILED, BuildError: no target" in invoke("doctor", code=1).stdout


def test_wrong_self_test_result_fails(monkeypatch):
    monkeypatch.setattr(selftest, "run", lambda: {**PASSED, "ok": False, "max_error": 0.5})
    assert "FAILED, wrong result" in invoke("doctor", code=1).stdout


def test_cache_size_and_kinds(cache):
    store = ContentCache(cache / "native")
    store.put("ab" + "0" * 62, b"x" * 100)
    store.put("cd" + "0" * 62, b"x" * 50)
    good = 150 + 2 * 36  # bytes with their checksums
    (cache / "k.o").write_bytes(b"x" * 7)
    assert "kinds" not in invoke_json("doctor")["cache"]
    report = invoke_json("doctor", "--cache")["cache"]
    assert (report["path"], report["files"], report["bytes"], report["writable"]) == (str(cache), 3, good + 7, True)
    assert report["kinds"] == {"native": {"files": 2, "bytes": good}, "other": {"files": 1, "bytes": 7}}
    assert f"native: 2 files, {good} B" in invoke("doctor", "--cache").stdout


def test_damaged_and_unfinished_files_of_the_cache_are_named(cache, tmp_path):
    store = ContentCache(cache / "native")
    key = "ab" + "0" * 62
    store.put(key, b"some value")
    models = cache / "models" / "cd"
    artifact = Artifact({"format": FORMAT}, "source", {}, np.arange(100, dtype=np.uint8))
    for name in ("good", "bad"):
        write_artifact(artifact, models / name)
    report = invoke_json("doctor", "--cache")["cache"]
    assert report["damaged"] == report["unfinished"] == []
    (cache / "native" / "ab" / "x.tmp").write_bytes(b"half")
    path = store.path(key)
    path.write_bytes(path.read_bytes()[:-1])
    whole = (models / "bad").read_bytes()
    at = whole.index(bytes(range(100))) + 50
    (models / "bad").write_bytes(whole[:at] + b"?" + whole[at + 1 :])
    report = invoke_json("doctor", "--cache")["cache"]
    assert report["damaged"] == sorted([str(path), str(models / "bad")])
    assert report["unfinished"] == [str(cache / "native" / "ab" / "x.tmp")]
    assert "2 of 4 files are whole" in invoke("doctor", "--cache").stdout


def test_looking_at_the_cache_does_not_make_it(cache):
    assert invoke_json("doctor")["cache"]["writable"] and not cache.exists()


def test_unwritable_cache_fails_unless_switched_off(monkeypatch, tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("a file where a folder should be")
    monkeypatch.setenv("TENSORLANG_CACHE_DIR", str(blocker))
    assert not invoke_json("doctor", code=1)["cache"]["writable"]
    monkeypatch.setenv("TENSORLANG_CACHE", "0")
    assert invoke_json("doctor")["cache"]["enabled"] is False


def test_human_bytes():
    assert [doctor.human_bytes(n) for n in (0, 1023, 1536, 5 << 20, 3 << 40)] == [
        "0 B", "1023 B", "1.5 KiB", "5.0 MiB", "3.0 TiB",
    ]  # fmt: skip


def test_usable_cores_are_the_processs_own():
    if hasattr(os, "sched_getaffinity"):
        assert invoke_json("doctor")["cpu"]["usable_cores"] == len(os.sched_getaffinity(0))


def test_targets_are_listed_with_what_they_need(monkeypatch):
    found = invoke_json("doctor")["targets"]
    assert found["cpu"]["ok"] and "processor" in found["cpu"]["found"]
    assert found["onnxruntime"]["ok"] and {"c", "cuda", "opencl"} <= set(found)


def test_what_a_target_lacks_is_listed_with_the_command_that_adds_it(monkeypatch):
    from tensorlang.build.c import CSource
    from tensorlang.codegen.target import Need

    monkeypatch.setattr(CSource, "needs", lambda self: [Need("a C compiler", "", "apt-get install gcc")])
    assert invoke_json("doctor")["targets"]["c"] == {
        "ok": False, "found": {}, "missing": ["a C compiler"], "install": ["apt-get install gcc"],
    }  # fmt: skip
    assert "apt-get install gcc" in invoke("doctor").stdout
