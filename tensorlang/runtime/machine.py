"""What this machine's processor is, by LLVM's names: saved models name what they need. Read from the system, not from LLVM."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from tensorlang.errors import ArtifactError

_ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}
_SYSTEMS = {"linux": "unknown-linux-gnu", "darwin": "apple-darwin", "win32": "pc-windows-msvc"}
# Linux's name of a feature -> LLVM's, where they differ by more than underscores
_LLVM_NAMES = {
    "pni": "sse3", "sse4_1": "sse4.1", "sse4_2": "sse4.2", "abm": "lzcnt", "bmi1": "bmi", "pclmulqdq": "pclmul", "lm": "64bit",
    "rdrand": "rdrnd", "lahf_lm": "sahf", "3dnowprefetch": "prfchw", "sha_ni": "sha",
    "avx512_bitalg": "avx512bitalg", "avx512_vpopcntdq": "avx512vpopcntdq", "amx_bf16": "amx-bf16", "amx_int8": "amx-int8",
    "amx_tile": "amx-tile", "asimdfhm": "fp16fml", "asimd": "neon", "fp": "fp-armv8", "asimddp": "dotprod", "fphp": "fullfp16",
    "asimdhp": "fullfp16", "atomics": "lse", "crc32": "crc", "asimdrdm": "rdm", "lrcpc": "rcpc",
}  # fmt: skip
_IMPLIED = {"sse4_2": ("crc32",), "asimd": ("fp-armv8",)}


@cache
def host_triple() -> str:
    """This machine's target triple, such as x86_64-unknown-linux-gnu."""
    machine = os.uname().machine if hasattr(os, "uname") else os.environ.get("PROCESSOR_ARCHITECTURE", "unknown").lower()
    return f"{_ARCHITECTURES.get(machine, machine)}-{_SYSTEMS.get(sys.platform, sys.platform)}"


@cache
def host_features() -> frozenset[str]:
    """The CPU features of this machine by LLVM's names: avx2, avx512f, neon...; empty where the system does not tell."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return frozenset()
    match = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    found: set[str] = set()
    for flag in match[1].split() if match else ():
        found.add(_LLVM_NAMES.get(flag, flag))
        found.add(flag.replace("_", ""))
        found.update(_IMPLIED.get(flag, ()))
    return frozenset(found)


@cache
def first_level_cache() -> tuple[int, int] | None:
    """Bytes of a core's first-level data cache, and how many lines share a set; None where the system does not tell."""
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            level, kind, size, ways = (
                (folder / name).read_text().strip() for name in ("level", "type", "size", "ways_of_associativity")
            )
            if level == "1" and kind == "Data" and size.endswith("K") and int(ways) > 0:
                return int(size[:-1]) * 1024, int(ways)
        except (OSError, ValueError):
            continue
    return None


def require_machine(triple: str, features: Sequence[str], what: str) -> None:
    """Refuse code that this machine cannot run, rather than die of an illegal instruction.

    Raises:
        ArtifactError: the architecture differs or a feature is missing.
    """
    if triple.split("-")[0] != host_triple().split("-")[0]:
        raise ArtifactError(f"{what} is for {triple}; this machine is {host_triple()}")
    if missing := sorted(set(features) - host_features()) if host_features() else []:
        raise ArtifactError(f"{what} needs CPU features that this machine lacks: {', '.join(missing)}")
