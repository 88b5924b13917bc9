"""What a build costs: CPU seconds, cold (an empty cache) and warm (the same cache), each in a fresh process.

Python's own bytecode is compiled before, as an installed package has it.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich import box
from rich.table import Table

from bench import cache, models, report
from bench.compare import Subject
from bench.feeds import Feeds

_LIMIT_SECONDS = 1800


@dataclass(frozen=True)
class Build:
    """One build in a fresh process. ``compile_*`` are the compile call alone; ``process_cpu`` has interpreter, imports
    and one run too.

    ``report`` is the executable's own account, stage to seconds (empty where it gives none). Seconds everywhere.
    """

    compile_cpu: float
    compile_wall: float
    process_cpu: float
    first_run_wall: float
    peak_memory_mib: float
    report: Mapping[str, float]


@dataclass(frozen=True)
class BuildCost:
    """Cold and warm build of one model; ``error`` where the build failed."""

    name: str
    cold: Build | None
    warm: Build | None
    error: str = ""


def measure(subject: Subject, threads: int, static: bool = True) -> BuildCost:
    """Build ``subject`` twice, each time in a fresh process, with a cache directory that is empty the first time."""
    with tempfile.TemporaryDirectory(prefix="tensorlang-bench-") as folder:
        feeds = Path(folder) / "feeds.npz"
        write_feeds(feeds, subject.feeds)
        command = [
            sys.executable,
            "-m",
            "bench.build_child",
            str(subject.path),
            str(threads),
            *([str(feeds)] if static else []),
        ]
        environment = _environment(Path(folder) / "cache", threads)
        builds: list[Build] = []
        for _ in ("cold", "warm"):
            try:
                builds.append(_child(command, environment))
            except cache.BenchError as error:
                return BuildCost(subject.name, builds[0] if builds else None, None, str(error))
        return BuildCost(subject.name, builds[0], builds[1])


def write_feeds(path: Path, feeds: Feeds) -> None:
    """An .npz by hand: np.savez has arguments that inputs may be called."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in feeds.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _environment(cache_folder: Path, threads: int) -> dict[str, str]:
    _write_bytecode()
    return with_bytecode({"TENSORLANG_CACHE_DIR": str(cache_folder), "TENSORLANG_NUM_THREADS": str(threads)})


def with_bytecode(settings: Mapping[str, str]) -> dict[str, str]:
    """This process's environment and these settings, for a child that writes its bytecode to the benchmark's own folder."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**inherited, "PYTHONPYCACHEPREFIX": str(cache.directory("bytecode")), **settings}


@functools.cache
def _write_bytecode() -> None:
    """One small build that is not counted: it imports what builds import."""
    with tempfile.TemporaryDirectory(prefix="tensorlang-bench-") as folder:
        command = [sys.executable, "-m", "bench.build_child", str(models.path("mlp")), "1"]
        _child(command, with_bytecode({"TENSORLANG_CACHE_DIR": folder}))


def _child(command: Sequence[str], environment: Mapping[str, str]) -> Build:
    try:
        done = subprocess.run(
            command,
            env=environment,
            cwd=Path(__file__).parent.parent,
            capture_output=True,
            text=True,
            check=False,
            timeout=_LIMIT_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise cache.BenchError(f"no end within {_LIMIT_SECONDS} s") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise cache.BenchError(lines[-1] if lines else f"exit code {done.returncode} and not a word")
    return Build(**{"first_run_wall": 0.0, **json.loads(done.stdout.strip().splitlines()[-1])})


def as_json(cost: BuildCost) -> dict[str, object]:
    return asdict(cost)


def table(costs: Sequence[BuildCost]) -> Table:
    result = Table(title="build cost, seconds, each in a fresh process", box=box.SIMPLE_HEAD, title_justify="left")
    result.add_column("")
    for heading in ("cold CPU", "cold wall", "warm CPU", "warm wall", "warm process CPU", "first run", "peak MiB"):
        result.add_column(heading, justify="right")
    result.add_column("where the cold build's time goes")
    for cost in costs:
        if cost.cold is None or cost.warm is None:
            result.add_row(cost.name, *[""] * 7, f"failed: {cost.error}", style="bold red")
            continue
        cold, warm = cost.cold, cost.warm
        stages = sorted(cold.report.items(), key=lambda item: -item[1])
        result.add_row(
            cost.name,
            f"{cold.compile_cpu:.2f}",
            f"{cold.compile_wall:.2f}",
            f"{warm.compile_cpu:.2f}",
            f"{warm.compile_wall:.2f}",
            f"{warm.process_cpu:.2f}",
            report.seconds(warm.first_run_wall),
            f"{cold.peak_memory_mib:.0f}",
            ", ".join(f"{stage} {value:.2f}" for stage, value in stages if value >= 0.01),
        )
    return result
