"""What a result was measured on: the machine and the versions, for the JSON beside the numbers."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from datetime import UTC, datetime
from pathlib import Path

_DISTRIBUTIONS = (
    "tensorlang",
    "numba",
    "llvmlite",
    "numpy",
    "sympy",
    "islpy",
    "onnx",
    "onnxruntime",
    "openvino",
    "torch",
)


def versions() -> dict[str, str]:
    """Installed versions of everything that matters to a result."""
    found = {"python": platform.python_version()}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def describe() -> dict[str, object]:
    """Processor, its flags, cores allowed to this process, memory, system, load, and the time now (UTC)."""
    processor, flags = _processor()
    return {
        "processor": processor,
        "flags": flags,
        "architecture": platform.machine(),
        "cores": cores(),
        "memory_gib": _memory_gib(),
        "system": platform.platform(),
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor() -> tuple[str, list[str]]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine(), []
    fields: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(":")
        fields.setdefault(key.strip().lower(), value.strip())
    # x86 says "flags", ARM "features".
    flags = fields.get("flags") or fields.get("features") or ""
    return fields.get("model name") or platform.machine(), sorted(flags.split())


def _memory_gib() -> float | None:
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
