"""What this machine's processor is, as LLVM sees it: saved models name what they need."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from tensorlang.errors import ArtifactError


@cache
def host_triple() -> str:
    """The process's target triple, such as x86_64-unknown-linux-gnu."""
    import llvmlite.binding as llvm  # a third party, 20 ms: only where code is loaded

    return str(llvm.get_process_triple())


@cache
def host_features() -> frozenset[str]:
    """The CPU features of this machine by LLVM's names: avx2, avx512f, neon..."""
    import llvmlite.binding as llvm

    return frozenset(name for name, on in llvm.get_host_cpu_features().items() if on)


def require_machine(triple: str, features: Sequence[str], what: str) -> None:
    """Refuse code that this machine cannot run, rather than die of an illegal instruction.

    Raises:
        ArtifactError: the architecture differs or a feature is missing.
    """
    if triple.split("-")[0] != host_triple().split("-")[0]:
        raise ArtifactError(f"{what} is for {triple}; this machine is {host_triple()}")
    if missing := sorted(set(features) - host_features()):
        raise ArtifactError(f"{what} needs CPU features that this machine lacks: {', '.join(missing)}")
