"""The machine that code is made for."""

from __future__ import annotations

import llvmlite.binding as llvm
import pytest

from tensorlang.codegen.native import target


def test_features_that_no_name_of_ours_has_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor newer than this compiler: what LLVM finds in it is used as far as the loader can look for it."""
    found = {"avx2": True, "fma": True, "avx512f": False, "avx99.9": True}
    monkeypatch.setattr(llvm, "get_host_cpu_features", lambda: found)
    monkeypatch.setattr(llvm, "get_process_triple", lambda: "x86_64-unknown-linux-gnu")
    host = target._host.__wrapped__()
    assert host.features == "+avx2,-avx512f,-avx99.9,+fma"


def test_a_machine_of_no_family_is_what_llvm_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llvm, "get_host_cpu_features", lambda: {"vector": True})
    monkeypatch.setattr(llvm, "get_process_triple", lambda: "s390x-unknown-linux-gnu")
    assert target._host.__wrapped__().features == "+vector"
