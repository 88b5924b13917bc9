"""`tensorlang doctor`: what this machine has, what is missing, and whether a kernel compiles and runs here."""

from __future__ import annotations

import os
import platform
import re
import sys
import tempfile
from collections import Counter
from importlib import metadata
from pathlib import Path
from typing import Any

import tensorlang
import tensorlang as tl
from tensorlang.cli import selftest
from tensorlang.cli.report import Reporter
from tensorlang.config import Settings
from tensorlang.runtime.cache import is_whole

# the instruction sets (as LLVM calls them) that matter to kernels, of the two hundred flags that a CPU may have
SHOWN_FEATURES = (
    "sse4.2", "avx", "avx2", "fma", "f16c", "avxvnni",
    "avx512f", "avx512vl", "avx512bw", "avx512vnni", "avx512bf16", "avx512fp16",
    "amx-tile", "amx-int8", "amx-bf16",
    "neon", "dotprod", "i8mm", "bf16", "fullfp16", "sve", "sve2",
)  # fmt: skip


def examine(report: Reporter, *, cache_details: bool) -> dict[str, Any]:
    """Everything that doctor reports. `ok` is False when something that the core needs does not work."""
    settings = Settings.from_env()
    with report.step("self_test", "building and running a small kernel"):
        test = self_test()
    cache = cache_report(settings.cache_dir, enabled=settings.cache, details=cache_details)
    core, extras = packages()
    targets = tensorlang._needs_report()
    missing = [name for name, version in core.items() if version is None]
    return {
        "ok": bool(test["ok"] and not missing and (cache["writable"] or not cache["enabled"])),
        "tensorlang": tl.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu_report(settings.num_threads),
        "packages": core,
        "oracle": {"onnxruntime": _version("onnxruntime")},
        "extras": extras,
        "targets": targets,
        "cache": cache,
        "self_test": test,
        "seconds": report.seconds,
    }


def self_test() -> dict[str, Any]:
    """`selftest.run`, with a failure as part of the report, whatever it is: the rest of it may explain the failure."""
    try:
        return {**selftest.run(), "error": None}
    except Exception as error:
        return {"ok": False, "error": f"{type(error).__name__}: {error}"}


def cpu_report(threads: int) -> dict[str, Any]:
    """Model, cores, caches and instruction sets of this CPU, as the code generator sees them."""
    target = tl.CpuTarget.host()
    return {
        "model": _cpu_model(),
        "architecture": platform.machine(),
        "llvm_name": target.cpu,
        "logical_cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": threads,
        "vector_bits": target.vector_bits,
        "features": [name for name in SHOWN_FEATURES if target.has(name)],
        "cache_bytes": _cpu_caches(),
    }


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or "unknown"
    found = re.search(r"^(?:model name|Model|uarch)\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1] if found else platform.processor() or "unknown"


def _cpu_caches() -> dict[str, int]:
    """Bytes by level ("L1d", "L2", "L3"), of the first core; empty where the system does not say."""
    sizes = {}
    for entry in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            level, kind, size = ((entry / name).read_text().strip() for name in ("level", "type", "size"))
        except OSError:
            continue
        if kind != "Instruction":
            unit = {"K": 1 << 10, "M": 1 << 20}.get(size[-1], 1)
            sizes["L1d" if level == "1" else f"L{level}"] = int(size.rstrip("KM")) * unit
    return sizes


def packages() -> tuple[dict[str, str | None], dict[str, dict[str, Any]]]:
    """Core dependencies by name with their installed version, and the optional extras with what each lacks.

    Both are read from the installed metadata of tensorlang, so this list is pyproject.toml's.
    """
    core: dict[str, str | None] = {}
    extras: dict[str, dict[str, Any]] = {}
    for requirement in metadata.requires("tensorlang") or []:
        name = re.match(r"[\w.-]+", requirement)
        extra = re.search(r"""extra\s*==\s*['"]([\w-]+)['"]""", requirement)
        if name and not extra:
            core[name[0]] = _version(name[0])
        elif name and extra:
            entry = extras.setdefault(extra[1], {"installed": {}, "missing": [], "install": None})
            version = _version(name[0])
            if version is None:
                entry["missing"].append(name[0])
                entry["install"] = f"pip install 'tensorlang[{extra[1]}]'"
            else:
                entry["installed"][name[0]] = version
    return core, extras


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def cache_report(folder: Path, *, enabled: bool, details: bool) -> dict[str, Any]:
    """Where the build cache is, how big, and whether it can be written; with `details`, its files by kind, each one read and
    compared with its checksum: `damaged` lists those that do not match (the next build replaces them), `unfinished` what is
    being written or was left by a process that died."""
    files = [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
    sizes: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for path in files:
        try:
            size = path.stat().st_size
        except FileNotFoundError:  # another process cleans up
            continue
        kind = path.relative_to(folder).parts[0] if path.parent != folder else "other"
        sizes[kind] += size
        counts[kind] += 1
    report: dict[str, Any] = {
        "path": str(folder),
        "enabled": enabled,
        "writable": _writable(folder),
        "files": sum(counts.values()),
        "bytes": sum(sizes.values()),
    }
    if details:
        report["kinds"] = {kind: {"files": counts[kind], "bytes": sizes[kind]} for kind in sorted(counts)}
        report["unfinished"] = sorted(str(path) for path in files if path.suffix == ".tmp")
        report["damaged"] = sorted(str(path) for path in files if path.suffix != ".tmp" and not _is_whole(path))
    return report


def _is_whole(path: Path) -> bool:
    """Whether a file of the cache is what was written: a model is an archive, everything else bytes with their checksum."""
    try:
        content = path.read_bytes()
        if tensorlang._artifact.is_archive(content):
            tensorlang._artifact.read_artifact(path, verify=True)
            return True
        return is_whole(content)
    except FileNotFoundError:  # removed by another process
        return True
    except OSError:  # an `ArtifactError` too
        return False


def _writable(folder: Path) -> bool:
    """Whether a file can be made in `folder`, or where it does not exist yet, in its nearest parent."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def render(report: Reporter, found: dict[str, Any]) -> None:
    """The report for people."""
    cpu, cache, test = found["cpu"], found["cache"], found["self_test"]
    sizes = ", ".join(f"{name} {human_bytes(size)}" for name, size in cpu["cache_bytes"].items())
    oracle = found["oracle"]["onnxruntime"]
    off = "" if cache["enabled"] else ", switched off"
    state = ("writable" if cache["writable"] else "NOT writable") + off
    report.table(
        "machine",
        ("", ""),
        [
            ("tensorlang", found["tensorlang"]),
            ("python", f"{found['python']} ({sys.executable})"),
            ("platform", found["platform"]),
            ("cpu", f"{cpu['model']} ({cpu['architecture']}, to LLVM {cpu['llvm_name']})"),
            ("cores", f"{cpu['usable_cores']} usable of {cpu['logical_cores']}; {cpu['threads']} threads"),
            ("vectors", f"{cpu['vector_bits']} bits"),
            ("features", " ".join(cpu["features"])),
            ("caches", sizes),
            ("oracle", f"onnxruntime {oracle}" if oracle else "none; to check models: pip install 'tensorlang[test]'"),
            ("build cache", f"{cache['path']} ({cache['files']} files, {human_bytes(cache['bytes'])}, {state})"),
        ],
    )
    for kind, entry in cache.get("kinds", {}).items():
        report.out.print(f"  {kind}: {entry['files']} files, {human_bytes(entry['bytes'])}", markup=False)
    for state in ("damaged", "unfinished"):
        for path in cache.get(state, ()):
            report.out.print(f"  {state}: {path}", markup=False)
    if "damaged" in cache:
        report.out.print(f"  {cache['files'] - len(cache['damaged'])} of {cache['files']} files are whole", markup=False)
    report.table("packages", ("name", "version"), [(n, v or "MISSING") for n, v in found["packages"].items()])
    rows = []
    for name, extra in found["extras"].items():
        has = " ".join(f"{package} {version}" for package, version in extra["installed"].items())
        rows.append((name, has, " ".join(extra["missing"]) or "nothing", extra["install"] or ""))
    report.table("optional", ("extra", "installed", "missing", "to add it"), rows)
    rows = []
    for name, target in found["targets"].items():
        has = ", ".join(f"{what}: {value}" for what, value in target["found"].items())
        rows.append((name, has, ", ".join(target["missing"]) or "nothing", "; ".join(target["install"])))
    report.table("targets", ("target", "has", "missing", "to add it"), rows)
    if test["ok"]:
        report.out.print(
            f"self-test: ok, a kernel compiled and ran in {test['first_call_s']:.2f} s, error {test['max_error']:.1e}"
        )
    else:
        reason = test.get("error") or f"wrong result, error {test['max_error']:.1e}"
        report.out.print(f"self-test: FAILED, {reason}", markup=False)


def human_bytes(count: float) -> str:
    """1536 -> "1.5 KiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
